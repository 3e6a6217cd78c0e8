"""The pointer-generator: write a word of the vocabulary, or copy one of the source.

See, Liu and Manning 2017, sections 2.2 and 2.3. With a the attention, h* the context, s the
decoder's state, x the embedded word before it, c the coverage:

    p_gen  = sigmoid(w_h* h* + w_s s + w_x x + b)                      (8)
    P(w)   = p_gen P_vocab(w) + (1 - p_gen) sum_{i: w_i = w} a_i       (9)
    c_t    = sum_{t' < t} a_t'                                         (10)
    e_ti   = v^T tanh(W_h h_i + W_s s_t + w_c c_ti)                    (11)
    loss_t = -log P(w_t) + lambda sum_i min(a_ti, c_ti)                (12, 13)
"""

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s_helpers.data import Batch, Seq2SeqDataset, texts_of
from s2s_helpers.models.attention import AttentionDecoder
from s2s_helpers.models.interface import (
    Memory,
    Seq2SeqModel,
    State,
    check_ids,
    check_target,
    unroll,
)
from s2s_helpers.models.rnn import Bridge, Encoder, run_rnn
from s2s_helpers.vocabulary import EOS, SPECIALS, UNK, Vocabulary


class CopyVocabulary(Vocabulary):
    """A vocabulary with `slots` more ids, which stand for the unknown words of one source text.

    The first unknown word of a text has the id `fixed`, the next `fixed` + 1, and so on: the
    extended vocabulary of See et al. 2017, section 2.2. Words beyond the last slot stay UNK.
    """

    def __init__(
        self, tokens: Iterable[str], level: str = "word", lowercase: bool | None = None,
        language: str | None = None, slots: int = 30,
    ):  # fmt: skip
        super().__init__(tokens, level, lowercase, language)
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        self.fixed, self.slots = len(self._tokens), slots
        self._tokens += [f"<copy {n}>" for n in range(slots)]  # not in the index: no text has them

    def slots_of(self, source: str) -> dict[str, int]:
        """The unknown words of a text, each with its id, in the order in which they appear."""
        words = dict.fromkeys(token for token in self.tokenize(source) if token not in self)
        return {word: self.fixed + n for n, word in enumerate(list(words)[: self.slots])}

    def encode_beside(self, text: str, source: str) -> list[int]:
        """The ids of a text where `source` says what the slots stand for; they end with EOS."""
        slots = self.slots_of(source)
        ids = (self._id(t) if t in self else slots.get(t, UNK) for t in self.tokenize(text))
        return [*ids, EOS]

    def decode(self, ids: Iterable[int], source: str | None = None) -> str:
        """As of any vocabulary; with `source`, the slots are the words of it they stand for."""
        return super().decode(ids) if source is None else self._of(source).decode(ids)

    def tokens(self, ids: Iterable[int], source: str | None = None) -> list[str]:
        """As of any vocabulary; with `source`, the slots are the words of it they stand for."""
        return super().tokens(ids) if source is None else self._of(source).tokens(ids)

    def to_dict(self) -> dict[str, Any]:
        tokens = self._tokens[len(SPECIALS) : self.fixed]
        return super().to_dict() | {"tokens": tokens, "slots": self.slots}

    def _of(self, source: str) -> "CopyVocabulary":
        named, words = copy.copy(self), list(self.slots_of(source))
        rest = self._tokens[self.fixed + len(words) :]
        named._tokens = [*self._tokens[: self.fixed], *words, *rest]
        return named

    def _ids(self, text: str) -> list[int]:
        return self.encode_beside(text, text)[:-1]


class CopyDataset(Seq2SeqDataset):
    """A `Seq2SeqDataset` whose targets name the source's unknown words by their slots."""

    def _encode(self, index: int, pair: Any) -> tuple[list[int], list[int]]:
        source, _ = super()._encode(index, pair)
        texts = texts_of(pair, index)
        words: Any = self.target_vocabulary  # a CopyVocabulary
        ids = words.encode_beside(texts[1], texts[0])
        # A word that was cut off with the end of the source cannot be copied.
        known = {*range(words.fixed), *source}
        return source, self._cut([i if i in known else UNK for i in ids])


class Mixture(NamedTuple):
    """How every word was made: log P (batch, target, vocabulary with slots), attention (batch,
    target, source), p_gen, and sum_i min(a_i, c_i), which is the overlap, (batch, target)."""

    log_p: Tensor
    attention: Tensor
    p_gen: Tensor
    overlap: Tensor


