"""Who walks: exact agents and controls, and one that asks a learner; and how a task is played."""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float

from metaprior.method import AbstractLearner
from metaprior.protocols.navigation.world import (
    EPISODES,
    HORIZON,
    KEPT,
    ROWS,
    STEP,
    World,
    circle,
    moved,
    remembered,
)
from metaprior.protocols.raw import component_means, functions_at
from metaprior.task import Data

# Places among which the highest of a drawn function is found: 1.5 degrees between neighbours.
GRID = np.stack([np.cos(np.linspace(0, np.pi, 121)), np.sin(np.linspace(0, np.pi, 121))], -1)


class AbstractAgent(eqx.Module):
    """One who walks for ten episodes. Its memory is any tree of arrays."""

    @abstractmethod
    def start(self, goals: Float[Array, "g 2"]) -> Any:
        """The memory before the first episode; only a control may look at the goals."""

    @abstractmethod
    def plan(self, memory: Any, rows: Data, draws: int, *, key) -> tuple[Any, Array]:
        """The memory as an episode begins, and where goals may be.

        Args:
            memory: after the last episode.
            rows: of all episodes before.
            draws: of the place of a goal.
            key: randomness.

        Returns:
            The memory, and places drawn from p(goal | rows), `(draws, 2)`; NaN where there are
            none.
        """

    @abstractmethod
    def act(
        self, memory: Any, position: Float[Array, "2"], step: Array, *, key
    ) -> tuple[Any, Float[Array, "2"]]:
        """The memory, and the place that the next step goes to; steps count from 0."""

    @abstractmethod
    def see(self, memory: Any, position: Float[Array, "2"], reward: Array) -> Any:
        """The memory after a step."""


def nowhere(draws: int) -> Float[Array, "d 2"]:
    """No draws."""
    return jnp.full((draws, 2), jnp.nan)


class Knows(AbstractAgent):
    """Walks to the goal (of several, to the one that pays first): no agent can do better."""

    def start(self, goals):
        reach = jnp.abs(goals).max(-1)
        return goals[jnp.argmin(reach)]

    def plan(self, memory, rows, draws, *, key):
        return memory, nowhere(draws)

    def act(self, memory, position, step, *, key):
        return memory, memory

    def see(self, memory, position, reward):
        return memory


class Wanders(AbstractAgent):
    """Takes uniformly random steps."""

    def start(self, goals):
        return jnp.zeros(())

    def plan(self, memory, rows, draws, *, key):
        return memory, nowhere(draws)

    def act(self, memory, position, step, *, key):
        return memory, position + jr.uniform(key, (2,), minval=-STEP, maxval=STEP)

    def see(self, memory, position, reward):
        return memory


class Exact(AbstractAgent):
    """Knows which goals agree with all rows; each of these is as likely.

    Args:
        world: goals and rewards.
        how: `"sample"` draws goals at the start of an episode and walks to one (posterior sampling;
            Osband, Russo & Van Roy, NeurIPS 2013). `"mean"` walks to the place with the highest
            mean reward. `"sweep"` always walks to the possible goal with the lowest angle, and
            thinks anew after each step.
        possible: the goals, `(h, g, 2)`.
    """

    world: World
    how: str = eqx.field(static=True)
    possible: Float[np.ndarray, "h g 2"]

    @staticmethod
    def of(world: World, how: str) -> "Exact":
        """The agent of a world."""
        return Exact(world, how, world.possible().astype(np.float32))

    def start(self, goals):
        return jnp.ones(len(self.possible), bool), jnp.zeros(2)

    def plan(self, memory, rows, draws, *, key):
        alive, _ = memory
        log_p = jnp.where(alive, 0.0, -jnp.inf)
        some = jnp.asarray(self.possible)[jr.categorical(key, log_p, shape=(draws,))]
        if self.how == "mean":
            places = jnp.asarray(GRID, self.possible.dtype)
            target = places[jnp.argmax(self.mean(alive, places))]
        else:  # of the goals of a function, the one that is surest
            target = some[0, jnp.argmax(self.mean(alive, some[0]))]
        return (alive, target), some[:, 0]

    def mean(self, alive: Bool[Array, "h"], places: Float[Array, "n 2"]) -> Float[Array, "n"]:
        """Sums of the reward at places over all possible goals."""
        possible = jnp.asarray(self.possible)

        def at(place):
            return jnp.where(alive, self.world.reward(possible, place), 0.0).sum()

        return jax.lax.map(at, places, batch_size=64)

    def act(self, memory, position, step, *, key):
        alive, target = memory
        if self.how != "sweep":
            return memory, target
        angle = jnp.arctan2(self.possible[..., 1], self.possible[..., 0])
        return memory, circle(jnp.where(alive[:, None], angle, jnp.pi).min())

    def see(self, memory, position, reward):
        alive, target = memory
        return alive & self.world.agrees(jnp.asarray(self.possible), position, reward), target


