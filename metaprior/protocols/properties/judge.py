"""Expressive power, consistency and awareness of uncertainty: training, judging, the figures."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from metaprior.heads import Categorical, Gaussian
from metaprior.method import AbstractLearner, Spec
from metaprior.methods import METHODS
from metaprior.methods.stack import Stack, fit_weights
from metaprior.protocols.cell import cut_short, item_of, part_of, to_numpy, trained
from metaprior.protocols.properties import ranges
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import joined, task_rows
from metaprior.sources.exact import Known
from metaprior.task import Task

EXACT, EXACT_CLASSES = "exact", "exact_classes"
MIXED = ("process", "np")  # members of `stack` here
COLUMNS = ("y", "truth", "mean", "variance", "nll", "pit")  # of each row, in predictions.parquet
Rows = dict[str, np.ndarray]  # what `judge` gives


@eqx.filter_jit
def judge(
    learner: AbstractLearner, some: tuple[Task, jax.Array], classes: bool, samples: int, key
) -> dict[str, Any]:
    """What is said of every query row, `(t, q)`.

    Returns:
        `nll`; `mean`, the predicted number or the probability of label 1; its `variance`, noise
        included; `truth`, what `mean` would be without noise; `y`; and for numbers `pit`.
    """

    def one(item):
        task, truth = item
        post, draw = jr.split(key)
        posterior = learner.posterior(task.support, key=post)
        mixture = posterior.predict(task.query.x, key=draw, samples=samples)
        found = {
            "nll": -mixture.log_prob(task.query.y),
            "mean": mixture.mean()[:, -1],
            "variance": mixture.variance()[:, -1],
            "truth": truth,
            "y": task.query.y[:, 0],
        }
        if not classes:
            found["pit"] = mixture.cdf(task.query.y)[:, 0]
        return found

    return jax.lax.map(one, some, batch_size=8)


@functools.lru_cache
def exact(where: str, classes: bool, shots: int, count: int, looks: bool = True) -> Rows:
    """The rows of the exact posterior, or of the prior; it knows the range of the tasks."""
    learner = Known(ranges.source_of(where, classes, ranges.slots(shots)), looks)
    some = ranges.tasks(where, classes, shots, count)
    return to_numpy(judge(learner, some, classes, 1, jr.key(0)))


def stacked(
    spec: Spec, source: Any, seed: int, steps: int, tell: Tell, **options: Any
) -> tuple[Stack, dict[str, Any]]:
    """A mixture of `MIXED`, its weights from 256 tasks that the members did not see."""
    learners = []
    for i, name in enumerate(MIXED):
        told = item_of(tell, i, len(MIXED), name)
        learner, _ = trained(name, spec, source, seed, steps, told, **options)
        learners.append(learner)

    @eqx.filter_jit
    def densities(learner):
        def one(key):
            task = source(key)
            posterior = learner.posterior(task.support, key=jr.key(0))
            mixture = posterior.predict(task.query.x, key=jr.key(1), samples=64)
            return mixture.log_prob(task.query.y), task.query.mask, task.support.count

        keys = jr.split(jr.fold_in(jr.key(seed), 1), 256)
        return jax.lax.map(one, keys, batch_size=16)

    each = [densities(learner) for learner in learners]
    log_prob = np.stack([found[0] for found in each], -1)
    _, mask, count = each[0]  # the tasks are the same for all members
    weights = fit_weights(log_prob, mask, count, 256)
    return Stack(tuple(learners), weights), {"members": list(MIXED), "steps": steps}


def resampled(
    setting: str, metric: str, statistic: Callable[[np.ndarray], Any], count: int
) -> Figure:
    """A figure that is no mean over tasks, with its error from 200 resamples of the tasks.

    Args:
        setting, metric: as in `Figure`.
        statistic: of indices of tasks.
        count: of tasks.
    """
    rng = np.random.default_rng(0)
    draws = [float(statistic(rng.integers(count, size=count))) for _ in range(200)]
    value = float(statistic(np.arange(count)))
    return Figure(setting, metric, value, float(np.std(draws)), count)


def measure(
    found: dict[int, Rows], true: dict[int, Rows], prior: dict[int, Rows], where: str, label: str
) -> list[Figure]:
    """All figures of a range.

    Args:
        found: rows of the method, at every number of support rows.
        true: rows of the exact posterior.
        prior: rows of the learner that does not look, where expressive power is judged.
        where: the range.
        label: how figures name it.
    """
    count = len(next(iter(found.values()))["nll"])
    figures = []
    for shots, rows in found.items():
        at = f"{label}: K = {shots}"
        gap = rows["nll"] - true[shots]["nll"]
        error = functools.partial(_median_error, _distance(rows))
        figures.append(resampled(at, "rmse", error, count))
        figures.append(Figure.of(at, "nll", rows["nll"].mean(1)))
        figures.append(Figure.of(at, "gap", gap.mean(1)))
    if where == "inside":
        figures.append(_expressive(found, true, prior, label))
    return [*figures, *_consistency(found, label), *_awareness(found, true, label)]


def _distance(rows: Rows) -> np.ndarray:
    """Of each task, from the mean to the function without noise: root mean square, `(t,)`."""
    return np.sqrt(((rows["mean"] - rows["truth"]) ** 2).mean(1))


def _median_error(distance: np.ndarray, tasks: np.ndarray) -> float:
    """Over tasks; one on which descent diverged would be all of a mean."""
    return float(np.median(distance[tasks]))


def _expressive(
    found: dict[int, Rows], true: dict[int, Rows], prior: dict[int, Rows], label: str
) -> Figure:
    """How much of the way from the prior's mean to the exact posterior's a method's mean goes."""

    def off(rows: dict[int, Rows]) -> np.ndarray:
        """Squared distance from the exact posterior's mean, `(t,)`."""
        shots = [k for k in found if k in ranges.LEARNT]
        return np.sum([((rows[k]["mean"] - true[k]["mean"]) ** 2).mean(1) for k in shots], axis=0)

    far, base = off(found), off(prior)

    def share(tasks: np.ndarray) -> float:
        return 1 - far[tasks].mean() / base[tasks].mean()

    return resampled(label, "expressive", share, len(far))


