"""Several outputs that differ: diverse beam search."""

import math
from typing import Any

import torch
from torch import Tensor

from s2s_helpers.decoding.search import (
    BeamSearch,
    Hypothesis,
    Lines,
    check_length_penalty,
    check_source,
    length_penalty_of,
)
from s2s_helpers.models.prepacked import prepacked


def diverse_beam_search(
    model: Any, source: Tensor, source_mask: Tensor | None = None, beam_size: int = 6,
    groups: int = 3, strength: float = 0.5, length_penalty: float = 0.6,
    max_length: int | None = None, n_best: int | None = None, attention: bool = True,
) -> list[list[Hypothesis]]:  # fmt: skip
    """Beam search in `groups` that avoid one another (Vijayakumar et al. 2018, algorithm 1).

    Each group has beam_size / groups lines. At every step the groups choose in turn, and a token
    costs `strength` (the paper's lambda) for each line of an earlier group that has just chosen it:
    the Hamming diversity. Ending costs nothing, and a group that is done is in nobody's way.

    Returns for every row the `n_best` of each group (default: as many as it has lines), best first;
    what two groups found alike stands twice. log_probability and score are the model's own, as in
    `beam_search`, which one group equals. Raises ValueError as that does, and for groups that do
    not divide beam_size, or a strength below 0 or infinite.
    """
    if beam_size < 1 or groups < 1 or beam_size % groups:
        raise ValueError(f"groups must divide beam_size, both above 0, got {groups} of {beam_size}")
    if not 0 <= strength < math.inf:
        raise ValueError(f"strength must be finite and not negative, got {strength}")
    check_length_penalty(length_penalty)
    width = beam_size // groups
    n_best = width if n_best is None else n_best
    if not 1 <= n_best <= width:
        raise ValueError(
            f"n_best must lie between 1 and the {width} lines of a group, got {n_best}"
        )
    mask, limits = check_source(model, source, source_mask, max_length)
    # How often earlier groups took each token at this step, (sentences, vocabulary).
    taken = torch.zeros(len(source), len(model.target_vocabulary), device=source.device)

    def penalty(log_p: Tensor, lines: Lines) -> Tensor:
        return log_p.sub_(strength * taken[lines.rows])

    with torch.inference_mode():
        settings = prepacked(model), source, mask, limits, width, length_penalty, n_best
        searches = [BeamSearch(*settings, attention, penalty) for _ in range(groups)]
        while any(search.searching for search in searches):
            taken.zero_()
            for search in (search for search in searches if search.searching):
                search.advance()
                tokens = search.tokens.view(search.scores.shape)  # (sentences, width)
                alive = (search.scores > float("-inf")).to(taken.dtype)
                those = search.searching
                taken[those] = taken[those].scatter_add(1, tokens, alive)
    by_group = zip(*(search.results() for search in searches), strict=True)
    found = [[h for group in row for h in group] for row in by_group]
    for row in found:
        for h in row:
            h.score = h.log_probability / length_penalty_of(len(h.ids), length_penalty)
        row.sort(key=lambda h: -h.score)
    return found
