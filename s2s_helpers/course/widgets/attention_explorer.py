"""The attention explorer: a sentence, its translation, and who looked where."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from traitlets import TraitError

from s2s_helpers.corpora import Pair
from s2s_helpers.course.plots import LARGE, MEDIUM, attention_heatmap
from s2s_helpers.course.widgets.base import Widget, module
from s2s_helpers.course.widgets.reading import KINDS, Reading, gold_links, read, source_ids

FORCED, SIDES = ("forced", "other_forced"), ("target", "source")
AXES = {  # what a row and a column is
    "cross": ("target", "source"),
    "encoder": ("source, looking", "source, looked at"),
    "decoder": ("target, being written", "target so far"),
}
NAMES = {kind: f"{kind} self-attention" for kind in KINDS} | {"cross": "cross-attention"}


class AttentionExplorer(Widget):
    """A model's attention on a sentence that one types or chooses, or that of two models.

    model: any of the four verbs; other: a second one, drawn beside it. sentences: texts to choose
    from, or `Pair`s, whose alignment is then drawn as gold. names: what the models are called. All
    other state can be given, read and set by its name; TraitError says what it cannot be:

    sentence: the text to translate; a new one ends what is forced or selected. forced: tokens the
    (first) model has to write, by position; other_forced: the same for the other. kind: "cross",
    "encoder" or "decoder". layer, head: a number from 1, or None for the mean. view: "matrix" or
    "lines". gold: whether the alignment is drawn. selected: ("target", position) of a token that
    looks, ("source", position) of one that is looked at, or (). size: of the text, in pixels.

    To read: `readings`, a `Reading` for each model; `translation` and `attention` of the first.
    """

    _esm = module("attention_explorer")

    sentences = traitlets.List(traitlets.Unicode()).tag(sync=True)
    sentence = traitlets.Unicode().tag(sync=True)
    forced = traitlets.Dict().tag(sync=True)
    other_forced = traitlets.Dict().tag(sync=True)
    kind = traitlets.Enum(KINDS, "cross").tag(sync=True)
    layer = traitlets.Int(None, allow_none=True).tag(sync=True)
    head = traitlets.Int(None, allow_none=True).tag(sync=True)
    view = traitlets.Enum(("matrix", "lines"), "matrix").tag(sync=True)
    gold = traitlets.Bool(True).tag(sync=True)
    selected = traitlets.Tuple().tag(sync=True)
    size = traitlets.Int(14, min=8, max=40).tag(sync=True)
    panes = traitlets.List().tag(sync=True)  # what the browser draws, one for each model

    def __init__(self, model, sentences, other=None, names=None, **state):
        if isinstance(sentences, str) or not sentences:
            raise TypeError("sentences must be a list of texts or Pairs, at least one")
        models = [model] if other is None else [model, other]
        if names is None:
            names = [type(each).__name__ for each in models] if other else [""]
        if len(names) != len(models):
            raise ValueError(f"{len(models)} models, but {len(names)} names: {names}")
        texts = [each.source if isinstance(each, Pair) else each for each in sentences]
        self.pairs = {each.source: each for each in sentences if isinstance(each, Pair)}
        self._start(models, names, [], {"sentences": texts, "sentence": texts[0]} | state)

    @classmethod
    def of(cls, attention, source, target, gold=(), name="", **state):
        """An explorer of plain arrays, without a model.

        attention: (target, source) or (layers, heads, target, source), or a dict of such by kind.
        source, target: the tokens. gold: links (source position, target position). Raises
        ValueError where tokens and arrays do not fit.
        """
        kinds = attention if isinstance(attention, dict) else {"cross": attention}
        arrays = {kind: torch.as_tensor(np.asarray(kinds[kind])).float() for kind in kinds}
        arrays = {kind: x[None, None] if x.dim() == 2 else x for kind, x in arrays.items()}
        reading = Reading(list(source), list(target), " ".join(target), arrays)
        for kind, array in arrays.items():
            if kind not in KINDS:
                raise ValueError(f"a kind of attention is one of {KINDS}, not {kind!r}")
            shape = tuple(len(tokens) for tokens in reading.tokens(kind))
            if array.dim() != 4 or array.shape[2:] != shape:
                raise ValueError(f"{kind} attention must end in {shape}, not {tuple(array.shape)}")
        explorer = cls.__new__(cls)
        explorer.pairs, explorer.links = {}, [list(link) for link in gold]
        explorer._start([None], [name], [reading], {"kind": next(iter(arrays))} | state)
        return explorer

    def _start(self, models, names, readings, state):
        self.models, self.names, self.readings = models, list(names), readings
        super().__init__()
        for name, value in state.items():
            self.set_trait(name, value)
        self._show()

    @traitlets.validate("sentence")
    def _check_sentence(self, proposal):
        for model in self.models:
            if model is None:
                raise TraitError("this explorer has no model that could translate a sentence")
            try:
                source_ids(model, proposal.value)
            except ValueError as error:
                raise TraitError(str(error)) from None
        return proposal.value.strip()

    @traitlets.observe("sentence")
    def _translate(self, _):
        self.readings = [read(model, self.sentence) for model in self.models]
        self.selected = ()
        for name in FORCED:
            if getattr(self, name):
                setattr(self, name, {})
        self._show()

    @traitlets.validate(*FORCED)
    def _check_forced(self, proposal):
        number = FORCED.index(proposal.trait.name)
        if number >= len(self.models) or self.models[number] is None:
            raise TraitError("there is no model whose words could be forced")
        try:
            # The keys of a JavaScript object are texts.
            forced = {int(place): token for place, token in proposal.value.items()}
            self.readings[number] = read(self.models[number], self.sentence, forced)
        except ValueError as error:
            raise TraitError(str(error)) from None
        return dict(sorted(forced.items()))

    @traitlets.validate("layer", "head")
    def _check_number(self, proposal):
        name, number = proposal.trait.name, proposal.value
        most = max(reading.size[name == "head"] for reading in self.readings)
        if number is not None and not 1 <= number <= most:
            raise TraitError(f"{name} is 1 to {most}, or None for the mean, not {number}")
        return number

    @traitlets.validate("selected")
    def _check_selected(self, proposal):
        if proposal.value and not self._stands(*proposal.value):
            raise TraitError(
                'selected is ("target", position) or ("source", position) of a token that stands '
                f"there, or (), not {proposal.value}"
            )
        return proposal.value

    def _stands(self, side=None, position=None, *more) -> bool:
        """Whether there is such a token."""
        if side not in SIDES or not isinstance(position, int) or more:
            return False
        tokens = [reading.tokens(self.kind)[SIDES.index(side)] for reading in self.readings]
        return 0 <= position < max(map(len, tokens))

    @traitlets.observe("kind", *FORCED)
    def _show(self, _=None):
        """Let the browser draw what holds now."""
        if self.selected and not self._stands(*self.selected):
            self.selected = ()
        pair = self.pairs.get(self.sentence)
        self.panes = [
            {
                "name": name,
                "text": reading.text,
                "tokens": {kind: reading.tokens(kind) for kind in KINDS},
                "size": reading.size,
                "weights": {
                    kind: weights.numpy().astype("<f4").tobytes()
                    for kind, weights in reading.attention.items()
                },
                "candidates": reading.candidates,
                "unknown": reading.unknown,
                "gold": self._links(number),
                "reference": pair.target if pair else "",
            }
            for number, (name, reading) in enumerate(zip(self.names, self.readings, strict=True))
        ]

    def _links(self, number: int) -> list:
        if self.models[number] is None:
            return self.links
        pair = self.pairs.get(self.sentence)
        words = self.models[number].target_vocabulary
        return gold_links(pair, self.readings[number], words) if pair else []

    @property
    def translation(self) -> str:
        """The first model's translation."""
        return self.readings[0].text

    @property
    def attention(self) -> torch.Tensor | None:
        """The first model's attention as it is drawn, (tokens that look, tokens looked at)."""
        return self.readings[0].matrix(self.kind, self.layer, self.head)

    def _drawn(self) -> str:
        """Which attention it is."""
        parts = [NAMES[self.kind]]
        if any(reading.size > [1, 1] for reading in self.readings):
            parts += ["mean of layers" if self.layer is None else f"layer {self.layer}"]
            parts += ["mean of heads" if self.head is None else f"head {self.head}"]
        return ", ".join(parts)

    def describe(self) -> str:
        told = [self._drawn()]
        for name, reading in zip(self.names, self.readings, strict=True):
            told.append(f"{name}: {reading.text!r}" if name else repr(reading.text))
            weights = reading.matrix(self.kind, self.layer, self.head)
            if weights is None:
                told.append("no such attention")
            elif self.selected and self.selected[1] < weights.shape[SIDES.index(self.selected[0])]:
                told.append(reading.said(weights, self.kind, *self.selected))
        return "; ".join(told)

    def figure(self) -> Figure:
        shapes = [tuple(map(len, reading.tokens(self.kind))) for reading in self.readings]
        width = sum(2.6 + 0.36 * columns for _, columns in shapes)
        height = 2 + 0.32 * max(rows for rows, _ in shapes)
        figure, axes = plt.subplots(
            1, len(shapes), figsize=(width, height), squeeze=False, layout="constrained"
        )
        for number, (ax, reading) in enumerate(zip(axes[0], self.readings, strict=True)):
            self._draw(ax, number, reading)
        gold = self.gold and self.kind == "cross" and any(map(self._links, range(len(shapes))))
        figure.suptitle(self._drawn() + ("; outlined: gold alignment" if gold else ""))
        return figure

    def _draw(self, ax, number: int, reading: Reading) -> None:
        weights = reading.matrix(self.kind, self.layer, self.head)
        rows, columns = reading.tokens(self.kind)
        if weights is None:
            ax.set_axis_off()
            ax.text(0.5, 0.5, f"no {NAMES[self.kind]}", ha="center", fontsize=MEDIUM)
        else:
            if self.kind != "encoder":
                forced = getattr(self, FORCED[number])
                rows = [f"◆ {token}" if i in forced else token for i, token in enumerate(rows)]
            gold = self._links(number) if self.gold and self.kind == "cross" else None
            attention_heatmap(weights, columns, rows, ax=ax, gold=gold)
            ax.set(ylabel=AXES[self.kind][0], xlabel=AXES[self.kind][1])
            side, position = self.selected or ("target", len(rows))
            ticks = ax.get_yticklabels() if side == "target" else ax.get_xticklabels()
            if position < len(ticks):
                ticks[position].set_fontweight("bold")
        name = f"{self.names[number]}: " if self.names[number] else ""
        title = textwrap.fill(name + reading.text, 40 + 4 * len(columns))
        ax.set_title(title, fontsize=LARGE, parse_math=False)
