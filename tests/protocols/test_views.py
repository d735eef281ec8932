"""Drawing unseen views: tasks, splits, likelihoods and similarities against truth, bad data."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl
import pytest
from scipy.stats import multivariate_normal
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from metaprior.errors import InputError
from metaprior.heads import Gaussian
from metaprior.method import Spec
from metaprior.methods import NP
from metaprior.protocols import get
from metaprior.protocols.ambiguous_generation import data as generation
from metaprior.protocols.ambiguous_generation import judge
from metaprior.protocols.ambiguous_generation.controls import CVAE, average, ssim, weights
from metaprior.protocols.ambiguous_generation.smoothers import (
    COUNTS,
    MEAN,
    NEAREST,
    PENALTIES,
    RIDGE,
    Nowhere,
    Smoother,
    smoother,
)
from metaprior.protocols.files import column
from metaprior.protocols.protocol import Drawn
from metaprior.sources.views import ObjectViews
from metaprior.task import Data, Task


def objects(count: int = 14, sides: int = 6, seed: int = 0):
    """Noise that has nothing in common between objects."""
    views = np.random.default_rng(seed).integers(0, 256, (count, sides, 32, 32, 1), np.uint8)
    return views, 360.0 * np.arange(sides) / sides, tuple(f"object {i}" for i in range(count))


def evidence(learner, task, key, samples):
    """The lower bound on log p(query | support), nats."""
    return average(weights(learner, task, key, samples)).sum()


def test_tasks_hold_one_object_from_different_sides():
    views, azimuth, _ = objects()
    source = ObjectViews.of(views[..., 0], azimuth, query=3)
    tasks = jax.jit(jax.vmap(source))(jr.split(jr.key(0), 30))
    flat = views.reshape(14, 6, -1) / 255.0
    for task in range(30):
        both = np.concatenate([tasks.support.y[task], tasks.query.y[task]])
        x = np.concatenate([tasks.support.x[task], tasks.query.x[task]])
        item, side = np.nonzero((np.abs(flat[:, :, None] - both[None, None]) < 1e-6).all(-1).any(2))
        assert len(set(item)) == 1 and len(side) == 4
        angle = np.rad2deg(np.arctan2(x[:, 0], x[:, 4])) % 360
        assert np.allclose(np.sort(angle), azimuth[np.sort(side)], atol=1e-3)
        assert np.allclose(x[:, 1], np.sin(2 * np.deg2rad(angle)), atol=1e-4)


def test_mirror_images_turn_pixels_and_angles():
    views, azimuth, _ = objects(1)
    source = ObjectViews.of(views[..., 0], azimuth)
    plain, turned = (source.rows(jnp.asarray(0), jnp.arange(6), turn) for turn in (False, True))
    assert np.allclose(turned.y.reshape(6, 32, 32), plain.y.reshape(6, 32, 32)[:, :, ::-1])
    assert np.allclose(turned.x[:, :4], -plain.x[:, :4]) and np.allclose(
        turned.x[:, 4:], plain.x[:, 4:]
    )


def test_a_judged_task_asks_all_other_sides_in_order():
    views, azimuth, _ = objects()
    task = ObjectViews.of(views[..., 0], azimuth).task(jnp.asarray(3), jnp.asarray(4))
    assert np.allclose(task.support.y[0] * 255, views[3, 4].ravel(), atol=1e-3)
    assert np.allclose(task.query.y * 255, views[3, [5, 0, 1, 2, 3]].reshape(5, -1), atol=1e-3)


def brute_ssim(a, b):
    """Window by window, from the paper's words."""
    at = np.arange(11) - 5
    weight = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    found = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mp, mq = (weight * p).sum(), (weight * q).sum()
            vp, vq = (weight * (p - mp) ** 2).sum(), (weight * (q - mq) ** 2).sum()
            cov = (weight * (p - mp) * (q - mq)).sum()
            top = (2 * mp * mq + 1e-4) * (2 * cov + 9e-4)
            found.append(top / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return np.mean(found)


def test_ssim_is_that_of_the_paper(x64):
    rng = np.random.default_rng(0)
    a = rng.uniform(size=(16, 20))
    for b in (a, 1 - a, 0.5 * a + 0.2, rng.uniform(size=(16, 20))):
        assert float(ssim(jnp.asarray(a), jnp.asarray(b))) == pytest.approx(
            brute_ssim(a, b), abs=1e-10
        )


def linear(seed: int = 0) -> tuple[NP, Task]:
    """A neural process whose decoder is y = b + A z + noise, so that p(query | support) is known
    exactly.
    """
    spec = Spec(2, Gaussian(3, scale=0.5))
    method = NP.init(
        spec, key=jr.key(seed), width=8, depth=0, latent=2, encoder="deep set", objective="elbo"
    )
    keys = jr.split(jr.key(seed + 1), 4)
    support = Data.of(jr.normal(keys[0], (1, 2)), jr.normal(keys[1], (1, 3)))
    return method, Task(support, Data.of(jr.normal(keys[2], (2, 2)), jr.normal(keys[3], (2, 3))))


@pytest.mark.slow
def test_importance_weighting_gives_the_exact_likelihood_of_a_linear_model(x64):
    """p(query | support) is normal where the decoder is linear in z: 20,000 draws agree within 0.02
    nats.
    """
    method, task = linear()
    prior = method.q(task.support)

    def flat(z):
        return method.raw(task.support, task.query.x, z).ravel()

    slope, offset = jax.jacobian(flat)(jnp.zeros(2)), flat(jnp.zeros(2))
    assert np.allclose(flat(jnp.ones(2)), offset + slope.sum(1))  # it is linear
    mean = offset + slope @ prior[:, 0]
    cov = slope @ jnp.diag(prior[:, 1] ** 2) @ slope.T + 0.25 * jnp.eye(6)
    exact = multivariate_normal(mean, cov).logpdf(np.asarray(task.query.y).ravel())
    bound = jax.jit(lambda k: evidence(method, task, k, 20_000))(jr.key(5))
    assert float(bound) == pytest.approx(exact, abs=0.02)


@pytest.mark.slow
def test_the_control_with_a_latent_a_view_has_independent_views(x64):
    """Its evidence of two views is the sum of those of each, and agrees with plain draws from the
    prior.
    """
    spec = Spec(2, Gaussian(3, scale=0.5))
    method = CVAE.init(spec, key=jr.key(0), width=8, depth=1, latent=2)
    _, task = linear()

    def cut(i):
        return Task(
            task.support,
            Data(task.query.x[i : i + 1], task.query.y[i : i + 1], task.query.mask[:1]),
        )

    def bound(t):
        return float(jax.jit(lambda k: evidence(method, t, k, 100_000))(jr.key(3)))

    assert bound(task) == pytest.approx(bound(cut(0)) + bound(cut(1)), abs=0.05)
    mixture = method.posterior(task.support, key=jr.key(1)).sample(
        task.query.x, key=jr.key(2), samples=4000
    )
    assert float(mixture.log_prob(task.query.y)[0]) == pytest.approx(bound(cut(0)), abs=0.1)


def test_learners_without_a_proposal_have_no_bound():
    _, task = linear()
    parts = jnp.zeros(1), jnp.zeros((1, 3)), jnp.zeros((2, 1, 3))
    mean = Smoother(*parts, Nowhere(2), Gaussian(3, scale=1.0))
    assert weights(mean, task, jr.key(0), 4) is None


@pytest.mark.parametrize(
    "name, numbers, model",
    [
        (MEAN, [0.0], lambda n, unit: DummyRegressor()),
        (NEAREST, COUNTS, lambda n, unit: KNeighborsRegressor(n)),
        (RIDGE, PENALTIES, lambda n, unit: Ridge(alpha=n * unit)),
    ],
)
def test_free_controls_are_those_of_scikit_learn(name, numbers, model):
    """Each side of validation objects shown, all other views predicted; the number with the least
    squared error is taken, and its error is the variance of a pixel.
    """
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 4 * 9)) + rng.normal(size=(60, 36))
    views = np.clip(128 + 20 * shape, 0, 255).astype(np.uint8).reshape(60, 4, 3, 3)
    rows = np.arange(45), np.arange(45, 55), np.arange(55, 60)
    data = generation.Objects(views, np.array([0.0, 90, 180, 270]), ("",) * 60, *rows, "")
    made, chosen = smoother(name, data)

    pixels = views.reshape(60, 4, 9) / 255.0
    train, held = pixels[:45], pixels[45:55]
    unit = 45 * ((train - train.mean(0)) ** 2).mean()

    def predicted(number, side, shown):
        fitted = model(number, unit).fit(train[:, side], train.reshape(45, -1))
        return fitted.predict(shown[:, side]).reshape(len(shown), 4, 9)

    errors = {}
    for number in (n for n in numbers if name != NEAREST or n <= 45):
        gaps = [(predicted(number, s, held) - held)[:, np.arange(4) != s] for s in range(4)]
        errors[number] = np.mean(np.square(gaps))
    assert chosen == min(errors, key=errors.get)
    assert float(made.head.scale) ** 2 == pytest.approx(min(errors.values()), rel=1e-4)

    task = ObjectViews.of(views, data.azimuth).task(jnp.asarray(57), jnp.asarray(2))
    said = made.posterior(task.support, key=None).predict(task.query.x, key=None, samples=1)
    wanted = predicted(chosen, 2, pixels[57:58])[0, [3, 0, 1]]
    np.testing.assert_allclose(said.mean(), wanted, atol=1e-5)


