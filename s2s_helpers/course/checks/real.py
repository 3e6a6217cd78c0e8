"""The checks of notebook 08."""

import math
import random
from collections import Counter
from itertools import combinations, pairwise

from s2s_helpers.corpora import multi30k
from s2s_helpers.course.checks.running import check, compare, predict, say
from s2s_helpers.course.checks.values import is_number, kind
from s2s_helpers.data import LengthBuckets
from s2s_helpers.decoding import translate
from s2s_helpers.metrics import bleu, sequence_accuracy

__all__ = [
    "beat_captions",
    "corpus_bleu",
    "merge_pair",
    "most_frequent_pair",
    "predict_batch_size",
    "token_batches",
    "win_rate",
]


@check
def predict_batch_size(guess, model=None):
    """How many points of BLEU greedy translations of 100 captions gain with `batch_size=1`."""
    name = "predict_batch_size"
    if guess is None or guess is ...:
        return say("…", name, "not written yet.")
    if not hasattr(model, "encode"):
        return say("✗", name, "hand over the trained model, too: (my_prediction, model).")
    few = multi30k.load().validation[:100]
    sources, references = [pair.source for pair in few], [pair.target for pair in few]
    alone, together = (
        bleu([one.text for one in translate(model, sources, batch_size=size)], references)
        for size in (1, 100)
    )
    causes = {"A sentence's neighbours in the batch cannot change it: padding has weight 0.": guess}
    if is_number(guess) and abs(guess) > 10:
        causes = {"That is a score; how much the score changes is asked for.": guess}
    why = "Padding has weight 0, so neighbours do not matter; at most a rounding tips a tie."
    predict(name, guess, round(alone - together, 1) + 0.0, 0.5, causes, why, "{:.1f}")


def _most(counts):
    return max(counts, key=counts.get)


def _pairs(words, neighbours=pairwise, weigh=True, name=tuple) -> Counter:
    counts = Counter()
    for symbols, count in words.items():
        for pair in neighbours(symbols):
            counts[name(pair)] += count if weigh else 1
    return counts


@check
def most_frequent_pair(function):
    """`function(words)`: the most frequent pair of neighbours in words, which are tuples of symbols
    with the number of times that each word occurs."""

    def right(words):
        return _most(_pairs(words))

    compare(
        "most_frequent_pair",
        function,
        right,
        {
            "one word": ({("a", "b"): 3},),
            "one frequent word, two rare": (
                {("a", "b"): 5, ("c", "d", "e"): 1, ("f", "d", "e"): 1},
            ),
            "a pair twice in a word": ({("n", "a", "n", "a"): 3, ("x", "y"): 5},),
            "one pair in both orders": ({("a", "b"): 3, ("b", "a"): 3, ("c", "d"): 4},),
            "a symbol alone": ({("a",): 9, ("b", "c"): 1},),
            "symbols of several letters": ({("th", "e"): 4, ("t", "he"): 3, ("z", "y"): 5},),
            "a pair behind others": ({("a", "x", "y"): 3, ("b", "x", "y"): 3, ("a", "z"): 2},),
            "two symbols often near each other": (
                {("a", "x", "b"): 3, ("a", "y", "b"): 3, ("c", "d"): 4},
            ),
            "words of Sennrich et al.": (
                {
                    ("l", "o", "w", "·"): 5,
                    ("l", "o", "w", "e", "r", "·"): 2,
                    ("n", "e", "w", "e", "s", "t"): 6,
                    ("w", "i", "d", "e", "s", "·"): 3,
                },
            ),
        },
        {
            "Each word is counted once, however often it occurs.": lambda words: _most(
                _pairs(words, weigh=False)
            ),
            "A pair that stands in a word twice is counted once.": lambda words: _most(
                _pairs(words, lambda symbols: dict.fromkeys(pairwise(symbols)))
            ),
            "The order is ignored: (a, b) and (b, a) are two pairs.": lambda words: tuple(
                _most(_pairs(words, name=lambda pair: tuple(sorted(pair))))
            ),
            "The two most frequent symbols need not be neighbours.": lambda words: tuple(
                symbol for (symbol,), _ in _pairs(words, zip).most_common(2)
            ),
            "Symbols that are not neighbours are counted as pairs.": lambda words: _most(
                _pairs(words, lambda symbols: combinations(symbols, 2))
            ),
            "Only the first pair of each word is counted.": lambda words: _most(
                _pairs(words, lambda symbols: list(pairwise(symbols))[:1])
            ),
            "The last pair of each word is left out.": lambda words: _most(
                _pairs(words, lambda symbols: list(pairwise(symbols))[:-1])
            ),
            "That is the rarest pair.": lambda words: min(_pairs(words), key=_pairs(words).get),
            "The pair is joined; give its two symbols.": lambda words: "".join(right(words)),
            "The count came along; give the pair alone.": lambda words: _pairs(words).most_common(
                1
            )[0],
        },
        why="Its two symbols become one, and counting begins anew.",
    )


