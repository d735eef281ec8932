"""Mean and noise functions of processes: small modules from x to one or a few numbers a point."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads.ordinal import location_of
from metaprior.method import Spec
from metaprior.nets.kernels import polynomial
from metaprior.nets.mlp import apply, zero_last


class Mean(eqx.Module):
    """Pooled prediction times a coefficient + polynomial + small net; `(n, d) -> (n, c)`.

    `c` is 1 for numbers and for classes in an order, else the number of classes. Any of the three
    terms may be absent.

    Args:
        coefficient: of the pooled prediction, or `None`.
        weights: of the polynomial's features, `(q, c)`, or `None`.
        net: from x to `c` numbers, or `None`.
        pooled: how many of the last columns of x are the pooled prediction.
        degree: of the polynomial.
        out: `c`.
    """

    coefficient: Array | float | None
    weights: Float[Array, "q c"] | None
    net: eqx.nn.MLP | None
    pooled: int = eqx.field(static=True)
    degree: int = eqx.field(static=True)
    out: int = eqx.field(static=True)

    @staticmethod
    def init(spec: Spec, *, degree: int, width: int, key: PRNGKeyArray) -> "Mean":
        """Polynomial and net start at zero, the pooled prediction's coefficient at one.

        Args:
            spec: shape of the tasks.
            degree: of the polynomial, 0 to 2.
            width: hidden units of the net; 0 leaves it out.
            key: initial weights.
        """
        out = spec.head.raw_dim if spec.head.classes else 1
        net = None
        if width:
            net = zero_last(eqx.nn.MLP(spec.x_dim, out, width, 2, activation=jnp.tanh, key=key))
        weights = jnp.zeros((1 + degree * spec.x_dim, out))
        return Mean(jnp.ones(()) if spec.pooled else None, weights, net, spec.pooled, degree, out)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n c"]:
        value = jnp.zeros((x.shape[0], self.out), x.dtype)
        if self.pooled and self.coefficient is not None:
            pooled = x[:, x.shape[1] - self.pooled :]
            # Of classes in an order, log probabilities say where on one axis they lie.
            pooled = location_of(pooled) if self.pooled > self.out else pooled
            value = value + self.coefficient * pooled
        if self.weights is not None:
            seen = x[:, : (self.weights.shape[0] - 1) // max(self.degree, 1)]
            value = value + polynomial(seen, self.degree) @ self.weights
        return value if self.net is None else value + apply(self.net, x)


class Scale(eqx.Module):
    """Noise standard deviation `floor + exp(log_std + net(x))`, units of y.

    Args:
        log_std: log of the common scale.
        net: from x to the log of a factor, or `None` for constant noise.
        floor: smallest standard deviation.
    """

    log_std: Array
    net: eqx.nn.MLP | None
    floor: float = eqx.field(static=True, default=3e-3)

    @staticmethod
    def init(d: int, std: float, *, width: int, key: PRNGKeyArray) -> "Scale":
        """Starts at `std` everywhere; `width = 0` keeps it constant."""
        net = None
        if width:
            net = zero_last(eqx.nn.MLP(d, 1, width, 1, activation=jnp.tanh, key=key))
        return Scale(jnp.log(jnp.asarray(std)), net)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n"]:
        log_std = jnp.broadcast_to(self.log_std, x.shape[:1])
        if self.net is not None:
            # At most e³ times the common scale, and at least e⁻³: far from the rows that were seen
            # the net could give any number.
            log_std = log_std + 3.0 * jnp.tanh(apply(self.net, x)[:, 0] / 3.0)
        return self.floor + jnp.exp(log_std)
