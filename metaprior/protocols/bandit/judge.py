"""The wheel bandit: training, and playing by Thompson sampling."""

import time
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Gaussian
from metaprior.method import AbstractLearner, Spec
from metaprior.protocols.cell import cut_short, option, part_of, trained
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import component_means, functions_at
from metaprior.sources.exact import Known
from metaprior.sources.wheel import ARMS, Wheel, actions, contexts, rewards
from metaprior.task import Data

EXACT, UNIFORM = "thompson", "uniform"  # the references
HELD_OUT = 20261124  # key of the contexts that are judged; training draws its own from the seed
DELTAS = (0.5, 0.7, 0.9, 0.95, 0.99)
BLOCK = 20  # steps in one row of the predictions
AT_ONCE = 25  # runs that advance together

# Attention among hundreds of rows costs more than it brings. One inner step leaves MAML where it
# started.
HYPER: dict[str, dict] = {
    "np": {"encoder": "deep set", "samples": 8},
    "maml": {"steps": 5},  # of its fixed rate: a learned one grows until training diverges
    "emaml": {"steps": 5},
}


def remember(rows: Data, memory: int, *, key) -> Data:
    """At most `memory` rows: arms in equal shares, where played often enough, random within an arm.

    What is kept is then like the support in training, where arms are uniform, and the rare rows of
    an arm are not lost among the many of the favourite. Which rows are kept depends on arms alone,
    not on rewards.
    """
    played = jnp.where(rows.mask[:, None], rows.x[:, 2:], 0.0)
    often = (played * played.sum(0)).sum(1)  # how often the arm of this row has been played
    rank = jnp.where(rows.mask, jr.uniform(key, rows.mask.shape) * often, jnp.inf)
    keep = jnp.argsort(rank)[:memory]
    return Data(rows.x[keep], rows.y[keep], rows.mask[keep])


def choose(posterior, context, *, key) -> jax.Array:
    """For each context, the arm that is best under one function drawn from the posterior."""
    draw_key, pick_key = jr.split(key)
    mixture = functions_at(posterior, actions(context), key=draw_key, samples=1)
    mean = component_means(mixture)[..., 0]
    log_weight = jnp.concatenate([part.log_weight for part in mixture.parts])
    return jnp.argmax(mean[jr.categorical(pick_key, log_weight)].reshape(-1, ARMS), axis=1)


class Play(NamedTuple):
    """How a wheel is played.

    Args:
        steps: of a run.
        refresh: steps between two posteriors.
        draws: functions drawn from each posterior, used in turn.
        memory: rows that a posterior is given at most.
    """

    steps: int
    refresh: int
    draws: int
    memory: int


