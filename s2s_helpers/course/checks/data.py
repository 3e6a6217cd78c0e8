"""The checks of notebook 01: vocabularies, masks, batches, buckets."""

import random
from functools import cache

import torch

from s2s_helpers import data
from s2s_helpers.corpora import phrasebook
from s2s_helpers.course.checks.running import beat, check, compare, predict, results, say
from s2s_helpers.course.recipes import phrasebook_datasets
from s2s_helpers.vocabulary import EOS, PAD, SOS, UNK, Vocabulary, word_tokenize

__all__ = ["collate", "cut", "padding_mask", "padding_share", "predict_unknown_share", "shuffling"]


@check
def predict_unknown_share(guess):
    """A guess: the share of French test tokens, from 0 to 1, that `min_count=50` leaves unknown."""
    share, lost = _unknown()
    predict(
        "predict_unknown_share",
        guess,
        share,
        within=0.015,
        mistakes={
            "That is a figure in percent; a share lies between 0 and 1.": 100 * share,
            "That is the share that is still known.": 1 - share,
            f"{lost:.0%} of the vocabulary's words go, but those are the rare ones.": lost,
        },
        why=f"{lost:.0%} of the words go, but they are the rare ones.",
        form="{:.3f}",
    )


@cache
def _unknown() -> tuple[float, float]:
    """The share of the test split's tokens, and that of the vocabulary's words, that get lost."""
    book = phrasebook.load()
    text = [pair.target for pair in book.train]
    all_words, frequent = (Vocabulary.build(text, language="fr", min_count=n) for n in (1, 50))
    tokens = [token for pair in book.test for token in word_tokenize(pair.target)]
    share = sum(token not in frequent for token in tokens) / len(tokens)
    return share, 1 - len(frequent) / len(all_words)


@check
def padding_mask(function):
    """`function(ids)`: ids (batch, source) to a mask (batch, source), True at real tokens."""

    def shifted(ids, by):
        return torch.arange(ids.shape[1]) < (ids != PAD).sum(1, keepdim=True) + by

    compare(
        "padding_mask",
        function,
        lambda ids: ids != PAD,
        {
            "one row without padding": (torch.tensor([[5, 6, EOS]]),),
            "one padded row": (torch.tensor([[5, EOS, PAD, PAD]]),),
            "a row with an unknown word": (torch.tensor([[5, UNK, EOS, PAD]]),),
            "a target": (torch.tensor([[SOS, 7, 5, EOS], [SOS, EOS, PAD, PAD]]),),
            "rows of one token": (torch.tensor([[EOS], [EOS]]),),
            "random lengths": (torch.randint(4, 99, (6, 9)).tril(2),),
        },
        {
            "The mask is inverted: True stands at padding.": lambda ids: ids == PAD,
            "EOS is taken for padding; the model has to read it too.": lambda ids: shifted(ids, -1),
            "One token of padding is taken for real; positions start at 0.": lambda ids: shifted(
                ids, 1
            ),
            "<unk> is taken for padding; it stands for a real word.": lambda ids: ids > UNK,
            "All special tokens are taken for padding; only <pad> is.": lambda ids: ids > EOS,
            "Everything is taken for real.": lambda ids: torch.ones_like(ids, dtype=torch.bool),
        },
        why="The loss, the encoder and attention all ask for it.",
    )


@check
def cut(function):
    """`function(ids, most)`: a list of ids with EOS at its end to one of at most so many ids."""

    def reference(ids, most):
        return ids if len(ids) <= most else [*ids[: most - 1], EOS]

    compare(
        "cut",
        function,
        reference,
        {
            "a short sentence": ([5, EOS], 6),
            "a sentence that just fits": ([5, 6, 7, EOS], 4),
            "a sentence one too long": ([5, 6, 7, 8, EOS], 4),
            "room for one word": ([9, 8, 7, EOS], 2),
            "a long sentence": ([*range(4, 40), EOS], 10),
        },
        {
            "EOS is cut off, so a model would never see a long sentence end.": lambda ids, most: (
                ids[:most]
            ),
            "EOS comes on top, so there is one id too many.": lambda ids, most: (
                ids if len(ids) <= most else [*ids[:most], EOS]
            ),
            "A sentence that fits gets a second EOS.": lambda ids, most: [*ids[: most - 1], EOS],
            "Every sentence gets another EOS.": lambda ids, most: [*ids[:most], EOS],
            "The beginning is cut off, not the end.": lambda ids, most: ids[-most:],
            "A sentence that just fits is cut too.": lambda ids, most: (
                ids if len(ids) < most else [*ids[: most - 2], EOS]
            ),
            "One id too few is kept.": lambda ids, most: (
                ids if len(ids) <= most else [*ids[: most - 2], EOS]
            ),
        },
        why="What is cut still says where it ends.",
    )


