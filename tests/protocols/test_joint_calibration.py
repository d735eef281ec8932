"""The protocol `joint-calibration`: ranks, what is right and wrong, figures and pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from outcomes import quiet
from scipy.stats import kstest

from metaprior.heads import Gaussian
from metaprior.mixture import Mixture
from metaprior.protocols import get
from metaprior.protocols.joint_calibration import judge
from metaprior.protocols.protocol import Drawn


def test_deviations_are_kolmogorovs():
    rng = np.random.default_rng(0)
    for shares in (rng.uniform(size=300), rng.beta(2, 1, size=50), np.array([0.25])):
        assert judge.deviation(shares) == pytest.approx(kstest(shares, "uniform").statistic)


def test_ranks_are_uniform_where_truth_is_a_draw_and_where_all_are_equal():
    """2,000 of each; the bound of Kolmogorov's statistic at one in 10,000."""

    def ranks(key):
        a, b = jax.random.split(key)
        values = jax.random.normal(a, (21,))
        return judge.share_below(values[1:], values[0], b), judge.share_below(
            jnp.zeros(20), jnp.asarray(0.0), b
        )

    for shares in jax.jit(jax.vmap(ranks))(jax.random.split(jax.random.key(0), 2000)):
        assert 0 < shares.min() and shares.max() < 1
        assert judge.deviation(np.asarray(shares)) < 2.23 / 2000**0.5
    assert judge.share_below(jnp.arange(3.0), jnp.asarray(9.0), jax.random.key(0)) > 0.75


def test_one_function_gives_as_many_outcomes_as_many_do(key):
    """Noise is drawn anew for each; a spread of 2 puts draws twice as far from their mean."""
    params = jnp.stack([jnp.arange(4.0), jnp.full(4, 0.5)], -1)[None, :, None]
    y, f = judge.outcomes(Mixture.equal(Gaussian(1), params), 1.0, key)
    assert y.shape == f.shape == (judge.DRAWS, 4)
    np.testing.assert_allclose(f, jnp.broadcast_to(jnp.arange(4.0), f.shape))
    assert float(jnp.abs(y.std(0) - 0.5).max()) < 0.15  # four standard errors
    many = Mixture.equal(Gaussian(1), jnp.repeat(params, judge.DRAWS, 0) + 0.0)
    near, wide = (judge.outcomes(many, spread, key)[0] for spread in (1.0, 2.0))
    np.testing.assert_allclose(wide - jnp.arange(4.0), 2 * (near - jnp.arange(4.0)), atol=1e-5)


@pytest.fixture(scope="module")
def references():
    """The controls, each with 1,500 tasks."""
    options = get("joint-calibration").budgets["quick"] | {"minutes": 5.0}
    return {name: judge.run(name, 0, options, None, quiet) for name in judge.REFERENCES}


@pytest.mark.slow
def test_what_is_right_is_inside_and_what_is_wrong_is_outside(references):
    """The exact posterior and the prior are calibrated in all ways. The exact marginals are in
    single outcomes alone; a spread that is a fifth off is in none. Computed elsewhere, other tasks:
    0.025, 0.092, 0.170, 0.211.
    """
    found = {n: {f.metric: f.value for f in out.figures} for n, out in references.items()}
    bound = found[judge.EXACT]["bound"]
    assert bound == pytest.approx(0.035, abs=1e-3)
    for name in (judge.EXACT, judge.PRIOR):
        assert max(found[name][rank] for rank in judge.RANKS) < bound
    assert found[judge.BY_POINT]["pit"] < bound < 0.05 < found[judge.BY_POINT]["tarp"]
    assert min(found[judge.BY_POINT][rank] for rank in ("highest", "average")) > 0.3
    for name in (judge.NARROW, judge.WIDE):
        assert min(found[name][rank] for rank in judge.RANKS) > bound
        assert found[name]["tarp"] > 0.15
    energy = {name: each["energy"] for name, each in found.items()}
    assert min(energy, key=energy.get) == judge.EXACT
    assert energy[judge.PRIOR] > energy[judge.EXACT] + 0.5


@pytest.mark.slow
def test_figures_follow_from_the_predictions_and_are_drawn(references):
    protocol = get("joint-calibration")
    options = protocol.budgets["quick"] | {"steps": 3, "tasks": 100}
    cells = []
    outcomes = {judge.EXACT: references[judge.EXACT]}
    outcomes["alpaca"] = protocol.run("alpaca", 0, options, None, quiet)
    for name, outcome in outcomes.items():
        columns = outcome.predictions
        value = {f.metric: f.value for f in outcome.figures}
        assert set(value) == set(protocol.metrics)
        for rank in judge.RANKS:
            assert value[rank] == pytest.approx(kstest(columns[rank], "uniform").statistic)
        middle = np.abs(columns["tarp"] - 0.5)
        assert value["central50"] == np.mean(middle < 0.25)
        assert value["central90"] == np.mean(middle < 0.45)
        assert value["energy"] == pytest.approx(np.mean(columns["energy"]))
        cells.append(Drawn(name, 0, outcome.figures, outcome.drawing))
    (picture,) = protocol.draw(cells, options, None)
    assert picture.svg.startswith("<svg") and len(picture.svg) < 2e5
    said = protocol.sentence(cells)
    assert said.startswith("Calibrated in single outcomes: ") and "alpaca" in said
    assert protocol.sentence(cells[:1]) == ""
