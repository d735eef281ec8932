"""Bayesian linear regression on learned features, with a learned prior."""

import math
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Gaussian, StudentT
from metaprior.infer.cholesky import Factor, factorise
from metaprior.infer.gaussian import MatrixNormal
from metaprior.infer.gp import factorise_rows, sequential_log_prob, whiten
from metaprior.method import AbstractGenerative, AbstractMethod, AbstractUpdating, Spec
from metaprior.nets.kernels import polynomial
from metaprior.nets.mlp import apply
from metaprior.posterior import AbstractPosterior, Mixture, Part
from metaprior.task import Data, Task

DEGREES = {"linear": 1, "quadratic": 2}


class ALPaCA(AbstractGenerative, AbstractUpdating, AbstractMethod):
    """Harrison, Sharma & Pavone, WAFR 2018: an exact Bayesian last layer on learned features.

    "Meta-Learning Priors for Efficient Online Bayesian Regression". y = Kᵀ φ(x) + ε, ε ~ N(0, Σ),
    with the prior K ~ MN(K̄₀, Λ₀⁻¹, Σ). Given the support, Λ = ΦᵀΦ + Λ₀ and K̄ = Λ⁻¹(ΦᵀY + Λ₀ K̄₀)
    (equations 5 and 6), and the predictive is N(K̄ᵀφ, (1 + φᵀ Λ⁻¹ φ) Σ). The objective is the mean
    predictive nll of the query rows given the support (equation 8). All is in closed form.

    Args:
        features: φ: a network, or the degree of a polynomial.
        mean: K̄₀, `(q, p)`.
        root: A, `(q, q)`, with Λ₀ = A Aᵀ: positive definite whatever A is.
        log_noise: log of the diagonal of Σ, `(p,)`, squared units of y.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> alpaca = metaprior.methods.ALPaCA.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = alpaca.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    features: eqx.nn.MLP | int
    mean: Float[Array, "q p"]
    root: Float[Array, "q q"]
    log_noise: Array | float

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        features: str = "network",
        width: int = 128,
        size: int = 32,
        noise_variance: Array | float | None = None,
    ) -> Self:
        """The paper's network, or a polynomial.

        Args:
            spec: shape of the tasks; the head is a `Gaussian`, whose scale is learned here, or a
                `StudentT`, as for tables: the predictive is normal with either.
            key: initial weights.
            features: `"network"`, or `"linear"`: φ = [1, x], or `"quadratic"`: φ = [1, x, x² - 1].
            width: units of the two hidden layers (128, the paper's code).
            size: number of features of the network (32).
            noise_variance: of every outcome, squared units of y; a float is fixed (the paper's
                sinusoid has 0.02), an array is where learning starts. `None` (default): learned,
                from 0.1.
        """
        if not isinstance(spec.head, Gaussian | StudentT):
            name = type(spec.head).__name__
            raise TypeError(
                "ALPaCA predicts numbers by a normal distribution; it would ignore the head "
                f"{name}."
            )
        if features != "network" and features not in DEGREES:
            raise ValueError(
                f"ALPaCA has the features 'network', 'linear' and 'quadratic'; got {features!r}."
            )
        net_key, mean_key = jr.split(key)
        if features in DEGREES:
            phi = DEGREES[features]
            size = 1 + phi * spec.x_dim
        elif spec.net is not None:
            phi = spec.net(size, key=net_key)
        else:
            tanh = jnp.tanh
            phi = eqx.nn.MLP(
                spec.x_dim, size, width, 2, activation=tanh, final_activation=tanh, key=net_key
            )

        p = spec.head.y_dim
        noise = jnp.asarray(0.1) if noise_variance is None else noise_variance
        log_noise: Array | float
        if isinstance(noise, jax.Array):
            log_noise = jnp.broadcast_to(jnp.log(noise), (p,))
        else:
            log_noise = math.log(noise)

        mean = 0.1 * jr.normal(mean_key, (size, p))
        # The type checker takes the properties `prior` and `head` for fields.
        return cls(phi, mean, jnp.eye(size), log_noise)  # ty: ignore[invalid-argument-type, missing-argument]

    def phi(self, x: Float[Array, "n d"]) -> Float[Array, "n q"]:
        """Features of every row."""
        if isinstance(self.features, int):
            return polynomial(x, self.features)
        return apply(self.features, x)

    def apply(self, w: Any, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
        """φ(x)ᵀ K for one K."""
        return self.phi(x) @ w

    @property
    def std(self) -> Float[Array, "p"]:
        """Standard deviation of the noise of each outcome."""
        std = jnp.broadcast_to(jnp.exp(0.5 * self.log_noise), self.mean.shape[1:])
        return std.astype(self.mean.dtype)

    @property
    def prior(self) -> MatrixNormal:
        """MN(K̄₀, Λ₀⁻¹, Σ)."""
        return MatrixNormal(self.mean, self.root, self.std)

    @property
    def head(self) -> Gaussian:
        """N(Kᵀφ, Σ)."""
        return Gaussian(self.mean.shape[1], scale=self.std)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> "LastLayer":
        phi = jnp.where(support.mask[:, None], self.phi(support.x), 0.0)
        y = jnp.where(support.mask[:, None], support.y, 0.0)
        prior = self.root @ self.root.T  # Λ₀
        # Where A has no inverse, A Aᵀ alone has no Cholesky factor.
        small = 1e-6 if phi.dtype == jnp.float32 else 1e-12
        factor = factorise(phi.T @ phi + prior + small * jnp.eye(phi.shape[1], dtype=phi.dtype))
        mean = factor.solve(phi.T @ y + prior @ self.mean)
        return LastLayer(self, mean, factor)

    def update(
        self, posterior: "LastLayer", everything: Data, new: Data, *, key: PRNGKeyArray
    ) -> "LastLayer":
        phi = self.phi(new.x)

        def append(i, state):  # one by one, so that it makes no difference which come together
            mean, lower, _ = state
            factor = factorise(lower @ lower.T + jnp.outer(phi[i], phi[i]))
            mean = factor.solve(lower @ (lower.T @ mean) + jnp.outer(phi[i], new.y[i]))
            return mean, factor.lower, factor.inverse

        state = posterior.mean, posterior.factor.lower, posterior.factor.inverse
        mean, *factor = jax.lax.fori_loop(0, new.mask.sum(), append, state)
        return LastLayer(self, mean, Factor(*factor))

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        predictive = self.posterior(task.support, key=key).predict(task.query.x, key=key, samples=1)
        return -task.query.mean(predictive.log_prob(task.query.y))


class LastLayer(AbstractPosterior):
    """Matrix-normal posterior of K: exact marginals, joint density and draws.

    Args:
        prior: the method.
        mean: K̄, `(q, p)`.
        factor: Cholesky factor of Λ, `(q, q)`.
    """

    prior: ALPaCA
    mean: Float[Array, "q p"]
    factor: Factor

    def _state(self, x):
        """Mean `(n, p)`, whitened features `(q, n)` and the noise's standard deviation `(p,)`."""
        phi = self.prior.phi(x)
        return phi @ self.mean, self.factor.whiten(phi.T), self.prior.std

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        mean, v, std = self._state(x)
        function = (v * v).sum(0)[:, None]  # φᵀ Λ⁻¹ φ
        params = jnp.stack([mean, jnp.sqrt(1 + function) * std[None]], -1)
        inside = function * std[None] ** 2
        head, log_weight = Gaussian(mean.shape[1]), jnp.zeros(1, mean.dtype)
        return Mixture((Part(head, params[None], log_weight, inside[None]),))

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        noise = jr.normal(key, (samples, *self.mean.shape), self.mean.dtype)
        std = self.prior.std

        def function(e):
            return self.prior.phi(x) @ (self.mean + self.factor.unwhiten(e) * std[None])

        f = jax.vmap(function)(noise)
        params = jnp.stack([f, jnp.broadcast_to(std, f.shape)], -1)
        return Mixture((Part(Gaussian(f.shape[-1]), params, jnp.zeros(samples, f.dtype)),))

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        mean, v, std = self._state(data.x)
        factor = factorise_rows(jnp.eye(mean.shape[0], dtype=mean.dtype) + v.T @ v, data.mask)

        def outcome(residual, std):
            z = whiten(factor, residual / std, data.mask)
            return sequential_log_prob(factor, z, data.mask).sum() - data.count * jnp.log(std)

        return jax.vmap(outcome, in_axes=(1, 0))(data.y - mean, std).sum()