def _merged(symbols, pair, once=False, step=2):
    """The symbols with the pair joined, from left to right."""
    merged, at = [], 0
    while at < len(symbols):
        if tuple(symbols[at : at + 2]) == tuple(pair) and not (once and "".join(pair) in merged):
            merged.append("".join(pair))
            at += step
        else:
            merged.append(symbols[at])
            at += 1
    return merged


@check
def merge_pair(function):
    """`function(symbols, pair)`: the symbols of a word with each occurrence of the pair joined."""

    def in_text(symbols, pair):
        return " ".join(symbols).replace(" ".join(pair), "".join(pair)).split()

    def chained(symbols, pair):
        merged = list(symbols[:1])
        for before, symbol in pairwise(symbols):
            if (before, symbol) == tuple(pair):
                merged[-1] += symbol
            else:
                merged.append(symbol)
        return merged

    def either_order(symbols, pair):
        merged, at = [], 0
        while at < len(symbols):
            two = sorted(symbols[at : at + 2]) == sorted(pair)
            merged.append("".join(symbols[at : at + 1 + two]))
            at += 1 + two
        return merged

    def last_lost(symbols, pair):
        merged = _merged(symbols, pair)
        return merged if symbols[-2:] == tuple(pair) else merged[:-1]

    compare(
        "merge_pair",
        function,
        lambda symbols, pair: _merged(symbols, pair),
        {
            "at the end": (("l", "o", "w"), ("o", "w")),
            "in two places": (("n", "a", "s", "n", "a"), ("n", "a")),
            "nothing to join": (("l", "o", "w"), ("o", "l")),
            "in the other order": (("a", "b", "c", "b", "a"), ("b", "a")),
            "a symbol that ends alike": (("ca", "b", "a", "b"), ("a", "b")),
            "a dot": (("s", "e", ".", "e"), (".", "e")),
            "three alike": (("a", "a", "a"), ("a", "a")),
            "four alike": (("a", "a", "a", "a"), ("a", "a")),
            "symbols of several letters": (("th", "e", "the", "the", "re"), ("the", "re")),
            "one symbol": (("a",), ("a", "b")),
        },
        {
            "Only the first occurrence is joined.": lambda s, pair: _merged(s, pair, once=True),
            "Text is replaced, across the borders of symbols: “ca b” holds “a b”.": in_text,
            "The second symbol of a joined pair comes once more.": lambda s, pair: _merged(
                s, pair, step=1
            ),
            "A symbol too many is skipped after a joined pair.": lambda s, pair: _merged(
                s, pair, step=3
            ),
            "Joined symbols are joined again: each belongs to one pair only.": chained,
            "The order is ignored: (a, b) is not (b, a).": either_order,
            "The last symbol is lost.": last_lost,
            "A space stands in the joined symbol.": lambda s, pair: [
                " ".join(pair) if x == "".join(pair) and x not in s else x for x in _merged(s, pair)
            ],
            "It gives a text; the symbols are asked for, one by one.": lambda s, pair: "".join(s),
            "Nothing is joined. (A tuple never equals a list.)": lambda s, pair: list(s),
        },
        why="Apply the merges in the order they were learned, and any word falls into its pieces.",
    )


