"""Notes on rows of a new group: what they lack, unknown values, and numbers far from all seen."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from metaprior.tables.columns import Features, Number, as_numbers
from metaprior.tables.gaps import DRAWS, Gaps, absent
from metaprior.tables.read import Rows

FAR = 0.5  # of the range in training, beyond either end


def remarks(gaps: Gaps | None, features: Features, rows: Rows) -> tuple[str, ...]:
    """A note for each column of rows that training does not cover.

    Args:
        gaps: what training rows say; `None` in older files.
        features: how columns become numbers.
        rows: of a group.
    """
    found: list[str] = []
    rows.need([name for name in features.names() if name in rows.frame.columns])
    for i, column in enumerate(features.columns):
        if column.name not in rows.frame.columns:
            continue
        series, at = rows.frame[column.name], f"{rows.where}: column {column.name!r}"
        if gaps is not None and not gaps.lacked[i]:
            found += [f"{at}: {note}" for note in _lacking(series)]
        if not isinstance(column, Number):
            found += [f"{at}: {note}" for note in _unknown(series, column.levels)]
        elif gaps is not None:
            values = as_numbers(series, rows.where)
            found += [f"{at}: {note}" for note in _far(values, series, gaps.low[i], gaps.high[i])]
    return tuple(found)


def _rows(mask: np.ndarray) -> str:
    """How many rows, and which is the first."""
    count, first = int(mask.sum()), int(mask.argmax()) + 1
    some = f"row {first}" if count == 1 else f"{count} rows, the first is row {first}"
    return f"{some} of {len(mask)}"


def _lacking(series: pl.Series) -> Iterator[str]:
    gone = absent(series)
    if gone.any():
        yield (
            f"no value ({_rows(gone)}), which no training row lacked. Predicted with {DRAWS} draws "
            "of it, from what training and the other columns say; the band is wider for it."
        )


def _unknown(series: pl.Series, levels: tuple[str, ...]) -> Iterator[str]:
    text = series.cast(pl.String)
    other = text.is_not_null() & ~text.is_in(list(levels))
    if other.any():
        mask = other.to_numpy()
        yield (
            f"{text[int(mask.argmax())]!r} ({_rows(mask)}) is none of the {len(levels)} values "
            "learned; all such count as one other value."
        )


def _far(values: np.ndarray, series: pl.Series, low: float, high: float) -> Iterator[str]:
    reach = FAR * (high - low)
    far = (values < low - reach) | (values > high + reach)  # not where there is no value
    if far.any():
        ends = f"{low:.6g} to {high:.6g}"
        if series.dtype.is_temporal():
            first, last = (np.datetime64(int(day), "D") for day in (low, high))
            ends = f"{first} to {last}"
        yield (
            f"{series[int(far.argmax())]} ({_rows(far)}) is far outside of {ends}, the range in "
            "training."
        )
