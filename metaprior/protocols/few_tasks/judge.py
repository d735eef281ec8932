"""How many training tasks it takes: training on sets of every size at once, and judging."""

from collections.abc import Sequence
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
from metaprior.protocols.cell import item_of, loss_of, part_of, to_numpy
from metaprior.protocols.few_tasks.data import (
    EXACT,
    FAMILIES,
    X_DIM,
    Family,
    Finite,
    axes_of,
    dealt,
    finite_sets,
    setting_of,
    stacked,
)
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import joined
from metaprior.task import Data, Task
from metaprior.training import fit

LOG_2PI_E = 2.8378770664093453
NLL = {"train": "train_nll", "test": "test_nll"}  # of rows dealt anew; PACOH's meta-test is `new`


def train(
    method: str, source: Finite, seed: int, options: dict[str, Any], tell: Tell
) -> tuple[Any, dict[str, Any]]:
    """One member a size, all from the same weights and on the same draws, in one `fit`."""
    row, sizes = METHODS[method], np.asarray(source.count)
    init_key, fit_key = jr.split(jr.fold_in(jr.key(1), seed))

    def init(tasks):
        return row.init(Spec(X_DIM, Gaussian(1), tasks=tasks), key=init_key)

    steps = options["steps"]
    fitted = fit(
        eqx.filter_jit(eqx.filter_vmap(init))(source.count),
        source,
        key=fit_key,
        steps=steps,
        batch=options["batch"],
        every=max(1, steps // 20),
        axes=axes_of(source),
        progress=loss_of(tell),
    )
    facts: dict[str, Any] = {"steps": fitted.steps, "train_seconds": round(fitted.seconds, 1)}
    failed = sizes[fitted.state.failed]
    if len(failed):
        counts = ", ".join(map(str, failed))
        facts["stopped"] = f"non-finite loss with {counts} tasks, last good weights judged"
    return fitted.method, facts


def _rows(mixture, y) -> dict[str, Array]:
    """What is said of each row."""
    return {"nll": -mixture.log_prob(y), "mean": mixture.mean()[:, 0], "pit": mixture.cdf(y)[:, 0]}


@eqx.filter_jit
def _judged(
    members: Any, source: Finite, axes: Finite, tasks: Task, key, samples: int
) -> dict[str, Array]:
    """`_rows` `(n, t, q)` of every member on its tasks `(n, t, …)`, in the family's own units."""

    def one(learner, some, its):
        def each(task):
            scaled = some.scaled(task)
            posterior = learner.posterior(scaled.support, key=key)
            predictive = posterior.predict(scaled.query.x, key=key, samples=samples)
            found = _rows(predictive, scaled.query.y)
            mean = some.y_centre + some.y_scale * found["mean"]
            return found | {"nll": found["nll"] + jnp.log(some.y_scale), "mean": mean}

        return jax.lax.map(each, its, batch_size=16)

    return eqx.filter_vmap(one, in_axes=(eqx.if_array(0), axes, 0))(members, source, tasks)


@eqx.filter_jit
def _judged_exactly(source, columns: int, tasks: Task) -> dict[str, Array]:
    """The same of the family's own posterior; tasks `(t, …)`."""

    def narrow(data):
        return Data(data.x[:, :columns], data.y, data.mask)

    def each(task):
        posterior = source.exact(narrow(task.support))
        predictive = posterior.predict(narrow(task.query).x, key=jr.key(0), samples=1)
        return _rows(predictive, task.query.y)

    return jax.lax.map(each, tasks, batch_size=4)


def entropy_of_prior(members: AbstractLearner) -> np.ndarray | None:
    """H(p(φ | θ)) / number of weights of every member, in nats.

    `None` where the prior is no diagonal normal.
    """
    prior = getattr(members, "prior", None)
    if not isinstance(prior, Diagonal):
        return None
    leaves = jax.tree.leaves(eqx.filter(prior.log_std, eqx.is_inexact_array))
    flat = np.concatenate([np.asarray(a, np.float64).reshape(len(a), -1) for a in leaves], axis=1)
    return flat.mean(1) + 0.5 * LOG_2PI_E


def _figures(setting: str, part: str, rows: dict[str, np.ndarray], query: Data) -> list[Figure]:
    """Of one size on one set of tasks; rows are `(t, q)`."""
    mask, y = np.asarray(query.mask), np.asarray(query.y, np.float64)[..., 0]

    def mean(values: np.ndarray) -> np.ndarray:
        """Over the rows of a task that exist."""
        return np.where(mask, values, 0.0).sum(1) / mask.sum(1)

    if part in NLL:
        return [Figure.of(setting, NLL[part], mean(rows["nll"]))]
    gaps = [calibration.quantile_error(pit[some]) for pit, some in zip(rows["pit"], mask)]
    rmse = np.sqrt(mean((rows["mean"] - y) ** 2))
    return [
        Figure.of(setting, "nll", mean(rows["nll"])),
        Figure.of(setting, "rmse", rmse),
        Figure.of(setting, "calibration", gaps),
    ]


def _columns(
    setting: str, part: str, rows: dict[str, np.ndarray], query: Data
) -> dict[str, np.ndarray]:
    """Flat predictions of the rows that exist."""
    mask = np.asarray(query.mask)
    task, row = (index.astype(np.int32) for index in np.nonzero(mask))
    return {
        "setting": np.full(len(task), setting),
        "part": np.full(len(task), part),
        "task": task,
        "row": row,
        "y": np.asarray(query.y)[..., 0][mask],
        **{name: values[mask].astype(np.float32) for name, values in rows.items()},
    }


def sets_of(family: Family, source: Finite, options: dict[str, Any], keys) -> dict[str, Task]:
    """The tasks that are judged, `(sizes, t, …)`: those of training, new ones, PACOH's meta-test.

    Args:
        family: of the tasks.
        source: the training tasks.
        options: of the budget.
        keys: of new tasks, of dealing rows, and of the meta-test.
    """
    new_key, deal_key, test_key = keys
    sizes, count = options["sizes"], options["tasks"]
    fresh = finite_sets(family, [count], new_key)
    episodes = jr.split(deal_key, count)
    new = stacked(family.source, jr.split(test_key, count))
    return {
        "train": dealt(source, source.count, episodes),
        "test": dealt(fresh, jnp.full(len(sizes), count), episodes),
        "new": jax.tree.map(lambda a: jnp.repeat(a[None], len(sizes), 0), new),
    }


def _of(found: Any, index: int) -> Any:
    """One size of arrays with a leading axis of sizes."""
    return jax.tree.map(lambda a: a[index], found)


def exactly(family: Family, sets: dict[str, Task], sizes: Sequence[int]) -> dict[str, Any]:
    """What the exact posterior says; the same at every size, since it needs no training."""
    judged = {}
    for part in ("test", "new"):
        once = _judged_exactly(family.source, family.columns, _of(sets[part], 0))
        judged[part] = {k: np.repeat(v[None], len(sizes), 0) for k, v in to_numpy(once).items()}
    return judged


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Every family, every number of tasks."""
    figures: list[Figure] = []
    tables: list[dict[str, np.ndarray]] = []
    facts: dict[str, Any] = {}
    sizes, names = options["sizes"], options["families"]
    for i, name in enumerate(names):
        told = item_of(tell, i, len(names), name)
        family = FAMILIES[name](options["query"])
        # training tasks come from one key, those that are judged from others
        keys = [jr.fold_in(jr.fold_in(jr.key(7 + k), seed), i) for k in range(4)]
        source = finite_sets(family, sizes, keys[0])
        sets = sets_of(family, source, options, keys[1:])
        if method == EXACT:
            judged = exactly(family, sets, sizes)
        else:
            members, facts[name] = train(method, source, seed, options, part_of(told, 0.0, 0.8))
            told(0.8, "predicting")
            axes, samples = axes_of(source), options["samples"]
            judged = {
                part: _judged(members, source, axes, tasks, jr.key(3), samples)
                for part, tasks in sets.items()
            }
            figures += _entropies(name, sizes, entropy_of_prior(members))

        for part, found in judged.items():
            for j, size in enumerate(sizes):
                setting = setting_of(name, size)
                rows = to_numpy(_of(found, j), np.float64)
                query = _of(sets[part].query, j)
                figures += _figures(setting, part, rows, query)
                if method != EXACT:
                    tables.append(_columns(setting, part, rows, query))
                elif j == 0:  # what the exact posterior says does not depend on the size
                    tables.append(_columns(name, part, rows, query))
    note = "; ".join(f"{k}: {v['stopped']}" for k, v in facts.items() if "stopped" in v)
    return Outcome(figures, joined(tables), note=note, facts=facts)


def _entropies(name: str, sizes: Sequence[int], entropies: np.ndarray | None) -> list[Figure]:
    """The entropy of the prior at each size, where it has one."""
    if entropies is None:
        return []
    return [
        Figure(setting_of(name, size), "entropy", float(value))
        for size, value in zip(sizes, entropies)
    ]
