"""Location finding: a source somewhere in the unit square, and noisy readings of its signal."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

BACKGROUND, NEAREST, NOISE = 0.1, 1e-4, 0.5  # b, m and sigma of Foster et al. 2021
READINGS = 30
# Nodes of the evidence around the true source: radii on a logarithmic scale, and angles.
INNER, OUTER = 1e-4, 2**0.5
# In training; and where policies are judged.
COARSE, FINE = (36, 24), (160, 96)


def level(source: Float[Array, "*n 2"], place: Float[Array, "*n 2"]) -> Float[Array, "*n"]:
    """The mean reading: log(b + 1 / (m + |source - place|^2))."""
    square = ((source - place) ** 2).sum(-1)
    return jnp.log(BACKGROUND + 1 / (NEAREST + square))


class Played(NamedTuple):
    """Readings of one task.

    Args:
        place: where they were taken, `(n, 2)`.
        reading: `(n,)`.
    """

    place: Array
    reading: Array


def play(policy: Any, source: Float[Array, "2"], readings: int = READINGS, *, key) -> Played:
    """Readings where a policy wants them."""

    def step(carry, now):
        place, reading = carry
        i, noise, k = now
        at = policy(place, reading, jnp.arange(readings) < i, key=k)
        new = level(source, at) + NOISE * noise
        return (place.at[i].set(at), reading.at[i].set(new)), None

    n_key, key = jr.split(key)
    start = jnp.zeros((readings, 2)), jnp.zeros(readings)
    each = jnp.arange(readings), jr.normal(n_key, (readings,)), jr.split(key, readings)
    return Played(*jax.lax.scan(step, start, each)[0])


def nodes(source: Float[Array, "2"], size: tuple[int, int]) -> tuple[Array, Array]:
    """Places around the true source with log areas, `(n, 2)` and `(n,)`; -inf outside the square.

    The posterior shrinks to a ten-thousandth of the square, around the true source. So radii have a
    logarithmic scale: the rule is as fine as the posterior, whatever its size.
    """
    radii, angles = size
    edge = jnp.linspace(jnp.log(INNER), jnp.log(OUTER), radii + 1)
    edges = jnp.exp(edge).at[0].set(0.0)
    radius = jnp.exp((edge[1:] + edge[:-1]) / 2)
    angle = (jnp.arange(angles) + 0.5) * (2 * jnp.pi / angles)
    ring = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    place = source + radius[:, None, None] * ring
    area = (edges[1:] ** 2 - edges[:-1] ** 2) * jnp.pi / angles
    inside = ((place >= 0) & (place <= 1)).all(-1)
    weight = jnp.where(inside, jnp.log(area)[:, None], -jnp.inf)
    return place.reshape(-1, 2), weight.reshape(-1)


def information(
    source: Float[Array, "2"], played: Played, size: tuple[int, int]
) -> Float[Array, "n"]:
    """log p(readings | source) - log p(readings) after 1 … n of them, in nats.

    Its mean over sources and readings is the expected information gain. The evidence is an
    integral over the unit square.
    """
    place, weight = nodes(source, size)

    def term(at, y, theta):
        return -0.5 * ((y - level(theta, at)) / NOISE) ** 2

    own = jax.vmap(term, (0, 0, None))(played.place, played.reading, source)
    each = jax.vmap(lambda at, y: term(at, y, place))(played.place, played.reading)
    whole = jnp.cumsum(each, 0) + weight
    norm = jax.nn.logsumexp(weight)  # the area of the square, 1 up to the rule's error
    return jnp.cumsum(own) - jax.nn.logsumexp(whole, 1) + norm
