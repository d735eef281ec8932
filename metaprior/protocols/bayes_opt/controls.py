"""What stands beside a learned prior: processes from scratch, and the priors that are true."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.method import AbstractLearner
from metaprior.mixture import Mixture, Part
from metaprior.nets.kernels import AbstractKernel, Stationary
from metaprior.posterior import AbstractPosterior
from metaprior.protocols.bayes_opt.data import (
    FORRESTER_HIGH,
    FORRESTER_LOW,
    LENGTHS,
    SCALES,
    Family,
    forrester_features,
)
from metaprior.sources.exact import Exact
from metaprior.task import Data


class Level(eqx.Module):
    """A mean that is the same everywhere."""

    value: Array

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n"]:
        return jnp.broadcast_to(self.value, x.shape[:1])


class Settings(eqx.Module):
    """Settings of Gaussian processes, stacked.

    Args:
        log_std, log_length, noise: of the function, of each column, and of observations.
    """

    log_std: Float[Array, "*g"]
    log_length: Float[Array, "*g d"]
    noise: Float[Array, "*g"]

    def exact(self, mean: Array, support: Data, shape: str) -> Exact:
        """The posterior under one setting."""
        kernel = Stationary(self.log_std, self.log_length, shape)
        return Exact(Level(mean), (kernel,), self.noise, support)


class OverSettings(AbstractLearner):
    """A Gaussian process whose settings are those of a grid: the most likely one, or all of them.

    Nothing is learned from other functions, unless the grid is.

    Args:
        settings: the grid, `g` of them.
        average: the posterior over the grid, each setting as likely before; otherwise the setting
            of highest marginal likelihood (ML-II).
        scaled: mean and standard deviation of the function are those of what was observed of it.
        shape: of the kernel.
    """

    settings: Settings
    average: bool = eqx.field(static=True)
    scaled: bool = eqx.field(static=True)
    shape: str = eqx.field(static=True, default="eq")

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> AbstractPosterior:
        mean, std = jnp.zeros(()), jnp.ones(())
        if self.scaled:
            mean = support.mean(support.y[:, 0])
            spread = jnp.sqrt(support.mean((support.y[:, 0] - mean) ** 2))
            std = jnp.where((support.count > 1) & (spread > 0), spread, 1.0)
        own = Settings(
            self.settings.log_std + jnp.log(std),
            self.settings.log_length,
            self.settings.noise * std,
        )
        nothing = support.first(0)

        def evidence(setting):
            prior = setting.exact(mean, nothing, self.shape)
            return prior.joint_log_prob(support, key=key, samples=1)

        each = jax.vmap(evidence)(own)
        if not self.average:
            best = jax.tree.map(lambda a: a[jnp.argmax(each)], own)
            return best.exact(mean, support, self.shape)
        stacked = jax.vmap(lambda setting: setting.exact(mean, support, self.shape))(own)
        return Weighted(stacked, jax.nn.log_softmax(each))


class Weighted(AbstractPosterior):
    """Exact posteriors stacked on a leading axis, with log weights that are normalised."""

    each: Exact
    log_weight: Float[Array, "g"]

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        def one(exact):
            (part,) = exact.predict(x, key=key, samples=1).parts
            return part.params[0], part.removable()[0]

        (part,) = jax.tree.map(lambda a: a[0], self.each).predict(x, key=key, samples=1).parts
        params, inside = jax.vmap(one)(self.each)
        return Mixture((Part(part.head, params, self.log_weight, inside),))

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        pick_key, draw_key = jr.split(key)
        which = jr.categorical(pick_key, self.log_weight, shape=(samples,))

        def one(item):
            i, k = item
            chosen = jax.tree.map(lambda a: a[i], self.each)
            return chosen.sample(x, key=k, samples=1).parts[0].params[0]

        params = jax.lax.map(one, (which, jr.split(draw_key, samples)))
        (part,) = jax.tree.map(lambda a: a[0], self.each).sample(x, key=key, samples=1).parts
        return Mixture.equal(part.head, params)

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        each = jax.vmap(lambda q: q.joint_log_prob(data, key=key, samples=1))(self.each)
        return jax.nn.logsumexp(self.log_weight + each)


def _grid(lengths: np.ndarray, stds: np.ndarray, noises: np.ndarray) -> Settings:
    """Every combination; a length is `(d,)`."""
    i, j, k = (a.ravel() for a in np.indices((len(lengths), len(stds), len(noises))))
    return Settings(
        jnp.asarray(np.log(stds[j]), jnp.float32),
        jnp.asarray(np.log(lengths[i]), jnp.float32),
        jnp.asarray(noises[k], jnp.float32),
    )


def from_scratch(x: Array) -> OverSettings:
    """ML-II over six lengths and three levels of noise, on the function's own scale.

    Lengths are 0.05 to 1.6 times the range of the candidates in each column (the root of the number
    of columns times that); Matérn-5/2 (Snoek, Larochelle & Adams, NeurIPS 2012).

    Args:
        x: candidates, `(…, d)`.
    """
    flat = np.asarray(x).reshape(-1, x.shape[-1])
    span = flat.max(0) - flat.min(0)
    varies = max(int((span > 0).sum()), 1)
    span = np.where(span > 0, span, 1.0) * varies**0.5
    lengths = 0.05 * 2.0 ** np.arange(6)
    grid = _grid(lengths[:, None] * span, np.ones(1), np.array([1e-3, 0.03, 0.3]))
    return OverSettings(grid, average=False, scaled=True, shape="matern52")


def gp_1d_grid(family: Family, average: bool) -> OverSettings:
    """Six lengths and five scales of the functions of GP-1D; see `OverSettings`."""

    def middles(ends: tuple[float, float], count: int) -> np.ndarray:
        return ends[0] + (ends[1] - ends[0]) * (np.arange(count) + 0.5) / count

    _, x_unit = units_of_x(family, -2.0, 2.0)
    lengths, stds = middles(LENGTHS, 6)[:, None] / x_unit, middles(SCALES, 5) / family.scale
    return OverSettings(_grid(lengths, stds, np.zeros(1)), average=average, scaled=False)


def units_of_x(family: Family, low: float, high: float) -> tuple[float, float]:
    """Centre and unit of x in training rows, from candidates that go from `low` to `high`."""
    ends = np.asarray(family.hunts.x[0, [0, -1], 0], np.float64)
    unit = (high - low) / (ends[1] - ends[0])
    return float(low - ends[0] * unit), float(unit)


class Own(eqx.Module):
    """Knows the length and the scale of each function: `learner(own)` for one of them."""

    def learner(self, own: Float[Array, "2"]) -> AbstractLearner:
        setting = Settings(jnp.log(own[1]), jnp.log(own[:1]), jnp.zeros(()))
        alone = jax.tree.map(lambda a: a[None], setting)
        return OverSettings(alone, average=False, scaled=False)


class OfFeatures(AbstractKernel):
    """φ(a) S φ(b)ᵀ: a linear model with normal coefficients, S = L Lᵀ."""

    features: Callable
    root: Float[Array, "q q"]

    def _white(self, x):
        return self.features(x) @ self.root

    def __call__(self, a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self._white(a) @ self._white(b).T

    def diag(self, a: Float[Array, "n d"]) -> Float[Array, "n"]:
        return (self._white(a) ** 2).sum(-1)


def forrester_prior(family: Family) -> "ForresterPrior":
    """In units of the training rows."""
    noise = float(family.hunts.noise[0])
    return ForresterPrior(*units_of_x(family, 0.0, 1.0), family.centre, family.scale, noise)


class ForresterPrior(AbstractLearner):
    """The normal with the moments of a, b and c: the family is linear in them.

    Args:
        centre, scale: of y in the family's units; of x likewise.
        noise: in units of the training rows.
    """

    x_centre: float
    x_scale: float
    centre: float
    scale: float
    noise: float

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Exact:
        def phi(x):
            return forrester_features(self.x_centre + self.x_scale * x)

        mean = jnp.asarray((FORRESTER_LOW + FORRESTER_HIGH) / 2, jnp.float32)
        std = jnp.asarray((FORRESTER_HIGH - FORRESTER_LOW) / 12**0.5, jnp.float32)

        def expected(x):
            return (phi(x) @ mean - self.centre) / self.scale

        kernel = OfFeatures(phi, jnp.diag(std / self.scale))
        return Exact(expected, (kernel,), self.noise, support)
