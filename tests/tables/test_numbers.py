"""The right number: units, levels, and questions that agree with one another."""

import io

import equinox as eqx
import numpy as np
import polars as pl
import pytest
from conftest import tiny_csv

import metaprior
from metaprior.errors import InputError
from metaprior.evaluation.units import Units, moments, scores
from metaprior.heads import StudentT
from metaprior.posterior import Mixture, Part
from metaprior.tables.asked import interval_levels, named_levels
from metaprior.tables.baselines import cross_fit
from metaprior.tables.columns import Features
from metaprior.tables.target_scale import named
from metaprior.tables.targets import standardised
from metaprior.task import Data

LEVELS = (0.025, 0.05, 0.5, 0.95, 0.975)


@pytest.fixture(scope="session")
def saved(fitted):
    """The prior that `metaprior fit` made of the tiny table."""
    return metaprior.load(fitted / "run" / "prior")


@pytest.fixture
def prior(saved):
    """The same, whose parts a test may replace."""
    trained = saved.trained
    again = metaprior.Prior()
    again.trained = eqx.tree_at(lambda t: t.info, trained, dict(trained.info))
    return again


@pytest.fixture(scope="session")
def rows():
    """Three observed rows of a new group, and five more."""
    table = pl.read_csv(io.StringIO(tiny_csv(1, 8, seed=3)))
    return table[:3], table[3:]


def in_other_units(prior, **change):
    """The prior as it would be with other units of the target: the rest sees none."""
    units = Units(**{name: getattr(prior.trained.units, name) for name in UNITS} | change)
    prior.trained = eqx.tree_at(lambda t: t.units, prior.trained, units)
    return prior


UNITS = ("center", "scale", "low", "high", "log")


@pytest.mark.quick("logarithm")
@pytest.mark.parametrize("log", [False, True], ids=["plain", "logarithm"])
def test_predictions_are_the_same_in_any_unit(log, prior, rows):
    """At 1e-13 and 1e13 times, and 1e8 away, to a millionth of a deviation."""
    known, query = rows
    own = in_other_units(prior, center=2.0, scale=0.7, log=log).trained.units
    known = known.with_columns(pl.Series("y", own.to_y([0.1, -0.4, 0.3])))
    said = prior.adapt(known).predict(query, LEVELS)
    assert said.columns == ["mean", "std", "q2.5", "q05", "q50", "q95", "q97.5", "epistemic"]
    for scale, shift in ((1e13, 0.0), (1e-13, 0.0), (1.0, 1e8)):
        if log and shift:
            continue
        center = own.center + np.log(scale) if log else scale * own.center + shift
        other = in_other_units(prior, center=center, scale=own.scale * (1 if log else scale))
        there = other.adapt(known.with_columns(pl.col("y") * scale + shift)).predict(query, LEVELS)
        for name in said.columns:
            back = (there[name] - (shift if name[0] in "mq" else 0)) / scale
            gap = ((back - said[name]) / said["std"]).abs().max()
            assert gap < 1e-5, (name, scale, shift)


def test_training_sees_the_same_numbers_in_any_unit():
    rng = np.random.default_rng(0)
    y, train = rng.gamma(2.0, size=200), np.arange(200) < 150
    raw, fold = rng.normal(size=(200, 2)), np.arange(200) % 5
    for log in (False, True):
        scale_of_it = named("log" if log else "linear", y)
        z, measure = standardised(y, train, scale_of_it, "t", "y")
        units = Units(*measure)
        for scale, shift in ((1e13, 0.0), (1e-13, 0.0), (1e-200, 0.0), (1.0, 1e8)):
            if log and shift:
                continue
            there, measure = standardised(scale * y + shift, train, scale_of_it, "t", "y")
            other = Units(*measure)
            np.testing.assert_allclose(there, z, atol=1e-6)
            np.testing.assert_allclose(other.to_y(there), scale * y + shift, rtol=1e-12)
            assert other.log_slope(z) == pytest.approx(units.log_slope(z) + np.log(scale))

    def seen(raw):
        frame = pl.DataFrame({"a": raw[:, 0], "b": raw[:, 1]})
        encoded, columns = Features.learn(frame, ["a", "b"], fold).encode(frame)
        return encoded, cross_fit(columns, z, fold, rounds=5)[1]

    for scale, shift in ((1e13, 0.0), (1e-13, 0.0), (1.0, 1e8)):
        for one, other in zip(seen(raw), seen(scale * raw + shift)):
            np.testing.assert_allclose(other, one, atol=1e-5)


