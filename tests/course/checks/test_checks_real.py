import math
import re
from collections import Counter, defaultdict
from itertools import pairwise
from types import SimpleNamespace

import pytest
from checking import CheckTests
from sacrebleu.metrics import BLEU

from s2s_helpers.corpora import Pair, Splits, multi30k
from s2s_helpers.course.checks import real
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.vocabulary import Vocabulary

FRENCH = [
    "Un homme marche dans la rue.",
    "Deux chiens courent sur la plage.",
    "Une fille joue de la guitare.",
    "Un garçon saute dans l'eau froide.",
    "Trois femmes sont assises devant un café.",
]
ENGLISH = [
    "A man walks down the street.",
    "Two dogs run on the beach.",
    "A girl plays the guitar.",
    "A boy jumps into the cold water.",
    "Three women sit in front of a café.",
]
PAIRS = [Pair(*texts) for texts in zip(ENGLISH, FRENCH, strict=True)]


@pytest.fixture(autouse=True)
def captions(monkeypatch):
    monkeypatch.setattr(multi30k, "load", lambda: Splits([], PAIRS, []))


# Byte-pair encoding


def counted(words):
    """As Sennrich et al. print it."""
    pairs = defaultdict(int)
    for symbols, count in words.items():
        for i in range(len(symbols) - 1):
            pairs[symbols[i], symbols[i + 1]] += count
    return max(pairs, key=pairs.get)


def repeated(words):
    """Each word as often as it occurs."""
    everything = [symbols for symbols, count in words.items() for _ in range(count)]
    pairs = Counter(pair for s in everything for pair in pairwise(s))
    return list(pairs.most_common(1)[0][0])


def counting(pairs_of, weight=lambda count: count, best=max):
    def most(words):
        pairs = Counter()
        for symbols, count in words.items():
            for pair in pairs_of(symbols):
                pairs[pair] += weight(count)
        return best(pairs, key=pairs.get)

    return most


def neighbours(symbols):
    return list(pairwise(symbols))


def two_best_symbols(words):
    symbols = Counter()
    for word, count in words.items():
        for symbol in word:
            symbols[symbol] += count
    (a, _), (b, _) = symbols.most_common(2)
    return a, b


def with_its_count(words):
    pairs = Counter()
    for symbols, count in words.items():
        for pair in neighbours(symbols):
            pairs[pair] += count
    return pairs.most_common()[0]


MOST_FREQUENT = [
    ("counted once, however often", counting(neighbours, weight=lambda count: 1)),
    ("in a word twice is counted once", counting(lambda symbols: set(neighbours(symbols)))),
    ("The order is ignored", counting(lambda s: [tuple(sorted(pair)) for pair in neighbours(s)])),
    ("need not be neighbours", two_best_symbols),
    (
        "not neighbours are counted",
        counting(lambda s: [(a, b) for i, a in enumerate(s) for b in s[i + 1 :]]),
    ),
    ("first pair of each word", counting(lambda symbols: neighbours(symbols)[:1])),
    ("last pair of each word", counting(lambda s: [(s[i], s[i + 1]) for i in range(len(s) - 2)])),
    ("rarest", counting(neighbours, best=min)),
    ("give its two symbols", lambda words: "".join(counted(words))),
    ("The count came along", with_its_count),
    ("IndexError", counting(lambda s: [(s[i], s[i + 1]) for i in range(len(s))])),
]


def joined(symbols, pair):
    """With an index, as in most tutorials."""
    new, i = [], 0
    while i < len(symbols):
        if i < len(symbols) - 1 and (symbols[i], symbols[i + 1]) == tuple(pair):
            new.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            new.append(symbols[i])
            i += 1
    return tuple(new)


def by_expression(symbols, pair):
    """As Sennrich et al. print it."""
    pattern = re.compile(r"(?<!\S)" + re.escape(" ".join(pair)) + r"(?!\S)")
    return pattern.sub("".join(pair), " ".join(symbols)).split()


def by_recursion(symbols, pair):
    if len(symbols) < 2:
        return list(symbols)
    first, second, *rest = symbols
    if (first, second) == tuple(pair):
        return [first + second, *by_recursion(rest, pair)]
    return [first, *by_recursion([second, *rest], pair)]


def first_only(symbols, pair):
    for i in range(len(symbols) - 1):
        if symbols[i : i + 2] == pair:
            return [*symbols[:i], "".join(pair), *symbols[i + 2 :]]
    return list(symbols)


def second_again(symbols, pair):
    new = []
    for i, symbol in enumerate(symbols):
        new.append("".join(pair) if symbols[i : i + 2] == pair else symbol)
    return new


