"""Outputs drawn at random: with a temperature, from the top k, the nucleus, or the typical set."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from s2s_helpers.decoding.search import (
    LINES,
    TOKENS,
    Hypothesis,
    Lines,
    Score,
    check_source,
    generate,
    largest,
)
from s2s_helpers.files import as_seed


def random_of(seed: int, row: int = 0, draw: int = 0) -> random.Random:
    """The random numbers of one sample: independent of those of any other seed, row or draw.

    Raises ValueError for a seed that is no whole number; NumPy's are, and so are negative ones.
    """
    return random.Random(f"{as_seed(seed)} {row} {draw}")  # seeds with a hash of it


def sample(
    model: Any, source: Tensor, source_mask: Tensor | None = None, max_length: int | None = None,
    temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, seed: int = 0,
    attention: bool = True, keep: Callable[[Tensor], Tensor] | None = None, n: int | None = None,
    rows: Sequence[int] | None = None, score: Score | None = None,
) -> list:  # fmt: skip
    """Draw every token from the model's distribution, sharpened and cut as wanted.

    p(y) is taken to the power of 1 / `temperature` (below 1: bolder), then only the `top_k` most
    probable tokens stay (Fan et al. 2018, section 5.1), then of these the fewest that hold at least
    `top_p` of the probability (Holtzman et al. 2020, section 3.1), then those that `keep` says:
    p (lines, candidates) to True or False, such as `typical`.

    Returns a hypothesis for every row, or with `n` a list of n, in the order drawn, of which the
    first is that without `n`. What a row gets follows from `seed` and its number alone: its place,
    or what `rows` says. Log-probabilities are the model's own, before sharpening and `score`.

    Raises ValueError for a temperature not above 0, a top_k or n below 1, a top_p outside 0 to 1,
    a seed that is no whole number, a cut that leaves nothing, or a bad source.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
    if n is not None and n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    rows = range(len(source)) if rows is None else rows
    if len(rows) != len(source):
        raise ValueError(f"{len(source)} rows need as many numbers, got {len(rows)}")
    luck = [random_of(seed, row, draw) for row in rows for draw in range(n or 1)]
    mask, _ = check_source(model, source, source_mask, max_length)

    def several(first: int, last: int) -> list[Hypothesis]:
        def draw(log_p: Tensor, lines: Lines) -> tuple[Tensor, Tensor]:
            size = log_p.shape[1]
            values, tokens = largest(log_p, min(top_k, size)) if top_k else log_p.sort(1, True)
            p = sharpened(values, temperature)  # (lines, candidates)
            if top_p is not None:
                p = p.masked_fill(p.cumsum(dim=-1) - p >= top_p, 0.0)
            if keep is not None:
                p = p.masked_fill(~keep(p), 0.0)
            numbers = [[luck[first + row].random()] for row in lines.rows]
            reached = p.cumsum(dim=-1)  # (lines, candidates)
            wanted = reached.new_tensor(numbers) * reached[:, -1:]  # (lines, 1)
            place = torch.searchsorted(reached, wanted, right=True).clamp(max=p.shape[1] - 1)
            values = values.masked_fill(~(reached[:, -1:] > 0), float("-inf"))  # nothing is left
            return tokens.gather(1, place)[:, 0], values.gather(1, place)[:, 0]

        of_line = torch.arange(first, last, device=source.device) // (n or 1)  # (lines,)
        return generate(model, source[of_line], mask[of_line], draw, score, max_length, attention)

    most = max(1, LINES * TOKENS // source.shape[1])  # lines in a batch
    found = []
    for first in range(0, len(luck), most):
        found += several(first, min(first + most, len(luck)))
    return found if n is None else [found[first : first + n] for first in range(0, len(found), n)]


def sharpened(log_p: Tensor, temperature: float) -> Tensor:
    """p to the power of 1 / temperature, and the sum 1 again, (lines, candidates), of log p with
    the largest first. Summed in float64: a luck just below 1 must not fall beyond the last."""
    there = log_p.device.type in ("cpu", "cuda")  # not on Apple's GPUs, nor on some others
    wide = torch.float64 if there else torch.float32
    below = (log_p - log_p[:, :1]).to(wide)  # 0 for the largest, at whatever temperature
    return (below / temperature).masked_fill(log_p == float("-inf"), float("-inf")).softmax(-1)


def typical(mass: float) -> Callable[[Tensor], Tensor]:
    """The `keep` of `sample` for locally typical sampling (Meister et al. 2023).

    A token's information, -log p, is held against its expectation, the entropy H of the line. Those
    with the smallest |H + log p| stay, the fewest that hold at least `mass` (the paper's tau) of
    the probability; the likeliest token may well go. Raises ValueError for a mass outside 0 to 1.
    """
    if not 0 < mass <= 1:
        raise ValueError(f"mass must be above 0 and at most 1, got {mass}")

    def keep(p: Tensor) -> Tensor:
        information = -p.log()  # (lines, tokens)
        entropy = torch.special.entr(p).sum(dim=-1, keepdim=True)  # (lines, 1)
        order = (entropy - information).abs().sort(dim=-1, stable=True).indices
        ordered = p.gather(1, order)
        before = ordered.cumsum(dim=-1) - ordered
        return torch.zeros_like(p, dtype=torch.bool).scatter(1, order, before < mass)

    return keep
