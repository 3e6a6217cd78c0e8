"""Training on Treadmill: its Trainer, config and callbacks, with the loop put right for sequences.

`Seq2SeqTrainer` is a `treadmill.Trainer`. It overrides what Treadmill 0.6.5 does wrongly for
translation; each override says what in its docstring or a comment.
"""

import math
import random
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from tqdm import tqdm
from treadmill import Callback, EarlyStopping, OptimizerConfig, Trainer, TrainingConfig
from treadmill.callbacks import GradientClipping

from s2s_helpers.files import save_file
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.metrics import perplexity
from s2s_helpers.training import checkpoint
from s2s_helpers.training.schedules import (
    Schedule,
    TeacherForcing,
    constant,
    exponential,
    inverse_sigmoid,
    inverse_square_root,
    linear,
    linear_warmup,
)
from s2s_helpers.vocabulary import PAD

__all__ = [
    "History",
    "Seq2SeqTrainer",
    "TeacherForcing",
    "constant",
    "exponential",
    "gains_by_bf16",
    "inverse_sigmoid",
    "inverse_square_root",
    "linear",
    "linear_warmup",
    "set_seed",
    "training_config",
]


def set_seed(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators (every device), before a model is built."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def gains_by_bf16() -> bool:
    """Whether this processor has instructions for bfloat16; without, float32 is the faster."""
    # PyTorch has no public function for it.
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def training_config(
    epochs: int,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    clip: float | None = 1.0,
    accumulate: int = 1,
    patience: int | None = None,
    checkpoint_dir=None,
    progress: bool = True,
    device: str = "auto",
    bf16: bool = False,
) -> TrainingConfig:
    """A Treadmill `TrainingConfig` with AdamW as Vaswani et al. 2017, section 5.3 set Adam: betas
    (0.9, 0.98), epsilon 1e-9.

    `clip` is the largest norm of the gradient, `accumulate` the number of batches to one optimiser
    step, `patience` the number of epochs without a better validation that stop the training.
    `bf16` multiplies matrices in bfloat16, 8 bits of precision in place of 24; weights, gradients,
    sums and the loss stay float32. Where `gains_by_bf16()`, large layers and vocabularies train a
    third faster; small ones gain nothing, as every new shape of a batch costs some milliseconds.
    `device="auto"` takes a GPU (CUDA, then Apple's) if there is one.
    """
    if device == "auto" and not torch.cuda.is_available() and torch.backends.mps.is_available():
        device = "mps"  # Treadmill's "auto" knows CUDA only
    # One fused kernel for all parameters: 4 times as fast on small models.
    adamw = {"betas": (0.9, 0.98), "eps": 1e-9, "fused": True}
    config = TrainingConfig(
        epochs=epochs,
        device=device,
        optimizer=OptimizerConfig("AdamW", lr=lr, weight_decay=weight_decay, params=adamw),
        grad_clip_norm=clip,
        accumulate_grad_batches=accumulate,
        early_stopping_patience=patience,
        progress_bar=progress,
        mixed_precision=bf16,
    )
    # Set late: Treadmill would add a folder named after the time, which a resumed run cannot find.
    config.checkpoint_dir = None if checkpoint_dir is None else str(checkpoint_dir)
    return config


@dataclass
class History:
    """What happened in training; plain numbers only.

    epochs: a dict each with "epoch" (from 1), "train_loss", "validation_loss", "perplexity", one
    entry for each metric, and "seconds"; without validation only the first two and the last.
    steps: a dict for each optimiser step with "step" (from 1), "loss" (per token), "lr", and
    "grad_norm" (before clipping). stopped: None, or "early", or "interrupted".
    best_epoch: the epoch of the best weights.
    """

    epochs: list[dict] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)
    stopped: str | None = None
    best_epoch: int | None = None

    def to_dict(self) -> dict:
        """Plain lists and dicts, for json or a checkpoint."""
        return asdict(self)


