"""Spelling to pronunciation: English words, letter by letter, to phonemes, from CMUdict.

The CMU Pronouncing Dictionary (Carnegie Mellon University 1993-2015, BSD licence): words of letters
and apostrophes, the 39 phonemes of American English without their stress. A word may have several
accepted pronunciations, and they stay together: what is held against them is the closest.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from s2s_helpers.corpora import Pair, Splits
from s2s_helpers.corpora.download import Download
from s2s_helpers.optional import import_optional
from s2s_helpers.vocabulary import Vocabulary

FILES = Download(
    "CMUdict",
    "https://raw.githubusercontent.com/cmusphinx/cmudict/0f8072f814306c5ee4fbf992ed853601b12c01f9/",
    {"cmudict.dict": "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22"},
)
VALIDATION, TEST = 2670, 12000  # words, as many as in the papers
# Phoneme and word error rate, %, on 12,000 test words of CMUdict, in the order of their years.
PUBLISHED = {
    "bidirectional LSTM (Yao and Zweig 2015)": (5.45, 23.55),
    "attention (Toshniwal and Livescu 2016)": (4.69, 20.24),
    "transformer (Yolchuyeva et al. 2019)": (5.23, 22.1),
}


@dataclass(frozen=True)
class Word(Pair):
    """`source`: a word; `accepted`: its pronunciations, such as ("L AY V", "L IH V") of "live";
    `target`: the first of these."""

    accepted: tuple[str, ...] = ()


class ErrorRates(NamedTuple):
    """In percent: of phonemes (PER) and of words (WER)."""

    phonemes: float
    words: float


@cache
def load() -> Splits[Word]:
    """All words of letters and apostrophes: 12,000 to test, 2,670 to validate, the rest to train.

    A word's split depends on its letters (by SHA-256), not on any generator, so no word is in two
    splits and no other version of Python or torch deals them otherwise. The papers' own split is
    not published with the dictionary; this one is as large. Raises ValueError for a damaged file,
    FileNotFoundError where it is neither at hand nor to be had from the network.
    """
    said = {word: each for word, each in dictionary().items() if re.fullmatch(r"[a-z']+", word)}
    order = sorted(said, key=lambda word: hashlib.sha256(word.encode()).digest())
    accepted = [without_stress(said[word]) for word in order]
    words = [Word(word, each[0], None, each) for word, each in zip(order, accepted, strict=True)]
    held_out = TEST + VALIDATION
    return Splits(words[held_out:], words[TEST:held_out], words[:TEST])


def dictionary() -> dict[str, list[list[str]]]:
    """Every word of CMUdict with its pronunciations: "box" to [["B", "AA1", "K", "S"]].

    A line is a word, "(2)" and so on where it is not the word's first, the phonemes, and perhaps a
    comment after "#".
    """
    words: dict[str, list[list[str]]] = {}
    for line in FILES.find("cmudict.dict").read_text("utf-8").splitlines():
        if parts := line.partition("#")[0].split():
            words.setdefault(re.sub(r"\(\d+\)$", "", parts[0]), []).append(parts[1:])
    return words


def without_stress(pronunciations: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Lists of phonemes to texts: [["AH0", "G", "OW1"]] to ("AH G OW",), each once."""
    return tuple(dict.fromkeys(re.sub(r"\d", "", " ".join(said)) for said in pronunciations))


def pairs(words: Sequence[Word]) -> list[Pair]:
    """What to learn from: a pair (word, pronunciation) for every accepted pronunciation."""
    return [Pair(word.source, said) for word in words for said in word.accepted]


def vocabularies(words: Sequence[Word]) -> tuple[Vocabulary, Vocabulary]:
    """Letters, whatever their case, and phonemes."""
    letters = Vocabulary.build([w.source for w in words], level="character", lowercase=True)
    spoken = [said for word in words for said in word.accepted]
    return letters, Vocabulary.build(spoken, lowercase=False)


def edit_distance(one: Sequence, other: Sequence) -> int:
    """How many insertions, deletions and substitutions turn one sequence into the other."""
    return import_optional("rapidfuzz.distance").Levenshtein.distance(one, other)


def closest(said: str, accepted: Sequence[str]) -> tuple[int, str]:
    """The edit distance, in phonemes, to the closest accepted pronunciation, and that one."""
    phonemes = said.split()
    return min((edit_distance(phonemes, each.split()), each) for each in accepted)


def error_rates(spoken: Sequence[str], accepted: Sequence[Sequence[str]]) -> ErrorRates:
    """PER and WER of one pronunciation for each word, beside those that are accepted for it.

    The closest of these is the reference. PER: edits by all phonemes of the references, as in a
    speech recogniser's word error rate; WER: the share of words that equal none of theirs. Raises
    ValueError where the numbers differ, a word has no accepted pronunciation, or none a phoneme.
    """
    if isinstance(spoken, str) or any(isinstance(each, str) for each in accepted):
        raise TypeError("spoken is a list of texts, accepted a list with several texts for each")
    if len(spoken) != len(accepted) or not len(spoken):
        raise ValueError(
            f"{len(spoken)} pronunciations, but accepted ones of {len(accepted)} words"
        )
    if not all(accepted):
        raise ValueError(f"word {[bool(a) for a in accepted].index(False)} has nothing accepted")
    found = [closest(said, each) for said, each in zip(spoken, accepted, strict=True)]
    edits = sum(distance for distance, _ in found)
    wrong = sum(distance > 0 for distance, _ in found)
    phonemes = sum(len(reference.split()) for _, reference in found)
    if not phonemes:
        raise ValueError("the accepted pronunciations have no phonemes")
    return ErrorRates(100 * edits / phonemes, 100 * wrong / len(found))
