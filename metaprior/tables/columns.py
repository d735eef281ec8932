"""Feature columns of a table, turned into numbers."""

import equinox as eqx
import numpy as np
import polars as pl

from metaprior.tables.meaning.notes import lines
from metaprior.tables.meaning.values import as_numbers, usable
from metaprior.tables.read import need_columns
from metaprior.tables.scaling import Scale, Used, used_columns


class Number(eqx.Module):
    """A numeric column: log1p of x / unit if that helps, then standardised, cut at 6 deviations."""

    name: str
    unit: float | None
    mean: float
    std: float
    missing: bool  # whether an indicator column is added

    def encode(self, series: pl.Series, where: str) -> tuple[list[np.ndarray], np.ndarray]:
        """Encoded columns and the raw column for trees."""
        values = as_numbers(series, where)
        raw = np.where(np.isfinite(values), values, np.nan)
        columns = [Scale(self.unit, self.mean, self.std, self.missing).of(raw)]
        if self.missing:
            columns.append(np.isnan(raw).astype(float))
        return columns, raw


class Category(eqx.Module):
    """A text column as a column of zeros and ones for each level, and one for everything else.

    Args:
        name: of the column.
        levels: the values that occur in several training groups.
    """

    name: str
    levels: tuple[str, ...]

    def encode(self, series: pl.Series, where: str) -> tuple[list[np.ndarray], np.ndarray]:
        """One column for each level and one for everything else; the level's index for trees."""
        text = series.cast(pl.String).fill_null("").to_numpy()
        columns = [(text == level).astype(float) for level in self.levels]
        known = np.sum(columns, axis=0)
        code = np.where(known > 0, np.argmax(np.stack(columns), axis=0), np.nan)
        return [*columns, 1.0 - known], code


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
        return Features.of(used_columns(frame, names, group, where))

    @staticmethod
    def of(used: list[Used]) -> "Features":
        """From what was learned of each column."""
        columns: list[Number | Category] = []
        for one in used:
            if one.scale is not None:
                columns.append(Number(one.name, *one.scale))
            elif one.levels is not None:
                columns.append(Category(one.name, one.levels))
        notes = lines(note for one in used for note in one.notes)
        return Features(tuple(columns), notes)

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