@check
def token_batches(function):
    """`function(lengths, max_tokens)`: sentence numbers in batches of at most so many tokens, where
    each sentence counts as long as its batch's longest."""

    def variant(counts=lambda rows: len(rows) * max(rows), limit=0, last=True, give="numbers"):
        def cut(lengths, max_tokens):
            batches, batch = [], []
            for number, length in enumerate(lengths):
                rows = [lengths[n] for n in batch] + [length]
                if batch and counts(rows) > max_tokens - limit:
                    batches.append(batch)
                    batch = []
                batch.append(number)
            batches += [batch] if last else []
            return [[lengths[n] for n in b] for b in batches] if give == "lengths" else batches

        return cut

    def late(lengths, max_tokens):
        batches, batch = [], []
        for number in range(len(lengths)):
            batch.append(number)
            if len(batch) * max(lengths[n] for n in batch) >= max_tokens:
                batches.append(batch)
                batch = []
        return batches + [batch] * bool(batch)

    def never_reset(lengths, max_tokens):
        batches, batch, longest = [], [], 0
        for number, length in enumerate(lengths):
            longest = max(longest, length)
            if batch and (len(batch) + 1) * longest > max_tokens:
                batches.append(batch)
                batch = []
            batch.append(number)
        return [*batches, batch]

    compare(
        "token_batches",
        function,
        lambda lengths, max_tokens: list(
            LengthBuckets(lengths, max_tokens=max_tokens, shuffle=False)
        ),
        {
            "one sentence": ([3], 4),
            "three alike": ([2, 2, 2], 4),
            "a long one after short ones": ([1, 1, 1, 5, 1], 8),
            "short ones after a long one": ([6, 1, 1, 1, 1, 1], 6),
            "exactly full": ([4, 4, 3, 3], 8),
            "random lengths": ([random.randint(1, 12) for _ in range(25)], 40),
        },
        {
            "Real tokens are added up; padding takes place, too: rows × longest.": variant(sum),
            "The longest is not started anew with a new batch.": never_reset,
            "The new sentence's own length is not looked at before it joins.": variant(
                lambda rows: len(rows) * max(rows[:-1], default=0)
            ),
            "The new sentence is not counted among the rows before it joins.": variant(
                lambda rows: (len(rows) - 1) * max(rows)
            ),
            "The batch is closed only after it has grown too large.": late,
            "Off by one: a batch may hold exactly max_tokens.": variant(limit=1),
            "The last batch is lost.": variant(last=False),
            "Lengths are given; the sentences' numbers are asked for.": variant(give="lengths"),
            "Sentences are counted, not tokens.": variant(len),
            "Only the new sentence's length counts; the longest of the batch does.": variant(
                lambda rows: len(rows) * rows[-1]
            ),
        },
        why="Every batch is about the same work, however long its sentences are.",
    )


def _grams(tokens, n) -> Counter:
    return Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1))


def _bleu(hypotheses, references, orders=4, clip=True, brevity=None, mean=None, scale=100):
    """BLEU by Papineni et al. 2002, §2.3, or with something changed."""
    precisions = []
    for n in range(1, orders + 1):
        matched = total = 0
        for hypothesis, reference in zip(hypotheses, references, strict=True):
            found, there = _grams(hypothesis, n), _grams(reference, n)
            matched += sum(min(c, there[g]) if clip else c * (g in there) for g, c in found.items())
            total += found.total()
        precisions.append(matched / total if total else 0)
    c, r = sum(map(len, hypotheses)), sum(map(len, references))
    penalty = (brevity or (lambda c, r: min(1, math.exp(1 - r / c))))(c, r) if c else 0
    return scale * penalty * (mean or _geometric)(precisions)


def _geometric(numbers):
    return math.prod(numbers) ** (1 / len(numbers))


