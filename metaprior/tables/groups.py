"""How a table becomes groups: columns, outcomes, splits; every complaint names file, column and
row.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.evaluation.units import Units
from metaprior.tables.columns import is_text, numbers, numeric_text, usable
from metaprior.tables.read import need_columns

FOLDS = 5
SKIP = "--skip-bad-tasks (in Python skip_bad_tasks=True)"
# single precision holds seven digits: beyond so many typical deviations the others are all one
# number
FAR = 1e7
HUGE = 1e100  # whose square is still a number
Arrays = Sequence[tuple[Any, Any]]


def feature_columns(frame, task, target, features, split_by, where) -> list[str]:
    """Names of the feature columns: those asked for, or all but task and target."""
    need_columns(frame, [task, target, *(features or []), *([split_by] if split_by else [])], where)
    if task == target:
        raise InputError(f"{where}: task and target are the same column {task!r}.")
    for name in features or []:
        if name in (task, target):
            raise InputError(
                f"{where}: {name!r} is the {'task' if name == task else 'target'}, not a feature."
            )
    return list(features) if features else [c for c in frame.columns if c not in (task, target)]


def holds_classes(series: pl.Series, kind: str) -> bool:
    """Whether a target is classes: as `kind` says, else text, booleans, or exactly two values."""
    if kind != "auto":
        return kind == "classes"
    series = series.drop_nulls()
    labels = series.unique()
    if is_text(series):
        parsed = series.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
        return len(labels) > 0 and parsed.is_not_null().mean() < 0.5 and len(labels) <= 20  # ty: ignore[unsupported-operator]
    return series.dtype == pl.Boolean or len(labels) == 2


def bad_groups(
    frame: pl.DataFrame, task: str, target: str, where: str, kind: str, log: bool
) -> dict[str, str]:
    """Groups with a target that nothing can be learned from, and the first row that says why."""
    series, empty = frame[target], frame[target].is_null().to_numpy()
    group = frame[task].cast(pl.String).fill_null("").to_numpy().astype(str)
    wrong = [(empty, "no value")]
    if not holds_classes(series, kind):
        y = numeric_text(series, where, target) if is_text(series) else numbers(series)
        finite = np.isfinite(y)
        wrong.append((~finite & ~empty, "{} is not a finite number"))
        if log:
            wrong.append((finite & (y <= 0), "{} has no logarithm"))
            finite &= y > 0
        z = np.log(y, where=finite, out=np.zeros(len(y))) if log else np.where(finite, y, 0.0)
        far = (
            np.where(finite, np.abs(z - np.median(z[finite])), 0.0)
            if finite.any()
            else np.zeros(len(y))
        )
        most = np.zeros(len(np.unique(group)))
        np.maximum.at(most, np.unique(group, return_inverse=True)[1], far)
        typical = np.median(most)
        huge = (far > FAR * typical) & (typical > 0) | (far > HUGE)
        wrong.append(
            (
                huge,
                "{} is so far from the values of other groups that nothing can be learned from those",
            )
        )
    found: dict[str, str] = {}
    for mask, words in wrong:
        for row in np.flatnonzero(mask):
            name = str(group[row])
            found.setdefault(
                name, f"row {row + 1} (group {name!r}): {words.format(series[int(row)])}"
            )
    return found


def target_values(
    series: pl.Series, where: str, target: str, kind: str
) -> tuple[np.ndarray, list | None]:
    """Numbers, or class indices with the classes' labels; of a target without bad groups."""
    labels = series.unique().sort()
    if holds_classes(series, kind):
        if len(labels) < 2:
            raise InputError(f"{where}: column {target!r} is constant; there is nothing to learn.")
        if len(labels) > 100:
            raise InputError(f"{where}: column {target!r} has {len(labels)} classes; at most 100.")
        index = {label: i for i, label in enumerate(labels.to_list())}
        return np.array([index[v] for v in series.to_list()], float), [
            str(v) for v in labels.to_list()
        ]
    y = numeric_text(series, where, target) if is_text(series) else numbers(series)
    if y.min() == y.max():
        raise InputError(
            f"{where}: column {target!r} is constant ({y[0]}); there is nothing to learn."
        )
    return y, None


