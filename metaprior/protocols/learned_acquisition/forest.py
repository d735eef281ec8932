"""A random forest for few points in the plane, as a learner: its trees are particles.

Breiman, "Random Forests", Machine Learning 2001, for two classes. It is written in JAX so that
thousands of forests of as many tasks grow in one program. `tests` compare it with scikit-learn's.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int

from metaprior.heads import Categorical
from metaprior.method import AbstractLearner
from metaprior.posterior import Particles
from metaprior.task import Data

DEPTH = 7  # splits on the way to a leaf, at most
CLASSES, LEAST = 2, 1e-6


class Tree(NamedTuple):
    """A binary tree; the children of node `i` are `2 i + 1` and `2 i + 2`.

    Args:
        column, threshold: of each node, `(m,)`; a row goes left where its value is not above. A
            node that is not split sends everything left.
        share: of each class in each node where it is a leaf, `(m, 2)`.
    """

    column: Int[Array, "m"]
    threshold: Float[Array, "m"]
    share: Float[Array, "m 2"]


def grown(data: Data, key) -> Tree:
    """One tree on a bootstrap of the rows; each node looks at one random column of the two.

    Where that column cannot split the node, the other is taken, as scikit-learn does.
    """
    b_key, c_key = jr.split(key)
    n, size = data.mask.shape[0], 2 ** (DEPTH + 1) - 1
    drawn = jr.randint(b_key, (n,), 0, jnp.maximum(data.count, 1))
    weight = jnp.zeros(n).at[drawn].add((jnp.arange(n) < data.count) * 1.0)
    hot = weight[:, None] * jax.nn.one_hot(data.y[:, 0].astype(int), CLASSES)
    first = jr.randint(c_key, (size,), 0, 2)

    below = data.x.T[:, None] <= data.x.T[:, :, None]  # (column, i, j): x_j is not above x_i
    next_ = jnp.where(below | (weight == 0), jnp.inf, data.x.T[:, None])
    rows = jnp.arange(n)

    def level(carry, _):
        node, column, threshold = carry
        same = node[:, None] == node
        total = same @ hot
        left = (below & same).astype(hot.dtype) @ hot  # (column, i, class)
        right = total - left
        sizes = left.sum(-1), right.sum(-1)
        valid = (weight > 0) & (sizes[0] > 0) & (sizes[1] > 0) & (total.min(-1) > 0)
        # The weighted Gini impurity falls by this, up to what all splits of a node share.
        fall = sum(
            (part**2).sum(-1) / jnp.maximum(size, 1.0)
            for part, size in zip((left, right), sizes, strict=True)
        )
        score = jnp.where(valid, fall, -jnp.inf)
        middle = (data.x.T + jnp.where(same, next_, jnp.inf).min(-1)) / 2

        # Of each row the best split of its node, by either column.
        each = jnp.where(same, score[:, None], -jnp.inf)
        best, top = each.argmax(-1), each.max(-1)
        own = first[node]
        own = jnp.where(top[own, rows] > -jnp.inf, own, 1 - own)
        cut = jnp.where(top[own, rows] > -jnp.inf, middle[own, best[own, rows]], jnp.inf)
        column, threshold = column.at[node].set(own), threshold.at[node].set(cut)
        return (2 * node + 1 + (data.x[rows, own] > cut), column, threshold), None

    start = jnp.zeros(n, int), jnp.zeros(size, int), jnp.full(size, jnp.inf)
    (node, column, threshold), _ = jax.lax.scan(level, start, length=DEPTH)
    share = jnp.zeros((size, CLASSES)).at[node].add(hot)
    return Tree(column, threshold, share / jnp.maximum(share.sum(-1, keepdims=True), 1e-9))


def walked(tree: Tree, x: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
    """Logits of the leaf of each row."""
    rows = jnp.arange(len(x))

    def level(_, node):
        return 2 * node + 1 + (x[rows, tree.column[node]] > tree.threshold[node])

    node = jax.lax.fori_loop(0, DEPTH, level, jnp.zeros(len(x), int))
    return jnp.log(jnp.maximum(tree.share[node], LEAST))


class Forest(AbstractLearner):
    """A random forest of two columns and two classes."""

    trees: int = eqx.field(static=True, default=50)

    def posterior(self, support: Data, *, key) -> Particles:
        trees = jax.vmap(lambda k: grown(support, k))(jr.split(key, self.trees))
        return Particles(trees, walked, Categorical(CLASSES))
