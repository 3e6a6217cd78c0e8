"""The transformer of Vaswani et al. 2017, written out from scaled dot-product attention up."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from s2s_helpers.data import Batch
from s2s_helpers.models.attention import masked_softmax
from s2s_helpers.models.cache import Cache
from s2s_helpers.models.interface import (
    Features,
    Memory,
    Seq2SeqModel,
    State,
    check_ids,
    check_target,
    embedding_table,
)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """softmax(Q K^T / sqrt(d_k)) V (Vaswani et al. 2017, equation 1).

    query (..., target, d_k), key (..., source, d_k), value (..., source, d_v). mask broadcasts to
    (..., target, source): boolean, True where attention may look; or numbers added to the scores,
    0 and -inf (`additive`); None: everywhere.
    Returns the mixed values (..., target, d_v) and the weights (..., target, source).
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (..., target, source)
    weights = scores.softmax(dim=-1) if mask is None else masked_softmax(scores, mask)
    return weights @ value, weights


def additive(mask: Tensor) -> Tensor:
    """0 where a boolean mask is True, -inf elsewhere: to add is faster than to fill in, and a mask
    is made once for all layers."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -math.inf)


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """(length, length), True on and below the diagonal: position i sees positions up to i."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def sinusoidal_positions(positions: int, width: int) -> Tensor:
    """The table (positions, width) of section 3.5:

    PE(pos, 2i) = sin(pos / 10000^(2i/width)),  PE(pos, 2i+1) = cos(pos / 10000^(2i/width))
    """
    if width % 2:
        raise ValueError(f"sinusoidal positions need an even width, got {width}")
    position = torch.arange(positions, dtype=torch.float)[:, None]
    wavelength = 10000 ** (torch.arange(0, width, 2, dtype=torch.float) / width)  # over 2 pi
    table = torch.empty(positions, width)
    table[:, 0::2] = torch.sin(position / wavelength)
    table[:, 1::2] = torch.cos(position / wavelength)
    return table


