"""Greedy decoding, beam search, and what every search is made of.

Written once over the four methods (`models/interface.py`), for every model. The source is encoded
once per sentence, whole batches are decoded together, a sentence that is finished leaves the batch,
and what a sentence gets does not depend on which others stand beside it.

A search of one's own is written with two hooks, functions that are called at every step:

    choose(log_p, lines) -> (tokens, their log p), (lines,) each: how the next token is taken
    score(log_p, lines) -> log_p: what the candidates count before one is chosen; -inf forbids

log_p (lines, vocabulary) is the log-probability of every next token, and `lines` is a `Lines`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s2s_helpers.models.interface import Memory, State
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.vocabulary import EOS, PAD, SOS

LINES, TOKENS = 256, 64  # room in a batch: so many lines of so many source tokens
# Sentences that are over leave the batch when at most this share of it still goes on: sooner, and
# moving the others' keys and values would take longer than writing on for nothing.
STAY = 7 / 8


@dataclass
class Hypothesis:
    """One decoded sentence.

    ids: without SOS; they end with EOS if `finished`, else the length limit cut them off.
    log_probability: natural log of p(ids | source) under the model. score: what hypotheses are
    ranked by, their log-probability, as hooks changed it, / lp(length). attention: one row for each
    id, (target, source) or (layers, heads, target, source) or None.
    """

    ids: list[int]
    log_probability: float
    score: float
    attention: Tensor | None = None

    @property
    def finished(self) -> bool:
        return bool(self.ids) and self.ids[-1] == EOS


@dataclass
class Lines:
    """What is being written when a hook is called: one line for each row of its log_p.

    rows: the row of `source` that each line translates. length: tokens written so far. model,
    state, memory: `model.step(tokens, state, memory)` looks one token ahead, as often as wanted.
    Some lines may be over: what a hook says of them is not used.
    """

    model: Any
    memory: Memory
    state: State
    rows: list[int]
    length: int
    read_back: Callable[[], Tensor]

    @property
    def ids(self) -> Tensor:
        """The tokens so far, without SOS, (lines, length); PAD where a line is over."""
        return self.read_back()


Choose = Callable[[Tensor, Lines], tuple[Tensor, Tensor]]
Score = Callable[[Tensor, Lines], Tensor]


def length_penalty_of(length: float, alpha: float) -> float:
    """lp(Y) = (5 + |Y|)^alpha / (5 + 1)^alpha, |Y| with EOS (Wu et al. 2016, equation 14)."""
    return ((5.0 + length) / 6.0) ** alpha


def check_length_penalty(alpha: float) -> None:
    """Raise ValueError for an alpha that ranks nothing: NaN, below 0, or so large that lp is."""
    if not 0 <= alpha <= 10:
        raise ValueError(f"length_penalty must be from 0 to 10, such as 0.6, got {alpha}")


def check_source(
    model: Any, source: Tensor, source_mask: Tensor | None, max_length: int | None
) -> tuple[Tensor, Tensor]:
    """The mask (made where it is None) and for every row the most ids it may write, (batch,).

    A model of `max_positions` reads SOS and all but the last id, so it can write as many ids.
    Raises ValueError for a mask that does not fit, a row without a token, a max_length below 1.
    """
    if source_mask is None:
        source_mask = source != PAD
    if source_mask.shape != source.shape or source_mask.dtype != torch.bool:
        raise ValueError(
            f"source_mask must be bool and shaped like source {tuple(source.shape)}, "
            f"got {source_mask.dtype} {tuple(source_mask.shape)}"
        )
    if not source_mask.any(dim=1).all():
        raise ValueError("every source row needs at least one real token")
    if max_length is not None and not (isinstance(max_length, Integral) and max_length >= 1):
        raise ValueError(f"max_length must be a whole number of at least 1, got {max_length}")
    if max_length is None:
        limits = 2 * source_mask.sum(dim=1) + 10
    else:
        limits = torch.full((len(source),), max_length, device=source.device)
    if model.max_positions is not None:
        limits = limits.clamp(max=model.max_positions)
    return source_mask, limits


def next_log_probabilities(logits: Tensor) -> Tensor:
    """log p of every next token (lines, vocabulary); PAD and SOS, never written, get -inf.

    While decoding it takes the place of the logits: a second tensor as large would come from the
    system anew at every step, and that takes longer than the softmax. (Logits that were not made
    while decoding, such as a parameter, stay.)
    """
    fresh = torch.is_inference_mode_enabled() and logits.is_inference()
    if fresh and logits.dtype == torch.float32:
        log_p = torch.log_softmax(logits, dim=-1, out=logits)
    else:
        log_p = logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float))
    log_p[:, PAD] = log_p[:, SOS] = float("-inf")
    return log_p


def largest(numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row (rows, numbers), the largest first, and their places.

    They lie in the k groups with the largest maxima, and a maximum is found many times faster than
    an order: so first the groups, then an order within these. Rows with fewer than k numbers are
    filled up with -inf at place 0.
    """
    rows, size = numbers.shape
    width = math.isqrt(size)
    if rows < 4 or size < max(4000, 10 * width * k):  # sooner put in order at once
        one = k == 1  # a maximum alone takes half the time
        values, places = numbers.max(1, keepdim=True) if one else numbers.topk(min(k, size))
        missing = (0, k - values.shape[1])
        if missing[1]:
            values, places = F.pad(values, missing, value=float("-inf")), F.pad(places, missing)
        return values, places
    whole = size - size % width
    maxima = numbers[:, :whole].unflatten(1, (-1, width)).amax(dim=2)  # (rows, groups)
    if whole < size:
        maxima = torch.cat([maxima, numbers[:, whole:].amax(dim=1, keepdim=True)], dim=1)
    groups = maxima.topk(k, sorted=False).indices  # (rows, k)
    places = (groups[:, :, None] * width + torch.arange(width, device=groups.device)).flatten(1)
    within = numbers.gather(1, places.clamp(max=size - 1))  # (rows, k x width)
    within.masked_fill_(places >= size, float("-inf"))  # the last group may be short
    values, order = within.topk(k)
    return values, places.gather(1, order)


