"""What a posterior answers: densities, quantiles, whole curves; against closed forms."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from scipy import stats
from test_numbers import in_other_units, prior, rows, saved  # noqa: F401
from test_targets import joint, new  # noqa: F401

import metaprior
from metaprior.errors import InputError
from metaprior.heads import Gaussian
from metaprior.methods.process import Process
from metaprior.methods.stack import Stack
from metaprior.nets.kernels import Constant, Stationary
from metaprior.nets.means import Mean, Scale
from metaprior.tables.posterior import Posterior


def exact(noise: float, level: float) -> Process:
    """A Gaussian process with a known covariance on the first column."""
    kernels = (Constant(jnp.asarray(-1.0)), Stationary(jnp.zeros(()), jnp.asarray([-0.5]), "eq"))
    mean = Mean(None, jnp.asarray([[level]]), None, 0, 0, 1)
    return Process(
        mean, kernels, Scale(jnp.log(jnp.asarray(noise)), None, 0.0), Gaussian(1), columns=1
    )


def with_learner(prior, learner):  # noqa: F811
    """The prior with another learner."""
    prior.trained = eqx.tree_at(lambda t: t.learner, prior.trained, learner)
    return prior


@pytest.fixture
def process(prior):  # noqa: F811
    return with_learner(in_other_units(prior, center=100.0, scale=2.0), exact(0.3, 0.0))


def covariance(posterior: Posterior, query) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the function at rows, in double precision, in the target's unit."""
    trained = posterior.trained
    process, scale = trained.learner, trained.units.scale
    x = trained.encode(trained.rows(query, "query"))
    every = np.concatenate([posterior.x, x])
    k = np.asarray(process.gram(jnp.asarray(every), jnp.asarray(every)), float)
    n, noise = len(posterior.x), np.asarray(process.noise_variance(jnp.asarray(every)), float)
    gain = k[n:, :n] @ np.linalg.inv(k[:n, :n] + np.diag(noise[:n]))
    return trained.units.to_y(gain @ posterior.y[:, 0]), scale**2 * (k[n:, n:] - gain @ k[:n, n:])


@pytest.mark.slow
def test_curves_have_the_covariance_of_the_posterior(process, rows):  # noqa: F811
    known, query = rows
    posterior = process.adapt(known.with_columns(pl.col("y") * 2 + 100))
    mean, cov = covariance(posterior, query)
    for noise, extra in ((False, 0.0), (True, (2.0 * 0.3) ** 2)):
        draws = posterior.sample(query, 4000, seed=1, functions=True, noise=noise)
        values = draws["y"].to_numpy().reshape(4000, -1)
        want = cov + extra * np.eye(len(cov))
        size = np.sqrt(np.diagonal(want))
        np.testing.assert_allclose(values.mean(0), mean, atol=5 * size.max() / 4000**0.5)
        gap = np.abs(np.cov(values.T) - want) / np.outer(size, size)
        assert gap.max() < 0.08  # five standard errors
    again = posterior.sample(query, 40, seed=1, functions=True)
    assert again.equals(posterior.sample(query, 40, seed=1, functions=True))
    assert not again.equals(posterior.sample(query, 40, seed=2, functions=True))
    alone = posterior.sample(query, 1000, seed=1)["y"].to_numpy().reshape(1000, -1)
    assert abs(np.corrcoef(alone[:, 0], alone[:, 1])[0, 1]) < 0.15  # each row on its own


