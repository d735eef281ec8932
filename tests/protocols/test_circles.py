"""Circles: their exact posterior against samples of the process, and the protocol on them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from outcomes import quiet

from metaprior.protocols.ambiguous_classification import PROTOCOL, judge
from metaprior.protocols.files import column
from metaprior.protocols.protocol import Drawn
from metaprior.sources.circles import Circles, quarter
from metaprior.task import Data

SOURCE = Circles(support=5, query=12)


def shown(key, shots: int):
    """A task, and its support with the first rows alone."""
    task = jax.jit(SOURCE)(jax.random.key(key))
    return task, eqx.tree_at(lambda d: d.mask, task.support, jnp.arange(5) < shots)


@jax.jit
def exact(support, query):
    """Probabilities of label 1, exact and from 4000 draws, log probabilities of single labels and
    of all of them.
    """
    posterior = SOURCE.exact(support)
    mixture = posterior.predict(query.x, key=None, samples=1)
    draws = posterior.sample(query.x, key=jax.random.key(0), samples=4000)
    joint = posterior.joint_log_prob(query, key=None, samples=1)
    return mixture.mean()[:, 1], draws.mean()[:, 1], mixture.log_prob(query.y), joint


def area(center, radius, strips: int = 100):
    """Of the part of a disc in the box, by strips."""
    total = np.zeros(len(radius))
    for u in (np.arange(strips) + 0.5) / strips:
        off = radius * (2 * u - 1)
        half = np.sqrt(radius**2 - off**2)
        x = center[:, 0] + off
        height = np.clip(center[:, 1] + half, 0, 5) - np.clip(center[:, 1] - half, 0, 5)
        total += height * ((x >= 0) & (x <= 5))
    return total * 2 * radius / strips


def importance(support, query, shots: int, draws: int = 400_000):
    """p(label 1) of every query row, and log p(all labels), by weighing draws of the prior near the
    first point.
    """
    rng = np.random.default_rng(0)
    points, x = np.asarray(support.x, float)[:shots], np.asarray(query.x, float)
    center, radius = rng.uniform(0, 5, (draws, 2)), rng.uniform(0.1, 2, draws)
    inside = (((center[:, None] - points[None]) ** 2).sum(-1) <= radius[:, None] ** 2).all(1)
    center, radius = center[inside], radius[inside]
    weight = area(center, radius) ** -float(shots)
    weight = weight / weight.sum()
    inside = ((center[:, None] - x[None]) ** 2).sum(-1) <= radius[:, None] ** 2
    y = np.asarray(query.y)[:, 0] > 0.5
    joint = np.log(weight @ np.prod(np.where(inside == y, 0.99, 0.01), axis=1))
    return 0.01 + 0.98 * weight @ inside, joint, 1 / (weight**2).sum()


@pytest.mark.slow
@pytest.mark.parametrize(("key", "shots"), [(1, 1), (2, 2), (3, 5)])
def test_posterior_agrees_with_importance_sampling(key, shots):
    task, support = shown(key, shots)
    p, joint, size = importance(support, task.query, shots)
    found, draws, _, log_p = exact(support, task.query)
    bound = (
        4 * 0.5 / size**0.5 + 2e-3
    )  # four standard errors of the samples, and the width of the grid
    assert np.abs(np.asarray(found) - p).max() < bound
    assert abs(float(log_p) - joint) < 12 * 0.004 + 4 / size**0.5  # nats, twelve rows
    assert np.abs(np.asarray(draws) - p).max() < 4 * 0.5 / 4000**0.5 + bound


def test_quarter_of_a_disc_in_a_rectangle():
    rng = np.random.default_rng(0)
    points, r = rng.uniform(0, 1, (400_000, 2)), jnp.asarray([1.0])
    for h, w in [(1.0, 1.0), (0.3, 0.4), (0.9, 0.7), (1.0, 0.2), (0.0, 1.0)]:
        inside = ((points**2).sum(1) <= 1) & (points[:, 0] <= w) & (points[:, 1] <= h)
        found = quarter(jnp.asarray([[h]]), jnp.asarray([[w]]), r)[0, 0, 0]
        assert abs(float(found) - inside.mean()) < 4 * 0.5 / 400_000**0.5


@pytest.mark.slow
def test_posterior_of_one_label_is_the_marginal_one_and_padding_counts_for_nothing():
    task, support = shown(4, 2)
    p, _, each, _ = exact(support, task.query)
    one = eqx.tree_at(lambda d: d.mask, task.query, jnp.arange(12) == 3)
    np.testing.assert_allclose(exact(support, one)[3], each[3], atol=1e-4)
    moved = eqx.tree_at(lambda d: d.x, support, support.x.at[2:].set(9.0))
    np.testing.assert_allclose(exact(moved, task.query)[0], p, atol=1e-5)


@pytest.mark.slow
def test_prior_is_the_share_of_the_box_inside():
    _, empty = shown(0, 0)
    x = jax.random.uniform(jax.random.key(1), (500, 2), maxval=5.0)
    found = exact(empty, Data.of(x))[0]
    keys = jax.random.split(jax.random.key(2), 4000)
    share = jax.jit(jax.vmap(lambda k: SOURCE(k).query.y.mean()))(keys)
    # four standard errors of the mean label, and of the mean over 500 places
    assert (
        abs(float(found.mean()) - float(share.mean()))
        < 4 * float(share.std()) / 4000**0.5 + 4 * 0.1 / 500**0.5
    )


def test_support_lies_inside_the_circle_and_the_box():
    keys = jax.random.split(jax.random.key(0), 500)
    task, (center, radius) = jax.jit(jax.vmap(lambda k: (SOURCE(k), SOURCE.circle(k))))(keys)
    far = jnp.sqrt(((task.support.x - center[:, None]) ** 2).sum(-1))
    assert bool((far <= radius[:, None] + 1e-5).all())
    assert bool(((task.support.x >= 0) & (task.support.x <= 5)).all())
    wrong = (((task.query.x - center[:, None]) ** 2).sum(-1) <= radius[:, None] ** 2) != (
        task.query.y[..., 0] > 0.5
    )
    assert abs(float(wrong.mean()) - 0.01) < 4 * (0.01 / 6000) ** 0.5


def again(out, exact: bool):
    """Every figure but the distances from another cell, from the columns of the file."""
    rows = {k: column(v) for k, v in out.predictions.items()}
    value = {(f.setting, f.metric): f.value for f in out.figures}
    frame = pl.DataFrame(rows)

    def log_mean(v):
        return np.logaddexp.reduce(np.asarray(v, float)) - np.log(len(v))

    for k in judge.SHOTS:
        mine = frame.filter(setting=f"K = {k}")
        first = mine.filter(row=0)
        nll = [-log_mean(v) for v in mine["log_p"].to_list()]
        joint = [-log_mean(v) / 20 for v in first["joint_log_p"].to_list()]
        iou = [
            np.max(np.divide(a, b))
            for a, b in zip(first["overlap"].to_list(), first["union"].to_list())
        ]
        hit = (mine["p"].to_numpy() > 0.5) == (mine["y"].to_numpy() > 0.5)
        want = {
            "nll": np.mean(nll),
            "joint": np.mean(joint),
            "best_iou": np.mean(iou),
            "accuracy": hit.mean(),
            "coverage": np.mean(np.array(iou) >= 0.5),
        }
        for name, number in want.items():
            assert value[f"K = {k}", name] == pytest.approx(number, abs=1e-5)
        n, share = len(first["union"][0]), np.array(first["share"].to_list())
        pairs = (2 * share * (1 - share)).mean(1) * n / max(n - 1, 1)
        np.testing.assert_allclose(first["disagreement"].to_numpy(), pairs, atol=1e-5)
        if exact:
            assert n == judge.SETS


@pytest.mark.slow
def test_protocol_runs_draws_and_its_figures_follow_from_the_predictions(monkeypatch):
    monkeypatch.setattr(judge, "SIDE", 12)
    options = {"steps": {"": 2}, "batch": 2, "tasks": 3, "samples": 3}
    cells = []
    for method in ("exact", "maml"):
        out = judge.run(method, 0, options, None, quiet)
        cells.append(Drawn(method, 0, out.figures, out.drawing))
        rows = out.predictions
        mine = rows["setting"] == "K = 2"
        nll = {f.setting: f.value for f in out.figures if f.metric == "nll"}
        np.testing.assert_allclose(rows["nll"][mine].mean(), nll["K = 2"], rtol=1e-5)
        p = np.where(rows["y"] > 0.5, rows["p"], 1 - rows["p"])
        np.testing.assert_allclose(-np.log(p), rows["nll"], atol=1e-3)
        again(out, method == "exact")
    exact = {(f.setting, f.metric): f.value for f in cells[0].figures}
    assert exact["K = 1", "gap"] == 0 and exact["K = 1", "spread"] == 1
    pictures = PROTOCOL.draw(cells, options, None)
    assert all("<svg" in p.svg for p in pictures) and "maml" in PROTOCOL.sentence(cells)
