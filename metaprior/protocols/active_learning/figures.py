"""figures of active-learning."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metaprior.protocols.active_learning.labelling import RULES, SEEKING
from metaprior.protocols.protocol import (
    Figure,
    Metric,
)
from metaprior.protocols.raw import lists

KEPT = 100  # tasks of a setting whose judged rows are kept one by one


ROWS = ("log_p", "mean", "std")


def _metrics() -> dict[str, Metric]:
    """Areas under random's curves, and what each other rule is below them."""
    kinds = {
        "nll": ("NLL", "nats a row", RULES),
        "error": ("error", "squared training deviations, or share of wrong classes", RULES),
        "regret": ("regret", "training deviations short of the pool's best", (*RULES, SEEKING[0])),
        "timed": (
            "regret in time",
            "training deviations, mean over seconds spent",
            (*RULES, *SEEKING),
        ),
    }
    found = {}
    for kind, (name, unit, rules) in kinds.items():
        found[f"{kind}_random"] = Metric(f"{name}, random labels", unit, "low")
        for rule in rules[1:]:
            gain = f"{name}: random minus {rule}"
            found[f"{kind}_gain_{rule.replace(' ', '_')}"] = Metric(gain, unit, "high")
    return found


METRICS = _metrics()


class Found(NamedTuple):
    """What one setting gave, arrays with leading axes of rules and tasks.

    Args:
        rules: their names.
        nll, error: `(r, t, labels + 1)`; picks: `(r, t, labels)`, rows of the pool.
        x, y: of the pool, `(t, n, d)` and `(t, n)`; mask: `(t, n)`.
        unit: of each task; tasks of one unit are averaged before standard errors are taken.
        sign: of y that is sought, 0 where none is.
        cost: seconds of each row of the pool, `(t, n)`.
        judged: of the first `KEPT` tasks, each judged row: `log_p`, `mean` and `std` with axes `(r,
            t, labels + 1, q, …)`, of classes no `std`, and `y` and `mask`, `(t, q)`.
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


def best_found(found: Found) -> tuple[np.ndarray, np.ndarray]:
    """Regret against the pool's best, `(r, t, labels + 1)`, and seconds spent, the same shape; y in
    training deviations.

    Before the first label the regret is that of a row at random.
    """
    good = np.where(found.mask, found.sign * found.y, -np.inf)
    top = good.max(1)
    start = top - np.where(found.mask, good, 0.0).sum(1) / found.mask.sum(1)

    def at(a):
        return np.stack([np.take_along_axis(a, p, 1) for p in found.picks])

    regret = top[None, :, None] - np.maximum.accumulate(at(good), -1)
    regret = np.concatenate(
        [np.broadcast_to(start[None, :, None], (*regret.shape[:2], 1)), regret], -1
    )
    seconds = np.concatenate([np.zeros((*regret.shape[:2], 1)), at(found.cost).cumsum(-1)], -1)
    return regret, seconds


def regret_in_time(regret: np.ndarray, seconds: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """Mean regret while the first `budget` seconds `(t,)` are spent; a row counts once its seconds
    have passed.
    """
    ends = np.minimum(
        np.concatenate([seconds, np.full((*seconds.shape[:2], 1), np.inf)], -1),
        budget[None, :, None],
    )
    return (regret * np.diff(ends, axis=-1)).sum(-1) / budget[None]


def _mean_of_units(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """One value a unit."""
    _, index, count = np.unique(unit, return_inverse=True, return_counts=True)
    return np.bincount(index, values) / count


def figures_of(setting: str, found: Found) -> list[Figure]:
    """Areas under the curves (means over 1 … labels), and their paired differences from random's."""
    figures = []
    areas = {"nll": found.nll[:, :, 1:].mean(-1), "error": found.error[:, :, 1:].mean(-1)}
    if found.sign:
        regret, seconds = best_found(found)
        areas["regret"] = regret[:, :, 1:].mean(-1)
        if (found.cost != 1).any():
            pool = np.where(found.mask, found.cost, 0.0).sum(1) / found.mask.sum(1)
            areas["timed"] = regret_in_time(regret, seconds, pool * found.picks.shape[-1] / 2)
    for kind, area in areas.items():
        for rule, values in zip(found.rules, area):
            name = (
                f"{kind}_{rule.replace(' ', '_')}"
                if rule == "random"
                else f"{kind}_gain_{rule.replace(' ', '_')}"
            )
            if name in METRICS:
                gain = values if rule == "random" else area[0] - values
                figures.append(Figure.of(setting, name, _mean_of_units(gain, found.unit)))
    return figures


def columns_of(setting: str, found: Found) -> dict[str, np.ndarray]:
    """One row a rule, task and number of labels."""
    r, t, n = found.nll.shape
    rule, task, labels = (i.ravel() for i in np.indices((r, t, n)))
    before = np.concatenate([np.full((r, t, 1), -1), found.picks], -1).ravel()

    def at(a):
        return np.where(before >= 0, a[task, np.maximum(before, 0)], np.nan)

    return {
        "setting": np.full(r * t * n, setting),
        "rule": np.array(found.rules)[rule],
        "task": task.astype(np.int32),
        "unit": found.unit[task].astype(np.int32),
        "labels": labels.astype(np.int32),
        "row": before.astype(np.int32),
        "y": at(found.y).astype(np.float32),
        "seconds": at(found.cost).astype(np.float32),
        "nll": found.nll.ravel().astype(np.float32),
        "error": found.error.ravel().astype(np.float32),
        **_judged_rows(found, rule, task, labels),
    }


def _judged_rows(found: Found, rule, task, labels) -> dict[str, np.ndarray]:
    """Lists of what was said of each judged row; `None` for tasks beyond those that are kept."""
    own, kept = found.judged, len(found.judged["mask"])

    def each(values):
        return lists([values(r, t, n) if t < kept else None for r, t, n in zip(rule, task, labels)])

    def row(name, r, t, n):
        return own[name][r, t, n][own["mask"][t]].ravel() if name in own else None

    said = {f"judged_{name}": each(lambda r, t, n: row(name, r, t, n)) for name in ROWS}
    return said | {"judged_y": each(lambda r, t, n: own["y"][t][own["mask"][t]])}


def _joined(parts: Sequence[Found]) -> Found:
    """The tasks of several splits as one set; rows are kept of the first."""
    first, by_rule = parts[0], ("nll", "error", "picks")

    def join(name):
        return np.concatenate([getattr(p, name) for p in parts], 1 if name in by_rule else 0)

    nll, error, picks, x, y, mask, unit, cost = (
        join(n) for n in (*by_rule, "x", "y", "mask", "unit", "cost")
    )
    return Found(first.rules, nll, error, picks, x, y, mask, unit, first.sign, cost, first.judged)


def curves(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """`(3, r, labels + 1)`: means over units, and half a 95 % interval of them and of their
    differences from random's.
    """
    each = np.stack(
        [[_mean_of_units(v, unit) for v in rule.T] for rule in values]
    )  # (r, labels + 1, u)

    def half(a):
        return (
            1.96 * a.std(-1, ddof=1) / a.shape[-1] ** 0.5
            if a.shape[-1] > 1
            else np.full(a.shape[:-1], np.nan)
        )

    return np.stack([each.mean(-1), half(each), half(each - each[:1])])
