"""Stein variational gradient descent."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from metaprior.infer.descend import AbstractStep, as_step, shorten, written_out
from metaprior.system.devices import over_particles
from metaprior.system.products import nn, nt


def squares(particles: Any) -> Float[Array, "m m"]:
    """Squared distances between particles.

    They are summed array by array: flat copies of the weights would cost more than the products.
    """
    total = 0.0
    for leaf in jax.tree.leaves(particles):
        # Around zero, squared distances lose nothing to rounding.
        flat = (leaf - leaf.mean(0)).reshape(len(leaf), -1)
        square = (flat * flat).sum(1)
        total = total + square[:, None] + square[None] - 2 * nt(flat, flat)
    return jnp.maximum(total, 0.0)


def bandwidth(particles: Any) -> Float[Array, ""]:
    """Median of the squared distances between particles, over log m (section 5 of the paper).

    The zero distance of a particle to itself does not count. Gradients do not pass.
    """
    square = jax.lax.stop_gradient(squares(particles))
    m = len(square)
    if m < 2:
        return jnp.ones((), square.dtype)
    # Particles in one place have no distances; the direction divides by the bandwidth.
    median = jnp.maximum(jnp.median(square[jnp.triu_indices(m, 1)]), 1e-12)
    return median / jnp.log(float(m)).astype(square.dtype)


def direction(
    particles: Any, scores: Any, h: Float[Array, ""], repulsion: Array | float = 1.0
) -> Any:
    """Stein's direction for k(a, b) = exp(-‖a - b‖² / h), equation 8.

    phi(w_i) = 1/m sum_j [ k(w_j, w_i) score(w_j) + d/dw_j k(w_j, w_i) ]. The last term is 2/h
    k(w_j, w_i) (w_i - w_j) times `repulsion`: it drives particles apart.

    Args:
        particles, scores: pytrees of arrays with a leading particle axis.
        h: bandwidth.
        repulsion: factor of the last term.

    Returns:
        a pytree like `particles`.
    """
    k = jnp.exp(-squares(particles) / h)
    m, total = len(k), k.sum(1)

    def each(w, score):
        w = 2 * repulsion / h * (w - w.mean(0)).reshape(m, -1)
        # One product with k for both terms.
        along = nn(k, score.reshape(m, -1) - w) + total[:, None] * w
        return (along / m).reshape(score.shape)

    return jax.tree.map(each, particles, scores)


def steered(
    loss: Callable[[Any], Float[Array, ""]], particles: Any, repulsion: Array | float = 1.0
) -> Float[Array, ""]:
    """A loss of all particles whose gradient is minus Stein's direction, for any optimiser.

    Its value is that of `loss`. Each particle is replaced by itself plus what the kernel lets it
    follow of the others' moves, w_j + sum_i k(w_j, w_i) (w_i - stop(w_i)): the derivative in w_i
    is then sum_j k(w_j, w_i) score(w_j), without a gradient inside the loss.

    Args:
        loss: the mean over all particles of minus a log density, of the stacked particles.
        particles: a pytree whose floating-point arrays have a leading particle axis.
        repulsion: factor of the kernel's gradient, as `svgd` takes it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.svgd import steered
        >>> w = jnp.array([[0.0], [1.0]])
        >>> jax.grad(lambda w: steered(lambda v: 0.5 * (v**2).mean(), w))(w).shape
        (2, 1)
    """
    moving, fixed = eqx.partition(particles, eqx.is_inexact_array)
    still = jax.lax.stop_gradient(moving)
    h = bandwidth(still)
    k = jnp.exp(-squares(still) / h)
    apart = direction(still, jax.tree.map(jnp.zeros_like, still), h, repulsion)
    step = jax.tree.map(jnp.subtract, moving, still)  # zero, with a derivative

    def follow(w, move):
        return w + nn(k, move.reshape(len(k), -1)).reshape(w.shape)

    mixed = jax.tree.map(follow, still, step)
    away = sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), apart, step)))
    return loss(eqx.combine(mixed, fixed)) - away


def svgd(
    log_prob: Callable[[Any], Float[Array, ""]],
    particles: Any,
    rate: AbstractStep | Array | float | optax.GradientTransformation,
    steps: int = 1,
    *,
    h: Array | float | None = None,
    clip: float | None = None,
    repulsion: Array | float = 1.0,
) -> Any:
    """`steps` steps of Stein variational gradient descent.

    Liu & Wang, "Stein Variational Gradient Descent", NeurIPS 2016, algorithm 1, with plain steps.
    Differentiable in everything but the bandwidth.

    Args:
        log_prob: of one particle, up to a constant, in nats.
        particles: a pytree whose floating-point arrays have a leading particle axis.
        rate: step size: a number, a step of `metaprior.infer.descend` for one particle, or an optax
            optimiser, which takes minus Stein's direction for its gradient.
        steps: number of steps, at least 0.
        h: bandwidth, squared units of the particles; `None` (default) takes `bandwidth` anew at
            every step.
        clip: greatest norm of a particle's score; `None` (default) for any.
        repulsion: factor of the kernel's gradient: 1 (default) where `log_prob` is a log density,
            and 1 / n where it is a log density over n, a mean over rows. Particles then go where
            those of the density itself go, at an n-th of the rate.

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

    def score(w):
        gradient = jax.grad(lambda w: log_prob(eqx.combine(w, fixed)))(w)
        return gradient if clip is None else shorten(gradient, clip)

    def along(w):
        wide = bandwidth(w) if h is None else jnp.asarray(h, jnp.result_type(*jax.tree.leaves(w)))
        return direction(w, jax.vmap(score)(w), wide, repulsion)

    if isinstance(rate, optax.GradientTransformation):
        return eqx.combine(_optimised(along, moving, rate, steps), fixed)
    move = as_step(rate)
    move.check(jax.tree.map(lambda a: a[0], moving), steps)

    def step(w, i):
        w = over_particles(w)
        return jax.tree.map(jnp.add, w, jax.vmap(lambda v: move(v, i))(along(w))), None

    unroll = written_out(moving, steps)
    found, _ = jax.lax.scan(step, moving, jnp.arange(steps), unroll=unroll)
    return eqx.combine(found, fixed)


def _optimised(along: Callable, start: Any, optimiser: optax.GradientTransformation, steps: int):
    """Particles after so many of an optimiser's steps, each along `along(particles)`."""

    def step(carry, _):
        w, state = over_particles(carry[0]), carry[1]
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            updates, state = optimiser.update(jax.tree.map(jnp.negative, along(w)), state, w)
        return (jax.tree.map(jnp.add, w, updates), state), None

    return jax.lax.scan(step, (start, optimiser.init(start)), length=steps)[0][0]
