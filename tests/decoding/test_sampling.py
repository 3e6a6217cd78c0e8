"""Samples have the distribution they should, and a luck of their own."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from toy_models import KINDS, TINY, Table, build, next_step, padded, sentences

from s2s_helpers.data import Batch
from s2s_helpers.decoding import greedy_decode, random_of, sample, sampling, typical
from s2s_helpers.models.view import eval_view
from s2s_helpers.vocabulary import EOS, PAD, SOS


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def one_step(model, batch, number):
    """How often each token came first in `number` samples, and the model's own probabilities."""
    source = batch.source[:1].expand(number, -1)
    with torch.inference_mode():
        logits, _ = eval_view(model)(
            Batch(batch.source[:1], batch.source_mask[:1], torch.tensor([[SOS, 4]]))
        )
    log_p = logits[0, 0].log_softmax(-1)
    return source, log_p


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.6},
     {"top_k": 4, "top_p": 0.8, "temperature": 1.5}],
    ids=str,
)  # fmt: skip
def test_samples_have_the_distribution_they_should(options):
    model, number = build("bahdanau", seed=2, sharpness=1.5), 4000
    source, log_p = one_step(model, padded(sentences()), number)
    allowed = [i for i in range(len(TINY)) if i not in (PAD, SOS)]
    p = {i: math.exp(float(log_p[i]) / options.get("temperature", 1.0)) for i in allowed}
    ranked = sorted(allowed, key=lambda i: -p[i])[: options.get("top_k", len(allowed))]
    total = sum(p[i] for i in ranked)
    kept, mass = [], 0.0
    for i in ranked:
        if mass < options.get("top_p", 1.0):
            kept.append(i)
        mass += p[i] / total
    total = sum(p[i] for i in kept)
    found = sample(model, source, max_length=1, **options)
    for i in allowed:
        share = sum(h.ids[0] == i for h in found) / number
        expected = p[i] / total if i in kept else 0.0
        tolerance = 4 * math.sqrt(expected * (1 - expected) / number) + 1e-9
        assert share == pytest.approx(expected, abs=tolerance)
    for h in found[:20]:
        assert h.log_probability == pytest.approx(float(log_p[h.ids[0]]), abs=1e-4)


def test_a_cold_sample_is_greedy_and_a_row_draws_its_own_luck(kind):
    model, batch = build(kind), padded(sentences())
    cold = sample(model, batch.source, temperature=1e-4)
    assert [h.ids for h in cold] == [h.ids for h in greedy_decode(model, batch.source)]
    together = sample(model, batch.source, temperature=1.5, seed=7)
    assert [h.ids for h in together] != [h.ids for h in cold]
    for row, hypothesis in enumerate(together):
        alone = batch.source[row : row + 1, : int(batch.source_mask[row].sum())]
        (again,) = sample(model, alone, temperature=1.5, seed=7, rows=[row])
        assert again.ids == hypothesis.ids


# Typical sampling


def test_the_typical_set_by_hand():
    """The entropy is 1.2206 nats, |H + log p| 0.5275 of the 0.5, 0.3889 of each 0.2 and 1.0820 of
    the 0.1: so both of 0.2 come before the likeliest."""
    p = torch.tensor([[0.5, 0.2, 0.2, 0.1]])
    entropy = -sum(x * math.log(x) for x in (0.5, 0.2, 0.2, 0.1))
    distances = [abs(entropy + math.log(x)) for x in (0.5, 0.2, 0.1)]
    assert distances == pytest.approx([0.5275, 0.3889, 1.0820], abs=1e-4)
    for mass, kept in ((0.15, [0, 1, 0, 0]), (0.39, [0, 1, 1, 0]), (0.41, [1, 1, 1, 0])):
        assert typical(mass)(p).int().tolist() == [kept]
    assert typical(1.0)(p).all()


