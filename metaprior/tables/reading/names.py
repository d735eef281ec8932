"""The columns of a table: their names, and which of them are no data."""

import dataclasses
from collections.abc import Sequence

import polars as pl

from metaprior.errors import InputError

# Names that programs give to a column of row numbers.
_COUNTING = {
    "",
    "Unnamed: 0",
    "Unnamed: 0.1",
    "__index_level_0__",
    "rownames",
    "row.names",
    "row_names",
    "X",
    "X1",
    "...1",
    "index",
    "rowid",
    "rn",
}
_UNNAMED = ("Unnamed: ", "__UNNAMED__")  # pandas and fastexcel call columns without a name so


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as it was found.

    Args:
        frame: its rows.
        notes: what was made of the source, and what was left out.
        decimal: the decimal mark of numbers in text, where that is plain; else `None`.
        written: whether all columns are text as written in a file, rather than typed.
        aside: columns that are no features unless someone names them.
    """

    frame: pl.DataFrame
    notes: tuple[str, ...] = ()
    decimal: str | None = None
    written: bool = False
    aside: tuple[str, ...] = ()


def tabled(
    frame: pl.DataFrame,
    names: Sequence[str],
    where: str,
    *,
    notes: Sequence[str] = (),
    decimal: str | None = None,
    written: bool = False,
) -> Table:
    """A table with these names of columns, "" where there is none.

    Columns with neither a name nor values are dropped. Columns that only count the rows and columns
    of lists or structs are put aside. Notes say so.

    Raises:
        InputError: where two columns have one name.
    """
    said = list(notes)
    columns = dict(zip(range(len(names)), frame.get_columns()))
    empty = [i for i in columns if _is_unnamed(names[i]) and _is_empty(columns[i])]
    if empty and len(empty) < len(columns):
        many = "1 column" if len(empty) == 1 else f"{len(empty)} columns"
        said.append(f"{many} without a name and without values left out.")
        for i in empty:
            del columns[i]

    found: dict[str, pl.Series] = {}
    aside = []
    for i, series in columns.items():
        name = names[i] if names[i] else f"column_{i + 1}"
        if name in found:
            raise InputError(f"{where}: two columns are called {name!r}; names must differ.")
        found[name] = series.alias(name)
        if names[i] in _COUNTING and counts_rows(series):
            aside.append(name)
            said.append(f"{name}: left out, it only counts the rows; name it to use it.")
        elif is_nested(series.dtype):
            aside.append(name)
            said.append(f"{name}: left out, it holds {held(series.dtype)}, not single values.")
        elif not names[i]:
            said.append(f"column {i + 1} has no name; it is called {name!r}.")
    if list(found) != frame.columns:
        frame = pl.DataFrame(found)
    return Table(frame, tuple(said), decimal, written, tuple(aside))


def is_nested(dtype: pl.DataType) -> bool:
    """Whether a column holds lists, structs, bytes or objects rather than single values."""
    return dtype.is_nested() or dtype in (pl.Object, pl.Binary)


def held(dtype: pl.DataType) -> str:
    """What a nested column holds, in words."""
    if dtype in (pl.List, pl.Array):
        return "lists"
    if dtype == pl.Binary:
        return "bytes"
    return "objects" if dtype == pl.Object else "structs"


def _is_unnamed(name: str) -> bool:
    return not name or name.startswith(_UNNAMED)


def _is_empty(series: pl.Series) -> bool:
    if series.dtype == pl.String:
        return (series.fill_null("").str.strip_chars() == "").all()
    return series.null_count() == len(series)


def counts_rows(series: pl.Series) -> bool:
    """Whether a column is 0, 1, 2, … or 1, 2, 3, …"""
    if len(series) < 2 or not (series.dtype.is_numeric() or series.dtype == pl.String):
        return False
    values = series.cast(pl.Int64, strict=False)
    if values.null_count() or values[0] not in (0, 1) or values[-1] - values[0] != len(values) - 1:
        return False
    return bool((values.diff().drop_nulls() == 1).all())
