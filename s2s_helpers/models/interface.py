"""The four methods of every model: encode, start, step, forward.

Whoever writes a model of these methods has training, greedy decoding, beam search, translation,
metrics and plots at once. `forward` and `step` must give the same logits; `tests/models` holds
every model to that.

A `Memory` has a row for each sentence, a `State` for each line that is being written. In a beam
search several neighbouring lines belong to one sentence and may share its row of the memory.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from s2s_helpers.data import Batch
from s2s_helpers.files import plain
from s2s_helpers.models.cache import Cache


def select_rows(value: Any, rows: Tensor) -> Any:
    """Rows of a tensor, or of each tensor in a tuple; anything else is shared by all rows."""
    if isinstance(value, Tensor):
        return value.index_select(0, rows)
    if isinstance(value, tuple):
        return tuple(select_rows(item, rows) for item in value)
    return value


@dataclass
class Memory:
    """All that decoding needs of the source, computed once per sentence.

    mask: (batch, source), True where a real token stands. states: (batch, source, hidden).
    start: the decoder's first hidden states, each (batch, layers, hidden).
    keys: what attention compares its query with, projected once.
    """

    mask: Tensor
    states: Tensor
    start: tuple = ()
    keys: Tensor | tuple | None = None

    def select(self, rows: Tensor) -> "Memory":
        """The memory of the sentences with these numbers, in this order; one may repeat."""
        chosen = {f.name: select_rows(getattr(self, f.name), rows) for f in fields(self)}
        return replace(self, **chosen)


@dataclass
class State:
    """Where the decoder stands after some target tokens. It is a value: whatever is done with it,
    it can be continued again.

    hidden: an RNN's states, each (lines, layers, hidden). context: the attentional vector that
    input feeding hands on, (lines, hidden). cache: a transformer's keys and values of the tokens so
    far (`models/cache.py`). position: tokens read so far.
    """

    hidden: tuple = ()
    context: Tensor | None = None
    cache: Cache | None = None
    position: int = 0

    def select(self, lines: Tensor, beams: int = 1) -> "State":
        """The state of the lines with these numbers, in this order; one may repeat.

        Each `beams` neighbours of the result share a row of the memory, so they must come from
        lines of one sentence; with 1, every line needs a row of its own (`Memory.select`).
        """
        cache = None if self.cache is None else self.cache.select(lines, beams)
        hidden, context = select_rows((self.hidden, self.context), lines)
        return State(hidden, context, cache, self.position)


class Features(NamedTuple):
    """What the last layer reads, and that layer: logits = layer(values).

    values: (batch, target, width). attention: as `forward` gives it.
    """

    values: Tensor
    layer: nn.Linear
    attention: Tensor | None


class Seq2SeqModel(nn.Module):
    """What the models share: their vocabularies, and `forward` over the other three methods.

    `settings` are the keyword arguments a model was built with, plain values, so that a saved model
    can be built again. Three members are optional:

    features(batch): `forward` without its last layer, a `Features`; so that the loss need not hold
    all logits at once. Not defined here: a model that has it promises that its forward is that.
    shares_memory: whether `step` knows neighbouring lines that share a row of the memory; so that a
    beam search need not copy what was computed of the source.
    teacher_forcing: the probability that the decoder reads the gold token and not its own (Bengio
    et al. 2015, section 2.4), in training mode only; so that training can change it step by step.
    """

    max_positions: int | None = None  # longest source or target the model can place; None: any
    shares_memory: bool = False
    teacher_forcing: float = 1.0

    def __init__(
        self, source_vocabulary: Any = None, target_vocabulary: Any = None, **settings: Any
    ):
        super().__init__()
        self.source_vocabulary = source_vocabulary
        self.target_vocabulary = target_vocabulary
        self.settings = plain(settings)

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        """Ids (batch, source) and their mask, True at real tokens, to a `Memory`."""
        raise NotImplementedError

    def start(self, memory: Memory) -> State:
        """The `State` before the first target token."""
        raise NotImplementedError

    def step(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, State, Tensor | None]:
        """Read one token a line, (lines,). The memory has a row for each line, or where the model
        `shares_memory` one for each so many neighbours.

        Returns logits for the next token (lines, vocabulary), the next `State`, and attention
        (lines, source) or (lines, layers, heads, source) or None.
        """
        raise NotImplementedError

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits (batch, target, vocabulary) and attention, (batch, target, source) or (batch,
        layers, heads, target, source) or None, for every position of `batch.target`.

        Raises ValueError for ids outside the vocabulary or sequences longer than the model's
        positions.
        """
        forcing = self.teacher_forcing if self.training else 1.0
        if forcing < 1 or not hasattr(self, "features"):
            return unroll(self, batch, forcing)
        values, layer, attention = self.features(batch)
        return layer(values), attention


