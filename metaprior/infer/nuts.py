"""Hamiltonian Monte Carlo: draws from any differentiable density, and how well the sampler did."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Chains(eqx.Module):
    """What a sampler gives back.

    Args:
        w: draws, the chains one after the other: every floating-point array has a leading axis
            `chains * draws`.
        chains: how many of them.
        acceptance: mean acceptance probability over trajectories; 0.8 is aimed at.
        divergences: trajectories whose energy went wrong; draws are not to be trusted where there
            are more than a few.
    """

    w: Any
    chains: int = eqx.field(static=True)
    acceptance: Float[Array, ""]
    divergences: Int[Array, ""]

    def effective(self, values: Float[Array, "s *b"]) -> Float[Array, "*b"]:
        """Effective number of independent draws for the mean of one value (or more) a draw."""
        import blackjax

        values = values.reshape(self.chains, -1, *values.shape[1:])
        with jax.numpy_dtype_promotion("standard"):
            return blackjax.ess(values)


def nuts(
    log_prob: Callable[[Any], Float[Array, ""]],
    start: Any,
    *,
    warmup: int = 500,
    draws: int = 500,
    dense: bool = False,
    key: PRNGKeyArray,
) -> Chains:
    """The no-U-turn sampler, one chain for each start; step size and mass matrix from a warm-up.

    Hoffman & Gelman, "The No-U-Turn Sampler", JMLR 2014. This is blackjax's, with the windows of
    the Stan reference manual.

    Args:
        log_prob: of one `w`, up to a constant, in nats.
        start: a pytree whose floating-point arrays have a leading chain axis.
        warmup: steps that adapt and are thrown away, at least 20.
        draws: steps of a chain that are kept, at least 1.
        dense: whether the mass matrix has correlations: for up to some tens of numbers.
        key: of everything random.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.nuts import nuts
        >>> def log_prob(w):
        ...     return -0.5 * ((w - 3.0) ** 2).sum()
        >>> found = nuts(log_prob, jnp.zeros((4, 2)), key=jax.random.key(0))
        >>> found.w.shape, bool(abs(found.w.mean() - 3.0) < 0.1), int(found.divergences)
        ((2000, 2), True, 0)
    """
    import blackjax  # here, as it takes a second that other methods need not wait for

    if warmup < 20 or draws < 1:
        raise ValueError(
            "nuts takes a warm-up of at least 20 steps and at least 1 draw; "
            f"got {warmup} and {draws}."
        )
    moving, fixed = eqx.partition(start, eqx.is_inexact_array)
    unravel = ravel_pytree(jax.tree.map(lambda a: a[0], moving))[1]
    flat = jax.vmap(lambda w: ravel_pytree(w)[0])(moving)

    def log_density(v):
        return log_prob(eqx.combine(unravel(v), fixed))

    def chain(v, key):
        warm_key, key = jr.split(key)
        adaptation = blackjax.window_adaptation(
            blackjax.nuts, log_density, not dense, adaptation_info_fn=lambda *_: None
        )
        (state, settings), _ = adaptation.run(warm_key, v, warmup)  # ty: ignore[too-many-positional-arguments]
        kernel = blackjax.nuts(log_density, **settings)

        def step(state, key):
            state, info = kernel.step(key, state)
            return state, (state.position, info.acceptance_rate, info.is_divergent)

        return jax.lax.scan(step, state, jr.split(key, draws))[1]

    with jax.numpy_dtype_promotion("standard"):  # blackjax mixes dtypes
        positions, acceptance, divergent = jax.vmap(chain)(flat, jr.split(key, len(flat)))
    w = eqx.combine(jax.vmap(unravel)(positions.reshape(-1, flat.shape[1])), fixed)
    return Chains(w, len(flat), acceptance.mean(), divergent.sum())
