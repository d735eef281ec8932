"""Bayesian model-agnostic meta-learning."""

from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead
from metaprior.infer.descend import AbstractStep, Curvature, as_step
from metaprior.infer.svgd import svgd
from metaprior.method import AbstractMethod, Spec
from metaprior.mixture import log_sum
from metaprior.nets.mlp import apply, network
from metaprior.posterior import Particles
from metaprior.task import Data, Task

OBJECTIVES, SUBSETS = ("nll", "chaser"), ("all", "last_layer")


def _square(a: Any, b: Any = None) -> Float[Array, ""]:
    """Sum of squares of all floating-point arrays, or of the differences to those of `b`."""
    a = eqx.filter(a, eqx.is_inexact_array)
    b = jax.tree.map(jnp.zeros_like, a) if b is None else eqx.filter(b, eqx.is_inexact_array)
    return sum(jax.tree.leaves(jax.tree.map(lambda x, y: ((x - y) ** 2).sum(), a, b)))


def _weights(net: Any, subset: str) -> Any:
    """Which of a network's leaves have particles: all weights, or those of its last layer."""
    if subset == "all":
        return eqx.is_inexact_array

    def last(n):
        layer = n.layers[-1] if hasattr(n, "layers") else n.last
        return layer.weight, layer.bias

    return eqx.tree_at(last, jax.tree.map(lambda _: False, net), (True, True))


