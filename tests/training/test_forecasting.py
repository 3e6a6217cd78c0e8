"""Losses and forecasts against brute force and what is worked out by hand."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s2s_helpers.models import load_model, save_model
from s2s_helpers.models.forecaster import QUANTILES, Forecaster, Scaling
from s2s_helpers.training import forecasting
from s2s_helpers.training.forecasting import (
    PinballLoss,
    draw,
    forecast,
    forecasting_trainer,
)
from s2s_helpers.training.schedules import constant, linear

ROOT = Path(__file__).parents[2]


def wave(length=60, period=6, slope=0.0, noise=0.0, seed=0):
    time = np.arange(length)
    luck = np.random.default_rng(seed).normal(size=length)
    return 10 + 3 * np.sin(2 * math.pi * time / period) + slope * time + noise * luck


# Pinball loss


def test_pinball_by_hand():
    loss = PinballLoss((0.1, 0.5))
    found = torch.tensor([[[2.0, 3.0]], [[7.0, 3.0]]])  # (2, 1, 2)
    values = torch.tensor([[4.0], [5.0]])
    # 0.1 * 2, 0.5 * 1; 0.9 * 2, 0.5 * 2
    assert loss(found, values).item() == pytest.approx((0.2 + 0.5 + 1.8 + 1.0) / 4)
    total, count = loss.total(found, values)
    assert total.item() == pytest.approx((0.2 + 0.5 + 1.8 + 1.0) / 2) and count == 2


@given(st.lists(st.integers(-50, 50), min_size=5, max_size=25), st.sampled_from(QUANTILES))
def test_pinball_is_least_at_the_quantile(numbers, tau):
    values = torch.tensor(numbers, dtype=torch.float64)
    loss = PinballLoss((tau,))
    every = [loss(torch.full((len(values), 1), float(q)), values).item() for q in range(-50, 51)]
    best = np.quantile(numbers, tau, method="inverted_cdf")
    assert every[int(best) + 50] == pytest.approx(min(every))


def test_pinball_of_wrong_shapes_is_named():
    with pytest.raises(ValueError, match=r"values \(2, 3\) need quantiles of shape \(2, 3, 5\)"):
        PinballLoss()(torch.zeros(2, 3, 4), torch.zeros(2, 3))


# Training and forecasting


@pytest.fixture(scope="module")
def trained():
    values = wave(120, slope=0.1, noise=0.1)
    trainer = forecasting_trainer(
        values[:108],
        Scaling(6, 12),
        6,
        epochs=20,
        lr=1e-2,
        batch_size=8,
        progress=False,
        hidden=16,
        embedding=16,
    )
    trainer.fit()
    return trainer, values


def test_it_learns_a_wave_that_climbs(trained):
    trainer, values = trained
    found = forecast(trainer.model, [values[:108], values[:114]], 6)
    assert found.shape == (2, 6, 5) and (np.diff(found) >= 0).all()
    later = np.stack([values[108:114], values[114:120]])
    assert np.abs(found[:, :, 2] - later).mean() < 0.5  # the seasonal naive is off by 0.6
    losses = [epoch["train_loss"] for epoch in trainer.history.epochs]
    assert losses[-1] < losses[0] / 3


def test_a_forecast_is_in_the_unit_of_its_history(trained):
    model, values = trained[0].model, trained[1]
    plain, moved = forecast(model, [values[:100], 1000 + 7 * values[:100]], 6)
    np.testing.assert_allclose(moved, 1000 + 7 * plain, rtol=1e-4)


def test_a_forecast_is_the_same_alone_and_in_a_batch(trained):
    model, values = trained[0].model, trained[1]
    histories = [values[:100], values[:5], values[3:60]]
    together = forecast(model, histories, 6)
    for history, found in zip(histories, together, strict=True):
        np.testing.assert_allclose(forecast(model, [history], 6)[0], found, atol=1e-4)


def test_paths_spread_where_feeding_the_median_does_not(trained):
    model, values = trained[0].model, trained[1]
    torch.manual_seed(0)
    median, paths = forecast(model, [values], 6)[0], forecast(model, [values], 6, paths=2000)[0]
    # Nothing has been drawn yet at the first step: there both are the model's own quantiles.
    np.testing.assert_allclose(paths[0], median[0], atol=0.05)
    assert paths.shape == median.shape and (np.diff(paths) > 0).all()


def test_crossed_quantiles_are_put_in_order():
    torch.manual_seed(0)
    model = Forecaster(Scaling(4, 9), embedding=4, hidden=4)  # untrained: they cross
    found = forecast(model, [wave(20)], 3)
    assert (np.diff(found) >= 0).all()


def test_drawn_numbers_have_the_quantiles_they_are_drawn_from():
    torch.manual_seed(0)
    quantiles = torch.tensor([[-3.0, -1.0, 0.0, 2.0, 10.0]]).repeat(40_000, 1)
    drawn = draw(quantiles, QUANTILES).numpy()
    np.testing.assert_allclose(np.quantile(drawn, QUANTILES), quantiles[0], atol=0.15)
    # Outside, the line of the last piece goes on: 8 in 0.15, so 10 + 8 / 0.15 * 0.1 at most.
    assert 14 < drawn.max() <= 10 + 8 / 0.15 * 0.1 + 1e-4


def test_the_trainer_sees_every_window_once_and_nothing_later():
    values = wave(40)
    trainer = forecasting_trainer(values, Scaling(6, 12, "season"), 6, progress=False)
    starts = torch.cat([batch.shift for batch in trainer.train_dataloader])
    assert len(starts) == 40 - 6 - 12 - 6 + 1
    assert {round(x, 3) for x in starts[:, 0].tolist()} <= {round(x, 3) for x in values.tolist()}


def test_the_share_of_teacher_forcing_falls_and_can_be_chosen():
    for forcing, shares in ((None, [1.0, 0.0]), (constant(1), [1.0, 1.0])):
        trainer = forecasting_trainer(wave(40), Scaling(6, 12), 6, forcing, 2, progress=False)
        seen = []
        note = seen.append
        trainer.model.register_forward_pre_hook(lambda model, _, n=note: n(model.teacher_forcing))
        trainer.fit()
        assert seen == sorted(seen, reverse=True) and [seen[0], seen[-1]] == shares


def test_a_forecaster_is_trained_with_a_checkpoint_and_goes_on(tmp_path):
    def trainer(epochs, folder, steps=20):
        made = forecasting_trainer(
            wave(40), Scaling(6, 12), 6, linear(0.1), epochs, checkpoint_dir=folder, progress=False,
            hidden=8, embedding=8,
        )  # fmt: skip
        made.schedule = constant(1)
        return made

    expected, first = trainer(4, None), trainer(2, tmp_path)
    expected.fit()
    first.fit()
    resumed = trainer(4, tmp_path)
    history = resumed.fit()
    assert [epoch["epoch"] for epoch in history.epochs] == [1, 2, 3, 4]
    weights = expected.model.state_dict()
    assert all(torch.equal(w, weights[name]) for name, w in resumed.model.state_dict().items())
    save_model(resumed.model, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    found = [forecast(model, [wave(30)], 6) for model in (loaded, resumed.model)]
    np.testing.assert_array_equal(*found)


def test_a_forecaster_can_be_validated():
    made = forecasting_trainer(wave(40), Scaling(6, 12), 6, progress=False)
    found = made.evaluate(made.train_dataloader)
    assert 0 < found["loss"] < 10 and found["perplexity"] == 1  # there are no words


def test_too_few_values_are_named():
    with pytest.raises(ValueError, match=r"values must be at least 24 numbers .* shape \(23,\)"):
        forecasting_trainer(wave(23), Scaling(6, 12, "season"), 6)


def test_a_gap_among_the_last_values_is_named_and_not_trained_on():
    values = pd.Series(wave(40), index=pd.date_range("2020-01-01", periods=40))
    values.iloc[-2] = None
    with pytest.raises(ValueError, match=r"gaps first, such as that at 2020-02-08.*nan"):
        forecasting_trainer(values, Scaling(6, 12), 6)


def test_a_pandas_series_is_trained_on_like_an_array():
    weights = []
    for values in (wave(40), pd.Series(wave(40), index=range(7, 47))):
        trainer = forecasting_trainer(values, Scaling(6, 12), 6, epochs=1, progress=False)
        trainer.fit()
        weights.append(trainer.model.state_dict())
        forecasts = forecast(trainer.model, [values, values[:30]], 6)
    assert all(torch.equal(*pair) for pair in zip(*(w.values() for w in weights), strict=True))
    assert np.isfinite(forecasts).all()


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_a_perfectly_regular_series_has_an_ordinary_loss_and_goes_on(slope):
    values = 1e5 * wave(90, slope=slope)
    trainer = forecasting_trainer(
        values[:78], Scaling(6, 12, "season"), 6, epochs=10, lr=1e-2, progress=False
    )
    trainer.fit()
    assert trainer.history.epochs[0]["train_loss"] < 20
    found = forecast(trainer.model, [values[:84]], 6)[0, :, 2]
    np.testing.assert_allclose(found, values[84:], atol=0.3 * 1e5)


# Benchmark


def test_the_benchmark_measures_every_method(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setitem(sys.modules, "forecasting", None)
    import importlib.util

    spec = importlib.util.spec_from_file_location("bench", ROOT / "benchmarks" / "forecasting.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    monkeypatch.setattr(bench, "TASKS", {"sunspots": bench.TASKS["sunspots"]})
    before = set(bench.RESULTS.iterdir())
    bench.main(quick=True)
    assert set(bench.RESULTS.iterdir()) == before
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "| sun" in line]
    assert {"seasonal naive", "Holt-Winters", "teacher forcing"} <= {row[1] for row in rows}
    assert all(float(row[2]) > 0 for row in rows)
    run = dict(mase=1.0, pinball=0.25, coverage=80.0, seconds=2.0)
    text = bench.table({"runs": {"CO2": {"naive": [run, run | {"mase": 2.0}]}}})
    assert text.splitlines()[-1] == (
        "| CO2 | naive | 1.50 ± 0.71 | 0.250 ± 0.000 | 80 ± 0 | 2.0 ± 0.0 |"
    )
    assert json.dumps(run) and forecasting.__name__ == "s2s_helpers.training.forecasting"
