"""The checks of notebook 09: a mend for each exhibit of the bug museum."""

import functools
import itertools
import random

import torch
from torch import Tensor, nn

from s2s_helpers.checks.running import beat, check, compare, say
from s2s_helpers.checks.values import is_number, kind, plain
from s2s_helpers.data import collate
from s2s_helpers.decoding import translate
from s2s_helpers.metrics import bleu, sequence_accuracy, token_accuracy
from s2s_helpers.models import Memory, Seq2SeqModel, State
from s2s_helpers.models.attention import masked_softmax
from s2s_helpers.models.transformer import causal_mask
from s2s_helpers.vocabulary import EOS, PAD, Vocabulary, word_detokenize

__all__ = [
    "museum_accumulation",
    "museum_beam",
    "museum_bleu",
    "museum_bridge",
    "museum_counter",
    "museum_evaluation",
    "museum_future",
    "museum_half",
    "museum_mask",
    "museum_means",
    "museum_metric",
    "museum_padding",
    "museum_positions",
    "museum_quality",
    "museum_split",
    "museum_squeeze",
    "museum_truncation",
    "museum_wreck",
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


# Hall 3: loss and training


@check
def museum_padding(function):
    """`function(losses, targets)`: both (batch, target), to the mean over real tokens."""
    targets = torch.tensor([[5, 3, 0, 0], [6, 7, 8, 3]])
    many = torch.randint(4, 9, (5, 8)).where(torch.arange(8) < torch.tensor([[8, 2, 5, 1, 3]]).T, 0)
    compare(
        "museum_padding",
        function,
        lambda losses, targets: losses[targets != PAD].mean(),
        {
            "no padding": (torch.tensor([[1.0, 2.0]]), torch.tensor([[5, 3]])),
            "two sentences": (torch.tensor([[1.0, 2, 4, 4], [1, 1, 2, 2]]), targets),
            "five sentences": (torch.rand(5, 8), many),
        },
        {
            "Padding counts as if it were words.": lambda losses, targets: losses.mean(),
            "Padding's losses are 0, but it is still counted in the mean.": (
                lambda losses, targets: (losses * (targets != PAD)).mean()
            ),
            "This is a mean of the sentences' means: short sentences weigh more.": (
                lambda losses, targets: (
                    (losses * (targets != PAD)).sum(1) / (targets != PAD).sum(1)
                ).mean()
            ),
            "This is the sum, not the mean.": lambda losses, targets: losses[targets != PAD].sum(),
            "Divided by the number of sentences, not of tokens.": lambda losses, targets: (
                losses[targets != PAD].sum() / len(losses)
            ),
            "The mask is inverted: only padding counts.": lambda losses, targets: losses[
                targets == PAD
            ].mean(),
            "EOS is left out; it is a token to learn.": lambda losses, targets: losses[
                (targets != PAD) & (targets != EOS)
            ].mean(),
        },
        why="The loss no longer depends on who stands beside whom.",
    )


@check
def museum_means(function):
    """`function(batches)`: (mean loss, tokens) of each batch, to the mean of a token."""

    def total(batches):
        return sum(mean * tokens for mean, tokens in batches)

    def tokens(batches):
        return sum(count for _, count in batches)

    compare(
        "museum_means",
        function,
        lambda batches: total(batches) / tokens(batches),
        {
            "two batches": ([(1.0, 30), (4.0, 10)],),
            "one batch": ([(2.5, 7)],),
            "a last batch of one token": ([(1.0, 64), (1.5, 64), (9.0, 1)],),
            "random batches": (
                [(random.uniform(0.5, 5), random.randint(1, 90)) for _ in range(9)],
            ),
        },
        {
            "Every batch weighs the same, however few tokens it has.": lambda batches: (
                sum(mean for mean, _ in batches) / len(batches)
            ),
            "Divided by the number of batches, not of tokens.": lambda batches: (
                total(batches) / len(batches)
            ),
            "The batches' means are added without their tokens.": lambda batches: (
                sum(mean for mean, _ in batches) / tokens(batches)
            ),
            "This is the sum, not the mean.": total,
            "The last batch is left out.": lambda batches: (
                total(batches[:-1]) / tokens(batches[:-1])
            ),
            "This is the last batch's mean alone.": lambda batches: batches[-1][0],
            "The weights are upside down: few tokens weigh more.": lambda batches: (
                sum(mean / count for mean, count in batches)
                / sum(1 / count for _, count in batches)
            ),
        },
        why="Sums of losses and tokens first, one division at the end.",
    )


@check
def museum_accumulation(function):
    """`function(loss_of, optimizer, batches, every)`: one pass, a step after `every` batches; the
    number of steps."""

    def watched(epoch):
        """What an epoch does to one weight, with the gradient b for a batch b."""
        if not callable(epoch):
            return epoch

        @functools.wraps(epoch)
        def run(batches, every):
            weight, path = nn.Parameter(torch.zeros(())), []
            optimizer = torch.optim.SGD([weight], lr=1.0)
            optimizer.register_step_post_hook(lambda *_: path.append(round(weight.item(), 4)))
            with torch.enable_grad():
                steps = epoch(lambda batch: weight * batch, optimizer, batches, every)
            return (
                steps
                if steps is None or steps is ...
                else {"steps": steps, "the weight after each": path}
            )

        return run

    def epoch(loss_of, optimizer, batches, every, zero=0, rest=True, mean=None, once=False):
        """The right loop, and its mistakes: zero the gradient before this batch of a group, ..."""
        steps = 0
        for number, batch in enumerate(batches):
            start = number - number % every
            group = min(every, len(batches) - start)
            if zero == "each" or (zero is not None and number % every == zero):
                optimizer.zero_grad()
            (loss_of(batch) / (group if mean is None else mean)).backward()
            last = number % every == every - 1 or (rest and number == len(batches) - 1)
            if last or once:
                optimizer.step()
                steps += 1
        return steps

    def mistaken(**changes):
        return watched(lambda *args: epoch(*args, **changes))

    watched(epoch)(
        [1.0], 1
    )  # torch loads half of itself at the first step: not on a learner's time
    compare(
        "museum_accumulation",
        watched(function),
        lambda batches, every: watched(epoch)(batches, every),
        {
            "two batches, one step": ([1.0, 3.0], 2),
            "two groups": ([1.0, 3.0, 2.0, 2.0], 2),
            "a step for each batch": ([1.0, 4.0], 1),
            "a last group that is not full": ([1.0, 3.0, 2.0, 2.0, 5.0], 4),
        },
        {
            "The gradient is zeroed for every batch: all of a group but the last are forgotten.": (
                mistaken(zero="each")
            ),
            "The gradient is never zeroed: old groups go on pulling.": mistaken(zero=None),
            "The batches' gradients are added, not averaged: the step is too long.": mistaken(
                mean=1
            ),
            "Batches after the last full group are lost.": mistaken(rest=False),
            "There is a step for every batch.": mistaken(once=True),
            "There is a step for every batch, with its own gradient alone.": mistaken(
                zero="each", mean=1, once=True
            ),
            "There is a step for every batch, with a part of its own gradient.": mistaken(
                zero="each", once=True
            ),
            "All of a group but the last are forgotten, and the last is not divided.": mistaken(
                zero="each", mean=1
            ),
        },
        why="One step from many pieces is one step from a large batch.",
    )


# Hall 4: evaluation


@check
def museum_metric(function):
    """`function(metric, hypotheses, references)`: the metric's value, and its errors."""

    def watched(score):
        """An error of the metric's must come through; which one it is then does not matter."""
        if not callable(score):
            return score

        @functools.wraps(score)
        def run(metric, hypotheses, references):
            try:
                metric(list(hypotheses), list(references))
            except ValueError:
                try:
                    return score(metric, hypotheses, references)
                except Exception:
                    return "an error"
            return score(metric, hypotheses, references)

        return run

    def instead(value):
        def score(metric, hypotheses, references):
            try:
                return metric(hypotheses, references)
            except Exception:
                return value

        return watched(score)

    def shortened(metric, hypotheses, references):
        count = min(len(hypotheses), len(references))
        return metric(hypotheses[:count], references[:count]) if count else 0.0

    compare(
        "museum_metric",
        watched(function),
        watched(lambda metric, hypotheses, references: metric(hypotheses, references)),
        {
            "two sentences, one right": (sequence_accuracy, ["a", "b"], ["a", "c"]),
            "nothing right": (sequence_accuracy, ["a"], ["b"]),
            "a sentence too few": (sequence_accuracy, ["a"], ["a", "b"]),
            "no sentences": (sequence_accuracy, [], []),
        },
        {
            "The error is swallowed: 0.0 looks like a bad score.": instead(0.0),
            "The error is swallowed: nan goes unnoticed, as every comparison with it is False.": (
                instead(float("nan"))
            ),
            "The error is swallowed: -1 or 1 is still a number, and gets plotted.": instead(-1.0),
            "The error is swallowed and a perfect score comes back.": instead(1.0),
            "The metric is never called.": watched(lambda metric, hypotheses, references: 0.0),
            "What does not match up is thrown away, and the rest scored.": watched(shortened),
        },
        why="A metric that fails must never look like a bad score.",
    )


@check
def museum_evaluation(function):
    """`function(model, measure)`: measure(model), in evaluation mode and without gradients; then
    the model is as it was."""

    def watched(evaluate):
        if not callable(evaluate):
            return evaluate

        @functools.wraps(evaluate)
        def run(training):
            model, found = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)).train(training), {}

            def measure(model):
                found["the model in training mode"] = model.training
                found["its dropout in training mode"] = model[0].training
                found["gradients are recorded"] = torch.is_grad_enabled()
                return 0.75

            with torch.enable_grad():
                value = evaluate(model, measure)
                after = torch.is_grad_enabled()
            if value is None or value is ...:
                return value
            found["afterwards in training mode"] = model.training and model[0].training
            found["afterwards gradients are recorded"] = after
            return found | {"value": value}

        return run

    def evaluate(model, measure, quiet=True, back=True):
        was = model.training
        model.eval()
        with torch.set_grad_enabled(not quiet):
            value = measure(model)
        if back:
            model.train(was if back is True else back == "train")
        return value

    def top_only(model, measure):
        model.training = False
        with torch.no_grad():
            value = measure(model)
        model.training = True
        return value

    def by_hand(model, measure):
        with torch.no_grad():
            return measure(model)

    compare(
        "museum_evaluation",
        watched(function),
        lambda training: watched(evaluate)(training),
        {"a model in training": (True,), "a model that was in evaluation mode": (False,)},
        {
            "no_grad does not turn dropout off: the model is still in training mode.": watched(
                by_hand
            ),
            "The model stays in training mode, and gradients are recorded.": watched(
                lambda model, measure: measure(model)
            ),
            "The mode is not given back: what follows would train without dropout.": watched(
                lambda *args: evaluate(*args, back=False)
            ),
            "Gradients are still recorded, which takes memory for nothing.": watched(
                lambda *args: evaluate(*args, quiet=False)
            ),
            "Gradients are still recorded, and the mode is not given back.": watched(
                lambda *args: evaluate(*args, quiet=False, back=False)
            ),
            "Training mode is turned on even where it was off before.": watched(
                lambda *args: evaluate(*args, back="train")
            ),
            "Only the outer module is told: dropout inside goes on. model.eval() tells all.": (
                watched(top_only)
            ),
        },
        why="The same model gives the same figure twice.",
    )


