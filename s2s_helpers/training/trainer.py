"""Training: batches to gradients, gradients to steps, epochs with validation, the best kept.

`Seq2SeqTrainer` is a `treadmill.Trainer`: its config, callbacks and names. What Treadmill does
wrongly is put right in `repairs.py`; what an exact resume needs is in `checkpoint.py`.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel
from treadmill import Callback, TrainingConfig
from treadmill.callbacks import GradientClipping

from s2s_helpers.files import as_seed, save_file
from s2s_helpers.loss import Seq2SeqLoss, total_loss, total_of
from s2s_helpers.metrics import perplexity
from s2s_helpers.training import checkpoint
from s2s_helpers.training.average import average_of
from s2s_helpers.training.config import EpochSoFar, History
from s2s_helpers.training.distributed import Processes, batches_per_step
from s2s_helpers.training.repairs import RepairedTrainer, in_notebook
from s2s_helpers.training.schedules import Schedule
from s2s_helpers.vocabulary import PAD


class StopTraining(KeyboardInterrupt):
    """What a callback raises to end the training after the batch at hand, as an interrupt does."""


class Seq2SeqTrainer(RepairedTrainer):
    """Treadmill's Trainer for models whose forward(batch) returns (logits, attention).

    loss: a `Seq2SeqLoss`, or what else `loss.total_loss` takes, such as a function (logits,
    targets) -> mean over real tokens.
    metrics: {name: function}, each (logits, targets) -> mean over the real tokens of one batch;
    computed on validation only. schedule: optimiser step (from 1) -> factor of the learning rate.
    ema: decay of a running average of the weights, such as 0.995; the averaged weights are the ones
    that are validated, kept as best, and in the model at the end. monitor: what "best" and patience
    look at, by Treadmill's names ("loss" of the training; "val_loss", "val_perplexity", "val_" + a
    metric's name; default "val_loss", or "loss" without validation). mode: "min" or "max"; default
    "min" for loss and perplexity, else "max". seed: of all that is random in training; None: one is
    drawn when it begins. save_every: optimiser steps from one writing of last.pt to the next;
    None: only at the end of each epoch.

    processes: those that train together; None: those that were started (`Processes.find`). A step
    is then of `accumulate` batches on each, which `distributed.sharded_loader` deals out. Weights,
    history and files become what one process would make of the same batches. Every rank runs the
    same script, callbacks included; rank 0 alone writes files and shows progress.
    """

    def __init__(
        self, model: nn.Module, config: TrainingConfig, train_loader: Iterable,
        validation_loader: Iterable | None = None, loss: Callable | None = None,
        metrics: dict[str, Callable] | None = None, callbacks: Iterable[Callback] = (),
        schedule: Schedule | None = None, ema: float | None = None, monitor: str | None = None,
        mode: str | None = None, seed: int | None = 0, save_every: int | None = None,
        processes: Processes | None = None,
    ):  # fmt: skip
        if schedule is not None and config.scheduler is not None:
            raise ValueError("give either schedule (by step) or config.scheduler (by epoch)")
        if ema is not None and not 0 < ema < 1:
            raise ValueError(f"ema is a decay between 0 and 1, such as 0.995, got {ema}")
        if mode not in (None, "min", "max"):
            raise ValueError(f'mode is "min" or "max", got {mode!r}')
        if save_every is not None and save_every < 1:
            raise ValueError(f"save_every must be at least 1 step, got {save_every}")
        if clash := {"loss", "perplexity"} & set(metrics or ()):
            raise ValueError(f"metric names that are already taken: {sorted(clash)}")
        self.schedule, self.ema, self.save_every = schedule, ema, save_every
        self.seed = self.base_seed = None if seed is None else as_seed(seed)
        self.monitor = monitor or ("loss" if validation_loader is None else "val_loss")
        lower = self.monitor.endswith(("loss", "perplexity"))
        self.mode = mode or ("min" if lower else "max")
        super().__init__(
            model, config, train_loader, validation_loader,
            Seq2SeqLoss() if loss is None else loss, metrics, callbacks,
            Processes.find() if processes is None else processes,
        )  # fmt: skip
        self._history = History()
        self.step = 0  # optimiser steps done
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.average: AveragedModel | None = None  # with `ema`, while `fit` runs
        self.best_value = math.inf if self.mode == "min" else -math.inf
        self.best_weights: dict[str, Tensor] | None = None
        self.epoch_so_far = EpochSoFar()
        self._group_loss, self._group_tokens = 0.0, 0
        self._check_names()

    # Training

    def fit(self, resume: bool | None = None, restore_best: bool = True) -> History:
        """Train, and return the `History`.

        With config.checkpoint_dir, last.pt is written there at the end of every epoch and after
        `save_every` steps, and best.pt after the best epoch so far. A run goes on from last.pt, in
        this trainer or a new one like it, on any number of processes, and ends with the same
        weights to the bit as a run never stopped; one that is finished returns its history.
        config.epochs counts from the very start. resume=False starts anew and overwrites; True
        demands a last.pt; None (or what config.resume_training says) takes one that is there.

        If there is validation, the model ends with the best weights, or with restore_best=False
        the last ones. An interrupt (Ctrl-C, the stop button) ends it so at once; in a script it
        then goes on its way.

        Raises ValueError where a pair is longer than the model's positions or last.pt is of another
        run, RuntimeError where this trainer has run and has no last.pt to go on from,
        FloatingPointError where loss or gradient is not finite; the model then has the best weights
        if there are any.
        """
        # Treadmill's own prints panels and a report that differ from run to run.
        resume = self._resumes(resume)
        if not resume and self.step:
            return self.history
        self._check_names()
        self._check_loaders()
        self._call_callbacks("on_train_start")
        if resume:
            self.load_checkpoint(self._path("last.pt"))
        else:
            self._begin()
        try:
            batches = len(self.train_dataloader)
        except TypeError:  # of a stream nobody knows
            batches = 0
        done = batches * self.start_epoch + self.epoch_so_far.batches // self.processes.world
        finished = not self._is_unfinished()
        self._bar = self._progress_bar(done, batches * self.config.epochs or None, finished)
        best = restore_best and self.val_dataloader is not None
        try:
            while self._is_unfinished():
                self._fit_epoch(self.start_epoch)
        except KeyboardInterrupt as interrupt:
            self.history.stopped = "interrupted"
            if not (in_notebook() or isinstance(interrupt, StopTraining)):
                raise
        except FloatingPointError:
            best = True
            raise
        finally:
            self._bar.close()
            kept = self._leave_weights(best)
            self._call_callbacks("on_train_end")
        if self.history.stopped is None:
            self.history.stopped = "early" if self.stop_training else None
        elif self.processes.is_main:
            where = f"epoch {self.current_epoch + 1}, after {self.step} steps"
            print(f"Interrupted in {where}; the model has {kept}.")
        return self.history

    train = fit

    def _resumes(self, resume: bool | None) -> bool:
        """Whether to go on from last.pt; raises where the wish cannot be had."""
        wish = True if resume is None and self.config.resume_training else resume
        folder, there = self.config.checkpoint_dir, False
        if folder is not None and wish is not False:
            there = wish or self.processes.sums(self._path("last.pt").is_file())[0] > 0
        elif wish:
            raise ValueError("to resume, the config needs the checkpoint_dir of the earlier run")
        if not there and self.step and (wish is False or self._is_unfinished()):
            raise RuntimeError(
                f"this trainer has run {self.step} steps, and its model keeps what it learned; to "
                "go on it needs a checkpoint_dir, to start anew a new model and a new trainer"
            )
        return there

    def _is_unfinished(self) -> bool:
        return self.start_epoch < self.config.epochs and not self.stop_training

    def _begin(self) -> None:
        """Start a run at its first step."""
        if self.seed is None:
            drawn = torch.randint(2**31, ()).item() if self.processes.is_main else 0
            self.base_seed = int(self.processes.sums(drawn)[0])
        self.processes.share(chain(self.model.parameters(), self.model.buffers()))
        self.average = None if self.ema is None else self.new_average()
        self.between_epochs = checkpoint.between_epochs(self)
        if self.config.checkpoint_dir is not None:
            checkpoint.check_model(self.model)
        self.save_checkpoint()  # so that even the first epoch can be repeated

    def _fit_epoch(self, epoch: int) -> None:
        self.current_epoch = epoch
        self._started = time.perf_counter() - self.epoch_so_far.seconds
        self._bar.set_description_str(f"epoch {epoch + 1}/{self.config.epochs}", refresh=False)
        self._set_lr(self.step - self.epoch_so_far.steps)
        self._call_callbacks("on_epoch_start", epoch=epoch)
        metrics = self._train_epoch(epoch)
        if get_total_norm(self.model.parameters()).isnan():  # which the losses have not seen yet
            self._check_finite("norm of the weights", math.nan)
        record = {"epoch": epoch + 1, "train_loss": metrics["loss"]}
        if self.val_dataloader is not None and (epoch + 1) % self.config.validate_every == 0:
            validation = self._validate_epoch(epoch)
            if math.isnan(validation["loss"]):  # before such weights are saved
                self._check_finite("validation loss", math.nan)
            metrics |= {f"val_{name}": value for name, value in validation.items()}
            record |= {"validation_loss": validation.pop("loss"), **validation}
            shown = f"validation loss {record['validation_loss']:.3f}"
            self._bar.set_postfix_str(shown, refresh=False)
        self.history.epochs.append(record | {"seconds": time.perf_counter() - self._started})
        self._keep_if_best(metrics)
        self._call_callbacks("on_epoch_end", epoch=epoch, metrics=metrics)
        if self.scheduler is not None:
            plateau = isinstance(self.scheduler, ReduceLROnPlateau)
            self.scheduler.step(*[metrics.get("val_loss", metrics["loss"])] if plateau else [])
        self.start_epoch, self.epoch_so_far = epoch + 1, EpochSoFar()
        self.between_epochs = checkpoint.between_epochs(self)
        self.save_checkpoint()

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        # Treadmill drops what is left of a group at the end, and averages the last 100 batches.
        self.model.train()
        so_far, group = self.epoch_so_far, self.config.accumulate_grad_batches
        for batch_idx, batch in self._seeded_batches(epoch):
            self._call_callbacks("on_batch_start", batch_idx=batch_idx)
            metrics = self._train_step(batch, batch_idx)
            self._call_callbacks("on_batch_end", batch_idx=batch_idx, metrics=metrics)
            so_far.batches += self.processes.world
            if not self._bar.disable:
                speed = so_far.tokens / (time.perf_counter() - self._started)
                text = f"loss {metrics['loss']:.3f}, {speed:,.0f} tokens/s"
                self._bar.set_postfix_str(text, refresh=False)
                self._bar.update()
            stepped = (batch_idx + 1) % group == 0
            if stepped and self.save_every and self.step % self.save_every == 0:
                so_far.seconds = time.perf_counter() - self._started
                self.save_checkpoint()
        if self._group_tokens:
            self._optimizer_step()
        if not so_far.tokens:
            raise ValueError("the training loader has no batches")
        return {"loss": so_far.loss / so_far.tokens}

    def _seeded_batches(self, epoch: int) -> Iterator[tuple[int, Any]]:
        """This rank's batches of an epoch, numbered, without those that are done.

        Before each is made every generator gets a seed that is a function of the trainer's, the
        step, and the batch's place in the step. So what is random (dropout, scheduled sampling, a
        dataset's noise) does not hang on how many processes there are, what else drew numbers, or
        where a run was stopped.
        """
        loader, rank, world = self.train_dataloader, self.processes.rank, self.processes.world
        group = self.config.accumulate_grad_batches
        done, first_step = self.epoch_so_far.batches // world, self.step - self.epoch_so_far.steps
        for part in (loader, getattr(loader, "batch_sampler", None), getattr(loader, "sampler", 0)):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)  # the order of the data is a function of (seed, epoch)
        self._seed_generators(f"epoch {epoch}")
        batches, end = iter(loader), object()
        for number in count():
            place = rank + number % group * world
            self._seed_generators(f"{first_step + number // group} {place}")
            if (batch := next(batches, end)) is end:
                return
            if number >= done:
                yield number, batch

    def _seed_generators(self, place: str) -> None:
        seed = random.Random(f"{self.base_seed} {place}").getrandbits(32)
        random.seed(seed)
        numpy.random.seed(seed)
        if self.device.type == "cpu":  # torch's manual_seed takes longer, for devices not there
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def _train_step(self, batch: Any, batch_idx: int) -> dict[str, float]:
        # Treadmill zeroes the gradients before the batch that steps, so the earlier batches of a
        # group are lost, and weighs batches alike; here sums are added and divided by all tokens.
        group = self.config.accumulate_grad_batches
        if batch_idx % group == 0:
            self.optimizer.zero_grad()
            self._group_loss, self._group_tokens = 0.0, 0
        total, tokens, _, _ = self._total_loss(self.model, batch)
        total.backward()
        loss = total.item()
        self._group_loss += loss
        self._group_tokens += tokens
        if (batch_idx + 1) % group == 0:
            self._optimizer_step()
        return {"loss": loss / tokens, "tokens": tokens}

    def _optimizer_step(self) -> None:
        """Mean gradient over the tokens of the group on all ranks, clip, set the rate, step."""
        loss, tokens = self.processes.sums(self._group_loss, self._group_tokens)
        self._group_tokens = 0
        self._check_finite("loss", loss)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.processes.sum_gradients(parameters)
        parameters = [p for p in parameters if p.grad is not None]
        torch._foreach_mul_([p.grad for p in parameters], 1 / tokens)
        norm = clip_grad_norm_(parameters, self.config.grad_clip_norm or math.inf).item()
        self._check_finite("norm of the gradient", norm)
        for callback in self.callbacks:
            if isinstance(callback, GradientClipping):
                clip_grad_norm_(parameters, callback.max_norm, callback.norm_type)
        self._set_lr(self.step)
        self.optimizer.step()
        self.step += 1
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.epoch_so_far.steps += 1
        self.epoch_so_far.loss += loss
        self.epoch_so_far.tokens += int(tokens)
        lr = float(self.optimizer.param_groups[0]["lr"])
        record = {"step": self.step, "loss": loss / tokens, "tokens": int(tokens)}
        self.history.steps.append(record | {"lr": lr, "grad_norm": norm})

    def _set_lr(self, done: int) -> None:
        """Set the learning rate of the step after so many."""
        if self.schedule is not None:
            factor = float(self.schedule(done + 1))
            for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
                group["lr"] = factor * lr

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the {what} is {value} at step {self.step + 1}, epoch {self.current_epoch + 1}: "
                "try a smaller lr, a longer warm-up, or a smaller clip"
            )

    def _total_loss(
        self, model: nn.Module, batch: Any
    ) -> tuple[Tensor, int, Tensor | None, Tensor]:
        """Loss summed over the real tokens, their number, logits (None in training, where the loss
        does without), targets (batch, target)."""
        batch, forward = batch.to(self.device), self.config.custom_forward_fn
        # bfloat16 and not Treadmill's float16: it has float32's range, so no scaling is needed.
        with torch.autocast(self.device.type, torch.bfloat16, self.config.mixed_precision):
            if forward is None:
                return *total_loss(self.loss_fn, model, batch), batch.target_output
            logits, targets = forward(model, batch)
            return *total_of(self.loss_fn, logits, targets), logits, targets

    # Evaluation

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is validated: while `fit` runs with `ema`, that of averaged weights."""
        return self.model if self.average is None else self.average.module

    @torch.no_grad()
    def evaluate(self, loader: Iterable) -> dict[str, float]:
        """Means over all real tokens of the loader, in evaluation mode: "loss" (the trainer's own),
        "perplexity" (always without label smoothing; of words only), and every metric.

        Several processes share the loader's batches, so every rank has to call this.
        """
        # Treadmill has no evaluate; its metrics turn an error into 0.0 and see 100 batches.
        model, rank, world = self.evaluated_model, self.processes.rank, self.processes.world
        was_training = model.training
        model.eval()
        sums, tokens = dict.fromkeys(("loss", "perplexity", *self.metric_fns), 0.0), 0
        if batches_per_step(loader) is None:
            loader = islice(loader, rank, None, world)
        try:
            for batch in loader:
                total, real, logits, targets = self._total_loss(model, batch)
                tokens += real
                sums["loss"] += total.item()
                if not targets.is_floating_point():
                    flat = logits.flatten(0, 1).float(), targets.flatten()
                    entropy = F.cross_entropy(*flat, ignore_index=PAD, reduction="sum")
                    sums["perplexity"] += entropy.item()
                for name, function in self.metric_fns.items():
                    sums[name] += float(function(logits, targets)) * real
        finally:
            model.train(was_training)
        tokens, *totals = self.processes.sums(tokens, *sums.values())
        if not tokens:
            raise ValueError("the loader has no batches to evaluate")
        means = {name: total / tokens for name, total in zip(sums, totals, strict=True)}
        return means | {"perplexity": perplexity(means["perplexity"])}

    def _validate_epoch(self, epoch: int) -> dict[str, float]:
        self._call_callbacks("on_validation_start")
        metrics = self.evaluate(self.val_dataloader)
        self._call_callbacks("on_validation_end", metrics=metrics)
        return metrics

    # Averaged and best weights, checkpoints

    def new_average(self) -> AveragedModel:
        """A copy of the model, whose weights will follow the model's slowly."""
        return average_of(self.model, self.ema, lambda: self.step)

    def _keep_if_best(self, metrics: dict[str, float]) -> None:
        value = metrics.get(self.monitor, math.nan)
        if value < self.best_value if self.mode == "min" else value > self.best_value:
            self.best_value, self.history.best_epoch = value, self.current_epoch + 1
            weights = self.evaluated_model.state_dict().items()
            self.best_weights = {name: tensor.detach().clone() for name, tensor in weights}
            if self.config.checkpoint_dir is not None and self.processes.is_main:
                save_file(checkpoint.model_state(self.evaluated_model), self._path("best.pt"))

    def load_best(self) -> None:
        """Put the weights of the best epoch into the model."""
        if self.best_weights is None:
            raise RuntimeError("there are no best weights yet: no epoch has been completed")
        self.model.load_state_dict(self.best_weights)

    def _leave_weights(self, best: bool) -> str:
        """Put the best weights, or else those that were validated, into the model; says which."""
        if self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())
            self.average = None
        if best and self.best_weights is not None:
            self.load_best()
            return f"the best weights (epoch {self.history.best_epoch})"
        return "its weights"

    def _path(self, name: str) -> Path:
        return Path(self.config.checkpoint_dir) / name

    def save_checkpoint(self, filepath: str | Path | None = None) -> None:
        """Write all that an exact resume needs, atomically (default: last.pt in checkpoint_dir, if
        there is one). Treadmill's own pickles the config and every object in it."""
        if filepath or self.config.checkpoint_dir is not None:
            if self.processes.is_main:
                save_file(checkpoint.training_state(self), filepath or self._path("last.pt"))
            self.processes.wait_for_all()

    def load_checkpoint(self, filepath: str | Path) -> None:
        """Take up what `save_checkpoint` wrote, with best.pt beside it.

        Raises FileNotFoundError, or ValueError where the file is broken or of another run.
        """
        checkpoint.restore(self, Path(filepath))
