"""Tables: reading them, checking them, and turning columns into numbers."""

from collections.abc import Generator
from contextlib import contextmanager

import equinox as eqx
import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.read import need_columns

CLIP = 6.0  # standard deviations
MOST_LEVELS = 30
LARGEST = 1e30  # of a feature; squares of more, and sums of them, are no numbers any more
_MISSING = {"", "na", "n/a", "nan", "null", "none"}


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
    return not (
        series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype == pl.Boolean
    )


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

        def skew(v):
            return abs(((v - v.mean()) ** 3).mean()) / v.std() ** 3

        unit = None
        if seen.min() >= 0 and skew(seen) > 1.5:
            positive = float(np.median(seen[seen > 0]))
            unit = positive if skew(np.log1p(seen / positive)) < skew(seen) else None
        scaled = seen if unit is None else np.log1p(seen / unit)
        return Number(
            name, unit, float(scaled.mean()), float(scaled.std()), bool(len(seen) < len(values))
        )

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
        """Levels seen in at least two groups; `None` when there are none, as for names of the
        groups.
        """
        pairs = pl.DataFrame({"level": series.cast(pl.String), "group": group}).drop_nulls()
        spread = pairs.group_by("level").agg(
            pl.col("group").n_unique().alias("groups"), pl.len().alias("rows")
        )
        spread = spread.filter(pl.col("groups") >= 2).sort(
            ["rows", "level"], descending=[True, False]
        )
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
        raise InputError(
            f"{where}: column {name!r}, row {row + 1}: {series[row]!r} is not a number."
        )
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
