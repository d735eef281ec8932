"""A step of descent without the weights that it leads to."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaprior.nets.mlp import affine, apply, layers


def large(net: eqx.nn.MLP, rows: int) -> list[bool]:
    """For each layer, whether few enough rows go through it after the step: rows (inputs + outputs) ≤ inputs · outputs."""
    return [rows * sum(layer.weight.shape) <= math.prod(layer.weight.shape) for layer in net.layers]


def cheaper(net: Any, rate: Any, rows: int) -> bool:
    """Whether `outputs_after_step` does less than one step of `descend`: for a dense network with one rate for all of its weights
    and a layer that is `large` beside the `rows` of the query."""
    dense = isinstance(net, eqx.nn.MLP) and all(layer.bias is not None for layer in net.layers)
    return dense and eqx.is_array_like(rate) and jnp.ndim(rate) == 0 and any(large(net, rows))


def outputs_after_step(
    risk: Callable[[Float[Array, "n r"]], Float[Array, ""]],
    net: eqx.nn.MLP,
    support: Float[Array, "n d"],
    query: Float[Array, "m d"],
    rate: Any,
    *,
    first_order: bool = False,
) -> Float[Array, "m r"]:
    """What `apply(descend(lambda w: risk(apply(w, support)), net, rate), query)` gives, in another order of the same sums.

    The gradient of a layer's weights W is a sum over the support's rows, G = Σᵢ gᵢ sᵢᵀ, with sᵢ what goes into the layer and
    gᵢ the gradient of what comes out, so that after the step it gives x ↦ W x + b - α Σᵢ gᵢ (sᵢᵀ x + 1): no weights of a
    task's own. What many tasks share is one product with W for all their rows, in the backward pass as well. Layers that
    are not `large` get their weights, as `descend` makes them.

    Args:
        risk: of the raw outputs at the rows of `support`, in nats.
        net: before the step, with biases.
        support, query: rows of x.
        rate: α, one number.
        first_order: take the inner gradient as a constant.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.rows import outputs_after_step
        >>> from metaprior.nets.mlp import mlp
        >>> net, x = mlp(1, 1, 8, 2, key=jax.random.key(0)), jnp.ones((3, 1))
        >>> outputs_after_step(lambda raw: ((raw - 1.0) ** 2).mean(), net, x, x[:2], 0.1).shape
        (2, 1)
    """
    big = large(net, len(query))
    part = lambda name: lambda net: [getattr(layer, name) for layer, by_rows in zip(net.layers, big) if by_rows]
    biases = part("bias")
    # With a bias for every row: its gradient is gᵢ.
    each = [jnp.broadcast_to(bias, (len(support), *bias.shape)) for bias in biases(net)]
    before = eqx.tree_at(biases, net, each)
    move = eqx.tree_at(part("weight"), jax.tree.map(eqx.is_inexact_array, before), replace_fn=lambda _: False)
    moving, fixed = eqx.partition(before, move)
    loss = lambda w: risk(apply(eqx.combine(w, fixed), support))
    constant = jax.lax.stop_gradient if first_order else lambda a: a
    step = jax.tree.map(lambda gradient: -rate * gradient, constant(jax.grad(loss)(moving)))
    after = eqx.combine(eqx.apply_updates(moving, step), fixed)

    moves = iter(biases(step))  # -α gᵢ
    s, x = support, query
    for layer, (old, activation), (new, activated), by_rows in zip(net.layers, layers(before), layers(after), big):
        if by_rows:
            inner = jnp.einsum("id,nd->in", constant(s), x) + 1
            y = affine(layer, x) + jnp.einsum("ir,in->nr", next(moves), inner)
        else:
            y = affine(new, x)
        s, x = activation(affine(old, s)), activated(y)
    return x
