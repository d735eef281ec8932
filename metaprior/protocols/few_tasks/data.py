"""Families of tasks, and finite sets of them with fixed rows."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from metaprior.sources import Cauchy, SineLine, SlopedSine
from metaprior.task import Data, Task, shuffled

EXACT = "exact posterior"
# What a family lacks of these is zero or masked, so that one program serves all.
X_DIM, ROWS = 2, 20


class Family(eqx.Module):
    """A family of tasks.

    Args:
        source: of the tasks that are judged.
        rows: of a training task.
        columns: of x.
    """

    source: Any
    rows: int
    columns: int


def _sinusoid(query: int) -> Family:
    return Family(SlopedSine(support=5, query=query), 5, 1)


def _cauchy(query: int) -> Family:
    return Family(Cauchy(support=20, query=query), 20, 2)


def _sine_or_line(query: int) -> Family:
    return Family(SineLine(support=5, query=query), 20, 1)


# By name, a function of the number of query rows of a judged task.
FAMILIES: dict[str, Callable[[int], Family]] = {
    "PACOH sinusoid": _sinusoid,
    "PACOH Cauchy": _cauchy,
    "sine or line": _sine_or_line,
}


def setting_of(name: str, count: int) -> str:
    """How figures name a family and a number of training tasks."""
    return f"{name}, {count} task{'s' if count > 1 else ''}"


class Finite(eqx.Module):
    """A finite set of tasks with fixed rows.

    Each draw is one of the first `count` tasks, with its rows dealt anew. The number of support
    rows is uniform in 0 … rows - 1. x and y are given in units of the training rows.

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
        exists = place < self.rows
        order = shuffled(o_key, exists)
        shown = place < jr.randint(k_key, (), 0, self.rows)
        x, y = self.x[index][order], self.y[index][order]
        return Task(Data(x, y, shown), Data(x, y, ~shown & exists))

    def scaled(self, task: Task) -> Task:
        """From the family's own units to those of the training rows."""

        def scale(data):
            x = (data.x - self.x_centre) / self.x_scale
            y = (data.y - self.y_centre) / self.y_scale
            return Data(x, y, data.mask)

        return Task(scale(task.support), scale(task.query))

    def __call__(self, key) -> Task:
        return self.scaled(self.deal(key, self.count))


def _wide(data: Data) -> Data:
    """Columns of zeros up to `X_DIM`."""
    return Data(jnp.pad(data.x, ((0, 0), (0, X_DIM - data.x.shape[1]))), data.y, data.mask)


@eqx.filter_jit
def stacked(source, keys) -> Task:
    """A task a key, all with `X_DIM` columns."""

    def one(key):
        task = source(key)
        return Task(_wide(task.support), _wide(task.query))

    return jax.vmap(one)(keys)


def _units(values: np.ndarray, axis) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation; of constant values 1."""
    spread = values.std(axis)
    return values.mean(axis), np.where(spread > 1e-8, spread, 1.0)


def finite_sets(family: Family, sizes: Sequence[int], key) -> Finite:
    """Nested sets of so many tasks: `count` and the units have a leading axis of sizes."""
    whole = stacked(family.source, jr.split(key, max(sizes)))
    x = jnp.concatenate([whole.support.x, whole.query.x], 1)[:, :ROWS]
    y = jnp.concatenate([whole.support.y, whole.query.y], 1)[:, :ROWS]
    own_x, own_y = (np.asarray(a, np.float64)[:, : family.rows] for a in (x, y))
    x_units = [_units(own_x[:n], (0, 1)) for n in sizes]
    y_units = [_units(own_y[:n], None) for n in sizes]

    def of_sizes(units, which):
        return jnp.asarray(np.stack([each[which] for each in units]), x.dtype)

    return Finite(
        x,
        y,
        rows=jnp.asarray(family.rows),
        count=jnp.asarray(sizes),
        x_centre=of_sizes(x_units, 0),
        x_scale=of_sizes(x_units, 1),
        y_centre=of_sizes(y_units, 0),
        y_scale=of_sizes(y_units, 1),
    )


def axes_of(source: Finite) -> Finite:
    """Which arrays have the axis of sizes, as `fit` takes it."""

    def own(s):
        return (s.count, s.x_centre, s.x_scale, s.y_centre, s.y_scale)

    none = jax.tree.map(lambda _: None, source)
    return eqx.tree_at(own, none, (0,) * 5, is_leaf=lambda leaf: leaf is None)


@eqx.filter_jit
def dealt(source: Finite, counts, keys) -> Task:
    """Episodes of the first `counts[i]` tasks, `(n, t, …)`, in the family's own units."""
    of_keys = jax.vmap(source.deal, in_axes=(0, None))
    return jax.vmap(of_keys, in_axes=(None, 0))(keys, counts)
