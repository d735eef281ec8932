"""Mixtures: scores, moments and information against other packages and by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scoringrules
from scipy import stats

from metaprior.heads import Categorical, Gaussian, StudentT
from metaprior.mixture import Mixture, Part


def test_crps_of_one_normal_against_scoringrules():
    p = jnp.asarray([[0.0, 1.0], [2.0, 0.3], [-1.0, 3.0]])
    y = jnp.asarray([[0.5], [2.0], [4.0]])
    mixture = Mixture((Part(Gaussian(1), p[None, :, None], jnp.zeros(1)),))
    exact = scoringrules.crps_normal(np.asarray(y)[:, 0], np.asarray(p)[:, 0], np.asarray(p)[:, 1])
    np.testing.assert_allclose(mixture.crps(y), exact, rtol=5e-3, atol=1e-3)


@pytest.mark.slow
def test_mixture_against_scoringrules_and_scipy():
    p = np.array([[[0.0, 1.0]], [[2.0, 0.3]], [[-1.0, 3.0]]])
    weights, y = np.array([0.2, 0.5, 0.3]), 0.7
    mixture = Mixture(
        (Part(Gaussian(1), jnp.asarray(p)[:, :, None], jnp.log(jnp.asarray(weights))),)
    )
    each = stats.norm(p[:, 0, 0], p[:, 0, 1])
    exact = scoringrules.crps_mixnorm(
        np.array([y]), p[None, :, 0, 0], p[None, :, 0, 1], weights[None]
    )
    np.testing.assert_allclose(mixture.crps(jnp.asarray([[y]])), exact, rtol=5e-3, atol=1e-3)
    np.testing.assert_allclose(
        mixture.log_prob(jnp.asarray([[y]])), np.log(weights @ each.pdf(y)), rtol=1e-5
    )
    np.testing.assert_allclose(
        mixture.cdf(jnp.asarray([[y]])), [[weights @ each.cdf(y)]], rtol=1e-5
    )
    level = float(weights @ each.cdf(y))
    np.testing.assert_allclose(mixture.quantile(level), [[y]], atol=1e-3)
    mean = weights @ p[:, 0, 0]
    variance = weights @ (p[:, 0, 1] ** 2 + p[:, 0, 0] ** 2) - mean**2
    np.testing.assert_allclose(mixture.mean(), [[mean]], rtol=1e-5)
    np.testing.assert_allclose(mixture.variance(), [[variance]], rtol=1e-5)
    grid = np.linspace(-30, 30, 60001)
    density = (weights[:, None] * stats.norm.pdf(grid, p[:, :, 0], p[:, :, 1])).sum(0)
    entropy = -(density * np.log(np.maximum(density, 1e-300))).sum() * (grid[1] - grid[0])
    np.testing.assert_allclose(mixture.entropy(), [entropy], atol=0.03)


@pytest.mark.parametrize("gap,scale", [(0.0, 1.0), (3.0, 0.3), (50.0, 1e-3), (1e3, 100.0)])
def test_quantiles_are_exact(gap, scale):
    """Two t's and a normal, near and far apart, narrow and wide: against scipy's cdf."""
    p = np.array([[0.0, 1.0, 2.5], [gap, scale, 30.0]])
    normal, weights = np.array([-gap, 0.5]), np.array([0.3, 0.5, 0.2])
    parts = (
        Part(StudentT(1), jnp.asarray(p, jnp.float32)[:, None, None], jnp.log(weights[:2])),
        Part(Gaussian(1), jnp.asarray(normal, jnp.float32)[None, None, None], jnp.log(weights[2:])),
    )
    each = [stats.t(df, at, wide) for at, wide, df in p] + [stats.norm(*normal)]

    def of(name, y):
        return sum(w * getattr(one, name)(y) for w, one in zip(weights, each))

    levels = np.array([1e-3, 0.05, 0.2, 0.5, 0.8, 0.95, 0.999], np.float32)
    found = np.asarray(jax.vmap(Mixture(parts).quantile)(levels), float)[:, 0, 0]
    # How far off in y, beside the local width of the density and the digits of y itself.
    tail = np.where(levels > 0.5, of("sf", found) - (1 - levels.astype(float)), 0.0)
    tail = np.where(levels > 0.5, tail, of("cdf", found) - levels)
    wrong, density = np.abs(tail) / of("pdf", found), of("pdf", found)
    assert (wrong < 2e-5 * np.minimum(levels, 1 - levels) / density + 3e-7 * abs(found)).all()


def test_information_is_that_of_enumeration():
    """Two equally likely functions for classes: entropy of the mean less mean entropy."""
    logits = jnp.asarray([[[2.0, 0.0]], [[0.0, 2.0]]])
    mixture = Mixture((Part(Categorical(2), logits, jnp.zeros(2)),))
    p = jax.nn.softmax(logits)[:, 0]
    expected = stats.entropy(p.mean(0)) - np.mean([stats.entropy(row) for row in p])
    np.testing.assert_allclose(mixture.information(), [expected], rtol=1e-4)


def test_information_of_several_outcomes():
    """Two equally likely normal vectors, far apart in one outcome, say one bit.

    The spread of each outcome is the same for both.
    """
    params = jnp.asarray([[[[-3.0, 1.0], [0.0, 1.0]]], [[[3.0, 1.0], [0.0, 1.0]]]])  # (2, 1, 2, 2)
    mixture = Mixture((Part(Gaussian(2), params, jnp.zeros(2)),))
    grid = np.linspace(-12, 12, 20001)
    density = 0.5 * (stats.norm.pdf(grid, -3) + stats.norm.pdf(grid, 3))
    first = -(density * np.log(np.maximum(density, 1e-300))).sum() * (grid[1] - grid[0])
    one = stats.norm.entropy()
    np.testing.assert_allclose(mixture.information(), [first - one], atol=0.01)
    # 128 draws, the standard deviation of log p is about 1
    np.testing.assert_allclose(mixture.entropy(), [first + one], atol=4 / 128**0.5)