class PointerGenerator(Seq2SeqModel):
    """`AttentionSeq2Seq` with the concat score and no input feeding, that may also copy. With
    `coverage`, the attention is told where it has looked.

    Source and target share one vocabulary of words, which becomes a `CopyVocabulary` of `slots`
    slots if it is not one. The logits are log P of the mixture, and their softmax is P again.
    Raises ValueError for two vocabularies, or one of subwords.
    """

    def __init__(
        self, source_vocabulary: Vocabulary, target_vocabulary: Vocabulary, coverage: bool = False,
        slots: int = 30, score: str = "concat", embedding: int = 128, hidden: int = 256,
        cell: str = "lstm", dropout: float = 0.1,
    ):  # fmt: skip
        words = source_vocabulary
        if words != target_vocabulary:
            raise ValueError("copied words need one vocabulary, for source and target alike")
        if not isinstance(words, Vocabulary):
            raise ValueError(
                f"copied words need a word vocabulary, not a {type(words).__name__}: subwords can "
                "spell every word, so there is nothing to copy"
            )
        if not isinstance(words, CopyVocabulary):
            tokens = words.to_dict()["tokens"]
            words = CopyVocabulary(tokens, words.level, words.lowercase, words.language, slots)
        shape: dict[str, Any] = dict(embedding=embedding, hidden=hidden, cell=cell, dropout=dropout)
        how = dict(coverage=coverage, slots=words.slots, score=score)
        super().__init__(words, words, **how, **shape)
        self.coverage = coverage
        self.encoder = Encoder(words.fixed, **shape)
        self.bridge = Bridge(hidden, 1, cell)
        self.decoder = AttentionDecoder(words.fixed, "luong", score, False, **shape)
        self.pointer = nn.Linear(hidden + hidden + embedding, 1)  # w_h*, w_s, w_x and b
        self.cover = nn.Linear(1, hidden, bias=False)  # w_c
        nn.init.zeros_(self.cover.weight)  # who goes on with coverage goes on from where it was

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        """As every model's; the memory's `keys` hold the source's ids, slots among them, too."""
        check_ids(source, self.source_vocabulary, self.max_positions, "source")
        states, final = self.encoder(self._known(source), source_mask)
        keys = self.decoder.attention.keys(states)
        return Memory(source_mask, states, self.bridge(final), (keys, source))

    def start(self, memory: Memory) -> State:
        """The state's `context` is the coverage, (lines, source): nothing at first."""
        return State(memory.start, context=torch.zeros_like(memory.states[:, :, 0]))

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        mixture, state = self._mix(tokens[:, None], state, memory)
        return mixture.log_p[:, 0], state, mixture.attention[:, 0]

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.training and self.teacher_forcing < 1:
            return unroll(self, batch, self.teacher_forcing)
        mixture = self.mixture(batch)
        return mixture.log_p, mixture.attention

    def mixture(self, batch: Batch) -> Mixture:
        """How every word of the batch's targets is made, with the gold words as input."""
        check_target(self, batch)
        memory = self.encode(batch.source, batch.source_mask)
        return self._mix(batch.target_input, self.start(memory), memory)[0]

    def _known(self, ids: Tensor) -> Tensor:
        return ids.masked_fill(ids >= self.source_vocabulary.fixed, UNK)

    def _mix(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Mixture, State]:
        """Read ids (lines, time); what follows each, and the state after the last."""
        decoder = self.decoder
        x = decoder.dropout(decoder.embedding(self._known(tokens)))  # (lines, time, embedding)
        s, hidden = run_rnn(decoder.rnn, x, state.hidden)  # (lines, time, hidden)
        context, attention, covered = self._attend(s, state.context, memory)
        features = torch.tanh(decoder.readout(torch.cat([context, s], dim=-1)))
        p_vocab = decoder.output(decoder.dropout(features)).softmax(dim=-1)  # (lines, time, fixed)
        p_gen = torch.sigmoid(self.pointer(torch.cat([context, s, x], dim=-1)))  # (lines, time, 1)
        p = F.pad(p_gen * p_vocab, (0, self.source_vocabulary.slots))  # (lines, time, vocabulary)
        where = memory.keys[1][:, None].expand_as(attention)  # (lines, time, source)
        p = p.scatter_add_(-1, where, (1 - p_gen) * attention)  # (9)
        overlap = overlap_of(attention, state.context)
        state = State(hidden, covered, position=state.position + tokens.shape[1])
        # A word that stands nowhere has P = 0, and -inf would spoil the mean of a loss.
        return Mixture(p.add_(1e-10).log(), attention, p_gen.squeeze(-1), overlap), state

    def _attend(self, queries: Tensor, covered: Tensor, memory: Memory) -> tuple[Tensor, ...]:
        """Contexts (lines, time, hidden) and attention (lines, time, source) for the queries, and
        the coverage (lines, source) after the last."""
        found, keys = [], memory.keys[0]
        # Only with coverage does a query wait for the one before.
        for query in queries.split(1 if self.coverage else queries.shape[1], dim=1):
            if self.coverage:
                keys = memory.keys[0] + self.cover(covered[..., None])  # (11)
            found.append(self.decoder.attention(query, keys, memory.states, memory.mask))
            covered = covered + found[-1][1].sum(dim=1)  # (10)
        return *(torch.cat(parts, dim=1) for parts in zip(*found, strict=True)), covered


def overlap_of(attention: Tensor, covered: Tensor | float = 0.0) -> Tensor:
    """sum_i min(a_ti, c_ti) (batch, target), of attention (batch, target, source) to a source that
    was `covered` (batch, source) before."""
    covered = covered[:, None] if isinstance(covered, Tensor) else covered
    before = covered + attention.cumsum(dim=1) - attention  # (batch, target, source)
    return torch.minimum(attention, before).sum(dim=-1)  # (batch, target)


class CoverageLoss(nn.Module):
    """Equation 13: -log P of every real token plus `weight` (lambda) times the overlap of what the
    model attends to with what it has attended to before."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def of_batch(self, model: PointerGenerator, batch: Batch) -> tuple[Tensor, int, Tensor]:
        """The sum over the batch's real tokens, how many these are, and the logits."""
        log_p, attention = model(batch)  # (batch, target, vocabulary), (batch, target, source)
        real = batch.target_mask  # (batch, target)
        surprise = -log_p.gather(-1, batch.target_output[..., None]).squeeze(-1)
        total = (surprise + self.weight * overlap_of(attention))[real].float().sum()
        return total, int(real.sum()), log_p
