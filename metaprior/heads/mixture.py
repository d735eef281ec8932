"""Mixture density networks: outcomes with several modes."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy import stats
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads.base import AbstractNumberHead, check_raw
from metaprior.heads.draws import bisect, leading, normal_nodes, normal_points

_NODES = 64  # a component, for the entropy


class MixtureDensity(AbstractNumberHead):
    """Bishop, "Mixture Density Networks", 1994 (section 3): K weighted normals from the network.

    p(y | x) = sum_k π_k prod_j N(y_j; μ_kj, σ_kj²). All `p` outcomes share the components. Given k
    they are independent, but the mixture can represent dependence between them. Natural parameters:
    `(…, K, 1 + 2p)`, the log weight, means and scales of each component.

    Components that start alike get the same gradient and stay alike. Component k therefore starts
    around the k-th of K even points of a standard normal (one outcome: its (k + 1/2)/K quantile),
    times `spread`; the network gives the way from there.

    Mean, variance and cdf are exact, and quantiles are found by bisection. The entropy comes from
    64 even points a component: within 0.02 nats, whether components overlap or lie apart.

    Args:
        components: K, at least 1 (5: the sine-or-line task needs 2, and idle ones cost little).
        dim: number of outcomes `p`, at least 1.
        spread: of the components' first means, units of y (1: standardised outcomes).
        floor: smallest scale, units of y.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.heads import MixtureDensity
        >>> head = MixtureDensity(2)
        >>> head.raw_dim, head.mean(head.params(jnp.zeros((5, 6)))).shape
        (6, (5, 1))
    """

    components: int = eqx.field(static=True, default=5)
    dim: int = eqx.field(static=True, default=1)
    spread: float = eqx.field(static=True, default=1.0)
    floor: float = eqx.field(static=True, default=1e-2)

    density: ClassVar[bool] = True

    def __check_init__(self):
        if self.components < 1 or self.dim < 1:
            raise ValueError(
                "MixtureDensity takes at least 1 component and 1 outcome; "
                f"got {self.components} and {self.dim}."
            )

    @property
    def raw_dim(self) -> int:
        return self.components * (1 + 2 * self.dim)

    def params(self, raw: Float[Array, "*b r"]) -> Array:
        check_raw(self, raw)
        raw = raw.reshape(*raw.shape[:-1], self.components, 1 + 2 * self.dim)
        start = jnp.asarray(self.spread * normal_points(self.components, self.dim), raw.dtype)
        log_weight = jax.nn.log_softmax(raw[..., :1], axis=-2)
        scale = self.floor + jax.nn.softplus(raw[..., 1 + self.dim :])
        return jnp.concatenate([log_weight, start + raw[..., 1 : 1 + self.dim], scale], axis=-1)

    def _split(self, params):
        """Log weights `(…, K)`, means and scales `(…, K, p)`."""
        return params[..., 0], params[..., 1 : 1 + self.dim], params[..., 1 + self.dim :]

    def _average(self, params, values):
        """Weighted mean over the components of `(…, K, p)` values."""
        return (jnp.exp(params[..., :1]) * values).sum(-2)

    def log_prob(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b"]:
        log_weight, mean, scale = self._split(params)
        each = stats.norm.logpdf(y[..., None, :], mean, scale).sum(-1)
        return jax.nn.logsumexp(log_weight + each, axis=-1)

    def loss(
        self, params: Array, y: Float[Array, "*b p"], *, key: PRNGKeyArray
    ) -> Float[Array, "*b"]:
        return -self.log_prob(params, y)

    def sample(self, params: Array, *, key: PRNGKeyArray) -> Float[Array, "*b p"]:
        which, noise = jr.split(key)
        k = jr.categorical(which, params[..., 0])[..., None, None]
        chosen = jnp.take_along_axis(params, k, axis=-2)[..., 0, :]
        _, mean, scale = self._split(chosen)
        return mean + scale * jr.normal(noise, mean.shape, params.dtype)

    def mean(self, params: Array) -> Array:
        return self._average(params, self._split(params)[1])

    def variance(self, params: Array) -> Array:
        _, mean, scale = self._split(params)
        return self._average(params, scale**2 + (mean - self.mean(params)[..., None, :]) ** 2)

    def entropy(self, params: Array) -> Float[Array, "*b"]:
        log_weight, mean, scale = self._split(params)
        z, log_share = normal_nodes(_NODES, self.dim)
        y = jnp.moveaxis(mean + scale * leading(z, mean, 1), -2, 1)  # (m, K, …, p)
        share = jnp.asarray(np.exp(log_share), params.dtype)
        log_p = jnp.tensordot(share, self.log_prob(params, y), axes=1)
        return -(jnp.moveaxis(jnp.exp(log_weight), -1, 0) * log_p).sum(0)

    def cdf(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        _, mean, scale = self._split(params)
        return self._average(params, stats.norm.cdf(y[..., None, :], mean, scale))

    def quantile(self, params: Array, level: Float[Array, ""]) -> Float[Array, "*b p"]:
        _, mean, scale = self._split(params)
        each = mean + scale * ndtri(jnp.asarray(level, params.dtype))
        return bisect(lambda y: self.cdf(params, y), level, each.min(-2), each.max(-2))
