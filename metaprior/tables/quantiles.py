"""Quantiles of a mixture by one sort: each component is replaced by atoms at even normal scores."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metaprior.posterior import Mixture

TAIL = 4.5  # normal score of the outermost atoms of a component
TINY = 1e-6  # levels stay this far from 0 and 1
KNOTS = 81  # atoms of a component


def log_weights(mixture: Mixture) -> Array:
    """Logarithms of the weights of all components, which sum to one."""
    return jax.nn.log_softmax(jnp.concatenate([part.log_weight for part in mixture.parts]))


def atoms(mixture: Mixture, knots: int, shift: Array | float = 0.0) -> tuple[Array, Array]:
    """Each component's quantiles at even normal scores, and the mass that each stands for.

    Args:
        mixture: at `n` points.
        knots: atoms of a component.
        shift: moves all scores by this share of their distance.

    Returns:
        values and masses, `(n, a)` each.
    """
    step = 2 * TAIL / (knots - 1)
    scores = jnp.linspace(-TAIL, TAIL, knots) + shift * step
    inner = jax.scipy.special.ndtr(scores[1:] - step / 2)
    mass = jnp.diff(inner, prepend=0.0, append=1.0)
    levels = jax.scipy.special.ndtr(scores)

    def each(part):
        return jax.vmap(lambda level: part.head.quantile(part.params, level)[..., 0])(levels)

    values = jnp.moveaxis(jnp.concatenate([each(part) for part in mixture.parts], axis=1), -1, 0)
    values = values.reshape(len(values), -1)
    mass = (mass[:, None] * jnp.exp(log_weights(mixture))).astype(values.dtype).reshape(-1)
    return values, jnp.broadcast_to(mass, values.shape)


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
        return invert(*atoms(mixture, KNOTS))(levels)
    below = jnp.cumsum(mixture.mean(), axis=-1)[:, :-1]
    return (levels[..., None] > below).sum(-1).astype(below.dtype)
