"""Groups held out by a covariate: those with its largest values, unlike any that is learned from.

Held-out groups that are a random choice say how good a prior is for groups like those of training.
The latest years, or the largest regions, say what it is worth beyond them.
"""

import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.meaning.notes import count
from metaprior.tables.meaning.values import is_text, numbers

MOST = 0.5  # of the groups are held out
_EQUAL = 1e-12  # of the largest value: means that differ by less differ by rounding


def _cannot(where: str, by: str) -> str:
    return f"{where}: groups cannot be held out by {by!r}:"


def need_covariate(frame: pl.DataFrame, by: str, task: str, targets: list[str], where: str) -> None:
    """Groups can be put in an order by a column.

    Raises:
        InputError: it names the groups, is a target, or holds names, which have no order.
    """
    if by == task:
        raise InputError(
            f"{_cannot(where, by)} it names them, and names have no order. "
            "If its values have one, copy them to another column."
        )
    if by in targets:
        raise InputError(
            f"{_cannot(where, by)} it is the target, and they are held out "
            "by what is known before it."
        )
    if is_text(frame[by]):
        raise InputError(
            f"{_cannot(where, by)} it holds names, of which none is the "
            f"largest; numbers and dates have one. --split-by {by} keeps groups of one name "
            "together, and holds a random choice of the names out."
        )


def values_of(series: pl.Series, sets: np.ndarray, names: pl.Series, where: str) -> np.ndarray:
    """The mean of a column over the rows of each set of groups, `(s,)`.

    Args:
        series: the column.
        sets: the number of each row's set.
        names: the name of each row's group.
        where: what messages call the table.

    Raises:
        InputError: a set has no value, or all have the same.
    """
    values, by = numbers(series), series.name
    seen = np.isfinite(values)
    rows, total = np.bincount(sets), np.bincount(sets[seen], minlength=sets.max() + 1)
    if (total == 0).any():
        lacking = int((total == 0).sum())
        row = int(np.flatnonzero(total[sets] == 0)[0])
        more = f" and {count(lacking - 1, 'more group')}" if lacking > 1 else ""
        verb = "have" if lacking > 1 else "has"
        raise InputError(
            f"{_cannot(where, by)} group {str(names[row])!r}{more} {verb} no "
            "value of it. Fill it in, or leave such groups out of the table."
        )
    mean = np.bincount(sets[seen], values[seen], len(rows)) / total
    # Means of equal values differ by rounding, and would part groups that are alike.
    unit = max(_EQUAL * np.abs(mean).max(), np.finfo(float).tiny)
    mean = np.round(mean / unit) * unit
    if len(mean) > 1 and mean.min() == mean.max():
        varies = values[seen].min() < values[seen].max()
        raise InputError(
            f"{_cannot(where, by)} it is {spoken(mean[0], series)} in every "
            "group, on average over its rows, so that none has a larger value than the others."
            + (f" evaluate --order {by} judges later rows of each group." if varies else "")
        )
    return mean


def largest(values: np.ndarray, share: float, by: str, where: str) -> np.ndarray:
    """Which sets are held out: those with the largest values, near `share` of them.

    Sets of one value stay on one side.

    Raises:
        InputError: so many have the largest value that more than half would be held out.
    """
    wanted = max(1, round(share * len(values)))
    distinct, each = np.unique(values, return_counts=True)
    held = np.cumsum(each[::-1])[:-1] if len(distinct) > 1 else each  # by the number of values
    take = int(np.abs(held - wanted).argmin())
    if held[take] > max(MOST * len(values), 1) and len(values) > 2:
        raise InputError(
            f"{_cannot(where, by)} {held[take]} of {len(values)} share its "
            "largest value, and groups of one value stay together; at most half are held out."
        )
    return values >= distinct[::-1][take]


def said_of_covariate(
    series: pl.Series, group: np.ndarray, held: np.ndarray, sets: np.ndarray
) -> list[str]:
    """Which groups are held out and why, and what was made of the column.

    Args:
        series: the column.
        group: the number of each row's group.
        held: whether a group is held out.
        sets: the number of each group's set.
    """
    values, by = numbers(series), series.name
    seen = np.isfinite(values)
    of_set = sets[group]
    total = np.bincount(of_set[seen])
    mean = (np.bincount(of_set[seen], values[seen]) / total)[sets]
    low, high, below, top = (
        spoken(v, series)
        for v in (mean[held].min(), mean[held].max(), mean[~held].min(), mean[~held].max())
    )
    aside = low if low == high else f"{low} to {high}"
    known = below if below == top else f"{below} to {top}"
    said = [
        f"{by}: the {count(int(held.sum()), 'group')} of {len(held)} with its largest values are "
        f"kept aside ({aside}); the others have {known}. So the prior is judged beyond what it has "
        "seen."
    ]
    pairs = pl.DataFrame({"group": group[seen], "value": values[seen]}).unique()
    many = int((pairs.group_by("group").len()["len"] > 1).sum())
    if many:
        said.append(f"{by}: it varies within {count(many, 'group')}, of which the mean counts.")
    if not seen.all():
        said.append(
            f"{by}: {count(int((~seen).sum()), 'row')} without a value; the mean of the other rows "
            "of the group counts."
        )
    return said


def spoken(value: float, series: pl.Series) -> str:
    """A mean of a column: a number, or the day."""
    if series.dtype.is_temporal():
        return str(np.datetime64(int(value), "D"))
    return f"{value:.6g}"
