"""A user's table, checked before anything is learned; messages name the file, column and row."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.covariate import need_covariate
from metaprior.tables.groups import said_of_split, sorted_groups, split_groups
from metaprior.tables.meaning.kinds import KEEP_NA, Kind
from metaprior.tables.meaning.notes import Note, count, lines, some
from metaprior.tables.meaning.understand import FEW, understand
from metaprior.tables.meaning.values import is_text, numbers, oddities
from metaprior.tables.plan import Plan
from metaprior.tables.read import Rows
from metaprior.tables.reading.names import counts_rows
from metaprior.tables.scaling import Used, used_columns
from metaprior.tables.target_scale import TargetScale, choose, named
from metaprior.tables.targets import (
    Measure,
    bad_groups,
    said_of_target,
    standardised,
    target_values,
)

if TYPE_CHECKING:  # it loads JAX, and a table is checked without
    from metaprior.evaluation.units import Units

SKIP = "--skip-bad-tasks (in Python skip_bad_tasks=True)"
DROP = "--drop-missing-targets (in Python drop_missing_targets=True)"


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
        measure: the units of the target; `None` for classes.
        z: the target in the model's units, or class indices, `(n,)`.
        labels: of the classes; `None` for numbers.
        values: the classes as a feature column holds them.
        ordered: whether the classes have an order.
        used: what was learned of each feature column.
        kinds: how columns are read; strictly where they are used.
        notes: what was made of the columns, and what was left out.
    """

    frame: pl.DataFrame
    task: str
    target: str
    features: list[str]
    where: str
    group: np.ndarray
    held: np.ndarray
    fold: np.ndarray
    measure: Measure | None
    z: np.ndarray
    labels: list[str] | None
    values: list | None
    used: list[Used]
    kinds: dict[str, Kind] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ordered: bool = False

    @property
    def units(self) -> "Units | None":
        """Of the target; `None` for classes."""
        from metaprior.evaluation.units import Units

        return None if self.measure is None else Units(*self.measure)

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
    if plan.choices.ordered and len(targets) > 1:
        raise InputError(
            f"{rows.where}: --ordered is of one target; fit the one with ordered classes alone."
        )
    if plan.scale == "counts" and len(targets) > 1:
        raise InputError(
            f"{rows.where}: of several targets none can be counts; --target-scale log1p is near."
        )
    for i, name in enumerate(targets):
        if name in targets[:i]:
            raise InputError(f"{rows.where}: the target {name!r} is given twice.")
        names = feature_columns(rows, plan.task, name, plan.features)
    names = [name for name in names if name not in targets]
    rows.need([name for name in plan.beside if name])
    if not rows.frame.height:
        raise InputError(f"{rows.where}: has columns but no rows.")

    table = understood(rows, plan)
    if plan.holdout_by:
        need_covariate(table.rows.frame, plan.holdout_by, plan.task, targets, rows.where)
    notes, names = _without_ids(table, plan, names)
    # Groups are left out for all targets at once, so that every target has the same groups.
    kept, left = _without_bad(rows, table, plan, skip)
    notes += _odd(table.rows.frame, kept, [*names, *targets], plan)
    frame = table.rows.frame.filter(pl.Series(kept))
    checked = []
    for name in targets:
        one = check(Rows(frame, rows.where), plan, name, names)
        said = _said_of(one, notes, plan)
        needed = {plan.task, *targets, *(used.name for used in one.used if not used.left_out)}
        kinds = {
            column: kind if column in needed else dataclasses.replace(kind, lax=True)
            for column, kind in table.kinds.items()
        }
        one = dataclasses.replace(one, kinds=kinds, notes=(*rows.notes, *said, *left))
        checked.append(one)
        names = [*names, name]
    return checked


def _without_ids(table: "Understood", plan: Plan, names: list[str]) -> tuple[list[Note], list[str]]:
    """Notes on the columns in use, and the features without those that only name the rows."""
    ids = []
    if plan.features is None:
        ids = [name for name in names if table.kinds[name].name == "id"]
    notes = [*table.notes, *(Note(name, _ROW_NAMES.format(name=name)) for name in ids)]
    more = [name for name in (plan.split_by, plan.holdout_by) if name]
    needed = {plan.task, *plan.targets, *names, *more}
    return [note for note in notes if note.column in needed], [n for n in names if n not in ids]


