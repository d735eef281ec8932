"""Tasks from groups of rows held in flat arrays."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int

from metaprior.task import Data, Task, shuffled


def distinct(key, count, most: int) -> Int[Array, "m"]:
    """Numbers below `count` in random order, each once; zeros behind them where there are fewer.

    Floyd's algorithm (Bentley & Floyd, "A Sample of Brilliance", Communications of the ACM 1987),
    and a shuffle: it costs what the numbers cost, however large `count` is.

    Args:
        key: of the draws.
        count: at least 1.
        most: how many.
    """
    pick_key, order_key = jr.split(key)
    place, size = jnp.arange(most), jnp.minimum(most, count)
    last = jnp.maximum(count - size + place, 0)  # the largest number that may come into each place
    drawn = jr.randint(pick_key, (most,), 0, last + 1)

    def fill(i, chosen):
        number = jnp.where((chosen == drawn[i]).any(), last[i], drawn[i])
        return jnp.where((place == i) & (i < size), number, chosen)

    chosen = jax.lax.fori_loop(0, most, fill, jnp.full(most, -1, drawn.dtype))
    return jnp.maximum(chosen[shuffled(order_key, place < size)], 0)


class Table(eqx.Module):
    """Draws a group, shuffles its rows, and shows some as support and others as query.

    A group with more rows than `support + query` is sub-sampled anew in every draw. The number of
    support rows is 0 a fifth of the time; otherwise it is log-uniform in 1 … `support`, because a
    user has few rows more often than many. At least one row is left for the query.

    Args:
        x, y: all rows, `(r, d)` and `(r, p)`, the rows of a group together.
        start, count: first row and number of rows of each group, `(g,)`.
        groups: indices of the groups to draw from, `(t,)`; an index may be repeated, and -1 behind
            them stands for none.
        support, query: rows a task shows and is judged on; `support = 0` makes every row a query.
    """

    x: Float[Array, "r d"]
    y: Float[Array, "r p"]
    start: Int[Array, "g"]
    count: Int[Array, "g"]
    groups: Int[Array, "*m t"]
    support: int = eqx.field(static=True)
    query: int = eqx.field(static=True)

    def __call__(self, key) -> Task:
        g_key, o_key, k_key, z_key = jr.split(key, 4)
        group = self.groups[jr.randint(g_key, (), 0, (self.groups >= 0).sum())]
        return self.task(group, self._shots(self.count[group], k_key, z_key), key=o_key)

    def _shots(self, count, k_key, z_key):
        """How many support rows a task of a group with `count` rows shows."""
        if not self.support:
            return jnp.zeros((), int)
        most = jnp.minimum(self.support, count - 1)
        u = jr.uniform(k_key) * jnp.log(most + 1.0)
        shots = jnp.clip(jnp.floor(jnp.exp(u)).astype(int), 0, most)
        return jnp.where(jr.uniform(z_key) < 0.2, 0, shots)

    def task(self, group, shots, *, key) -> Task:
        """A task from one group with `shots` support rows (as many of them as `support` holds)."""
        count, most = self.count[group], self.support + self.query
        order = distinct(key, count, most)

        def rows(first, slots, last):
            position = first + jnp.arange(slots)
            mask = position < jnp.minimum(last, count)
            # Padding repeats the group's first row: any finite numbers would do.
            row = self.start[group] + order[jnp.minimum(position, most - 1)]
            row = jnp.where(mask, row, self.start[group])
            return Data(self.x[row], self.y[row], mask)

        return Task(rows(0, self.support, shots), rows(shots, self.query, shots + self.query))

    def tasks(self, groups, shots, *, key) -> Task:
        """One task a group, stacked: `groups` and `shots` of shape `(t,)`."""

        def one(group, shots, key):
            return self.task(group, shots, key=key)

        keys = jr.split(key, len(groups))
        return jax.vmap(one)(jnp.asarray(groups), jnp.asarray(shots), keys)
