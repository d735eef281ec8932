"""Several outcomes as a sequence of conditionals."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads.base import AbstractDrawnHead, AbstractHead, check_raw
from metaprior.heads.draws import Draws, uniform_points
from metaprior.heads.gaussian import Gaussian
from metaprior.heads.network import at, network


class Autoregressive(AbstractDrawnHead):
    """The chain rule, for any dependence between outcomes.

    p(y | x) = prod_j p(y_j | context(x), y_1 … y_{j-1}): Uria, Côté, Gregor, Murray & Larochelle,
    "Neural Autoregressive Distribution Estimation", JMLR 2016 (equation 1), with a network for
    every conditional. The learner's network gives a context of `width` numbers a point. Network j
    turns the context and the outcomes before the j-th into the raw outputs of `inner`, a head for
    one outcome.

    The joint log density and samples are exact. Everything else comes from `draws` ancestral draws
    at fixed even points: mean, variance, cdf and quantiles of each outcome, and the entropy. With
    256 draws a mean and a cdf are within 0.01, and the entropy within 0.02 nats an outcome. A
    quantile below 1/512 or above 511/512 is that of the outermost draw.

    Args:
        nets: network j of outcome j; their arrays are meta-parameters.
        inner: density of one outcome.
        width: numbers in the context.
        draws: ancestral draws for marginals.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.heads import Autoregressive
        >>> head = Autoregressive.init(2, key=jax.random.key(0))
        >>> head.raw_dim, head.log_prob(head.params(jnp.zeros((5, 16))), jnp.zeros((5, 2))).shape
        (16, (5,))
    """

    nets: tuple[eqx.nn.MLP, ...]
    inner: AbstractHead
    width: int = eqx.field(static=True)
    draws: int = eqx.field(static=True)

    density: ClassVar[bool] = True

    @classmethod
    def init(
        cls,
        dim: int,
        *,
        key,
        inner: AbstractHead | None = None,
        width=16,
        hidden=32,
        depth=1,
        draws=256,
    ) -> "Autoregressive":
        """Small networks: the network before the head has found what matters of x.

        Args:
            dim: number of outcomes `p`, at least 1, in the order of the sequence.
            key: initial weights.
            inner: head for one outcome, with a density; `Gaussian(1)` unless given.
            width: numbers in the context.
            hidden, depth: units and hidden layers of each conditional's network.
            draws: ancestral draws for marginals.
        """
        inner = Gaussian(1) if inner is None else inner
        if dim < 1:
            raise ValueError(f"Autoregressive takes at least 1 outcome; got {dim}.")
        if inner.y_dim != 1 or inner.classes or not inner.density:
            raise ValueError(
                "Autoregressive takes an inner head for one number with a density; "
                f"got {type(inner).__name__} (outcomes: {inner.y_dim}, classes: {inner.classes}, "
                f"density: {inner.density})."
            )
        nets = [
            network(width + j, inner.raw_dim, hidden, depth, key=k)
            for j, k in enumerate(jr.split(key, dim))
        ]
        return cls(tuple(nets), inner, width, draws)  # ty: ignore[missing-argument, invalid-argument-type]

    @property
    def raw_dim(self) -> int:
        return self.width

    @property
    def dim(self) -> int:
        return len(self.nets)

    def params(self, raw: Float[Array, "*b r"]) -> Array:
        check_raw(self, raw)
        return raw

    def _conditional(self, context, before):
        """Natural parameters of the outcome that comes after those in `before`, `(…, j)`."""
        return self.inner.params(at(self.nets[before.shape[-1]], context, before))

    def log_prob(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b"]:
        total: Any = 0.0
        for j in range(self.dim):
            conditional = self._conditional(params, y[..., :j])
            total = total + self.inner.log_prob(conditional, y[..., j : j + 1])
        return total

    def loss(
        self, params: Array, y: Float[Array, "*b p"], *, key: PRNGKeyArray
    ) -> Float[Array, "*b"]:
        return -self.log_prob(params, y)

    def _ancestral(self, params, draw):
        """All outcomes, the j-th by `draw(j, conditional)` once those before it are known."""
        y = jnp.zeros((*params.shape[:-1], 0), params.dtype)
        for j in range(self.dim):
            y = jnp.concatenate([y, draw(j, self._conditional(params, y))], axis=-1)
        return y

    def sample(self, params: Array, *, key: PRNGKeyArray) -> Float[Array, "*b p"]:
        keys = jr.split(key, self.dim)

        def draw(j, conditional):
            return self.inner.sample(conditional, key=keys[j])

        return self._ancestral(params, draw)

    def outcomes(self, params: Array) -> Draws:
        # An even point of the unit cube, sent through the conditional quantiles, is a draw.
        levels = jnp.asarray(uniform_points(self.draws, self.dim), params.dtype)

        def one(u):
            return self._ancestral(params, lambda j, each: self.inner.quantile(each, u[j]))

        values = jax.vmap(one)(levels)
        return Draws(values, jnp.zeros(values.shape[:-1], params.dtype))

    def entropy(self, params: Array) -> Float[Array, "*b"]:
        return -self.log_prob(params, self.outcomes(params).values).mean(0)
