"""The two simulated families of PACOH, with their exact posteriors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Gaussian
from metaprior.infer.cholesky import factorise
from metaprior.mixture import Mixture, Part
from metaprior.nets.kernels import Stationary
from metaprior.posterior import AbstractPosterior
from metaprior.sources.exact import Exact, noisy
from metaprior.sources.shots import shots
from metaprior.task import Data, Task, concat, split

_HALF = 0.3  # amplitudes are 1 ± this
_SPREAD = {"shift": 0.1, "slope": 0.2, "height": 0.1}  # standard deviations
_CENTRE = {"slope": 0.5, "height": 5.0}
_NODES = np.polynomial.legendre.leggauss(24)
_SHIFTS = np.linspace(-4.5, 4.5, 91)  # in standard deviations


class SlopedSine(eqx.Module):
    """Rothfuss, Fortuin, Josifoski & Krause, "PACOH", ICML 2021: sine waves on sloped lines.

    y = slope x + A sin(1.5 (x - shift)) + height. As in the authors' code, A is uniform in
    [0.7, 1.3], shift ~ N(0, 0.1²), slope ~ N(0.5, 0.2²), height ~ N(5, 0.1²), x is uniform in
    [-5, 5], and every row has normal noise of standard deviation 0.1. They train on 20 tasks of 5
    rows and test with 5 rows.

    Args:
        support, query: rows of a task.
        fewest: support rows are uniform in `fewest` … `support`; `None` (default) shows all of
            them.
        noise: standard deviation of the noise, units of y.

    Example:
        >>> import jax
        >>> from metaprior.sources import SlopedSine
        >>> source = SlopedSine()
        >>> task = source(jax.random.key(0))
        >>> source.exact(task.support).predict(task.query.x, key=None, samples=1).mean().shape
        (10, 1)
    """

    support: int = eqx.field(static=True, default=5)
    query: int = eqx.field(static=True, default=10)
    fewest: int | None = eqx.field(static=True, default=None)
    noise: float = eqx.field(static=True, default=0.1)

    def __call__(self, key) -> Task:
        f_key, x_key, k_key, n_key = jr.split(key, 4)
        a_key, z_key = jr.split(f_key)
        amplitude = jr.uniform(a_key, (), minval=1 - _HALF, maxval=1 + _HALF)
        z = jr.normal(z_key, (3,))
        slope = _CENTRE["slope"] + _SPREAD["slope"] * z[0]
        height = _CENTRE["height"] + _SPREAD["height"] * z[1]
        shift = _SPREAD["shift"] * z[2]
        x = jr.uniform(x_key, (self.support + self.query, 1), minval=-5.0, maxval=5.0)
        y = slope * x + amplitude * jnp.sin(1.5 * (x - shift)) + height
        y = y + self.noise * jr.normal(n_key, y.shape)
        return shots(Data.of(x, y), self.support, self.fewest, key=k_key)

    def exact(self, support: Data) -> "SlopedSinePosterior":
        """The posterior that knows the family and the noise."""
        return SlopedSinePosterior(self.noise, support)


def _cells(dtype) -> tuple[Array, Array, Array]:
    """Amplitude and shift of every node of the quadrature, and its log probability; `(c,)` each."""
    shift = _SPREAD["shift"] * _SHIFTS
    log_shift = -0.5 * _SHIFTS**2
    amplitude, shift = np.meshgrid(1 + _HALF * _NODES[0], shift, indexing="ij")
    log_p = np.log(_NODES[1])[:, None] + log_shift
    log_p = log_p - np.logaddexp.reduce(log_p.ravel())

    def flat(values):
        return jnp.asarray(values.ravel(), dtype)

    return flat(amplitude), flat(shift), flat(log_p)


def _waves(x, dtype):
    """What every cell says of y beside the line, `(c, n)`."""
    a, s, _ = _cells(dtype)
    return a[:, None] * jnp.sin(1.5 * (x[:, 0] - s[:, None]))


def _line(x):
    return jnp.concatenate([x, jnp.ones_like(x)], axis=1)


class SlopedSinePosterior(AbstractPosterior):
    """The exact posterior, by a sum over a grid of amplitude and shift.

    Given these two, slope and height are a Gaussian regression. The grid has 24 Gauss–Legendre
    nodes of the amplitude and 91 even ones of the shift, 0.01 apart. It is fine enough as long as
    both are known to no better than about 0.01: up to some hundred rows at the sources' noise.

    Args:
        noise: standard deviation of the noise, units of y.
        support: what was observed.
    """

    noise: float
    support: Data

    def _condition(self, data: Data):
        """What the rows of `data` say of every cell, and of slope and height in it.

        Returns:
            log p(cell, y) `(c,)`, the posterior mean of slope and height in every cell `(c, 2)`,
            and their posterior covariance, which all cells share, `(2, 2)`.
        """
        dtype = data.y.dtype
        phi, mask = _line(data.x), data.mask
        centre = jnp.asarray([_CENTRE["slope"], _CENTRE["height"]], dtype)
        prior = jnp.asarray([_SPREAD["slope"] ** -2, _SPREAD["height"] ** -2], dtype)
        residual = jnp.where(mask, data.y[:, 0] - phi @ centre - _waves(data.x, dtype), 0.0)
        phi = jnp.where(mask[:, None], phi, 0.0)
        precision = jnp.diag(prior) + phi.T @ phi / self.noise**2
        factor = factorise(precision)
        gain = factor.solve(phi.T) / self.noise**2
        off = residual @ gain.T  # posterior mean, counted from the prior's

        # The sum of squares (of the rows' and of the prior's deviations) at its minimum, `off`.
        left = residual - off @ phi.T
        square = (left**2).sum(1) / self.noise**2 + (prior * off**2).sum(1)
        log_det = factor.log_det() - jnp.log(prior).sum()
        log_p = -0.5 * (square + log_det + data.count * jnp.log(2 * jnp.pi * self.noise**2))
        covariance = factor.solve(jnp.eye(2, dtype=dtype))
        return _cells(dtype)[2] + log_p, centre + off, covariance

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        log_p, line, cov = self._condition(self.support)
        phi = _line(x)
        mean = line @ phi.T + _waves(x, x.dtype)
        inside = jnp.broadcast_to(jnp.einsum("np,pq,nq->n", phi, cov, phi), mean.shape)
        params = jnp.stack([mean, jnp.sqrt(inside + self.noise**2)], -1)
        return Mixture((Part(Gaussian(1), params[:, :, None], log_p, inside[..., None]),))

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        log_p, line, cov = self._condition(self.support)
        c_key, w_key = jr.split(key)
        cell = jr.categorical(c_key, log_p, shape=(samples,))
        w = line[cell] + jr.normal(w_key, (samples, 2), x.dtype) @ factorise(cov).lower.T
        f = w @ _line(x).T + _waves(x, x.dtype)[cell]
        return noisy(f, self.noise)

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        def evidence(d):
            return jax.nn.logsumexp(self._condition(d)[0])

        return evidence(concat(self.support, data)) - evidence(self.support)


def _cauchy(x):
    """The mean function: two bumps shaped like Cauchy densities."""

    def bump(at):
        return 1 / (jnp.pi * (1 + ((x - at) ** 2).sum(-1)))

    return 6 * bump(-1.0) + 3 * bump(2.0) + 1


class Cauchy(eqx.Module):
    """PACOH's second family: two bumps in the plane plus a draw from a Gaussian process.

    The mean is 6 / (π (1 + |x + 1|²)) + 3 / (π (1 + |x - 2|²)) + 1, the covariance
    0.2² exp(-|x - x'|²), and the noise 0.05. As in the authors' code, each coordinate of x is
    normal with deviation 2.5, cut off at -3 and 2 deviations. They train on 20 tasks of 20 rows and
    test with 20.

    Args:
        support, query: rows of a task.
        fewest: support rows are uniform in `fewest` … `support`; `None` (default) shows all of
            them.
        noise: standard deviation of the noise, units of y.

    Example:
        >>> import jax
        >>> from metaprior.sources import Cauchy
        >>> source = Cauchy()
        >>> task = source(jax.random.key(0))
        >>> source.exact(task.support).predict(task.query.x, key=None, samples=1).mean().shape
        (10, 1)
    """

    support: int = eqx.field(static=True, default=20)
    query: int = eqx.field(static=True, default=10)
    fewest: int | None = eqx.field(static=True, default=None)
    noise: float = eqx.field(static=True, default=0.05)

    def _kernel(self) -> Stationary:
        return Stationary(jnp.log(jnp.asarray(0.2)), jnp.log(jnp.full(2, 0.5**0.5)), "eq")

    def __call__(self, key) -> Task:
        x_key, f_key, k_key = jr.split(key, 3)
        x = 2.5 * jr.truncated_normal(x_key, -3.0, 2.0, (self.support + self.query, 2))
        cov = self._kernel()(x, x) + self.noise**2 * jnp.eye(x.shape[0])
        y = _cauchy(x) + factorise(cov).lower @ jr.normal(f_key, x.shape[:1])
        return shots(Data.of(x, y), self.support, self.fewest, key=k_key)

    def exact(self, support: Data) -> Exact:
        """The posterior that knows mean, kernel and noise."""
        return Exact(_cauchy, (self._kernel(),), self.noise, support)


class CauchyMixture(eqx.Module):
    """F-PACOH's family in one dimension: three bumps of fixed shapes, not quite in fixed places.

    Rothfuss, Heyn, Chen & Krause, "Meta-Learning Reliable Priors in the Function Space", NeurIPS
    2021. With a Cauchy density c(u) = 1 / (π (1 + u²)) and a normal one n,

        f(x) = -2 s₁ c(x - l₁) - 1.5 s₂ n((x - l₂) / 2) - 1.8 s₃ c((x - l₃) / 4) - 1,

    s uniform in [0.6, 1.4], l₁ ~ N(-2, 0.3²), l₂ ~ N(3, 0.3²) and l₃ ~ N(-8, 0.3²). As in the
    authors' code, x is uniform in [-10, 10], the noise is 0.02, and there are 20 tasks of 10 rows.

    Args:
        support, query: rows of a task.
        noise: standard deviation of the noise, units of y.
        beyond: query rows lie uniformly from 10 + `beyond` to 10 + 2 `beyond` on either side, in
            place of [-10, 10]; 0 (default): among the others.

    Example:
        >>> import jax
        >>> from metaprior.sources import CauchyMixture
        >>> task = CauchyMixture()(jax.random.key(0))
        >>> task.support.x.shape, task.query.y.shape
        ((10, 1), (160, 1))
    """

    support: int = eqx.field(static=True, default=10)
    query: int = eqx.field(static=True, default=160)
    noise: float = eqx.field(static=True, default=0.02)
    beyond: float = eqx.field(static=True, default=0.0)

    def __call__(self, key) -> Task:
        s_key, l_key, x_key, n_key = jr.split(key, 4)
        s = jr.uniform(s_key, (3,), minval=0.6, maxval=1.4)
        at = jnp.array([-2.0, 3.0, -8.0]) + 0.3 * jr.normal(l_key, (3,))
        x = jr.uniform(x_key, (self.support + self.query, 1), minval=-10.0, maxval=10.0)
        if self.beyond:
            outside = (10 + self.beyond) * jnp.sign(x) + self.beyond / 10 * x
            x = x.at[self.support :].set(outside[self.support :])
        u = (x - at) / jnp.array([1.0, 2.0, 4.0])
        normal = jnp.exp(-0.5 * u[:, 1] ** 2) / (2 * jnp.pi) ** 0.5
        cauchy = 1 / (jnp.pi * (1 + u**2))
        y = -2 * s[0] * cauchy[:, 0] - 1.5 * s[1] * normal - 1.8 * s[2] * cauchy[:, 2] - 1
        y = y[:, None] + self.noise * jr.normal(n_key, x.shape)
        return split(Data.of(x, y), self.support)
