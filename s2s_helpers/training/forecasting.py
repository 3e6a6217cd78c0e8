"""Train a forecaster, forecast with it and with the classics, and measure all alike.

A forecast is an array (horizon, quantiles) in the unit of the series.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from s2s_helpers.corpora.series import Series
from s2s_helpers.models.forecaster import QUANTILES, Forecaster, Scaling, Windows
from s2s_helpers.models.view import eval_view
from s2s_helpers.optional import import_optional
from s2s_helpers.training import Seq2SeqTrainer, set_seed, training_config
from s2s_helpers.training.schedules import Schedule, TeacherForcing, linear, linear_warmup


class PinballLoss(nn.Module):
    """Least at the quantile tau (Koenker and Bassett 1978), here the mean over all quantiles:

    L(y, q) = max(tau (y - q), (tau - 1) (y - q))
    """

    def __init__(self, quantiles: Sequence[float] = QUANTILES):
        super().__init__()
        self.quantiles = tuple(quantiles)

    def forward(self, found: Tensor, values: Tensor) -> Tensor:
        """Quantiles (..., quantiles) and values (...) to their mean loss."""
        total, count = self.total(found, values)
        return total / count

    def total(self, found: Tensor, values: Tensor) -> tuple[Tensor, int]:
        """The sum over values and their number, which the trainer adds up."""
        if found.shape != (*values.shape, len(self.quantiles)):
            raise ValueError(
                f"values {tuple(values.shape)} need quantiles of shape "
                f"{(*values.shape, len(self.quantiles))}, got {tuple(found.shape)}"
            )
        tau, error = found.new_tensor(self.quantiles), values[..., None] - found
        return torch.maximum(tau * error, (tau - 1) * error).mean(dim=-1).sum(), values.numel()


def forecasting_trainer(
    values: np.ndarray, scaling: Scaling, horizon: int, forcing: Schedule | None = None,
    epochs: int = 30, lr: float = 4e-3, batch_size: int = 32, seed: int = 0, progress: bool = True,
    checkpoint_dir: str | Path | None = None, **settings: Any,
) -> Seq2SeqTrainer:  # fmt: skip
    """A forecaster and its trainer, on every full window of values (time,).

    forcing: share of teacher forcing by step (`schedules`); default: from 1 to 0 in the first half.
    settings: of the `Forecaster`. Raises ValueError for too few values.
    """
    origins = range(scaling.full, len(values) - horizon + 1)
    if not origins:
        raise ValueError(f"{len(values)} values, but one window takes {scaling.full + horizon}")
    later = np.stack([values[origin : origin + horizon] for origin in origins])
    every = Windows.of(scaling, [values[:origin] for origin in origins], horizon, later)
    order = torch.Generator().manual_seed(seed)
    windows: Any = range(len(later))
    loader = DataLoader(windows, batch_size, True, generator=order, collate_fn=every.select)
    set_seed(seed)
    model = Forecaster(scaling, **settings)
    steps = epochs * len(loader)
    config = training_config(
        epochs, lr=lr, checkpoint_dir=checkpoint_dir, progress=progress, device="cpu"
    )
    return Seq2SeqTrainer(
        model, config, loader,
        loss=PinballLoss(model.quantiles), schedule=linear_warmup(steps // 10, steps), ema=0.99,
        callbacks=[TeacherForcing(forcing or linear(2 / steps))], seed=seed,
    )  # fmt: skip


def forecast(
    model: Forecaster, histories: Sequence[np.ndarray], horizon: int, paths: int = 0
) -> np.ndarray:
    """Quantiles (histories, horizon, quantiles) of what follows each history (time,).

    The decoder reads its own median. With `paths` it draws what it reads from its quantiles, so
    many times for each history, and these paths' quantiles are the result (Salinas et al. 2020).
    Crossed quantiles are put in order. Raises ValueError as `Scaling` does.
    """
    batch = Windows.of(model.scaling, histories, horizon).to(next(model.parameters()).device)
    rows = torch.arange(len(batch.target), device=batch.target.device)
    rows, found = rows.repeat_interleave(max(paths, 1)), []
    with torch.inference_mode():
        model = eval_view(model)
        memory = model.encode(batch.source, batch.source_mask).select(rows)
        state, values = model.start(memory), batch.target[rows, 0]
        for _ in range(horizon):
            quantiles, state, _ = model.step(values, state, memory)
            quantiles = quantiles.sort(dim=-1).values
            values = draw(quantiles, model.quantiles) if paths else quantiles[:, model.median]
            found.append(values.view(-1, paths) if paths else quantiles)
        found = torch.stack(found, dim=1)  # (histories, horizon, quantiles or paths)
        if paths:
            found = found.quantile(found.new_tensor(model.quantiles), dim=-1).movedim(0, -1)
        return (batch.shift[:, :, None] + batch.size[:, :, None] * found).cpu().numpy()


def draw(quantiles: Tensor, tau: Sequence[float]) -> Tensor:
    """A number from each row of (rows, quantiles): the distribution is straight between them, and
    goes on as straight outside."""
    tau, luck = quantiles.new_tensor(tau), torch.rand(len(quantiles), device=quantiles.device)
    above = torch.searchsorted(tau, luck).clamp(1, len(tau) - 1)
    low, high = (quantiles.gather(1, place[:, None])[:, 0] for place in (above - 1, above))
    return low + (high - low) * (luck - tau[above - 1]) / (tau[above] - tau[above - 1])


def seasonal_naive(
    history: np.ndarray, horizon: int, period: int, quantiles: Sequence[float] = QUANTILES
) -> np.ndarray:
    """The last season again, give or take the errors that this had in the history."""
    errors = history[period:] - history[:-period]
    spread = np.quantile(np.concatenate([errors, -errors]), quantiles)
    seasons = 1 + np.arange(horizon)[:, None] // period
    return np.resize(history[-period:], horizon)[:, None] + np.sqrt(seasons) * spread


def holt_winters(
    history: np.ndarray, horizon: int, period: int, quantiles: Sequence[float] = QUANTILES
) -> np.ndarray:
    """Exponential smoothing with additive trend and seasons (Winters 1960; statsmodels), and the
    quantiles of 500 simulated paths."""
    smoothing = import_optional("statsmodels.tsa.holtwinters").ExponentialSmoothing
    options = dict(trend="add", seasonal="add", seasonal_periods=period)
    luck = np.random.RandomState(0)
    with warnings.catch_warnings():
        # An optimiser that stopped early; a generator that statsmodels will want otherwise.
        warnings.simplefilter("ignore")
        fitted = smoothing(history, initialization_method="estimated", **options).fit()
        paths = fitted.simulate(horizon, repetitions=500, anchor="end", random_state=luck)
    centred = paths - np.median(paths, axis=1, keepdims=True)
    return fitted.forecast(horizon)[:, None] + np.quantile(centred, quantiles, axis=1).T


def autoregression(
    history: np.ndarray, horizon: int, period: int, quantiles: Sequence[float] = QUANTILES
) -> np.ndarray:
    """Linear in earlier values, of which the AIC picks the number up to two seasons, with normal
    errors (Yule 1927; statsmodels)."""
    models = import_optional("statsmodels.tsa.ar_model")
    lags = models.ar_select_order(history, 2 * period + 1, ic="aic").ar_lags
    steps = len(history), len(history) + horizon - 1
    found = models.AutoReg(history, lags).fit().get_prediction(*steps)
    normal = torch.special.ndtri(torch.tensor(quantiles).double()).numpy()
    return found.predicted_mean[:, None] + found.se_mean[:, None] * normal


@dataclass
class Rolling:
    """Forecasts (origins, horizon, quantiles) beside what came, values (origins, horizon). sizes:
    (origins, 1), the mean error of the seasonal naive forecast within each history.

    Every measure is a mean over origins, for each step ahead: (horizon,).
    """

    values: np.ndarray
    forecasts: np.ndarray
    sizes: np.ndarray
    quantiles: tuple = QUANTILES

    def mase(self) -> np.ndarray:
        """Mean absolute scaled error of the median (Hyndman and Koehler 2006)."""
        median = self.forecasts[:, :, self.quantiles.index(0.5)]
        return (np.abs(self.values - median) / self.sizes).mean(axis=0)

    def pinball(self) -> np.ndarray:
        """The pinball loss, scaled in the same way."""
        tau, error = np.array(self.quantiles), self.values[:, :, None] - self.forecasts
        loss = np.maximum(tau * error, (tau - 1) * error).mean(axis=-1)
        return (loss / self.sizes).mean(axis=0)

    def coverage(self, low: float = 0.1, high: float = 0.9) -> np.ndarray:
        """The share of values between two quantiles; it should be high - low."""
        low, high = (self.forecasts[:, :, self.quantiles.index(tau)] for tau in (low, high))
        return ((low <= self.values) & (self.values <= high)).mean(axis=0)


def rolling_origin(
    series: Series, method: Callable, origins: Sequence[int], horizon: int,
    quantiles: Sequence[float] = QUANTILES,
) -> Rolling:  # fmt: skip
    """Forecast from each origin, the number of values known there, and keep what really came.

    method(histories, horizon) gives (histories, horizon, quantiles). Raises ValueError for an
    origin without a season before it or without `horizon` values after it.
    """
    values, period = series.values, series.period
    if bad := [o for o in origins if not period < o <= len(values) - horizon]:
        raise ValueError(
            f"origins must lie between {period + 1} and {len(values) - horizon}, got {bad}"
        )
    histories = [values[:origin] for origin in origins]
    sizes = [[np.abs(history[period:] - history[:-period]).mean()] for history in histories]
    later = np.stack([values[origin : origin + horizon] for origin in origins])
    return Rolling(later, method(histories, horizon), np.array(sizes), tuple(quantiles))