@check
def museum_beam(function):
    """`function(hypotheses)`: a list of (ids, log probability) to the ids with the most log
    probability a token, EOS counted."""

    def by(score):
        return lambda hypotheses: max(hypotheses, key=lambda h: score(len(h[0]), h[1]))[0]

    long, short = [5, 6, 7, 8, 9, EOS], [5, EOS]
    three = [5, 6, EOS]
    many = [([*range(4, 4 + random.randint(1, 12)), EOS], -random.uniform(1, 9)) for _ in range(12)]
    compare(
        "museum_beam",
        function,
        by(lambda n, log_p: log_p / n),
        {
            "a short one, much less probable": ([(short, -4.0), (long, -1.9)],),
            "a short one, nearly as probable": ([(short, -2.0), (long, -1.9)],),
            "a short one, more probable": ([(short, -2.0), (long, -3.0)],),
            "the short one is better": ([(short, -0.5), (three, -1.5), (long, -4.0)],),
            "EOS decides": ([(long, -4.0), (short, -1.0)],),
            "a single one": ([(three, -1.0)],),
            "twelve": (many,),
        },
        {
            "Sums are compared: every further word costs, so the shortest wins.": by(
                lambda n, log_p: log_p
            ),
            "The worst one is chosen.": by(lambda n, log_p: -log_p / n),
            "The longest wins, whatever its probability.": by(lambda n, log_p: n),
            "Probabilities are divided by the length, not their logarithms.": by(
                lambda n, log_p: 2.718281828**log_p / n
            ),
            "Multiplied by the length, not divided.": by(lambda n, log_p: log_p * n),
            "The length leaves EOS out.": by(lambda n, log_p: log_p / (n - 1)),
            "The first hypothesis is taken.": lambda hypotheses: hypotheses[0][0],
            "Divided by the square of the length: the longest are favoured.": by(
                lambda n, log_p: log_p / n**2
            ),
        },
        why="Now hypotheses of all lengths compete alike.",
    )