class Asks(AbstractAgent):
    """Draws a function from a learner's posterior as an episode begins, walks to its highest place.

    Args:
        learner: of rewards at positions.
        forget: whether it is shown the rows with a reward alone, where there are any.
    """

    learner: AbstractLearner
    forget: bool = eqx.field(static=True, default=False)

    def start(self, goals):
        return jnp.zeros(2)

    def plan(self, memory, rows, draws, *, key):
        shown = remembered(rows) if self.forget else rows
        places = highest(self.learner, shown, draws, key=key)
        return places[0], places

    def act(self, memory, position, step, *, key):
        return memory, memory

    def see(self, memory, position, reward):
        return memory


def highest(learner: AbstractLearner, rows: Data, draws: int, *, key) -> Float[Array, "d 2"]:
    """Where each of some functions drawn from the posterior is highest on `GRID`."""
    p_key, f_key, c_key = jr.split(key, 3)
    grid = jnp.asarray(GRID, rows.x.dtype)
    posterior = learner.posterior(rows, key=p_key)
    mixture = functions_at(posterior, grid, key=f_key, samples=draws)
    best = grid[jnp.argmax(component_means(mixture)[..., 0], axis=1)]
    if len(best) == draws:
        return best
    weights = jnp.concatenate([part.log_weight for part in mixture.parts])
    return best[jr.categorical(c_key, weights, shape=(draws,))]


class Played(NamedTuple):
    """What a task gave.

    Args:
        position: after each step, `(EPISODES, HORIZON, 2)`.
        reward: of each step, `(EPISODES, HORIZON)`.
        target: the place that each step goes to, as `position`.
        drawn: places of goals as each episode began, `(EPISODES, draws, 2)`.
    """

    position: Array
    reward: Array
    target: Array
    drawn: Array


def play_one(
    agent: AbstractAgent, world: World, goals: Array, draws: int, episodes: int = EPISODES, *, key
) -> Played:
    """The episodes of one task."""

    def step(carry, now):
        memory, position = carry
        number, k = now
        memory, target = agent.act(memory, position, number, key=k)
        position = moved(position, target)
        reward = world.reward(goals, position)
        memory = agent.see(memory, position, reward)
        return (memory, position), (position, reward, target)

    def episode(carry, now):
        memory, rows = carry
        number, k = now
        plan_key, step_key = jr.split(k)
        memory, drawn = agent.plan(memory, rows, draws, key=plan_key)
        each = jnp.arange(HORIZON), jr.split(step_key, HORIZON)
        (memory, _), (position, reward, target) = jax.lax.scan(step, (memory, jnp.zeros(2)), each)

        def put(a, new):
            return jax.lax.dynamic_update_slice_in_dim(a, new, number * ROWS, 0)

        seen = jnp.arange(len(rows.mask)) < (number + 1) * ROWS
        rows = Data(put(rows.x, position[KEPT]), put(rows.y, reward[KEPT][:, None]), seen)
        return (memory, rows), Played(position, reward, target, drawn)

    empty = Data.blank(episodes * ROWS, 2)
    each = jnp.arange(episodes), jr.split(key, episodes)
    return jax.lax.scan(episode, (agent.start(goals), empty), each)[1]


@eqx.filter_jit
def play(
    agent: AbstractAgent,
    world: World,
    goals: Float[Array, "t g 2"],
    draws: int,
    at_once: int,
    *,
    key,
) -> Played:
    """Tasks side by side, `at_once` at a time."""

    def one(item):
        each, k = item
        return play_one(agent, world, each, draws, key=k)

    return jax.lax.map(one, (goals, jr.split(key, len(goals))), batch_size=at_once)
