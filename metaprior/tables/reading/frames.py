"""Frames of other libraries, and mappings of columns, as tables."""

import datetime
import decimal
from collections.abc import Mapping
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.reading.names import Table, tabled

_UNREADABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    nw.exceptions.NarwhalsError,
    OSError,  # of a lazy frame's file
)
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
        columns = _columns(table, called)
    except nw.exceptions.DuplicateError as error:
        said = " ".join(str(error).split())
        raise InputError(f"{called}: names of columns must differ. {said}.") from None
    except _UNREADABLE as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{called}: not a table: {said}") from None
    if columns is None:
        return None
    if isinstance(columns, pl.DataFrame):
        return tabled(columns, columns.columns, called)
    _need_one_length(columns, called)
    frame = pl.DataFrame([series.alias(str(i)) for i, (_, series) in enumerate(columns)])
    return tabled(frame, [name for name, _ in columns], called, notes=_said_of_index(table))


def is_frame(value: Any) -> bool:
    """Whether `read_frame` takes it, rather than an array of x."""
    if isinstance(value, (pl.DataFrame, Mapping)) or _is_structured(value) or _is_records(value):
        return True
    try:
        known = nw.from_native(value, allow_series=True, pass_through=True)
    except nw.exceptions.DuplicateError:
        return True  # `read_frame` says what is wrong with it
    return isinstance(known, (nw.DataFrame, nw.LazyFrame)) or _is_stream(value, known)


Columns = list[tuple[str, pl.Series]]


def _columns(table: Any, called: str) -> pl.DataFrame | Columns | None:
    """A frame of polars as it is, and other tables by their columns."""
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, Mapping):
        return [_column(name, values, called) for name, values in table.items()]
    if _is_structured(table):
        return [_column(name, table[name], called) for name in table.dtype.names]
    if _is_records(table):
        names = dict.fromkeys(name for row in table for name in row)
        return [_column(name, [row.get(name) for row in table], called) for name in names]
    known = nw.from_native(table, allow_series=True, pass_through=True)
    if isinstance(known, nw.LazyFrame):
        known = known.collect(backend="polars")
    if isinstance(known, nw.DataFrame):
        if not known.implementation.is_pandas_like():
            return known.to_polars()
        # Column by column and by its values: this needs no pyarrow, takes columns of mixed objects,
        # and knows every way in which pandas says that a value is missing.
        return [_pandas_column(column.name, column) for column in known.iter_columns()]
    return pl.DataFrame(table) if _is_stream(table, known) else None


def _is_stream(table: Any, known: Any) -> bool:
    """Whether an object gives its rows by the Arrow interface, and is no series."""
    return hasattr(table, "__arrow_c_stream__") and not isinstance(known, nw.Series)


def _is_structured(table: Any) -> bool:
    return isinstance(table, np.ndarray) and table.dtype.names is not None and table.ndim == 1


def _is_records(table: Any) -> bool:
    if not isinstance(table, (list, tuple)) or not table:
        return False
    return all(isinstance(row, Mapping) for row in table)


def _said_of_index(table: Any) -> list[str]:
    """A note on the index of a pandas frame where it has a name, as a column has."""
    names = [str(name) for name in getattr(getattr(table, "index", None), "names", ()) if name]
    if not names:
        return []
    return [f"the index ({', '.join(names)}) was not read; reset_index() makes it a column."]


def _need_one_length(columns: Columns, called: str) -> None:
    for name, series in columns[1:]:
        first, length = columns[0][0], len(columns[0][1])
        if len(series) != length:
            raise InputError(
                f"{called}: not a table: column {first!r} has {length} values and column "
                f"{name!r} has {len(series)}."
            )


def _name(name: Any) -> str:
    """A name of a column as text; "" for those that pandas gives to columns without one."""
    return "" if name is None or name != name else str(name)


def _column(name: Any, values: Any, called: str) -> tuple[str, pl.Series]:
    """A column from a series or a sequence of values."""
    if values is None or isinstance(values, _SINGLE) or np.isscalar(values):
        raise InputError(
            f"{called}: column {name!r} is one value, {values!r}; a column is a list of values."
        )
    known = nw.from_native(values, series_only=True, pass_through=True)
    if isinstance(known, nw.Series):
        if known.implementation.is_pandas_like():
            return _pandas_column(name, known)
        return _name(name), known.to_polars()
    if isinstance(values, np.ma.MaskedArray):
        values = values.tolist()
    elif isinstance(values, np.ndarray) and values.ndim and values.dtype.kind not in "OSUgc":
        return _name(name), pl.Series(values)
    try:
        return _name(name), _of_values(_listed(values))
    except TypeError:
        raise InputError(
            f"{called}: column {name!r} is {type(values).__name__}; a column is a list of values."
        ) from None


def _listed(values: Any) -> list[Any]:
    """Values in their order."""
    if isinstance(values, (set, frozenset, Mapping)):
        raise TypeError
    return list(values)


def _pandas_column(name: Any, column: nw.Series) -> tuple[str, pl.Series]:
    """A column of pandas; by the names of its types, so that pandas need not be imported."""
    kind = str(nw.to_native(column).dtype)
    missing = column.is_null().to_list()
    if kind.startswith("period"):
        column = nw.from_native(nw.to_native(column).dt.to_timestamp(), series_only=True)
    values = [None if gone else value for value, gone in zip(column.to_list(), missing)]
    if kind.startswith("interval"):
        values = [None if value is None else str(value) for value in values]
    series = _of_values(values)
    zone = getattr(column.dtype, "time_zone", None)
    if zone is not None and isinstance(series.dtype, pl.Datetime):
        try:
            series = series.dt.convert_time_zone(zone)
        except pl.exceptions.PolarsError:  # a fixed distance from UTC
            pass
    return _name(name), series


def _of_values(values: list[Any]) -> pl.Series:
    """A column of Python values; of several kinds it is text."""
    values = [_plain(value) for value in values]
    try:
        series = pl.Series(values, strict=False)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        series = pl.Series(values, dtype=pl.Object)
    if series.dtype == pl.Object and all(map(_has_text, values)):
        return pl.Series([None if value is None else str(value) for value in values])
    return series


def _plain(value: Any) -> Any:
    """A value as one of Python's own types."""
    if value is None or isinstance(value, (str, float, int)):
        return value
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC)
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value


def _has_text(value: Any) -> bool:
    """Whether a value is a single one that people can read."""
    if isinstance(value, (list, tuple, dict, set, frozenset, np.ndarray, complex)):
        return False
    return type(value).__str__ is not object.__str__ or type(value).__repr__ is not object.__repr__