def test_objects_of_one_name_or_look_stay_together():
    views, azimuth, names = objects(20)
    views[7] = views[3]
    names = (*names[:19], "object 5")
    data = generation.split(views, azimuth, names, "here")
    assert "20 models in 18 groups" in data.remark
    parts = [set(part.tolist()) for part in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == 20 == len(set.union(*parts))
    for pair in ({3, 7}, {5, 19}):
        assert any(pair <= part for part in parts)
    assert data.of_seed(0) is data
    found = [data.of_seed(seed) for seed in (1, 1, 2)]
    assert (found[0].test == found[1].test).all() and found[0].test.tolist() != data.test.tolist()
    for other in found:
        parts = [set(part.tolist()) for part in (other.train, other.validation, other.test)]
        assert sum(map(len, parts)) == 20 == len(set.union(*parts))
        assert all(any(pair <= part for part in parts) for pair in ({3, 7}, {5, 19}))


def test_what_was_changed_stands_in_the_report():
    views, azimuth, names = objects(20, sides=12)
    data = generation.split(
        np.repeat(views, 3, 4), azimuth, names, "here", ["images were made smaller"]
    )
    options = {"pool": 2, "shown": 1, "steps": {"": 1}}
    outcome = judge.run(MEAN, 0, options, data, lambda done, what: None)
    assert outcome.note == data.remark
    assert outcome.note.startswith(
        "images were made smaller; colours were averaged to grey; 20 models in 20 groups"
    )


def test_bad_data_ends_in_a_message(tmp_path):
    with pytest.raises(
        InputError, match=r"ambiguous-generation needs views of objects: give --data"
    ):
        generation.load(None)
    with pytest.raises(InputError, match=r"here: holds 4 different objects; at least 10"):
        generation.split(*objects(4), "here")
    with pytest.raises(InputError, match="no such file"):
        generation.load(tmp_path / "nothing.npz")


@pytest.mark.slow
def test_a_cell_and_its_pictures(data):
    """The real models with hardly any training: figures follow from the predictions, and pictures
    are drawn.
    """
    protocol = get("ambiguous-generation")
    held = protocol.load(data)

    def keep(rows):
        return rows[:6]

    held = generation.dataclasses.replace(
        held, test=keep(held.test), validation=keep(held.validation)
    )
    options = protocol.budgets["quick"] | {"steps": {"": 3}, "batch": 4, "validation": 4}
    cells = []
    for method in (MEAN, RIDGE, "cnp", "np", judge.CONTROL):
        outcome = protocol.run(method, 0, options, held, lambda done, what: None)
        columns = outcome.predictions
        assert len({len(v) for v in columns.values()}) == 1 and len(columns["task"]) == 6 * 35
        value = {f.metric: f.value for f in outcome.figures}
        frame = pl.DataFrame({k: column(v) for k, v in columns.items()})
        log_p = np.array(frame["log_p"].to_list()).reshape(6, 35, -1)
        mixture = -(np.logaddexp.reduce(log_p.sum(1), 1) - np.log(log_p.shape[2])) / (35 * 256)
        marginal = -(np.logaddexp.reduce(log_p, 2) - np.log(log_p.shape[2])) / 256
        assert value["mixture"] == pytest.approx(mixture.mean(), abs=1e-4)
        assert value["marginal"] == pytest.approx(marginal.mean(), abs=1e-4)
        assert value["mse"] == pytest.approx(columns["mse"].mean(), abs=1e-6)
        mean, y = (np.array(frame[k].to_list()) for k in ("mean", "target"))
        y = y / 255
        assert value["mse"] == pytest.approx(((mean - y) ** 2).mean(), abs=1e-6)
        likeness = [
            brute_ssim(*(a[i].reshape(16, 16) for a in (mean.clip(0, 1), y)))
            for i in range(0, 210, 10)
        ]
        np.testing.assert_allclose(likeness, columns["ssim"][::10], atol=1e-5)
        assert value["ssim"] == pytest.approx(columns["ssim"].mean(), abs=1e-5)
        best = np.array(frame["draw_mse"].to_list()).reshape(6, 35, -1).mean(1).min(1)
        assert value["best"] == pytest.approx(best.mean(), abs=1e-6)
        weight = [
            np.logaddexp.reduce(v) - np.log(len(v))
            for v in frame["bound_log_p"].to_list()
            if v is not None
        ]
        assert len(weight) == (210 if method == judge.CONTROL else 6)
        assert value["joint"] == pytest.approx(-np.sum(weight) / (210 * 256), abs=1e-5)
        assert (value["side"] > 0) == (method in ("np", judge.CONTROL))
        drawing = {k: np.asarray(v) for k, v in outcome.drawing.items()}
        if method != judge.CONTROL:
            cells.append(Drawn(method, 0, outcome.figures, drawing))
    pictures = protocol.draw(cells, options, held)
    assert len(pictures) == 4 and all(
        p.svg.startswith("<svg") and len(p.svg) < 3e5 for p in pictures
    )
    assert protocol.sentence is not None
    said = protocol.sentence(cells)
    assert said.startswith("np: mean squared error")
    assert said.endswith("In likelihood cnp, np lose to “ridge”.")
