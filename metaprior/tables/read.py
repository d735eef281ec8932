"""Reading tables: files, and frames of other libraries, as polars frames."""

import csv
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl

from metaprior.errors import InputError

_MISSING = ["", "NA", "NaN", "nan", "null"]  # cells of a CSV file that hold no value


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a table and where they came from.

    Args:
        frame: the rows.
        where: what messages about them begin with: the file's name, or "support" and the like.
    """

    frame: pl.DataFrame
    where: str

    def need(self, names: Sequence[str]) -> None:
        """All of `names` are columns, or an error."""
        need_columns(self.frame, names, self.where)


def rows_of(
    table: Any,
    called: str,
    only: Sequence[str] | None = None,
    text: Sequence[str] = (),
    may_be_empty: bool = False,
) -> Rows:
    """A table of any kind that `as_frame` takes, with the name that messages give it.

    Args:
        table: see `as_frame`; `Rows` stay what they are.
        called: the name of a table that is not a file.
        only, text, may_be_empty: see `read`.
    """
    if isinstance(table, Rows):
        return table
    if isinstance(table, (str, Path)):
        return Rows(read(table, only, text, may_be_empty), str(table))
    return Rows(as_frame(table, called), called)


def read(
    path: str | Path,
    columns: Sequence[str] | None = None,
    text: Sequence[str] = (),
    may_be_empty: bool = False,
) -> pl.DataFrame:
    """A CSV or Parquet file as a polars frame.

    Args:
        path: of the file.
        columns: the only columns to read of a Parquet file. If one of them is missing, all columns
            are read, so that the complaint about it can list them.
        text: columns of a CSV file that stay text. All rows decide the type of the other columns.
        may_be_empty: whether a file without rows is allowed.

    Raises:
        InputError: names the file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a CSV or Parquet file.")

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = _read_parquet(path, columns)
        else:
            frame = _read_csv(path, text)
            if may_be_empty and _is_header_alone(path):
                frame = frame.head(0)
    except pl.exceptions.NoDataError:
        raise InputError(f"{path}: the file is empty.") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table: {str(error).splitlines()[0]}") from None

    if frame.height == 0 and not may_be_empty:
        raise InputError(f"{path}: has a header but no rows.")
    return frame


def _read_parquet(path: Path, columns: Sequence[str] | None) -> pl.DataFrame:
    # Without `glob`, a name with brackets or stars is a name, not a pattern.
    lazy = pl.scan_parquet(path, glob=False)
    if columns is not None and set(columns) <= set(lazy.collect_schema().names()):
        lazy = lazy.select(list(dict.fromkeys(columns)))
    # Decoded piece by piece: a wide table need not fit into memory twice.
    return lazy.collect(engine="streaming")


def _read_csv(path: Path, text: Sequence[str]) -> pl.DataFrame:
    with path.open("rb") as file:
        header = file.readline().decode("utf-8-sig", "strict").strip()
    written = next(csv.reader([header]), [])
    _need_distinct([name.strip() for name in written], str(path))

    frame = pl.read_csv(
        path,
        infer_schema_length=None,
        null_values=_MISSING,
        schema_overrides={name: pl.String for name in text if name in written},
        try_parse_dates=True,
    )
    # polars leaves the doubled quotes of a quoted header as they are.
    return frame.rename(lambda name: name.replace('""', '"'))


def _is_header_alone(path: Path) -> bool:
    """Whether nothing but blank lines follow the header; polars reads a blank line as a row."""
    with path.open("rb") as file:
        written = (line for line in file if line.strip())
        return len(list(itertools.islice(written, 2))) == 1


def as_frame(table: Any, called: str = "table") -> pl.DataFrame:
    """A polars frame from a path, a mapping of columns, or a frame of another library.

    Frames of polars, pandas, pyarrow and others are recognised by narwhals, lazy ones too; any
    other object is taken by the Arrow interface. The index of a pandas frame is not read. `called`
    is what messages call the table.
    """
    if isinstance(table, (str, Path)):
        return read(table)
    if isinstance(table, pl.DataFrame):
        return table

    try:
        if isinstance(table, Mapping):
            return pl.DataFrame(dict(table))
        known = nw.from_native(table, pass_through=True)
        if isinstance(known, nw.LazyFrame):
            known = known.collect(backend="polars")
        if isinstance(known, nw.DataFrame):
            return _of_known(known)
        if hasattr(table, "__arrow_c_stream__"):
            return pl.DataFrame(table)
    except nw.exceptions.DuplicateError as error:
        said = " ".join(str(error).split())
        raise InputError(f"{called}: names of columns must differ. {said}.") from None
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{called}: not a table: {str(error).splitlines()[0]}") from None
    raise InputError(
        f"{called}: a table is a polars, pandas or Arrow frame, a mapping of columns or a path; "
        f"got {type(table).__name__}."
    )


def is_table(value: Any) -> bool:
    """Whether `value` is a table, rather than an array of x."""
    if isinstance(value, (Rows, pl.DataFrame, Mapping, str, Path)):
        return True
    try:
        known = nw.from_native(value, pass_through=True)
    except nw.exceptions.DuplicateError:
        return True  # `as_frame` says what is wrong with it
    return isinstance(known, (nw.DataFrame, nw.LazyFrame))


def _of_known(frame: nw.DataFrame) -> pl.DataFrame:
    if not frame.implementation.is_pandas_like():
        return frame.to_polars()
    # Column by column and by its values: this needs no pyarrow, takes columns of mixed objects, and
    # knows every way in which pandas says that a value is missing.
    return pl.DataFrame([_values(column) for column in frame.iter_columns()])


def _values(column: nw.Series) -> pl.Series:
    missing = column.is_null().to_list()
    values = [None if gone else value for value, gone in zip(column.to_list(), missing)]
    return pl.Series(str(column.name), values, strict=False)


def _need_distinct(names: list[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: two columns are called {name!r}; names must differ.")


def need_columns(frame: pl.DataFrame, names: Sequence[str], where: str) -> None:
    """All of `names` are columns, or an error that says which is missing and which there are."""
    for name in names:
        if name not in frame.columns:
            # Quoted where a space at either end would be overlooked.
            shown = [repr(other) if other != other.strip() else other for other in frame.columns]
            raise InputError(
                f"{where}: no column {name!r}; the columns are {', '.join(shown)}."
                f"{_other_marks(frame)}"
            )


def _other_marks(frame: pl.DataFrame) -> str:
    """What may be wrong with a file of one column."""
    if frame.width != 1:
        return ""
    for mark in ";\t|":
        if mark in frame.columns[0]:
            return f" Columns are separated by commas; these seem to be separated by {mark!r}."
    return ""
