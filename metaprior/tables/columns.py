"""Feature columns of a table, turned into numbers."""

from collections.abc import Generator
from contextlib import contextmanager

import equinox as eqx
import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.read import need_columns

CLIP = 6.0  # standard deviations
MOST_LEVELS = 30  # of a text column that have a column of their own
LARGEST = 1e30  # of a feature; squares of larger numbers, and sums of those, overflow
_MISSING = {"", "na", "n/a", "nan", "null", "none"}


@contextmanager
def usable(series: pl.Series, where: str) -> Generator[None]:
    """Inside, an error of polars about a column is an input error: of a column of lists, say."""
    try:
        yield
    except pl.exceptions.PolarsError:
        raise InputError(
            f"{where}: column {series.name!r} holds {series.dtype}; "
            "columns hold numbers, text or dates."
        ) from None


def numbers(series: pl.Series) -> np.ndarray:
    """A column of numbers, booleans or dates (in days) as float64, with NaN for missing."""
    if series.dtype.is_temporal():
        series = series.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 86_400e6
    return series.cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64)


def is_text(series: pl.Series) -> bool:
    """Whether a column holds labels rather than numbers."""
    return not (
        series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype == pl.Boolean
    )


class Number(eqx.Module):
    """A numeric column: log1p of x / unit if that helps, then standardised, cut at 6 deviations."""

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

        unit, scaled = None, seen
        if seen.min() >= 0 and _skew(seen) > 1.5:
            positive = float(np.median(seen[seen > 0]))
            logarithm = np.log1p(seen / positive)
            if _skew(logarithm) < _skew(seen):
                unit, scaled = positive, logarithm

        missing = bool(len(seen) < len(values))
        return Number(name, unit, float(scaled.mean()), float(scaled.std()), missing)

    def encode(self, series: pl.Series, where: str) -> tuple[list[np.ndarray], np.ndarray]:
        """Encoded columns and the raw column for trees."""
        values = as_numbers(series, where)
        raw = np.where(np.isfinite(values), values, np.nan)
        scaled = raw if self.unit is None else np.log1p(np.maximum(raw, 0.0) / self.unit)
        scaled = np.clip((scaled - self.mean) / self.std, -CLIP, CLIP)
        columns = [np.nan_to_num(scaled)]
        if self.missing:
            columns.append(np.isnan(raw).astype(float))
        return columns, raw


def _skew(values: np.ndarray) -> float:
    return abs(((values - values.mean()) ** 3).mean()) / values.std() ** 3


class Category(eqx.Module):
    """A text column as a column of zeros and ones for each level, and one for everything else.

    Args:
        name: of the column.
        levels: the values that occur in several training groups.
    """

    name: str
    levels: tuple[str, ...]

    @staticmethod
    def learn(name: str, series: pl.Series, group: np.ndarray) -> "Category | None":
        """Levels seen in at least two groups, or `None`.

        A level of one group alone says nothing of a new group, as a name of the group does not.
        """
        pairs = pl.DataFrame({"level": series.cast(pl.String), "group": group}).drop_nulls()
        spread = (
            pairs.group_by("level")
            .agg(pl.col("group").n_unique().alias("groups"), pl.len().alias("rows"))
            .filter(pl.col("groups") >= 2)
            .sort(["rows", "level"], descending=[True, False])
        )
        levels = tuple(sorted(spread["level"].head(MOST_LEVELS).to_list()))

        # A single level tells something only where other rows have another value, or none.
        rest = pairs["level"].n_unique() > len(levels) or len(pairs) < len(series)
        return Category(name, levels) if levels and len(levels) + rest >= 2 else None

    def encode(self, series: pl.Series, where: str) -> tuple[list[np.ndarray], np.ndarray]:
        """One column for each level and one for everything else; the level's index for trees."""
        text = series.cast(pl.String).fill_null("").to_numpy()
        columns = [(text == level).astype(float) for level in self.levels]
        known = np.sum(columns, axis=0)
        code = np.where(known > 0, np.argmax(np.stack(columns), axis=0), np.nan)
        return [*columns, 1.0 - known], code


def as_numbers(series: pl.Series, where: str) -> np.ndarray:
    """A column as float64 with NaN for missing, also where its numbers are written as text."""
    return numeric_text(series, where) if is_text(series) else numbers(series)


