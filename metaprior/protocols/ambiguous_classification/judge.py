"""Ambiguous classification: circles in the plane from a few points inside, beside the exact
posterior.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Categorical
from metaprior.method import AbstractLearner, Spec
from metaprior.posterior import Particles, Sampled
from metaprior.protocols.protocol import (
    Figure,
    Outcome,
    Tell,
    cut_short,
    trained,
)
from metaprior.protocols.raw import KEPT, first_rows, functions_at, joint_terms, log_p, log_terms
from metaprior.sources.circles import Circles
from metaprior.sources.exact import Known
from metaprior.task import Task

HELD_OUT = 20261124  # key of the tasks that are judged; training draws its own from the seed


SHOTS = (1, 2, 3, 5)


SETS = 20  # sampled sets {x: p(inside) > 1/2} for coverage and spread


SIDE = 40  # grid of the box on which sets are compared


SHOWN, DRAWS, FINE = 3, 14, 72  # of the pictures: tasks, functions, and the grid's side


def lattice(box: float, side: int) -> jax.Array:
    """Middles of `side` x `side` cells of the box, `(side², 2)`, the first coordinate changing
    fastest.
    """
    place = (jnp.arange(side) + 0.5) * box / side
    return jnp.stack([jnp.tile(place, side), jnp.repeat(place, side)], axis=1)


def tasks(source: Circles, shots: int, count: int) -> tuple[Task, jax.Array, jax.Array]:
    """Held-out tasks with `shots` points inside, their centres and radii."""
    keys = jr.split(jr.fold_in(jr.key(HELD_OUT), shots), count)
    each = jax.vmap(source)(keys)
    mask = jnp.broadcast_to(jnp.arange(source.support) < shots, each.support.mask.shape)
    return eqx.tree_at(lambda t: t.support.mask, each, mask), *jax.vmap(source.circle)(keys)


def functions(posterior, x, *, key, samples: int) -> jax.Array:
    """p(inside) of sampled functions, `(s, n)`."""
    mixture = functions_at(posterior, x, key=key, samples=samples)
    return jnp.concatenate([part.head.mean(part.params)[..., 1] for part in mixture.parts])


@eqx.filter_jit
def judge(
    learner: AbstractLearner, some: tuple, box: float, samples: int, key
) -> dict[str, jax.Array]:
    """Figures of every task: rows `nll`, `p`, `y`, and `joint`, `best_iou`, `disagreement` and
    `covered` a task.

    Beside them what they follow from: log densities by draw, cells of the grid that each set shares
    with the true one and that either holds, and the share of sets that hold each cell.

    Likelihoods are of `samples` draws of the function; where they are all a method has, both of the
    same ones. Sets are compared on a `SIDE` x `SIDE` grid of the box, the true one being the disc's
    part in the box.
    """
    x = lattice(box, SIDE)

    def one(item):
        task, center, radius = item
        keys = jr.split(key, 4)
        posterior = learner.posterior(task.support, key=keys[0])
        mixture = posterior.predict(task.query.x, key=keys[1], samples=samples)
        if isinstance(posterior, Sampled | Particles):
            joint = mixture.joint_log_prob(task.query)
        else:
            joint = posterior.joint_log_prob(task.query, key=keys[2], samples=samples)
        sets = functions(posterior, x, key=keys[3], samples=SETS) > 0.5
        true = ((x - center) ** 2).sum(1) <= radius**2
        overlap, union = (sets & true).sum(1), (sets | true).sum(1)
        iou = overlap / jnp.maximum(union, 1)
        n, share = sets.shape[0], sets.mean(0)
        pairs = (2 * share * (1 - share)).mean() * n / max(n - 1, 1)
        return {
            "nll": -mixture.log_prob(task.query.y),
            "p": mixture.mean()[:, 1],
            "y": task.query.y[:, 0],
            "joint": -joint / task.query.count,
            "best_iou": iou.max(),
            "covered": iou.max() >= 0.5,
            "disagreement": pairs,
            "log_p": log_terms(mixture, task.query.y),
            "joint_log_p": joint_terms(posterior, mixture, task.query, joint),
            "overlap": overlap,
            "union": union,
            "share": share,
        }

    return jax.lax.map(one, some, batch_size=8)


@eqx.filter_jit
def boundaries(learner: AbstractLearner, some: Task, box: float, key) -> jax.Array:
    """p(inside) of up to `DRAWS` functions on a grid, for pictures, in 255ths: `(t, s, FINE,
    FINE)`.
    """
    post, draw = jr.split(key)
    x = lattice(box, FINE)

    def each(t):
        return functions(learner.posterior(t.support, key=post), x, key=draw, samples=DRAWS)

    found = jnp.round(255 * jax.lax.map(each, some)[:, :DRAWS]).astype(jnp.uint8)
    return found.reshape(*found.shape[:2], FINE, FINE)


@functools.lru_cache
def exact(source: Circles, shots: int, count: int) -> dict[str, np.ndarray]:
    """The exact posterior's figures."""
    found = judge(Known(source), tasks(source, shots, count), source.box, 1, jr.key(0))
    return {name: np.asarray(value) for name, value in found.items()}


