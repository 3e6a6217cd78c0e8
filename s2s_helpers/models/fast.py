"""The transformer again, for decoding only: the same numbers from fewer, larger operations.

At one token a step the matrices are small, and starting an operation takes as long as the work it
does. So here query, key and value come from one matrix, the scale is in the weights, and masks are
made once a step. Nothing is dropped out, and there are no gradients. `tests/test_models.py` holds
it to the plain model.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s_helpers.models.cache import whole_registers
from s2s_helpers.models.interface import Memory, State, check_ids
from s2s_helpers.models.prepacked import LEAST_LINES, packed, packed_layer

KNOWN = (nn.Linear, nn.LayerNorm, nn.ReLU)  # what its layers are made of, beside dropout
MANY = {torch.bfloat16: 128, torch.int8: 32}  # so many rows pay for the way there and back


def joined(*layers: nn.Linear, dtype: torch.dtype, query_scale: float = 1.0, keep: bool = False):
    """Linear layers with the same input as one: x (rows, width) to all their outputs side by side,
    many rows multiplied in `dtype`.

    The first one's are multiplied by `query_scale`. With `keep` the weights are transposed, which
    pays where they are used often: a single row then reads them in half the time.
    """
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    weights[0], biases[0] = weights[0] * query_scale, biases[0] * query_scale
    weight, bias = torch.cat(weights), torch.cat(biases)
    few = partial(F.linear, weight=weight, bias=bias)
    if keep:
        matrix = weight.t().contiguous()
        few = lambda x: torch.addmm(bias, x, matrix)  # noqa: E731
    least = MANY.get(dtype)
    many = packed(weight, bias, dtype) if least else None
    return few if many is None else lambda x: (many if len(x) >= least else few)(x)


def normalised(norm: nn.LayerNorm):
    shape, weight, bias, eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled queries (sentences, heads, lines, d) over keys and values (sentences, heads, slots,
    d), with `bias`, 0 or -inf, (sentences or 1, 1, lines or 1, slots).

    Returns (sentences x lines, heads x d) and weights (sentences, heads, lines, slots).
    """
    sentences, heads, lines, _ = query.shape
    scores = torch.bmm(query.reshape(-1, *query.shape[2:]), keys.flatten(0, 1).transpose(1, 2))
    weights = scores.view(sentences, heads, lines, -1).add_(bias).softmax(dim=-1)
    mixed = torch.bmm(weights.flatten(0, 1), values.flatten(0, 1))
    mixed = mixed.view(sentences, heads, lines, -1).transpose(1, 2)
    return mixed.reshape(sentences * lines, -1), weights


def as_bias(mask: Tensor) -> Tensor:
    """0 where a boolean mask is True, else -inf."""
    return torch.zeros_like(mask, dtype=torch.float).masked_fill_(~mask, -math.inf)


