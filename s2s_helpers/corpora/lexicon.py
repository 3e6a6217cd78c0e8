"""The phrasebook's words, English and French, with their forms.

A line of a table holds one word; forms that the rules below would get wrong stand after a slash.
The last columns say by letter what a word is (nouns) or what it goes with (adjectives, verbs):

p person    a animal   f food to count   m food by measure   d drink        w water or milk
t text      y written  c clothes         o object            k coloured     r coloured fruit
l opens     v holds    n toy             h place             g one goes to  i one is in
s one swims in         x kin, with a possessive              u never with a possessive
"""

from collections.abc import Callable
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


# English, French, gender, kinds
NOUNS = """
man/men homme m pu
woman/women femme f pu
boy garçon m pu
girl fille f pu
child/children enfant m p
baby bébé m p
king roi m p
queen reine f p
prince prince m p
princess princesse f p
brother frère m px
sister sœur f px
uncle oncle m px
aunt tante f px
hero héros m p
cat chat m a
dog chien m a
horse cheval m a
bird oiseau m a
mouse/mice souris f a
cow vache f a
wolf/wolves loup m au
bear ours m au
owl hibou/hiboux m a
bee abeille f a
elephant éléphant m a
goat chèvre f a
animal animal m a
apple pomme f fr
orange orange f f
egg œuf m f
cake gâteau m f
tomato tomate f fr
cherry cerise f fr
onion oignon m f
pear poire f fr
bread pain m m
cheese fromage m m
soup soupe f m
meat viande f m
honey miel m m
rice riz m m
water eau f dw
milk lait m dw
coffee café m d
tea thé m d
book livre m otykl
letter lettre f otyl
newspaper journal m ot
story histoire f ty
hat chapeau m ock
coat manteau m ock
dress robe f ock
car voiture f ok
boat bateau m okn
box boîte f oklv
bag sac m oklv
key clé f o
chair chaise f ok
table table f ok
knife/knives couteau m o
flower fleur f ok
umbrella parapluie m okl
toy jouet m okn
ball ballon m okn
axe hache f o
clock horloge f o
ladder échelle f o
park parc m hgiu
market marché m hgu
school école f hgi
garden jardin m hi
forest forêt f hiu
village village m hgi
church église f hgiu
hospital hôpital m hgiu
hotel hôtel m hgi
castle château m hgi
museum musée m hgiu
office bureau m hgi
house maison f hik
library bibliothèque f hgi
beach plage f hgu
lake lac m hgsu
river rivière f hgsu
"""

# English, French masculine(/feminine/masculine before a vowel), place, kinds
ADJECTIVES = """
big grand before paoh
small petit before paofh
beautiful beau/belle/bel before paofht
old vieux/vieille/vieil before paoht
new nouveau/nouvelle/nouvel before oht
young jeune before pa
good bon/bonne before fmdto
bad mauvais before fmdto
pretty joli before ockh
fat gros/grosse before a
red rouge after kr
white blanc/blanche after ka
black noir after ka
grey gris after ka
green vert after kr
blue bleu after k
yellow jaune after kr
happy heureux after pa
sad triste after pat
tired fatigué after pa
strong fort after pa
intelligent intelligent after pa
brave courageux after p
jealous jaloux/jalouse after p
proud fier after p
kind gentil/gentille after p
dangerous dangereux after pas
rich riche after p
famous célèbre after pth
expensive cher after oc
heavy lourd after o
dirty sale after oh
clean propre after oh
empty vide after vh
hot chaud after md
cold froid after md
fresh frais/fraîche after fmw
strange étrange after paoht
interesting intéressant after th
"""

# English(_particle), French(_preposition), present of je/il/nous/ils and future stem where
# irregular, subjects, objects; objects in capitals take only "the", "this" and possessives.
VERBS = """
sleep dormir dors/dort/dormons/dorment/dormir pa -
run courir cours/court/courons/courent/courr pa -
swim nager - pa -
work travailler - p -
dance danser - p -
walk marcher - pa -
sing chanter - p -
fall tomber - pa -
go_to aller_à vais/va/allons/vont/ir pa g
come_from venir_de viens/vient/venons/viennent/viendr pa h
enter entrer_dans - pa i
live_in habiter_dans - pa i
eat manger - pa fm
drink boire bois/boit/buvons/boivent/boir p d
read lire lis/lit/lisons/lisent/lir p t
write écrire écris/écrit/écrivons/écrivent/écrir p y
see voir vois/voit/voyons/voient/verr pa paoh
look_at regarder - pa paoh
look_for chercher - pa paof
listen_to écouter - p P
like aimer - pa PAOFMT
find trouver - pa paof
lose perdre perds/perd/perdons/perdent/perdr p aoc
buy acheter achète/achète/achetons/achètent/achèter p aofm
sell vendre vends/vend/vendons/vendent/vendr p aofm
want vouloir veux/veut/voulons/veulent/voudr p ofmd
have avoir ai/a/avons/ont/aur p ao
wear porter - p c
open ouvrir ouvre/ouvre/ouvrons/ouvrent/ouvrir p l
close fermer - p l
help aider - p pa
follow suivre suis/suit/suivons/suivent/suivr pa pa
know connaître connais/connaît/connaissons/connaissent/connaîtr p PHT
wait_for attendre attends/attend/attendons/attendent/attendr pa pa
play_with jouer_avec - pa pan
think_of penser_à - p paoh
talk_to parler_à - p pa
talk_about parler_de - p paoth
give donner - p aofm
show montrer - p aot
send envoyer envoie/envoie/envoyons/envoient/enverr p ot
say dire dis/dit/disons/disent/dir p -
think penser - p -
hope espérer espère/espère/espérons/espèrent/espérer p -
be être suis/est/sommes/sont/ser paofmdth -
"""

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
    english, french, gender, kinds = line.split()
    english, _, plural = english.partition("/")
    french, _, pluriel = french.partition("/")
    forms = (english, plural or english_s(english))
    return Noun(english, forms, (french, pluriel or french_plural(french)), gender, kinds)


def _adjective(line: str) -> Adjective:
    english, french, place, kinds = line.split()
    masculine, feminine, vowel = (*french.split("/"), "", "")[:3]
    feminine = feminine or french_feminine(masculine)
    forms = {"ms": masculine, "mv": vowel or masculine, "mp": french_plural(masculine)}
    forms |= {"fs": feminine, "fp": feminine + "s"}
    return Adjective(english, forms, place == "before", kinds)


def _verb(line: str) -> Verb:
    english, french, forms, subjects, objects = line.split()
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


def _table(text: str, parse: Callable) -> dict:
    return {word.name: word for word in map(parse, text.split("\n")[1:-1])}


nouns = _table(NOUNS, _noun)
adjectives = _table(ADJECTIVES, _adjective)
verbs = _table(VERBS, _verb)
