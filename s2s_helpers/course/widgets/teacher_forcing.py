"""Teacher forcing, a step at a time: feed the gold word or the model's own, see errors spread."""

import matplotlib.pyplot as plt
import torch
import traitlets
from matplotlib.figure import Figure
from traitlets import TraitError

from s2s_helpers.course.plots import COLOURS, LARGE, MEDIUM, SMALL
from s2s_helpers.course.widgets.base import Widget, module
from s2s_helpers.decoding import encode_source
from s2s_helpers.models.view import eval_view
from s2s_helpers.vocabulary import SOS

BEST = 5  # words of a distribution that are told


def fed(model, source: list[int], gold: list[int], own: list[bool]) -> list[dict]:
    """Step the decoder along the gold sentence; a column for each of its positions.

    The first position reads SOS, position t the gold word before it, or where `own[t - 1]` what the
    model said there. A column has "fed", "said", "gold" (words), "p" of what was said, "p_gold",
    and "best", the `BEST` likeliest words with their probabilities.
    """
    words, device = model.target_vocabulary, next(model.parameters()).device
    ids = torch.tensor([source], device=device)
    columns, token = [], SOS
    with torch.inference_mode():
        model = eval_view(model)
        memory = model.encode(ids, torch.ones_like(ids, dtype=torch.bool))
        state = model.start(memory)
        for place, right in enumerate(gold):
            logits, state, _ = model.step(torch.tensor([token], device=device), state, memory)
            p = logits[0].float().softmax(dim=-1)  # (vocabulary,)
            values, best = p.topk(BEST)
            names = words.tokens([token, right, *best.tolist()])
            columns.append(
                {
                    "fed": names[0],
                    "gold": names[1],
                    "said": names[2],
                    "right": int(best[0]) == right,
                    "p": round(values[0].item(), 4),
                    "p_gold": round(p[right].item(), 4),
                    "best": [
                        [n, round(v, 4)] for n, v in zip(names[2:], values.tolist(), strict=True)
                    ],
                }
            )
            token = int(best[0]) if place < len(own) and own[place] else right
    return columns


