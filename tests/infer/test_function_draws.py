"""Functions drawn from processes: finite, and with the covariance that double precision gives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaprior
from metaprior.heads import Gaussian
from metaprior.infer.gp import draw_factor
from metaprior.methods import Process
from metaprior.nets.kernels import Dot, Periodic, Spectral, Stationary
from metaprior.sources import GP

POINTS = 400
SEEN = (3, 50, 51, 52, 200, 201, 333)


def _one(value) -> jax.Array:
    return jnp.full((1,), value)


KERNELS = {
    "eq": lambda length: Stationary(jnp.zeros(()), _one(jnp.log(length)), "eq"),
    "matern52": lambda length: Stationary(jnp.zeros(()), _one(jnp.log(length)), "matern52"),
    "periodic": lambda length: Periodic(
        jnp.zeros(()), jnp.log(length), jnp.zeros(()), jnp.log(4 * length)
    ),
    "spectral": lambda length: Spectral(
        jnp.full(2, jnp.log(0.7)),
        jnp.array([[0.1], [0.3]]) / length,
        jnp.full((2, 1), jnp.log(0.1 / length)),
    ),
    "linear": lambda length: Dot(-jnp.log(length)),
}


def _exact(kernel, x, seen, noise):
    """Covariance at all points given some, in double precision."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), float), kernel)
        x = jnp.asarray(np.asarray(x), float)
        k = np.asarray(wide(x, x))
    own = k[np.ix_(seen, seen)] + np.diag(noise)
    return k - k[:, seen] @ np.linalg.solve(own, k[seen])


@pytest.mark.quick("eq", "linear")
@pytest.mark.parametrize("name", KERNELS)
def test_draws_have_the_covariance_of_the_posterior(name):
    """400 points close together, far from zero too, with and without noise.

    In single precision they are off by 5e-4 of the largest variance: 1e-4 are added to the
    diagonal (814 epsilons), the rest is rounding at the distance of 1e5.
    """
    seen = np.array(SEEN)

    @jax.jit
    def factor(kernel, x, noise):
        own = kernel(x[seen], x[seen]) + jnp.diag(noise)
        return draw_factor(own, jnp.ones(len(seen), bool), kernel(x[seen], x), kernel(x, x))

    for length in (0.05, 0.3, 1.0, 5.0):
        kernel = KERNELS[name](jnp.asarray(length))
        for offset in (0.0, 1e3, 1e5):
            x = (jnp.linspace(-2, 2, POINTS) + offset)[:, None]
            most = float(kernel.diag(x).max())
            for noise in (0.0, 1e-3, 0.1, 1.0):
                nugget = jnp.full(len(seen), max(noise**2, 1e-5 * most))
                root = np.asarray(factor(kernel, x, nugget), float)
                assert np.isfinite(root).all(), (length, offset, noise)
                off = np.abs(root @ root.T - _exact(kernel, x, seen, np.asarray(nugget, float)))
                assert off.max() < 5e-4 * most, (length, offset, noise, off.max() / most)


@pytest.mark.quick("300")
@pytest.mark.parametrize("points", [100, 128, 300, 400])
def test_functions_of_processes_are_finite(points):
    """A length of 0.1 and of 5 on [-2, 2], without noise."""
    x, key = jnp.linspace(-2, 2, points)[:, None], jax.random.key(0)
    support = metaprior.Data.of([[0.0], [0.5]], [1.0, 2.0])
    for length in (0.1, 5.0):
        made = Process.init(metaprior.Spec(1, Gaussian(1)), key=key, kernel="rbf", width=0)
        kernel = Stationary(jnp.zeros(()), _one(jnp.log(length)))
        silent = eqx.tree_at(lambda p: p.noise.log_std, made, jnp.asarray(-20.0))
        process = eqx.tree_at(lambda p: p.kernels, silent, (kernel,))
        source = GP(kernel, noise=0.0, support=10, query=points)
        assert jnp.isfinite(source(key).query.y).all()
        for posterior in (process.posterior(support, key=key), source.exact(support)):
            drawn = posterior.sample(x, key=key, samples=3)
            assert jnp.isfinite(drawn.mean()).all() and drawn.mean().shape == (points, 1)


def test_far_from_zero_points_are_as_alike_as_near_it():
    """exp(-1/8) = 0.8825, where a product of coordinates leaves nothing."""
    for kernel in (KERNELS["eq"](1.0), KERNELS["spectral"](1.0)):
        near = kernel(jnp.array([[0.0]]), jnp.array([[0.5]]))
        far = kernel(jnp.array([[2000.0]]), jnp.array([[2000.5]]))
        np.testing.assert_allclose(far, near, rtol=1e-6)
    np.testing.assert_allclose(
        KERNELS["eq"](1.0)(jnp.zeros((1, 1)), jnp.full((1, 1), 0.5)), 0.8825, atol=1e-4
    )


@pytest.mark.parametrize("noise", [-20.0, -3.0])
def test_one_row_is_as_likely_alone_as_jointly(noise):
    """Also without noise, where what float32 needs on the diagonal is all there is."""
    made = Process.init(
        metaprior.Spec(1, Gaussian(1)), key=jax.random.key(0), kernel="rbf", width=0
    )
    process = eqx.tree_at(lambda p: p.noise.log_std, made, jnp.asarray(noise))
    posterior = process.posterior(metaprior.Data.of([[0.0], [0.5]], [1.0, 2.0]), key=None)
    for x, y in ((0.01, 1.05), (0.5, 2.0), (3.0, 0.0)):
        row = metaprior.Data.of([[x]], [y])
        alone = posterior.predict(row.x, key=None, samples=1).log_prob(row.y)[0]
        jointly = posterior.joint_log_prob(row, key=None, samples=1)
        np.testing.assert_allclose(alone, jointly, rtol=1e-5, atol=1e-5)
