"""The figures of `active-learning`: areas under curves, and gains on random labels."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from metaprior.protocols.active_learning.labelling import RULES, SEEKING
from metaprior.protocols.protocol import Figure, Metric
from metaprior.protocols.raw import lists

KEPT = 100  # tasks of a setting whose judged rows are kept one by one
ROWS = ("log_p", "mean", "std")
BY_RULE = ("nll", "error", "picks")  # arrays of `Found` whose first axis is rules


def metric_of(kind: str, rule: str) -> str:
    """The area of random labels, or the gain of another rule on it."""
    name = rule.replace(" ", "_")
    return f"{kind}_{name}" if rule == "random" else f"{kind}_gain_{name}"


def _metrics() -> dict[str, Metric]:
    """Areas under random's curves, and what each other rule is below them."""
    short = "training deviations short of the pool's best"
    spent = "training deviations, mean over seconds spent"
    kinds = {
        "nll": ("NLL", "nats a row", RULES),
        "error": ("error", "squared training deviations, or share of wrong classes", RULES),
        "regret": ("regret", short, (*RULES, SEEKING[0])),
        "timed": ("regret in time", spent, (*RULES, *SEEKING)),
    }
    found = {}
    for kind, (name, unit, rules) in kinds.items():
        found[metric_of(kind, "random")] = Metric(f"{name}, random labels", unit, "low")
        for rule in rules[1:]:
            gain = f"{name}: random minus {rule}"
            found[metric_of(kind, rule)] = Metric(gain, unit, "high")
    return found


METRICS = _metrics()


class Found(NamedTuple):
    """What one setting gave, arrays with leading axes of rules and tasks.

    Args:
        rules: their names.
        nll, error: `(r, t, labels + 1)`.
        picks: rows of the pool in the order in which they were labelled, `(r, t, labels)`.
        x, y, mask: of the pool, `(t, n, d)`, `(t, n)` and `(t, n)`.
        unit: of each task; tasks of one unit are averaged before standard errors are taken.
        sign: of y that is sought, 0 where none is.
        cost: seconds of each row of the pool, `(t, n)`.
        judged: of the first `KEPT` tasks, each judged row: `log_p`, `mean` and `std` with axes
            `(r, t, labels + 1, q, …)`, of classes no `std`; and `y` and `mask`, `(t, q)`.
    """

    rules: tuple[str, ...]
    nll: np.ndarray
    error: np.ndarray
    picks: np.ndarray
    x: np.ndarray
    y: np.ndarray
    mask: np.ndarray
    unit: np.ndarray
    sign: int
    cost: np.ndarray
    judged: dict[str, np.ndarray]


def joined_splits(parts: Sequence[Found]) -> Found:
    """The tasks of several splits as one set; judged rows are kept of the first split."""
    arrays: dict[str, Any] = {}
    for name in (*BY_RULE, "x", "y", "mask", "unit", "cost"):
        each = [getattr(part, name) for part in parts]
        arrays[name] = np.concatenate(each, axis=1 if name in BY_RULE else 0)
    return parts[0]._replace(**arrays)


def best_found(found: Found) -> tuple[np.ndarray, np.ndarray]:
    """Regret against the pool's best row, and seconds spent; `(r, t, labels + 1)` each.

    y is in training deviations. Before the first label the regret is that of a row at random.
    """
    good = np.where(found.mask, found.sign * found.y, -np.inf)
    top = good.max(1)
    start = top - np.where(found.mask, good, 0.0).sum(1) / found.mask.sum(1)

    def in_order(a: np.ndarray) -> np.ndarray:
        """Values of the rows in the order in which they were labelled."""
        return np.stack([np.take_along_axis(a, picks, 1) for picks in found.picks])

    regret = top[None, :, None] - np.maximum.accumulate(in_order(good), -1)
    before = np.broadcast_to(start[None, :, None], (*regret.shape[:2], 1))
    seconds = in_order(found.cost).cumsum(-1)
    return (
        np.concatenate([before, regret], -1),
        np.concatenate([np.zeros_like(before), seconds], -1),
    )