def test_moments_and_scores_of_a_logarithm_are_those_of_its_atoms():
    """Against double precision, for narrow, ordinary and very wide logarithms."""
    params = np.asarray([[-0.5, 0.3, 5.0], [0.6, 0.8, 30.0]], np.float32)[:, None, None]
    mixture = Mixture((Part(StudentT(1), params, np.log(np.asarray([0.3, 0.7], np.float32))),))
    y = np.asarray([[0.2]], np.float32)
    ask, score = eqx.filter_jit(moments), eqx.filter_jit(scores)
    for center, scale in ((0.0, 1e-4), (30.0, 0.5), (-300.0, 9.0)):
        units, nothing = Units(center, scale, -2.0, 2.0, True), Data.of([[0.0]], [[0.0]])
        values, weights = mixture.atoms()
        atoms = units.to_y(np.clip(values, -3.0, 3.0))[:, 0, 0]
        weights = np.asarray(weights, float)
        mean = weights @ atoms
        found, std = units.moments(ask(mixture, units.curve(), nothing))
        assert found[0, 0] == pytest.approx(mean, rel=1e-5)
        assert std[0, 0] == pytest.approx(np.sqrt(weights @ (atoms - mean) ** 2), rel=1e-3)
        far = np.abs(atoms - units.to_y(y)[0, 0]) @ weights
        gap = far - 0.5 * weights @ np.abs(atoms[:, None] - atoms) @ weights
        crps = units.crps(score(mixture, units.curve(), nothing, y))
        assert crps[0] == pytest.approx(gap, rel=1e-3)


def test_levels_have_names_of_their_own():
    assert list(named_levels((0.05, 0.5, 0.95, 0.025, 0.975, 0.001, 0.004))) == [
        *("q05", "q50", "q95", "q2.5", "q97.5", "q0.1", "q0.4")
    ]
    assert named_levels(np.asarray([0.05], np.float32)) == {"q05": 0.05}
    assert named_levels([1 - 0.95]) == {"q05": 0.05}
    assert interval_levels(0.95) == (0.025, 0.975) and interval_levels(0.9) == (0.05, 0.95)


BAD = [
    # what is asked of a posterior, and what the message must hold
    (lambda q, x: q.predict(x, (5, 50, 95)), ["levels", "(0, 1)", "got 5", "0.05"]),
    (lambda q, x: q.predict(x, (0.0, 1.0)), ["levels", "(0, 1)", "got 0.0"]),
    (lambda q, x: q.predict(x, (0.5, 1e-9)), ["levels", "0.00001", "1e-09"]),
    (lambda q, x: q.predict(x, (float("nan"),)), ["levels", "nan"]),
    (lambda q, x: q.predict(x, ("a",)), ["levels", "'a'"]),
    (lambda q, x: q.predict(x, 0.5), ["levels", "list", "0.5"]),
    (lambda q, x: q.predict(x, ()), ["levels", "empty"]),
    (lambda q, x: q.predict(x, (0.1, 0.5, 0.1)), ["0.1", "twice"]),
    (lambda q, x: q.sample(x, seed=-1), ["seed", "at least 0", "-1"]),
    (lambda q, x: q.sample(x, n=2.0), ["n is a whole number", "2.0"]),
    (lambda q, x: q.sample(x, n=True), ["n is a whole number", "True"]),
    (lambda q, x: q.sample(x, n=0), ["n is a whole number", "at least 1", "0"]),
    (lambda q, x: q.suggest(x, n=1.0), ["n is a whole number", "1.0"]),
    (lambda q, x: q.suggest(x, seed=0.5), ["seed is a whole number", "0.5"]),
]


@pytest.mark.parametrize("ask,words", BAD)
def test_a_question_that_means_nothing_is_refused(ask, words, saved, rows):
    with pytest.raises(InputError) as error:
        ask(saved.adapt(), rows[1])
    for word in words:
        assert word in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


def test_draws_agree_with_predictions(prior, rows):
    """Moments and quantiles of 4,000 draws, with the logarithm too."""
    known, query = rows
    for log, center in ((False, 1e3), (True, 1.0)):
        units = in_other_units(prior, center=center, scale=0.8, log=log).trained.units
        known = known.with_columns(pl.Series("y", units.to_y([0.1, -0.4, 0.3])))
        posterior = prior.adapt(known)
        said, draws = posterior.predict(query, LEVELS), posterior.sample(query, 4000, seed=1)
        values = draws["y"].to_numpy().reshape(4000, -1)
        std = said["std"].to_numpy()
        np.testing.assert_allclose(values.mean(0), said["mean"], atol=5 * std.max() / 4000**0.5)
        # Tails are heavy: the deviation of draws of one row varies by a tenth.
        assert values.std(0).mean() == pytest.approx(std.mean(), rel=0.08)
        for name, level in named_levels(LEVELS).items():
            below = (values <= said[name].to_numpy()).mean(0)
            np.testing.assert_allclose(below, level, atol=0.02)


