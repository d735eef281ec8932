"""Hamiltonian Monte Carlo: draws from any differentiable density, and how well the sampler did."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

# Vehtari, Gelman, Simpson, Carpenter & Bürkner, "Rank-Normalization, Folding, and Localization: An
# Improved R-hat", Bayesian Analysis 2021, ask for both.
RHAT = 1.01
ESS = 400.0


class Chains(eqx.Module):
    """What a sampler gives back.

    Args:
        w: draws, the chains one after the other: every floating-point array has a leading axis
            `chains * draws`.
        chains: how many of them.
        acceptance: mean acceptance probability over trajectories; 0.8 is aimed at.
        divergences: trajectories whose energy went wrong; draws are not to be trusted where there
            are more than a few.
        rhat: the largest rank-normalised split R-hat of what was watched; 1 is converged, and above
            `RHAT` chains do not agree.
        ess: the least bulk effective number of draws of what was watched; `ESS` is asked for.
        steps: of each chain after the warm-up, of which the draws are a regular part.
    """

    w: Any
    chains: int = eqx.field(static=True)
    acceptance: Float[Array, ""]
    divergences: Int[Array, ""]
    rhat: Float[Array, ""]
    ess: Float[Array, ""]
    steps: Int[Array, ""]

    def effective(self, values: Float[Array, "s *b"]) -> Float[Array, "*b"]:
        """Effective number of independent draws for the mean of one value (or more) a draw."""
        import blackjax

        values = values.reshape(self.chains, -1, *values.shape[1:])
        with jax.numpy_dtype_promotion("standard"):
            return blackjax.ess(values)


def agreement(values: Float[Array, "c n m"]) -> tuple[Array, Array]:
    """The largest R-hat and the least bulk effective number of draws of `m` numbers a draw.

    Numbers that are the same in all draws do not count.

    Example:
        >>> import jax
        >>> from metaprior.infer.nuts import agreement
        >>> same = jax.random.normal(jax.random.key(0), (4, 250, 3))
        >>> rhat, ess = agreement(same)
        >>> bool(rhat < 1.02), bool(ess > 400)
        (True, True)
        >>> rhat, ess = agreement(same.at[0].add(1.0))
        >>> bool(rhat > 1.1), bool(ess < 100)
        (True, True)
    """
    import blackjax

    still = (values == values[:1, :1]).all((0, 1))
    with jax.numpy_dtype_promotion("standard"):
        rhat, ess = blackjax.rhat(values), blackjax.ess_bulk(values)
    # NaN, as of chains that all stand still at different places, is no agreement.
    rhat = jnp.where(still, 1.0, jnp.where(jnp.isnan(rhat), jnp.inf, rhat))
    ess = jnp.where(still, jnp.inf, jnp.where(jnp.isnan(ess), 0.0, ess))
    count = float(values.shape[0] * values.shape[1])
    return rhat.max(), jnp.minimum(ess.min(), count)


def nuts(
    log_prob: Callable[[Any], Float[Array, ""]],
    start: Any,
    *,
    warmup: int = 500,
    draws: int = 500,
    dense: bool = False,
    watch: Callable[[Any], Float[Array, "m"]] | None = None,
    doublings: int = 2,
    key: PRNGKeyArray,
) -> Chains:
    """The no-U-turn sampler, one chain for each start; step size and mass matrix from a warm-up.

    Hoffman & Gelman, "The No-U-Turn Sampler", JMLR 2014. This is blackjax's, with the windows of
    the Stan reference manual. Chains that do not agree (R-hat above `RHAT`) or say too little (an
    effective number of draws below `ESS`) go on until they are twice as long, and so on. They
    then keep every second draw, so that the number of draws is the same in the end.

    Args:
        log_prob: of one `w`, up to a constant, in nats.
        start: a pytree whose floating-point arrays have a leading chain axis.
        warmup: steps that adapt and are thrown away, at least 20.
        draws: of a chain, at least 8; an odd number is rounded up.
        dense: whether the mass matrix has correlations: for up to some tens of numbers. A step
            takes several times as long.
        watch: numbers that must agree beside `log_prob`. `None` (default): all of `w`. The weights
            of a network are a poor choice: exchanged units give the same function.
        doublings: how often chains are made twice as long at most; 0 never.
        key: of everything random.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.nuts import nuts
        >>> def log_prob(w):
        ...     return -0.5 * ((w - 3.0) ** 2).sum()
        >>> found = nuts(log_prob, jnp.zeros((4, 2)), key=jax.random.key(0))
        >>> found.w.shape, bool(abs(found.w.mean() - 3.0) < 0.1), int(found.divergences)
        ((2000, 2), True, 0)
        >>> bool(found.rhat < 1.01), bool(found.ess > 400), int(found.steps)
        (True, True, 500)
    """
    import blackjax  # here, as it takes a second that other methods need not wait for

    if warmup < 20 or draws < 8:
        raise ValueError(
            "nuts takes a warm-up of at least 20 steps and at least 8 draws a chain; "
            f"got {warmup} and {draws}."
        )
    moving, fixed = eqx.partition(start, eqx.is_inexact_array)
    unravel = ravel_pytree(jax.tree.map(lambda a: a[0], moving))[1]
    flat = jax.vmap(lambda w: ravel_pytree(w)[0])(moving)
    chains, size = flat.shape
    half = (draws + 1) // 2

    def log_density(v):
        return log_prob(eqx.combine(unravel(v), fixed))

    def warm(v, key):
        adaptation = blackjax.window_adaptation(
            blackjax.nuts, log_density, not dense, adaptation_info_fn=lambda *_: None
        )
        (state, settings), _ = adaptation.run(key, v, warmup)  # ty: ignore[too-many-positional-arguments]
        return state, settings["step_size"], settings["inverse_mass_matrix"]

    def step(state, size, mass, key):
        kernel = blackjax.nuts(log_density, step_size=size, inverse_mass_matrix=mass)
        state, info = kernel.step(key, state)
        return state, info.acceptance_rate, info.is_divergent

    def go_on(state, size, mass, thin, key):
        """`half` more draws of one chain, the last of every `thin` steps."""

        def inside(i, carry):
            state, accepted, divergent, key = carry
            state, a, d = step(state, size, mass, jr.fold_in(key, i))
            return state, accepted + a, divergent + d, key

        def draw(carry, key):
            state, accepted, divergent, _ = jax.lax.fori_loop(0, thin, inside, (*carry, key))
            return (state, accepted, divergent), (state.position, state.logdensity)

        nothing = (state, jnp.zeros((), flat.dtype), jnp.zeros((), int))
        return jax.lax.scan(draw, nothing, jr.split(key, half))

    def watched(positions, densities):
        def one(v):
            return v if watch is None else watch(eqx.combine(unravel(v), fixed))

        values = jax.vmap(jax.vmap(one))(positions)
        return jnp.concatenate([values, densities[..., None].astype(values.dtype)], -1)

    def another(carry):
        """Half of the draws anew, each chain as long again from the third time on."""
        turn, state, positions, densities, accepted, divergent, *_ = carry
        thin = jnp.where(turn < 2, 1, 2 ** jnp.maximum(turn - 1, 0))
        keys = jr.split(jr.fold_in(key, turn), chains)
        (state, a, d), new = jax.vmap(go_on, in_axes=(0, 0, 0, None, 0))(
            state, sizes, masses, thin, keys
        )

        def longer(old, new):
            kept = jnp.where(turn < 2, old[:, half:], old[:, 1::2])
            return jnp.concatenate([kept, new], 1)

        positions, densities = longer(positions, new[0]), longer(densities, new[1])
        rhat, ess = agreement(watched(positions, densities))
        rhat, ess = rhat.astype(flat.dtype), ess.astype(flat.dtype)
        return (
            turn + 1, state, positions, densities, accepted + a, divergent + d, rhat, ess
        )  # fmt: skip

    def unfinished(carry):
        turn, *_, rhat, ess = carry
        poor = ~((rhat <= RHAT) & (ess >= ESS))
        return (turn < 2) | (poor & (turn < 2 + doublings))

    warm_key, key = jr.split(key)
    with jax.numpy_dtype_promotion("standard"):  # blackjax mixes dtypes
        state, sizes, masses = jax.vmap(warm)(flat, jr.split(warm_key, chains))
        empty = jnp.zeros((chains, 2 * half, size), flat.dtype)
        zero = jnp.zeros((), flat.dtype)
        each = jnp.zeros(chains, flat.dtype), jnp.zeros(chains, int)
        densities = jnp.zeros((chains, 2 * half), state.logdensity.dtype)
        carry = (jnp.asarray(0), state, empty, densities, *each, zero + jnp.inf, zero)
        turn, _, positions, _, accepted, divergent, rhat, ess = jax.lax.while_loop(
            unfinished, another, carry
        )
    steps = half * 2 ** (turn - 1)
    w = eqx.combine(jax.vmap(unravel)(positions.reshape(-1, size)), fixed)
    return Chains(w, chains, accepted.mean() / steps, divergent.sum(), rhat, ess, steps)
