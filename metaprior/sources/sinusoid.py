"""Sine waves."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr

from metaprior.sources.grid import Grid, sines
from metaprior.sources.shots import shots
from metaprior.task import Data, Task


class Sinusoid(eqx.Module):
    """y = A sin(x - phase): sine waves of one frequency, without noise.

    Finn, Abbeel & Levine, "Model-Agnostic Meta-Learning", ICML 2017, section 5.1. A is uniform in
    [0.1, 5], the phase in [0, π] and x in [-5, 5]; support and query rows are drawn together. With
    `noise=0.02**0.5, fewest=0` these are the tasks of Harrison, Sharma & Pavone, "Meta-Learning
    Priors for Efficient Online Bayesian Regression", WAFR 2018 (ALPaCA), with x mirrored.

    Args:
        support, query: rows of a task (10 + 10).
        fewest: support rows are uniform in `fewest` … `support`; `None` (default) shows all of
            them.
        amplitude, phase, x: lowest and highest value of each.
        noise: standard deviation of normal noise, units of y.

    Example:
        >>> import jax
        >>> from metaprior.sources import Sinusoid
        >>> task = Sinusoid(support=5)(jax.random.key(0))
        >>> task.support.x.shape, task.query.y.shape
        ((5, 1), (10, 1))
        >>> source = Sinusoid(noise=0.3)
        >>> source.exact(task.support).predict(task.query.x, key=None, samples=1).mean().shape
        (10, 1)
    """

    support: int = eqx.field(static=True, default=10)
    query: int = eqx.field(static=True, default=10)
    fewest: int | None = eqx.field(static=True, default=None)
    amplitude: tuple[float, float] = eqx.field(static=True, default=(0.1, 5.0))
    phase: tuple[float, float] = eqx.field(static=True, default=(0.0, 3.141592653589793))
    x: tuple[float, float] = eqx.field(static=True, default=(-5.0, 5.0))
    noise: float = eqx.field(static=True, default=0.0)

    def __call__(self, key) -> Task:
        f_key, x_key, k_key, n_key = jr.split(key, 4)
        n = self.support + self.query
        a, b = jr.uniform(f_key, (2,))
        amplitude = self.amplitude[0] + a * (self.amplitude[1] - self.amplitude[0])
        phase = self.phase[0] + b * (self.phase[1] - self.phase[0])
        x = jr.uniform(x_key, (n, 1), minval=self.x[0], maxval=self.x[1])
        y = amplitude * jnp.sin(x - phase)
        y = y + self.noise * jr.normal(n_key, y.shape) if self.noise else y
        return shots(Data.of(x, y), self.support, self.fewest, key=k_key)

    def exact(self, support: Data) -> Grid:
        """The posterior that knows the ranges and the noise, which must not be zero."""
        if not self.noise:
            raise ValueError(
                "Sinusoid has an exact posterior where there is noise; its noise is 0."
            )
        return Grid((sines(self.amplitude, self.phase),), self.noise, support)
