"""Fully connected networks: equinox's, called with one row a point."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray


def mlp(
    inputs: int, outputs: int, width: int, depth: int, *, key: PRNGKeyArray, activation: Callable = jax.nn.relu
) -> eqx.nn.MLP:
    """`depth` hidden layers of `width` units; weights and biases start uniform in ±1/sqrt(fan-in)."""
    return eqx.nn.MLP(inputs, outputs, width, depth, activation, key=key)


def apply(net: Callable, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
    """The network, or any layer, at every row of `x`."""
    return jax.vmap(net)(x)
