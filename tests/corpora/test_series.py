"""The two series are what their sources say, and bad ones are named."""

import datetime

import numpy as np
import pandas as pd
import pytest
import torch

from s2s_helpers.corpora.series import Series, co2, numbers, sunspots

MONTHS = np.arange("2020-01", "2021-06", dtype="datetime64[M]")


def test_sunspots_are_noaas():
    series = sunspots()
    assert len(series.values) == 309 and series.period == 11
    assert str(series.dates[0]) == "1700" and str(series.dates[-1]) == "2008"
    # The highest and the last year, as the data centre lists them.
    assert series.values.max() == series.values[series.position("1957")] == 190.2
    assert series.values[-1] == 2.9


def test_co2_is_the_mean_of_each_month_and_gaps_are_straight():
    series = co2()
    assert len(series.values) == 526 and series.period == 12 and series.unit == "ppm"
    assert str(series.dates[0]) == "1958-03" and str(series.dates[-1]) == "2001-12"
    assert (np.diff(series.dates).astype(int) == 1).all()
    # December 2001 has five weeks: 370.3, 370.8, 371.2, 371.3, 371.5.
    assert series.values[-1] == pytest.approx(371.02)
    gap = series.position("1964-02")  # February to April 1964 have no sample
    np.testing.assert_allclose(np.diff(series.values[gap - 1 : gap + 4], n=2), 0, atol=1e-9)
    assert abs(np.diff(series.values[gap - 2 : gap + 5], n=2)[[0, -1]]).min() > 0.01


def test_a_date_has_its_position():
    series = Series("shop", np.arange(17.0), MONTHS, 12)
    assert series.position("2020-03") == 2 and series.position("1999") == 0
    assert series.position("2030-01") == len(series.values)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(values=np.zeros(16)), "values and dates must be"),
        (dict(values=np.zeros((17, 1))), "values and dates must be"),
        (dict(values=np.where(np.arange(17) == 3, np.nan, 1.0)), "fill the 1 gaps.*2020-04"),
        (dict(period=0), "period must be a whole number from 1 to 16, got 0"),
        (dict(period=17), "period must be a whole number from 1 to 16, got 17"),
        (dict(period=12.0), "period must be a whole number from 1 to 16, got 12.0"),
        (dict(dates=np.arange(17)), "dates must be dates"),
        (dict(dates=["June"] * 17), "dates must be dates"),
        (dict(dates=np.array(["NaT", *MONTHS[1:]], "datetime64[M]")), "equal steps.*NaT"),
        (dict(values=["1"] * 17), "must be numbers, got .*1"),
        (dict(dates=np.delete(np.append(MONTHS, MONTHS[-1] + 1), 5)), "equal steps.*2020-05"),
        (dict(dates=np.sort(np.append(MONTHS[1:], MONTHS[4]))), "equal steps.*2020-05"),
        (dict(dates=MONTHS[::-1]), "equal steps"),
    ],
)
def test_a_bad_series_is_named(change, message):
    good = dict(name="shop", values=np.arange(17.0), dates=MONTHS, period=12)
    Series(**good)
    with pytest.raises(ValueError, match=f"'shop'.*{message}"):
        Series(**(good | change))


def test_months_in_days_are_equal_steps():
    Series("shop", np.arange(17.0), MONTHS.astype("datetime64[D]"), 12)


def test_pandas_lists_and_periods_are_the_same_series():
    counts, days = [*range(17)], pd.date_range("2020-01", periods=17, freq="MS")
    expected = Series("shop", np.arange(17.0), MONTHS, 12)
    table = pd.DataFrame({"when": days, "count": counts}, index=range(100, 117))
    for values, dates in (
        (counts, [str(month) for month in MONTHS]),
        (counts, [datetime.date(2020 + m // 12, 1 + m % 12, 1) for m in range(17)]),
        (table["count"], table["when"]),
        (table["count"].astype("Int64"), days),
        (pd.Series(counts, index=days), pd.period_range("2020-01", periods=17, freq="M")),
        (torch.arange(17), days),
    ):
        series = Series("shop", values, dates, 12)
        assert type(series.values) is type(series.dates) is np.ndarray
        assert series.values.dtype == float and (series.values == expected.values).all()
        assert (series.dates == expected.dates).all() and series.position("2020-03") == 2


def test_what_a_series_is_made_of_stays_as_it_was():
    values = np.arange(17.0)
    series = Series("shop", values, MONTHS, 12)
    values[:] = 0
    assert series.values[3] == 3 and numbers(series)[3] == 3


@pytest.mark.parametrize(
    "values, message",
    [
        (
            pd.Series([1, None, 3], index=["mon", "tue", "wed"]),
            "gaps first, such as that at tue, where nan",
        ),
        (pd.Series([1, None, 3], dtype="Int64"), "gaps first, such as that at 1, where nan"),
        ([1.0, None, 2.0, None], "fill the 2 gaps first, such as that at 1, where None stands"),
        ([1.0, float("inf")], "at 1, where .*inf"),
        ([1, 10**400], "at 1, where 1000"),
        (np.ma.array([1, 2, 3], mask=[0, 0, 1]), "at 2, where None stands"),
        (["1", "2"], "numbers, got"),
        ([1.5, "2", None], "where '2' stands"),
        (np.array([1.5, "2", None], dtype=object), "fill the 2 gaps.*where '2' stands"),
        (MONTHS, "numbers, got .*2020-01"),
        ([1j, 2], "numbers, got"),
        (pd.DataFrame({"a": [1, 2]}), r"at least 2 numbers in a row, got shape \(2, 1\)"),
        ([], r"got shape \(0,\)"),
        (None, r"got shape \(\)"),
    ],
)
def test_what_is_no_row_of_numbers_is_named(values, message):
    with pytest.raises(ValueError, match=f"sales must be .*{message}"):
        numbers(values, "sales", at_least=2)
