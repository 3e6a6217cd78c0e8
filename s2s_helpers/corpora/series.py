"""Numbers at equal steps of time: sunspots and carbon dioxide, bundled with statsmodels and in the
public domain, or your own.

Each of the two is hard in its own way: the cycle of sunspots takes about 11 years, but never twice
the same; the seasons of CO2 come back to the month, but the whole climbs.
"""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch

from s2s_helpers.optional import import_optional


def numbers(
    values: Any, what: str = "the series", at_least: int = 1, places: Any = None
) -> np.ndarray:
    """Numbers at equal steps as floats (time,): of a list, an array, a tensor, a `Series` of this
    file, or pandas' Series or column, whatever its index.

    Raises ValueError, by the name `what`, for what is text, dates or complex, of another shape,
    fewer than `at_least`, or where one is missing or infinite; `places` says where, or the index.
    """
    values = values.values if isinstance(values, Series) else values
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    elif hasattr(values, "to_numpy"):
        places = getattr(values, "index", None) if places is None else places
        values = values.to_numpy()
    if isinstance(values, np.ma.MaskedArray):
        values = np.where(np.ma.getmaskarray(values), None, values.data)
    array = np.array(values)  # a copy: what becomes of the original is not ours
    if array.ndim != 1 or len(array) < at_least:
        shape = f"got shape {array.shape}"
        raise ValueError(f"{what} must be at least {at_least} numbers in a row, {shape}")
    if array.dtype.kind not in "biufO":
        raise ValueError(f"{what} must be numbers, got {array[:1]}")
    floats = np.array([_float(x) for x in array]) if array.dtype == object else array.astype(float)
    if len(gaps := np.flatnonzero(~np.isfinite(floats))):
        first, found = gaps[0], array[gaps[0] :].tolist()[0]
        raise ValueError(
            f"{what} must be finite numbers: fill the {len(gaps)} gaps first, such as that at "
            f"{first if places is None else places[first]}, where {found!r} stands"
        )
    return floats


def _float(value: Any) -> float:
    """An object as a float; NaN where it is none, as are pandas' missing values, or too large."""
    try:
        return math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


@dataclass(frozen=True)
class Series:
    """values: (time,) floats, or what `numbers` makes such; dates: (time,) numpy datetimes at equal
    steps, or pandas' dates and periods, or such as "1990-01"; period: steps in a season; unit: of
    the values. Raises ValueError where these do not fit, or a value is missing."""

    name: str
    values: np.ndarray
    dates: np.ndarray
    period: int
    unit: str = ""

    def __post_init__(self):
        where = f"the series {self.name!r}"
        dates: Any = self.dates
        dates = dates.to_timestamp() if type(dates).__name__ == "PeriodIndex" else dates
        try:
            if np.asarray(dates).dtype.kind in "biuf":
                raise TypeError("they are numbers; a year is text, such as '1990'")
            dates = np.asarray(dates, dtype="datetime64")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: dates must be dates: {error}") from None
        if dates.ndim != 1 or np.shape(self.values) != dates.shape:
            shapes = f"{np.shape(self.values)} and {dates.shape}"
            raise ValueError(f"{where}: values and dates must be (time,) both, got {shapes}")
        object.__setattr__(self, "values", numbers(self.values, where, places=dates))
        object.__setattr__(self, "dates", dates)
        most = len(dates) - 1
        if not (isinstance(self.period, Integral) and 1 <= self.period <= most):
            raise ValueError(
                f"{where}: period must be a whole number from 1 to {most}, got {self.period}"
            )
        steps = np.diff(self.dates).astype(float)
        if steps.min() <= 0 or steps.max() > 1.5 * steps.min():  # months differ by a tenth
            after = self.dates[steps.argmin() if steps.min() <= 0 else steps.argmax()]
            raise ValueError(f"{where}: dates must rise in equal steps, but not so after {after}")

    def position(self, date: str) -> int:
        """The number of values before this date, such as "1990-01"."""
        return int(np.searchsorted(self.dates, np.datetime64(date)))


def sunspots() -> Series:
    """The yearly sunspot number, 1700 to 2008, as NOAA's data centre gave it out: 309 values."""
    data = import_optional("statsmodels.datasets").sunspots.load_pandas().data
    years = data["YEAR"].astype(int).astype(str).to_numpy("datetime64[Y]")
    return Series("sunspots", data["SUNACTIVITY"].to_numpy(float), years, 11, "sunspot number")


def co2() -> Series:
    """CO2 over Mauna Loa, March 1958 to December 2001: 526 monthly means of weekly samples, in ppm
    (Keeling and Whorf 2004). Five months without any lie on the line between their neighbours."""
    weekly = import_optional("statsmodels.datasets").co2.load_pandas().data["co2"]
    months = weekly.resample("MS").mean().interpolate("linear")
    return Series("CO2", months.to_numpy(float), months.index.to_numpy("datetime64[M]"), 12, "ppm")
