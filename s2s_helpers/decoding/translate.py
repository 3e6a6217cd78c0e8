"""Texts in, texts out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from s2s_helpers.data import collate
from s2s_helpers.decoding.search import Hypothesis, beam_search, greedy_decode
from s2s_helpers.models.prepacked import prepacked


@dataclass
class Translation:
    """A translated sentence: text, score (see `Hypothesis`), and who looked where.

    source_tokens and tokens are what the model read and wrote, "<eos>" included. attention is
    (target, source), or (layers, heads, target, source) for a transformer, or None.
    """

    text: str
    score: float
    source_tokens: list[str]
    tokens: list[str]
    attention: Tensor | None = None

    def attention_matrix(self) -> Tensor:
        """Attention (target, source): for a transformer the mean over its layers and heads."""
        if self.attention is None:
            raise ValueError("this model has no attention to show")
        return self.attention if self.attention.dim() == 2 else self.attention.mean(dim=(0, 1))


def translate(
    model, sentences, beam_size=1, length_penalty=0.6, batch_size=None, max_length=None,
    attention=True,
) -> list[Translation]:  # fmt: skip
    """Translate texts, in their order, with the model's own vocabularies.

    beam_size 1 is greedy decoding. Sentences are sorted by length, so that batches hold little
    padding, and given back in the caller's order; a batch holds `batch_size` of them (default: as
    many as make 256 lines). `attention=False` spares the weights.

    Raises TypeError for a single string, ValueError for an empty sentence or one longer than the
    model's positions, naming which.
    """
    if isinstance(sentences, str):
        raise TypeError("sentences must be a list of texts; for one text write [text]")
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1, got {beam_size}")
    batch_size = max(256 // beam_size, 1) if batch_size is None else batch_size
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    encoded = [encode_source(model, number, text) for number, text in enumerate(sentences)]
    device = next(model.parameters()).device
    by_length = sorted(range(len(encoded)), key=lambda number: len(encoded[number]))
    results: list = [None] * len(encoded)
    with torch.inference_mode():
        ready = prepacked(model)
        for first in range(0, len(by_length), batch_size):
            numbers = by_length[first : first + batch_size]
            batch = collate([(encoded[n], None) for n in numbers]).to(device)
            inputs = ready, batch.source, batch.source_mask
            if beam_size == 1:
                found = greedy_decode(*inputs, max_length, attention)
            else:
                found = beam_search(
                    *inputs, beam_size, length_penalty, max_length, attention=attention
                )
                found = [hypotheses[0] for hypotheses in found]
            for number, hypothesis in zip(numbers, found, strict=True):
                results[number] = as_translation(model, encoded[number], hypothesis)
    return results


def encode_source(model, number: int, text: str) -> list[int]:
    """The ids of sentence `number`, with errors that say which sentence is at fault."""
    try:
        ids = model.source_vocabulary.encode(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"sentence {number}, {text!r}: {error}") from None
    if model.max_positions is not None and len(ids) > model.max_positions:
        raise ValueError(
            f"sentence {number} has {len(ids)} tokens, but the model has only "
            f"{model.max_positions} positions"
        )
    return ids


def as_translation(model, source_ids: list[int], hypothesis: Hypothesis) -> Translation:
    """A hypothesis as text and tokens."""
    return Translation(
        text=model.target_vocabulary.decode(hypothesis.ids),
        score=hypothesis.score,
        source_tokens=model.source_vocabulary.tokens(source_ids),
        tokens=model.target_vocabulary.tokens(hypothesis.ids),
        attention=hypothesis.attention,
    )