def arms_of(learner: AbstractLearner, rows: Data, context, how: Play, *, key) -> jax.Array:
    """The arms that are taken at the contexts `(refresh, 2)` until the next posterior."""
    keep_key, post_key, draw_key = jr.split(key, 3)
    posterior = learner.posterior(remember(rows, how.memory, key=keep_key), key=post_key)
    # functions take turns: the first step is of the first function, the second of the second
    turns = context.reshape(how.refresh // how.draws, how.draws, 2).swapaxes(0, 1)

    def each(contexts, key):
        return choose(posterior, contexts, key=key)

    arm = jax.vmap(each)(turns, jr.split(draw_key, how.draws))
    return arm.swapaxes(0, 1).ravel()


def play_one(learner: AbstractLearner | None, wheel: Wheel, delta, how: Play, *, key):
    """One run: the arms, their expected regret and that of a uniform arm, `(steps,)` each."""
    c_key, r_key, key = jr.split(key, 3)
    context = contexts(c_key, how.steps)
    mean = rewards(context, delta)
    outcome = wheel.outcome(mean, key=r_key)
    x = actions(context).reshape(how.steps, ARMS, 2 + ARMS)
    gap = mean.max(1, keepdims=True) - mean
    at = jnp.arange(how.refresh)

    def stretch(rows, now):
        """From one posterior to the next."""
        start, key = now

        def cut(a):
            return jax.lax.dynamic_slice_in_dim(a, start, how.refresh)

        def put(a, new):
            return jax.lax.dynamic_update_slice_in_dim(a, new, start, 0)

        if learner is None:
            arm = jr.randint(jr.split(key, 3)[2], (how.refresh,), 0, ARMS)
        else:
            arm = arms_of(learner, rows, cut(context), how, key=key)
        rows = Data(
            put(rows.x, cut(x)[at, arm]),
            put(rows.y, cut(outcome)[at, arm][:, None]),
            jnp.arange(how.steps) < start + how.refresh,
        )
        return rows, (arm, cut(gap)[at, arm])

    empty, starts = Data.blank(how.steps, 2 + ARMS), jnp.arange(0, how.steps, how.refresh)
    _, (arm, regret) = jax.lax.scan(stretch, empty, (starts, jr.split(key, len(starts))))
    return arm.ravel(), regret.ravel(), gap.mean(1)


@eqx.filter_jit
def play(learner: AbstractLearner | None, deltas, keys, how: Play, noise: float):
    """One run a radius and key.

    Args:
        learner: `None` takes arms uniformly.
        deltas, keys: `(runs,)` each.
        how: wheels are played.
        noise: standard deviation of the rewards.

    Returns:
        Which arm was taken, its expected regret, and that of a uniformly drawn arm at the same
        contexts; `(runs, steps)` each.
    """
    wheel = Wheel(noise=noise)

    def one(item):
        delta, key = item
        return play_one(learner, wheel, delta, how, key=key)

    return jax.lax.map(one, (deltas, keys), batch_size=AT_ONCE)


def setting(delta: float) -> str:
    """How a radius is called in figures."""
    return f"δ = {delta:g}"


def run(method: str, seed: int, options: dict, data: None, tell: Tell) -> Outcome:
    """Train a method on wheels of any radius and let it play wheels of five."""
    memory = option(options, "memory", method)
    source = Wheel(support=memory)
    learner, facts = None, {}
    if method == EXACT:
        learner = Known(source)
    elif method != UNIFORM:
        spec, steps = Spec(2 + ARMS, Gaussian(1)), option(options, "steps", method)
        batch, hyper = options["batch"], dict(HYPER.get(method, {}))
        told = part_of(tell, 0.0, 0.7)
        learner, facts = trained(method, spec, source, seed, steps, told, batch=batch, hyper=hyper)

    tell(0.7, "playing")
    began, repeats = time.perf_counter(), options["repeats"]
    deltas = jnp.repeat(jnp.asarray(DELTAS), repeats)
    keys = jr.split(jr.fold_in(jr.key(HELD_OUT), seed), len(deltas))
    draws = option(options, "draws", method)
    how = Play(options["horizon"], options["refresh"], draws, memory)
    arm, regret, uniform = (np.asarray(a) for a in play(learner, deltas, keys, how, source.noise))
    facts["play_seconds"] = round(time.perf_counter() - began, 1)

    return Outcome(
        measure(regret, uniform, options["late"]),
        _columns(regret, uniform, repeats),
        _curves(arm, regret, uniform, repeats),
        note=cut_short(facts),
        facts=facts,
    )


def measure(regret: np.ndarray, uniform: np.ndarray, late: int) -> list[Figure]:
    """The figures of all radii from regrets `(runs, steps)`; runs of a radius are neighbours."""
    share = 100 * regret.sum(1) / uniform.sum(1)
    simple = 100 * regret[:, -late:].sum(1) / uniform[:, -late:].sum(1)
    values = {"cumulative": share, "simple": simple, "regret": regret.sum(1)}
    figures = []
    for i, delta in enumerate(DELTAS):
        for metric, each in values.items():
            own = each.reshape(len(DELTAS), -1)[i]
            figures.append(Figure.of(setting(delta), metric, own))
    return figures


def _columns(regret: np.ndarray, uniform: np.ndarray, repeats: int) -> dict[str, np.ndarray]:
    """Raw predictions: regrets summed over `BLOCK` steps, since single steps are too many."""
    runs = len(regret)
    own, base = (a.reshape(runs, -1, BLOCK).sum(2) for a in (regret, uniform))
    n = own.shape[1]
    return {
        "setting": np.repeat([setting(d) for d in DELTAS], repeats * n),
        "task": np.tile(np.repeat(np.arange(repeats), n), len(DELTAS)),
        "step": np.tile(BLOCK * (1 + np.arange(n)), runs),
        "regret": own.ravel(),
        "uniform_regret": base.ravel(),
    }


def _curves(
    arm: np.ndarray, regret: np.ndarray, uniform: np.ndarray, repeats: int
) -> dict[str, np.ndarray]:
    """For pictures: regret so far in per cent of uniform arms', and how often each arm is taken."""
    shape = (len(DELTAS), repeats, -1)
    ratio = 100 * np.cumsum(regret, 1) / np.maximum(np.cumsum(uniform, 1), 1e-12)
    arms = [(arm.reshape(shape) == a).mean((1, 2)) for a in range(ARMS)]
    return {
        "curve": ratio.reshape(shape).mean(1)[:, BLOCK - 1 :: BLOCK],
        "arms": np.stack(arms),
    }
