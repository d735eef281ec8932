"""A logistic regression a task: a control that learns nothing from other tasks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

STEPS = 150  # of the fit
NEVER = -1e9  # the logit of a class of which nothing is shown


def regression(
    label: Float[Array, "m c"],
    shown: Float[Array, "m d"],
    mask: Array,
    query: Float[Array, "n d"],
    scale: Array,
) -> Float[Array, "n c"]:
    """Logits of a multinomial logistic regression with weights N(0, scale) a class.

    The weights are sums of the images shown, w = shownᵀ a: accelerated gradient steps in a need
    the products of images alone (Nesterov, "Introductory Lectures on Convex Optimization", 2004,
    section 2.2). Classes of which nothing is shown take no part.
    """
    gram = shown @ shown.T * mask * mask[:, None]
    present = label.any(0)
    # The curvature of the loss is at most half the products' largest value, and the prior's one.
    most = 0.5 * scale * jnp.abs(gram).sum(1).max() + 1.0

    def gradient(a):
        logits = jnp.where(present, scale * gram @ a, NEVER)
        return (jax.nn.softmax(logits) - label) * mask[:, None] + a

    def step(carry, i):
        a, before = carry
        ahead = a + i / (i + 3) * (a - before)
        return (ahead - gradient(ahead) / most, a), None

    zero = jnp.zeros_like(label)
    (a, _), _ = jax.lax.scan(step, (zero, zero), jnp.arange(STEPS, dtype=label.dtype))
    return scale * query @ shown.T @ (a * mask[:, None])
