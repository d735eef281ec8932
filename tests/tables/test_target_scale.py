"""The scale that a target is modelled on."""

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from conftest import FIT, run_command
from scipy.stats import multivariate_normal, norm, yeojohnson, yeojohnson_llf

import metaprior
from metaprior.bends import POWERS, Shares, YeoJohnson
from metaprior.errors import InputError
from metaprior.evaluation.units import Counts, Units, log_mass, moments, scores
from metaprior.heads import Gaussian
from metaprior.mixture import Mixture
from metaprior.tables.checked import check_all
from metaprior.tables.plan import Plan
from metaprior.tables.read import rows_of
from metaprior.tables.reml import Fitted
from metaprior.tables.target_scale import _whitened, named
from metaprior.tables.targets import standardised
from metaprior.task import Data

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
        "shares": 1 / (1 + np.exp(1.5 - 1.5 * u)),
        "shares with ends": np.round(1 / (1 + np.exp(1.5 - 2.5 * u)), 2),
        "skewed": -np.sinh(0.8 + 0.8 * u),
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
    "counts": "counts",
    "shares of zero": "log1p",
    "shares": "shares",
    "shares with ends": "shares",
    "skewed": "yeo-johnson",
    "heavy tails": "linear",
}


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_scale_is_that_of_the_truth(kind, seed):
    one = chosen(drawn(kind, seed))
    measure = one.measure
    name = ("log1p" if measure.shift else "log") if measure.log else "linear"
    name = "counts" if measure.counts else name
    if measure.bend is not None:
        name = "shares" if isinstance(measure.bend, Shares) else "yeo-johnson"
    assert name == SCALES[kind]
    said = [note for note in one.notes if "--target-scale" in note]
    assert len(said) == (name != "linear")
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
    below = drawn("normal").with_columns(y=-pl.col("y").abs() - 1)
    assert not chosen(below, scale="linear").measure.log  # of none the middle positive one is asked
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
        ("grouseticks", "BROOD", "TICKS", "counts"),
    ],
)
def test_real_tables(name, group, target, scale, data):
    plan = Plan(task=group, targets=[target])
    (one,) = check_all(rows_of(data / f"{name}.csv", "table"), plan)
    assert (one.measure.log, one.measure.counts) == (scale != "linear", scale == "counts")


BENT = (
    YeoJohnson(0.3, 1.7, 0.05),
    YeoJohnson(-2.0, 0.1, 1.4),
    Shares(1.0, 0.0),
    Shares(100.0, 0.004),
)


@pytest.mark.parametrize("bend", BENT)
def test_a_bent_scale_goes_there_and_back(bend):
    y = np.linspace(0.001, 0.999, 41) * (bend.size if isinstance(bend, Shares) else 9.0)
    y = y if isinstance(bend, Shares) else y - 4.0
    u = bend.of(y)
    assert (np.diff(u) > 0).all() and bend.takes(y).all()
    np.testing.assert_allclose(bend.middle + bend.size * bend.back(u), y, rtol=1e-9)
    single = bend.back(jnp.asarray(u, jnp.float32), jnp)
    np.testing.assert_allclose(single, (y - bend.middle) / bend.size, rtol=2e-4, atol=1e-5)
    slope = (bend.of(y + 1e-6) - bend.of(y - 1e-6)) / 2e-6
    np.testing.assert_allclose(bend.log_slope(y), np.log(slope), atol=1e-4)


def test_yeo_and_johnsons_scale_is_scipys():
    y = np.random.default_rng(0).gamma(2.0, size=500) - 1.0
    found = YeoJohnson.fit(y)
    v = (y - found.middle) / found.size
    np.testing.assert_allclose(found.of(y), yeojohnson(v, found.power), rtol=1e-9)
    best = max(POWERS, key=lambda power: yeojohnson_llf(power, v))
    assert found.power == best < 1
    spread = np.full(9, 3.0) + np.eye(9)[0]  # whose middle deviation is zero
    assert np.isfinite(YeoJohnson.fit(spread).of(spread)).all()
    assert YeoJohnson.fit(np.full(9, 3.0)).power == 1.0  # nothing to learn, as others say
    many = np.concatenate([y] * 40)
    assert YeoJohnson.fit(many).power == pytest.approx(found.power, abs=0.2)
    ends = np.array([0.0, 1.0, 1.0])
    assert np.isfinite(Shares.fit(ends).of(ends)).all()


