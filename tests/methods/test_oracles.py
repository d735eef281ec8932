"""Exact answers: linear-Gaussian tasks and Gaussian processes."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from metaprior import Spec
from metaprior.heads import Gaussian
from metaprior.methods import ALPaCA, Process
from metaprior.nets.kernels import RandomEffects
from metaprior.nets.means import Mean, Scale
from metaprior.sources import GP, Linear

NOISE = 0.3
MEAN = [0.5, -1.0, 0.2]
FACTOR = [[0.8, 0.0, 0.0], [0.3, 0.6, 0.0], [-0.2, 0.1, 0.4]]


def linear_source():
    return Linear(jnp.asarray(MEAN), jnp.asarray(FACTOR), NOISE, support=8, query=6, fewest=0)


def alpaca():
    """ALPaCA with the prior of the tasks."""
    method = ALPaCA.init(
        Spec(2, Gaussian(1)), key=jax.random.key(0), features="linear", noise_variance=NOISE**2
    )
    root = np.linalg.cholesky(NOISE**2 * np.linalg.inv(np.array(FACTOR) @ np.array(FACTOR).T))
    return eqx.tree_at(
        lambda m: (m.mean, m.root), method, (jnp.asarray(MEAN)[:, None], jnp.asarray(root))
    )


def process():
    """The process with one random-effects kernel, a linear mean and constant noise."""
    mean = Mean(None, jnp.asarray(MEAN)[:, None], None, 0, 1, 1)
    kernel = RandomEffects(jnp.asarray(FACTOR), jnp.full(3, -40.0), 1)
    return Process(mean, (kernel,), Scale(jnp.log(jnp.asarray(NOISE)), None, 0.0), Gaussian(1))


def densities(posterior, query):
    marginal = posterior.predict(query.x, key=jax.random.key(0), samples=1).log_prob(query.y)
    return marginal, posterior.joint_log_prob(query, key=jax.random.key(0), samples=1)


@pytest.mark.parametrize("seed", range(3))
def test_linear_oracle_in_closed_form(seed, x64):
    """The source's exact posterior = Bayesian linear regression written in weights."""
    source = linear_source()
    task = source(jax.random.key(seed))
    shown = np.asarray(task.support.mask)
    x, y = np.asarray(task.support.x)[shown], np.asarray(task.support.y)[shown, 0]
    phi, phi_q = np.insert(x, 0, 1.0, axis=1), np.insert(np.asarray(task.query.x), 0, 1.0, axis=1)
    prior = np.linalg.inv(np.array(FACTOR) @ np.array(FACTOR).T)
    cov = np.linalg.inv(prior + phi.T @ phi / NOISE**2)
    mean = phi_q @ cov @ (prior @ np.array(MEAN) + phi.T @ y / NOISE**2)
    total = phi_q @ cov @ phi_q.T + NOISE**2 * np.eye(len(phi_q))
    y_q = np.asarray(task.query.y)[:, 0]
    marginal, joint = densities(source.exact(task.support), task.query)
    np.testing.assert_allclose(
        marginal, stats.norm.logpdf(y_q, mean, np.sqrt(np.diag(total))), atol=1e-8
    )
    np.testing.assert_allclose(joint, stats.multivariate_normal.logpdf(y_q, mean, total), atol=1e-8)


@pytest.mark.parametrize("method", [alpaca, process])
def test_closed_forms_equal_the_oracle(method, x64):
    source, learner = linear_source(), method()

    @jax.jit
    @jax.vmap
    def gaps(key):
        task = source(key)
        exact = densities(source.exact(task.support), task.query)
        ours = densities(learner.posterior(task.support, key=key), task.query)
        return jnp.abs(exact[0] - ours[0]).max(), jnp.abs(exact[1] - ours[1]) / task.query.count

    marginal, joint = gaps(jax.random.split(jax.random.key(1), 100))
    assert float(marginal.max()) < 1e-4 and float(joint.max()) < 1e-4


