"""The phrasebook's words, English and French, with their forms.

They stand in tables, words/*.tsv, a word a row. Forms that the rules below would get wrong follow a
slash: the plural of a noun; the feminine of an adjective, and its masculine before a vowel. A verb
has its preposition after "_" and, where it is irregular, its present of je, il, nous, ils and the
stem of its future. The last columns say by letter what a word is (nouns) or what it goes with
(adjectives, verbs; objects in capitals take only "the", "this" and possessives):

p person    a animal   f food to count   m food by measure   d drink        w water or milk
t text      y written  c clothes         o object            k coloured     r coloured fruit
l opens     v holds    n toy             h place             g one goes to  i one is in
s one swims in         x kin, with a possessive              u never with a possessive
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Noun(NamedTuple):
    """A noun: `forms` and `french` hold (singular, plural); `gender` is "m" or "f"."""

    name: str
    forms: tuple[str, str]
    french: tuple[str, str]
    gender: str
    kinds: str


class Adjective(NamedTuple):
    """An adjective: `french` has a form for "ms", "fs", "mp", "fp" (gender, number) and "mv", the
    masculine before a vowel."""

    name: str
    french: dict[str, str]
    before: bool
    kinds: str


class Verb(NamedTuple):
    """A verb: `present` and `future` hold the forms of je, il, nous, ils.

    `particle` is the English preposition before the object ("look at"), `preposition` the French
    one ("penser à"). `definite` verbs take no "a" or bare plural: French would say "les" there.
    """

    name: str
    third: str
    particle: str
    infinitive: str
    present: tuple[str, ...]
    future: tuple[str, ...]
    preposition: str
    subjects: str
    objects: str
    definite: bool


RECIPIENT = ("give", "show", "send")  # "gives a book to the king"
PASSING = """happy sad tired jealous dirty clean empty hot cold good bad kind
dangerous"""  # what one can often, always or never be
REPORTING = ("say", "think", "hope")  # "says that ..."

UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen"""
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
FRENCH_UNITS = """zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze
quinze seize dix-sept dix-huit dix-neuf"""
FRENCH_TENS = "vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt"

# Aspirated h, and numbers that behave alike: "le hibou", "que onze".
NO_ELISION = {"hibou", "hiboux", "héros", "hache", "haches", "huit", "onze"}


def starts_with_vowel(word: str) -> bool:
    """Whether "le" before this French word becomes "l'" (a vowel or a mute h)."""
    return word[0] in "aeiouyàâéèêëîïôöûùœh" and word not in NO_ELISION


def english_s(word: str) -> str:
    """Plural of a regular noun, third person of a regular verb."""
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def french_plural(word: str) -> str:
    """Plural of a noun or of a masculine adjective that follows the rules."""
    if word[-1] in "sxz":
        return word
    if word.endswith("eau"):
        return word + "x"
    return word[:-2] + "aux" if word.endswith("al") else word + "s"


def french_feminine(word: str) -> str:
    """Feminine of an adjective that follows the rules."""
    if word.endswith("e"):
        return word
    if word.endswith("eux"):
        return word[:-1] + "se"
    return word[:-2] + "ère" if word.endswith("er") else word + "e"


def _noun(line: str) -> Noun:
    english, french, gender, kinds = line.split("\t")
    english, _, plural = english.partition("/")
    french, _, pluriel = french.partition("/")
    forms = (english, plural or english_s(english))
    return Noun(english, forms, (french, pluriel or french_plural(french)), gender, kinds)


def _adjective(line: str) -> Adjective:
    english, french, place, kinds = line.split("\t")
    masculine, feminine, vowel = (*french.split("/"), "", "")[:3]
    feminine = feminine or french_feminine(masculine)
    forms = {"ms": masculine, "mv": vowel or masculine, "mp": french_plural(masculine)}
    forms |= {"fs": feminine, "fp": feminine + "s"}
    return Adjective(english, forms, place == "before", kinds)


def _verb(line: str) -> Verb:
    english, french, forms, subjects, objects = line.split("\t")
    english, _, particle = english.partition("_")
    infinitive, _, preposition = french.partition("_")
    if forms == "-":
        stem = infinitive[:-2]
        nous = stem + ("eons" if stem.endswith("g") else "ons")
        present, future = (stem + "e", stem + "e", nous, stem + "ent"), infinitive
    else:
        *listed, future = forms.split("/")
        present = tuple(listed)
    return Verb(
        name=english if not particle else f"{english} {particle}",
        third={"have": "has"}.get(english, english_s(english)),
        particle=particle,
        infinitive=infinitive,
        present=present,
        future=tuple(future + ending for ending in ("ai", "a", "ons", "ont")),
        preposition=preposition,
        subjects=subjects,
        objects="" if objects == "-" else objects.lower(),
        definite=objects.isupper(),
    )


def _table(name: str, parse: Callable) -> dict:
    rows = Path(__file__).with_name("words").joinpath(f"{name}.tsv").read_text("utf-8")
    return {word.name: word for word in map(parse, rows.splitlines()[1:])}


nouns = _table("nouns", _noun)
adjectives = _table("adjectives", _adjective)
verbs = _table("verbs", _verb)
