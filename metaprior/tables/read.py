"""Reading tables: files and frames of others as polars frames."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from metaprior.errors import InputError


def read(
    path: str | Path, columns: Sequence[str] | None = None, text: Sequence[str] = ()
) -> pl.DataFrame:
    """A CSV or Parquet file as a polars frame; every row of a CSV decides its columns' types, but
    for those in `text`.

    With `columns`, others of a Parquet file are not read, unless one of them is missing: whoever
    needs it then says so.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a CSV or Parquet file.")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            lazy = pl.scan_parquet(path, glob=False)
            if columns is not None and set(columns) <= set(lazy.collect_schema().names()):
                lazy = lazy.select(list(dict.fromkeys(columns)))
            frame = lazy.collect(engine="streaming")  # decoded piece by piece
        else:
            header = path.open("rb").readline().decode("utf-8-sig", "strict").strip()
            written = next(csv.reader([header]), [])
            names = [name.strip() for name in written]
            for name in names:
                if names.count(name) > 1:
                    raise InputError(f"{path}: two columns are called {name!r}; names must differ.")
            frame = pl.read_csv(
                path,
                infer_schema_length=None,
                null_values=["", "NA", "NaN", "nan", "null"],
                schema_overrides={name: pl.String for name in text if name in written},
                try_parse_dates=True,
            )
            frame = frame.rename(
                lambda name: name.replace('""', '"')
            )  # polars leaves doubled quotes of a header
    except InputError:
        raise
    except pl.exceptions.NoDataError:
        raise InputError(f"{path}: the file is empty.") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table: {str(error).splitlines()[0]}") from None
    if frame.height == 0:
        raise InputError(f"{path}: has a header but no rows.")
    return frame


def as_frame(
    table: Any, only: Sequence[str] | None = None, text: Sequence[str] = ()
) -> pl.DataFrame:
    """A polars frame from a polars or pandas frame, a path (with the columns and text of `read`),
    or a mapping of columns.
    """
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, (str, Path)):
        return read(table, only, text)
    if hasattr(table, "to_dict") and hasattr(table, "columns"):  # pandas, without importing it
        names = list(table.columns)
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"two columns are called {name!r}; names must differ.")
        columns = {}
        for name in names:
            column = table[name]
            if str(column.dtype).startswith(("datetime", "date")):
                columns[str(name)] = pl.Series(column.to_numpy())
            else:
                values = [
                    None if v is None or v != v else v for v in column.astype(object).tolist()
                ]
                columns[str(name)] = pl.Series(values, strict=False)
        return pl.DataFrame(columns)
    if isinstance(table, dict):
        return pl.DataFrame(table)
    raise InputError(
        f"A table is a polars or pandas frame, a mapping of columns or a path; got {type(table).__name__}."
    )


def need_columns(frame: pl.DataFrame, names: list[str], where: str) -> None:
    """All of `names` are columns, or an error that says which is not and which are."""
    for name in names:
        if name not in frame.columns:
            shown = [repr(other) if other != other.strip() else other for other in frame.columns]
            raise InputError(
                f"{where}: no column {name!r}; the columns are {', '.join(shown)}.{_other_marks(frame)}"
            )


def _other_marks(frame: pl.DataFrame) -> str:
    """What may be wrong with a file of one column."""
    mark = next((mark for mark in ";\t|" if frame.width == 1 and mark in frame.columns[0]), None)
    return (
        "" if mark is None else f" Columns are separated by commas; these seem to be by {mark!r}."
    )
