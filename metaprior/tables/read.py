"""The door of tables: files of every format and frames of other libraries become rows."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from metaprior.errors import InputError
from metaprior.tables.meaning.understand import understand
from metaprior.tables.reading.files import called as name_of
from metaprior.tables.reading.files import read_bytes, read_file
from metaprior.tables.reading.frames import is_frame, read_frame
from metaprior.tables.reading.names import Table
from metaprior.tables.rows import Rows, need_columns

__all__ = ["Rows", "as_frame", "found", "is_table", "need_columns", "read", "rows_of"]


def rows_of(
    table: Any,
    called: str,
    only: Sequence[str] | None = None,
    may_be_empty: bool = False,
) -> Rows:
    """A table of any kind, with the name that messages give it; text of files is not yet typed.

    Args:
        table: see `found`; `Rows` stay what they are.
        called: the name of a table that is not a file.
        only: the only columns to read of a Parquet file.
        may_be_empty: whether a file without rows is allowed.
    """
    if isinstance(table, Rows):
        return table
    where = name_of(table) if isinstance(table, (str, Path)) else called
    table = found(table, called, only, may_be_empty)
    return Rows(table.frame, where, table.notes, table.aside, table.decimal)


def found(
    table: Any,
    called: str = "table",
    only: Sequence[str] | None = None,
    may_be_empty: bool = False,
) -> Table:
    """A table of any kind as it was found: text of files is not yet typed.

    Args:
        table: a path, `-` for standard input, an open file, a frame of polars, pandas, pyarrow and
            others, a mapping of columns, a NumPy array with named fields, or a list of mappings.
        called: the name of a table that is not a file.
        only: the only columns to read of a Parquet file.
        may_be_empty: whether a file without rows is allowed.

    Raises:
        InputError: where it is no table.
    """
    if isinstance(table, (str, Path)):
        result, where = read_file(table, only), name_of(table)
    elif _is_open(table):
        data = table.read()
        where = called
        result = read_bytes(data.encode() if isinstance(data, str) else data, where)
    else:
        result = read_frame(table, called)
        if result is None:
            raise InputError(
                f"{called}: a table is a polars, pandas or Arrow frame, a mapping of columns or a "
                f"path; got {type(table).__name__}."
            )
        return result
    if result.frame.height == 0 and not may_be_empty:
        raise InputError(f"{where}: has a header but no rows.")
    return result


def read(
    path: str | Path,
    columns: Sequence[str] | None = None,
    may_be_empty: bool = False,
) -> pl.DataFrame:
    """A file as a polars frame with typed columns; see `rows_of` and `understand`.

    Raises:
        InputError: names the file.
    """
    return understand(rows_of(path, "table", columns, may_be_empty))[0].frame


def as_frame(table: Any, called: str = "table") -> pl.DataFrame:
    """A polars frame from anything that `found` takes; `called` is what messages call it.

    Columns of files are typed; those of frames have the types of their library.
    """
    return read(table) if isinstance(table, (str, Path)) else rows_of(table, called).frame


def is_table(value: Any) -> bool:
    """Whether `value` is a table, rather than an array of x."""
    return isinstance(value, (Rows, str, Path)) or _is_open(value) or is_frame(value)


def _is_open(value: Any) -> bool:
    return isinstance(value, io.IOBase)
