"""Densities of further rows from draws of a posterior, by sequential Monte Carlo."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

ACCEPTED = 0.8  # acceptance that the step size of the moves is led to
KEPT = 0.5  # share of effective particles after one step of the temperature


class Estimate(NamedTuple):
    """A log density and its Monte Carlo error.

    Args:
        value: nats.
        error: one standard error, nats.
    """

    value: Float[Array, ""]
    error: Float[Array, ""]


def evidence(
    log_now: Callable[[Float[Array, "d"]], Float[Array, ""]],
    log_more: Callable[[Float[Array, "d"]], Float[Array, ""]],
    particles: Float[Array, "g m d"],
    *,
    dense: bool = False,
    moves: int = 3,
    leaps: int = 5,
    most: int = 100,
    key: PRNGKeyArray,
) -> Estimate:
    """log E exp(log_more(w)), over a density of which there are draws.

    The mean of exp(log_more) over the draws says too little where few of them, or none, lie where
    log_more is large. So exp(t log_more) comes in by steps of the temperature t from 0 to 1. Each
    step weighs the particles, draws among them by their weights, and moves them by Hamiltonian
    Monte Carlo: Del Moral, Doucet & Jasra, "Sequential Monte Carlo Samplers", JRSS B 2006. A step
    of t is as long as keeps half of the particles effective. E exp of what comes back is the truth
    when the draws are independent, however poorly the moves mix.

    Args:
        log_now: of that density, for one `w`, up to a constant, in nats.
        log_more: of one `w`, in nats.
        particles: draws in groups. Groups only share the temperatures and what the moves are tuned
            by, so that the spread between their estimates is the error.
        dense: whether the moves know correlations of `w`.
        moves: trajectories of each particle after each step of the temperature.
        leaps: steps of a trajectory.
        most: steps of the temperature at most; the last one goes to 1 however far that is.
        key: of everything random.

    Returns:
        The log of the mean over the groups, and the error of that log.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.evidence import evidence
        >>> def log_now(w):
        ...     return -0.5 * (w**2).sum()
        >>> def log_more(w):
        ...     return -50.0 * ((w - 3.0) ** 2).sum()
        >>> draws = jax.random.normal(jax.random.key(0), (8, 50, 2))
        >>> found = evidence(log_now, log_more, draws, key=jax.random.key(1))
        >>> exact = -jnp.log(101.0) - 9 / 1.01
        >>> bool(abs(found.value - exact) < 0.5), bool(found.error < 0.3)
        (True, True)
    """
    import blackjax
    from blackjax.smc.resampling import systematic

    groups, size, d = particles.shape
    move = blackjax.hmc.build_kernel()
    count = groups * size

    def shift(more):
        """Log mean of weights, safe where particles are impossible."""
        return jax.nn.logsumexp(more, axis=-1) - jnp.log(1.0 * size)

    def effective(more, delta):
        log_w = delta * more
        twice = 2 * jax.nn.logsumexp(log_w, 1) - jax.nn.logsumexp(2 * log_w, 1)
        return jnp.exp(twice).sum() / count

    def longest(more, t):
        """The step of t that keeps `KEPT` of the particles effective, by halving."""

        def halve(_, bounds):
            low, high = bounds
            middle = 0.5 * (low + high)
            enough = effective(more, middle) >= KEPT
            return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

        rest = 1 - t
        low, _ = jax.lax.fori_loop(0, 20, halve, (jnp.zeros_like(t), rest))
        # A step of 0 would not end.
        return jnp.where(effective(more, rest) >= KEPT, rest, jnp.maximum(low, 1e-6 * rest))

    def spread(v):
        """Of each group the (co)variance of the others, which its moves take for inverse mass.

        Moves that are tuned by the particle they move would not leave the density as it is.
        """
        v = v - v.mean((0, 1))
        first, second = v.sum(1), jnp.einsum("gmi,gmj->gij" if dense else "gmi,gmi->gi", *(v, v))
        mean = (first.sum(0) - first) / (count - size)
        square = (second.sum(0) - second) / (count - size)
        if not dense:
            return jnp.maximum(square - mean**2, 0.0) + 1e-10 * square.mean() + 1e-30
        square = square - mean[:, :, None] * mean[:, None, :]
        own = jnp.diagonal(square, axis1=1, axis2=2)
        share = count / (count + 5.0)  # as Stan draws it to a multiple of one, to the diagonal here
        flat = (1 - share) * own + 1e-10 * own.mean() + 1e-30
        return share * square + jax.vmap(jnp.diag)(flat)

    def turn(carry):
        i, t, v, log_z, rate, key = carry
        more = jax.lax.map(jax.vmap(log_more), v)
        more = jnp.where(jnp.isnan(more), -jnp.inf, more)
        delta = jnp.where(i == most - 1, 1 - t, longest(more, t))
        log_w = delta * more
        log_z = log_z + shift(log_w)
        t = jnp.where(t + delta > 1 - 1e-6, jnp.ones_like(t), t + delta)

        key, choose_key, move_key = jr.split(key, 3)
        chosen = jax.vmap(lambda k, w: systematic(k, jax.nn.softmax(w), size))(
            jr.split(choose_key, groups), log_w
        )
        v = jnp.take_along_axis(v, chosen[..., None], 1)

        def log_density(w):
            return log_now(w) + t * log_more(w)

        def one(w, mass, key):
            def go(state, key):
                step_key, key = jr.split(key)
                own = rate * jr.uniform(step_key, (), rate.dtype, 0.6, 1.0)
                state, info = move(key, state, log_density, own, mass, leaps)
                return state, info.acceptance_rate

            start = blackjax.hmc.init(w, log_density)
            state, accepted = jax.lax.scan(go, start, jr.split(key, moves))
            return state.position, jnp.nan_to_num(accepted).mean()

        keys = jr.split(move_key, (groups, size))
        # The groups one after the other: of large networks no more fit in memory.
        each = jax.vmap(one, in_axes=(0, None, 0))
        v, accepted = jax.lax.map(lambda a: each(*a), (v, spread(v), keys))
        rate = rate * jnp.exp(accepted.mean() - ACCEPTED)
        return i + 1, t, v, log_z, rate, key

    rate = jnp.asarray(min(1.0, 1.2 * d**-0.25), particles.dtype)
    zero = jnp.zeros((), particles.dtype)
    carry = (jnp.asarray(0), zero, particles, jnp.zeros(groups, particles.dtype), rate, key)
    with jax.numpy_dtype_promotion("standard"):  # blackjax mixes dtypes
        _, _, _, log_z, _, _ = jax.lax.while_loop(lambda c: c[1] < 1, turn, carry)
    value = jax.nn.logsumexp(log_z) - jnp.log(1.0 * groups)
    error = jnp.exp(log_z - value).std(ddof=1) / groups**0.5
    return Estimate(value, error)