class TeacherForcing(Widget):
    """Step the decoder of a trained model; each step reads the gold word or the model's own.

    As in training (Bengio et al. 2015, section 2.1), there are as many steps as the gold sentence
    has tokens, and a word is right where it stands in the reference.

    models: a model, or a dict of models by name. pairs: (source, target) texts. model, pair: the
    name and the number of those chosen. own: for each position from the second, whether it reads
    the model's own word. at: positions that have been shown, from 1. `columns` is what came of it
    (see `fed`); `all_gold` and `all_own` are the same for the two extremes. Raises TraitError for a
    value that none of these can have, ValueError for no pairs or a text that a model cannot read.
    """

    _esm = module("teacher_forcing")

    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    pairs = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    model = traitlets.Unicode().tag(sync=True)
    pair = traitlets.Int(0).tag(sync=True)
    own = traitlets.List(traitlets.Bool()).tag(sync=True)
    at = traitlets.Int(1).tag(sync=True)
    columns = traitlets.List().tag(sync=True)
    feeding = traitlets.List(traitlets.Bool()).tag(sync=True)  # the `own` that columns belong to
    all_gold = traitlets.List().tag(sync=True)
    all_own = traitlets.List().tag(sync=True)

    def __init__(self, models, pairs, **settings):
        self._models = models if isinstance(models, dict) else {"model": models}
        pairs = [
            list(pair) if isinstance(pair, tuple | list) else [pair.source, pair.target]
            for pair in pairs
        ]
        if not pairs or not self._models:
            raise ValueError("there must be a model and at least one (source, target) pair")
        names = list(self._models)
        super().__init__(names=names, pairs=pairs, model=names[0])
        self._start()
        for name, value in settings.items():
            setattr(self, name, value)

    @traitlets.validate("model")
    def _check_model(self, proposal):
        if proposal.value not in self._models:
            raise TraitError(f"model is one of {list(self._models)}, not {proposal.value!r}")
        return proposal.value

    @traitlets.validate("pair")
    def _check_pair(self, proposal):
        if not 0 <= proposal.value < len(self.pairs):
            raise TraitError(f"pair is 0 to {len(self.pairs) - 1}, not {proposal.value}")
        return proposal.value

    @traitlets.validate("at")
    def _check_at(self, proposal):
        if self.all_gold and not 1 <= proposal.value <= len(self.all_gold):
            raise TraitError(f"at is 1 to {len(self.all_gold)}, not {proposal.value}")
        return proposal.value

    @traitlets.validate("own")
    def _check_own(self, proposal):
        if self.all_gold and len(proposal.value) != len(self.all_gold) - 1:
            raise TraitError(
                f"own has {len(self.all_gold) - 1} choices, one for each position from the second, "
                f"not {len(proposal.value)}"
            )
        return proposal.value

    @traitlets.observe("model", "pair")
    def _changed(self, change):
        if self.all_gold:
            self._start(keep=change.name == "model")

    @traitlets.observe("own")
    def _fed_otherwise(self, change):
        if self.all_gold:
            self._feed()

    def _ids(self):
        chosen = self._models[self.model]
        source, target = self.pairs[self.pair]
        ids = encode_source(chosen, source, f"sentence {self.pair}")
        return chosen, ids, chosen.target_vocabulary.encode(target)

    def _start(self, keep: bool = False) -> None:
        chosen, source, gold = self._ids()
        with self.hold_sync():
            size = len(gold) - 1
            own = self.own if keep and len(self.own) == size else [False] * size
            self.all_gold, self.all_own = [], []  # no check and no step before all is new
            self.own, self.at = own, self.at if keep else 1
            self.all_gold = fed(chosen, source, gold, [False] * size)
            self.all_own = fed(chosen, source, gold, [True] * size)
            self._feed()

    def _feed(self) -> None:
        with self.hold_sync():
            self.columns, self.feeding = fed(*self._ids(), self.own), list(self.own)

    def feed(self, own: bool) -> None:
        """One step on: the next position reads the model's own word, or the gold one."""
        if self.at < len(self.columns):
            self.own = [*self.own[: self.at - 1], own, *self.own[self.at :]]
            self.at += 1

    @staticmethod
    def right(columns: list[dict]) -> int:
        """How many words are right."""
        return sum(column["right"] for column in columns)

    def describe(self) -> str:
        size, (source, _) = len(self.columns), self.pairs[self.pair]
        gold, own = self.right(self.all_gold), self.right(self.all_own)
        return (
            f"“{source}”, {self.model}: of {size} words {gold} right reading gold words, "
            f"{own} reading its own; as fed here {self.right(self.columns)}"
        )

    def figure(self) -> Figure:
        size = len(self.columns)
        figure, (table, chart) = plt.subplots(
            2, 1, figsize=(max(7, 0.95 * size + 1.5), 4.4), layout="constrained", sharex=True
        )
        for place, column in enumerate(self.columns):
            own = place and self.own[place - 1]
            mark = "✓" if column["right"] else "✗"
            rows = (
                (column["gold"], "0.95"),
                (column["fed"], "#fbe3d1" if own else "#d9ebf7"),
                (
                    f"{column['said']} {mark}\n{column['p']:.2f}",
                    "0.95" if column["right"] else "#fbe3d1",
                ),
            )
            for height, (text, colour) in enumerate(rows):
                table.text(
                    place, 2 - height, text, ha="center", va="center", fontsize=SMALL,
                    parse_math=False, bbox=dict(fc=colour, ec="none", boxstyle="round"),
                )  # fmt: skip
        table.set(ylim=(-0.6, 2.5), yticks=[2, 1, 0], yticklabels=["gold", "fed", "said, p"])
        source, _ = self.pairs[self.pair]
        table.set_title(f"{self.model}: {source}", fontsize=LARGE, parse_math=False)
        table.spines[:].set_visible(False)
        table.tick_params(length=0, labelsize=SMALL)
        lines = {
            "reading gold words": (self.all_gold, "o-", COLOURS[0]),
            "reading its own": (self.all_own, "s--", COLOURS[1]),
            "as fed above": (self.columns, ":", "black"),
        }
        for name, (columns, style, colour) in lines.items():
            values = [column["p_gold"] for column in columns]
            chart.plot(values, style, color=colour, ms=4, label=name)
        chart.set(xlim=(-0.6, size - 0.4), ylim=(-0.03, 1.03), xticks=range(size))
        chart.set_xticklabels(range(1, size + 1))
        chart.set_xlabel(
            "position (orange above: its own word fed, or a wrong one said)", fontsize=MEDIUM
        )
        chart.set_ylabel("p(gold word)", fontsize=MEDIUM)
        chart.legend(fontsize=SMALL, frameon=False)
        chart.spines[["top", "right"]].set_visible(False)
        return figure
