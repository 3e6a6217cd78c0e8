"""The checks of notebook 06."""

import math
from functools import cache

import torch

from s2s_helpers.corpora import phrasebook
from s2s_helpers.course.checks.running import beat, check, compare, predict, results, say
from s2s_helpers.course.checks.values import kind
from s2s_helpers.course.recipes import phrasebook_model
from s2s_helpers.decoding import beam_search, greedy_decode, length_penalty_of, translate
from s2s_helpers.metrics import bleu
from s2s_helpers.models.interface import Memory, Seq2SeqModel, State
from s2s_helpers.vocabulary import EOS, PAD, SOS, UNK, Vocabulary

__all__ = [
    "batched_greedy",
    "beam_step",
    "beat_the_beam",
    "length_score",
    "nucleus",
    "predict_beam",
    "sharpened",
]

FOLLOWING = {  # the notebook's table, with other first words
    "<sos>": {"un": 0.65, "le": 0.25, "<eos>": 0.1},
    "un": {"chat": 0.36, "chien": 0.34, "lapin": 0.3},
    "le": {"chat": 0.9, "chien": 0.1},
    "chat": {"<eos>": 0.45, "dort": 0.55},
    "chien": {"<eos>": 0.5, "dort": 0.5},
    "lapin": {"dort": 1.0},
    "dort": {"<eos>": 0.3, "bien": 0.7},
    "bien": {"<eos>": 1.0},
}


class Table(Seq2SeqModel):
    """A model whose next word depends on the last word and on a number that is its state.

    `logits` (states, vocabulary, vocabulary): by state, last word, next word. The state starts at
    the sum and number of the source's ids, and goes on by one and the last word at every step.
    """

    def __init__(self, words, logits):
        super().__init__(words, words)
        self.logits = logits

    def encode(self, source, source_mask):
        return Memory(mask=source_mask, states=(source + 1) * source_mask)

    def start(self, memory):
        return State(hidden=(memory.states.sum(1) % len(self.logits),))

    def step(self, tokens, state, memory):
        (number,) = state.hidden
        following = State(hidden=((number + tokens + 1) % len(self.logits),))
        return self.logits[number, tokens], following, None


@check
def predict_beam(guess):
    """`guess`: the sentence that a beam of 2 finds in the table with other first words."""
    words = Vocabulary(["un", "le", "chat", "chien", "lapin", "dort", "bien"])
    names = words.tokens(range(len(words)))
    p = torch.zeros(1, len(words), len(words))
    for last, row in FOLLOWING.items():
        for word, share in row.items():
            p[0, names.index(last), names.index(word)] = share
    search = Table(words, p.log()), torch.tensor([[EOS]])
    ((found,),) = beam_search(*search, beam_size=2, length_penalty=0.0)
    text = " ".join(guess.split()).removesuffix(" <eos>") if isinstance(guess, str) else guess
    predict(
        "predict_beam",
        text,
        words.decode(found.ids),
        mistakes={
            "That is the best of all sentences, but after step 2 “un lapin” is only the fourth.": (
                "un lapin dort bien"
            ),
            "“un chien” is only the third at step 2: 0.22 against 0.225 of “le chat”.": "un chien",
            "It ends at step 3 as the third of the candidates; only the best two count.": "un chat",
            "It ends at step 3 as the last of four candidates; only the best two count.": "le chat",
            "“le chat dort bien” ends second; compare the products.": "le chat dort bien",
            "The empty sentence is the third candidate at step 1: 0.1.": "",
        },
        why="A beam of 2 lost “un lapin dort bien”, 1.5 times as probable, at step 2.",
    )


