"""A meta-learned Student-t process with a structured kernel, conditioned exactly."""

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Categorical, Gaussian, Ordinal, StudentT
from metaprior.infer.conditioned import ClassPosterior, ProcessPosterior
from metaprior.infer.gp import factorise_rows, laplace, sequential_log_prob, whiten
from metaprior.method import AbstractMethod, AbstractUpdating, Spec
from metaprior.nets.kernels import (
    Constant,
    Deep,
    Dot,
    Kernels,
    RandomEffects,
    Spectral,
    Stationary,
    diagonal,
    gram,
    of_both,
)
from metaprior.nets.means import Mean, Scale
from metaprior.nets.mlp import network
from metaprior.task import Data, Task

# Kernels of the plain process on d features, each starting where two unit normal points are neither
# alike nor unrelated.
PLAIN = {
    "rbf": lambda d, key: Stationary(jnp.zeros(()), jnp.full(d, 0.5 * jnp.log(float(d))), "eq"),
    "linear": lambda d, key: Dot(jnp.full((), -0.5 * jnp.log(float(d)))),
    "spectral": lambda d, key: Spectral.init(d, 4, 1.0, 0.5 / d**0.5, key=key),
}


class Process(AbstractUpdating, AbstractMethod):
    """Student-t process with a learned mean, a sum of learned kernels and input-dependent noise.

    Shah, Wilson & Ghahramani, "Student-t Processes as Alternatives to Gaussian Processes", AISTATS
    2014, with kernel and mean shared over tasks as in Fortuin, Strathmann & Rätsch, "Meta-Learning
    Mean Functions for Gaussian Processes", 2019, and Patacchiola et al., "Deep Kernel Transfer",
    NeurIPS 2020.

    The task parameter is the function itself. The objective is the sequential predictive likelihood
    of all rows of the task, sum_i w_i log p(y_i | y_1 … y_{i-1}), w_i proportional to (1 +
    i)^-decay. With `decay = 0` this is the marginal likelihood; with larger ones the first few rows
    count more. One Cholesky factor gives all terms. Classes are a softmax of processes, or one
    process cut into ranges where they have an order, with Laplace's method.

    The row `dkt` is Deep Kernel Transfer. With `kernel="rbf"`, `"linear"` or `"spectral"` this is a
    Gaussian process with that one kernel on the features of a network, a constant mean and constant
    noise. It is trained on the marginal likelihood of support and query together (algorithm 1 of
    that paper). Classes are again a softmax of processes; the paper regresses on labels ±1, one
    class against the rest.

    Args:
        mean: prior mean.
        kernels: summed covariance.
        noise: standard deviation of the noise at x, units of y (classes: unused, `None`).
        head: of the tasks: `Gaussian` or `StudentT` with one outcome, `Categorical` or `Ordinal`.
        log_df: log of the degrees of freedom less 2; `None` for a Gaussian process.
        decay: exponent of the weights, at least 0; never trained.
        columns: how many leading columns of x the kernels and the noise see; `None` for all.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import StudentT
        >>> spec = metaprior.Spec(2, StudentT(1))
        >>> process = metaprior.methods.Process.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([[0.0, 1.0]], [2.0])
        >>> posterior = process.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 2))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    mean: Mean
    kernels: Kernels
    noise: Scale | None
    head: Gaussian | StudentT | Categorical | Ordinal
    log_df: Array | None = None
    decay: Array | float = 0.0
    columns: int | None = eqx.field(static=True, default=None)

    @property
    def learning_rate(self) -> float:
        """The few numbers of the structured kernels move faster than one deep kernel's network."""
        return 1e-2 if len(self.kernels) > 1 else 3e-3

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        kernel: str = "structured",
        width: int = 32,
        features: int = 16,
        decay: float = 0.0,
    ) -> Self:
        """The structured default, or one deep kernel.

        The default is the sum of a constant, random effects, an exponentiated quadratic, a
        Matérn-5/2 and a linear kernel on deep features.

        Args:
            spec: shape of the tasks; its last `pooled` columns enter the mean as they are.
            key: initial values of the networks.
            kernel: `"structured"`, or one of `"rbf"`, `"linear"` and `"spectral"` (4 components,
                the paper's code).
            width: hidden units of the mean, noise and feature networks (32: tables of tens of
                columns; 40 in the row `dkt`, its paper's sinusoids). With one kernel, 0 leaves out
                the network: h(x) = x.
            features: number of deep features (40 in the row `dkt`).
            decay: see the class.
        """
        if not isinstance(spec.head, Gaussian | StudentT | Categorical | Ordinal):
            name = type(spec.head).__name__
            raise TypeError(
                "Process predicts with a Gaussian, a StudentT, a Categorical or an Ordinal; the "
                f"head is {name}."
            )
        if spec.head.y_dim != 1:
            raise ValueError(f"process predicts one outcome; the head has {spec.head.y_dim}.")
        if kernel != "structured":
            return cls._plain(spec, kernel, width, features, decay, key)
        d, keys = spec.x_dim, jr.split(key, 5)
        # Effects of squares too, as long as there are at most 64 effects.
        degree = 2 if 2 * d + 1 <= 64 else 1
        # Two unit normal points are then neither alike nor unrelated, whatever d.
        length = jnp.full(d, 0.5 * jnp.log(float(max(d, 1))) + 0.3)
        net = eqx.nn.MLP(
            d, features, width, 2, activation=jnp.tanh, final_activation=jnp.tanh, key=keys[1]
        )
        kernels = (
            Constant(jnp.log(jnp.asarray(0.3))),
            RandomEffects.init(d, degree, 0.1, key=keys[0]),
            Stationary(jnp.log(jnp.asarray(0.4)), length, "eq"),
            Stationary(jnp.log(jnp.asarray(0.3)), length, "matern52"),
            Deep(net, Dot(jnp.log(jnp.asarray(0.3)) - 0.5 * jnp.log(float(features)))),
        )
        mean = Mean.init(spec, degree=degree, width=width, key=keys[2])
        if spec.head.classes:
            return cls(mean, kernels, None, spec.head, None, decay)
        noise = Scale.init(d, 0.5, width=width, key=keys[3])
        return cls(mean, kernels, noise, spec.head, jnp.log(jnp.asarray(8.0)), decay)

    @classmethod
    def _plain(cls, spec, kernel, width, features, decay, key):
        """One kernel on a network's features, a constant mean and constant noise."""
        if kernel not in PLAIN:
            known = ", ".join(map(repr, ("structured", *PLAIN)))
            raise ValueError(f"Process has the kernels {known}; got {kernel!r}.")
        net_key, kernel_key = jr.split(key)
        base = PLAIN[kernel](features if width else spec.x_dim, kernel_key)
        mean = Mean.init(spec, degree=0, width=0, key=net_key)
        noise = None if spec.head.classes else Scale.init(spec.x_dim, 0.3, width=0, key=net_key)
        if width:
            base = Deep(network(spec, features, width, 2, key=net_key), base)
        return cls(mean, (base,), noise, spec.head, None, decay)

    def gram(self, a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        """Prior covariance of the function between two sets of points."""
        return gram(self.kernels, *of_both(lambda x: x[:, : self.columns], a, b))

    def variance(self, x: Float[Array, "n d"]) -> Float[Array, "n"]:
        """Prior variance of the function."""
        return diagonal(self.kernels, x[:, : self.columns])

    def noise_variance(self, x: Float[Array, "n d"]) -> Float[Array, "n"]:
        """Variance of the noise, and a little more, without which equal rows make the covariance
        singular in float32. Of classes only that.
        """
        return self._noise(x, self.variance(x))

    def _noise(self, x: Float[Array, "n d"], variance: Float[Array, "n"]) -> Float[Array, "n"]:
        jitter = 1e-5 if self.noise is not None else 1e-4
        extra = jitter * (1 + variance) if x.dtype == jnp.float32 else 1e-12
        if self.noise is not None:
            extra = self.noise(x[:, : self.columns]) ** 2 + extra
        return jnp.broadcast_to(extra, x.shape[:1])

    def covariance(self, x: Float[Array, "n d"]) -> Float[Array, "n n"]:
        """Covariance of the observations, noise included."""
        function = self.gram(x, x)  # whose diagonal need not be computed again
        return function + jnp.diag(self._noise(x, jnp.diagonal(function)))

    def df(self) -> Array | None:
        """Degrees of freedom; `None` for a Gaussian process."""
        return None if self.log_df is None else 2.0 + jnp.exp(self.log_df)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        data = task.union
        factor = factorise_rows(self.covariance(data.x), data.mask)
        if self.head.classes:
            found = laplace(factor.lower, self.mean(data.x), self.head, data.y[:, 0], data.mask)
            return -found.evidence / jnp.maximum(data.count, 1)
        z = whiten(factor, data.y[:, 0] - self.mean(data.x)[:, 0], data.mask)
        log_p = sequential_log_prob(factor, z, data.mask, self.df())
        # The decay is a setting, also where members hold it as an array: it is not trained.
        decay = jax.lax.stop_gradient(self.decay)
        order = jnp.cumsum(data.mask) - 1.0
        weight = jnp.where(data.mask, (1.0 + jnp.maximum(order, 0)) ** -decay, 0.0)
        return -(weight * log_p).sum() / jnp.maximum(weight.sum(), 1e-6)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> ProcessPosterior | ClassPosterior:
        factor = factorise_rows(self.covariance(support.x), support.mask)
        if self.head.classes:
            mean, y = self.mean(support.x), support.y[:, 0]
            # Of one task more steps cost little: with hundreds of rows they are needed.
            found = laplace(factor.lower, mean, self.head, y, support.mask, steps=64)
            return ClassPosterior(self, support, factor, found)
        z = whiten(factor, support.y[:, 0] - self.mean(support.x)[:, 0], support.mask)
        return ProcessPosterior(self, support.x, support.mask, factor, z)

    def update(
        self,
        posterior: ProcessPosterior | ClassPosterior,
        everything: Data,
        new: Data,
        *,
        key: PRNGKeyArray,
    ) -> ProcessPosterior | ClassPosterior:
        if isinstance(posterior, ClassPosterior):  # Laplace's mode moves with every row
            return self.posterior(everything, key=key)
        return posterior.observe(new, len(everything.mask))
