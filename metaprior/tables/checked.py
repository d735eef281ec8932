"""A user's table, checked before anything is learned; messages name the file, column and row."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.evaluation.units import Units
from metaprior.tables.columns import is_text, numbers, numeric_text
from metaprior.tables.groups import sorted_groups, split_groups
from metaprior.tables.read import Rows
from metaprior.tables.targets import bad_groups, standardised, target_values

SKIP = "--skip-bad-tasks (in Python skip_bad_tasks=True)"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to learn from a table, and how its groups are split.

    Args:
        task: the column that names the group (in the words of the lecture, the task) of a row.
        targets: the columns to predict; each is a feature of the later ones.
        features: columns to predict from; `None`: all others.
        kind: of the targets: `"numbers"`, `"classes"` or `"auto"`.
        log: whether the logarithm of numbers is modelled.
        split_by: column; groups that share a value of it stay on one side of the split.
        holdout: share of the groups that is kept aside.
        seed: of the split.
        part: which of the disjoint parts of that size is kept aside, 0 …
        order: a column that `evaluate` orders rows by; it need not be a feature.
    """

    task: str
    targets: Sequence[str]
    features: Sequence[str] | None = None
    kind: str = "auto"
    log: bool = False
    split_by: str | None = None
    holdout: float = 0.0
    seed: int = 0
    part: int = 0
    order: str | None = None

    def columns(self) -> list[str] | None:
        """All columns that are needed; `None`: all there are."""
        if self.features is None:
            return None
        more = [name for name in (self.split_by, self.order) if name]
        return [self.task, *self.targets, *self.features, *more]


@dataclasses.dataclass(frozen=True)
class Checked:
    """A table that one target can be learned from, its rows in the order of the groups.

    Args:
        frame: the rows.
        task, target, features: names of columns.
        where: what messages call the table.
        group: number of the group of each row.
        held: whether a group is kept aside, `(g,)`.
        fold: the fold of each group, `(g,)`; -1 for one kept aside.
        units: of the target; `None` for classes.
        z: the target in the model's units, or class indices, `(n,)`.
        labels: of the classes; `None` for numbers.
        values: the classes as a feature column holds them.
        notes: what was made of the file, and groups that were left out.
    """

    frame: pl.DataFrame
    task: str
    target: str
    features: list[str]
    where: str
    group: np.ndarray
    held: np.ndarray
    fold: np.ndarray
    units: Units | None
    z: np.ndarray
    labels: list[str] | None
    values: list | None
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """How many classes; 0 for numbers."""
        return len(self.labels or ())


def check_all(rows: Rows, plan: Plan, skip: dict[str, str] | None = None) -> list[Checked]:
    """Every target of a table found good; each target is a feature of the later ones.

    Args:
        rows: the table.
        plan: what is to be learned.
        skip: groups to leave out, with the reasons; other bad groups are left out too, and noted.
            `None`: a bad group is an error.
    """
    targets = list(plan.targets)
    # Names first: what is wrong with a name is said before anything about values.
    if not targets:
        raise InputError(f"{rows.where}: target is empty; give the name of a column, or several.")
    for i, name in enumerate(targets):
        if name in targets[:i]:
            raise InputError(f"{rows.where}: the target {name!r} is given twice.")
        names = feature_columns(rows, plan.task, name, plan.features, plan.split_by)
    names = [name for name in names if name not in targets]
    if plan.order is not None:
        rows.need([plan.order])
    if not rows.frame.height:
        raise InputError(f"{rows.where}: has columns but no rows.")

    # Groups are left out for all targets at once, so that every target has the same groups.
    frame, notes = _without_bad(rows, plan, skip)
    checked = []
    for name in targets:
        one = check(Rows(frame, rows.where), plan, name, names)
        checked.append(dataclasses.replace(one, notes=(*rows.notes, *notes)))
        if is_text(frame[name]) and one.labels is None:
            # Numbers written as text: as a feature of the next target they are numbers.
            as_numbers = pl.Series(name, numeric_text(frame[name], rows.where))
            frame = frame.with_columns(as_numbers)
        names = [*names, name]
    return checked