@check
def batched_greedy(function):
    """`function(model, source, limit)`: for each row of `source` (batch, source) a list of ids,
    with EOS at its end, or cut off at `limit` ids."""
    words = Vocabulary(["un", "chat", "dort", "bien"])
    logits = torch.randn(9, len(words), len(words))
    logits[..., [PAD, UNK, SOS]] = -1e4
    logits[..., EOS] += 0.3
    model = Table(words, logits)

    def loop(
        model, source, limit, keep=True, feed=True, hand_on=True, every=True, upto=None, mask=None
    ):
        """Greedy decoding of whole batches, and ways to get it wrong."""
        memory = model.encode(source, source != PAD if mask is None else mask(source))
        state, tokens = model.start(memory), source.new_full((len(source),), SOS)
        ids = [[] for _ in source]
        over = [False] * len(source)
        for _ in range(limit):
            z, after, _ = model.step(tokens, state, memory)
            best = z.argmax(-1)
            state = after if hand_on else state
            tokens = best if feed else tokens
            for row, token in enumerate(best.tolist()):
                if keep and over[row]:
                    if upto is not None:
                        ids[row].append(upto)
                    continue
                ids[row].append(token)
                over[row] = over[row] or token == EOS
            if all(over) if every else any(over):
                break
        return ids

    def without(token):
        def changed(*args):
            return [[i for i in ids if i != token] for ids in loop(*args)]

        return changed

    many = torch.randint(4, 8, (6, 3))
    many[1:3, 2] = PAD
    compare(
        "batched_greedy",
        function,
        lambda model, source, limit: [
            h.ids for h in greedy_decode(model, source, max_length=limit)
        ],
        {
            "one sentence": (model, torch.tensor([[4, EOS]]), 10),
            "a limit of 3": (model, torch.tensor([[4, EOS]]), 3),
            "two that end at different steps": (model, torch.tensor([[5, EOS], [4, EOS]]), 10),
            "six sentences with padding": (model, many, 4),
            "a limit of 1": (model, many, 1),
        },
        {
            "It writes on after <eos>: a row that is over must stay as it is.": lambda *a: loop(
                *a, keep=False
            ),
            "It stops when the first row is over; the others are not ready.": lambda *a: loop(
                *a, every=False
            ),
            "<eos> is missing at the end; it belongs to the ids.": without(EOS),
            "<sos> is the start and does not belong to the ids.": lambda *a: [
                [SOS, *ids] for ids in loop(*a)
            ],
            "The token that was chosen is not fed back: each step reads <sos>.": lambda *a: loop(
                *a, feed=False
            ),
            "The state is not handed on: each step starts from the first one.": lambda *a: loop(
                *a, hand_on=False
            ),
            "The mask is inverted: True stands at real tokens.": lambda *a: loop(
                *a, mask=lambda source: source == PAD
            ),
            "Padding is read as if it were a word: the mask is `source != PAD`.": lambda *a: loop(
                *a, mask=torch.ones_like
            ),
            "The limit is off by one: <sos> does not count.": lambda m, s, limit: loop(
                m, s, limit - 1
            ),
            "The limit is off by one: at most `limit` ids.": lambda m, s, limit: loop(
                m, s, limit + 1
            ),
            "Rows that are over are filled up with <pad>; their lists should end.": lambda *a: loop(
                *a, upto=PAD
            ),
            "Rows that are over are filled up with <eos>; one is enough.": lambda *a: loop(
                *a, upto=EOS
            ),
        },
        why="Every model of the four verbs can write with it.",
    )


