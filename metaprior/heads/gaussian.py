"""Normal outcomes, with a scale that depends on x or is fixed."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy import stats
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads.base import AbstractNumberHead, check_raw

LOG_2PI_E = 2.8378770664093453


class Gaussian(AbstractNumberHead):
    """N(mean, scale²) for each of `p` outcomes. Natural parameters: `(…, p, 2)`, mean and scale.

    Args:
        dim: number of outcomes `p`, at least 1.
        scale: standard deviation, units of y. `None` (default): the network gives it for every
            point, through a softplus. A number is fixed and an array is a meta-parameter; then the
            network gives the mean alone. With `scale = sqrt(1/2)` the negative log density is the
            squared error plus a constant, as in MAML's regression.
        floor: smallest scale the network can ask for, units of y.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.heads import Gaussian
        >>> head = Gaussian(1)
        >>> head.raw_dim, head.log_prob(head.params(jnp.zeros((5, 2))), jnp.zeros((5, 1))).shape
        (2, (5,))
    """

    dim: int = eqx.field(static=True, default=1)
    scale: jax.Array | float | None = None
    floor: float = eqx.field(static=True, default=1e-2)

    density: ClassVar[bool] = True
    symmetric: ClassVar[bool] = True

    def __check_init__(self):
        if self.dim < 1:
            raise ValueError(f"Gaussian takes at least 1 outcome; got {self.dim}.")
        if isinstance(self.scale, int | float) and not self.scale > 0:
            raise ValueError(f"Gaussian takes a scale above 0; got {self.scale}.")

    @property
    def raw_dim(self) -> int:
        return self.dim * (2 if self.scale is None else 1)

    def params(self, raw: Float[Array, "*b r"]) -> Array:
        check_raw(self, raw)
        if self.scale is None:
            mean, scale = jnp.split(raw, 2, axis=-1)
            scale = self.floor + jax.nn.softplus(scale)
        else:
            # One scale for all points, repeated so that every head's parameters look alike.
            mean, scale = raw, jnp.broadcast_to(self.scale, raw.shape).astype(raw.dtype)
        return jnp.stack([mean, scale], axis=-1)

    def log_prob(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b"]:
        # Not slices: the gradient of each would be an array of its own, filled up with zeros.
        mean, scale = jnp.unstack(params, axis=-1)
        return stats.norm.logpdf(y, mean, scale).sum(-1)

    def loss(
        self, params: Array, y: Float[Array, "*b p"], *, key: PRNGKeyArray
    ) -> Float[Array, "*b"]:
        return -self.log_prob(params, y)

    def sample(self, params: Array, *, key: PRNGKeyArray) -> Float[Array, "*b p"]:
        noise = jr.normal(key, params.shape[:-1], params.dtype)
        return params[..., 0] + params[..., 1] * noise

    def mean(self, params: Array) -> Array:
        return params[..., 0]

    def variance(self, params: Array) -> Array:
        return params[..., 1] ** 2

    def entropy(self, params: Array) -> Float[Array, "*b"]:
        return (0.5 * LOG_2PI_E + jnp.log(params[..., 1])).sum(-1)

    def cdf(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        return stats.norm.cdf(y, params[..., 0], params[..., 1])

    def quantile(self, params: Array, level: Float[Array, ""]) -> Float[Array, "*b p"]:
        return params[..., 0] + params[..., 1] * ndtri(level)
