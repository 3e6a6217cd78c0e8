"""A training to watch while it runs, with a button that stops it."""

import math
import threading
import time

import torch
import traitlets
from IPython import get_ipython
from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from s2s_helpers.course import plots
from s2s_helpers.course.widgets.base import Widget, module
from s2s_helpers.decoding import encode_source, translate
from s2s_helpers.training import StopTraining

PAUSES = 0.25, 3.0  # seconds from one update to the next, at least and at most
SHARE = 0.02  # of the time may go into updates
POINTS = 300  # of a curve, at most


def thinned(steps: list[dict]) -> list[list[float]]:
    """A history's steps as [step, mean loss, learning rate], neighbours joined to `POINTS`."""
    size = max(1, math.ceil(len(steps) / POINTS))
    groups = [steps[first : first + size] for first in range(0, len(steps), size)]
    return [
        [group[-1]["step"], round(sum(s["loss"] for s in group) / len(group), 4), group[-1]["lr"]]
        for group in groups
    ]


class LiveTraining(Widget):
    """Loss, learning rate and an example translation with its attention, while a training runs.

    A callback of `Seq2SeqTrainer` and a widget in one. Show it, and train in the next cell:

        live = LiveTraining(pair)  # or a sentence; a pair has a reference to compare with
        trainer = Seq2SeqTrainer(..., callbacks=[live])
        live

    The stop button ends the training after the batch at hand as an interrupt does, so `fit` leaves
    the best weights in the model; before the first validation there are none, and the model keeps
    those it has. `told` says which. The click has to reach Python while the cell of `fit` runs: it
    does in JupyterLab from 4.4 and Notebook from 7.4, with ipykernel 7. Elsewhere (VS Code) the
    notebook's own interrupt button ends the training in the same way. `stop()` is for Python.

    status: "waiting", "running", "stopped", "finished" or "failed". After the cell of `fit` the
    picture where the widget was shown is drawn once more, so that a saved notebook has the end of
    the training and not its beginning. Updates take at most a fiftieth of the time.
    """

    _esm = module("live_training")

    source = traitlets.Unicode().tag(sync=True)
    reference = traitlets.Unicode().tag(sync=True)
    status = traitlets.Unicode("waiting").tag(sync=True)
    told = traitlets.Unicode("no training yet").tag(sync=True)
    total = traitlets.Int(1).tag(sync=True)  # steps of the whole training
    steps = traitlets.List().tag(sync=True)  # [step, loss, learning rate]
    validations = traitlets.List().tag(sync=True)  # [step, loss]
    translation = traitlets.Unicode().tag(sync=True)
    source_tokens = traitlets.List().tag(sync=True)
    tokens = traitlets.List().tag(sync=True)
    attention = traitlets.List().tag(sync=True)  # (target, source), or empty

    def __init__(self, example, **settings):
        if isinstance(example, str):
            super().__init__(source=example, **settings)
        else:
            super().__init__(source=example.source, reference=example.target, **settings)
        self._stop, self._shown, self._trainer = threading.Event(), [], None
        self._unsettled = False
        self.on_msg(self._heard)

    def stop(self) -> None:
        """End the training that runs after its present batch; without one, do nothing."""
        if self.status == "running":
            self._stop.set()

    def _heard(self, _, content, buffers) -> None:
        # Comes in a thread beside the training: it may set a flag, but no trait.
        if content == {"stop": True}:
            self.stop()

    def open(self):
        super().open()
        self._answer_anywhere()

    def _send(self, msg, buffers=None):
        super()._send(msg, buffers)
        self._answer_anywhere()

    def _answer_anywhere(self) -> None:
        # ipykernel 7.4 hands a message from the browser to the thread that sent last, which here is
        # the one that trains; without this note of it, to the one that the browser chose.
        if self.comm is not None:
            vars(self.comm).pop("_reply_subshell_id", None)

    # What a trainer calls

    def on_train_start(self, trainer, **kwargs):
        encode_source(trainer.model, self.source)  # better now than after the first batches
        self._stop.clear()
        self._trainer, self._next = trainer, 0.0
        group = trainer.config.accumulate_grad_batches
        with self.hold_sync():
            self.total = trainer.config.epochs * math.ceil(len(trainer.train_dataloader) / group)
            self.steps, self.validations = [], []
            self.status, self.told = "running", "the training begins"

    def on_batch_end(self, trainer, **kwargs):
        if self._stop.is_set():
            raise StopTraining
        started = time.perf_counter()
        if started >= self._next:
            self._update()
            now = time.perf_counter()
            self._next = now + min(max(PAUSES[0], (now - started) / SHARE), PAUSES[1])

    def on_epoch_end(self, trainer, metrics, **kwargs):
        if "val_loss" in metrics:
            self.validations = [*self.validations, [trainer.step, round(metrics["val_loss"], 4)]]

    def on_train_end(self, trainer, **kwargs):
        # Which weights the model ends with, fit decides after this.
        self._unsettled = True
        if shell := get_ipython():
            shell.events.register("post_run_cell", self._after_the_cell)

    def _update(self) -> None:
        trainer = self._trainer
        (example,) = translate(trainer.evaluated_model, [self.source])
        looks = [] if example.attention is None else example.attention_matrix().tolist()
        with self.hold_sync():
            self.steps = thinned(trainer.history.steps)
            self.told = f"epoch {trainer.current_epoch + 1}, step {trainer.step} of {self.total}"
            self.translation = example.text
            self.source_tokens, self.tokens = example.source_tokens, example.tokens
            self.attention = [[round(weight, 3) for weight in row] for row in looks]

    def _after_the_cell(self, result=None) -> None:
        get_ipython().events.unregister("post_run_cell", self._after_the_cell)
        self._settle()
        for shown in self._shown:
            data, metadata = self._repr_mimebundle_()
            shown.update(data, metadata=metadata, raw=True)

    def _settle(self) -> None:
        """Say how the training ended, and translate with the weights that are there now."""
        if not self._unsettled:
            return
        self._unsettled, trainer = False, self._trainer
        history, validated = trainer.history, trainer.val_dataloader is not None
        best = trainer.best_weights if validated else None
        where = f"epoch {trainer.current_epoch + 1}, after {trainer.step} steps"
        self._update()
        weights = trainer.model.state_dict()
        if best is not None and all(torch.equal(weights[name], best[name]) for name in best):
            has = f"the best weights, of epoch {history.best_epoch}"
        else:
            has = f"the {'averaged ' if trainer.ema else ''}weights of step {trainer.step}"
            has += " (there was no validation yet)" if validated and best is None else ""
        over = trainer.start_epoch >= trainer.config.epochs or trainer.stop_training
        with self.hold_sync():
            if history.stopped == "interrupted":
                self.status = "stopped"
            else:
                self.status = "finished" if over else "failed"
            self.told = f"{self.status} in {where}; the model has {has}"

    # What stays in a saved notebook

    def _ipython_display_(self):
        data, metadata = self._repr_mimebundle_()
        self._shown.append(display(data, metadata=metadata, raw=True, display_id=True))

    def describe(self) -> str:
        self._settle()
        return f"{self.told}; “{self.source}” → “{self.translation}”"

    def figure(self) -> Figure:
        self._settle()
        wide = {"width_ratios": [1, 1, 1.3]}
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", gridspec_kw=wide)
        for ax, place, name in ((axes[0], 1, "loss"), (axes[1], 2, "learning rate")):
            ax.plot(
                [step[0] for step in self.steps],
                [step[place] for step in self.steps],
                color=plots.COLOURS[0 if place == 1 else 2],
                label="training",
            )
            ax.set_title(name.capitalize(), fontsize=plots.LARGE)
            ax.set_xlabel("step", fontsize=plots.MEDIUM)
            ax.set_xlim(0, self.total)
            ax.tick_params(labelsize=plots.SMALL)
            ax.spines[["top", "right"]].set_visible(False)
        if self.validations:
            places, losses = zip(*self.validations, strict=True)
            axes[0].plot(places, losses, "s--", color=plots.COLOURS[1], label="validation")
            axes[0].legend(fontsize=plots.SMALL, frameon=False)
        if self.attention:
            plots.attention_heatmap(
                self.attention, self.source_tokens, self.tokens, "Attention", axes[2]
            )
        else:
            axes[2].axis("off")
        lines = [self.told.capitalize(), f"{self.source} → {self.translation or '…'}"]
        figure.suptitle("\n".join(lines), fontsize=plots.LARGE, parse_math=False)
        return figure
