"""Normalising flows: densities of any shape with exact likelihoods."""

from functools import partial
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
from metaprior.heads.draws import Draws, leading, normal_nodes
from metaprior.heads.network import at, network

BOUND = 4.0  # splines live on [-4, 4], in standard deviations, and are straight beyond
# Smallest width and height of a bin (a share of the interval), slope and scale. It bounds the
# density.
SMALLEST = 1e-2
_ONE = float(np.log(np.expm1(1.0)))  # softplus of it is 1


@partial(jnp.vectorize, signature="(k),()->(),()", excluded={2})
def _spline(numbers, value, inverse: bool):
    """A monotone map of the line, and the log of its slope.

    Durkan, Bekasov, Murray & Papamakarios, "Neural Spline Flows", NeurIPS 2019, section 3.1, after
    a shift and a scale. Numbers that are all 0 leave (nearly) everything where it is.
    """
    # Imported here: half a second that other heads need not wait for.
    from flowjax.bijections import RationalQuadraticSpline

    bins = (numbers.shape[0] - 1) // 3
    location, scale = numbers[0], SMALLEST + jax.nn.softplus(numbers[1] + _ONE)

    def knots(a):
        """Ends of the bins: -BOUND, then the sums of their widths, then BOUND."""
        share = SMALLEST + (1 - bins * SMALLEST) * jax.nn.softmax(a)
        inner = BOUND * (2 * jnp.cumsum(share)[:-1] - 1)
        return jnp.concatenate([jnp.full(1, -BOUND, a.dtype), inner, jnp.full(1, BOUND, a.dtype)])

    slopes = SMALLEST + (1 - SMALLEST) * jax.nn.softplus(numbers[2 + 2 * bins :] + _ONE)
    slopes = jnp.pad(slopes, 1, constant_values=1.0)  # smooth where the straight parts begin
    spline = RationalQuadraticSpline(knots=bins - 1, interval=BOUND)
    parts = (knots(numbers[2 : 2 + bins]), knots(numbers[2 + bins : 2 + 2 * bins]), slopes)
    spline = eqx.tree_at(lambda s: (s.x_pos, s.y_pos, s.derivatives), spline, parts)
    if inverse:
        z, log_slope = spline.inverse_and_log_det(value)
        return location + scale * z, log_slope + jnp.log(scale)
    z, log_slope = spline.transform_and_log_det((value - location) / scale)
    return z, log_slope - jnp.log(scale)


