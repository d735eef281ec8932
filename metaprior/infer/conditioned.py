"""A process given its support rows, as a distribution over functions.

Numbers are conditioned exactly, classes by Laplace's method. `prior` is a `Process`, or anything
with its mean, covariances, noise, degrees of freedom and head.
"""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Categorical, Gaussian, StudentT
from metaprior.infer.cholesky import Factor, factorise
from metaprior.infer.gp import (
    Laplace,
    contrast,
    draw_factor,
    factorise_rows,
    sequential_log_prob,
    whiten,
)
from metaprior.posterior import AbstractPosterior, Mixture, Part
from metaprior.task import Data, concat


def _factor_of(prior, given: Array, mask: Array, x: Float[Array, "n d"]) -> Float[Array, "n n"]:
    """`draw_factor` of a process at `x` given some rows."""
    return draw_factor(prior.covariance(given), mask, prior.gram(given, x), prior.gram(x, x))


class ProcessPosterior(AbstractPosterior):
    """The process given the support rows: exact marginals, joint density and joint draws."""

    prior: Any
    x: Array
    mask: Array
    factor: Factor
    z: Array

    def observe(self, new: Data, room: int) -> "ProcessPosterior":
        """The process given further rows: each adds a row to the factor and to its inverse.

        That costs the square of the number of rows for each new one, where factorising anew costs
        the cube.

        Args:
            new: the rows, real ones first.
            room: rows that there is room for, at least as many as now.
        """
        index, empty = jnp.arange(room), room - len(self.mask)

        def grown(a):
            return jnp.pad(a, [(0, empty)] + [(0, 0)] * (a.ndim - 1))

        def grown_factor(a):  # rows without data are those of the identity
            square = jnp.pad(a, [(0, empty), (0, empty)])
            return square + jnp.diag((index >= len(self.mask)).astype(a.dtype))

        def append(i, state):
            x, mask, lower, inverse, z = state
            at, row = mask.sum(), new.x[i][None]
            cross = jnp.where(mask, self.prior.gram(x, row)[:, 0], 0.0)
            along = Factor(lower, inverse).whiten(cross)
            own = self.prior.covariance(row)[0, 0]
            # Rounding must not make a row's variance negative: it has noise at least.
            pivot = jnp.sqrt(jnp.maximum(own - along @ along, 1e-6 * own))
            back = -Factor(lower, inverse).unwhiten(along) / pivot
            surprise = (new.y[i, 0] - self.prior.mean(row)[0, 0] - along @ z) / pivot
            here = index == at
            return (
                x.at[at].set(new.x[i]),
                mask.at[at].set(True),
                lower.at[at].set(jnp.where(here, pivot, along)),
                inverse.at[at].set(jnp.where(here, 1 / pivot, back)),
                z.at[at].set(surprise),
            )

        factor = grown_factor(self.factor.lower), grown_factor(self.factor.inverse)
        state = (grown(self.x), grown(self.mask), *factor, grown(self.z))
        x, mask, lower, inverse, z = jax.lax.fori_loop(0, new.mask.sum(), append, state)
        return ProcessPosterior(self.prior, x, mask, Factor(lower, inverse), z)

    def _state(self, x):
        """Mean, whitened cross-covariance, and the t's scale² and df after the support."""
        cross = jnp.where(self.mask[:, None], self.prior.gram(self.x, x), 0.0)
        v = self.factor.whiten(cross)
        mean = self.prior.mean(x)[:, 0] + v.T @ self.z
        df = self.prior.df()
        if df is None:
            return mean, v, jnp.ones((), x.dtype), None
        n = self.mask.sum()
        return mean, v, (df + (self.z**2).sum()) / (df + n), df + n

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        mean, v, s2, df = self._state(x)
        function = jnp.maximum(self.prior.variance(x) - (v * v).sum(0), 0.0)
        noise = self.prior.noise_variance(x)
        scale = jnp.sqrt(s2 * (function + noise))
        if df is None:
            head, columns = Gaussian(1), [mean, scale]
            total = scale**2
        else:
            head, columns = StudentT(1), [mean, scale, jnp.broadcast_to(df, mean.shape)]
            total = scale**2 * df / (df - 2)
        params = jnp.stack(columns, -1)
        inside = total * function / (function + noise)
        return Mixture((Part(head, params[None, :, None], jnp.zeros(1), inside[None, :, None]),))

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        mean, _, s2, df = self._state(x)
        factor = _factor_of(self.prior, self.x, self.mask, x)
        f_key, s_key = jr.split(key)
        if df is not None:  # a t process is a Gaussian one with an inverse-gamma scale
            gamma = jr.gamma(s_key, 0.5 * df, (samples, 1), x.dtype)
            s2 = s2 * 0.5 * df / gamma
        noise = jr.normal(f_key, (samples, x.shape[0]), x.dtype) @ factor.T
        f = mean + jnp.sqrt(s2) * noise
        scale = jnp.broadcast_to(jnp.sqrt(s2 * self.prior.noise_variance(x)), f.shape)
        params = jnp.stack([f, scale], -1)[:, :, None]
        return Mixture((Part(Gaussian(1), params, jnp.zeros(samples)),))

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        mean, v, s2, df = self._state(data.x)
        # The noise last: hardly any would be lost beside the function's variance.
        cov = self.prior.gram(data.x, data.x) - v.T @ v
        cov = cov + jnp.diag(self.prior.noise_variance(data.x))
        factor = factorise_rows(s2 * cov, data.mask)
        z = whiten(factor, data.y[:, 0] - mean, data.mask)
        return sequential_log_prob(factor, z, data.mask, df).sum()


