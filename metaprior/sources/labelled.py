"""Two classes: whether a noisy function is positive."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy import stats
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Categorical
from metaprior.mixture import Mixture
from metaprior.posterior import AbstractPosterior
from metaprior.sources.ambiguous import SineLine
from metaprior.sources.grid import Family
from metaprior.task import Data, Task


class Labelled(eqx.Module):
    """Tasks of `waves` whose outcome is 1 where it is positive, noise included, and 0 elsewhere.

    Args:
        waves: sine waves and lines; their noise must not be zero.
        flipped: share of the support's labels that are wrong; query labels are right.

    Example:
        >>> import jax
        >>> from metaprior.sources import SineLine
        >>> from metaprior.sources.labelled import Labelled
        >>> source = Labelled(SineLine(support=5))
        >>> task = source(jax.random.key(0))
        >>> source.exact(task.support).predict(task.query.x, key=None, samples=1).mean().shape
        (10, 2)
    """

    waves: SineLine
    flipped: float = eqx.field(static=True, default=0.0)

    def __call__(self, key) -> Task:
        def label(data):
            return Data(data.x, (data.y > 0).astype(data.y.dtype), data.mask)

        task = self.waves(key)
        support, query = label(task.support), label(task.query)
        if self.flipped:
            wrong = jr.bernoulli(jr.fold_in(key, 1), self.flipped, support.y.shape)
            support = Data(support.x, jnp.where(wrong, 1 - support.y, support.y), support.mask)
        return Task(support, query)

    def exact(self, support: Data) -> "Cells":
        """Bayes' rule over a grid of sine waves and lines."""
        # Half the cells along each side: labels say less than outcomes, and the function of every
        # cell is evaluated at every row.
        families = []
        for family in self.waves.exact(support).families:
            first, second = family.blocks
            families.append(dataclasses.replace(family, blocks=(first // 2, second // 2)))
        return Cells(tuple(families), self.waves.noise, support, self.flipped)


class Cells(AbstractPosterior):
    """The posterior over the cells of families' grids given labels, p(1 | x, f) = Φ(f(x) / noise).

    Draws are cells. Labels say less than outcomes, so that half as many cells along a side are
    enough.

    Args:
        families: where the function may come from, equally likely at first.
        noise: standard deviation of the noise, units of f.
        support: what was observed.
        flipped: share of the support's labels that are wrong.
    """

    families: tuple[Family, ...]
    noise: float
    support: Data
    flipped: float = eqx.field(static=True, default=0.0)

    def _values(self, x) -> Float[Array, "c n"]:
        """Every cell's function over the noise."""
        each = []
        for family in self.families:
            w = family.grid(x.dtype)
            each.append(w.reshape(w.shape[0], -1).T @ family.features(x).T)
        return jnp.concatenate(each) / self.noise

    def _log_weights(self) -> Float[Array, "c"]:
        """log p(cell, labels of the support)."""
        dtype, prior = self.support.x.dtype, []
        for family in self.families:
            size = family.grid(dtype)[0].size
            prior.append(jnp.full(size, -jnp.log(1.0 * size * len(self.families)), dtype))
        return jnp.concatenate(prior) + self._log_density(self.support, self.flipped)

    def _log_density(self, data: Data, flipped: float) -> Float[Array, "c"]:
        """log p(labels of `data` | cell), of which a share is wrong."""
        margin = self._values(data.x) * (2 * data.y[:, 0] - 1)
        each = stats.norm.logcdf(margin)
        if flipped:
            right, wrong = math.log1p(-flipped), math.log(flipped)
            each = jnp.logaddexp(right + each, wrong + stats.norm.logcdf(-margin))
        return jnp.where(data.mask, each, 0.0).sum(1)

    @staticmethod
    def _mixture(p: Float[Array, "s n"]) -> Mixture:
        """Probabilities of label 1, as logits of both labels."""
        # A certain label would make a logit infinite.
        p = jnp.clip(p, 1e-6, 1 - 1e-6)
        params = jnp.log(jnp.stack([1 - p, p], -1))
        return Mixture.equal(Categorical(2), params)

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        weight = jax.nn.softmax(self._log_weights())
        return self._mixture((weight @ stats.norm.cdf(self._values(x)))[None])

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        cell = jr.categorical(key, self._log_weights(), shape=(samples,))
        return self._mixture(stats.norm.cdf(self._values(x)[cell]))

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        weights = self._log_weights()
        both = jax.nn.logsumexp(weights + self._log_density(data, 0.0))
        return both - jax.nn.logsumexp(weights)
