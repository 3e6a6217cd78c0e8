import random

import pytest
import torch
from checking import CheckTests
from torch.nn.utils.rnn import pad_sequence

from s2s_helpers.course.checks import data
from s2s_helpers.vocabulary import EOS, PAD, SOS


def mask_by_loop(ids):
    return torch.tensor([[index != PAD for index in row] for row in ids.tolist()])


def mask_by_length(ids):
    return torch.arange(ids.shape[1]) < ids.count_nonzero(dim=1)[:, None]


def cut_words(ids, most):
    words = ids[:-1]
    return [*words[: most - 1], EOS]


def cut_in_place(ids, most):
    del ids[most - 1 : -1]
    return ids


def collate_torch(examples):
    sources, targets = zip(*examples, strict=True)
    source = pad_sequence([torch.tensor(ids) for ids in sources], batch_first=True)
    target = pad_sequence([torch.tensor([SOS, *ids]) for ids in targets], batch_first=True)
    return [source, source.bool(), target]


def collate_cells(examples):
    def table(rows):
        cells = torch.full((len(rows), max(map(len, rows))), PAD, dtype=torch.int32)
        for cell, row in zip(cells, rows, strict=True):
            cell[: len(row)] = torch.tensor(row)
        return cells

    source = table([source for source, _ in examples])
    return source, source != 0, table([[SOS, *target] for _, target in examples])


def wrong_collate(
    sos=True, both=False, left=False, fill=PAD, invert=False, source_sos=False, end=0
):
    def function(examples):
        sources = [[SOS] * source_sos + source for source, _ in examples]
        targets = [[SOS] * sos + target[: len(target) - end] for _, target in examples]
        widths = [max(map(len, rows)) for rows in (sources, targets)]
        tables = []
        for rows, width in zip(
            (sources, targets), [max(widths)] * 2 if both else widths, strict=True
        ):
            pads = [[fill] * (width - len(row)) for row in rows]
            order = (pads, rows) if left else (rows, pads)
            tables.append(torch.tensor([a + b for a, b in zip(*order, strict=True)]))
        return tables[0], (tables[0] != PAD) ^ invert, tables[1]

    return function


def collate_in_place(examples):
    for _, target in examples:
        target.insert(0, SOS)
    source, mask, target = collate_cells(examples)
    return source, mask, target[:, 1:]


def share_by_tensor(lengths, batch_size):
    parts = torch.tensor(lengths, dtype=torch.float64).split(batch_size)
    return 1 - sum(lengths) / sum(len(part) * part.max() for part in parts)


def share_by_counting(lengths, batch_size):
    padding = cells = 0
    while lengths:
        batch, lengths = lengths[:batch_size], lengths[batch_size:]
        for length in batch:
            padding += max(batch) - length
            cells += max(batch)
    return padding / cells


def wrong_share(lengths, batch_size, value="mean", drop=False):
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    if drop and len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    real = [sum(batch) for batch in batches]
    cells = [max(batch) * len(batch) for batch in batches]
    full = [max(batch) * batch_size for batch in batches]
    everything = max(lengths) * len(lengths)
    return {
        "mean": sum(1 - r / c for r, c in zip(real, cells, strict=True)) / len(batches),
        "real": sum(real) / sum(cells),
        "ratio": sum(cells) / sum(real) - 1,
        "longest": 1 - sum(real) / everything,
        "full": 1 - sum(real) / sum(full),
        "right": 1 - sum(real) / sum(cells),
    }[value]


def batches_of(lengths, size, seed, key=None, mix=True, shuffle=True):
    draw = random.Random(seed)
    order = list(range(len(lengths)))
    if mix:
        draw.shuffle(order)
    if key:
        order.sort(key=lambda i: key(lengths[i]))
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    if shuffle:
        draw.shuffle(batches)
    return batches


def target_first(pair):
    return pair[1], pair[0]


def sorted_batches(lengths, size, seed):
    return batches_of(lengths, size, seed, key=target_first)


def sorted_by_numbers(lengths, size, seed):
    draw = torch.Generator().manual_seed(seed)
    sides = torch.tensor(lengths).float()
    noise = torch.rand(len(lengths), generator=draw)
    order = (sides[:, 0] * 1000 + sides[:, 1] + noise / 2).argsort()
    parts = order.split(size)
    return [parts[i].tolist() for i in torch.randperm(len(parts), generator=draw).tolist()]


