"""The protocol `guarantee`: rules, sets of classes, halves of kept groups, figures, pictures."""

import jax
import numpy as np
import pytest
from outcomes import by, quiet

import metaprior
from metaprior.errors import InputError
from metaprior.evaluation import conformal
from metaprior.evaluation.units import Units
from metaprior.heads import StudentT
from metaprior.method import Spec
from metaprior.methods import Process
from metaprior.protocols import get
from metaprior.protocols.guarantee import judge, simulated
from metaprior.protocols.guarantee.data import SUBJECTS, load
from metaprior.protocols.protocol import Drawn
from metaprior.tables import baselines
from metaprior.tables.trained import HeldOut, Trained


def options(**changes):
    return get("guarantee").budgets["quick"] | {"repetitions": 40, "sizes": [9, 20]} | changes


def test_rules_are_judged_by_what_they_hold():
    found = {name: judge.run(name, 0, options(), {}, quiet) for name in judge.REFERENCES}
    for name, outcome in found.items():
        columns = outcome.predictions
        for T in (9, 20):
            here = columns["setting"] == f"simulated: T = {T}"
            held = simulated.held(columns["threshold"][here])
            np.testing.assert_array_equal(held, columns["held"][here])
            place = f"simulated: T = {T}"
            assert by(outcome, place, "coverage") == pytest.approx(held.mean())
            width = 2 * columns["threshold"][here].mean()
            assert by(outcome, place, "width") == pytest.approx(width)
            if name == simulated.EXACT:
                assert held == pytest.approx(0.9)
    cells = [Drawn(name, 0, out.figures, out.drawing) for name, out in found.items()]
    protocol = get("guarantee")
    (picture,) = protocol.draw(cells, options(), {})
    assert picture.svg.startswith("<svg")
    assert protocol.sentence(cells).startswith("Rows held with 9 groups: hierarchical 0.9")
    settings = {f.setting for f in found["hierarchical"].figures}
    assert {a.setting for a in protocol.anchors} > settings


def test_classes_are_stated_until_they_have_the_share():
    p = np.array([[0.6, 0.35, 0.05], [0.95, 0.03, 0.02], [0.4, 0.3, 0.3]])
    said = judge.Said.of_classes(p, np.array([1, 2, 0]))
    np.testing.assert_array_equal(said.width(0.0), [2, 1, 3])
    np.testing.assert_array_equal(said.score <= 0, [True, False, True])
    np.testing.assert_array_equal(said.width(1.0), [3, 3, 3])
    np.testing.assert_allclose(said.score, [0.6 - 0.9, 0.98 - 0.9, -0.9])


def test_intervals_are_in_the_target_s_units():
    units = Units(1.0, 2.0, -2.0, 2.0, log=True)
    said = judge.Said.of_numbers(np.array([[-1.0, 1.0]]), np.array([1.5]), units)
    assert said.score == pytest.approx(0.5)
    np.testing.assert_allclose(said.width(0.5), np.exp(1 + 2 * 1.5) - np.exp(1 - 2 * 1.5))


@pytest.fixture(scope="module")
def prior():
    """A process that has learned nothing, and 24 groups kept aside: a level and noise."""
    rng, (groups, rows) = np.random.default_rng(0), (24, 14)
    y = np.repeat(rng.normal(size=groups), rows) + 0.3 * rng.normal(size=groups * rows)
    x, y = rng.normal(size=(len(y), 1)).astype(np.float32), y[:, None].astype(np.float32)
    held = HeldOut(x, y, rows * np.arange(groups), np.full(groups, rows))
    spec, units = Spec(1, StudentT(1), 0), Units(0.0, 1.0, -3.0, 3.0)
    learner, control = Process.init(spec, key=jax.random.key(0)), baselines.marginal(spec, y[:, 0])
    found = metaprior.Prior()
    found.trained = Trained({}, None, None, units, learner, {"marginal": control}, held)
    return found


