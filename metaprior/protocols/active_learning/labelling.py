"""Labelling a pool one row at a time, every rule on the same tasks, in one compiled program."""

import functools
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
# Where the best row is sought; the second divides by what a label costs.
SEEKING = ("improvement", "improvement a second")


class Goal(eqx.Module):
    """What is sought besides knowledge.

    Args:
        sign: of y that is good, 1 or -1.
        cost: what each row of the pool is thought to cost.
    """

    sign: Array
    cost: Array


def improvement(mixture: Mixture, labelled: Data, goal: Goal) -> Array:
    """Expected improvement on the best label so far, or on the pool's mean before there is one."""
    none = (goal.sign * mixture.mean()[:, 0]).mean()
    best = jnp.where(labelled.mask, goal.sign * labelled.y[:, 0], -jnp.inf).max()
    best = jnp.where(labelled.mask.any(), best, none)
    return acquire.improvement(mixture, goal.sign * best, goal.sign)


def _scores(mixture: Mixture, labelled: Data, goal: Goal, key, rule) -> Array:
    """The rule's score of every row of the pool; `rule` indexes `RULES + SEEKING`."""

    def known(by):
        return acquire.score(mixture, by, key=key)

    def improving():
        return improvement(mixture, labelled, goal)

    def improving_a_second():
        return improving() / goal.cost

    scores: list[Any] = [functools.partial(known, by) for by in RULES]
    if not mixture.parts[0].head.classes:  # classes have no best
        scores += [improving, improving_a_second]
    return jax.lax.switch(rule, scores)


def _judged(mixture: Mixture, query: Data) -> dict[str, Array]:
    """What is judged after each label.

    Returns:
        Over the query rows `nll`, and `error`: squared error of the mean or the share of wrong
        classes. Of each row `log_p`, `mean` (`(n, p)`, or probabilities `(n, C)`), and of numbers
        `std`.
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
    """Label one task's pool (its support) one row at a time.

    Returns:
        What is judged after 0 … `labels` labels, and the rows chosen.
    """
    pool, query = task.support, task.query
    empty = Data.blank(labels, pool.x.shape[1])

    def step(carry, t):
        labelled, left = carry
        post_key, judge_key, pool_key, rule_key = jr.split(jr.fold_in(key, t), 4)
        posterior = learner.posterior(labelled, key=post_key)
        errors = _judged(posterior.predict(query.x, key=judge_key, samples=samples[0]), query)
        mixture = posterior.predict(pool.x, key=pool_key, samples=samples[1])
        score = _scores(mixture, labelled, goal, rule_key, rule)
        # a row without a score comes last, yet before the rows that have been labelled
        score = jnp.nan_to_num(score, nan=-1e30, neginf=-1e30)
        pick = jnp.argmax(jnp.where(left, score, -jnp.inf))
        labelled = labelled.put(t, pool.x[pick], pool.y[pick])  # the last look labels nothing
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
    """One rule on every task.

    One compiled program serves every rule and every number of labels up to `labels`.

    Args:
        learner: judged as it is.
        tasks: stacked; the support is the pool, of which nothing is known at first.
        goals: stacked.
        rule: index into `RULES + SEEKING`, an array.
        keys: one a task; give every rule the same, so that rules are paired.
        labels: how many rows are labelled.
        samples: functions drawn to judge, and to choose.

    Returns:
        `_judged` with axes `(t, labels + 1, …)`, and the rows chosen, `(t, labels)`.
    """

    def each(a):
        return _one(learner, a[0], a[1], rule, a[2], labels, samples)

    return jax.lax.map(each, (tasks, goals, keys), batch_size=25)


class Uneven(eqx.Module):
    """Training tasks whose support rows are chosen from a pool, half of the time unevenly.

    Rules do not choose evenly. A method trained on random rows alone would meet sets of rows that
    it has never seen, and be sure where it should not be. Uneven sets have the highest random
    linear and quadratic scores of x, softened by noise. The number of rows is uniform in 0 …
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
        count = jr.randint(k_key, (), 0, self.labels + 1)
        shown = (jnp.arange(self.labels) < count) & (score > -jnp.inf)
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
    """The exact posterior over sine waves and lines, by drawn functions.

    Its own mixture has thousands of components, too many here.
    """

    source: SineLine

    def posterior(self, support, *, key):
        return Drawn(self.source.exact(support))


class Uninformed(AbstractLearner):
    """Sees no label: every class alike, or the mean and the deviation of the training rows.

    These are 0 and 1 in the units of the training rows.
    """

    head: AbstractHead

    def posterior(self, support, *, key):
        def flat(w, x):
            return jnp.broadcast_to(w, (len(x), self.head.raw_dim))

        return Particles.single(jnp.zeros(()), flat, self.head)
