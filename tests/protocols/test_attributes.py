"""Ambiguous faces: tasks say what they claim, scores equal a plain recount, bad data ends in a
message.
"""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from metaprior.errors import InputError
from metaprior.protocols import get
from metaprior.protocols.attributes import controls, features, judge
from metaprior.protocols.attributes import data as faces
from metaprior.protocols.protocol import Drawn
from metaprior.sources.attributes import PAIRS, SharedAttributes, split_triples, triples


def crowd(each: int = 60, columns: int = 4, seed: int = 0):
    """Images whose first pixels are their attributes, `each` of every combination."""
    values = np.array(list(itertools.product([False, True], repeat=columns)) * each)
    pixels = np.random.default_rng(seed).integers(0, 256, (len(values), 32, 32, 1), np.uint8)
    pixels[:, 0, :columns, 0] = 255 * values
    return pixels, values


@pytest.fixture(scope="module")
def small():
    pixels, values = crowd()
    return SharedAttributes.of(pixels, values, triples(values, 5, 10), 5, 10)


def test_every_signed_triple_is_found(small):
    assert small.columns.shape == (32, 3)
    assert (
        len({(*c, *s) for c, s in zip(small.columns.tolist(), map(tuple, small.signs.tolist()))})
        == 32
    )


def test_a_triple_needs_enough_images_of_every_kind():
    values = np.array(list(itertools.product([False, True], repeat=3)) * 9)
    assert len(triples(values, 9, 9)) == 8
    assert len(triples(values, 10, 1)) == 0  # nine images have all three
    assert len(triples(values, 9, 10)) == 0  # a pair has 18 images, nine of which may be shown


def test_episodes_are_what_they_claim(small):
    """Attributes are read off the pixels, so nothing of the source's own bookkeeping is trusted."""
    episodes = jax.jit(jax.vmap(small.episode))(jr.split(jr.key(0), 50))
    t = np.asarray(episodes.triple)
    columns, signs = np.asarray(small.columns)[t], np.asarray(small.signs)[t]

    def held(x):
        bits = np.asarray(x)[..., :4] > 0.5
        place = columns.reshape(len(t), *[1] * (bits.ndim - 2), 3)
        return np.take_along_axis(
            bits, np.broadcast_to(place, (*bits.shape[:-1], 3)), -1
        ) == signs.reshape(place.shape)

    support = held(episodes.support.x)
    y = np.asarray(episodes.support.y[..., 0]) > 0.5
    assert support[y].all() and not support[~y].any() and (y.sum(1) == 5).all()
    query = held(episodes.query.x)
    assert (query == np.asarray(episodes.held)).all()
    for i, pair in enumerate(PAIRS):
        assert (
            query[:, i][..., list(pair)].all(-1) == (np.asarray(episodes.query.y[:, i, :, 0]) > 0.5)
        ).all()
    assert (np.asarray(episodes.query.y).sum(2) == 10).all()
    for shown, asked in zip(np.asarray(episodes.shown), np.asarray(episodes.asked)):
        assert len(set(shown)) == 10
        assert all(len(set(some)) == 20 and not set(some) & set(shown) for some in asked)


def test_training_asks_each_pair_equally(small):
    """1,500 tasks: the share of each pair is 1/3 within four standard errors (0.049)."""
    tasks = jax.jit(jax.vmap(small))(jr.split(jr.key(1), 1500))
    bits = np.asarray(tasks.query.x[..., :4]) > 0.5
    both = [bits[i][np.asarray(tasks.query.y[i, :, 0]) > 0.5] for i in range(1500)]
    shared = np.array([(b.all(0) | ~b.any(0)).sum() for b in both])
    assert (shared >= 2).all() and (shared == 2).mean() > 0.95


def test_opposite_triples_stay_together():
    _, values = crowd()
    parts = split_triples(triples(values, 5, 10), 400, 0)
    assert parts is not None and [len(p) for p in parts] == [20, 4, 8]
    sets = [{(c, s) for c, s in part} for part in parts]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    for some in sets:
        assert {(c, tuple(not v for v in s)) for c, s in some} == some


def test_score_is_a_plain_recount():
    rng = np.random.default_rng(0)
    p, y = rng.uniform(size=(6, 10, 3, 8)), rng.integers(0, 2, (6, 3, 8))
    found = judge.score(p, y)
    for t in range(6):
        nll = [
            [
                -np.mean([np.log(q if label else 1 - q) for q, label in zip(p[t, s, c], y[t, c])])
                for c in range(3)
            ]
            for s in range(10)
        ]
        belongs = {}
        for s in range(10):
            c = int(np.argmin(nll[s]))
            if c not in belongs or nll[s][c] < nll[belongs[c]][c]:
                belongs[c] = s
        accuracy = np.mean([((p[t, s, c] > 0.5) == y[t, c]).mean() for c, s in belongs.items()])
        assert found["coverage"][t] == len(belongs)
        assert found["accuracy"][t] == pytest.approx(100 * accuracy)
        assert found["nll"][t] == pytest.approx(np.mean([nll[s][c] for c, s in belongs.items()]))
        mixed = p[t].mean(0)
        marginal = -np.mean(np.log(np.where(y[t] == 1, mixed, 1 - mixed)))
        assert found["marginal"][t] == pytest.approx(marginal)


def test_one_function_covers_one_concept():
    p, y = np.full((2, 1, 3, 4), 0.7), np.tile([1, 1, 0, 0], (2, 3, 1))
    assert (judge.score(p, y)["coverage"] == 1).all()