class Flow(AbstractNumberHead):
    """A conditional normalising flow: y is a normal vector z, sent through maps that depend on x.

    Durkan et al., "Neural Spline Flows", NeurIPS 2019, with the splines of flowjax. On the way from
    y to z each outcome is shifted, scaled and bent by a monotone rational-quadratic spline, whose
    numbers the learner's network gives. With several outcomes, coupling layers follow (section 3.2
    of the paper): every other coordinate is bent by a spline, whose numbers a network in this head
    makes from the rest and a context of `width` numbers. log p(y) is log p(z) plus the log slopes.

    One outcome has exact cdf and quantiles. Mean, variance and entropy come from `draws` even
    points of z sent back; with several outcomes, also the cdf and quantiles of each. With 128
    points, mean and cdf are within 0.01 (in standard deviations), the variance within 2 %, the
    entropy within 0.02 nats an outcome.

    Args:
        nets: of the coupling layers, none for one outcome; their arrays are meta-parameters.
        dim: number of outcomes `p`.
        width: numbers in the context, 0 for one outcome.
        bins: of each spline.
        draws: even points of z.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.heads import Flow
        >>> head = Flow.init(1, key=jax.random.key(0))
        >>> head.raw_dim, head.cdf(head.params(jnp.zeros((5, 25))), jnp.zeros((5, 1))).shape
        (25, (5, 1))
    """

    nets: tuple[eqx.nn.MLP, ...]
    dim: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    bins: int = eqx.field(static=True)
    draws: int = eqx.field(static=True)

    density: ClassVar[bool] = True

    @classmethod
    def init(
        cls, dim: int = 1, *, key, bins=8, layers=2, width=16, hidden=32, depth=1, draws=256
    ) -> "Flow":
        """Coupling layers that start near the identity.

        Args:
            dim: number of outcomes `p`, at least 1.
            key: initial weights; one outcome has none.
            bins: of each spline, at least 2 (8, the paper's appendix B).
            layers: coupling layers, for several outcomes: at least 2, so that every outcome is
                moved by others.
            width: numbers in the context, for several outcomes.
            hidden, depth: units and hidden layers of the coupling networks.
            draws: even points of z for moments.
        """
        if dim < 1 or bins < 2 or layers < 2:
            raise ValueError(
                "Flow takes dim of at least 1, bins and layers of at least 2; "
                f"got {dim}, {bins}, {layers}."
            )
        nets = []
        for i, k in enumerate(jr.split(key, layers) if dim > 1 else ()):
            keep, move = _halves(dim, i)
            net = network(width + len(keep), len(move) * (1 + 3 * bins), hidden, depth, key=k)

            nets.append(eqx.tree_at(_last, net, tuple(0.1 * a for a in _last(net))))
        return cls(tuple(nets), dim, width if dim > 1 else 0, bins, draws)  # ty: ignore[missing-argument, invalid-argument-type]

    @property
    def raw_dim(self) -> int:
        return self.dim * (1 + 3 * self.bins) + self.width

    def params(self, raw: Float[Array, "*b r"]) -> Array:
        check_raw(self, raw)
        return raw

    def _split(self, params):
        """Numbers of each outcome's own spline, `(…, p, 1 + 3 bins)`, and the context."""
        size = params.shape[-1] - self.width
        own, context = params[..., :size], params[..., size:]
        return own.reshape(*own.shape[:-1], self.dim, 1 + 3 * self.bins), context

    def _couple(self, i, context, z, inverse):
        """Coupling layer `i`: z with some coordinates bent, and the sum of the log slopes.

        The numbers of these splines are made from the other coordinates, which stay: so the layer
        has an inverse.
        """
        keep, move = _halves(self.dim, i)
        numbers = at(self.nets[i], context, z[..., keep])
        numbers = numbers.reshape(*numbers.shape[:-1], len(move), -1)
        moved, log_slope = _spline(numbers, z[..., move], inverse)
        return z.at[..., move].set(moved), log_slope.sum(-1)

    def _to_base(self, params, y):
        """z, and the log determinant of the map to it."""
        own, context = self._split(params)
        z, log_slope = _spline(own, y, False)
        total = log_slope.sum(-1)
        for i in range(len(self.nets)):
            z, log_slope = self._couple(i, context, z, False)
            total = total + log_slope
        return z, total

    def _from_base(self, params, z):
        """The outcome that z stands for; the inverse of `_to_base`."""
        own, context = self._split(params)
        z = jnp.broadcast_to(z, jnp.broadcast_shapes(z.shape, own.shape[:-1]))
        for i in reversed(range(len(self.nets))):
            z, _ = self._couple(i, context, z, True)
        return _spline(own, z, True)[0]

    def log_prob(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b"]:
        z, log_slope = self._to_base(params, y)
        return stats.norm.logpdf(z).sum(-1) + log_slope

    def loss(
        self, params: Array, y: Float[Array, "*b p"], *, key: PRNGKeyArray
    ) -> Float[Array, "*b"]:
        return -self.log_prob(params, y)

    def sample(self, params: Array, *, key: PRNGKeyArray) -> Float[Array, "*b p"]:
        return self._from_base(params, jr.normal(key, (*params.shape[:-1], self.dim), params.dtype))

    def _draws(self, params):
        z, log_weight = normal_nodes(self.draws, self.dim)
        values = self._from_base(params, leading(z, params, 1))
        return Draws(values, jnp.broadcast_to(leading(log_weight, params, 0), values.shape[:-1]))

    def mean(self, params: Array) -> Array:
        return self._draws(params).mean()

    def variance(self, params: Array) -> Array:
        return self._draws(params).variance()

    def entropy(self, params: Array) -> Float[Array, "*b"]:
        draws = self._draws(params)
        return -(draws.weights() * self.log_prob(params, draws.values)).sum(0)

    def cdf(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        if self.dim > 1:
            return self._draws(params).cdf(y)
        return stats.norm.cdf(self._to_base(params, y)[0])

    def quantile(self, params: Array, level: Float[Array, ""]) -> Float[Array, "*b p"]:
        if self.dim > 1:
            return self._draws(params).quantile(level)
        z = jnp.full((*params.shape[:-1], 1), ndtri(jnp.asarray(level, params.dtype)), params.dtype)
        return self._from_base(params, z)


def _last(net: eqx.nn.MLP) -> tuple:
    """Weight and bias of the last layer."""
    return net.layers[-1].weight, net.layers[-1].bias


def _halves(dim: int, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates that a coupling layer keeps, and those it moves."""
    odd = (np.arange(dim) + layer) % 2 == 1
    return np.flatnonzero(~odd), np.flatnonzero(odd)
