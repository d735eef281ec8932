"""The protocol `selective`: orders, areas, families and their exact evidence, figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from outcomes import quiet

from metaprior.evaluation import calibration
from metaprior.protocols import get
from metaprior.protocols.protocol import Drawn
from metaprior.protocols.selective import families, judge, risk
from metaprior.task import Data


def test_risk_and_coverage_by_hand():
    loss, doubt = np.array([4.0, 1.0, 9.0]), np.array([0.2, 0.1, 0.3])
    np.testing.assert_allclose(risk.risk_curve(loss, doubt), [1.0, 2.5, 14 / 3])
    assert risk.kept(np.array([1.0, 2.0, 3.0, 4.0]), 0.5) == 2.0
    assert risk.kept(np.array([1.0]), 0.1) == 1.0


def test_orders_are_between_the_best_and_chance():
    """Losses are squares of normal numbers with known deviations: these are the exact order."""
    rng = np.random.default_rng(0)
    std = np.exp(rng.normal(size=(400, 10)) + rng.normal(size=(400, 1)))
    loss = (std * rng.normal(size=std.shape)) ** 2
    exact = risk.figures(loss, std, std)
    assert exact["excess"] == exact["tasks_excess"] == 0.0
    assert exact["kept50"] < exact["kept80"] < exact["rmse"]
    by_error, chance = (risk.figures(loss, d, std) for d in (loss, rng.random(loss.shape)))
    assert by_error["excess"] < 0 < chance["excess"]
    assert chance["area"] == pytest.approx(chance["rmse"] ** 2, rel=0.3)
    same = risk.figures(loss, 3 * std**2 + 1, std)  # any increasing function of it
    assert same["area"] == exact["area"]
    errors = risk.with_errors(risk.figures, loss, std, std)
    assert errors["rmse"][0] == exact["rmse"] and 0 < errors["rmse"][1] < exact["rmse"]


def test_error_of_auroc_is_its_spread():
    """Over 400 samples of 40 and 60: within 4 standard errors of a standard deviation."""
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=60), rng.normal(1.0, 1.0, 40)) for _ in range(400)]
    found = np.array([[calibration.auroc(*p), calibration.auroc_error(*p)] for p in pairs])
    spread = found[:, 0].std()
    assert found[:, 1].mean() == pytest.approx(spread, rel=4 / (2 * 400) ** 0.5)
    assert found[:, 0].mean() == pytest.approx(0.760, abs=4 * spread / 20)  # Φ(1 / √2)


def test_evidence_of_families_is_that_of_brute_force(x64):
    """The mean likelihood over two million draws of the numbers of a family, a few rows."""
    rng = np.random.default_rng(0)
    x = np.array([[-2.0], [0.5], [2.0]])
    for name, drawn in families.others().items():
        data = drawn.support(jax.random.key(3))
        y = np.asarray(data.y)[:3]
        some = Data.of(jnp.asarray(x), jnp.asarray(y))
        total = 0.0
        for family in drawn.families:
            low, high = np.array(family.low), np.array(family.high)
            theta = rng.uniform(low, high, (400_000, 2)).T
            w = np.stack([np.asarray(a) for a in family.weights(*map(jnp.asarray, theta))])
            f = np.asarray(family.features(jnp.asarray(x))) @ w
            z = ((y - f) / families.NOISE) ** 2
            density = np.exp(-0.5 * z.sum(0)) / (2 * np.pi * families.NOISE**2) ** 1.5
            total += density.mean() / len(drawn.families)
        assert float(drawn.evidence(some)) == pytest.approx(np.log(total), abs=0.05), name
        nothing = some.first(0)
        assert float(drawn.evidence(nothing)) == pytest.approx(0.0, abs=1e-6)


def test_rows_of_families_are_theirs():
    """Steps have two levels at most, and noise; both families fill the range of x."""
    for name, drawn in families.others().items():
        data = families.supports(drawn, jax.random.split(jax.random.key(0), 50))
        x, y = np.asarray(data.x)[..., 0], np.asarray(data.y)[..., 0]
        assert abs(x).max() <= 5 < abs(x).max() + 0.1 and abs(y).max() < 5 + 5 * families.NOISE
        if name == families.STEPS:
            inner = [
                min(
                    max(
                        np.ptp(b[a > j]) if (a > j).any() else 0,
                        np.ptp(b[a <= j]) if (a <= j).any() else 0,
                    )
                    for j in families.JUMPS
                )
                for a, b in zip(x, y)
            ]
            assert max(inner) < 6 * families.NOISE


@pytest.mark.slow
def test_controls_are_in_their_order(key):
    """With few tasks: exact, spread and chance of tasks; what is left out by rows."""
    options = get("selective").budgets["quick"] | {"tasks": 40, "shown": [2], "shots": [2, 10]}
    found = {
        name: judge.run(name, 0, options, None, quiet)
        for name in (judge.EXACT, judge.RATIO, judge.SPREAD, judge.RANDOM)
    }
    value = {
        (name, f.setting, f.metric): f.value for name, out in found.items() for f in out.figures
    }
    for family in (families.STEPS, families.FAST):
        last = f"{family}: K = 10"
        ratio, exact = (value[name, last, "auroc"] for name in (judge.RATIO, judge.EXACT))
        assert ratio > 0.97 and ratio >= exact - 0.02 and exact > 0.9
        # Chance: 40 of each side, three standard errors.
        assert value[judge.RANDOM, last, "auroc"] == pytest.approx(0.5, abs=3 * 0.065)
    rows = "rows: K = 2"
    assert value[judge.EXACT, rows, "excess"] == 0.0 < value[judge.RANDOM, rows, "excess"]
    same = pytest.approx(value[judge.RANDOM, rows, "rmse"], rel=1e-12)  # sums in another order
    assert value[judge.EXACT, rows, "rmse"] == same
    assert (judge.SPREAD, rows, "rmse") not in value

    columns = found[judge.RANDOM].predictions
    here = columns["setting"] == rows
    loss = (columns["mean"][here] - columns["y"][here]) ** 2
    area = risk.risk_curve(loss, columns["doubt"][here]).mean()
    assert value[judge.RANDOM, rows, "area"] == pytest.approx(area)
    exact = found[judge.EXACT].predictions

    def scores(name):
        pick = (exact["setting"] == f"tasks: {name}") & (exact["shown"] == 2)
        return exact["strangeness"][pick]

    pair = scores(families.TRAINED), scores(families.STEPS)
    assert value[judge.EXACT, "steps: K = 2", "auroc"] == pytest.approx(calibration.auroc(*pair))


@pytest.mark.slow
def test_a_method_is_judged_and_drawn():
    """Sequential densities of dkt add up to the density of all rows together."""
    protocol = get("selective")
    options = protocol.budgets["quick"] | {"steps": 30, "tasks": 30, "shown": [1, 5]}
    out = protocol.run("dkt", 0, options, None, quiet)
    assert {f.metric for f in out.figures} == set(protocol.metrics)
    cells = [Drawn("dkt", 0, out.figures, out.drawing)]
    for name in (judge.EXACT, judge.SPREAD):
        other = protocol.run(name, 0, options, None, quiet)
        cells.append(Drawn(name, 0, other.figures, other.drawing))
    assert len(protocol.draw(cells, options, None)) == 2
    assert "dkt" in protocol.sentence(cells) and "AUROC" in protocol.sentence(cells)
    assert protocol.sentence(cells[1:]) == ""
    from metaprior.heads import Gaussian
    from metaprior.method import Spec
    from metaprior.methods import METHODS

    method = METHODS["dkt"].init(Spec(1, Gaussian(1)), key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 3)
    data = families.supports(families.trained_on(), keys)
    each = np.asarray(judge._sequential(method, (data, keys))).sum(1)

    def whole(some):
        nothing = some.first(0)
        posterior = method.posterior(nothing, key=keys[0])
        return posterior.joint_log_prob(some, key=keys[0], samples=1)

    np.testing.assert_allclose(each, jax.vmap(whole)(data), rtol=1e-3, atol=1e-2)