def one_too_many(symbols, pair):
    new, i = [], 0
    while i < len(symbols):
        hit = tuple(symbols[i : i + 2]) == pair
        new.append("".join(pair) if hit else symbols[i])
        i += 3 if hit else 1
    return new


def growing(symbols, pair):
    new = []
    for i, symbol in enumerate(symbols):
        if i and symbols[i - 1] == pair[0] and symbol == pair[1]:
            new[-1] = new[-1] + symbol
        else:
            new.append(symbol)
    return new


def any_order(symbols, pair):
    new, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and {symbols[i], symbols[i + 1]} == set(pair):
            new.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            new.append(symbols[i])
            i += 1
    return new


def stops_early(symbols, pair):
    new, i = [], 0
    while i < len(symbols) - 1:
        hit = symbols[i : i + 2] == pair
        new.append("".join(pair) if hit else symbols[i])
        i += 1 + hit
    return new


def unescaped(symbols, pair):
    return re.sub(r"(?<!\S)" + " ".join(pair) + r"(?!\S)", "".join(pair), " ".join(symbols)).split()


MERGE = [
    ("Only the first", first_only),
    ("across the borders", lambda s, p: " ".join(s).replace(" ".join(p), "".join(p)).split(" ")),
    ("comes once more", second_again),
    ("A symbol too many", one_too_many),
    ("joined again", growing),
    ("The order is ignored", any_order),
    ("The last symbol is lost", stops_early),
    ("A space stands", lambda s, p: [x if x in s else " ".join(p) for x in joined(s, p)]),
    ("It gives a text", lambda s, p: "".join(joined(s, p))),
    ("Nothing is joined", lambda s, p: list(s)),
    ("wrong on “a dot”", unescaped),
]

# Batches


def batches(lengths, max_tokens):
    result, current, longest = [], [], 0
    for i, length in enumerate(lengths):
        if current and max(longest, length) * (len(current) + 1) > max_tokens:
            result.append(current)
            current, longest = [], 0
        current.append(i)
        longest = max(longest, length)
    return [*result, current]


def batches_ahead(lengths, max_tokens):
    """Find each batch's end."""
    result, start = [], 0
    while start < len(lengths):
        end = start + 1
        while (
            end < len(lengths) and max(lengths[start : end + 1]) * (end + 1 - start) <= max_tokens
        ):
            end += 1
        result.append(tuple(range(start, end)))
        start = end
    return result


def cutting(full, keep_longest=False, lose=False, give=lambda i, length: i):
    """`full(current, longest, length, max_tokens)`: whether the batch is closed first."""

    def cut(lengths, max_tokens):
        result, current, longest = [], [], 0
        for i, length in enumerate(lengths):
            if current and full(current, longest, length, max_tokens):
                result.append(current)
                current, longest = [], longest if keep_longest else 0
            current.append(give(i, length))
            longest = max(longest, length)
        return result if lose else [*result, current]

    return cut


def right_full(current, longest, length, most):
    return max(longest, length) * (len(current) + 1) > most


def by_sum(lengths, max_tokens):
    result, current, total = [], [], 0
    for i, length in enumerate(lengths):
        if total + length > max_tokens:
            result.append(current)
            current, total = [], 0
        current.append(i)
        total += length
    return [*result, current]


def closes_late(lengths, max_tokens):
    result, current = [], []
    for i in range(len(lengths)):
        current.append(i)
        if max(lengths[j] for j in current) * len(current) >= max_tokens:
            result.append(current)
            current = []
    return [*result, current] if current else result


BATCHES = [
    ("Real tokens are added up", by_sum),
    ("not started anew", cutting(right_full, keep_longest=True)),
    ("own length is not looked at", cutting(lambda c, top, new, most: top * (len(c) + 1) > most)),
    (
        "not counted among the rows",
        cutting(lambda c, top, new, most: max(top, new) * len(c) > most),
    ),
    ("after it has grown", closes_late),
    ("exactly max_tokens", cutting(lambda c, top, new, m: max(top, new) * (len(c) + 1) >= m)),
    ("last batch is lost", cutting(right_full, lose=True)),
    ("numbers are asked for", cutting(right_full, give=lambda i, length: length)),
    ("Sentences are counted", cutting(lambda c, top, new, most: len(c) >= most)),
    ("Only the new sentence's", cutting(lambda c, top, new, most: new * (len(c) + 1) > most)),
]

# BLEU


def by_counters(hypotheses, references):
    matches, totals = [0] * 4, [0] * 4
    for one, other in zip(hypotheses, references, strict=True):
        for n in range(4):
            mine = Counter(zip(*[one[i:] for i in range(n + 1)], strict=False))
            theirs = Counter(zip(*[other[i:] for i in range(n + 1)], strict=False))
            matches[n] += (mine & theirs).total()
            totals[n] += mine.total()
    if min(matches) == 0:
        return 0.0
    c, r = sum(map(len, hypotheses)), sum(map(len, references))
    log = sum(math.log(m / t) for m, t in zip(matches, totals, strict=True)) / 4
    return 100 * math.exp(log + min(0, 1 - r / c))