class Sublayer:
    """An attention or feed-forward net within its frame of addition and normalisation."""

    def __init__(self, frame):
        self.norm, self.norm_first = normalised(frame.norm), frame.norm_first

    def before(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.norm_first else x

    def after(self, x: Tensor, change: Tensor) -> Tensor:
        x = change.add_(x)
        return x if self.norm_first else self.norm(x)


class OwnAttention(Sublayer):
    """Of the tokens of one side on each other."""

    def __init__(self, attention, frame, **how):
        super().__init__(frame)
        self.heads, self.d = attention.heads, attention.query.out_features // attention.heads
        parts = attention.query, attention.key, attention.value
        self.project = joined(*parts, query_scale=self.d**-0.5, **how)
        self.output = joined(attention.output, **how)

    def __call__(self, x: Tensor, sentences: int, bias: Tensor, extend) -> Tensor:
        """x (sentences x lines, width); `extend` takes the lines' keys and values and gives those
        to look at."""
        parts = self.project(self.before(x)).view(sentences, -1, 3, self.heads, self.d)
        query, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed, _ = attend(query, *extend(keys, values), bias)
        return self.after(x, self.output(mixed))


class CrossAttention(Sublayer):
    """Of the lines of a sentence on its source."""

    def __init__(self, attention, frame, **how):
        super().__init__(frame)
        self.heads, self.d = attention.heads, attention.query.out_features // attention.heads
        self.project = joined(attention.query, query_scale=self.d**-0.5, **how)
        self.output = joined(attention.output, **how)

    def __call__(self, x: Tensor, keys_values: tuple, bias: Tensor) -> tuple[Tensor, Tensor]:
        query = self.project(self.before(x)).view(len(keys_values[0]), -1, self.heads, self.d)
        mixed, weights = attend(query.transpose(1, 2), *keys_values, bias)
        return self.after(x, self.output(mixed)), weights


class FeedForward(Sublayer):
    """Two layers with a ReLU between them."""

    def __init__(self, net, frame, **how):
        super().__init__(frame)
        self.first, self.last = joined(net[0], **how), joined(net[2], **how)

    def __call__(self, x: Tensor) -> Tensor:
        return self.after(x, self.last(self.first(self.before(x)).relu_()))


def filled_up(*keys_values: Tensor) -> tuple:
    """Keys and values (sentences, heads, time, d), with zeros up to whole vector registers."""
    time = keys_values[0].shape[2]
    extra = whole_registers(time) - time
    return tuple(F.pad(x, (0, 0, 0, extra)) if extra else x.contiguous() for x in keys_values)


class FastTransformer:
    """Speaks `encode`, `start` and `step` for a `TransformerSeq2Seq`, with the weights this has
    when it is made. What else is asked of it, the model answers.

    `lines` says how many will be decoded; None: often, so that all preparations pay. `dtype` is
    what large products are in: float32, bfloat16 or int8.
    """

    output_layer = None  # it packs its own

    def __init__(self, model, lines: int | None, dtype: torch.dtype):
        if dtype not in (torch.float32, *MANY):
            raise ValueError(f"dtype must be float32, bfloat16 or int8 of torch, got {dtype}")
        self.model, self.wants_attention, keep = model, model.wants_attention, lines is None
        how = dict(keep=keep, dtype=dtype)
        self.heads, self.scale = model.settings["heads"], math.sqrt(model.width)
        self.encoder = [
            (
                OwnAttention(layer.attention, layer.frames[0], **how),
                FeedForward(layer.feedforward, layer.frames[1], **how),
            )
            for layer in model.encoder
        ]
        self.decoder = [
            (
                OwnAttention(layer.attention, layer.frames[0], **how),
                CrossAttention(layer.cross, layer.frames[1], **how),
                FeedForward(layer.feedforward, layer.frames[2], **how),
            )
            for layer in model.decoder
        ]
        pairs = [p for layer in model.decoder for p in (layer.cross.key, layer.cross.value)]
        self.memory_keys_values = joined(*pairs, dtype=dtype)  # of all layers at once
        self.few = joined(model.output, dtype=torch.float32, keep=True) if keep else model.output
        self.many = packed_layer(model.output, dtype) if keep or lines >= LEAST_LINES else None

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def for_decoding(self, lines: int | None = None, dtype: torch.dtype | None = None):
        """Itself."""
        return self

    def modules(self):
        """Those of the model's that it runs and that know training from evaluation."""
        return self.model.dropout.modules()

    @torch.autocast("cpu", enabled=False)
    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        """As the model's, with keys and values filled up to whole vector registers."""
        model, (sentences, time) = self.model, source.shape
        check_ids(source, model.source_vocabulary, model.max_positions, "source")
        x = model.embed(model.source_embedding, source).flatten(0, 1)
        mask = F.pad(source_mask, (0, whole_registers(time) - time))
        bias = as_bias(mask)[:, None, None]
        for attention, feedforward in self.encoder:
            x = feedforward(attention(x, sentences, bias, filled_up))
        x = model.encoder_norm(x)
        d = x.shape[1] // self.heads
        keys_values = self.memory_keys_values(x).view(sentences, time, -1, 2, self.heads, d)
        keys = tuple(filled_up(*pair) for pair in keys_values.permute(2, 3, 0, 4, 1, 5).unbind(0))
        return Memory(mask=mask, states=x.view(sentences, time, -1), keys=(keys, bias))

    @torch.autocast("cpu", enabled=False)
    def step(self, tokens: Tensor, state: State, memory: Memory):
        """As `TransformerSeq2Seq.step`."""
        model, sentences, here = self.model, len(memory.mask), state.position
        tokens, looks = tokens.view(sentences, -1), []
        cache, mask = state.cache.advance(tokens)
        (keys, cross_bias), own_bias = memory.keys, as_bias(mask)
        model.check_positions(here + 1)
        x = F.embedding(tokens.flatten(), model.target_embedding.weight).mul_(self.scale)
        x = x if model.table is None else x.add_(model.table[here])
        for number, (own, cross, feedforward) in enumerate(self.decoder):
            x = own(x, sentences, own_bias, partial(cache.extend, number))
            x, weights = cross(x, keys[number], cross_bias)
            x = feedforward(x)
            looks.append(weights)
        x = model.decoder_norm(x)
        logits = self.few(x) if self.many is None or len(x) < LEAST_LINES else self.many(x)
        looks = by_line(torch.stack(looks, dim=1)) if self.wants_attention else None
        return logits, State(cache=cache, position=here + 1), looks


def by_line(weights: Tensor) -> Tensor:
    """Attention (sentences, layers, heads, lines, source) to (sentences x lines, layers, heads,
    source)."""
    return weights.permute(0, 3, 1, 2, 4).flatten(0, 1)
