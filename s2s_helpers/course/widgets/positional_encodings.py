"""Positional encodings: a wave for each dimension, and dot products that know the distance."""

import math

import traitlets
from matplotlib.figure import Figure
from traitlets import TraitError

from s2s_helpers.course import plots
from s2s_helpers.course.widgets.base import Widget, module
from s2s_helpers.models.transformer import sinusoidal_positions


class PositionalEncodings(Widget):
    """The sinusoidal table of Vaswani et al. 2017, section 3.5, `models.sinusoidal_positions`: its
    waves, their lengths, and the dot products of its rows. All of it is drawn in the browser.

    width: of the table, even, 4 to 256. positions: its rows, 10 to 200. position, dimension: the
    chosen row and column. other: the row that the chosen one is compared with. Where the table
    shrinks, these move to its last row or column. Raises TraitError for a value outside.
    """

    _esm = module("positional_encodings")

    width = traitlets.Int(128, min=4, max=256).tag(sync=True)
    positions = traitlets.Int(60, min=10, max=200).tag(sync=True)
    position = traitlets.Int(10).tag(sync=True)
    dimension = traitlets.Int(16).tag(sync=True)
    other = traitlets.Int(20).tag(sync=True)

    @traitlets.validate("width")
    def _check_width(self, proposal):
        if proposal.value % 2:
            raise TraitError(f"width is even: a sine and a cosine a pair, not {proposal.value}")
        return proposal.value

    @traitlets.validate("position", "dimension", "other")
    def _check_choice(self, proposal):
        name = proposal.trait.name
        size = self.width if name == "dimension" else self.positions
        if not 0 <= proposal.value < size:
            raise TraitError(f"{name} is 0 to {size - 1}, not {proposal.value}")
        return proposal.value

    @traitlets.observe("width", "positions")
    def _shrink(self, change):
        for name in ("dimension",) if change.name == "width" else ("position", "other"):
            setattr(self, name, min(getattr(self, name), change.new - 1))

    @property
    def wavelength(self) -> float:
        """Positions from one crest of the chosen dimension to the next."""
        return 2 * math.pi * 10000 ** ((self.dimension - self.dimension % 2) / self.width)

    @property
    def value(self) -> float:
        """PE(position, dimension)."""
        return sinusoidal_positions(self.positions, self.width)[
            self.position, self.dimension
        ].item()

    @property
    def product(self) -> float:
        """The dot product of the rows `position` and `other`."""
        table = sinusoidal_positions(self.positions, self.width)
        return (table[self.position] @ table[self.other]).item()

    def describe(self) -> str:
        return (
            f"width {self.width}; dimension {self.dimension} has a wave of {self.wavelength:.1f} "
            f"positions; positions {self.position} and {self.other}, "
            f"{abs(self.position - self.other)} apart, have the dot product {self.product:.1f}"
        )

    def figure(self) -> Figure:
        table = sinusoidal_positions(self.positions, self.width)
        figure = plots.positional_encodings(table, f"Positional encodings of width {self.width}")
        left, middle, right = figure.axes[:3]
        left.axhline(self.position, color="white", lw=1.5, ls="--")
        left.axvline(self.dimension, color="white", lw=1.5, ls="--")
        name = f"dimension {self.dimension}"
        for line in [line for line in middle.lines if line.get_label() == name]:
            line.remove()
        middle.plot(table[:, self.dimension], color="black", lw=2.5, label=name)
        middle.plot(self.position, self.value, "o", color="black")
        middle.legend(
            fontsize=plots.SMALL, loc="upper center", ncols=2, frameon=False, handlelength=1
        )
        distance = abs(self.position - self.other)
        cosine = self.product / (self.width / 2)  # each pair of dimensions has the length 1
        right.plot(distance, cosine, "o", color=plots.COLOURS[1])
        right.annotate(
            f"{distance} apart: {cosine:.2f}",
            (distance, cosine),
            (8, 6),
            textcoords="offset points",
        )
        return figure
