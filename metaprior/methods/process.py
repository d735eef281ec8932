"""A meta-learned Student-t process with a structured kernel, conditioned exactly."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array

from metaprior.heads import Categorical, Gaussian, StudentT
from metaprior.infer.gp import Laplace, cholesky, contrast, laplace, sequential_log_prob, whiten
from metaprior.method import AbstractMethod, Spec
from metaprior.nets.kernels import Constant, Deep, Kernels, RandomEffects, Stationary, diagonal, gram
from metaprior.nets.means import Mean, Scale
from metaprior.posterior import AbstractPosterior, Mixture, Part
from metaprior.task import Data, concat


class Process(AbstractMethod):
    """Student-t process with a learned mean, a sum of learned kernels and input-dependent noise.

    Shah, Wilson & Ghahramani, "Student-t Processes as Alternatives to Gaussian Processes", AISTATS 2014,
    with kernel and mean shared over tasks as in Fortuin, Strathmann & Rätsch, "Meta-Learning Mean Functions
    for Gaussian Processes", 2019, and Patacchiola et al., "Deep Kernel Transfer", NeurIPS 2020.

    The task parameter is the function itself. The objective is the sequential predictive likelihood of
    all rows of the task, sum_i w_i log p(y_i | y_1 … y_{i-1}), w_i proportional to (1 + i)^-decay: with
    `decay = 0` the marginal likelihood, with larger ones the first few rows count more. One Cholesky
    factor gives all terms. Classes: a softmax of processes with Laplace's method.

    Args:
        mean: prior mean.
        kernels: summed covariance.
        noise: standard deviation of the noise at x, units of y (classes: unused, `None`).
        head: of the tasks: `Gaussian` or `StudentT` with one outcome, or `Categorical`.
        log_df: log of the degrees of freedom less 2; `None` for a Gaussian process.
        decay: exponent of the weights, at least 0; never trained.
        columns: how many leading columns of x the kernels and the noise see; `None` for all.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import StudentT
        >>> process = metaprior.methods.Process.init(metaprior.Spec(2, StudentT(1)), key=jax.random.key(0))
        >>> posterior = process.posterior(metaprior.Data.of([[0.0, 1.0]], [2.0]), key=jax.random.key(1))
        >>> posterior.predict(jax.numpy.zeros((4, 2)), key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    mean: Mean
    kernels: Kernels
    noise: Scale | None
    head: Gaussian | StudentT | Categorical
    log_df: Array | None = None
    decay: Array | float = 0.0
    columns: int | None = eqx.field(static=True, default=None)

    @classmethod
    def init(cls, spec: Spec, *, key, width: int = 32, features: int = 16, decay: float = 0.0):
        """The structured default: constant + random effects + EQ + Matérn-5/2 + deep features.

        Args:
            spec: shape of the tasks; its last `pooled` columns enter the mean as they are.
            key: initial values of the networks.
            width: hidden units of the mean, noise and feature networks (32: tables of tens of columns).
            features: number of deep features.
            decay: see the class.
        """
        if spec.head.y_dim != 1:
            raise ValueError(f"process predicts one outcome; the head has {spec.head.y_dim}.")
        d, keys = spec.x_dim, jr.split(key, 5)
        degree = 2 if 2 * d + 1 <= 64 else 1
        length = jnp.full(d, 0.5 * jnp.log(float(max(d, 1))) + 0.3)
        kernels = (
            Constant(jnp.log(jnp.asarray(0.3))),
            RandomEffects.init(d, degree, 0.1, key=keys[0]),
            Stationary(jnp.log(jnp.asarray(0.4)), length, "eq"),
            Stationary(jnp.log(jnp.asarray(0.3)), length, "matern52"),
            Deep.init(d, width, features, 0.3, key=keys[1]),
        )
        mean = Mean.init(spec, degree=degree, width=width, key=keys[2])
        if spec.head.classes:
            return cls(mean, kernels, None, spec.head, None, decay)  # ty: ignore[invalid-argument-type]
        noise = Scale.init(d, 0.5, width=width, key=keys[3])
        return cls(mean, kernels, noise, spec.head, jnp.log(jnp.asarray(8.0)), decay)  # ty: ignore[invalid-argument-type]

    def gram(self, a, b):
        """Prior covariance of the function between two sets of points."""
        return gram(self.kernels, a[:, : self.columns], b[:, : self.columns])

    def variance(self, x):
        """Prior variance of the function."""
        return diagonal(self.kernels, x[:, : self.columns])

    def noise_variance(self, x):
        """Variance of the noise."""
        return self.noise(x[:, : self.columns]) ** 2  # ty: ignore[not-callable]

    def covariance(self, x):
        """Covariance of the observations, noise included, with a jitter that float32 needs."""
        jitter = 1e-5 if self.noise is not None else 1e-4  # without noise, equal rows make it singular
        extra = jitter * (1 + self.variance(x)) if x.dtype == jnp.float32 else 1e-12
        extra = extra if self.noise is None else self.noise_variance(x) + extra
        return self.gram(x, x) + jnp.diag(jnp.broadcast_to(extra, x.shape[:1]))

    def _df(self):
        return None if self.log_df is None else 2.0 + jnp.exp(self.log_df)

    def loss(self, task, *, key):
        data = task.union
        factor = cholesky(self.covariance(data.x), data.mask)
        if self.head.classes:
            found = laplace(factor, self.mean(data.x), data.y[:, 0], data.mask)
            return -found.evidence / jnp.maximum(data.count, 1)
        z = whiten(factor, data.y[:, 0] - self.mean(data.x)[:, 0], data.mask)
        log_p = sequential_log_prob(factor, z, data.mask, self._df())
        order = jnp.cumsum(data.mask) - 1.0
        weight = jnp.where(data.mask, (1.0 + jnp.maximum(order, 0)) ** -jax.lax.stop_gradient(self.decay), 0.0)
        return -(weight * log_p).sum() / jnp.maximum(weight.sum(), 1e-6)

    def posterior(self, support, *, key):
        factor = cholesky(self.covariance(support.x), support.mask)
        if self.head.classes:
            found = laplace(factor, self.mean(support.x), support.y[:, 0], support.mask)
            return ClassPosterior(self, support, factor, found)
        z = whiten(factor, support.y[:, 0] - self.mean(support.x)[:, 0], support.mask)
        return ProcessPosterior(self, support.x, support.mask, factor, z)


class ProcessPosterior(AbstractPosterior):
    """The process given the support rows: exact marginals, joint density and joint draws."""

    prior: Process
    x: Array
    mask: Array
    factor: Array
    z: Array

    def _state(self, x):
        """Mean, whitened cross-covariance, and the t's scale² and df after the support."""
        cross = jnp.where(self.mask[:, None], self.prior.gram(self.x, x), 0.0)
        v = solve_triangular(self.factor, cross, lower=True)
        mean = self.prior.mean(x)[:, 0] + v.T @ self.z
        df = self.prior._df()
        if df is None:
            return mean, v, jnp.ones((), x.dtype), None
        n = self.mask.sum()
        return mean, v, (df + (self.z**2).sum()) / (df + n), df + n

    def predict(self, x, *, key, samples):
        mean, v, s2, df = self._state(x)
        function = jnp.maximum(self.prior.variance(x) - (v * v).sum(0), 0.0)
        noise = self.prior.noise_variance(x)
        scale = jnp.sqrt(s2 * (function + noise))
        if df is None:
            params, head, total = jnp.stack([mean, scale], -1), Gaussian(1), scale**2
        else:
            params, head = jnp.stack([mean, scale, jnp.broadcast_to(df, mean.shape)], -1), StudentT(1)
            total = scale**2 * df / (df - 2)
        inside = total * function / (function + noise)
        return Mixture((Part(head, params[None, :, None], jnp.zeros(1), inside[None, :, None]),))

    def sample(self, x, *, key, samples):
        mean, v, s2, df = self._state(x)
        cov = self.prior.gram(x, x) - v.T @ v
        cov = cov + 1e-5 * jnp.diag(1e-3 + self.prior.variance(x))
        f_key, s_key = jr.split(key)
        if df is not None:  # a t process is a Gaussian one with an inverse-gamma scale
            gamma = jr.gamma(s_key, 0.5 * df, (samples, 1), x.dtype)
            s2 = s2 * 0.5 * df / gamma
        noise = jr.normal(f_key, (samples, x.shape[0]), x.dtype) @ jnp.linalg.cholesky(cov).T
        f = mean + jnp.sqrt(s2) * noise
        scale = jnp.broadcast_to(jnp.sqrt(s2 * self.prior.noise_variance(x)), f.shape)
        return Mixture((Part(Gaussian(1), jnp.stack([f, scale], -1)[:, :, None], jnp.zeros(samples)),))

    def joint_log_prob(self, data, *, key, samples):
        mean, v, s2, df = self._state(data.x)
        cov = self.prior.covariance(data.x) - v.T @ v
        factor = cholesky(s2 * cov, data.mask)
        z = whiten(factor, data.y[:, 0] - mean, data.mask)
        return sequential_log_prob(factor, z, data.mask, df).sum()


class ClassPosterior(AbstractPosterior):
    """Softmax of processes given the support rows, by Laplace's method."""

    prior: Process
    support: Data
    factor: Array
    found: Laplace

    def _whiten(self, x):
        """Whitened cross-covariance, `(n, q)`."""
        cross = jnp.where(self.support.mask[:, None], self.prior.gram(self.support.x, x), 0.0)
        return solve_triangular(self.factor, cross, lower=True)

    def _mixture(self, x, f, log_weight):
        """Latent values `(s, q, l)` as classes."""
        logits = self.prior.mean(x)[None] + f @ contrast(self.prior.head.classes).astype(x.dtype)
        return Mixture((Part(self.prior.head, logits, log_weight),))

    def predict(self, x, *, key, samples):
        v, latents = self._whiten(x), self.found.mode.shape[1]
        prior = self.prior.variance(x)
        rest = jnp.maximum(prior - (v * v).sum(0), 1e-6 * prior + 1e-9)
        cov = self.found.covariance(v) + rest[:, None, None] * jnp.eye(latents, dtype=x.dtype)
        # The same nodes at every point: marginals need no more, and no point's answer depends on the others.
        if latents == 1:
            nodes, weights = np.polynomial.hermite_e.hermegauss(24)
            nodes, log_weight = jnp.asarray(nodes[:, None], x.dtype), jnp.asarray(np.log(weights), x.dtype)
        else:
            nodes, log_weight = jr.normal(key, (samples, latents), x.dtype), jnp.zeros(samples, x.dtype)
        f = (v.T @ self.found.mode)[None] + jnp.einsum("qkl,sl->sqk", jnp.linalg.cholesky(cov), nodes)
        return self._mixture(x, f, log_weight)

    def sample(self, x, *, key, samples):
        v, (n, latents) = self._whiten(x), self.found.mode.shape
        u_key, f_key = jr.split(key)

        def normal(key, rows, columns):  # row by row, so that padding rows change nothing
            row = lambda i: jr.normal(jr.fold_in(key, i), (columns, samples), x.dtype)
            return jax.vmap(row)(jnp.arange(rows))

        u = self.found.draw(normal(u_key, n, latents + 1))
        cov = self.prior.gram(x, x) - v.T @ v
        factor = jnp.linalg.cholesky(cov + 1e-5 * jnp.diag(1e-3 + self.prior.variance(x)))
        rest = jnp.einsum("ij,jks->iks", factor, normal(f_key, x.shape[0], latents))
        f = jnp.einsum("nq,nks->qks", v, u) + rest
        return self._mixture(x, jnp.moveaxis(f, -1, 0), jnp.zeros(samples, x.dtype))

    def joint_log_prob(self, data, *, key, samples):
        # The chain rule: an average over drawn functions would need a number of them that grows with e to the rows.
        def row(i):
            before = Data(data.x, data.y, data.mask & (jnp.arange(data.mask.shape[0]) < i))
            posterior = self.prior.posterior(concat(self.support, before), key=key)
            return posterior.predict(data.x[i][None], key=key, samples=samples).log_prob(data.y[i][None])[0]

        each = jax.lax.map(row, jnp.arange(data.mask.shape[0]))
        return jnp.where(data.mask, each, 0.0).sum()
