"""Pools of which one row after another is chosen, by a rule that is learned or not.

All tasks go on together: a step looks at all of them in one program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float, Int

from metaprior.acquire_learned import FEATURES, SAMPLES, cut, features, looked, losses
from metaprior.protocols.protocol import Tell
from metaprior.system.compiled import jit
from metaprior.tables.learned import Rule
from metaprior.task import Task

AT_ONCE = 25  # tasks side by side in a program
# The score of every row from its features, `(t, n, f) -> (t, n)`.
Score = Callable[[Float[np.ndarray, "t n f"]], Float[np.ndarray, "t n"]]


def feature(name: str) -> Score:
    """A rule of `metaprior.acquire`: the feature of that name."""
    at = FEATURES.index(name)
    return lambda found: found[..., at]


def at_random(seed: int) -> Score:
    """Random scores."""
    rng = np.random.default_rng(seed)
    return lambda found: rng.random(found.shape[:2])


class Chosen(NamedTuple):
    """What came of a rule.

    Args:
        nll, error: of each judged row, `losses` after each number of rows, `(k, t, q)`.
        order: the rows of each pool, those chosen first, `(t, n)`.
    """

    nll: Float[np.ndarray, "k t q"]
    error: Float[np.ndarray, "k t q"]
    order: Int[np.ndarray, "t n"]


@jit
def look(learner: Any, order, taken, room: int, tasks: Task):
    """Features of the rows of each pool in an order, and `losses` of the judged rows.

    Args:
        order: of the rows of each pool, `(t, n)`; the first are observed.
        taken: how many.
        room: places for them.
        tasks: stacked; the support is the pool.
    """

    def one(now):
        order, task, key = now
        post_key, judge_key, pool_key = jr.split(key, 3)
        seen, left = cut(task.support, order, taken, room)
        posterior = learner.posterior(seen, key=post_key)
        said = posterior.predict(task.query.x, key=judge_key, samples=SAMPLES)
        pool = posterior.predict(left.x, key=pool_key, samples=SAMPLES)
        found = features(pool, left.x, left.mask, seen)
        return found, *(losses(said, task.query.y, by) for by in ("nll", "error"))

    keys = jr.split(jr.fold_in(jr.key(20261201), taken), len(order))
    return jax.lax.map(one, (order, tasks, keys), batch_size=AT_ONCE)


def choose(learner: Any, tasks: Task, score: Score, first: int, most: int) -> Chosen:
    """Choose rows of every pool until `most` are observed.

    Args:
        learner: that predicts from them.
        tasks: stacked; the support is the pool.
        score: of the rows; the highest is next.
        first: rows of the pool that are observed before any is chosen.
        most: as many in the end.
    """
    mask = np.asarray(tasks.support.mask)
    order, found = np.tile(np.arange(mask.shape[1]), (len(mask), 1)), []
    for taken in range(first, most + 1):
        said = look(learner, jnp.asarray(order), jnp.asarray(taken), most, tasks)
        features_, *judged = map(np.asarray, said)
        found.append(judged)
        if taken < most:
            order = _next(order, taken, score(features_), mask)
    nll, error = (np.stack(each) for each in zip(*found, strict=True))
    return Chosen(nll, error, order)


def _next(order: np.ndarray, taken: int, value: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The order with the row of the highest value at place `taken`."""
    free = np.take_along_axis(mask, order, 1) & (np.arange(order.shape[1]) >= taken)
    value = np.where(free, np.nan_to_num(value, nan=-1e30), -np.inf)
    pick = value.argmax(1)
    rows, order = np.arange(len(order)), order.copy()
    order[rows, taken], order[rows, pick] = order[rows, pick], order[rows, taken]
    return order


@jit
def measured(learner: Any, order, taken, room: int, tasks: Task, few: int, by: str, number):
    """`looked` at some rows of each pool; the arguments are those of `look`, a count a task.

    Args:
        few, by: of `looked`.
        number: a seed.
    """

    def one(now):
        order, taken, task, key = now
        seen, left = cut(task.support, order, taken, room)
        return looked(learner, seen, left, task.query, key=key, few=few, by=by)

    keys = jr.split(jr.fold_in(jr.key(20261202), number), len(order))
    return jax.lax.map(one, (order, taken, tasks, keys), batch_size=AT_ONCE)


def learn(
    learner: Any,
    tasks: Task,
    room: tuple[int, int],
    *,
    rounds: int,
    few: int,
    by: str,
    tell: Tell,
) -> Rule:
    """A rule from simulated tasks (Konyushkova et al. 2017, algorithms 1 and 2).

    In the first round random rows are observed. In each further round those that the rule so far
    chooses in other tasks (“iterative”). All rounds count.

    Args:
        learner: of whose loss it is.
        tasks: stacked; as many for each round.
        room: rows that are observed before any is chosen, and in the end.
        rounds: 1 or more.
        few: candidates of each task.
        by: the loss; see `losses`.
        tell: told the share done.
    """
    rng, (first, most) = np.random.default_rng(0), room
    count, n = tasks.support.mask.shape
    size, found, rule = count // rounds, [], None
    for i in range(rounds):
        some = jax.tree.map(lambda a, i=i: a[i * size : (i + 1) * size], tasks)
        value = rng.random((size, n))
        if rule is None:
            value[:, :first] = -1.0  # these come first
            value[~np.asarray(some.support.mask)] = 2.0
            order = value.argsort(1)
        else:
            order = choose(learner, some, rule, first, most - 1).order
        # One place is for the candidate, and one row is left to be one.
        end = np.minimum(np.asarray(some.support.mask).sum(1), most)
        taken = rng.integers(first, end)
        there = jnp.asarray(order), jnp.asarray(taken)
        said = measured(learner, *there, most, some, few, by, jnp.asarray(i))
        found.append([np.asarray(a) for a in said])
        tell((i + 1) / rounds, f"learning what rows are worth, round {i + 1}")
        features_, drops, real = (np.concatenate(each) for each in zip(*found, strict=True))
        unit = np.broadcast_to(np.arange(len(drops))[:, None], drops.shape)
        rule = Rule.of(features_[real], drops[real], unit[real])
    assert rule is not None  # of one round or more
    return rule
