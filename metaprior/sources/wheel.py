"""The wheel bandit: five arms, one of which pays fifty times as much in a rare part of the disc."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from metaprior.heads import Gaussian
from metaprior.posterior import Sampled
from metaprior.task import Data, Task, split

ARMS = 5
# Mean rewards of arm 0, of arms 1 to 4, and of the quadrant's arm outside of the radius.
SURE, LOW, HIGH = 1.2, 1.0, 50.0


def rewards(context: Float[Array, "n 2"], delta) -> Float[Array, "n 5"]:
    """Mean reward of every arm.

    Arm 0 is sure. Outside of the radius `delta`, the arm of the context's quadrant pays most.
    """
    quadrant = 1 + 2 * (context[:, 0] < 0).astype(int) + (context[:, 1] < 0).astype(int)
    outside = (context**2).sum(1) > jnp.square(delta)
    pays = (jnp.arange(ARMS) == quadrant[:, None]) & outside[:, None]
    return jnp.where(pays, HIGH, jnp.where(jnp.arange(ARMS) == 0, SURE, LOW))


def uniform_regret(delta: float) -> float:
    """Expected regret a step of an arm drawn uniformly: 0.16 δ² + 39.16 (1 - δ²).

    Example:
        >>> from metaprior.sources.wheel import uniform_regret
        >>> round(uniform_regret(0.95), 4)
        3.9625
    """
    inside = SURE - (SURE + 4 * LOW) / ARMS
    outside = HIGH - (HIGH + SURE + 3 * LOW) / ARMS
    return inside * delta**2 + outside * (1 - delta**2)


def contexts(key, n: int) -> Float[Array, "n 2"]:
    """Uniform in the unit disc."""
    angle, share = jr.uniform(key, (2, n))
    way = jnp.stack([jnp.cos(2 * jnp.pi * angle), jnp.sin(2 * jnp.pi * angle)], 1)
    return jnp.sqrt(share)[:, None] * way  # the root makes points uniform in the disc


def actions(context: Float[Array, "n 2"]) -> Float[Array, "n*5 7"]:
    """Inputs of all arms at each context: the context, and which arm it is.

    The arms of a context come together.
    """
    arms = jnp.tile(jnp.eye(ARMS, dtype=context.dtype), (context.shape[0], 1))
    return jnp.concatenate([jnp.repeat(context, ARMS, axis=0), arms], 1)


class Wheel(eqx.Module):
    """Riquelme, Tucker & Snoek, "Deep Bayesian Bandits Showdown", ICLR 2018, section 5.4, as tasks.

    A task is a radius δ, uniform in `delta`. An input is a context in the unit disc and an
    indicator of one of five arms. The outcome is the *logarithm* of a reward with normal noise of
    standard deviation 0.01: rewards are about 1, 1.2 and 50, and on that scale the first two could
    not be told apart. Support rows show the reward of one arm, drawn uniformly (Garnelo et al.,
    "Neural Processes", 2018; Ravi & Beatson, 2019). Query rows show all five of each context.

    Args:
        support: rows (512, both papers).
        query: contexts (10: 50 rows, both papers).
        every_size: whether the number of support rows is log-uniform in 0 … `support`, as a bandit
            meets all sizes. Else it is `support`.
        delta: lowest and highest radius.
        noise: standard deviation of a reward (0.01 in the paper; its code has 0.05 for small
            rewards).

    Example:
        >>> import jax
        >>> from metaprior.sources.wheel import Wheel
        >>> task = Wheel(support=20)(jax.random.key(0))
        >>> task.support.x.shape, task.query.y.shape
        ((20, 7), (50, 1))
    """

    support: int = eqx.field(static=True, default=512)
    query: int = eqx.field(static=True, default=10)
    every_size: bool = eqx.field(static=True, default=True)
    delta: tuple[float, float] = eqx.field(static=True, default=(0.0, 1.0))
    noise: float = eqx.field(static=True, default=0.01)

    def radius(self, key):
        """δ of the task of this key."""
        return jr.uniform(jr.split(key, 5)[0], minval=self.delta[0], maxval=self.delta[1])

    def __call__(self, key) -> Task:
        _, c_key, a_key, e_key, k_key = jr.split(key, 5)
        context = contexts(c_key, self.support + self.query)
        x = actions(context).reshape(-1, ARMS, 2 + ARMS)
        y = self.outcome(rewards(context, self.radius(key)), key=e_key)

        # Of a support row one arm is kept, of a query context all five.
        arm = jr.randint(a_key, (self.support,), 0, ARMS)
        rows = jnp.arange(self.support)
        x = jnp.concatenate([x[rows, arm], x[self.support :].reshape(-1, 2 + ARMS)])
        y = jnp.concatenate([y[rows, arm], y[self.support :].ravel()])
        task = split(Data.of(x, y), self.support)
        if not self.every_size:
            return task
        count = jnp.expm1(jr.uniform(k_key) * jnp.log(self.support + 2.0)).astype(int)
        return eqx.tree_at(lambda t: t.support.mask, task, rows < count)

    def outcome(self, mean, *, key):
        """Log of noisy rewards."""
        return jnp.log(mean + self.noise * jr.normal(key, mean.shape))

    def exact(self, support: Data) -> Sampled:
        """The posterior of δ, which is uniform between two radii.

        They are the largest that is known to be inside, and the smallest that is known to be
        outside. A row tells on which side of δ it is when its arm is that of its quadrant.
        """
        context, arm = support.x[:, :2], jnp.argmax(support.x[:, 2:], axis=1)
        tells = support.mask & (jnp.argmax(rewards(context, 0.0), axis=1) == arm)
        pays, r = support.y[:, 0] > jnp.log(0.5 * HIGH), jnp.sqrt((context**2).sum(1))
        low = jnp.where(tells & ~pays, r, self.delta[0]).max(initial=self.delta[0])
        high = jnp.where(tells & pays, r, self.delta[1]).min(initial=self.delta[1])
        head = Gaussian(1, scale=self.noise)
        return Sampled(eqx.Partial(_radius, low, high), _log_reward, head)


def _radius(low, high, key):
    return jr.uniform(key, minval=low, maxval=high)


def _log_reward(delta, x):
    return jnp.log((rewards(x[:, :2], delta) * x[:, 2:]).sum(1, keepdims=True))
