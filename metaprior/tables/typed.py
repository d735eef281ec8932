"""Columns of text as the types that their fields are written in."""

from collections.abc import Sequence

import polars as pl

_MISSING = ["", "NA", "NaN", "nan", "null"]  # fields that hold no value


def typed(frame: pl.DataFrame, decimal: str | None, text: Sequence[str] = ()) -> pl.DataFrame:
    """Columns of text as numbers, booleans, dates and times where all their fields are such.

    Args:
        frame: of columns of text.
        decimal: the decimal mark; `None` and `.` are a point.
        text: columns that stay text.
    """
    columns = []
    for series in frame.get_columns():
        series = series.set(series.is_in(_MISSING), None)
        columns.append(series if series.name in text else _typed(series, decimal))
    return pl.DataFrame(columns)


def _typed(series: pl.Series, decimal: str | None) -> pl.Series:
    seen = series.drop_nulls()
    if not len(seen):
        return series
    plain = series
    if decimal == "," and seen.str.contains(r"^[-+]?(\d{1,3}(\.\d{3})+|\d*),?\d*$").all():
        plain = series.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    for kind in (pl.Int64, pl.Float64):
        found = plain.cast(kind, strict=False)
        if found.null_count() == series.null_count():
            return found
    if seen.is_in(["true", "false"]).all():
        return series == "true"
    for read in ("to_date", "to_datetime", "to_time"):
        # Reading dates is slow where there are none.
        if _read(seen.head(100), read) is not None:
            found = _read(series, read)
            if found is not None:
                return found
    return series


def _read(series: pl.Series, how: str) -> pl.Series | None:
    """Text as dates or times, if all of it is such."""
    try:
        found = getattr(series.str, how)(strict=False)
    except pl.exceptions.PolarsError:
        return None
    return found if found.null_count() == series.null_count() else None
