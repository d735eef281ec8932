"""The linear mixed model: as likely as statsmodels' MixedLM, and it predicts the same."""

import warnings

import jax
import numpy as np
import polars as pl
import pytest

from metaprior.tables.baselines.linear_mixed import fit_mixed
from metaprior.tables.groups import runs, sorted_groups
from metaprior.tables.members import take
from metaprior.tables.reml import Sums, _solve, fit_reml
from metaprior.task import Data

TABLES = {
    "oxboys": ("Subject", "height", ["age"]),
    "milk_protein": ("cow", "protein", ["week"]),
    "radon_counties": ("county", "log_radon", ["basement", "uranium"]),
}


def columns(data, name):
    """Standardised columns with the intercept first, outcomes, and the groups, in their order."""
    group, target, features = TABLES[name]
    frame = pl.read_csv(data / f"{name}.csv")
    number, order = sorted_groups(frame, group, name)
    x = frame[features].to_numpy().astype(float)[order]
    x = (x - x.mean(0)) / x.std(0)
    y = frame[target].to_numpy().astype(float)[order]
    return np.column_stack([np.ones(len(x)), x]), (y - y.mean()) / y.std(), number


def statsmodels_fit(x, z, y, group, restricted):
    """What MixedLM gives, however it complains that a variance is zero."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MixedLM(y, x, group, exog_re=z).fit(reml=restricted, method=["powell", "bfgs"])


@pytest.mark.parametrize("name", TABLES)
def test_it_is_as_likely_as_mixedlm(name, data):
    """The likelihood is MixedLM's at MixedLM's optimum, and ours is at least as high. MixedLM says
    of some fits that it has not converged; of the others the effects are the same.
    """
    x, y, group = columns(data, name)
    z = x[:, :2]
    sums = Sums.of(x, z, y, runs(group)[0])
    for restricted in (True, False):
        other = statsmodels_fit(x, z, y, group, restricted)
        factor = np.linalg.cholesky(other.cov_re / other.scale)
        there = -0.5 * _solve(sums, factor, restricted, 0.0).value
        assert there == pytest.approx(other.llf, abs=1e-4)
        ours = fit_reml(sums, restricted=restricted)
        assert ours.log_likelihood > other.llf - 1e-4
        if other.converged:
            assert ours.log_likelihood < other.llf + 1e-3
            np.testing.assert_allclose(ours.beta, other.fe_params, atol=2e-3)


def test_the_gradient_is_that_of_the_likelihood(data):
    x, y, group = columns(data, "milk_protein")
    sums = Sums.of(x, x, y, runs(group)[0])
    factor = np.array([[0.7, 0.0], [-0.3, 0.4]])
    for restricted in (True, False):
        found = _solve(sums, factor, restricted, 0.5).gradient
        for place in ((0, 0), (1, 0), (1, 1)):
            step = np.zeros((2, 2))
            step[place] = 1e-5
            up, down = (_solve(sums, factor + s, restricted, 0.5).value for s in (step, -step))
            assert found[place] == pytest.approx((up - down) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("name", TABLES)
def test_a_new_group_is_predicted_as_by_mixedlm(name, data):
    """From K rows, with a random intercept as MixedLM has it by default: the best linear prediction
    that MixedLM's own effects and variances give.
    """
    x, y, group = columns(data, name)
    rows = group == runs(group)[1].argmax()
    seen = np.unique(group[~rows], return_inverse=True)[1]
    first, _ = runs(seen)
    fold = np.arange(len(first)) % 2
    learner = take(fit_mixed(x[~rows, 1:], y[~rows], first, fold, most_slopes=0), -1)

    other = statsmodels_fit(x[~rows], x[~rows, :1], y[~rows], seen, True)
    known = np.asarray(other.cov_params())[: x.shape[1], : x.shape[1]]
    mine, outcomes = x[rows][:9], y[rows][:9]
    pooled = np.column_stack([mine[:, 1:], np.zeros(9)]).astype(np.float32)
    prior = mine @ known @ mine.T + float(other.cov_re[0, 0])
    for K in (0, 1, 5):
        total = prior[:K, :K] + other.scale * np.eye(K)
        gain = np.linalg.solve(total, prior[:K]).T
        mean = mine @ other.fe_params + gain @ (outcomes[:K] - mine[:K] @ other.fe_params)
        spread = np.sqrt(np.diag(prior - gain @ prior[:K]) + other.scale)

        support = Data.of(pooled[:K], outcomes[:K, None])
        said = learner.posterior(support, key=jax.random.key(0)).predict(
            pooled, key=jax.random.key(0), samples=1
        )
        np.testing.assert_allclose(said.mean()[:, 0], mean, atol=2e-3)
        np.testing.assert_allclose(said.variance()[:, 0] ** 0.5, spread, rtol=2e-3)


def test_what_only_some_groups_have_breaks_nothing():
    """A constant column, a column twice, all levels of a category, and more columns than rows."""
    rng = np.random.default_rng(0)
    level = rng.integers(0, 2, 24)
    x = np.column_stack([level, 1 - level, np.zeros(24), level, rng.normal(size=(24, 30))])
    fold = np.array([0, 0, 1, 1])
    learner = fit_mixed(x, rng.normal(size=24), np.array([0, 6, 12, 18]), fold)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learner))
    assert learner.mean.weights.shape == (3, 35, 1)
