"""Train who learns, let all walk on the same goals, and measure what they gain."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float

from metaprior.errors import InputError
from metaprior.heads import Gaussian
from metaprior.method import Spec
from metaprior.protocols.cell import cut_short, option, part_of, trained
from metaprior.protocols.joint_calibration.judge import BOUND, deviation
from metaprior.protocols.navigation.agents import (
    AbstractAgent,
    Asks,
    Exact,
    Knows,
    Played,
    Wanders,
    play,
)
from metaprior.protocols.navigation.policy import learn
from metaprior.protocols.navigation.world import EPISODES, Walks, World, angle_of
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import lists

KNOWN, SAMPLES, MEAN, SWEEP = "goal known", "posterior sampling", "highest mean", "sweep"
POLICY, RANDOM = "learned policy", "random steps"
REFERENCES = (KNOWN, SAMPLES, MEAN, SWEEP, POLICY, RANDOM)
TEST_KEY = 20261201
SHOWN = 12  # tasks that pictures may choose from
FEWEST = 30  # tasks below which the map is not judged
AT_ONCE = 20  # tasks side by side where a learner is asked


def control(name: str, world: World) -> AbstractAgent | None:
    """The agent of that name that learns nothing; `None` where there is none."""
    if name == KNOWN:
        return Knows()
    if name == RANDOM:
        return Wanders()
    how = {SAMPLES: "sample", MEAN: "mean", SWEEP: "sweep"}.get(name)
    return None if how is None else Exact.of(world, how)


def made(method: str, world: World, seed: int, options: dict, tell: Tell) -> tuple[Any, dict]:
    """The agent of a method or reference, trained where it learns, and facts for `Outcome`."""
    agent = control(method, world)
    if agent is not None:
        return agent, {}
    if method == POLICY:
        return learn(world, options["policy"], seed, tell)
    dense, forget = (option(options, name, method) for name in ("dense", "forget"))
    source = Walks(world, options["query"], dense, forget)
    settings = {
        "batch": options["batch"],
        "hyper": option(options, "hyper", method),
        "learning_rate": option(options, "rate", method),
    }
    steps = option(options, "steps", method)
    learner, facts = trained(method, Spec(2, Gaussian(1)), source, seed, steps, tell, **settings)
    return Asks(learner, forget), facts


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Train a method on rows of walks, and let it walk to its own draws' highest places."""
    world = World(options["radius"], options["goals"])
    for name in ("tasks", "draws"):
        if options[name] < 1:
            raise InputError(f"navigation takes {name} of at least 1; got {options[name]}.")
    agent, facts = made(method, world, seed, options, part_of(tell, 0.0, 0.7))
    tell(0.7, "walking")
    goal_key, key = jr.split(jr.key(TEST_KEY))
    goals = world.judged(goal_key, options["tasks"])
    at_once = AT_ONCE if isinstance(agent, Asks) else len(goals)
    key = jr.fold_in(key, seed)
    played = jax.device_get(play(agent, world, goals, options["draws"], at_once, key=key))
    found = columns(played, np.asarray(goals), world, seed)
    first = {name: found[name].reshape(-1, EPISODES) for name in ("return", "known")}
    drawing = {
        "return": first["return"].mean(0),
        "found": reached(first["return"]).mean(0),
        "path": played.position[:SHOWN],
        "drawn": angles(played.drawn[:SHOWN]),
        "goal": np.asarray(goals[:SHOWN]),
    }
    return Outcome(measure(found), found, drawing, cut_short(facts), facts)


