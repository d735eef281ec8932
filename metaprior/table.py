"""Tables: reading them, checking them, and turning columns into numbers."""

import csv
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
import polars as pl

from metaprior.errors import InputError

CLIP = 6.0  # standard deviations
MOST_LEVELS = 30
LARGEST = 1e30  # of a feature; squares of more, and sums of them, are no numbers any more
_MISSING = {"", "na", "n/a", "nan", "null", "none"}


def read(path: str | Path, columns: Sequence[str] | None = None, text: Sequence[str] = ()) -> pl.DataFrame:
    """A CSV or Parquet file as a polars frame; every row of a CSV decides its columns' types, but for those in `text`.

    With `columns`, others of a Parquet file are not read, unless one of them is missing: whoever needs it then says so.
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
            frame = pl.read_csv(path, infer_schema_length=None, null_values=["", "NA", "NaN", "nan", "null"],
                                schema_overrides={name: pl.String for name in text if name in written},
                                try_parse_dates=True)  # fmt: skip
            frame = frame.rename(lambda name: name.replace('""', '"'))  # polars leaves doubled quotes of a header
    except InputError:
        raise
    except pl.exceptions.NoDataError:
        raise InputError(f"{path}: the file is empty.") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table: {str(error).splitlines()[0]}") from None
    if frame.height == 0:
        raise InputError(f"{path}: has a header but no rows.")
    return frame


def as_frame(table: Any, only: Sequence[str] | None = None, text: Sequence[str] = ()) -> pl.DataFrame:
    """A polars frame from a polars or pandas frame, a path (with the columns and text of `read`), or a mapping of columns."""
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
                values = [None if v is None or v != v else v for v in column.astype(object).tolist()]
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
            raise InputError(f"{where}: no column {name!r}; the columns are {', '.join(shown)}.{_other_marks(frame)}")


def _other_marks(frame: pl.DataFrame) -> str:
    """What may be wrong with a file of one column."""
    mark = next((mark for mark in ";\t|" if frame.width == 1 and mark in frame.columns[0]), None)
    return "" if mark is None else f" Columns are separated by commas; these seem to be by {mark!r}."


@contextmanager
def usable(series: pl.Series, where: str) -> Generator[None]:
    """Inside, what polars cannot make of a column, such as numbers of lists, is an input error."""
    try:
        yield
    except pl.exceptions.PolarsError:
        raise InputError(
            f"{where}: column {series.name!r} holds {series.dtype}; columns hold numbers, text or dates."
        ) from None


def numbers(series: pl.Series) -> np.ndarray:
    """A numeric, boolean or date column as float64 with NaN for missing."""
    if series.dtype.is_temporal():
        series = series.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 86_400e6
    return series.cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64)


def is_text(series: pl.Series) -> bool:
    """Whether a column holds labels rather than numbers."""
    return not (series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype == pl.Boolean)


class Number(eqx.Module):
    """A numeric column: optional log1p of x / unit, then standardised and clipped at 6 deviations."""

    name: str
    unit: float | None
    mean: float
    std: float
    missing: bool  # whether an indicator column is added

    @staticmethod
    def learn(name: str, values: np.ndarray) -> "Number | None":
        """From the training groups' values; `None` when the column is constant."""
        seen = values[np.isfinite(values)]
        if len(seen) == 0 or seen.min() == seen.max():
            return None
        skew = lambda v: abs(((v - v.mean()) ** 3).mean()) / v.std() ** 3
        unit = None
        if seen.min() >= 0 and skew(seen) > 1.5:
            positive = float(np.median(seen[seen > 0]))
            unit = positive if skew(np.log1p(seen / positive)) < skew(seen) else None
        scaled = seen if unit is None else np.log1p(seen / unit)
        return Number(name, unit, float(scaled.mean()), float(scaled.std()), bool(len(seen) < len(values)))

    def encode(self, series: pl.Series, where: str) -> tuple[list[np.ndarray], np.ndarray]:
        """Encoded columns and the raw column for trees."""
        if is_text(series):
            values = numeric_text(series, where, self.name)
        else:
            values = numbers(series)
        raw = np.where(np.isfinite(values), values, np.nan)
        scaled = raw if self.unit is None else np.log1p(np.maximum(raw, 0.0) / self.unit)
        scaled = np.clip((scaled - self.mean) / self.std, -CLIP, CLIP)
        columns = [np.nan_to_num(scaled)]
        if self.missing:
            columns.append(np.isnan(raw).astype(float))
        return columns, raw


