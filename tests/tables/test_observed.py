"""Boosting on features of the observed rows: its parts, and against the truth."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import logsumexp
from scipy.stats import t as student

from metaprior import Data
from metaprior.tables.baselines import fit_observed, observed
from metaprior.tables.baselines.grow import Grower

RNG = np.random.default_rng


def walked(nodes, row):
    at = 0
    while not nodes[at].leaf:
        node = nodes[at]
        at = node.left if row[node.feature] <= node.threshold else node.right
    return nodes[at].value


def test_all_nodes_at_once_are_the_walk_node_by_node():
    rng = RNG(0)
    x = rng.normal(size=(400, 3)).astype(np.float32)
    y = np.sin(3 * x[:, 0]) + x[:, 1] * (x[:, 2] > 0)
    grow = Grower(x, np.arange(400), np.arange(0), 0.1, 64)
    trees = [grow(-y)[0], grow(-(y**2))[0], grow(-np.zeros(400))[0]]
    assert max(map(len, trees)) > 20
    found = observed.Forest(*observed._forest(trees, trees[::-1]))(jnp.asarray(x[:60]))
    half = found.shape[1] // 2
    expected = np.array([[walked(tree, row) for tree in trees] for row in x[:60]])
    np.testing.assert_allclose(found[:, :3], expected, rtol=1e-6)
    np.testing.assert_allclose(found[:, half : half + 3], expected[:, ::-1], rtol=1e-6)
    assert not np.any(found[:, 3:half])  # room for more trees


def grouped(groups, rows, rng, df):
    """A level a group, a slope that all share, and a spread that grows with x by a factor of 9."""
    x = rng.uniform(-1, 1, (groups * rows, 1))
    level = np.repeat(rng.normal(size=groups), rows)
    scale = 0.3 * np.exp(1.1 * x[:, 0])
    z = rng.standard_t(df, len(x))
    pooled = 2 * x[:, 0]
    return x, pooled, pooled + level + scale * z


def test_examples_are_of_the_group_and_never_hold_the_row_itself():
    rng = RNG(0)
    count = np.array([1, 2, 5, 40])
    start, group = np.append(0, np.cumsum(count)[:-1]), np.repeat(np.arange(4), count)
    # Residuals and places that name their row: the nearest one tells who was seen.
    rows = np.arange(48.0)
    x = np.stack([rows, np.zeros(48)], axis=1)
    found = observed.examples_of(x, rows, start, group, np.arange(4), 1.0)
    own, seen, mean, _, spread, nearest, distance = np.delete(found.columns, 1, axis=1).T
    some = seen > 0
    assert (seen <= count[group[own.astype(int)]] - 1).all()
    assert set(np.unique(seen)) == {0, 1, 2, 3, 4, 5, 8, 12, 20}
    assert (group[nearest[some].astype(int)] == group[own[some].astype(int)]).all()
    assert (distance[some] == np.abs(nearest - own)[some]).all()
    assert distance[some].min() > 0
    assert (distance[~some] == observed.FAR).all()
    two = seen == 2
    np.testing.assert_allclose(spread[two], np.sqrt(2) * np.abs(nearest - mean)[two], atol=1e-9)
    # Every other row of a group is seen as often: 4 of 5 have 1 to 4 rows of the others.
    assert len(np.unique(nearest[own == rng.integers(8, 48)])) > 1


def test_trees_step_along_the_gradient_of_the_density():
    """Against finite differences of SciPy's density; the curvature is its mean over outcomes."""
    rng, df = RNG(0), 5.0
    left = rng.normal(size=60)
    columns = rng.normal(size=(60, 2))
    examples = observed._Examples(columns, left, np.zeros(60, int))
    fold = observed._Fold(examples, np.arange(60), np.arange(60), df)
    fold.location, fold.spread = 0.3 * rng.normal(size=60), 0.4 * rng.normal(size=60)
    asked = []

    def grow(gradient, curvature):
        asked.append((gradient, curvature))
        return [], np.zeros(60)

    fold.grow = grow
    fold.round()

    def density(location, spread, y):
        return -student.logpdf(y, df, location, np.exp(spread))

    y = student.rvs(df, size=200_000, random_state=1)
    for i in range(5):
        at = np.array([fold.location[i], fold.spread[i]])
        slope = approx_fprime(at, lambda a: density(*a, left[i]), 1e-6)
        assert [one[0][i] for one in asked] == pytest.approx(slope, abs=1e-4)
        drawn = at[0] + np.exp(at[1]) * y
        step = 1e-5
        for j, (_, curvature) in enumerate(asked):
            shift = np.eye(2)[j] * step
            upper, lower = (density(*(at + s * shift), drawn) for s in (1, -1))
            # The information is the variance of the slope; 2 % are 4 errors of so many draws.
            information = np.var((upper - lower) / (2 * step))
            assert curvature[i] == pytest.approx(information, rel=0.02)