def columns(
    played: Played, goals: Float[np.ndarray, "t g 2"], world: World, seed: int
) -> dict[str, np.ndarray]:
    """A row for each task and episode.

    `return` of the episode; `known`, whether an episode before it saw a reward; `angle` of the
    goal, and angles `drawn` from p(goal | rows) as the episode began; and of these `rank`, the
    share below the goal's angle, `score`, the continuous ranked probability score in radians, and
    `ruled`, the share that rows had ruled out.
    """
    tasks = len(goals)
    gained = played.reward.sum(-1)
    known = np.cumsum(gained > 0, 1) > (gained > 0)
    angle = np.repeat(angles(goals[:, :1]), EPISODES, axis=1)
    drawn = angles(played.drawn)
    away = np.abs(drawn - angle[..., None]).mean(-1)
    between = np.abs(drawn[..., :, None] - drawn[..., None, :])
    n = drawn.shape[-1]
    return {
        "task": np.repeat(np.arange(tasks), EPISODES),
        "episode": np.tile(np.arange(1, EPISODES + 1), tasks),
        "return": np.asarray(gained, np.float64).ravel(),
        "known": np.asarray(known).ravel(),
        "angle": angle.ravel(),
        "rank": ranks(drawn, angle, seed).ravel(),
        "score": (away - 0.5 * between.sum((-1, -2)) / (n * max(n - 1, 1))).ravel(),
        "ruled": ruled(played, drawn, world).ravel(),
        "drawn": lists([None if np.isnan(a).any() else a for a in drawn.reshape(-1, n)]),
    }


def angles(places: Any) -> Float[np.ndarray, "*n"]:
    """Angles of places, 0 … π."""
    return np.asarray(angle_of(jnp.asarray(places)), np.float64)


def ranks(
    drawn: Float[np.ndarray, "t e d"], angle: Float[np.ndarray, "t e"], seed: int
) -> Float[np.ndarray, "t e"]:
    """Where the goal's angle lies among the drawn ones, 0 … 1; ties are broken at random."""
    rng = np.random.default_rng((TEST_KEY, seed))
    below = (drawn < angle[..., None] - 1e-6).sum(-1)
    ties = (np.abs(drawn - angle[..., None]) <= 1e-6).sum(-1)
    place = below + np.floor(rng.uniform(size=angle.shape) * (ties + 1))
    share = (place + rng.uniform(size=angle.shape)) / (drawn.shape[-1] + 1)
    return np.where(np.isnan(drawn).any(-1), np.nan, share)


def ruled(
    played: Played, drawn: Float[np.ndarray, "t e d"], world: World
) -> Float[np.ndarray, "t e"]:
    """The share of drawn goals near which an episode before saw no reward."""
    places = np.stack([np.cos(drawn), np.sin(drawn)], -1)
    found = np.zeros(drawn.shape[:2])
    for e in range(1, EPISODES):
        seen = played.position[:, :e].reshape(len(drawn), -1, 2)
        empty = played.reward[:, :e].reshape(len(drawn), 1, -1) == 0
        away = np.sqrt(((places[:, e, :, None] - seen[:, None]) ** 2).sum(-1))
        found[:, e] = ((away < world.radius - 1e-4) & empty).any(-1).mean(-1)
    return np.where(np.isnan(drawn).any(-1), np.nan, found)


def reached(gained: Float[np.ndarray, "t e"]) -> np.ndarray:
    """Whether a reward was seen in an episode or before it."""
    return np.maximum.accumulate(gained > 0, 1)


def measure(found: dict[str, np.ndarray]) -> list[Figure]:
    """The figures of each episode, from `columns`."""
    table = {
        name: found[name].reshape(-1, EPISODES)
        for name in ("return", "known", "rank", "score", "ruled")
    }
    share = reached(table["return"])
    figures = []
    for e in range(EPISODES):
        setting = f"episode {e + 1}"
        figures.append(Figure.of(setting, "return", table["return"][:, e]))
        figures.append(Figure.of(setting, "found", share[:, e]))
        # Where the goal is found all draws are at one place, a little beside it or not.
        open_ = ~table["known"][:, e] & ~np.isnan(table["rank"][:, e])
        if open_.sum() < FEWEST:
            continue
        count = int(open_.sum())
        apart = deviation(table["rank"][open_, e])
        figures.append(Figure(setting, "map", apart, None, count))
        figures.append(Figure(setting, "bound", BOUND / count**0.5, None, count))
        for name in ("score", "ruled"):
            figures.append(Figure.of(setting, name, np.where(open_, table[name][:, e], np.nan)))
    return figures
