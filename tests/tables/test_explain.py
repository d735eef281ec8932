"""What a prior says of itself, against the truth of simulated tables and a second library."""

import json

import equinox as eqx
import numpy as np
import polars as pl
import pytest

import metaprior
from metaprior.errors import InputError
from metaprior.tables.explain import OBSERVED, SHOTS


def sloped(groups=200, rows=10):
    """Levels of deviation 1 and slopes of 0.8 ± 0.5, correlated by -0.6; noise 0.7."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=groups)
    slope = 0.5 * (-0.6 * level + 0.8 * rng.normal(size=groups))
    x = rng.normal(size=(groups, rows))
    y = 2 + level[:, None] + (0.8 + slope[:, None]) * x + 0.7 * rng.normal(size=x.shape)
    return {"g": np.repeat(np.arange(groups), rows), "x": x.ravel(), "y": y.ravel()}


def levels(groups=80, rows=6, odd=None, seed=1):
    """Levels of deviation 1, noise 0.5; one group may scatter far more than the others."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(groups, 1)) + 0.5 * rng.normal(size=(groups, rows))
    names = np.array([f"g{i}" for i in range(groups)])
    if odd is not None:
        y[names == odd] += np.resize([3.0, -3.0], rows)
    return {"g": np.repeat(names, rows), "y": y.ravel()}


@pytest.fixture(scope="module")
def slopes():
    return metaprior.Prior("mixed").fit(sloped(), task="g", target="y")


@pytest.fixture(scope="module")
def plain():
    return metaprior.Prior("mixed", holdout=0.5).fit(levels(), task="g", target="y")


def test_components_are_those_of_a_mixed_model(slopes):
    """Within a tenth of statsmodels' on the same table, and of the truth within three errors."""
    import statsmodels.api as sm

    table = sloped()
    x = sm.add_constant(table["x"])
    other = sm.MixedLM(table["y"], x, groups=table["g"], exog_re=x).fit()
    e, own = slopes.explain(), np.diag(other.cov_re)
    std = dict(zip(e.spread["part"], e.spread["std"], strict=True))
    assert std["features"] == pytest.approx(abs(other.fe_params[1]), rel=0.1)
    assert std["between groups"] == pytest.approx(own[0] ** 0.5, rel=0.1)
    assert std["own effects of groups"] == pytest.approx(own[1] ** 0.5, rel=0.1)
    assert std["noise"] == pytest.approx(other.scale**0.5, rel=0.1)
    assert e.spread["share"].sum() == pytest.approx(1.0)

    (slope,) = e.slopes.iter_rows(named=True)
    r = other.cov_re[0, 1] / np.sqrt(own.prod())
    assert slope["slope"] == pytest.approx(other.fe_params[1], rel=0.05)
    assert slope["std"] == pytest.approx(own[1] ** 0.5, rel=0.1)
    assert slope["correlation"] == pytest.approx(r, abs=0.08)
    # 200 groups: errors of a slope, of a deviation and of a correlation.
    assert abs(slope["slope"] - 0.8) < 3 * 0.5 / 200**0.5
    assert abs(slope["correlation"] + 0.6) < 3 * (1 - 0.36) / 200**0.5 + 0.08


def test_rows_are_worth_what_the_formula_says(plain):
    """Of a level with variance a and noise b, K rows leave a / (1 + K a / b)."""
    e = plain.explain()
    part = dict(zip(e.spread["part"], e.spread["std"], strict=True))
    assert part["features"] == 0 and part["own effects of groups"] < 0.02
    assert part["between groups"] == pytest.approx(1.0, abs=3 / 80**0.5)  # 40 groups
    ratio = (part["between groups"] / part["noise"]) ** 2
    left = (1 + np.array(OBSERVED) * ratio) ** -0.5
    np.testing.assert_allclose(e.rows["left"], left, rtol=0.01)
    assert e.halved == pytest.approx(np.interp(-0.5, -left, OBSERVED), rel=0.05)
    assert "halves the deviation" in str(e) or "halve the deviation" in str(e)


def test_a_group_unlike_all_others_is_named(plain):
    """And where there is none, p is uniform: its mean over 40 groups within three errors."""
    p = plain.explain().groups["p"]
    assert len(p) == 40 and abs(p.mean() - 0.5) < 3 / (12 * 40) ** 0.5
    assert "none of the 40" in str(plain.explain())
    odd = plain.trained.held.names[7]
    prior = metaprior.Prior("mixed", holdout=0.5).fit(levels(odd=odd), task="g", target="y")
    e = prior.explain()
    assert e.unlike["group"].to_list() == [odd] and f"{odd} (p = 0.0025)" in str(e)


