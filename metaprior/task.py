"""`Data` and `Task`: what a task shows and what it is judged on."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class Data(eqx.Module):
    """The rows of one task.

    Args:
        x: inputs, one row a point; shape `(n, d)`.
        y: outcomes, shape `(n, p)`; classes are stored as their index, with `p = 1`.
        mask: which rows exist, shape `(n,)`. Rows outside the mask are padding and may hold any
            finite number. A `Data` whose mask is all false is an empty set of observations.
    """

    x: Float[Array, "*b n d"]
    y: Float[Array, "*b n p"]
    mask: Bool[Array, "*b n"]

    @staticmethod
    def of(x, y=None) -> "Data":
        """Data whose rows are all observed.

        Args:
            x: inputs, `(n, d)`, or `(n,)` for one column.
            y: outcomes, `(n, p)`, or `(n,)` for one column; zeros unless given.

        Example:
            >>> from metaprior import Data
            >>> Data.of([[0.0], [1.0]], [2.0, 3.0]).y.shape
            (2, 1)
        """
        x = jnp.asarray(x, float)
        x = x[:, None] if x.ndim == 1 else x
        y = jnp.zeros((x.shape[0], 1), x.dtype) if y is None else jnp.asarray(y, x.dtype)
        y = y[:, None] if y.ndim == 1 else y
        if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
            raise ValueError(
                f"Data takes x of shape (n, d) and y of shape (n, p); x is {x.shape}, "
                f"y is {y.shape}."
            )
        return Data(x, y, jnp.ones(x.shape[0], bool))

    @staticmethod
    def blank(n: int, d: int) -> "Data":
        """Room for `n` rows of `d` inputs and one outcome, of which none exists yet."""
        return Data(jnp.zeros((n, d)), jnp.zeros((n, 1)), jnp.zeros(n, bool))

    def put(self, place: Array, x: Float[Array, "d"], y: Float[Array, "p"]) -> "Data":
        """With a row at that place; unchanged where the place is beyond the end."""
        rows, outcomes = (a.at[place].set(v, mode="drop") for a, v in ((self.x, x), (self.y, y)))
        return Data(rows, outcomes, self.mask.at[place].set(True, mode="drop"))

    def first(self, k: Array | int) -> "Data":
        """The rows among the first `k`; the others stay as padding."""
        return Data(self.x, self.y, self.mask & (jnp.arange(self.mask.shape[-1]) < k))

    @property
    def count(self) -> Array:
        """Number of rows inside the mask."""
        return self.mask.sum(-1)

    def mean(self, values: Float[Array, "n"]) -> Array:
        """Mean of one value a row over the mask; zero where no row exists."""
        total = jnp.where(self.mask, values, 0.0).sum(-1)
        return total / jnp.maximum(self.count, 1)  # no row: 0 / 1, not 0 / 0


class Task(eqx.Module):
    """One small data set: a method sees `support` and is judged on `query`."""

    support: Data
    query: Data

    @property
    def union(self) -> Data:
        """Support and query rows as one `Data`, support first."""
        return concat(self.support, self.query)


def concat(a: Data, b: Data) -> Data:
    """The rows of `a`, then the rows of `b`."""
    x, y = jnp.concatenate([a.x, b.x]), jnp.concatenate([a.y, b.y])
    return Data(x, y, jnp.concatenate([a.mask, b.mask]))


def shuffled(key: PRNGKeyArray, mask: Bool[Array, "*b n"]) -> Int[Array, "*b n"]:
    """Numbers of the rows in random order, those outside the mask last."""
    return jnp.argsort(jr.uniform(key, mask.shape) + jnp.where(mask, 0.0, 2.0))


def pad(data: Data, n: int) -> Data:
    """`data` with padding rows up to `n` rows: different sizes then share one compiled program."""
    extra = n - data.mask.shape[-1]
    if extra < 0:
        raise ValueError(f"pad makes {n} rows; the data already has {data.mask.shape[-1]}.")
    rows = [(0, extra), (0, 0)]
    return Data(jnp.pad(data.x, rows), jnp.pad(data.y, rows), jnp.pad(data.mask, (0, extra)))


def split(data: Data, support: int) -> Task:
    """The first `support` rows as support, the others as query.

    Example:
        >>> from metaprior import Data, split
        >>> task = split(Data.of([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0]), 1)
        >>> task.support.x.shape, task.query.x.shape
        ((1, 1), (2, 1))
    """

    def cut(a, b):
        return Data(data.x[a:b], data.y[a:b], data.mask[a:b])

    return Task(cut(0, support), cut(support, data.x.shape[0]))
