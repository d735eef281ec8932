"""Columns as arrays of numbers, and what is odd about the numbers of a column."""

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.meaning.notes import count

# One number so many times farther from the middle than all others says nothing of their scale.
APART = 1000.0
HUGE = 1e300  # sums of larger numbers overflow
MOST_APART = 0.05  # of the numbers; more of them are a group of their own
_NINES = tuple(sign * (10**n - 1) for n in range(2, 7) for sign in (-1.0, 1.0)) + (-9.0,)


@contextmanager
def usable(series: pl.Series, where: str) -> Generator[None]:
    """Inside, an error of polars about a column is an input error: of a column of lists, say."""
    try:
        yield
    except pl.exceptions.PolarsError:
        raise InputError(
            f"{where}: column {series.name!r} holds {series.dtype}; "
            "columns hold numbers, text or dates."
        ) from None


def numbers(series: pl.Series) -> np.ndarray:
    """A column of numbers, booleans or dates (in days) as float64, with NaN for missing."""
    if series.dtype.is_temporal():
        series = series.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 86_400e6
    return series.cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64)


def is_text(series: pl.Series) -> bool:
    """Whether a column holds labels rather than numbers."""
    return not (
        series.dtype.is_numeric()
        or series.dtype.is_temporal()
        or series.dtype in (pl.Boolean, pl.Null)
    )


def as_numbers(series: pl.Series, where: str) -> np.ndarray:
    """A column as float64 with NaN for missing, also where its numbers are written as text."""
    return numeric_text(series, where) if is_text(series) else numbers(series)


def numeric_text(series: pl.Series, where: str) -> np.ndarray:
    """Numbers out of a text column, or an error that names the first row that is not one."""
    cast = series.cast(pl.String).str.strip_chars()
    value = cast.cast(pl.Float64, strict=False)
    bad = (value.is_null() & cast.is_not_null() & (cast != "")).arg_true()
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"{where}: column {series.name!r}, row {row + 1}: {series[row]!r} is not a number."
        )
    return value.fill_null(np.nan).to_numpy().astype(np.float64)


def apart(values: np.ndarray) -> np.ndarray:
    """Where finite values are so far from all others that these would look like one number."""
    far = np.zeros(len(values), bool)
    if len(values) < 3:
        return far
    away = np.abs(values - np.median(values))
    order = np.argsort(away)
    ranked = away[order]
    first = max(len(values) - max(int(MOST_APART * len(values)), 1), 1)
    near, next_ = ranked[first - 1 : -1], ranked[first:]
    jumps = np.flatnonzero((next_ > APART * near) & (near > 0))
    if len(jumps):
        far[order[first + jumps[0] :]] = True
    return far


def oddities(name: str, values: np.ndarray) -> list[str]:
    """What to say of numbers: values that may stand for none, or that are far from all others."""
    seen = values[np.abs(values) < HUGE]  # also leaves out NaN
    if len(np.unique(seen)) < 3:
        return []
    said, far = [], apart(seen)
    for value in np.unique(seen[far])[:3]:
        row = int(np.flatnonzero(values == value)[0]) + 1
        often = count(int((values == value).sum()), "time")
        said.append(
            f"{value:g} (row {row}, {often}) is far from all other values; "
            f"--missing {name}={value:g} makes it missing."
        )
    rest = seen[~far]
    for value in _NINES:
        often = int((rest == value).sum())
        others = rest[rest != value]
        if often and len(others) and _stands_for_none(value, often, others):
            said.append(
                f"{value:g} ({count(often, 'time')}) may stand for no value; "
                f"--missing {name}={value:g} makes it missing."
            )
    return said


def _stands_for_none(value: float, often: int, others: np.ndarray) -> bool:
    """Whether a number such as -99 or 999 lies outside of the others, and apart from them."""
    low, high = others.min(), others.max()
    if low <= value <= high:
        return False
    gap = low - value if value < low else value - high
    below_all = value < 0 <= low and low != value + 1
    return (
        gap > (high - low)
        or ((below_all or often > 1) and gap > 0.5 * (high - low))
        or (below_all and value in (-9.0, -99.0, -999.0) and often > 1)
    )