def by_lists(hypotheses, references):
    product = 1
    for n in range(1, 5):
        good = count = 0
        for one, other in zip(hypotheses, references, strict=True):
            left = [other[i : i + n] for i in range(len(other) - n + 1)]
            for i in range(len(one) - n + 1):
                count += 1
                if one[i : i + n] in left:
                    left.remove(one[i : i + n])
                    good += 1
        product *= good / max(count, 1)
    c, r = sum(len(one) for one in hypotheses), sum(len(one) for one in references)
    return 100 * product**0.25 * (1 if c > r else math.exp(1 - r / c))


def by_sacrebleu(hypotheses, references):
    texts = [" ".join(tokens) for tokens in hypotheses]
    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    return metric.corpus_score(texts, [[" ".join(tokens) for tokens in references]]).score


def changed(join=lambda p: math.prod(p) ** 0.25, bp=None, clip=True, most=4, percent=100):
    def score(hypotheses, references):
        shares = []
        for n in range(1, most + 1):
            good = count = 0
            for one, other in zip(hypotheses, references, strict=True):
                mine = [tuple(one[i : i + n]) for i in range(len(one) - n + 1)]
                theirs = [tuple(other[i : i + n]) for i in range(len(other) - n + 1)]
                if clip:
                    good += sum((Counter(mine) & Counter(theirs)).values())
                else:
                    good += sum(gram in theirs for gram in mine)
                count += len(mine)
            shares.append(good / count if count else 0)
        c, r = sum(map(len, hypotheses)), sum(map(len, references))
        factor = bp(c, r) if bp else (1 if c >= r else math.exp(1 - r / c))
        return percent * factor * join(shares)

    return score


def crashes_at_zero(hypotheses, references):
    return changed(lambda p: math.exp(sum(math.log(x) for x in p) / 4))(hypotheses, references)


def pooled(hypotheses, references):
    """Counted over all sentences at once."""
    matches, totals = [], []
    for n in range(1, 5):
        mine, theirs = Counter(), Counter()
        for one in hypotheses:
            mine.update(tuple(one[i : i + n]) for i in range(len(one) - n + 1))
        for other in references:
            theirs.update(tuple(other[i : i + n]) for i in range(len(other) - n + 1))
        matches.append((mine & theirs).total())
        totals.append(mine.total())
    c, r = sum(map(len, hypotheses)), sum(map(len, references))
    product = math.prod(m / max(t, 1) for m, t in zip(matches, totals, strict=True))
    return 100 * product**0.25 * min(1, math.exp(1 - r / c))


def mean_of_sentences(hypotheses, references):
    scores = [
        by_counters([a], [b]) if a else 0 for a, b in zip(hypotheses, references, strict=True)
    ]
    return sum(scores) / len(scores)


CORPUS_BLEU = [
    ("That is a share", changed(percent=1)),
    ("not clipped", changed(clip=False)),
    ("penalty is missing", changed(bp=lambda c, r: 1)),
    ("above 1", changed(bp=lambda c, r: math.exp(1 - r / c))),
    ("r and c changed places", changed(bp=lambda c, r: min(1, math.exp(1 - c / r)))),
    ("penalty is c/r", changed(bp=lambda c, r: min(1, c / r))),
    ("mean of the sentences' BLEUs", mean_of_sentences),
    ("arithmetic mean", changed(lambda p: sum(p) / 4)),
    ("fourth root is missing", changed(math.prod)),
    ("1 to 3 words", changed(lambda p: math.prod(p) ** (1 / 3), most=3)),
    ("Words alone", changed(lambda p: p[0], most=1)),
    ("only their own sentence's counts", pooled),
    ("references changed places", lambda h, r: by_counters(r, h)),
    ("math domain error", crashes_at_zero),
]

# Bootstrap


def wins(score, ours, theirs, references, draws):
    won = 0
    for draw in draws:
        a = score([ours[i] for i in draw], [references[i] for i in draw])
        b = score([theirs[i] for i in draw], [references[i] for i in draw])
        if a > b:
            won = won + 1
    return won / len(draws)


def wins_by_mean(score, ours, theirs, references, draws):
    rows = list(zip(ours, theirs, references, strict=True))
    results = []
    for draw in draws:
        a, b, right = (list(side) for side in zip(*(rows[i] for i in draw), strict=True))
        results.append(float(score(a, right) > score(b, right)))
    return sum(results) / len(results)