@check
def museum_bleu(function):
    """`function(tokens, references)`: a list of lists of French tokens, and texts, to BLEU."""

    def texts(tokens):
        return [word_detokenize(each, "fr") for each in tokens]

    def split(references):
        return [" ".join(Vocabulary([], lowercase=False).tokenize(text)) for text in references]

    few = (
        [["l'", "homme", "voit", "un", "chat", "."], ["Le", "chat", "ne", "dort", "pas", "."]],
        ["L'homme voit un chat gris.", "Le chat ne dort pas encore."],
    )
    more = (
        [*few[0], ["Est-ce", "que", "c'", "est", "l'", "ami", "de", "Paul", "?"]],
        [*few[1], "Est-ce que c'est l'ami du roi de France ?"],
    )
    compare(
        "museum_bleu",
        function,
        lambda tokens, references: bleu(texts(tokens), references),
        {"two sentences": few, "three sentences": more},
        {
            "Tokens joined by spaces are compared with plain text.": lambda tokens, references: (
                bleu([" ".join(each) for each in tokens], references)
            ),
            "Both sides are tokenised by our own rules: the score is not comparable.": (
                lambda tokens, references: bleu(
                    [" ".join(each) for each in tokens], split(references), tokenize="none"
                )
            ),
            "Everything is lower-cased first.": lambda tokens, references: bleu(
                [text.lower() for text in texts(tokens)], [text.lower() for text in references]
            ),
            "This is the mean of the sentences' scores; BLEU counts over the whole corpus.": (
                lambda tokens, references: (
                    sum(map(bleu, [[t] for t in texts(tokens)], [[r] for r in references]))
                    / len(tokens)
                )
            ),
            "Hypotheses and references have changed places.": lambda tokens, references: bleu(
                references, texts(tokens)
            ),
            "BLEU goes from 0 to 100, not to 1.": lambda tokens, references: (
                bleu(texts(tokens), references) / 100
            ),
            "Characters are counted, not words.": lambda tokens, references: bleu(
                texts(tokens), references, tokenize="char"
            ),
        },
        why="With its signature it can stand beside other people's.",
    )