def most_probable(log_p: Tensor, lines: Lines) -> tuple[Tensor, Tensor]:
    """The `choose` of greedy decoding."""
    values, tokens = largest(log_p, 1)
    return tokens[:, 0], values[:, 0]


def generate(
    model: Any, source: Tensor, source_mask: Tensor | None = None, choose: Choose = most_probable,
    score: Score | None = None, max_length: int | None = None, attention: bool = True,
) -> list[Hypothesis]:  # fmt: skip
    """Write one hypothesis for each row of `source` (batch, source), token after token.

    The hooks `choose` and `score` are those of this file's head. `max_length` bounds the ids of a
    hypothesis; without it a row of n tokens gets 2 n + 10. `attention=False` spares the weights.

    A hypothesis's score is the sum of what `choose` says of its tokens. Raises ValueError where the
    hooks leave a row nothing to choose (-inf), and as `check_source` does.
    """
    source_mask, limits = check_source(model, source, source_mask, max_length)
    limits = limits.tolist()
    found = [Hypothesis([], 0.0, 0.0) for _ in limits]
    weights: list[list] = [[] for _ in limits]  # of attention, a row for each token
    with torch.inference_mode():
        model = prepacked(model)
        memory = model.encode(source, source_mask)
        state = model.start(memory)
        rows = list(range(len(limits)))  # of the lines
        going = rows  # the lines that are not over
        tokens = source.new_full((len(limits),), SOS)  # (lines,)
        length = 0

        def ids() -> Tensor:
            padded = [found[row].ids + [PAD] * (length - len(found[row].ids)) for row in rows]
            return torch.tensor(padded, device=source.device).long().view(len(rows), length)

        while going:
            logits, state, given = model.step(tokens, state, memory)
            own = next_log_probabilities(logits)  # (lines, vocabulary)
            lines = Lines(model, memory, state, rows, length, ids)
            tokens, values = choose(own if score is None else score(own.clone(), lines), lines)
            chosen, scores = tokens.tolist(), values.tolist()
            values = scores if score is None else own.gather(1, tokens[:, None])[:, 0].tolist()
            length += 1
            before, going = going, []
            for line in before:
                one, token = found[row := rows[line]], chosen[line]
                if scores[line] == -math.inf:
                    raise ValueError(
                        f"no token is left to choose for row {row} after {one.ids}: `choose` or "
                        "`score` has ruled out all"
                    )
                one.ids.append(token)
                one.log_probability += values[line]
                one.score += scores[line]
                if attention and given is not None:
                    weights[row].append(given[line])
                if token != EOS and length < limits[row]:
                    going.append(line)
            if going and len(going) <= STAY * len(rows):
                rows, kept = [rows[line] for line in going], torch.tensor(going).to(source.device)
                tokens, memory, state = tokens[kept], memory.select(kept), state.select(kept)
                going = list(range(len(rows)))
    for one, steps, mask in zip(found, weights, source_mask, strict=True):
        one.attention = stack_attention(steps, int(mask.sum()))
    return found


