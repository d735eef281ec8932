"""The exact posterior of a Gaussian process with known mean, kernel and noise."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Gaussian
from metaprior.infer.gp import draw_factor, factorise_rows, sequential_log_prob, whiten
from metaprior.method import AbstractLearner
from metaprior.mixture import Mixture
from metaprior.nets.kernels import Kernels, diagonal, gram
from metaprior.posterior import AbstractPosterior
from metaprior.task import Data


def noisy(functions: Float[Array, "s n"], noise: Array | float) -> Mixture:
    """Outcomes of drawn functions, each with normal noise of that standard deviation."""
    params = jnp.stack([functions, jnp.full_like(functions, noise)], -1)
    return Mixture.equal(Gaussian(1), params[:, :, None])


class Exact(AbstractPosterior):
    """Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1.

    It is what a source knows of its own tasks: the best that any method can do, in marginals and
    jointly.

    Args:
        mean: prior mean, `(n, d) -> (n,)`.
        kernels: summed prior covariance.
        noise: standard deviation of the noise, units of y.
        support: what was observed.
    """

    mean: Callable[[Float[Array, "n d"]], Float[Array, "n"]]
    kernels: Kernels
    noise: Array | float
    support: Data

    def _nugget(self, x: Float[Array, "n d"]) -> Float[Array, "n"]:
        """Variance of the noise; of hardly any, what float32 needs beside the kernel."""
        least = 1e-5 if x.dtype == jnp.float32 else 1e-12
        return jnp.maximum(self.noise**2, least * diagonal(self.kernels, x))

    def _covariance(self, x: Float[Array, "n d"]) -> Float[Array, "n n"]:
        """Of outcomes."""
        return gram(self.kernels, x, x) + jnp.diag(self._nugget(x))

    # Whitened, both the data and what they say of x, so that one factorisation serves everything.
    def _state(self, x):
        """Posterior mean at `x`, and v, the whitened cross-covariance `(k, n)`.

        The posterior covariance is the prior's less vᵀv.
        """
        data = self.support
        factor = factorise_rows(self._covariance(data.x), data.mask)
        z = whiten(factor, data.y[:, 0] - self.mean(data.x), data.mask)
        cross = jnp.where(data.mask[:, None], gram(self.kernels, data.x, x), 0.0)
        v = factor.whiten(cross)
        return self.mean(x) + v.T @ z, v

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        mean, v = self._state(x)
        function = jnp.maximum(diagonal(self.kernels, x) - (v * v).sum(0), 0.0)
        params = jnp.stack([mean, jnp.sqrt(function + self._nugget(x))], -1)
        return Mixture.equal(Gaussian(1), params[None, :, None], function[None, :, None])

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        mean, _ = self._state(x)
        own, kernels = self.support.x, self.kernels
        cross, among = gram(kernels, own, x), gram(kernels, x, x)
        factor = draw_factor(self._covariance(own), self.support.mask, cross, among)
        f = mean + jr.normal(key, (samples, x.shape[0]), x.dtype) @ factor.T
        return noisy(f, self.noise)

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        mean, v = self._state(data.x)
        cov = gram(self.kernels, data.x, data.x) - v.T @ v
        factor = factorise_rows(cov + jnp.diag(self._nugget(data.x)), data.mask)
        z = whiten(factor, data.y[:, 0] - mean, data.mask)
        return sequential_log_prob(factor, z, data.mask).sum()


class Known(AbstractLearner):
    """The learner that knows how tasks are made: the exact posterior of any source that has one.

    Args:
        source: has `exact(support) -> AbstractPosterior`.
        looks: whether it looks at the support. One that does not predicts from the prior.
    """

    source: Any
    looks: bool = eqx.field(static=True, default=True)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> AbstractPosterior:
        if self.looks:
            return self.source.exact(support)
        return self.source.exact(support.first(0))
