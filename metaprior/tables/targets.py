"""Target columns: numbers or classes, in the model's units and back; which rows cannot be used."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from metaprior.bends import Shares, YeoJohnson
from metaprior.errors import InputError
from metaprior.tables.meaning.notes import some
from metaprior.tables.meaning.values import as_numbers, is_text, usable
from metaprior.tables.target_scale import TargetScale

if TYPE_CHECKING:  # it loads JAX, and a table is checked without
    from metaprior.evaluation.units import Units

# Single precision holds seven digits: beyond so many typical deviations all other values are one
# number.
FAR = 1e7
HUGE = 1e100  # whose square is still a number
MOST_CLASSES = 200


class Measure(NamedTuple):
    """The units of a target as plain values; see `Units`, which loads JAX."""

    center: float
    scale: float
    low: float
    high: float
    log: bool
    shift: float = 0.0
    counts: bool = False
    bend: Shares | YeoJohnson | None = None


def holds_classes(series: pl.Series, kind: str) -> bool:
    """Whether a target is classes: as `kind` says, else text, booleans, or 0 and 1."""
    if kind != "auto":
        return kind == "classes"
    if is_text(series) or series.dtype == pl.Boolean:
        return True
    if not series.dtype.is_numeric():
        return False
    values = series.drop_nulls().unique()
    return len(values) == 2 and bool(values.cast(pl.Float64).is_in([0.0, 1.0]).all())


def said_of_target(series: pl.Series, kind: str) -> list[str]:
    """What a user should know of how a target is taken."""
    values = series.drop_nulls().unique()
    if kind != "auto" or not series.dtype.is_numeric() or len(values) != 2:
        return []
    if holds_classes(series, kind):
        return [f"0 and 1 are two classes; --numeric {series.name} makes numbers of them."]
    low, high = values.min(), values.max()
    return [f"only the numbers {low} and {high}; --classes makes two classes of them."]


def bad_groups(
    frame: pl.DataFrame,
    task: str,
    target: str,
    where: str,
    kind: str,
    scale: str,
    gone: np.ndarray,
) -> dict[str, str]:
    """Groups with a target that nothing can be learned from, and the first row that says why.

    Args:
        frame: the rows.
        task, target: names of columns.
        where: what messages call the table.
        kind, scale: of the target; see `Plan`.
        gone: rows that are left out, and not looked at, `(n,)`.
    """
    series = frame[target]
    group = frame[task].cast(pl.String).fill_null("").to_numpy().astype(str)
    empty = series.is_null().to_numpy()
    wrong = [(empty & ~gone, "no value")]
    if not holds_classes(series, kind):
        y = as_numbers(series, where)
        wrong += _bad_numbers(np.where(gone, np.nan, y), empty | gone, group, scale)

    found: dict[str, str] = {}
    for mask, words in wrong:
        for row in np.flatnonzero(mask):
            name = str(group[row])
            why = words.format(series[int(row)])
            found.setdefault(name, f"row {row + 1} (group {name!r}): {why}")
    return found


def _bad_numbers(
    y: np.ndarray, empty: np.ndarray, group: np.ndarray, scale: str
) -> list[tuple[np.ndarray, str]]:
    """Masks of rows that cannot be used, each with what to say of them."""
    finite = np.isfinite(y)
    wrong = [(~finite & ~empty, "{} is not a finite number")]
    if scale == "log":
        wrong.append((finite & (y <= 0), "{} has no logarithm"))
        finite &= y > 0
        z = np.log(y, where=finite, out=np.zeros(len(y)))
    elif scale == "counts":
        wrong.append((finite & ((y < 0) | (y != np.round(y))), "{} is no count"))
        finite &= y >= 0
        z = np.where(finite, y, 0.0)
    elif scale == "log1p":
        wrong.append((finite & (y < 0), "{} is below zero, which log1p does not take"))
        finite &= y >= 0
        z = np.where(finite, y, 0.0)
    elif scale == "shares":
        whole = 1.0 if (y[finite] <= 1).all() else 100.0
        wrong.append((finite & ((y < 0) | (y > whole)), f"{{}} is no share of {whole:g}"))
        finite &= (y >= 0) & (y <= whole)
        z = np.where(finite, y, 0.0)
    else:
        z = np.where(finite, y, 0.0)

    far = np.zeros(len(y))
    if finite.any():
        with np.errstate(over="ignore"):
            far = np.where(finite, np.abs(z - np.median(z[finite])), 0.0)
    names, index = np.unique(group, return_inverse=True)
    most = np.zeros(len(names))
    np.maximum.at(most, index, far)
    typical = np.median(most)  # a group's farthest value, in the middle one of the groups
    huge = (far / FAR > typical) & (typical > 0) | (far > HUGE)
    words = "{} is so far from the values of other groups that nothing can be learned from those"
    return [*wrong, (huge, words)]


def target_values(
    series: pl.Series, where: str, target: str, kind: str, ordered: Sequence[str] = ()
) -> tuple[np.ndarray, list[str] | None]:
    """Numbers, or class indices with the labels of the classes; of a target without bad groups.

    Args:
        series: the column.
        where: what messages call the table.
        target: its name.
        kind: see `Plan`.
        ordered: labels of its classes from the lowest to the highest, where they have an order.
    """
    if not holds_classes(series, kind):
        y = as_numbers(series, where)
        if y.min() == y.max():
            raise InputError(
                f"{where}: column {target!r} is constant ({y[0]}); there is nothing to learn."
            )
        return y, None

    labels = series.unique().sort().to_list()
    if len(labels) < 2:
        raise InputError(f"{where}: column {target!r} is constant; there is nothing to learn.")
    if len(labels) > MOST_CLASSES:
        raise InputError(
            f"{where}: column {target!r} has {len(labels)} classes; at most {MOST_CLASSES}. "
            "If it is numbers, --numeric makes them so; if it is names that hardly repeat, another "
            "column is to be predicted."
        )
    if ordered:
        return _ordered(series, labels, list(ordered), where)
    index = {label: i for i, label in enumerate(labels)}
    return np.array([index[v] for v in series.to_list()], float), [str(v) for v in labels]


def _ordered(
    series: pl.Series, labels: list, ordered: list[str], where: str
) -> tuple[np.ndarray, list[str]]:
    """Places of the values of a column in an order of all its classes."""
    for name in ordered:
        if ordered.count(name) > 1:
            raise InputError(f"{where}: --ordered names the class {name!r} twice.")
    if len(ordered) < 3:
        raise InputError(
            f"{where}: --ordered takes three classes or more, from the lowest to the highest; of "
            "two the order says nothing: leave it out."
        )
    found = {label: _same_label(str(label), ordered) or "" for label in labels}
    strange = [str(label) for label, name in found.items() if name not in ordered]
    if strange:
        raise InputError(
            f"{where}: column {series.name!r} holds {some(strange)}, which --ordered does not "
            f"name; it names {some(ordered)}."
        )
    never = [name for name in ordered if name not in found.values()]
    if never:
        raise InputError(
            f"{where}: column {series.name!r} never holds {some(never)}, so nothing can be learned "
            "of it; leave it out of --ordered."
        )
    index = {label: float(ordered.index(name)) for label, name in found.items()}
    return np.array([index[v] for v in series.to_list()]), ordered


def standardised(
    y: np.ndarray, train: np.ndarray, scale: TargetScale, where: str, target: str
) -> tuple[np.ndarray, Measure]:
    """Numbers in the model's units, and the units, which come from the rows in `train`."""
    z = scale.of(np.where(train, scale.spread(y), y))
    # Around a middle value, so that a large offset leaves the squares exact; and over the farthest,
    # so that squares of very small numbers are numbers.
    middle = np.median(z[train])
    reach = np.abs(z[train] - middle).max()
    spread = reach * ((z[train] - middle) / max(reach, 1e-300)).std()
    # A number in double precision is exact to 1e-16 of its size; the logarithm of one near 1 too.
    if not spread > 1e-12 * max(np.abs(z).max(), 0.0 if scale.name == "linear" else 1.0):
        raise InputError(f"{where}: column {target!r} is constant; there is nothing to learn.")
    center = float(middle + (z[train] - middle).mean())
    z = (z - center) / float(spread)
    low, high = float(z[train].min()), float(z[train].max())
    kind = scale.log, scale.shift, scale.counts, scale.bend
    return z, Measure(center, float(spread), low, high, *kind)


