"""A small transformer that reads a set of observations.

Each row, and each query point, attends to the rows.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from metaprior.method import Spec
from metaprior.nets.mlp import apply, mlp
from metaprior.nets.sets import columns, sequence
from metaprior.system.compiled import apart
from metaprior.task import Data

NEAREST, FARTHEST = 0.1, 2.0  # lengths of the heads at the start, for columns of unit scale

norm = apart(apply)  # of rows of a residual stream: its gradient is read by everything before it


class Layer(eqx.Module):
    """Multi-head attention to the rows of a set, then a network of each row, both residual.

    There is a null row beside those of the set.
    Head h weighs row j for row i by softmax_j of q_i·k_j / sqrt(c) - ½ ‖(x_i - x_j) / length_h‖²,
    and the null row by q_i·k_0 / sqrt(c) + null_h: a kernel smoother to start with, whose lengths,
    one a head and column, are learned. The heads start with lengths from 0.1 to 2 times sqrt(d), so
    that some see the nearest rows and some all of them.

    Args:
        norms: before attention and before the network.
        project: queries, keys and values side by side.
        merge: from the heads back to a row.
        net: of each row.
        log_length: `(h, d)`, units of x.
        null: `(h,)`, log weight of the null row, that of a row at the same place being 0.
    """

    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]
    project: eqx.nn.Linear
    merge: eqx.nn.Linear
    net: eqx.nn.MLP
    log_length: Float[Array, "h d"]
    null: Float[Array, "h"]

    @staticmethod
    def init(d: int, width: int, heads: int, *, key: PRNGKeyArray) -> "Layer":
        keys = jr.split(key, 3)
        length = jnp.geomspace(NEAREST, FARTHEST, heads) * d**0.5
        return Layer(
            (eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)),
            eqx.nn.Linear(width, 3 * width, use_bias=False, key=keys[0]),
            eqx.nn.Linear(width, width, use_bias=False, key=keys[1]),
            mlp(width, width, 2 * width, 1, key=keys[2], activation=jax.nn.gelu),
            jnp.broadcast_to(jnp.log(length)[:, None], (heads, d)),
            jnp.zeros(heads),
        )

    def __call__(
        self,
        h: Float[Array, "all w"],
        square: Float[Array, "all m d"],
        mask: Bool[Array, "m"],
        first: int = 0,
    ) -> Float[Array, "n w"]:
        """Rows from `first` on, of `h`: the null row, the `m` of the set, others; `square`: (x_i -
        x_j)² a column.

        Only what is read is computed: queries of rows that go on, keys and values of the null row
        and the set.
        """
        m, width, heads = mask.shape[0], h.shape[1], self.null.shape[0]
        row, h = norm(self.norms[0], h), h[first:]
        query = (row[first:] @ self.project.weight[:width].T).reshape(len(h), heads, -1)
        seen = row[: 1 + m] @ self.project.weight[width:].T
        key, value = (part.reshape(1 + m, heads, -1) for part in jnp.split(seen, 2, axis=1))
        local = -0.5 * jnp.einsum("nmd,hd->hnm", square[first:], jnp.exp(-2 * self.log_length))
        null = jnp.broadcast_to(self.null[:, None, None], (heads, len(h), 1))
        score = jnp.einsum("nhc,mhc->hnm", query, key) / query.shape[2] ** 0.5
        score = score + jnp.concatenate([null, jnp.where(mask, local, -1e9)], axis=2)
        weight = jax.nn.softmax(score)
        h = h + apply(self.merge, jnp.einsum("hnm,mhc->nhc", weight, value).reshape(len(h), -1))
        return h + apply(self.net, norm(self.norms[1], h))


class Attention(eqx.Module):
    """Layers in which the support's rows and the query points attend to the support.

    All of them also attend to a null row.
    What Nguyen & Grover, "Transformer Neural Processes", ICML 2022, call TNP-D: self-attention
    among the support rows and attention of each query point to them, in every layer. Attention sees
    distances between inputs, as in Ashman et al., "Translation Equivariant Transformer Neural
    Processes", ICML 2024, so that nearby rows matter more from the first step on; inputs themselves
    are seen too. The null row makes an empty set well defined and lets attention weigh how many
    rows are near, which a mean over them would lose.

    Args:
        each: network of one row; a last input says whether its outcome is known.
        null: the null row.
        layers: attention layers.
        norm: after them.
        classes: number of classes of the outcome, 0 for numbers.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> from metaprior.nets.attention import Attention
        >>> spec = metaprior.Spec(2, Gaussian(1))
        >>> encoder = Attention.init(spec, width=8, depth=1, key=jax.random.key(0))
        >>> encoder(metaprior.Data.of([[0.0, 1.0]], [2.0]), jax.numpy.zeros((5, 2))).shape
        (5, 8)
    """

    each: eqx.nn.MLP
    null: Float[Array, "w"]
    layers: tuple[Layer, ...]
    norm: eqx.nn.LayerNorm
    classes: int = eqx.field(static=True)

    @staticmethod
    def init(
        spec: Spec, *, width: int, depth: int, key: PRNGKeyArray, heads: int = 8
    ) -> "Attention":
        """`depth` attention layers; the network of one row has one hidden layer."""
        if width % heads:
            raise ValueError(
                f"Attention splits its width over {heads} heads; {width} is no multiple of {heads}."
            )
        keys = jr.split(key, 2 + depth)
        return Attention(
            mlp(columns(spec) + 1, width, width, 1, key=keys[0]),
            0.1 * jr.normal(keys[1], (width,)),
            tuple(Layer.init(spec.x_dim, width, heads, key=k) for k in keys[2:]),
            eqx.nn.LayerNorm(width),
            spec.head.classes,
        )

    def read(self, support: Data, x: Float[Array, "q d"], first: int = 0) -> Float[Array, "n w"]:
        """What the null row, the rows of the support and the query points have read, from row
        `first` on.
        """
        h = jnp.concatenate([self.null[None], apply(self.each, sequence(support, x, self.classes))])
        places = jnp.concatenate([support.x, x])
        square = jnp.where(
            support.mask[None, :, None], (places[:, None] - support.x[None]) ** 2, 0.0
        )
        square = jnp.pad(square, ((1, 0), (0, 0), (0, 0)))  # the null row has no place: near to all
        for layer in self.layers[:-1]:
            h = layer(h, square, support.mask)
        return norm(self.norm, self.layers[-1](h, square, support.mask, first))

    def summary(self, data: Data) -> Float[Array, "w"]:
        """The set in `width` numbers: what the null row has read, and the mean of what the rows
        have.
        """
        h = self.read(data, data.x[:0])
        return h[0] + jnp.where(data.mask[:, None], h[1:], 0.0).sum(0) / jnp.maximum(data.count, 1)

    def __call__(self, support: Data, x: Float[Array, "q d"]) -> Float[Array, "q w"]:
        return self.read(support, x, 1 + support.mask.shape[0])
