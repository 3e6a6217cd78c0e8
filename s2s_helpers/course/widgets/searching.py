"""A beam search laid open, and all sentences there are: what the widgets on decoding show."""

import math

import torch
from torch import Tensor
from traitlets import TraitError

from s2s_helpers.decoding import (
    BeamSearch,
    check_source,
    encode_source,
    length_penalty_of,
    next_log_probabilities,
)
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.vocabulary import EOS, SOS

HIGHEST = 1.0  # alpha, as in Wu et al. 2016, table 2
ALL = 300  # brute force gives up where there are more unfinished sentences of one length


def source_ids(model, sentence: str | None) -> list[int]:
    """The ids of a sentence; EOS alone for None. Raises TraitError for one that cannot be read."""
    if sentence is None:
        return [EOS]
    try:
        return encode_source(model, sentence, "the sentence")
    except ValueError as error:
        raise TraitError(str(error).removeprefix("the sentence, ")) from None


def as_source(model, ids: list[int]) -> Tensor:
    """The ids as a batch of one, (1, source), where the model is."""
    return torch.tensor([ids], device=next(model.parameters(), torch.zeros(0)).device)


class TracedSearch(BeamSearch):
    """The package's search, which also writes down the candidates of every step: (parent line,
    token, log p), the best first."""

    def __init__(self, *arguments):
        self.candidates = []
        super().__init__(*arguments)

    def _note(self, which, found):
        if len(self.history) == len(self.candidates):  # what the limit cuts is noted a second time
            columns = (column[0].tolist() for column in found)
            self.candidates.append([c for c in zip(*columns, strict=True) if c[2] > -math.inf])
        super()._note(which, found)


def trace(model, source, beam_size: int, max_length: int | None = None) -> tuple[list, int]:
    """The steps of a beam search on one sentence (1, source), and its limit in ids.

    A step is a list of candidates, each a dict: its `parent`'s place in the step before, `token`,
    the `log_p` of all its words, and its `fate`, "kept", "finished" or "pruned". The search goes on
    until it would stop with the largest alpha, HIGHEST. With a smaller one it takes the same steps
    and stops no later, because what has finished outweighs log p / lp(limit) even more.
    """
    mask, limits = check_source(model, source, None, max_length)
    with torch.inference_mode():
        search = TracedSearch(prepacked(model), source, mask, limits, beam_size, HIGHEST, 1, False)
        while search.searching:
            search.advance()
    steps, lines = [], [0]  # lines: the places of those that went on
    for found in search.candidates:
        going = [rank for rank, (_, token, _) in enumerate(found) if token != EOS][:beam_size]
        steps.append([])
        for rank, (line, token, log_p) in enumerate(found):
            over = token == EOS and rank < beam_size
            fate = "kept" if rank in going else "finished" if over else "pruned"
            candidate = {"parent": lines[line], "token": token, "log_p": log_p, "fate": fate}
            steps[-1].append(candidate)
        lines = going
    return steps, int(limits[0])


def stop_of(steps: list, limit: int, alpha: float) -> int:
    """After how many of these steps a search with this alpha stops: at the limit, or as soon as no
    unfinished hypothesis can overtake the best finished one."""
    best = -math.inf
    for length, step in enumerate(steps, 1):
        ends = [c["log_p"] for c in step if c["fate"] == "finished"]
        best = max([best, *(log_p / length_penalty_of(length, alpha) for log_p in ends)])
        live = max((c["log_p"] for c in step if c["fate"] == "kept"), default=-math.inf)
        if length == limit or best >= live / length_penalty_of(limit, alpha):
            return length
    return len(steps)


def every_sentence(model, source, limit: int, most: int = ALL) -> list | None:
    """All sentences of at most `limit` ids that the model can write of `source` (1, source), as
    (ids, log p), the likeliest first; None where more than `most` prefixes would have to be kept.
    """
    mask, _ = check_source(model, source, None, limit)
    found = []
    with torch.inference_mode():
        model = prepacked(model)
        memory = model.encode(source, mask)
        state, prefixes = model.start(memory), [[]]
        tokens, sums = source.new_full((1,), SOS), torch.zeros(1, device=source.device)
        for _ in range(limit):
            logits, state, _ = model.step(tokens, state, memory)
            sums = next_log_probabilities(logits) + sums[:, None]
            ends = zip(prefixes, sums[:, EOS].tolist(), strict=True)
            found += [([*ids, EOS], log_p) for ids, log_p in ends if log_p > -math.inf]
            sums[:, EOS] = -math.inf
            lines, tokens = (sums > -math.inf).nonzero(as_tuple=True)
            if len(lines) > most:
                return None
            pairs = zip(lines.tolist(), tokens.tolist(), strict=True)
            prefixes = [[*prefixes[line], token] for line, token in pairs]
            sums, state, memory = sums[lines, tokens], state.select(lines), memory.select(lines)
            if not prefixes:
                break
    return sorted(found, key=lambda sentence: -sentence[1])
