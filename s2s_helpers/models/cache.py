"""The keys and values a transformer has computed already, kept for the tokens to come.

Without them every step would go through the whole prefix again. With them a step computes its own
token's and looks at the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

AHEAD = 16  # steps to allocate room for at a time
REGISTER = 16  # float32 numbers in a vector register: rows of whole registers are worked on fastest


def whole_registers(length: int) -> int:
    """The length, rounded up."""
    return length + -length % REGISTER


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

    @property
    def shown(self) -> int:
        """Slots that are looked at: those in use, and masked ones up to a whole register."""
        return self.used if torch.is_grad_enabled() else whole_registers(self.used)

    def select(self, lines: Tensor, beams: int = 1) -> Cache:
        """The cache of these lines, each `beams` neighbours of one sentence (`State.select`)."""
        if self.used == 0:
            return self
        keys, path = self.buffers[0][0], None
        before = 1 if self.path is None else self.path.shape[1]
        if before > 1 or beams > 1:
            path = self.path
            if path is None:
                path = torch.ones(len(keys), 1, self.used, dtype=torch.bool, device=keys.device)
            path = path.flatten(0, 1)[lines].unflatten(0, (-1, beams))
        sentences = lines[::beams] // before
        if torch.equal(sentences, torch.arange(len(keys), device=lines.device)):
            return self._with(self.buffers, self.written, self.used, path)
        buffers = [
            tuple(x[:, :, : self.shown].index_select(0, sentences) for x in pair)
            for pair in self.buffers
        ]
        return self._with(buffers, [self.used], self.used, path)

    def advance(self, tokens: Tensor) -> tuple[Cache, Tensor]:
        """Make room for the tokens (sentences, lines), one more for every line.

        Returns the new cache, which every layer must `extend`, and the mask of what the lines look
        at, (sentences or 1, 1, lines, slots).
        """
        sentences, lines = tokens.shape
        path, used = self.path, self.used + lines
        if lines > 1 or path is not None:
            own = torch.eye(lines, dtype=torch.bool, device=tokens.device)
            own = own.expand(sentences, lines, lines)
            path = own if path is None else torch.cat([path, own], dim=2)
        new = self._with(list(self.buffers), self.written, used, path)
        # Full, or another continuation of the same past has taken the slots: move.
        full = (self.used and used > self.buffers[0][0].shape[2]) or self.written[0] > self.used
        if full and not torch.is_grad_enabled():
            new.buffers = [tuple(self._moved(x, lines) for x in pair) for pair in self.buffers]
            new.written = [0]
        new.written[0] = used
        if path is None:
            mask = torch.arange(new.shown, device=tokens.device) < used
            return new, mask[None, None, None]
        return new, F.pad(path, (0, new.shown - used))[:, None]

    def _moved(self, x: Tensor, lines: int) -> Tensor:
        new = x.new_zeros(*x.shape[:2], whole_registers(self.used + AHEAD * lines), x.shape[3])
        new[:, :, : self.used] = x[:, :, : self.used]
        return new

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put in what a layer computed for the new tokens, each (sentences, heads, lines, d).

        Returns all its keys and values, (sentences, heads, slots, d).
        """
        lines, pair = keys.shape[2], self.buffers[layer]
        if torch.is_grad_enabled():  # a gradient needs its tensors as they were
            past = pair or (keys[:, :, :0], values[:, :, :0])
            pairs = zip(past, (keys, values), strict=True)
            pair = tuple(torch.cat([old, new], dim=2) for old, new in pairs)
        else:
            if pair is None:
                shape = (*keys.shape[:2], whole_registers(AHEAD * lines), keys.shape[3])
                pair = (keys.new_zeros(shape), values.new_zeros(shape))
            for buffer, new in zip(pair, (keys, values), strict=True):
                buffer[:, :, self.used - lines : self.used] = new
        self.buffers[layer] = pair
        return tuple(x[:, :, : self.shown] for x in pair)
