"""Sentences whose French was written by hand, beside the call of the grammar that should say them.

Nothing here was copied from the grammar's output. One sentence a line, however long.
"""

# ruff: noqa: E501

from s2s_helpers.corpora.phrasebook import (
    CONJUNCTIONS,
    FUTURE_TIMES,
    PRESENT_TIMES,
    PRONOUNS,
    after,
    both,
    clause,
    join,
    named,
    predicate,
    sentence,
    there_is,
    which,
)

I, HE, SHE, WE, THEY = (PRONOUNS[word] for word in ("i", "he", "she", "we", "they"))  # noqa: E741
AND, BUT, BECAUSE, THAT = (CONJUNCTIONS[word] for word in ("and", "but", "because", "that"))
NOW, TODAY, EVERY_DAY, EVERY_MORNING = PRESENT_TIMES
TOMORROW, SOON, TONIGHT = FUTURE_TIMES
ALL = {"plural": True}


def n(noun, determiner="the", *adjective, **rest):
    """A subject."""
    return named(noun, determiner, adjective=adjective, **rest)


def o(noun, determiner="the", *adjective, **rest):
    """An object."""
    return n(noun, determiner, *adjective, **rest).phrase


def say(*clause_parts, **rest):
    return sentence(clause(*clause_parts, **rest))


def ask(*clause_parts, **rest):
    return sentence(clause(*clause_parts, question=True, **rest), mark="?")


def is_(subject, adjective, very=False, **rest):
    return say(subject, "be", predicate(subject, adjective, very), **rest)


def of(head, owner):
    return head._replace(phrase=join(head.phrase, after("of", owner)))


