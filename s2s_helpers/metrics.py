"""How good translations are: by token, by sentence, by overlap with a reference, by alignment.

Every function takes what the model made first and what is right second, each a list or anything
else that has an order (a pandas Series, an array, a generator), and raises ValueError where the two
do not match up: a metric that fails must never look like a bad score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor

from s2s_helpers.text import each_of
from s2s_helpers.vocabulary import PAD


def token_accuracy(logits: Tensor, targets: Tensor) -> float:
    """The share of real target tokens that have the highest logit, from 0 to 1.

    `logits` (batch, target, vocabulary), `targets` (batch, target). Raises ValueError where shapes
    disagree or every target is PAD.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} need targets of shape "
            f"{tuple(logits.shape[:-1])}, not {tuple(targets.shape)}"
        )
    real = targets != PAD
    if not (tokens := int(real.sum())):
        raise ValueError("every target is PAD: there is no token to count")
    return int((real & (logits.argmax(dim=-1) == targets)).sum()) / tokens


def sequence_accuracy(hypotheses: Iterable, references: Iterable) -> float:
    """The share of sentences that are right from the first token to the last, from 0 to 1.

    Both are lists of texts, or both lists of lists of ids.
    """
    hypotheses, references = _check(hypotheses, references)
    pairs = [
        (_plain(one), _plain(other)) for one, other in zip(hypotheses, references, strict=True)
    ]
    if any(isinstance(one, str) != isinstance(other, str) for one, other in pairs):
        raise TypeError("hypotheses and references must both be texts or both be ids")
    return sum(one == other for one, other in pairs) / len(pairs)


def perplexity(mean_loss: float) -> float:
    """e to the mean loss of a token in nats: among how many equal choices the model wavers.

    The loss must be without label smoothing. Infinity where the number is too large for a float.
    """
    try:
        return math.exp(mean_loss)
    except OverflowError:
        return math.inf


def bleu(hypotheses: Iterable[str], references: Iterable[str], **options) -> float:
    """BLEU of a corpus, from 0 to 100 (Papineni et al. 2002, §2).

    One reference for each hypothesis. Options go to `sacrebleu.metrics.BLEU`; as they are, text is
    cased and tokenized by "13a" (Post 2018, §3). Quote `bleu_signature` with the score.
    """
    hypotheses, references = _check_texts(hypotheses, references)
    return BLEU(**options).corpus_score(hypotheses, [references]).score


def bleu_signature(**options) -> str:
    """What makes a BLEU score comparable: sacrebleu's version and settings, for one reference."""
    metric = BLEU(**options)
    metric.corpus_score(["a"], [["a"]])  # sacrebleu knows the number of references after a score
    return str(metric.get_signature())


def chrf(hypotheses: Iterable[str], references: Iterable[str], **options) -> float:
    """chrF of a corpus, from 0 to 100: overlap of groups of 1 to 6 characters (Popović 2015, §2).

    Options go to `sacrebleu.metrics.CHRF`; `word_order=2` makes it chrF++.
    """
    hypotheses, references = _check_texts(hypotheses, references)
    return CHRF(**options).corpus_score(hypotheses, [references]).score


def attention_links(attention: Tensor) -> set[tuple[int, int]]:
    """Each target token's most attended source token, as (source, target) positions.

    `attention` (target, source) holds one weight for each pair. Leave out the rows and columns of
    tokens that the gold alignment does not have, such as EOS.
    """
    attention = torch.as_tensor(attention)
    if attention.ndim != 2 or attention.shape[1] == 0:
        raise ValueError(f"attention must be (target, source), not {tuple(attention.shape)}")
    return {(source, target) for target, source in enumerate(attention.argmax(dim=1).tolist())}


def alignment_error_rate(
    predicted_links: Iterable[Iterable[tuple[int, int]]],
    gold_links: Iterable[Iterable[tuple[int, int]]],
) -> float:
    """The share of alignment links that are wrong or missing, from 0 to 1, over all sentences.

    With predicted links A and gold links S, AER = 1 - 2 |A ∩ S| / (|A| + |S|) (Och and Ney 2003,
    §4, where every gold link is sure, S = P). Both are lists with one collection of (source,
    target) positions for each sentence. Raises ValueError where there are no links at all.
    """
    both = _check(predicted_links, gold_links, "predicted_links", "gold_links")
    common = total = 0
    for predicted, gold in zip(*both, strict=True):
        links = {tuple(link) for link in predicted}, {tuple(link) for link in gold}
        common += len(links[0] & links[1])
        total += len(links[0]) + len(links[1])
    if total == 0:
        raise ValueError("there are no links to score")
    return 1 - 2 * common / total


def _check(
    one: Iterable, other: Iterable, name: str = "hypotheses", other_name: str = "references"
) -> tuple[list, list]:
    one, other = list(each_of(one, name)), list(each_of(other, other_name))
    if len(one) != len(other):
        raise ValueError(f"there are {len(one)} {name} but {len(other)} {other_name}")
    if not one:
        raise ValueError(f"there are no {name} to score")
    return one, other


def _check_texts(hypotheses: Iterable[str], references: Iterable[str]) -> tuple[list, list]:
    both = _check(hypotheses, references)
    for label, texts in zip(("hypotheses", "references"), both, strict=True):
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"{label}[{index}] must be a string, not {type(text).__name__}")
    return both


def _plain(sentence: str | Tensor | Sequence[int]) -> str | list[int]:
    if isinstance(sentence, str):
        return sentence
    return sentence.tolist() if isinstance(sentence, Tensor) else list(sentence)