def in_units(series: pl.Series, units: Units, where: str) -> np.ndarray:
    """Outcomes of a new group in the model's units, `(n, 1)`; none so far off that the others would
    be all one number.
    """
    with usable(series, where):
        y = numeric_text(series, where, series.name) if is_text(series) else numbers(series)
    bad = ~np.isfinite(y) | ((y <= 0) & units.log)
    z = units.to_z(np.where(bad, 1.0, y))
    for row in np.flatnonzero(bad | (np.abs(z) > FAR))[:1]:
        why = (
            ""
            if bad[row]
            else f": it is {abs(z[row]):.0e} standard deviations from what was learned from"
        )
        raise InputError(
            f"{where}: column {series.name!r}, row {row + 1}: {series[int(row)]} cannot be used{why}."
        )
    return np.asarray(z, np.float32)[:, None]


def far_outside(series: pl.Series, units: Units) -> int | None:
    """The first row whose outcome lies beyond those learned from by more than their whole range."""
    z, reach = in_units(series, units, "support")[:, 0], units.high - units.low
    return next(
        iter(np.flatnonzero((z < units.low - reach) | (z > units.high + reach)).tolist()), None
    )


def need_classes(y: np.ndarray, fold: np.ndarray, labels: list, where: str, target: str) -> None:
    """Each class occurs in the groups outside every fold, so that all members see all classes."""
    for k in range(fold.max() + 1):
        missing = np.setdiff1d(np.arange(len(labels)), y[fold != k])
        if len(missing):
            raise InputError(
                f"{where}: column {target!r}: the class {labels[missing[0]]!r} occurs in too few groups; cross-fitting "
                "needs each class in several groups."
            )


def split_groups(
    frame, group, task, split_by, holdout, seed, where
) -> tuple[np.ndarray, np.ndarray]:
    """Which groups are held out, and the fold of the others; groups that share `split_by` stay
    together.
    """
    start, _ = runs(group)
    units = np.arange(len(start))
    if split_by:
        units = np.unique(
            frame[split_by].cast(pl.String).fill_null("").to_numpy()[start], return_inverse=True
        )[1]
    order = np.random.default_rng(seed).permutation(np.unique(units))
    test = round(holdout * len(order))
    if holdout and test == 0:
        test = 1
    if len(order) - test < 2:
        raise InputError(
            f"{where}: column {task!r} has {'one group' if len(order) == 1 else f'{len(order)} groups'}; a prior takes at least "
            f"{2 + test}" + (f" ({test} of them held out)." if test else ".")
        )
    fold = np.full(len(order), -1)
    fold[order[test:]] = np.arange(len(order) - test) % min(FOLDS, len(order) - test)
    return np.isin(units, order[:test]), fold[units]


def frame_of(tasks: Arrays) -> pl.DataFrame:
    """A table from arrays: columns `task`, `x0` … and `y`."""
    frames = []
    if not len(tasks):
        raise InputError("tasks is empty; give at least two (x, y) pairs.")
    for i, (x, y) in enumerate(tasks):
        x = np.asarray(x, float)
        x = x[:, None] if x.ndim == 1 else x
        if x.ndim != 2:
            raise InputError(f"tasks[{i}]: x has shape {x.shape}; it takes (n, d) or (n,).")
        columns = {"task": np.full(len(x), i)} | {f"x{j}": x[:, j] for j in range(x.shape[1])}
        if y is not None:
            y = np.asarray(y).reshape(-1)
            if len(y) != len(x):
                raise InputError(f"tasks[{i}]: x has {len(x)} rows and y has {len(y)}.")
            columns["y"] = y
        frames.append(pl.DataFrame(columns))
    if len({tuple(f.columns) for f in frames}) > 1:
        raise InputError("all tasks need the same number of x columns.")
    return pl.concat(frames)


