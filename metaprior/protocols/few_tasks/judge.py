"""How many training tasks it takes, and when a prior overfits them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from metaprior.evaluation import calibration
from metaprior.heads import Gaussian
from metaprior.infer.gaussian import Diagonal
from metaprior.method import AbstractLearner, Spec
from metaprior.methods import METHODS
from metaprior.protocols.few_tasks.data import (
    FAMILIES,
    X_DIM,
    Finite,
    _axes,
    _dealt,
    _tasks,
    finite_sets,
    setting_of,
)
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.task import Data, Task
from metaprior.training import fit

EXACT = "exact posterior"


LOG_2PI_E = 2.8378770664093453


def train(
    method: str, source: Finite, seed: int, options: dict[str, Any], tell: Tell
) -> tuple[Any, dict[str, Any]]:
    """One member a size, all from the same weights and on the same draws, in one `fit`."""
    row, sizes = METHODS[method], np.asarray(source.count)
    key, fit_key = jr.split(jr.fold_in(jr.key(1), seed))
    start = eqx.filter_jit(lambda k: row.init(Spec(X_DIM, Gaussian(1)), key=k))(key)
    members = jax.tree.map(
        lambda a: jnp.repeat(a[None], len(sizes), 0) if eqx.is_array(a) else a, start
    )
    steps = options["steps"]
    fitted = fit(
        members,
        source,
        key=fit_key,
        steps=steps,
        batch=options["batch"],
        every=max(1, steps // 20),
        axes=_axes(source),
        progress=lambda done, of, loss: tell(done / of, f"training, loss {loss:.3f}"),
    )
    facts: dict[str, Any] = {"steps": fitted.steps, "train_seconds": round(fitted.seconds, 1)}
    failed = sizes[np.asarray(fitted.state.failed)]
    if len(failed):
        facts["stopped"] = (
            f"non-finite loss with {', '.join(map(str, failed))} tasks, last good weights judged"
        )
    return fitted.method, facts


def _rows(mixture, y) -> dict[str, Array]:
    return {"nll": -mixture.log_prob(y), "mean": mixture.mean()[:, 0], "pit": mixture.cdf(y)[:, 0]}


@eqx.filter_jit
def _judged(
    members: Any, source: Finite, axes: Finite, tasks: Task, key, samples: int
) -> dict[str, Array]:
    """Figures `(n, t, q)` of every member on its tasks `(n, t, …)`, in the family's own units."""

    def one(learner, some, its):
        def each(task):
            scaled = some.scaled(task)
            posterior = learner.posterior(scaled.support, key=key)
            found = _rows(
                posterior.predict(scaled.query.x, key=key, samples=samples), scaled.query.y
            )
            mean = some.y_centre + some.y_scale * found["mean"]
            return found | {"nll": found["nll"] + jnp.log(some.y_scale), "mean": mean}

        return jax.lax.map(each, its, batch_size=16)

    return eqx.filter_vmap(one, in_axes=(eqx.if_array(0), axes, 0))(members, source, tasks)


@eqx.filter_jit
def _judged_exactly(source, columns: int, tasks: Task) -> dict[str, Array]:
    """The same of the family's own posterior; tasks `(t, …)`."""

    def narrow(d):
        return Data(d.x[:, :columns], d.y, d.mask)

    def each(task):
        posterior = source.exact(narrow(task.support))
        return _rows(
            posterior.predict(narrow(task.query).x, key=jr.key(0), samples=1), task.query.y
        )

    return jax.lax.map(each, tasks, batch_size=4)


def entropy_of_prior(members: AbstractLearner) -> np.ndarray | None:
    """H(p(φ | θ)) / number of weights of every member, in nats, where the prior is a diagonal
    normal; else `None`.
    """
    prior = getattr(members, "prior", None)
    if not isinstance(prior, Diagonal):
        return None
    leaves = jax.tree.leaves(eqx.filter(prior.log_std, eqx.is_inexact_array))
    flat = np.concatenate([np.asarray(a, np.float64).reshape(len(a), -1) for a in leaves], axis=1)
    return flat.mean(1) + 0.5 * LOG_2PI_E