class Category(eqx.Module):
    """A text column, one-hot; `levels` occur in several training groups, all else shares a bucket."""

    name: str
    levels: tuple[str, ...]

    @staticmethod
    def learn(name: str, series: pl.Series, group: np.ndarray) -> "Category | None":
        """Levels seen in at least two groups; `None` when there are none, as for names of the groups."""
        pairs = pl.DataFrame({"level": series.cast(pl.String), "group": group}).drop_nulls()
        spread = pairs.group_by("level").agg(pl.col("group").n_unique().alias("groups"), pl.len().alias("rows"))
        spread = spread.filter(pl.col("groups") >= 2).sort(["rows", "level"], descending=[True, False])
        levels = tuple(sorted(spread["level"].head(MOST_LEVELS).to_list()))
        rest = pairs["level"].n_unique() > len(levels) or len(pairs) < len(series)
        return Category(name, levels) if len(levels) + rest >= 2 and levels else None

    def encode(self, series: pl.Series, where: str) -> tuple[list[np.ndarray], np.ndarray]:
        """One column a level and one for everything else; the level's index for trees."""
        text = series.cast(pl.String).fill_null("").to_numpy()
        columns = [(text == level).astype(float) for level in self.levels]
        known = np.sum(columns, axis=0)
        code = np.where(known > 0, np.argmax(np.stack(columns), axis=0), np.nan)
        return [*columns, 1.0 - known], code


def numeric_text(series: pl.Series, where: str, name: str) -> np.ndarray:
    """Numbers out of a text column, or an error that names the first row that is not one."""
    cast = series.cast(pl.String).str.strip_chars()
    value = cast.cast(pl.Float64, strict=False)
    blank = cast.is_null() | cast.str.to_lowercase().is_in(list(_MISSING))
    bad = (value.is_null() & ~blank).arg_true()
    if len(bad):
        row = int(bad[0])
        raise InputError(f"{where}: column {name!r}, row {row + 1}: {series[row]!r} is not a number.")
    return value.fill_null(np.nan).to_numpy().astype(np.float64)


def nearly_numbers(series: pl.Series) -> list[str]:
    """A note on a text column of which nine in ten values are numbers."""
    seen = series.cast(pl.String).str.strip_chars().drop_nulls()
    other = seen.filter(seen.cast(pl.Float64, strict=False).is_null())
    if not 0 < 10 * len(other) <= len(seen):
        return []
    return [
        f"{series.name}: taken as text, since {other[0]!r} is no number; {len(seen) - len(other)} of {len(seen)} values are."
    ]


def same_label(label: str | None, index: dict) -> str | None:
    """Numbers written differently (1 and 1.0) are one label."""
    if label in index or label is None:
        return label
    try:
        return next((known for known in index if float(known) == float(label)), label)
    except ValueError:
        return label


class Features(eqx.Module):
    """How feature columns become numbers; learned from training groups alone.

    Args:
        columns: one `Number` or `Category` a used column.
        notes: what a user should know: dropped columns, missing values.
    """

    columns: tuple[Number | Category, ...]
    notes: tuple[str, ...]

    @staticmethod
    def learn(frame: pl.DataFrame, names: list[str], group: np.ndarray) -> "Features":
        """From the training groups' rows."""
        columns, notes = [], []
        for name in names:
            series = frame[name]
            with usable(series, "table"):
                if is_text(series):
                    column = Category.learn(name, series, group)
                    reason = "no level occurs in two groups, so it says nothing of a new group"
                    notes += nearly_numbers(series)
                else:
                    values = numbers(series)
                    if (np.abs(values[np.isfinite(values)]) > LARGEST).any():
                        raise InputError(
                            f"table: column {name!r} holds numbers beyond {LARGEST:g}, which cannot be used."
                        )
                    column = Number.learn(name, values)
                    reason = "it has one value in all training groups"
                    share = 1 - np.isfinite(values).mean()
                    if column is not None and share > 0:
                        notes.append(
                            f"{name}: {share:.1%} of the values are missing; an indicator column stands for them."
                        )
            if column is None:
                notes.append(f"{name}: left out, {reason}.")
            else:
                columns.append(column)
        return Features(tuple(columns), tuple(notes))

    def text(self) -> list[str]:
        """The columns that are text, also where a file's rows of them look like numbers."""
        return [column.name for column in self.columns if isinstance(column, Category)]

    def encode(self, frame: pl.DataFrame, where: str = "table") -> tuple[np.ndarray, np.ndarray]:
        """`(n, d)` standardised columns and `(n, f)` raw columns for trees; `d` is at least 1."""
        need_columns(frame, [column.name for column in self.columns], where)
        encoded, raw = [], []
        for column in self.columns:
            with usable(frame[column.name], where):
                some, one = column.encode(frame[column.name], where)
            encoded += some
            raw.append(one)
        if not encoded:  # nothing but the group is known: a column of zeros
            encoded, raw = [np.zeros(frame.height)], [np.zeros(frame.height)]
        return np.stack(encoded, axis=1).astype(np.float32), np.stack(raw, axis=1)
