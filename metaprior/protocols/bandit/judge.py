"""The wheel bandit: Thompson sampling with functions drawn from each method's posterior."""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Gaussian
from metaprior.method import AbstractLearner, Spec
from metaprior.protocols.protocol import (
    Figure,
    Outcome,
    Tell,
    cut_short,
    trained,
)
from metaprior.protocols.raw import functions_at
from metaprior.sources.exact import Known
from metaprior.sources.wheel import ARMS, Wheel, actions, contexts, rewards
from metaprior.task import Data

HELD_OUT = 20261124  # key of the contexts that are judged; training draws its own from the seed


DELTAS = (0.5, 0.7, 0.9, 0.95, 0.99)


BLOCK = 20  # steps in one row of the predictions


AT_ONCE = 25  # runs that advance together


def remember(rows: Data, memory: int, *, key) -> Data:
    """At most `memory` rows, the arms in equal shares as far as they have been played, random
    within an arm.

    What is kept is like the support in training, where arms are uniform, and the rare rows of an
    arm are not lost among those of the favourite. Which rows are kept depends on arms alone, not on
    rewards.
    """
    played = jnp.where(rows.mask[:, None], rows.x[:, 2:], 0.0)
    often = (played * played.sum(0)).sum(1)  # how often the arm of this row has been played
    rank = jnp.where(rows.mask, jr.uniform(key, rows.mask.shape) * often, jnp.inf)
    keep = jnp.argsort(rank)[:memory]
    return Data(rows.x[keep], rows.y[keep], rows.mask[keep])


def choose(posterior, context, *, key) -> jax.Array:
    """The arm with the highest mean under one function drawn from the posterior, for each context."""
    draw_key, pick_key = jr.split(key)
    mixture = functions_at(posterior, actions(context), key=draw_key, samples=1)
    mean = jnp.concatenate([part.head.mean(part.params)[..., 0] for part in mixture.parts])
    log_weight = jnp.concatenate([part.log_weight for part in mixture.parts])
    return jnp.argmax(mean[jr.categorical(pick_key, log_weight)].reshape(-1, ARMS), axis=1)


