"""Factors of positive definite matrices: against NumPy's, against JAX's own derivatives, by the
batch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import solve_triangular

from metaprior.infer.cholesky import SMALL, factorise, invert_lower
from metaprior.infer.gp import lifted
from metaprior.nets.kernels import Stationary, gram

SIZES = (0, 1, 5, 12, 13, 32, SMALL, 100)  # blocks, halves, uneven halves, and LAPACK's


def positive(n: int, count: int = 3) -> np.ndarray:
    """Matrices with condition numbers of some hundreds."""
    x = np.random.default_rng(n).normal(size=(count, n, n))
    return x @ x.swapaxes(-1, -2) / max(n, 1) + 0.1 * np.eye(n)


@pytest.mark.parametrize("n", SIZES)
def test_factors_are_numpys(x64, n):
    a = positive(n)
    b = np.random.default_rng(1).normal(size=(n, 2))

    @jax.jit
    @jax.vmap
    def found(a):
        factor = factorise(a)
        unwhitened = factor.unwhiten(b)
        again = invert_lower(factor.lower)
        return factor.lower, factor.inverse, again, factor.solve(b), factor.log_det(), unwhitened

    lower, inverse, again, solved, log_det, unwhitened = map(np.asarray, found(a))
    exact = np.linalg.cholesky(a)
    np.testing.assert_allclose(lower, exact, atol=1e-12)
    np.testing.assert_allclose(inverse, np.linalg.inv(exact), atol=1e-10)
    np.testing.assert_allclose(again, inverse, atol=1e-10)
    np.testing.assert_allclose(solved, np.linalg.solve(a, np.stack([b] * 3)), atol=1e-10)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(a)[1], atol=1e-12)
    np.testing.assert_allclose(exact.swapaxes(1, 2) @ unwhitened, np.stack([b] * 3), atol=1e-10)


@pytest.mark.parametrize("n", (5, 32, 100))
def test_derivatives_are_jaxs(x64, n):
    """Value, gradient, and the gradient of a length of it, of a Gaussian log density."""
    x = np.random.default_rng(0).normal(size=(n, 2))
    y = np.random.default_rng(1).normal(size=n)

    def covariance(length):
        square = ((x[:, None] - x[None]) ** 2).sum(-1)
        return jnp.exp(-0.5 * square / length**2) + 0.1 * jnp.eye(n)

    def ours(length):
        factor = factorise(covariance(length))
        z = factor.whiten(y)
        return 0.5 * z @ z + 0.5 * factor.log_det() + invert_lower(factor.lower).sum()

    def jaxs(length):
        lower = jnp.linalg.cholesky(covariance(length))
        z = solve_triangular(lower, y, lower=True)
        inverse = solve_triangular(lower, jnp.eye(n), lower=True)
        return 0.5 * z @ z + jnp.log(jnp.diagonal(lower)).sum() + inverse.sum()

    def thrice(f):
        forward = jax.jvp(jax.grad(f), (1.3,), (1.0,))
        return [f(1.3), *forward, jax.grad(jax.grad(f))(1.3)]

    for one, other in zip(jax.jit(lambda: thrice(ours))(), jax.jit(lambda: thrice(jaxs))()):
        np.testing.assert_allclose(one, other, rtol=1e-8)


@pytest.mark.parametrize("n", [25, 50, 64])
def test_covariances_of_points_that_lie_close_have_a_factor(n):
    """300 sets of random points in [-2, 2], length 0.25, in 32 bits: up to one set in 18 had NaN,
    and a draw of a function with it. A = L Lᵀ to the rounding of its largest entry.
    """
    x = jax.random.uniform(jax.random.key(0), (300, n, 1), minval=-2.0, maxval=2.0)
    kernel = Stationary(jnp.zeros(()), jnp.log(jnp.asarray([0.25])), "eq")

    def one(x):
        a = lifted(gram((kernel,), x, x))
        lower = factorise(a).lower
        return a, lower

    a, lower = (np.asarray(each, np.float64) for each in jax.jit(jax.vmap(one))(x))
    assert np.isfinite(lower).all()
    assert np.abs(lower @ lower.swapaxes(1, 2) - a).max() < 4e-6


def test_what_is_not_positive_definite_is_nan():
    bad = jnp.array([[1.0, 2.0], [2.0, 1.0]])
    assert np.isnan(factorise(bad).lower).any()


def test_small_factors_call_no_library_and_large_ones_a_matrix_at_a_time():
    """Batched calls of LAPACK can wait for each other for ever (see `metaprior.infer.cholesky`)."""

    def calls(n):
        a = jax.ShapeDtypeStruct((3, n, n), jnp.float32)
        gradient = jax.vmap(jax.grad(lambda a: factorise(a).inverse.sum()))
        text = jax.jit(gradient).lower(a).as_text()
        return [line for line in text.splitlines() if "custom_call" in line]

    assert not calls(SMALL)
    large = calls(SMALL + 1)
    assert large and not any(f"3x{SMALL + 1}x{SMALL + 1}" in line for line in large)