def numeric_text(series: pl.Series, where: str) -> np.ndarray:
    """Numbers out of a text column, or an error that names the first row that is not one."""
    cast = series.cast(pl.String).str.strip_chars()
    value = cast.cast(pl.Float64, strict=False)
    blank = cast.is_null() | cast.str.to_lowercase().is_in(list(_MISSING))
    bad = (value.is_null() & ~blank).arg_true()
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"{where}: column {series.name!r}, row {row + 1}: {series[row]!r} is not a number."
        )
    return value.fill_null(np.nan).to_numpy().astype(np.float64)


def nearly_numbers(series: pl.Series) -> list[str]:
    """A note on a text column of which nine in ten values are numbers."""
    seen = series.cast(pl.String).str.strip_chars().drop_nulls()
    other = seen.filter(seen.cast(pl.Float64, strict=False).is_null())
    if not 0 < 10 * len(other) <= len(seen):
        return []
    return [
        f"{series.name}: taken as text, since {other[0]!r} is no number; "
        f"{len(seen) - len(other)} of {len(seen)} values are."
    ]


class Features(eqx.Module):
    """How feature columns become numbers; learned from training groups alone.

    Args:
        columns: one `Number` or `Category` for each column that is used.
        notes: what a user should know: dropped columns, missing values.
    """

    columns: tuple[Number | Category, ...]
    notes: tuple[str, ...]

    @staticmethod
    def learn(
        frame: pl.DataFrame, names: list[str], group: np.ndarray, where: str = "table"
    ) -> "Features":
        """From the training groups' rows.

        Args:
            frame: the rows.
            names: of the feature columns.
            group: number of the group of each row.
            where: what messages call the table.
        """
        columns, notes = [], []
        for name in names:
            with usable(frame[name], where):
                if is_text(frame[name]):
                    column, said = _learn_category(frame[name], group)
                else:
                    column, said = _learn_number(frame[name], where)
            notes += said
            if column is not None:
                columns.append(column)
        return Features(tuple(columns), tuple(notes))

    def names(self) -> list[str]:
        """The columns that are used."""
        return [column.name for column in self.columns]

    def text(self) -> list[str]:
        """The columns that are text, also where a file's rows of them look like numbers."""
        return [column.name for column in self.columns if isinstance(column, Category)]

    def encode(self, frame: pl.DataFrame, where: str = "table") -> tuple[np.ndarray, np.ndarray]:
        """Rows as numbers.

        Returns:
            `(n, d)` standardised columns, with `d` at least 1, and `(n, f)` raw columns for trees.
        """
        need_columns(frame, self.names(), where)
        encoded, raw = [], []
        for column in self.columns:
            with usable(frame[column.name], where):
                some, one = column.encode(frame[column.name], where)
            encoded += some
            raw.append(one)

        if not encoded:  # nothing but the group is known: a column of zeros
            encoded, raw = [np.zeros(frame.height)], [np.zeros(frame.height)]
        return np.stack(encoded, axis=1).astype(np.float32), np.stack(raw, axis=1)


def _learn_category(series: pl.Series, group: np.ndarray) -> tuple[Category | None, list[str]]:
    """A text column, if it can be used, and notes on it."""
    notes = nearly_numbers(series)
    column = Category.learn(series.name, series, group)
    if column is None:
        notes.append(
            f"{series.name}: left out, no level occurs in two groups, so it says nothing of a new "
            "group."
        )
    return column, notes


def _learn_number(series: pl.Series, where: str) -> tuple[Number | None, list[str]]:
    """A column of numbers, if it can be used, and notes on it."""
    values = numbers(series)
    finite = np.isfinite(values)
    if (np.abs(values[finite]) > LARGEST).any():
        raise InputError(
            f"{where}: column {series.name!r} holds numbers beyond {LARGEST:g}, which cannot be "
            "used."
        )

    column = Number.learn(series.name, values)
    if column is None:
        return None, [f"{series.name}: left out, it has one value in all training groups."]
    share = 1 - finite.mean()
    if share == 0:
        return column, []
    return column, [
        f"{series.name}: {share:.1%} of the values are missing; an indicator column stands for "
        "them."
    ]
