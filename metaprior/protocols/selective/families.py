"""Sine waves and lines, which are trained on, and families of tasks that are not.

Each has an exact marginal likelihood, so that the best possible test between two of them is known.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from metaprior.sources import SineLine
from metaprior.sources.grid import Family, Grid
from metaprior.task import Data

ROWS = 10  # of a support
NOISE, RANGE = SineLine.noise, SineLine.x  # families differ in their functions alone
JUMPS = (-3.0, -1.5, 0.0, 1.5, 3.0)  # where steps may be
LEVELS, FREQUENCY = (-5.0, 5.0), 3.0
TRAINED, STEPS, FAST = "sine or line", "steps", "other frequency"


def _sides(jump: float):
    def features(x):
        right = (x > jump).astype(x.dtype)
        return jnp.concatenate([1 - right, right], axis=1)

    return features


def _fast(x):
    return jnp.concatenate([jnp.sin(FREQUENCY * x), jnp.cos(FREQUENCY * x)], axis=1)


def _levels(left, right):
    return left, right


def _waves(amplitude, phase):
    return amplitude * jnp.cos(phase), -amplitude * jnp.sin(phase)


def _corners(first: tuple[float, float], second: tuple[float, float]):
    return (first[0], second[0]), (first[1], second[1])


class Drawn(NamedTuple):
    """Families of functions, equally likely, and how their numbers are drawn."""

    families: tuple[Family, ...]

    def evidence(self, data: Data) -> Float[Array, ""]:
        """log p(y | x) of the rows in the mask, nats."""
        grid = Grid(self.families, NOISE, data.first(0))
        return grid.joint_log_prob(data, key=jr.key(0), samples=1)

    def support(self, key) -> Data:
        """`ROWS` rows of one task."""
        f_key, w_key, x_key, e_key = jr.split(key, 4)
        x = jr.uniform(x_key, (ROWS, 1), minval=RANGE[0], maxval=RANGE[1])
        u = jr.uniform(w_key, (2,))

        def of(family: Family) -> Array:
            low, high = jnp.asarray(family.low), jnp.asarray(family.high)
            w = jnp.stack(family.weights(*(low + u * (high - low))))
            return family.features(x) @ w

        each = jnp.stack([of(family) for family in self.families])
        f = each[jr.randint(f_key, (), 0, len(self.families))]
        return Data.of(x, f + NOISE * jr.normal(e_key, f.shape))


def others() -> dict[str, Drawn]:
    """The families that are not trained on, by name."""
    low, high = _corners(LEVELS, LEVELS)
    steps = tuple(Family(_sides(jump), _levels, low, high, (20, 20)) for jump in JUMPS)
    low, high = _corners(SineLine.amplitude, SineLine.phase)
    return {STEPS: Drawn(steps), FAST: Drawn((Family(_fast, _waves, low, high, (32, 64)),))}


def trained_on() -> Drawn:
    """Sine waves and lines."""
    return Drawn(SineLine().exact(Data.of(jnp.zeros((1, 1)), jnp.zeros(1))).families)


@eqx.filter_jit
def supports(drawn: Drawn, keys) -> Data:
    """A support a key, stacked."""
    return jax.vmap(drawn.support)(keys)
