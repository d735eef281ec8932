"""Probabilistic model-agnostic meta-learning."""

from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead
from metaprior.infer.descend import AbstractStep, Curvature, as_step, descend
from metaprior.infer.gaussian import Diagonal
from metaprior.method import AbstractMethod, Spec
from metaprior.nets.mlp import apply, network
from metaprior.posterior import Sampled
from metaprior.system.devices import over_particles
from metaprior.task import Data, Task


class PLATIPUS(AbstractMethod):
    """Finn, Xu & Levine, "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018.

    One gradient step on the rows at hand moves the prior N(μ, σ²) over initial weights to N(μ - γ
    ∇L(μ), .). The support moves p, which keeps σ; the query moves q, which has a spread v of its
    own. L is the head's mean loss.

    In training θ is drawn from q, and descent on the support takes it to φ. The objective is L(φ;
    query) + weight KL(q ‖ p) / rows of the query (algorithm 1). On a new task θ is drawn from p
    (algorithm 2). The paper's text conditions q on all rows, its algorithm 1 on the query rows, and
    so do we.

    Args:
        prior: N(μ, σ²) over the network's weights.
        log_vq: log of the standard deviation of q (the paper's v_q is a variance).
        gamma_p, gamma_q: γ of the two.
        inner_lr: rate of the descent from θ to φ.

    Other fields are settings of `init`.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> platipus = metaprior.methods.PLATIPUS.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = platipus.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=10).mean().shape
        (4, 1)
    """

    learning_rate: ClassVar[float] = 3e-3

    prior: Diagonal
    log_vq: Any
    gamma_p: Array
    gamma_q: Array
    inner_lr: AbstractStep = eqx.field(converter=as_step)
    head: AbstractHead
    steps: int = eqx.field(static=True)
    kl_weight: float = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    clip: float | None = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        width: int = 40,
        depth: int = 3,
        std: float = 0.02,
        inner_lr: AbstractStep | Array | float | None = None,
        gamma: float = 0.01,
        steps: int = 5,
        kl_weight: float = 1.0,
        samples: int = 1,
        clip: float | None = 1.0,
    ) -> Self:
        """A prior around a random network.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            width, depth: hidden units and layers (40 and 3; the paper has 100 and 3. 64 units
                trained to a loss 0.04 nats lower, more slowly).
            std: initial σ and v (0.02: a network of 40 units still tells its inputs apart under
                that noise).
            inner_lr: a number, fixed or (as an array) learned, or a step of
                `metaprior.infer.descend`. `None` (default): a learned `Curvature` that starts as
                the rate 0.1.
            gamma: initial γ of both p and q, which is learned (0.01: MAML's rate for sine waves).
            steps: of the descent from θ to φ (at least 1 in the paper).
            kl_weight: 1 is the evidence bound (the paper tunes it: 0.05 and 0.15 for images).
            samples: draws of θ in training, at least 1.
            clip: greatest norm of an inner gradient (1: without it a small scale of the head ends
                in NaN).
        """
        if samples < 1:
            raise ValueError(
                f"PLATIPUS needs at least 1 draw of the weights; got samples={samples}."
            )
        head = spec.head
        net = network(spec, head.raw_dim, width, depth, key=key)
        prior = Diagonal.around(net, std)
        log_vq = jax.tree.map(jnp.copy, prior.log_std)
        gamma_p, gamma_q = jnp.asarray(gamma), jnp.asarray(gamma)
        rate = Curvature.init(net, 0.1, steps) if inner_lr is None else inner_lr
        return cls(prior, log_vq, gamma_p, gamma_q, rate, head, steps, kl_weight, samples, clip)

    def risk(self, net: Any, data: Data, key: PRNGKeyArray) -> Float[Array, ""]:
        """L."""
        return self.head.risk(apply(net, data.x), data, key=key)

    def shifted(self, data: Data, gamma: Array, log_std: Any, key: PRNGKeyArray) -> Diagonal:
        """N(μ - γ ∇L(μ; data), exp(log_std)²)."""

        def risk(net):
            return self.risk(net, data, key)

        return Diagonal(descend(risk, self.prior.mean, gamma, clip=self.clip), log_std)

    def adapt(self, p: Diagonal, support: Data, key: PRNGKeyArray) -> Any:
        """θ from `p`, then φ."""
        start, inner = jr.split(key)

        def risk(net):
            return self.risk(net, support, inner)

        return descend(risk, p.sample(key=start), self.inner_lr, self.steps, clip=self.clip)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        q_key, p_key, draw_key, head_key = jr.split(key, 4)
        q = self.shifted(task.query, self.gamma_q, self.log_vq, q_key)
        p = self.shifted(task.support, self.gamma_p, self.prior.log_std, p_key)

        def each(k):
            return self.risk(self.adapt(q, task.support, k), task.query, head_key)

        kl = self.kl_weight * q.kl(p) / jnp.maximum(task.query.count, 1)
        return jax.vmap(each)(over_particles(jr.split(draw_key, self.samples))).mean() + kl

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Sampled:
        p = self.shifted(support, self.gamma_p, self.prior.log_std, key)
        return Sampled(eqx.Partial(self.adapt, p, support), apply, self.head)