@pytest.mark.parametrize("kind", ["shares with ends", "skewed"])
def test_a_density_on_a_bent_scale_is_one_of_outcomes(kind):
    """It integrates to one; mean, deviation and CRPS are those of the density."""
    one = chosen(drawn(kind))
    units, nothing = Units(*one.measure), Data.of(jnp.zeros((0, 1)), jnp.zeros((0, 1)))
    head = Gaussian(1, scale=0.7)
    mixture = Mixture.equal(head, head.params(jnp.full((1, 1, 1), 0.4)))
    bend = units.bend
    y = np.linspace(0, 1, 40_001) if kind != "skewed" else np.linspace(-60, 60, 400_001)
    density = norm.pdf(units.to_z(y), 0.4, 0.7) * np.exp(-units.log_slope(units.to_z(y)))
    mass, ends = np.trapezoid(density, y), units.to_z(y[[0, -1]])
    assert mass == pytest.approx(np.diff(norm.cdf(ends, 0.4, 0.7))[0], abs=1e-4)
    assert mass > 0.9
    values = units.to_y(norm.ppf((np.arange(20_000) + 0.5) / 20_000, 0.4, 0.7))
    mean, std = (a[0, 0] for a in units.moments(moments(mixture, units.curve(), nothing)))
    assert mean == pytest.approx(values.mean(), rel=2e-2)
    assert std == pytest.approx(values.std(), rel=5e-2)
    at = units.to_z(np.array([[bend.middle + 0.2 * bend.size]]))
    found = units.crps(scores(mixture, units.curve(), nothing, jnp.asarray(at, jnp.float32)))[0]
    near = np.abs(values - units.to_y(at)[0, 0]).mean()
    place = (2 * np.arange(20_000) + 1 - 20_000) / 20_000**2
    assert found == pytest.approx(near - (place * values).sum(), rel=3e-2)


