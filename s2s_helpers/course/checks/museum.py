"""The checks of notebook 09, halls 1 and 2: a mend for each exhibit on data and models."""

import functools
import itertools

import torch
from torch import Tensor

from s2s_helpers.course.checks.running import check, compare
from s2s_helpers.course.checks.values import kind
from s2s_helpers.models.attention import masked_softmax
from s2s_helpers.models.transformer import causal_mask
from s2s_helpers.vocabulary import EOS

__all__ = [
    "museum_bridge",
    "museum_counter",
    "museum_future",
    "museum_half",
    "museum_mask",
    "museum_positions",
    "museum_split",
    "museum_squeeze",
    "museum_truncation",
]


def seen(function, turn):
    """The learner's function with its value made into what is compared: `turn(value, *args)`."""
    if not callable(function):
        return function

    @functools.wraps(function)
    def turned(*args):
        value = function(*args)
        return value if value is None or value is ... else turn(value, *args)

    return turned


def compare_seen(name, function, turn, reference, inputs, mistakes, **options):
    """As `compare`, of what `turn` makes of the values."""
    turned = {cause: seen(mistake, turn) for cause, mistake in mistakes.items()}
    compare(name, seen(function, turn), seen(reference, turn), inputs, turned, **options)


def two(value, what: str, kinds):
    """The value, if it is two things of these kinds; else a TypeError says what is asked for."""
    if not (isinstance(value, (tuple, list)) and len(value) == 2):
        raise TypeError(f"{what} are asked for")
    if not all(isinstance(each, kinds) for each in value):
        raise TypeError(f"{what} are asked for, not {' and '.join(map(kind, value))}")
    return value


# Hall 1: data


def numbered(sides, first=4):
    """A dictionary for each side; every new word gets the next number of its side."""
    tables = []
    for side in sides:
        words = dict.fromkeys(word for tokens in side for word in tokens)
        tables.append({word: first + number for number, word in enumerate(words)})
    return tables


def shared_numbers(pairs):
    tables, counter = ({}, {}), itertools.count(4)
    for pair in pairs:
        for table, tokens in zip(tables, pair, strict=True):
            for word in tokens:
                if word not in table:
                    table[word] = next(counter)
    return tables


def going_on(pairs):
    english, french = numbered(zip(*pairs, strict=True))
    return english, {word: number + len(english) for word, number in french.items()}


def counted_anew(pairs):
    """Numbers by position in the text, so that a repeated word uses one up."""
    return [
        {word: 4 + n for n, word in enumerate(word for tokens in side for word in tokens)}
        for side in zip(*pairs, strict=True)
    ]


@check
def museum_counter(function):
    """`function(pairs)`: pairs of lists of words to two dictionaries, word to id."""

    def facts(tables, pairs):
        source, target = two(tables, "two dictionaries", dict)
        return {
            "source words": sorted(source),
            "source ids": sorted(source.values()),
            "target words": sorted(target),
            "target ids": sorted(target.values()),
        }

    compare_seen(
        "museum_counter",
        function,
        facts,
        lambda pairs: numbered(zip(*pairs, strict=True)),
        {
            "one pair": ([(["a", "cat"], ["un", "chat"])],),
            "repeated words": (
                [(["a", "cat", "a", "dog"], ["un", "chat"]), (["a", "cow"], ["un", "boeuf"])],
            ),
            "a word of both languages": ([(["the", "table"], ["la", "table"])],),
        },
        {
            "Both sides draw from one counter, so each has holes where the other has words.": (
                shared_numbers
            ),
            "The second language goes on where the first one ended.": going_on,
            "Numbering starts at 0, where the special tokens stand.": lambda pairs: numbered(
                zip(*pairs, strict=True), 0
            ),
            "Numbering starts one too late (or too early).": lambda pairs: numbered(
                zip(*pairs, strict=True), 5
            ),
            "A repeated word uses up a number, so ids are left out.": counted_anew,
            "Both languages share one dictionary.": lambda pairs: (
                numbered([[tokens for pair in pairs for tokens in pair]]) * 2
            ),
        },
        why="No row of a table stands idle.",
    )


