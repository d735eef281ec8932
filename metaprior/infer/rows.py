"""One step of descent on a dense network, without weights of a task's own.

It gives what `metaprior.infer.descend.descend` gives, in another order of the sums. With one step
it trains MAML 1.3 and EMAML 1.7 times as fast; with more steps it brings nothing.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaprior.infer.descend import AbstractStep, Rate
from metaprior.nets.mlp import affine, layers
from metaprior.system.products import nn, nt, tn


def takes(net: Any, rate: AbstractStep, steps: int) -> bool:
    """Whether `outputs_after_step` gives what `steps` of descent give.

    It does for one step, with one rate, of a dense network that has biases.
    """
    dense = isinstance(net, eqx.nn.MLP) and all(layer.bias is not None for layer in net.layers)
    return dense and isinstance(rate, Rate) and steps == 1


def outputs_after_step(
    risk: Callable[[Float[Array, "n r"]], Float[Array, ""]],
    net: eqx.nn.MLP,
    support: Float[Array, "n d"],
    query: Float[Array, "m d"],
    rate: AbstractStep,
    *,
    first_order: bool = False,
) -> Float[Array, "m r"]:
    """The network's outputs at the query after a step of descent on the support.

    That is `apply(descend(lambda w: risk(apply(w, support)), net, rate), query)`. The gradient of a
    layer's weights W is a sum over the support's rows, G = Σᵢ gᵢ sᵢᵀ, with sᵢ what goes into the
    layer and gᵢ the gradient of what comes out. So after the step the layer gives
    x ↦ W x + b - α Σᵢ gᵢ (sᵢᵀ x + 1). All tasks share W, and with it one large product.

    Args:
        risk: of the raw outputs at the rows of `support`, in nats.
        net: before the step, with biases.
        support, query: rows of x.
        rate: α, a `Rate`.
        first_order: take the inner gradient as a constant.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.descend import Rate
        >>> from metaprior.infer.rows import outputs_after_step
        >>> from metaprior.nets.mlp import mlp
        >>> net, x = mlp(1, 1, 8, 2, key=jax.random.key(0)), jnp.ones((3, 1))
        >>> loss = lambda raw: ((raw - 1.0) ** 2).mean()
        >>> outputs_after_step(loss, net, x, x[:2], Rate(0.1)).shape
        (2, 1)
    """
    # What activations learn moves as in any descent; the layers' own weights do not.
    weights = [a for layer in net.layers for a in (layer.weight, layer.bias)]
    moving, fixed = eqx.partition(
        net, lambda a: eqx.is_inexact_array(a) and not any(a is w for w in weights)
    )

    def forward(moving, x, change):
        """Outputs, and what goes into each layer; `change(i, x, y)` is what layer i then gives."""
        inputs = []
        pairs = zip(net.layers, layers(eqx.combine(moving, fixed)), strict=True)
        for i, (layer, (_, activation)) in enumerate(pairs):
            inputs.append(x)
            x = activation(change(i, x, affine(layer, x)))
        return x, inputs

    def loss(varied):
        # Zeros that are added to what comes out of a layer: their gradient is gᵢ.
        moving, zeros = varied
        raw, inputs = forward(moving, support, lambda i, x, y: y + zeros[i])
        return risk(raw), inputs

    zeros = [jnp.zeros((len(support), len(layer.weight)), support.dtype) for layer in net.layers]
    gradient, inputs = jax.grad(loss, has_aux=True)((moving, zeros))
    if first_order:
        gradient, inputs = jax.lax.stop_gradient((gradient, inputs))
    moved, steps = rate(gradient, jnp.asarray(0))
    moving = jax.tree.map(jnp.subtract, moving, moved)

    def after(i, x, y):
        layer, s, step = net.layers[i], inputs[i], steps[i]
        outputs, width = layer.weight.shape
        if len(query) * (outputs + width) <= outputs * width:
            return y - nn(nt(x, s) + 1, step)
        # Where one side of the layer is narrow, its own weights take less.
        weight, bias = layer.weight - tn(step, s), layer.bias - step.sum(0)
        return nt(x, weight) + bias

    return forward(moving, query, after)[0]
