"""Black-box meta-learning with temporal convolutions and attention."""

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead
from metaprior.method import AbstractMethod, Spec
from metaprior.nets.mlp import apply, mlp
from metaprior.nets.sets import columns, sequence
from metaprior.posterior import Particles
from metaprior.task import Data, Task


class Sequence(eqx.Module):
    """The support in order, then one more place, which every query point has to itself.

    Args:
        past: the support's rows, those that exist first, `(m, c)`.
        last: the query points, `(n, c)`: each is the end of a sequence of its own.
        count: how many rows of `past` exist.
    """

    past: Float[Array, "m c"]
    last: Float[Array, "n c"]
    count: Array

    def with_columns(self, past, last) -> "Sequence":
        """New columns beside the old ones: dense connections."""

        def both(a, b):
            return jnp.concatenate([a, b], axis=1)

        return Sequence(both(self.past, past), both(self.last, last), self.count)


class Dense(eqx.Module):
    """DenseBlock (figure 2a): a gated causal convolution of two places, `dilation` apart.

    Its outputs join the inputs.
    """

    convolution: eqx.nn.Linear
    dilation: int = eqx.field(static=True)

    def __call__(self, s: Sequence) -> Sequence:
        m, d = s.past.shape[0], self.dilation
        # Row i of this is place i - d: zero before the first.
        longer = jnp.pad(s.past, ((d, 0), (0, 0)))
        before = jnp.broadcast_to(longer[s.count], s.last.shape)

        def gated(now, before):
            out = apply(self.convolution, jnp.concatenate([now, before], axis=1))
            value, gate = jnp.split(out, 2, axis=1)
            return jnp.tanh(value) * jax.nn.sigmoid(gate)

        return s.with_columns(gated(s.past, longer[:m]), gated(s.last, before))


class Causal(eqx.Module):
    """AttentionBlock (figure 2b): every place attends to itself and to those before.

    What it reads joins the inputs.
    """

    key: eqx.nn.Linear
    query: eqx.nn.Linear
    value: eqx.nn.Linear

    def __call__(self, s: Sequence) -> Sequence:
        m = s.past.shape[0]
        key, query, value = (apply(f, s.past) for f in (self.key, self.query, self.value))
        root = key.shape[1] ** 0.5
        causal = jnp.tril(jnp.ones((m, m), bool))
        past = jax.nn.softmax(jnp.where(causal, query @ key.T / root, -1e9)) @ value

        # A query point is the last place of its own sequence: it sees the support and itself.
        last_key, last_query, last_value = (
            apply(f, s.last) for f in (self.key, self.query, self.value)
        )
        seen = jnp.where(jnp.arange(m) < s.count, last_query @ key.T / root, -1e9)
        itself = (last_query * last_key).sum(1, keepdims=True) / root
        weight = jax.nn.softmax(jnp.concatenate([seen, itself], axis=1))
        return s.with_columns(past, weight[:, :m] @ value + weight[:, m:] * last_value)


def _raw(w, x):
    method, support = w
    return method.raw(support, x)


class SNAIL(AbstractMethod):
    """Mishra, Rohaninejad, Chen & Abbeel, "A Simple Neural Attentive Meta-Learner", ICLR 2018.

    The rows of the support and one query point are a sequence. Attention blocks alternate with
    blocks of dilated causal convolutions (section 3.1). The raw outputs of the query point are read
    at its place, the last. As no place sees a later one, the support is read once for all query
    points. The objective is the mean nll of the query rows. The answer depends on the order of the
    rows. There is one function, and what it does not know is noise.

    Args:
        each: network of one row; a last input says whether its outcome is known.
        blocks: attention and convolutions.
        last: from the columns at the query point's place to raw outputs.
        head: what is predicted.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> snail = metaprior.methods.SNAIL.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = snail.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    each: eqx.nn.MLP
    blocks: tuple[Dense | Causal, ...]
    last: eqx.nn.MLP
    head: AbstractHead

    @classmethod
    def init(
        cls, spec: Spec, *, key: PRNGKeyArray, width: int = 32, depth: int = 2, length: int = 32
    ) -> Self:
        """Attention between convolutions: the paper's network for few-shot learning.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            width: columns that a block adds (the paper has 32 to 256 in attention and 128 in
                convolutions, for images).
            depth: how often attention and convolutions alternate before the last attention (2 in
                the paper).
            length: rows over which convolutions reach, dilations being 1, 2, 4 … below it (32; the
                paper has the longest sequence); attention reaches all.
        """
        if length < 2:
            raise ValueError(
                f"SNAIL's convolutions reach over a length of at least 2 rows; got {length}."
            )
        dilations = [2**i for i in range((length - 1).bit_length())]
        plan = [0, *dilations] * depth + [0]  # 0 for attention
        first_key, last_key, *keys = jr.split(key, 2 + len(plan))
        each = mlp(columns(spec) + 1, width, width, 1, key=first_key)

        # Every block adds `width` columns to those it reads.
        blocks, size = [], width
        for dilation, k in zip(plan, keys):
            blocks.append(_block(size, width, dilation, key=k))
            size += width
        last = mlp(size, spec.head.raw_dim, width, 1, key=last_key)
        return cls(each, tuple(blocks), last, spec.head)

    def raw(self, support: Data, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
        """Raw outputs at the query points."""
        h, m = apply(self.each, sequence(support, x, self.head.classes)), support.mask.shape[0]
        order = jnp.argsort(~support.mask, stable=True)  # rows that exist first, in their order
        s = Sequence(h[:m][order], h[m:], support.count)
        for block in self.blocks:
            s = block(s)
        return apply(self.last, s.last)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return self.head.risk(self.raw(task.support, task.query.x), task.query, key=key)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles.single((self, support), _raw, self.head)


def _block(size: int, width: int, dilation: int, *, key: PRNGKeyArray) -> Dense | Causal:
    """A convolution, or attention where the dilation is 0."""
    if dilation:
        return Dense(eqx.nn.Linear(2 * size, 2 * width, key=key), dilation)
    k, q, v = (eqx.nn.Linear(size, width, use_bias=False, key=k) for k in jr.split(key, 3))
    return Causal(k, q, v)
