"""The protocol `shift`: the exact answers of each change, what a move costs, figures, pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from outcomes import by, quiet
from scipy.stats import multivariate_normal, norm

from metaprior.errors import InputError
from metaprior.protocols import get
from metaprior.protocols.protocol import Drawn
from metaprior.protocols.shift import data, judge, labels
from metaprior.task import Data

OPTIONS = {"steps": 2, "tasks": 40, "head": "student_t", "seen": 0.0}


def test_the_answer_that_knows_of_a_moved_row_is_bayes_rule():
    """Against a sum over rows and signs in NumPy, by densities of all rows together."""
    rng = np.random.default_rng(0)
    x, y, new = rng.uniform(-2, 2, 4), rng.normal(size=4), np.array([-0.5, 1.0])
    support = Data.of(jnp.zeros(data.SHOWN), jnp.zeros(data.SHOWN))
    support = Data(
        support.x.at[:4, 0].set(x), support.y.at[:4, 0].set(y), jnp.arange(data.SHOWN) < 4
    )
    moved = data.KnowsMoved(data.trained_on(), 2.0).posterior(support, key=None)
    found = moved.predict(jnp.asarray(new)[:, None], key=jax.random.key(0), samples=1)

    def k(a, b):
        return np.exp(-0.5 * ((a[:, None] - b[None]) / data.LENGTH) ** 2)

    noise = data.NOISE**2
    prior = k(x, x) + noise * np.eye(4)
    weight, mean, var = [], [], []
    for row in range(4):
        for sign in (-1, 1):
            back = y - sign * 2.0 * (np.arange(4) == row)
            weight.append(multivariate_normal(np.zeros(4), prior).pdf(back))
            mean.append(k(new, x) @ np.linalg.solve(prior, back))
            var.append(1 + noise - np.diag(k(new, x) @ np.linalg.solve(prior, k(x, new))))
    weight, mean, sd = np.array(weight), np.array(mean), np.sqrt(var)
    weight /= weight.sum()
    at = np.array([0.3, -0.2])
    wanted = (weight[:, None] * norm(mean, sd).pdf(at)).sum(0)
    np.testing.assert_allclose(found.log_prob(jnp.asarray(at)[:, None]), np.log(wanted), atol=2e-3)
    np.testing.assert_allclose(found.mean()[:, 0], weight @ mean, atol=2e-3)


def test_tasks_are_the_same_but_for_what_is_changed():
    each = {name: judge.held_out(name, 20) for name in data.settings()}
    own = each[data.UNSHIFTED]
    assert own.support.mask.sum(1).tolist() == [data.SHOWN] * 20
    there = each["other x"]
    for part, other in ((own.support, there.support), (own.query, there.query)):
        np.testing.assert_allclose(other.x, part.x + 4.0, atol=1e-5)
        np.testing.assert_allclose(other.y, part.y, atol=2e-2)  # rounding, in the root of a matrix
    beyond = each["beyond rows"]
    np.testing.assert_array_equal(beyond.support.x, own.support.x)
    assert beyond.query.x.min() > 2 and own.support.x.max() < 2
    for name, size in (("row off", 0.5), ("row far off", 5 * data.SD)):
        gap = np.asarray(each[name].support.y - own.support.y)[..., 0]
        assert (np.abs(gap) > 0).sum(1).tolist() == [1] * 20
        np.testing.assert_allclose(np.abs(gap).max(1), size, atol=1e-5)
        assert (gap[:, data.SHOWN :] == 0).all() and 0 < (gap > 0).sum() < 20
        np.testing.assert_array_equal(each[name].query.y, own.query.y)
    assert each[f"{data.MOST} rows"].support.mask.all()


def test_a_share_of_the_training_tasks_has_a_moved_row():
    clean, some = data.tasks_of_training(0.0), data.tasks_of_training(0.5)
    assert clean.support == data.SHOWN and some.process.support == data.SHOWN
    keys = jax.random.split(jax.random.key(0), 200)
    y = jax.jit(jax.vmap(lambda k: some(k).support.y))(keys)
    before = jax.vmap(lambda k: clean(jax.random.split(k, 4)[0]).support.y)(keys)
    gap = np.abs(np.asarray(y - before)).max((1, 2))
    assert 0.4 < (gap > 0.1).mean() < 0.6  # three standard errors of a half
    sizes = {round(float(g), 2) for g in gap if g > 0.1}
    assert sizes == {0.5, round(5 * data.SD, 2)}


def test_labels_are_the_same_but_for_the_wrong_ones():
    own, wrong = (judge.held_out(name, 200) for name in judge.label_settings())
    np.testing.assert_array_equal(own.query.y, wrong.query.y)
    np.testing.assert_array_equal(own.support.x, wrong.support.x)
    share = np.mean(np.asarray(own.support.y != wrong.support.y))
    assert share == pytest.approx(labels.WRONG_LABELS, abs=3 * (0.05 * 0.95 / 2000) ** 0.5)


@pytest.mark.slow
def test_the_answer_that_knows_of_wrong_labels_is_bayes_rule():
    """Over all patterns of wrong labels: the answers without any, weighed by their evidence."""
    clean, some = labels.labelled(), labels.labelled(0.2)
    x, y = jnp.asarray([[-1.0], [0.5], [2.0]]), jnp.asarray([1.0, 0.0, 1.0])
    new, key = Data.of([[0.0]], [1.0]), jax.random.key(0)
    weight, p = [], []
    for pattern in range(8):
        wrong = jnp.asarray([pattern >> i & 1 for i in range(3)])
        data_ = Data.of(x, jnp.where(wrong == 1, 1 - y, y))
        nothing = clean.exact(data_.first(0))
        density = nothing.joint_log_prob(data_, key=key, samples=1)
        weight.append(
            float(jnp.exp(density)) * 0.2 ** int(wrong.sum()) * 0.8 ** int(3 - wrong.sum())
        )
        p.append(float(clean.exact(data_).predict(new.x, key=key, samples=1).mean()[0, 1]))
    wanted = np.dot(weight, p) / np.sum(weight)
    found = some.exact(Data.of(x, y))
    assert found.predict(new.x, key=key, samples=1).mean()[0, 1] == pytest.approx(wanted, abs=1e-4)
    joint = found.joint_log_prob(new, key=key, samples=1)
    assert float(joint) == pytest.approx(np.log(wanted), abs=1e-4)


@pytest.fixture(scope="module")
def references():
    return {name: judge.run(name, 0, OPTIONS, None, quiet) for name in judge.REFERENCES}


@pytest.mark.slow
def test_references_are_right_and_wrong_where_they_should_be(references):
    """Exact bands hold nine tenths everywhere; the trained prior's do where only x is other."""
    assert not any(out.note for out in references.values())
    value = {
        (n, f.setting, f.metric): (f.value, f.error)
        for n, o in references.items()
        for f in o.figures
    }
    for setting in data.settings():
        held, error = value[judge.EXACT, setting, "coverage90"]
        assert abs(held - 0.9) < 4 * error and value[judge.EXACT, setting, "gap"][0] == 0.0
        gap, error = value[judge.WRONG, setting, "gap"]
        same = setting in (
            data.UNSHIFTED,
            "other x",
            "beyond rows",
            f"{data.MOST} rows",
        )
        assert abs(gap) < 1e-3 if same else gap > 3 * error
        assert value[judge.PRIOR, setting, "gap"][0] > -1e-3
    gap, error = value[judge.WRONG, "wrong labels", "gap"]
    assert gap > 2 * error and value[judge.WRONG, labels.LABELS, "gap"][0] == 0.0
    assert value[judge.WRONG, "periodic", "gap"][0] > 3
    # A row that lies far off is found and put back; one that lies a little off costs something.
    assert abs(value[judge.EXACT, "row far off", "lost"][0]) < 0.02
    assert 0.05 < value[judge.EXACT, "row off", "lost"][0] < 0.3
    assert value[judge.PRIOR, "row far off", "lost"][0] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_figures_follow_from_the_predictions(references):
    outcome = references[judge.WRONG]
    columns = outcome.predictions
    here = {name: columns["setting"] == name for name in judge.every_setting()}
    gap = {n: (columns["nll"] - columns["exact_nll"])[pick].mean() for n, pick in here.items()}
    for name, pick in here.items():
        assert by(outcome, name, "gap") == pytest.approx(gap[name], abs=1e-6)
        if name in labels.label_settings():
            continue
        inside = (columns["pit"][pick] >= 0.05) & (columns["pit"][pick] <= 0.95)
        assert by(outcome, name, "coverage90") == pytest.approx(inside.mean())
        error = columns["mean"][pick] - columns["y"][pick]
        spread = np.sqrt(columns["variance"][pick].mean() / (error**2).mean())
        assert by(outcome, name, "spread") == pytest.approx(spread)
        if name != data.UNSHIFTED:
            more = gap[name] - gap[data.UNSHIFTED]
            assert by(outcome, name, "added") == pytest.approx(more, abs=1e-5)
    for name, base in (("row far off", data.UNSHIFTED), ("wrong labels", labels.LABELS)):
        lost = columns["nll"][here[name]] - columns["nll"][here[base]]
        assert by(outcome, name, "lost") == pytest.approx(lost.mean(), abs=1e-5)


