"""Measures and classics of forecasting against brute force and what is worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from s2s_helpers.corpora.series import Series
from s2s_helpers.course.baselines import (
    Rolling,
    autoregression,
    holt_winters,
    rolling_origin,
    seasonal_naive,
)
from s2s_helpers.models.forecaster import QUANTILES
from s2s_helpers.training.forecasting import PinballLoss


def wave(length=60, period=6, slope=0.0, noise=0.0, seed=0):
    time = np.arange(length)
    luck = np.random.default_rng(seed).normal(size=length)
    return 10 + 3 * np.sin(2 * math.pi * time / period) + slope * time + noise * luck


def series(values, period=6):
    dates = np.arange("2000", str(2000 + len(values)), dtype="datetime64[Y]")
    return Series("wave", values, dates, period)


# Measures


def test_mase_by_hand():
    # In the history 1 2 3 5 with a period of 2 the seasonal naive is off by 2 and 3: 2.5.
    rolled = rolling_origin(
        series(np.array([1.0, 2, 3, 5, 4, 9]), 2),
        lambda histories, horizon: np.array([[[5.0], [5.0]]]),
        [4], 2, (0.5,),
    )  # fmt: skip
    np.testing.assert_allclose(rolled.mase(), [1 / 2.5, 4 / 2.5])
    np.testing.assert_allclose(rolled.pinball(), [0.5 / 2.5, 2 / 2.5])


def test_the_seasonal_naive_has_a_mase_of_one_where_nothing_changes():
    generator = np.random.default_rng(0)
    values = series(generator.normal(size=4000), 5)

    def method(histories, horizon):
        return np.stack([seasonal_naive(history, horizon, 5) for history in histories])

    rolled = rolling_origin(values, method, range(2000, 3996), 5)
    np.testing.assert_allclose(rolled.mase(), 1, atol=0.05)
    np.testing.assert_allclose(rolled.coverage(), 0.8, atol=0.03)
    np.testing.assert_allclose(rolled.coverage(0.25, 0.75), 0.5, atol=0.04)


def test_measures_equal_brute_force():
    generator = np.random.default_rng(1)
    values, sizes = generator.normal(size=(7, 3)), generator.uniform(1, 2, size=(7, 1))
    forecasts = np.sort(generator.normal(size=(7, 3, 5)), axis=-1)
    rolled = Rolling(values, forecasts, sizes)
    for step in range(3):
        errors, losses, inside = [], [], []
        for row in range(7):
            y, size = values[row, step], sizes[row, 0]
            errors.append(abs(y - forecasts[row, step, 2]) / size)
            for place, tau in enumerate(QUANTILES):
                miss = y - forecasts[row, step, place]
                losses.append((tau * miss if miss > 0 else (tau - 1) * miss) / size)
            inside.append(forecasts[row, step, 0] <= y <= forecasts[row, step, 4])
        assert rolled.mase()[step] == pytest.approx(np.mean(errors))
        assert rolled.pinball()[step] == pytest.approx(np.mean(losses))
        assert rolled.coverage()[step] == pytest.approx(np.mean(inside))
    ours = PinballLoss()(torch.tensor(forecasts), torch.tensor(values)).item()
    assert Rolling(values, forecasts, np.ones((7, 1))).pinball().mean() == pytest.approx(ours)


def test_a_method_never_sees_what_comes():
    values, seen = wave(40), []

    def method(histories, horizon):
        seen.extend(histories)
        return np.zeros((len(histories), horizon, 5))

    rolled = rolling_origin(series(values), method, [10, 20, 36], 4)
    assert [len(history) for history in seen] == [10, 20, 36]
    for history, came, origin in zip(seen, rolled.values, (10, 20, 36), strict=True):
        np.testing.assert_array_equal(np.append(history, came), values[: origin + 4])


@pytest.mark.parametrize("origin", [6, 37])
def test_bad_origins_are_named(origin):
    with pytest.raises(ValueError, match=rf"between 7 and 36, got \[{origin}\]"):
        rolling_origin(series(wave(40)), None, [20, origin], 4)


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_a_history_without_an_error_to_divide_by_is_named(slope):
    values = np.append(wave(30, slope=slope), [1.0, 2, 3, 4])
    values[20:24] += slope == 0  # of the two origins only the first has seen nothing but seasons
    rolled = rolling_origin(
        series(values), lambda histories, horizon: np.zeros((2, horizon, 5)), [18, 30], 4
    )
    assert rolled.coverage().shape == (4,)
    for measure in (rolled.mase, rolled.pinball):
        if slope:
            assert np.isfinite(measure()).all()
        else:
            with pytest.raises(ValueError, match=r"no error in the histories of the origins \[0\]"):
                measure()


def test_forecasts_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"must be \(2, 4, 5\), got \(1, 4, 5\)"):
        rolling_origin(series(wave(40)), lambda *_: np.zeros((1, 4, 5)), [20, 30], 4)
    with pytest.raises(ValueError, match="there are no origins"):
        rolling_origin(series(wave(40)), None, range(0), 4)


# Classics


@pytest.mark.parametrize(
    "method, fewest", [(seasonal_naive, 7), (holt_winters, 12), (autoregression, 28)]
)
def test_a_classic_says_how_much_history_it_needs(method, fewest):
    values = wave(fewest, noise=0.1)
    assert np.isfinite(method(values, 3, 6)).all()
    with pytest.raises(ValueError, match=f"history must be at least {fewest} numbers in a row"):
        method(values[1:], 3, 6)
    with pytest.raises(ValueError, match="fill the 1 gaps first, such as that at 2"):
        method(np.where(np.arange(40) == 2, np.nan, 1.0), 3, 6)


@pytest.mark.parametrize("method", [seasonal_naive, holt_winters, autoregression])
def test_a_classic_reads_a_pandas_series_by_its_places(method):
    values = wave(60, noise=0.1).round(3)
    for given_as in (pd.Series(values, index=range(100, 160)), values.tolist()):
        np.testing.assert_allclose(method(given_as, 8, 6), method(values, 8, 6))


def test_seasonal_naive_by_hand():
    history = np.array([1.0, 5, 2, 7])  # errors 1 and 2
    found = seasonal_naive(history, 3, 2, (0.25, 0.5, 1.0))
    np.testing.assert_allclose(found[:, 1], [2, 7, 2])
    np.testing.assert_allclose(found[:, 2] - found[:, 1], [2, 2, 2 * math.sqrt(2)])
    np.testing.assert_allclose(found[:, 1] - found[:, 0], found[0, 1] - found[0, 0], rtol=0.5)


def test_holt_winters_goes_on_with_trend_and_seasons():
    values = wave(84, slope=0.5, noise=0.05)
    found = holt_winters(values[:72], 12, 6)
    np.testing.assert_allclose(found[:, 2], values[72:], atol=0.3)
    assert (np.diff(found, axis=1) > 0).all()


def test_holt_winters_says_nothing_and_repeats_itself(recwarn, capfd):
    first, again = (holt_winters(wave(60, noise=0.5), 6, 6) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not recwarn.list and capfd.readouterr() == ("", "")


def test_autoregression_finds_the_recursion_and_its_noise():
    generator = np.random.default_rng(0)
    values = np.zeros(2000)
    for t in range(2, 2000):
        values[t] = 1.6 * values[t - 1] - 0.9 * values[t - 2] + generator.normal()
    found = autoregression(values, 2, 6)
    mean = 1.6 * values[-1] - 0.9 * values[-2]
    assert found[0, 2] == pytest.approx(mean, abs=0.4)
    # One step ahead the noise is standard normal; two ahead it has variance 1 + 1.6 squared.
    assert found[0, 4] - found[0, 2] == pytest.approx(1.2816, abs=0.06)
    assert found[1, 4] - found[1, 2] == pytest.approx(1.2816 * math.sqrt(3.56), abs=0.15)
