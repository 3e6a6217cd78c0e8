"""The keys and values a transformer has computed already, kept for the tokens to come.

Without them every step would go through the whole prefix again. With them a step computes its own
token's and attends to the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

AHEAD = 16  # steps to allocate room for at a time


class Cache:
    """Keys and values of all decoder layers, allocated ahead, shared by the beams of a sentence.

    A step fills one slot of a sentence for each of its lines. `path` (sentences, lines, slots) is
    True where a slot holds a token of the line's own past, or None where each sentence has one line
    and that sees all. When beams change places only `path` is rearranged: keys and values stay
    where they are, until sentences leave the batch.

    A cache is a value: `select` and `advance` give a new one, and the old one can still go on.
    """

    def __init__(self, layers: int):
        self.buffers: list = [None] * layers  # (keys, values), (sentences, heads, slots, d) each
        self.used = 0  # slots that belong to this cache
        self.written = [0]  # slots that are written in these buffers, by whichever cache
        self.path: Tensor | None = None

    def _with(self, buffers: list, written: list, used: int, path: Tensor | None) -> Cache:
        new = Cache(0)
        new.buffers, new.written, new.used, new.path = buffers, written, used, path
        return new

    def select(self, lines: Tensor, beams: int = 1) -> Cache:
        """The cache of these lines, each `beams` neighbours of one sentence (`State.select`)."""
        if self.used == 0:
            return Cache(len(self.buffers))
        keys, path = self.buffers[0][0], self.path
        before = 1 if path is None else path.shape[1]  # lines of a sentence so far
        if path is None and beams > 1:
            path = torch.ones(len(keys), 1, self.used, dtype=torch.bool, device=keys.device)
        if path is not None:
            path = path.flatten(0, 1)[lines]  # (lines, slots)
            path = path.unflatten(0, (-1, beams))  # (sentences, beams, slots)
        sentences = lines[::beams] // before
        if torch.equal(sentences, torch.arange(len(keys), device=lines.device)):
            return self._with(self.buffers, self.written, self.used, path)
        buffers = [
            tuple(x[:, :, : self.used].index_select(0, sentences) for x in pair)
            for pair in self.buffers
        ]
        return self._with(buffers, [self.used], self.used, path)

    def advance(self, tokens: Tensor) -> tuple[Cache, Tensor | None]:
        """Make room for the tokens (sentences, lines), one more for every line.

        Returns the new cache, which every layer must `extend`, and the mask of what the lines may
        attend to, (sentences, 1, lines, slots), or None: everything.
        """
        sentences, lines = tokens.shape
        path, used = self.path, self.used + lines
        if lines > 1 or path is not None:
            own = torch.eye(lines, dtype=torch.bool, device=tokens.device)
            own = own.expand(sentences, lines, lines)
            path = own if path is None else torch.cat([path, own], dim=2)
        new = self._with(list(self.buffers), self.written, used, path)
        if not self.used:
            new.written = [0]  # the buffers are still to come, and another start makes its own
        # Full, or another continuation of the same past has taken the slots: move.
        elif used > self.buffers[0][0].shape[2] or self.written[0] > self.used:
            if not torch.is_grad_enabled():
                new.buffers = [tuple(self._moved(x, lines) for x in pair) for pair in self.buffers]
            new.written = [0]
        new.written[0] = used
        return new, None if path is None else path[:, None]

    def _moved(self, x: Tensor, lines: int) -> Tensor:
        new = x.new_zeros(*x.shape[:2], self.used + AHEAD * lines, x.shape[3])
        new[:, :, : self.used] = x[:, :, : self.used]
        return new

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put in what a layer computed for the new tokens, each (sentences, heads, lines, d).

        Returns all its keys and values, (sentences, heads, slots, d).
        """
        lines, pair = keys.shape[2], self.buffers[layer]
        if torch.is_grad_enabled():  # a gradient needs its tensors as they were
            past = pair or (keys[:, :, :0], values[:, :, :0])
            past = tuple(x[:, :, : self.used - lines] for x in past)
            pairs = zip(past, (keys, values), strict=True)
            self.buffers[layer] = tuple(torch.cat([old, new], dim=2) for old, new in pairs)
            return self.buffers[layer]
        if pair is None:
            shape = (*keys.shape[:2], AHEAD * lines, keys.shape[3])
            pair = self.buffers[layer] = (keys.new_zeros(shape), values.new_zeros(shape))
        pair[0][:, :, self.used - lines : self.used] = keys
        pair[1][:, :, self.used - lines : self.used] = values
        return pair[0][:, :, : self.used], pair[1][:, :, : self.used]
