"""The transformer of Vaswani et al. 2017, written out from scaled dot-product attention up."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from s2s_helpers.models.attention import masked_softmax, softmax
from s2s_helpers.models.cache import Cache
from s2s_helpers.models.fast import KNOWN, FastTransformer, by_line
from s2s_helpers.models.interface import Memory, Seq2SeqModel, State, check_ids, embedding_table
from s2s_helpers.models.prepacked import chosen_type


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None):
    """softmax(Q K^T / sqrt(d_k)) V (Vaswani et al. 2017, equation 1).

    query (..., target, d_k), key (..., source, d_k), value (..., source, d_v); mask broadcasts to
    (..., target, source), True where attention may look; None: everywhere.
    Returns the mixed values (..., target, d_v) and the weights (..., target, source).
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    weights = softmax(scores) if mask is None else masked_softmax(scores, mask)
    return weights @ value, weights


def causal_mask(length: int, device=None) -> Tensor:
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
        # Contiguous: many small matrix products at a stride take up to three times as long.
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2).contiguous()

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the tokens x (batch, time, width): what a decoder may keep."""
        return self.split(self.key(x)), self.split(self.value(x))

    def forward(self, x: Tensor, keys_values: tuple, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Let the tokens x (batch, target, width) look at keys and values.

        Returns (batch, target, width) and weights (batch, heads, target, source).
        """
        mixed, weights = scaled_dot_product_attention(self.split(self.query(x)), *keys_values, mask)
        return self.output(mixed.transpose(1, 2).flatten(2)), weights


class FeedForward(nn.Sequential):
    """max(0, x W_1 + b_1) W_2 + b_2, the same for every position (section 3.3)."""

    def __init__(self, width: int, feedforward: int):
        super().__init__(nn.Linear(width, feedforward), nn.ReLU(), nn.Linear(feedforward, width))


