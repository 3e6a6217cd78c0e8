"""Typical sampling, diverse beam search and minimum risk against brute force and hand-made sums."""

import itertools
import math
from collections import Counter

import pytest
import torch
from toy_models import KINDS, SOURCE, TINY, build, log_probability, next_step, padded, sentences

from s2s_helpers.decoding import Hypothesis, beam_search, sample
from s2s_helpers.decoding.variety import (
    diverse_beam_search,
    draws,
    log_probabilities,
    minimum_risk,
    typical,
)
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.models.interface import Memory, Seq2SeqModel, State
from s2s_helpers.vocabulary import EOS, PAD, SOS, Vocabulary


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


class Table(Seq2SeqModel):
    """A model whose next token depends on the last alone: logits (vocabulary, vocabulary)."""

    def __init__(self, logits):
        super().__init__(SOURCE, Vocabulary.numbered(logits.shape[1]))
        self.logits = torch.nn.Parameter(logits)

    def encode(self, source, source_mask):
        return Memory(mask=source_mask, states=source)

    def start(self, memory):
        return State()

    def step(self, tokens, state, memory):
        return self.logits[tokens], state, None


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
        rows, draws(model, padded(rows).source, 4, keep=typical(0.3), max_length=6), strict=True
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
    (several,) = draws(Table(logits), torch.tensor([[EOS]]), 400, keep=typical(0.39))
    counts = Counter(hypothesis.ids[0] for hypothesis in several)
    assert set(counts) == {5, 6} and abs(counts[5] - 200) < 50
    assert several[0].log_probability == pytest.approx(math.log(0.2), abs=1e-4)


@pytest.mark.parametrize("mass", [0, -1, 1.1])
def test_a_mass_is_a_probability(mass):
    with pytest.raises(ValueError, match="mass must be above 0 and at most 1"):
        typical(mass)


# Many samples


def test_draws_are_samples_with_their_seeds(kind, monkeypatch):
    monkeypatch.setattr(
        "s2s_helpers.decoding.variety.LINES", 5
    )  # a row is torn between two batches
    model, batch = build(kind, sharpness=1.0), padded(sentences(4))
    found = draws(model, batch.source, 3, batch.source_mask, seed=7, temperature=0.8)
    assert [len(several) for several in found] == [3] * 4
    for place in range(3):
        seeds = [7 + 3 * row + place for row in range(4)]
        again = sample(model, batch.source, batch.source_mask, temperature=0.8, seed=seeds)
        assert [several[place].ids for several in found] == [one.ids for one in again]
    assert any(len({tuple(one.ids) for one in several}) > 1 for several in found)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        draws(model, batch.source, 0)


# Diverse beam search


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
        (dict(strength=-1), "must not be negative: strength=-1"),
        (dict(length_penalty=-1), "must not be negative"),
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
        assert {len(h.ids) for h in row} == {8} and not row[0].finished


def test_log_probabilities_are_those_of_forward(kind, monkeypatch):
    monkeypatch.setattr("s2s_helpers.decoding.variety.LINES", 3)
    model, rows = build(kind), sentences(4)
    targets = [[[4, 5, EOS], [6]], [], [[EOS]], [[4, EOS], [4, EOS], [5, 5, 5, 5, EOS]]]
    found = log_probabilities(model, padded(rows).source, targets)
    for source_ids, several, totals in zip(rows, targets, found, strict=True):
        expected = [log_probability(model, source_ids, ids) for ids in several]
        assert totals == pytest.approx(expected, abs=1e-4)


# Minimum risk


def hypothesis(ids, p):
    return Hypothesis([*ids, EOS], math.log(p), math.log(p))


def different_places(one, other):
    return sum(a != b for a, b in itertools.zip_longest(one, other))


def test_minimum_risk_may_choose_the_less_probable():
    """p 0.4 of 4 4 4, but 5 5 6 and 5 5 5 and 5 6 6 stand close together. Expected risks by hand:
    0.6 x 3 = 1.8; 0.4 x 3 + 0.2 x 1 + 0.1 x 1 = 1.5; 1.2 + 0.3 + 0.2 = 1.7; 1.2 + 0.3 + 0.4."""
    several = [hypothesis([4, 4, 4], 0.4), hypothesis([5, 5, 6], 0.3)]
    several += [hypothesis([5, 5, 5], 0.2), hypothesis([5, 6, 6], 0.1)]
    best = minimum_risk(several, different_places, by_probability=True)
    assert best.ids == [5, 5, 6, EOS] and best.score == pytest.approx(-1.5)
    assert best.log_probability == several[1].log_probability
    # As samples each counts as often as it was drawn, whatever its p.
    drawn = [several[0]] * 4 + [several[1]] * 3 + [several[2]] * 2 + [several[3]]
    assert minimum_risk(drawn, different_places).score == pytest.approx(-1.5)
    assert minimum_risk(several, different_places).score == pytest.approx(-(3 + 0 + 1 + 1) / 4)


def test_risk_of_zero_or_one_chooses_the_mode():
    drawn = [hypothesis([n], 0.1) for n in (4, 5, 5, 6, 5, 4)]
    best = minimum_risk(drawn, lambda one, other: float(one != other))
    assert best.ids == [5, EOS] and best.score == pytest.approx(-0.5)


def test_samples_come_close_to_the_exact_expectation():
    """On a table so small that every output can be summed over, 2,000 samples choose the output
    with the least expected risk under the model itself."""
    torch.manual_seed(1)
    logits = 1.5 * torch.randn(6, 6)
    logits[:, [PAD, 1, SOS]] = -1e9  # of the two words and the end
    logits[:, EOS] += 1.0
    model, source = Table(logits), torch.tensor([[EOS]])
    outputs = [[*o, EOS] for n in range(7) for o in itertools.product((4, 5), repeat=n)]
    (log_p,) = log_probabilities(model, source, [outputs])
    p = dict(zip(map(tuple, outputs), map(math.exp, log_p), strict=True))
    assert sum(p.values()) > 0.95

    def risk(one, other):  # the difference of lengths, and of the words in place
        return different_places(one, other)

    exact = {o: sum(q * risk(o[:-1], h[:-1]) for h, q in p.items()) for o in p}
    (several,) = draws(model, source, 2000, max_length=12)
    assert tuple(minimum_risk(several, risk).ids) == min(exact, key=exact.get)


def test_risk_takes_the_candidate_first_and_equals_go_to_the_first():
    seen = []
    several = [hypothesis([4], 0.5), hypothesis([5], 0.5)]
    best = minimum_risk(several, lambda one, other: seen.append((one, other)) or 0.0)
    assert best.ids == several[0].ids and seen[:2] == [((4,), (4,)), ((4,), (5,))]
    with pytest.raises(ValueError, match="no hypotheses to choose from"):
        minimum_risk([], different_places)