def greedy_decode(
    model: Any, source: Tensor, source_mask: Tensor | None = None, max_length: int | None = None,
    attention: bool = True,
) -> list[Hypothesis]:  # fmt: skip
    """Take the most probable token at every step, for all rows of `source` (batch, source) at once:
    `generate` without hooks."""
    return generate(model, source, source_mask, max_length=max_length, attention=attention)


def stack_attention(steps: list[Tensor], source_length: int) -> Tensor | None:
    """Attention of single steps to (target, source) or (layers, heads, target, source), without the
    columns of padding; None of no steps."""
    return torch.stack(steps, dim=-2)[..., :source_length].clone() if steps else None


def beam_search(
    model: Any, source: Tensor, source_mask: Tensor | None = None, beam_size: int = 5,
    length_penalty: float = 0.6, max_length: int | None = None, n_best: int = 1,
    attention: bool = True, score: Score | None = None,
) -> list[list[Hypothesis]]:  # fmt: skip
    """Keep the `beam_size` best unfinished hypotheses of every row (Sutskever et al. 2014, §3.2).

    Hypotheses are ranked by log p / lp(length), alpha = `length_penalty` (Wu et al. 2016, §7). A
    row stops only when no unfinished hypothesis can still overtake its `n_best` finished ones: its
    log-probability can only fall, and lp can grow no further than lp(limit). So stopping early
    never changes the result. Where nothing ends within the limit, the best unfinished are returned.
    The hook `score` changes log p (see this file's head); it must not raise it above 0.

    Returns for every row up to `n_best` hypotheses, best first. Raises ValueError for a beam_size
    below 1, an n_best outside 1 to beam_size, a length_penalty outside 0 to 10, a bad source, and
    where `score` leaves a row nothing at all.
    """
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1, got {beam_size}")
    if not 1 <= n_best <= beam_size:
        raise ValueError(f"n_best must lie between 1 and beam_size {beam_size}, got {n_best}")
    check_length_penalty(length_penalty)
    source_mask, limits = check_source(model, source, source_mask, max_length)
    with torch.inference_mode():
        settings = beam_size, length_penalty, n_best, attention, score
        search = BeamSearch(prepacked(model), source, source_mask, limits, *settings)
        while search.searching:
            search.advance()
    return search.results()