def check(rows: Rows, plan: Plan, target: str, features: list[str]) -> Checked:
    """Groups, their split, and one target in the model's units; of a table without bad groups."""
    series, where = rows.frame[target], rows.where
    y, labels = target_values(series, where, target, plan.kind)
    group, order = sorted_groups(rows.frame, plan.task, where)
    frame, y = rows.frame[order], y[order]
    held, fold = split_groups(
        frame, group, plan.task, plan.split_by, plan.holdout, plan.seed, where, plan.part
    )
    train = ~held[group]

    if labels is None:
        z, units = standardised(y, train, plan.log, where, target)
        values = None
    else:
        _need_classes(y[train], fold[group][train], labels, where, target)
        z, units = y, None
        levels = series.unique().sort()
        # As a feature of later targets, classes written as numbers are numbers.
        values = labels if is_text(levels) else numbers(levels).tolist()
    return Checked(
        frame=frame,
        task=plan.task,
        target=target,
        features=features,
        where=where,
        group=group,
        held=held,
        fold=fold,
        units=units,
        z=z,
        labels=labels,
        values=values,
    )


def feature_columns(
    rows: Rows,
    task: str,
    target: str,
    features: Sequence[str] | None,
    split_by: str | None,
) -> list[str]:
    """Names of the feature columns: the chosen ones, or all others but those put aside."""
    more, where = [split_by] if split_by else [], rows.where
    if isinstance(features, str):
        raise InputError(f"{where}: features is a list of columns; got {features!r}.")
    if features is not None and not len(features):
        raise InputError(
            f"{where}: features is empty; name the columns to predict from, or leave it out to use "
            "all."
        )
    for name in features or []:
        if list(features or []).count(name) > 1:
            raise InputError(f"{where}: the feature {name!r} is given twice.")
    rows.need([task, target, *(features or []), *more])
    if task == target:
        raise InputError(f"{where}: the groups (task) and the target are one column, {task!r}.")
    for name in features or []:
        if name in (task, target):
            role = "column of the groups (task)" if name == task else "target"
            raise InputError(f"{where}: {name!r} is the {role}, not a feature.")
    if features:
        return list(features)
    return [name for name in rows.frame.columns if name not in (task, target, *rows.aside)]


def _without_bad(
    rows: Rows, plan: Plan, skip: dict[str, str] | None
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The table without its bad groups, and notes on them; without `skip` they are an error."""
    where, task = rows.where, plan.task
    left = dict(skip or {})
    for name in plan.targets:
        bad = bad_groups(rows.frame, task, name, where, plan.kind, plan.log)
        for group, why in bad.items():
            if skip is None:
                raise InputError(
                    f"{where}: column {name!r}, {why}. "
                    f"Correct it, or leave such groups out with {SKIP}."
                )
            left.setdefault(group, f"column {name!r}, {why}")

    gone = pl.col(task).cast(pl.String).is_in(list(left)).fill_null(False)
    kept = rows.frame.filter(~gone)
    if left and not kept.height:
        first = next(iter(left.values()))
        raise InputError(f"{where}: no group is left; the first was left out as {first}.")
    return kept, tuple(f"{task} {group}: left out, {why}." for group, why in left.items())


def _need_classes(
    y: np.ndarray, fold: np.ndarray, labels: list[str], where: str, target: str
) -> None:
    """Each class occurs in the groups outside every fold, so that all members see all classes."""
    for k in range(fold.max() + 1):
        missing = np.setdiff1d(np.arange(len(labels)), y[fold != k])
        if len(missing):
            raise InputError(
                f"{where}: column {target!r}: the class {labels[missing[0]]!r} occurs in too few "
                "groups; cross-fitting needs each class in several groups."
            )
