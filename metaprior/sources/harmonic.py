"""Sine waves of any frequency."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr

from metaprior.sources.shots import shots
from metaprior.task import Data, Task


class Harmonic(eqx.Module):
    """y = A sin(ω x - b): sine waves of any frequency.

    Yoon et al., "Bayesian Model-Agnostic Meta-Learning", NeurIPS 2018, section 5.1. A is uniform in
    [0.1, 5], the frequency ω in [0.5, 2], b in [0, 2π] and x in [-5, 5]. As in the paper's code,
    the support rows have normal noise of standard deviation 0.01 A and the query rows have none.
    The paper's tasks are a finite set with fixed rows; here every draw is a new task.

    Args:
        support, query: rows of a task (10 + 10).
        fewest: support rows are uniform in `fewest` … `support`; `None` (default) shows all of
            them.
        amplitude, frequency, phase, x: lowest and highest value of each.
        noise: standard deviation of the noise, in amplitudes.
        clean: whether query rows are free of noise, as in the paper's code.

    Example:
        >>> import jax
        >>> from metaprior.sources import Harmonic
        >>> task = Harmonic(support=5)(jax.random.key(0))
        >>> task.support.x.shape, task.query.y.shape
        ((5, 1), (10, 1))
    """

    support: int = eqx.field(static=True, default=10)
    query: int = eqx.field(static=True, default=10)
    fewest: int | None = eqx.field(static=True, default=None)
    amplitude: tuple[float, float] = eqx.field(static=True, default=(0.1, 5.0))
    frequency: tuple[float, float] = eqx.field(static=True, default=(0.5, 2.0))
    phase: tuple[float, float] = eqx.field(static=True, default=(0.0, 6.283185307179586))
    x: tuple[float, float] = eqx.field(static=True, default=(-5.0, 5.0))
    noise: float = eqx.field(static=True, default=0.01)
    clean: bool = eqx.field(static=True, default=True)

    def __call__(self, key) -> Task:
        f_key, x_key, k_key, e_key = jr.split(key, 4)
        low, high = jnp.asarray([self.amplitude, self.frequency, self.phase]).T
        amplitude, frequency, phase = low + jr.uniform(f_key, (3,)) * (high - low)
        x = jr.uniform(x_key, (self.support + self.query, 1), minval=self.x[0], maxval=self.x[1])
        f = amplitude * jnp.sin(frequency * x - phase)
        noise = self.noise * amplitude * jr.normal(e_key, f.shape)
        # Noise is drawn for all rows, so that `clean` changes no other number of a task.
        y = f + (noise.at[self.support :].set(0.0) if self.clean else noise)
        return shots(Data.of(x, y), self.support, self.fewest, key=k_key)
