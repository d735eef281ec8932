"""Who reads at random, and who knows the exact posterior of the source."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float

from metaprior.protocols.learned_acquisition.location_world import NOISE, level

SIDE = 32  # places along each side of the posterior's grid
DRAWS = 128  # of the source, over which rules average; and that they choose among
LOW, HIGH, NODES = -2.6, 11.4, 36  # of readings, where entropies are summed


def at_random(place, reading, known, *, key) -> Float[Array, "2"]:
    """A uniformly random place."""
    return jr.uniform(key, (2,))


class Exact(eqx.Module):
    """Knows the posterior of the source, and chooses by a rule.

    Args:
        how: `"draw"` reads at a place drawn from the posterior (Thompson sampling). `"variance"`
            reads where the mean reading varies most over the posterior. `"information"` reads where
            one more reading says most of the source, in nats. The last two choose among 128 draws
            of the source and 64 random places.
    """

    how: str = eqx.field(static=True)

    def __call__(
        self,
        place: Float[Array, "n 2"],
        reading: Float[Array, "n"],
        known: Bool[Array, "n"],
        *,
        key,
    ) -> Float[Array, "2"]:
        d_key, u_key = jr.split(key)
        if self.how == "draw":
            return sources(place, reading, known, 1, key=d_key)[0]
        drawn, other = jnp.split(sources(place, reading, known, 2 * DRAWS, key=d_key), 2)
        places = jnp.concatenate([other, jr.uniform(u_key, (DRAWS // 2, 2))])
        mean = level(drawn[None], places[:, None])
        score = mean.var(1) if self.how == "variance" else jax.lax.map(gain, mean, batch_size=32)
        return places[jnp.argmax(score)]


def gain(mean: Float[Array, "s"]) -> Float[Array, ""]:
    """What a reading says of the source, in nats: entropy of the reading less that of its noise.

    Args:
        mean: of the reading, at draws of the source.
    """
    y, step = jnp.linspace(LOW, HIGH, NODES, retstep=True)
    each = jnp.exp(-0.5 * ((y[:, None] - mean) / NOISE) ** 2) / (NOISE * (2 * jnp.pi) ** 0.5)
    p = each.mean(1)
    entropy = -(p * jnp.log(p + 1e-30)).sum() * step
    return entropy - 0.5 * jnp.log(2 * jnp.pi * jnp.e * NOISE**2)


def sources(
    place: Float[Array, "n 2"],
    reading: Float[Array, "n"],
    known: Bool[Array, "n"],
    draws: int,
    *,
    key,
) -> Float[Array, "d 2"]:
    """Draws of the source from its posterior: a grid, made finer where the mass is."""

    def grid(low, high):
        side = (jnp.arange(SIDE) + 0.5) / SIDE
        x, y = (low[i] + (high[i] - low[i]) * side for i in (0, 1))
        return jnp.stack(jnp.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)

    def weigh(theta):
        def add(total, now):
            at, y, real = now
            term = -0.5 * ((y - level(theta, at)) / NOISE) ** 2
            return total + jnp.where(real, term, 0.0), None

        return jax.lax.scan(add, jnp.zeros(len(theta)), (place, reading, known))[0]

    low, high = jnp.zeros(2), jnp.ones(2)
    for _ in range(2):
        theta = grid(low, high)
        weight = weigh(theta)
        cell = (high - low) / SIDE
        near = (weight > weight.max() - 12)[:, None]
        low, high = (
            jnp.maximum(jnp.where(near, theta, jnp.inf).min(0) - cell, 0.0),
            jnp.minimum(jnp.where(near, theta, -jnp.inf).max(0) + cell, 1.0),
        )
    theta = grid(low, high)
    cell = (high - low) / SIDE
    i_key, u_key = jr.split(key)
    below = jnp.cumsum(jax.nn.softmax(weigh(theta)))
    index = jnp.searchsorted(below, below[-1] * jr.uniform(i_key, (draws,)))
    return theta[index] + cell * (jr.uniform(u_key, (draws, 2)) - 0.5)
