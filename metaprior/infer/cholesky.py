"""Cholesky factors of symmetric positive definite matrices, many at once.

A task has tens of rows and a training step hundreds of tasks, so small matrices come by the batch.
Up to `SMALL` rows they are factorised here, in plain `jax.numpy`: halves of the matrix, down to
blocks that are eliminated column by column, and matrix products for the rest. `vmap` turns each
operation into one for the whole batch.

Larger matrices go to LAPACK one after another. JAX's client for CPUs shares out a batch of LAPACK
calls among its threads, and whoever asked for them waits, in one of these threads; where as many
wait as there are threads, a program never ends (jaxlib 0.10, a dozen calls on two cores).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

SMALL = 64  # rows; a larger program would compile for seconds, and LAPACK is as quick there
BLOCK = 12  # rows that are eliminated column by column


class Factor(eqx.Module):
    """A = L Lᵀ, with L⁻¹ beside L, so that every solution is a product.

    Args:
        lower: L, zero above the diagonal.
        inverse: L⁻¹.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.infer.cholesky import factorise
        >>> factor = factorise(jnp.array([[4.0, 0.0], [0.0, 9.0]]))
        >>> factor.solve(jnp.array([8.0, 9.0])).tolist()
        [2.0, 1.0]
    """

    lower: Float[Array, "n n"]
    inverse: Float[Array, "n n"]

    def whiten(self, b: Float[Array, "n *m"]) -> Float[Array, "n *m"]:
        """L⁻¹ b: independent and of unit variance where b has the covariance A."""
        return _times(self.inverse, b)

    def unwhiten(self, b: Float[Array, "n *m"]) -> Float[Array, "n *m"]:
        """L⁻ᵀ b: draws with the precision A from independent unit normals."""
        return _times(self.inverse.T, b)

    def solve(self, b: Float[Array, "n *m"]) -> Float[Array, "n *m"]:
        """A⁻¹ b."""
        return self.unwhiten(self.whiten(b))

    def log_det(self) -> Float[Array, ""]:
        """log det A."""
        return 2 * jnp.log(jnp.diagonal(self.lower)).sum()


def factorise(a: Float[Array, "n n"]) -> Factor:
    """The Cholesky factor of a symmetric positive definite matrix; NaN of any other.

    It can be differentiated as often as wanted, forwards and backwards. The derivative is in closed
    form (Murray, "Differentiation of the Cholesky decomposition", 2016, section 3): with
    S = L⁻¹ dA L⁻ᵀ and Φ its lower triangle with half of the diagonal, dL = L Φ and
    dL⁻¹ = -Φ L⁻¹.

    Args:
        a: symmetric; no rows are allowed.
    """
    return Factor(*_factor(a))


def invert_lower(lower: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """L⁻¹ of a lower triangular matrix that did not come from `factorise`."""
    return _inverse(lower)


def _times(a: Array, b: Array) -> Array:
    # GPUs and TPUs round the factors of a product by default; small differences of covariances do
    # not survive that.
    return jnp.matmul(a, b, precision="highest")


@jax.custom_jvp
def _factor(a):
    if len(a) <= SMALL:
        return _halves(a)
    return _lapack(a)


@_factor.defjvp
def _(primals, tangents):
    lower, inverse = _factor(*primals)
    s = _times(_times(inverse, tangents[0]), inverse.T)
    phi = jnp.tril(0.5 * (s + s.T)) - 0.5 * jnp.diag(jnp.diagonal(s))
    return (lower, inverse), (_times(lower, phi), -_times(phi, inverse))


@jax.custom_jvp
def _inverse(lower):
    if len(lower) <= SMALL:
        return _inverse_by_halves(lower)
    return _lapack_inverse(lower)


@_inverse.defjvp
def _(primals, tangents):
    inverse = _inverse(*primals)
    return inverse, -_times(inverse, _times(jnp.tril(tangents[0]), inverse))


def _halves(a) -> tuple[Array, Array]:
    """L and L⁻¹ from those of the first rows and of what they leave of the others."""
    n = len(a)
    if n == 0:
        return a, a
    if n <= BLOCK:
        return _eliminate(a)
    h = (n + 1) // 2
    first, first_inverse = _halves(a[:h, :h])
    below = _times(a[h:, :h], first_inverse.T)
    # A product with an inverse loses digits where rows are nearly alike: what is then left of the
    # others would be indefinite. One step of refinement gives them back.
    below = below + _times(a[h:, :h] - _times(below, first.T), first_inverse.T)
    second, second_inverse = _halves(a[h:, h:] - _times(below, below.T))
    return (
        _lower(first, below, second),
        _lower_inverse(first_inverse, below, second_inverse),
    )


def _inverse_by_halves(lower) -> Array:
    n = len(lower)
    if n == 0:
        return lower
    if n <= BLOCK:
        return _substitute(lower)
    h = (n + 1) // 2
    first, second = (_inverse_by_halves(part) for part in (lower[:h, :h], lower[h:, h:]))
    return _lower_inverse(first, lower[h:, :h], second)


def _lower(first, below, second) -> Array:
    zero = jnp.zeros((len(first), len(second)), first.dtype)
    return jnp.block([[first, zero], [below, second]])


def _lower_inverse(first, below, second) -> Array:
    """The inverse of a block triangular matrix from those of its diagonal blocks."""
    return _lower(first, -_times(second, _times(below, first)), second)


def _eliminate(a) -> tuple[Array, Array]:
    """Gaussian elimination of (A | I), a column at a time, which leaves (Lᵀ | L⁻¹)."""
    n = len(a)
    index = jnp.arange(n)

    def column(j, rows):
        row = jax.lax.dynamic_index_in_dim(rows, j, 0, keepdims=False)
        row = row * jax.lax.rsqrt(jax.lax.dynamic_index_in_dim(row, j, 0, keepdims=False))
        # A is symmetric: the column below the pivot is the row beside it.
        below = jnp.where(index > j, row[:n], 0.0)
        rows = rows - below[:, None] * row[None]
        return jax.lax.dynamic_update_index_in_dim(rows, row, j, 0)

    rows = jnp.concatenate([a, jnp.eye(n, dtype=a.dtype)], axis=1)
    rows = jax.lax.fori_loop(0, n, column, rows)
    return jnp.tril(rows[:, :n].T), jnp.tril(rows[:, n:])


def _substitute(lower) -> Array:
    """Forward substitution for all columns of the identity, a row at a time."""
    n = len(lower)

    def one(j, found):
        row = jax.lax.dynamic_index_in_dim(lower, j, 0, keepdims=False)
        before = jnp.where(jnp.arange(n) < j, row, 0.0)
        new = (jnp.arange(n) == j) - (before[:, None] * found).sum(0)
        pivot = jax.lax.dynamic_index_in_dim(row, j, 0, keepdims=False)
        return jax.lax.dynamic_update_index_in_dim(found, new / pivot, j, 0)

    return jax.lax.fori_loop(0, n, one, jnp.zeros_like(lower))


@jax.custom_batching.sequential_vmap  # one after another
def _lapack(a):
    lower = jnp.linalg.cholesky(a)
    return lower, solve_triangular(lower, jnp.eye(len(a), dtype=a.dtype), lower=True)


@jax.custom_batching.sequential_vmap  # one after another
def _lapack_inverse(lower):
    return solve_triangular(lower, jnp.eye(len(lower), dtype=lower.dtype), lower=True)