class Seq2SeqTrainer(Trainer):
    """Treadmill's Trainer for models whose forward(batch) returns (logits, attention).

    loss: a `Seq2SeqLoss`, or any function (logits, targets) -> mean over real tokens.
    metrics: {name: function}, each (logits, targets) -> mean over the real tokens of one batch;
    computed on validation only. schedule: optimiser step (from 1) -> factor of the learning rate.
    ema: decay of a running average of the weights, such as 0.995; the averaged weights are the ones
    that are validated, kept as best, and in the model at the end. monitor: what "best" and patience
    look at, by Treadmill's names ("loss" of the training; "val_loss", "val_perplexity", "val_" + a
    metric's name; default "val_loss", or "loss" without validation). mode: "min" or "max"; default
    "min" for loss and perplexity, else "max". seed: set when `fit` starts; None: leave it alone.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        train_loader: Iterable,
        validation_loader: Iterable | None = None,
        loss: Callable | None = None,
        metrics: dict[str, Callable] | None = None,
        callbacks: Iterable[Callback] = (),
        schedule: Schedule | None = None,
        ema: float | None = None,
        monitor: str | None = None,
        mode: str | None = None,
        seed: int | None = 0,
    ):
        for name in ("epochs", "accumulate_grad_batches", "validate_every"):
            if getattr(config, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
        if config.custom_backward_fn is not None or config.keep_all_checkpoints:
            raise ValueError("custom_backward_fn and keep_all_checkpoints are not supported here")
        if schedule is not None and config.scheduler is not None:
            raise ValueError("give either schedule (by step) or config.scheduler (by epoch)")
        if ema is not None and not 0 < ema < 1:
            raise ValueError(f"ema is a decay between 0 and 1, such as 0.995, got {ema}")
        if mode not in (None, "min", "max"):
            raise ValueError(f'mode is "min" or "max", got {mode!r}')
        if clash := {"loss", "perplexity"} & set(metrics or ()):
            raise ValueError(f"metric names that are already taken: {sorted(clash)}")
        self.schedule, self.ema, self.seed = schedule, ema, seed
        self.monitor = monitor or ("loss" if validation_loader is None else "val_loss")
        lower = self.monitor.endswith(("loss", "perplexity"))
        self.mode = mode or ("min" if lower else "max")
        loss = Seq2SeqLoss() if loss is None else loss
        super().__init__(model, config, train_loader, validation_loader, loss, metrics, callbacks)
        self._history = History()
        self.step = 0  # optimiser steps done
        self.best_value = math.inf if self.mode == "min" else -math.inf
        self._best_weights = None
        self._average = None  # the averaged weights, or while these are in the model, the model's
        self._swapped = self._started = False
        self._check_names()

    # Set-up, called by Treadmill's constructor

    def _setup_scheduler(self):
        # Treadmill steps once an epoch; a warm-up counts optimiser steps.
        super()._setup_scheduler()
        if self.schedule is not None:
            factor = self.schedule
            self.scheduler = LambdaLR(self.optimizer, lambda done: factor(done + 1))

    def _setup_callbacks(self, callbacks):
        # Treadmill adds to the caller's list, prints, and adds a ModelCheckpoint that pickles the
        # config, which fails for a lambda; best.pt and last.pt take its place.
        self.callbacks = list(callbacks or ())
        patience = self.config.early_stopping_patience
        if patience is not None:
            if patience < 1:
                raise ValueError(f"patience must be at least 1, got {patience}")
            self.callbacks.append(EarlyStopping(self.monitor, patience, self.mode, verbose=False))

    def _resume_from_checkpoint(self):
        """Nothing at construction: `fit` resumes, when all the state to fill is there."""

    def _check_names(self):
        # Treadmill only warns of a name that is not there, or reads it as 0.0.
        names = ["loss"]
        if self.val_dataloader is not None:
            names += [f"val_{name}" for name in ("loss", "perplexity", *self.metric_fns)]
        for watcher in (self, *self.callbacks):
            if getattr(watcher, "monitor", "loss") not in names:
                raise ValueError(f"no metric {watcher.monitor!r}; there are: {', '.join(names)}")

    def _call_callbacks(self, event: str, **kwargs):
        for callback in self.callbacks:
            if event == "on_batch_end" and isinstance(callback, GradientClipping):
                continue  # after the step is too late to clip: `_optimizer_step` does it
            watched = getattr(callback, "monitor", "loss")
            if event == "on_epoch_end" and watched not in kwargs["metrics"]:
                continue  # an epoch without validation, where ModelCheckpoint would read 0.0
            if method := getattr(callback, event, None):
                method(self, **kwargs)

    # Training

    def fit(self, resume: bool | None = None, restore_best: bool = True) -> History:
        """Train, and return the `History`.

        With config.checkpoint_dir, every epoch ends with writing last.pt there, and best.pt if it
        was the best so far; a new run overwrites them. resume=True (default: what
        config.resume_training says) goes on from last.pt, in this trainer or a new one like it, and
        ends with the same weights to the bit as a run never stopped; an epoch that was cut off is
        repeated. config.epochs counts from the very start.

        If there is validation, the model ends with the best weights, or with restore_best=False
        the last ones. Interrupting it (Ctrl-C, the stop button) ends it so at once.

        Raises FloatingPointError where loss or gradient is not finite.
        """
        # Treadmill's own prints panels and a report that differ from run to run.
        resume = self.config.resume_training if resume is None else resume
        if resume and self.config.checkpoint_dir is None:
            raise ValueError("to resume, the config needs the checkpoint_dir of the earlier run")
        if self._started and not resume:
            raise RuntimeError("this trainer has run: make a new one, or use fit(resume=True)")
        self._check_names()
        self._started = True
        self._call_callbacks("on_train_start")
        if resume:
            self.load_checkpoint(self._path("last.pt"))
        else:
            if self.seed is not None:
                set_seed(self.seed)
            if self.ema is not None:
                self._average = [p.detach().clone() for p in self.model.parameters()]
            self.save_checkpoint()  # so that even the first epoch can be repeated
        self._bar = self._progress_bar()
        try:
            for epoch in range(self.start_epoch, self.config.epochs):
                if self.stop_training:
                    break
                self._fit_epoch(epoch)
        except KeyboardInterrupt:
            self.history.stopped = "interrupted"
        finally:
            self._bar.close()
            if self._average is not None:
                self._swap()
                self._average, self._swapped = None, False
            self._call_callbacks("on_train_end")
        best = restore_best and self.val_dataloader is not None and self._best_weights is not None
        if best:
            self.load_best()
        if self.history.stopped:
            kept = f"the best weights (epoch {self.history.best_epoch})" if best else "its weights"
            where = f"epoch {self.current_epoch + 1}, after {self.step} steps"
            print(f"Interrupted in {where}; the model has {kept}.")
        elif self.stop_training:
            self.history.stopped = "early"
        return self.history

    train = fit

    def _fit_epoch(self, epoch: int) -> None:
        self.current_epoch, started = epoch, time.perf_counter()
        self._bar.set_description_str(f"epoch {epoch + 1}/{self.config.epochs}", refresh=False)
        self._call_callbacks("on_epoch_start", epoch=epoch)
        metrics = self._train_epoch(epoch)
        record = {"epoch": epoch + 1, "train_loss": metrics["loss"]}
        with self.averaged_weights():
            if self.val_dataloader is not None and (epoch + 1) % self.config.validate_every == 0:
                validation = self._validate_epoch(epoch)
                metrics |= {f"val_{name}": value for name, value in validation.items()}
                record |= {"validation_loss": validation.pop("loss"), **validation}
            if "validation_loss" in record:
                shown = f"validation loss {record['validation_loss']:.3f}"
                self._bar.set_postfix_str(shown, refresh=False)
            self.history.epochs.append(record | {"seconds": time.perf_counter() - started})
            self._keep_if_best(metrics)
            self._call_callbacks("on_epoch_end", epoch=epoch, metrics=metrics)
        if self.schedule is None and self.scheduler is not None:
            plateau = isinstance(self.scheduler, ReduceLROnPlateau)
            self.scheduler.step(*[metrics.get("val_loss", metrics["loss"])] if plateau else [])
        self.start_epoch = epoch + 1
        self.save_checkpoint()

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        # Treadmill drops what is left of a group at the end, and averages the last 100 batches.
        self.model.train()
        sampler = getattr(self.train_dataloader, "batch_sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)  # the order of the data is a function of (seed, epoch)
        self._group_loss, self._group_tokens = 0.0, 0
        total, tokens, started = 0.0, 0, time.perf_counter()
        for batch_idx, batch in enumerate(self.train_dataloader):
            self._call_callbacks("on_batch_start", batch_idx=batch_idx)
            metrics = self._train_step(batch, batch_idx)
            total, tokens = total + metrics["loss"] * metrics["tokens"], tokens + metrics["tokens"]
            self._call_callbacks("on_batch_end", batch_idx=batch_idx, metrics=metrics)
            if not self._bar.disable:
                speed = f"{tokens / (time.perf_counter() - started):,.0f} tokens/s"
                self._bar.set_postfix_str(f"loss {metrics['loss']:.3f}, {speed}", refresh=False)
                self._bar.update()
        if self._group_tokens:
            self._optimizer_step()
        if not tokens:
            raise ValueError("the training loader has no batches")
        return {"loss": total / tokens}

    def _train_step(self, batch, batch_idx: int) -> dict[str, float]:
        # Treadmill zeroes the gradients before the batch that steps, so the earlier batches of a
        # group are lost, and weighs batches alike; here sums are added and divided by all tokens.
        if not self._group_tokens:
            self.optimizer.zero_grad()
        total, tokens, _, _ = self._total_loss(batch)
        total.backward()
        loss = total.item() / tokens
        self._check_finite("loss", loss)
        self._group_loss += loss * tokens
        self._group_tokens += tokens
        if (batch_idx + 1) % self.config.accumulate_grad_batches == 0:
            self._optimizer_step()
        return {"loss": loss, "tokens": tokens}

    def _optimizer_step(self) -> None:
        """Mean gradient over the group's tokens, clip, step, schedule, average."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        torch._foreach_mul_([p.grad for p in parameters], 1 / self._group_tokens)
        norm = clip_grad_norm_(parameters, self.config.grad_clip_norm or math.inf).item()
        self._check_finite("norm of the gradient", norm)
        for callback in self.callbacks:
            if isinstance(callback, GradientClipping):
                clip_grad_norm_(parameters, callback.max_norm, callback.norm_type)
        loss, lr = self._group_loss / self._group_tokens, self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        if self.schedule is not None:
            self.scheduler.step()
        self.step += 1
        self.history.steps.append({"step": self.step, "loss": loss, "lr": lr, "grad_norm": norm})
        self._group_loss, self._group_tokens = 0.0, 0
        if self._average is not None:
            # A shorter memory at first, so that the random start is soon forgotten.
            decay = min(self.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self._average, list(self.model.parameters()), 1 - decay)

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the {what} is {value} at step {self.step + 1}, epoch {self.current_epoch + 1}: "
                "try a smaller lr, a longer warm-up, or a smaller clip"
            )

    def _may_split(self) -> bool:
        """Whether the loss can be had without the logits, which evaluation needs for its metrics.
        A model, a loss or a forward function of one's own is called as it is."""
        return (
            self.model.training
            and type(self.loss_fn) is Seq2SeqLoss
            and self.config.custom_forward_fn is None
            and getattr(self.model, "forward_is_split", False)
        )

    def _total_loss(self, batch) -> tuple[Tensor, int, Tensor | None, Tensor]:
        """Loss summed over the real tokens, their number, logits (None in training, where the loss
        does without), targets (batch, target)."""
        batch = batch.to(self.device)
        # bfloat16 and not Treadmill's float16: it has float32's range, so no scaling is needed.
        with torch.autocast(self.device.type, torch.bfloat16, self.config.mixed_precision):
            if self._may_split():
                features, _ = self.model.features(batch)
                layer, targets = self.model.output_layer, batch.target_output
                return *self.loss_fn.of_features(features, layer, targets), None, targets
            if self.config.custom_forward_fn is not None:
                logits, targets = self.config.custom_forward_fn(self.model, batch)
            else:
                output, targets = self.model(batch), batch.target_output
                logits = output if isinstance(output, Tensor) else output[0]
            if hasattr(self.loss_fn, "total"):
                total, tokens = self.loss_fn.total(logits, targets)
            else:
                tokens = (targets != PAD).sum().item()
                total = self.loss_fn(logits, targets) * tokens
        return total, tokens, logits, targets

    # Evaluation

    @torch.no_grad()
    def evaluate(self, loader: Iterable) -> dict[str, float]:
        """Means over all real tokens of the loader, in evaluation mode: "loss" (the trainer's own),
        "perplexity" (always without label smoothing), and every metric."""
        # Treadmill has no evaluate; its metrics turn an error into 0.0 and see 100 batches.
        was_training = self.model.training
        self.model.eval()
        sums, tokens = dict.fromkeys(("loss", "perplexity", *self.metric_fns), 0.0), 0
        try:
            with self.averaged_weights():
                for batch in loader:
                    total, count, logits, targets = self._total_loss(batch)
                    flat = logits.flatten(0, 1).float(), targets.flatten()
                    entropy = F.cross_entropy(*flat, ignore_index=PAD, reduction="sum")
                    tokens += count
                    sums["loss"] += total.item()
                    sums["perplexity"] += entropy.item()
                    for name, function in self.metric_fns.items():
                        sums[name] += float(function(logits, targets)) * count
        finally:
            self.model.train(was_training)
        if not tokens:
            raise ValueError("the loader has no batches to evaluate")
        means = {name: value / tokens for name, value in sums.items()}
        return means | {"perplexity": perplexity(means["perplexity"])}

    def _validate_epoch(self, epoch: int) -> dict[str, float]:
        self._call_callbacks("on_validation_start")
        metrics = self.evaluate(self.val_dataloader)
        self._call_callbacks("on_validation_end", metrics=metrics)
        return metrics

    # Averaged and best weights, checkpoints

    @contextmanager
    def averaged_weights(self):
        """While inside, the model has the averaged weights, if `ema` is on and `fit` running."""
        swap = self._average is not None and not self._swapped
        if swap:
            self._swap()
        try:
            yield
        finally:
            if swap:
                self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        parameters = list(self.model.parameters())
        held = [p.clone() for p in parameters]
        torch._foreach_copy_(parameters, self._average)
        torch._foreach_copy_(self._average, held)
        self._swapped = not self._swapped

    def _keep_if_best(self, metrics: dict[str, float]) -> None:
        value = metrics.get(self.monitor, math.nan)
        if value < self.best_value if self.mode == "min" else value > self.best_value:
            self.best_value, self.history.best_epoch = value, self.current_epoch + 1
            weights = self.model.state_dict().items()
            self._best_weights = {name: tensor.detach().clone() for name, tensor in weights}
            if self.config.checkpoint_dir is not None:
                save_file(checkpoint.model_state(self.model), self._path("best.pt"))

    def load_best(self) -> None:
        """Put the weights of the best epoch into the model."""
        if self._best_weights is None:
            raise RuntimeError("there are no best weights yet: no epoch has been completed")
        self.model.load_state_dict(self._best_weights)

    def _path(self, name: str) -> Path:
        return Path(self.config.checkpoint_dir) / name

    def save_checkpoint(self, filepath=None) -> None:
        """Write all that an exact resume needs, atomically (default: last.pt in checkpoint_dir, if
        there is one). Treadmill's own pickles the config and every object in it."""
        if filepath or self.config.checkpoint_dir is not None:
            save_file(checkpoint.training_state(self), filepath or self._path("last.pt"))

    def load_checkpoint(self, filepath) -> None:
        """Take up what `save_checkpoint` wrote, with best.pt beside it.

        Raises FileNotFoundError, or ValueError where the file is broken or of another model.
        """
        checkpoint.restore(self, filepath)

    def _progress_bar(self) -> tqdm:
        """One line for the whole run, in place of Treadmill's tables."""
        batches = len(self.train_dataloader)
        watched = sys.stdout.isatty() or "ipykernel" in sys.modules
        return tqdm(
            total=batches * self.config.epochs,
            initial=batches * self.start_epoch,
            bar_format="{desc} |{bar:20}| {elapsed} < {remaining}{postfix}",
            file=sys.stdout,
            mininterval=0.5 if watched else 30,  # a log keeps every line
            disable=not self.config.progress_bar,
        )
