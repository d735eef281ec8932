"""Policies trained by ascending what they gain, with optax alone."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float

from metaprior.protocols.cell import parameters
from metaprior.system.compiled import jit

CHUNK = 20  # steps of training in one call
Policy = TypeVar("Policy", bound=eqx.Module)


def frozen(policy: Policy) -> Policy:
    """The same policy without gradients, by which actions are drawn."""

    def stop(leaf: Any) -> Any:
        return jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(stop, policy)


def gain(reward: Float[Array, "n"], discount: float) -> Float[Array, "n"]:
    """What is gained from each step on: the sum of rewards, later ones discounted."""

    def back(later, now):
        total = now + discount * later
        return total, total

    return jax.lax.scan(back, jnp.zeros(()), reward, reverse=True)[1]


def improve(
    policy: Policy,
    objective: Callable[[Policy, Any], tuple[Any, Any]],
    how: dict[str, Any],
    told: Callable[[Any], str],
    progress: Callable[[float, str], None],
    *,
    key: Any,
    last: float = 0.1,
) -> tuple[Policy, dict[str, Any]]:
    """A policy after `how["steps"]` steps of Adam, and facts of its training.

    The learning rate falls along a cosine, and gradients are clipped at the norm 1.

    Args:
        policy: as it starts.
        objective: `(policy, key) -> (loss, seen)` of new tasks: what is minimised, and arrays that
            `told` makes words of. Where actions are drawn, the `frozen` policy draws them, and the
            loss weighs their log probabilities.
        how: `steps` and `learning_rate`.
        told: `(seen, averaged over steps) -> words`.
        progress: told 0 … 1 over training.
        key: of all tasks and actions.
        last: share of the learning rate that is left in the end.
    """
    began = time.perf_counter()
    steps = how["steps"]
    rate = optax.cosine_decay_schedule(how["learning_rate"], steps, last)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    params, fixed = eqx.partition(policy, eqx.is_inexact_array)

    def step(carry, k):
        params, state = carry
        grads, seen = jax.grad(lambda p: objective(eqx.combine(p, fixed), k), has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), seen

    @jit
    def chunk(carry, keys):
        return jax.lax.scan(step, carry, keys)

    carry = params, optimiser.init(params)
    keys = jr.split(key, steps)
    for first in range(0, steps, CHUNK):
        carry, seen = chunk(carry, keys[first : first + CHUNK])
        mean = jax.tree.map(lambda a: a.mean(0), seen)
        progress(min(1.0, (first + CHUNK) / steps), f"training, {told(mean)}")
    policy = eqx.combine(carry[0], fixed)
    facts = {
        "parameters": parameters(policy),
        "steps": steps,
        "train_seconds": round(time.perf_counter() - began, 1),
    }
    return policy, facts
