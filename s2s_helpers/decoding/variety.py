"""Several outputs for one source, and the choice among them: what `decoding` lacks.

Typical sampling (Meister et al. 2023), many samples of a row at once, diverse beam search
(Vijayakumar et al. 2018), and the choice by minimum risk (Kumar and Byrne 2004). All of it speaks
the four verbs (`models/interface.py`), so it works with every model.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from s2s_helpers.data import collate
from s2s_helpers.decoding.search import (
    BeamSearch,
    Hypothesis,
    check_source,
    length_penalty_of,
    sample,
)
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.models.view import eval_view
from s2s_helpers.vocabulary import EOS

LINES = 512  # that are drawn, or scored, at once


def typical(mass: float) -> Callable[[Tensor], Tensor]:
    """The `keep` of `decoding.sample` for locally typical sampling (Meister et al. 2023).

    A token's information, -log p, is held against its expectation, the entropy H of the line. Those
    with the smallest |H + log p| stay, the fewest that hold at least `mass` (the paper's tau) of
    the probability; the likeliest token may well go. Raises ValueError for a mass outside 0 to 1.
    """
    if not 0 < mass <= 1:
        raise ValueError(f"mass must be above 0 and at most 1, got {mass}")

    def keep(p: Tensor) -> Tensor:
        information = -p.log()  # (lines, tokens)
        entropy = torch.special.entr(p).sum(dim=-1, keepdim=True)
        order = (entropy - information).abs().sort(dim=-1, stable=True).indices
        ordered = p.gather(1, order)
        before = ordered.cumsum(dim=-1) - ordered
        return torch.zeros_like(p, dtype=torch.bool).scatter(1, order, before < mass)

    return keep


def draws(model, source: Tensor, n: int, source_mask=None, seed=0, **options):
    """`n` samples of every row of `source` (batch, source), as lists of `Hypothesis`, in the order
    drawn; `options` go to `decoding.sample`.

    Row r draws with the seeds from `seed` + r n on. Raises ValueError for an n below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    rows = torch.arange(len(source), device=source.device).repeat_interleave(n)
    mask, _ = check_source(model, source, source_mask, None)
    found: list[Hypothesis] = []
    for part in rows.split(LINES):
        seeds = range(seed + len(found), seed + len(found) + len(part))
        found += sample(model, source[part], mask[part], seed=seeds, **options)
    return [found[first : first + n] for first in range(0, len(found), n)]


class Group(BeamSearch):
    """A group of a diverse beam search, which pays for tokens that others took at the same step."""

    def advance_beside(self, taken: Tensor, strength: float) -> None:
        """One step. `taken` (sentences, vocabulary) counts what earlier groups took at this step;
        this group's tokens are added."""
        self.penalty = strength * taken
        self.advance()
        tokens = self.tokens.view(self.scores.shape)  # (sentences, lines)
        alive = (self.scores > float("-inf")).to(taken.dtype)
        taken[self.searching] = taken[self.searching].scatter_add(1, tokens, alive)

    def _of_next(self, logits):
        lines = self.searching.repeat_interleave(self.scores.shape[1])
        return super()._of_next(logits).sub_(self.penalty[lines])


def diverse_beam_search(
    model, source: Tensor, source_mask=None, beam_size=6, groups=3, strength=0.5,
    length_penalty=0.6, max_length=None, n_best=None, attention=True,
) -> list[list[Hypothesis]]:  # fmt: skip
    """Beam search in `groups` that avoid one another (Vijayakumar et al. 2018, algorithm 1).

    Each group has beam_size / groups lines. At every step the groups choose in turn, and a token
    costs `strength` (the paper's lambda) for each line of an earlier group that has just chosen it:
    the Hamming diversity. Ending costs nothing, and a group that is done is in nobody's way.

    Returns for every row the `n_best` of each group (default: as many as it has lines), best first;
    what two groups found alike stands twice. log_probability and score are the model's own, as in
    `beam_search`, which one group equals. Raises ValueError as that does, and for groups that do
    not divide beam_size or a negative strength.
    """
    if beam_size < 1 or groups < 1 or beam_size % groups:
        raise ValueError(f"groups must divide beam_size, both above 0, got {groups} of {beam_size}")
    if strength < 0 or length_penalty < 0:
        raise ValueError(f"these must not be negative: {strength=}, {length_penalty=}")
    width = beam_size // groups
    n_best = width if n_best is None else n_best
    if not 1 <= n_best <= width:
        raise ValueError(
            f"n_best must lie between 1 and the {width} lines of a group, got {n_best}"
        )
    mask, limits = check_source(model, source, source_mask, max_length)
    if model.max_positions is not None:  # what is found is read once more, after an SOS
        limits = limits.clamp(max=model.max_positions - 1)
    with torch.inference_mode():
        ready = prepacked(model)
        settings = ready, source, mask, limits, width, length_penalty, n_best
        searches = [Group(*settings) for _ in range(groups)]
        while any(len(search.searching) for search in searches):
            taken = torch.zeros(len(source), len(model.target_vocabulary), device=source.device)
            for search in searches:
                if len(search.searching):
                    search.advance_beside(taken, strength)
    by_group = zip(*(search.results() for search in searches), strict=True)
    found = [[h for group in row for h in group] for row in by_group]
    sums = log_probabilities(model, source, [[h.ids for h in row] for row in found], mask)
    for row, totals in zip(found, sums, strict=True):
        for h, total in zip(row, totals, strict=True):
            h.log_probability = total
            h.score = total / length_penalty_of(len(h.ids), length_penalty)
        row.sort(key=lambda h: -h.score)
    return found


def log_probabilities(model, source: Tensor, targets, source_mask=None) -> list[list[float]]:
    """log p(target | source) of given ids: for each row of `source` a list of them, each as a
    `Hypothesis` has it, without SOS. One teacher-forced pass, in batches."""
    mask, _ = check_source(model, source, source_mask, None)
    flat = [
        (ids[real].tolist(), target)
        for ids, real, several in zip(source, mask, targets, strict=True)
        for target in several
    ]
    sums = []
    with torch.inference_mode():
        model = eval_view(model)
        for first in range(0, len(flat), LINES):
            batch = collate(flat[first : first + LINES]).to(source.device)
            log_p = model(batch)[0].float().log_softmax(dim=-1)
            of_target = log_p.gather(2, batch.target_output[:, :, None])[:, :, 0]
            sums += of_target.masked_fill(~batch.target_mask, 0.0).sum(dim=1).tolist()
    totals = iter(sums)
    return [[next(totals) for _ in several] for several in targets]


def minimum_risk(
    hypotheses: Sequence[Hypothesis], risk: Callable, by_probability: bool = False
) -> Hypothesis:
    """The hypothesis y with the least expected risk, sum_h P(h) risk(y, h): minimum Bayes risk,
    where the hypotheses are the candidates and also the evidence.

    risk(ids, ids) takes the candidate first, both without EOS. P is the same for each, as samples
    want it (Eikema and Aziz 2020); with `by_probability` the model's p over their sum, as distinct
    hypotheses of an n-best list want it (Kumar and Byrne 2004). Of equals the first is taken. Its
    score is minus its risk. Raises ValueError where there is nothing to choose from.
    """
    if not hypotheses:
        raise ValueError("there are no hypotheses to choose from")
    log_p = torch.tensor([h.log_probability if by_probability else 0.0 for h in hypotheses])
    ids = [tuple(i for i in h.ids if i != EOS) for h in hypotheses]
    evidence = dict.fromkeys(ids, 0.0)  # P of each, once
    for each, p in zip(ids, log_p.double().softmax(dim=0).tolist(), strict=True):
        evidence[each] += p
    risks = {y: sum(p * risk(y, h) for h, p in evidence.items()) for y in evidence}
    best = min(risks, key=lambda y: round(risks[y], 9))  # sums in another order differ by a hair
    return replace(hypotheses[ids.index(best)], score=-risks[best])