@check
def collate(function):
    """`function(examples)`: a list of (source ids, target ids) to the tensors source
    (batch, source), source mask (batch, source) and target (batch, target + 1)."""

    def padded(rows, width=0, fill=PAD, left=False):
        width = max(width, *map(len, rows), 0)
        tails = [[fill] * (width - len(row)) for row in rows]
        both = zip(rows, tails, strict=True)
        return torch.tensor([tail + row if left else row + tail for row, tail in both])

    def mistaken(first=(SOS,), source_first=(), end=None, common=False, inverted=False, **options):
        def function(examples):
            sources = [[*source_first, *source] for source, _ in examples]
            targets = [[*first, *target[:end]] for _, target in examples]
            width = max(map(len, sources + targets)) if common else 0
            source, target = (padded(rows, width, **options) for rows in (sources, targets))
            return source, (source == PAD) if inverted else (source != PAD), target

        return function

    def reference(examples):
        batch = data.collate(examples)
        return batch.source, batch.source_mask, batch.target

    compare(
        "collate",
        function,
        reference,
        {
            "one pair": ([([5, EOS], [6, 7, 8, EOS])],),
            "two sources of one length": ([([5, EOS], [6, EOS]), ([9, EOS], [6, 7, EOS])],),
            "two pairs": ([([5, 6, EOS], [6, EOS]), ([9, EOS], [6, 7, 8, EOS])],),
            "pairs of random lengths": (
                [
                    tuple(
                        [*random.choices(range(4, 90), k=random.randint(1, 8)), EOS] for _ in "st"
                    )
                    for _ in range(5)
                ],
            ),
        },
        {
            "The targets do not begin with SOS.": mistaken(first=()),
            "The sources begin with SOS; only the decoder needs it.": mistaken(source_first=(SOS,)),
            "EOS is gone from the targets.": mistaken(end=-1),
            "Both sides are padded to one width, not each to its own longest.": (
                mistaken(common=True)
            ),
            "The padding stands on the left, before the sentence.": mistaken(left=True),
            "Short rows are filled up with EOS, not with PAD.": mistaken(fill=EOS),
            "Short rows are filled up with <unk>; PAD is 0.": mistaken(fill=UNK),
            "The mask is inverted: True stands at padding.": mistaken(inverted=True),
        },
        why="That is a whole Batch.",
    )