def test_levels_and_interval_on_the_command_line(fitted, call):
    table = fitted / "table.csv"
    ask = ("predict", fitted / "run", "--query", table)
    status, out, err = call(*ask, "--interval", "0.95")
    assert status == 0, err
    columns = out.splitlines()[0].split(",")
    assert columns == ["mean", "std", "q2.5", "q50", "q97.5", "epistemic"]
    for extra, words in (
        (("--levels", "5,95"), ["levels", "got 5", "0.05"]),
        (("--levels", "a"), ["--levels", "'a'"]),
        (("--interval", "95"), ["interval", "0.95"]),
        (("--interval", "0.9", "--levels", "0.1"), ["--levels", "--interval"]),
    ):
        status, out, err = call(*ask, *extra)
        assert status == 2 and out == "" and err.count("\n") == 1
        assert all(word in err for word in words), err


@pytest.mark.slow
def test_a_fit_is_the_same_in_any_unit():
    """Of the target and of a feature, to a hundred-thousandth of a deviation."""
    table = pl.read_csv(io.StringIO(tiny_csv(20, 8)))

    def said(y, x):
        rows = table.with_columns(y, x)
        prior = metaprior.Prior("cnp", steps=20).fit(rows[16:], task="g", target="y")
        return prior.adapt(rows[:3]).predict(rows[3:16], LEVELS)

    own = said(pl.col("y"), pl.col("x"))
    for scale, shift in ((1e13, 0.0), (1e-13, 0.0), (1.0, 1e8)):
        other = said(pl.col("y") * scale + shift, pl.col("x") * scale + shift)
        for name in own.columns:
            back = (other[name] - (shift if name[0] in "mq" else 0)) / scale
            assert ((back - own[name]) / own["std"]).abs().max() < 1e-4, name


def test_a_feature_given_twice_counts_once():
    """In another unit too; a note says so."""
    frame = pl.read_csv(io.StringIO(tiny_csv()))
    group = frame["day"].to_numpy()
    more = frame.with_columns(
        twice=pl.col("x") * 1000 + 5, kind2=pl.col("kind"), other=-pl.col("x")
    )
    features = Features.learn(more, ["x", "kind", "twice", "kind2", "other"], group)
    assert features.names() == ["x", "kind", "other"]
    assert features.notes == (
        "twice: left out, it says in every row what x says.",
        "kind2: left out, it says in every row what kind says.",
    )


CHANGES = {
    # of the table, of the new group's rows, and of names and order in the answer
    "names of groups": lambda t: t.with_columns(g=pl.lit("group ") + pl.col("g")),
    "names of columns": lambda t: t.rename({"x": "speed", "day": "a date"}),
    "unit of a feature": lambda t: t.with_columns(x=pl.col("x") * 1e6),
    "unit of the target": lambda t: t.with_columns(y=pl.col("y") * 1e-6),
}


@pytest.mark.slow
@pytest.mark.parametrize("method,steps", [("cnp", 20), ("process", 20), ("auto", 60)])
def test_what_means_nothing_changes_nothing(method, steps):
    """Names and units; and a row's answer is its own whatever is beside it.

    The order of columns does change it, as the seed does: networks start from random weights.
    """
    table = pl.read_csv(io.StringIO(tiny_csv(20, 8)))

    def said(change):
        rows = change(table)
        prior = metaprior.Prior(method, steps=steps).fit(rows[16:], task="g", target="y")
        posterior = prior.adapt(rows[:3])
        return posterior, rows[3:8], posterior.predict(rows[3:8])

    posterior, query, own = said(lambda t: t)
    turned = posterior.predict(query[::-1])[::-1]
    for name, change in CHANGES.items():
        there = said(change)[2]
        scale = 1e-6 if name == "unit of the target" else 1.0
        for column in own.columns:
            gap = (there[column] / scale - own[column]).abs().max() / own["std"].min()
            assert gap < 1e-3, (name, column)
    for column in own.columns:
        assert (turned[column] - own[column]).abs().max() < 1e-4 * own["std"].min()
