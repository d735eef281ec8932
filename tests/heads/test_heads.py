"""Heads: densities integrate to 1, samples follow them, cdf and quantile belong together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metaprior.heads import Categorical, Gaussian, Ordinal, StudentT
from metaprior.heads.ordinal import location_of
from metaprior.heads.student_t import standard_cdf
from metaprior.mixture import Mixture, Part
from metaprior.task import Data

HEADS = [Gaussian(1), Gaussian(1, scale=0.5), StudentT(1)]
RAW = [-1.0, 0.3, 2.0]


def params(head, value):
    return head.params(jnp.asarray([value, -0.5, value][: head.raw_dim])[None])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("value", RAW)
def test_density_integrates_to_one(head, value):
    p = params(head, value)
    t = jnp.linspace(-14.0, 14.0, 8001)
    y = head.mean(p) + jnp.sinh(t)[:, None]
    mass = (jnp.exp(head.log_prob(p, y)) * jnp.cosh(t)).sum() * (t[1] - t[0])
    np.testing.assert_allclose(mass, 1.0, atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("value", RAW)
def test_samples_follow_the_cdf(head, value, key):
    p = jnp.broadcast_to(params(head, value), (5000, *params(head, value).shape[1:]))
    y = head.sample(p, key=key)
    assert stats.kstest(np.asarray(head.cdf(p, y))[:, 0], "uniform").pvalue > 1e-3
    np.testing.assert_allclose(
        np.asarray(-head.log_prob(p, y)).mean(), head.entropy(p)[0], atol=0.05
    )


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("level", [0.001, 0.1, 0.5, 0.8, 0.995])
def test_cdf_of_the_quantile_is_the_level(head, level):
    p = jnp.concatenate([params(head, value) for value in RAW])
    np.testing.assert_allclose(head.cdf(p, head.quantile(p, level)), level, rtol=0.02)


def test_the_cdf_of_a_t_and_its_derivatives():
    """Small tails keep their digits for any degrees of freedom."""
    z, df = np.meshgrid(np.linspace(-9, 4, 53), [2.01, 3.0, 10.0, 100.0, 1e4])
    below = standard_cdf(jnp.asarray(z, jnp.float32), jnp.asarray(df, jnp.float32))
    np.testing.assert_allclose(below, stats.t.cdf(z, df), rtol=3e-5)
    slope = jax.grad(standard_cdf, (0, 1))(jnp.asarray(0.7), jnp.asarray(5.0))
    by_df = (stats.t.cdf(0.7, 5.01) - stats.t.cdf(0.7, 4.99)) / 0.02
    np.testing.assert_allclose(slope, [stats.t.pdf(0.7, 5), by_df], rtol=1e-3)


@pytest.mark.parametrize("value", [-8.0, 0.0, 4.0, 40.0])
def test_student_against_scipy(value):
    head = StudentT(1)
    p = head.params(jnp.asarray([[0.3, 0.5, value]]))
    location, scale, df = (float(a) for a in p[0, 0])
    y = np.linspace(-6, 6, 25)
    exact = stats.t(df, location, scale)
    column = jnp.asarray(y)[:, None]
    np.testing.assert_allclose(head.log_prob(p, column), exact.logpdf(y), atol=2e-4)
    np.testing.assert_allclose(head.cdf(p, column)[:, 0], exact.cdf(y), rtol=2e-5)
    np.testing.assert_allclose(head.variance(p)[0, 0], exact.var(), rtol=1e-4)
    np.testing.assert_allclose(head.entropy(p)[0], exact.entropy(), atol=1e-3)


def test_classes(key):
    head = Categorical(3)
    logits = head.params(jnp.asarray([[0.2, -1.0, 1.5]]))
    p = np.asarray(head.mean(logits), float)[0]
    p = p / p.sum()
    log_p = [float(head.log_prob(logits, jnp.asarray([[c]], float))[0]) for c in range(3)]
    np.testing.assert_allclose(np.exp(log_p), p, rtol=1e-5)
    np.testing.assert_allclose(head.entropy(logits)[0], stats.entropy(p), rtol=1e-5)
    drawn = np.asarray(head.sample(jnp.broadcast_to(logits, (6000, 3)), key=key))[:, 0].astype(int)
    assert stats.chisquare(np.bincount(drawn, minlength=3), 6000 * p).pvalue > 1e-3
    with pytest.raises(TypeError, match="no quantiles"):
        head.quantile(logits, 0.5)


def test_ordered_classes(x64):
    """Differences of a logistic's cdf; far out, where those round to zero, still finite."""
    counts = [5, 20, 10, 1]
    head = Ordinal.init(4, counts)
    share = np.cumsum(np.add(counts, 1))[:-1] / 40
    cuts = np.log(share / (1 - share))
    np.testing.assert_allclose(head.cuts(), cuts)
    location = np.array([-3.0, 0.0, 0.7, 60.0])
    p = head.mean(head.params(jnp.asarray(location)[:, None]))
    edges = np.concatenate([[-np.inf], cuts, [np.inf]])
    exact = np.diff(stats.logistic.cdf(edges - location[:3, None]), axis=1)
    np.testing.assert_allclose(p[:3], exact, rtol=1e-9)
    far = head.log_prob(head.params(jnp.asarray([[60.0]])), jnp.asarray([[1.0]]))[0]
    between = stats.logistic.logcdf(cuts[1] - 60.0) + np.log1p(-np.exp(cuts[0] - cuts[1]))
    np.testing.assert_allclose(far, between, rtol=1e-9)
    # Where the log probabilities lie is the location, up to the middle of the cuts.
    log_p = head.params(jnp.asarray(location[:3])[:, None])
    np.testing.assert_allclose(location_of(log_p)[:, 0], location[:3] - cuts.mean(), atol=1e-9)
    with pytest.raises(ValueError, match="at least 3 classes; got 2"):
        Ordinal.init(2)


def test_labels_that_do_not_exist_have_no_probability():
    """Labels below 0, and from the number of classes on.

    The gradient of labels that do exist is finite beside them.
    """
    head, y = Categorical(3), jnp.asarray([[2.0], [-1.0], [3.0]])
    raw = jnp.asarray([[0.1, 0.2, 0.3]] * 3)
    assert np.isfinite(head.log_prob(raw, y)).tolist() == [True, False, False]
    data = Data(jnp.zeros((3, 1)), y, jnp.asarray([True, False, False]))
    gradient = jax.grad(lambda r: head.risk(r, data, key=None))(raw)
    assert np.isfinite(gradient).all()

    def mixture(r):
        return Mixture((Part(head, jnp.stack([r, 2 * r]), jnp.zeros(2)),)).log_prob(y)

    assert np.isfinite(mixture(raw)).tolist() == [True, False, False]
    slope = jax.grad(lambda r: jnp.where(data.mask, mixture(r), 0.0).sum())(raw)
    assert np.isfinite(slope).all() and (slope[0] != 0).all()


@pytest.mark.parametrize("head", HEADS + [Categorical(3), Ordinal.init(3)])
def test_wrong_number_of_raw_outputs_is_named(head):
    with pytest.raises(
        ValueError, match=f"reads {head.raw_dim} numbers a point; the network gives 7"
    ):
        head.params(jnp.zeros((2, 7)))