@check
def length_score(function):
    """`function(log_p, length, alpha)`: log p / lp, with the lp of Wu et al. 2016, equation 14."""

    def lp(n, alpha):
        return length_penalty_of(n, alpha)

    compare(
        "length_score",
        function,
        lambda log_p, length, alpha: log_p / lp(length, alpha),
        {
            "five words": (-2.0, 5, 0.6),
            "a long sentence": (-9.5, 31, 0.6),
            "alpha 1": (-3.0, 7, 1.0),
            "one word": (-0.7, 1, 0.6),
            "alpha 0": (-2.5, 4, 0.0),
            "probability 1": (0.0, 3, 0.6),
        },
        {
            "Multiplied by lp; it divides.": lambda p, n, a: p * lp(n, a),
            "The denominator 5 + 1 misses its power alpha.": lambda p, n, a: p / ((5 + n) ** a / 6),
            "The denominator (5 + 1) to the power of alpha is missing.": lambda p, n, a: (
                p / (5 + n) ** a
            ),
            "That divides by |Y| to the power of alpha: the 5 is missing.": lambda p, n, a: (
                p / n**a
            ),
            "Brackets are missing: a / b / c divides by both.": lambda p, n, a: (
                p / (5 + n) ** a / 6**a
            ),
            "alpha is a power, not a factor.": lambda p, n, a: p / ((5 + n) / 6 * a) if a else p,
            "lp is subtracted; it divides.": lambda p, n, a: p - lp(n, a),
            "One word too few: |Y| counts <eos>, and `length` has it already.": lambda p, n, a: (
                p / lp(n - 1, a)
            ),
            "One word too many: `length` counts <eos> already.": lambda p, n, a: p / lp(n + 1, a),
            "alpha is not used.": lambda p, n, a: p / lp(n, 1.0),
            "Not divided at all.": lambda p, n, a: p,
            "The sign: scores of probabilities are not above 0.": lambda p, n, a: -p / lp(n, a),
            "p is asked for as its logarithm; exp is too much.": lambda p, n, a: (
                math.exp(p) / lp(n, a)
            ),
        },
        why="With it, sentences of different lengths can be compared.",
    )


@check
def beam_step(function):
    """`function(log_p, scores, k)`: the k best of all continuations, best first.

    log_p (lines, vocabulary) of every next token, scores (lines,) so far; gives new scores (k,),
    the line that each comes from (k,), and its token (k,).
    """

    def best(totals, k, V, largest=True):
        values, places = totals.flatten().topk(k, largest=largest)
        return values, places // V, places % V

    def each_line(log_p, scores, k):
        values, tokens = (log_p + scores[:, None]).max(-1)
        values, lines = values.sort(descending=True)
        return values[:k], lines[:k], tokens[lines[:k]]

    def unsorted(log_p, scores, k):
        values, lines, tokens = best(log_p + scores[:, None], k, log_p.shape[1])
        order = (lines * log_p.shape[1] + tokens).argsort()
        return values[order], lines[order], tokens[order]

    def reference(log_p, scores, k):
        return best(log_p + scores[:, None], k, log_p.shape[1])

    def swapped(log_p, scores, k):
        values, lines, tokens = reference(log_p, scores, k)
        return values, tokens, lines

    def by(divisor):
        def divided(log_p, scores, k):
            values, places = (log_p + scores[:, None]).flatten().topk(k)
            return values, places // divisor(log_p, k), places % divisor(log_p, k)

        return divided

    def lines(count, V):
        return torch.randn(count, V).log_softmax(-1), -3 * torch.rand(count)

    compare(
        "beam_step",
        function,
        reference,
        {
            "two lines, the second far ahead": (
                torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.4, 0.5]]).log(),
                torch.tensor([-4.0, -1.0]),
                2,
            ),
            "the first step: one line": (*lines(1, 6), 3),
            "three lines": (*lines(3, 5), 3),
            "as many lines as tokens": (*lines(4, 4), 4),
            "k = 1": (*lines(1, 7), 1),
            "a large vocabulary": (*lines(5, 400), 5),
        },
        {
            "The scores so far are not added.": lambda p, s, k: best(p, k, p.shape[1]),
            "The best of each line is taken; wanted are the best k of all lines.": each_line,
            "Lines and tokens changed places: a flat place is line · V + token.": swapped,
            "The worst k, not the best.": lambda p, s, k: best(
                p + s[:, None], k, p.shape[1], False
            ),
            "Best first: they are in the order of their places.": unsorted,
            "Worst first: turn them around.": lambda p, s, k: tuple(
                x.flip(0) for x in reference(p, s, k)
            ),
            "Places are divided by the number of lines, not by that of tokens.": by(
                lambda p, k: len(p)
            ),
            "Places are divided by k, not by the number of tokens.": by(lambda p, k: k),
            "Logarithms are multiplied; they are added.": lambda p, s, k: best(
                p * s[:, None], k, p.shape[1]
            ),
            "Scores are added along the wrong axis: they belong to lines.": lambda p, s, k: best(
                p + s, k, p.shape[1]
            ),
            "Places in the flat list are given as tokens.": lambda p, s, k: (
                *reference(p, s, k)[:2],
                (p + s[:, None]).flatten().topk(k)[1],
            ),
            "Probabilities are returned; scores are logarithms.": lambda p, s, k: (
                reference(p, s, k)[0].exp(),
                *reference(p, s, k)[1:],
            ),
        },
        why="Beam search is this step, again and again.",
    )


