"""A hyper-prior over priors in the space of functions: where no data are, a prior should be this.

Rothfuss, Heyn, Chen & Krause, "Meta-Learning Reliable Priors in the Function Space", NeurIPS 2021.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.infer.cholesky import factorise
from metaprior.nets.kernels import Stationary
from metaprior.task import Data, shuffled


def kl_normal(
    mean: Float[Array, "n"],
    cov: Float[Array, "n n"],
    other_mean: Float[Array, "n"],
    other_cov: Float[Array, "n n"],
) -> Float[Array, ""]:
    """KL(N(mean, cov) ‖ N(other_mean, other_cov)) in nats; both covariances positive definite.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.infer.functional import kl_normal
        >>> float(kl_normal(jnp.ones(1), jnp.eye(1), jnp.zeros(1), jnp.eye(1)))
        0.5
    """
    factor, other = factorise(cov), factorise(other_cov)
    trace = (other.whiten(factor.lower) ** 2).sum()
    square = (other.whiten(mean - other_mean) ** 2).sum()
    return 0.5 * (trace + square - len(mean) + other.log_det() - factor.log_det())


class FunctionPrior(eqx.Module):
    """A Gaussian process of mean zero and an exponentiated quadratic kernel, for what is unknown.

    Inputs and outcomes are in units of the training rows, with mean 0 and deviation 1.

    Args:
        length: length scale, units of x (0.2: the authors' code).
        std: standard deviation, units of y (the square root of 2: the authors' output scale 2).
        low, high: of the box in which functions matter, the same for every column, units of x.
            Beyond it the prior is free.
        points: of a measurement set, at least 2; half of them are the task's own, half uniform in
            the box (20: the authors' code).
        jitter: variance with which both processes are seen at the points: without it equal points
            have no density (0.001: the authors' code).

    Example:
        >>> import jax, metaprior
        >>> from metaprior.infer.functional import FunctionPrior
        >>> spec = metaprior.Spec(1, metaprior.heads.Gaussian(1))
        >>> process = metaprior.methods.Process.init(spec, kernel="rbf", key=jax.random.key(0))
        >>> rows = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> FunctionPrior().kl(process, rows, key=jax.random.key(1)).shape
        ()
    """

    length: float = eqx.field(static=True, default=0.2)
    std: float = eqx.field(static=True, default=2.0**0.5)
    low: float = eqx.field(static=True, default=-3.0)
    high: float = eqx.field(static=True, default=3.0)
    points: int = eqx.field(static=True, default=20)
    jitter: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self):
        if not (self.length > 0 and self.std > 0 and self.jitter > 0):
            raise ValueError(
                "FunctionPrior takes length, std and jitter above 0; got "
                f"{self.length}, {self.std} and {self.jitter}."
            )
        if not self.low < self.high:
            raise ValueError(
                f"FunctionPrior takes a box from low to high; got {self.low} to {self.high}."
            )
        if self.points < 2:
            raise ValueError(f"FunctionPrior takes at least 2 points; got {self.points}.")

    def kernel(self, d: int) -> Stationary:
        """Of the plain process on `d` columns."""
        return Stationary(jnp.log(self.std), jnp.full(d, jnp.log(self.length)), "eq")

    def measured(self, rows: Data, *, key: PRNGKeyArray) -> Float[Array, "m d"]:
        """A measurement set: some of the rows, each once, and uniform points in the box.

        Where a task has too few rows, uniform points stand for them.
        """
        box_key, order_key = jr.split(key)
        n, d = rows.x.shape
        shape = (self.points, d)
        x = jr.uniform(box_key, shape, rows.x.dtype, self.low, self.high)
        own = min(self.points // 2, n)
        order = shuffled(order_key, rows.mask)[:own]
        seen = jnp.where(rows.mask[order][:, None], rows.x[order], x[:own])
        return jnp.concatenate([seen, x[own:]])

    def kl(self, process: Any, rows: Data, *, key: PRNGKeyArray) -> Float[Array, ""]:
        """KL(p_θ(f(X)) ‖ N(0, K)) at one measurement set X, in nats.

        Args:
            process: a Gaussian process with one outcome: its prior has `mean` and `gram`.
            rows: of the task.
            key: of the measurement set.
        """
        x = self.measured(rows, key=key)
        eye = self.jitter * jnp.eye(len(x), dtype=x.dtype)
        plain = self.kernel(x.shape[1])(x, x) + eye
        mean = process.mean(x)[:, 0]
        return kl_normal(mean, process.gram(x, x) + eye, jnp.zeros_like(mean), plain)
