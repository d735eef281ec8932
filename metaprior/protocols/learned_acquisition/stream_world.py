"""The stream of Woodward & Finn: thirty images of three classes, each answered or asked about."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from metaprior.errors import InputError
from metaprior.protocols.few_shot_images.data import Pictures
from metaprior.protocols.few_shot_images.training import episodes
from metaprior.sources.episodes import Episodes
from metaprior.task import Data, Task

WAY, LENGTH = 3, 30
RIGHT, WRONG, ASKED = 1.0, -1.0, -0.05  # rewards
ASK = WAY  # the action that is no answer


class Streams(eqx.Module):
    """Images of three classes in random order, none twice while there are others.

    A class is turned as a whole, where the source turns classes. Labels are in random order.

    Args:
        source: of classes and images; only its classes are drawn.
        length: images of a stream.
    """

    source: Episodes
    length: int = eqx.field(static=True, default=LENGTH)

    def classes_of(self, key) -> Int[Array, "3"]:
        """The classes of the stream that `key` gives, however they are turned."""
        return self.source.classes(jr.split(key, 3)[0])[0]

    def __call__(self, key) -> tuple[Float[Array, "n d"], Int[Array, "n"]]:
        """Images as rows and their labels 0, 1, 2."""
        c_key, u_key, w_key = jr.split(key, 3)
        classes, turn = self.source.classes(c_key)
        place = self.source.members[classes]
        real = jnp.arange(place.shape[1]) < self.source.count[classes][:, None]
        u = jnp.where(real, jr.uniform(u_key, place.shape), -1.0)
        order = jnp.argsort(-u.ravel())[jnp.arange(self.length) % real.sum()]
        label = order // place.shape[1]
        x = self.source.images(w_key, place.ravel()[order], turn[label])
        return x, label


class Shown(eqx.Module):
    """Tasks for a classifier: the first 0 … `most` images of a stream are shown, others asked.

    Classes may not be shown at all, as it is before the first label.

    Args:
        streams: of at least `most` images.
        most: images shown at most.
    """

    streams: Streams
    most: int = eqx.field(static=True, default=6)

    def __call__(self, key) -> Task:
        x_key, k_key = jr.split(key)
        x, label = self.streams(x_key)
        y = label.astype(x.dtype)[:, None]
        shown = jnp.arange(self.most) < jr.randint(k_key, (), 0, self.most + 1)
        rest = jnp.ones(self.streams.length - self.most, bool)
        return Task(
            Data(x[: self.most], y[: self.most], shown),
            Data(x[self.most :], y[self.most :], rest),
        )


def streams_of(data: Pictures, part: str, length: int = LENGTH) -> Streams:
    """Streams of the classes of one part: `train`, `val` or `test`."""
    classes = data.parts[part]
    if len(classes) < WAY:
        raise InputError(
            f"learned-acquisition: a stream has {WAY} classes; {part} has {len(classes)} of "
            f"{data.name}. Without folders train, val and test it takes 13 classes or more."
        )
    padded = max(len(rows) for rows in data.parts.values())
    return Streams(episodes(data, classes, WAY, 1, 1, padded=padded), length)


class Played(NamedTuple):
    """What an agent did in streams.

    Args:
        action: an answer 0, 1, 2 or `ASK`, `(*t, n)`.
        label: the truth.
        p: the highest probability of an answer; NaN where an agent has none.
    """

    action: Any
    label: Any
    p: Any


def reward(action: Array, label: Array) -> Array:
    """Of each action."""
    answered = jnp.where(action == label, RIGHT, WRONG)
    return jnp.where(action == ASK, ASKED, answered)


def instance(label: np.ndarray) -> np.ndarray:
    """How many images of its class were seen up to each image, that one included: `(t, n)`."""
    hot = label[..., None] == np.arange(WAY)
    return np.take_along_axis(hot.cumsum(1), label[..., None], 2)[..., 0]


def play_simple(how: str, label: np.ndarray, seed: int) -> Played:
    """Agents that need no images.

    Args:
        how: `"oracle"` asks at the first image of each class and is right on all others;
            `"infers"` does not ask about the third class, whose label is the one that is left;
            `"ask"` always asks; `"guess"` answers at random.
        label: `(t, n)`.
        seed: of the guesses.
    """
    p = np.full(label.shape, np.nan)
    if how == "guess":
        action = np.random.default_rng(seed).integers(WAY, size=label.shape)
        return Played(action, label, np.full(label.shape, 1 / WAY))
    if how == "ask":
        return Played(np.full_like(label, ASK), label, p)
    first = instance(label) == 1
    if how == "infers":
        first &= first.cumsum(1) < WAY
    return Played(np.where(first, ASK, label), label, p)