RIGHT = {
    "predict_unknown_share": [0.025, 0.03, 0.02],
    "padding_mask": [mask_by_loop, mask_by_length, lambda ids: ids > 0, lambda ids: ids.bool()],
    "cut": [cut_words, lambda ids, most: ids if len(ids) <= most else ids[: most - 1] + ids[-1:]],
    "collate": [collate_torch, collate_cells],
    "padding_share": [share_by_tensor, share_by_counting],
    "shuffling": [sorted_batches, sorted_by_numbers],
}
WRONG = {
    "predict_unknown_share": [
        ("in percent", 2.5),
        ("still known", 0.975),
        ("those are the rare ones", 0.2),
        ("you say 0.100; it is 0.025", 0.1),
        ("a number is asked for", "2.5 %"),
        ("you say 0.000", 0.0),
    ],
    "padding_mask": [
        ("inverted", lambda ids: ids == PAD),
        ("EOS is taken for padding", lambda ids: (ids != PAD) & (ids != EOS)),
        (
            "positions start at 0",
            lambda ids: torch.arange(ids.shape[1]) <= (ids != 0).sum(1)[:, None],
        ),
        ("<unk> is taken", lambda ids: ids > 1),
        ("All special tokens", lambda ids: ids >= 4),
        ("Everything is taken for real", lambda ids: torch.ones_like(ids).bool()),
        ("int64; bool is right", lambda ids: (ids != PAD).long()),
        ("float32; bool is right", lambda ids: (ids != PAD).float()),
        ("Axes changed places", lambda ids: (ids != PAD).T),
        ("a list", lambda ids: (ids != PAD).tolist()),
        ("Its shape is (1,); (1, 3)", lambda ids: (ids != PAD).any(dim=1)),
    ],
    "cut": [
        ("EOS is cut off", lambda ids, most: ids[:most]),
        ("EOS comes on top", lambda ids, most: ids if len(ids) <= most else [*ids[:most], EOS]),
        ("EOS comes on top", lambda ids, most: [*ids[:-1][:most], EOS]),
        ("gets a second EOS", lambda ids, most: [*ids[:most - 1], EOS]),
        ("gets another EOS", lambda ids, most: [*ids[:most], EOS]),
        ("The beginning is cut off", lambda ids, most: ids[-most:]),
        ("that just fits is cut", lambda i, m: i if len(i) < m else [*i[:m - 2], EOS]),
        ("One id too few", lambda i, m: i if len(i) <= m else [*i[:m - 2], EOS]),
        ("in place", cut_in_place),
        ("a tensor", lambda ids, most: torch.tensor(cut_words(ids, most))),
    ],
    "collate": [
        ("do not begin with SOS", wrong_collate(sos=False)),
        ("The sources begin with SOS", wrong_collate(source_sos=True)),
        ("EOS is gone", wrong_collate(end=1)),
        ("padded to one width", wrong_collate(both=True)),
        ("on the left", wrong_collate(left=True)),
        ("with EOS, not with PAD", wrong_collate(fill=EOS)),
        ("with <unk>", wrong_collate(fill=1)),
        ("The mask is inverted", wrong_collate(invert=True)),
        ("in place", collate_in_place),
        ("what came is a tensor", lambda examples: collate_torch(examples)[0]),
        ("2 elements; 3", lambda examples: collate_torch(examples)[::2]),
    ],
    "padding_share": [
        ("share of real tokens", lambda *a: wrong_share(*a, "real")),
        ("Divided by the real tokens", lambda *a: wrong_share(*a, "ratio")),
        ("longest of all", lambda *a: wrong_share(*a, "longest")),
        ("mean of the batches' shares", lambda *a: wrong_share(*a, "mean")),
        ("smaller batch is left out", lambda *a: wrong_share(*a, "right", drop=True)),
        ("fewer rows", lambda *a: wrong_share(*a, "full")),
        ("expected  0.25", lambda *a: 100 * wrong_share(*a, "right")),
    ],
    "shuffling": [
        ("was to beat", lambda *a: batches_of(*a)),
        ("in the order of their length", lambda *a: batches_of(*a, target_first, shuffle=False)),
        ("with seed 0 and with seed 1", lambda *a: batches_of(*a, target_first, mix=False)),
        ("two orders", lambda a, b, c: batches_of(a, b, next(COUNT), target_first)),
        ("Is the last, smaller batch left out", lambda *a: [
            batch for batch in batches_of(*a, target_first) if len(batch) == a[1]]),
        ("only one may be smaller", lambda lengths, size, seed: [[i] for i in range(len(lengths))]),
        ("come again", lambda *a: [*batches_of(*a), [0]]),
        ("a list of batches", lambda lengths, size, seed: list(range(len(lengths)))),
    ],
}  # fmt: skip
COUNT = iter(range(10**6))


class TestChecks(CheckTests):
    checks, right, wrong = data, RIGHT, WRONG


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch):
    draw = random.Random(0)
    source = [draw.randint(3, 20) for _ in range(10_010)]
    pairs = [(length, length + draw.randint(0, 3)) for length in source]
    monkeypatch.setattr(data, "_lengths", lambda: pairs)


def test_the_truth_of_the_prediction_is_the_notebook_s():
    share, lost = data._unknown()
    assert 0.02 < share < 0.03 and 0.19 < lost < 0.2
