"""The lecture's table: expressive power, consistency and awareness of uncertainty, as measured
numbers.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Categorical, Gaussian
from metaprior.method import AbstractLearner, Spec
from metaprior.methods import METHODS
from metaprior.methods.stack import Stack, fit_weights
from metaprior.protocols.properties import ranges
from metaprior.protocols.protocol import (
    Figure,
    Outcome,
    Tell,
    cut_short,
    trained,
)
from metaprior.task import Task

MIXED = ("process", "np")  # members of `stack` here


STEEPER = (
    "maml",
    "emaml",
    "ensemble",
)  # one fixed step of 0.01 says little of what gradient descent can do


@eqx.filter_jit
def judge(
    learner: AbstractLearner, some: tuple[Task, jax.Array], classes: bool, samples: int, key
) -> dict[str, Any]:
    """Of every query row, `(t, n)`: `nll`, `mean` (the predicted number, or probability of label
    1), its `variance` including noise, `truth` (both without noise), `y`, and `pit` (numbers
    alone).
    """

    def one(item):
        task, truth = item
        post, draw = jr.split(key)
        mixture = learner.posterior(task.support, key=post).predict(
            task.query.x, key=draw, samples=samples
        )
        mean, variance = mixture.mean()[:, -1], mixture.variance()[:, -1]
        out = {"nll": -mixture.log_prob(task.query.y), "mean": mean, "variance": variance}
        out |= {"truth": truth, "y": task.query.y[:, 0]}
        return out if classes else out | {"pit": mixture.cdf(task.query.y)[:, 0]}

    return jax.lax.map(one, some, batch_size=8)


@functools.lru_cache
def exact(
    where: str, classes: bool, shots: int, count: int, looks: bool = True
) -> dict[str, np.ndarray]:
    """The exact posterior's rows (or the prior's), which knows the range the tasks come from."""
    learner = ranges.Known(ranges.source_of(where, classes, ranges.slots(shots)), looks)
    found = judge(learner, ranges.tasks(where, classes, shots, count), classes, 1, jr.key(0))
    return {name: np.asarray(value) for name, value in found.items()}


def stacked(
    spec: Spec, source: Any, seed: int, steps: int, tell: Tell, **options: Any
) -> tuple[Stack, dict]:
    """A mixture of `MIXED`, its weights from 256 tasks that the members did not see."""
    found = []
    for i, name in enumerate(MIXED):

        def told(share, what):
            return tell((i + share) / len(MIXED), f"{name}: {what}")

        found.append(trained(name, spec, source, seed, steps, told, **options))
    learners = tuple(learner for learner, _ in found)

    @eqx.filter_jit
    def rows(learner):
        def one(task):
            mixture = learner.posterior(task.support, key=jr.key(0)).predict(
                task.query.x, key=jr.key(1), samples=64
            )
            return mixture.log_prob(task.query.y), task.query.mask, task.support.count

        return jax.lax.map(
            lambda k: one(source(k)), jr.split(jr.fold_in(jr.key(seed), 1), 256), batch_size=16
        )

    each = [rows(learner) for learner in learners]
    log_prob = jnp.stack([log_prob for log_prob, _, _ in each], -1)
    _, mask, count = each[0]
    weights = fit_weights(log_prob, mask, count.astype(log_prob.dtype), jnp.asarray(256.0))
    return Stack(learners, weights), {"members": list(MIXED), "steps": steps}


def resampled(
    setting: str, metric: str, statistic: Callable[[np.ndarray], Any], count: int
) -> Figure:
    """A figure that is no mean over tasks: `statistic` of task indices, its error from 200
    resamples of the tasks.
    """
    rng = np.random.default_rng(0)
    draws = [float(statistic(rng.integers(count, size=count))) for _ in range(200)]
    return Figure(setting, metric, float(statistic(np.arange(count))), float(np.std(draws)), count)


def measure(
    found: dict[int, dict], true: dict[int, dict], prior: dict[int, dict], where: str, label: str
) -> list[Figure]:
    """All figures of a range, from rows at every number of support rows."""
    count = len(next(iter(found.values()))["nll"])
    distance = {K: np.sqrt(((f["mean"] - f["truth"]) ** 2).mean(1)) for K, f in found.items()}

    def error(K, i):
        return np.median(
            distance[K][i]
        )  # one task on which descent diverged would be all of a mean

    figures = []
    for K, f in found.items():
        at = f"{label}: K = {K}"
        figures.append(resampled(at, "rmse", lambda i: error(K, i), count))
        figures.append(Figure.of(at, "nll", f["nll"].mean(1)))
        figures.append(Figure.of(at, "gap", (f["nll"] - true[K]["nll"]).mean(1)))
    if where == "inside":
        far = sum(
            ((f["mean"] - true[K]["mean"]) ** 2).mean(1)
            for K, f in found.items()
            if K in ranges.LEARNT
        )
        base = sum(((prior[K]["mean"] - true[K]["mean"]) ** 2).mean(1) for K in ranges.LEARNT)
        figures.append(
            resampled(label, "expressive", lambda i: 1 - far[i].mean() / base[i].mean(), count)
        )

    def logs(i):
        return np.log([max(error(K, i), 1e-9) for K in ranges.GROWTH])

    figures.append(
        resampled(label, "slope", lambda i: np.polyfit(np.log(ranges.GROWTH), logs(i), 1)[0], count)
    )
    figures.append(resampled(label, "ratio", lambda i: np.exp(logs(i)[-1] - logs(i)[0]), count))

    def join(name):
        return np.stack([f[name] for f in found.values()], 1).reshape(count, -1)

    mean, y, variance = join("mean"), join("y"), join("variance")
    figures.append(
        Figure.of(
            label,
            "gap",
            (join("nll") - np.stack([t["nll"] for t in true.values()], 1).reshape(count, -1)).mean(
                1
            ),
        )
    )

    def spread(i):
        return np.sqrt(variance[i].mean() / ((mean[i] - y[i]) ** 2).mean())

    figures.append(resampled(label, "spread", spread, count))
    if "pit" in next(iter(found.values())):
        pit = join("pit")
        figures.append(Figure.of(label, "coverage90", ((pit >= 0.05) & (pit <= 0.95)).mean(1)))
    return figures


def run(method: str, seed: int, options: dict, data: None, tell: Tell) -> Outcome:
    """Train a method on tasks of 1 to 20 rows and judge it in and out of that range."""
    reference = method.startswith("exact")
    classes = (
        method == "exact_classes"
        if reference
        else method != "stack" and "numbers" not in METHODS[method].kinds
    )

    def of(name):
        return options[name].get(method, options[name]["classes" if classes else ""])

    count, learner, facts = of("tasks"), None, {}
    if not reference:

        def told(share, what):
            return tell(0.7 * share, what)

        spec = Spec(1, Categorical(2) if classes else Gaussian(1))
        train = stacked if method == "stack" else functools.partial(trained, method)
        source = ranges.source_of("inside", classes, 20, fewest=1)
        hyper = {"steps": 5, "inner_lr": jnp.asarray(0.01)} if method in STEEPER else {}
        learner, facts = train(
            spec, source, seed, of("steps"), told, batch=options["batch"], hyper=hyper
        )
    figures, drawing = [], {}
    columns: dict[str, list] = {
        k: [] for k in ("setting", "task", "row", "y", "truth", "mean", "variance", "nll", "pit")
    }
    for at, where in enumerate(ranges.RANGES):
        label, found, true, prior = where + ranges.CLASSES * classes, {}, {}, {}
        for i, K in enumerate(ranges.SHOTS):
            tell(
                0.7 + 0.3 * (at + i / len(ranges.SHOTS)) / len(ranges.RANGES),
                f"judging {label}, K = {K}",
            )
            true[K] = exact(where, classes, K, count)
            prior[K] = (
                exact(where, classes, K, count, False)
                if K in ranges.LEARNT and where == "inside"
                else {}
            )
            found[K] = true[K]
            if learner is not None:
                rows = judge(
                    learner,
                    ranges.tasks(where, classes, K, count),
                    classes,
                    options["samples"],
                    jr.key(seed),
                )
                found[K] = {name: np.asarray(value) for name, value in rows.items()}
            t, n = found[K]["y"].shape
            columns["setting"].append(np.full(t * n, f"{label}: K = {K}"))
            columns["task"].append(np.repeat(np.arange(t), n))
            columns["row"].append(np.tile(np.arange(n), t))
            for name in ("y", "truth", "mean", "variance", "nll", "pit"):
                columns[name].append(found[K].get(name, np.full((t, n), np.nan)).ravel())
        figures += measure(found, true, prior, where, label)
        drawing[where] = np.array(
            [
                [f.value, f.error]
                for f in figures
                if f.setting.startswith(label + ":") and f.metric == "rmse"
            ]
        )
    return Outcome(
        figures,
        {k: np.concatenate(v) for k, v in columns.items()},
        drawing,
        note=cut_short(facts),
        facts=facts,
    )
