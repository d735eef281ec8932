"""Variational inference by gradient descent on a diagonal normal."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.infer.descend import AbstractStep, descend
from metaprior.infer.gaussian import Diagonal
from metaprior.system.devices import over_particles


def draw(q: Any, key: PRNGKeyArray) -> Any:
    """One draw of a distribution, with the key as a plain argument."""
    return q.sample(key=key)


def bayes_by_backprop(
    prior: Diagonal,
    risk: Callable[[Any, PRNGKeyArray], Float[Array, ""]],
    count: Array,
    rate: AbstractStep | Array | float,
    steps: int,
    *,
    kl_weight: float,
    samples: int,
    clip: float | None = None,
    key: PRNGKeyArray,
) -> Diagonal:
    """Steps of descent from the prior on E_q risk(w) + kl_weight KL(q ‖ prior) / count.

    Blundell et al., "Weight Uncertainty in Neural Networks", ICML 2015. It starts at q = prior, as
    in Ravi & Beatson, "Amortized Bayesian Meta-Learning", ICLR 2019. One set of noise serves all
    steps, so that they descend on one function. Without rows (count 0, risk 0) the prior stays as
    it is.

    Args:
        prior: where q starts and what it is drawn to.
        risk: mean loss of `w` over the rows, in nats, with a key for losses that are random.
        count: number of rows.
        rate: as `descend` takes it.
        steps: number of steps, at least 0.
        kl_weight: 1 is the evidence bound.
        samples: draws of `w` for the expectation.
        clip: as `descend` takes it.
        key: of the draws.
    """

    def bound(q):
        def each(k):
            return risk(draw(q, k), jr.fold_in(k, 1))

        expected = jax.vmap(each)(over_particles(jr.split(key, samples))).mean()
        kl = q.kl(prior) / jnp.maximum(count, 1)
        return expected + kl_weight * kl

    return descend(bound, prior, rate, steps, clip=clip)
