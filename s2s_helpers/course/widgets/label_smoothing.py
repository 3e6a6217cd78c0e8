"""Label smoothing and masking: what the loss wants of a position, and what the position costs."""

import matplotlib.pyplot as plt
import numpy as np
import traitlets
from matplotlib.figure import Figure
from traitlets import TraitError

from s2s_helpers.course.plots import COLOURS, LARGE, MEDIUM, SMALL
from s2s_helpers.course.widgets.base import Widget, module
from s2s_helpers.vocabulary import PAD

WORDS = ("<pad>", "<eos>", "le", "chat", "chien", "dort")
TARGETS = (2, 3, 5, 1, PAD, PAD)  # le chat dort <eos>, padded to the length of its batch
RIGHT = (0.7, 0.45, 0.3, 0.85, 0.98, 0.98)  # padding is easy to learn


def guess(targets, words: int, right) -> list[list[float]]:
    """Probabilities (positions, words): of `right` those of the targets, the rest shared evenly."""
    return [
        [share if word == target else (1 - share) / (words - 1) for word in range(words)]
        for target, share in zip(targets, right, strict=True)
    ]


class LabelSmoothing(Widget):
    """The target distribution q' and the prediction p at each position of a padded sentence, and
    what they cost: `- Σ_k q'(k) log p(k)`, as in `Seq2SeqLoss` (Szegedy et al. 2016, section 7).

    words: the vocabulary, PAD first. targets: a word's number for each position. probabilities:
    (positions, words), each row a distribution; drag a bar to change it. smoothing: ε, from 0 to
    below 1. position: the one whose bars are drawn. count_padding: whether the mean wrongly counts
    padding. Raises TraitError for a value that none of these can have.
    """

    _esm = module("label_smoothing")

    words = traitlets.List(traitlets.Unicode(), list(WORDS)).tag(sync=True)
    targets = traitlets.List(traitlets.Int(), list(TARGETS)).tag(sync=True)
    probabilities = traitlets.List(guess(TARGETS, len(WORDS), RIGHT)).tag(sync=True)
    smoothing = traitlets.Float(0.1, min=0, max=0.99).tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)
    count_padding = traitlets.Bool(False).tag(sync=True)

    @traitlets.validate("position")
    def _check_position(self, proposal):
        if not 0 <= proposal.value < len(self.targets):
            raise TraitError(f"position is 0 to {len(self.targets) - 1}, not {proposal.value}")
        return proposal.value

    @traitlets.validate("probabilities")
    def _check_probabilities(self, proposal):
        table = np.asarray(proposal.value, dtype=float)
        if table.shape != (shape := (len(self.targets), len(self.words))):
            raise TraitError(f"probabilities have the shape {shape}, not {table.shape}")
        if not (table > 0).all() or not np.allclose(table.sum(axis=1), 1, atol=1e-3):
            raise TraitError("probabilities are above 0, and each row sums to 1")
        return table.tolist()

    @property
    def wanted(self) -> np.ndarray:
        """q' at each position, (positions, words)."""
        size = len(self.words)
        return np.eye(size)[self.targets] * (1 - self.smoothing) + self.smoothing / size

    @property
    def losses(self) -> list[float]:
        """The loss of each position in nats, padding's too, which `Seq2SeqLoss` leaves out."""
        return (-self.wanted * np.log(self.probabilities)).sum(axis=1).tolist()

    @property
    def mean(self) -> float:
        """What a training would be told: the mean over real tokens, or over all positions."""
        counted = [
            loss
            for loss, target in zip(self.losses, self.targets, strict=True)
            if self.count_padding or target != PAD
        ]
        return sum(counted) / len(counted)

    def describe(self) -> str:
        word = self.words[self.targets[self.position]]
        share = self.probabilities[self.position][self.targets[self.position]]
        return (
            f"at {word!r}, with probability {share:.2f} and ε = {self.smoothing:.2f}, the loss is "
            f"{self.losses[self.position]:.2f}; the mean is {self.mean:.2f}"
        )

    def figure(self) -> Figure:
        target, size = self.targets[self.position], len(self.words)
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
        places = np.arange(size)
        left.bar(
            places - 0.2, self.wanted[self.position], 0.38, color=COLOURS[1], label="target q'"
        )
        chosen = self.probabilities[self.position]
        left.bar(places + 0.2, chosen, 0.38, color=COLOURS[0], label="prediction p")
        left.set_xticks(places, self.words, parse_math=False)
        left.set_title(
            f"Position {self.position + 1}: {self.words[target]}", fontsize=LARGE, parse_math=False
        )
        left.set_ylabel("probability", fontsize=MEDIUM)
        left.legend(fontsize=SMALL, frameon=False)
        names = [self.words[word] for word in self.targets]
        pad = [word == PAD for word in self.targets]
        colours = ["0.75" if hidden and not self.count_padding else COLOURS[0] for hidden in pad]
        right.bar(range(len(names)), self.losses, 0.7, color=colours)
        right.axhline(self.mean, color=COLOURS[1], ls="--", lw=2)
        right.set_xticks(range(len(names)), names, parse_math=False)
        right.set_title(f"What each position costs (dashes: mean {self.mean:.2f})", fontsize=LARGE)
        right.set_ylabel("loss (nats)", fontsize=MEDIUM)
        for ax in (left, right):
            ax.tick_params(labelsize=SMALL)
            ax.spines[["top", "right"]].set_visible(False)
        return figure