def test_the_typical_set_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    p = (3 * torch.randn(50, 9, generator=generator)).softmax(dim=-1)
    p[::7, 4] = 0.0  # what is never written
    p /= p.sum(dim=-1, keepdim=True)
    for mass in (0.2, 0.5, 0.9):
        kept = typical(mass)(p)
        for row, marks in zip(p.tolist(), kept.tolist(), strict=True):
            entropy = -sum(x * math.log(x) for x in row if x > 0)
            order = sorted(
                range(len(row)),
                key=lambda i: abs(entropy + math.log(row[i])) if row[i] else math.inf,
            )
            expected, total = set(), 0.0
            for place in order:
                if total >= mass:
                    break
                expected.add(place)
                total += row[place]
            assert {i for i, mark in enumerate(marks) if mark} == expected


def test_typical_samples_come_from_the_typical_set(kind):
    model, rows = build(kind, sharpness=1.5), sentences(4)
    for source_ids, several in zip(
        rows, sample(model, padded(rows).source, n=4, keep=typical(0.3), max_length=6), strict=True
    ):
        for hypothesis in several:
            for place, token in enumerate(hypothesis.ids):
                steps = next_step(model, source_ids, hypothesis.ids[:place])
                p = torch.tensor([steps]).exp()
                p[:, [PAD, SOS]] = 0.0
                p /= p.sum()
                assert typical(0.3)(p)[0, token] or typical(0.3 + 1e-4)(p)[0, token]


def test_typical_draws_by_probability():
    """Of 0.5, 0.2, 0.2 and 0.1 with mass 0.39 two stay, each drawn half of the time."""
    logits = torch.full((8, 8), -30.0)
    logits[:, EOS] = 0.0
    logits[SOS] = torch.tensor([-30.0, -30, -30, -30, *map(math.log, (0.5, 0.2, 0.2, 0.1))])
    (several,) = sample(Table(logits), torch.tensor([[EOS]]), n=400, keep=typical(0.39))
    counts = Counter(hypothesis.ids[0] for hypothesis in several)
    assert set(counts) == {5, 6} and abs(counts[5] - 200) < 50
    assert several[0].log_probability == pytest.approx(math.log(0.2), abs=1e-4)


@pytest.mark.parametrize("mass", [0, -1, 1.1])
def test_a_mass_is_a_probability(mass):
    with pytest.raises(ValueError, match="mass must be above 0 and at most 1"):
        typical(mass)


# Many samples, and their luck


def test_many_samples_of_a_row(kind, monkeypatch):
    model, batch = build(kind, sharpness=1.0), padded(sentences(4))
    found = sample(model, batch.source, batch.source_mask, n=3, seed=7, temperature=0.8)
    assert [len(several) for several in found] == [3] * 4
    first = sample(model, batch.source, batch.source_mask, seed=7, temperature=0.8)
    assert [several[0].ids for several in found] == [one.ids for one in first]
    assert any(len({tuple(one.ids) for one in several}) > 1 for several in found)
    monkeypatch.setattr(sampling, "LINES", 1)  # so that a row is torn between batches
    torn = sample(model, batch.source, batch.source_mask, n=3, seed=7, temperature=0.8)
    assert [[h.ids for h in row] for row in torn] == [[h.ids for h in row] for row in found]


def flat(tokens=60):
    """A model that writes any of `tokens` words with the same p, again and again."""
    logits = torch.zeros(tokens + 4, tokens + 4)
    logits[:, [1, EOS]] = -1e9
    return Table(logits)


def test_seeds_rows_and_draws_are_independent():
    """Two samples agree in 1 of 60 tokens, whichever of the three differs."""
    equal = torch.tensor([[4, EOS]] * 3)
    found = {
        (seed, row, draw): hypothesis.ids
        for seed in (0, 1, -1)
        for row, several in enumerate(sample(flat(), equal, max_length=60, n=3, seed=seed))
        for draw, hypothesis in enumerate(several)
    }
    keys = list(found)
    for number, one in enumerate(keys):
        for other in keys[:number]:
            same = sum(a == b for a, b in zip(found[one], found[other], strict=True))
            assert same < 10, (one, other)