class Dropout(nn.Dropout):
    """Sets each number to 0 with probability p, and divides the others by 1 - p (section 5.4).

    On a CPU torch draws a float for every number, which takes longer than the matrix product
    beside it. Here eight numbers share one 64-bit draw, a byte each, so p is a multiple of 1/256.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        dropped = round(256 * self.p)
        keep = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        return x * keep.to(x.dtype).mul_(256 / (256 - dropped) if dropped < 256 else 0.0)


class Residual(nn.Module):
    """A sublayer's frame: add, normalise, drop out.

    Post-norm, LayerNorm(x + sublayer(x)), is the paper's (section 3.1). Pre-norm,
    x + sublayer(LayerNorm(x)), trains without a careful warm-up (Xiong et al. 2020).
    """

    def __init__(self, width: int, dropout: float, norm_first: bool):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        self.norm_first = norm_first

    def before(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.norm_first else x

    def after(self, x: Tensor, change: Tensor) -> Tensor:
        x = x + self.dropout(change)
        return x if self.norm_first else self.norm(x)


class EncoderLayer(nn.Module):
    """Self-attention over the source, then the feed-forward net."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, norm_first: bool):
        super().__init__()
        self.attention = MultiHeadAttention(width, heads)
        self.feedforward = FeedForward(width, feedforward)
        self.frames = nn.ModuleList(Residual(width, dropout, norm_first) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x (batch, source, width), mask (batch, source); returns the next x and the weights."""
        inner = self.frames[0].before(x)
        keys_values = self.attention.keys_values(inner)
        change, weights = self.attention(inner, keys_values, mask[:, None, None])
        x = self.frames[0].after(x, change)
        return self.frames[1].after(x, self.feedforward(self.frames[1].before(x))), weights


class DecoderLayer(nn.Module):
    """Self-attention over the target so far, cross-attention to the source, feed-forward net."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, norm_first: bool):
        super().__init__()
        self.attention = MultiHeadAttention(width, heads)
        self.cross = MultiHeadAttention(width, heads)
        self.feedforward = FeedForward(width, feedforward)
        self.frames = nn.ModuleList(Residual(width, dropout, norm_first) for _ in range(3))

    def forward(self, x, mask, memory_keys_values, memory_mask, extend=None):
        """x (batch, time, width); mask, broadcasting to (batch, heads, time, past and time), or
        None; `extend`: puts keys and values after those of earlier tokens (`Cache.extend`).

        Returns the next x and the cross-attention's weights (batch, heads, time, source).
        """
        inner = self.frames[0].before(x)
        keys_values = self.attention.keys_values(inner)
        if extend is not None:
            keys_values = extend(*keys_values)
        change, _ = self.attention(inner, keys_values, mask)
        x = self.frames[0].after(x, change)
        inner = self.frames[1].before(x)
        change, weights = self.cross(inner, memory_keys_values, memory_mask[:, None, None])
        x = self.frames[1].after(x, change)
        return self.frames[2].after(x, self.feedforward(self.frames[2].before(x))), weights


class TransformerSeq2Seq(Seq2SeqModel):
    """Encoder and decoder stacks with embeddings, positions and an output layer.

    `tie_embeddings` uses the target embedding as the output layer's weights, and as the source
    embedding too where both languages share one vocabulary (section 3.4; Press and Wolf 2017).
    `positions` is "sinusoidal", "learned" or "none" (to see what is lost without).
    """

    shares_memory = True
    POSITIONS = ("sinusoidal", "learned", "none")

    def __init__(
        self, source_vocabulary, target_vocabulary, width=128, heads=4, layers=3, feedforward=256,
        dropout=0.1, positions="sinusoidal", norm_first=True, tie_embeddings=True,
        max_positions=256,
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
        self.dropout = Dropout(dropout)
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

    def embed(self, table: nn.Embedding, tokens: Tensor, first: int = 0, last: int | None = None):
        """Ids (batch, time) to (batch, time, width): sqrt(width) times the embedding (section 3.4),
        plus the positions from `first` to before `last` (default: one for each of the time)."""
        last = first + tokens.shape[1] if last is None else last
        self.check_positions(last)
        x = table(tokens) * math.sqrt(self.width)
        if self.table is not None:
            x = x + self.table[first:last]
        return self.dropout(x)

    def check_positions(self, length: int) -> None:
        """Raises ValueError where a sequence of this length has more tokens than positions."""
        if length > self.max_positions:
            raise ValueError(
                f"a sequence of {length} tokens, but the model has only "
                f"{self.max_positions} positions"
            )

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        check_ids(source, self.source_vocabulary, self.max_positions, "source")
        x = self.embed(self.source_embedding, source)
        for layer in self.encoder:
            x, _ = layer(x, source_mask)
        x = self.encoder_norm(x)
        keys = tuple(layer.cross.keys_values(x) for layer in self.decoder)
        return Memory(mask=source_mask, states=x, keys=keys)

    def start(self, memory: Memory) -> State:
        return State(cache=Cache(len(self.decoder)))

    def _decode(self, x: Tensor, mask: Tensor | None, memory: Memory, cache: Cache | None = None):
        """Embedded tokens (batch, time, width) to features (batch, time, width) and weights
        (batch, layers, heads, time, source) or None."""
        looks = []
        for number, (layer, keys_values) in enumerate(zip(self.decoder, memory.keys, strict=True)):
            extend = None if cache is None else partial(cache.extend, number)
            x, look = layer(x, mask, keys_values, memory.mask, extend)
            looks.append(look)
        looks = torch.stack(looks, dim=1) if self.wants_attention else None
        return self.decoder_norm(x), looks

    def step(self, tokens: Tensor, state: State, memory: Memory):
        # A beam's lines stand where the tokens of a known target would: next to each other, each
        # seeing only its own past.
        tokens = tokens.view(len(memory.mask), -1)  # (sentences, lines)
        cache, mask = state.cache.advance(tokens)
        here = state.position
        x = self.embed(self.target_embedding, tokens, here, here + 1)
        features, looks = self._decode(x, mask, memory, cache)
        looks = None if looks is None else by_line(looks)
        logits = self.output(features.flatten(0, 1))
        return logits, State(cache=cache, position=here + 1), looks

    def for_decoding(self, lines: int | None = None, dtype: torch.dtype | None = None):
        # A subclass or a changed layer may do what the twin does not know of.
        verbs = ("encode", "start", "step", "embed", "_decode")
        own = all(getattr(type(self), v) is getattr(TransformerSeq2Seq, v) for v in verbs)
        layers = (m for part in (self.encoder, self.decoder) for m in part.modules())
        known = all(type(layer) in (*KNOWN, Dropout) for layer in layers if not layer._modules)
        with torch.no_grad():
            return FastTransformer(self, lines, dtype or chosen_type()) if own and known else self

    @property
    def output_layer(self):
        return self.output

    def features(self, batch):
        self.check_target(batch)
        memory = self.encode(batch.source, batch.source_mask)
        mask = causal_mask(batch.target_input.shape[1], batch.target.device)
        return self._decode(self.embed(self.target_embedding, batch.target_input), mask, memory)