def test_shares_are_answered_as_shares(tmp_path, call):
    table = drawn("shares with ends")
    table.write_csv(tmp_path / "t.csv")
    run_command("fit", tmp_path / "t.csv", *QUICK, "--out", tmp_path / "run")
    prior = metaprior.load(tmp_path / "run" / "prior")
    assert any("share of 1" in note and "--target-scale" in note for note in prior.notes)
    posterior = prior.adapt({"x": [0.0, 1.0], "y": [0.0, 1.0]})
    said = posterior.predict({"x": [-3.0, 0.0, 3.0]}, [0.01, 0.5, 0.99])
    assert said.select(pl.exclude("epistemic")).to_numpy().min() >= 0
    assert said.select("mean", "q01", "q50", "q99").to_numpy().max() <= 1
    draws = posterior.sample({"x": [0.0]}, n=500)["y"]
    assert draws.min() >= 0 and draws.max() <= 1
    with pytest.raises(InputError, match=r"row 1: 1\.2 cannot be used: the shares that were"):
        prior.adapt({"x": [0.0], "y": [1.2]})
    percent = table.with_columns(y=100 * pl.col("y"))
    assert chosen(percent, scale="shares").measure.bend.size == 100
    for y, words in ((-0.5, "is no share of 100"), (120.0, "is no share of 100")):
        with pytest.raises(InputError, match=words):
            chosen(
                percent.with_columns(y=pl.when(pl.col("x") > 2).then(y).otherwise("y")),
                scale="shares",
            )


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


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A folder with a table of counts, and the prior of a mixed model of them."""
    folder = tmp_path_factory.mktemp("counts")
    drawn("counts").write_csv(folder / "t.csv")
    run_command("fit", folder / "t.csv", *QUICK, "--out", folder / "run")
    return folder


def test_counts_have_probabilities(counted):
    prior = metaprior.load(counted / "run" / "prior")
    assert any("counts are modelled" in note for note in prior.notes)
    posterior = prior.adapt({"x": [0.0, 1.0], "y": [1, 4]})
    k = np.arange(400)
    for x in (-1.0, 2.0):
        rows = {"x": np.full(400, x), "y": k}
        p = np.exp(posterior.log_prob(rows))
        assert p.sum() == pytest.approx(1.0, abs=1e-3)
        np.testing.assert_allclose(np.cumsum(p), posterior.cdf(rows), atol=1e-3)
        said = posterior.predict({"x": [x]}, [0.05, 0.5, 0.95])
        assert said["mean"][0] == pytest.approx((k * p).sum(), rel=0.02)
        spread = np.sqrt((k**2 * p).sum() - (k * p).sum() ** 2)
        assert said["std"][0] == pytest.approx(spread, rel=0.05)
        for name, level in (("q05", 0.05), ("q50", 0.5), ("q95", 0.95)):
            first = np.argmax(np.cumsum(p) >= level)  # the least count with so much below or at it
            assert abs(said[name][0] - first) <= (abs(np.cumsum(p)[first] - level) < 0.01)
        for functions in (False, True):
            values = posterior.sample({"x": [x]}, n=2000, functions=functions)["y"].to_numpy()
            assert (values == np.round(values)).all() and values.min() >= 0
            # Five errors of a share of 2,000.
            assert np.mean(values == 0) == pytest.approx(p[0], abs=5 * np.sqrt(0.25 / 2000))
        smooth = posterior.sample({"x": [x]}, n=5, functions=True, noise=False)["y"]
        assert (smooth != smooth.round()).any()


def test_judged_counts_have_the_probabilities_that_the_posterior_says(counted):
    """Groups kept aside, without observed rows: NLL and CRPS by sums over all counts."""
    prior = metaprior.load(counted / "run" / "prior")
    table = drawn("counts", seed=2)
    found = prior.evaluate(table, shots=(0,)).points[0]["method"]
    posterior, k = prior.adapt(None), np.arange(300)
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    order = np.lexsort((found["y"], np.zeros(len(y))))
    nll = -posterior.log_prob({"x": x, "y": y})
    np.testing.assert_allclose(np.sort(found["nll"]), np.sort(nll), rtol=1e-3, atol=1e-3)
    one = int(np.argmax(y))
    below = posterior.cdf({"x": np.full(300, x[one]), "y": k})
    crps = ((below - (k >= y[one])) ** 2).sum()
    assert found["crps"][order][-1] == pytest.approx(crps, rel=0.02)
    # Uniform where the model is right, which a Poisson draw nearly is: 480 rows of 60 groups.
    inside = np.mean((found["pit"] > 0.05) & (found["pit"] < 0.95))
    assert inside == pytest.approx(0.9, abs=0.05)


def test_the_mass_of_a_count_keeps_its_digits():
    """Of large counts, and far out: against SciPy in double precision."""
    scale = Counts(*(np.float32(v) for v in (0.7, -3.0, 9.0, 1.2)))
    head, deviation = Gaussian(1, scale=1.0), 1.0
    mixture = Mixture.equal(head, head.params(jnp.zeros((1, 1, 1))))
    for k in (0, 1, 7, 300, 20_000, 3_000_000):
        z = (np.log1p(k) - 1.2) / 0.7
        low = -np.inf if k == 0 else (np.log(k + 0.5) - 1.2) / 0.7
        high = (np.log(k + 1.5) - 1.2) / 0.7
        tail = norm.sf if z > 0 else norm.cdf
        exact = np.log(abs(tail(high / deviation) - tail(low / deviation)))
        if k > 1e4:  # SciPy's own difference has no digits left
            exact = norm.logpdf(z) + np.log(high - low)
        found = log_mass(mixture, scale, jnp.full((1, 1), z))
        assert float(found[0]) == pytest.approx(exact, abs=2e-2, rel=2e-3)


def test_what_is_no_count_is_answered(counted, tmp_path, call):
    (tmp_path / "new.csv").write_text("g,x,y\nn,0.1,0.5\nn,0.2,\n")
    status, _, err = call("predict", counted / "run", tmp_path / "new.csv")
    assert status and "it is no count" in err and "--target-scale linear" in err
    for y, words in ((0.5, "is no count"), (-1.0, "is no count")):
        table = drawn("counts").with_columns(y=pl.when(pl.col("x") > 2).then(y).otherwise("y"))
        with pytest.raises(InputError, match=words):
            chosen(table, scale="counts")
    two = drawn("counts").with_columns(z="x")
    with pytest.raises(InputError, match="of several targets none can be counts"):
        check_all(rows_of(two, "table"), Plan(task="g", targets=["y", "z"], scale="counts"))
    parts = check_all(rows_of(two, "table"), Plan(task="g", targets=["y", "z"]))
    assert parts[0].measure.log and not parts[0].measure.counts
    prior = metaprior.load(counted / "run" / "prior")
    with pytest.raises(InputError, match="several counts together"):
        prior.adapt(None).log_prob({"x": [0.0, 1.0], "y": [1, 2]}, joint=True)


def test_an_outcome_that_has_no_logarithm_is_answered(tmp_path, call):
    drawn("log-normal").write_csv(tmp_path / "t.csv")
    run_command("fit", tmp_path / "t.csv", *QUICK, "--out", tmp_path / "run")
    (tmp_path / "new.csv").write_text("g,x,y\nn,0.1,0\nn,0.2,\n")
    status, _, err = call("predict", tmp_path / "run", tmp_path / "new.csv")
    assert status and "has no logarithm" in err and "--target-scale linear" in err
