"""Variational agnostic modelling that performs inference for robust estimation."""

from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead
from metaprior.infer.descend import AbstractStep, Curvature, as_step
from metaprior.infer.gaussian import Diagonal
from metaprior.infer.variational import bayes_by_backprop, draw
from metaprior.method import AbstractGenerative, AbstractMethod, Spec
from metaprior.nets.mlp import apply, network
from metaprior.posterior import Sampled
from metaprior.system.devices import over_particles
from metaprior.task import Data, Task


class VAMPIRE(AbstractGenerative, AbstractMethod):
    """Nguyen, Do & Carneiro, WACV 2020: as ABML, trained on how well draws predict the query.

    "Uncertainty in Model-Agnostic Meta-Learning using Variational Inference". As in ABML,
    q(φ | support) starts at the prior p(φ) = N(μ, σ²) over a network's weights. Descent on
    E_q L(φ; support) + kl_weight KL(q ‖ p) / rows moves it (equations 6 to 8). The objective is
    E_q L(φ; query) alone (equation 3). Neither the support nor KL counts again: training asks how
    well draws of q predict.

    Args:
        prior: N(μ, σ²) over the network's weights.
        inner_lr: rates of the descent on mean and log standard deviation of q.

    Other fields are settings of `init`.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> vampire = metaprior.methods.VAMPIRE.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = vampire.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=10).mean().shape
        (4, 1)
    """

    learning_rate: ClassVar[float] = 3e-3

    prior: Diagonal
    head: AbstractHead
    inner_lr: AbstractStep = eqx.field(converter=as_step)
    steps: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    kl_weight: float = eqx.field(static=True)
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
        steps: int = 5,
        samples: int = 4,
        kl_weight: float = 1e-2,
        clip: float | None = 1.0,
    ) -> Self:
        """A prior around a random network.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            width, depth: hidden units and layers (40 and 3: as in PLATIPUS here).
            std: initial σ (0.02, as in ABML here).
            inner_lr: a number, fixed or (as an array) learned, or a step of
                `metaprior.infer.descend`. `None` (default): a learned `Curvature` that starts as
                the rate 0.1; it does not turn log standard deviations.
            steps, samples: of the descent, and draws of φ for each expectation (5 and 4: the
                authors' regression).
            kl_weight: of KL in the descent (the authors' code has 1e-6; 1 would be the evidence
                bound).
            clip: greatest norm of an inner gradient.
        """
        if samples < 1:
            raise ValueError(
                f"VAMPIRE needs at least 1 draw of the weights; got samples={samples}."
            )
        net = network(spec, spec.head.raw_dim, width, depth, key=key)
        prior = Diagonal.around(net, std)
        if inner_lr is None:
            inner_lr = Curvature.init(prior, 0.1, steps, turned=Diagonal(True, False))
        return cls(prior, spec.head, inner_lr, steps, samples, kl_weight, clip)

    def apply(self, w: Any, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
        """Raw outputs of a network with weights `w`."""
        return apply(w, x)

    def q(self, data: Data, key: PRNGKeyArray) -> Diagonal:
        """q(φ | data)."""

        def risk(w, k):
            return self.head.risk(apply(w, data.x), data, key=k)

        return bayes_by_backprop(
            self.prior,
            risk,
            data.count,
            self.inner_lr,
            self.steps,
            kl_weight=self.kl_weight,
            samples=self.samples,
            clip=self.clip,
            key=key,
        )

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        inner, outer, head_key = jr.split(key, 3)
        q, query = self.q(task.support, inner), task.query

        def risk(k):
            return self.head.risk(apply(draw(q, k), query.x), query, key=head_key)

        return jax.vmap(risk)(over_particles(jr.split(outer, self.samples))).mean()

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Sampled:
        return Sampled(eqx.Partial(draw, self.q(support, key)), apply, self.head)
