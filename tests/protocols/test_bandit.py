"""The wheel bandit: its closed forms, its exact posterior, and the loop that plays it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw
from outcomes import quiet

from metaprior.protocols.bandit import PROTOCOL, judge
from metaprior.protocols.protocol import Drawn
from metaprior.sources.wheel import ARMS, Wheel, actions, contexts, rewards, uniform_regret
from metaprior.task import Data

OPTIONS = {
    "steps": {"": 2},
    "batch": 2,
    "horizon": 200,
    "repeats": 2,
    "refresh": 20,
    "late": 100,
    "draws": {"": 4},
    "memory": {"": 32},
}


def test_uniform_regret_in_closed_form():
    published = {0.5: 29.41, 0.7: 20.05, 0.9: 7.57, 0.95: 3.9625, 0.99: 0.9361, 0.995: 0.549}
    for delta, value in published.items():
        assert abs(uniform_regret(delta) - value) < 5e-4 * max(value, 10)
    for delta in (0.5, 0.95):
        mean = rewards(contexts(jax.random.key(0), 100_000), delta)
        regret = np.asarray(mean.max(1) - mean.mean(1))
        assert abs(regret.mean() - uniform_regret(delta)) < 4 * regret.std() / 100_000**0.5


def test_rewards_of_each_quadrant_inside_and_outside():
    out = jnp.asarray([[0.9, 0.3], [0.9, -0.3], [-0.9, 0.3], [-0.9, -0.3]])
    np.testing.assert_allclose(rewards(out, 0.5)[:, 0], 1.2)
    np.testing.assert_allclose(rewards(out, 0.5)[:, 1:], 1.0 + 49.0 * np.eye(4))
    np.testing.assert_allclose(rewards(out, 0.99), np.tile([1.2, 1, 1, 1, 1], (4, 1)), rtol=1e-6)


@pytest.mark.slow
def test_tasks_show_one_arm_a_context_and_ask_for_all():
    task = jax.jit(Wheel(support=300, every_size=False))(jax.random.key(0))
    delta = Wheel().radius(jax.random.key(0))
    for data in (task.support, task.query):
        arm = jnp.argmax(data.x[:, 2:], axis=1)
        mean = jnp.take_along_axis(rewards(data.x[:, :2], delta), arm[:, None], axis=1)
        np.testing.assert_allclose(
            jnp.exp(data.y), mean, atol=5 * 0.01
        )  # five standard deviations of the noise
    assert np.bincount(np.asarray(jnp.argmax(task.support.x[:, 2:], 1)), minlength=ARMS).min() > 30
    counts = jax.jit(jax.vmap(lambda k: Wheel(support=100)(k).support.count))(
        jax.random.split(jax.random.key(1), 400)
    )
    assert int(counts.min()) == 0 and int(counts.max()) > 90 and 5 < float(jnp.median(counts)) < 16


def test_exact_posterior_lies_between_what_is_known_inside_and_outside():
    context = jnp.asarray([[0.3, 0.1], [-0.5, 0.6], [0.9, -0.1], [0.95, 0.1]])
    x = actions(context).reshape(4, ARMS, -1)
    # inside by its own arm; an arm that tells nothing; outside by its own arm; the sure arm, which
    # tells nothing
    arm = jnp.asarray([1, 4, 2, 0])
    support = Data.of(x[jnp.arange(4), arm], jnp.log(jnp.asarray([1.0, 1.0, 50.0, 1.2])))
    posterior = Wheel().exact(support)
    draws = draw(posterior.draw, jax.random.key(0), 2000)
    low, high = 0.1**0.5, 0.82**0.5
    assert abs(float(draws.min()) - low) < 5e-3 and abs(float(draws.max()) - high) < 5e-3
    assert abs(float(draws.mean()) - (low + high) / 2) < 4 * (high - low) / 12**0.5 / 2000**0.5


@pytest.mark.slow
def test_memory_keeps_the_rare_arms():
    arm = jnp.concatenate([jnp.zeros(900, int), jnp.ones(60, int), jnp.full(40, 2)])
    rows = Data(
        jnp.concatenate([jnp.zeros((1000, 2)), jnp.eye(ARMS)[arm]], 1),
        jnp.arange(1000.0)[:, None],
        jnp.arange(1000) < 990,
    )
    kept = judge.remember(rows, 150, key=jax.random.key(0))
    count = np.bincount(np.asarray(jnp.argmax(kept.x[:, 2:], 1)), minlength=3)
    assert bool(kept.mask.all()) and len(set(kept.y[:, 0].tolist())) == 150 and kept.y.max() < 990
    assert (
        count[1] >= 40 and count[2] >= 25 and 50 <= count[0] <= 80
    )  # shares of 150: 60, 30 rows there are, 60
    few = Data(rows.x, rows.y, jnp.arange(1000) < 5)
    kept = judge.remember(few, 150, key=jax.random.key(0))
    assert int(kept.count) == 5 and set(kept.y[kept.mask][:, 0].tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.slow
def test_uniform_loses_a_hundred_and_the_exact_posterior_little():
    options = OPTIONS | {"horizon": 2000, "repeats": 8, "late": 500}
    found = {}
    for method in ("uniform", "thompson"):
        out = judge.run(method, 0, options, None, quiet)
        found[method] = {(f.setting, f.metric): f for f in out.figures}
        rows = out.predictions
        mine = (rows["setting"] == "δ = 0.95") & (rows["task"] == 0)
        assert rows["step"][mine].tolist() == list(range(20, 2001, 20))
        every = rows["setting"] == "δ = 0.95"
        each = [100 * rows["regret"][every & (rows["task"] == t)].sum() for t in range(8)]
        base = [rows["uniform_regret"][every & (rows["task"] == t)].sum() for t in range(8)]
        again = np.mean([a / b for a, b in zip(each, base)])
        np.testing.assert_allclose(again, found[method]["δ = 0.95", "cumulative"].value, rtol=1e-4)
    for delta in judge.DELTAS:
        one = found["uniform"][judge.setting(delta), "cumulative"]
        assert abs(one.value - 100) < 4 * one.error + 0.5
    # with the exact posterior: about 1 % up to δ = 0.9, 3 % at 0.95 (8 runs, refreshed every 20
    # steps)
    assert found["thompson"]["δ = 0.5", "cumulative"].value < 3
    assert found["thompson"]["δ = 0.95", "cumulative"].value < 6


@pytest.mark.slow
def test_protocol_runs_and_draws():
    cells = []
    for method in ("uniform", "maml"):
        out = judge.run(method, 0, OPTIONS, None, quiet)
        cells.append(Drawn(method, 0, out.figures, out.drawing))
        assert len({len(v) for v in out.predictions.values()}) == 1
    assert "<svg" in PROTOCOL.draw(cells, OPTIONS, None)[0].svg
    assert "maml" in PROTOCOL.sentence(cells)
    sure = [a.value for a in PROTOCOL.anchors if a.name == "always the sure arm"]
    np.testing.assert_allclose(sure, [124.45, 124.1, 122.5, 120.1, 103.7], atol=0.06)
