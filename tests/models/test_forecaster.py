"""The forecaster has on numbers the methods that the other models have on words."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s2s_helpers.corpora.series import Series
from s2s_helpers.models import Bridge, Forecaster, Scaling, Windows, load_model, save_model
from s2s_helpers.training.forecasting import forecasting_trainer

SETTINGS = {
    "bahdanau": dict(),
    "bahdanau-lstm-2": dict(cell="lstm", layers=2),
    "luong": dict(attention="luong"),
    "luong-dot-unfed": dict(attention="luong", score="dot", input_feeding=False),
    "one-way": dict(bidirectional=False, quantiles=(0.5,)),
}


@pytest.fixture(params=SETTINGS)
def model(request):
    torch.manual_seed(0)
    scaling = Scaling(4, 9)
    return Forecaster(scaling, embedding=6, hidden=8, **SETTINGS[request.param]).eval()


def mixed_windows(horizon=5, seed=0):
    """Histories of mixed lengths, most of which leave a part of the window masked."""
    generator = np.random.default_rng(seed)
    histories = [generator.normal(size=length) for length in (3, 9, 5, 20, 2)]
    later = generator.normal(size=(len(histories), horizon))
    return Windows.of(Scaling(4, 9), histories, horizon, later)


def test_forward_gives_quantiles_and_attention_that_sums_to_one(model):
    batch = mixed_windows()
    assert batch.source_mask.sum(1).tolist() == [3, 9, 5, 9, 2]
    quantiles, attention = model(batch)
    assert quantiles.shape == (5, 5, len(model.quantiles))
    assert attention.shape == (5, 5, 9)
    torch.testing.assert_close(attention.sum(-1), torch.ones(5, 5))
    assert (attention[~batch.source_mask[:, None].expand_as(attention)] == 0).all()


def test_step_and_forward_agree(model):
    batch = mixed_windows()
    quantiles, attention = model(batch)
    memory = model.encode(batch.source, batch.source_mask)
    state = model.start(memory)
    for position, values in enumerate(batch.target_input.unbind(1)):
        found, state, attended = model.step(values, state, memory)
        torch.testing.assert_close(found, quantiles[:, position], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(attended, attention[:, position], atol=1e-5, rtol=1e-5)
    assert state.position in (0, batch.target_input.shape[1])


def test_teacher_forced_unrolling_is_forward(model):
    batch = mixed_windows()
    for stepped, whole in zip(model.unroll(batch), model(batch), strict=True):
        torch.testing.assert_close(stepped, whole, atol=1e-5, rtol=1e-5)


def test_a_history_gets_the_same_alone_and_in_a_padded_batch(model):
    batch = mixed_windows()
    quantiles, attention = model(batch)
    for row in range(5):
        alone = batch.select([row])
        past = int(alone.source_mask.sum())
        alone.source, alone.source_mask = alone.source[:, :past], alone.source_mask[:, :past]
        found, attended = model(alone)
        torch.testing.assert_close(found[0], quantiles[row], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(attended[0], attention[row, :, :past], atol=1e-5, rtol=1e-5)


def test_what_stands_in_the_padding_changes_nothing(model):
    batch = mixed_windows()
    before, _ = model(batch)
    batch.source[~batch.source_mask] = 1e6
    torch.testing.assert_close(model(batch)[0], before)


def test_every_past_value_matters_and_no_later_one(model):
    batch = mixed_windows()
    before, _ = model(batch)
    for place in range(9):
        changed = batch.select(slice(None))
        changed.source = batch.source.clone()
        changed.source[1, place] += 0.5
        assert not torch.allclose(model(changed)[0][1], before[1], atol=1e-6)
    changed = batch.select(slice(None))
    changed.target = batch.target.clone()
    changed.target[:, 3:] += 1
    after, _ = model(changed)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3:], before[:, 3:])


def test_memory_and_state_select_rows(model):
    batch = mixed_windows()
    memory = model.encode(batch.source, batch.source_mask)
    values, rows = batch.target[:, 0], torch.tensor([3, 0, 3])
    _, state, _ = model.step(values, model.start(memory), memory)
    everyone, _, _ = model.step(values, state, memory)
    chosen, _, _ = model.step(values[rows], state.select(rows), memory.select(rows))
    torch.testing.assert_close(chosen, everyone[rows])


def test_free_running_reads_its_own_median(model):
    batch = mixed_windows()
    found, _ = model.unroll(batch, teacher_forcing=0.0)
    memory = model.encode(batch.source, batch.source_mask)
    state, values = model.start(memory), batch.target[:, 0]
    for position in range(5):
        quantiles, state, _ = model.step(values, state, memory)
        torch.testing.assert_close(quantiles, found[:, position])
        values = quantiles[:, model.quantiles.index(0.5)]


def test_the_share_of_teacher_forcing_acts_in_training_only():
    torch.manual_seed(0)
    model, batch = Forecaster(Scaling(4, 9), embedding=6, hidden=8), mixed_windows()
    model.teacher_forcing = 0.0
    free, _ = model(batch)
    torch.testing.assert_close(free, model.unroll(batch, 0.0)[0])
    forced, _ = model.eval()(batch)
    torch.testing.assert_close(forced, model.unroll(batch, 1.0)[0])
    assert not torch.allclose(free, forced)


def test_gradients_flow_through_the_medians_it_reads():
    torch.manual_seed(0)
    model, batch = Forecaster(Scaling(4, 9), embedding=6, hidden=8), mixed_windows()
    step, seen = model.step, []

    def watched(*inputs):
        quantiles, *rest = step(*inputs)
        quantiles.retain_grad()
        seen.append(quantiles)
        return quantiles, *rest

    model.step = watched
    found, _ = model.unroll(batch, 0.0)
    found[:, -1].sum().backward()
    for quantiles in seen[:-1]:
        assert (quantiles.grad[:, 2] != 0).all()
        assert (quantiles.grad[:, [0, 1, 3, 4]] == 0).all()


def test_several_features_at_each_past_step():
    torch.manual_seed(0)
    model = Forecaster(Scaling(4, 9), features=3, embedding=6, hidden=8).eval()
    source, mask = torch.randn(2, 7, 3), torch.ones(2, 7, dtype=torch.bool)
    memory = model.encode(source, mask)
    quantiles, _, attention = model.step(torch.zeros(2), model.start(memory), memory)
    assert quantiles.shape == (2, 5) and attention.shape == (2, 7)
    assert isinstance(model.bridge, Bridge)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_it_is_saved_like_any_model(settings, tmp_path):
    torch.manual_seed(0)
    scaling = Scaling(np.int64(4), np.int32(9), "mean")
    shape = dict(embedding=6, hidden=8, dropout=np.float64(0.1))
    model = Forecaster(scaling, **shape, **settings).eval()
    assert model.source_vocabulary is None and model.target_vocabulary is None
    save_model(model, tmp_path / "model.pt")
    again, batch = load_model(tmp_path / "model.pt"), mixed_windows()
    assert type(again) is Forecaster and again.settings == model.settings
    assert (again.scaling, again.quantiles) == (Scaling(4, 9, "mean"), model.quantiles)
    for mine, theirs in zip(again(batch), model(batch), strict=True):
        assert torch.equal(mine, theirs)
    assert "source_vocabulary" not in torch.load(tmp_path / "model.pt", weights_only=True)


def test_quantiles_and_scaling_of_numpy_are_plain():
    model = Forecaster({"period": 4, "past": 9}, np.array([0.25, 0.5, 0.75]), embedding=6, hidden=8)
    assert model.scaling == Scaling(4, 9) and type(model.quantiles[0]) is float
    assert type(model.settings["quantiles"]) is tuple
    assert model.settings["scaling"] == {"period": 4, "past": 9, "how": "last"}


def test_it_trains_with_checkpoints_and_goes_on(tmp_path):
    def trainer(epochs):
        return forecasting_trainer(
            np.sin(np.arange(40.0)), Scaling(4, 9), 3, epochs=epochs, progress=False, seed=1,
            embedding=4, hidden=4, checkpoint_dir=tmp_path,
        )  # fmt: skip

    trainer(2).fit()
    again = trainer(3)
    assert len(again.fit(resume=True).epochs) == 3
    best, batch = load_model(tmp_path / "best.pt"), mixed_windows()
    assert type(best) is Forecaster and best(batch)[0].shape == (5, 5, 5)


@pytest.mark.parametrize("bad", [(0.1, 0.9), (0.5, 0.1), (0.0, 0.5), (0.5, 1.0), (0.5, 0.5)])
def test_bad_quantiles_are_named(bad):
    with pytest.raises(ValueError, match="quantiles must rise between 0 and 1"):
        Forecaster(Scaling(4, 9), bad)


# Scaling

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=14, max_size=40)


@given(NUMBERS, st.sampled_from(["mean", "last", "season"]), st.integers(1, 9))
def test_scaling_leads_back(numbers, how, horizon):
    history = np.array(numbers)
    scaled, shift, size = Scaling(4, 6, how)(history, horizon)
    assert scaled.shape == (6,) and shift.shape == (horizon,) and size > 0
    if how == "season":
        np.testing.assert_allclose(history[-10:-4] + size * scaled, history[-6:], atol=1e-6)
    else:
        np.testing.assert_allclose(shift[0] + size * scaled, history[-6:], atol=1e-6)
        assert scaled.std() == pytest.approx(1, abs=1e-6) or np.std(history[-6:]) < 1e-9


def test_scaling_by_hand():
    history = [1.0, 2.0, 4.0, 3.0, 5.0, 7.0]
    scaled, shift, size = Scaling(2, 3, "mean")(history, 2)
    np.testing.assert_allclose(size * scaled, [-2, 0, 2])
    np.testing.assert_allclose(shift, [5, 5])
    scaled, shift, size = Scaling(2, 3, "last")(history, 2)
    np.testing.assert_allclose(size * scaled, [-4, -2, 0])
    np.testing.assert_allclose(shift, [7, 7])
    scaled, shift, size = Scaling(2, 3, "season")(history, 3)
    np.testing.assert_allclose(size * scaled, [1, 1, 4])
    np.testing.assert_allclose(shift, [5, 7, 5])  # the last season, again and again
    assert size == pytest.approx(np.std([1, 1, 4]))


def test_a_flat_history_is_left_as_it_is():
    for how in ("mean", "last", "season"):
        scaled, shift, size = Scaling(2, 3, how)([7.0] * 9, 2)
        assert (scaled == 0).all() and size == 1.0 and (shift == 7).all()


def regular(length, slope=0.0):
    """The same season of 4 again and again, with the rounding that comes of adding 0.1."""
    return np.array([[10.1, 12.3, 9.7, 11.9][t % 4] + slope * t for t in range(length)])


def test_a_season_that_repeats_itself_is_measured_by_the_history():
    values = regular(40)
    values[20:] = values[20:] * 10 / 10.0 + 0.1 - 0.1  # equal but for rounding
    scaled, _, size = Scaling(4, 9, "season")(values, 4)
    assert np.abs(scaled).max() < 1e-12 and size == pytest.approx(values.std())


def test_a_climb_as_regular_as_a_clock_is_measured_by_itself():
    for slope in (0.1, 1000.0, 1e-4):
        history = regular(40, slope)
        scaled, shift, size = Scaling(4, 9, "season")(history, 4)
        np.testing.assert_allclose(scaled, 1, atol=1e-3)
        np.testing.assert_allclose(shift + size, regular(44, slope)[40:])
        later = regular(44, slope)[None, 40:]
        windows = Windows.of(Scaling(4, 9, "season"), [history], 4, later)
        torch.testing.assert_close(windows.target, torch.ones(1, 5), atol=1e-3, rtol=0)


@given(st.integers(-6, 6), st.sampled_from(["mean", "last", "season"]))
def test_a_flat_end_has_the_scale_of_what_came_before(power, how):
    history = np.array([3.0, 1, 4, 1, 5, 9, 2, 6] + [5.0] * 12)
    scaled, _, size = Scaling(2, 6, how)(10.0**power * history, 3)
    assert np.abs(scaled).max() < 1e-9 and size == pytest.approx(10.0**power * history.std())


@given(NUMBERS, st.sampled_from(["mean", "last", "season"]), st.floats(1e-3, 1e3))
def test_scaled_numbers_are_of_ordinary_size_and_know_no_unit(numbers, how, unit):
    history = np.round(numbers, 2)
    scaled, _, size = Scaling(4, 6, how)(history, 3)
    assert np.abs(scaled).max() < 30.0001
    again, _, other = Scaling(4, 6, how)(history * unit, 3)
    if history.std() > 0:
        np.testing.assert_allclose(again, scaled, atol=1e-6)
        assert other == pytest.approx(size * unit)


def test_a_small_change_of_a_large_number_keeps_its_digits():
    history = 1e12 + np.array([0.0, 1, 3, 2, 4, 6, 5, 7])
    windows = Windows.of(Scaling(2, 4), [history], 2, 1e12 + np.array([[8.0, 10.0]]))
    assert windows.size[0, 0] == pytest.approx(np.std([4, 6, 5, 7]))
    expected = torch.tensor([[1.0, 3.0]]) / windows.size.float()
    torch.testing.assert_close(windows.target_output, expected)


def test_a_forecast_is_read_from_whatever_holds_numbers():
    values = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])
    expected = Scaling(4, 6, "season")(values.astype(float), 3)
    table = pd.DataFrame({"a": values}, index=pd.date_range("2020-01", periods=12, freq="MS"))
    for given_as in (
        *(values, values.tolist(), tuple(values), values.astype(np.float32), torch.tensor(values)),
        *(torch.tensor(values, dtype=torch.bfloat16), table["a"], table["a"].astype("Int64")),
        *(np.ma.array(values), [Decimal(int(x)) for x in values], pd.Index(values)),
        Series("a", values, table.index, 4),
    ):
        for found, right in zip(Scaling(4, 6, "season")(given_as, 3), expected, strict=True):
            np.testing.assert_array_equal(found, right)


def test_a_bad_history_among_many_is_named():
    good = [1.0, 2, 3]
    with pytest.raises(ValueError, match=r"histories\[1\]: .* such as that at 2"):
        Windows.of(Scaling(4, 6), [good, [1.0, 2, np.nan]], 2)
    with pytest.raises(ValueError, match=r"histories\[0\]: a history must be .* got shape \(\)"):
        Windows.of(Scaling(4, 6), np.array(good), 2)  # one history, not a list of them
    with pytest.raises(ValueError, match="there are no histories"):
        Windows.of(Scaling(4, 6), [], 2)
    with pytest.raises(ValueError, match=r"later must be \(1, 2\), got \(1, 3\)"):
        Windows.of(Scaling(4, 6), [good], 2, [[1.0, 2, 3]])
    with pytest.raises(ValueError, match="what came later must be finite numbers"):
        Windows.of(Scaling(4, 6), [good], 2, [[1.0, np.nan]])


@pytest.mark.parametrize(
    "history, how, message",
    [
        ([1.0], "last", "at least 2 numbers in a row, got shape .1,."),
        ([1.0, 2, 3, 4, 5], "season", "at least 6 numbers in a row, got shape .5,."),
        (3.0, "last", r"got shape \(\)"),
        ([1.0, float("nan"), 3], "mean", "fill the 1 gaps first, such as that at 1"),
    ],
)
def test_bad_histories_and_horizons_are_named(history, how, message):
    with pytest.raises(ValueError, match=message):
        Scaling(4, 6, how)(history, 3)
    with pytest.raises(ValueError, match="horizon must be at least 1 step, got 0"):
        Scaling(4, 6)([1.0, 2.0], 0)


@pytest.mark.parametrize(
    "bad", [(4, 6, "median"), (0, 6, "last"), (4, 0, "last"), (4.0, 6, "last"), (4, "6", "last")]
)
def test_bad_scalings_are_named(bad):
    with pytest.raises(ValueError, match="how must be"):
        Scaling(*bad)


def test_windows_hold_what_came_next_in_the_scale_of_the_past():
    history, later = [3.0, 1.0, 2.0, 6.0], [[8.0, 10.0]]
    windows = Windows.of(Scaling(2, 2), [history], 2, later)
    assert windows.target[0, 0] == windows.source[0, -1, 0] == 0  # the last value, less itself
    back = windows.shift + windows.size * windows.target_output
    torch.testing.assert_close(back, torch.tensor(later, dtype=torch.float64))
    assert windows.target_input.shape == (1, 2)
    unknown = Windows.of(Scaling(2, 2), [history], 2)
    assert unknown.target.shape == (1, 1) and unknown.target_output.numel() == 0
    moved = windows.to("meta")
    assert moved.target.device.type == "meta" and moved.shift.device.type == "cpu"
