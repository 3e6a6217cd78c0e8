"""What Treadmill 0.6.5 does wrongly for sequences, put right in one place.

Each method of `RepairedTrainer` says what goes wrong without it. The loop itself, which is another
than Treadmill's, is in `trainer.py`.
"""

import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm
from treadmill import Callback, EarlyStopping, ModelCheckpoint, Trainer, TrainingConfig
from treadmill.callbacks import GradientClipping, MetricsLogger

from s2s_helpers.files import plain
from s2s_helpers.training.distributed import Processes, batches_per_step
from s2s_helpers.training.muon import Muon


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this, and not a script or a terminal."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class RepairedTrainer(Trainer):
    """Treadmill's Trainer with errors in place of silence, and for several processes.

    A subclass sets `monitor` and `mode`, what "best" looks at, before it calls the constructor.
    """

    monitor: str
    mode: str
    start_epoch: int

    def __init__(
        self, model: nn.Module, config: TrainingConfig, train_loader: Iterable,
        validation_loader: Iterable | None, loss: Callable, metrics: dict[str, Callable] | None,
        callbacks: Iterable[Callback], processes: Processes,
    ):  # fmt: skip
        self.processes = processes
        self._check_config(config)
        if processes.world > 1:
            config.device = processes.device  # Treadmill's "auto" gives all the first GPU
        with warnings.catch_warnings():
            # With mixed precision Treadmill makes a scaler for float16, by a name torch deprecates.
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(
                model, config, train_loader, validation_loader, loss, metrics, callbacks
            )
        self.scaler = None  # bfloat16 has float32's range: nothing need be scaled

    def _check_config(self, config: TrainingConfig) -> None:
        # Treadmill trains no epoch, or never steps, without a word.
        for name in ("epochs", "accumulate_grad_batches", "validate_every"):
            if getattr(config, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
        if (patience := config.early_stopping_patience) is not None and patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        if config.custom_backward_fn is not None or config.keep_all_checkpoints:
            raise ValueError("custom_backward_fn and keep_all_checkpoints are not supported here")
        # A number of NumPy's would go into a checkpoint that nobody can read.
        for settings in (config, config.optimizer):
            for name, value in vars(settings).items():
                if isinstance(value, np.generic):
                    setattr(settings, name, value.item())
        config.optimizer.params = plain(config.optimizer.params, "the optimizer's params")

    def _setup_optimizer(self) -> None:
        # Treadmill hands on parameters alone; Muon asks which of them are a layer's matrix.
        settings = self.config.optimizer
        of = self.model if issubclass(settings.optimizer_class, Muon) else self.model.parameters()
        rates = {"lr": settings.lr, "weight_decay": settings.weight_decay}
        self.optimizer = settings.optimizer_class(of, **rates | settings.params)

    def _setup_callbacks(self, callbacks: Iterable[Callback]) -> None:
        # Treadmill adds to the caller's list, prints, and adds a ModelCheckpoint that pickles the
        # config, which fails for a lambda; best.pt and last.pt take its place.
        self.callbacks = list(callbacks or ())
        if (patience := self.config.early_stopping_patience) is not None:
            self.callbacks.append(EarlyStopping(self.monitor, patience, self.mode, verbose=False))
        if not self.processes.is_main:
            # Treadmill's callbacks do not know that others write the same file and print the same.
            writers = (ModelCheckpoint, MetricsLogger)
            self.callbacks = [c for c in self.callbacks if not isinstance(c, writers)]
            for callback in self.callbacks:
                if hasattr(callback, "verbose"):
                    callback.verbose = False

    def _resume_from_checkpoint(self) -> None:
        # Treadmill resumes at construction, when there is not yet all the state to fill.
        pass

    def _check_names(self) -> None:
        # Treadmill only warns of a metric that is not there, or reads it as 0.0.
        names = ["loss"]
        if self.val_dataloader is not None:
            names += [f"val_{name}" for name in ("loss", "perplexity", *self.metric_fns)]
        for watcher in (self, *self.callbacks):
            if getattr(watcher, "monitor", "loss") not in names:
                raise ValueError(f"no metric {watcher.monitor!r}; there are: {', '.join(names)}")

    def _check_loaders(self) -> None:
        # Treadmill gives every process all batches, and finds a pair that is too long for the model
        # only when it comes.
        dealt, each = batches_per_step(self.train_dataloader), self.config.accumulate_grad_batches
        world, limit = self.processes.world, getattr(self.model, "max_positions", None)
        if dealt is None and world > 1:
            raise ValueError(
                f"each of the {world} processes would train on all the batches: make the loader by "
                "training.distributed.sharded_loader(dataset, ...)"
            )
        if dealt is not None and dealt != each * world:
            raise ValueError(
                f"the loader deals out {dealt} batches per step, but accumulate={each} on {world} "
                f"processes takes {each * world}"
            )
        loaders = {"training": self.train_dataloader, "validation": self.val_dataloader}
        for name, loader in loaders.items() if limit is not None else ():
            data = getattr(loader, "dataset", None)
            sides = (getattr(data, f"{side}_lengths", ()) for side in ("source", "target"))
            # The decoder reads SOS and not EOS: a target of as many ids as positions fits.
            for number, longest in enumerate(map(max, *sides)):
                if longest > limit:
                    pair = textwrap.shorten(str(data.pairs[number]), 200, placeholder=" ...")
                    raise ValueError(
                        f"{name} pair {number} has {longest} tokens, but the model has only "
                        f"{limit} positions: give the dataset max_length={limit}, or the model "
                        f"max_positions={longest}. The pair is {pair}"
                    )

    def _call_callbacks(self, event: str, **kwargs: Any) -> None:
        for callback in self.callbacks:
            if event == "on_batch_end" and isinstance(callback, GradientClipping):
                continue  # after the step is too late to clip: `_optimizer_step` does it
            watched = getattr(callback, "monitor", "loss")
            if event == "on_epoch_end" and watched not in kwargs["metrics"]:
                continue  # an epoch without validation, where ModelCheckpoint would read 0.0
            if method := getattr(callback, event, None):
                method(self, **kwargs)

    def _progress_bar(self, done: int, of: int | None, finished: bool) -> tqdm:
        # Treadmill prints tables that differ from run to run; this is one line for the whole run.
        watched = sys.stdout.isatty() or in_notebook()
        hide = finished or not (self.config.progress_bar and self.processes.is_main)
        return tqdm(
            total=of, initial=done, file=sys.stdout, disable=hide,
            bar_format="{desc} |{bar:20}| {elapsed} < {remaining}{postfix}",
            mininterval=0.5 if watched else 30,  # a log keeps every line
        )  # fmt: skip