def _consistency(found: dict[int, Rows], label: str) -> list[Figure]:
    """How the error falls as rows are added."""
    growth = ranges.GROWTH
    distances = [_distance(found[shots]) for shots in growth]

    def log_errors(tasks: np.ndarray) -> np.ndarray:
        # an error of 0 has no logarithm
        return np.log([max(_median_error(distance, tasks), 1e-9) for distance in distances])

    def slope(tasks: np.ndarray) -> float:
        return np.polyfit(np.log(growth), log_errors(tasks), 1)[0]

    def ratio(tasks: np.ndarray) -> float:
        first, *_, last = log_errors(tasks)
        return np.exp(last - first)

    count = len(distances[0])
    return [resampled(label, "slope", slope, count), resampled(label, "ratio", ratio, count)]


def _awareness(found: dict[int, Rows], true: dict[int, Rows], label: str) -> list[Figure]:
    """Likelihood, stated spread and coverage, pooled over all numbers of support rows."""

    def pooled(rows: dict[int, Rows], name: str) -> np.ndarray:
        each = np.stack([r[name] for r in rows.values()], 1)
        return each.reshape(len(each), -1)

    mean, y, variance = (pooled(found, name) for name in ("mean", "y", "variance"))
    gap = pooled(found, "nll") - pooled(true, "nll")

    def spread(tasks: np.ndarray) -> float:
        error = ((mean[tasks] - y[tasks]) ** 2).mean()
        return np.sqrt(variance[tasks].mean() / error)

    figures = [
        Figure.of(label, "gap", gap.mean(1)),
        resampled(label, "spread", spread, len(mean)),
    ]
    if "pit" in next(iter(found.values())):
        pit = pooled(found, "pit")
        inside = (pit >= 0.05) & (pit <= 0.95)
        figures.append(Figure.of(label, "coverage90", inside.mean(1)))
    return figures


def predicts_classes(method: str) -> bool:
    """Whether a method or reference is judged on labels, since it cannot predict numbers."""
    if method in (EXACT, EXACT_CLASSES):
        return method == EXACT_CLASSES
    return method != "stack" and "numbers" not in METHODS[method].kinds


def train(
    method: str, classes: bool, seed: int, steps: int, batch: int, tell: Tell
) -> tuple[AbstractLearner, dict[str, Any]]:
    """A method trained on 1 to 20 rows, and facts of its training."""
    spec = Spec(1, Categorical(2) if classes else Gaussian(1))
    source = ranges.source_of("inside", classes, 20, fewest=1)
    if method == "stack":
        return stacked(spec, source, seed, steps, tell, batch=batch)
    return trained(method, spec, source, seed, steps, tell, batch=batch)


def run(method: str, seed: int, options: dict, data: None, tell: Tell) -> Outcome:
    """Train a method on tasks of 1 to 20 rows and judge it in and out of that range."""
    classes = predicts_classes(method)

    def own(name: str) -> Any:
        values = options[name]
        return values.get(method, values["classes" if classes else ""])

    learner, facts = None, {}
    if method not in (EXACT, EXACT_CLASSES):
        told = part_of(tell, 0.0, 0.7)
        learner, facts = train(method, classes, seed, own("steps"), options["batch"], told)

    count = own("tasks")
    figures, tables, drawing = [], [], {}
    for i, where in enumerate(ranges.RANGES):
        label = where + ranges.CLASSES * classes
        told = item_of(part_of(tell, 0.7, 1.0), i, len(ranges.RANGES))
        found, true, prior = {}, {}, {}
        for j, shots in enumerate(ranges.SHOTS):
            told(j / len(ranges.SHOTS), f"judging {label}, K = {shots}")
            true[shots] = found[shots] = exact(where, classes, shots, count)
            if where == "inside" and shots in ranges.LEARNT:
                prior[shots] = exact(where, classes, shots, count, looks=False)
            if learner is not None:
                some, key = ranges.tasks(where, classes, shots, count), jr.key(seed)
                found[shots] = to_numpy(judge(learner, some, classes, options["samples"], key))
            tables.append(_columns(f"{label}: K = {shots}", found[shots]))
        figures += measure(found, true, prior, where, label)
        errors = [f for f in figures if f.setting.startswith(f"{label}:") and f.metric == "rmse"]
        drawing[where] = np.array([[f.value, f.error] for f in errors])
    return Outcome(figures, joined(tables), drawing, note=cut_short(facts), facts=facts)


def _columns(setting: str, rows: Rows) -> dict[str, np.ndarray]:
    """Raw predictions; labels have no `pit`, which is NaN for them."""
    t, n = rows["y"].shape
    absent = np.full((t, n), np.nan)
    return task_rows(setting, t, n) | {name: rows.get(name, absent).ravel() for name in COLUMNS}
