"""From a trained model to text: greedy decoding, beam search, and `translate`.

Written once over the four verbs (`models/interface.py`), for every model. The source is encoded
once per sentence, whole batches are decoded together, a sentence that is finished leaves the batch,
and what a sentence gets does not depend on which others stand beside it.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.vocabulary import EOS, PAD, SOS


@dataclass
class Hypothesis:
    """One decoded sentence.

    ids: without SOS; they end with EOS if `finished`, else the length limit cut them off.
    log_probability: natural log of p(ids | source) under the model. score: what hypotheses are
    ranked by, log_probability / lp(length). attention: one row for each id, (target, source) or
    (layers, heads, target, source) or None.
    """

    ids: list[int]
    log_probability: float
    score: float
    attention: Tensor | None = None

    @property
    def finished(self) -> bool:
        return bool(self.ids) and self.ids[-1] == EOS


def length_penalty_of(length, alpha: float):
    """lp(Y) = (5 + |Y|)^alpha / (5 + 1)^alpha, |Y| with EOS (Wu et al. 2016, equation 14)."""
    return ((5.0 + length) / 6.0) ** alpha


# Sentences that are over leave the batch when at most this share of it still goes on: sooner, and
# moving the others' keys and values would take longer than writing on for nothing.
STAY = 7 / 8


def check_source(model, source: Tensor, source_mask: Tensor | None, max_length: int | None):
    """The mask (made where it is None) and for every row the most ids it may write, (batch,)."""
    if source_mask is None:
        source_mask = source != PAD
    if source_mask.shape != source.shape or source_mask.dtype != torch.bool:
        raise ValueError(
            f"source_mask must be bool and shaped like source {tuple(source.shape)}, "
            f"got {source_mask.dtype} {tuple(source_mask.shape)}"
        )
    if not source_mask.any(dim=1).all():
        raise ValueError("every source row needs at least one real token")
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}")
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
    system anew at every step, and that takes longer than the softmax.
    """
    if torch.is_inference_mode_enabled() and logits.dtype == torch.float32:
        return barred(torch.log_softmax(logits, dim=-1, out=logits))
    return barred(logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float)))


def barred(scores: Tensor) -> Tensor:
    """The scores (lines, vocabulary), in place, with -inf for what is never written."""
    scores[:, PAD] = scores[:, SOS] = float("-inf")
    return scores


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
    groups = maxima.topk(k, sorted=False).indices
    places = (groups[:, :, None] * width + torch.arange(width, device=groups.device)).flatten(1)
    within = numbers.gather(1, places.clamp(max=size - 1))
    within.masked_fill_(places >= size, float("-inf"))  # the last group may be short
    values, order = within.topk(k)
    return values, places.gather(1, order)


def greedy_decode(
    model, source: Tensor, source_mask=None, max_length=None, attention=True, scores=True
) -> list[Hypothesis]:
    """Take the most probable token at every step, for all rows of `source` (batch, source) at once.

    `max_length` bounds the ids of a hypothesis; without it a row of n tokens gets 2 n + 10.
    Returns a hypothesis for every row; its score is its log-probability. `attention=False` and
    `scores=False` spare what they name, which is then None and NaN.
    """

    def most_probable(logits, rows):
        values, tokens = largest(next_log_probabilities(logits) if scores else barred(logits), 1)
        return tokens[:, 0], values[:, 0] if scores else torch.full_like(values[:, 0], math.nan)

    return write(model, source, source_mask, max_length, attention, most_probable)