@check
def sharpened(function):
    """`function(logits, temperature, top_k)`: probabilities (vocabulary,), all but the `top_k`
    likeliest 0."""

    def cut(logits, k, fill=-math.inf):
        places = logits.topk(min(k, len(logits))).indices
        return torch.full_like(logits, fill).scatter(0, places, logits[places])

    def after(logits, T, k):
        p = (logits / T).softmax(-1)
        return p * (cut(logits, k) > -math.inf)

    def power(logits, T, k):
        return cut(logits, k).softmax(-1) ** (1 / T)

    z = torch.tensor([1.0, 3.0, 2.0, 0.0])
    compare(
        "sharpened",
        function,
        lambda logits, temperature, top_k: (cut(logits, top_k) / temperature).softmax(-1),
        {
            "four words, T = 0.5": (z, 0.5, 2),
            "T = 2": (z, 2.0, 3),
            "T = 1": (torch.randn(6), 1.0, 3),
            "top_k = 1": (torch.randn(5), 0.7, 1),
            "top_k larger than the vocabulary": (torch.randn(4), 1.5, 10),
            "cold, large logits": (100 * torch.randn(8), 0.05, 4),
        },
        {
            "Multiplied by the temperature; it divides, so that cold makes bold.": lambda z, T, k: (
                cut(z, k) * T
            ).softmax(-1),
            "Probabilities are divided by the temperature; it divides logits.": lambda z, T, k: (
                cut(z, k).softmax(-1) / T
            ),
            "The power 1/T is there, but the probabilities do not sum to 1.": power,
            "Cut after softmax, and not divided by their sum.": after,
            "Words cut off got logit 0, which is no small probability: -inf is.": lambda z, T, k: (
                cut(z, k, 0.0) / T
            ).softmax(-1),
            "The least likely words stay.": lambda z, T, k: (
                (-cut(-z, k) / T).masked_fill(cut(-z, k) == -math.inf, -math.inf).softmax(-1)
            ),
            "One word too few stays.": lambda z, T, k: (cut(z, max(k - 1, 0)) / T).softmax(-1),
            "One word too many stays.": lambda z, T, k: (cut(z, k + 1) / T).softmax(-1),
            "top_k is not used.": lambda z, T, k: (z / T).softmax(-1),
            "The temperature is not used.": lambda z, T, k: cut(z, k).softmax(-1),
            "These are logits; softmax is missing.": lambda z, T, k: cut(z, k) / T,
            "The words came sorted by probability; keep each in its place.": lambda z, T, k: (
                (cut(z, k) / T).softmax(-1).sort(descending=True)[0]
            ),
            "Only the words that stay came; the others are missing.": lambda z, T, k: (
                z.topk(min(k, len(z)))[0] / T
            ).softmax(-1),
        },
        why="A cold draw is greedy, a hot one wild.",
    )


