"""Quantiles of a mixture by one sort: each component is replaced by atoms at even normal scores."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metaprior.posterior import Mixture

TINY = 1e-6  # levels stay this far from 0 and 1
KNOTS = 81  # atoms of a component


def invert(values: Array, mass: Array) -> Callable[[Array], Array]:
    """A function from levels `(m, n)` to quantiles at each of `n` points.

    Between two atoms the quantile is a straight line in normal scores.
    """
    values, mass = jax.lax.sort((values, mass / mass.sum(-1, keepdims=True)), num_keys=1)

    def score(level):
        return jax.scipy.special.ndtri(jnp.clip(level, TINY, 1 - TINY))

    at = jax.vmap(jnp.interp, in_axes=(1, 0, 0), out_axes=1)
    # An atom stands in the middle of its mass.
    return lambda levels: at(score(levels), score(jnp.cumsum(mass, axis=-1) - 0.5 * mass), values)


def outcomes_at(mixture: Mixture, levels: Array) -> Array:
    """Outcomes of the predictive at levels `(m, n)`: draws, where the levels are uniform.

    Returns:
        `(m, n)` outcomes in the model's units, or class indices.
    """
    if not mixture.parts[0].head.classes:
        return invert(*mixture.weighted_atoms(KNOTS))(levels)
    below = jnp.cumsum(mixture.mean(), axis=-1)[:, :-1]
    return (levels[..., None] > below).sum(-1).astype(below.dtype)
