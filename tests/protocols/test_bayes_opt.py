"""The protocol `bayes-opt`: families, controls, hunts, HPO-B's files, figures."""

import json

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from outcomes import by, check, quiet
from scipy import optimize, stats

from metaprior.errors import InputError
from metaprior.protocols import get
from metaprior.protocols.bayes_opt import controls, data, hunting, judge, tables
from metaprior.task import Data

PROTOCOL = get("bayes-opt")


def test_forrester_is_linear_in_its_parameters():
    x, w = np.linspace(0, 1, 7)[:, None], np.array([1.3, -2.0, 0.7])
    v = x[:, 0]
    want = w[0] * (6 * v - 2) ** 2 * np.sin(12 * v - 4) + w[1] * (v - 0.5) - w[2]
    np.testing.assert_allclose(data.forrester(jnp.asarray(w), jnp.asarray(x)), want, atol=1e-4)


def test_each_branin_function_has_its_own_lowest_value():
    """The standard one has 0.397887; of others SciPy's minimum from many starts."""
    standard = np.array([[1.0, 5.1 / (4 * np.pi**2), 5 / np.pi, 6.0, 10.0, 1 / (8 * np.pi)]])
    w = np.concatenate([standard, data.uniform(jr.key(0), data.BRANIN_LOW, data.BRANIN_HIGH, 4)])
    found = data.branin_lowest(w)
    assert found[0] == pytest.approx(0.397887, abs=1e-6)
    bounds = list(zip(*data.BOX))

    def value(x, w):
        a, b, c, r, s, t = w
        return a * (x[1] - b * x[0] ** 2 + c * x[0] - r) ** 2 + s * (1 - t) * np.cos(x[0]) + s

    for each, lowest in zip(w, found):
        starts = data.grid(data.BOX[0], data.BOX[1], 5)
        best = min(optimize.minimize(value, x, (each,), bounds=bounds).fun for x in starts)
        assert lowest == pytest.approx(best, abs=1e-5)


def small(make=data.make_forrester, training=5, judged=3):
    return make(training, judged, 0)


def test_the_true_prior_is_bayesian_linear_regression():
    family = small()
    prior = controls.forrester_prior(family)
    x = np.array([0.1, 0.5, 0.9])[:, None]
    y = np.array([3.0, -1.0, 4.0])
    middle, unit = controls.units_of_x(family, 0.0, 1.0)
    seen = Data.of((x - middle) / unit, (y - family.centre) / family.scale)
    places = np.linspace(0, 1, 401)[:, None]
    mixture = prior.posterior(seen, key=jr.key(0)).predict(
        family.hunts.x[0], key=jr.key(0), samples=1
    )
    phi = np.asarray(data.forrester_features(jnp.asarray(x)), float)
    at = np.asarray(data.forrester_features(jnp.asarray(places)), float)
    low, high = data.FORRESTER_LOW, data.FORRESTER_HIGH
    precision = np.diag(12 / (high - low) ** 2)
    after = precision + phi.T @ phi / 0.01
    mean = np.linalg.solve(after, precision @ (low + high) / 2 + phi.T @ y / 0.01)
    std = np.sqrt(np.einsum("ni,ij,nj->n", at, np.linalg.inv(after), at))
    got = family.centre + family.scale * mixture.mean()[:, 0]
    np.testing.assert_allclose(got, at @ mean, atol=0.05)
    (part,) = mixture.parts
    np.testing.assert_allclose(family.scale * jnp.sqrt(part.inside[0, :, 0]), std, atol=0.03)


@pytest.mark.slow
def test_settings_are_weighted_by_evidence_or_the_likeliest_is_taken():
    x, y = np.array([-1.0, 0.2, 0.5]), np.array([0.3, -0.2, 0.4])
    lengths, stds = np.array([0.3, 1.0]), np.array([0.5, 2.0])
    grid = controls._grid(lengths[:, None], stds, np.array([0.1]))
    log_evidence = []
    for log_std, log_length in zip(grid.log_std, grid.log_length):
        k = np.exp(2 * log_std - 0.5 * ((x[:, None] - x) / np.exp(log_length[0])) ** 2)
        log_evidence.append(stats.multivariate_normal(np.zeros(3), k + 0.01 * np.eye(3)).logpdf(y))
    weight = np.exp(log_evidence) / np.exp(log_evidence).sum()
    seen, key = Data.of(x, y), jr.key(0)
    posterior = controls.OverSettings(grid, average=True, scaled=False).posterior(seen, key=key)
    np.testing.assert_allclose(jnp.exp(posterior.log_weight), weight, rtol=1e-3)
    one = controls.OverSettings(grid, average=False, scaled=False).posterior(seen, key=key)
    assert one.kernels[0].log_std == grid.log_std[weight.argmax()]
    at = jnp.zeros((4, 1))
    predicted = posterior.predict(at, key=key, samples=1)
    drawn = posterior.sample(at, key=key, samples=400).parts[0].params[:, 0, 0, 0]
    # Four standard errors of the mean of 400 draws.
    spread = float(jnp.sqrt(predicted.epistemic()[0, 0]))
    assert abs(float(drawn.mean() - predicted.mean()[0, 0])) < 4 * spread / 20


