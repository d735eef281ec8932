"""Fully connected networks: equinox's, called with one row a point."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.method import Spec


def mlp(
    inputs: int, outputs: int, width: int, depth: int, *, key: PRNGKeyArray, activation: Callable = jax.nn.relu
) -> eqx.nn.MLP:
    """`depth` hidden layers of `width` units; weights and biases start uniform in ±1/sqrt(fan-in)."""
    return eqx.nn.MLP(inputs, outputs, width, depth, activation, key=key)


def network(
    spec: Spec, outputs: int, width: int, depth: int, *, key: PRNGKeyArray, activation: Callable = jax.nn.relu
) -> Any:
    """The network of x: what `spec.net` makes (an image network), else an `mlp` of this size."""
    if spec.net is not None:
        return spec.net(outputs, key=key)
    return mlp(spec.x_dim, outputs, width, depth, key=key, activation=activation)


def apply(net: Callable, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
    """The network, or any layer, at every row of `x`."""
    if not isinstance(net, eqx.nn.MLP):
        return jax.vmap(net)(x)
    # One product a layer for all rows, rather than a product a row that is batched afterwards: a tenth quicker to train.
    for layer in net.layers[:-1]:
        x = net.activation(_affine(layer, x))
    return net.final_activation(_affine(net.layers[-1], x))


def _affine(layer: eqx.nn.Linear, x: Array) -> Array:
    y = jnp.einsum("nd,rd->nr", x, layer.weight)  # without a transpose, which batched over tasks would be a copy
    return y if layer.bias is None else y + layer.bias
