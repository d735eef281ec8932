"""How a table becomes groups: columns, outcomes, splits; every complaint names file, column and row."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.evaluate import Units
from metaprior.table import is_text, need_columns, numbers, numeric_text

FOLDS = 5
Arrays = Sequence[tuple[Any, Any]]


def feature_columns(frame, task, target, features, split_by, where) -> list[str]:
    """Names of the feature columns: those asked for, or all but task and target."""
    need_columns(frame, [task, target, *(features or []), *([split_by] if split_by else [])], where)
    if task == target:
        raise InputError(f"{where}: task and target are the same column {task!r}.")
    for name in features or []:
        if name in (task, target):
            raise InputError(f"{where}: {name!r} is the {'task' if name == task else 'target'}, not a feature.")
    return list(features) if features else [c for c in frame.columns if c not in (task, target)]


def target_values(series: pl.Series, where: str, target: str, kind: str, log: bool) -> tuple[np.ndarray, list | None]:
    """Numbers, or class indices with the classes' labels."""
    empty = series.is_null().arg_true()
    if len(empty):
        raise InputError(f"{where}: column {target!r}, row {int(empty[0]) + 1}: no value.")
    text, labels = is_text(series), series.unique().sort()
    as_classes = kind == "classes"
    if kind == "auto":
        if text:
            parsed = series.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
            as_classes = parsed.is_not_null().mean() < 0.5 and len(labels) <= 20  # ty: ignore[unsupported-operator]
        else:
            as_classes = series.dtype == pl.Boolean or len(labels) == 2
    if as_classes:
        if len(labels) < 2:
            raise InputError(f"{where}: column {target!r} is constant; there is nothing to learn.")
        if len(labels) > 100:
            raise InputError(f"{where}: column {target!r} has {len(labels)} classes; at most 100.")
        index = {label: i for i, label in enumerate(labels.to_list())}
        return np.array([index[v] for v in series.to_list()], float), [str(v) for v in labels.to_list()]
    y = numeric_text(series, where, target) if text else numbers(series)
    bad = np.flatnonzero(~np.isfinite(y))
    if len(bad):
        raise InputError(f"{where}: column {target!r}, row {bad[0] + 1}: {y[bad[0]]} is not a finite number.")
    if log and (y <= 0).any():
        row = int(np.flatnonzero(y <= 0)[0])
        raise InputError(f"{where}: column {target!r}, row {row + 1}: {y[row]} has no logarithm.")
    if y.min() == y.max():
        raise InputError(f"{where}: column {target!r} is constant ({y[0]}); there is nothing to learn.")
    return y, None


def need_classes(y: np.ndarray, fold: np.ndarray, labels: list, where: str, target: str) -> None:
    """Each class occurs in the groups outside every fold, so that all members see all classes."""
    for k in range(fold.max() + 1):
        missing = np.setdiff1d(np.arange(len(labels)), y[fold != k])
        if len(missing):
            raise InputError(
                f"{where}: column {target!r}: the class {labels[missing[0]]!r} occurs in too few groups; cross-fitting "
                "needs each class in several groups."
            )


def split_groups(frame, group, task, split_by, holdout, seed, where) -> tuple[np.ndarray, np.ndarray]:
    """Which groups are held out, and the fold of the others; groups that share `split_by` stay together."""
    start, _ = runs(group)
    units = np.arange(len(start))
    if split_by:
        units = np.unique(frame[split_by].cast(pl.String).fill_null("").to_numpy()[start], return_inverse=True)[1]
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


def check_all(
    frame: pl.DataFrame, task: str, targets: list[str], features: Sequence[str] | None, where: str, **settings
) -> list[Checked]:
    """Every target found good, before anything is learned; those before it are features of a later one."""
    if not targets:
        raise InputError(f"{where}: target is empty; give the name of a column, or several.")
    for i, name in enumerate(targets):
        if name in targets[:i]:
            raise InputError(f"{where}: the target {name!r} is given twice.")
        names = feature_columns(frame, task, name, features, settings["split_by"], where)
    names = [name for name in names if name not in targets]
    checked = []
    for name in targets:
        checked.append(check(frame, task, name, names, where, **settings))
        if is_text(frame[name]) and checked[-1].labels is None:  # written as text, and so would be a text feature
            frame = frame.with_columns(pl.Series(name, numeric_text(frame[name], where, name)))
        names = [*names, name]
    return checked


def check(
    frame: pl.DataFrame, task: str, target: str, names: list[str], where: str, *,
    kind: str, log: bool, split_by: str | None, holdout: float, seed: int,
) -> Checked:  # fmt: skip
    """Groups, their split, and one target in the model's units."""
    y, labels = target_values(frame[target], where, target, kind, log)
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
        return Checked(frame, task, target, names, where, group, held, fold, None, y, labels, values)
    z = np.log(y) if log else y
    spread = z[train].std()
    if not spread > 1e-12 * max(1.0, np.abs(z).max()):
        raise InputError(f"{where}: column {target!r} is constant; there is nothing to learn.")
    center = float(z[train].mean())
    z = (z - center) / float(spread)
    units = Units(center, float(spread), float(z[train].min()), float(z[train].max()), log)
    return Checked(frame, task, target, names, where, group, held, fold, units, z, None, None)
