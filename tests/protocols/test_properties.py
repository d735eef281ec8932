"""The properties' protocol: labels with an exact posterior, and figures that follow from the
predictions.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from outcomes import quiet
from scipy import stats

from metaprior.protocols.properties import PROTOCOL, judge, ranges
from metaprior.protocols.protocol import Drawn
from metaprior.sources import SineLine
from metaprior.sources.labelled import Labelled

OPTIONS = {"steps": {"": 2, "classes": 2}, "batch": 2, "samples": 4, "tasks": {"": 3, "classes": 2}}


@pytest.fixture
def small(monkeypatch):
    """Fewer rows, one range: what is compiled and summed is small."""
    monkeypatch.setattr(ranges, "SHOTS", (5, 10, 50))
    monkeypatch.setattr(ranges, "GROWTH", (10, 50))
    monkeypatch.setattr(ranges, "RANGES", {"inside": {}})
    judge.exact.cache_clear()
    yield
    judge.exact.cache_clear()


@pytest.mark.slow
def test_posterior_of_labels_agrees_with_importance_sampling():
    source = Labelled(SineLine(support=4, query=6))
    task = jax.jit(source)(jax.random.key(3))
    assert set(np.unique(task.support.y)) <= {0.0, 1.0}
    rng, n = np.random.default_rng(0), 50_000
    amplitude, phase = rng.uniform(0.1, 5, (n, 1)), rng.uniform(0, np.pi, (n, 1))
    slope, intercept = rng.uniform(-3, 3, (2, n, 1))
    x = np.concatenate([task.support.x, task.query.x])[:, 0].astype(float)
    f = np.concatenate([amplitude * np.sin(x - phase), slope * x + intercept]) / 0.3
    sign = 2 * np.asarray(task.support.y)[:, 0] - 1
    weight = np.exp(stats.norm.logcdf(f[:, :4] * sign).sum(1))
    weight = weight / weight.sum()
    p, size = weight @ stats.norm.cdf(f[:, 4:]), 1 / (weight**2).sum()

    @jax.jit
    def exact(task):
        posterior = source.exact(task.support)
        mean = posterior.predict(task.query.x, key=None, samples=1).mean()[:, 1]
        draws = posterior.sample(task.query.x, key=jax.random.key(0), samples=2000).mean()[:, 1]
        return mean, draws, posterior.joint_log_prob(task.query, key=None, samples=1)

    mean, draws, log_p = exact(task)
    assert np.abs(np.asarray(mean) - p).max() < 4 * 0.5 / size**0.5 + 2e-3  # samples, grid
    own = np.asarray(task.query.y)[:, 0] > 0.5
    joint = np.log(
        weight @ np.prod(np.where(own, stats.norm.cdf(f[:, 4:]), stats.norm.cdf(-f[:, 4:])), axis=1)
    )
    assert abs(float(log_p) - joint) < 0.05
    assert np.abs(np.asarray(draws) - p).max() < 4 * 0.5 / 2000**0.5 + 5e-3


@pytest.mark.slow
def test_truth_is_the_function_without_noise():
    task, truth = ranges.tasks("inside", False, 10, 50)
    noise = task.query.y[..., 0] - truth
    assert abs(float(noise.std()) - 0.3) < 4 * 0.3 / (2 * noise.size) ** 0.5
    labelled, p = ranges.tasks("inside", True, 10, 200)
    assert abs(float((labelled.query.y[..., 0] - p).mean())) < 4 * 0.5 / p.size**0.5
    few, _ = ranges.tasks("inside", False, 5, 50)
    np.testing.assert_array_equal(few.support.x, task.support.x)  # the same tasks with fewer rows
    assert int(few.support.count.max()) == 5


def test_figures_of_known_rows():
    count, n = 40, 20
    rng = np.random.default_rng(0)
    truth = {K: rng.normal(size=(count, n)) for K in ranges.SHOTS}
    noise = {K: 0.3 * rng.normal(size=(count, n)) for K in ranges.SHOTS}

    def rows(error):
        """Means that are off by `error(K)`, and a spread that knows it."""
        out = {}
        for K in ranges.SHOTS:
            std = np.sqrt(0.3**2 + error(K) ** 2)
            mean = truth[K] + error(K) * rng.normal(size=(count, n))
            y = truth[K] + noise[K]
            out[K] = {
                "truth": truth[K],
                "y": y,
                "mean": mean,
                "variance": np.full((count, n), std**2),
                "nll": -stats.norm.logpdf(y, mean, std),
                "pit": stats.norm.cdf(y, mean, std),
            }
        return out

    found, true = rows(lambda K: K**-0.5), rows(lambda K: 0.0)
    prior = {K: {"mean": np.zeros((count, n))} for K in ranges.SHOTS}
    figures = {
        (f.setting, f.metric): f for f in judge.measure(found, true, prior, "inside", "inside")
    }
    assert abs(figures["inside", "slope"].value + 0.5) < 0.05
    assert abs(figures["inside", "ratio"].value - 20**-0.5) < 0.02
    assert abs(figures["inside", "spread"].value - 1) < 0.05
    assert abs(figures["inside", "coverage90"].value - 0.9) < 0.02
    # squared distance 1/5 and 1/10 of the optimal mean, whose own square is 1
    assert abs(figures["inside", "expressive"].value - (1 - 0.15)) < 0.02
    assert figures["inside", "gap"].value > 0.1
    assert abs(figures["inside: K = 50", "rmse"].value - 50**-0.5) < 0.01


@pytest.mark.slow
def test_protocol_runs_numbers_and_classes(small):
    cells = []
    for method in ("exact", "maml", "exact_classes", "protonet"):
        out = judge.run(method, 0, OPTIONS, None, quiet)
        cells.append(Drawn(method, 0, out.figures, out.drawing))
        rows, classes = out.predictions, method in ("exact_classes", "protonet")
        label = "inside (classes): K = 5" if classes else "inside: K = 5"
        mine = rows["setting"] == label
        value = {(f.setting, f.metric): f.value for f in out.figures}
        np.testing.assert_allclose(rows["nll"][mine].mean(), value[label, "nll"], rtol=1e-5)
        square = ((rows["mean"] - rows["truth"])[mine] ** 2).reshape(-1, 20).mean(1)
        error = np.median(np.sqrt(square))
        np.testing.assert_allclose(error, value[label, "rmse"], rtol=1e-5)
        if method.startswith("exact"):
            assert value[label, "gap"] == 0 and value[label.split(":")[0], "expressive"] == 1
    pictures = PROTOCOL.draw(cells, OPTIONS, None)
    assert len(pictures) == 4 and all("<svg" in p.svg for p in pictures)


@pytest.mark.slow
def test_stack_mixes_its_members(small, monkeypatch):
    from metaprior.heads import Gaussian
    from metaprior.method import Spec

    monkeypatch.setattr(judge, "MIXED", ("cnp", "maml"))
    source = ranges.source_of("inside", False, 20, fewest=1)
    stack, facts = judge.stacked(Spec(1, Gaussian(1)), source, 0, 2, quiet, batch=2)
    task, _ = ranges.tasks("inside", False, 5, 1)
    one = jax.tree.map(lambda a: a[0], task)
    posterior = stack.posterior(one.support, key=jax.random.key(0))
    mean = posterior.predict(one.query.x, key=jax.random.key(0), samples=2).mean()
    assert bool(jnp.isfinite(mean).all()) and facts["members"] == ["cnp", "maml"]


def test_every_row_of_the_table_can_run():
    from metaprior.methods import METHODS

    assert set(PROTOCOL.able) == set(METHODS)