def _figures(setting: str, part: str, rows: dict[str, np.ndarray], query: Data) -> list[Figure]:
    """Of one size on one set of tasks."""
    mask, y = np.asarray(query.mask), np.asarray(query.y, np.float64)[..., 0]

    def mean(v):
        return np.where(mask, v, 0.0).sum(1) / mask.sum(1)

    if part != "new":
        return [
            Figure.of(setting, "train_nll" if part == "train" else "test_nll", mean(rows["nll"]))
        ]
    gaps = [calibration.quantile_error(pit[m]) for pit, m in zip(rows["pit"], mask)]
    rmse = np.sqrt(mean((rows["mean"] - y) ** 2))
    return [
        Figure.of(setting, k, v)
        for k, v in (("nll", mean(rows["nll"])), ("rmse", rmse), ("calibration", gaps))
    ]


def _columns(
    setting: str, part: str, rows: dict[str, np.ndarray], query: Data
) -> dict[str, np.ndarray]:
    """Flat predictions of the rows that exist."""
    mask = np.asarray(query.mask)
    task, row = (index.astype(np.int32) for index in np.nonzero(mask))
    names = {
        "setting": np.full(len(task), setting),
        "part": np.full(len(task), part),
        "task": task,
        "row": row,
    }
    return (
        names
        | {"y": np.asarray(query.y)[..., 0][mask]}
        | {k: v[mask].astype(np.float32) for k, v in rows.items()}
    )


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Every family, every number of tasks."""
    figures: list[Figure] = []
    columns: list[dict[str, np.ndarray]] = []
    facts: dict[str, Any] = {}
    sizes, names = options["sizes"], options["families"]
    for i, name in enumerate(names):

        def share(done, what):
            return tell((i + done) / len(names), f"{name}: {what}")

        family = FAMILIES[name](options["query"])
        # Training tasks come from one key, those that are judged from others.
        keys = [jr.fold_in(jr.fold_in(jr.key(7 + k), seed), i) for k in range(4)]
        source, fresh = (
            finite_sets(family, sizes, keys[0]),
            finite_sets(family, [options["tasks"]], keys[1]),
        )
        episodes = jr.split(keys[2], options["tasks"])
        sets = {
            "train": _dealt(source, source.count, episodes),
            "test": _dealt(fresh, jnp.full(len(sizes), options["tasks"]), episodes),
        }
        new = _tasks(family.source, jr.split(keys[3], options["tasks"]))
        sets["new"] = jax.tree.map(lambda a: jnp.repeat(a[None], len(sizes), 0), new)
        if method == EXACT:
            judged = {}
            for part in ("test", "new"):
                once = _judged_exactly(
                    family.source, family.columns, jax.tree.map(lambda a: a[0], sets[part])
                )
                judged[part] = {
                    k: np.repeat(np.asarray(v)[None], len(sizes), 0) for k, v in once.items()
                }
        else:
            members, facts[name] = train(
                method, source, seed, options, lambda done, what: share(0.8 * done, what)
            )
            share(0.8, "predicting")

            def look(tasks):
                return _judged(members, source, _axes(source), tasks, jr.key(3), options["samples"])

            judged = {part: look(tasks) for part, tasks in sets.items()}
            entropies = entropy_of_prior(members)
            if entropies is not None:
                figures += [
                    Figure(setting_of(name, n), "entropy", float(h))
                    for n, h in zip(sizes, entropies)
                ]
        for part, found in judged.items():
            query = sets[part].query
            for j, n in enumerate(sizes):
                rows = {k: np.asarray(v[j], np.float64) for k, v in found.items()}
                its = jax.tree.map(lambda a: a[j], query)
                figures += _figures(setting_of(name, n), part, rows, its)
                if (
                    method != EXACT or j == 0
                ):  # the exact posterior's do not depend on the training tasks
                    columns.append(
                        _columns(setting_of(name, n) if method != EXACT else name, part, rows, its)
                    )
    joined = {k: np.concatenate([c[k] for c in columns]) for k in columns[0]}
    note = "; ".join(f"{k}: {v['stopped']}" for k, v in facts.items() if "stopped" in v)
    return Outcome(figures, joined, note=note, facts=facts)