@check
def corpus_bleu(function):
    """`function(hypotheses, references)`: BLEU from 0 to 100 of lists of tokens."""

    def right(hypotheses, references):
        texts = [[" ".join(tokens) for tokens in side] for side in (hypotheses, references)]
        return bleu(*texts, tokenize="none", smooth_method="none", force=True)

    def sentences(hypotheses, references):
        pairs = zip(hypotheses, references, strict=True)
        return sum(_bleu([one], [other]) for one, other in pairs) / len(hypotheses)

    def pooled(hypotheses, references):
        joined = [
            [t for side in tokens for t in (*side, None)] for tokens in (hypotheses, references)
        ]
        precisions = []
        for n in range(1, 5):
            found, there = (
                Counter({g: c for g, c in _grams(tokens, n).items() if None not in g})
                for tokens in joined
            )
            precisions.append((found & there).total() / max(found.total(), 1))
        return _bleu(hypotheses, references, mean=lambda _: _geometric(precisions))

    def case(*pairs):
        return [one.split() for one, _ in pairs], [other.split() for _, other in pairs]

    long = ("the dog runs over the grass", "the dog runs over the green grass")
    compare(
        "corpus_bleu",
        function,
        right,
        {
            "the reference itself": case(("a b c d e", "a b c d e")),
            "one word too many": case(("a b c d e f", "a b c d e")),
            "two words too few": case(("a b c d e", "a b c d e f g")),
            "words said twice": case(("a b c d a b", "a b c d e f")),
            "two sentences": case(long, ("a cat sits on a mat", "a cat is sitting on the mat")),
            "one short, one long": case(long, ("a cat", "a cat on a mat sees a bird")),
            "two sentences that changed places": case(
                ("a dog runs in the park", "two men play on a red field"),
                ("two men play on a green field", "a dog runs in the park"),
            ),
            "no group of four is right": case(("a b c x d e f", "a b c d e f g")),
            "an empty hypothesis": case(long, ("", "a cat")),
        },
        {
            "That is a share; BLEU goes from 0 to 100.": lambda h, r: _bleu(h, r, scale=1),
            "Groups are not clipped: one that the reference has once counts once.": (
                lambda h, r: _bleu(h, r, clip=False)
            ),
            "The brevity penalty is missing: exp(1 - r/c) for what is too short.": (
                lambda h, r: _bleu(h, r, brevity=lambda c, r: 1)
            ),
            "The brevity penalty is above 1 for what is too long; 1 is the most.": (
                lambda h, r: _bleu(h, r, brevity=lambda c, r: math.exp(1 - r / c))
            ),
            "The brevity penalty punishes what is too long: r and c changed places.": (
                lambda h, r: _bleu(h, r, brevity=lambda c, r: min(1, math.exp(1 - c / r)))
            ),
            "The brevity penalty is c/r; the paper's is exp(1 - r/c).": (
                lambda h, r: _bleu(h, r, brevity=lambda c, r: min(1, c / r))
            ),
            "It is a mean of the sentences' BLEUs; counts of the whole corpus are asked for.": (
                sentences
            ),
            "The precisions' arithmetic mean; BLEU takes the geometric one.": (
                lambda h, r: _bleu(h, r, mean=lambda p: sum(p) / len(p))
            ),
            "The precisions are multiplied, and the fourth root is missing.": (
                lambda h, r: _bleu(h, r, mean=math.prod)
            ),
            "Groups of 1 to 3 words are counted; 4 is the longest.": (
                lambda h, r: _bleu(h, r, orders=3)
            ),
            "Words alone are counted.": lambda h, r: _bleu(h, r, orders=1),
            "Groups are looked for in all references; only their own sentence's counts.": pooled,
            "Hypotheses and references changed places.": lambda h, r: _bleu(r, h),
        },
        why="sacreBLEU says the same.",
    )