def unroll(
    model: Seq2SeqModel, batch: Batch, teacher_forcing: float = 1.0
) -> tuple[Tensor, Tensor | None]:
    """`forward` by `step`: each gold token is read with probability `teacher_forcing`, the model's
    own best guess otherwise (a coin for every token, Bengio et al. 2015)."""
    check_target(model, batch)
    memory = model.encode(batch.source, batch.source_mask)
    state, gold = model.start(memory), batch.target_input
    tokens, all_logits, all_attention = gold[:, 0], [], []
    for position in range(gold.shape[1]):
        logits, state, attention = model.step(tokens, state, memory)  # (batch, vocabulary)
        all_logits.append(logits)
        all_attention.append(attention)
        if position + 1 < gold.shape[1]:
            tokens = gold[:, position + 1]
            if teacher_forcing < 1:
                keep = torch.rand(tokens.shape, device=tokens.device) < teacher_forcing  # (batch,)
                tokens = torch.where(keep, tokens, logits.detach().argmax(-1))
    attention = None if all_attention[0] is None else torch.stack(all_attention, dim=-2)
    return torch.stack(all_logits, dim=1), attention  # (batch, target, vocabulary)


def check_target(model: Seq2SeqModel, batch: Batch) -> None:
    """Raise ValueError where the model cannot read the batch's targets; `encode` checks sources.

    The decoder reads SOS and all but the last id, so a target of `max_positions` ids fits.
    """
    check_ids(batch.target, model.target_vocabulary, None, "target")
    check_ids(batch.target_input, model.target_vocabulary, model.max_positions, "target")


def check_ids(ids: Tensor, vocabulary: Any, max_positions: int | None, what: str) -> None:
    """Raise ValueError where ids lie outside the vocabulary or a row is too long for the model."""
    if ids.dim() != 2 or ids.numel() == 0:
        raise ValueError(
            f"{what} ids must be (batch, {what}) and not empty, got {tuple(ids.shape)}"
        )
    low, high = (int(x) for x in torch.aminmax(ids))
    if low < 0 or high >= len(vocabulary):
        raise ValueError(
            f"{what} id {low if low < 0 else high} is outside the {what} vocabulary: "
            f"ids run from 0 to {len(vocabulary) - 1}"
        )
    if max_positions is not None and ids.shape[1] > max_positions:
        raise ValueError(
            f"{what} has {ids.shape[1]} tokens, but the model has only {max_positions} positions: "
            f"shorten the text or build the model with max_positions={ids.shape[1]}"
        )


def embedding_table(size: int, width: int) -> nn.Embedding:
    """An embedding with rows of about unit length. PAD's row is zero at first, and gets no gradient
    from being read; a layer of logits that shares the table (tied embeddings) moves it. No model
    hears of it: what stands on padding is masked."""
    table = nn.Embedding(size, width, padding_idx=0)
    nn.init.normal_(table.weight, std=width**-0.5)
    with torch.no_grad():
        table.weight[0].zero_()
    return table
