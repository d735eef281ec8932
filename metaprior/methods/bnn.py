"""A Bayesian neural network a task, without meta-learning."""

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead, Gaussian, StudentT
from metaprior.infer.gaussian import Diagonal
from metaprior.infer.variational import draw
from metaprior.method import AbstractGenerative, Spec
from metaprior.nets.mlp import apply, network
from metaprior.posterior import Sampled
from metaprior.task import Data

NOISE, FACTOR = 0.3, 0.5  # prior scale of the noise, and standard deviation of its logarithm
STILL = 0.05  # standard deviation of the weights that would let it differ from row to row


class BNN(AbstractGenerative):
    """Blundell et al., "Weight Uncertainty in Neural Networks", ICML 2015: the control.

    Every task is on its own, nothing is learned from others. What a meta-learned prior is worth is
    its advantage over this.

    The prior of the weights is N(0, std² / fan-in), that of the biases N(0, std²), for inputs and
    outcomes of unit scale; `x_scale` and `y_scale` say where they have another. Where a normal or
    Student-t head asks for a scale of the noise, it is one number a task, a priori 0.3 of the
    outcomes' scale, within a factor of 1.6.

    q(w | support) is a diagonal normal. It starts at a draw of the prior, with a tenth of the
    prior's spread, and steps of Adam, in units of the prior's spread, lower
    E_q[-log p(support | w)] + kl_weight KL(q ‖ prior) (equation 1), with draws of w in place of the
    expectation (section 3.2). Without rows q is the prior.

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
        x_scale: Array | float = 1.0,
        y_scale: float = 1.0,
        steps: int = 1000,
        samples: int = 8,
        learning_rate: float = 0.02,
        kl_weight: float = 1.0,
    ) -> Self:
        """A small network.

        A diagonal posterior of a large one stays at the prior: moving a weight costs more than a
        few rows give. On linear tasks with 20 rows, 10 units end nearer to the exact predictive
        than 32, by 0.4 nats a row.

        Args:
            spec: shape of the tasks.
            key: unused: the prior has mean zero.
            width, depth: hidden units and layers (tanh).
            std: of the prior of every unit's input, and of the output, in units of the scales (1).
            x_scale: standard deviation of the inputs, a number or one a column.
            y_scale: standard deviation of the outcomes; of no use to classes.
            steps, samples, learning_rate: of Adam, its rate falling to zero, and draws of w a step.
                On sine waves and lines twice the steps change the median NLL by 0.05 nats a row or
                less.
            kl_weight: 1 is the evidence bound. Less predicts better (0.3: 0.3 nats a row with 10
                rows), but is no longer Bayes' rule.
        """
        net = network(spec, spec.head.raw_dim, width, depth, key=key, activation=jnp.tanh)
        zero = jax.tree.map(lambda a: jnp.zeros_like(a) if eqx.is_inexact_array(a) else a, net)

        def log_std(a):
            fan_in = a.shape[1] if a.ndim == 2 else 1
            return jnp.full_like(a, jnp.log(std) - 0.5 * jnp.log(float(fan_in)))

        scales = jax.tree.map(log_std, eqx.filter(net, eqx.is_inexact_array))
        prior = Diagonal(zero, scales)
        if isinstance(net, eqx.nn.MLP):
            prior = _in_units(prior, spec.head, jnp.asarray(x_scale), y_scale)
        return cls(prior, spec.head, steps, samples, learning_rate, kl_weight)

    def apply(self, w: Any, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
        """Raw outputs of a network with weights `w`."""
        return apply(w, x)

    def q(self, support: Data, key: PRNGKeyArray) -> Diagonal:
        """q(w | support)."""
        adam = optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps))
        start_key, key = jr.split(key)
        mean, fixed = eqx.partition(self.prior.mean, eqx.is_inexact_array)
        flat, unravel = ravel_pytree(mean)
        spread = jnp.exp(ravel_pytree(self.prior.log_std)[0])

        def weights(v):
            """w of distances from the prior's mean in units of its spread."""
            return eqx.combine(unravel(flat + spread * v), fixed)

        def bound(numbers, key):
            q = Diagonal(*numbers)

            def risk(k):
                v = q.mean + jnp.exp(q.log_std) * jr.normal(k, flat.shape)
                return self.head.risk(apply(weights(v), support.x), support, key=jr.fold_in(k, 1))

            kl = self.kl_weight * q.kl(standard) / jnp.maximum(support.count, 1)
            return jax.vmap(risk)(jr.split(key, self.samples)).mean() + kl

        def step(carry, key):
            numbers, state = carry
            with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
                updates, state = adam.update(jax.grad(bound)(numbers, key), state)
            return (jax.tree.map(jnp.add, numbers, updates), state), None

        standard = Diagonal(jnp.zeros_like(flat), jnp.zeros_like(flat))
        # With the prior's spread, draws would hardly depend on where q is: it starts narrow.
        start = jr.normal(start_key, flat.shape), standard.log_std + jnp.log(0.1)
        (numbers, _), _ = jax.lax.scan(step, (start, adam.init(start)), jr.split(key, self.steps))

        # Without rows q is the prior.
        q = jax.tree.map(
            lambda a, b: jnp.where(support.count > 0, a, b), Diagonal(*numbers), standard
        )
        return Diagonal(weights(q.mean), unravel(jnp.log(spread) + q.log_std))

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Sampled:
        return Sampled(eqx.Partial(draw, self.q(support, key)), apply, self.head)


def _in_units(prior: Diagonal, head: AbstractHead, x_scale: Array, y_scale: float) -> Diagonal:
    """A prior for inputs and outcomes of unit scale, for others."""
    first, last = prior.log_std.layers[0].weight, prior.log_std.layers[-1]
    prior = eqx.tree_at(lambda p: p.log_std.layers[0].weight, prior, first - jnp.log(x_scale))
    if not isinstance(head, Gaussian | StudentT):
        return prior
    last = prior.log_std.layers[-1]
    weight, bias = (jnp.asarray(a) for a in (last.weight, last.bias))
    where = prior.mean.layers[-1].bias
    value, noise = slice(0, head.y_dim), slice(head.y_dim, 2 * head.y_dim)
    weight, bias = (a.at[value].add(jnp.log(y_scale)) for a in (weight, bias))
    if len(bias) > head.y_dim:
        size = NOISE * y_scale
        raw = size + jnp.log(-jnp.expm1(-size))  # whose softplus it is
        slope = jax.nn.sigmoid(raw) / size  # of the logarithm of the softplus
        weight = weight.at[head.y_dim :].set(jnp.log(STILL))
        bias = bias.at[noise].set(jnp.log(FACTOR / slope))
        where = where.at[noise].set(raw)
    outer = [lambda p: p.log_std.layers[-1].weight, lambda p: p.log_std.layers[-1].bias]
    outer.append(lambda p: p.mean.layers[-1].bias)
    return eqx.tree_at(lambda p: [one(p) for one in outer], prior, [weight, bias, where])
