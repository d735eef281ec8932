"""Tasks of the part `boards`: two clouds of points, or the fields of a checkerboard."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from metaprior.task import Data, Task


class Points(eqx.Module):
    """Points in the plane of two classes; the first two of the pool are one of each class.

    Args:
        pool, query: how many may be labelled, and how many are judged.
    """

    pool: int = eqx.field(static=True, default=100)
    query: int = eqx.field(static=True, default=200)

    def task(self, x: Float[Array, "n 2"], y: Array) -> Task:
        """A task of points and their classes."""
        # One of each class comes first. Where a class has no point, the first of the other does.
        first = jnp.argmax(y[: self.pool] == 0)
        second = jnp.argmax(y[: self.pool] == 1)
        order = jnp.arange(len(x))
        rank = jnp.where(order == second, -1, jnp.where(order == first, -2, order))
        x, y = x[jnp.argsort(rank)], y[jnp.argsort(rank)]
        whole = Data(x, y[:, None].astype(x.dtype), jnp.ones(len(x), bool))
        part = (slice(None, self.pool), slice(self.pool, None))
        return Task(*(jax.tree.map(lambda a, rows=rows: a[rows], whole) for rows in part))

    @property
    def count(self) -> int:
        return self.pool + self.query


class Clouds(eqx.Module):
    """Two normal clouds (Konyushkova et al. 2017, section 5): the share of one class uniform in
    0.1 … 0.9, means uniform in the unit square, covariances C Cᵀ with C uniform in -0.5 … 0.5.
    """

    points: Points

    def __call__(self, key) -> Task:
        p_key, y_key, m_key, c_key, x_key = jr.split(key, 5)
        n = self.points.count
        y = jr.bernoulli(y_key, jr.uniform(p_key, (), minval=0.1, maxval=0.9), (n,)).astype(int)
        mean, root = jr.uniform(m_key, (2, 2)), jr.uniform(c_key, (2, 2, 2)) - 0.5
        x = mean[y] + jnp.einsum("nij,nj->ni", root[y], jr.normal(x_key, (n, 2)))
        return self.points.task(x, y)


class Boards(eqx.Module):
    """A checkerboard on the unit square.

    Args:
        points: how many.
        side: of a field.
        angle: by which the board is turned about the middle, radians.
    """

    points: Points
    side: float = 0.5
    angle: float = 0.0

    def __call__(self, key) -> Task:
        x = jr.uniform(key, (self.points.count, 2))
        cos, sin = jnp.cos(self.angle), jnp.sin(self.angle)
        field = jnp.floor((x - 0.5) @ jnp.array([[cos, sin], [-sin, cos]]) / self.side)
        return self.points.task(x, field.sum(1).astype(int) % 2)