def test_a_curve_of_a_stack_is_of_one_learner(process, rows):  # noqa: F811
    """Of two that know their functions exactly, as often as they weigh."""
    log_odds = np.log(0.8 / 0.2)
    flat = [Process(e.mean, (Constant(jnp.asarray(-9.0)),), e.noise, e.head, columns=1)
            for e in (exact(0.01, -3.0), exact(0.01, 3.0))]  # fmt: skip
    stack = Stack(tuple(flat), jnp.asarray([[log_odds, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    posterior = with_learner(process, stack).adapt()
    values = posterior.sample(rows[1], 1000, functions=True)["y"].to_numpy().reshape(1000, -1)
    low = values < 100
    assert (low.all(1) | ~low.any(1)).all()
    assert low[:, 0].mean() == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("log", [False, True], ids=["plain", "logarithm"])
def test_densities_are_those_of_the_closed_form(log, process, rows):  # noqa: F811
    """In the target's own unit, each row and all together; and they integrate to one."""
    known, query = rows
    center, scale = (2.0, 0.5) if log else (100.0, 2.0)
    units = in_other_units(process, center=center, scale=scale, log=log).trained.units
    known = known.with_columns(pl.Series("y", units.to_y([0.1, -0.4, 0.3])))
    posterior = process.adapt(known)
    query = query.with_columns(pl.Series("y", units.to_y(np.linspace(-1.5, 1.5, query.height))))
    mean, cov = covariance(posterior, query)
    mean = np.log(mean) if log else mean
    total = cov + (0.3 * scale) ** 2 * np.eye(len(cov))
    y = query["y"].to_numpy()
    inner, jacobian = (np.log(y), -np.log(y)) if log else (y, 0.0 * y)
    alone = stats.norm(mean, np.sqrt(np.diagonal(total)))
    np.testing.assert_allclose(posterior.log_prob(query), alone.logpdf(inner) + jacobian, atol=2e-3)
    both = stats.multivariate_normal(mean, total).logpdf(inner) + jacobian.sum()
    assert posterior.log_prob(query, joint=True) == pytest.approx(both, abs=2e-2)
    np.testing.assert_allclose(posterior.cdf(query), alone.cdf(inner), atol=1e-3)

    said = posterior.interval(query, 0.8)
    low, high = (alone.ppf(p) for p in (0.1, 0.9))
    ends = (np.exp(low), np.exp(high)) if log else (low, high)
    np.testing.assert_allclose(said.to_numpy().T, ends, rtol=1e-3)
    levels = (0.025, 0.5)
    assert posterior.quantile(query, levels).equals(
        posterior.predict(query, levels).select("q2.5", "q50")
    )

    grid = np.linspace(*units.to_y([-8.0, 8.0]), 4001)
    one = pl.concat([query[:1]] * len(grid)).with_columns(pl.Series("y", grid))
    assert np.trapezoid(np.exp(posterior.log_prob(one)), grid) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.slow
def test_classes_have_log_probabilities_and_no_order(joint, new):  # noqa: F811
    prior = metaprior.load(joint / "run" / "prior")  # noqa: F811
    known, query = new
    classes = prior.parts[2].adapt(known)
    asked = query.with_columns(a=pl.lit(0.1), b=pl.lit(0.2), c=pl.lit("low"))
    said = classes.predict(asked)
    np.testing.assert_allclose(np.exp(classes.log_prob(asked)), said["p_low"], rtol=1e-3)
    for ask in (classes.cdf, classes.quantile, classes.interval):
        with pytest.raises(InputError, match="'c' has classes, which have no order"):
            ask(asked)
    p = classes.sample(asked, 64, functions=True, noise=False)
    assert p.columns == ["draw", "row", "p_high", "p_low"]
    np.testing.assert_allclose(p["p_high"] + p["p_low"], 1.0, atol=1e-5)


@pytest.mark.slow
def test_several_targets_by_the_chain_rule(joint, new):  # noqa: F811
    prior = metaprior.load(joint / "run" / "prior")  # noqa: F811
    known, query = new
    posterior = prior.adapt(known)
    asked = query.with_columns(a=pl.lit(0.1), b=pl.lit(0.2), c=pl.lit("low"))
    each = sum(part.log_prob(asked) for part in posterior.parts)
    np.testing.assert_allclose(posterior.log_prob(asked), each)
    assert posterior.cdf(asked).columns == ["a", "b"]
    assert posterior.interval(query).columns == ["a_low", "a_high", "b_low", "b_high"]
    median = posterior.quantile(query, [0.5])
    at = asked.with_columns(a=median["a_q50"], b=median["b_q50"])
    np.testing.assert_allclose(posterior.cdf(at).to_numpy(), 0.5, atol=0.01)
    draws = posterior.sample(query, 40, functions=True)
    assert draws.columns == ["draw", "row", "a", "b", "c"] and draws.height == 40 * query.height
    curves = posterior.sample(query, 40, functions=True, noise=False)
    assert curves.columns == ["draw", "row", "a", "b", "c_p_high", "c_p_low"]


ASKED = [
    (lambda q, x: q.sample(x, noise=False), ["noise=False", "functions=True"]),
    (lambda q, x: q.interval(x, 90), ["interval", "0.95", "90"]),
    (lambda q, x: q.log_prob(x.drop("y")), ["'y'"]),
    (lambda q, x: q.sample(x.sample(5000, with_replacement=True), functions=True), ["4,096"]),
]


@pytest.mark.parametrize("ask,words", ASKED)
def test_what_cannot_be_asked(ask, words, saved, rows):  # noqa: F811
    with pytest.raises(InputError) as error:
        ask(saved.adapt(), rows[1])
    assert all(word in str(error.value) for word in words), str(error.value)