@eqx.filter_jit
def play(
    learner: AbstractLearner | None, deltas, keys, options: tuple[int, int, int, int], noise: float
):
    """One run a radius and key: which arm was taken and the expected regret of it, `(runs, steps)`
    each, and that of a uniformly drawn arm at the same contexts.

    Args:
        learner: `None` takes arms uniformly.
        options: steps; steps between two posteriors; functions drawn from each, used in turn; rows
            kept.
    """
    steps, refresh, draws, memory = options
    wheel = Wheel(noise=noise)

    def one(item):
        delta, key = item
        c_key, r_key, key = jr.split(key, 3)
        context = contexts(c_key, steps)
        mean = rewards(context, delta)
        outcome = wheel.outcome(mean, key=r_key)
        x = actions(context).reshape(steps, ARMS, 2 + ARMS)
        gap = mean.max(1, keepdims=True) - mean

        def stretch(rows, now):
            start, key = now
            keep_key, post_key, draw_key = jr.split(key, 3)

            def cut(a):
                return jax.lax.dynamic_slice_in_dim(a, start, refresh)

            if learner is None:
                arm = jr.randint(draw_key, (refresh,), 0, ARMS)
            else:
                posterior = learner.posterior(remember(rows, memory, key=keep_key), key=post_key)
                groups = cut(context).reshape(refresh // draws, draws, 2).swapaxes(0, 1)

                def each(c, k):
                    return choose(posterior, c, key=k)

                arm = jax.vmap(each)(groups, jr.split(draw_key, draws)).swapaxes(0, 1).ravel()
            at = jnp.arange(refresh)

            def put(a, new):
                return jax.lax.dynamic_update_slice_in_dim(a, new, start, 0)

            rows = Data(
                put(rows.x, cut(x)[at, arm]),
                put(rows.y, cut(outcome)[at, arm][:, None]),
                jnp.arange(steps) < start + refresh,
            )
            return rows, (arm, cut(gap)[at, arm])

        empty = Data(jnp.zeros((steps, 2 + ARMS)), jnp.zeros((steps, 1)), jnp.zeros(steps, bool))
        starts = jnp.arange(0, steps, refresh)
        _, (arm, regret) = jax.lax.scan(stretch, empty, (starts, jr.split(key, len(starts))))
        return arm.ravel(), regret.ravel(), gap.mean(1)

    return jax.lax.map(one, (deltas, keys), batch_size=AT_ONCE)


def setting(delta: float) -> str:
    """How a radius is called in figures."""
    return f"δ = {delta:g}"


def run(method: str, seed: int, options: dict, data: None, tell: Tell) -> Outcome:
    """Train a method on wheels of any radius and let it play wheels of five."""

    def of(name):
        return options[name].get(method, options[name][""])

    memory, learner, facts = of("memory"), None, {}
    source = Wheel(support=memory)

    def told(share, what):
        return tell(0.7 * share, what)

    if method == "thompson":
        learner = Known(source)
    elif method != "uniform":
        hyper = dict(HYPER.get(method, {}))
        spec = Spec(2 + ARMS, Gaussian(1))
        learner, facts = trained(
            method, spec, source, seed, of("steps"), told, batch=options["batch"], hyper=hyper
        )
    tell(0.7, "playing")
    begin, repeats = time.perf_counter(), options["repeats"]
    deltas = jnp.repeat(jnp.asarray(DELTAS), repeats)
    keys = jr.split(jr.fold_in(jr.key(HELD_OUT), seed), len(deltas))
    cell = (options["horizon"], options["refresh"], of("draws"), memory)
    arm, regret, uniform = (np.asarray(a) for a in play(learner, deltas, keys, cell, source.noise))
    facts["play_seconds"] = round(time.perf_counter() - begin, 1)
    figures, shape = [], (len(DELTAS), repeats, options["horizon"])
    share = 100 * regret.sum(1) / uniform.sum(1)
    late = slice(-options["late"], None)
    simple = 100 * regret[:, late].sum(1) / uniform[:, late].sum(1)
    for i, delta in enumerate(DELTAS):
        mine = slice(i * repeats, (i + 1) * repeats)
        figures += [
            Figure.of(setting(delta), "cumulative", share[mine]),
            Figure.of(setting(delta), "simple", simple[mine]),
            Figure.of(setting(delta), "regret", regret[mine].sum(1)),
        ]
    blocks = regret.reshape(-1, options["horizon"] // BLOCK, BLOCK).sum(2)
    base = uniform.reshape(blocks.shape[0], -1, BLOCK).sum(2)
    runs, n = blocks.shape
    predictions = {
        "setting": np.repeat([setting(d) for d in DELTAS], repeats * n),
        "task": np.tile(np.repeat(np.arange(repeats), n), len(DELTAS)),
        "step": np.tile(BLOCK * (1 + np.arange(n)), runs),
        "regret": blocks.ravel(),
        "uniform_regret": base.ravel(),
    }
    ratio = 100 * np.cumsum(regret, 1) / np.maximum(np.cumsum(uniform, 1), 1e-12)
    curve = ratio.reshape(shape).mean(1)[:, BLOCK - 1 :: BLOCK]
    drawing = {
        "curve": curve,
        "arms": np.stack([(arm.reshape(shape) == a).mean((1, 2)) for a in range(ARMS)]),
    }
    return Outcome(figures, predictions, drawing, note=cut_short(facts), facts=facts)


# Attention among hundreds of rows costs more than it brings; one inner step leaves MAML where it
# started.
HYPER: dict[str, dict] = {
    "np": {"encoder": "deep set", "samples": 8},
    "maml": {"steps": 5},  # of its fixed rate: a learned one grows until training diverges
    "emaml": {"steps": 5},
}
