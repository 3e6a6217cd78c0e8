import random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset, random_split

from s2s_helpers.corpora import Pair
from s2s_helpers.data import (
    Batch,
    LengthBuckets,
    Seq2SeqDataset,
    collate,
    make_loader,
    padding_share,
)
from s2s_helpers.vocabulary import EOS, PAD, SOS, Vocabulary

A, B, C = 4, 5, 6
VOCABULARY = Vocabulary.numbered(50)


def made_up_pairs(count, seed=0):
    generator = random.Random(seed)

    def sentence():
        return " ".join(f"w{generator.randint(4, 49)}" for _ in range(generator.randint(1, 20)))

    return [(sentence(), sentence()) for _ in range(count)]


def dataset(count=500, **options):
    return Seq2SeqDataset(made_up_pairs(count), VOCABULARY, VOCABULARY, **options)


def test_collate_pads_to_the_longest_and_puts_sos_first():
    batch = collate([([A, B, EOS], [C, EOS]), ([A, EOS], [A, B, C, EOS])])
    assert batch.source.tolist() == [[A, B, EOS], [A, EOS, PAD]]
    assert batch.source_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.source_mask.dtype == torch.bool
    assert batch.target.tolist() == [[SOS, C, EOS, PAD, PAD], [SOS, A, B, C, EOS]]
    assert batch.target_input.tolist() == [[SOS, C, EOS, PAD], [SOS, A, B, C]]
    assert batch.target_output.tolist() == [[C, EOS, PAD, PAD], [A, B, C, EOS]]
    assert batch.target_mask.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.tokens == 6 and isinstance(batch.tokens, int)
    assert len(batch) == 2


def test_sentences_to_translate_have_no_target():
    batch = collate([([A, EOS], None), ([A, B, EOS], None)])
    assert batch.target is None and batch.source.shape == (2, 3)
    assert batch.to("cpu").target is None and batch.select([1]).target is None
    with pytest.raises(ValueError, match="some"):
        collate([([A, EOS], None), ([A, B, EOS], [A, EOS])])


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "no examples"),
        ([([A], [A]), ([], [A])], "source of example 1 is empty"),
        ([([A], [])], "target of example 0 is empty"),
        ([([A, PAD, B], [A])], "source of example 0 has PAD inside"),
        ([([A], [-3, EOS])], "target has the id -3"),
    ],
)
def test_collate_refuses_bad_examples(examples, message):
    with pytest.raises(ValueError, match=message):
        collate(examples)


@pytest.mark.parametrize("rows", [[2, 0], (2, 0), torch.tensor([2, 0]), slice(0, 2), range(1, 3)])
def test_select_picks_rows_of_everything(rows):
    batch = collate([([A, EOS], [A, EOS]), ([B, EOS], [B, C, EOS]), ([C, B, EOS], [C, EOS])])
    kept = batch.select(rows)
    for name in ("source", "source_mask", "target"):
        expected = getattr(batch, name)[list(rows) if isinstance(rows, (tuple, range)) else rows]
        assert torch.equal(getattr(kept, name), expected)
    mask = torch.tensor([False, True, False])
    assert batch.select(mask).source.tolist() == [[B, EOS, PAD]]


def test_a_batch_moves_to_a_device():
    moved = collate([([A, EOS], [A, EOS])]).to("meta")
    assert {t.device.type for t in (moved.source, moved.source_mask, moved.target)} == {"meta"}


IDS, MASK = torch.tensor([[A, EOS], [B, EOS]]), torch.ones(2, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Batch(IDS[0], MASK), ValueError, "source must be"),
        (lambda: Batch(IDS.float(), MASK), ValueError, "int64"),
        (lambda: Batch(IDS, MASK.long()), TypeError, "boolean"),
        (lambda: Batch(IDS, MASK[:1]), ValueError, r"\(1, 2\).*\(2, 2\)"),
        (lambda: Batch(IDS, MASK, IDS[:1]), ValueError, "2 sources but 1 targets"),
        (lambda: Batch(IDS, MASK, IDS[:, :1]), ValueError, "target must be"),
        (lambda: Batch(IDS, MASK, IDS.int()), ValueError, "target must be"),
        (lambda: Batch(IDS, MASK & (IDS != B) & (IDS[:, :1] != B)), ValueError, "row 1 of the so"),
        (lambda: Batch(IDS, MASK, IDS * torch.tensor([1, 0])), ValueError, "row 0 of the target"),
        (lambda: Batch(-IDS, MASK), ValueError, "id -5"),
    ],
)
def test_a_batch_checks_itself(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_dataset_encodes_tuples_and_pairs():
    data = Seq2SeqDataset([("w4 w5", "w6"), Pair("w4", "w7 w8 w9")], VOCABULARY, VOCABULARY)
    assert data[0] == ([4, 5, EOS], [6, EOS]) and data[1] == ([4, EOS], [7, 8, 9, EOS])
    assert len(data) == 2
    assert data.source_lengths == [3, 2] and data.target_lengths == [2, 4]
    assert data.pairs[1].source == "w4"


def test_truncation_keeps_eos_and_tells_the_true_length():
    pairs = [("w4 w5 w6 w7", "w4 w5"), ("w4 w5 w6", "w4 w5 w6 w7 w8")]
    data = Seq2SeqDataset(pairs, VOCABULARY, VOCABULARY, max_length=4)
    assert data[0] == ([4, 5, 6, EOS], [4, 5, EOS])
    assert data[1] == ([4, 5, 6, EOS], [4, 5, 6, EOS])
    assert data.source_lengths == [4, 4] and data.target_lengths == [3, 4]


@given(st.integers(2, 25))
def test_no_sentence_is_longer_than_allowed(max_length):
    for ids in (ids for example in dataset(20, max_length=max_length) for ids in example):
        assert len(ids) <= max_length and ids[-1] == EOS and ids.count(EOS) == 1


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        ([], ValueError, "no pairs"),
        ([("w4", "w4"), ("w4", " ")], ValueError, r"pair 1, \('w4', ' '\): .*empty"),
        ([("w4", None)], TypeError, "pair 0"),
        (["ab"], TypeError, "pair 0"),
        ([("w4", "w4", "w4")], TypeError, "pair 0"),
    ],
)
def test_bad_pairs_are_named(pairs, error, message):
    with pytest.raises(error, match=message):
        Seq2SeqDataset(pairs, VOCABULARY, VOCABULARY)