def test_effects_of_one_group_and_of_names(slopes):
    """A group with 200 rows has its own slope; a new group the mean one, and a wider band."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=200)
    group = {"x": x, "y": 5 + 2.0 * x + 0.1 * rng.normal(size=200)}
    own = slopes.adapt(group).effects()
    at, mean = own["value"].to_numpy(), own["mean"].to_numpy()
    np.testing.assert_allclose(mean, 5 + 2.0 * at, atol=0.15)
    new = slopes.explain().effects
    assert ((new["high"] - new["low"]) > 5 * (own["high"] - own["low"])).all()


def test_pictures_compose(slopes):
    from matplotlib.figure import Figure

    some = {"x": [-1.0, 0.5], "y": [1.0, 2.0]}
    posterior = slopes.adapt(some)
    ax = Figure().add_subplot()
    assert posterior.plot(ax=ax) is ax.figure and ax.get_ylabel() == "y"
    names = {text.get_text() for text in ax.get_legend().get_texts()}
    assert {"observed", "observe next", "functions drawn", "median and 90 % band"} == names
    dots = next(line for line in ax.lines if line.get_label() == "observed")
    np.testing.assert_allclose(dots.get_xydata(), np.transpose([some["x"], some["y"]]), atol=1e-5)
    assert len(slopes.plot().axes) == 1 and len(slopes.explain().plot().axes) == 3


BAD = [
    (lambda p: metaprior.Prior().explain(), "has learned nothing yet"),
    (lambda p: p.adapt(None).plot("z"), r"x is a feature of numbers \(x\); got 'z'"),
    (lambda p: p.adapt(None).plot(by="x"), r"by is a feature of names \(none\); got 'x'"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_cannot_be_shown_is_one_line(slopes, number):
    call, words = BAD[number]
    with pytest.raises(InputError, match=words):
        call(slopes)


def test_a_prior_that_does_not_hold_its_features_says_so(slopes):
    trained = eqx.tree_at(lambda t: t.gaps, slopes.trained, None)
    prior = metaprior.Prior("mixed")
    prior.trained = trained
    with pytest.raises(InputError, match="fitted by an earlier version, or on too many columns"):
        prior.explain()


def test_without_a_feature_of_numbers_there_is_no_axis(plain):
    with pytest.raises(InputError, match="no feature of numbers to draw along"):
        plain.plot()


def test_the_command_prints_text_or_json(tmp_path, call):
    pl.DataFrame(levels()).write_csv(tmp_path / "t.csv")
    words = ("--task", "g", "--target", "y", "--method", "mixed", "--out", tmp_path / "p")
    assert call("fit", tmp_path / "t.csv", *words)[0] == 0
    status, out, _ = call("explain", tmp_path / "p")
    assert status == 0 and "What the prior has learned of y from 64 groups" in out
    status, out, _ = call("explain", tmp_path / "p", "--json")
    found = json.loads(out)["y"]
    assert found["spread"][1]["part"] == "between groups" and len(found["groups"]) == 16


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, method",
    [("numbers", "auto"), ("classes", "mixed"), ("several", "mixed"), ("counts", "mixed")],
)
def test_every_kind_of_target(kind, method):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(24), 6)
    level, x = rng.normal(size=24)[group], rng.normal(size=len(group))
    s = np.where(rng.random(len(group)) < 0.5, "a", "b")
    table = {"g": group, "x": x, "s": s, "y": level + x + (s == "b") + rng.normal(size=len(group))}
    target = "y"
    if kind == "classes":
        table["y"] = np.where(table["y"] > 0, "yes", "no")
    if kind == "several":
        table["z"], target = table["y"] + rng.normal(size=len(group)), ["y", "z"]
    if kind == "counts":
        table["y"] = rng.poisson(np.exp(0.5 * table["y"]))
    scale = "counts" if kind == "counts" else "auto"
    prior = metaprior.Prior(method, steps=20, target_scale=scale, holdout=0.25)
    found = prior.fit(table, task="g", target=target).explain()
    each = list(found.values()) if kind == "several" else [found]
    assert [e.target for e in each] == (["y", "z"] if kind == "several" else ["y"])
    for e in each:
        assert e.spread["share"].sum() == pytest.approx(1.0) and (e.spread["share"] >= 0).all()
        assert np.diff(e.rows["left"]).max() < 0.1 and e.rows["left"][-1] < 1
        assert (e.weights is None) == (method == "mixed")
        if e.weights is not None:
            shares = e.weights.select(f"K={K}" for K in SHOTS).to_numpy()
            np.testing.assert_allclose(shares.sum(0), 1.0, atol=1e-5)
            assert {"processes", "mixed", "boosting"} <= set(e.weights["learner"])
        rises = e.effects.filter((pl.col("feature") == "x") & (pl.col("outcome") != "p_no"))
        assert rises["mean"][-1] > rises["mean"][0]
        assert (rises["low"] <= rises["mean"]).all() and (rises["mean"] <= rises["high"]).all()
    if kind == "several":
        assert "y" in each[1].effects["feature"].to_list()
    if kind == "counts":
        assert each[0].scale == "logarithm of 1 more" and (each[0].effects["mean"] >= 0).all()


def test_a_new_group_without_features_or_rows(plain):
    """An encoded row is then as wide as the pooled prediction alone."""
    said = plain.adapt(None).predict({"g": ["new", "new"]})
    assert said.height == 2 and said["mean"][0] == pytest.approx(0.0, abs=0.5)