@check
def museum_truncation(function):
    """`function(ids, max_length)`: ids that end in EOS to at most so many, and their number."""

    def cut(ids, max_length):
        ids = ids if len(ids) <= max_length else [*ids[: max_length - 1], EOS]
        return ids, len(ids)

    def after(change):
        return lambda ids, most: (change(ids, most), len(change(ids, most)))

    compare(
        "museum_truncation",
        function,
        cut,
        {
            "a sentence that is too long": ([5, 6, 7, 8, EOS], 3),
            "a sentence that fits exactly": ([5, 6, EOS], 3),
            "a short sentence": ([5, EOS], 4),
            "too long by one": ([5, 6, 7, EOS], 3),
        },
        {
            "EOS is cut off: the model never sees where a long sentence ends.": after(
                lambda ids, most: ids[:most]
            ),
            "The length is that of the sentence before it was cut.": lambda ids, most: (
                cut(ids, most)[0],
                len(ids),
            ),
            "EOS is cut off, and the length is that before the cut.": lambda ids, most: (
                ids[:most],
                len(ids),
            ),
            "One too many: EOS comes after max_length ids.": after(
                lambda ids, most: ids if len(ids) <= most else [*ids[:most], EOS]
            ),
            "EOS is added to sentences that have one.": after(
                lambda ids, most: [*ids[: most - 1], EOS]
            ),
            "The beginning is cut off, not the end.": after(lambda ids, most: ids[-most:]),
        },
        why="A model that never sees an end never learns to stop.",
    )


@check
def museum_split(function):
    """`function(pairs, size)`: a list of pairs, and how many different ones to hold out, to
    (training pairs, validation pairs)."""

    def facts(parts, pairs, size):
        parts = two(parts, "two lists of pairs", (list, tuple))
        if any(isinstance(pair, str) for part in parts for pair in part):
            raise TypeError("two lists of pairs are asked for, not pairs")
        train, validation = (set(map(tuple, part)) for part in parts)
        return {
            "pairs that stand in both": len(train & validation),
            "different pairs in validation": len(validation),
            "pairs that were lost": len(set(pairs) - train - validation),
        }

    def split(pairs, size, source=None, rest=None):
        different = list(dict.fromkeys(pairs)) if source is None else source
        return different[size:] if rest is None else rest, different[:size]

    few = [("one", "un"), ("two", "deux"), ("three", "trois"), ("four", "quatre")]
    compare_seen(
        "museum_split",
        function,
        facts,
        lambda pairs, size: split(pairs, size),
        {
            "four different pairs": (few, 2),
            "a pair that stands there twice": ([few[0], few[1], few[0], few[2]], 1),
            "pairs that stand there three times": (few * 3, 1),
        },
        {
            "Validation is drawn from all pairs, and training keeps them too.": (
                lambda pairs, size: split(pairs, size, rest=pairs)
            ),
            "Copies of a pair fall on both sides: split first, and the same sentence is in "
            "training and validation.": lambda pairs, size: split(pairs, size, source=pairs),
            "The slices overlap by one.": lambda pairs, size: split(
                pairs, size, rest=list(dict.fromkeys(pairs))[max(size - 1, 0) :]
            ),
            "The slices leave a pair out between them.": lambda pairs, size: split(
                pairs, size, rest=list(dict.fromkeys(pairs))[size + 1 :]
            ),
            "The two parts have changed places.": lambda pairs, size: split(pairs, size)[::-1],
        },
        why="What validation measures is now new to the model.",
    )


# Hall 2: models


@check
def museum_bridge(function):
    """`function(final)`: (layers x 2, batch, hidden) to (batch, layers, 2 x hidden)."""

    def join(final):
        layers = final.unflatten(0, (-1, 2))  # (layers, directions, batch, hidden)
        return layers.permute(2, 0, 1, 3).flatten(2)

    def reshaped(final):
        return final.reshape(final.shape[1], -1, 2 * final.shape[2])

    def directions_first(final):
        layers = final.unflatten(0, (2, -1)).transpose(0, 1)
        return layers.permute(2, 0, 1, 3).flatten(2)

    compare(
        "museum_bridge",
        function,
        join,
        {
            "one layer, two sentences": (torch.arange(8.0).view(2, 2, 2),),
            "two layers, one sentence": (torch.arange(8.0).view(4, 1, 2),),
            "three layers, five sentences": (torch.randn(6, 5, 4),),
        },
        {
            "view and reshape cut the numbers as they lie: a row gets another's.": reshaped,
            "Forward and backward have changed places.": lambda final: join(
                final.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
            ),
            "Layers and directions are mixed up: layer 1 forward, layer 1 backward, layer 2 "
            "forward and so on is their order.": directions_first,
            "Only one direction is left.": lambda final: final[0::2].transpose(0, 1),
            "Only one direction is left; it is the backward one.": lambda final: final[
                1::2
            ].transpose(0, 1),
            "The directions are added, not put side by side.": lambda final: (
                final[0::2] + final[1::2]
            ).transpose(0, 1),
            "The layers stand where the batch should.": lambda final: join(final).transpose(0, 1),
        },
        why="Each sentence keeps its own two halves.",
    )