def test_pairs_come_in_many_forms():
    frame = pd.DataFrame({"source": ["w4 w5", "w6"], "target": ["w7", "w8 w9"]})
    expected = Seq2SeqDataset([("w4 w5", "w7"), ("w6", "w8 w9")], VOCABULARY, VOCABULARY)
    for pairs in (
        frame.values, frame.itertuples(), frame.to_dict("records"),
        [row for _, row in frame.iterrows()], frame.values.tolist(),
        zip(frame["source"], frame["target"], strict=True),
    ):  # fmt: skip
        assert [*Seq2SeqDataset(pairs, VOCABULARY, VOCABULARY)] == [*expected]
    for wrong in (frame, {"w4": "w5"}, "w4 w5"):
        with pytest.raises(TypeError, match="pairs must be a list, not"):
            Seq2SeqDataset(wrong, VOCABULARY, VOCABULARY)
    for wrong in ({"en": "w4", "fr": "w5"}, ("w4",), "w4", None, np.array(["w4", "w5", "w6"])):
        with pytest.raises(TypeError, match=r"pair 1 is not a .source, target. pair of texts"):
            Seq2SeqDataset([("w4", "w5"), wrong], VOCABULARY, VOCABULARY)
    for missing in (None, float("nan"), b"w4", ["w4"]):
        with pytest.raises(TypeError, match=r"pair 1, .* must be a string"):
            Seq2SeqDataset([("w4", "w5"), ("w4", missing)], VOCABULARY, VOCABULARY)
    with pytest.raises(ValueError, match=r"pair 0, .*half a surrogate pair"):
        Seq2SeqDataset([("w4", "\ud83d")], VOCABULARY, VOCABULARY)


def test_a_part_of_a_dataset_is_loaded_like_the_whole():
    whole = dataset(50)
    parts = random_split(whole, [30, 20], torch.Generator().manual_seed(0))
    for part in (*parts, Subset(parts[0], [3, 5])):
        batches = list(make_loader(part, max_tokens=64, shuffle=True))
        widths = [max(b.source.shape[1], b.target_output.shape[1]) for b in batches]
        assert all(len(b) * width <= 64 for b, width in zip(batches, widths, strict=True))
        rows = [row for batch in batches for row in batch.source]
        assert len(rows) == len(part)
        found = sorted(row[row != PAD].tolist() for row in rows)
        assert found == sorted(part[number][0] for number in range(len(part)))


@pytest.mark.parametrize("make", [np.array, torch.tensor, lambda both: list(map(np.array, both))])
def test_lengths_may_be_numpys_and_torchs(make):
    both = [(3, 5), (8, 2), (4, 4), (1, 1)]
    assert list(LengthBuckets(make(both), 2)) == list(LengthBuckets(both, 2))
    single = [3, 8, 4, 1]
    for lengths in (np.array(single), torch.tensor(single), pd.Series(single), [*np.array(single)]):
        assert list(LengthBuckets(lengths, max_tokens=9)) == list(
            LengthBuckets(single, max_tokens=9)
        )
    again = list(LengthBuckets(single, 2, seed=np.int64(3)))
    assert again == list(LengthBuckets(single, 2, seed=3))


def test_max_length_leaves_room_for_a_token_and_eos():
    with pytest.raises(ValueError, match="max_length"):
        dataset(3, max_length=1)


lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=300)
sizes = st.one_of(
    st.fixed_dictionaries({"batch_size": st.integers(1, 40)}),
    st.fixed_dictionaries({"max_tokens": st.integers(30, 300)}),
)


