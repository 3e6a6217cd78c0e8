"""Greedy decoding, beam search and three ways of sampling on one sentence, side by side."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from traitlets import TraitError

from s2s_helpers.course.plots import COLOURS, LARGE, MEDIUM, SMALL
from s2s_helpers.course.widgets.base import Widget, module
from s2s_helpers.course.widgets.searching import as_source, source_ids
from s2s_helpers.data import Batch
from s2s_helpers.decoding import (
    beam_search,
    greedy_decode,
    next_log_probabilities,
    random_of,
    sample,
)
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.vocabulary import PAD, SOS

ROWS = ("greedy", "beam", "temperature", "top_k", "top_p")
DRAWN = ROWS[2:]
SHOWN = 10  # words of a distribution that get a bar of their own


def filtered(log_p, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None):
    """What `sample` draws from, (…, words), of the model's log p (…, words), likeliest first."""
    p = (log_p / temperature).softmax(dim=-1)
    if top_k is not None:
        p[..., top_k:] = 0
    if top_p is not None:
        p[p.cumsum(dim=-1) - p >= top_p] = 0
    return p / p.sum(dim=-1, keepdim=True)


class DecodingPlayground(Widget):
    """One sentence, decoded in five ways by any model of the four verbs, and at every word the
    distribution that it was taken from.

    sentence: what to translate; None for a model that reads nothing. sentences: some to choose
    from. beam_size: k of the beam, whose length penalty is 0.6. temperature, top_k, top_p: what
    `sample` gets in the row of that name, and nothing else. seed: of the three samples; they draw
    with the same numbers. selected: [row, word], both from 0, the rows as in ROWS. `max_length`
    bounds the ids of a row. Raises TraitError for a value that none of these can have.
    """

    _esm = module("decoding_playground")

    sentence = traitlets.Unicode(None, allow_none=True).tag(sync=True)
    sentences = traitlets.List(traitlets.Unicode()).tag(sync=True)
    beam_size = traitlets.Int(5, min=1, max=10).tag(sync=True)
    temperature = traitlets.Float(1.0, min=0.05, max=3).tag(sync=True)
    top_k = traitlets.Int(3, min=1, max=50).tag(sync=True)
    top_p = traitlets.Float(0.9, min=0.01, max=1).tag(sync=True)
    seed = traitlets.Int(0, min=0).tag(sync=True)
    selected = traitlets.List(traitlets.Int(), [2, 0]).tag(sync=True)
    source = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)  # what the kernel found; see `_row`

    def __init__(self, model, sentence=None, max_length: int | None = None, **state):
        self.model, self.max_length, self._ids = model, max_length, {}
        chosen = state.pop("selected", self.selected)
        super().__init__(sentence=sentence, **state)
        if not self.rows:
            self._decode()
        self.selected = list(chosen)

    @traitlets.validate("sentence")
    def _check_sentence(self, proposal):
        source_ids(self.model, proposal.value)
        return proposal.value

    @traitlets.validate("selected")
    def _check_selected(self, proposal):
        row, word = proposal.value if len(proposal.value) == 2 else (-1, -1)
        if self.rows and not (0 <= row < 5 and 0 <= word < len(self.rows[row]["words"])):
            raise TraitError(f"selected is [row, word], such as [0, 0], not {proposal.value}")
        return proposal.value

    @traitlets.observe("sentence", "beam_size", "temperature", "top_k", "top_p", "seed")
    def _decode(self, change=None):
        """Decode anew what the change touches."""
        name = change["name"] if change and self.rows else "sentence"
        touched = {"sentence": ROWS, "beam_size": ("beam",), "seed": DRAWN}.get(name, (name,))
        ids = source_ids(self.model, self.sentence)
        source = as_source(self.model, ids)
        ready = prepacked(self.model)
        found = {row: self._hypothesis(ready, row, source) for row in touched}
        with torch.inference_mode():
            longest = max(len(hypothesis.ids) for hypothesis in found.values())
            target = source.new_full((len(found), longest + 1), PAD)
            target[:, 0] = SOS
            for line, hypothesis in enumerate(found.values()):
                target[line, 1 : 1 + len(hypothesis.ids)] = torch.tensor(hypothesis.ids)
            many = source.expand(len(found), -1)
            logits, _ = ready(Batch(many, many != PAD, target))
        log_p = next_log_probabilities(logits.flatten(0, 1)).view(logits.shape).cpu()
        rows = {row["name"]: row for row in self.rows}
        for line, (row, hypothesis) in enumerate(found.items()):
            rows[row] = self._row(row, hypothesis, log_p[line, : len(hypothesis.ids)])
        at, place = self.selected
        with self.hold_sync():
            self.source = self.model.source_vocabulary.tokens(ids)
            self.rows = [rows[row] for row in ROWS]
            self.selected = [at, min(place, len(self.rows[at]["words"]) - 1)]

    def settings(self, row: str) -> dict:
        """What `sample` is given for this row."""
        return {row: getattr(self, row)} if row in DRAWN else {}

    def _hypothesis(self, model, row: str, source):
        inputs = dict(max_length=self.max_length, attention=False)
        if row == "greedy":
            return greedy_decode(model, source, **inputs)[0]
        if row == "beam":
            return beam_search(model, source, beam_size=self.beam_size, **inputs)[0][0]
        return sample(model, source, seed=self.seed, **self.settings(row), **inputs)[0]

    def _row(self, row: str, hypothesis, log_p) -> dict:
        """A row for the browser: its words, and for each the likeliest ones with the model's p and
        the q it was drawn from (None where nothing is drawn), the rest in one sum."""
        tokens, luck = self.model.target_vocabulary.tokens, random_of(self.seed)
        values, order = log_p.sort(descending=True)  # (steps, words)
        ids = torch.tensor(hypothesis.ids)[:, None]
        ranks, p = (order == ids).int().argmax(dim=1).tolist(), values.exp()
        sums, possible = p.sum(dim=1).tolist(), (p > 0).sum(dim=1).tolist()
        drawn = row in DRAWN
        q = filtered(values, **self.settings(row)) if drawn else p
        kept, kept_p = (q > 0).sum(dim=1).tolist(), p.where(q > 0, 0.0).sum(dim=1).tolist()
        steps = []
        for at, rank in enumerate(ranks):
            shown = [*range(min(SHOWN, possible[at])), *([rank] if rank >= SHOWN else [])]
            step = {"words": tokens(order[at, shown]), "p": p[at, shown].tolist(), "rank": rank}
            step |= {"others": possible[at] - len(shown)}
            step |= {"rest": max(0.0, sums[at] - sum(step["p"]))}
            if drawn:
                step |= {"q": q[at, shown].tolist(), "luck": luck.random()}
                step |= {"kept": kept[at], "kept_p": kept_p[at]}
            steps.append(step)
        found = {"words": tokens(hypothesis.ids), "log_p": hypothesis.log_probability}
        return {"name": row, **found, "steps": steps}

    def _heading(self, row: str) -> str:
        settings = {"beam": {"beam_size": self.beam_size}}.get(row, self.settings(row))
        return ", ".join([row, *(f"{value:g}" for value in settings.values())])

    def describe(self) -> str:
        about = "" if self.sentence is None else f"{self.sentence!r}, "
        rows = (
            f"{self._heading(row['name'])}: {' '.join(row['words'])} (log p {row['log_p']:.2f})"
            for row in self.rows
        )
        return f"{about}seed {self.seed}; {'; '.join(rows)}"

    def figure(self) -> Figure:
        at, place = self.selected
        row = self.rows[at]
        step = row["steps"][place]
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(12, 4), layout="constrained", width_ratios=(1.3, 1)
        )
        for number, one in enumerate(self.rows):
            words = [
                f"[{w}]" if (number, i) == (at, place) else w for i, w in enumerate(one["words"])
            ]
            text = textwrap.shorten(" ".join(words), 160, placeholder=" …")
            lines = "\n".join(textwrap.wrap(text, 66))
            head = f"{self._heading(one['name'])}   (log p {one['log_p']:.2f})"
            left.text(0, -number, head, fontsize=MEDIUM, va="bottom", weight="bold")
            left.text(0, -number, lines, fontsize=SMALL, va="top", parse_math=False)
        left.set(xlim=(0, 1), ylim=(-4.7, 0.4))
        left.axis("off")
        about = "five ways to decode" if self.sentence is None else self.sentence
        left.set_title(about, fontsize=LARGE, parse_math=False)
        places = np.arange(len(step["words"]))
        right.barh(places, step["p"], 0.75, color=COLOURS[0], label="the model's p")
        for number, bar in enumerate(right.patches):
            if "q" in step and step["q"][number] == 0:
                bar.set(facecolor="white", edgecolor="0.45", hatch="///")
        if "q" in step:
            ends = np.array([places - 0.42, places + 0.42])
            right.plot([], [], color=COLOURS[1], lw=3, label="q, which is drawn from")
            right.vlines(step["q"], *ends, color=COLOURS[1], lw=3)
        names = [
            f"{word} *" if number == min(step["rank"], SHOWN) else word
            for number, word in enumerate(step["words"])
        ]
        right.set_yticks(places, names, parse_math=False)
        right.invert_yaxis()
        right.set_xlabel("probability   (* written; hatched: cut off)", fontsize=MEDIUM)
        title = f"{self._heading(row['name'])}: word {place + 1}"
        right.set_title(title, fontsize=LARGE)
        right.legend(fontsize=SMALL, frameon=False, loc="lower right")
        right.tick_params(labelsize=SMALL)
        right.spines[["top", "right"]].set_visible(False)
        return figure