@pytest.mark.slow
def test_halves_of_the_kept_groups_judge_one_another(prior):
    """Of one partition by hand; over many the guarantee holds up to its excess of a T-th."""
    rows = judge.judged(prior, 2, 200, 0)
    assert len(np.unique(rows["set"])) == 24 and (rows["place"] >= 2).all()
    each = judge.by_set(rows, "guaranteed")
    # 12 calibrate: at least 0.9, and 1 / 13 more; its error over 24 groups is 0.03 at most.
    assert 0.9 - 0.06 < each.mean() < 0.9 + 1 / 13 + 0.06
    figures = {f.metric: f for f in judge.measure("K = 2: some", rows)}
    assert set(figures) == set(get("guarantee").metrics)
    assert figures["coverage"].value == pytest.approx(each.mean())
    assert figures["low95"].value < figures["coverage"].value < figures["high95"].value
    assert figures["marginal_width"].value > figures["width"].value

    once = judge.judged(prior, 2, 1, 0)
    sets = np.unique(once["set"])
    first = np.isin(once["set"], np.random.default_rng(0).permutation(sets)[:12])
    threshold = conformal.hierarchical(once["score"][first], [once["task"][first]], 0.9)
    np.testing.assert_array_equal(once["guaranteed"], ~first & (once["score"] <= threshold))
    assert judge.judged(prior, 13, 1, 0) is not None and judge.judged(prior, 14, 1, 0) is None


def test_binomial_interval_of_all_and_of_none():
    rows = {"set": np.arange(10), "guaranteed": np.ones(10)}
    assert judge.binomial(rows) == pytest.approx((1 - 0.308497, 1.0), abs=1e-5)  # 0.025^(1 / 10)
    rows["guaranteed"] = np.zeros(10)
    assert judge.binomial(rows) == pytest.approx((0.0, 0.308497), abs=1e-5)


def test_tables_are_found_checked_and_named(tmp_path):
    (only,) = load(None).values()
    assert only.name == "weather_airport_days.parquet" and only.exists()
    (tmp_path / "milk_protein.csv").write_text("cow,week\na,1\n")
    with pytest.raises(InputError, match=r"milk_protein\.csv: no column 'protein'"):
        load(tmp_path)
    (tmp_path / "milk_protein.csv").write_text("cow,protein\na,1\n")
    assert list(load(tmp_path)) == ["milk"]
    assert get("guarantee").reads(tmp_path) == [tmp_path / "milk_protein.csv"]
    with pytest.raises(InputError, match="guarantee reads a folder with any of weather"):
        load(tmp_path / "milk_protein.csv")
    with pytest.raises(InputError, match="no table 'silk'; it has weather"):
        load(None, {"tables": ["silk"]})
    assert load(None, {"tables": ["milk"]}) == {} and len(SUBJECTS) == 6
    outcome = judge.run("stack", 0, options(), {}, quiet)
    assert outcome.figures == [] and outcome.note == "no table to judge on"


@pytest.mark.slow
def test_a_prior_is_judged_on_a_table(data):
    """Milk: 32 groups are kept; the figures follow from the predictions, and are drawn."""
    protocol, chosen = get("guarantee"), options(tables=["milk"], shots=[2], most_steps=20)
    tables = protocol.load(data, chosen)
    outcome = protocol.run("alpaca", 0, chosen, tables, quiet)
    assert {f.metric for f in outcome.figures} == set(protocol.metrics)
    columns, place = outcome.predictions, "K = 2: milk"
    assert by(outcome, place, "own_coverage") == pytest.approx(judge.by_set(columns, "own").mean())
    # At least 0.9 less two standard errors of 32 groups.
    held = next(f for f in outcome.figures if f.metric == "coverage")
    assert held.count == 32 and held.value > 0.9 - 2 * held.error
    cells = [Drawn("alpaca", 0, outcome.figures, outcome.drawing)]
    (picture,) = protocol.draw(cells, chosen, tables)
    assert picture.svg.startswith("<svg") and "alpaca on tables" in protocol.sentence(cells)
    several = protocol.run("alpaca", 0, chosen | {"tables": []}, {}, quiet)
    assert several.note == "no table to judge on"
