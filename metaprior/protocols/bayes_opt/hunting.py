"""Evaluating functions one place after another, all functions in one compiled program."""

import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from metaprior import acquire
from metaprior.protocols.bayes_opt.controls import Own
from metaprior.protocols.bayes_opt.data import Hunts
from metaprior.task import Data

SAMPLES = 64  # functions of a method that predicts by sampling
MINIMISE = -1


class Traces(NamedTuple):
    """What was tried, of every function.

    Args:
        picks: candidates in the order in which they were tried, `(t, m)`.
        recommended: the candidate of lowest expected value after 1 … m of them, `(t, m)`.
        seconds: of one suggestion, compiling aside; NaN where there was one block alone.
    """

    picks: np.ndarray
    recommended: np.ndarray
    seconds: float


def _one(learner: Any, hunt: Hunts, by: str, start: Array, key) -> tuple[Array, Array]:
    """One function: what is tried, and what is recommended before each try and at the end."""
    tries = hunt.order.shape[0]
    history = Data.blank(tries, hunt.x.shape[1])
    knows = learner.learner(hunt.own) if isinstance(learner, Own) else learner

    def step(carry, t):
        history, free = carry
        keys = jr.split(jr.fold_in(key, t), 6)
        if knows is None:  # random search: it recommends the best that it has seen
            seen = jnp.full(hunt.f.shape, jnp.inf)
            at = jnp.where(history.mask, hunt.order, 0)
            believed = seen.at[at].min(jnp.where(history.mask, history.y[:, 0], jnp.inf))
            score = jnp.zeros(hunt.f.shape)
        else:
            posterior = knows.posterior(history, key=keys[0])
            mixture = posterior.predict(hunt.x, key=keys[1], samples=SAMPLES)
            believed = mixture.mean()[:, 0]
            drawn = acquire.draws(posterior, hunt.x, by, MINIMISE, key=keys[2], real=hunt.real)
            best = acquire.best_so_far(history, mixture, MINIMISE, hunt.real)
            score = acquire.sought(mixture, drawn, best, by, MINIMISE, key=keys[3])
        # A place without a score comes last, yet before those that were tried.
        score = jnp.nan_to_num(score, nan=-1e30, neginf=-1e30)
        score = jnp.where(free, score, -jnp.inf)
        # Of equal scores one at random: the first candidate of a grid is a corner of the box.
        ties = jr.uniform(keys[5], score.shape)
        chosen = jnp.argmax(jnp.where(score == score.max(), ties, -1.0))
        given = hunt.order[jnp.minimum(t, tries - 1)]
        pick = jnp.where(t < start, given, chosen)
        y = hunt.f[pick] + hunt.noise * jr.normal(keys[4])
        history = history.put(t, hunt.x[pick], y[None])  # the last look tries nothing
        best_believed = jnp.argmin(jnp.where(hunt.real, believed, jnp.inf))
        return (history, free.at[pick].set(False)), (pick, best_believed)

    _, (picks, best) = jax.lax.scan(step, (history, hunt.real), jnp.arange(tries + 1))
    return picks[:tries], best[1:]


@eqx.filter_jit
def _hunt(learner: Any, hunts: Hunts, by: str, start, keys, at_once: int):
    def one(item):
        hunt, key = item
        return _one(learner, hunt, by, start, key)

    return jax.lax.map(one, (hunts, keys), batch_size=at_once)


def hunt(learner: Any, hunts: Hunts, by: str, start: int, *, key, block: int = 8) -> Traces:
    """Try as many places of each function as `hunts.order` has.

    Args:
        learner: of posteriors; an `Own` for each function its own; `None` tries places at random.
        hunts: the functions.
        by: rule of `metaprior.acquire`.
        start: places at random that come first.
        key: of the noise; the same for all learners, so that they are paired.
        block: functions in one call.
    """
    count, tries = hunts.order.shape
    keys = jr.split(key, count)
    start_ = jnp.asarray(tries if learner is None else start)
    found, spent, timed = [], 0.0, 0
    for first in range(0, count, block):
        which = np.minimum(np.arange(first, first + block), count - 1)  # one program for all
        part = jax.tree.map(lambda a, which=which: a[which], (hunts, keys))
        began = time.perf_counter()
        picks, best = map(np.asarray, _hunt(learner, part[0], by, start_, part[1], block))
        if first:  # the first call compiles
            spent += time.perf_counter() - began
            timed += block * (tries + 1)
        found.append((picks[: count - first], best[: count - first]))
    picks, best = (np.concatenate(each) for each in zip(*found))
    return Traces(picks, best, spent / timed if timed else float("nan"))
