"""Heavy-tailed outcomes: Student's t, whose location, scale and df depend on x."""

import functools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.scipy.special import digamma
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads.base import AbstractNumberHead, check_raw

# Where quantiles are tabulated: inverse degrees of freedom, and levels as normal scores.
_INVERSE_DF = np.linspace(0.0, 0.5, 65)
_SCORES = np.linspace(-4.5, 4.5, 181)


# Of the cdf: deviations that are in the middle, and half the length of the fraction.
_MIDDLE = 2.1
_LEVELS = 12


@functools.cache
def _table() -> np.ndarray:
    """Quantiles of the standardised t: a row for each 1/df, a column for each normal score.

    They are smooth in these two coordinates, so linear interpolation is within 1e-3 of the scale
    for levels between 1e-5 and 1 - 1e-5.
    """
    # Imported here, as it takes long and most predictions do without.
    from scipy import special

    level = special.ndtr(_SCORES)
    normal = special.ndtri(level)  # 1/df = 0
    return np.stack([normal, *(special.stdtrit(1 / i, level) for i in _INVERSE_DF[1:])])


def log_gamma_ratio(df):
    """log Gamma((df+1)/2) - log Gamma(df/2), accurate in float32 for large df as well."""
    # For large df the two terms are large and nearly equal: a series for their difference.
    large = 0.5 * jnp.maximum(df, 20.0)
    series = 0.5 * jnp.log(large) - 1 / (8 * large) + 1 / (192 * large**3) - 1 / (640 * large**5)
    small = jnp.minimum(df, 20.0)
    exact = jax.lax.lgamma(0.5 * (small + 1)) - jax.lax.lgamma(0.5 * small)
    return jnp.where(df > 20.0, series, exact)


def _fraction(a, b, x, far):
    """Continued fraction of I_x(a, b) (Abramowitz & Stegun, 26.5.8), two of its levels at a time.

    Far out x is close to 1, where its last digits decide: `far` is 1 - x there, and 0 elsewhere.
    """

    def odd(m):  # the coefficient of level 2 m + 1 is this times -x
        return (a + m) * (a + b + m) / ((a + 2 * m) * (a + 2 * m + 1))

    def even(m):  # the coefficient of level 2 m is this times x
        return m * (b - m) / ((a + 2 * m - 1) * (a + 2 * m))

    def one_less_odd(m):  # 1 - odd(m) x
        gap = (a * (2 * m + 1 - b) + m * (3 * m + 2 - b)) / ((a + 2 * m) * (a + 2 * m + 1))
        return jnp.where(far > 0, gap + odd(m) * far, 1 - odd(m) * x)

    def level(i, f):
        m = jnp.asarray(_LEVELS - i, x.dtype)
        return -odd(m - 1) * even(m) * x * x / (one_less_odd(m) + even(m) * x - f)

    f = jax.lax.fori_loop(0, _LEVELS, level, jnp.zeros_like(x))
    return 1 / (one_less_odd(0) - f)


def standard_density(z: Array, df: Array) -> Array:
    """Density of the standardised t with `df` degrees of freedom."""
    log_p = log_gamma_ratio(df) - 0.5 * jnp.log(jnp.pi * df)
    return jnp.exp(log_p - 0.5 * (df + 1) * jnp.log1p(z * z / df))


def _below(z, df):
    """P(Z <= z) of the standardised t, to 1e-7; a small tail keeps its digits.

    I_x(df / 2, 1 / 2) with x = df / (df + z²), or in the middle 1 - I_(1 - x)(1 / 2, df / 2). With
    the density each is a factor times the fraction.
    """
    square = z * z
    far, half = square > _MIDDLE**2, jnp.full_like(df, 0.5)
    x, rest = (part / (df + square) for part in (jnp.where(far, df, square), square))
    first, second = jnp.where(far, 0.5 * df, half), jnp.where(far, half, 0.5 * df)
    fraction = _fraction(first, second, x, jnp.where(far, rest, 0.0))
    part = jnp.abs(z) * standard_density(z, df) * fraction
    tail = jnp.where(far, part / df, 0.5 - part)
    return jnp.where(z > 0, 1 - tail, tail)


@jax.custom_jvp
def standard_cdf(z: Array, df: Array) -> Array:
    """P(Z <= z) of the standardised t with `df` degrees of freedom, of the same shape as `z`."""
    return _below(z, df)


