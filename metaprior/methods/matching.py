"""Matching networks."""

import math
from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Categorical
from metaprior.method import AbstractMethod, Spec
from metaprior.methods.embedded import in_one_pass
from metaprior.nets.mlp import apply, network
from metaprior.posterior import Particles
from metaprior.task import Data, Task

ABSENT = -1e9  # logit of a class without rows


def _unit(f):
    """Rows of length one; a row of zeros stays near zero."""
    return f * jax.lax.rsqrt((f * f).sum(-1, keepdims=True) + 1e-8)


def _logits(w, x):
    """log of the attention that goes to the rows of every class, up to a constant."""
    net, scale, rows, offset, hot = w
    attention = scale * _unit(apply(net, x)) @ rows.T + offset  # (n, m)
    return jax.nn.logsumexp(jnp.where(hot.T[None], attention[:, None], ABSENT), axis=-1)


class MatchingNet(AbstractMethod):
    """Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016.

    p(y = k | x) is the sum of a(x, x_i) over the support rows of class k (equation 1). a is the
    softmax over i of scale cos(f(x), f(x_i)) (section 2.1.1); one embedding f serves both sides.
    The objective is the mean nll of the query rows (equation 2). The paper's scale is 1: with it
    one row in five classes has a probability of 0.65 at most. The paper's full context embeddings,
    which depend on the order of the rows, are left out.

    As in `ProtoNet`, class k also has a learned prior row that counts as `exp(log_count)` rows. So
    a class that the support does not show, and an empty support, are well defined.
    `pseudo_count=0.0` gives the paper's method: an absent class then has no probability, and an
    empty support says nothing, all classes alike.

    Args:
        net: the embedding f.
        log_scale: log of the scale of the cosines.
        head: `Categorical`.
        prior: prior rows, already embedded, `(C, e)`, or `None`.
        log_count: log of their weight in rows, or `None`.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Categorical
        >>> spec = metaprior.Spec(2, Categorical(3))
        >>> matching = metaprior.methods.MatchingNet.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([[0.0, 1.0]], [2])
        >>> posterior = matching.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 2))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 3)
    """

    net: Callable
    log_scale: Array | float
    head: Categorical
    prior: Float[Array, "c e"] | None
    log_count: Array | float | None

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        width: int = 64,
        depth: int = 2,
        embedding: int = 32,
        scale: float | None = None,
        pseudo_count: float | None = None,
    ) -> Self:
        """A fully connected embedding, or `spec.net`'s.

        Args:
            spec: shape of the tasks; its head must be `Categorical`.
            key: initial weights and prior rows.
            width, depth: hidden units and layers of the embedding.
            embedding: numbers a point (64 in the paper's convolutional network).
            scale: of the cosines, positive. `None` (default): learned, from 10, where a row can
                have nearly all of the attention. A number stays as it is; 1.0 is the paper's.
            pseudo_count: weight of the prior rows. `None` (default): learned, from 1. A positive
                number stays as it is; 0.0 is the paper's method.
        """
        head = spec.categorical("MatchingNet")
        if scale is not None and scale <= 0:
            raise ValueError(f"MatchingNet takes a scale above 0; got {scale}.")
        if pseudo_count is not None and pseudo_count < 0:
            raise ValueError(
                f"MatchingNet takes a pseudo_count of 0 or more rows; got {pseudo_count}."
            )
        net_key, prior_key = jr.split(key)
        net = network(spec, embedding, width, depth, key=net_key)
        log_scale = jnp.log(jnp.asarray(10.0)) if scale is None else math.log(scale)
        if pseudo_count == 0:
            return cls(net, log_scale, head, None, None)
        log_count = jnp.zeros(()) if pseudo_count is None else math.log(pseudo_count)
        prior = jr.normal(prior_key, (head.classes, embedding))
        return cls(net, log_scale, head, prior, log_count)

    def memory(self, support: Data) -> tuple[Callable, Array, Array, Array, Array]:
        """What a query is compared with.

        Returns:
            the network, the scale, rows `(m, e)`, their log weights `(m,)` and their classes
            `(m, C)`.
        """
        rows, offset = _unit(apply(self.net, support.x)), jnp.zeros_like(support.x[:, 0])
        label = support.y[:, 0].astype(int)
        hot = jax.nn.one_hot(label, self.head.classes, dtype=bool) & support.mask[:, None]
        if self.prior is not None:
            rows = jnp.concatenate([rows, _unit(self.prior)])
            count = jnp.asarray(self.log_count, rows.dtype)
            offset = jnp.concatenate([offset, jnp.broadcast_to(count, self.prior.shape[:1])])
            hot = jnp.concatenate([hot, jnp.eye(self.head.classes, dtype=bool)])
        return self.net, jnp.exp(self.log_scale), rows, offset, hot

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        self, task = in_one_pass(self, task)
        return self.head.risk(_logits(self.memory(task.support), task.query.x), task.query, key=key)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles.single(self.memory(support), _logits, self.head)
