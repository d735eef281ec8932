"""Normal distributions over the floating-point arrays of a pytree.

They are diagonal, low rank plus diagonal, or full.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jax.scipy import stats
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.infer.cholesky import factorise, invert_lower


def _total(function, *trees) -> Float[Array, ""]:
    """Sum of `function` over all elements of all arrays."""
    arrays = [eqx.filter(tree, eqx.is_inexact_array) for tree in trees]
    return sum(leaf.sum() for leaf in jax.tree.leaves(jax.tree.map(function, *arrays)))


class Diagonal(eqx.Module):
    """N(mean, diag(exp(log_std)²)) over the floating-point arrays of a pytree, as of a network.

    Args:
        mean: any pytree; what is not a floating-point array is the same in every draw.
        log_std: a pytree with arrays of the same shapes at the same places.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.gaussian import Diagonal
        >>> p = Diagonal(jnp.zeros(3), jnp.zeros(3))
        >>> float(Diagonal(jnp.ones(3), jnp.zeros(3)).kl(p)), p.sample(key=jax.random.key(0)).shape
        (1.5, (3,))
    """

    mean: Any
    log_std: Any

    @staticmethod
    def around(mean: Any, std: float) -> "Diagonal":
        """The same standard deviation for every array element of `mean`."""
        arrays = eqx.filter(mean, eqx.is_inexact_array)
        return Diagonal(mean, jax.tree.map(lambda a: jnp.full_like(a, jnp.log(std)), arrays))

    def sample(self, *, key: PRNGKeyArray) -> Any:
        """One draw, mean + std * noise: differentiable in both."""
        mean, fixed = eqx.partition(self.mean, eqx.is_inexact_array)
        log_std = eqx.filter(self.log_std, eqx.is_inexact_array)
        leaves, tree = jax.tree.flatten(mean)
        noise = [jr.normal(k, a.shape, a.dtype) for k, a in zip(jr.split(key, len(leaves)), leaves)]

        def draw(m, s, e):
            return m + jnp.exp(s) * e

        moved = jax.tree.map(draw, mean, log_std, jax.tree.unflatten(tree, noise))
        return eqx.combine(moved, fixed)

    def log_prob(self, w: Any) -> Float[Array, ""]:
        """Log density of `w`, in nats."""

        def each(a, m, s):
            return stats.norm.logpdf(a, m, jnp.exp(s))

        return _total(each, w, self.mean, self.log_std)

    def kl(self, other: "Diagonal") -> Float[Array, ""]:
        """KL(self ‖ other) in nats."""

        def each(m, s, m0, s0):
            return s0 - s + 0.5 * (jnp.exp(2 * (s - s0)) + ((m - m0) * jnp.exp(-s0)) ** 2 - 1)

        return _total(each, self.mean, self.log_std, other.mean, other.log_std)


def _moved(mean: Any, step: Float[Array, "d"]) -> Any:
    """`mean` with its floating-point arrays, taken as one vector, moved by `step`."""
    moving, fixed = eqx.partition(mean, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(moving)
    return eqx.combine(unravel(flat + step), fixed)


def _flat(w: Any) -> Float[Array, "d"]:
    return ravel_pytree(eqx.filter(w, eqx.is_inexact_array))[0]


def _log_normal(white_square, log_det, d) -> Float[Array, ""]:
    """Log density from the squared whitened distance and the log determinant of the covariance."""
    return -0.5 * (white_square + log_det + d * jnp.log(2 * jnp.pi))


class LowRank(eqx.Module):
    """N(mean, F Fᵀ + diag(exp(log_std)²)), without a matrix of size `d`.

    Args:
        mean: any pytree; its floating-point arrays are `d` numbers.
        factor: F, `(d, r)`, in the order in which `jax.flatten_util.ravel_pytree` puts them.
        log_std: `(d,)`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.gaussian import LowRank
        >>> p = LowRank(jnp.zeros(3), jnp.ones((3, 1)), jnp.zeros(3))
        >>> round(float(p.log_prob(jnp.zeros(3))), 4), p.sample(key=jax.random.key(0)).shape
        (-3.45, (3,))
    """

    mean: Any
    factor: Float[Array, "d r"]
    log_std: Float[Array, "d"]

    def sample(self, *, key: PRNGKeyArray) -> Any:
        """One draw, differentiable in all three."""
        shared, own = jr.split(key)
        d, r = self.factor.shape
        wide = self.factor @ jr.normal(shared, (r,), self.factor.dtype)
        noise = jnp.exp(self.log_std) * jr.normal(own, (d,), self.factor.dtype)
        return _moved(self.mean, wide + noise)

    def _core(self):
        """F scaled to unit noise, and the Cholesky factor of I + FᵀF (Woodbury)."""
        f = self.factor * jnp.exp(-self.log_std)[:, None]
        return f, factorise(jnp.eye(f.shape[1], dtype=f.dtype) + f.T @ f)

    def log_prob(self, w: Any) -> Float[Array, ""]:
        """Log density of `w`, in nats."""
        f, core = self._core()
        z = (_flat(w) - _flat(self.mean)) * jnp.exp(-self.log_std)
        # The least of ‖z - F e‖² + ‖e‖²: a difference of two large squares would lose its digits.
        e = core.solve(f.T @ z)
        square = ((z - f @ e) ** 2).sum() + e @ e
        log_det = 2 * self.log_std.sum() + core.log_det()
        return _log_normal(square, log_det, z.shape[0])

    def kl(self, other: Diagonal) -> Float[Array, ""]:
        """KL(self ‖ other) in nats, for a diagonal `other`."""
        _, core = self._core()
        s = _flat(other.log_std)
        gap = (_flat(self.mean) - _flat(other.mean)) * jnp.exp(-s)
        wide = ((self.factor * jnp.exp(-s)[:, None]) ** 2).sum()
        trace = wide + jnp.exp(2 * (self.log_std - s)).sum()
        log_det = 2 * (self.log_std - s).sum() + core.log_det()
        return 0.5 * (trace + gap @ gap - gap.shape[0] - log_det)


class Full(eqx.Module):
    """N(mean, (C Cᵀ)⁻¹), for tens or hundreds of numbers.

    Args:
        mean: any pytree; its floating-point arrays are `d` numbers.
        factor: C, the lower Cholesky factor of the precision, `(d, d)`, in the order of
            `jax.flatten_util.ravel_pytree`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.gaussian import Full
        >>> p = Full(jnp.zeros(3), 2.0 * jnp.eye(3))
        >>> float(p.kl(p)), p.sample(key=jax.random.key(0)).shape
        (0.0, (3,))
    """

    mean: Any
    factor: Float[Array, "d d"]

    def sample(self, *, key: PRNGKeyArray) -> Any:
        """One draw, differentiable in both."""
        noise = jr.normal(key, self.factor.shape[:1], self.factor.dtype)
        return _moved(self.mean, invert_lower(self.factor).T @ noise)

    def log_prob(self, w: Any) -> Float[Array, ""]:
        """Log density of `w`, in nats."""
        z = self.factor.T @ (_flat(w) - _flat(self.mean))
        return _log_normal(z @ z, -2 * jnp.log(jnp.diagonal(self.factor)).sum(), z.shape[0])

    def kl(self, other: "Full") -> Float[Array, ""]:
        """KL(self ‖ other) in nats."""
        # The sum of its squares is tr(P_other Cov_self).
        ratio = invert_lower(self.factor) @ other.factor
        gap = other.factor.T @ (_flat(self.mean) - _flat(other.mean))
        log_det = 2 * jnp.log(jnp.diagonal(self.factor) / jnp.diagonal(other.factor)).sum()
        return 0.5 * ((ratio**2).sum() + gap @ gap - gap.shape[0] + log_det)

    def covariance(self) -> Float[Array, "d d"]:
        """(C Cᵀ)⁻¹."""
        inverse = invert_lower(self.factor)
        return inverse.T @ inverse


class MatrixNormal(eqx.Module):
    """MN(mean, (A Aᵀ)⁻¹, diag(std²)): columns that differ in scale and share a correlation.

    The rows' precision is A Aᵀ.

    Args:
        mean: `(q, p)`.
        root: A, `(q, q)`, any with an inverse.
        std: `(p,)`.
    """

    mean: Float[Array, "q p"]
    root: Float[Array, "q q"]
    std: Float[Array, "p"]

    def sample(self, *, key: PRNGKeyArray) -> Float[Array, "q p"]:
        """One draw, differentiable in all three."""
        noise = jr.normal(key, self.mean.shape, self.mean.dtype) * self.std[None]
        # A⁻ᵀ = (A Aᵀ)⁻¹ A
        return self.mean + factorise(self.root @ self.root.T).solve(self.root @ noise)

    def log_prob(self, w: Float[Array, "q p"]) -> Float[Array, ""]:
        """Log density of `w`, in nats."""
        q, p = self.mean.shape
        z = self.root.T @ (w - self.mean) / self.std[None]
        precision = factorise(self.root @ self.root.T).log_det()
        log_det = 2 * q * jnp.log(self.std).sum() - p * precision
        return _log_normal((z * z).sum(), log_det, q * p)
