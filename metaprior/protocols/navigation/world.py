"""The world of `navigation`: a half circle of goals, box steps, a reward near the goal alone."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float

from metaprior.errors import InputError
from metaprior.task import Data, Task

HORIZON, EPISODES = 20, 10  # steps of an episode, episodes of a task
STEP = 0.1  # the longest step in each coordinate
# Steps of an episode whose rows are kept. Before them a straight walk is not near a goal yet; after
# them it stands still.
KEPT = slice(5, 10)
ROWS = KEPT.stop - KEPT.start
ANGLES = {1: 181, 2: 61}  # places where a goal may be, by the number of goals


def circle(angle: Float[Array, "*n"]) -> Float[Array, "*n 2"]:
    """Places on the circle of radius 1; angles in radians."""
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)


def angle_of(place: Float[Array, "*n 2"]) -> Float[Array, "*n"]:
    """The angle of places of the upper half plane, 0 … π."""
    return jnp.arctan2(jnp.maximum(place[..., 1], 0.0), place[..., 0])


def moved(position: Float[Array, "2"], target: Float[Array, "2"]) -> Float[Array, "2"]:
    """One step straight to a target: at most `STEP` in each coordinate."""
    way = target - position
    return position + way * jnp.minimum(1.0, STEP / jnp.maximum(jnp.abs(way).max(), 1e-9))


def walk(target: Float[Array, "*n 2"]) -> Float[Array, "*n h 2"]:
    """All positions of a straight walk from the start, after each step."""
    reach = STEP * jnp.arange(1, HORIZON + 1) / jnp.abs(target).max(-1, keepdims=True)
    return target[..., None, :] * jnp.minimum(reach, 1.0)[..., None]


class World(eqx.Module):
    """Where goals are and what they pay.

    Args:
        radius: how near a goal pays, above 0 and at most 0.5.
        goals: of a task, 1 or 2; each by itself uniform on the half circle.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.protocols.navigation.world import World
        >>> goal = jnp.asarray([[0.0, 1.0]])
        >>> [round(float(World().reward(goal, jnp.asarray([0.0, y]))), 2) for y in (0.7, 0.9)]
        [0.0, 0.9]
    """

    radius: float = eqx.field(static=True, default=0.2)
    goals: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.goals not in ANGLES:
            raise InputError(f"navigation has goals=1 or goals=2; got goals={self.goals}.")
        if not 0 < self.radius <= 0.5:
            raise InputError(
                f"navigation takes a radius above 0 and at most 0.5; got radius={self.radius}."
            )

    def reward(self, goals: Float[Array, "*h g 2"], position: Float[Array, "2"]) -> Array:
        """1 less the distance from the nearest goal within the radius, else 0."""
        away = self.away(goals, position)
        return jnp.where(away <= self.radius, 1 - away, 0.0)

    def away(self, goals: Float[Array, "*h g 2"], position: Float[Array, "2"]) -> Array:
        """Distance from the nearest goal."""
        return jnp.sqrt(((goals - position) ** 2).sum(-1)).min(-1)

    def possible(self) -> Float[np.ndarray, "h g 2"]:
        """All that the goals of a judged task may be, each as likely."""
        angle = np.linspace(0, np.pi, ANGLES[self.goals])
        each = np.stack([np.cos(angle), np.sin(angle)], -1)
        if self.goals == 1:
            return each[:, None]
        first, second = np.meshgrid(np.arange(len(each)), np.arange(len(each)), indexing="ij")
        return np.stack([each[first.ravel()], each[second.ravel()]], 1)

    def judged(self, key, count: int) -> Float[Array, "t g 2"]:
        """The goals of judged tasks: of `possible`, so that the exact posterior is a sum."""
        angle = jr.randint(key, (count, self.goals), 0, ANGLES[self.goals])
        return circle(jnp.pi * angle / (ANGLES[self.goals] - 1))

    def agrees(
        self, goals: Float[Array, "h g 2"], position: Float[Array, "2"], reward: Array
    ) -> Bool[Array, "h"]:
        """Which goals would pay this reward here, up to rounding."""
        away = self.away(goals, position)
        edge = jnp.abs(away - self.radius) < 1e-5  # where rounding says whether it pays
        zero, near = (reward == 0) & (away > self.radius), (reward > 0) & (away <= self.radius)
        return zero | (near & (jnp.abs(1 - away - reward) < 1e-4)) | edge


class Walks(eqx.Module):
    """Tasks to learn from: rows of straight walks, and what the reward is at other places.

    The support is what 0 to 9 episodes bring, as many of each: position and reward at steps 6 to 10
    of each. An episode walks to a random place of the half circle. Once a reward has been seen,
    half of the episodes walk to within about 0.05 of a goal. The query asks for rewards at places
    around the half circle, which do not depend on the goal.

    Args:
        world: goals and rewards.
        query: rows.
        dense: whether the query has 1 less the distance from the nearest goal, everywhere.
        forget: whether the support has the rows with a reward alone, where there are any.
    """

    world: World
    query: int = eqx.field(static=True, default=64)
    dense: bool = eqx.field(static=True, default=False)
    forget: bool = eqx.field(static=True, default=False)

    def __call__(self, key) -> Task:
        keys = jr.split(key, 7)
        goals = circle(jnp.pi * jr.uniform(keys[0], (self.world.goals,)))
        targets = around(keys[1], EPISODES - 1, 0.9, 1.1)
        found = (self.rewards(goals, walk(targets)) > 0).any(1)
        before = jnp.cumsum(found) > found
        again = before & jr.bernoulli(keys[2], 0.5, before.shape)
        near = goals[jr.randint(keys[3], before.shape, 0, len(goals))]
        near = near + 0.05 * jr.normal(keys[4], near.shape)
        x = walk(jnp.where(again[:, None], near, targets))[:, KEPT].reshape(-1, 2)
        shown = jr.randint(keys[5], (), 0, EPISODES) * ROWS
        support = Data(x, self.rewards(goals, x)[:, None], jnp.arange(len(x)) < shown)

        asked = around(keys[6], self.query, 0.7, 1.2)
        if self.dense:
            y = 1 - self.world.away(goals, asked[:, None, :])
        else:
            y = self.rewards(goals, asked)
        return Task(remembered(support) if self.forget else support, Data.of(asked, y))

    def rewards(self, goals: Float[Array, "g 2"], x: Float[Array, "*n 2"]) -> Float[Array, "*n"]:
        """The reward at each place."""
        return self.world.reward(goals, x[..., None, :])


def remembered(rows: Data) -> Data:
    """The rows that say where the goal is: those with a reward where there are any, else all."""
    paid = rows.mask & (rows.y[:, 0] > 0)
    return Data(rows.x, rows.y, jnp.where(paid.any(), paid, rows.mask))


def around(key, count: int, low: float, high: float) -> Float[Array, "n 2"]:
    """Places at random angles of the half circle, `low` to `high` from its middle."""
    a_key, r_key = jr.split(key)
    r = jr.uniform(r_key, (count, 1), minval=low, maxval=high)
    return r * circle(jnp.pi * jr.uniform(a_key, (count,)))