def test_any_whole_number_is_a_seed():
    source = torch.tensor([[4, EOS]])
    wanted = [h.ids for h in sample(flat(), source, max_length=9, seed=5)]
    for seed in np.int64(5), torch.tensor(5), True + 4:
        assert [h.ids for h in sample(flat(), source, max_length=9, seed=seed)] == wanted
    assert sample(flat(), source, max_length=9, seed=-5)[0].ids != wanted[0]
    assert sample(flat(), source, max_length=9, seed=2**70)[0].ids != wanted[0]
    for seed in 1.5, "one", None:
        with pytest.raises(ValueError, match="seed must be a whole number"):
            sample(flat(), source, seed=seed)


def test_temperatures_at_their_extremes():
    logits = torch.full((8, 8), -1e9)
    logits[:, 4:] = torch.tensor([0.3, 0.2, 0.1, 0.0])
    model, source = Table(logits), torch.tensor([[4, EOS]] * 50)
    for temperature in 1e-40, 5e-324, 1e-9:
        assert {h.ids[0] for h in sample(model, source, None, 3, temperature)} == {4}
    for temperature in math.inf, 1e300:
        counts = Counter(
            token for h in sample(model, source, None, 40, temperature) for token in h.ids
        )
        # The small ones, such as UNK, are as likely now, and PAD and SOS stay out.
        assert set(counts) == {1, EOS, 4, 5, 6, 7}
        share = sum(counts.values()) / 6
        assert max(abs(count - share) for count in counts.values()) < 0.35 * share


def test_a_luck_just_below_one_takes_a_token_that_may_be_written(monkeypatch):
    class Last:
        def random(self):
            return 1 - 2**-53

    monkeypatch.setattr(sampling, "random_of", lambda *key: Last())
    torch.manual_seed(0)
    model, source = Table(torch.randn(3000, 3000)), torch.tensor([[4, EOS]] * 5)
    for options in {}, dict(top_k=7), dict(top_p=0.9), dict(keep=typical(0.5)):
        for hypothesis in sample(model, source, max_length=20, **options):
            assert not {PAD, SOS} & {*hypothesis.ids} and hypothesis.log_probability > -math.inf


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("what", ["keep", "score"])
def test_a_cut_that_leaves_nothing_is_said(what, top_k):
    nothing = {
        "keep": lambda p: torch.zeros_like(p, dtype=torch.bool),
        "score": lambda log_p, lines: log_p.fill_(-math.inf) if lines.length == 2 else log_p,
    }
    with pytest.raises(ValueError, match="no token is left to choose for row 0 after"):
        sample(flat(), torch.tensor([[4, EOS]]), top_k=top_k, **{what: nothing[what]})


def test_a_score_changes_what_is_drawn_and_not_its_probability():
    forbidden = lambda log_p, lines: log_p.index_fill(1, torch.arange(10, 64), -math.inf)  # noqa: E731
    for h in sample(flat(), torch.tensor([[4, EOS]] * 20), max_length=5, score=forbidden):
        assert set(h.ids) <= {*range(4, 10)}
        assert h.log_probability == pytest.approx(5 * math.log(1 / 62), abs=1e-3)


def test_bad_settings_of_a_sample():
    for wrong, complaint in (
        (dict(temperature=0), "temperature must be above 0, got 0"),
        (dict(temperature=math.nan), "temperature must be above 0"),
        (dict(top_k=0), "top_k must be at least 1"),
        (dict(top_p=1.5), "top_p must be above 0 and at most 1"),
        (dict(n=0), "n must be at least 1, got 0"),
        (dict(rows=[1, 2]), "1 rows need as many numbers, got 2"),
    ):
        with pytest.raises(ValueError, match=complaint):
            sample(flat(), torch.tensor([[4, EOS]]), **wrong)
    assert random_of(3).random() == random_of(3, 0, 0).random() != random_of(3, 1).random()
