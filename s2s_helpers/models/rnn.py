"""The basic encoder-decoder: a sentence squeezed into one vector, and read out again.

Sutskever, Vinyals and Le 2014 (LSTM) and Cho et al. 2014 (GRU). With x the source and y the target:

    h_j = RNN(E x_j, h_{j-1})            the encoder, in both directions
    s_0 = tanh(W h_final + b)            the bridge
    s_i = RNN(E' y_{i-1}, s_{i-1})       the decoder
    p(y_i | y_<i, x) = softmax(W_o s_i)
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from s2s_helpers.data import Batch
from s2s_helpers.models.interface import (
    Features,
    Memory,
    Seq2SeqModel,
    State,
    check_ids,
    check_target,
    embedding_table,
)

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


def make_rnn(
    cell: str, inputs: int, hidden: int, layers: int, dropout: float, **options: Any
) -> nn.RNNBase:
    """torch's own LSTM or GRU, batch first, with dropout between its layers."""
    if cell not in CELLS:
        raise ValueError(f"cell must be one of {sorted(CELLS)}, got {cell!r}")
    between = dropout if layers > 1 else 0.0
    return CELLS[cell](inputs, hidden, layers, batch_first=True, dropout=between, **options)


def run_rnn(rnn: nn.Module, inputs: Tensor, hidden: tuple) -> tuple[Tensor, tuple]:
    """Run an RNN on inputs (batch, time, width) from states (batch, layers, hidden).

    torch wants its states layers first; here rows come first everywhere, so that `select` works.
    """
    first = tuple(h.transpose(0, 1).contiguous() for h in hidden)  # (layers, batch, hidden)
    outputs, last = rnn(inputs, first if len(first) == 2 else first[0])  # (batch, time, hidden)
    last = last if isinstance(last, tuple) else (last,)
    return outputs, tuple(h.transpose(0, 1) for h in last)  # (batch, layers, hidden)


class Encoder(nn.Module):
    """Reads the source. Each direction of a bidirectional encoder gets half of `hidden`."""

    def __init__(
        self, vocabulary_size: int, embedding: int = 128, hidden: int = 256, layers: int = 1,
        cell: str = "lstm", bidirectional: bool = True,
        dropout: float = 0.1,
    ):  # fmt: skip
        super().__init__()
        self.directions = 2 if bidirectional else 1
        if hidden % self.directions:
            raise ValueError(f"hidden must be even for a bidirectional encoder, got {hidden}")
        self.embedding = embedding_table(vocabulary_size, embedding)
        self.dropout = nn.Dropout(dropout)
        self.rnn = make_rnn(
            cell, embedding, hidden // self.directions, layers, dropout, bidirectional=bidirectional
        )

    def forward(self, source: Tensor, source_mask: Tensor) -> tuple[Tensor, tuple]:
        """Ids (batch, source) to states (batch, source, hidden) and the last state of every layer,
        both directions side by side: a tuple of (batch, layers, hidden), one for a GRU (h), two for
        an LSTM (h, c)."""
        if (source_mask[:, 1:] & ~source_mask[:, :-1]).any() or not source_mask[:, 0].all():
            raise ValueError("source_mask must be True on the first tokens of a row, False after")
        embedded = self.dropout(self.embedding(source))  # (batch, source, embedding)
        # Packing keeps the backward direction from reading padding before the sentence.
        packed = pack_padded_sequence(
            embedded, source_mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        outputs, last = self.rnn(packed)
        # states (batch, source, hidden)
        states, _ = pad_packed_sequence(outputs, batch_first=True, total_length=source.shape[1])
        last = last if isinstance(last, tuple) else (last,)
        return states, tuple(self._side_by_side(h) for h in last)

    def _side_by_side(self, final: Tensor) -> Tensor:
        _, batch, width = final.shape  # (layers x directions, batch, width)
        final = final.view(-1, self.directions, batch, width)  # (layers, directions, batch, width)
        final = final.permute(2, 0, 1, 3)  # (batch, layers, directions, width)
        return final.reshape(batch, -1, self.directions * width)  # (batch, layers, hidden)


class Bridge(nn.Module):
    """From the encoder's last states to the decoder's first: s_0 = tanh(W h + b), with a W for
    every layer, and for an LSTM one for h and one for c. Each W sees both directions."""

    def __init__(self, hidden: int, layers: int, cell: str):
        super().__init__()
        parts = 2 if cell == "lstm" else 1
        self.linear = nn.ModuleList(
            nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers)) for _ in range(parts)
        )

    def forward(self, final: tuple) -> tuple:
        """A tuple of (batch, layers, hidden) to a tuple of the same shapes."""
        return tuple(
            torch.stack([w(h[:, layer]) for layer, w in enumerate(layers.children())], dim=1).tanh()
            for layers, h in zip(self.linear, final, strict=True)
        )


