"""The output with the least expected risk, among several (minimum Bayes risk)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from s2s_helpers.data import collate
from s2s_helpers.decoding.sampling import sample
from s2s_helpers.decoding.search import LINES, TOKENS, Hypothesis, check_source
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.vocabulary import EOS


def minimum_risk(
    hypotheses: Sequence[Hypothesis], risk: Callable[[tuple, tuple], float],
    by_probability: bool = False,
) -> Hypothesis:  # fmt: skip
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


def minimum_risk_search(
    model: Any, source: Tensor, source_mask: Tensor | None = None, *,
    risk: Callable[[tuple, tuple], float], n: int = 16, rows: Sequence[int] | None = None,
    max_length: int | None = None, attention: bool = True, **options: Any,
) -> list[Hypothesis]:  # fmt: skip
    """Draw `n` samples of every row (`sample`, with its `options`), and take the one with the least
    expected risk (`minimum_risk`) among them."""
    options |= dict(n=n, rows=rows, max_length=max_length, attention=attention)
    return [minimum_risk(each, risk) for each in sample(model, source, source_mask, **options)]


def log_probabilities(
    model: Any, source: Tensor, targets: Sequence[Sequence[list[int]]],
    source_mask: Tensor | None = None,
) -> list[list[float]]:  # fmt: skip
    """log p(target | source) of given ids: for each row of `source` a list of them, each as a
    `Hypothesis` has it, without SOS. One teacher-forced pass, in batches."""
    mask, _ = check_source(model, source, source_mask, None)
    flat = [
        (ids[real].tolist(), target)
        for ids, real, several in zip(source, mask, targets, strict=True)
        for target in several
    ]
    longest = max((max(map(len, pair)) for pair in flat), default=1)
    most = min(LINES, max(1, LINES * TOKENS // longest))  # lines in a batch
    sums: list[float] = []
    with torch.inference_mode():
        model = prepacked(model)
        for first in range(0, len(flat), most):
            batch = collate(flat[first : first + most]).to(source.device)
            log_p = model(batch)[0].float().log_softmax(dim=-1)  # (lines, target, vocabulary)
            of_target = log_p.gather(2, batch.target_output[:, :, None])[:, :, 0]
            sums += of_target.masked_fill(~batch.target_mask, 0.0).sum(dim=1).tolist()
    totals = iter(sums)
    return [[next(totals) for _ in several] for several in targets]
