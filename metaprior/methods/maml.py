"""Model-agnostic meta-learning."""

from typing import Any, ClassVar, Self

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead
from metaprior.infer.descend import AbstractStep, Curvature, as_step, descend
from metaprior.infer.rows import outputs_after_step, takes
from metaprior.method import AbstractMethod, Spec
from metaprior.nets.mlp import apply, network
from metaprior.posterior import Particles
from metaprior.task import Data, Task


class MAML(AbstractMethod):
    """Finn, Abbeel & Levine, ICML 2017: a network that a gradient step fits to a task.

    "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", algorithm 2. φ = θ - α ∇
    mean loss(θ; support), once or more (equation 1). The meta-objective is the mean loss(φ; query)
    after the last step, differentiated through the inner gradient. An empty support makes no step.
    The loss is the head's: -log p, the squared error for `Gaussian(scale=0.5**0.5)`.

    One step at one rate gets little out of the rows. By default there are five here, and how they
    go is learned with θ: a rate for each weight and step, and matrices that turn the gradient
    (`metaprior.infer.descend.Curvature`). The row `maml_fixed` has the paper's step.

    Fields are the network θ, the head, and the settings of `init`.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> maml = metaprior.methods.MAML.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = maml.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    learning_rate: ClassVar[float] = 3e-3

    net: eqx.nn.MLP  # θ
    head: AbstractHead
    inner_lr: AbstractStep = eqx.field(converter=as_step)  # α
    steps: int = eqx.field(static=True)
    first_order: bool = eqx.field(static=True)
    checkpoints: int | None = eqx.field(static=True)
    clip: float | None = eqx.field(static=True, default=None)

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        width: int = 40,
        depth: int = 2,
        inner_lr: AbstractStep | Array | float | None = None,
        steps: int = 5,
        first_order: bool = False,
        checkpoints: int | None = None,
        clip: float | None = 1.0,
    ) -> Self:
        """A network of the paper's size for sine waves.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            width, depth: hidden units and layers (40 and 2, section 5.1).
            inner_lr: α (0.01 in section 5.1). A Python float is fixed, an array is learned. A step
                of `metaprior.infer.descend` is taken as it is: `Rates` are a rate a weight
                (Meta-SGD). `None` (default): a learned `Curvature` that starts as the rate 0.1.
            steps: inner steps, in training and after it (1 in section 5.1).
            first_order: leave out second derivatives (section 5.2).
            checkpoints: as `metaprior.infer.descend.descend` takes it: memory that does not grow
                with `steps`.
            clip: greatest norm of an inner gradient (1: a normal with a small scale has gradients
                without bound); `None` (the paper) for any.
        """
        if steps < 0:
            raise ValueError(f"MAML takes steps of 0 or more; got {steps}.")
        if isinstance(inner_lr, str):
            raise TypeError(
                f"MAML takes a number, an array or a step as inner_lr; got {inner_lr!r}."
            )
        net = network(spec, spec.head.raw_dim, width, depth, key=key)
        if inner_lr is None:
            inner_lr = Curvature.init(net, 0.1, steps)
        return cls(net, spec.head, inner_lr, steps, first_order, checkpoints, clip)

    def risk(self, net: Any, data: Data, key: PRNGKeyArray) -> Float[Array, ""]:
        """The head's mean loss over the rows, in nats."""
        return self.head.risk(apply(net, data.x), data, key=key)

    def adapt(self, support: Data, key: PRNGKeyArray) -> Any:
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
            clip=self.clip,
        )

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        inner, outer = jr.split(key)
        if self.clip is not None or not takes(self.net, self.inner_lr, self.steps):
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

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles.single(self.adapt(support, key), apply, self.head)
