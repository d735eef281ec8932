"""Rows of a group in the order of a column, such as a time: the first are observed."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.meaning.values import is_text, numbers
from metaprior.tables.reading.names import is_nested
from metaprior.tables.trained import HeldOut
from metaprior.task import Data, Task

MOST_QUERY = 50  # rows of a group that are predicted


def columns_of_time(frame: pl.DataFrame, without: Sequence[str]) -> dict[str, np.ndarray]:
    """The columns that rows can be ordered by: numbers and dates (in days), NaN for missing."""
    columns = [c for c in frame.get_columns() if c.name not in without]
    return {c.name: numbers(c) for c in columns if not is_text(c) and not is_nested(c.dtype)}


def in_order(held: HeldOut, column: str, where: str) -> tuple[HeldOut, tuple[str, ...]]:
    """The groups with their rows in the order of a column, and what to note.

    Rows of one value stay in the order of the table.

    Raises:
        InputError: there is no such column, it is text, or a row has no value.
    """
    if held.times is None or held.names is None:
        raise InputError(
            "This prior was fitted by an earlier version, which kept no column to order rows by; "
            "fit it again, or give a table of other groups."
        )
    group = np.repeat(np.arange(len(held.start)), held.count)
    value = _values(held.times, column, [held.names[g] for g in group], where)
    order = np.lexsort((value, group))  # stable
    value = value[order]
    tied = np.flatnonzero((value[1:] == value[:-1]) & (group[1:] == group[:-1]))
    notes: tuple[str, ...] = ()
    if len(tied):
        first = held.names[group[tied[0]]]
        notes = (
            f"{column}: in {len(np.unique(group[tied]))} of {len(held.start)} groups several rows "
            f"have one value (group {first!r}: {value[tied[0]]:g}); they are taken in the order of "
            "the table.",
        )
    return dataclasses.replace(held, x=held.x[order], y=held.y[order]), notes


def check_order(frame: pl.DataFrame, column: str, task: str, target: str, where: str) -> None:
    """A table's rows can be ordered by a column, which is found out before anything is learned."""
    times = columns_of_time(frame, (task, target))
    _values(times, column, frame[task].cast(pl.String).to_list(), where)


def _values(
    times: dict[str, np.ndarray], column: str, group: Sequence[str], where: str
) -> np.ndarray:
    """The values of a column to order by; `group` names the group of each row."""
    if column not in times:
        known = ", ".join(times) or "none"
        raise InputError(
            f"{where}: no column {column!r} of numbers or dates to order rows by; there are: "
            f"{known}. Of a column that is no feature fit keeps the values with Prior(order=…)."
        )
    missing = np.flatnonzero(np.isnan(times[column]))
    if len(missing):
        rows = "1 row has" if len(missing) == 1 else f"{len(missing)} rows have"
        raise InputError(
            f"{where}: column {column!r}: {rows} no value, the first in group "
            f"{group[missing[0]]!r}; the order of rows needs all of them."
        )
    return times[column]


def first_rows(held: HeldOut, groups: np.ndarray, shots: int, support: int, seed: int) -> Task:
    """Tasks that show the first rows of each group, stacked; later ones are predicted.

    Args:
        held: with their rows in order.
        groups: of the tasks.
        shots: how many rows are shown.
        support: places for them.
        seed: of the draw of `MOST_QUERY` later rows, where there are more.
    """
    rng = np.random.default_rng((seed, shots))
    rows = np.repeat(held.start[groups][:, None], support + MOST_QUERY, axis=1)
    mask = np.zeros(rows.shape, bool)
    for task, group in enumerate(groups):
        later = np.arange(shots, held.count[group])
        if len(later) > MOST_QUERY:
            later = np.sort(rng.choice(later, MOST_QUERY, replace=False))
        rows[task, :shots] += np.arange(shots)
        rows[task, support : support + len(later)] += later
        mask[task, :shots] = mask[task, support : support + len(later)] = True

    def part(places: slice) -> Data:
        chosen = rows[:, places]
        return Data(*jax.device_put((held.x[chosen], held.y[chosen], mask[:, places])))

    return Task(part(slice(0, support)), part(slice(support, None)))