def in_units(series: pl.Series, units: "Units", where: str) -> np.ndarray:
    """Outcomes of a new group in the model's units, `(n, 1)`.

    One that is very far off is an error: beside it all other rows would be one number.
    """
    with usable(series, where):
        y = as_numbers(series, where)
    no_count = units.counts & ((y < 0) | (y != np.round(y)))
    bad = ~np.isfinite(y) | (units.log & (y + units.shift <= 0)) | no_count
    if units.bend is not None:
        bad |= ~units.bend.takes(y)
    z = units.to_z(np.where(bad, units.to_y(0.0), y))
    for row in np.flatnonzero(bad | (np.abs(z) > FAR)).tolist():
        why = ""
        if no_count[row] and np.isfinite(y[row]):
            why = ": it is no count; a prior fitted with --target-scale linear takes it"
        elif bad[row] and np.isfinite(y[row]) and isinstance(units.bend, Shares):
            why = f": {_no_share(units.bend)}; a prior fitted with --target-scale linear takes it"
        elif bad[row] and np.isfinite(y[row]):
            why = ": it has no logarithm; a prior fitted with --target-scale linear takes it"
        elif not bad[row]:
            why = f": it is {abs(z[row]):.0e} standard deviations from what was learned from"
        raise InputError(
            f"{where}: column {series.name!r}, row {row + 1}: {series[row]} cannot be used{why}."
        )
    return np.asarray(z, np.float32)[:, None]


def _no_share(bend: Shares) -> str:
    """Why a number is no share of a whole."""
    ends = "from 0 to" if bend.margin else "above 0 and below"
    return f"the shares that were learned from were {ends} {bend.size:g}"


def far_outside(z: np.ndarray, units: "Units") -> int | None:
    """The first outcome that lies beyond all training outcomes by more than their whole range.

    Args:
        z: outcomes in the model's units, `(n,)`.
        units: of the target.
    """
    reach = units.high - units.low
    rows = np.flatnonzero((z < units.low - reach) | (z > units.high + reach)).tolist()
    return rows[0] if rows else None


def class_indices(series: pl.Series, classes: list[str], where: str) -> np.ndarray:
    """Classes of a new group as their indices, `(n, 1)`."""
    index = {label: i for i, label in enumerate(classes)}
    found = []
    for row, value in enumerate(series.to_list()):
        label = _same_label(None if value is None else str(value), index)
        if label not in index:
            raise InputError(
                f"{where}: column {series.name!r}, row {row + 1}: {label!r} is no class; "
                f"classes: {', '.join(index)}."
            )
        found.append(index[label])
    return np.array(found, np.float32)[:, None]


def _same_label(label: str | None, index: Collection[str]) -> str | None:
    """The known label that is the same number as this one: 1 and 1.0 are one label."""
    if label is None or label in index:
        return label
    try:
        return next((known for known in index if float(known) == float(label)), label)
    except ValueError:
        return label
