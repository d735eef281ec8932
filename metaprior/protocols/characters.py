"""Episodes of drawn characters as short vectors, and a stand-in with an exact posterior."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from metaprior.errors import InputError
from metaprior.heads import Categorical
from metaprior.method import AbstractLearner
from metaprior.mixture import Mixture, Part
from metaprior.posterior import AbstractPosterior
from metaprior.sources.shots import shots
from metaprior.task import Data, Task

FILE = "omniglot28.npz"
FEATURES = 48


def read(path: Path) -> dict[str, np.ndarray]:
    """Characters as `(classes, drawers, FEATURES)` arrays: `train`, `validation` and `test`.

    Images are averaged to 14 x 14 and projected on the principal components of the training
    characters. Each component is scaled to unit variance, with a floor, so that weak ones stay
    weak. The split is Lake's: `test` are the evaluation alphabets; every tenth of the background
    characters is `validation`.

    Args:
        path: an npz with `images` (n, 28, 28) bytes, `alphabet`, `character` and `evaluation`, each
            of n.

    Raises:
        InputError: names the file and what it lacks.
    """
    images, alphabet, character, evaluation = _arrays(path)
    name = alphabet.astype(int) * 10_000 + character
    _, first, count = np.unique(name, return_index=True, return_counts=True)
    few = int(count.min())
    if few < 10:
        raise InputError(f"{path}: a class has {few} images; episodes take 10 of each.")
    rows = np.stack([np.flatnonzero(name == name[i])[:few] for i in first])

    held = evaluation[first].astype(bool)
    background = np.flatnonzero(~held)
    if len(background) < 20 or held.sum() < 10:
        raise InputError(
            f"{path}: {len(background)} background and {held.sum()} evaluation classes; 20 and 10 "
            "are needed."
        )
    validation = background[::10]
    parts = {
        "train": np.setdiff1d(background, validation),
        "validation": validation,
        "test": np.flatnonzero(held),
    }
    n = len(images)
    pooled = images.reshape(n, 14, 2, 14, 2).mean((2, 4), dtype=np.float32).reshape(n, 196) / 255
    features = _components(pooled, seen=pooled[rows[parts["train"]].ravel()])
    return {part: features[rows[classes]] for part, classes in parts.items()}


def _arrays(path: Path) -> list[np.ndarray]:
    """Images, alphabet, character and evaluation, checked."""
    names = ("images", "alphabet", "character", "evaluation")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[name] for name in names]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: is not an npz with images, alphabet, character and evaluation ({error})."
        ) from None
    images, *others = arrays
    right = images.ndim == 3 and images.shape[1:] == (28, 28)
    if not right or any(len(other) != len(images) for other in others):
        raise InputError(
            f"{path}: images must be (n, 28, 28) and the other arrays (n,); images is "
            f"{images.shape}."
        )
    return arrays


def _components(pooled: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Principal components of the images `seen`, of all images: `(n, FEATURES)`."""
    centre = seen.mean(0)
    value, vector = np.linalg.eigh(np.cov(seen - centre, rowvar=False))
    value, vector = value[::-1][:FEATURES], vector[:, ::-1][:, :FEATURES]
    basis = vector / np.sqrt(value + 0.1 * value[0])
    return ((pooled - centre) @ basis).astype(np.float32)


class Drawings(eqx.Module):
    """Classes from arrays: a draw takes different classes, and different drawings of each.

    Args:
        x: `(classes, drawers, d)`.
    """

    x: Float[Array, "c k d"]

    def __call__(self, key, way: int, each: int) -> Float[Array, "way each d"]:
        c_key, d_key = jr.split(key)
        chosen = jax.lax.top_k(jr.uniform(c_key, (self.x.shape[0],)), way)[1]
        drawer = jax.lax.top_k(jr.uniform(d_key, (way, self.x.shape[1])), each)[1]
        return self.x[chosen[:, None], drawer]


