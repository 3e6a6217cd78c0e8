"""Text spoiled on purpose: what a model learns on before it sees a single translation.

Both objectives need plain text only. They work on words here, cut at spaces, where the papers count
subwords; a tokenizer must know the marks as tokens of their own.
"""

from itertools import groupby

import numpy as np

SENTINELS = 100  # of T5, <extra_id_0> to <extra_id_99>; the last one ends the target


def infill(
    text: str, rng: np.random.Generator, share: float = 0.3, mean: float = 3.0, mask: str = "<mask>"
) -> str:
    """BART's text infilling (Lewis et al. 2020, section 2.2): spans of words, their lengths from a
    Poisson distribution of this `mean`, each become one mask; a span of no words inserts one. The
    target is the whole text.

    About a `share` of the words goes, at least one; masks that the text holds stay. Raises
    ValueError for a text without words or a share outside 0 to 1.
    """
    words = _words(text, share)
    left = max(1, round(share * len(words)))
    while left > 0:
        # No longer than the longest run without a mask, or no place would ever be found.
        runs = [len([*run]) for masked, run in groupby(words, mask.__eq__) if not masked]
        length = min(int(rng.poisson(mean)), left, max(runs, default=0))
        start = int(rng.integers(len(words) - length + 1))
        if mask not in words[start : start + length]:
            words[start : start + length] = [mask]
            left -= max(1, length)
    return " ".join(words)


def corrupt_spans(text: str, rng: np.random.Generator, share: float = 0.15) -> tuple[str, str]:
    """T5's objective (Raffel et al. 2020, section 3.1.4): each word is dropped with probability
    `share`, at least one is, and neighbours that go share one sentinel, `<extra_id_0>` and so on.
    T5 has 100 of them: after the 99th span, in a text of some 800 words, the rest stays whole.

    Returns the text with sentinels, and what is to be written: each sentinel with the words it
    stands for, and one more sentinel as the end. Raises ValueError as `infill` does.
    """
    words = _words(text, share)
    dropped = rng.random(len(words)) < share
    if not dropped.any():
        dropped[rng.integers(len(words))] = True
    source, target, count = [], [], 0
    for position, word in enumerate(words):
        dropped[position] &= count < SENTINELS - 1 or dropped[position - 1]
        if dropped[position] and (position == 0 or not dropped[position - 1]):
            for side in (source, target):
                side.append(f"<extra_id_{count}>")
            count += 1
        (target if dropped[position] else source).append(word)
    return " ".join(source), " ".join([*target, f"<extra_id_{count}>"])


def _words(text: str, share: float) -> list[str]:
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    if not text.split():
        raise ValueError(f"there are no words to spoil: {text!r}")
    return text.split()
