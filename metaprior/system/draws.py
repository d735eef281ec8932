"""The random numbers that training draws: JAX's own, bit for bit, computed in one pass on CPUs."""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.extend.random import define_prng_impl
from jaxtyping import Array, PRNGKeyArray, UInt32

from metaprior.system.compiled import apart

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def quick_key(data: UInt32[Array, "2"]) -> PRNGKeyArray:
    """The key with this data (`jax.random.key_data`), for all functions of `jax.random`.

    They give the same bits as with JAX's default key. On CPUs JAX compiles its generator, for a
    short compile, to a loop that reads and writes the whole array five times. Written out, and as
    a program of its own so that nothing repeats it, it takes one pass.
    """
    if jax.default_backend() != "cpu":
        return jr.wrap_key_data(data, impl="threefry2x32")
    return jr.wrap_key_data(data, impl=QUICK)


def threefry(key: UInt32[Array, "2"], high: Array, low: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds, of 64-bit counters in two halves.

    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY))
    x, y = high + keys[0], low + keys[1]
    for i in range(5):
        for turn in ROTATIONS[i % 2]:
            x = x + y
            y = ((y << jnp.uint32(turn)) | (y >> jnp.uint32(32 - turn))) ^ x
        x = x + keys[(i + 1) % 3]
        y = y + keys[(i + 2) % 3] + jnp.uint32(i + 1)
    return x, y


def _bits(key, bit_width: int, shape: tuple[int, ...]):
    """As many random bits for each number; its counter is its place in the flattened array."""
    if bit_width != 32 or math.prod(shape) >= 2**32:
        return jr.bits(_plain(key), shape, f"uint{bit_width}")

    @apart
    def draw(key):
        place = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
        x, y = threefry(key, jnp.zeros_like(place), place)
        return x ^ y

    return draw(key)


def _plain(key):
    return jr.wrap_key_data(key, impl="threefry2x32")


QUICK = define_prng_impl(
    key_shape=(2,),
    seed=lambda seed: jr.key_data(jr.key(seed, impl="threefry2x32")),
    split=lambda key, shape: jr.key_data(jr.split(_plain(key), shape)),
    random_bits=_bits,
    fold_in=lambda key, data: jr.key_data(jr.fold_in(_plain(key), data)),
    name="threefry2x32_in_one_pass",
    tag="quick",
)
