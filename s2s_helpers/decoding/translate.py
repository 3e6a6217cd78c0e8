"""Texts in, texts out."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from s2s_helpers.data import collate
from s2s_helpers.decoding.search import LINES, TOKENS, Hypothesis, beam_search, greedy_decode
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.text import each_of


@dataclass
class Translation:
    """A translated sentence: text, score (see `Hypothesis`), and who looked where.

    finished: False where max_length, or the model's positions, cut it off before its end.
    source_tokens and tokens are what the model read and wrote, "<eos>" included. attention is
    (target, source), or (layers, heads, target, source) for a transformer, or None.
    """

    text: str
    score: float
    source_tokens: list[str]
    tokens: list[str]
    attention: Tensor | None = None
    finished: bool = True

    def attention_matrix(self) -> Tensor:
        """Attention (target, source): for a transformer the mean over its layers and heads."""
        if self.attention is None:
            raise ValueError("this model has no attention to show")
        return self.attention if self.attention.dim() == 2 else self.attention.mean(dim=(0, 1))


def translate(
    model: Any, texts: Sequence[str], beam_size: int = 1, length_penalty: float = 0.6,
    search: Callable | None = None, n_best: int | None = None, batch_size: int | None = None,
    max_length: int | None = None, attention: bool = True,
) -> list:  # fmt: skip
    """Translate texts, in their order, with the model's own vocabularies.

    beam_size 1 is greedy decoding. Any other `search` is a function (model, source, source_mask,
    max_length=..., attention=...) to a hypothesis for each row, or a list of them, such as
    functools.partial(sample, top_p=0.9). One that has a parameter `rows` gets the texts' numbers.

    Returns a `Translation` for each text, or with `n_best` a list of at most so many, the best
    score first. Texts are sorted by length, so that batches hold little padding; a batch has at
    most `batch_size` lines (default: 256 / beam_size), and fewer of long ones, so that memory does
    not grow with them. `attention=False` spares the weights.

    Raises TypeError for a single string, a dict or a table; ValueError for settings that do not
    fit, and, naming which, for a text that is empty, as one of invisible characters is too (see
    `text.normalise`), or longer than the model's positions.
    """
    if beam_size < 1 or (n_best is not None and n_best < 1):
        raise ValueError(f"these must be at least 1: {beam_size=}, {n_best=}")
    if search is not None and beam_size != 1:
        raise ValueError("a search of its own has no use for beam_size: give one of the two")
    if search is None:
        search = chosen_search(model, beam_size, length_penalty, n_best)
    batch_size = max(LINES // beam_size, 1) if batch_size is None else batch_size
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    texts = list(each_of(texts, "texts"))
    encoded = [encode_source(model, text, f"sentence {at}") for at, text in enumerate(texts)]
    results: list = [None] * len(encoded)
    decoded = decode(model, encoded, search, batch_size, max_length, attention)
    for number, found in decoded:
        several = sorted(found, key=lambda hypothesis: -hypothesis.score)[: n_best or 1]
        done = [as_translation(model, texts[number], encoded[number], h) for h in several]
        results[number] = done[0] if n_best is None else done
    return results


def chosen_search(
    model: Any, beam_size: int, length_penalty: float, n_best: int | None = None
) -> Callable:
    """The search that these settings of `translate` stand for: the model's own, if it has one."""
    if hasattr(model, "own_search"):
        return model.own_search(beam_size, length_penalty, n_best)
    if beam_size == 1 and n_best in (None, 1):
        return greedy_decode
    several = n_best or 1
    return partial(beam_search, beam_size=beam_size, length_penalty=length_penalty, n_best=several)


def decode(
    model: Any, encoded: Sequence[list[int]], search: Callable, batch_size: int = LINES,
    max_length: int | None = None, attention: bool = False, first: int = 0,
) -> Iterator[tuple[int, list[Hypothesis]]]:  # fmt: skip
    """The place of each source, given as ids, and what was found for it, by length. `first` is the
    number of the first for a search that wants to know the `rows`."""
    wants_rows = "rows" in inspect.signature(search).parameters
    device = next(model.parameters(), torch.empty(0)).device
    with torch.inference_mode():
        view = prepacked(model)
    for places in batches_of([len(ids) for ids in encoded], batch_size):
        batch = collate([(encoded[place], None) for place in places]).to(device)
        numbers = dict(rows=[first + place for place in places]) if wants_rows else {}
        options = dict(max_length=max_length, attention=attention, **numbers)
        with torch.no_grad():
            found = search(view, batch.source, batch.source_mask, **options)
        for place, one in zip(places, found, strict=True):
            yield place, one if isinstance(one, list) else [one]


def batches_of(lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """The places of so many lengths, the short ones first: at most `batch_size` of them together,
    and no more than, padded, have room where that many of `TOKENS` have."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = (len(batch) + 1) * lengths[place] > batch_size * TOKENS
        if batch and (full or len(batch) == batch_size):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def encode_source(model: Any, text: str, name: str = "the text") -> list[int]:
    """The ids of a text. Raises ValueError that says which, by `name`, where it is no text, empty,
    or longer than the model's positions."""
    try:
        ids = model.source_vocabulary.encode(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{name}, {text!r}: {error}") from None
    if model.max_positions is not None and len(ids) > model.max_positions:
        raise ValueError(
            f"{name} has {len(ids)} tokens, but the model has only {model.max_positions} positions"
        )
    return ids


def as_translation(
    model: Any, text: str, source_ids: list[int], hypothesis: Hypothesis
) -> Translation:
    """A hypothesis as text and tokens; a vocabulary that copies finds the words in `text`."""
    return Translation(
        text=model.target_vocabulary.decode(hypothesis.ids, source=text),
        score=hypothesis.score,
        source_tokens=model.source_vocabulary.tokens(source_ids, source=text),
        tokens=model.target_vocabulary.tokens(hypothesis.ids, source=text),
        attention=hypothesis.attention,
        finished=hypothesis.finished,
    )
