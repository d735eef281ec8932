"""Circles from a few points inside: training, judging, and what the exact posterior says."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Categorical
from metaprior.method import AbstractLearner, Spec
from metaprior.protocols import raw
from metaprior.protocols.cell import cut_short, option, part_of, to_numpy, trained
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.sources.circles import Circles
from metaprior.sources.exact import Known
from metaprior.task import Task

EXACT = "exact"
HELD_OUT = 20261124  # key of the tasks that are judged; training draws its own from the seed
SHOTS = (1, 2, 3, 5)
SETS = 20  # sampled sets {x: p(inside) > 1/2} for coverage and spread
SIDE = 40  # grid of the box on which sets are compared
# Of the pictures: numbers of points, tasks, functions, and the grid's side.
PICTURED = (1, 3)
SHOWN, DRAWS, FINE = 3, 14, 72


def lattice(box: float, side: int) -> jax.Array:
    """Middles of `side` x `side` cells, `(side², 2)`; the first coordinate changes first."""
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
    mixture = raw.functions_at(posterior, x, key=key, samples=samples)
    return raw.component_means(mixture)[..., 1]


@eqx.filter_jit
def judge(
    learner: AbstractLearner, some: tuple, box: float, samples: int, key
) -> dict[str, jax.Array]:
    """What is measured on every task.

    Likelihoods are of `samples` draws of the function. A method that has nothing but draws uses the
    same draws for both likelihoods. Sets are compared on a `SIDE` x `SIDE` grid of the box; the
    true set is the disc's part in the box.

    Args:
        learner: what is judged.
        some: tasks, centres and radii, as `tasks` gives them.
        box: its side.
        samples: draws of the function.
        key: of the draws.

    Returns:
        By row `nll`, `p` and `y`; by task `joint`, `best_iou`, `disagreement` and `covered`. And
        what these follow from: log densities by draw (`log_p`, `joint_log_p`); by set, the cells of
        the grid that it shares with the true set (`overlap`) and that either holds (`union`); and
        the share of sets that hold each cell.
    """
    x = lattice(box, SIDE)

    def one(item):
        task, center, radius = item
        keys = jr.split(key, 4)
        posterior = learner.posterior(task.support, key=keys[0])
        mixture = posterior.predict(task.query.x, key=keys[1], samples=samples)
        if raw.known_by_draws(posterior):
            joint = mixture.joint_log_prob(task.query)
        else:
            joint = posterior.joint_log_prob(task.query, key=keys[2], samples=samples)
        sets = functions(posterior, x, key=keys[3], samples=SETS) > 0.5
        true = ((x - center) ** 2).sum(1) <= radius**2
        overlap, union = (sets & true).sum(1), (sets | true).sum(1)
        iou = overlap / jnp.maximum(union, 1)
        n, share = sets.shape[0], sets.mean(0)
        # two different sets of the n, not the same one twice: hence n / (n - 1)
        pairs = (2 * share * (1 - share)).mean() * n / max(n - 1, 1)
        return {
            "nll": -mixture.log_prob(task.query.y),
            "p": mixture.mean()[:, 1],
            "y": task.query.y[:, 0],
            "joint": -joint / task.query.count,
            "best_iou": iou.max(),
            "covered": iou.max() >= 0.5,
            "disagreement": pairs,
            "log_p": raw.log_terms(mixture, task.query.y),
            "joint_log_p": raw.joint_terms(posterior, mixture, task.query, joint),
            "overlap": overlap,
            "union": union,
            "share": share,
        }

    return jax.lax.map(one, some, batch_size=8)


@eqx.filter_jit
def boundaries(learner: AbstractLearner, some: Task, box: float, key) -> jax.Array:
    """p(inside) of up to `DRAWS` functions on a grid, in 255ths, `(t, s, FINE, FINE)`."""
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
    return to_numpy(found)


def learner_of(method: str, source: Circles, seed: int, options: dict, tell: Tell):
    """The learner that is judged, trained where it can be, and facts of its training."""
    if method == EXACT:
        return Known(source), {}
    steps = option(options, "steps", method)
    spec = Spec(2, Categorical(2))
    return trained(method, spec, source, seed, steps, tell, batch=options["batch"])


def run(method: str, seed: int, options: dict, data: None, tell: Tell) -> Outcome:
    """Train a method on circles of 1 to 5 points and judge it at each number of points."""
    source = Circles(support=max(SHOTS), fewest=min(SHOTS))
    learner, facts = learner_of(method, source, seed, options, part_of(tell, 0.0, 0.8))

    figures, tables = [], []
    for i, shots in enumerate(SHOTS):
        tell(0.8 + 0.2 * i / len(SHOTS), f"judging at K = {shots}")
        true = found = exact(source, shots, options["tasks"])
        if method != EXACT:
            some = tasks(source, shots, options["tasks"])
            key = jr.key(seed)
            found = to_numpy(judge(learner, some, source.box, options["samples"], key))
        figures += measure(f"K = {shots}", found, true)
        tables.append(rows_of(f"K = {shots}", found))

    drawing = {}
    for shots in PICTURED:
        some, center, radius = tasks(source, shots, SHOWN)
        p = boundaries(learner, some, source.box, jr.key(seed))
        x = jnp.where(some.support.mask[..., None], some.support.x, jnp.nan)
        named = {"p": p, "x": x, "center": center, "radius": radius}
        drawing |= {f"{name}_{shots}": np.asarray(value) for name, value in named.items()}
    return Outcome(figures, raw.joined(tables), drawing, note=cut_short(facts), facts=facts)


def measure(
    setting: str, found: dict[str, np.ndarray], true: dict[str, np.ndarray]
) -> list[Figure]:
    """The figures at one number of points, beside the exact posterior's (`true`)."""
    right = (found["p"] > 0.5) == (found["y"] > 0.5)
    by_task = {
        "nll": found["nll"].mean(1),
        "gap": (found["nll"] - true["nll"]).mean(1),
        "joint": found["joint"],
        "joint_gap": found["joint"] - true["joint"],
        "accuracy": right.mean(1),
        "coverage": found["covered"],
        "best_iou": found["best_iou"],
    }
    figures = [Figure.of(setting, metric, values) for metric, values in by_task.items()]
    # a ratio of means, not a mean of ratios: in a task the exact spread can be near 0
    spread = float(found["disagreement"].mean() / true["disagreement"].mean())
    return [*figures, Figure(setting, "spread", spread, None, len(found["y"]))]


def rows_of(setting: str, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The raw predictions at one number of points; what belongs to a task is in its first row."""
    t, n = found["y"].shape
    share = [s if i < raw.KEPT else None for i, s in enumerate(found["share"])]
    rows = {name: found[name].ravel() for name in ("y", "p", "nll")}
    rows["log_p"] = raw.log_p(found["log_p"])
    rows["disagreement"] = np.repeat(found["disagreement"], n)
    for name in ("joint_log_p", "overlap", "union"):
        rows[name] = raw.first_rows(found[name], n)
    return raw.task_rows(setting, t, n) | rows | {"share": raw.first_rows(share, n)}