@check
def padding_share(function):
    """`function(lengths, batch_size)`: the share of padding, from 0 to 1, among all cells if
    sentences of these lengths are cut into batches in their order."""

    def cells(lengths, size, last=True):
        batches = [lengths[i : i + size] for i in range(0, len(lengths), size)]
        batches = [batch for batch in batches if last or len(batch) == size] or batches
        return [(sum(batch), len(batch) * max(batch)) for batch in batches]

    def share(batches):
        return 1 - sum(real for real, _ in batches) / sum(total for _, total in batches)

    def mean_of_shares(lengths, batch_size):
        shares = [share([batch]) for batch in cells(lengths, batch_size)]
        return sum(shares) / len(shares)

    def full_last_batch(lengths, batch_size):
        totals = [max(lengths[i : i + batch_size]) for i in range(0, len(lengths), batch_size)]
        return 1 - sum(lengths) / (batch_size * sum(totals))

    compare(
        "padding_share",
        function,
        lambda lengths, batch_size: share(cells(lengths, batch_size)),
        {
            "one batch": ([2, 4], 2),
            "two batches": ([1, 3, 6, 8], 2),
            "a last batch of one": ([1, 3, 5], 2),
            "equal lengths": ([4, 4, 4], 2),
            "random lengths": ([random.randint(1, 20) for _ in range(50)], 8),
        },
        {
            "That is the share of real tokens.": lambda lengths, batch_size: (
                1 - share(cells(lengths, batch_size))
            ),
            "Divided by the real tokens, not by all cells.": lambda lengths, batch_size: (
                1 / (1 - share(cells(lengths, batch_size))) - 1
            ),
            "Padded to the longest of all, not of its batch.": lambda lengths, batch_size: (
                1 - sum(lengths) / (len(lengths) * max(lengths))
            ),
            "That is the mean of the batches' shares; big batches have more cells.": mean_of_shares,
            "The last, smaller batch is left out.": lambda lengths, batch_size: share(
                cells(lengths, batch_size, last=False)
            ),
            "The last batch has fewer rows than the others.": full_last_batch,
        },
        why="So much of the work is for nothing.",
    )


@check
def shuffling(function):
    """`function(lengths, batch_size, seed)`: (source, target) lengths of the training pairs to a
    list of batches, each a list of pair numbers: in random order, with less padding than ours."""
    lengths = _lengths()
    size, inputs = 32, {"seed 0": 0, "seed 0 again": 0, "seed 1": 1}
    inputs = {label: (lengths, size, seed) for label, seed in inputs.items()}
    found = results("shuffling", function, inputs)
    if found is None:
        return
    if problem := _not_a_pass(found, len(lengths), size, lengths):
        say("✗", "shuffling", problem)
        return
    beat(
        "shuffling",
        _padding(found[0], lengths),
        _padding(list(data.LengthBuckets(lengths, size)), lengths),
        higher=False,
        form="{:.2%}",
        why="And the order is still random.",
        hint="What may be random without costing padding?",
    )


@cache
def _lengths() -> list[tuple[int, int]]:
    dataset, _ = phrasebook_datasets()
    return list(zip(dataset.source_lengths, dataset.target_lengths, strict=True))


def _padding(batches, lengths) -> float:
    real = total = 0
    for batch in batches:
        for side in zip(*(lengths[index] for index in batch), strict=True):
            real, total = real + sum(side), total + len(side) * max(side)
    return 1 - real / total


def _not_a_pass(passes, count, size, lengths) -> str:
    """What is wrong with three passes, of seeds 0, 0 and 1; empty if nothing."""
    try:
        passes = [[list(map(int, batch)) for batch in batches] for batches in passes]
    except (TypeError, ValueError):
        return "a list of batches is asked for, each a list of the numbers of its pairs."
    one, again, other = passes
    held = sorted(index for batch in one for index in batch)
    if held != list(range(count)):
        missing = count - len(set(held) & set(range(count)))
        return (
            f"a pass must hold each of the {count:,} pairs once; {missing:,} are missing, and "
            f"{len(held) - len(set(held)):,} come again. Is the last, smaller batch left out?"
        )
    most = max(map(len, one))
    if most > size or len(one) > -(-count // size):
        return (
            f"batches hold {size} pairs, and only one may be smaller; yours are {len(one):,} "
            f"batches of up to {most}, and {-(-count // size):,} are right."
        )
    if one != again:
        return "the same seed gave two orders. Draw from random.Random(seed)."
    common = len({frozenset(batch) for batch in one} & {frozenset(batch) for batch in other})
    if common > len(one) / 10:
        return (
            f"{common:,} of {len(one):,} batches hold the same pairs with seed 0 and with seed 1. "
            "Mix the pairs before they are sorted: those of one length then fall out differently."
        )
    longest = torch.tensor([float(max(lengths[i][1] for i in batch)) for batch in one])
    order = torch.corrcoef(torch.stack([longest, torch.arange(len(one)).float()]))[0, 1]
    if order.abs() > 0.2:
        return "the batches come in the order of their length. Shuffle them when they are cut."
    return ""
