"""Laplace approximation for meta-adaptation."""

from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead
from metaprior.infer.descend import AbstractStep, Curvature, as_step, descend
from metaprior.infer.gaussian import Diagonal
from metaprior.infer.laplace import STRUCTURES, GaussNewton, Kronecker, laplace, log_det
from metaprior.infer.variational import draw
from metaprior.method import AbstractGenerative, AbstractMethod, Spec
from metaprior.nets.mlp import apply, network
from metaprior.posterior import Sampled
from metaprior.task import Data, Task

OBJECTIVES = ("predictive", "mode")


class LLAMA(AbstractGenerative, AbstractMethod):
    """Grant et al., ICLR 2018: MAML with Laplace's approximation around what descent finds.

    Grant, Finn, Levine, Darrell & Griffiths, "Recasting Gradient-Based Meta-Learning as
    Hierarchical Bayes". φ̂ is some steps of descent from θ on the support: a truncated, hence
    regularised, maximum a posteriori estimate (section 3.2). Around it p(φ | support) ≈ N(φ̂, H⁻¹),
    H the curvature of the support rows plus that of the prior. The objective is one of

    - `"predictive"`: minus the mean log density of the query rows under some drawn functions
      together, as on a new task. How far draws lie from φ̂, in units of the normal's spread, is
      learned with θ. So is the head's scale, which need not hold what the draws hold already.
    - `"mode"`: mean loss(φ̂; query) + η log det H / rows of the query (algorithm 3, ML-LAPLACE).
      The head then learns the whole error of φ̂ as noise, and the draws add to it: on sine waves
      and lines 1.1 nats above the exact posterior with one row, not 0.4.

    A drawn function is the network's linearisation at φ̂, with weights drawn from the normal: H is
    the curvature of that model, not of the network's. Immer, Korzepa & Bauer, "Improving
    Predictions of Bayesian Neural Nets via Local Linearization", AISTATS 2021. Such weights in the
    network itself give functions that leave the rows which they were fitted to.

    The paper leaves three things open. Here

    - H is taken on the support, where a new task can take it too;
    - H is the generalised Gauss-Newton matrix, exact by default; the paper has
      `structure="kronecker"`;
    - the prior's precision, unless given, is the one that k steps at rate α imply, n / (k α) for n
      rows. This is Santos' identity for a linear model (section 3.1), Q = Λ⁻¹((I - αΛ/n)⁻ᵏ - I), at
      small αΛ. Of rates for each weight and step, k α is the mean over weights of their sum over
      steps. With a `precision` the descent includes the prior's term.

    Fields are the network θ, the head and the settings of `init`.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> llama = metaprior.methods.LLAMA.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = llama.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=10).mean().shape
        (4, 1)
    """

    learning_rate: ClassVar[float] = 3e-3

    net: Any  # θ
    head: AbstractHead
    inner_lr: AbstractStep = eqx.field(converter=as_step)  # α
    precision: Any
    steps: int = eqx.field(static=True)
    eta: float = eqx.field(static=True)  # η
    structure: str = eqx.field(static=True)
    clip: float | None = eqx.field(static=True)
    objective: str = eqx.field(static=True, default="mode")
    samples: int = eqx.field(static=True, default=1)
    spread: Any = 1.0

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
        eta: float = 1e-6,
        precision: Any = None,
        structure: str = "full",
        clip: float | None = 1.0,
        objective: str = "predictive",
        samples: int = 4,
        spread: Array | float | None = None,
    ) -> Self:
        """MAML's network and settings.

        Args:
            spec: shape of the tasks; the head needs a density.
            key: initial weights.
            width, depth: hidden units and layers (40 and 2: the sinusoid of section 5.1, after
                MAML).
            inner_lr: α, a number, fixed or (as an array) learned (0.01 in MAML), or a step of
                `metaprior.infer.descend`; `None` (default): a learned `Curvature` that starts at
                0.1.
            steps: k, at least 1 (1 in MAML's sinusoid).
            eta: weight of the log determinant (1e-6: the size that the paper's experiments report;
                1/2 is Laplace's).
            precision: of a prior N(θ, I / precision) on the weights; `None` (default): the one
                descent implies.
            structure: `"full"`, `"diagonal"` or `"kronecker"`: see
                `metaprior.infer.laplace.laplace`.
            clip: greatest norm of an inner gradient (1: a normal with a small scale has gradients
                without bound); `None` for any.
            objective: `"predictive"` or `"mode"` (the paper's).
            samples: functions drawn in training, at least 1 (4: a choice of this package). Only the
                predictive objective draws.
            spread: of draws around φ̂, in units of the normal's; a number, fixed or (as an array)
                learned. `None` (default): learned, from 0.3, for the predictive objective; 1, which
                is Laplace's, for the other.
        """
        if objective not in OBJECTIVES:
            raise ValueError(
                f"LLAMA has objective {' or '.join(map(repr, OBJECTIVES))}; got {objective!r}."
            )
        if samples < 1:
            raise ValueError(f"LLAMA draws at least 1 function; got samples={samples}.")
        if structure not in STRUCTURES:
            raise ValueError(
                f"LLAMA has the structures {', '.join(map(repr, STRUCTURES))}; got {structure!r}."
            )
        if steps < 1:
            raise ValueError(f"LLAMA takes at least 1 step; got {steps}.")
        if not spec.head.density:
            raise TypeError(
                f"LLAMA takes the curvature of a density; {type(spec.head).__name__} has none."
            )
        net = network(spec, spec.head.raw_dim, width, depth, key=key)
        if inner_lr is None:
            inner_lr = Curvature.init(net, 0.1, steps)
        if spread is None:
            spread = jnp.asarray(0.3) if objective == "predictive" else 1.0
        settings = precision, steps, eta, structure, clip, objective, samples, spread
        # The type checker takes the property `prior` for a field.
        return cls(net, spec.head, inner_lr, *settings)  # ty: ignore[invalid-argument-type]

    @property
    def prior(self) -> Diagonal | None:
        """N(θ, I / precision); `None` where descent implies it."""
        return None if self.precision is None else Diagonal.around(self.net, self.precision**-0.5)

    def apply(self, w: Any, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
        """Raw outputs of a network with weights `w`."""
        return apply(w, x)

    def adapt(self, support: Data, key: PRNGKeyArray) -> Any:
        """φ̂."""
        start = eqx.filter(self.net, eqx.is_inexact_array)

        def objective(net):
            risk = self.head.risk(apply(net, support.x), support, key=key)
            if self.precision is None:
                return risk
            weights = eqx.filter(net, eqx.is_inexact_array)
            squares = jax.tree.map(lambda a, b: ((a - b) ** 2).sum(), weights, start)
            n = jnp.maximum(support.count, 1)
            return risk + 0.5 * self.precision / n * sum(jax.tree.leaves(squares))

        return descend(objective, self.net, self.inner_lr, self.steps, clip=self.clip)

    def q(self, support: Data, key: PRNGKeyArray) -> GaussNewton | Diagonal | Kronecker:
        """N(φ̂, H⁻¹)."""
        precision = self.precision
        if precision is None:
            # A learned mean of rates may fall to zero; a precision is a positive number.
            reach = jnp.maximum(self.inner_lr.reach(self.steps), 1e-6)
            precision = jnp.maximum(support.count, 1) / reach
        mode = self.adapt(support, key)
        return laplace(apply, mode, self.head, support, precision, self.structure)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        inner, outer = jr.split(key)
        q = self.q(task.support, inner)
        if self.objective == "predictive":
            drawn = self.around(q).sample(task.query.x, key=outer, samples=self.samples)
            return -task.query.mean(drawn.log_prob(task.query.y))
        risk = self.head.risk(apply(q.mean, task.query.x), task.query, key=outer)
        return risk + self.eta * log_det(q) / jnp.maximum(task.query.count, 1)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Sampled:
        return self.around(self.q(support, key))

    def around(self, q: GaussNewton | Diagonal | Kronecker) -> Sampled:
        """Linearised functions of weights drawn from `q`, nearer to its mean by `spread`."""
        drawn = eqx.Partial(_drawn, q, self.spread)
        return Sampled(drawn, eqx.Partial(_linear, q.mean), self.head)


def _drawn(q: Any, spread: Array | float, key: PRNGKeyArray) -> Any:
    """Weights of `q`, their distance from the mean times `spread`."""
    mean, fixed = eqx.partition(q.mean, eqx.is_inexact_array)
    there = eqx.filter(draw(q, key), eqx.is_inexact_array)
    moved = jax.tree.map(lambda m, w: m + spread * (w - m), mean, there)
    return eqx.combine(moved, fixed)


def _linear(mode: Any, w: Any, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
    """Raw outputs of the network at `mode`, and their derivative times the weights' distance."""
    at, fixed = eqx.partition(mode, eqx.is_inexact_array)
    there = eqx.filter(w, eqx.is_inexact_array)
    step = jax.tree.map(jnp.subtract, there, at)
    raw, change = jax.jvp(lambda net: apply(eqx.combine(net, fixed), x), (at,), (step,))
    return raw + change
