"""An embedded English-French corpus: a small grammar that writes both sides at once.

Every phrase is built in both languages together, so the gold word alignment is known by construction. Positions are
those of `vocabulary.word_tokenize`. The rules:

- a content word links to its translation, a determiner to the determiner ("the" to "le", "la", "l'" or "les"; "some"
  to both words of "de la"); French "des" or "de" without an English determiner links to the noun;
- a contraction links to both of its halves: "du" to "from" and "the", "au" to "to" and "the";
- the words of a number link each to each: "one" and "hundred" to "cent", "twenty-one" to "vingt", "et" and "un";
- "not" links to "ne" and "pas", "never" to "ne" and "jamais"; the "does" of "does not" links to "ne" and "pas" too;
- "will" and its verb both link to the one French verb in the future; the "to" of "to eat" to the infinitive;
- prepositions that only one language has link to the verb: "look" and "at" to "regarde", "enters" to "entre" and "dans";
- in a question "do", "does", "will" or "is" links to "est-ce" and "que"; "will" and "is" to the verb as well;
- "because" links to "parce" and "que", "there" to "il" and "y"; punctuation links to punctuation.

English to French is a function, so exact-match accuracy makes sense: there is no "you"; "they" is "ils"; "I", "we" and
"they" take masculine adjectives.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import NamedTuple

from . import Pair
from .lexicon import RECIPIENT, REPORTING, adjectives, nouns, starts_with_vowel, verbs

VALIDATION, TEST, NEW_COMBINATIONS = 1000, 1000, 1000
TRAIN = 28000
LONGEST = 22  # English tokens
WITHHELD_SHARE = 0.05

Links = tuple[tuple[int, int], ...]


class Phrase(NamedTuple):
    """English tokens, French tokens, links between them, and the (noun, adjective) and (noun, verb) pairs inside."""

    english: tuple[str, ...] = ()
    french: tuple[str, ...] = ()
    links: Links = ()
    combinations: tuple[tuple[str, str], ...] = ()


class Subject(NamedTuple):
    """A phrase with what a verb and an adjective need to agree with it: person 0-3 is je, il, nous, ils."""

    phrase: Phrase
    person: int
    gender: str = "m"
    names: tuple[str, ...] = ()


ELIDED = {"je": "j'", "ne": "n'", "que": "qu'", "de": "d'"}
CONTRACTED = {("de", "le"): "du", ("de", "les"): "des", ("à", "le"): "au", ("à", "les"): "aux"}


def join(*phrases: Phrase) -> Phrase:
    """Put phrases one after another, with the elisions and contractions French asks for where they meet."""
    english, french, links, combinations = [], [], [], []
    for phrase in phrases:
        i, j, words = len(english), len(french), phrase.french
        if french and words:
            last = french[-1]
            if (last, words[0]) in CONTRACTED:
                french[-1] = CONTRACTED[last, words[0]]
                words, j = words[1:], j - 1
            elif last in ELIDED and starts_with_vowel(words[0]):
                french[-1] = ELIDED[last]
        english += phrase.english
        french += words
        links += [(a + i, b + j) for a, b in phrase.links]
        combinations += phrase.combinations
    return Phrase(tuple(english), tuple(french), tuple(links), tuple(combinations))


def linked(english: str, french: str) -> Phrase:
    """A phrase whose words link each to each."""
    left, right = tuple(english.split()), tuple(french.split())
    return Phrase(left, right, tuple((i, j) for i in range(len(left)) for j in range(len(right))))


def aligned(english: str, french: str) -> Phrase:
    """A phrase whose words link one to one, in order."""
    left, right = tuple(english.split()), tuple(french.split())
    return Phrase(left, right, tuple((i, i) for i in range(len(left))))


UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
UNITES = (
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit"
    " dix-neuf"
).split()
DIZAINES = "vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt".split()


def english_number(n: int) -> str:
    """0 to 100 in English words."""
    _check_number(n)
    if n == 100:
        return "one hundred"
    if n < 20:
        return UNITS[n]
    return TENS[n // 10 - 2] + (f"-{UNITS[n % 10]}" if n % 10 else "")


def french_number(n: int, feminine: bool = False) -> str:
    """0 to 100 in French words; "un" at the end agrees with a feminine noun."""
    _check_number(n)
    if n == 100:
        return "cent"
    if n < 20:
        return "une" if feminine and n == 1 else UNITES[n]
    ten, rest = DIZAINES[n // 10 - 2], n % 10
    if n // 10 in (7, 9):
        rest += 10
    if not rest:
        return ten + ("s" if n == 80 else "")
    unit = french_number(rest, feminine)
    return f"{ten} et {unit}" if rest in (1, 11) and n < 80 else f"{ten}-{unit}"


def _check_number(n: int) -> None:
    if not 0 <= n <= 100:
        raise ValueError(f"a number from 0 to 100 is needed, not {n}")


POSSESSIVES = {
    "my": ("mon", "ma", "mes"),
    "his": ("son", "sa", "ses"),
    "her": ("son", "sa", "ses"),
    "our": ("notre", "notre", "nos"),
    "their": ("leur", "leur", "leurs"),
    "this": ("ce", "cette", "ces"),
}
BEFORE_VOWEL = {"ma": "mon", "sa": "son", "ce": "cet", "le": "l'", "la": "l'", "de": "d'"}


def _french_determiner(kind: str, feminine: bool, plural: bool, following: str, before: bool, denied: bool):
    """French words for an English determiner; "" is a bare plural, "some" goes with nouns that are not counted."""
    vowel = starts_with_vowel(following)
    definite = "les" if plural else "la" if feminine else "le"
    if kind == "the":
        return (BEFORE_VOWEL[definite] if vowel and not plural else definite,)
    if kind in POSSESSIVES:
        word = POSSESSIVES[kind][2 if plural else feminine]
        return (BEFORE_VOWEL.get(word, word) if vowel else word,)
    # "pas de pommes", "pas de pain"; "de petites pommes"
    if denied or (kind == "" and before):
        return ("d'" if vowel else "de",)
    if kind == "some":
        return ("de", "l'") if vowel else ("de", "la") if feminine else ("du",)
    if kind == "a":
        return ("une" if feminine else "un",)
    return ("des",)


@lru_cache(maxsize=None)
def noun_phrase(
    noun: str,
    determiner: str = "the",
    plural: bool = False,
    adjective: tuple[str, ...] = (),
    very: bool = False,
    number: int = 0,
    denied: bool = False,
) -> Phrase:
    """A noun with its determiner and adjectives.

    `determiner` is "the", "a", "some" (for bread, water), "this", a possessive, or "" for a bare plural or a number
    alone. `adjective` holds at most one that goes before the noun in French, then at most one that goes after it;
    `very` belongs to the first. `denied` says that the phrase is the object of a negated verb.
    """
    word = nouns[noun]
    feminine, plural = word.gender == "f", plural or number > 1
    chosen = [adjectives[name] for name in adjective]
    after = [a for a in chosen if not a.before]
    shown = {"this": "these"}.get(determiner, determiner) if plural else determiner
    if determiner == "some" and denied:
        shown = "any"

    english: list[str] = [shown] if shown else []
    counting = english_number(number).split() if number else []
    english += counting
    start = len(english)
    english += ["very"] * very + list(adjective) + [word.forms[plural]]
    first_adjective, noun_position = start + very, len(english) - 1

    french: list[tuple[str, int]] = []  # each French word with the English position it translates
    head = word.french[plural]
    for position, item in enumerate(chosen):
        form = item.french[word.gender + ("p" if plural else "s")]
        if item.before and not plural and not feminine and starts_with_vowel(head):
            form = item.french["mv"]
        words = [(form, first_adjective + position)]
        if very and position == 0:
            words.insert(0, ("très", start))
        french += words if item.before else [(head, noun_position), *words]
    if not after:
        french.append((head, noun_position))

    comptes = french_number(number, feminine).split() if number else []
    links = []
    articles: tuple[str, ...] = ()
    if shown or not number:
        following = comptes[0] if comptes else french[0][0]
        before = bool(chosen) and chosen[0].before
        articles = _french_determiner(determiner, feminine, plural, following, before, denied)
        links += [(0 if shown else noun_position, j) for j in range(len(articles))]
    offset = len(articles)
    first = 1 if shown else 0
    links += [(first + i, offset + j) for i in range(len(counting)) for j in range(len(comptes))]
    offset += len(comptes)
    links += [(i, offset + j) for j, (_, i) in enumerate(french)]
    if shown == "a" and english[1][0] in "aeiou":
        english[0] = "an"
    return Phrase(
        tuple(english),
        (*articles, *comptes, *(w for w, _ in french)),
        tuple(links),
        tuple((noun, name) for name in adjective),
    )


def named(noun: str, determiner: str = "the", plural: bool = False, **rest) -> Subject:
    """A noun phrase as a subject; takes what `noun_phrase` takes."""
    plural = plural or rest.get("number", 0) > 1
    phrase = noun_phrase(noun, determiner, plural, **rest)
    return Subject(phrase, 3 if plural else 1, nouns[noun].gender, (noun,))


def both(first: Subject, second: Subject) -> Subject:
    """Two subjects joined by "and"; masculine if either is."""
    gender = "f" if first.gender == second.gender == "f" else "m"
    phrase = join(first.phrase, aligned("and", "et"), second.phrase)
    return Subject(phrase, 3, gender, first.names + second.names)


PRONOUNS = {
    "i": Subject(aligned("i", "je"), 0),
    "he": Subject(aligned("he", "il"), 1),
    "she": Subject(aligned("she", "elle"), 1, "f"),
    "we": Subject(aligned("we", "nous"), 2),
    "they": Subject(aligned("they", "ils"), 3),
}
BE = ("am", "is", "are", "are")
ADVERBS = {"often": "souvent", "always": "toujours"}


@lru_cache(maxsize=None)
def verb_group(
    verb: str, person: int, future: bool = False, mode: str = "", then: str = "", question: bool = False
) -> Phrase:
    """A conjugated verb with its auxiliary, negation or adverb, and preposition.

    `mode` is "", "not", "never", "often" or "always"; `then` is an infinitive after "want"; in a `question` the
    English auxiliary has moved to the front and is left out here.
    """
    word = verbs[verb]
    base = verb.split()[0]
    english: list[str] = []
    asked = question or future
    if verb == "be" and not future:
        english = ([] if question else [BE[person]]) + ([mode] if mode else [])
        at = 0
    else:
        if future and not question:
            english = ["will"]
        elif mode == "not" and not question:
            english = ["does" if person == 1 else "do"]
        english += [mode] if mode else []
        at = len(english)
        english.append(base if asked or mode == "not" or person != 1 else word.third)
    conjugated = (word.future if future else word.present)[person]
    if mode in ("not", "never"):
        negation = "n'" if starts_with_vowel(conjugated) else "ne"
        french, place = [negation, conjugated, "pas" if mode == "not" else "jamais"], 1
    else:
        french, place = [conjugated, *([ADVERBS[mode]] if mode else [])], 0

    links = [] if question and verb == "be" and not future else [(at, place)]
    if future and not question:
        links.append((0, place))
    if mode:
        i = english.index(mode)
        links += [(i, j) for j in range(len(french)) if j != place]
        if english[0] in ("do", "does") and mode == "not":
            links += [(0, 0), (0, 2)]
    if then:
        word = verbs[then]
        at, place = len(english) + 1, len(french)
        english += ["to", then.split()[0]]
        french.append(word.infinitive)
        links += [(at - 1, place), (at, place)]
    if word.particle:
        english.append(word.particle)
        links.append((len(english) - 1, len(french) if word.preposition else place))
    if word.preposition:
        french.append(word.preposition)
        if not word.particle:
            links.append((at, len(french) - 1))
    return Phrase(tuple(english), tuple(french), tuple(links))


def predicate(subject: Subject, adjective: str, very: bool = False) -> Phrase:
    """The adjective after "be", agreeing with the subject."""
    form = adjectives[adjective].french[subject.gender + ("p" if subject.person > 1 else "s")]
    phrase = aligned(f"very {adjective}", f"très {form}") if very else aligned(adjective, form)
    return phrase._replace(combinations=tuple((name, adjective) for name in subject.names))


def clause(
    subject: Subject, verb: str, *rest: Phrase, future: bool = False, mode: str = "", then: str = ""
) -> Phrase:
    """A statement without its full stop: subject, verb group, and the phrases after it."""
    group = verb_group(verb, subject.person, future, mode, then)
    combinations = tuple((name, v) for name in subject.names for v in (verb, then) if v not in ("", "be"))
    return join(subject.phrase, group._replace(combinations=combinations), *rest)


def question(
    subject: Subject, verb: str, *rest: Phrase, future: bool = False, mode: str = "", then: str = ""
) -> Phrase:
    """A yes/no question with its question mark."""
    auxiliary = "will" if future else BE[subject.person] if verb == "be" else "does" if subject.person == 1 else "do"
    group = verb_group(verb, subject.person, future, mode, then, question=True)
    combinations = tuple((name, v) for name in subject.names for v in (verb, then) if v not in ("", "be"))
    group = group._replace(combinations=combinations)
    whole = join(linked(auxiliary, "est-ce que"), subject.phrase, group, *rest, aligned("?", "?"))
    if auxiliary in ("do", "does"):
        return whole
    place = 2 + len(subject.phrase.french) + (mode in ("not", "never"))
    return whole._replace(links=(*whole.links, (0, place)))


def statement(*clauses: Phrase) -> Phrase:
    """Clauses (and conjunctions) with a full stop."""
    return join(*clauses, aligned(".", "."))


def after_preposition(preposition: str, phrase: Phrase) -> Phrase:
    """One of PREPOSITIONS before a noun phrase."""
    return join(PREPOSITIONS[preposition], phrase)


def which(head: Subject, verb: str, *rest: Phrase, future: bool = False) -> Subject:
    """The head with a relative clause: "the boy who eats an apple", "the cat that sleeps"."""
    pronoun = "who" if "p" in nouns[head.names[0]].kinds else "that"
    relative = clause(head._replace(phrase=aligned(pronoun, "qui")), verb, *rest, future=future)
    return head._replace(phrase=join(head.phrase, relative))


def there_is(phrase: Phrase, plural: bool, *rest: Phrase) -> Phrase:
    """ "there is a cat ...": "il y a un chat ..." """
    there = Phrase(("there", "are" if plural else "is"), ("il", "y", "a"), ((0, 0), (0, 1), (1, 2)))
    return join(there, phrase, *rest)


PREPOSITIONS = {
    "in": aligned("in", "dans"),
    "near": linked("near", "près de"),
    "behind": aligned("behind", "derrière"),
    "in front of": linked("in front of", "devant"),
    "with": aligned("with", "avec"),
    "for": aligned("for", "pour"),
    "of": aligned("of", "de"),
    "to": aligned("to", "à"),
}
CONJUNCTIONS = {
    "and": aligned("and", "et"),
    "but": aligned(", but", ", mais"),
    "because": linked("because", "parce que"),
    "that": aligned("that", "que"),
}
PRESENT_TIMES = (
    aligned("now", "maintenant"),
    aligned("today", "aujourd'hui"),
    aligned("every day", "chaque jour"),
    aligned("every morning", "chaque matin"),
)
FUTURE_TIMES = (aligned("tomorrow", "demain"), aligned("soon", "bientôt"), linked("tonight", "ce soir"))

OBJECTS = {
    verb.name: tuple(n.name for n in nouns.values() if set(verb.objects) & set(n.kinds)) for verb in verbs.values()
}
SUBJECTS = {
    kind: tuple(n.name for n in nouns.values() if kind in n.kinds) for kind in "paofmdthigw"
}
FITTING = {
    n.name: (
        tuple(a.name for a in adjectives.values() if a.before and set(a.kinds) & set(n.kinds)),
        tuple(a.name for a in adjectives.values() if not a.before and set(a.kinds) & set(n.kinds)),
    )
    for n in nouns.values()
}
NUMBERS = (*range(2, 21), 21, 22, 30, 35, 40, 48, 50, 60, 67, 70, 71, 76, 80, 84, 90, 99, 100)
PLAIN = tuple(v.name for v in verbs.values() if v.name not in ("be", *REPORTING))
INFINITIVES = tuple(v for v in PLAIN if v not in ("want", "have", "fall", "lose", "like", "know"))


class _Writer:
    """Draws random sentences. Only Random.random is used: its sequence is the same in every Python version."""

    def __init__(self, seed: int):
        self.random = Random(seed).random

    def pick(self, items):
        return items[int(self.random() * len(items))]

    def chance(self, share: float) -> bool:
        return self.random() < share

    def adjective(self, noun: str, share: float) -> tuple[tuple[str, ...], bool]:
        """Adjectives for the noun, and whether to say "very"."""
        if not self.chance(share):
            return (), False
        before, after = FITTING[noun]
        draw = self.random()
        if draw < 0.2 and before and after:
            return (self.pick(before), self.pick(after)), False
        return (self.pick(before + after),), self.chance(0.12)

    def subject(self, kinds: str, plain: bool = False) -> Subject:
        """A pronoun or a noun phrase of one of the kinds ("p", "a", "o" ...)."""
        if "p" in kinds and self.chance(0.5):
            return PRONOUNS[self.pick(("i", "we", "i", "we", "he", "she", "they"))]
        kind = self.pick(kinds)
        head = self.head(self.pick(SUBJECTS[kind]))
        if plain:
            return head
        draw = self.random()
        if draw < 0.08 and kind in "pa":
            return both(head, self.head(self.pick(SUBJECTS[kind])))
        if draw < 0.13 and kind in "pa":
            return self.relative(head)
        if draw < 0.17 and kind in "ao":
            return self.owned(head)
        return head

    def head(self, noun: str) -> Subject:
        """A definite or indefinite noun phrase for a subject."""
        adjective, very = self.adjective(noun, 0.3)
        if set("md") & set(nouns[noun].kinds):
            return named(noun, self.pick(("the", "the", "my", "this", "his", "our")), adjective=adjective, very=very)
        draw = self.random()
        if draw < 0.5:
            determiner, plural, number = self.pick(("the", "the", "the", "a", "this")), False, 0
        elif draw < 0.72:
            determiner, plural, number = self.pick(("the", "the", "this")), True, 0
        elif draw < 0.9:
            determiner, plural, number = self.pick(("my", "his", "her", "our", "their")), self.chance(0.4), 0
        else:
            determiner, plural, number = self.pick(("the", "", "my")), True, self.pick((2, 3, 4, 5, 6))
        return named(noun, determiner, plural, adjective=adjective, very=very, number=number)

    def thing(self, noun: str, definite: bool = False, denied: bool = False) -> Phrase:
        """A noun phrase for an object."""
        adjective, very = self.adjective(noun, 0.34)
        draw, plural, number = self.random(), False, 0
        if draw < 0.28:
            determiner, plural = "the", self.chance(0.4)
        elif draw < 0.45:
            determiner, plural = self.pick(("my", "his", "her", "our", "their", "this")), self.chance(0.4)
        elif draw < 0.68:
            determiner = "a"
        elif draw < 0.84 or denied:
            determiner, plural = "", True
        else:
            determiner, number = self.pick(("", "", "", "the")), self.pick(NUMBERS)
        if set("md") & set(nouns[noun].kinds):
            plural, number = False, 0
            determiner = "some" if determiner in ("a", "") else determiner
        if definite and determiner in ("a", "", "some"):
            determiner, plural, number = "the", plural, 0
        return noun_phrase(noun, determiner, plural, adjective, very, number, denied and determiner in ("a", "", "some"))

    def around(self, kind: str) -> Phrase:
        """A noun phrase after a preposition."""
        noun = self.pick(SUBJECTS[kind])
        adjective, very = self.adjective(noun, 0.22)
        determiner = self.pick(("the", "the", "the", "the", "a", "this", "my", "his", "her", "our", "their"))
        plural = determiner != "a" and self.chance(0.2)
        return noun_phrase(noun, determiner, plural, adjective, very)

    def owned(self, head: Subject) -> Subject:
        """ "the hat of the queen" """
        return head._replace(phrase=join(head.phrase, PREPOSITIONS["of"], self.around("p")))

    def relative(self, head: Subject) -> Subject:
        kind = "p" if "p" in nouns[head.names[0]].kinds else "a"
        verb = self.verb(kind)
        return which(head, verb, *self.complements(verb, kind, False, short=True))

    def verb(self, kind: str, choices=PLAIN) -> str:
        while True:
            verb = self.pick(choices)
            if kind in verbs[verb].subjects:
                return verb

    def complements(self, verb: str, kind: str, denied: bool, short: bool = False) -> list[Phrase]:
        """What follows the verb: object, recipient, place."""
        word = verbs[verb]
        if not word.objects:
            if self.chance(0.5):
                return [self.place()]
            return [after_preposition("with", self.around("p"))] if self.chance(0.2) else []
        noun = self.pick(SUBJECTS["w"] if verb == "drink" and kind == "a" else OBJECTS[verb])
        if word.preposition:
            return [self.indirect(noun)]
        phrases = [self.thing(noun, word.definite, denied)]
        if verb in RECIPIENT and not (short and self.chance(0.5)):
            phrases.append(after_preposition("to", self.around("p")))
        elif not short and self.chance(0.1):
            phrases.append(self.place())
        elif not short and set("oc") & set(nouns[noun].kinds) and self.chance(0.15):
            phrases.append(join(PREPOSITIONS["of"], self.around("p")))
        return phrases

    def indirect(self, noun: str) -> Phrase:
        """A noun phrase after a French preposition: "pense au roi"."""
        adjective, very = self.adjective(noun, 0.3)
        mass = set("md") & set(nouns[noun].kinds)
        determiner = self.pick(("the", "the", "the", "my", "his", "her", "our", "their", "this", "a"))
        if mass and determiner == "a":
            determiner = "the"
        plural = determiner != "a" and not mass and self.chance(0.25)
        return noun_phrase(noun, determiner, plural, adjective, very)

    def place(self) -> Phrase:
        preposition = self.pick(("in", "in", "in", "near", "behind", "in front of"))
        return after_preposition(preposition, self.around("i" if preposition == "in" else "h"))

    def clause(self, future: bool, asked: bool = False, short: bool = False) -> Phrase:
        """One clause, as a statement without full stop or as a question with its mark."""
        build = question if asked else clause
        draw = self.random()
        mode = self.pick(("", "", "", "", "", "", "", "", "", "not", "not", "not", "never", "often", "always"))
        if asked and (mode == "never" or (mode == "not" and self.chance(0.5))):
            mode = ""
        if draw < 0.13:
            subject = self.subject(self.pick(("p", "p", "a", "o", "h", "f", "t", "m", "d")))
            if subject.names:
                fitting = FITTING[subject.names[0]]
                if len(subject.names) > 1:
                    other = FITTING[subject.names[1]]
                    fitting = tuple(tuple(a for a in x if a in y) for x, y in zip(fitting, other, strict=True))
            else:
                fitting = (("young", "big", "small"), FITTING["king"][1])
            adjective = self.pick(fitting[0] + fitting[1])
            used = {name for _, name in subject.phrase.combinations}
            if adjective in used:
                adjective = self.pick(("strange", *fitting[1])) if fitting[1] else adjective
            very = mode == "" and self.chance(0.25)
            return build(subject, "be", predicate(subject, adjective, very), future=future, mode=mode)
        kind = "p" if draw < 0.8 else "a"
        verb = self.verb(kind)
        then = ""
        if kind == "p" and self.chance(0.12):
            verb, then = "want", self.verb("p", INFINITIVES)
        subject = self.subject(kind, plain=short)
        rest = self.complements(then or verb, kind, mode in ("not", "never"), short)
        if mode in ("", "not") and self.chance(0.15) and sum(len(p.english) for p in rest) < 6:
            rest.append(self.pick(FUTURE_TIMES if future else PRESENT_TIMES))
        return build(subject, verb, *rest, future=future, mode=mode, then=then)

    def sentence(self) -> Phrase:
        draw = self.random()
        future = self.chance(0.47)
        if draw < 0.54:
            return statement(self.clause(future))
        if draw < 0.69:
            return self.clause(future, asked=True)
        if draw < 0.72:
            noun, number = self.pick(OBJECTS["see"]), self.pick((0, *NUMBERS))
            adjective, very = self.adjective(noun, 0.4)
            plain = number == 0 or self.chance(0.5)
            phrase = noun_phrase(noun, "a" if plain else "", False, adjective, very, 0 if plain else number)
            return statement(there_is(phrase, not plain, self.place()))
        if draw < 0.79:
            subject, verb = self.subject("p", plain=True), self.pick(REPORTING)
            report = clause(subject, verb, future=self.chance(0.3))
            return statement(report, CONJUNCTIONS["that"], self.clause(future, short=True))
        conjunction = self.pick(("and", "but", "because"))
        first = self.clause(future, short=True)
        return statement(first, CONJUNCTIONS[conjunction], self.clause(future, short=True))


def text(tokens: Iterable[str], french: bool) -> str:
    """Tokens as normally spaced text."""
    line = " ".join(tokens).replace(" .", ".").replace(" ,", ",")
    return line.replace("' ", "'") if french else line.replace(" ?", "?")


def pair(phrase: Phrase) -> Pair:
    """A whole sentence as a pair with its sorted links."""
    return Pair(text(phrase.english, False), text(phrase.french, True), tuple(sorted(phrase.links)))


@dataclass(frozen=True)
class Phrasebook:
    """The corpus in four splits that share no sentence.

    `withheld` holds the (noun, adjective) and (noun, verb) pairs, in English, that occur in `new_combinations` only;
    each of its sentences has at least one.
    """

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]
    new_combinations: list[Pair]
    withheld: frozenset[tuple[str, str]]
    _combinations: dict[str, tuple[tuple[str, str], ...]] = field(repr=False)

    def combinations(self, pair: Pair) -> tuple[tuple[str, str], ...]:
        """The (noun, adjective) and (noun, verb) pairs that a sentence of this corpus holds."""
        return self._combinations[pair.source]


def _withheld(writer: _Writer) -> frozenset[tuple[str, str]]:
    """A random share of all the pairs the grammar allows."""
    allowed = [(n, a) for n in nouns for place in FITTING[n] for a in place]
    allowed += [(n, v) for v in PLAIN for k in verbs[v].subjects for n in SUBJECTS[k]]
    return frozenset(combination for combination in allowed if writer.chance(WITHHELD_SHARE))


@lru_cache(maxsize=4)
def load(seed: int = 0) -> Phrasebook:
    """Write the corpus. The same seed gives the same corpus on every machine."""
    writer = _Writer(seed)
    withheld = _withheld(writer)
    usual: list[Pair] = []
    unusual: list[Pair] = []
    combinations: dict[str, tuple[tuple[str, str], ...]] = {}
    while len(usual) < TRAIN + VALIDATION + TEST or len(unusual) < NEW_COMBINATIONS:
        phrase = writer.sentence()
        source = text(phrase.english, False)
        if source in combinations or len(phrase.english) > LONGEST:
            continue
        pool, enough = usual, TRAIN + VALIDATION + TEST
        if not withheld.isdisjoint(phrase.combinations):
            pool, enough = unusual, NEW_COMBINATIONS
        if len(pool) < enough:
            combinations[source] = phrase.combinations
            pool.append(pair(phrase))
    test, validation, train = usual[:TEST], usual[TEST : TEST + VALIDATION], usual[TEST + VALIDATION :]
    return Phrasebook(train, validation, test, unusual, withheld, combinations)
