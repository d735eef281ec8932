"""Where an increasing function reaches a level, elementwise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array

CLOSE = 2e-6  # value, a normal score, from which one more step of Newton's method is the last
NEAR = 10 * CLOSE  # what rounding errors reach at most: three steps from there are enough
MOST = 60  # steps; more than it takes to halve any interval of single precision to nothing


def root(
    function: Callable[[Array], tuple[Array, Array]], low: Array, high: Array, start: Array
) -> Array:
    """The root between `low` and `high`, by Newton's method kept inside a shrinking bracket.

    An element that has arrived stays where it is, whatever the others do: what is found does not
    depend on what is solved beside it.

    Args:
        function: its value and slope at each element.
        low, high: bracket of each element.
        start: where to begin, inside it.
    """

    def go_on(state):
        *_, done, count = state
        return ~done.all() & (count < MOST)

    def step(state):
        y, low, high, last, near, done, count = state
        value, slope = function(y)
        low, high = jnp.where(value < 0, y, low), jnp.where(value < 0, high, y)
        newton, middle = y - value / slope, 0.5 * (low + high)
        size = jnp.abs(value)
        near = near + (size <= NEAR)
        # Halving never fails: for steps that leave the bracket, or do not shrink.
        inside = (newton >= low) & (newton <= high)
        good = inside & ((near > 0) | (jnp.abs(newton - y) <= 0.5 * last))
        new = jnp.where(good, newton, middle)
        arrived = inside & ((size <= CLOSE) | (near >= 3)) | (middle <= low) | (middle >= high)
        last = jnp.abs(new - y)
        return jnp.where(done, y, new), low, high, last, near, done | arrived, count + 1

    near, never = jnp.zeros(start.shape, int), jnp.zeros(start.shape, bool)
    state = (start, low, high, high - low, near, never, 0)
    return jax.lax.while_loop(go_on, step, state)[0]


def quantile(
    below: Callable[[Array, Array], Array], level: Array, low: Array, high: Array, start: Array
) -> Array:
    """Where a cdf reaches a level, to the precision of the numbers.

    The normal score of the smaller tail is solved for. It is nearly a straight line in y where the
    density is nearly normal, and a small tail keeps its digits.

    Args:
        below: `(v, sign) -> P(sign Y <= v)`, for `sign` 1 and -1.
        level: a number in (0, 1).
        low, high, start: bracket of each element, and where to begin.
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
    return sign * root(function, ends.min(0), ends.max(0), sign * start)
