"""The four verbs every model speaks: encode, start, step, forward.

Whoever writes a model of these verbs has greedy decoding, beam search, translation, metrics and
plots at once. `forward` and `step` must give the same logits; `tests/test_models.py` holds every
model to that.

A `Memory` has a row for each sentence, a `State` for each line that is being written. In a beam
search several neighbouring lines belong to one sentence and share its row of the memory.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from s2s_helpers.models.cache import Cache


def pick(value, rows: Tensor):
    """Rows of a tensor, or of each tensor in a tuple; anything else is shared by all rows."""
    if isinstance(value, Tensor):
        return value.index_select(0, rows)
    if isinstance(value, tuple):
        return tuple(pick(item, rows) for item in value)
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
        return replace(self, **{f.name: pick(getattr(self, f.name), rows) for f in fields(self)})


@dataclass
class State:
    """Where the decoder stands after some target tokens.

    hidden: an RNN's states, each (lines, layers, hidden). context: the attentional vector that
    input feeding hands on, (lines, hidden). cache: a transformer's keys and values of the tokens so
    far (`models/cache.py`). position: tokens seen so far.
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
        return State(pick(self.hidden, lines), pick(self.context, lines), cache, self.position)


class Seq2SeqModel(nn.Module):
    """What the models share: their vocabularies, and `forward` over the other three verbs.

    `settings` are the keyword arguments a model was built with, so that a saved model can be built
    again. `teacher_forcing` is the probability that the decoder reads the gold token and not its
    own (Bengio et al. 2015, section 2.4); it acts in training mode only. `wants_attention`: with
    False, a model may spare itself the weights and give None for them. `shares_memory`: whether
    `step` knows lines that share a row of the memory; else a beam search gives each its own.
    """

    max_positions: int | None = None  # longest sequence the model can place; None: any
    wants_attention: bool = True
    shares_memory: bool = False

    def __init__(self, source_vocabulary, target_vocabulary, **settings):
        super().__init__()
        self.source_vocabulary = source_vocabulary
        self.target_vocabulary = target_vocabulary
        self.settings = settings
        self.teacher_forcing = 1.0

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        """Ids (batch, source) and their mask to a `Memory`."""
        raise NotImplementedError

    def start(self, memory: Memory) -> State:
        """The `State` before the first target token."""
        raise NotImplementedError

    def step(self, tokens: Tensor, state: State, memory: Memory):
        """Read one token a line, (lines,). The memory has a row for each line, or where the model
        `shares_memory` one for each so many neighbours.

        Returns logits for the next token (lines, vocabulary), the next `State`, and attention
        (lines, source) or (lines, layers, heads, source) or None.
        """
        raise NotImplementedError

    def for_decoding(self, lines: int | None = None, dtype: torch.dtype | None = None):
        """What decodes in this model's place, with its present weights: itself, or a faster twin.

        Decoding asks for it with the number of lines it will write. Whoever decodes often with the
        same weights may ask once, without a number, and hand that on in the place of the model. A
        transformer's twin multiplies in `dtype` (default: float32, or what `torch.autocast` says);
        `torch.int8` is the fastest, and changes a few words.
        """
        return self

    def features(self, batch):
        """What `output_layer` makes logits of, (batch, target, width), for all positions with the
        gold tokens as input, and attention. A model that knows a faster way than `unroll` has it.

        Raises ValueError as `forward` does.
        """
        raise NotImplementedError

    @property
    def output_layer(self) -> nn.Linear | None:
        """The last layer, from features to logits, if there is such a one."""
        return None

    @property
    def forward_is_split(self) -> bool:
        """Whether `forward` is now `output_layer(features(batch))` and nothing else, so that a loss
        may take the features and make the logits piece by piece."""
        own, base = type(self), Seq2SeqModel
        return (
            own.features is not base.features
            and own.teacher_forced is base.teacher_forced  # a subclass may have its own way
            and own.forward is base.forward
            and not (self.training and self.teacher_forcing < 1)
        )

    def check_target(self, batch) -> None:
        """Raise ValueError where the model cannot read `batch.target`; `encode` does the source."""
        check_ids(batch.target, self.target_vocabulary, self.max_positions, "target")

    def teacher_forced(self, batch):
        """Logits and attention for all positions with the gold tokens as input."""
        if type(self).features is Seq2SeqModel.features:
            return self.unroll(batch)
        features, attention = self.features(batch)
        return self.output_layer(features), attention

    def forward(self, batch):
        """Logits (batch, target, vocabulary) and attention for every position of `batch.target`.

        Raises ValueError for ids outside the vocabulary or sequences longer than the model's
        positions.
        """
        if self.training and self.teacher_forcing < 1:
            return self.unroll(batch, self.teacher_forcing)
        return self.teacher_forced(batch)

    def unroll(self, batch, teacher_forcing: float = 1.0):
        """Step through the target, reading each gold token with probability `teacher_forcing` and
        the model's own best guess otherwise (a coin for every token, Bengio et al. 2015)."""
        self.check_target(batch)
        memory = self.encode(batch.source, batch.source_mask)
        state, gold = self.start(memory), batch.target_input
        tokens, all_logits, all_attention = gold[:, 0], [], []
        for position in range(gold.shape[1]):
            logits, state, attention = self.step(tokens, state, memory)
            all_logits.append(logits)
            all_attention.append(attention)
            if position + 1 < gold.shape[1]:
                tokens = gold[:, position + 1]
                if teacher_forcing < 1:
                    keep = torch.rand(tokens.shape, device=tokens.device) < teacher_forcing
                    tokens = torch.where(keep, tokens, logits.detach().argmax(-1))
        attention = None if all_attention[0] is None else torch.stack(all_attention, dim=-2)
        return torch.stack(all_logits, dim=1), attention


def check_ids(ids: Tensor, vocabulary, max_positions: int | None, what: str) -> None:
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
    """An embedding with rows of about unit length; PAD's row is zero and stays so."""
    table = nn.Embedding(size, width, padding_idx=0)
    nn.init.normal_(table.weight, std=width**-0.5)
    with torch.no_grad():
        table.weight[0].zero_()
    return table
