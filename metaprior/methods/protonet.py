"""Prototypical networks."""

import math
from collections.abc import Callable
from typing import Self

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Categorical
from metaprior.method import AbstractMethod, Spec
from metaprior.methods.embedded import in_one_pass
from metaprior.nets.mlp import apply, network
from metaprior.nets.sets import memberships
from metaprior.posterior import Particles
from metaprior.task import Data, Task

ABSENT = -1e9  # logit of a class without a prototype


def _logits(w, x):
    """-‖f(x) - c_k‖² for every class."""
    net, prototypes, present = w
    distance = ((apply(net, x)[:, None] - prototypes[None]) ** 2).sum(-1)
    return jnp.where(present[None], -distance, ABSENT)


class ProtoNet(AbstractMethod):
    """Snell, Swersky & Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017.

    c_k is the mean of f(x) over the support rows of class k, and p(y = k | x) is the softmax of
    -‖f(x) - c_k‖² over k (equations 1 and 2). The objective is the mean nll of the query rows
    (algorithm 1).

    Here class k also has a learned prior prototype that weighs as much as `exp(log_count)` support
    rows. So a class that the support does not show, and an empty support, are well defined. Where
    classes mean something else in every task (the paper's episodes), `pseudo_count=0.0` gives the
    paper's method: an absent class then has no probability, and an empty support says nothing, all
    classes alike.

    Args:
        net: the embedding f.
        head: `Categorical`.
        prior: prior prototypes, `(C, e)`, or `None`.
        log_count: log of their weight in rows, or `None`.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Categorical
        >>> spec = metaprior.Spec(2, Categorical(3))
        >>> protonet = metaprior.methods.ProtoNet.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([[0.0, 1.0]], [2])
        >>> posterior = protonet.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 2))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 3)
    """

    net: Callable
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
        pseudo_count: float | None = None,
    ) -> Self:
        """A fully connected embedding, or `spec.net`'s.

        Args:
            spec: shape of the tasks; its head must be `Categorical`.
            key: initial weights and prior prototypes.
            width, depth: hidden units and layers of the embedding.
            embedding: numbers a point (32, a choice of this package for vectors; 64 in the paper's
                convolutional network).
            pseudo_count: weight of the prior prototypes in rows. `None` (default): learned, from 1.
                A positive number stays as it is; 0.0 is the paper's method.
        """
        head = spec.categorical("ProtoNet")
        if pseudo_count is not None and pseudo_count < 0:
            raise ValueError(
                f"ProtoNet takes a pseudo_count of 0 or more rows; got {pseudo_count}."
            )
        net_key, prior_key = jr.split(key)
        net = network(spec, embedding, width, depth, key=net_key)
        if pseudo_count == 0:
            return cls(net, head, None, None)
        log_count = jnp.zeros(()) if pseudo_count is None else math.log(pseudo_count)
        prior = 0.1 * jr.normal(prior_key, (head.classes, embedding))
        return cls(net, head, prior, log_count)

    def prototypes(self, support: Data) -> tuple[Array, Array]:
        """Prototypes `(C, e)`, and which classes have one `(C,)`."""
        hot = memberships(support, self.head.classes)
        total, count = hot.T @ apply(self.net, support.x), hot.sum(0)
        if self.prior is not None:
            weight = jnp.exp(self.log_count)  # ty: ignore[invalid-argument-type]
            total, count = total + weight * self.prior, count + weight
        return total / jnp.where(count > 0, count, 1.0)[:, None], count > 0

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        self, task = in_one_pass(self, task)
        logits = _logits((self.net, *self.prototypes(task.support)), task.query.x)
        return self.head.risk(logits, task.query, key=key)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles.single((self.net, *self.prototypes(support)), _logits, self.head)
