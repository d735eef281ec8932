"""A few steps of descent on a dense network, by the rows that its gradients are sums over."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaprior.infer.descend import FEW
from metaprior.nets.mlp import affine, layers
from metaprior.system.products import column_sums, nn, nt, tn

OWN = 3  # rows through a task's own weights that take as long as what else these cost in a step


def by_rows(net: eqx.nn.MLP, support: int, query: int, steps: int) -> list[bool]:
    """For each layer, whether `outputs_after_steps` does without its weights, for so many rows of
    support and query.

    It then takes support · rows · (inputs + outputs) multiplications a step, rows being those that
    go through the layer after a step, in the place of support · inputs · outputs, and, of several
    steps, of reading and writing each task's own weights.
    """
    rows, own = support * (steps - 1) + query, OWN if steps > 1 else 0
    sizes = [layer.weight.shape for layer in net.layers]
    return [support * rows * (i + o) <= (support + own) * i * o for o, i in sizes]


def takes(net: Any, rate: Any, steps: int) -> bool:
    """Whether `outputs_after_steps` can take the place of `descend`: for a few steps of a dense
    network with one rate for all of its weights.
    """
    dense = isinstance(net, eqx.nn.MLP) and all(layer.bias is not None for layer in net.layers)
    return dense and eqx.is_array_like(rate) and jnp.ndim(rate) == 0 and 1 <= steps <= FEW


def outputs_after_steps(
    risk: Callable[[Float[Array, "n r"]], Float[Array, ""]],
    net: eqx.nn.MLP,
    support: Float[Array, "n d"],
    query: Float[Array, "m d"],
    rate: Any,
    steps: int = 1,
    *,
    first_order: bool = False,
) -> Float[Array, "m r"]:
    """What `apply(descend(lambda w: risk(apply(w, support)), net, rate, steps), query)` gives, in
    another order of its sums.

    The gradient of a layer's weights W is a sum over the support's rows, G = Σᵢ gᵢ sᵢᵀ, with sᵢ
    what goes into the layer and gᵢ the gradient of what comes out, so that after a step it gives x
    ↦ W x + b - α Σᵢ gᵢ (sᵢᵀ x + 1), and after several the sum over those of all: no task has
    weights of its own. What tasks share is one product with W for the rows of all, in the backward
    pass as well. Layers for which `by_rows` says no get their weights, W + Σᵢ gᵢ (-α sᵢ)ᵀ: with α
    taken into the product, what the gradient passes back through G reads is the gradient of the
    weights themselves, which XLA then adds to from step to step; of W - α G it makes the sum over
    all later steps again at every step.

    Args:
        risk: of the raw outputs at the rows of `support`, in nats.
        net: before the first step, with biases.
        support, query: rows of x.
        rate: α, one number.
        steps: number of steps.
        first_order: take the inner gradients as constants.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.rows import outputs_after_steps
        >>> from metaprior.nets.mlp import mlp
        >>> net, x = mlp(1, 1, 8, 2, key=jax.random.key(0)), jnp.ones((3, 1))
        >>> outputs_after_steps(lambda raw: ((raw - 1.0) ** 2).mean(), net, x, x[:2], 0.1).shape
        (2, 1)
    """
    chosen = by_rows(net, len(support), len(query), steps)

    def weights(net):
        return [a for layer in net.layers for a in (layer.weight, layer.bias)]

    moves = eqx.tree_at(
        weights, jax.tree.map(eqx.is_inexact_array, net), replace_fn=lambda _: False
    )
    moving, fixed = eqx.partition(net, moves)  # what activations learn, and the rest
    # Added to what comes out of a layer; its gradient is gᵢ.
    zeros = [
        jnp.zeros((len(support), len(layer.weight)), layer.weight.dtype) for layer in net.layers
    ]

    def forward(moving, own, added, more, x):
        """Outputs, and what goes into each layer."""
        inputs = []
        for layer, (_, activation), rows, plus in zip(
            own, layers(eqx.combine(moving, fixed)), added, more
        ):
            inputs.append(x)
            y = affine(layer, x)
            if rows is not None:
                s, step = rows
                y = y + nn(nt(x, s) + 1, step)
            x = activation(y if plus is None else y + plus)
        return x, inputs

    def loss(varied, own, added):
        moving, more = varied
        raw, inputs = forward(moving, own, added, more, support)
        return risk(raw), inputs

    constant = jax.lax.stop_gradient if first_order else lambda a: a
    own = list(net.layers)
    nothing = [None] * len(chosen)
    added = list(nothing)
    for _ in range(steps):
        (gradient, each), inputs = constant(
            jax.grad(loss, has_aux=True)((moving, zeros), own, added)
        )
        moving = eqx.apply_updates(moving, jax.tree.map(lambda g: -rate * g, gradient))
        for i, (s, g) in enumerate(zip(inputs, each)):
            if chosen[i]:
                added[i] = _with(added[i], s, -rate * g)
            else:
                after = own[i].weight + tn(g, -rate * s), own[i].bias - rate * column_sums(g)
                own[i] = eqx.tree_at(lambda layer: (layer.weight, layer.bias), own[i], after)
    return forward(moving, own, added, nothing, query)[0]


def _with(rows: tuple[Array, Array] | None, s: Array, step: Array) -> tuple[Array, Array]:
    """The rows of another step beside those before: sᵢ and -α gᵢ."""
    if rows is None:
        return s, step
    return jnp.concatenate([rows[0], s]), jnp.concatenate([rows[1], step])
