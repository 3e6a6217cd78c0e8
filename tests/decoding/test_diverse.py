"""Diverse beam search against a plain loop."""

import math
from collections import Counter

import pytest
import torch
from toy_models import (
    KINDS,
    SOURCE,
    TINY,
    Table,
    build,
    log_probability,
    next_step,
    padded,
    sentences,
)

from s2s_helpers.decoding import beam_search, diverse_beam_search
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.vocabulary import EOS, PAD, SOS


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_one_group_is_beam_search(kind, alpha):
    model, batch = build(kind, seed=2), padded(sentences())
    plain = beam_search(model, batch.source, batch.source_mask, 4, alpha, n_best=4)
    found = diverse_beam_search(model, batch.source, batch.source_mask, 4, 1, 9.0, alpha)
    assert [[h.ids for h in row] for row in found] == [[h.ids for h in row] for row in plain]
    for row, expected in zip(found, plain, strict=True):
        for one, other in zip(row, expected, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-4)
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)


def test_groups_without_a_price_all_find_the_same(kind):
    model, batch = build(kind, seed=2), padded(sentences())
    plain = beam_search(model, batch.source, batch.source_mask, 2, n_best=2)
    for row, expected in zip(
        diverse_beam_search(model, batch.source, beam_size=6, groups=3, strength=0.0), plain,
        strict=True,
    ):  # fmt: skip
        assert Counter(tuple(h.ids) for h in row) == {tuple(h.ids): 3 for h in expected}


def plain_diverse_search(model, source_ids, width, groups, strength, limit):
    """Algorithm 1 as loops over one sentence; the ids that each group ends with, its best first,
    by the sum of log p and what was paid, without a length penalty."""
    live = [[(0.0, [])] for _ in range(groups)]
    finished = [[] for _ in range(groups)]
    for _ in range(limit):
        taken = Counter()
        for group in range(groups):
            if max(finished[group], default=(-math.inf,))[0] >= live[group][0][0]:
                continue  # nothing unfinished can overtake its best: it is done
            candidates = []
            for total, ids in live[group]:
                steps = next_step(model, source_ids, ids)
                for token in range(len(model.target_vocabulary)):
                    if token not in (PAD, SOS):
                        price = strength * taken[token]
                        candidates.append((total + steps[token] - price, [*ids, token]))
            candidates.sort(key=lambda c: -c[0])
            finished[group] += [c for c in candidates[:width] if c[1][-1] == EOS]
            live[group] = [c for c in candidates if c[1][-1] != EOS][:width]
            if max(finished[group], default=(-math.inf,))[0] < live[group][0][0]:
                taken.update(ids[-1] for _, ids in live[group])
    return [sorted(group, key=lambda c: -c[0])[:width] for group in finished]


@pytest.mark.parametrize("strength", [0.2, 0.5, 2.0])
def test_groups_choose_as_a_plain_loop_does(strength):
    """The limit is so far away that the groups have found their best by then."""
    source, compared, long = torch.tensor([[4, EOS]]), 0, 0
    for seed in range(24):
        torch.manual_seed(seed)
        logits = 1.5 * torch.randn(7, 7)
        logits[:, EOS] += 1.0
        logits[SOS, EOS] = -50.0  # nothing ends before it has begun
        model = Table(logits)
        (row,) = diverse_beam_search(
            model, source, None, 6, 3, strength, length_penalty=0.0, max_length=7, n_best=1
        )
        expected = plain_diverse_search(model, [4, EOS], 2, 3, strength, 7)
        if all(expected):
            compared += 1
            long += max(len(h.ids) for h in row) > 2
            assert Counter(tuple(h.ids) for h in row) == Counter(tuple(g[0][1]) for g in expected)
        for hypothesis in row:
            own = log_probability(model, [4, EOS], hypothesis.ids)
            assert hypothesis.log_probability == hypothesis.score == pytest.approx(own, abs=1e-4)
        assert [h.score for h in row] == sorted((h.score for h in row), reverse=True)
    assert compared >= 8 and long >= 4


def test_a_high_price_brings_other_first_tokens(kind):
    model, batch = build(kind, seed=1, sharpness=1.0, ending=-9.0), padded(sentences())
    for strength, different in ((0.0, 1), (50.0, 3)):
        found = diverse_beam_search(
            model, batch.source, beam_size=3, groups=3, strength=strength, attention=False
        )
        assert [len({h.ids[0] for h in row}) for row in found] == [different] * len(batch)


def test_a_sentence_gets_the_same_alone(kind):
    model, batch = build(kind, seed=4, sharpness=1.0), padded(sentences(24))
    settings = dict(beam_size=4, groups=2, strength=3.0, max_length=9)
    together = diverse_beam_search(model, batch.source, batch.source_mask, **settings)
    for row, expected in enumerate(together):
        source = batch.source[row][batch.source_mask[row]][None]
        (alone,) = diverse_beam_search(model, source, **settings)
        assert [h.ids for h in alone] == [h.ids for h in expected]
        if expected[0].attention is not None:
            assert expected[0].attention.shape[-1] == source.shape[1]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(groups=4), "groups must divide beam_size, both above 0, got 4 of 6"),
        (dict(beam_size=0), "groups must divide beam_size"),
        (dict(strength=-1), "strength must be finite and not negative, got -1"),
        (dict(strength=math.nan), "strength must be finite and not negative, got nan"),
        (dict(strength=math.inf), "strength must be finite and not negative, got inf"),
        (dict(length_penalty=-1), "length_penalty must be from 0 to 10"),
        (
            dict(length_penalty=math.nan),
            "length_penalty must be from 0 to 10, such as 0.6, got nan",
        ),
        (dict(n_best=3), "n_best must lie between 1 and the 2 lines of a group, got 3"),
    ],
)
def test_bad_settings_of_a_diverse_search(changes, message):
    with pytest.raises(ValueError, match=message):
        diverse_beam_search(build("rnn"), padded(sentences()).source, **changes)


def test_outputs_stay_within_the_models_positions():
    model = TransformerSeq2Seq(
        SOURCE, TINY, width=8, heads=2, layers=1, feedforward=12, max_positions=9
    ).eval()
    model.output.bias.data[EOS] = -50.0  # never ends by itself
    for row in diverse_beam_search(model, padded(sentences()).source, beam_size=4, groups=2):
        assert {len(h.ids) for h in row} == {9} and not row[0].finished
