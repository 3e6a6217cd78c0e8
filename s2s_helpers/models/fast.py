"""The transformer again, for decoding only: the same numbers from fewer, larger operations.

At one token a step the matrices are small, and starting an operation takes as long as the work it
does. So here query, key and value come from one matrix, the scale is in the weights, the weights
are transposed beforehand, and masks are made once a step. It needs no gradients and drops nothing
out. `tests/test_models.py` holds it to the plain model.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s_helpers.models.cache import Cache, whole_registers
from s2s_helpers.models.interface import Memory, State, check_ids

KNOWN = (nn.Linear, nn.LayerNorm, nn.ReLU, nn.Dropout, nn.Identity)


def joined(*layers: nn.Linear, query_scale: float = 1.0):
    """Linear layers with the same input as one: x (rows, width) to all their outputs side by side.
    The first one's are multiplied by `query_scale`."""
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    weights[0], biases[0] = weights[0] * query_scale, biases[0] * query_scale
    matrix, bias = torch.cat(weights).t().contiguous(), torch.cat(biases)
    return lambda x: torch.addmm(bias, x, matrix)


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

    def __init__(self, attention, frame):
        super().__init__(frame)
        self.heads = attention.heads
        d = attention.query.out_features // self.heads
        parts = attention.query, attention.key, attention.value
        self.project = joined(*parts, query_scale=d**-0.5)
        self.output = joined(attention.output)

    def __call__(self, x: Tensor, sentences: int, bias: Tensor, extend) -> Tensor:
        """x (sentences x lines, width); `extend` takes the lines' keys and values and gives those
        to look at."""
        parts = self.project(self.before(x)).view(
            sentences, -1, 3, self.heads, x.shape[1] // self.heads
        )
        query, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed, _ = attend(query, *extend(keys, values), bias)
        return self.after(x, self.output(mixed))


class CrossAttention(Sublayer):
    def __init__(self, attention, frame):
        super().__init__(frame)
        self.heads = attention.heads
        d = attention.query.out_features // self.heads
        self.project = joined(attention.query, query_scale=d**-0.5)
        self.output = joined(attention.output)

    def __call__(self, x: Tensor, keys_values: tuple, bias: Tensor) -> tuple[Tensor, Tensor]:
        sentences = len(keys_values[0])
        query = self.project(self.before(x))
        query = query.view(sentences, -1, self.heads, x.shape[1] // self.heads).transpose(1, 2)
        mixed, weights = attend(query, *keys_values, bias)
        return self.after(x, self.output(mixed)), weights


class FeedForward(Sublayer):
    def __init__(self, net, frame):
        super().__init__(frame)
        self.first, self.last = joined(net[0]), joined(net[2])

    def __call__(self, x: Tensor) -> Tensor:
        return self.after(x, self.last(self.first(self.before(x)).relu_()))


def filled_up(x: Tensor) -> Tensor:
    """Keys or values (sentences, heads, time, d), with zeros up to whole vector registers."""
    time = x.shape[2]
    return F.pad(x, (0, 0, 0, whole_registers(time) - time)) if time % 16 else x.contiguous()


class FastTransformer:
    """Speaks `encode`, `start` and `step` for a `TransformerSeq2Seq`, with its present weights."""

    def __init__(self, model):
        self.model = model
        self.encoder = [
            (
                OwnAttention(layer.attention, layer.frames[0]),
                FeedForward(layer.feedforward, layer.frames[1]),
            )
            for layer in model.encoder
        ]
        self.decoder = [
            (
                OwnAttention(layer.attention, layer.frames[0]),
                CrossAttention(layer.cross, layer.frames[1]),
                FeedForward(layer.feedforward, layer.frames[2]),
            )
            for layer in model.decoder
        ]
        pairs = [p for layer in model.decoder for p in (layer.cross.key, layer.cross.value)]
        self.memory_keys_values = joined(*pairs)  # of all layers at once

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        """As the model's, with keys and values filled up to whole vector registers."""
        model = self.model
        check_ids(source, model.source_vocabulary, model.max_positions, "source")
        sentences, time = source.shape
        x = model.embed(model.source_embedding, source).flatten(0, 1)
        mask = F.pad(source_mask, (0, whole_registers(time) - time))
        bias = as_bias(mask)[:, None, None]
        both = lambda keys, values: (filled_up(keys), filled_up(values))  # noqa: E731
        for attention, feedforward in self.encoder:
            x = feedforward(attention(x, sentences, bias, both))
        x = model.encoder_norm(x)
        heads = model.settings["heads"]
        keys_values = self.memory_keys_values(x).view(
            sentences, time, -1, 2, heads, x.shape[1] // heads
        )
        keys = tuple(both(*pair) for pair in keys_values.permute(2, 3, 0, 4, 1, 5).unbind(0))
        return Memory(mask=mask, states=x.view(sentences, time, -1), keys=keys)

    def start(self, memory: Memory) -> State:
        return State(cache=Cache(len(self.decoder)))

    def step(self, tokens: Tensor, state: State, memory: Memory):
        """As `TransformerSeq2Seq.step`."""
        model, sentences, here = self.model, len(memory.mask), state.position
        tokens, looks = tokens.view(sentences, -1), []
        cache, mask = state.cache.advance(tokens)
        own_bias, cross_bias = as_bias(mask), as_bias(memory.mask)[:, None, None]
        x = model.embed(model.target_embedding, tokens, here, here + 1).flatten(0, 1)
        for number, (own, cross, feedforward) in enumerate(self.decoder):
            x = own(x, sentences, own_bias, partial(cache.extend, number))
            x, weights = cross(x, memory.keys[number], cross_bias)
            x = feedforward(x)
            looks.append(weights)
        logits = model.output(model.decoder_norm(x))
        looks = torch.stack(looks, dim=1) if model.wants_attention else None
        if looks is not None:  # (sentences, layers, heads, lines, source), lines to the front
            looks = looks.permute(0, 3, 1, 2, 4).flatten(0, 1)
        return logits, State(cache=cache, position=here + 1), looks
