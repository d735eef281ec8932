"""Where an increasing function reaches a level, elementwise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array

CLOSE = 2e-6  # normal score, just above rounding errors, from which one more step is the last
MOST = 60  # steps; more than it takes to halve any interval of single precision to nothing


def root(function: Callable[[Array], tuple[Array, Array]], low: Array, high: Array) -> Array:
    """The root between `low` and `high`, by Newton's method kept inside a shrinking bracket.

    An element that has arrived stays where it is, whatever the others do: what is found does not
    depend on what is solved beside it.

    Args:
        function: its value and slope at each element.
        low, high: bracket of each element.
    """

    def go_on(state):
        *_, done, count = state
        return ~done.all() & (count < MOST)

    def step(state):
        y, low, high, last, done, count = state
        value, slope = function(y)
        low, high = jnp.where(value < 0, y, low), jnp.where(value < 0, high, y)
        newton = y - value / slope
        near = jnp.abs(value) <= CLOSE
        # Halving never fails: for steps that leave the bracket, or do not shrink.
        inside = (newton >= low) & (newton <= high)
        good = inside & (near | (jnp.abs(newton - y) <= 0.5 * last))
        new = jnp.where(good, newton, 0.5 * (low + high))
        arrived = (near & inside) | (new == low) & (new == high)
        last = jnp.abs(new - y)
        return jnp.where(done, y, new), low, high, last, done | arrived, count + 1

    start = 0.5 * (low + high)
    never = jnp.zeros(start.shape, bool)
    state = (start, low, high, high - low, never, 0)
    return jax.lax.while_loop(go_on, step, state)[0]


def quantile(
    below: Callable[[Array, Array], Array], level: Array, low: Array, high: Array
) -> Array:
    """Where a cdf reaches a level, to the precision of the numbers.

    The normal score of the smaller tail is solved for. It is nearly a straight line in y where the
    density is nearly normal, and a small tail keeps its digits.

    Args:
        below: `(v, sign) -> P(sign Y <= v)`, for `sign` 1 and -1.
        level: a number in (0, 1).
        low, high: bracket of each element.
    """
    level = jnp.asarray(level, low.dtype)
    sign = jnp.where(level <= 0.5, 1.0, -1.0).astype(low.dtype)
    info = jnp.finfo(low.dtype)
    target = ndtri(jnp.minimum(level, 1 - level))

    def function(v):
        tail, density = jax.jvp(lambda v: below(v, sign), (v,), (jnp.ones_like(v),))
        score = ndtri(jnp.clip(tail, info.tiny, 1 - info.eps))
        return score - target, density / jax.scipy.stats.norm.pdf(score)

    ends = jnp.stack([sign * low, sign * high])
    return sign * root(function, ends.min(0), ends.max(0))