@check
def museum_mask(function):
    """`function(scores, mask)`: scores (batch, target, source), mask (batch, source) True at real
    tokens, to weights (batch, target, source)."""
    last = torch.tensor([[True, True, False], [True, False, False]])
    random_mask = torch.arange(7) < torch.tensor([[7], [3], [1], [5]])
    compare(
        "museum_mask",
        function,
        lambda scores, mask: masked_softmax(scores, mask[:, None]),
        {
            "one padded row": (torch.tensor([[[1.0, 2, 3]]]), last[:1]),
            "two sentences": (torch.randn(2, 2, 3), last),
            "four sentences": (3 * torch.randn(4, 5, 7), random_mask),
        },
        {
            "Padding is not masked at all.": lambda scores, mask: scores.softmax(-1),
            "The mask is inverted: real tokens are closed.": lambda scores, mask: (
                scores.masked_fill(mask[:, None], float("-inf")).softmax(-1)
            ),
            "A score of 0 is no mask: e to the 0 is 1.": lambda scores, mask: (
                scores * mask[:, None]
            ).softmax(-1),
            "Masked after the softmax: the weights no longer sum to 1.": lambda scores, mask: (
                scores.softmax(-1) * mask[:, None]
            ),
            "The softmax goes over the targets, not over the source.": lambda scores, mask: (
                scores.masked_fill(~mask[:, None], -1e9).softmax(1)
            ),
            "The last real token is closed too.": lambda scores, mask: masked_softmax(
                scores, mask.roll(-1, dims=1)[:, None] & mask[:, None]
            ),
            "The fill is too mild: padding keeps some weight.": lambda scores, mask: (
                scores.masked_fill(~mask[:, None], -1.0).softmax(-1)
            ),
        },
        why="A sentence now gets the same beside any other.",
    )


@check
def museum_squeeze(function):
    """`function(logits)`: (batch, 1, vocabulary) to the most probable ids, (batch,)."""
    compare(
        "museum_squeeze",
        function,
        lambda logits: logits[:, -1].argmax(-1),
        {
            "three sentences": (torch.tensor([[[0.0, 1, 2]], [[3, 1, 2]], [[0, 4, 1]]]),),
            "a batch of one": (torch.tensor([[[0.0, 5, 2]]]),),
            "two sentences, two words": (torch.tensor([[[0.0, 5]], [[3, 1]]]),),
            "a batch of nine": (torch.randn(9, 1, 6),),
        },
        {
            "squeeze(0) takes an axis away from a batch of one and from no other.": lambda logits: (
                logits.squeeze(0).argmax(-1)
            ),
            "A bare squeeze() also takes the axis of a batch of one.": lambda logits: (
                logits.squeeze().argmax(-1)
            ),
            "The maximum is taken over the time, not the vocabulary.": lambda logits: logits.argmax(
                1
            ),
            "The maximum is taken over the batch, not the vocabulary.": lambda logits: (
                logits.argmax(0)
            ),
            "Only the first sentence is left.": lambda logits: logits[0].argmax(-1),
            "The axis of time is still there.": lambda logits: logits.argmax(-1),
            "These are the largest logits, not where they stand.": lambda logits: logits[:, 0].amax(
                -1
            ),
            "These are positions in the whole batch, flattened.": lambda logits: (
                logits[:, 0].argmax(-1) + logits.shape[-1] * torch.arange(len(logits))
            ),
        },
        why="Name the axis that is to go: squeeze(1).",
    )