def test_from_scratch_does_not_care_for_units():
    """A function in other units of y has the same place next; before two rows it has no unit."""
    x = jnp.linspace(-1.5, 1.5, 21)[:, None]
    learner, seen = controls.from_scratch(x), jnp.asarray([-1.0, 0.1, 0.9])

    def mean(y):
        posterior = learner.posterior(Data.of(seen, y), key=jr.key(0))
        return posterior.predict(x, key=jr.key(0), samples=1).mean()[:, 0]

    y = np.array([0.3, -0.2, 0.4])
    np.testing.assert_allclose(mean(100 + 50 * y), 100 + 50 * mean(y), rtol=1e-3, atol=0.05)


def test_hunts_try_each_real_place_once_and_begin_as_told():
    f = np.array([[3.0, 1.0, 2.0, 0.0], [1.0, 0.0, 5.0, 4.0]])
    real = np.array([[True, True, True, False], [True, True, True, True]])
    x = np.broadcast_to(np.linspace(-1, 1, 4)[:, None], (2, 4, 1))
    order = data.orders(jr.key(0), real, 3)
    hunts = data.Hunts(
        *map(jnp.asarray, (x.astype(np.float32), f.astype(np.float32), real, order)),
        jnp.zeros((2, 0)),
        jnp.zeros(2),
    )
    learner = controls.from_scratch(x)
    for by_rule in ("improvement", "ucb"):
        found = hunting.hunt(learner, hunts, by_rule, 1, key=jr.key(1), block=4)
        assert all(len(set(picks)) == 3 for picks in found.picks.tolist())
        assert sorted(found.picks[0]) == [0, 1, 2] and (found.picks[:, 0] == order[:, 0]).all()
    found = hunting.hunt(None, hunts, "improvement", 0, key=jr.key(1), block=2)
    np.testing.assert_array_equal(found.picks, order)
    tried = np.take_along_axis(f, found.picks, 1)
    best = np.minimum.accumulate(tried, 1)
    np.testing.assert_allclose(np.take_along_axis(f, found.recommended, 1), best)


def found(values, start=1, unit=(0, 1)):
    values = np.array(values)
    return judge.Found(
        values, values, values.astype(int), np.zeros(2), np.full(2, 0.5), np.array(unit), start,
        (1, 2), 0.1,
    )  # fmt: skip


def test_figures_by_hand():
    """One evaluation to begin with, which is not counted, and two after it."""
    one = found([[3.0, 2.0, 1.0], [0.4, 5.0, 0.2]])
    np.testing.assert_allclose(judge.simple_regret(one), [[2.0, 1.0], [0.4, 0.2]])
    np.testing.assert_array_equal(judge.evaluations_to(one), [3, 1])
    np.testing.assert_allclose(judge.cumulative([one]), [3.0, 5.2])
    value = {(f.setting, f.metric): f.value for f in judge.figures_of("A", {"improvement": [one]})}
    assert value["A: 1", "regret"] == pytest.approx(1.2)
    assert value["A: 2", "solved"] == 0.5 and value["A", "evaluations"] == 2
    assert value["A: 1", "recommended"] == pytest.approx(3.5)
    together = judge.regret_of([found([[3.0, 2.0], [0.4, 0.1]], 0, (7, 7))])[1]
    np.testing.assert_allclose(np.atleast_2d(together), [[1.7, 1.05]])


def space(rng, sets, rows=8):
    return {
        name: {"X": rng.random((rows, 2)).tolist(), "y": rng.random((rows, 1)).tolist()}
        for name in sets
    }


def hpob(folder):
    """A made copy of HPO-B's files: one space with two training and two test data sets."""
    rng = np.random.default_rng(0)
    test = {"s": space(rng, ("c", "d"))}
    starts = {"s": {name: {f"test{i}": [i, i + 1] for i in range(5)} for name in ("c", "d")}}
    made = ({"s": space(rng, ("a", "b"))}, test, starts)
    for name, part in zip(tables.HPOB_FILES, made):
        (folder / name).write_text(json.dumps(part))
    return test


