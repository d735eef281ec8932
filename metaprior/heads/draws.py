"""Moments, cdf and quantiles from finitely many outcomes, and even points to make these from."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

EDGE = 6.0  # one-dimensional grids end so many standard deviations from the mean


def uniform_points(count: int, dim: int) -> Float[np.ndarray, "m p"]:
    """`count` points that fill the unit cube evenly, always the same ones.

    The first coordinate takes the midpoints of `count` equal cells. The others are a Kronecker
    sequence with the powers of the generalised golden ratio. A mean of a smooth function over these
    points is off by about 1/count; over random points it would be 1/sqrt(count).

    Example:
        >>> from metaprior.heads.draws import uniform_points
        >>> uniform_points(4, 1).ravel().tolist()
        [0.125, 0.375, 0.625, 0.875]
    """
    i = np.arange(count)
    ratio = 2.0
    for _ in range(60):  # the root of g^dim = g + 1
        ratio = (1 + ratio) ** (1 / max(dim, 2))
    others = [(0.5 + (i + 1) * ratio**-j) % 1.0 for j in range(1, dim)]
    return np.stack([(i + 0.5) / count, *others], axis=1)


def normal_points(count: int, dim: int) -> Float[np.ndarray, "m p"]:
    """Even points of independent standard normals, each coordinate with mean 0 and variance 1."""
    # Imported here, as it takes long and most predictions do without.
    from scipy.special import ndtri

    z = ndtri(uniform_points(count, dim))
    z = z - z.mean(0)  # few points miss the moments a little; these two are made exact
    return z if count == 1 else z / z.std(0)


def normal_nodes(count: int, dim: int) -> tuple[Float[np.ndarray, "m p"], Float[np.ndarray, "m"]]:
    """Points and log weights for averages over a standard normal vector; the weights sum to 1.

    One dimension: the trapezoid rule on ±6, whose error falls exponentially for smooth functions.
    Several dimensions: `normal_points`.
    """
    if dim > 1:
        return normal_points(count, dim), np.full(count, -np.log(count))
    z = np.linspace(-EDGE, EDGE, count)
    log_weight = -0.5 * z**2
    return z[:, None], log_weight - np.log(np.exp(log_weight).sum())


def leading(array: np.ndarray, like: Array, tail: int) -> Array:
    """`array` shaped to broadcast: its first axis leads, its last `tail` axes come last.

    In between stand axes of length one for all but the last axis of `like`.
    """
    shape = (array.shape[0], *(1,) * (like.ndim - 1), *array.shape[array.ndim - tail :])
    return jnp.asarray(array, like.dtype).reshape(shape)


def row_noise(
    count: int, rows: tuple[int, ...], dim: int, dtype, *, key: PRNGKeyArray
) -> Float[Array, "m *b z"]:
    """`count` standard normal vectors a row, draws first.

    A row's noise stays the same when padding rows follow it: the padding invariance of a loss
    depends on that.
    """
    return jnp.moveaxis(jr.normal(key, (*rows, count, dim), dtype), -2, 0)


class Draws(eqx.Module):
    """Finitely many weighted outcomes that stand for a density; the draws lead.

    Args:
        values: `(m, …, p)`, units of y.
        log_weight: `(m, …)`; their exponentials need not sum to 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.heads.draws import Draws
        >>> draws = Draws(jnp.asarray([[0.0], [1.0], [2.0], [3.0]]), jnp.zeros(4))
        >>> draws.mean().tolist(), draws.quantile(jnp.asarray(0.5)).tolist()
        ([1.5], [1.5])
    """

    values: Float[Array, "m *b p"]
    log_weight: Float[Array, "m *b"]

    def weights(self) -> Float[Array, "m *b"]:
        """Weights that sum to 1 over the draws."""
        return jax.nn.softmax(self.log_weight, axis=0)

    def average(self, values: Float[Array, "m *b p"]) -> Float[Array, "*b p"]:
        """Weighted mean of one value a draw and outcome."""
        return (self.weights()[..., None] * values).sum(0)

    def mean(self) -> Float[Array, "*b p"]:
        """Expected outcome."""
        return self.average(self.values)

    def variance(self) -> Float[Array, "*b p"]:
        """Variance of each outcome."""
        return self.average((self.values - self.mean()) ** 2)

    def _table(self):
        """Outcomes in order, and the share below each with half of its own weight; draws last."""
        weights = jnp.broadcast_to(self.weights()[..., None], self.values.shape)
        order = jnp.argsort(self.values, axis=0)
        values, w = (jnp.take_along_axis(a, order, axis=0) for a in (self.values, weights))
        return jnp.moveaxis(values, 0, -1), jnp.moveaxis(jnp.cumsum(w, axis=0) - 0.5 * w, 0, -1)

    def cdf(self, y: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        """P(Y <= y), linear between the draws; 0 and 1 beyond them."""
        values, share = self._table()

        def at(y, v, s):
            return jnp.interp(y, v, s, left=0.0, right=1.0)

        return jnp.vectorize(at, signature="(),(m),(m)->()")(y, values, share)

    def quantile(self, level: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        """The inverse of `cdf`; levels beyond the outermost draws give these draws.

        `level` broadcasts against the outcomes.
        """
        values, share = self._table()
        interpolate = jnp.vectorize(jnp.interp, signature="(),(m),(m)->()")
        return interpolate(jnp.asarray(level, values.dtype), share, values)


def bisect(cdf: Callable[[Array], Array], level, low: Array, high: Array) -> Array:
    """Where the increasing `cdf` reaches `level`, elementwise, to 1e-9 of the bracket."""

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        below = cdf(middle) < level
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, 30, halve, (low, high))  # 2^-30 is 1e-9
    return 0.5 * (low + high)
