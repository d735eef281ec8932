"""Drawn characters and normal classes: episodes, exact probabilities, files that cannot be read."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from metaprior.errors import InputError
from metaprior.protocols import active_learning, characters, reliability


def test_blob_probabilities_are_bayes_rule():
    task = characters.FewShot(characters.Blobs(dim=3), 4, 2, 3)(jr.key(0))
    learner = characters.BlobLearner(4, 1.0)
    p = np.asarray(
        learner.posterior(task.support, key=jr.key(1))
        .predict(task.query.x, key=jr.key(2), samples=1)
        .mean()
    )
    x, support, label = (
        np.asarray(a) for a in (task.query.x, task.support.x, task.support.y[:, 0])
    )
    density = []
    for c in range(4):
        variance = 1 / (1 + (label == c).sum())
        centre = variance * support[label == c].sum(0)
        density.append(stats.multivariate_normal(centre, (1 + variance) * np.eye(3)).pdf(x))
    want = np.stack(density, 1) / np.sum(density, 0)[:, None]
    np.testing.assert_allclose(p, want, atol=1e-5)


@pytest.mark.slow
def test_episodes_hold_different_drawings_of_different_classes():
    x = jnp.arange(12.0 * 6).reshape(12, 6, 1)  # class = x // 6
    source = characters.FewShot(characters.Drawings(x), 5, 1, 2)
    task, outside = source.beside(jr.key(0))
    rows = np.concatenate([task.support.x, task.query.x])[:, 0]
    assert len(np.unique(rows)) == 15
    inside = {int(v // 6) for v in rows}
    assert len(inside) == 5 and not inside & {int(v // 6) for v in np.asarray(outside)[:, 0]}
    for c in range(5):
        same = np.concatenate(
            [task.support.x[task.support.y[:, 0] == c], task.query.x[task.query.y[:, 0] == c]]
        )
        assert len({int(v // 6) for v in same[:, 0]}) == 1
    pool = characters.Pooled(characters.Drawings(x), 5, 8, 10, 0)(jr.key(1))
    assert (
        pool.support.x.shape == (8, 1)
        and len(np.unique(np.concatenate([pool.support.x, pool.query.x]))) == 18
    )


def _npz(path, n=22 * 10, evaluation=None, drop=None):
    rng = np.random.default_rng(0)
    character = np.repeat(np.arange(n // 10), 10)
    arrays = {
        "images": rng.integers(0, 255, (n, 28, 28), np.uint8),
        "alphabet": character // 11,
        "character": character,
        "evaluation": character >= 12 if evaluation is None else evaluation,
    }
    arrays.pop(drop, None)
    np.savez(path, **arrays)
    return path


def test_characters_that_cannot_be_read(tmp_path):
    (tmp_path / "a.npz").write_text("no")
    with pytest.raises(InputError, match=r"a\.npz: is not an npz with images"):
        characters.read(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"b\.npz: is not an npz with images.*alphabet"):
        characters.read(_npz(tmp_path / "b.npz", drop="alphabet"))
    with pytest.raises(InputError, match=r"c\.npz: images must be \(n, 28, 28\)"):
        np.savez(
            tmp_path / "c.npz",
            images=np.zeros((3, 5, 5)),
            alphabet=[0],
            character=[0],
            evaluation=[True],
        )
        characters.read(tmp_path / "c.npz")
    with pytest.raises(
        InputError, match=r"d\.npz: 12 background and 10 evaluation classes; 20 and 10 are needed"
    ):
        characters.read(_npz(tmp_path / "d.npz"))
    with pytest.raises(InputError, match=r"nowhere: no such file or folder"):
        reliability.data.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"d\.npz: active-learning reads a folder"):
        active_learning.data.load(tmp_path / "d.npz")
    assert active_learning.data.load(tmp_path) == {} and reliability.data.load(tmp_path) is None
