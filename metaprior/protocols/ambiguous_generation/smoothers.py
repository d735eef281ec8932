"""What costs nothing: views of training objects, averaged with weights."""

from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaprior.heads import Gaussian
from metaprior.method import AbstractLearner
from metaprior.posterior import Particles
from metaprior.protocols.ambiguous_generation.data import Objects

MEAN, RIDGE, NEAREST = "mean view", "ridge", "nearest objects"
PENALTIES = tuple(10.0 ** np.arange(-2, 1.1, 0.25))  # times the mean square of a pixel's sums
COUNTS = (1, 2, 3, 5, 8, 12, 20, 40)

Weigh = Callable[[Int[Array, ""], Float[Array, "d"]], Float[Array, "m"]]


class Smoother(AbstractLearner):
    """The average training object, moved towards those that look like the view shown.

    A view is the mean of that view over the training objects, plus a weighted sum of their
    distances from it. The weights are the same for all views.

    Args:
        angle: radians, `(v,)`.
        mean: `(v, d)`.
        gaps: distances of the training objects from it, `(m, v, d)`.
        weigh: weights of the training objects, given the side that is shown and its distance from
            the mean.
        head: with the standard deviation of all pixels about what is predicted.
    """

    angle: Float[Array, "v"]
    mean: Float[Array, "v d"]
    gaps: Float[Array, "m v d"]
    weigh: Weigh
    head: Gaussian

    def side(self, x: Float[Array, "n e"]) -> Int[Array, "n"]:
        """The side whose angle is nearest: the first multiple's sine and cosine decide."""
        half = x.shape[1] // 2
        near = x[:, :1] * jnp.sin(self.angle) + x[:, half : half + 1] * jnp.cos(self.angle)
        return near.argmax(1)

    def views(self, side: Int[Array, ""], shown: Float[Array, "d"]) -> Float[Array, "v d"]:
        """All views of an object that is seen from one side."""
        weights = self.weigh(side, shown - self.mean[side])
        return self.mean + jnp.tensordot(weights, self.gaps, 1)

    def posterior(self, support, *, key):
        views = self.views(self.side(support.x)[0], support.y[0])
        views = jnp.where(support.count > 0, views, self.mean)
        return Particles.single(views, lambda views, x: views[self.side(x)], self.head)


class Nowhere(eqx.Module):
    """No weight for anything: the mean view, whatever is shown."""

    count: int = eqx.field(static=True)

    def __call__(self, side, gap):
        return jnp.zeros(self.count)


class Ridge(eqx.Module):
    """Weights that amount to a ridge regression of every view on the pixels of the one shown.

    Args:
        ways: X (XᵀX + λ I)⁻¹ of each side, X the distances of the training objects from its mean;
            `(v, m, d)`.
    """

    ways: Float[Array, "v m d"]

    def __call__(self, side, gap):
        return self.ways[side] @ gap


class Nearest(eqx.Module):
    """Equal weights for the training objects that look most alike from the side shown.

    Args:
        gaps: `(m, v, d)`.
        count: of them.
    """

    gaps: Float[Array, "m v d"]
    count: int = eqx.field(static=True)

    def __call__(self, side, gap):
        away = ((self.gaps[:, side] - gap) ** 2).sum(1)
        _, nearest = jax.lax.top_k(-away, self.count)
        return jnp.zeros(len(away)).at[nearest].set(1 / self.count)


def smoother(name: str, data: Objects) -> tuple[Smoother, float]:
    """A control made of the training objects; its number is chosen on the validation objects.

    Returns:
        the control, and what was chosen: λ over the mean square of a pixel summed over objects, or
        the count of objects.
    """

    def pixels(rows):
        return data.views[rows].reshape(len(rows), len(data.azimuth), -1) / 255.0

    train, held = pixels(data.train), jnp.asarray(pixels(data.validation))
    mean = train.mean(0)
    gaps = (train - mean).astype(np.float32)
    parts = jnp.deg2rad(jnp.asarray(data.azimuth)), jnp.asarray(mean), jnp.asarray(gaps)
    best, chosen, least = None, 0.0, np.inf
    for number, weigh in _candidates(name, gaps):
        made = Smoother(*parts, weigh, Gaussian(mean.shape[1], scale=1.0))
        error = float(_error(made, held))
        if error < least:
            best, chosen, least = made, number, error
    head = Gaussian(mean.shape[1], scale=least**0.5)
    return eqx.tree_at(lambda s: s.head, best, head), chosen


def _candidates(name: str, gaps: Float[np.ndarray, "m v d"]) -> Iterator[tuple[float, Weigh]]:
    if name == MEAN:
        yield 0.0, Nowhere(len(gaps))
    elif name == NEAREST:
        for count in (c for c in COUNTS if c <= len(gaps)):
            yield count, Nearest(jnp.asarray(gaps), count)
    else:
        u, s, vt = np.linalg.svd(np.moveaxis(gaps, 1, 0), full_matrices=False)
        unit = len(gaps) * float((gaps**2).mean())
        for penalty in PENALTIES:
            shrunk = s / (s**2 + penalty * unit)
            yield penalty, Ridge(jnp.asarray((u * shrunk[:, None]) @ vt))


@eqx.filter_jit
def _error(made: Smoother, objects: Float[Array, "k v d"]) -> Array:
    """Mean squared error of the views that are not shown, each side shown in turn."""
    sides = jnp.arange(len(made.angle))

    def one(views):
        weights = jax.vmap(made.weigh)(sides, views - made.mean)
        said = made.mean + jnp.tensordot(weights, made.gaps, 1)
        error = ((said - views) ** 2).mean(2)
        return (error.sum() - jnp.trace(error)) / (error.size - len(sides))

    return jax.lax.map(one, objects).mean()