class BeamSearch:
    """A batched beam search under way; `advance` is one step of every sentence, to be called within
    `torch.inference_mode()` on a view of the model (`prepacked`).

    A sentence owns `beam_size` neighbouring lines of the batch. What the lines wrote is kept as one
    record a step, (token, parent line, attention), and read back from its end for the winners only.
    """

    def __init__(
        self, model: Any, source: Tensor, source_mask: Tensor, limits: Tensor, beam_size: int,
        alpha: float, n_best: int = 1, attention: bool = True, score: Score | None = None,
    ) -> None:  # fmt: skip
        self.model, self.beam_size, self.alpha, self.n_best = model, beam_size, alpha, n_best
        self.attention, self.score = attention, score
        self.limits, self.source_lengths = limits.tolist(), source_mask.sum(dim=1).tolist()
        self.searching = list(range(len(source)))  # sentences not yet done
        # Of each sentence: (score, log p, step, parent line, token), the best first.
        self.best: list[list[tuple]] = [[] for _ in source]
        self.history: list[tuple] = []
        self.memory = self.model.encode(source, source_mask)
        self.state = self.model.start(self.memory)
        # Before the first token all hypotheses are one.
        self.tokens = source.new_full((len(source),), SOS)  # (lines,)
        self.scores = torch.zeros(len(source), 1, device=source.device)  # (sentences, beam)
        self.log_p = self.scores  # the model's own, where a hook has changed the scores

    def advance(self) -> None:
        """Extend every line by one token, keep the best, let finished sentences go."""
        beam, length = self.beam_size, len(self.history)
        logits, state, attention = self.model.step(self.tokens, self.state, self.memory)
        log_p = next_log_probabilities(logits)  # (lines, vocabulary)
        before, width, size = self.scores.flatten()[:, None], self.scores.shape[1], log_p.shape[1]
        if self.score is None:
            totals = log_p.add_(before)
        else:
            rows = [sentence for sentence in self.searching for _ in range(width)]
            lines = Lines(self.model, self.memory, state, rows, length, self._ids)
            own = log_p + self.log_p.flatten()[:, None]
            totals = self.score(log_p, lines) + before
        # Each line can end in one way only, so of the best 2 beam candidates at least beam go on.
        values, flat = largest(totals.view(len(self.searching), -1), 2 * beam)
        first_lines = torch.arange(0, len(totals), width, device=totals.device)[:, None]
        parents, tokens = first_lines + flat // size, flat % size  # (sentences, candidates)
        found = [parents, tokens, values]
        if self.score is not None:
            found.append(own.view(len(self.searching), -1).gather(1, flat))
        ends = tokens == EOS
        self._note(ends[:, :beam], found)
        # Those that go on to the front, the order among them unchanged.
        front = ends.int().sort(dim=1, stable=True).indices[:, :beam]
        found = [x.gather(1, front) for x in found]  # (sentences, beam)
        going, lost = self._may_improve(found[2][:, 0].tolist(), length + 1)
        if lost:  # nothing ended within the limit
            cut = torch.zeros_like(found[0], dtype=torch.bool)
            cut[lost] = True
            self._note(cut, found)
        if len(going) <= STAY * len(self.searching):
            kept = torch.tensor(going, dtype=torch.long, device=values.device)
            found = [x[kept] for x in found]
            self.searching = [self.searching[place] for place in going]
            self.memory = self.memory.select(kept) if self.model.shares_memory else self.memory
        elif len(going) < len(self.searching):
            over = sorted({*range(len(self.searching))} - {*going})
            found[2][over] = float("-inf")  # nothing can come of these any more
        self.scores, self.log_p = found[2], found[-1]
        self.tokens, lines = found[1].flatten(), found[0].flatten()
        self.history.append((self.tokens, lines, attention if self.attention else None))
        if self.model.shares_memory:
            self.state = state.select(lines, beam)
        else:
            self.state, self.memory = state.select(lines), self.memory.select(lines)

    def _note(self, which: Tensor, found: list[Tensor]) -> None:
        """Enter the hypotheses of `found` that are over, and keep the `n_best` of their sentence.

        which: (sentences, some). found: parents, tokens, scores, and with a hook the model's log p,
        (sentences, candidates), the first of them those that `which` is about.
        """
        places = which.nonzero().tolist()
        if not places:
            return
        length = len(self.history) + 1
        penalty = length_penalty_of(length, self.alpha)
        chosen = [x[:, : which.shape[1]][which].tolist() for x in found]
        for (place, _), parent, token, value, log_p in zip(
            places, *chosen[:3], chosen[-1], strict=True
        ):
            if value > -math.inf:
                best = self.best[self.searching[place]]
                best.append((value / penalty, log_p, length - 1, parent, token))
                best.sort(key=lambda entry: -entry[0])
                del best[self.n_best :]

    def _may_improve(self, live_scores: list[float], length: int) -> tuple[list[int], list[int]]:
        """Places of the sentences whose best unfinished hypothesis may still come out ahead, and of
        those that stop with nothing finished."""
        going, lost = [], []
        for place, sentence in enumerate(self.searching):
            best, limit = self.best[sentence], self.limits[sentence]
            bound = live_scores[place] / length_penalty_of(limit, self.alpha)
            enough = len(best) == self.n_best and best[-1][0] >= bound
            if length < limit and bound > -math.inf and not enough:
                going.append(place)
            elif not best:
                lost.append(place)
        return going, lost

    def results(self) -> list[list[Hypothesis]]:
        """The best hypotheses of every sentence, read back through the history."""
        if [] in self.best:
            row = self.best.index([])
            raise ValueError(f"no token is left to choose for row {row}: `score` has ruled out all")
        records = [(tokens.tolist(), parents.tolist(), w) for tokens, parents, w in self.history]
        return [
            [self._read_back(records, entry, length) for entry in best]
            for best, length in zip(self.best, self.source_lengths, strict=True)
        ]

    def _read_back(self, records: list[tuple], entry: tuple, source_length: int) -> Hypothesis:
        score, log_p, step, line, token = entry
        ids, steps = [], []
        for tokens, parents, weights in reversed(records[: step + 1]):
            if ids:
                token, line = tokens[line], parents[line]
            ids.append(token)
            if weights is not None:
                steps.append(weights[line])
        return Hypothesis(ids[::-1], log_p, score, stack_attention(steps[::-1], source_length))

    def _ids(self) -> Tensor:
        """What the lines wrote so far, (lines, length)."""
        line, ids = torch.arange(len(self.tokens), device=self.tokens.device), []
        for tokens, parents, _ in reversed(self.history):
            ids.append(tokens[line])
            line = parents[line]
        return torch.stack(ids[::-1], 1) if ids else line.new_empty(len(line), 0)
