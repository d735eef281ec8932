"""Stein variational gradient descent."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from metaprior.devices import over_particles
from metaprior.infer.descend import shorten, step_of


def bandwidth(particles: Float[Array, "m d"]) -> Float[Array, ""]:
    """Median of the squared distances between different particles, over log m: section 5 of the paper.

    The zero distance of a particle to itself does not count; gradients do not pass.
    """
    m = particles.shape[0]
    if m < 2:
        return jnp.ones((), particles.dtype)
    fixed = jax.lax.stop_gradient(particles)
    first, second = jnp.triu_indices(m, 1)
    median = jnp.median(((fixed[first] - fixed[second]) ** 2).sum(-1))
    return jnp.maximum(median, 1e-12) / jnp.log(float(m)).astype(particles.dtype)


def direction(particles: Float[Array, "m d"], scores: Float[Array, "m d"], h: Float[Array, ""]) -> Float[Array, "m d"]:
    """Stein's direction for k(a, b) = exp(-‖a - b‖² / h), equation 8:

    phi(w_i) = 1/m sum_j [ k(w_j, w_i) score(w_j) + d/dw_j k(w_j, w_i) ], the last term being
    2/h k(w_j, w_i) (w_i - w_j), which drives particles apart.
    """
    center = particles - particles.mean(0)  # near zero, squared distances lose nothing to rounding
    square = (center**2).sum(-1)
    k = jnp.exp(-jnp.maximum(square[:, None] + square[None] - 2 * center @ center.T, 0.0) / h)
    apart = k.sum(1, keepdims=True) * center - k @ center  # sum_j k(w_j, w_i) (w_i - w_j)
    return (k @ scores + 2 / h * apart) / particles.shape[0]


def svgd(
    log_prob: Callable[[Any], Float[Array, ""]],
    particles: Any,
    rate: Any,
    steps: int = 1,
    *,
    h: Array | float | None = None,
    clip: float | None = None,
) -> Any:
    """`steps` steps of Stein variational gradient descent, differentiable in everything but the bandwidth.

    Liu & Wang, "Stein Variational Gradient Descent", NeurIPS 2016, algorithm 1, with plain steps.

    Args:
        log_prob: of one particle, up to a constant, in nats.
        particles: a pytree whose floating-point arrays have a leading particle axis.
        rate: step size: a number, a pytree like one particle, or a `metaprior.infer.descend.Curvature`.
        steps: number of steps, at least 0.
        h: bandwidth, squared units of the particles; `None` (default) takes `bandwidth` anew at every step.
        clip: greatest norm of a particle's score; `None` (default) for any.

    Returns:
        the moved particles.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.svgd import svgd
        >>> start = jax.random.normal(jax.random.key(0), (50, 1))
        >>> moved = svgd(lambda w: -0.5 * ((w - 3.0) ** 2).sum(), start, 0.5, steps=200)
        >>> bool(abs(moved.mean() - 3.0) < 0.01)
        True
    """
    if steps < 0:
        raise ValueError(f"svgd takes 0 steps or more; got {steps}.")
    moving, fixed = eqx.partition(particles, eqx.is_inexact_array)
    one = jax.tree.map(lambda a: a[0], moving)
    unravel, move = ravel_pytree(one)[1], step_of(rate, one)
    flatten = jax.vmap(lambda w: ravel_pytree(w)[0])
    gradient = jax.grad(lambda v: log_prob(eqx.combine(unravel(v), fixed)))
    score = jax.vmap(gradient if clip is None else lambda v: shorten(gradient(v), clip))

    def step(w, i):
        w = over_particles(w)
        along = direction(w, score(w), bandwidth(w) if h is None else jnp.asarray(h, w.dtype))
        return w + flatten(jax.vmap(lambda v: move(unravel(v), i))(along)), None

    flat, _ = jax.lax.scan(step, flatten(moving), jnp.arange(steps))
    return eqx.combine(jax.vmap(unravel)(flat), fixed)