def _standard_cdf_jvp(primals, tangents):
    (z, df), (dz, ddf) = primals, tangents
    slope = jnp.zeros_like(z)
    if not isinstance(dz, SymbolicZero):
        slope = standard_density(z, df) * dz
    if not isinstance(ddf, SymbolicZero):
        slope = slope + jax.jvp(lambda df: _below(z, df), (df,), (ddf,))[1]
    return standard_cdf(z, df), slope


standard_cdf.defjvp(_standard_cdf_jvp, symbolic_zeros=True)


class StudentT(AbstractNumberHead):
    """Student's t for each of `p` outcomes; natural parameters `(…, p, 3)`: location, scale, df.

    Args:
        dim: number of outcomes `p`, at least 1.
        floor: smallest scale, units of y.
        df_floor: smallest degrees of freedom; above 2, so that the variance exists.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.heads import StudentT
        >>> head = StudentT(1)
        >>> head.raw_dim, head.variance(head.params(jnp.zeros((5, 3)))).shape
        (3, (5, 1))
    """

    dim: int = eqx.field(static=True, default=1)
    floor: float = eqx.field(static=True, default=1e-2)
    df_floor: float = eqx.field(static=True, default=2.5)

    density: ClassVar[bool] = True
    symmetric: ClassVar[bool] = True

    def __check_init__(self):
        if self.dim < 1:
            raise ValueError(f"StudentT takes at least 1 outcome; got {self.dim}.")

    @property
    def raw_dim(self) -> int:
        return 3 * self.dim

    def params(self, raw: Float[Array, "*b r"]) -> Array:
        check_raw(self, raw)
        location, scale, df = jnp.split(raw, 3, axis=-1)
        scale = self.floor + jax.nn.softplus(scale)
        df = self.df_floor + jax.nn.softplus(df + 5.0)  # starts near 7.5
        return jnp.stack([location, scale, df], axis=-1)

    def raw(self, location: Array, scale: Array, df: Array) -> Float[Array, "*b r"]:
        """What `params` makes these of, for a scale and `df` above their floors; `(*b, p)` each."""

        def inverse(value):  # of the softplus
            return value + jnp.log(-jnp.expm1(-value))

        scale, df = inverse(scale - self.floor), inverse(df - self.df_floor) - 5.0
        return jnp.concatenate(jnp.broadcast_arrays(location, scale, df), axis=-1)

    def log_prob(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b"]:
        location, scale, df = jnp.unstack(params, axis=-1)
        z = (y - location) / scale
        log_p = log_gamma_ratio(df) - 0.5 * jnp.log(jnp.pi * df) - jnp.log(scale)
        return (log_p - 0.5 * (df + 1) * jnp.log1p(z * z / df)).sum(-1)

    def loss(
        self, params: Array, y: Float[Array, "*b p"], *, key: PRNGKeyArray
    ) -> Float[Array, "*b"]:
        return -self.log_prob(params, y)

    def sample(self, params: Array, *, key: PRNGKeyArray) -> Float[Array, "*b p"]:
        df = params[..., 2]
        return params[..., 0] + params[..., 1] * jr.t(key, df, df.shape, params.dtype)

    def mean(self, params: Array) -> Array:
        return params[..., 0]

    def variance(self, params: Array) -> Array:
        df = params[..., 2]
        return params[..., 1] ** 2 * df / (df - 2)

    def entropy(self, params: Array) -> Float[Array, "*b"]:
        scale, df = params[..., 1], params[..., 2]
        tail = 0.5 * (df + 1) * (digamma(0.5 * (df + 1)) - digamma(0.5 * df))
        return (tail + 0.5 * jnp.log(jnp.pi * df) - log_gamma_ratio(df) + jnp.log(scale)).sum(-1)

    def cdf(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        location, scale, df = params[..., 0], params[..., 1], params[..., 2]
        z = (y - location) / scale
        return standard_cdf(z, jnp.broadcast_to(df, z.shape))

    def quantile(self, params: Array, level: Float[Array, ""]) -> Float[Array, "*b p"]:
        # jax has no inverse of the t's cdf: interpolate in the level, then in 1/df.
        table, scores = jnp.asarray(_table(), params.dtype), jnp.asarray(_SCORES, params.dtype)
        score = jax.scipy.special.ndtri(jnp.asarray(level, params.dtype))
        at_level = jax.vmap(lambda row: jnp.interp(score, scores, row))(table)
        z = jnp.interp(1 / params[..., 2], jnp.asarray(_INVERSE_DF, params.dtype), at_level)
        return params[..., 0] + params[..., 1] * z
