"""Labelling a pool one row at a time, every rule on the same tasks, in one compiled program."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from metaprior import acquire
from metaprior.heads.base import AbstractHead
from metaprior.method import AbstractLearner
from metaprior.mixture import Mixture
from metaprior.posterior import AbstractPosterior, Particles
from metaprior.sources import SineLine
from metaprior.task import Data, Task

RULES = ("random", "entropy", "bald", "variance")


SEEKING = (
    "improvement",
    "improvement a second",
)  # where the best row is sought; the second where labels cost seconds


class Goal(eqx.Module):
    """What is sought besides knowledge: the sign of y that is good, and what each row of the pool
    is thought to cost.
    """

    sign: Array
    cost: Array


def improvement(mixture: Mixture, labelled: Data, goal: Goal) -> Array:
    """Expected improvement on the best label so far (Jones, Schonlau & Welch 1998); on the pool's
    mean without one.
    """
    values, weights = mixture.atoms(16)
    none = (goal.sign * mixture.mean()[:, 0]).mean()
    best = jnp.where(labelled.mask, goal.sign * labelled.y[:, 0], -jnp.inf).max()
    best = jnp.where(labelled.mask.any(), best, none)
    return jnp.tensordot(weights, jnp.maximum(goal.sign * values[..., 0] - best, 0.0), axes=1)


def _scores(mixture: Mixture, labelled: Data, goal: Goal, key, rule) -> Array:
    """The rule's score of every row of the pool; `rule` indexes `RULES + SEEKING`."""
    known: list[Any] = [lambda by=by: acquire.score(mixture, by, key=key) for by in RULES]
    if not mixture.parts[0].head.classes:
        known.append(lambda: improvement(mixture, labelled, goal))
        known.append(lambda: improvement(mixture, labelled, goal) / goal.cost)
    return jax.lax.switch(rule, known)


def _judged(mixture: Mixture, query: Data) -> dict[str, Array]:
    """NLL, and squared error of the mean or the share of wrong classes, over the query rows; and of
    each row by itself.

    A row: its log density, the mean `(n, p)` or the probabilities `(n, C)`, and the standard
    deviation, of classes none.
    """
    log_p, mean = mixture.log_prob(query.y), mixture.mean()
    rows = {"log_p": log_p, "mean": mean}
    if mixture.parts[0].head.classes:
        wrong = (mean.argmax(-1) != query.y[:, 0]) * jnp.ones_like(log_p)
    else:
        wrong = ((mean - query.y) ** 2)[:, 0]
        rows["std"] = jnp.sqrt(mixture.variance())
    return {"nll": query.mean(-log_p), "error": query.mean(wrong), **rows}


def _one(learner, task: Task, goal: Goal, rule, key, labels: int, samples: tuple[int, int]):
    """Label one task's pool (its support) one row at a time: what is judged after 0 … `labels`
    labels, and the rows chosen.
    """
    pool, query = task.support, task.query
    empty = Data(
        jnp.zeros((labels, pool.x.shape[1]), pool.x.dtype),
        jnp.zeros((labels, 1), pool.y.dtype),
        jnp.zeros(labels, bool),
    )

    def step(carry, t):
        labelled, left = carry
        post_key, judge_key, pool_key, rule_key = jr.split(jr.fold_in(key, t), 4)
        posterior = learner.posterior(labelled, key=post_key)
        errors = _judged(posterior.predict(query.x, key=judge_key, samples=samples[0]), query)
        mixture = posterior.predict(pool.x, key=pool_key, samples=samples[1])
        score = _scores(mixture, labelled, goal, rule_key, rule)
        pick = jnp.argmax(jnp.where(left, jnp.nan_to_num(score, nan=-1e30, neginf=-1e30), -jnp.inf))

        def put(a, v):
            return a.at[t].set(v, mode="drop")  # the last look labels nothing

        labelled = Data(
            put(labelled.x, pool.x[pick]), put(labelled.y, pool.y[pick]), put(labelled.mask, True)
        )
        return (labelled, left.at[pick].set(False)), (errors, pick)

    _, (judged, picks) = jax.lax.scan(step, (empty, pool.mask), jnp.arange(labels + 1))
    return judged, picks[:labels]