def _said_of(one: "Checked", notes: list[Note], plan: Plan) -> tuple[str, ...]:
    """What is said of the columns and the classes of one target."""
    learned = [note for used in one.used for note in used.notes]
    return (
        *lines([*notes, *learned]),
        *one.notes,
        *said_of_split(one.frame, one.group, one.held, plan),
    )


_ROW_NAMES = (
    "left out, nearly every row has a name of its own, which says nothing of a new group; "
    "--categorical {name} keeps it."
)


@dataclasses.dataclass(frozen=True)
class Understood:
    """A table whose columns have types, with what each is and what is said of them."""

    rows: Rows
    kinds: dict[str, Kind]
    notes: list[Note]


def understood(rows: Rows, plan: Plan) -> Understood:
    """What the columns of a table are, with the roles that a plan gives them."""
    targets = {}
    for name in plan.targets:
        targets[name] = plan.kind_of(name)
    return Understood(*understand(rows, plan.choices, [plan.task], targets, plan.drop))


def _odd(frame: pl.DataFrame, kept: np.ndarray, names: Sequence[str], plan: Plan) -> list[Note]:
    """What is odd about the numbers of some columns, in the rows that are kept."""
    notes = []
    for name in names:
        series = frame[name]
        if series.dtype.is_numeric():
            values = np.where(kept, numbers(series), np.nan)
            notes += [Note(name, one) for one in oddities(name, values)]
        if name in plan.targets:
            notes += [Note(name, one) for one in said_of_target(series, plan.kind_of(name))]
        elif series.dtype.is_integer() and len(series) >= FEW and counts_rows(series):
            said = "it only counts the rows; --features names what to predict from without it."
            notes.append(Note(name, said))
    return notes


def check(rows: Rows, plan: Plan, target: str, features: list[str]) -> Checked:
    """Groups, their split, and one target in the model's units; of a table without bad groups."""
    series, where = rows.frame[target], rows.where
    ordered = plan.choices.ordered
    y, labels = target_values(series, where, target, plan.kind_of(target), ordered)
    group, order = sorted_groups(rows.frame, plan.task, where)
    frame, y = rows.frame[order], y[order]
    split = (plan.task, plan.split_by, plan.holdout, plan.seed, where, plan.part, plan.holdout_by)
    held, fold = split_groups(frame, group, *split)
    train = ~held[group]
    shown = frame.filter(pl.Series(train))
    used = used_columns(shown, features, group[train], where)

    notes: list[str] = []
    if labels is None:
        alone = len(plan.targets) == 1
        scale = _scale(plan.scale, y[train], shown, used, group[train], fold, alone)
        notes = [f"{target}: {scale.said()}"] if scale.gain else []
        z, measure = standardised(y, train, scale, where, target)
        values = None
    else:
        notes = _rare_classes(y, group, held, labels, target)
        if plan.scale not in ("auto", "linear"):
            notes.append(_no_logarithm(where, target, alone=len(plan.targets) == 1))
        z, measure = y, None
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
        measure=measure,
        z=z,
        labels=labels,
        values=values,
        used=used,
        notes=tuple(notes),
        ordered=bool(ordered),
    )