class Parrot(Seq2SeqModel):
    """A model that knows which word follows which, and how each source sentence begins."""

    def __init__(self):
        source = Vocabulary(["one", "two", "three", "four", "five", "six"])
        super().__init__(
            source,
            Vocabulary(["le", "chat", "dort", "la", "fleur", "pousse", "un", "chien", "rit"]),
        )
        size = len(self.target_vocabulary)
        follows = torch.zeros(size, size)
        for pair in ("le chat", "chat dort", "la fleur", "un chien", "chien rit"):
            follows[tuple(self.target_vocabulary.encode(pair)[:2])] = 1.0
        follows[follows.sum(1) == 0, EOS] = 1.0
        self.follows = nn.Parameter(follows)
        first = ["le", "la", "le", "un", "la", "le"]
        self.first = [EOS] * 4 + [self.target_vocabulary.encode(word)[0] for word in first]

    def encode(self, source, source_mask):
        return Memory(mask=source_mask, states=source[:, :, None].float())

    def start(self, memory):
        return State()

    def step(self, tokens, state, memory):
        logits = self.follows[tokens]
        if state.position == 0:
            begins = [self.first[number] for number in memory.states[:, 0, 0].long().tolist()]
            logits = nn.functional.one_hot(torch.tensor(begins), logits.shape[1]).float()
        return logits, State(position=state.position + 1), None