@pytest.mark.slow
def test_alpaca_outcomes_and_draws(key):
    """Two outcomes are two regressions; draws have the mean and the variance of the closed form."""
    head = Gaussian(2)
    method = ALPaCA.init(
        Spec(1, head), key=key, features="linear", noise_variance=jnp.asarray([0.1, 0.4])
    )
    x = jax.random.normal(key, (7, 1))
    y = jnp.concatenate([x, 1 - x], axis=1)
    from metaprior import Data

    support = Data(x, y, jnp.arange(7) < 5)
    posterior = method.posterior(support, key=key)
    one = ALPaCA(1, method.mean[:, 1:], method.root, method.log_noise[1:])
    alone = one.posterior(Data(x, y[:, 1:], support.mask), key=key).predict(x, key=key, samples=1)
    exact = posterior.predict(x, key=key, samples=1)
    np.testing.assert_allclose(exact.mean()[:, 1:], alone.mean(), atol=1e-5)
    np.testing.assert_allclose(exact.variance()[:, 1:], alone.variance(), rtol=1e-4)
    drawn = posterior.sample(x, key=key, samples=20_000)
    np.testing.assert_allclose(drawn.mean(), exact.mean(), atol=0.02)
    np.testing.assert_allclose(drawn.variance(), exact.variance(), rtol=0.05)
    np.testing.assert_allclose(drawn.epistemic(), exact.epistemic(), rtol=0.05, atol=1e-3)
    coherent = float(drawn.joint_log_prob(support))
    assert coherent == pytest.approx(
        float(posterior.joint_log_prob(support, key=key, samples=1)), abs=0.1
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,kernel",
    [
        ("eq", kernels.RBF(0.25)),
        ("matern52", kernels.Matern(0.25, nu=2.5)),
        ("weakly periodic", kernels.ExpSineSquared(2.0**0.5 / 2**0.5, 0.25) * kernels.RBF(0.5)),
    ],
)
def test_gp_against_sklearn(name, kernel, x64):
    source = GP(name)
    task = source(jax.random.key(5))
    shown = np.asarray(task.support.mask)
    assert shown.any()
    reference = GaussianProcessRegressor(kernel, alpha=0.05**2, optimizer=None)
    reference.fit(np.asarray(task.support.x)[shown], np.asarray(task.support.y)[shown, 0])
    mean, cov = reference.predict(np.asarray(task.query.x), return_cov=True)
    cov = cov + 0.05**2 * np.eye(len(mean))
    y = np.asarray(task.query.y)[:, 0]
    marginal, joint = densities(source.exact(task.support), task.query)
    np.testing.assert_allclose(
        marginal, stats.norm.logpdf(y, mean, np.sqrt(np.diag(cov))), atol=1e-5
    )
    np.testing.assert_allclose(joint, stats.multivariate_normal.logpdf(y, mean, cov), atol=1e-4)


# Bruinsma et al., "The Gaussian Neural Process", 2021: log-likelihood of a query row, jointly and
# marginally, in nats
@pytest.mark.quick("eq-0.7--0.81")
@pytest.mark.parametrize(
    "kernel,joint,marginal",
    [("eq", 0.70, -0.81), ("matern52", 0.31, -0.93), ("weakly periodic", -0.32, -1.18)],
)
def test_gp_oracle_has_the_published_values(kernel, joint, marginal):
    source = GP(kernel)
    tasks = draw(source, jax.random.key(6), 3000)

    def look(task):
        each, together = densities(source.exact(task.support), task.query)
        return each.mean(), together / source.query

    each, together = jax.jit(lambda t: jax.lax.map(look, t, batch_size=100))(tasks)
    assert float(together.mean()) == pytest.approx(joint, abs=0.03)
    assert float(each.mean()) == pytest.approx(marginal, abs=0.03)


def test_noise_of_alpaca_is_fixed_or_learned(key):
    spec = Spec(1, Gaussian(1))
    assert ALPaCA.init(spec, key=key, noise_variance=0.02).log_noise == pytest.approx(
        math.log(0.02)
    )
    assert ALPaCA.init(spec, key=key).log_noise.shape == (1,)
