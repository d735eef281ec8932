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

OBJECTIVES = ("iwae", "elbo")


class PLATIPUS(AbstractMethod):
    """Finn, Xu & Levine, "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018.

    One gradient step on the rows at hand moves the prior N(μ, σ²) over initial weights to N(μ - γ
    ∇L(μ), .). The support moves p, which keeps σ; the query moves q, which has a spread v of its
    own. L is the head's mean loss.

    In training θ is drawn from q, and descent on the support takes it to φ. On a new task θ is
    drawn from p (algorithm 2). The paper's text conditions q on all rows, its algorithm 1 on the
    query rows, and so do we. n is the number of query rows. The objective is one of

    - `"iwae"`: -1/n log 1/S sum_s exp(-n L(φ_s; query)) (p(θ_s) / q(θ_s))^weight. Burda, Grosse &
      Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016: of several draws only one need
      be right, so that draws may differ.
    - `"elbo"`: E_q L(φ; query) + weight KL(q ‖ p) / n, the paper's algorithm 1. Every draw counts,
      and a draw of the wrong kind of function costs much. q then stays at p, and draws hardly
      differ: on sine waves and lines a quarter of the ambiguous tasks got both, not three quarters.

    In the paper's regression a vector is learned that is joined to x, a "bias transformation". It
    does no more than to move the biases of the first layer; so those have a wide prior here.

    Args:
        prior: N(μ, σ²) over the network's weights.
        log_vq: log of the standard deviation of q (the paper's v_q is a variance).
        gamma_p, gamma_q: γ of the two, a step each.
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

    learning_rate: ClassVar[float] = 5e-3

    prior: Diagonal
    log_vq: Any
    gamma_p: AbstractStep = eqx.field(converter=as_step)
    gamma_q: AbstractStep = eqx.field(converter=as_step)
    inner_lr: AbstractStep = eqx.field(converter=as_step)
    head: AbstractHead
    steps: int = eqx.field(static=True)
    kl_weight: float = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    clip: float | None = eqx.field(static=True)
    objective: str = eqx.field(static=True, default="elbo")

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        width: int = 40,
        depth: int = 3,
        std: float = 0.02,
        bias_std: float = 0.3,
        inner_lr: AbstractStep | Array | float | None = None,
        gamma: float | None = None,
        steps: int = 5,
        kl_weight: float = 1.0,
        samples: int = 3,
        clip: float | None = 1.0,
        objective: str = "iwae",
    ) -> Self:
        """A prior around a random network.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            width, depth: hidden units and layers (40 and 3; the paper has 100 and 3. 64 units
                trained to a loss 0.04 nats lower, more slowly).
            std: initial σ and v (0.02: a network of 40 units still tells its inputs apart under
                that noise).
            bias_std: initial σ and v of the biases of the first layer of a fully connected network
                (0.3; with 0.5 and 1 the network learned more slowly).
            inner_lr: a number, fixed or (as an array) learned, or a step of
                `metaprior.infer.descend`. `None` (default): a learned `Curvature` that starts as
                the rate 0.1.
            gamma: initial γ of both p and q, each a learned number. `None` (default): a learned
                `Curvature` each, which starts as the rate 10 σ² of each weight, since rows move the
                mean of a normal by its variance times the gradient of their summed loss.
            steps: of the descent from θ to φ (at least 1 in the paper).
            kl_weight: 1 is the evidence bound (the paper tunes it: 0.05 and 0.15 for images).
            samples: draws of θ in training, at least 1 (3; the paper's objective needs 1).
            clip: greatest norm of an inner gradient (1: without it a small scale of the head ends
                in NaN).
            objective: `"iwae"` or `"elbo"`. A head without a density has the second.
        """
        if objective not in OBJECTIVES:
            raise ValueError(
                f"PLATIPUS has objective {' or '.join(map(repr, OBJECTIVES))}; got {objective!r}."
            )
        if samples < 1:
            raise ValueError(
                f"PLATIPUS needs at least 1 draw of the weights; got samples={samples}."
            )
        head = spec.head
        net = network(spec, head.raw_dim, width, depth, key=key)
        prior = Diagonal.around(net, std)
        if isinstance(net, eqx.nn.MLP):
            wide = jnp.full_like(net.layers[0].bias, jnp.log(bias_std))
            prior = eqx.tree_at(lambda p: p.log_std.layers[0].bias, prior, wide)
        rate = Curvature.init(net, 0.1, steps) if inner_lr is None else inner_lr

        def moved():
            if gamma is not None:
                return jnp.asarray(gamma)
            rates = jax.tree.map(lambda s: 10 * jnp.exp(2 * s)[None], prior.log_std)
            return eqx.tree_at(lambda c: c.rates, Curvature.init(net, 0.0, 1), rates)

        log_vq = jax.tree.map(jnp.copy, prior.log_std)
        settings = head, steps, kl_weight, samples, clip, objective
        return cls(prior, log_vq, moved(), moved(), rate, *settings)

    def risk(self, net: Any, data: Data, key: PRNGKeyArray) -> Float[Array, ""]:
        """L."""
        return self.head.risk(apply(net, data.x), data, key=key)

    def shifted(self, data: Data, gamma: AbstractStep, log_std: Any, key: PRNGKeyArray) -> Diagonal:
        """N(μ - γ ∇L(μ; data), exp(log_std)²)."""

        def risk(net):
            return self.risk(net, data, key)

        return Diagonal(descend(risk, self.prior.mean, gamma, clip=self.clip), log_std)

    def adapted(self, start: Any, support: Data, key: PRNGKeyArray) -> Any:
        """φ from θ."""

        def risk(net):
            return self.risk(net, support, key)

        return descend(risk, start, self.inner_lr, self.steps, clip=self.clip)

    def adapt(self, p: Diagonal, support: Data, key: PRNGKeyArray) -> Any:
        """θ from `p`, then φ."""
        start, inner = jr.split(key)
        return self.adapted(p.sample(key=start), support, inner)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        q_key, p_key, draw_key, head_key = jr.split(key, 4)
        q = self.shifted(task.query, self.gamma_q, self.log_vq, q_key)
        p = self.shifted(task.support, self.gamma_p, self.prior.log_std, p_key)
        n = jnp.maximum(task.query.count, 1)

        def each(k):
            """n L(φ; query) and log q(θ) - log p(θ) of a draw."""
            start, inner = jr.split(k)
            theta = q.sample(key=start)
            risk = self.risk(self.adapted(theta, task.support, inner), task.query, head_key)
            return n * risk, q.log_prob(theta) - p.log_prob(theta)

        nll, gap = jax.vmap(each)(over_particles(jr.split(draw_key, self.samples)))
        if self.objective == "elbo" or not self.head.density:
            return (nll.mean() + self.kl_weight * q.kl(p)) / n
        weighted = jax.nn.logsumexp(-nll - self.kl_weight * gap)
        return (jnp.log(1.0 * self.samples) - weighted) / n

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Sampled:
        p = self.shifted(support, self.gamma_p, self.prior.log_std, key)
        return Sampled(eqx.Partial(self.adapt, p, support), apply, self.head)
