"""Frames of other libraries, and mappings of columns, as tables."""

import datetime
import decimal
from collections.abc import Mapping
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.names import Table, tabled

_SINGLE = (str, bytes, int, float, bool, complex, datetime.date, datetime.time, decimal.Decimal)


def read_frame(table: Any, called: str) -> Table | None:
    """A table from an object; `None` where it is none.

    Frames of polars, pandas, pyarrow and others are recognised by narwhals, lazy ones too; any
    other object is taken by the Arrow interface. The index of a pandas frame is not read.

    Args:
        table: a frame, a mapping of columns, a NumPy array with named fields, or a list of
            mappings, one a row.
        called: what messages call it.

    Raises:
        InputError: where columns are of different lengths, have one name, or cannot be read.
    """
    try:
        frame = _frame(table, called)
    except nw.exceptions.DuplicateError as error:
        said = " ".join(str(error).split())
        raise InputError(f"{called}: names of columns must differ. {said}.") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(f"{called}: not a table: {str(error).splitlines()[0]}") from None
    return None if frame is None else tabled(frame, frame.columns, called)


def is_frame(value: Any) -> bool:
    """Whether `read_frame` takes it, rather than an array of x."""
    if isinstance(value, (pl.DataFrame, Mapping)) or _is_structured(value) or _is_records(value):
        return True
    try:
        known = nw.from_native(value, pass_through=True)
    except nw.exceptions.DuplicateError:
        return True  # `read_frame` says what is wrong with it
    return isinstance(known, (nw.DataFrame, nw.LazyFrame))


def _frame(table: Any, called: str) -> pl.DataFrame | None:
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, Mapping):
        return _of_columns({str(name): values for name, values in table.items()}, called)
    if _is_structured(table):
        return _of_columns({name: table[name] for name in table.dtype.names}, called)
    if _is_records(table):
        names = dict.fromkeys(str(name) for row in table for name in row)
        rows = [{str(name): value for name, value in row.items()} for row in table]
        return _of_columns({name: [row.get(name) for row in rows] for name in names}, called)
    known = nw.from_native(table, pass_through=True)
    if isinstance(known, nw.LazyFrame):
        known = known.collect(backend="polars")
    if isinstance(known, nw.DataFrame):
        if not known.implementation.is_pandas_like():
            return known.to_polars()
        # Column by column and by its values: this needs no pyarrow, takes columns of mixed objects,
        # and knows every way in which pandas says that a value is missing.
        return pl.DataFrame([_pandas_column(column) for column in known.iter_columns()])
    if hasattr(table, "__arrow_c_stream__"):
        return pl.DataFrame(table)
    return None


def _is_structured(table: Any) -> bool:
    return isinstance(table, np.ndarray) and table.dtype.names is not None and table.ndim == 1


def _is_records(table: Any) -> bool:
    return (
        isinstance(table, (list, tuple))
        and len(table) > 0
        and all(isinstance(row, Mapping) for row in table)
    )


def _of_columns(columns: Mapping[str, Any], called: str) -> pl.DataFrame:
    found = {}
    for name, values in columns.items():
        if values is None or isinstance(values, _SINGLE) or np.isscalar(values):
            raise InputError(
                f"{called}: column {name!r} is one value, {values!r}; a column is a list of values."
            )
        found[name] = _column(name, values, called)
    lengths = {name: len(series) for name, series in found.items()}
    if len(set(lengths.values())) > 1:
        first, *others = lengths
        other = next(name for name in others if lengths[name] != lengths[first])
        raise InputError(
            f"{called}: not a table: column {first!r} has {lengths[first]} values and column "
            f"{other!r} has {lengths[other]}."
        )
    return pl.DataFrame(found)


def _column(name: str, values: Any, called: str) -> pl.Series:
    """A column from a series or a sequence of values."""
    known = nw.from_native(values, series_only=True, pass_through=True)
    if isinstance(known, nw.Series):
        if known.implementation.is_pandas_like():
            return _pandas_column(known).alias(name)
        return known.to_polars().alias(name)
    if isinstance(values, np.ma.MaskedArray):
        values = values.tolist()
    if isinstance(values, np.ndarray) and values.dtype.kind in "OSU":
        values = values.tolist()
    if isinstance(values, np.ndarray):
        return pl.Series(name, values)
    try:
        return _of_values(name, list(values))
    except TypeError:
        raise InputError(
            f"{called}: column {name!r} is {type(values).__name__}; a column is a list of values."
        ) from None


def _pandas_column(column: nw.Series) -> pl.Series:
    """A column of pandas; by narwhals' names of types, so that pandas need not be imported."""
    name, kind = str(column.name), str(nw.to_native(column).dtype)
    missing = column.is_null().to_list()
    if kind.startswith("period"):
        column = nw.from_native(nw.to_native(column).dt.to_timestamp(), series_only=True)
    elif kind.startswith("interval"):
        column = nw.from_native(nw.to_native(column).astype(str), series_only=True)
    values = [None if gone else value for value, gone in zip(column.to_list(), missing)]
    return _of_values(name, values)


def _of_values(name: str, values: list[Any]) -> pl.Series:
    """A column of Python values; of several kinds it is text."""
    values = [_plain(value) for value in values]
    try:
        series = pl.Series(name, values, strict=False)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        series = pl.Series(name, values, dtype=pl.Object)
    if series.dtype == pl.Object and not any(
        isinstance(value, (list, tuple, dict, set, np.ndarray)) for value in values
    ):
        return pl.Series(name, [None if value is None else str(value) for value in values])
    return series


def _plain(value: Any) -> Any:
    """A value as Python's own types; NaT, NA and NaN of any library as missing or NaN."""
    if isinstance(value, (str, float, int)) or value is None:
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC)
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value
