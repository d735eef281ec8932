"""Linear tasks with a known prior: the exact answer for every closed-form method."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from metaprior.nets.kernels import RandomEffects, polynomial
from metaprior.sources.exact import Exact
from metaprior.sources.shots import shots
from metaprior.task import Data, Task


def _linear(weights, x):
    """Intercept and slopes, at the rows of x."""
    return polynomial(x, 1) @ weights


class Linear(eqx.Module):
    """y = wᵀ[1, x] + ε with w ~ N(mean, L Lᵀ), ε ~ N(0, noise²) and x standard normal.

    Args:
        mean: prior mean of the intercept and the slopes, `(d + 1,)`.
        factor: L, `(d + 1, r)`.
        noise: standard deviation of ε, units of y.
        support, query: rows of a task.
        fewest: support rows are uniform in `fewest` … `support`; `None` (default) shows all of
            them.

    Example:
        >>> import jax
        >>> from metaprior.sources import Linear
        >>> source = Linear.of(2)
        >>> task = source(jax.random.key(0))
        >>> source.exact(task.support).predict(task.query.x, key=None, samples=1).mean().shape
        (10, 1)
    """

    mean: Float[Array, "q"]
    factor: Float[Array, "q r"]
    noise: Array | float = 0.3
    support: int = eqx.field(static=True, default=10)
    query: int = eqx.field(static=True, default=10)
    fewest: int | None = eqx.field(static=True, default=None)

    @staticmethod
    def of(d: int, std: float = 1.0, **settings) -> "Linear":
        """Zero mean and independent coefficients, all with standard deviation `std`."""
        return Linear(jnp.zeros(d + 1), std * jnp.eye(d + 1), **settings)

    def __call__(self, key) -> Task:
        w_key, x_key, e_key, k_key = jr.split(key, 4)
        w = self.mean + self.factor @ jr.normal(w_key, (self.factor.shape[1],))
        x = jr.normal(x_key, (self.support + self.query, self.mean.shape[0] - 1))
        y = _linear(w, x) + self.noise * jr.normal(e_key, x.shape[:1])
        return shots(Data.of(x, y), self.support, self.fewest, key=k_key)

    def exact(self, support: Data) -> Exact:
        """The posterior that knows prior and noise."""
        # Random effects of degree 1 with no spread of their own beside L Lᵀ.
        kernel = RandomEffects(self.factor, jnp.full_like(self.mean, -jnp.inf), 1)
        return Exact(eqx.Partial(_linear, self.mean), (kernel,), self.noise, support)
