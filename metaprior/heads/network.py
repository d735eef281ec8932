"""Small networks inside heads; their arrays are meta-parameters."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def network(
    inputs: int,
    outputs: int,
    hidden: int,
    depth: int,
    *,
    key: PRNGKeyArray,
    activation: Callable = jnp.tanh,
) -> eqx.nn.MLP:
    """A fully connected network of `depth` hidden layers of `hidden` units.

    The units are tanh unless told otherwise: they are smooth, so that curvature exists.
    """
    return eqx.nn.MLP(inputs, outputs, hidden, depth, activation, key=key)


def at(net: eqx.nn.MLP, *parts: Float[Array, "*b _"]) -> Float[Array, "*b o"]:
    """The network at its inputs side by side.

    Their leading axes broadcast. Parts without columns are left out.
    """
    parts = tuple(part for part in parts if part.shape[-1])
    lead = jnp.broadcast_shapes(*(part.shape[:-1] for part in parts))
    wide = [jnp.broadcast_to(part, (*lead, part.shape[-1])) for part in parts]
    row = jnp.concatenate(wide, axis=-1)
    # `vectorize` and not `vmap`: there may be any number of leading axes, also none.
    return jnp.vectorize(lambda x: net(x), signature="(i)->(o)")(row)
