"""A Bayesian neural network a task, without meta-learning."""

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead
from metaprior.infer.gaussian import Diagonal
from metaprior.infer.variational import draw
from metaprior.method import AbstractGenerative, Spec
from metaprior.nets.mlp import apply, network
from metaprior.posterior import Sampled
from metaprior.task import Data


class BNN(AbstractGenerative):
    """Blundell et al., "Weight Uncertainty in Neural Networks", ICML 2015: the control.

    Every task is on its own, nothing is learned from others. What a meta-learned prior is worth is
    its advantage over this.

    The prior of the weights is N(0, std² / fan-in), that of the biases N(0, std²). q(w | support)
    is a diagonal normal. It starts at a draw of the prior, with a tenth of the prior's spread, and
    some steps of Adam lower E_q[-log p(support | w)] + kl_weight KL(q ‖ prior) (equation 1), with
    draws of w in place of the expectation (section 3.2). Without rows q is the prior.

    Where the head asks for a scale of the noise, the network gives it like any other output, so it
    is inferred too. Inputs and outcomes should have unit scale.

    Args:
        prior: a network's prior: numbers that no training changes.
        head: what is predicted.

    Other fields are settings of `init`.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> bnn = metaprior.methods.BNN.init(spec, steps=50, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = bnn.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=10).mean().shape
        (4, 1)
    """

    prior: Diagonal
    head: AbstractHead
    steps: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    learning_rate: float = eqx.field(static=True)
    kl_weight: float = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        width: int = 16,
        depth: int = 1,
        std: float = 1.0,
        steps: int = 500,
        samples: int = 8,
        learning_rate: float = 0.02,
        kl_weight: float = 0.3,
    ) -> Self:
        """A small network.

        A diagonal posterior of a large one stays at the prior: moving a weight costs more than a
        few rows give. On linear tasks with 20 rows, 10 units end nearer to the exact predictive
        than 32, by 0.4 nats a row.

        Args:
            spec: shape of the tasks.
            key: unused: the prior has mean zero.
            width, depth: hidden units and layers (tanh).
            std: of the prior of every unit's input, for inputs of unit scale (1: outputs have unit
                scale too).
            steps, samples, learning_rate: of Adam, its rate falling to zero, and draws of w a step
                (choices of this package, not searched over).
            kl_weight: 1 is the evidence bound. 0.3 predicts better: with 10 units and 20 rows 0.49
                nats a row instead of 1.05 (exact 0.26), with 2 rows 1.54 instead of 1.58 (exact
                0.95).
        """
        net = network(spec, spec.head.raw_dim, width, depth, key=key, activation=jnp.tanh)
        zero = jax.tree.map(lambda a: jnp.zeros_like(a) if eqx.is_inexact_array(a) else a, net)

        def log_std(a):
            fan_in = a.shape[1] if a.ndim == 2 else 1
            return jnp.full_like(a, jnp.log(std) - 0.5 * jnp.log(float(fan_in)))

        scales = jax.tree.map(log_std, eqx.filter(net, eqx.is_inexact_array))
        prior = Diagonal(zero, scales)
        return cls(prior, spec.head, steps, samples, learning_rate, kl_weight)

    def apply(self, w: Any, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
        """Raw outputs of a network with weights `w`."""
        return apply(w, x)

    def q(self, support: Data, key: PRNGKeyArray) -> Diagonal:
        """q(w | support)."""
        adam = optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps))
        net_key, key = jr.split(key)
        # With the prior's spread, draws would hardly depend on where q is: it starts narrow.
        narrow = jax.tree.map(lambda s: s + jnp.log(0.1), self.prior.log_std)
        start = Diagonal(draw(self.prior, net_key), narrow)
        moving, fixed = eqx.partition(start, eqx.is_inexact_array)

        def bound(moving, key):
            q = eqx.combine(moving, fixed)

            def risk(k):
                raw = apply(draw(q, k), support.x)
                return self.head.risk(raw, support, key=jr.fold_in(k, 1))

            kl = self.kl_weight * q.kl(self.prior) / jnp.maximum(support.count, 1)
            return jax.vmap(risk)(jr.split(key, self.samples)).mean() + kl

        def step(carry, key):
            moving, state = carry
            with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
                updates, state = adam.update(jax.grad(bound)(moving, key), state)
            return (optax.apply_updates(moving, updates), state), None

        (moving, _), _ = jax.lax.scan(step, (moving, adam.init(moving)), jr.split(key, self.steps))

        # Without rows q is the prior.
        prior = eqx.filter(self.prior, eqx.is_inexact_array)
        kept = jax.tree.map(lambda a, b: jnp.where(support.count > 0, a, b), moving, prior)
        return eqx.combine(kept, fixed)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Sampled:
        return Sampled(eqx.Partial(draw, self.q(support, key)), apply, self.head)
