"""What is learned of feature columns from the training groups: scales and levels."""

import hashlib
from typing import NamedTuple

import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.meaning.notes import Note
from metaprior.tables.meaning.values import apart, is_text, numbers, usable

LARGEST = 1e30  # of a feature; squares of larger numbers, and sums of those, overflow
CLIP = 6.0  # standard deviations
MOST_LEVELS = 30  # of a text column that have a column of their own


class Scale(NamedTuple):
    """Of a numeric column: the unit of log1p, or `None`; mean and deviation of what results.

    Args:
        missing: whether values are missing.
    """

    unit: float | None
    mean: float
    std: float
    missing: bool

    def of(self, values: np.ndarray) -> np.ndarray:
        """Values on this scale, cut at `CLIP`; 0 where there is none."""
        scaled = values if self.unit is None else np.log1p(np.maximum(values, 0.0) / self.unit)
        return np.nan_to_num(np.clip((scaled - self.mean) / self.std, -CLIP, CLIP))


class Used(NamedTuple):
    """A feature column: its scale or its levels, or neither where it is left out."""

    name: str
    scale: Scale | None
    levels: tuple[str, ...] | None
    notes: tuple[Note, ...]

    @property
    def left_out(self) -> bool:
        return self.scale is None and self.levels is None


def used_columns(
    frame: pl.DataFrame, names: list[str], group: np.ndarray, where: str
) -> list[Used]:
    """How each feature column is used; from the training groups' rows alone.

    Args:
        frame: the rows.
        names: of the feature columns.
        group: number of the group of each row.
        where: what messages call the table.
    """
    found = []
    for name in names:
        with usable(frame[name], where):
            if is_text(frame[name]):
                found.append(_text(frame[name], group))
            else:
                found.append(_number(frame[name], where))
    return _without_repeats(frame, found)


def _without_repeats(frame: pl.DataFrame, used: list[Used]) -> list[Used]:
    """Columns that say in every row what an earlier one says are left out, in other units too.

    Twice in, a feature would count more than once.
    """
    seen: dict[bytes, str] = {}
    found = []
    for one in used:
        content = None if one.left_out else _content(frame[one.name], one)
        first = None if content is None else seen.setdefault(content, one.name)
        if first is None or first == one.name:
            found.append(one)
        else:
            why = f"left out, it says in every row what {first} says."
            found.append(Used(one.name, None, None, (Note(one.name, why),)))
    return found


def _content(series: pl.Series, one: Used) -> bytes:
    """A digest of what a column says: the same in any unit."""
    if one.scale is None:
        said = "\0".join(series.cast(pl.String).fill_null("\1").to_list()).encode()
    else:
        values = numbers(series)
        seen = values[np.isfinite(values)]
        # Zero without a sign, since -0.0 has other bytes.
        said = (np.round((values - seen.mean()) / seen.std(), 6) + 0.0).tobytes()
    return hashlib.blake2b(said, digest_size=16).digest()


def _text(series: pl.Series, group: np.ndarray) -> Used:
    """A column of names."""
    name, levels = series.name, levels_of(series, group)
    if levels is None:
        why = "left out, no level occurs in two groups, so it says nothing of a new group."
        return Used(name, None, None, (Note(name, why),))
    said = []
    several = series.drop_nulls().n_unique()
    if len(levels) == MOST_LEVELS < several:
        said.append(f"the {MOST_LEVELS} most frequent of {several} names count, the rest as one.")
    return Used(name, None, levels, tuple(Note(name, one) for one in said))


def levels_of(series: pl.Series, group: np.ndarray) -> tuple[str, ...] | None:
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
    return levels if levels and len(levels) + rest >= 2 else None


def _number(series: pl.Series, where: str) -> Used:
    """A column of numbers."""
    name, values = series.name, numbers(series)
    finite = np.isfinite(values)
    if (np.abs(values[finite]) > LARGEST).any():
        raise InputError(
            f"{where}: column {name!r} holds numbers beyond {LARGEST:g}, which cannot be used."
        )

    scale = scale_of(values)
    if scale is None:
        what = "one value in all training groups" if finite.any() else "no value"
        return Used(name, None, None, (Note(name, f"left out, it has {what}."),))
    share = 1 - finite.mean()
    if share == 0:
        return Used(name, scale, None, ())
    said = f"{share:.1%} of the values are missing; an indicator column stands for them."
    return Used(name, scale, None, (Note(name, said),))


def scale_of(values: np.ndarray) -> Scale | None:
    """From the training groups' values; `None` when the column is constant."""
    seen = values[np.isfinite(values)]
    if len(seen) == 0 or seen.min() == seen.max():
        return None

    missing = bool(len(seen) < len(values))
    if seen.min() >= 0 and _skew(seen) > 1.5:
        positive = float(np.median(seen[seen > 0]))
        logarithm = np.log1p(seen / positive)
        if _skew(logarithm) < _skew(seen):
            return Scale(positive, float(logarithm.mean()), float(logarithm.std()), missing)
    # A value a million deviations off would leave the others no digits.
    near = seen[~apart(seen)]
    scaled = near if near.min() < near.max() else seen
    return Scale(None, float(scaled.mean()), float(scaled.std()), missing)


def _skew(values: np.ndarray) -> float:
    return abs(((values - values.mean()) ** 3).mean()) / values.std() ** 3
