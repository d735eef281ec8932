"""What a table is taken for before anything is learned: its columns, its groups, what is odd."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from metaprior.tables.checked import Checked
from metaprior.tables.groups import runs
from metaprior.tables.meaning.kinds import Kind
from metaprior.tables.meaning.notes import count, lines, some
from metaprior.tables.meaning.understand import understand
from metaprior.tables.meaning.values import numbers
from metaprior.tables.plan import Plan
from metaprior.tables.rows import Rows

_CALLED = {
    "number": "numbers",
    "date": "dates",
    "hours": "hours",
    "truth": "true or false",
    "name": "names",
    "id": "names of rows",
    "other": "no single values",
}
_LIKELY = 3  # candidates that are named


@dataclasses.dataclass(frozen=True)
class Column:
    """One column.

    Args:
        name: of it.
        role: `"group"`, `"target"`, `"feature"`, `"split"` or `"left out"`; empty where roles are
            not known yet.
        kind: what it was read as.
        values: the range of numbers and dates, how many names there are.
        missing: how many rows have no value.
    """

    name: str
    role: str
    kind: str
    values: str
    missing: int


@dataclasses.dataclass(frozen=True)
class Survey:
    """A table before anything is learned.

    Args:
        where: what messages call the table.
        rows: how many there are.
        columns: what each was read as.
        groups: how many there are, how many are kept aside, and the least, middle and largest
            number of their rows.
        todo: what `fit` would do, a sentence each.
        notes: what is odd, left out, or was made of the columns.
    """

    where: str
    rows: int
    columns: list[Column]
    groups: dict[str, int]
    todo: list[str]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)


def survey(checked: Sequence[Checked], plan: Plan, method: str = "auto") -> Survey:
    """Of a table that was found good.

    Args:
        checked: of each target.
        plan: what is to be learned.
        method: that is to learn it.
    """
    last = checked[-1]
    size = runs(last.group)[1]
    held = int(last.held.sum())
    groups = {
        "number": len(size),
        "kept_aside": held,
        "least": int(size.min()),
        "middle": int(np.median(size)),
        "most": int(size.max()),
    }
    used = {one.name for part in checked for one in part.used if not one.left_out}

    def role(name: str) -> str:
        if name == plan.task:
            return "group"
        if name in plan.targets:
            return "target"
        if name in used:
            return "feature"
        return "split" if name in (plan.split_by, plan.holdout_by) else "left out"

    frame = last.frame
    columns = [_column(frame[c], last.kinds[c], role(c)) for c in frame.columns]
    notes = list(dict.fromkeys(note for one in checked for note in one.notes))
    todo = [_said_of_groups(groups), *(_said_of_target(one) for one in checked)]
    todo.append(_said_of_features(columns))
    todo.append(_said_of_method(method))
    return Survey(last.where, frame.height, columns, groups, todo, notes)


def first_look(rows: Rows, plan: Plan) -> Survey:
    """Of a table of which the groups or the target are not known: with candidates for both."""
    found, kinds, notes = understand(rows, plan.choices)
    frame = found.frame
    columns = [_column(frame[c], kinds[c], "") for c in frame.columns]
    groups = _likely_groups(frame, kinds)
    targets = [c for c in _likely_targets(frame, kinds) if c not in groups[:1]]
    todo = [
        f"--task names the column of groups: perhaps {_either(groups)}.",
        f"--target names the column to predict: perhaps {_either(targets)}.",
    ]
    return Survey(rows.where, frame.height, columns, {}, todo, [*rows.notes, *lines(notes)])


def short(found: Survey) -> str:
    """What `fit` says before it learns."""
    return f"{found.where}: {found.rows:,} rows. {' '.join(found.todo[:-1])}"


def _column(series: pl.Series, kind: Kind, role: str) -> Column:
    absent = series.null_count()
    if series.dtype.is_float():
        absent += int(series.is_nan().fill_null(False).sum())
    return Column(series.name, role, _kind(kind), _values(series, kind), absent)


def _kind(kind: Kind) -> str:
    """What a column was read as, in words."""
    how = []
    if kind.decimal == ",":
        how.append("decimal comma")
    if kind.unit:
        how.append(kind.unit)
    if kind.name == "date" and kind.order == "mdy":
        how.append("month first")
    return _CALLED[kind.name] + (f" ({', '.join(how)})" if how else "")


def _values(series: pl.Series, kind: Kind) -> str:
    """The range of a column, or its names."""
    seen = series.drop_nulls()
    if not len(seen) or kind.name == "other":
        return ""
    if kind.name == "date":
        low, high = (f"{value:%Y-%m-%d}" for value in (seen.min(), seen.max()))
        return f"{low} to {high}"
    if kind.name in ("number", "hours"):
        values = numbers(seen)
        values = values[np.isfinite(values)]
        return f"{values.min():g} to {values.max():g}" if len(values) else ""
    if kind.name == "truth":
        return f"{int(seen.sum())} of {len(seen)} true"
    names = seen.cast(pl.String).unique().sort()
    return f"{len(names):,}: {some(names.head(3).to_list())}{', …' if len(names) > 3 else ''}"


def _said_of_groups(groups: dict[str, int]) -> str:
    least, most = groups["least"], groups["most"]
    each = f"of {count(least, 'row')} each"
    if least < most:
        each = f"of {least:,} to {most:,} rows, {groups['middle']:,} in the middle"
    aside = groups["kept_aside"]
    kept = f", {aside:,} of them kept aside to judge by" if aside else ""
    return f"{count(groups['number'], 'group')} {each}{kept}."


def _said_of_target(one: Checked) -> str:
    if one.labels is not None:
        if one.ordered:
            return f"{one.target}: {one.classes} classes in an order ({' < '.join(one.labels)})."
        return f"{one.target}: {one.classes} classes ({some(one.labels)})."
    kind = one.kinds[one.target]
    return f"{one.target}: {_kind(kind)} from {_values(one.frame[one.target], kind)}."


def _said_of_features(columns: list[Column]) -> str:
    names: dict[str, list[str]] = {}
    for column in columns:
        if column.role == "feature":
            names.setdefault(column.kind, []).append(column.name)
    if not names:
        return "Predicted from the group alone."
    said = (f"{_few(called)} ({kind})" for kind, called in names.items())
    return f"Predicted from {', '.join(said)}."


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{len(names)} columns such as {names[0]}"


def _said_of_method(method: str) -> str:
    if method == "auto":
        return "Method: auto, which weighs several learners on groups that they have not seen."
    return f"Method: {method}."


def _either(names: Sequence[str]) -> str:
    if not names:
        return "none of these"
    return " or ".join(names[:_LIKELY])


def _likely_groups(frame: pl.DataFrame, kinds: dict[str, Kind]) -> list[str]:
    """Columns that may name groups: names or whole numbers that repeat; the likeliest first."""
    found = []
    for series in frame.iter_columns():
        is_name = kinds[series.name].name == "name"
        if not (is_name or series.dtype.is_integer()):
            continue
        many = series.n_unique()
        if not 3 <= many <= frame.height / 2:
            continue
        # Rows of a group mostly stand together.
        text = series.cast(pl.String).fill_null("")
        stretches = int((text != text.shift(1)).fill_null(True).sum())
        found.append((stretches > 2 * many, not is_name, -many, series.name))
    return [name for *_, name in sorted(found)]


def _likely_targets(frame: pl.DataFrame, kinds: dict[str, Kind]) -> list[str]:
    """Columns that may be the target: numbers with many values, the last ones first."""
    found = []
    for place, series in enumerate(frame.iter_columns()):
        kind = kinds[series.name].name
        if kind not in ("number", "truth", "name") or series.drop_nulls().n_unique() < 2:
            continue
        many = series.dtype.is_float() or series.n_unique() > 20
        found.append((not (kind == "number" and many), -place, series.name))
    return [name for *_, name in sorted(found)]