def test_a_head_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="shift has the heads student_t, gaussian; got 'flow'"):
        judge.run("dkt", 0, OPTIONS | {"head": "flow"}, None, quiet)


@pytest.mark.slow
def test_a_method_is_judged_and_drawn(references):
    """convcnp does not see where x is: moved tasks cost nothing, before any training too."""
    protocol = get("shift")
    out = protocol.run("convcnp", 0, OPTIONS | {"seen": 0.5}, None, quiet)
    assert {f.metric for f in out.figures} == set(protocol.metrics)
    assert by(out, "other x", "added") == pytest.approx(0.0, abs=1e-3)
    assert out.note == "convcnp does not predict labels"
    assert not any(f.setting in judge.label_settings() for f in out.figures)
    cells = [Drawn(n, 0, o.figures, o.drawing) for n, o in references.items()]
    assert len(protocol.draw(cells, OPTIONS, None)) == 1 and protocol.sentence(cells) == ""
    cells.append(Drawn("convcnp", 0, out.figures, out.drawing))
    pictures = protocol.draw(cells, OPTIONS, None)
    assert len(pictures) == 2 and all(p.svg.startswith("<svg") for p in pictures)
    assert sum(len(p.svg) for p in pictures) < 4e5
    assert protocol.sentence(cells).startswith("convcnp: ")