@check
def win_rate(function):
    """`function(score, ours, theirs, references, draws)`: the share of the draws, each a list of
    sentence numbers, in which our system's score is the higher one."""

    def variant(wins=lambda a, b: a > b, redraw=(True, True, True), share=None):
        def count(score, ours, theirs, references, draws):
            won = 0
            for draw in draws:
                sides = zip((ours, theirs, references), redraw, strict=True)
                one, other, right = (
                    [side[n] for n in draw] if again else side[: len(draw)] for side, again in sides
                )
                won += wins(score(one, right), score(other, right))
            return won / len(draws) if share is None else share(won, len(draws))

        return count

    def by_sentence(score, ours, theirs, references, draws):
        better = [
            score([a], [right]) > score([b], [right])
            for a, b, right in zip(ours, theirs, references, strict=True)
        ]
        return sum(better[n] for draw in draws for n in draw) / sum(map(len, draws))

    def means(score, ours, theirs, references, draws):
        gains = [
            score([a], [right]) - score([b], [right])
            for a, b, right in zip(ours, theirs, references, strict=True)
        ]
        return sum(sum(gains[n] for n in draw) > 1e-9 for draw in draws) / len(draws)

    def corpus(*texts):
        return tuple(list(side) for side in texts)

    small = corpus(("a", "x", "c"), ("a", "b", "y"), ("a", "b", "c"))
    texts = corpus(
        ("a man walks in the street .", "two dogs", "a girl sits on a red chair .", "a boy"),
        ("a man walks in a street", "two dogs run .", "a girl sits on the chair .", "a boy sings"),
        (
            "a man walks in the street .",
            "two dogs run .",
            "a girl sits on a chair .",
            "a boy sings",
        ),
    )
    draws = [[random.randrange(4) for _ in range(4)] for _ in range(20)]
    compare(
        "win_rate",
        function,
        variant(),
        {
            "one draw": (sequence_accuracy, *small, [[2, 2, 0]]),
            "a tie": (sequence_accuracy, *small, [[0, 0, 0], [2, 0, 2]]),
            "six draws": (
                sequence_accuracy,
                *small,
                [[2, 1, 2], [0, 2, 2], [1, 1, 0], [0, 0, 1], [2, 2, 2], [0, 1, 2]],
            ),
            "BLEU of twenty draws": (bleu, *texts, draws),
        },
        {
            "A tie is counted as a win.": variant(lambda a, b: a >= b),
            "A tie is counted as half a win.": variant(lambda a, b: (a > b) + (a == b) / 2),
            "That is how often they win, not we.": variant(lambda a, b: b > a),
            "That is the share of draws not won.": variant(lambda a, b: a <= b),
            "That is the number of draws; a share is asked for.": variant(share=lambda won, n: won),
            "That is in percent; a share from 0 to 1 is asked for.": variant(
                share=lambda won, n: 100 * won / n
            ),
            "The references are not drawn: draw the same sentences on all three sides.": variant(
                redraw=(True, True, False)
            ),
            "Only ours are drawn: the same sentences are to be drawn for both systems.": variant(
                redraw=(True, False, True)
            ),
            "The draws are not used.": variant(redraw=(False, False, False)),
            "Sentences are compared one by one; compare the scores of whole draws.": by_sentence,
            "Scores of single sentences are added; the score of a draw is not their sum.": means,
        },
        why="Nineteen draws in twenty, and the gain is hardly chance (Koehn 2004).",
    )


TO_BEAT = 36.0  # more than a beam of 5 gives with the notebook's model: solutions/08 asserts it


@check
def beat_captions(translations):
    """French for the 1,014 validation captions, in their order, as texts or as `translate` gives
    it: is their BLEU higher than 36?"""
    name = "beat_captions"
    if translations is None or translations is ...:
        return say("…", name, "not written yet.")
    pairs = multi30k.load().validation
    if not isinstance(translations, (list, tuple)):
        return say("✗", name, f"a list of texts is asked for; what came is {kind(translations)}.")
    texts = [getattr(one, "text", one) for one in translations]
    if strange := [one for one in texts if not isinstance(one, str)]:
        return say("✗", name, f"a list of texts is asked for; in it is {kind(strange[0])}.")
    if len(texts) != len(pairs):
        told = f"{len(pairs):,} texts are asked for, one for each caption of the split “val”"
        return say("✗", name, f"{told}; what came is {len(texts):,}.")
    references = [pair.target for pair in pairs]
    if texts == references:
        return say("✗", name, "these are the references themselves.")
    figure = bleu(texts, references)
    if figure > TO_BEAT:
        return say("✓", name, f"BLEU {figure:.1f}; {TO_BEAT:.1f} was to beat.")
    best = {
        "These are the English captions.": [pair.source for pair in pairs],
        "The texts are in lower case; BLEU is cased here.": [text.lower() for text in texts],
    }
    causes = [f"Likely cause: {cause}" for cause, like in best.items() if texts == like]
    if not causes and any("▁" in text for text in texts):
        causes = ["Likely cause: these are pieces; the vocabulary's decode joins them to text."]
    if not causes and figure < 5:
        causes = ["Likely cause: the texts do not stand in the order of the captions."]
    say("✗", name, f"BLEU {figure:.1f}; {TO_BEAT:.1f} is to beat.", *causes)