@check
def museum_positions(function):
    """`function(x, table)`: x (batch, time, width) and table (positions, width) to their sum."""
    table = torch.arange(12.0).view(6, 2) + 1
    compare(
        "museum_positions",
        function,
        lambda x, table: x + table[: x.shape[1]],
        {
            "two sentences of three tokens": (torch.zeros(2, 3, 2), table),
            "a batch of one": (torch.randn(1, 4, 2), table),
            "as many sentences as tokens": (torch.randn(3, 3, 2), table),
            "a batch of five": (torch.randn(5, 2, 4), torch.randn(9, 4)),
        },
        {
            "Positions go by the row of the batch: a sentence's tokens all get the same.": (
                lambda x, table: x + table[: x.shape[0], None]
            ),
            "Nothing is added.": lambda x, table: x,
            "Every token gets position 0.": lambda x, table: x + table[0],
            "Shifted by one: the first token gets position 1.": lambda x, table: (
                x + table[1 : x.shape[1] + 1]
            ),
            "The positions come from the table's end.": lambda x, table: x + table[-x.shape[1] :],
            "They run backwards.": lambda x, table: x + table[: x.shape[1]].flip(0),
            "The positions are multiplied, not added.": lambda x, table: x * table[: x.shape[1]],
            "The tokens themselves are left out.": lambda x, table: table[: x.shape[1]].expand_as(
                x
            ),
        },
        why="The second axis is time, wherever the batch comes first.",
    )


@check
def museum_future(function):
    """`function(length)`: the mask (length, length), True where a position may look."""
    compare(
        "museum_future",
        function,
        causal_mask,
        {"three tokens": (3,), "one token": (1,), "seven tokens": (7,)},
        {
            "Everything is open: position i sees the word that it is to predict.": lambda n: (
                torch.ones(n, n, dtype=torch.bool)
            ),
            "Transposed: everybody sees the future and nobody the past.": lambda n: causal_mask(
                n
            ).T.contiguous(),
            "Inverted: True stands where looking is forbidden.": lambda n: ~causal_mask(n),
            "The diagonal is closed: a position must see the token that it has just read.": (
                lambda n: causal_mask(n).tril(-1)
            ),
            "The diagonal is open one too far: position i sees token i + 1.": lambda n: torch.ones(
                n, n, dtype=torch.bool
            ).tril(1),
            "Every position sees itself alone.": lambda n: torch.eye(n, dtype=torch.bool),
            "These are numbers to add to the scores; a boolean mask is asked for.": lambda n: (
                torch.zeros(n, n).masked_fill(~causal_mask(n), float("-inf"))
            ),
            "Ones and zeros are numbers; added to scores they close nothing.": lambda n: (
                causal_mask(n).float()
            ),
        },
        why="With it, training is as hard as translating.",
    )


@check
def museum_half(function):
    """`function(scores, mask)`: scores and mask (rows, source) to weights of the scores' dtype; a
    row without a real token gets weights of 0."""

    def weights(scores, mask):
        found = scores.float().masked_fill(~mask, float("-inf")).softmax(-1)
        return found.nan_to_num(0.0).to(scores.dtype)

    def added(scores, mask, much):
        return (scores + (1 - mask.to(scores.dtype)) * much.to(scores.dtype)).softmax(-1)

    def filled(scores, mask, much):
        return scores.masked_fill(~mask, much).softmax(-1)

    scores = torch.tensor([[1.0, 2.0, 3.0], [4.0, 1.0, 2.0]])
    some, none = (torch.tensor([[True, True, False], [each] * 3]) for each in (True, False))
    wide = 4 * torch.randn(5, 9)
    compare_seen(
        "museum_half",
        function,
        lambda w, *_: (w, str(w.dtype)) if isinstance(w, Tensor) else w,
        weights,
        {
            "float32": (scores, some),
            "float16": (scores.half(), some),
            "float32, a row of padding": (scores, none),
            "float16, a row of padding": (scores.half(), none),
            "bfloat16": (wide.bfloat16(), torch.rand(5, 9) > 0.4),
            "float16, random": (wide.half(), torch.rand(5, 9) > 0.4),
        },
        {
            "In half precision -1e9 is -inf, and 0 times infinity is not a number.": lambda s, m: (
                added(s, m, torch.tensor(-1e9))
            ),
            "float16 ends at 65504: it cannot hold -1e9.": lambda s, m: filled(s, m, -1e9),
            "A row without any real token gives 0 / 0, which is not a number.": lambda s, m: filled(
                s, m, float("-inf")
            ),
            "A row of padding gets equal weights, not 0.": lambda s, m: filled(
                s, m, torch.finfo(s.dtype).min
            ),
            "The weights are no longer of the scores' dtype.": lambda s, m: weights(s.float(), m),
            "Padding is not masked.": lambda s, m: s.softmax(-1),
            "The fill is too mild: padding keeps some weight.": lambda s, m: filled(s, m, -5.0),
        },
        why="It holds in every precision.",
        tolerance=4e-3,
    )