def drawing(sides="abc", judge=lambda a, b: a > b, result=lambda won, n: won / n):
    def count(score, ours, theirs, references, draws):
        won = 0
        for draw in draws:
            a, b, right = (
                [side[i] for i in draw] if name in sides else side
                for name, side in zip("abc", (ours, theirs, references), strict=True)
            )
            size = min(len(a), len(b), len(right))
            won += judge(score(a[:size], right[:size]), score(b[:size], right[:size]))
        return result(won, len(draws))

    return count


def by_single_sentences(score, ours, theirs, references, draws):
    won = total = 0
    for draw in draws:
        for i in draw:
            won += score([ours[i]], [references[i]]) > score([theirs[i]], [references[i]])
            total += 1
    return won / total


def by_sums(score, ours, theirs, references, draws):
    won = 0
    for draw in draws:
        a = sum(score([ours[i]], [references[i]]) for i in draw)
        won += a > sum(score([theirs[i]], [references[i]]) for i in draw)
    return won / len(draws)


WIN_RATE = [
    ("A tie is counted as a win", drawing(judge=lambda a, b: a >= b)),
    ("half a win", drawing(judge=lambda a, b: 0.5 if a == b else a > b)),
    ("how often they win", drawing(judge=lambda a, b: a < b)),
    ("not won", drawing(result=lambda won, n: 1 - won / n)),
    ("the number of draws", drawing(result=lambda won, n: won)),
    ("in percent", drawing(result=lambda won, n: 100 * won / n)),
    ("The references are not drawn", drawing("ab")),
    ("Only ours are drawn", drawing("ac")),
    ("The draws are not used", drawing("")),
    ("one by one", by_single_sentences),
    ("are added", by_sums),
    ("True or False", lambda *inputs: wins(*inputs) > 0.95),
]

NEARLY = [text.replace("la", "une") for text in FRENCH[:2]] + FRENCH[2:]
RIGHT = {
    "predict_batch_size": [0, 0.0, 0.2, -0.1],
    "most_frequent_pair": [counted, repeated, counting(neighbours)],
    "merge_pair": [joined, by_expression, by_recursion],
    "token_batches": [batches, batches_ahead, cutting(right_full)],
    "corpus_bleu": [by_counters, by_lists, by_sacrebleu, changed()],
    "win_rate": [wins, wins_by_mean, drawing()],
    "beat_captions": [NEARLY, tuple(NEARLY), [SimpleNamespace(text=text) for text in NEARLY]],
}
WRONG = {
    "predict_batch_size": [
        ("neighbours in the batch cannot change it", 1.5),
        ("neighbours in the batch cannot change it", -2),
        ("how much the score changes", 33.0),
        ("a number is asked for", "it rises"),
        ("a number is asked for", True),
        ("a number is asked for", [0.0]),
    ],
    "most_frequent_pair": MOST_FREQUENT,
    "merge_pair": MERGE,
    "token_batches": BATCHES,
    "corpus_bleu": CORPUS_BLEU,
    "win_rate": WIN_RATE,
    "beat_captions": [
        ("English captions", ENGLISH),
        ("in lower case", [text.lower()[:14] for text in FRENCH]),
        ("the references themselves", FRENCH),
        ("order of the captions", FRENCH[1:] + FRENCH[:1]),
        ("joins them to text", ["▁" + text.replace(" ", " ▁") for text in FRENCH]),
        ("5 texts are asked for", NEARLY[:4]),
        ("in it is a list", [[1, 2]] * 5),
        ("what came is a text", " ".join(FRENCH)),
        ("what came is a number", 36.0),
        ("is to beat", [text[:14] for text in FRENCH]),
    ],
}


def checks_with_a_model():
    """The checks, `predict_batch_size` with an untrained model."""
    words = Vocabulary.build(ENGLISH + FRENCH, min_count=1)
    model = TransformerSeq2Seq(words, words, width=16, layers=1, heads=2, feedforward=16).eval()
    named = {name: getattr(real, name) for name in real.__all__}
    named["predict_batch_size"] = lambda guess: real.predict_batch_size(guess, model)
    return SimpleNamespace(__all__=real.__all__, **named)


class TestChecks(CheckTests):
    checks, right, wrong = checks_with_a_model(), RIGHT, WRONG


def test_the_batch_size_is_judged_with_a_model_only(capsys):
    real.predict_batch_size(0)
    assert "hand over the trained model" in capsys.readouterr().out


def test_the_first_merges_are_those_of_the_paper():
    """Sennrich et al. 2016, algorithm 1."""
    words = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    words = {(*word, "·"): count for word, count in words.items()}
    merges = []
    for _ in range(3):
        pair = counted(words)
        merges.append("".join(pair))
        words = {joined(symbols, pair): count for symbols, count in words.items()}
    assert merges == ["es", "est", "est·"]
