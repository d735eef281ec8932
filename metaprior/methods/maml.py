"""Model-agnostic meta-learning."""

import equinox as eqx
import jax.random as jr
from jaxtyping import Array

from metaprior.infer.descend import AbstractStep, as_step, descend
from metaprior.infer.rows import outputs_after_step, takes
from metaprior.method import AbstractMethod
from metaprior.nets.mlp import apply, network
from metaprior.posterior import AbstractHead, Particles


class MAML(AbstractMethod):
    """Finn, Abbeel & Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
    ICML 2017.

    Algorithm 2: φ = θ - α ∇ mean loss(θ; support), once or more (equation 1), and the
    meta-objective is the mean loss(φ; query) after the last step, differentiated through the inner
    gradient. An empty support makes no step. The loss is the head's: -log p, the squared error for
    `Gaussian(scale=0.5**0.5)`. Fields are the network θ, the head, and the settings of `init`.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> maml = metaprior.methods.MAML.init(metaprior.Spec(1, Gaussian(1)), key=jax.random.key(0))
        >>> posterior = maml.posterior(metaprior.Data.of([0.0, 1.0], [2.0, 3.0]), key=jax.random.key(1))
        >>> posterior.predict(jax.numpy.zeros((4, 1)), key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    net: eqx.nn.MLP  # θ
    head: AbstractHead
    inner_lr: AbstractStep = eqx.field(converter=as_step)  # α
    steps: int = eqx.field(static=True)
    first_order: bool = eqx.field(static=True)
    checkpoints: int | None = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        spec,
        *,
        key,
        width=40,
        depth=2,
        inner_lr: AbstractStep | Array | float = 0.01,
        steps=1,
        first_order=False,
        checkpoints: int | None = None,
    ):
        """A network with the paper's sinusoid settings.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            width, depth: hidden units and layers (40 and 2, section 5.1).
            inner_lr: α (0.01, section 5.1); a Python float is fixed, an array is learned, a pytree
                like the network is a rate a weight (Meta-SGD).
            steps: inner steps, in training and after it.
            first_order: leave out second derivatives (section 5.2).
            checkpoints: as `metaprior.infer.descend.descend` takes it: memory that does not grow
                with `steps`.
        """
        if steps < 0:
            raise ValueError(f"MAML takes steps of 0 or more; got {steps}.")
        net = network(spec, spec.head.raw_dim, width, depth, key=key)
        return cls(net, spec.head, inner_lr, steps, first_order, checkpoints)

    def risk(self, net, data, key):
        """The head's mean loss over the rows, in nats."""
        return self.head.risk(apply(net, data.x), data, key=key)

    def adapt(self, support, key):
        """The network after the inner steps, φ."""

        def loss(net):
            return self.risk(net, support, key)

        return descend(
            loss,
            self.net,
            self.inner_lr,
            self.steps,
            first_order=self.first_order,
            checkpoints=self.checkpoints,
        )

    def loss(self, task, *, key):
        inner, outer = jr.split(key)
        if not takes(self.net, self.inner_lr, self.steps):
            return self.risk(self.adapt(task.support, inner), task.query, outer)
        raw = outputs_after_step(
            lambda raw: self.head.risk(raw, task.support, key=inner),
            self.net,
            task.support.x,
            task.query.x,
            self.inner_lr,
            first_order=self.first_order,
        )
        return self.head.risk(raw, task.query, key=outer)

    def posterior(self, support, *, key):
        return Particles.single(self.adapt(support, key), apply, self.head)
