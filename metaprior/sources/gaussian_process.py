"""Draws from Gaussian processes, the tasks of the neural-process papers."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr

from metaprior.infer.cholesky import factorise
from metaprior.infer.gp import lifted
from metaprior.nets.kernels import AbstractKernel, Kernels, Periodic, Stationary, gram
from metaprior.sources.exact import Exact
from metaprior.sources.shots import shots
from metaprior.task import Data, Task


def _zero(x):
    """The mean function."""
    return jnp.zeros(x.shape[0], x.dtype)


def _kernels(kernel: str | AbstractKernel | Kernels) -> Kernels:
    """The named kernels with unit variance and length 0.25."""
    zero, length = jnp.zeros(()), jnp.log(jnp.asarray([0.25]))
    if kernel in ("eq", "matern52"):
        return (Stationary(zero, length, kernel),)  # ty: ignore[invalid-argument-type]
    if kernel == "weakly periodic":
        return (Periodic(zero, jnp.log(jnp.asarray(0.25)), zero, jnp.log(jnp.asarray(0.5))),)
    if isinstance(kernel, str):
        raise ValueError(
            "GP has the kernels 'eq', 'matern52' and 'weakly periodic', or takes one; "
            f"got {kernel!r}."
        )
    return kernel if isinstance(kernel, tuple) else (kernel,)


class GP(eqx.Module):
    """One-dimensional functions from a Gaussian process, with normal noise.

    The defaults are taken from Bruinsma et al., "The Gaussian Neural Process", 2021: noise 0.05, 0
    to 10 support and 50 query rows, x uniform in [-2, 2]. `"eq"` and `"matern52"` have length 0.25,
    `"weakly periodic"` has period 0.25 and decays with length 0.5.

    Args:
        kernel: one of the names, a kernel, or a tuple of kernels to be summed.
        noise: standard deviation of the noise, units of y.
        low, high: range of x.
        support, query: rows of a task.
        fewest: support rows are uniform in `fewest` … `support`; `None` shows all of them.

    Example:
        >>> import jax
        >>> from metaprior.sources import GP
        >>> source = GP("matern52")
        >>> task = source(jax.random.key(0))
        >>> source.exact(task.support).predict(task.query.x, key=None, samples=1).mean().shape
        (50, 1)
    """

    kernel: Kernels = eqx.field(converter=_kernels, default="eq")
    noise: float = 0.05
    low: float = -2.0
    high: float = 2.0
    support: int = eqx.field(static=True, default=10)
    query: int = eqx.field(static=True, default=50)
    fewest: int | None = eqx.field(static=True, default=0)

    def __call__(self, key) -> Task:
        x_key, f_key, k_key = jr.split(key, 3)
        x = jr.uniform(x_key, (self.support + self.query, 1), minval=self.low, maxval=self.high)
        covariance = gram(self.kernel, x, x) + self.noise**2 * jnp.eye(x.shape[0])
        y = factorise(lifted(covariance)).lower @ jr.normal(f_key, x.shape[:1])
        return shots(Data.of(x, y), self.support, self.fewest, key=k_key)

    def exact(self, support: Data) -> Exact:
        """The posterior that knows kernel and noise."""
        return Exact(_zero, self.kernel, self.noise, support)
