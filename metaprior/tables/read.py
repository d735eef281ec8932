"""The door of tables: files of every format and frames of other libraries become rows."""

import dataclasses
import difflib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from metaprior.errors import InputError
from metaprior.tables.files import called as name_of
from metaprior.tables.files import read_bytes, read_file
from metaprior.tables.frames import is_frame, read_frame
from metaprior.tables.names import Table, held, is_nested
from metaprior.tables.typed import typed

_SHOWN = 30  # names of columns in a message


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a table and where they came from.

    Args:
        frame: the rows.
        where: what messages about them begin with: the file's name, or "support" and the like.
        notes: what was made of the source, and what was left out.
        aside: columns that are no features unless someone names them: those that only count the
            rows, those of lists.
    """

    frame: pl.DataFrame
    where: str
    notes: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()

    def need(self, names: Sequence[str]) -> None:
        """All of `names` are columns of single values, or an error."""
        need_columns(self.frame, names, self.where, self.notes)


def rows_of(
    table: Any,
    called: str,
    only: Sequence[str] | None = None,
    text: Sequence[str] = (),
    may_be_empty: bool = False,
) -> Rows:
    """A table of any kind, with the name that messages give it.

    Args:
        table: see `found`; `Rows` stay what they are.
        called: the name of a table that is not a file.
        only: the only columns to read of a Parquet file.
        text: columns of a text file that stay text. All rows decide the type of the other columns.
        may_be_empty: whether a file without rows is allowed.
    """
    if isinstance(table, Rows):
        return table
    where = name_of(table) if isinstance(table, (str, Path)) else called
    table = found(table, called, only, may_be_empty)
    frame = typed(table.frame, table.decimal, text) if table.written else table.frame
    return Rows(frame, where, table.notes, table.aside)


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
    text: Sequence[str] = (),
    may_be_empty: bool = False,
) -> pl.DataFrame:
    """A file as a polars frame; see `rows_of`.

    Raises:
        InputError: names the file.
    """
    return rows_of(path, "table", columns, text, may_be_empty).frame


def as_frame(table: Any, called: str = "table") -> pl.DataFrame:
    """A polars frame from anything that `found` takes; `called` is what messages call it."""
    return rows_of(table, called).frame


def is_table(value: Any) -> bool:
    """Whether `value` is a table, rather than an array of x."""
    return isinstance(value, (Rows, str, Path)) or _is_open(value) or is_frame(value)


def _is_open(value: Any) -> bool:
    return isinstance(value, io.IOBase)


def need_columns(
    frame: pl.DataFrame, names: Sequence[str], where: str, notes: Sequence[str] = ()
) -> None:
    """All of `names` are columns of single values, or an error that says which there are.

    Args:
        frame: the table.
        names: of the columns.
        where: what messages call the table.
        notes: what was made of its source, which may explain why a column is not there.
    """
    for name in names:
        if name not in frame.columns:
            how = f" (It was read so: {'; '.join(notes)}.)" if notes else ""
            raise InputError(f"{where}: no column {name!r}; {_there(name, frame.columns)}{how}")
        if is_nested(frame[name].dtype):
            raise InputError(
                f"{where}: column {name!r} holds {held(frame[name].dtype)}; "
                "columns hold numbers, text or dates."
            )


def _there(name: str, columns: list[str]) -> str:
    """Which column may have been meant, and which there are."""
    if not columns:
        return "there are no columns."
    alike = {other.casefold().strip(): other for other in columns}
    near = difflib.get_close_matches(name.casefold().strip(), alike, 1)
    meant = f"did you mean {alike[near[0]]!r}? The columns" if near else "the columns"
    # Quoted where a space at either end would be overlooked.
    shown = [repr(other) if other != other.strip() else other for other in columns[:_SHOWN]]
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return f"{meant} are {', '.join(shown)}{more}."
