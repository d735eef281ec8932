"""Groups of a table: rows of a group together, and which groups are kept aside."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.covariate import largest, said_of_covariate, values_of
from metaprior.tables.meaning.notes import count
from metaprior.tables.plan import Plan

FOLDS = 5
Arrays = Sequence[tuple[Any, Any]]


def sorted_groups(frame: pl.DataFrame, task: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The group of each row in an order that puts the rows of a group together; and that order."""
    missing = frame[task].is_null().arg_true()
    if len(missing):
        raise InputError(f"{where}: column {task!r}, row {int(missing[0]) + 1}: no value.")
    # As text: names of groups may be numbers, and are sorted the same whatever they are.
    labels = frame[task].cast(pl.String).to_numpy().astype(str)
    group = np.unique(labels, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    return group[order], order


def digests(names: Sequence[str]) -> np.ndarray:
    """A number for each name, the same everywhere: names may say who somebody is."""
    each = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(each), "<i8").astype(np.int64)


def runs(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row and number of rows of each group of a sorted index."""
    _, start, count = np.unique(group, return_index=True, return_counts=True)
    return start, count


def split_groups(
    frame: pl.DataFrame,
    group: np.ndarray,
    task: str,
    split_by: str | None,
    holdout: float,
    seed: int,
    where: str,
    part: int = 0,
    holdout_by: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Which groups are held out, and the fold of each of the others.

    Args:
        frame: rows, those of a group together.
        group: the number of each row's group.
        task: the column that names the group.
        split_by: column; groups that share a value of it stay together.
        holdout: share of the groups to hold out.
        seed: of the random split.
        where: what messages call the table.
        part: which of the disjoint parts of that size, in turn, is held out.
        holdout_by: column; the groups with its largest values are held out, not a random choice.
    """
    sets = set_of_each(frame, group, split_by)
    order = np.random.default_rng(seed).permutation(np.unique(sets))

    test = round(holdout * len(order))
    if holdout and test == 0:  # whoever asks for groups to judge by gets at least one
        test = 1
    if holdout_by and len(order):
        values = values_of(frame[holdout_by], sets[group], frame[task], where)
        aside = largest(values, holdout, holdout_by, where)[order]
        order, test = np.concatenate([order[aside], order[~aside]]), int(aside.sum())
    order = np.roll(order, -part * test)
    train = len(order) - test
    if train < 2:
        has = "one group" if len(order) == 1 else f"{len(order)} groups"
        if len(order) < len(sets):
            sets_of = "one set" if len(order) == 1 else f"{len(order)} sets"
            has = f"{sets_of} of groups that share a value of {split_by!r}"
        aside = f" ({test} of them held out)" if test else ""
        raise InputError(
            f"{where}: column {task!r} has {has}; a prior takes at least {2 + test}{aside}."
        )

    # Sets are dealt to the folds in turn, so that the folds are of equal size.
    fold = np.full(len(order), -1)
    fold[order[test:]] = np.arange(train) % min(FOLDS, train)
    return np.isin(sets, order[:test]), fold[sets]


def set_of_each(frame: pl.DataFrame, group: np.ndarray, split_by: str | None) -> np.ndarray:
    """The number of each group's set: its own, or that of all that share a value of a column."""
    if split_by:
        return joined(frame[split_by], group)
    return np.arange(group[-1] + 1 if len(group) else 0)


def joined(shared: pl.Series, group: np.ndarray) -> np.ndarray:
    """The set of each group, where groups that share a value are in one set.

    Sets are numbered by their smallest value, as text; a group without a value is a set of its own.

    Args:
        shared: a value for each row.
        group: the number of each row's group.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    text = shared.cast(pl.String)
    seen = text.is_not_null().to_numpy()
    labels, value = np.unique(text.drop_nulls().to_numpy().astype(str), return_inverse=True)
    groups = int(group[-1]) + 1
    # A graph of groups and values: a row with a value joins its group with that value.
    links = (group[seen], groups + value)
    size = groups + len(labels)
    graph = coo_array((np.ones(len(value), bool), links), shape=(size, size))
    part = connected_components(graph, directed=False)[1]
    least = np.full(part.max() + 1, size)
    np.minimum.at(least, part[groups:], np.arange(len(labels)))
    np.minimum.at(least, part[:groups], len(labels) + np.arange(groups))
    return np.unique(least[part[:groups]], return_inverse=True)[1]


def varies_within(shared: pl.Series, group: np.ndarray) -> int:
    """How many groups have more than one value."""
    pairs = pl.DataFrame({"group": group, "value": shared.cast(pl.String)}).drop_nulls().unique()
    return int((pairs.group_by("group").len()["len"] > 1).sum())


def said_of_split(
    frame: pl.DataFrame, group: np.ndarray, held: np.ndarray, plan: Plan
) -> list[str]:
    """Notes on the columns that groups are held out by, and kept together by.

    Args:
        frame: rows, those of a group together.
        group: the number of each row's group.
        held: whether a group is held out.
        plan: how they were split.
    """
    said, by = [], plan.split_by
    if plan.holdout_by and held.any():
        sets = set_of_each(frame, group, by)
        said += said_of_covariate(frame[plan.holdout_by], group, held, sets)
    many = varies_within(frame[by], group) if by else 0
    if many:
        said.append(
            f"{by}: it varies within {count(many, 'group')}; groups that share a value, also by "
            "way of other groups, stay on one side of the split."
        )
    return said


def frame_of(tasks: Arrays) -> pl.DataFrame:
    """A table from arrays: columns `task`, `x0` … and `y`."""
    if not len(tasks):
        raise InputError("tasks is empty; give at least two (x, y) pairs.")
    frames = [_frame(i, x, y) for i, (x, y) in enumerate(tasks)]
    if len({tuple(frame.columns) for frame in frames}) > 1:
        raise InputError("all tasks need the same number of x columns.")
    return pl.concat(frames)


def _frame(i: int, x: Any, y: Any) -> pl.DataFrame:
    """The rows of one task; without its y where that is `None`."""
    x = np.asarray(x, float)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2:
        raise InputError(f"tasks[{i}]: x has shape {x.shape}; it takes (n, d) or (n,).")
    columns = {"task": np.full(len(x), i)} | {f"x{j}": x[:, j] for j in range(x.shape[1])}
    if y is None:
        return pl.DataFrame(columns)

    y = np.asarray(y).reshape(-1)
    if len(y) != len(x):
        raise InputError(f"tasks[{i}]: x has {len(x)} rows and y has {len(y)}.")
    return pl.DataFrame(columns | {"y": y})