@pytest.mark.slow
def test_what_knows_the_attributes_is_right_and_covers_as_chance_says(small):
    """Ten fair choices of three cover 3 (1 - (2/3)^10) = 2.948; standard error 0.011 at 400
    episodes, bound four of it.
    """
    keys = jr.split(jr.key(2), 400)
    episodes = jax.jit(jax.vmap(small.episode))(keys)
    p = jax.vmap(lambda e, k: judge.know(e, k, 10))(episodes, keys)
    found = judge.score(np.asarray(p), np.asarray(episodes.query.y[..., 0]))
    assert abs(found["coverage"].mean() - 2.948) < 0.045
    assert (found["accuracy"] == 100).all() and found["nll"].max() < 1e-3


def test_copies_are_left_out_and_no_image_is_in_two_parts():
    pixels, values = crowd(30)
    data = faces.split(
        np.concatenate([pixels, pixels[:7]]),
        np.concatenate([values, values[:7]]),
        tuple("abcd"),
        "here",
    )
    assert "7 of 487" in data.remark and len(data.pixels) == 480
    parts = [set(data.train.tolist()), set(data.validation.tolist()), set(data.test.tolist())]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 480
    outcome = judge.run(judge.KNOWN, 0, {"tasks": 2}, data, lambda done, what: None)
    assert outcome.note == data.remark  # it stands in the report


def test_a_partition_of_the_data_is_kept():
    pixels, values = crowd(30)
    pixels, values = np.concatenate([pixels, pixels[:7]]), np.concatenate([values, values[:7]])
    part = np.arange(len(pixels)) % 3
    data = faces.split(pixels, values, tuple("abcd"), "here", part=part)
    for i, rows in enumerate((data.train, data.validation, data.test)):
        assert len(rows) and {tuple(image.ravel()) for image in data.pixels[rows]} == {
            tuple(image.ravel()) for image in pixels[:480][part[:480] == i]
        }
    assert "the partition of the data: 160 images train, 160 choose the step" in data.remark


def test_bad_data_ends_in_a_message(tmp_path):
    with pytest.raises(
        InputError, match=r"attributes needs images: give --data a folder that holds avatars"
    ):
        faces.load(None)
    pixels, values = crowd(30)
    with pytest.raises(InputError, match=r"here: has 2 attributes; a concept is a pair of three"):
        faces.split(pixels, values[:, :2], tuple("ab"), "here")
    with pytest.raises(InputError, match=r"here: too few images for their 4 attributes"):
        faces.split(pixels[:40], values[:40], tuple("abcd"), "here")
    with pytest.raises(
        InputError, match=r"no three of the 4 attributes have enough images for 5 positives"
    ):
        SharedAttributes.of(pixels, values, triples(values[:8], 5, 10), 5, 10)
    with pytest.raises(InputError, match="no such file"):
        faces.load(tmp_path / "nothing.npz")


@pytest.mark.slow
def test_a_cell_and_its_pictures(data):
    """The real avatars with hardly any training: figures follow from the predictions, and pictures
    are drawn.
    """
    protocol = get("attributes")
    held = protocol.load(data)
    assert "32 of 2500 images left out" in held.remark
    options = protocol.budgets["quick"] | {"steps": {"": 5}, "tasks": 6, "feature_steps": 5}
    cells = []
    for method in (judge.KNOWN, controls.ONE, controls.RANDOM, "protonet"):
        outcome = protocol.run(method, 0, options, held, lambda done, what: None)
        columns = outcome.predictions
        assert len({len(v) for v in columns.values()}) == 1
        p = (
            np.stack([columns[f"p_{i}"] for i in range(10)], 1)
            .reshape(6, 3, 20, 10)
            .transpose(0, 3, 1, 2)
        )
        p = p[:, ~np.isnan(p).any((0, 2, 3))]
        again = judge.score(p, columns["y"].reshape(6, 3, 20))
        for f in outcome.figures:
            assert f.value == pytest.approx(again[f.metric].mean(), abs=1e-6)
        drawing = {k: np.asarray(v) for k, v in outcome.drawing.items()}
        cells.append(Drawn(method, 0, outcome.figures, drawing))
    pictures = protocol.draw(cells, options, held)
    assert len(pictures) == 3 and all(
        p.svg.startswith("<svg") and len(p.svg) < 2e5 for p in pictures
    )
    value = {(c.method, f.metric): f.value for c in cells for f in c.figures}
    assert value[controls.ONE, "coverage"] == 1.0 < value[controls.RANDOM, "coverage"]
    said = protocol.sentence(cells)
    assert "protonet has the best marginal NLL" in said
    free = min(value[name, "marginal"] for name in (controls.ONE, controls.RANDOM))
    assert ("protonet lose to that" in said) == (value["protonet", "marginal"] >= free)
    right = {name: value[name, "accuracy"] for name in (controls.ONE, controls.RANDOM, "protonet")}
    assert ("1.00 at" in said) == (right["protonet"] >= max(right.values()) - 2)


@pytest.mark.slow
def test_features_are_of_training_images_only():
    """The network of features never sees held-out images: changing these changes only their own
    features.
    """
    pixels, values = crowd(24)
    data = faces.split(pixels, values, tuple("abcd"), "here")
    first = features.features(data, 0, 3)
    pixels = data.pixels.copy()
    pixels[data.test] = 0
    other = faces.Faces(
        pixels, data.values, data.names, data.train, data.validation, data.test, data.triples, ""
    )
    second = features.features(other, 0, 3)
    assert jnp.allclose(first[data.train], second[data.train]) and not jnp.allclose(
        first[data.test], second[data.test]
    )