class Decoder(nn.Module):
    """Writes the target from the bridge's state and the tokens so far."""

    def __init__(
        self,
        vocabulary_size: int,
        embedding: int = 128,
        hidden: int = 256,
        layers: int = 1,
        cell: str = "lstm",
        dropout: float = 0.1,
    ):
        super().__init__()
        self.embedding = embedding_table(vocabulary_size, embedding)
        self.dropout = nn.Dropout(dropout)
        self.rnn = make_rnn(cell, embedding, hidden, layers, dropout)
        self.output = nn.Linear(hidden, vocabulary_size)

    def forward(self, tokens: Tensor, hidden: tuple) -> tuple[Tensor, tuple]:
        """Ids (batch, time) and states to logits (batch, time, vocabulary) and the next states."""
        features, hidden = self.features(tokens, hidden)
        return self.output(features), hidden

    def features(self, tokens: Tensor, hidden: tuple) -> tuple[Tensor, tuple]:
        """As `forward`, but what the output layer reads, (batch, time, hidden)."""
        embedded = self.dropout(self.embedding(tokens))  # (batch, time, embedding)
        outputs, hidden = run_rnn(self.rnn, embedded, hidden)  # (batch, time, hidden)
        return self.dropout(outputs), hidden


class Seq2Seq(Seq2SeqModel):
    """Encoder, bridge, decoder, with nothing between them but the bridge's fixed-length vector.

    `hidden` is the width of the decoder's state; a bidirectional encoder splits it in two halves.
    """

    shares_memory = True

    def __init__(
        self, source_vocabulary: Any, target_vocabulary: Any, embedding: int = 128,
        hidden: int = 256, layers: int = 1,
        cell: str = "lstm", bidirectional: bool = True, dropout: float = 0.1,
    ):  # fmt: skip
        shape: dict[str, Any] = dict(
            embedding=embedding, hidden=hidden, layers=layers, cell=cell, dropout=dropout
        )
        super().__init__(source_vocabulary, target_vocabulary, bidirectional=bidirectional, **shape)
        self.encoder = Encoder(len(source_vocabulary), bidirectional=bidirectional, **shape)
        self.bridge = Bridge(hidden, layers, cell)
        self.decoder = Decoder(len(target_vocabulary), **shape)

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        check_ids(source, self.source_vocabulary, self.max_positions, "source")
        states, final = self.encoder(source, source_mask)
        return Memory(mask=source_mask, states=states, start=self.bridge(final))

    def start(self, memory: Memory) -> State:
        return State(hidden=memory.start)

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, None]:
        logits, hidden = self.decoder(tokens[:, None], state.hidden)  # (lines, 1, vocabulary)
        return logits[:, 0], State(hidden=hidden, position=state.position + 1), None

    def features(self, batch: Batch) -> Features:
        check_target(self, batch)
        memory = self.encode(batch.source, batch.source_mask)
        features, _ = self.decoder.features(batch.target_input, memory.start)  # all in one call
        return Features(features, self.decoder.output, None)
