"""The scale that a target is modelled on."""

import numpy as np
import polars as pl
import pytest
from conftest import FIT, run_command
from scipy.stats import multivariate_normal

import metaprior
from metaprior.errors import InputError
from metaprior.evaluation.units import Units
from metaprior.tables.checked import check_all
from metaprior.tables.plan import Plan
from metaprior.tables.read import rows_of
from metaprior.tables.reml import Fitted
from metaprior.tables.target_scale import _whitened, named
from metaprior.tables.targets import standardised

GROUPS, ROWS = 60, 8
QUICK = [*FIT, "--method", "mixed"]


def drawn(kind: str, seed: int = 0) -> pl.DataFrame:
    """Groups with a level and a slope of their own, whose outcomes are of a kind."""
    rng = np.random.default_rng(seed)
    group, x = np.repeat(np.arange(GROUPS), ROWS), rng.normal(size=GROUPS * ROWS)
    level, slope = 0.8 * rng.normal(size=GROUPS), 0.3 * rng.normal(size=GROUPS)
    u = level[group] + (0.4 + slope[group]) * x + 0.3 * rng.normal(size=len(x))
    y = {
        "normal": u,
        "never negative": np.maximum(5 + u, 0.0),
        "log-normal": np.exp(u),
        "counts": rng.poisson(np.exp(0.5 + u)).astype(float),
        "shares of zero": np.where(rng.random(len(x)) < 0.2, 0.0, np.exp(u)),
        "heavy tails": np.abs(20 + level[group] + rng.standard_t(3, len(x))),
    }[kind]
    return pl.DataFrame({"g": group, "x": x, "y": y})


def chosen(table, **options):
    plan = Plan(task="g", targets=["y"], **options)
    (one,) = check_all(rows_of(table, "table"), plan)
    return one


SCALES = {
    "normal": "linear",
    "never negative": "linear",
    "log-normal": "log",
    "counts": "log1p",
    "shares of zero": "log1p",
    "heavy tails": "linear",
}


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_scale_is_that_of_the_truth(kind, seed):
    one = chosen(drawn(kind, seed))
    measure = one.measure
    name = ("log1p" if measure.shift else "log") if measure.log else "linear"
    assert name == SCALES[kind]
    said = [note for note in one.notes if "--target-scale" in note]
    assert len(said) == measure.log
    units = Units(*measure)
    np.testing.assert_allclose(units.to_y(one.z), one.frame["y"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_another_unit_changes_nothing(unit):
    for kind in ("log-normal", "shares of zero"):
        own, other = (chosen(drawn(kind).with_columns(pl.col("y") * u)) for u in (1.0, unit))
        np.testing.assert_allclose(other.z, own.z, atol=1e-2)  # a shift has three digits
        assert other.measure.log == own.measure.log


def test_what_is_asked_for_is_done():
    table = drawn("log-normal")
    assert not chosen(table, scale="linear").measure.log
    assert chosen(drawn("never negative"), scale="log1p").measure.shift > 1
    with pytest.raises(InputError, match="below zero"):
        chosen(drawn("normal"), scale="log1p")
    with pytest.raises(InputError, match="target_scale is one of auto, linear, log"):
        metaprior.Prior(target_scale="root").fit(table, task="g", target="y")


@pytest.mark.parametrize(
    "name,group,target,scale",
    [
        ("milk_protein", "cow", "protein", "linear"),
        ("school_math", "school", "math_score", "linear"),
        ("remifentanil_pk", "subject", "conc", "log"),
        ("pbcseq_bili", "id", "bili", "log"),
        ("grouseticks", "BROOD", "TICKS", "log1p"),
    ],
)
def test_real_tables(name, group, target, scale, data):
    plan = Plan(task=group, targets=[target])
    (one,) = check_all(rows_of(data / f"{name}.csv", "table"), plan)
    assert (one.measure.log, one.measure.shift > 0) == (scale != "linear", scale == "log1p")


def test_whitened_errors_have_the_density_of_the_group():
    rng = np.random.default_rng(0)
    count = np.array([3, 1, 4])
    z, e = np.stack([np.ones(8), rng.normal(size=8)], axis=1), rng.normal(size=8)
    factor = np.diag([0.8, 0.3])
    fitted = Fitted(np.zeros(1), np.eye(1), factor, 0.25, 0.0, 3)
    white, dets = _whitened(e, z, fitted, count)
    first = 0
    for n in count:
        rows = slice(first, first + n)
        v = z[rows] @ factor @ factor.T @ z[rows].T + 0.25 * np.eye(n)
        expected = multivariate_normal(np.zeros(n), v).logpdf(e[rows])
        found = -0.5 * (white[rows] ** 2 + np.log(2 * np.pi)).sum() - dets[rows].sum()
        assert found == pytest.approx(expected)
        first += n


def test_a_density_on_a_shifted_logarithm_integrates_to_one():
    y = np.array([0.0, 1.0, 4.0, 9.0])
    _, measure = standardised(y, np.ones(4, bool), named("log1p", y), "t", "y")
    units = Units(*measure)
    assert units.shift == 1.0
    np.testing.assert_allclose(units.to_y(units.to_z(y)), y, atol=1e-12)
    assert units.to_y(np.array([-50.0]))[0] == 0.0  # never below zero
    grid = np.expm1(np.linspace(-12, 15, 20_001))
    z = units.to_z(grid)
    density = np.exp(-0.5 * z**2 - units.log_slope(z)) / np.sqrt(2 * np.pi)
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-6)


def test_a_prior_of_counts_predicts_no_less_than_none(tmp_path, call):
    drawn("counts").write_csv(tmp_path / "t.csv")
    status, _, err = call("fit", tmp_path / "t.csv", *QUICK, "--out", tmp_path / "run")
    assert status == 0 and "the logarithm of it plus 1 is modelled" in err
    (tmp_path / "new.csv").write_text("g,x,y\nn,0.1,0\nn,0.2,0\nn,-1.0,\nn,-2.0,\n")
    status, out, _ = call("predict", tmp_path / "run", tmp_path / "new.csv")
    said = pl.read_csv(out.encode())
    assert status == 0 and said["q05"].min() >= 0 and said["mean"].min() > 0


def test_an_outcome_that_has_no_logarithm_is_answered(tmp_path, call):
    drawn("log-normal").write_csv(tmp_path / "t.csv")
    run_command("fit", tmp_path / "t.csv", *QUICK, "--out", tmp_path / "run")
    (tmp_path / "new.csv").write_text("g,x,y\nn,0.1,0\nn,0.2,\n")
    status, _, err = call("predict", tmp_path / "run", tmp_path / "new.csv")
    assert status and "has no logarithm" in err and "--target-scale linear" in err