def run(method: str, seed: int, options: dict, data: None, tell: Tell) -> Outcome:
    """Train a method on circles of 1 to 5 points and judge it at each number of points."""
    source = Circles(support=max(SHOTS), fewest=min(SHOTS))
    if method == "exact":
        learner, facts = Known(source), {}
    else:

        def told(share, what):
            return tell(0.8 * share, what)

        steps = options["steps"].get(method, options["steps"][""])
        spec = Spec(2, Categorical(2))
        learner, facts = trained(
            method, spec, source, seed, steps, told, batch=options["batch"], hyper=_hyper(method)
        )
    figures, tables = [], []
    for i, shots in enumerate(SHOTS):
        tell(0.8 + 0.2 * i / len(SHOTS), f"judging at K = {shots}")
        count, setting = options["tasks"], f"K = {shots}"
        true = exact(source, shots, count)
        found = true
        if method != "exact":
            found = judge(
                learner, tasks(source, shots, count), source.box, options["samples"], jr.key(seed)
            )
        found = {name: np.asarray(value) for name, value in found.items()}

        def add(metric, values):
            return figures.append(Figure.of(setting, metric, values))

        add("nll", found["nll"].mean(1))
        add("gap", (found["nll"] - true["nll"]).mean(1))
        add("joint", found["joint"])
        add("joint_gap", found["joint"] - true["joint"])
        add("accuracy", ((found["p"] > 0.5) == (found["y"] > 0.5)).mean(1))
        add("coverage", found["covered"])
        add("best_iou", found["best_iou"])
        spread = float(found["disagreement"].mean() / true["disagreement"].mean())
        figures.append(Figure(setting, "spread", spread, None, count))
        t, n = found["y"].shape
        where = {
            "setting": np.full(t * n, setting),
            "task": np.repeat(np.arange(t), n),
            "row": np.tile(np.arange(n), t),
        }
        whole = {name: first_rows(found[name], n) for name in ("joint_log_p", "overlap", "union")}
        share = first_rows([s if i < KEPT else None for i, s in enumerate(found["share"])], n)
        rows = {name: found[name].ravel() for name in ("y", "p", "nll")}
        rows |= {
            "log_p": log_p(found["log_p"]),
            "disagreement": np.repeat(found["disagreement"], n),
        }
        tables.append(where | rows | whole | {"share": share})
    drawing = {}
    for shots in (1, 3):
        some, center, radius = tasks(source, shots, SHOWN)
        p = boundaries(learner, some, source.box, jr.key(seed))
        x = jnp.where(some.support.mask[..., None], some.support.x, jnp.nan)
        named = {"p": p, "x": x, "center": center, "radius": radius}
        drawing |= {f"{name}_{shots}": np.asarray(value) for name, value in named.items()}
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    return Outcome(figures, columns, drawing, note=cut_short(facts), facts=facts)


# One step of rate 0.01 is for squared errors of sine waves: on labels it leaves MAML where it
# started.
MAML_STEPS, MAML_RATE = 5, 0.1


def _hyper(method: str) -> dict:
    return (
        {"steps": MAML_STEPS, "inner_lr": jnp.asarray(MAML_RATE)}
        if method in ("maml", "emaml")
        else {}
    )
