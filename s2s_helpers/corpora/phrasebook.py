"""An embedded English-French corpus: a small grammar that writes both sides at once.

Every phrase is built in both languages together, so the gold word alignment is known by
construction. Positions are those of `vocabulary.word_tokenize`. The rules:

- a content word links to its translation, a determiner to the determiner ("the" to "l'", "some" to
  both words of "de la"); "des" or "de" without an English determiner links to the noun;
- a contraction links to both of its halves: "du" to "from" and "the", "au" to "to" and "the";
- the words of a number link each to each: "twenty-one" to "vingt", "et" and "un";
- "not" links to "ne" and "pas", "never" to "ne" and "jamais"; the "does" of "does not" to "ne" and
  "pas" too;
- "will" and its verb both link to the one French verb in the future, the "to" of "to eat" to the
  infinitive;
- a preposition that only one language has links to the verb: "look" and "at" to "regarde",
  "enters" to "entre" and "dans";
- in a question "do", "does", "will" or "is" links to "est-ce" and "que"; "will" and "is" to the
  verb as well;
- "because" links to "parce" and "que", "near" to "près" and "de", "in front of" to "devant",
  "tonight" to "ce" and "soir", "there" to "il" and "y"; punctuation links to punctuation.

English to French is a function, so exact-match accuracy makes sense: there is no "you"; "they" is
"ils"; "i", "we" and "they" take masculine adjectives.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from random import Random
from typing import NamedTuple, TypeVar

from s2s_helpers.files import as_seed

from . import Pair, Splits
from . import lexicon as words
from .lexicon import RECIPIENT, REPORTING, adjectives, nouns, starts_with_vowel, verbs

TRAIN, VALIDATION, TEST, NEW_COMBINATIONS = 28000, 1000, 1000, 1000
LONGEST = 22  # English tokens
WITHHELD_SHARE = 0.05

Combinations = tuple[tuple[str, str], ...]
T = TypeVar("T")


class Phrase(NamedTuple):
    """English tokens, French tokens, links between their positions, and the (noun, adjective) and
    (noun, verb) pairs inside."""

    english: tuple[str, ...] = ()
    french: tuple[str, ...] = ()
    links: tuple[tuple[int, int], ...] = ()
    combinations: Combinations = ()


class Subject(NamedTuple):
    """A phrase and what has to agree with it: person 0 to 3 is je, il, nous, ils."""

    phrase: Phrase
    person: int
    gender: str = "m"
    names: tuple[str, ...] = ()


ELIDED = {"je": "j'", "que": "qu'", "de": "d'"}
CONTRACTED = {("de", "le"): "du", ("de", "les"): "des", ("à", "le"): "au", ("à", "les"): "aux"}


def join(*phrases: Phrase) -> Phrase:
    """Phrases one after another, with the elisions and contractions of French where they meet."""
    english, french, links, combinations = [], [], [], []
    for phrase in phrases:
        i, j, following = len(english), len(french), phrase.french
        if french and following:
            last = french[-1]
            if (last, following[0]) in CONTRACTED:
                french[-1] = CONTRACTED[last, following[0]]
                following, j = following[1:], j - 1
            elif last in ELIDED and starts_with_vowel(following[0]):
                french[-1] = ELIDED[last]
        english += phrase.english
        french += following
        links += [(a + i, b + j) for a, b in phrase.links]
        combinations += phrase.combinations
    return Phrase(tuple(english), tuple(french), tuple(links), tuple(combinations))


@cache
def linked(english: str, french: str) -> Phrase:
    """A phrase whose words link each to each."""
    left, right = tuple(english.split()), tuple(french.split())
    return Phrase(left, right, tuple((i, j) for i in range(len(left)) for j in range(len(right))))


@cache
def aligned(english: str, french: str) -> Phrase:
    """A phrase whose words link one to one, in order."""
    left, right = tuple(english.split()), tuple(french.split())
    return Phrase(left, right, tuple((i, i) for i in range(len(left))))


def english_number(n: int) -> str:
    """0 to 100 in English words."""
    _check_number(n)
    if n == 100:
        return "one hundred"
    units, tens = words.UNITS.split(), words.TENS.split()
    if n < 20:
        return units[n]
    return tens[n // 10 - 2] + (f"-{units[n % 10]}" if n % 10 else "")


def french_number(n: int, feminine: bool = False) -> str:
    """0 to 100 in French words; a last "un" agrees with a feminine noun."""
    _check_number(n)
    if n == 100:
        return "cent"
    if n < 20:
        return "une" if feminine and n == 1 else words.FRENCH_UNITS.split()[n]
    ten, rest = words.FRENCH_TENS.split()[n // 10 - 2], n % 10
    if n // 10 in (7, 9):
        rest += 10
    if not rest:
        return ten + ("s" if n == 80 else "")
    unit = french_number(rest, feminine)
    return f"{ten} et {unit}" if rest in (1, 11) and n < 80 else f"{ten}-{unit}"


def _check_number(n: int) -> None:
    if not 0 <= n <= 100:
        raise ValueError(f"a number from 0 to 100 is needed, not {n}")


OWN = {
    "my": ("mon", "ma", "mes"),
    "his": ("son", "sa", "ses"),
    "her": ("son", "sa", "ses"),
    "our": ("notre", "notre", "nos"),
    "their": ("leur", "leur", "leurs"),
}
DEFINITE = {"the": ("le", "la", "les"), "this": ("ce", "cette", "ces"), **OWN}
BEFORE_VOWEL = {"le": "l'", "la": "l'", "ma": "mon", "sa": "son", "ce": "cet"}


def _articles(
    determiner: str, feminine: bool, plural: bool, following: str, before: bool, denied: bool
) -> tuple[str, ...]:
    """French words for an English determiner; `before` says that an adjective comes next."""
    vowel = starts_with_vowel(following)
    if determiner in DEFINITE:
        word = DEFINITE[determiner][2 if plural else feminine]
        return (BEFORE_VOWEL.get(word, word) if vowel else word,)
    if denied or (determiner == "" and before):  # "pas de pommes", "de petites pommes"
        return ("d'" if vowel else "de",)
    if determiner == "some":
        return ("de", "l'") if vowel else ("de", "la") if feminine else ("du",)
    return ("des",) if determiner == "" else ("une",) if feminine else ("un",)


@cache
def noun_phrase(
    noun: str, determiner: str = "the", plural: bool = False, adjective: tuple[str, ...] = (),
    very: bool = False, number: int = 0, denied: bool = False,
) -> Phrase:  # fmt: skip
    """A noun with its determiner, number and adjectives.

    `determiner` is "the", "a", "some" (bread, water), "this", a possessive, or "" for a bare plural
    or a number alone. `adjective` names at most one that goes before the noun in French, then at
    most one that goes after; `very` belongs to the first. `denied`: the object of a negated verb.
    """
    word, plural = nouns[noun], plural or determiner == "" or number > 1
    feminine, head = word.gender == "f", word.french[plural]
    counting = english_number(number).split() if number else []
    shown = "these" if determiner == "this" and plural else determiner
    shown = "any" if determiner == "some" and denied else shown
    opening = [*([shown] if shown else []), *counting]
    english = [*opening, *(["very"] if very else []), *adjective, word.forms[plural]]
    last = len(english) - 1  # where the English noun is

    # French words after the number, each with its English position.
    rest, behind = [], []
    for i, name in enumerate(adjective, last - len(adjective)):
        item = adjectives[name]
        form = "p" if plural else "v" if starts_with_vowel(head) and not feminine else "s"
        if not item.before and form == "v":
            form = "s"
        place = rest if item.before else behind
        if very and name == adjective[0]:
            place.append(("très", i - 1))
        place.append((item.french[word.gender + form], i))
    before = bool(rest)
    rest = [*rest, (head, last), *behind]

    counted = french_number(number, feminine).split() if number else []
    articles: tuple[str, ...] = ()
    if shown or not number:
        following = (counted or [rest[0][0]])[0]
        articles = _articles(determiner, feminine, plural, following, before, denied)
    links = [(0 if shown else last, j) for j in range(len(articles))]
    start = len(opening) - len(counting)
    links += [
        (start + i, len(articles) + j) for i in range(len(counting)) for j in range(len(counted))
    ]
    links += [(i, len(articles) + len(counted) + j) for j, (_, i) in enumerate(rest)]
    if shown == "a" and english[1][0] in "aeiou":
        english[0] = "an"
    french = (*articles, *counted, *(form for form, _ in rest))
    return Phrase(tuple(english), french, tuple(links), tuple((noun, name) for name in adjective))


def named(noun: str, determiner: str = "the", plural: bool = False, **rest) -> Subject:
    """A noun phrase with what agrees with it; takes what `noun_phrase` takes."""
    plural = plural or determiner == "" or rest.get("number", 0) > 1
    phrase = noun_phrase(noun, determiner, plural, **rest)
    return Subject(phrase, 3 if plural else 1, nouns[noun].gender, (noun,))


def both(first: Subject, second: Subject) -> Subject:
    """Two subjects joined by "and"; masculine if either is."""
    gender = "f" if first.gender == second.gender == "f" else "m"
    phrase = join(first.phrase, CONJUNCTIONS["and"], second.phrase)
    return Subject(phrase, 3, gender, first.names + second.names)


PRONOUNS = {
    "i": Subject(aligned("i", "je"), 0),
    "he": Subject(aligned("he", "il"), 1),
    "she": Subject(aligned("she", "elle"), 1, "f"),
    "we": Subject(aligned("we", "nous"), 2),
    "they": Subject(aligned("they", "ils"), 3),
}
BE = ("am", "is", "are", "are")
# The French words around the verb, or after it.
MODES = {
    "": (),
    "not": ("ne", "pas"),
    "never": ("ne", "jamais"),
    "often": ("souvent",),
    "always": ("toujours",),
}


@cache
def verb_group(
    verb: str, person: int, future: bool = False, mode: str = "", then: str = "",
    question: bool = False,
) -> Phrase:  # fmt: skip
    """A conjugated verb with its auxiliary, negation or adverb, and preposition.

    `mode` is one of MODES, `then` the verb after "want to"; in a `question` the English auxiliary
    has moved to the front and is left out here.
    """
    word, base = verbs[verb], verb.split()[0]
    conjugated = (word.future if future else word.present)[person]
    around = MODES[mode]
    if len(around) == 2:
        ne = "n'" if starts_with_vowel(conjugated) else "ne"
        french, at = [ne, conjugated, around[1]], 1
    else:
        french, at = [conjugated, *around], 0
    others = [j for j in range(len(french)) if j != at]

    # English words, each with the French positions it links to.
    said: list[tuple[str, list[int]]] = [(mode, others)] if mode else []
    if verb == "be" and not future:
        if not question:
            said.insert(0, (BE[person], [at]))
    else:
        auxiliary = []
        if future:
            auxiliary = [("will", [at])]
        elif mode == "not":
            auxiliary = [("does" if person == 1 else "do", others)]
        inflected = not (auxiliary or question) and person == 1
        said = [*([] if question else auxiliary), *said, (word.third if inflected else base, [at])]
    if then:
        word = verbs[then]
        at = len(french)
        french.append(word.infinitive)
        said += [("to", [at]), (then.split()[0], [at])]
    if word.preposition:
        french.append(word.preposition)
        if not word.particle:
            said[-1][1].append(len(french) - 1)
    if word.particle:
        said.append((word.particle, [len(french) - 1 if word.preposition else at]))
    links = tuple((i, j) for i, (_, positions) in enumerate(said) for j in positions)
    return Phrase(tuple(form for form, _ in said), tuple(french), links)


def clause(
    subject: Subject, verb: str, *rest: Phrase, future: bool = False, mode: str = "",
    then: str = "", question: bool = False,
) -> Phrase:  # fmt: skip
    """Subject, verb group (see `verb_group`) and the phrases after it, without the final mark."""
    group = verb_group(verb, subject.person, future, mode, then, question)
    acts = [name.split()[0] for name in (verb, then) if name not in ("", "be")]
    group = group._replace(combinations=tuple((n, v) for n in subject.names for v in acts))
    if not question:
        return join(subject.phrase, group, *rest)
    auxiliary = "does" if subject.person == 1 else "do"
    if future or verb == "be":
        auxiliary = "will" if future else BE[subject.person]
    whole = join(linked(auxiliary, "est-ce que"), subject.phrase, group, *rest)
    if auxiliary in ("do", "does"):
        return whole
    at = 2 + len(subject.phrase.french) + (mode in ("not", "never"))  # the French verb
    return whole._replace(links=(*whole.links, (0, at)))


def sentence(*phrases: Phrase, mark: str = ".") -> Phrase:
    """Phrases with a full stop or a question mark."""
    return join(*phrases, aligned(mark, mark))


def predicate(subject: Subject, adjective: str, very: bool = False) -> Phrase:
    """The adjective after "be", agreeing with the subject."""
    form = adjectives[adjective].french[subject.gender + ("p" if subject.person > 1 else "s")]
    phrase = aligned(f"very {adjective}", f"très {form}") if very else aligned(adjective, form)
    return phrase._replace(combinations=tuple((name, adjective) for name in subject.names))


def after(preposition: str, phrase: Phrase) -> Phrase:
    """A noun phrase after one of PREPOSITIONS."""
    return join(PREPOSITIONS[preposition], phrase)


def which(head: Subject, verb: str, *rest: Phrase) -> Subject:
    """The head with a relative clause: "the boy who eats an apple", "the cat that sleeps"."""
    pronoun = "who" if "p" in nouns[head.names[0]].kinds else "that"
    relative = clause(head._replace(phrase=aligned(pronoun, "qui")), verb, *rest)
    return head._replace(phrase=join(head.phrase, relative))


def there_is(what: Subject, place: Phrase) -> Phrase:
    """A statement such as "there is a cat in the garden"."""
    are = "are" if what.person == 3 else "is"
    there = Phrase(("there", are), ("il", "y", "a"), ((0, 0), (0, 1), (1, 2)))
    return join(there, what.phrase, place)


PREPOSITIONS = {
    "in": aligned("in", "dans"),
    "near": linked("near", "près de"),
    "behind": aligned("behind", "derrière"),
    "in front of": linked("in front of", "devant"),
    "with": aligned("with", "avec"),
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
FUTURE_TIMES = (
    aligned("tomorrow", "demain"),
    aligned("soon", "bientôt"),
    linked("tonight", "ce soir"),
)

# What follows decides which of the grammar's sentences are worth saying, and how often.


def _fit(kinds: str, candidates: Iterable) -> tuple[str, ...]:
    return tuple(c.name for c in candidates if set(kinds) & set(c.kinds))


OF_KIND = {kind: _fit(kind, nouns.values()) for kind in "paofmdthigsw"}
OBJECTS = {verb.name: _fit(verb.objects, nouns.values()) for verb in verbs.values()}
FITTING = {
    noun.name: (
        _fit(noun.kinds, [a for a in adjectives.values() if a.before]),
        _fit(noun.kinds, [a for a in adjectives.values() if not a.before]),
    )
    for noun in nouns.values()
}
PRONOUN_FITTING = (("big", "small", "young"), FITTING["king"][1])
COLOURS = set(_fit("k", adjectives.values()))
ACTING = tuple(name for name in verbs if name not in ("be", *REPORTING))
STATES = ("want", "have", "like", "know", "live in")  # not "now", not "want to have"
INFINITIVES = tuple(name for name in ACTING if name not in (*STATES, "fall", "lose", "come from"))
NUMBERS = (*range(2, 21), 21, 22, 30, 35, 40, 48, 50, 60, 67, 70, 71, 76, 80, 84, 90, 99, 100)

# Determiners by weight; "#" is a number.
COUNTED = ("#", "#", "#", "the#", "my#")
AS_SUBJECT = ("the",) * 18 + ("a",) * 7 + ("this",) * 4 + tuple(OWN) * 2 + COUNTED
AS_OBJECT = ("the",) * 7 + ("a",) * 5 + ("",) * 4 + ("this",) + tuple(OWN) + COUNTED
DENIED = tuple(d for d in AS_OBJECT if "#" not in d)
KNOWN = ("the",) * 6 + ("this",) + tuple(OWN)
AFTER_PREPOSITION = (*KNOWN, "a", "a")
HOW = ("",) * 9 + ("not",) * 3 + ("never", "often", "always")


class _Writer:
    """Draws sentences. Random.random alone is the same in every version of Python."""

    def __init__(self, seed: int):
        self.random = Random(seed).random

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def chance(self, share: float) -> bool:
        return self.random() < share

    def noun(
        self, name: str, determiners: Sequence[str], share: float = 0.27, plural: float = 0.35,
        numbers: Sequence[int] = NUMBERS, denied: bool = False,
    ) -> Subject:  # fmt: skip
        """A noun phrase, as a Subject; `share` of them have an adjective."""
        kinds, number = nouns[name].kinds, 0
        determiner = self.pick(determiners)
        if determiner.endswith("#"):
            determiner, number = determiner[:-1], self.pick(numbers)
        if determiner in OWN and "u" in kinds:
            determiner = "the"
        elif determiner in ("a", "this", "the") and "x" in kinds:
            determiner = self.pick(tuple(OWN))
        if "m" in kinds or "d" in kinds:
            many, number = False, 0
            determiner = "some" if determiner in ("", "a") else determiner
        else:
            many = determiner != "a" and self.chance(plural)
        adjective: tuple[str, ...] = ()
        very = False
        if self.chance(share * 1.6 if "o" in kinds or "f" in kinds else share):
            first, second = FITTING[name]
            if first and second and self.chance(0.2):
                adjective = (self.pick(first), self.pick(second))
            else:
                adjective = (self.pick(first + second),)
                very = self.chance(0.12) and adjective[0] not in COLOURS
        denied = denied and determiner in ("", "a", "some")
        return named(
            name, determiner, many, adjective=adjective, very=very, number=number, denied=denied
        )

    def after(self, preposition: str, kind: str) -> Phrase:
        """A place or a person after a preposition."""
        noun = self.noun(self.pick(OF_KIND[kind]), AFTER_PREPOSITION, 0.22, 0.15)
        return after(preposition, noun.phrase)

    def place(self, verb: str = "") -> Phrase:
        if verb == "swim":
            return self.after("in", "s")
        preposition = self.pick(("in", "in", "in", "near", "behind", "in front of"))
        return self.after(preposition, "h" if preposition == "near" else "i")

    def subject(self, kind: str, short: bool = False, share: float = 0.27) -> Subject:
        """A pronoun or a noun phrase; if not `short` also two nouns or a relative clause."""
        if kind == "p" and self.chance(0.52):
            return PRONOUNS[self.pick(("i", "we") * 3 + ("he", "she", "they"))]
        if kind in "md":
            return self.noun(self.pick(OF_KIND[kind]), KNOWN, share)
        draw = 1.0 if short else self.random()
        if draw < 0.06 and kind in "ao":
            owned = self.noun(self.pick(OF_KIND[kind]), ("the",), share)
            return owned._replace(phrase=join(owned.phrase, self.after("of", "p")))
        head = self.noun(self.pick(OF_KIND[kind]), AS_SUBJECT, share, numbers=(2, 3, 4, 5, 6))
        if kind in "pa" and draw < 0.14:
            second = self.noun(self.pick(OF_KIND[kind]), AS_SUBJECT, share, numbers=(2, 3, 4, 5, 6))
            return both(head, second) if second.names != head.names else head
        if kind in "pa" and draw < 0.2:
            return self.relative(head)
        return head

    def verb(self, kind: str, choices: Sequence[str] = ACTING) -> str:
        while kind not in verbs[verb := self.pick(choices)].subjects:
            pass
        return verb

    def relative(self, head: Subject) -> Subject:
        kind = "p" if "p" in nouns[head.names[0]].kinds else "a"
        verb = self.verb(kind)
        return which(head, verb, *self.complements(verb, kind, short=True))

    def complements(
        self, verb: str, kind: str, denied: bool = False, short: bool = False
    ) -> list[Phrase]:
        """What follows the verb: object, recipient, place, company."""
        word = verbs[verb]
        if not word.objects:
            if self.chance(0.45):
                return [self.place(verb)]
            company = verb not in ("fall", "sleep") and self.chance(0.25)
            return [self.after("with", kind)] if company else []
        name = self.pick(OF_KIND["w"] if verb == "drink" and kind == "a" else OBJECTS[verb])
        if word.preposition:
            return [self.noun(name, AFTER_PREPOSITION, 0.25, 0.2).phrase]
        kinds = nouns[name].kinds
        if not short and ("p" in kinds or "a" in kinds) and self.chance(0.06):
            return [self.relative(self.noun(name, ("the",))).phrase]
        if not short and "o" in kinds and self.chance(0.05):
            return [self.noun(name, ("the",)).phrase, self.after("of", "p")]
        determiners = KNOWN if word.definite else DENIED if denied else AS_OBJECT
        phrases = [self.noun(name, determiners, denied=denied).phrase]
        if verb in RECIPIENT and not (short and self.chance(0.5)):
            phrases.append(self.after("to", "p"))
        elif not short and self.chance(0.1):
            phrases.append(self.place())
        return phrases

    def description(self, short: bool, mode: str, **how) -> Phrase:
        """A clause with "be" and an adjective."""
        subject = self.subject(
            self.pick(("p", "p", "p", "a", "o", "o", "h", "f", "t", "m", "d")), short, 0
        )
        fitting = FITTING[subject.names[0]] if subject.names else PRONOUN_FITTING
        # "new" after "be" would be "neuf" for some things and "nouveau" for others.
        suitable = [name for part in fitting for name in part if name != "new"]
        for other in subject.names[1:]:
            suitable = [a for a in suitable if a in FITTING[other][0] + FITTING[other][1]]
        adjective = self.pick(suitable)
        if mode != "not" and adjective not in words.PASSING.split():
            mode = ""
        very = mode == "" and adjective not in COLOURS and self.chance(0.25)
        end = predicate(subject, adjective, very)
        return clause(subject, "be", end, mode=mode, **how)

    def clause(self, future: bool, asked: bool = False, short: bool = False) -> Phrase:
        """One clause, without its final mark."""
        mode = self.pick(HOW)
        if asked and (mode == "never" or (mode == "not" and self.chance(0.5))):
            mode = ""
        draw, then = self.random(), ""
        if draw < 0.13:
            return self.description(short, mode, future=future, question=asked)
        kind = "p" if draw < 0.8 else "a"
        verb = self.verb(kind)
        if kind == "p" and self.chance(0.1):
            verb, then = "want", self.verb("p", INFINITIVES)
        denied = mode in ("not", "never")
        rest = self.complements(then or verb, kind, denied, short)
        length = sum(len(phrase.french) for phrase in rest)
        if length < 4 and verb not in STATES and mode == "" and self.chance(0.15):
            rest.append(self.pick(FUTURE_TIMES if future else PRESENT_TIMES))
        subject = self.subject(kind, short)
        return clause(subject, verb, *rest, future=future, mode=mode, then=then, question=asked)

    def sentence(self) -> Phrase:
        draw, future = self.random(), self.chance(0.5)
        if draw < 0.61:
            return sentence(self.clause(future))
        if draw < 0.77:
            return sentence(self.clause(future, asked=True), mark="?")
        if draw < 0.8:
            name = self.pick(OF_KIND[self.pick("pao")])
            what = self.noun(name, ("#",) if "x" in nouns[name].kinds else ("a", "#"))
            return sentence(there_is(what, self.place()))
        if draw < 0.87:
            report = clause(self.subject("p", True), self.pick(REPORTING), future=self.chance(0.4))
            return sentence(report, CONJUNCTIONS["that"], self.clause(future, short=True))
        conjunction = CONJUNCTIONS[self.pick(("and", "but", "because"))]
        first = self.clause(future, short=True)
        return sentence(first, conjunction, self.clause(future, short=True))


def _text(tokens: Iterable[str], french: bool) -> str:
    line = " ".join(tokens).replace(" .", ".").replace(" ,", ",")
    return line.replace("' ", "'") if french else line.replace(" ?", "?")


def pair(phrase: Phrase) -> Pair:
    """A whole sentence as normally spaced text with sorted links."""
    english, french = _text(phrase.english, False), _text(phrase.french, True)
    return Pair(english, french, tuple(sorted(phrase.links)))


@dataclass(frozen=True)
class Phrasebook(Splits[Pair]):
    """The corpus in four splits that share no sentence.

    `withheld` holds (noun, adjective) and (subject noun, verb) pairs, as English base forms, that
    occur in `new_combinations` alone; each of its sentences has at least one.
    """

    new_combinations: list[Pair]
    withheld: frozenset[tuple[str, str]]
    _combinations: dict[str, Combinations] = field(repr=False)

    def combinations(self, pair: Pair) -> Combinations:
        """The (noun, adjective) and (noun, verb) pairs in a sentence of this corpus."""
        return self._combinations[pair.source]


def _withheld(writer: _Writer) -> frozenset[tuple[str, str]]:
    """A random share of all the combinations the grammar allows."""
    allowed = [(n, a) for n in nouns for place in FITTING[n] for a in place]
    allowed += [
        (n, v.split()[0]) for v in ACTING for kind in verbs[v].subjects for n in OF_KIND[kind]
    ]
    # Without repeats ("look at" and "look for"), in an order that is the same everywhere.
    return frozenset(each for each in dict.fromkeys(allowed) if writer.chance(WITHHELD_SHARE))


def load(seed: int = 0) -> Phrasebook:
    """Write the corpus, once a seed. The same seed gives the same corpus on every machine."""
    return _load(as_seed(seed))


@lru_cache(maxsize=4)
def _load(seed: int) -> Phrasebook:
    writer = _Writer(seed)
    withheld = _withheld(writer)
    usual: list[Pair] = []
    unusual: list[Pair] = []
    combinations: dict[str, Combinations] = {}
    while len(usual) < TRAIN + VALIDATION + TEST or len(unusual) < NEW_COMBINATIONS:
        phrase = writer.sentence()
        pool, enough = usual, TRAIN + VALIDATION + TEST
        if not withheld.isdisjoint(phrase.combinations):
            pool, enough = unusual, NEW_COMBINATIONS
        if len(pool) == enough or len(phrase.english) > LONGEST:
            continue
        made = pair(phrase)
        if made.source not in combinations:
            combinations[made.source] = phrase.combinations
            pool.append(made)
    held_out = TEST + VALIDATION
    splits = usual[held_out:], usual[TEST:held_out], usual[:TEST]
    return Phrasebook(*splits, unusual, withheld, combinations)