def test_hpo_b_is_hunted_from_its_own_starts_in_units_of_each_data_set(tmp_path):
    test = hpob(tmp_path)
    read = tables.load(tmp_path)["HPO-B"]
    assert [len(part) for part in (read[0].train, read[0].test)] == [2, 2]
    family = tables.hpob(read[0], 3)
    assert family.hunts.order.shape == (10, 5) and family.start == 2
    np.testing.assert_array_equal(family.hunts.order[3, :2], [3, 4])
    y = np.array(test["s"]["d"]["y"])[:, 0]
    own = family.centre + family.scale * np.asarray(family.hunts.f[5, :8])
    np.testing.assert_allclose(own, (y.max() - y) / (y.max() - y.min()), atol=1e-5)
    assert family.hunts.real[5].sum() == 8 and family.hunts.real.shape[1] == 64
    assert [str(path.name) for path in tables.reads(tmp_path)] == list(tables.HPOB_FILES)


TRAIN, TEST, STARTS = tables.HPOB_FILES
WHOLE = None
BAD = [
    # name, file, what stands there, what is put in its place, what the message must hold
    ("no JSON", TRAIN, WHOLE, "{", ["is no JSON"]),
    ("a list", TEST, WHOLE, "[1]", ["no search spaces"]),
    ("no y", TRAIN, '"y"', '"z"', ["space s, data set a", "X and y"]),
    ("a word", TEST, '"X": [[', '"X": [["u", ', ["data set c", "numbers"]),
    ("infinite", TEST, '"y": [[', '"y": [[Infinity], [', ["data set c"]),
    ("far row", STARTS, "[0, 1]", "[0, 99]", ["row 99", "there are 8"]),
    ("same row", STARTS, "[0, 1]", "[1, 1]", ["twice"]),
    ("a start lacks", STARTS, "test4", "test5", ["test0 … test4"]),
    ("a set lacks", STARTS, '"d"', '"e"', ["data set d", "not there"]),
    ("no spaces", TRAIN, '"s"', '"r"', ["no search space"]),
]


@pytest.mark.parametrize("name,file,old,new,words", BAD, ids=[row[0] for row in BAD])
def test_files_of_hpo_b_that_cannot_be_read_are_named(name, file, old, new, words, tmp_path):
    hpob(tmp_path)
    path = tmp_path / file
    path.write_text(new if old is WHOLE else path.read_text().replace(old, new))
    with pytest.raises(InputError) as raised:
        tables.load(tmp_path)
    message = str(raised.value)
    assert "\n" not in message and all(word in message for word in words), message
    assert name == "no spaces" or file in message


def test_a_file_of_hpo_b_that_lacks_is_named(tmp_path):
    hpob(tmp_path)
    (tmp_path / STARTS).unlink()
    with pytest.raises(InputError, match=f"{STARTS}: no such file"):
        tables.load(tmp_path)
    with pytest.raises(InputError, match="reads a folder"):
        tables.load(tmp_path / TRAIN)
    assert tables.load(None) == {}


OPTIONS = PROTOCOL.budgets["quick"] | {
    "training": {data.FORRESTER: 5},
    "judged": 4,
    "trials": 3,
    "steps": {data.FORRESTER: {"": 2}, "tables": {"": 2}},
}


@pytest.mark.slow
def test_figures_follow_from_the_predictions_and_are_drawn(tmp_path):
    hpob(tmp_path)
    read = tables.load(tmp_path)
    outcome = judge.run("alpaca", 0, OPTIONS, read, quiet)
    check(PROTOCOL, outcome, OPTIONS, read)
    rows = outcome.predictions
    # Both data sets of HPO-B have five starts: the mean over hunts is that over data sets.
    for setting, n in ((data.FORRESTER, 3), ("HPO-B", 1)):
        here = (rows["setting"] == setting) & (rows["rule"] == "improvement")
        some = here & (rows["evaluation"] <= n)
        best: dict[int, float] = {}
        for task, value in zip(rows["task"][some], (rows["value"] - rows["lowest"])[some]):
            best[task] = min(best.get(task, np.inf), value)
        want = pytest.approx(np.mean(list(best.values())), abs=1e-5)
        assert by(outcome, f"{setting}: {n}", "regret") == want


@pytest.mark.slow
def test_the_true_prior_finds_forresters_minimum_in_three_evaluations():
    """100 functions. Computed elsewhere, on others: 0.53, 0.016 and 0.007 after 1, 2 and 3; random
    search 8.86, 6.39 and 5.29. Bounds are five times the former, and half of the latter."""
    options = OPTIONS | {"judged": 100}
    exact = judge.run(judge.EXACT, 0, options, {}, quiet)
    random = judge.run(judge.RANDOM, 0, options, {}, quiet)
    assert by(exact, "Forrester: 3", "regret") < 0.035
    assert by(random, "Forrester: 3", "regret") > 2.6
    assert by(exact, "Forrester", "evaluations") < 3
    assert PROTOCOL.sentence([]) == ""
    assert jax.tree.leaves(exact.facts) == []
