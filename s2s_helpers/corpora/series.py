"""Numbers at equal steps of time: sunspots and carbon dioxide, bundled with statsmodels and in the
public domain, or your own.

Each of the two is hard in its own way: the cycle of sunspots takes about 11 years, but never twice
the same; the seasons of CO2 come back to the month, but the whole climbs.
"""

from dataclasses import dataclass

import numpy as np

from s2s_helpers.optional import import_optional


@dataclass(frozen=True)
class Series:
    """values: (time,) floats; dates: (time,) numpy datetimes at equal steps; period: steps in a
    season; unit: of the values. Raises ValueError where these do not fit, or a value is missing."""

    name: str
    values: np.ndarray
    dates: np.ndarray
    period: int
    unit: str = ""

    def __post_init__(self):
        where = f"the series {self.name!r}"
        if self.values.ndim != 1 or self.values.shape != self.dates.shape:
            shapes = f"{self.values.shape} and {self.dates.shape}"
            raise ValueError(f"{where}: values and dates must be (time,) both, got {shapes}")
        if (gaps := self.dates[~np.isfinite(self.values)]).size:
            raise ValueError(f"{where}: fill the {gaps.size} gaps first, such as that at {gaps[0]}")
        if not 1 <= self.period < len(self.values):
            most = len(self.values) - 1
            raise ValueError(f"{where}: period must be from 1 to {most}, got {self.period}")
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
