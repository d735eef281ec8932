"""Covariance functions and mean functions, each a small module of learned arrays.

A kernel is called with two sets of points and gives their covariance; `diag` gives the variances.
A sum of kernels is a tuple of them (`gram`, `diagonal`).
"""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.nets.mlp import apply


def of_both(function: Callable[[Array], Array], a: Array, b: Array) -> tuple[Array, Array]:
    """`function` of both sets of points; once where they are the same one."""
    first = function(a)
    return first, first if b is a else function(b)


class AbstractKernel(eqx.Module):
    """k(a, b) for points `a` of shape `(n, d)` and `b` of shape `(m, d)`."""

    @abstractmethod
    def __call__(self, a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        """Covariances between two sets of points."""

    @abstractmethod
    def diag(self, a: Float[Array, "n d"]) -> Float[Array, "n"]:
        """Variances at the points."""


Kernels = tuple[AbstractKernel, ...]


def gram(kernels: Kernels, a: Float[Array, "n d"], b: Float[Array, "m d"]):
    """Sum of the kernels between two sets of points."""
    return sum(kernel(a, b) for kernel in kernels)


def diagonal(kernels: Kernels, a: Float[Array, "n d"]):
    """Sum of the kernels' variances."""
    return sum(kernel.diag(a) for kernel in kernels)


class Constant(AbstractKernel):
    """One random offset a task, standard deviation `exp(log_std)`."""

    log_std: Array

    def __call__(self, a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return jnp.exp(2 * self.log_std) * jnp.ones((a.shape[0], b.shape[0]), a.dtype)

    def diag(self, a: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.exp(2 * self.log_std) * jnp.ones(a.shape[0], a.dtype)


FEW = 4  # columns of which differences of points are formed one by one


def _squared_distance(
    a: Float[Array, "n d"], b: Float[Array, "m d"], length: Array | float = 1.0
) -> Float[Array, "n m"]:
    """Squared distances in units of `length`.

    From differences, which are exact for close points however far they lie from zero. Of more
    columns from a product, which is quicker, after zero has been moved among the points: columns of
    tables have a deviation of one.
    """
    if a.shape[-1] <= FEW:
        scale = jnp.broadcast_to(1.0 / length, a.shape[-1:])
        # A column at a time: the last axis of all differences would be too short to be quick.
        gaps = ((x[:, None] - y[None]) * each for x, y, each in zip(a.T, b.T, scale))
        return sum((gap * gap for gap in gaps), jnp.zeros((len(a), len(b)), a.dtype))
    middle = jax.lax.stop_gradient(b.mean(0))
    a, b = of_both(lambda x: (x - middle) / length, a, b)
    # Rounding can leave a little less than zero.
    return jnp.maximum((a * a).sum(-1)[:, None] + (b * b).sum(-1)[None] - 2 * a @ b.T, 0.0)


def _along(
    a: Float[Array, "n d"], b: Float[Array, "m d"], direction: Float[Array, "d"]
) -> Float[Array, "n m"]:
    """How far points lie apart along a direction; from differences as in `_squared_distance`."""
    if a.shape[-1] <= FEW:
        return (a[:, None] - b[None]) @ direction
    middle = jax.lax.stop_gradient(b.mean(0))
    first, second = of_both(lambda x: (x - middle) @ direction, a, b)
    return first[:, None] - second[None]


class Stationary(AbstractKernel):
    """Exponentiated quadratic (`shape="eq"`) or Matérn-5/2 (`"matern52"`).

    Args:
        log_std: log of the standard deviation of the function.
        log_length: log of a length scale for each column, `(d,)`, units of x.
        shape: `"eq"` or `"matern52"`.
    """

    log_std: Array
    log_length: Float[Array, "d"]
    shape: str = eqx.field(static=True, default="eq")

    def __call__(self, a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        squared = _squared_distance(a, b, jnp.exp(self.log_length))
        if self.shape == "eq":
            k = jnp.exp(-0.5 * squared)
        else:
            # The root has no gradient at zero, where two points are the same.
            r = jnp.sqrt(5 * squared + 1e-12)
            k = (1 + r + r * r / 3) * jnp.exp(-r)
        return jnp.exp(2 * self.log_std) * k

    def diag(self, a: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.exp(2 * self.log_std) * jnp.ones(a.shape[0], a.dtype)


class Periodic(AbstractKernel):
    """Periodic times exponentiated quadratic, in one or more columns.

    Args:
        log_std: log of the standard deviation of the function.
        log_period: log of the period, units of x.
        log_length: log of the length scale within a period, without a unit.
        log_decay: log of the length scale over which periods grow unlike, units of x.
    """

    log_std: Array
    log_period: Array
    log_length: Array
    log_decay: Array

    def __call__(self, a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        gap = a[:, None] - b[None]
        wave = jnp.sin(jnp.pi * gap * jnp.exp(-self.log_period)) * jnp.exp(-self.log_length)
        slow = gap * jnp.exp(-self.log_decay)
        return jnp.exp(2 * self.log_std - 2 * (wave**2).sum(-1) - 0.5 * (slow**2).sum(-1))

    def diag(self, a: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.exp(2 * self.log_std) * jnp.ones(a.shape[0], a.dtype)


def polynomial(x: Float[Array, "n d"], degree: int) -> Float[Array, "n q"]:
    """[1], [1, x] or [1, x, x² - 1] for degree 0, 1 or 2: features of a random-effects model."""
    one = jnp.ones((x.shape[0], 1), x.dtype)
    return jnp.concatenate([one, x, x * x - 1.0][: 1 + degree], axis=1)


class RandomEffects(AbstractKernel):
    """phi(x)ᵀ (L Lᵀ + diag(s²)) phi(x'): correlated random intercept, slopes and curvature.

    This is the covariance of a linear mixed model with random slopes. phi is `polynomial`.

    Args:
        factor: L, `(q, r)`.
        log_std: log of s, `(q,)`.
        degree: of the polynomial.
    """

    factor: Float[Array, "q r"]
    log_std: Float[Array, "q"]
    degree: int = eqx.field(static=True)

    @staticmethod
    def init(
        d: int, degree: int, std: float, *, key: PRNGKeyArray, rank: int = 8
    ) -> "RandomEffects":
        """Effects that start with the standard deviation `std` and nearly no correlation."""
        q = 1 + degree * d
        factor = 0.1 * std * jr.normal(key, (q, min(rank, q)))
        return RandomEffects(factor, jnp.full(q, jnp.log(std)), degree)

    def _weights(self, x):
        phi = polynomial(x, self.degree)
        return jnp.concatenate([phi @ self.factor, phi * jnp.exp(self.log_std)], axis=1)

    def __call__(self, a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        left, right = of_both(self._weights, a, b)
        return left @ right.T

    def diag(self, a: Float[Array, "n d"]) -> Float[Array, "n"]:
        return (self._weights(a) ** 2).sum(-1)


class Dot(AbstractKernel):
    """Linear kernel exp(2 log_std) aᵀb: Bayesian linear regression without an intercept."""

    log_std: Array

    def __call__(self, a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return jnp.exp(2 * self.log_std) * (a @ b.T)

    def diag(self, a: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.exp(2 * self.log_std) * (a * a).sum(-1)


class Spectral(AbstractKernel):
    """Spectral mixture: sum_q w_q exp(-2 π² sum_i v_qi τ_i²) cos(2 π μ_qᵀ τ), τ = a - b.

    Wilson & Adams, "Gaussian Process Kernels for Pattern Discovery and Extrapolation", ICML 2013,
    equation 12: the spectral density is a mixture of normals N(μ_q, diag(v_q)), in cycles per unit
    of the points.

    Args:
        log_std: half the log of w, `(q,)`.
        frequency: μ, `(q, d)`.
        log_width: half the log of v, `(q, d)`.
    """

    log_std: Float[Array, "q"]
    frequency: Float[Array, "q d"]
    log_width: Float[Array, "q d"]

    @staticmethod
    def init(d: int, components: int, std: float, scale: float, *, key: PRNGKeyArray) -> "Spectral":
        """Total standard deviation `std`; frequencies and their widths of the order of `scale`."""
        log_std = jnp.full(components, jnp.log(std / components**0.5))
        width = jnp.full((components, d), jnp.log(scale))
        return Spectral(log_std, scale * jr.normal(key, (components, d)), width)

    def __call__(self, a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        def component(log_std, frequency, log_width):
            length = jnp.exp(-log_width) / (2 * jnp.pi)
            envelope = jnp.exp(2 * log_std - 0.5 * _squared_distance(a, b, length))
            return envelope * jnp.cos(2 * jnp.pi * _along(a, b, frequency))

        return jax.vmap(component)(self.log_std, self.frequency, self.log_width).sum(0)

    def diag(self, a: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.exp(2 * self.log_std).sum() * jnp.ones(a.shape[0], a.dtype)


class Deep(AbstractKernel):
    """A kernel on learned features of the points: k(h(a), h(b)).

    Wilson et al., "Deep Kernel Learning", AISTATS 2016, equation 5.

    Args:
        net: h.
        kernel: k.
    """

    net: eqx.nn.MLP
    kernel: AbstractKernel

    def __call__(self, a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self.kernel(*of_both(lambda x: apply(self.net, x), a, b))

    def diag(self, a: Float[Array, "n d"]) -> Float[Array, "n"]:
        return self.kernel.diag(apply(self.net, a))


class Modulated(AbstractKernel):
    """exp(h(a)) k(a, b) exp(h(b)): the standard deviation of a function varies with x.

    Args:
        net: h, one number.
        kernel: k.
    """

    net: eqx.nn.MLP
    kernel: AbstractKernel

    def __call__(self, a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        left, right = of_both(lambda x: jnp.exp(apply(self.net, x)[:, 0]), a, b)
        return left[:, None] * self.kernel(a, b) * right[None]

    def diag(self, a: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.exp(2 * apply(self.net, a)[:, 0]) * self.kernel.diag(a)