def sorted_groups(frame: pl.DataFrame, task: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The order that puts rows of a group together, and the group index of each row in that order."""
    missing = frame[task].is_null().arg_true()
    if len(missing):
        raise InputError(f"{where}: column {task!r}, row {int(missing[0]) + 1}: no value.")
    labels = frame[task].cast(pl.String).to_numpy().astype(str)
    group = np.unique(labels, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    return group[order], order


def runs(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row and number of rows of each group of a sorted index."""
    _, start, count = np.unique(group, return_index=True, return_counts=True)
    return start, count


class Checked(NamedTuple):
    """A table that one target can be learned from: rows in the order of the groups."""

    frame: pl.DataFrame
    task: str
    target: str
    names: list[str]  # of the features
    where: str
    group: np.ndarray
    held: np.ndarray
    fold: np.ndarray
    units: Units | None
    z: np.ndarray  # the target in the model's units, or class indices
    labels: list[str] | None
    values: list | None  # of the classes, as a feature column holds them
    notes: tuple[str, ...] = ()  # groups left out


def check_all(
    frame: pl.DataFrame,
    task: str,
    targets: list[str],
    features: Sequence[str] | None,
    where: str,
    *,
    skip: dict[str, str] | None = None,
    **settings,
) -> list[Checked]:
    """Every target found good, before anything is learned; those before it are features of a later
    one.

    With `skip`, groups that are no good are left out and noted, and so are those that it names
    (with the reason).
    """
    if not targets:
        raise InputError(f"{where}: target is empty; give the name of a column, or several.")
    for i, name in enumerate(targets):
        if name in targets[:i]:
            raise InputError(f"{where}: the target {name!r} is given twice.")
        names = feature_columns(frame, task, name, features, settings["split_by"], where)
    names = [name for name in names if name not in targets]
    frame, notes = without_bad(frame, task, targets, where, skip, settings["kind"], settings["log"])
    checked = []
    for name in targets:
        checked.append(check(frame, task, name, names, where, **settings)._replace(notes=notes))
        if (
            is_text(frame[name]) and checked[-1].labels is None
        ):  # written as text, and so would be a text feature
            frame = frame.with_columns(pl.Series(name, numeric_text(frame[name], where, name)))
        names = [*names, name]
    return checked


def without_bad(
    frame: pl.DataFrame,
    task: str,
    targets: list[str],
    where: str,
    skip: dict[str, str] | None,
    kind: str,
    log: bool,
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The table without its bad groups and what to say of them; without `skip` a bad group is an
    error.
    """
    left = dict(skip or {})
    for name in targets:
        for group, why in bad_groups(frame, task, name, where, kind, log).items():
            if skip is None:
                raise InputError(
                    f"{where}: column {name!r}, {why}. Correct it, or leave such groups out with {SKIP}."
                )
            left.setdefault(group, f"column {name!r}, {why}")
    bad = pl.col(task).cast(pl.String).is_in(list(left)).fill_null(False)
    kept = frame.filter(~bad)
    if left and not kept.height:
        raise InputError(
            f"{where}: no group is left; the first was left out as {next(iter(left.values()))}."
        )
    return kept, tuple(f"{task} {group}: left out, {why}." for group, why in left.items())


def check(
    frame: pl.DataFrame,
    task: str,
    target: str,
    names: list[str],
    where: str,
    *,
    kind: str,
    log: bool,
    split_by: str | None,
    holdout: float,
    seed: int,
) -> Checked:
    """Groups, their split, and one target in the model's units."""
    y, labels = target_values(frame[target], where, target, kind)
    values = None
    if labels is not None:
        levels = frame[target].unique().sort()
        values = labels if is_text(levels) else numbers(levels).tolist()
    group, order = sorted_groups(frame, task, where)
    frame, y = frame[order], y[order]
    held, fold = split_groups(frame, group, task, split_by, holdout, seed, where)
    train = ~held[group]
    if labels is not None:
        need_classes(y[train], fold[group][train], labels, where, target)
        return Checked(
            frame, task, target, names, where, group, held, fold, None, y, labels, values
        )
    z = np.log(y) if log else y
    spread = z[train].std()
    if not spread > 1e-12 * max(1.0, np.abs(z).max()):
        raise InputError(f"{where}: column {target!r} is constant; there is nothing to learn.")
    center = float(z[train].mean())
    z = (z - center) / float(spread)
    units = Units(center, float(spread), float(z[train].min()), float(z[train].max()), log)
    return Checked(frame, task, target, names, where, group, held, fold, units, z, None, None)
