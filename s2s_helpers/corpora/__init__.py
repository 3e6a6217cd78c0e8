"""Where sentence pairs come from: one file a corpus."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """A sentence and its translation.

    `alignment` holds links (source position, target position) between word tokens, in the order of
    `vocabulary.word_tokenize`, or None where no gold alignment is known.
    """

    source: str
    target: str
    alignment: tuple[tuple[int, int], ...] | None = None
