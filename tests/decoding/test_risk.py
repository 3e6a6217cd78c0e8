"""Minimum risk against hand-made sums, and the log-probability of given targets."""

import itertools
import math
from functools import partial

import pytest
import torch
from toy_models import KINDS, Table, build, log_probability, padded, sentences

from s2s_helpers.decoding import (
    Hypothesis,
    log_probabilities,
    minimum_risk,
    minimum_risk_search,
    risk,
    sample,
)
from s2s_helpers.vocabulary import EOS, PAD, SOS


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_log_probabilities_are_those_of_forward(kind, monkeypatch):
    monkeypatch.setattr(risk, "LINES", 3)
    model, rows = build(kind), sentences(4)
    targets = [[[4, 5, EOS], [6]], [], [[EOS]], [[4, EOS], [4, EOS], [5, 5, 5, 5, EOS]]]
    found = log_probabilities(model, padded(rows).source, targets)
    for source_ids, several, totals in zip(rows, targets, found, strict=True):
        expected = [log_probability(model, source_ids, ids) for ids in several]
        assert totals == pytest.approx(expected, abs=1e-4)


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

    exact = {o: sum(q * different_places(o[:-1], h[:-1]) for h, q in p.items()) for o in p}
    (several,) = sample(model, source, max_length=12, n=2000)
    least = min(exact, key=exact.get)
    assert tuple(minimum_risk(several, different_places).ids) == least
    (found,) = minimum_risk_search(model, source, risk=different_places, n=2000, max_length=12)
    assert tuple(found.ids) == least


def test_a_search_by_risk_is_the_choice_among_samples(kind):
    model, batch = build(kind, sharpness=1.0), padded(sentences(4))
    options = dict(n=5, seed=3, top_p=0.9)
    search = partial(minimum_risk_search, risk=different_places, **options)
    for several, one in zip(
        sample(model, batch.source, **options), search(model, batch.source), strict=True
    ):
        wanted = minimum_risk(several, different_places)
        assert one.ids == wanted.ids and one.score == wanted.score
    last = batch.source[3:, : int(batch.source_mask[3].sum())]
    assert search(model, last, rows=[3])[0].ids == one.ids


def test_risk_takes_the_candidate_first_and_equals_go_to_the_first():
    seen = []
    several = [hypothesis([4], 0.5), hypothesis([5], 0.5)]
    best = minimum_risk(several, lambda one, other: seen.append((one, other)) or 0.0)
    assert best.ids == several[0].ids and seen[:2] == [((4,), (4,)), ((4,), (5,))]
    with pytest.raises(ValueError, match="no hypotheses to choose from"):
        minimum_risk([], different_places)