@eqx.filter_jit
def label(
    learner: AbstractLearner,
    tasks: Task,
    goals: Goal,
    rule,
    keys,
    labels: int,
    samples: tuple[int, int],
):
    """One rule on every task: `_judged` with axes `(t, labels + 1, …)`, and rows chosen `(t,
    labels)`.

    One compiled program serves every rule and every number of labels up to `labels`.

    Args:
        learner: judged as it is.
        tasks: stacked; the support is the pool, of which nothing is known at first.
        goals: stacked.
        rule: index into `RULES + SEEKING`, an array.
        keys: one a task; give every rule the same, so that rules are paired.
        labels: how many rows are labelled.
        samples: functions drawn to judge, and to choose.
    """

    def each(a):
        return _one(learner, a[0], a[1], rule, a[2], labels, samples)

    return jax.lax.map(each, (tasks, goals, keys), batch_size=25)


class Uneven(eqx.Module):
    """Training tasks whose support rows are chosen from a pool, half of the time unevenly.

    Rules do not choose evenly: a method trained on rows at random alone meets sets of rows that it
    has never seen, and is sure where it should not be. Uneven sets are those with the highest
    random linear and quadratic scores of x, softened by noise. The number of rows is uniform in 0 …
    `labels`.

    Args:
        source: deals tasks with the pool as their support.
        labels: support rows of a task.
    """

    source: Any
    labels: int = eqx.field(static=True)

    def __call__(self, key) -> Task:
        task_key, w_key, t_key, u_key, g_key, k_key = jr.split(key, 6)
        task = self.source(task_key)
        pool = task.support
        weight = pool.mask[:, None] / jnp.maximum(pool.count, 1)
        off = pool.x - (weight * pool.x).sum(0)
        off = off / jnp.sqrt((weight * off**2).sum(0) + 1e-6)
        w = jr.normal(w_key, (2, pool.x.shape[1])) / pool.x.shape[1] ** 0.5
        strength = jnp.where(jr.bernoulli(u_key), jnp.exp(jr.uniform(t_key, maxval=3.0)), 0.0)
        score = strength * (off @ w[0] + off**2 @ w[1]) + jr.gumbel(g_key, pool.mask.shape)
        score, rows = jax.lax.top_k(jnp.where(pool.mask, score, -jnp.inf), self.labels)
        shown = (jnp.arange(self.labels) < jr.randint(k_key, (), 0, self.labels + 1)) & (
            score > -jnp.inf
        )
        return Task(Data(pool.x[rows], pool.y[rows], shown), task.query)


class Drawn(AbstractPosterior):
    """A posterior known by drawn functions alone: what it says of y is a mixture over them."""

    of: AbstractPosterior

    def sample(self, x, *, key, samples):
        return self.of.sample(x, key=key, samples=samples)

    def predict(self, x, *, key, samples):
        return self.of.sample(x, key=key, samples=samples)

    def joint_log_prob(self, data, *, key, samples):
        return self.of.joint_log_prob(data, key=key, samples=samples)


class OfLines(AbstractLearner):
    """The exact posterior over sine waves and lines, by drawn functions: its mixture of thousands
    is too large here.
    """

    source: SineLine

    def posterior(self, support, *, key):
        return Drawn(self.source.exact(support))


class Uninformed(AbstractLearner):
    """Sees no label: every class alike, or the mean and the standard deviation of training rows, 0
    and 1 in their units.
    """

    head: AbstractHead

    def posterior(self, support, *, key):
        def flat(w, x):
            return jnp.broadcast_to(w, (len(x), self.head.raw_dim))

        return Particles.single(jnp.zeros(()), flat, self.head)