@check
def museum_quality(function):
    """`function(model, pairs)`: the share of pairs whose source the model translates exactly."""

    def batch_of(model, pairs):
        sides = model.source_vocabulary, model.target_vocabulary
        return collate([tuple(v.encode(t) for v, t in zip(sides, p, strict=True)) for p in pairs])

    def forced(model, pairs):
        batch = batch_of(model, pairs)
        with torch.no_grad():
            return model(batch)[0], batch.target_output, batch.target_mask

    def padding_counted(model, pairs):
        logits, gold, _ = forced(model, pairs)
        return (logits.argmax(-1) == gold).float().mean().item()

    def whole(model, pairs):
        texts = [found.text for found in translate(model, [source for source, _ in pairs])]
        return sequence_accuracy(texts, [target for _, target in pairs])

    def told(model, pairs):
        found = translate(model, [source for source, _ in pairs])
        return [(f.text.split(), target.split()) for f, (_, target) in zip(found, pairs)]  # noqa: B905

    def by_word(model, pairs):
        hits = [sum(map(str.__eq__, said, gold)) for said, gold in told(model, pairs)]
        return sum(hits) / sum(len(gold) for _, gold in told(model, pairs))

    def begins(model, pairs):
        both = told(model, pairs)
        return sum(all(map(str.__eq__, said, gold)) for said, gold in both) / len(both)

    model = Parrot().eval()
    pairs = [
        ("one", "le chat dort"),
        ("two", "la fleur pousse"),
        ("three", "un chien rit"),
        ("four", "un chien rit"),
        ("five", "la fleur"),
        ("six", "le chat"),
    ]
    compare(
        "museum_quality",
        function,
        whole,
        {
            "three pairs": (model, pairs[:3]),
            "six pairs": (model, pairs),
            "the last two": (model, pairs[4:]),
            "one pair": (model, pairs[5:]),
        },
        {
            "Teacher-forced: every word was predicted after the right words before it.": (
                lambda model, pairs: token_accuracy(*forced(model, pairs)[:2])
            ),
            "Teacher-forced, and padding counts as right or wrong.": padding_counted,
            "Words are counted, not whole sentences.": by_word,
            "A sentence that only begins right counts as right: compare the ends too.": begins,
            "Everything counts as right.": lambda model, pairs: 1.0,
            "A share goes from 0 to 1; this is a percentage.": lambda *args: 100 * whole(*args),
            "This is the number of sentences, not their share.": lambda model, pairs: (
                len(pairs) * whole(model, pairs)
            ),
        },
        why="Nobody whispers the words any more.",
    )


@check
def museum_wreck(figure):
    """`figure`: the share of test sentences that the mended wreck translates without a mistake."""
    share = plain(figure)
    if is_number(share) and 1 < share <= 100:
        told = f"{share:g} is no share: it goes from 0 to 1."
        return say("✗", "museum_wreck", told, "Likely cause: this is a percentage, or a BLEU.")
    if is_number(share) and (share < 0 or share > 1 or share != share):
        return say("✗", "museum_wreck", f"{share:g} is no share: it goes from 0 to 1.")
    if is_number(share) and share > 0.95:
        told = f"{share:.3f} is too good for so short a training."
        cause = "the training pairs were translated, or the words were teacher-forced."
        return say("✗", "museum_wreck", told, f"Likely cause: {cause}")
    hint = "Likely cause: a bug is still aboard. Which exhibit has its symptom?"
    if is_number(share) and share < 0.02:
        hint = "Likely cause: the mask still leaks: the model can copy, and cannot translate."
    why = "All bugs are found."
    beat("museum_wreck", figure, WRECK_TO_BEAT, why=why, hint=hint)


WRECK_TO_BEAT = 0.4
