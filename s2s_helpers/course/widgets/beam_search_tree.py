"""Beam search, step by step: every candidate it ranked, what became of it, and what finished."""

import matplotlib.pyplot as plt
import traitlets
from matplotlib.figure import Figure
from traitlets import TraitError

from s2s_helpers.course.plots import COLOURS, LARGE, MEDIUM, SMALL
from s2s_helpers.course.widgets.base import Widget, module
from s2s_helpers.course.widgets.searching import (
    HIGHEST,
    as_source,
    every_sentence,
    source_ids,
    stop_of,
    trace,
)
from s2s_helpers.decoding import Hypothesis, greedy_decode, length_penalty_of
from s2s_helpers.models.prepacked import prepacked

WIDEST = 8  # k
STYLES = {"kept": (COLOURS[0], "-"), "finished": (COLOURS[2], "-"), "pruned": ("0.45", "--")}


class BeamSearchTree(Widget):
    """The tree of a beam search, step by step, for any model of the four verbs.

    sentence: what to translate; None for a model that reads nothing (it gets EOS alone). sentences:
    some to choose from. beam_size: k, 1 to 8. length_penalty: alpha, 0 to 1. step: how many steps
    are shown. selected: [step, place among its candidates], both from 1, or []. `max_length` bounds
    the ids of a hypothesis, as in `beam_search`, which takes exactly these steps. Raises TraitError
    for a value that none of these can have, such as an empty sentence.
    """

    _esm = module("beam_search_tree")

    sentence = traitlets.Unicode(None, allow_none=True).tag(sync=True)
    sentences = traitlets.List(traitlets.Unicode()).tag(sync=True)
    beam_size = traitlets.Int(2, min=1, max=WIDEST).tag(sync=True)
    length_penalty = traitlets.Float(0.6, min=0, max=HIGHEST).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    search = traitlets.Dict().tag(sync=True)  # what the kernel found; see `_search`

    def __init__(self, model, sentence=None, max_length: int | None = None, **state):
        self.model, self.max_length = model, max_length
        wanted = {name: state.pop(name) for name in ("step", "selected") if name in state}
        super().__init__(sentence=sentence, **state)
        if not self.search:
            self._search()
        self.set_trait("step", wanted.get("step", len(self.search["steps"])))
        self.set_trait("selected", list(wanted.get("selected", [])))

    @traitlets.validate("sentence")
    def _check_sentence(self, proposal):
        source_ids(self.model, proposal.value)
        return proposal.value

    @traitlets.validate("step")
    def _check_step(self, proposal):
        last = len(self.search.get("steps", ()))
        if not 0 <= proposal.value <= last:
            raise TraitError(f"step is 0 to {last}, not {proposal.value}")
        return proposal.value

    @traitlets.validate("selected")
    def _check_selected(self, proposal):
        chosen, steps = proposal.value, self.search.get("steps", ())
        if chosen and not (
            len(chosen) == 2
            and 1 <= chosen[0] <= len(steps)
            and 1 <= chosen[1] <= len(steps[chosen[0] - 1])
        ):
            raise TraitError(f"selected is [step, place], such as [1, 1], or [], not {chosen}")
        return chosen

    @traitlets.observe("sentence", "beam_size")
    def _search(self, change=None):
        old = self.search
        ids = source_ids(self.model, self.sentence)
        source = as_source(self.model, ids)
        ready = prepacked(self.model)
        steps, limit = trace(ready, source, self.beam_size, self.max_length)
        new = {"steps": steps, "limit": limit, "vocabulary": len(self.model.target_vocabulary)}
        for candidate in (candidate for step in steps for candidate in step):
            candidate["word"] = self._words([candidate["token"]])[0]
        if old and change and change["name"] == "beam_size":  # these are of the sentence alone
            new |= {name: old[name] for name in ("source", "greedy", "every")}
        else:
            (greedy,) = greedy_decode(ready, source, max_length=limit, attention=False)
            every = every_sentence(ready, source, limit)
            new["source"] = self.model.source_vocabulary.tokens(ids)
            new["greedy"] = self._sentence(greedy.ids, greedy.log_probability)
            new["every"] = every and [self._sentence(*sentence) for sentence in every]
        at_end = not old or self.step == len(old["steps"])
        with self.hold_sync():
            self.search = new
            self.selected = []
            self.step = len(steps) if at_end else min(self.step, len(steps))

    def _words(self, ids) -> list[str]:
        return self.model.target_vocabulary.tokens(ids)

    def _sentence(self, ids, log_p: float) -> dict:
        return {"ids": ids, "words": self._words(ids), "log_p": log_p}

    @property
    def stop(self) -> int:
        """After how many steps the search stops with the present length penalty."""
        return stop_of(self.search["steps"], self.search["limit"], self.length_penalty)

    @property
    def shown(self) -> int:
        """How many steps are shown: `step`, or all that the search takes."""
        return min(self.step, self.stop)

    def path(self, step: int, place: int) -> list[int]:
        """The ids of a candidate from its first word on; step and place as in `selected`."""
        ids, rank = [], place - 1
        for candidates in reversed(self.search["steps"][:step]):
            ids.append(candidates[rank]["token"])
            rank = candidates[rank]["parent"]
        return ids[::-1]

    @property
    def hypotheses(self) -> list[Hypothesis]:
        """What has finished in the steps shown, the best score first; at the limit, where nothing
        has, the unfinished ones."""
        steps = self.search["steps"][: self.shown]

        def those(fate, numbers):
            found = []
            for number in numbers:
                for place, candidate in enumerate(steps[number - 1], 1):
                    if candidate["fate"] == fate:
                        log_p, lp = (
                            candidate["log_p"],
                            length_penalty_of(number, self.length_penalty),
                        )
                        found.append(Hypothesis(self.path(number, place), log_p, log_p / lp))
            return sorted(found, key=lambda hypothesis: -hypothesis.score)

        found = those("finished", range(1, len(steps) + 1))
        return found or (those("kept", [len(steps)]) if len(steps) == self.search["limit"] else [])

    def _references(self) -> list[tuple[str, dict]]:
        """Greedy's sentence, and by brute force the best of all with and without the penalty."""
        greedy, every = self.search["greedy"], self.search["every"]
        if not every:
            return [("greedy", greedy)]
        return [
            ("greedy", greedy),
            (f"brute force, all {len(every)}: best log p", every[0]),
            (f"brute force, all {len(every)}: best score", max(every, key=self._score)),
        ]

    def _score(self, sentence: dict) -> float:
        return sentence["log_p"] / length_penalty_of(len(sentence["words"]), self.length_penalty)

    def _lines(self, most: int = 5) -> list[str]:
        """The finished sentences and the references, a line each."""
        rows = [
            (f"{place}.", h.ids, h.log_probability) for place, h in enumerate(self.hypotheses, 1)
        ]
        rows = [(name, self._sentence(ids, log_p)) for name, ids, log_p in rows[:most]]
        return [
            f"{' '.join(one['words'])}   log p {one['log_p']:.2f}, score {self._score(one):.2f}"
            f"   ({name})"
            for name, one in rows + self._references()
        ]

    def describe(self) -> str:
        about = "" if self.sentence is None else f"{self.sentence!r}, "
        lines = self._lines(1) if self.hypotheses else ["nothing finished yet", *self._lines(0)]
        return (
            f"{about}k = {self.beam_size}, alpha = {self.length_penalty:.2f}, step {self.shown} of "
            f"{self.stop}: " + "; ".join(lines)
        )

    def figure(self) -> Figure:
        steps, lines = self.search["steps"][: self.shown], self._lines()
        rows = max(map(len, steps), default=1)
        high = 0.5 * rows + 0.2 * len(lines) + 1.5
        figure, ax = plt.subplots(
            figsize=(max(7, 1.15 * len(steps) + 1.5), high), layout="constrained"
        )
        chosen = {(0, 0)}
        if self.selected and self.selected[0] <= len(steps):
            step, place = self.selected
            for number in range(step, 0, -1):
                chosen.add((number, place))
                place = steps[number - 1][place - 1]["parent"] + 1
        ax.text(0, 0, "<sos>", ha="center", va="center", fontsize=SMALL)
        for number, candidates in enumerate(steps, 1):
            for place, candidate in enumerate(candidates, 1):
                colour, dash = STYLES[candidate["fate"]]
                wide = 2.5 if (number, place) in chosen else 1
                y = -candidate["parent"] if number > 1 else 0
                ends = [number - (0.72 if number > 1 else 0.78), number - 0.3], [y, 1 - place]
                ax.plot(*ends, color=colour, ls=dash, lw=wide, alpha=0.7)
                box = dict(boxstyle="round", facecolor="white", edgecolor=colour, ls=dash, lw=wide)
                text = f"{candidate['word']}\n{candidate['log_p']:.2f}"
                ax.text(
                    number, 1 - place, text, ha="center", va="center", fontsize=SMALL, bbox=box,
                    parse_math=False,
                )  # fmt: skip
        for fate, (colour, dash) in STYLES.items():
            ax.plot([], [], color=colour, ls=dash, label=fate)
        ax.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, frameon=False, fontsize=SMALL
        )
        ax.set(xlim=(-0.4, len(steps) + 0.5), ylim=(0.5 - rows, 0.6))
        ax.axis("off")
        about = "" if self.sentence is None else f": {self.sentence}"
        title = f"Beam search with k = {self.beam_size}{about}"
        ax.set_title(title, fontsize=LARGE, parse_math=False)
        head = (
            f"Finished after step {self.shown} of {self.stop}, alpha = {self.length_penalty:.2f}:"
        )
        figure.supxlabel(
            "\n".join([head, *lines]), fontsize=MEDIUM, ha="left", x=0.02, parse_math=False
        )
        return figure
