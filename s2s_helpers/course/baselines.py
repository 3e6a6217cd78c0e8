"""What a forecaster is measured against, and how: the classics, from rolling origins.

A forecast is an array (horizon, quantiles) in the unit of the series. A history is whatever
`corpora.series.numbers` takes; ValueError for one that has gaps or is too short.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from s2s_helpers.corpora.series import Series, numbers
from s2s_helpers.models.forecaster import QUANTILES
from s2s_helpers.optional import import_optional


def seasonal_naive(
    history: Any, horizon: int, period: int, quantiles: Sequence[float] = QUANTILES
) -> np.ndarray:
    """The last season again, give or take the errors that this had in the history."""
    history = numbers(history, "the history", period + 1)
    errors = history[period:] - history[:-period]
    spread = np.quantile(np.concatenate([errors, -errors]), quantiles)
    seasons = 1 + np.arange(horizon)[:, None] // period
    return np.resize(history[-period:], horizon)[:, None] + np.sqrt(seasons) * spread


def holt_winters(
    history: Any, horizon: int, period: int, quantiles: Sequence[float] = QUANTILES
) -> np.ndarray:
    """Exponential smoothing with additive trend and seasons (Winters 1960; statsmodels), and the
    quantiles of 500 simulated paths."""
    history = numbers(history, "the history", 2 * period)
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
    history: Any, horizon: int, period: int, quantiles: Sequence[float] = QUANTILES
) -> np.ndarray:
    """Linear in earlier values, of which the AIC picks the number up to two seasons, with normal
    errors (Yule 1927; statsmodels)."""
    history = numbers(history, "the history", 4 * period + 4)  # one more than what it fits
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

    Every measure is a mean over origins, for each step ahead: (horizon,). Raises ValueError where
    the shapes do not fit; those that are scaled, where a history leaves nothing to divide by.
    """

    values: np.ndarray
    forecasts: np.ndarray
    sizes: np.ndarray
    quantiles: tuple = QUANTILES

    def __post_init__(self):
        shape = (*self.values.shape, len(self.quantiles))
        if self.forecasts.shape != shape:
            raise ValueError(f"forecasts must be {shape}, got {self.forecasts.shape}")

    def scaled(self, errors: np.ndarray) -> np.ndarray:
        """Errors (origins, horizon) over those of the seasonal naive forecast, their mean."""
        if flat := np.flatnonzero(self.sizes == 0).tolist():
            raise ValueError(
                f"the seasonal naive forecast makes no error in the histories of the origins "
                f"{flat}: there is nothing to divide by; take coverage(), or leave these out"
            )
        return (errors / self.sizes).mean(axis=0)

    def mase(self) -> np.ndarray:
        """Mean absolute scaled error of the median (Hyndman and Koehler 2006)."""
        median = self.forecasts[:, :, self.quantiles.index(0.5)]
        return self.scaled(np.abs(self.values - median))

    def pinball(self) -> np.ndarray:
        """The pinball loss, scaled in the same way."""
        tau, error = np.array(self.quantiles), self.values[:, :, None] - self.forecasts
        return self.scaled(np.maximum(tau * error, (tau - 1) * error).mean(axis=-1))

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
    values, period, origins = series.values, series.period, list(origins)
    if not origins:
        raise ValueError("there are no origins")
    if bad := [o for o in origins if not period < o <= len(values) - horizon]:
        raise ValueError(
            f"origins must lie between {period + 1} and {len(values) - horizon}, got {bad}"
        )
    histories = [values[:origin] for origin in origins]
    sizes = np.array([[np.abs(past[period:] - past[:-period]).mean()] for past in histories])
    rounding = [[1e-12 * np.abs(past).max()] for past in histories]
    sizes[sizes <= rounding] = 0  # differences of equal numbers may be of the size of rounding
    later = np.stack([values[origin : origin + horizon] for origin in origins])
    found = np.asarray(method(histories, horizon))
    return Rolling(later, found, sizes, tuple(quantiles))