class Blobs(eqx.Module):
    """Normal classes: centres N(0, spread² I) in `dim` dimensions, rows N(centre, I)."""

    dim: int = eqx.field(static=True, default=8)
    spread: float = eqx.field(static=True, default=1.0)

    def __call__(self, key, way: int, each: int) -> Float[Array, "way each d"]:
        c_key, d_key = jr.split(key)
        centre = self.spread * jr.normal(c_key, (way, 1, self.dim))
        return centre + jr.normal(d_key, (way, each, self.dim))


class BlobPosterior(AbstractPosterior):
    """p(class | x, support) of `Blobs`.

    The centre of each class is normal given its rows, and classes are equally likely.
    """

    support: Data
    way: int = eqx.field(static=True)
    spread: float = eqx.field(static=True)

    def predict(self, x, *, key, samples):
        shown = self.support
        label = shown.y[:, 0].astype(int)
        member = jax.nn.one_hot(label, self.way, axis=0) * shown.mask
        variance = 1 / (self.spread**-2 + member.sum(1))
        centre = variance[:, None] * (member @ jnp.where(shown.mask[:, None], shown.x, 0.0))
        square = ((x[:, None] - centre) ** 2).sum(-1) / (1 + variance)
        logits = -0.5 * square - 0.5 * x.shape[1] * jnp.log1p(variance)
        return Mixture((Part(Categorical(self.way), logits[None], jnp.zeros(1, x.dtype)),))

    def sample(self, x, *, key, samples):
        raise NotImplementedError("BlobPosterior is known point by point.")

    def joint_log_prob(self, data, *, key, samples):
        raise NotImplementedError("BlobPosterior is known point by point.")


class BlobLearner(AbstractLearner):
    """The exact posterior of `Blobs` as a learner."""

    way: int = eqx.field(static=True)
    spread: float = eqx.field(static=True)

    def posterior(self, support, *, key):
        return BlobPosterior(support, self.way, self.spread)


class FewShot(eqx.Module):
    """Episodes of `way` classes with `shot` support and `query` query rows each.

    Args:
        domain: gives rows of classes: `(key, way, each) -> (way, each, d)`.
        way, shot, query: classes, and rows of each.
    """

    domain: Any
    way: int = eqx.field(static=True)
    shot: int = eqx.field(static=True)
    query: int = eqx.field(static=True)

    def _split(self, x) -> Task:
        y = jnp.broadcast_to(jnp.arange(len(x), dtype=x.dtype)[:, None, None], (*x.shape[:2], 1))

        def rows(a, b):
            return Data.of(x[:, a:b].reshape(-1, x.shape[-1]), y[:, a:b].reshape(-1, 1))

        return Task(rows(0, self.shot), rows(self.shot, x.shape[1]))

    def __call__(self, key) -> Task:
        return self._split(self.domain(key, self.way, self.shot + self.query))

    def beside(self, key) -> tuple[Task, Float[Array, "n d"]]:
        """A task, and query rows of `way` classes that are not in it."""
        x = self.domain(key, 2 * self.way, self.shot + self.query)
        return self._split(x[: self.way]), x[self.way :, self.shot :].reshape(-1, x.shape[-1])


class Pooled(eqx.Module):
    """Rows of `way` classes in random order.

    Rows are drawn without regard to class, so that some classes may not be shown at all.

    Args:
        domain: gives rows of classes: `(key, way, each) -> (way, each, d)`.
        way: classes of a task.
        support, query: rows shown and judged.
        fewest: the number of rows shown is uniform from this to `support`; `None` shows all.
    """

    domain: Any
    way: int = eqx.field(static=True)
    support: int = eqx.field(static=True)
    query: int = eqx.field(static=True)
    fewest: int | None = eqx.field(static=True, default=None)

    def __call__(self, key) -> Task:
        x_key, o_key, k_key = jr.split(key, 3)
        each = -(-(self.support + self.query) // self.way)
        x = self.domain(x_key, self.way, each)
        y = jnp.broadcast_to(jnp.arange(self.way, dtype=x.dtype)[:, None], x.shape[:2])
        order = jr.permutation(o_key, self.way * each)[: self.support + self.query]
        data = Data.of(x.reshape(-1, x.shape[-1])[order], y.reshape(-1, 1)[order])
        return shots(data, self.support, self.fewest, key=k_key)
