"""Tasks from two families of functions, which a few rows cannot tell apart."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int

from metaprior.sources.grid import Grid, lines, sines
from metaprior.sources.shots import shots
from metaprior.task import Data, Task


class SineLine(eqx.Module):
    """A sine wave or a line.

    Finn, Xu & Levine, "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018, section 5. A fair
    coin decides between y = A sin(x - phase), with A uniform in [0.1, 5] and the phase in [0, π],
    and y = slope x + intercept, both uniform in [-3, 3]. x is uniform in [-5, 5], and every row has
    normal noise of standard deviation 0.3 (the ranges are those of VAMPIRE's code). With the
    paper's 5 rows hardly any task is ambiguous; with 2 rows about four in ten are.

    Args:
        support, query: rows of a task (10 + 10).
        fewest: support rows are uniform in `fewest` … `support`; `None` (default) shows all of
            them.
        amplitude, phase: lowest and highest value, of a sine wave.
        slope, intercept: lowest and highest value, of a line.
        x: lowest and highest value.
        noise: standard deviation of the noise, units of y.

    Example:
        >>> import jax
        >>> from metaprior.sources import SineLine
        >>> source = SineLine(support=2)
        >>> task = source(jax.random.key(0))
        >>> exact = source.exact(task.support)
        >>> exact.family().shape, exact.predict(task.query.x, key=None, samples=1).mean().shape
        ((2,), (10, 1))
    """

    support: int = eqx.field(static=True, default=10)
    query: int = eqx.field(static=True, default=10)
    fewest: int | None = eqx.field(static=True, default=None)
    amplitude: tuple[float, float] = eqx.field(static=True, default=(0.1, 5.0))
    phase: tuple[float, float] = eqx.field(static=True, default=(0.0, 3.141592653589793))
    slope: tuple[float, float] = eqx.field(static=True, default=(-3.0, 3.0))
    intercept: tuple[float, float] = eqx.field(static=True, default=(-3.0, 3.0))
    x: tuple[float, float] = eqx.field(static=True, default=(-5.0, 5.0))
    noise: float = eqx.field(static=True, default=0.3)

    def family(self, key) -> Int[Array, ""]:
        """What the task of this key is: 0 for a sine wave, 1 for a line."""
        # The same split as in `__call__`: nothing needs to be stored with the task.
        return jr.bernoulli(jr.split(key, 5)[0]).astype(int)

    def __call__(self, key) -> Task:
        _, f_key, x_key, k_key, e_key = jr.split(key, 5)
        low, high = jnp.asarray([self.amplitude, self.phase, self.slope, self.intercept]).T
        a, phase, slope, intercept = low + jr.uniform(f_key, (4,)) * (high - low)
        x = jr.uniform(x_key, (self.support + self.query, 1), minval=self.x[0], maxval=self.x[1])
        f = jnp.where(self.family(key) == 0, a * jnp.sin(x - phase), slope * x + intercept)
        y = f + self.noise * jr.normal(e_key, f.shape)
        return shots(Data.of(x, y), self.support, self.fewest, key=k_key)

    def exact(self, support: Data) -> Grid:
        """The posterior that knows both families and the noise."""
        families = (sines(self.amplitude, self.phase), lines(self.slope, self.intercept))
        return Grid(families, self.noise, support)
