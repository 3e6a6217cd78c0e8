"""Attention for recurrent decoders: look at the source again for every word.

Bahdanau, Cho and Bengio 2015 (additive, before the RNN) and Luong, Pham and Manning 2015
(multiplicative, after the RNN). Both score the query against every source state, turn the scores
into weights that sum to 1 over the real tokens, and take the weighted mean of the states:

    alpha_ij = softmax_j( score(query_i, h_j) )        c_i = sum_j alpha_ij h_j
"""

from typing import Any

import torch
from torch import Tensor, nn

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
from s2s_helpers.models.rnn import Bridge, Encoder, make_rnn, run_rnn


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension, with weight exactly 0 where `mask` is False.

    `mask` broadcasts against `scores`; each row of it needs at least one True. It may also be
    numbers that are added to the scores, -inf for weight 0.
    """
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return (scores + mask.to(scores.dtype)).softmax(dim=-1)


class BahdanauAttention(nn.Module):
    """Additive attention (Bahdanau et al. 2015, section 3.1 and appendix A.1.2):

    e_ij = v^T tanh(W s_{i-1} + U h_j)
    """

    def __init__(self, query_width: int, state_width: int, width: int):
        super().__init__()
        self.query = nn.Linear(query_width, width)  # W
        self.key = nn.Linear(state_width, width, bias=False)  # U
        self.energy = nn.Linear(width, 1, bias=False)  # v

    def keys(self, states: Tensor) -> Tensor:
        """U h_j for every source state, (batch, source, width): computed once per sentence."""
        return self.key(states)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Queries (batch, target, query width) to energies e, (batch, target, source)."""
        summed = self.query(query)[:, :, None] + keys[:, None]  # (batch, target, source, width)
        return self.energy(torch.tanh(summed)).squeeze(-1)

    def forward(
        self, query: Tensor, keys: Tensor, states: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the context (batch, target, state width) and weights (batch, target, source)."""
        weights = masked_softmax(self.scores(query, keys), mask[:, None])  # (batch, target, source)
        return weights @ states, weights


class LuongAttention(nn.Module):
    """Multiplicative attention (Luong et al. 2015, section 3.1), with h_t the decoder's state:

    dot: h_t^T h_s      general: h_t^T W h_s      concat: v^T tanh(W [h_t; h_s])
    """

    SCORES = ("dot", "general", "concat")

    def __init__(self, query_width: int, state_width: int, score: str = "general"):
        super().__init__()
        if score not in self.SCORES:
            raise ValueError(f"score must be one of {self.SCORES}, got {score!r}")
        if score == "dot" and query_width != state_width:
            raise ValueError(
                f"the dot score needs equal widths, got query {query_width} and state {state_width}"
            )
        self.score = score
        if score == "general":
            self.key = nn.Linear(state_width, query_width, bias=False)
        if score == "concat":  # W [h_t; h_s] = W_query h_t + W_key h_s: the keys still come first
            self.query = nn.Linear(query_width, query_width, bias=False)
            self.key = nn.Linear(state_width, query_width, bias=False)
            self.energy = nn.Linear(query_width, 1, bias=False)

    def keys(self, states: Tensor) -> Tensor:
        """The part of the score that needs only the source, (batch, source, query width)."""
        return states if self.score == "dot" else self.key(states)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Queries (batch, target, query width) to scores (batch, target, source)."""
        if self.score == "concat":
            summed = self.query(query)[:, :, None] + keys[:, None]  # (batch, target, source, width)
            return self.energy(torch.tanh(summed)).squeeze(-1)
        return query @ keys.transpose(1, 2)  # (batch, target, source)

    def forward(
        self, query: Tensor, keys: Tensor, states: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the context (batch, target, state width) and weights (batch, target, source)."""
        weights = masked_softmax(self.scores(query, keys), mask[:, None])  # (batch, target, source)
        return weights @ states, weights


class AttentionDecoder(nn.Module):
    """A recurrent decoder that attends, in Bahdanau's order or in Luong's.

    bahdanau: c_i from s_{i-1};  s_i = RNN([E y_{i-1}; c_i], s_{i-1});
              t_i = tanh(W_t [s_i; c_i; E y_{i-1}]) (the paper has a maxout here, appendix A.2.2)
    luong:    h_t = RNN([E y_{t-1}; ~h_{t-1}], h_{t-1});  c_t from h_t;
              ~h_t = tanh(W_c [c_t; h_t])

    Luong's `~h_{t-1}` as an input is input feeding (section 3.3). Without it no input waits for an
    earlier step's attention, so a known target runs through the whole decoder in one call.
    """

    STYLES = ("bahdanau", "luong")

    def __init__(
        self, vocabulary_size: int, attention: str = "bahdanau", score: str = "general",
        input_feeding: bool = True,
        embedding: int = 128, hidden: int = 256, layers: int = 1, cell: str = "lstm",
        dropout: float = 0.1,
    ):  # fmt: skip
        super().__init__()
        if attention not in self.STYLES:
            raise ValueError(f"attention must be one of {self.STYLES}, got {attention!r}")
        self.style, self.input_feeding = attention, input_feeding
        self.embedding = embedding_table(vocabulary_size, embedding)
        self.dropout = nn.Dropout(dropout)
        self.attention: BahdanauAttention | LuongAttention
        if attention == "bahdanau":
            self.attention = BahdanauAttention(hidden, hidden, hidden)
            inputs, readout = embedding + hidden, hidden + hidden + embedding
        else:
            self.attention = LuongAttention(hidden, hidden, score)
            inputs, readout = embedding + (hidden if input_feeding else 0), hidden + hidden
        self.rnn = make_rnn(cell, inputs, hidden, layers, dropout)
        self.readout = nn.Linear(readout, hidden)
        self.output = nn.Linear(hidden, vocabulary_size)

    def forward(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        """Ids (batch, time) to logits (batch, time, vocabulary), the next state, and weights
        (batch, time, source)."""
        features, state, weights = self.features(tokens, state, memory)
        return self.output(features), state, weights

    def features(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, State, Tensor]:
        """As `forward`, but what the output layer reads, (batch, time, hidden)."""
        embedded = self.dropout(self.embedding(tokens))  # (batch, time, embedding)
        if self.style == "bahdanau":
            features, state, weights = self._bahdanau(embedded, state, memory)
        elif self.input_feeding:
            features, state, weights = self._luong_fed(embedded, state, memory)
        else:
            features, state, weights = self._luong(embedded, state, memory)
        return self.dropout(features), state, weights

    def _attend(self, query: Tensor, memory: Memory):
        # The lines of a sentence share its memory: (lines, time) to (sentences, lines x time).
        shared = query.reshape(len(memory.mask), -1, query.shape[-1])
        found = self.attention(shared, memory.keys, memory.states, memory.mask)
        return tuple(x.reshape(*query.shape[:2], -1) for x in found)  # (lines, time, ...)

    def _bahdanau(self, embedded: Tensor, state: State, memory: Memory):
        hidden, outputs, contexts, weights = state.hidden, [], [], []
        for inputs in embedded.split(1, dim=1):
            query = hidden[0][:, -1:]  # s_{i-1} of the top layer, (batch, 1, hidden)
            context, weight = self._attend(query, memory)  # (batch, 1, hidden), (batch, 1, source)
            inputs = torch.cat([inputs, context], dim=-1)  # (batch, 1, embedding + hidden)
            output, hidden = run_rnn(self.rnn, inputs, hidden)  # (batch, 1, hidden)
            outputs.append(output)
            contexts.append(context)
            weights.append(weight)
        # The readout waits for nothing, so it is made for all positions at once.
        read = [torch.cat(outputs, dim=1), torch.cat(contexts, dim=1), embedded]
        read = torch.cat(read, dim=-1)  # (batch, time, hidden + hidden + embedding)
        state = State(hidden=hidden, position=state.position + embedded.shape[1])
        return torch.tanh(self.readout(read)), state, torch.cat(weights, dim=1)

    def _luong(self, inputs: Tensor, state: State, memory: Memory):
        outputs, hidden = run_rnn(self.rnn, inputs, state.hidden)  # (batch, time, hidden)
        context, weights = self._attend(outputs, memory)  # (batch, time, hidden or source)
        features = torch.tanh(self.readout(torch.cat([context, outputs], dim=-1)))  # ~h_t
        position = state.position + inputs.shape[1]
        return features, State(hidden, context=features[:, -1], position=position), weights

    def _luong_fed(self, embedded: Tensor, state: State, memory: Memory):
        features, weights = [], []
        for inputs in embedded.split(1, dim=1):
            fed = torch.cat([inputs, state.context[:, None]], dim=-1)  # (batch, 1, both)
            feature, state, weight = self._luong(fed, state, memory)
            features.append(feature)
            weights.append(weight)
        return torch.cat(features, dim=1), state, torch.cat(weights, dim=1)


class AttentionSeq2Seq(Seq2SeqModel):
    """Bidirectional encoder, bridge, and a decoder with Bahdanau's or Luong's attention.

    `score` ("dot", "general", "concat") and `input_feeding` belong to Luong's attention.
    """

    shares_memory = True

    def __init__(
        self, source_vocabulary: Any, target_vocabulary: Any, attention: str = "bahdanau",
        score: str = "general",
        input_feeding: bool = True, embedding: int = 128, hidden: int = 256, layers: int = 1,
        cell: str = "lstm", bidirectional: bool = True,
        dropout: float = 0.1,
    ):  # fmt: skip
        shape: dict[str, Any] = dict(
            embedding=embedding, hidden=hidden, layers=layers, cell=cell, dropout=dropout
        )
        how: dict[str, Any] = dict(attention=attention, score=score, input_feeding=input_feeding)
        super().__init__(
            source_vocabulary, target_vocabulary, bidirectional=bidirectional, **how, **shape
        )
        self.encoder = Encoder(len(source_vocabulary), bidirectional=bidirectional, **shape)
        self.bridge = Bridge(hidden, layers, cell)
        self.decoder = AttentionDecoder(len(target_vocabulary), **how, **shape)

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        check_ids(source, self.source_vocabulary, self.max_positions, "source")
        states, final = self.encoder(source, source_mask)  # (batch, source, hidden)
        keys = self.decoder.attention.keys(states)  # (batch, source, width)
        return Memory(mask=source_mask, states=states, start=self.bridge(final), keys=keys)

    def start(self, memory: Memory) -> State:
        fed = torch.zeros_like(memory.states[:, 0])  # no attentional vector before the first word
        return State(hidden=memory.start, context=fed)

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        logits, state, weights = self.decoder(tokens[:, None], state, memory)
        return logits[:, 0], state, weights[:, 0]

    def features(self, batch: Batch) -> Features:
        check_target(self, batch)
        memory = self.encode(batch.source, batch.source_mask)
        start = self.start(memory)
        features, _, weights = self.decoder.features(batch.target_input, start, memory)
        return Features(features, self.decoder.output, weights)