def feature_columns(
    rows: Rows,
    task: str,
    target: str,
    features: Sequence[str] | None,
) -> list[str]:
    """Names of the feature columns: the chosen ones, or all others but those put aside."""
    where = rows.where
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
    rows.need([task, target, *(features or [])])
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
    rows: Rows, table: Understood, plan: Plan, skip: dict[str, str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which rows are kept, `(n,)`: those that can be used, of good groups; and notes on others.

    Without `skip` they are an error, but for rows that are to be dropped.
    """
    where, task, frame = rows.where, plan.task, table.rows.frame
    gone, said = _gone(rows, table, plan, skip)
    left = dict(skip or {})
    for name in plan.targets:
        bad = bad_groups(frame, task, name, where, plan.kind_of(name), plan.scale, gone)
        for group, why in bad.items():
            if skip is None:
                raise InputError(f"{where}: column {name!r}, {why}. {_remedy(why)}")
            left.setdefault(group, f"column {name!r}, {why}")

    out = pl.col(task).cast(pl.String).is_in(list(left)).fill_null(False)
    kept = ~frame.select(out).to_series().to_numpy() & ~gone
    if not kept.any():
        first = next(iter(left.values()), "a row without a value of the target")
        raise InputError(f"{where}: no group is left; the first was left out as {first}.")
    return kept, (*said, *(f"{task} {group}: left out, {why}." for group, why in left.items()))


def _gone(
    rows: Rows, table: Understood, plan: Plan, skip: dict[str, str] | None
) -> tuple[np.ndarray, list[str]]:
    """Rows that are left out by themselves, and notes on them."""
    frame, task, said = table.rows.frame, plan.task, []
    gone = frame[task].is_null().to_numpy()
    if gone.any():
        row = int(np.flatnonzero(gone)[0])
        cell = rows.frame[task][row]
        if skip is None:
            is_word = isinstance(cell, str) and cell.strip()
            keep = f"; if it is a name, add {KEEP_NA}" if is_word else ""
            what = f"{cell!r} counts as missing{keep}" if is_word else "no value"
            raise InputError(
                f"{rows.where}: column {task!r}, row {row + 1}: {what}. "
                f"Rows without a group are left out with {SKIP}."
            )
        said.append(f"{task}: {count(int(gone.sum()), 'row')} without a group left out.")
    if plan.drop:
        absent = np.zeros(frame.height, bool)
        for name in plan.targets:
            absent |= frame[name].is_null().to_numpy()
            if frame[name].dtype.is_float():
                absent |= frame[name].is_nan().fill_null(False).to_numpy()
        absent &= ~gone
        if absent.any():
            gone = gone | absent
            lost = frame[task].n_unique() - frame[task].filter(pl.Series(~gone)).n_unique()
            whole = f", and with them {count(lost, 'whole group')}" if lost else ""
            what = count(int(absent.sum()), "row")
            said.append(f"{', '.join(plan.targets)}: {what} without a value left out{whole}.")
    return gone, said


def _remedy(why: str) -> str:
    """What helps with a group that cannot be used."""
    drop = f"leave such rows out with {DROP}, or " if why.endswith("no value") else ""
    return f"Correct it, {drop or 'or '}leave such groups out with {SKIP}."


def _scale(
    asked: str,
    y: np.ndarray,
    frame: pl.DataFrame,
    used: list[Used],
    group: np.ndarray,
    fold: np.ndarray,
    alone: bool,
) -> TargetScale:
    """The scale that is asked for, or the one that suits the training rows."""
    if asked != "auto":
        return named(asked, y)
    number, group = np.unique(group, return_inverse=True)
    return choose(y, frame, used, group, fold[number], alone)


def _no_logarithm(where: str, target: str, alone: bool) -> str:
    """A note on a target of classes among others of which the logarithm is to be modelled.

    Raises:
        InputError: it is the only target, so that what was asked for cannot be done.
    """
    if alone:
        raise InputError(
            f"{where}: column {target!r} is classes, which have no logarithm; leave out "
            "--target-scale."
        )
    return f"{target}: classes have no logarithm; --target-scale is of the other targets."


def _rare_classes(
    y: np.ndarray, group: np.ndarray, held: np.ndarray, labels: list[str], target: str
) -> list[str]:
    """Notes on classes that occur in one group alone, or in no group to learn from."""
    pairs = np.unique(np.stack([y.astype(int), group]), axis=1)
    trained = np.bincount(pairs[0][~held[pairs[1]]], minlength=len(labels))
    once = [labels[i] for i in np.flatnonzero(trained == 1)]
    never = [labels[i] for i in np.flatnonzero(trained == 0)]
    said = []
    if once:
        said.append(f"{target}: {_named(once)} in one group only, and can hardly be learned.")
    if never:
        said.append(
            f"{target}: {_named(never)} in no group to learn from, only in those kept aside."
        )
    return said


def _named(labels: list[str]) -> str:
    if len(labels) == 1:
        return f"the class {labels[0]!r} occurs"
    return f"{len(labels)} classes ({some(labels)}) occur"