def regret_in_time(regret: np.ndarray, seconds: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """Mean regret while the first `budget` seconds `(t,)` are spent.

    A row counts once its seconds have passed.
    """
    never = np.full((*seconds.shape[:2], 1), np.inf)
    ends = np.minimum(np.concatenate([seconds, never], -1), budget[None, :, None])
    return (regret * np.diff(ends, axis=-1)).sum(-1) / budget[None]


def mean_of_units(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """One value a unit."""
    _, index, count = np.unique(unit, return_inverse=True, return_counts=True)
    return np.bincount(index, values) / count


def areas_of(found: Found) -> dict[str, np.ndarray]:
    """Areas under the curves, `(r, t)`: means over 1 … labels."""
    areas = {"nll": found.nll[:, :, 1:].mean(-1), "error": found.error[:, :, 1:].mean(-1)}
    if not found.sign:
        return areas
    regret, seconds = best_found(found)
    areas["regret"] = regret[:, :, 1:].mean(-1)
    if (found.cost != 1).any():
        average = np.where(found.mask, found.cost, 0.0).sum(1) / found.mask.sum(1)
        labels = found.picks.shape[-1]
        areas["timed"] = regret_in_time(regret, seconds, average * labels / 2)
    return areas


def figures_of(setting: str, found: Found) -> list[Figure]:
    """Areas of random labels, and the paired gains of the other rules on them."""
    figures = []
    for kind, area in areas_of(found).items():
        for rule, values in zip(found.rules, area):
            name = metric_of(kind, rule)
            if name in METRICS:
                gain = values if rule == "random" else area[0] - values
                figures.append(Figure.of(setting, name, mean_of_units(gain, found.unit)))
    return figures


def columns_of(setting: str, found: Found) -> dict[str, np.ndarray]:
    """Raw predictions: a row for each rule, task and number of labels."""
    r, t, n = found.nll.shape
    rule, task, labels = (i.ravel() for i in np.indices((r, t, n)))
    # the row that was labelled last; -1 before the first label
    last = np.concatenate([np.full((r, t, 1), -1), found.picks], -1).ravel()

    def of_last(a: np.ndarray) -> np.ndarray:
        return np.where(last >= 0, a[task, np.maximum(last, 0)], np.nan)

    return {
        "setting": np.full(r * t * n, setting),
        "rule": np.array(found.rules)[rule],
        "task": task.astype(np.int32),
        "unit": found.unit[task].astype(np.int32),
        "labels": labels.astype(np.int32),
        "row": last.astype(np.int32),
        "y": of_last(found.y).astype(np.float32),
        "seconds": of_last(found.cost).astype(np.float32),
        "nll": found.nll.ravel().astype(np.float32),
        "error": found.error.ravel().astype(np.float32),
        **_judged_rows(found, rule, task, labels),
    }


def kept_rows(judged: dict[str, np.ndarray], y: np.ndarray, mask: np.ndarray) -> dict:
    """`Found.judged` from arrays of all tasks."""
    kept = {name: judged[name][:, :KEPT] for name in ROWS if name in judged}
    return kept | {"y": y[:KEPT], "mask": mask[:KEPT]}


def _judged_rows(found: Found, rule, task, labels) -> dict[str, np.ndarray]:
    """Lists of what was said of each judged row; `None` for tasks that are not kept."""
    own, kept = found.judged, len(found.judged["mask"])

    def each(values: Callable) -> np.ndarray:
        places = zip(rule, task, labels)
        return lists([values(r, t, n) if t < kept else None for r, t, n in places])

    columns = {}
    for name in ROWS:

        def said(r, t, n):
            return own[name][r, t, n][own["mask"][t]].ravel()

        none = lists([None] * len(task))  # of classes there is no standard deviation
        columns[f"judged_{name}"] = each(said) if name in own else none

    def outcome(r, t, n):
        return own["y"][t][own["mask"][t]]

    return columns | {"judged_y": each(outcome)}


def curves(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """For pictures, from `(r, t, labels + 1)`: means over units with half their 95 % intervals.

    Returns:
        `(3, r, labels + 1)`: the means, half an interval of them, and half an interval of their
        differences from random's.
    """
    by_unit = [[mean_of_units(v, unit) for v in rule.T] for rule in values]
    each = np.array(by_unit)  # (r, labels + 1, u)

    def half(a: np.ndarray) -> np.ndarray:
        count = a.shape[-1]
        if count == 1:  # one unit has no interval
            return np.full(a.shape[:-1], np.nan)
        return 1.96 * a.std(-1, ddof=1) / count**0.5

    return np.stack([each.mean(-1), half(each), half(each - each[:1])])