class ClassPosterior(AbstractPosterior):
    """Softmax of processes given the support rows, by Laplace's method."""

    prior: Any
    support: Data
    factor: Factor
    found: Laplace

    def _whiten(self, x):
        """Whitened cross-covariance, `(n, q)`."""
        cross = jnp.where(self.support.mask[:, None], self.prior.gram(self.support.x, x), 0.0)
        return self.factor.whiten(cross)

    def _mixture(self, x, f, log_weight):
        """Latent values `(s, q, l)` as classes."""
        head = self.prior.head
        raw = self.prior.mean(x)[None] + f @ contrast(head).astype(x.dtype)
        return Mixture((Part(Categorical(head.classes), head.params(raw), log_weight),))

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        v, latents = self._whiten(x), self.found.mode.shape[1]
        prior = self.prior.variance(x)
        rest = jnp.maximum(prior - (v * v).sum(0), 0.0) + self.prior.noise_variance(x)
        cov = self.found.covariance(v) + rest[:, None, None] * jnp.eye(latents, dtype=x.dtype)
        # The same nodes at every point: marginals need no more, and no point's answer depends on
        # the others.
        if latents == 1:
            points, weights = np.polynomial.hermite_e.hermegauss(24)
            nodes = jnp.asarray(points[:, None], x.dtype)
            log_weight = jnp.asarray(np.log(weights), x.dtype)
        else:
            nodes = jr.normal(key, (samples, latents), x.dtype)
            log_weight = jnp.zeros(samples, x.dtype)
        spread = jnp.einsum("qkl,sl->sqk", jax.vmap(factorise)(cov).lower, nodes)
        return self._mixture(x, (v.T @ self.found.mode)[None] + spread, log_weight)

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        v, (n, latents) = self._whiten(x), self.found.mode.shape
        u_key, f_key = jr.split(key)

        def normal(key, rows, columns):
            # Row by row, so that padding rows change nothing.
            def row(i):
                return jr.normal(jr.fold_in(key, i), (columns, samples), x.dtype)

            return jax.vmap(row)(jnp.arange(rows))

        u = self.found.draw(normal(u_key, n, latents + 1))
        factor = _factor_of(self.prior, self.support.x, self.support.mask, x)
        rest = jnp.einsum("ij,jks->iks", factor, normal(f_key, x.shape[0], latents))
        f = jnp.einsum("nq,nks->qks", v, u) + rest
        return self._mixture(x, jnp.moveaxis(f, -1, 0), jnp.zeros(samples, x.dtype))

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        # The chain rule: an average over drawn functions would need a number of them that grows
        # with e to the rows.
        def row(i):
            posterior = self.prior.posterior(concat(self.support, data.first(i)), key=key)
            predictive = posterior.predict(data.x[i][None], key=key, samples=samples)
            return predictive.log_prob(data.y[i][None])[0]

        each = jax.lax.map(row, jnp.arange(data.mask.shape[0]))
        return jnp.where(data.mask, each, 0.0).sum()