@check
def nucleus(function):
    """`function(p, top_p)`: the fewest likeliest words that hold at least `top_p` of the
    probabilities p (vocabulary,), divided by their sum; the others 0."""

    def kept(p, top_p, keep=None, divide=True, descending=True):
        values, places = p.sort(descending=descending)
        before = values.cumsum(0) - values
        stays = before < top_p if keep is None else keep(values, before)
        values = values * stays
        values = values / values.sum() if divide else values
        return torch.zeros_like(p).scatter(0, places, values)

    def by_size(limit):
        def cut(p, top_p):
            left = p * (p >= limit(top_p))
            return left / left.sum()

        return cut

    def p(size, sharp=2.0):
        return (sharp * torch.randn(size)).softmax(-1)

    def one_more(values, before, top_p):
        return torch.arange(len(values)) <= (before < top_p).sum()

    compare(
        "nucleus",
        function,
        kept,
        {
            "four words": (torch.tensor([0.15, 0.5, 0.05, 0.3]), 0.7),
            "one word holds enough": (torch.tensor([0.02, 0.9, 0.08]), 0.6),
            "five words": (torch.tensor([0.35, 0.05, 0.3, 0.1, 0.2]), 0.8),
            "alike, but for a little": (torch.linspace(0.9, 1.1, 10) / 10, 0.55),
            "all of them": (p(6), 1.0),
            "a large vocabulary": (p(300), 0.9),
        },
        {
            "The word that crosses top_p is left out: what stays holds too little.": lambda p, t: (
                kept(p, t, lambda v, b: v + b <= t)
            ),
            "Not divided by what is left: the probabilities do not sum to 1.": lambda p, t: kept(
                p, t, divide=False
            ),
            "One word too many: the one that crosses top_p is the last.": lambda p, t: kept(
                p, t, lambda v, b: one_more(v, b, t)
            ),
            "Each probability is compared with 1 - top_p; it is their sum that counts.": by_size(
                lambda t: 1 - t
            ),
            "Each probability is compared with top_p; it is their sum that counts.": by_size(
                lambda t: t
            ),
            "From the least likely up; the likeliest come first.": lambda p, t: kept(
                p, t, descending=False
            ),
            "Summed up in the vocabulary's order: sort first.": lambda p, t: (
                (q := p * (p.cumsum(0) - p < t)) / q.sum()
            ),
            "The words came sorted by probability; put each back in its place.": lambda p, t: kept(
                p, t
            ).sort(descending=True)[0],
            "Cut and then a softmax of probabilities; divide by their sum.": lambda p, t: kept(
                p, t, divide=False
            ).softmax(-1),
        },
        why="It keeps more words where the model wavers, and fewer where it is sure.",
    )


@cache
def to_beat():
    """A model that still errs, 400 test pairs, and the BLEU of a beam of 5 without a penalty."""
    model, pairs = phrasebook_model("rnn", progress=False), phrasebook.load().test[:400]
    sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    texts = [t.text for t in translate(model, sources, beam_size=5, length_penalty=0.0)]
    return model, sources, references, bleu(texts, references)


@check
def beat_the_beam(function):
    """`function(model, sentences)`: a list of translations, each a text.

    Measured on 400 test sentences of the phrasebook, with notebook 02's model.
    """
    name = "beat_the_beam"
    if function is None or function is ... or not callable(function):
        return compare(name, function, None, {})  # says what is missing
    model, sources, references, figure = to_beat()
    found = results(name, function, {"three sentences": (model, sources[:3])})
    found = found and results(name, function, {"400 sentences": (model, sources)}, patience=24)
    if not found:
        return None
    texts = found[0]
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        inside = kind(texts[0]) if isinstance(texts, (list, tuple)) and texts else kind(texts)
        return say("✗", name, f"a list of texts is asked for; what came holds {inside}.")
    if len(texts) != len(sources):
        return say("✗", name, f"{len(sources)} sentences came in, {len(texts)} went out.")
    hint = "Longer? Or choose in another way among what a wide beam finds?"
    if not any(texts):
        hint = "Likely cause: nothing was written."
    elif texts == sources:
        hint = "Likely cause: these are the English sentences."
    elif bleu(list(texts), references) < 0.3 * figure:
        hint = "Likely cause: the translations are not in the order of the sentences."
    beat(name, bleu(list(texts), references), figure, form="{:.2f}", hint=hint,
         why="BLEU on 400 test sentences, higher is better.")  # fmt: skip
