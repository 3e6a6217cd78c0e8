"""The schedules of scheduled sampling: how many gold words a training still reads, step by step."""

import matplotlib.pyplot as plt
import traitlets
from matplotlib.figure import Figure
from traitlets import TraitError

from s2s_helpers.course.plots import COLOURS, LARGE, MEDIUM, SMALL
from s2s_helpers.course.widgets.base import Widget, module
from s2s_helpers.training import schedules


class ForcingSchedules(Widget):
    """The three schedules of Bengio et al. 2015, section 2.4, as curves of `schedules.linear`,
    `exponential` and `inverse_sigmoid`.

    c: the slope of the linear one, which starts at 1, 0 to 0.05. minimum: its least, ε. k: of the
    exponential one, 0.9 to 0.9999. sigmoid_k: of the inverse sigmoid, 1 to 300. steps: how far the
    curves go, 50 to 2,000. step: where they are read off. Raises TraitError for a value outside.
    """

    _esm = module("forcing_schedules")

    c = traitlets.Float(0.004, min=0, max=0.05).tag(sync=True)
    minimum = traitlets.Float(0.25, min=0, max=1).tag(sync=True)
    k = traitlets.Float(0.99, min=0.9, max=0.9999).tag(sync=True)
    sigmoid_k = traitlets.Float(60.0, min=1, max=300).tag(sync=True)
    steps = traitlets.Int(500, min=50, max=2000).tag(sync=True)
    step = traitlets.Int(250).tag(sync=True)

    @traitlets.validate("step")
    def _check_step(self, proposal):
        if not 0 <= proposal.value <= self.steps:
            raise TraitError(f"step is 0 to {self.steps}, not {proposal.value}")
        return proposal.value

    @traitlets.observe("steps")
    def _shorten(self, change):
        self.step = min(self.step, change.new)

    @property
    def curves(self) -> dict[str, schedules.Schedule]:
        """The three functions of the step, by name."""
        return {
            "linear": schedules.linear(self.c, minimum=self.minimum),
            "exponential": schedules.exponential(self.k),
            "inverse sigmoid": schedules.inverse_sigmoid(self.sigmoid_k),
        }

    def describe(self) -> str:
        shares = ", ".join(f"{name} {curve(self.step):.2f}" for name, curve in self.curves.items())
        return f"share of gold words at step {self.step}: {shares}"

    def figure(self) -> Figure:
        figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
        styles = zip(self.curves.items(), COLOURS, ("-", "--", "-."), strict=False)
        for (name, curve), colour, style in styles:
            values = [curve(i) for i in range(self.steps + 1)]
            label = f"{name}, at step {self.step}: {curve(self.step):.2f}"
            ax.plot(values, style, color=colour, label=label)
        ax.axvline(self.step, color="0.6", lw=1)
        ax.set_ylim(-0.03, 1.03)
        ax.set_title("Schedules of scheduled sampling", fontsize=LARGE)
        ax.set_xlabel("optimiser step i", fontsize=MEDIUM)
        ax.set_ylabel("share of gold words ε", fontsize=MEDIUM)
        ax.legend(fontsize=SMALL, frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        return figure