CHECKED = [
    # Articles, elision, mute and aspirated h.
    ("the small cat sleeps.", "le petit chat dort.", say(n("cat", "the", "small"), "sleep")),
    ("the child eats an apple.", "l'enfant mange une pomme.", say(n("child"), "eat", o("apple", "a"))),
    ("the man runs.", "l'homme court.", say(n("man"), "run")),
    ("the owl sleeps.", "le hibou dort.", say(n("owl"), "sleep")),
    ("the owls sleep.", "les hiboux dorment.", say(n("owl", **ALL), "sleep")),
    ("the hero sings.", "le héros chante.", say(n("hero"), "sing")),
    ("she sells the axe.", "elle vend la hache.", say(SHE, "sell", o("axe"))),
    ("he writes the story.", "il écrit l'histoire.", say(HE, "write", o("story"))),
    ("i see a bee.", "je vois une abeille.", say(I, "see", o("bee", "a"))),
    ("he sees a clock.", "il voit une horloge.", say(HE, "see", o("clock", "a"))),
    ("i like the bird.", "j'aime l'oiseau.", say(I, "like", o("bird"))),
    ("i do not like the bears.", "je n'aime pas les ours.", say(I, "like", o("bear", **ALL), mode="not")),
    # Irregular plurals.
    ("the horses run.", "les chevaux courent.", say(n("horse", **ALL), "run")),
    ("the animals drink some water.", "les animaux boivent de l'eau.", say(n("animal", **ALL), "drink", o("water", "some"))),
    ("the birds eat cherries.", "les oiseaux mangent des cerises.", say(n("bird", **ALL), "eat", o("cherry", ""))),
    ("the men read newspapers.", "les hommes lisent des journaux.", say(n("man", **ALL), "read", o("newspaper", ""))),
    ("the women dance.", "les femmes dansent.", say(n("woman", **ALL), "dance")),
    ("the children will swim.", "les enfants nageront.", say(n("child", **ALL), "swim", future=True)),
    ("the mice are white.", "les souris sont blanches.", is_(n("mouse", **ALL), "white")),
    ("the wolves are dangerous.", "les loups sont dangereux.", is_(n("wolf", **ALL), "dangerous")),
    ("they buy knives.", "ils achètent des couteaux.", say(THEY, "buy", o("knife", ""))),
    ("we see new hospitals.", "nous voyons de nouveaux hôpitaux.", say(WE, "see", o("hospital", "", "new"))),
    # Adjectives: place, agreement, the forms before a vowel.
    ("he finds a beautiful bird.", "il trouve un bel oiseau.", say(HE, "find", o("bird", "a", "beautiful"))),
    ("the old man works.", "le vieil homme travaille.", say(n("man", "the", "old"), "work")),
    ("we live in a new hotel.", "nous habitons dans un nouvel hôtel.", say(WE, "live in", o("hotel", "a", "new"))),
    ("the beautiful owl sleeps.", "le beau hibou dort.", say(n("owl", "the", "beautiful"), "sleep")),
    ("the old queen is jealous.", "la vieille reine est jalouse.", is_(n("queen", "the", "old"), "jealous")),
    ("she wears a beautiful red dress.", "elle porte une belle robe rouge.", say(SHE, "wear", o("dress", "a", "beautiful", "red"))),
    ("they have new white cars.", "ils ont de nouvelles voitures blanches.", say(THEY, "have", o("car", "", "new", "white"))),
    ("he buys small apples.", "il achète de petites pommes.", say(HE, "buy", o("apple", "", "small"))),
    ("he buys green apples.", "il achète des pommes vertes.", say(HE, "buy", o("apple", "", "green"))),
    ("the old animals are happy.", "les vieux animaux sont heureux.", is_(n("animal", "the", "old", **ALL), "happy")),
    ("the girls are proud.", "les filles sont fières.", is_(n("girl", **ALL), "proud")),
    ("the princess is very kind.", "la princesse est très gentille.", is_(n("princess"), "kind", True)),
    ("the milk is fresh.", "le lait est frais.", is_(n("milk"), "fresh")),
    ("the water is fresh.", "l'eau est fraîche.", is_(n("water"), "fresh")),
    ("this car is very expensive.", "cette voiture est très chère.", is_(n("car", "this"), "expensive", True)),
    ("we read a very interesting story.", "nous lisons une histoire très intéressante.", say(WE, "read", o("story", "a", "interesting", very=True))),
    ("a very old king sleeps.", "un très vieux roi dort.", say(n("king", "a", "old", very=True), "sleep")),
    ("the fat mouse eats some good cheese.", "la grosse souris mange du bon fromage.", say(n("mouse", "the", "fat"), "eat", o("cheese", "some", "good"))),
    ("the king and the queen are tired.", "le roi et la reine sont fatigués.", is_(both(n("king"), n("queen")), "tired")),
    ("the queen and the princess are tired.", "la reine et la princesse sont fatiguées.", is_(both(n("queen"), n("princess")), "tired")),
    # Negation.
    ("the dog does not eat.", "le chien ne mange pas.", say(n("dog"), "eat", mode="not")),
    ("he does not open the umbrella.", "il n'ouvre pas le parapluie.", say(HE, "open", o("umbrella"), mode="not")),
    ("she does not eat apples.", "elle ne mange pas de pommes.", say(SHE, "eat", o("apple", "", denied=True), mode="not")),
    ("i do not have an orange.", "je n'ai pas d'orange.", say(I, "have", o("orange", "a", denied=True), mode="not")),
    ("we do not have a car.", "nous n'avons pas de voiture.", say(WE, "have", o("car", "a", denied=True), mode="not")),
    ("they will not eat any bread.", "ils ne mangeront pas de pain.", say(THEY, "eat", o("bread", "some", denied=True), future=True, mode="not")),
    ("he never drinks any water.", "il ne boit jamais d'eau.", say(HE, "drink", o("water", "some", denied=True), mode="never")),
    ("i am not rich.", "je ne suis pas riche.", is_(I, "rich", mode="not")),
    ("the hotel is not clean.", "l'hôtel n'est pas propre.", is_(n("hotel"), "clean", mode="not")),
    ("the church will not be empty.", "l'église ne sera pas vide.", is_(n("church"), "empty", future=True, mode="not")),
    ("he does not want to sell the horse.", "il ne veut pas vendre le cheval.", say(HE, "want", o("horse"), mode="not", then="sell")),
    # "some", bread and water.
    ("we eat some bread.", "nous mangeons du pain.", say(WE, "eat", o("bread", "some"))),
    ("i drink some coffee.", "je bois du café.", say(I, "drink", o("coffee", "some"))),
    ("the boy wants some hot soup.", "le garçon veut de la soupe chaude.", say(n("boy"), "want", o("soup", "some", "hot"))),
    # Contractions.
    ("we go to the park.", "nous allons au parc.", say(WE, "go to", o("park"))),
    ("she will go to the school.", "elle ira à l'école.", say(SHE, "go to", o("school"), future=True)),
    ("he comes from the market.", "il vient du marché.", say(HE, "come from", o("market"))),
    ("they come from the beaches.", "ils viennent des plages.", say(THEY, "come from", o("beach", **ALL))),
    ("i come from the hospital.", "je viens de l'hôpital.", say(I, "come from", o("hospital"))),
    ("the girl gives a flower to the king.", "la fille donne une fleur au roi.", say(n("girl"), "give", o("flower", "a"), after("to", o("king")))),
    ("he shows the book to the children.", "il montre le livre aux enfants.", say(HE, "show", o("book"), after("to", o("child", **ALL)))),
    ("the hat of the prince is black.", "le chapeau du prince est noir.", is_(of(n("hat"), o("prince")), "black")),
    ("we sleep near the castle.", "nous dormons près du château.", say(WE, "sleep", after("near", o("castle")))),
    ("she works near a big house.", "elle travaille près d'une grande maison.", say(SHE, "work", after("near", o("house", "a", "big")))),
    ("he thinks of the owl.", "il pense au hibou.", say(HE, "think of", o("owl"))),
    ("we talk about the hero.", "nous parlons du héros.", say(WE, "talk about", o("hero"))),
    # Prepositions that only one language has.
    ("he looks at the flowers.", "il regarde les fleurs.", say(HE, "look at", o("flower", **ALL))),
    ("she listens to her uncle.", "elle écoute son oncle.", say(SHE, "listen to", o("uncle", "her"))),
    ("i look for my key.", "je cherche ma clé.", say(I, "look for", o("key", "my"))),
    ("we wait for the baby.", "nous attendons le bébé.", say(WE, "wait for", o("baby"))),
    ("they enter the museum.", "ils entrent dans le musée.", say(THEY, "enter", o("museum"))),
    ("the child plays with a ball.", "l'enfant joue avec un ballon.", say(n("child"), "play with", o("ball", "a"))),
    # Possessives.
    ("my ladder is heavy.", "mon échelle est lourde.", is_(n("ladder", "my"), "heavy")),
    ("my old school is small.", "ma vieille école est petite.", is_(n("school", "my", "old"), "small")),
    ("his sister follows our dogs.", "sa sœur suit nos chiens.", say(n("sister", "his"), "follow", o("dog", "our", **ALL))),
    ("their brothers help my aunt.", "leurs frères aident ma tante.", say(n("brother", "their", **ALL), "help", o("aunt", "my"))),
    ("this child loses his coat.", "cet enfant perd son manteau.", say(n("child", "this"), "lose", o("coat", "his"))),
    ("these women know our village.", "ces femmes connaissent notre village.", say(n("woman", "this", **ALL), "know", o("village", "our"))),
    # Numbers.
    ("i have two brothers.", "j'ai deux frères.", say(I, "have", o("brother", "", number=2))),
    ("he sells eighty cakes.", "il vend quatre-vingts gâteaux.", say(HE, "sell", o("cake", "", number=80))),
    ("she sees twenty-one cows.", "elle voit vingt et une vaches.", say(SHE, "see", o("cow", "", number=21))),
    ("they will buy one hundred eggs.", "ils achèteront cent œufs.", say(THEY, "buy", o("egg", "", number=100), future=True)),
    ("the three goats fall.", "les trois chèvres tombent.", say(n("goat", "the", number=3), "fall")),
    ("we send seventy-one letters.", "nous envoyons soixante et onze lettres.", say(WE, "send", o("letter", "", number=71))),
    # The future.
    ("i will see the lake tomorrow.", "je verrai le lac demain.", say(I, "see", o("lake"), TOMORROW, future=True)),
    ("he will sleep soon.", "il dormira bientôt.", say(HE, "sleep", SOON, future=True)),
    ("we will have a boat.", "nous aurons un bateau.", say(WE, "have", o("boat", "a"), future=True)),
    ("we will dance tonight.", "nous danserons ce soir.", say(WE, "dance", TONIGHT, future=True)),
    ("they will send a letter to my brother.", "ils enverront une lettre à mon frère.", say(THEY, "send", o("letter", "a"), after("to", o("brother", "my")), future=True)),
    ("the elephant will always be sad.", "l'éléphant sera toujours triste.", is_(n("elephant"), "sad", future=True, mode="always")),
    # Questions.
    ("does the cat sleep?", "est-ce que le chat dort ?", ask(n("cat"), "sleep")),
    ("do they drink some tea?", "est-ce qu'ils boivent du thé ?", ask(THEY, "drink", o("tea", "some"))),
    ("will she wear a hat?", "est-ce qu'elle portera un chapeau ?", ask(SHE, "wear", o("hat", "a"), future=True)),
    ("is the soup hot?", "est-ce que la soupe est chaude ?", ask(n("soup"), "be", predicate(n("soup"), "hot"))),
    ("does the elephant not swim?", "est-ce que l'éléphant ne nage pas ?", ask(n("elephant"), "swim", mode="not")),
    # Adverbs and times.
    ("she often writes letters.", "elle écrit souvent des lettres.", say(SHE, "write", o("letter", ""), mode="often")),
    ("i work today.", "je travaille aujourd'hui.", say(I, "work", TODAY)),
    ("he walks every morning.", "il marche chaque matin.", say(HE, "walk", EVERY_MORNING)),
    # Two clauses, relative clauses, "there is".
    ("he sings because he is happy.", "il chante parce qu'il est heureux.", sentence(clause(HE, "sing"), BECAUSE, clause(HE, "be", predicate(HE, "happy")))),
    ("the cat eats, but the dog sleeps.", "le chat mange, mais le chien dort.", sentence(clause(n("cat"), "eat"), BUT, clause(n("dog"), "sleep"))),
    ("i read and she works.", "je lis et elle travaille.", sentence(clause(I, "read"), AND, clause(SHE, "work"))),
    ("the king says that the queen will come from the forest.", "le roi dit que la reine viendra de la forêt.", sentence(clause(n("king"), "say"), THAT, clause(n("queen"), "come from", o("forest"), future=True))),
    ("i think that an owl lives in this castle.", "je pense qu'un hibou habite dans ce château.", sentence(clause(I, "think"), THAT, clause(n("owl", "a"), "live in", o("castle", "this")))),
    ("we hope that they will like the cake.", "nous espérons qu'ils aimeront le gâteau.", sentence(clause(WE, "hope"), THAT, clause(THEY, "like", o("cake"), future=True))),
    ("the boy who sings is kind.", "le garçon qui chante est gentil.", is_(which(n("boy"), "sing"), "kind")),
    ("the bees that follow the bear are small.", "les abeilles qui suivent l'ours sont petites.", is_(which(n("bee", **ALL), "follow", o("bear")), "small")),
    ("there is a goat in the garden.", "il y a une chèvre dans le jardin.", sentence(there_is(n("goat", "a"), after("in", o("garden"))))),
    ("there are ten chairs behind the church.", "il y a dix chaises derrière l'église.", sentence(there_is(n("chair", "", number=10), after("behind", o("church"))))),
    ("she wants to read the newspaper.", "elle veut lire le journal.", say(SHE, "want", o("newspaper"), then="read")),
]  # fmt: skip
