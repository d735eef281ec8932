"""The inner loop of gradient-based meta-learning."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def shorten(gradient: Any, length: float) -> Any:
    """`gradient` no longer than `length`, its direction kept; differentiable at zero."""
    square = sum((leaf * leaf).sum() for leaf in jax.tree.leaves(gradient))
    scale = jnp.where(square > length**2, length / jnp.sqrt(jnp.maximum(square, length**2)), 1.0)
    return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), gradient)


def rate_a_weight(w: Any, start: float) -> Any:
    """A learned rate for every weight of `w`, all starting at `start`: Li et al., "Meta-SGD", 2017, equation 1."""
    return jax.tree.map(lambda a: jnp.full_like(a, start), eqx.filter(w, eqx.is_inexact_array))


def descend(
    loss: Callable[[Any], Float[Array, ""]],
    w: Any,
    rate: Any,
    steps: int = 1,
    *,
    first_order: bool = False,
    clip: float | None = None,
) -> Any:
    """`steps` steps of gradient descent, w <- w - rate * grad loss(w), differentiable in everything.

    Finn, Abbeel & Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017,
    equation 1.

    Args:
        loss: of the whole of `w`; a loss without rows (an empty support) has no gradient, hence no step.
        w: any pytree; its floating-point arrays move, the rest stays as it is.
        rate: a number or a scalar array for all of `w`, or a pytree like `w` with one rate a weight
            (Li et al., "Meta-SGD", 2017).
        steps: number of steps, at least 0.
        first_order: take the inner gradient as a constant (first-order MAML, section 5.2).
        clip: greatest norm of a step's gradient; `None` (default) for any.

    Returns:
        the adapted `w`.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.infer.descend import descend
        >>> float(descend(lambda w: (w - 1.0) ** 2, jnp.asarray(0.0), 0.25, steps=2))
        0.75
    """
    if steps < 0:
        raise ValueError(f"descend takes 0 steps or more; got {steps}.")
    moving, fixed = eqx.partition(w, eqx.is_inexact_array)
    rates = eqx.filter(rate, eqx.is_inexact_array)
    if jax.tree.structure(rates) != jax.tree.structure(moving):
        if len(jax.tree.leaves(rate)) != 1:
            raise ValueError("descend takes one rate, or a pytree of rates with the structure of the weights.")
        rates = jax.tree.map(lambda _: jax.tree.leaves(rate)[0], moving)

    def step(moving, _):
        gradient = jax.grad(lambda m: loss(eqx.combine(m, fixed)))(moving)
        gradient = gradient if clip is None else shorten(gradient, clip)
        gradient = jax.lax.stop_gradient(gradient) if first_order else gradient
        return jax.tree.map(lambda a, r, g: a - r * g, moving, rates, gradient), None

    moving, _ = jax.lax.scan(step, moving, None, length=steps)
    return eqx.combine(moving, fixed)