@pytest.fixture(scope="module")
def fitted():
    x, pooled, y = grouped(80, 20, RNG(0), 30.0)
    z = np.concatenate([x, pooled[:, None]], axis=1)
    start = 20 * np.arange(80)
    return fit_observed(z, y, start, np.full(80, 20), np.arange(80) % 4)


@eqx.filter_jit
def log_prob(model, z, y, shots):
    support = Data(z[:8], y[:8], jnp.arange(8) < shots)  # the rest is padding
    posterior = model.posterior(support, key=None)
    return posterior.predict(z[8:], key=None, samples=1).log_prob(y[8:])


def nll(model, x, pooled, y, shots):
    """Of the rows behind the first `shots` of one group."""
    z = np.concatenate([x, pooled[:, None]], axis=1).astype(np.float32)
    return -np.asarray(log_prob(model, z, y[:, None].astype(np.float32), np.asarray(shots)))


LEVELS = np.linspace(-5, 5, 801)[:, None]


def exact(x, y, shots):
    """Negative log density of the rows behind the eighth, the level integrated over a grid."""
    scale = 0.3 * np.exp(1.1 * x[:, 0])
    log_p = student.logpdf(y, 30, 2 * x[:, 0] + LEVELS, scale)
    log_w = -0.5 * LEVELS[:, 0] ** 2 + log_p[:, :shots].sum(1)
    return logsumexp(log_w) - logsumexp(log_w[:, None] + log_p[:, 8:], axis=0)


@pytest.mark.parametrize(("shots", "bound"), [(0, 0.05), (1, 0.05), (8, 0.2)])
def test_location_scale_and_tails_are_found(fitted, shots, bound):
    """200 new groups; the paired standard error of the mean is 0.01.

    Eight rows whose spreads differ ninefold should not weigh alike in their mean, but do.
    """
    _, final = fitted
    rng, gaps = RNG(1), []
    for _ in range(200):
        x, pooled, y = grouped(1, 20, rng, 30.0)
        gaps.append((nll(final, x, pooled, y, shots) - exact(x, y, shots)).mean())
    assert np.mean(gaps) < bound


def test_heavy_tails_are_found():
    x, pooled, y = grouped(80, 20, RNG(0), 4.0)
    z = np.concatenate([x, pooled[:, None]], axis=1)
    fold = np.arange(80) % 4
    _, final = fit_observed(z, y, 20 * np.arange(80), np.full(80, 20), fold)
    assert final.df <= 6


def test_padding_and_no_rows_at_all(fitted):
    members, final = fitted
    x = jnp.asarray(RNG(2).normal(size=(5, 2)), jnp.float32)
    y = jnp.ones((5, 1))
    padded = Data(x, y, jnp.arange(5) < 3)
    three = Data(x[:3], y[:3], jnp.ones(3, bool))
    none, empty = Data(x, y, jnp.zeros(5, bool)), Data(x[:0], y[:0], jnp.ones(0, bool))
    for a, b in ((padded, three), (none, empty)):
        one, two = (
            final.posterior(d, key=None).predict(x, key=None, samples=1).parts[0].params
            for d in (a, b)
        )
        np.testing.assert_array_equal(one, two)
    assert members.df.shape == (4,)
    assert final.forest.value.shape[0] >= 4 * members.forest.value.shape[1] / 2


@pytest.mark.parametrize("case", ["one row a group", "constant groups", "no columns"])
def test_tables_at_the_edge(case):
    rng = RNG(3)
    count = np.full(30, 1 if case == "one row a group" else 4)
    group = np.repeat(np.arange(30), count)
    columns = 0 if case == "no columns" else 2
    x = np.concatenate([rng.normal(size=(len(group), columns)), np.zeros((len(group), 1))], axis=1)
    y = rng.normal(size=30)[group] if case == "constant groups" else rng.normal(size=len(group))
    start = np.append(0, np.cumsum(count)[:-1])
    _, final = fit_observed(x, y, start, count, np.arange(30) % 3)
    rows = Data(jnp.asarray(x[:2], jnp.float32), jnp.asarray(y[:2, None]), jnp.arange(2) < 1)
    for data in (rows, Data(rows.x, rows.y, jnp.zeros(2, bool))):
        said = final.posterior(data, key=None).predict(rows.x, key=None, samples=1)
        assert np.isfinite(said.log_prob(rows.y)).all()
        assert (said.variance() > 0).all()