class BMAML(AbstractMethod):
    """Yoon, Kim, Dia, Kim, Bengio & Ahn, "Bayesian Model-Agnostic Meta-Learning", NeurIPS 2018.

    The posterior is M networks. Θ(support) is some steps of SVGD (equation 4) from shared initial
    particles Θ₀ on log p(support | φ) - precision ‖φ‖² / 2. Score and repulsion are both divided by
    the number of rows, so that one rate suits any number of them. The objective is one of

    - `"nll"`: the mean over the query of -1/α log 1/M sum_m p(y | x, φ_m)^α. With α = 1 the mixture
      predicts each row (the paper's has the product over rows inside the sum). Particles then
      specialise early, whatever the task, and are mixed with equal weights all the same. Towards 0
      each particle has to predict each row by itself. Trained on sine waves and lines for 2,000
      steps, the mixture was 0.26 nats a row from exact at 10 rows with α = 1/2, and 0.71 with 1; at
      2 rows 0.62 and 0.81.
    - `"chaser"`: sum_m ‖Θ(support)_m - stop(Θ(support ∪ query))_m‖². The leader is some more steps
      from the chaser, on all rows (equation 7, algorithm 3). Nothing here asks for a good leader,
      so learned rates diverge.

    The published code infers a precision of weights and of noise in each particle, under gamma
    priors. Here the noise is the head's and the weights' precision is fixed. The kernel's gradient
    has its factor 2, the median leaves out a particle's distance to itself, and a step is turned
    and scaled by what is learned for it.

    Args:
        shared: what all particles have in common: the network without them.
        particles: Θ₀, arrays with a leading particle axis: whole networks, or their last layers.
        inner_lr: step size of SVGD.

    Other fields are settings of `init`.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> bmaml = metaprior.methods.BMAML.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = bmaml.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    learning_rate: ClassVar[float] = 1e-2

    shared: Any
    particles: Any
    inner_lr: AbstractStep = eqx.field(converter=as_step)
    head: AbstractHead
    steps: int = eqx.field(static=True)
    objective: str = eqx.field(static=True)
    leader_steps: int = eqx.field(static=True)
    precision: float = eqx.field(static=True)
    clip: float | None = eqx.field(static=True)
    power: float = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        particles: int = 5,
        width: int = 40,
        depth: int = 3,
        inner_lr: AbstractStep | Array | float | None = None,
        steps: int = 3,
        objective: str = "nll",
        subset: str = "all",
        leader_steps: int = 1,
        precision: float = 1e-2,
        clip: float | None = 1.0,
        power: float = 0.5,
    ) -> Self:
        """Particles that differ in their random weights.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            particles: M, at least 1 (5: the paper's image experiments; 10 in its sinusoid). One
                particle is MAML.
            width, depth: hidden units and layers (40 and 3: the paper's sinusoid).
            inner_lr: a number, fixed or (as an array) learned, or a step of
                `metaprior.infer.descend`. `None` (default): a learned `Curvature` that starts as
                the rate 0.5; with the objective `"chaser"` the fixed rate 0.5. That is more than a
                network alone has, as a particle's own gradient enters SVGD's average with weight
                1 / M.
            steps: of SVGD (3; the paper has 1, at a fixed rate).
            objective: `"nll"` or `"chaser"`.
            subset: what has particles: `"all"` weights, or the `"last_layer"` with the features
                below it shared and trained by the objective alone (the paper's image experiments).
            leader_steps: of the leader beyond the chaser (1, section 5.1).
            precision: of a normal prior N(0, 1 / precision) on the weights.
            clip: greatest norm of a particle's score (1: without it a small scale of the head ends
                in NaN).
            power: α of the objective `"nll"`, above 0 (0.5: better than 1 and than 0.25 on sine
                waves and lines).
        """
        if objective not in OBJECTIVES:
            raise ValueError(f"BMAML has the objectives 'nll' and 'chaser'; got {objective!r}.")
        if subset not in SUBSETS:
            raise ValueError(
                f"BMAML has particles of 'all' weights or of the 'last_layer'; got {subset!r}."
            )
        if particles < 1:
            raise ValueError(f"BMAML takes at least 1 particle; got {particles}.")
        if not power > 0:
            raise ValueError(f"BMAML takes a power above 0; got {power}.")

        def make(k):
            return network(spec, spec.head.raw_dim, width, depth, key=k)

        nets = eqx.filter_vmap(make)(jr.split(key, particles))
        moving, rest = eqx.partition(nets, _weights(nets, subset))
        # What has no particles is that of the first network.
        shared = jax.tree.map(lambda a: a[0] if eqx.is_inexact_array(a) else a, rest)
        one = jax.tree.map(lambda a: a[0], moving)
        if inner_lr is None and objective == "chaser":
            inner_lr = 0.5
        elif inner_lr is None:
            inner_lr = Curvature.init(one, 0.5, max(steps, leader_steps))
        return cls(
            shared,
            moving,
            inner_lr,
            spec.head,
            steps,
            objective,
            leader_steps,
            precision,
            clip,
            power,
        )

    def apply(self, particle: Any, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
        """Raw outputs of one particle."""
        return apply(eqx.combine(particle, self.shared), x)

    def svgd(self, particles: Any, data: Data, steps: int, key: PRNGKeyArray) -> Any:
        """Particles after some steps on the rows of `data`; without rows they stay."""
        n = jnp.maximum(data.count, 1)

        def log_prob(particle):
            square = 0.5 * self.precision / n * _square(particle)
            return -self.head.risk(self.apply(particle, data.x), data, key=key) - square

        moved = svgd(
            log_prob,
            particles,
            self.inner_lr,
            steps,
            clip=self.clip,
            repulsion=1.0 / n,
        )
        # Without rows the prior's term alone would move them.
        return jax.tree.map(lambda a, b: jnp.where(data.count > 0, a, b), moved, particles)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        inner, outer = jr.split(key)
        # Written out here only: a posterior is computed once, and would wait for the compiler.
        chaser = self.svgd(self.particles, task.support, self.steps, inner)
        if self.objective == "chaser":
            leader = self.svgd(chaser, task.union, self.leader_steps, outer)
            return _square(chaser, jax.lax.stop_gradient(leader))

        query, n = task.query, len(jax.tree.leaves(chaser)[0])
        raw = jax.vmap(lambda particle: self.apply(particle, query.x))(chaser)
        each = self.head.loss(self.head.params(raw), query.y[None], key=outer)
        if not self.head.density:  # a score, of which there is no probability to average
            return query.mean(each.mean(0))
        return query.mean(jnp.log(float(n)) - log_sum(-self.power * each)) / self.power

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles(self.svgd(self.particles, support, self.steps, key), self.apply, self.head)
