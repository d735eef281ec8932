"""Fully connected networks: equinox's, called with one row a point."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.method import Spec
from metaprior.system.products import nt


def mlp(
    inputs: int,
    outputs: int,
    width: int,
    depth: int,
    *,
    key: PRNGKeyArray,
    activation: Callable = jax.nn.relu,
) -> eqx.nn.MLP:
    """`depth` hidden layers of `width` units.

    Weights and biases start uniform in ±1/sqrt(fan-in).
    """
    return eqx.nn.MLP(inputs, outputs, width, depth, activation, key=key)


def network(
    spec: Spec,
    outputs: int,
    width: int,
    depth: int,
    *,
    key: PRNGKeyArray,
    activation: Callable = jax.nn.relu,
) -> Any:
    """The network of x: what `spec.net` makes (an image network), else an `mlp` of this size."""
    if spec.net is not None:
        return spec.net(outputs, key=key)
    return mlp(spec.x_dim, outputs, width, depth, key=key, activation=activation)


def apply(net: Callable, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
    """The network, or any layer, at every row of `x`."""
    if not isinstance(net, eqx.nn.MLP):
        return jax.vmap(net)(x)
    for layer, activation in layers(net):
        x = activation(affine(layer, x))
    return x


def layers(net: eqx.nn.MLP) -> list[tuple[eqx.nn.Linear, Callable]]:
    """Each layer with the activation after it; arrays of an activation are equinox's, one for each
    hidden layer and unit.
    """

    def hidden(i):
        own = jax.tree.map(lambda a: a[i] if eqx.is_array(a) else a, net.activation)
        units = eqx.filter_vmap(lambda a, v: a(v), in_axes=(eqx.if_array(0), -1), out_axes=-1)
        return (lambda x: units(own, x)) if jax.tree.leaves(eqx.filter(own, eqx.is_array)) else own

    *first, last = net.layers
    return [*((layer, hidden(i)) for i, layer in enumerate(first)), (last, net.final_activation)]


def affine(layer: eqx.nn.Linear, x: Float[Array, "n d"]) -> Float[Array, "n r"]:
    """The layer at every row of `x`: one product for all, rather than one a row, batched
    afterwards: a tenth quicker to train.
    """
    y = nt(x, layer.weight)
    return y if layer.bias is None else y + layer.bias


def zero_last(net: eqx.nn.MLP) -> eqx.nn.MLP:
    """The net with its last layer at zero: it starts as the zero function."""

    def last(n):
        return (n.layers[-1].weight, n.layers[-1].bias)

    return eqx.tree_at(last, net, tuple(jnp.zeros_like(a) for a in last(net)))