class MultiHeadAttention(nn.Module):
    """`heads` attentions side by side, each on its own projection (section 3.2.2)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """(batch, time, width) to (batch, heads, time, width of a head)."""
        batch, time, width = x.shape
        x = x.view(batch, time, self.heads, width // self.heads)
        # Contiguous: many small matrix products at a stride take up to three times as long.
        return x.transpose(1, 2).contiguous()  # (batch, heads, time, width of a head)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the tokens x (batch, time, width): what a decoder may keep."""
        return self.split(self.key(x)), self.split(self.value(x))

    def forward(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Let the tokens x (batch, target, width) attend to keys and values.

        Returns (batch, target, width) and weights (batch, heads, target, source).
        """
        query = self.split(self.query(x))  # (batch, heads, target, width of a head)
        mixed, weights = scaled_dot_product_attention(query, *keys_values, mask)
        mixed = mixed.transpose(1, 2).reshape(x.shape)  # (batch, target, width)
        return self.output(mixed), weights


class FeedForward(nn.Sequential):
    """max(0, x W_1 + b_1) W_2 + b_2, the same for every position (section 3.3)."""

    def __init__(self, width: int, feedforward: int):
        super().__init__(nn.Linear(width, feedforward), nn.ReLU(), nn.Linear(feedforward, width))


class Residual(nn.Module):
    """What stands around a sublayer: normalise, drop out, add.

    Post-norm, LayerNorm(x + sublayer(x)), is the paper's (section 3.1). Pre-norm,
    x + sublayer(LayerNorm(x)), trains without a careful warm-up (Xiong et al. 2020).
    """

    def __init__(self, width: int, dropout: float, norm_first: bool):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def before(self, x: Tensor) -> Tensor:
        """What the sublayer reads, from x (batch, time, width)."""
        return self.norm(x) if self.norm_first else x

    def after(self, x: Tensor, change: Tensor) -> Tensor:
        """x with what the sublayer made of it, both (batch, time, width)."""
        x = x + (self.dropout(change) if self.training else change)
        return x if self.norm_first else self.norm(x)


class EncoderLayer(nn.Module):
    """Self-attention over the source, then the feed-forward net."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, norm_first: bool):
        super().__init__()
        around = (width, dropout, norm_first)
        self.attention, self.attention_residual = (
            MultiHeadAttention(width, heads),
            Residual(*around),
        )
        self.feedforward, self.feedforward_residual = (
            FeedForward(width, feedforward), Residual(*around),
        )  # fmt: skip

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (batch, source, width), mask (batch, 1, 1, source); returns the next x, and weights
        (batch, heads, source, source)."""
        inner = self.attention_residual.before(x)  # (batch, source, width)
        keys_values = self.attention.keys_values(inner)  # (batch, heads, source, width of a head)
        change, weights = self.attention(inner, keys_values, mask)
        x = self.attention_residual.after(x, change)
        change = self.feedforward(self.feedforward_residual.before(x))
        return self.feedforward_residual.after(x, change), weights


class DecoderLayer(nn.Module):
    """Self-attention over the target so far, cross-attention to the source, feed-forward net."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, norm_first: bool):
        super().__init__()
        around = (width, dropout, norm_first)
        self.attention, self.attention_residual = (
            MultiHeadAttention(width, heads),
            Residual(*around),
        )
        self.cross, self.cross_residual = MultiHeadAttention(width, heads), Residual(*around)
        self.feedforward, self.feedforward_residual = (
            FeedForward(width, feedforward), Residual(*around),
        )  # fmt: skip

    def forward(
        self, x: Tensor, mask: Tensor | None, memory_keys_values: tuple,
        memory_mask: Tensor | None, extend: Callable | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """x (batch, time, width); masks that broadcast to (batch, heads, time, past and time) and
        (batch, heads, time, source); `extend` puts keys and values after those of earlier tokens
        (`Cache.extend`).

        Returns the next x and the cross-attention's weights (batch, heads, time, source).
        """
        inner = self.attention_residual.before(x)  # (batch, time, width)
        keys_values = self.attention.keys_values(inner)  # (batch, heads, time, width of a head)
        if extend is not None:
            keys_values = extend(*keys_values)  # (batch, heads, past and time, width of a head)
        change, _ = self.attention(inner, keys_values, mask)
        x = self.attention_residual.after(x, change)
        change, weights = self.cross(self.cross_residual.before(x), memory_keys_values, memory_mask)
        x = self.cross_residual.after(x, change)
        change = self.feedforward(self.feedforward_residual.before(x))
        return self.feedforward_residual.after(x, change), weights


class TransformerSeq2Seq(Seq2SeqModel):
    """Encoder and decoder stacks with embeddings, positions and an output layer.

    `tie_embeddings` uses the target embedding as the output layer's weights, and as the source
    embedding too where both languages share one vocabulary (section 3.4; Press and Wolf 2017).
    `positions` is "sinusoidal", "learned" or "none" (to see what is lost without). Raises
    ValueError for other positions, or a width that is odd or no multiple of the heads.
    """

    shares_memory = True
    POSITIONS = ("sinusoidal", "learned", "none")

    def __init__(
        self, source_vocabulary: Any, target_vocabulary: Any, width: int = 128, heads: int = 4,
        layers: int = 3, feedforward: int = 256, dropout: float = 0.1,
        positions: str = "sinusoidal", norm_first: bool = True, tie_embeddings: bool = True,
        max_positions: int = 256,
    ):  # fmt: skip
        if positions not in self.POSITIONS:
            raise ValueError(f"positions must be one of {self.POSITIONS}, got {positions!r}")
        super().__init__(
            source_vocabulary, target_vocabulary, width=width, heads=heads, layers=layers,
            feedforward=feedforward, dropout=dropout, positions=positions, norm_first=norm_first,
            tie_embeddings=tie_embeddings, max_positions=max_positions,
        )  # fmt: skip
        self.width, self.max_positions = width, max_positions
        self.source_embedding = embedding_table(len(source_vocabulary), width)
        self.target_embedding = embedding_table(len(target_vocabulary), width)
        self.dropout = nn.Dropout(dropout)
        shape = (width, heads, feedforward, dropout, norm_first)
        self.encoder = nn.ModuleList(EncoderLayer(*shape) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(*shape) for _ in range(layers))
        # Pre-norm leaves the last sum unnormalised; post-norm has just done it.
        last = nn.LayerNorm if norm_first else lambda _: nn.Identity()
        self.encoder_norm, self.decoder_norm = last(width), last(width)
        self.output = nn.Linear(width, len(target_vocabulary))
        for name, weight in self.named_parameters():
            if weight.dim() > 1 and "embedding" not in name:
                nn.init.xavier_uniform_(weight)
        if positions == "sinusoidal":
            self.register_buffer(
                "table", sinusoidal_positions(max_positions, width), persistent=False
            )
        elif positions == "learned":
            self.table = nn.Parameter(torch.randn(max_positions, width))
        else:
            self.table = None
        if tie_embeddings:
            self.output.weight = self.target_embedding.weight
            if source_vocabulary == target_vocabulary:
                self.source_embedding = self.target_embedding

    def embed(
        self, table: nn.Embedding, tokens: Tensor, first: int = 0, last: int | None = None
    ) -> Tensor:
        """Ids (batch, time) to (batch, time, width): sqrt(width) times the embedding (section 3.4),
        plus the positions from `first` to before `last` (default: one for each of the time).

        Raises ValueError where there are not so many positions.
        """
        last = first + tokens.shape[1] if last is None else last
        if last > self.max_positions:
            raise ValueError(
                f"a sequence of {last} tokens, but the model has only {self.max_positions} "
                "positions"
            )
        x = table(tokens) * math.sqrt(self.width)  # (batch, time, width)
        if self.table is not None:
            x = x + self.table[first:last]  # (time, width), the same for the whole batch
        return self.dropout(x)

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        check_ids(source, self.source_vocabulary, self.max_positions, "source")
        mask = additive(source_mask)[:, None, None]  # (batch, 1, 1, source), for heads and targets
        x = self.embed(self.source_embedding, source)  # (batch, source, width)
        for layer in self.encoder:
            x, _ = layer(x, mask)
        x = self.encoder_norm(x)
        keys = tuple(layer.cross.keys_values(x) for layer in self.decoder)
        return Memory(mask=source_mask, states=x, keys=(keys, mask))

    def start(self, memory: Memory) -> State:
        return State(cache=Cache(len(self.decoder)))

    def _decode(
        self, x: Tensor, mask: Tensor | None, memory: Memory, cache: Cache | None = None
    ) -> tuple[Tensor, Tensor]:
        """Embedded tokens (batch, time, width) to features (batch, time, width) and weights
        (batch, layers, heads, time, source)."""
        mask = None if mask is None else additive(mask)
        attention, (keys, memory_mask) = [], memory.keys
        for number, (layer, keys_values) in enumerate(zip(self.decoder, keys, strict=True)):
            extend = None if cache is None else partial(cache.extend, number)
            x, weights = layer(x, mask, keys_values, memory_mask, extend)
            attention.append(weights)
        return self.decoder_norm(x), torch.stack(attention, dim=1)

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        # A beam's lines stand where the tokens of a known target would: next to each other, each
        # seeing only its own past.
        tokens = tokens.view(len(memory.mask), -1)  # (sentences, lines)
        cache, mask = state.cache.advance(tokens)
        here = state.position
        x = self.embed(self.target_embedding, tokens, here, here + 1)  # (sentences, lines, width)
        features, attention = self._decode(x, mask, memory, cache)
        logits = self.output(features.flatten(0, 1))  # (sentences x lines, vocabulary)
        attention = attention.permute(0, 3, 1, 2, 4)  # (sentences, lines, layers, heads, source)
        return logits, State(cache=cache, position=here + 1), attention.flatten(0, 1)

    def features(self, batch: Batch) -> Features:
        check_target(self, batch)
        memory = self.encode(batch.source, batch.source_mask)
        mask = causal_mask(batch.target_input.shape[1], batch.target.device)  # (target, target)
        x = self.embed(self.target_embedding, batch.target_input)  # (batch, target, width)
        features, attention = self._decode(x, mask, memory)
        return Features(features, self.output, attention)