@given(lengths, sizes, st.booleans(), st.integers(0, 3))
def test_every_example_comes_once_a_pass(lengths, size, shuffle, epoch):
    buckets = LengthBuckets(lengths, **size, shuffle=shuffle)
    buckets.set_epoch(epoch)
    expected_count = len(buckets)
    batches = list(buckets)
    assert len(batches) == expected_count
    indices = [index for batch in batches for index in batch]
    assert sorted(indices) == list(range(len(lengths)))
    if not shuffle:
        assert indices == list(range(len(lengths)))
    for batch in batches:
        longest = max(max(lengths[index]) for index in batch)
        if "batch_size" in size:
            assert 0 < len(batch) <= size["batch_size"]
        else:
            assert len(batch) >= 1 and len(batch) * longest <= size["max_tokens"]


@given(sizes, st.integers(0, 100), st.integers(0, 5))
def test_the_order_depends_on_seed_and_pass_alone(size, seed, epoch):
    lengths = [1 + index * 7 % 30 for index in range(200)]
    one = LengthBuckets(lengths, **size, seed=seed)
    passes = [list(one) for _ in range(epoch + 2)]
    other = LengthBuckets(lengths, **size, seed=seed)
    other.set_epoch(epoch)
    random.seed(0)  # the global generators play no part
    torch.manual_seed(0)
    assert list(other) == passes[epoch]
    assert list(other) == passes[epoch + 1]
    assert passes[epoch] != passes[epoch + 1]
    assert list(LengthBuckets(lengths, **size, seed=seed + 1)) != passes[0]


def test_batches_are_as_full_as_max_tokens_allows():
    lengths = [(5, 2)] * 12
    assert [len(b) for b in LengthBuckets(lengths, max_tokens=30)] == [6, 6]
    assert sorted(len(b) for b in LengthBuckets(lengths, max_tokens=29)) == [2, 5, 5]


def test_long_and_short_batches_come_in_mixed_order():
    lengths = list(range(1, 101))
    firsts = [batch[0] for batch in LengthBuckets(lengths, batch_size=5)]
    assert firsts != sorted(firsts) and firsts != sorted(firsts, reverse=True)
    assert sorted(firsts) == list(range(0, 100, 5))  # and yet each batch holds like lengths


def test_the_length_holds_during_a_pass():
    lengths = [1 + index * 7 % 30 for index in range(2000)]
    buckets = LengthBuckets(lengths, max_tokens=64)
    seen = set()
    for _ in range(5):
        batches = iter(buckets)
        next(batches)
        seen.add(len(buckets))
        assert len(buckets) == 1 + sum(1 for _ in batches)
    assert len(seen) > 1  # or else the number could not have been wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either"),
        ({"batch_size": 4, "max_tokens": 40}, "either"),
        ({"batch_size": 0}, "batch_size must be 1"),
        ({"max_tokens": 0}, "max_tokens must be 1"),
        ({"max_tokens": 7}, "example 1 has 8 tokens; max_tokens is 7"),
    ],
)
def test_bad_bucket_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LengthBuckets([(3, 4), (8, 2)], **options)


def test_no_lengths_are_refused():
    with pytest.raises(ValueError, match="no lengths"):
        LengthBuckets([], batch_size=4)


def test_loader_keeps_order_unless_told_to_shuffle():
    data = dataset(100)
    targets = [row.tolist() for batch in make_loader(data) for row in batch.target_output]
    assert [[i for i in row if i != PAD] for row in targets] == [list(t) for _, t in data]
    assert [len(batch) for batch in make_loader(data)] == [64, 36]


def test_loader_reshuffles_each_pass_and_can_go_back():
    loader = make_loader(dataset(100), batch_size=10, shuffle=True, seed=3)
    first, second = ([batch.source.tolist() for batch in loader] for _ in range(2))
    assert first != second
    loader.batch_sampler.set_epoch(0)
    assert [batch.source.tolist() for batch in loader] == first
    assert [batch.source.tolist() for batch in loader] == second


def test_a_loader_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    for _ in make_loader(dataset(20), batch_size=5, shuffle=True):
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_max_tokens_bounds_both_sides():
    for batch in make_loader(dataset(), max_tokens=128, shuffle=True):
        assert batch.source.numel() <= 128 and batch.target_output.numel() <= 128


def test_buckets_pad_much_less_than_the_order_given():
    generator = random.Random(0)
    lengths = [generator.randint(3, 20) for _ in range(2000)]
    pairs = [("w4 " * length, "w5 " * (length + generator.randint(0, 2))) for length in lengths]
    data = Seq2SeqDataset(pairs, VOCABULARY, VOCABULARY)
    in_order = padding_share(make_loader(data, batch_size=16))
    bucketed = padding_share(make_loader(data, batch_size=16, shuffle=True))
    assert in_order > 0.35 and bucketed < 0.07


def test_padding_share_counts_both_sides_and_moves_nothing():
    data = Seq2SeqDataset([("w4 w5 w6", "w4"), ("w4", "w5 w6")], VOCABULARY, VOCABULARY)
    loader = make_loader(data, batch_size=2, shuffle=True)
    loader.batch_sampler.set_epoch(5)
    assert padding_share(loader) == pytest.approx(3 / 14)  # 6 of 8 are real, and 5 of 6
    assert loader.batch_sampler.epoch == 5
    assert padding_share(make_loader(data, batch_size=1)) == 0
