"""The transformer's decoder again, for decoding only: the same numbers from fewer, larger operations.

At one token a step the matrices are small, and as much time goes into starting operations as into
multiplying. So here query, key and value come from one matrix, the scale is in the weights, and the
mask is made once a step. `tests/test_models.py` holds it to `TransformerSeq2Seq.step`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s_helpers.models.cache import whole_registers
from s2s_helpers.models.interface import Memory, State


def scaled(linear: nn.Linear, by: float) -> tuple[Tensor, Tensor]:
    return linear.weight * by, linear.bias * by


def joined(*pairs) -> tuple[Tensor, Tensor]:
    return tuple(torch.cat(parts) for parts in zip(*pairs, strict=True))


def plain(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    return linear.weight, linear.bias


def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor):
    """Attention of scaled queries (sentences, lines, heads, d) over keys and values (sentences,
    heads, slots, d), with `bias` (sentences or 1, 1, lines or 1, slots) 0 or -inf.

    Returns (sentences x lines, heads x d) and weights (sentences, heads, lines, slots).
    """
    sentences, lines, heads, d = query.shape
    query = query.transpose(1, 2)
    scores = torch.matmul(query, keys.transpose(2, 3)).add_(bias)
    weights = torch.softmax(scores, dim=-1)
    mixed = torch.matmul(weights, values)
    return mixed.transpose(1, 2).reshape(sentences * lines, heads * d), weights


class FastTransformer:
    """Speaks `encode`, `start` and `step` for a `TransformerSeq2Seq` in evaluation mode."""

    def __init__(self, model):
        self.model = model
        self.layers = [self._prepared(layer) for layer in model.decoder]

    def _prepared(self, layer) -> dict:
        scale = 1 / math.sqrt(self.model.width // layer.attention.heads)
        own, cross = layer.attention, layer.cross
        first, _, last = layer.feedforward
        return {
            "norms": [frame.norm for frame in layer.frames],
            "own": joined(scaled(own.query, scale), plain(own.key), plain(own.value)),
            "own_output": plain(own.output),
            "cross": scaled(cross.query, scale),
            "cross_output": plain(cross.output),
            "first": plain(first),
            "last": plain(last),
        }

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        """As the model's, with keys and values filled up to whole vector registers."""
        memory = self.model.encode(source, source_mask)
        extra = whole_registers(source.shape[1]) - source.shape[1]
        keys = tuple(
            tuple(F.pad(x, (0, 0, 0, extra)) for x in keys_values) for keys_values in memory.keys
        )
        return replace(memory, keys=keys, mask=F.pad(source_mask, (0, extra)))

    def start(self, memory: Memory) -> State:
        return self.model.start(memory)

    def step(self, tokens: Tensor, state: State, memory: Memory):
        """As `TransformerSeq2Seq.step`."""
        model, sentences = self.model, len(memory.mask)
        norm_first, heads = model.settings["norm_first"], model.settings["heads"]
        tokens = tokens.view(sentences, -1)
        lines, here, looks = tokens.shape[1], state.position, []
        cache, mask = state.cache.advance(tokens)
        zero = torch.zeros((), dtype=torch.float, device=tokens.device)
        own_bias = torch.where(mask, zero, -math.inf)
        cross_bias = torch.where(memory.mask, zero, -math.inf)[:, None, None]
        x = model.embed(model.target_embedding, tokens, here, here + 1).flatten(0, 1)
        for number, (layer, keys_values) in enumerate(zip(self.layers, memory.keys, strict=True)):
            norms = layer["norms"]
            inner = norms[0](x) if norm_first else x
            parts = F.linear(inner, *layer["own"]).view(sentences, lines, 3, heads, -1)
            query, key, value = parts.unbind(2)
            kept = cache.extend(number, key.transpose(1, 2), value.transpose(1, 2))
            mixed, _ = attend(query, *kept, own_bias)
            x = x + F.linear(mixed, *layer["own_output"])
            x, inner = (x, norms[1](x)) if norm_first else (norms[0](x),) * 2
            query = F.linear(inner, *layer["cross"]).view(sentences, lines, heads, -1)
            mixed, weights = attend(query, *keys_values, cross_bias)
            looks.append(weights)
            x = x + F.linear(mixed, *layer["cross_output"])
            x, inner = (x, norms[2](x)) if norm_first else (norms[1](x),) * 2
            x = x + F.linear(F.linear(inner, *layer["first"]).relu_(), *layer["last"])
            x = x if norm_first else norms[2](x)
        logits = model.output(model.decoder_norm(x))
        looks = torch.stack(looks, dim=1) if model.wants_attention else None
        if looks is not None:  # (sentences, layers, heads, lines, source), lines to the front
            looks = looks.permute(0, 3, 1, 2, 4).flatten(0, 1)
        return logits, State(cache=cache, position=here + 1), looks