def sample(
    model, source: Tensor, source_mask=None, max_length=None, temperature=1.0, top_k=None,
    top_p=None, seed: int | Sequence[int] = 0, attention=True, keep: Callable | None = None,
) -> list[Hypothesis]:  # fmt: skip
    """Draw every token from the model's distribution, sharpened and cut as wanted.

    p(y) is taken to the power of 1 / `temperature` (below 1: bolder), then only the `top_k` most
    probable tokens stay (Fan et al. 2018, section 5.1), then of these the fewest that hold at least
    `top_p` of the probability (Holtzman et al. 2020, section 3.1). A row draws with a seed of its
    own, `seed` + its number or one of as many seeds, so what it gets does not depend on the others.

    The hypotheses' log-probabilities are the model's own, before sharpening. Raises ValueError for
    a temperature not above 0, a top_k below 1, a top_p outside 0 to 1, or a bad source.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
    seeds = range(seed, seed + len(source)) if isinstance(seed, int) else seed
    if len(seeds) != len(source):
        raise ValueError(f"{len(source)} rows need as many seeds, got {len(seeds)}")
    generators = [random.Random(number) for number in seeds]

    def draw(logits, rows):
        log_p = next_log_probabilities(logits)
        if top_k is None:
            values, tokens = log_p.sort(dim=-1, descending=True)
        else:
            values, tokens = largest(log_p, min(top_k, log_p.shape[1]))
        p = (values / temperature).softmax(dim=-1)
        before = p.cumsum(dim=-1) - p  # probability of all that come first
        if top_p is not None:
            p = p.masked_fill(before >= top_p, 0.0)
        if keep is not None:
            p = p.masked_fill(~keep(p), 0.0)
        luck = torch.tensor([[0.0 if row is None else generators[row].random()] for row in rows])
        reached = p.cumsum(dim=-1)  # (rows, candidates)
        wanted = luck.to(p.device) * reached[:, -1:]
        place = torch.searchsorted(reached, wanted, right=True)
        place = place.clamp(max=p.shape[1] - 1)
        return tokens.gather(1, place)[:, 0], values.gather(1, place)[:, 0]

    return write(model, source, source_mask, max_length, attention, draw)


def write(model, source, source_mask, max_length, attention, choose) -> list[Hypothesis]:
    """Write one hypothesis for every row, choosing tokens one after the other.

    `choose` takes logits (lines, vocabulary) and the rows of `source` that the lines belong to
    (None where the row is over), and gives a token and its log-probability for every line.
    """
    source_mask, limits = check_source(model, source, source_mask, max_length)
    limits = limits.tolist()
    results = [Hypothesis([], 0.0, 0.0, []) for _ in source]
    with torch.inference_mode():
        model = prepacked(model)
        memory = model.encode(source, source_mask)
        state = model.start(memory)
        rows = list(range(len(source)))  # whose turn each line is; None: it is over
        tokens = source.new_full((len(source),), SOS)
        for length in range(1, max(limits) + 1):
            logits, state, looks = model.step(tokens, state, memory)
            looks = looks if attention else None  # a model may not know how to spare them
            tokens, values = choose(logits, rows)
            chosen = zip(tokens.tolist(), values.tolist(), strict=True)
            for line, (token, value) in enumerate(chosen):
                if (row := rows[line]) is not None:
                    results[row].ids.append(token)
                    results[row].log_probability += value
                    results[row].attention.append(None if looks is None else looks[line])
                    if token == EOS or length == limits[row]:
                        rows[line] = None
            going = [line for line, row in enumerate(rows) if row is not None]
            if not going:
                break
            if len(going) <= STAY * len(rows):
                rows = [rows[line] for line in going]
                lines = torch.tensor(going, device=source.device)
                tokens, memory, state = tokens[lines], memory.select(lines), state.select(lines)
    for result, mask in zip(results, source_mask, strict=True):
        result.score = result.log_probability
        result.attention = stack_attention(result.attention, int(mask.sum()))
    return results


def stack_attention(steps: list, source_length: int) -> Tensor | None:
    """Attention of single steps to (target, source) or (layers, heads, target, source), without the
    columns of padding."""
    if not steps or steps[0] is None:
        return None
    return torch.stack(steps, dim=-2)[..., :source_length].clone()


def beam_search(
    model, source: Tensor, source_mask=None, beam_size=5, length_penalty=0.6, max_length=None,
    n_best=1, attention=True,
) -> list[list[Hypothesis]]:  # fmt: skip
    """Keep the `beam_size` best unfinished hypotheses of every row (Sutskever et al. 2014, §3.2).

    Hypotheses are ranked by log p / lp(length), alpha = `length_penalty` (Wu et al. 2016, §7). A
    row stops only when no unfinished hypothesis can still overtake its `n_best` finished ones: its
    log-probability can only fall, and lp can grow no further than lp(limit). So stopping early
    never changes the result. Where nothing ends within the limit, the best unfinished are returned.

    Returns for every row up to `n_best` hypotheses, best first. Raises ValueError for a beam_size
    below 1, an n_best outside 1 to beam_size, a negative length_penalty, or a bad source.
    """
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1, got {beam_size}")
    if not 1 <= n_best <= beam_size:
        raise ValueError(f"n_best must lie between 1 and beam_size {beam_size}, got {n_best}")
    if length_penalty < 0:
        raise ValueError(f"length_penalty must not be negative, got {length_penalty}")
    source_mask, limits = check_source(model, source, source_mask, max_length)
    lines = len(source) * beam_size
    with torch.inference_mode():
        model = prepacked(model)
        search = BeamSearch(model, source, source_mask, limits, beam_size, length_penalty, n_best)
        search.attention = attention
        while len(search.searching):
            search.advance()
    return search.results()


class BeamSearch:
    """A batched beam search under way; `advance` is one step of every sentence.

    A sentence owns `beam_size` neighbouring lines of the batch. What the lines wrote is kept as one
    record a step, (token, parent line, attention), and read back from its end for the winners only.
    """

    def __init__(self, model, source, source_mask, limits, beam_size, alpha, n_best):
        self.model, self.beam_size = model, beam_size
        self.alpha, self.n_best = alpha, n_best
        self.limits, self.source_lengths = limits.tolist(), source_mask.sum(dim=1).tolist()
        self.best = [[] for _ in source]  # a sentence's (score, log p, step, parent line, token)
        self.history = []
        self.attention = True
        self.searching = torch.arange(len(source), device=source.device)  # sentences not yet done
        self.memory = self.model.encode(source, source_mask)
        self.state = self.model.start(self.memory)
        # Before the first token all hypotheses are one.
        self.tokens = torch.full_like(self.searching, SOS)
        self.scores = torch.zeros(len(source), 1, device=source.device)  # (sentences, lines)

    def advance(self) -> None:
        """Extend every line by one token, keep the best, let finished sentences go."""
        beam, step = self.beam_size, len(self.history)
        logits, state, attention = self.model.step(self.tokens, self.state, self.memory)
        attention = attention if self.attention else None
        totals = self._of_next(logits).add_(self.scores.flatten()[:, None])
        # Each line can end in one way only, so of the best 2 beam candidates at least beam go on.
        values, flat = largest(totals.view(len(self.searching), -1), 2 * beam)
        width, size = self.scores.shape[1], totals.shape[1]
        first_lines = torch.arange(0, len(totals), width, device=totals.device)[:, None]
        parents, tokens = first_lines + flat // size, flat % size  # (sentences, candidates)
        ends = tokens == EOS
        self._note(ends[:, :beam], values, parents, tokens, step)
        # Those that go on to the front, the order among them unchanged.
        front = ends.int().sort(dim=1, stable=True).indices[:, :beam]
        values, parents, tokens = (x.gather(1, front) for x in (values, parents, tokens))
        going = self._may_improve(values[:, 0].tolist(), step + 1)
        for place, sentence in enumerate(self.searching.tolist()):
            if place not in going and not self.best[sentence]:  # nothing ended within the limit
                cut = torch.zeros_like(values, dtype=torch.bool)
                cut[place] = True
                self._note(cut, values, parents, tokens, step)
        kept = torch.tensor(going, dtype=torch.long, device=values.device)
        if len(going) <= STAY * len(self.searching):
            values, parents, tokens = values[kept], parents[kept], tokens[kept]
            self.searching = self.searching[kept]
            self.memory = self.memory.select(kept) if self.model.shares_memory else self.memory
        elif len(going) < len(self.searching):
            over = torch.ones(len(values), dtype=torch.bool, device=values.device)
            over[kept] = False
            values[over] = float("-inf")  # nothing can come of these any more
        self.scores, self.tokens = values, tokens.flatten()
        lines = parents.flatten()
        self.history.append((self.tokens, lines, attention))
        if self.model.shares_memory:
            self.state = state.select(lines, beam)
        else:
            self.state, self.memory = state.select(lines), self.memory.select(lines)

    def _of_next(self, logits: Tensor) -> Tensor:
        """What each next token adds to its line's score, (lines, vocabulary); another search than
        the plain one may add something of its own."""
        return next_log_probabilities(logits)

    def _note(self, which, values, parents, tokens, step) -> None:
        """Enter hypotheses that are over, and keep the `n_best` of their sentence."""
        penalty = length_penalty_of(step + 1, self.alpha)
        for place, rank in which.nonzero().tolist():
            value = values[place, rank].item()
            if value > float("-inf"):
                best = self.best[self.searching[place]]
                end = (int(parents[place, rank]), int(tokens[place, rank]))
                best.append((value / penalty, value, step, *end))
                best.sort(key=lambda entry: -entry[0])
                del best[self.n_best :]

    def _may_improve(self, live_scores: list[float], length: int) -> list[int]:
        """Places of the sentences whose best unfinished hypothesis may still come out ahead."""
        going = []
        for place, sentence in enumerate(self.searching.tolist()):
            best, limit = self.best[sentence], self.limits[sentence]
            bound = live_scores[place] / length_penalty_of(limit, self.alpha)
            enough = len(best) == self.n_best and best[-1][0] >= bound
            if length < limit and bound > float("-inf") and not enough:
                going.append(place)
        return going

    def results(self) -> list[list[Hypothesis]]:
        """The best hypotheses of every sentence, read back through the history."""
        records = [(tokens.tolist(), parents.tolist()) for tokens, parents, _ in self.history]
        return [
            [self._read_back(records, *entry, length) for entry in best]
            for best, length in zip(self.best, self.source_lengths, strict=True)
        ]

    def _read_back(self, records, score, log_probability, step, line, token, source_length):
        ids, looks = [token], [self._look(step, line)]
        for earlier in range(step - 1, -1, -1):
            tokens, parents = records[earlier]
            ids.append(tokens[line])
            line = parents[line]
            looks.append(self._look(earlier, line))
        attention = stack_attention(looks[::-1], source_length)
        return Hypothesis(ids[::-1], log_probability, score, attention)

    def _look(self, step: int, line: int):
        attention = self.history[step][2]
        return None if attention is None else attention[line]
