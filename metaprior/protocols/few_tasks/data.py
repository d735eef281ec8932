"""data of few-tasks."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from metaprior.sources import Cauchy, SineLine, SlopedSine
from metaprior.task import Data, Task

X_DIM, ROWS = (
    2,
    20,
)  # what a family lacks of these is zero or masked, so that one program serves all


class Family(eqx.Module):
    """`source` deals test tasks; a training task has `rows` rows and its x `columns` columns."""

    source: Any
    rows: int
    columns: int


FAMILIES = {
    "PACOH sinusoid": lambda query: Family(SlopedSine(support=5, query=query), 5, 1),
    "PACOH Cauchy": lambda query: Family(Cauchy(support=20, query=query), 20, 2),
    "sine or line": lambda query: Family(SineLine(support=5, query=query), 20, 1),
}


def setting_of(name: str, count: int) -> str:
    """As figures name it."""
    return f"{name}, {count} task{'s' if count > 1 else ''}"


class Finite(eqx.Module):
    """A finite set of tasks with fixed rows: each draw is one of the first `count`, its rows dealt
    anew.

    The number of support rows is uniform in 0 … rows - 1. x and y are given in units of the
    training rows.

    Args:
        x, y: `(t, m, d)` and `(t, m, 1)`, in the family's own units.
        rows: how many of the m rows exist.
        count: how many of the t tasks are drawn from.
        x_centre, x_scale, y_centre, y_scale: of the rows of those tasks.
    """

    x: Float[Array, "t m d"]
    y: Float[Array, "t m 1"]
    rows: Int[Array, ""]
    count: Int[Array, "*n"]
    x_centre: Float[Array, "*n d"]
    x_scale: Float[Array, "*n d"]
    y_centre: Float[Array, "*n"]
    y_scale: Float[Array, "*n"]

    def deal(self, key, count) -> Task:
        """One of the first `count` tasks, in the family's own units."""
        i_key, o_key, k_key = jr.split(key, 3)
        index, place = jr.randint(i_key, (), 0, count), jnp.arange(self.x.shape[1])
        order = jnp.argsort(jr.uniform(o_key, place.shape) + jnp.where(place < self.rows, 0.0, 2.0))
        shown = place < jr.randint(k_key, (), 0, self.rows)
        x, y = self.x[index][order], self.y[index][order]
        return Task(Data(x, y, shown), Data(x, y, ~shown & (place < self.rows)))

    def scaled(self, task: Task) -> Task:
        """From the family's own units to those of the training rows."""

        def scale(d):
            return Data(
                (d.x - self.x_centre) / self.x_scale, (d.y - self.y_centre) / self.y_scale, d.mask
            )

        return Task(scale(task.support), scale(task.query))

    def __call__(self, key) -> Task:
        return self.scaled(self.deal(key, self.count))


def _wide(data: Data) -> Data:
    """Columns of zeros up to `X_DIM`."""
    return Data(jnp.pad(data.x, ((0, 0), (0, X_DIM - data.x.shape[1]))), data.y, data.mask)


@eqx.filter_jit
def _tasks(source, keys) -> Task:
    """A task a key, stacked."""
    return jax.vmap(
        lambda k: jax.tree.map(_wide, source(k), is_leaf=lambda leaf: isinstance(leaf, Data))
    )(keys)


def finite_sets(family: Family, sizes: Sequence[int], key) -> Finite:
    """Nested sets of so many tasks: `count` and the units have a leading axis of sizes."""
    whole = _tasks(family.source, jr.split(key, max(sizes)))
    x, y = (
        jnp.concatenate([getattr(whole.support, n), getattr(whole.query, n)], 1)[:, :ROWS]
        for n in "xy"
    )
    own = [np.asarray(a, np.float64)[:, : family.rows] for a in (x, y)]

    def units(values, axis):
        centre, spread = values.mean(axis), values.std(axis)
        return centre, np.where(spread > 1e-8, spread, 1.0)

    x_units = [units(own[0][:n], (0, 1)) for n in sizes]
    y_units = [units(own[1][:n], None) for n in sizes]
    stacked = [
        jnp.asarray(np.stack([u[i] for u in some]), x.dtype)
        for some in (x_units, y_units)
        for i in (0, 1)
    ]
    return Finite(x, y, jnp.asarray(family.rows), jnp.asarray(sizes), *stacked)


def _axes(source: Finite) -> Finite:
    """Which arrays have the axis of sizes, as `fit` takes it."""

    def own(s):
        return (s.count, s.x_centre, s.x_scale, s.y_centre, s.y_scale)

    return eqx.tree_at(
        own, jax.tree.map(lambda _: None, source), (0,) * 5, is_leaf=lambda leaf: leaf is None
    )


@eqx.filter_jit
def _dealt(source: Finite, counts, keys) -> Task:
    """Episodes of the first `counts[i]` tasks, `(n, t, …)`, in the family's own units."""
    return jax.vmap(lambda n: jax.vmap(lambda k: source.deal(k, n))(keys))(counts)
