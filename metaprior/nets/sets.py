"""Networks that read a set of observations: `(support, x of the query) -> (n, width)`.

They do not depend on the order of the rows nor on padding, they see how many rows there are, and an
empty set is a learned token of its own.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.method import Spec
from metaprior.nets.mlp import apply, mlp
from metaprior.task import Data


def rows(data: Data, classes: int) -> Float[Array, "n e"]:
    """Inputs and outcomes side by side; classes as indicator columns."""
    y = jax.nn.one_hot(data.y[:, 0].astype(int), classes, dtype=data.x.dtype) if classes else data.y
    return jnp.concatenate([data.x, y], axis=1)


def _columns(spec: Spec) -> int:
    return spec.x_dim + (spec.head.classes or spec.head.y_dim)


def _with_count(summary: Float[Array, "*b w"], data: Data) -> Float[Array, "*b w1"]:
    count = jnp.log1p(data.count.astype(summary.dtype))
    return jnp.concatenate([summary, jnp.broadcast_to(count, (*summary.shape[:-1], 1))], axis=-1)


class DeepSet(eqx.Module):
    """A network of each row, averaged, then a linear layer: the same summary for every query point.

    Zaheer et al., "Deep Sets", NeurIPS 2017, theorem 2, with a mean for the sum, a learned null row
    that counts as one more observation, and log(1 + n) as an extra input of the last layer.

    Args:
        each: network of one row.
        null: its stand-in where there is nothing to average.
        last: from average and count to the summary.
        classes: number of classes of the outcome, 0 for numbers.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> from metaprior.nets.sets import DeepSet
        >>> encoder = DeepSet.init(metaprior.Spec(2, Gaussian(1)), width=8, depth=1, key=jax.random.key(0))
        >>> encoder(metaprior.Data.of([[0.0, 1.0]], [2.0]), jax.numpy.zeros((5, 2))).shape
        (5, 8)
    """

    each: eqx.nn.MLP
    null: Float[Array, "w"]
    last: eqx.nn.Linear
    classes: int = eqx.field(static=True)

    @staticmethod
    def init(spec: Spec, *, width: int, depth: int, key: PRNGKeyArray) -> "DeepSet":
        keys = jr.split(key, 3)
        each = mlp(_columns(spec), width, width, depth, key=keys[0])
        null = 0.1 * jr.normal(keys[1], (width,))
        return DeepSet(each, null, eqx.nn.Linear(width + 1, width, key=keys[2]), spec.head.classes)

    def summary(self, data: Data) -> Float[Array, "w"]:
        """The set in `width` numbers."""
        h = jnp.where(data.mask[:, None], apply(self.each, rows(data, self.classes)), 0.0)
        return self.last(_with_count((self.null + h.sum(0)) / (1.0 + data.count), data))

    def __call__(self, support: Data, x: Float[Array, "n d"]) -> Float[Array, "n w"]:
        summary = self.summary(support)
        return jnp.broadcast_to(summary, (x.shape[0], *summary.shape))


class CrossAttention(eqx.Module):
    """Each query point attends to the rows by their inputs: a summary of its own for every point.

    The deterministic path of Kim et al., "Attentive Neural Processes", ICLR 2019, section 3, with a learned
    null row that can always be attended to.

    Args:
        place: network of the inputs alone; gives queries and keys.
        each: network of one row; gives values.
        null_key, null_value: the null row.
        attention: multi-head dot-product attention.
        last: from what was attended to and the count to the summary.
        classes: number of classes of the outcome, 0 for numbers.
    """

    place: eqx.nn.MLP
    each: eqx.nn.MLP
    null_key: Float[Array, "w"]
    null_value: Float[Array, "w"]
    attention: eqx.nn.MultiheadAttention
    last: eqx.nn.Linear
    classes: int = eqx.field(static=True)

    @staticmethod
    def init(spec: Spec, *, width: int, depth: int, key: PRNGKeyArray, heads: int = 4) -> "CrossAttention":
        if width % heads:
            raise ValueError(f"CrossAttention splits its width over {heads} heads; {width} is no multiple of {heads}.")
        keys = jr.split(key, 5)
        null_key, null_value = 0.1 * jr.normal(keys[2], (2, width))
        return CrossAttention(
            mlp(spec.x_dim, width, width, depth, key=keys[0]),
            mlp(_columns(spec), width, width, depth, key=keys[1]),
            null_key,
            null_value,
            eqx.nn.MultiheadAttention(heads, width, key=keys[3]),
            eqx.nn.Linear(width + 1, width, key=keys[4]),
            spec.head.classes,
        )

    def __call__(self, support: Data, x: Float[Array, "n d"]) -> Float[Array, "n w"]:
        places = jnp.concatenate([self.null_key[None], apply(self.place, support.x)])
        values = jnp.concatenate([self.null_value[None], apply(self.each, rows(support, self.classes))])
        mask = jnp.concatenate([jnp.ones(1, bool), support.mask])
        mask = jnp.broadcast_to(mask, (x.shape[0], mask.shape[0]))
        attended = self.attention(apply(self.place, x), places, values, mask=mask)
        return jax.vmap(self.last)(_with_count(attended, support))
