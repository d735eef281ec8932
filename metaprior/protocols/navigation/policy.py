"""A policy that learns to explore: a recurrent network, trained by plain policy gradients."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int

from metaprior.protocols.navigation.agents import AbstractAgent, Played, nowhere, play_one
from metaprior.protocols.navigation.world import HORIZON, World, circle
from metaprior.protocols.policies import frozen, gain, improve

PLACES = 37  # of the half circle, which the policy chooses among
SEEN = 7  # numbers that it sees at a step


class Policy(AbstractAgent):
    """A recurrent network that chooses at each step a place of the half circle to go to.

    It sees the position, the reward there, the highest reward of the task so far and where that
    was, and how far the episode is.

    Args:
        cell: reads what is seen.
        choice: logits of `PLACES` places.
        value: what is still to be gained, in units of the horizon.
    """

    cell: eqx.nn.GRUCell
    choice: eqx.nn.Linear
    value: eqx.nn.Linear

    @staticmethod
    def init(width: int, *, key) -> "Policy":
        """Random weights; all places are about as likely."""
        c_key, p_key, v_key = jr.split(key, 3)
        return Policy(
            eqx.nn.GRUCell(SEEN, width, key=c_key),
            eqx.nn.Linear(width, PLACES, key=p_key),
            eqx.nn.Linear(width, "scalar", key=v_key),
        )

    def start(self, goals):
        return jnp.zeros(self.cell.hidden_size), jnp.zeros(()), jnp.zeros(3)

    def plan(self, memory, rows, draws, *, key):
        h, _, best = memory
        return (h, jnp.zeros(()), best), nowhere(draws)

    def act(self, memory, position, step, *, key):
        h, reward, best = memory
        seen = jnp.concatenate([position, reward[None], best, step[None] / HORIZON])
        h = self.cell(seen, h)
        return (h, reward, best), places()[jr.categorical(key, self.choice(h))]

    def see(self, memory, position, reward):
        h, _, best = memory
        now = jnp.append(reward[None], position)
        return h, reward, jnp.where(reward > best[0], now, best)

    def replay(self, played: Played) -> tuple[Float[Array, "n a"], Float[Array, "n"]]:
        """Logits and values at every step of a task that was played."""

        def each(memory, now):
            before, step, position, reward = now
            h, last, best = memory
            last = jnp.where(step == 0, 0.0, last)
            seen = jnp.concatenate([before, last[None], best, step[None] / HORIZON])
            h = self.cell(seen, h)
            return self.see((h, last, best), position, reward), h

        position = played.position
        before = jnp.pad(position[:, :-1], ((0, 0), (1, 0), (0, 0)))
        step = jnp.broadcast_to(jnp.arange(HORIZON), played.reward.shape)
        every = [a.reshape(-1, *a.shape[2:]) for a in (before, step, position, played.reward)]
        _, h = jax.lax.scan(each, self.start(None), tuple(every))
        return jax.vmap(self.choice)(h), jax.vmap(self.value)(h)


def places() -> Float[Array, "a 2"]:
    """What the policy chooses among."""
    return circle(jnp.linspace(0, jnp.pi, PLACES))


def chosen(played: Played) -> Int[Array, "n"]:
    """The number of the place that each step goes to."""
    target = played.target.reshape(-1, 1, 2)
    return jnp.argmin(((target - places()) ** 2).sum(-1), axis=1)


def loss(policy: Policy, played: Played, how: dict) -> Float[Array, ""]:
    """Of tasks that were played: policy gradient, error of the baseline, entropy.

    Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
    Learning", Machine Learning 1992, with a learned baseline.
    """

    def one(task):
        logits, value = policy.replay(task)
        log_p = jax.nn.log_softmax(logits)
        own = jnp.take_along_axis(log_p, chosen(task)[:, None], 1)[:, 0]
        total = gain(task.reward.ravel(), how["discount"]) / HORIZON
        return own, value, total, -(jnp.exp(log_p) * log_p).sum(-1)

    own, value, total, entropy = jax.vmap(one)(played)
    better = jax.lax.stop_gradient(total - value)
    better = better / (better.std() + 1e-3)
    return -(own * better).mean() + ((total - value) ** 2).mean() - how["entropy"] * entropy.mean()


def learn(
    world: World, how: dict, seed: int, progress: Callable[[float, str], None]
) -> tuple[Policy, dict]:
    """A policy trained on goals drawn anew at every step, and facts of its training.

    Args:
        world: goals and rewards.
        how: `steps`, `batch` of tasks, `episodes` of each, `width`, `learning_rate`, `discount`,
            weight of the `entropy`.
        seed: of everything.
        progress: told 0 … 1 over training.
    """
    init_key, key = jr.split(jr.key(seed))
    policy = Policy.init(how["width"], key=init_key)

    def objective(policy, k):
        g_key, p_key = jr.split(k)
        goals = circle(jnp.pi * jr.uniform(g_key, (how["batch"], world.goals)))
        agent = frozen(policy)

        def one(goal, k):
            return play_one(agent, world, goal, 1, how["episodes"], key=k)

        played = jax.vmap(one)(goals, jr.split(p_key, how["batch"]))
        return loss(policy, played, how), played.reward.sum(-1).mean(0)

    def told(gained):
        return "returns " + ", ".join(f"{value:.1f}" for value in gained)

    return improve(policy, objective, how, told, progress, key=key)
