"""A policy that chooses where to read next, trained through its readings."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float

from metaprior.protocols.learned_acquisition.location_world import (
    COARSE,
    READINGS,
    Played,
    information,
    level,
    play,
)
from metaprior.protocols.policies import frozen, improve

FIRST = 6  # numbers of a reading
REACH = 2.0  # of a step, in length scales


class Seeker(eqx.Module):
    """x = c + s E(sum of enc(x_i, y_i)): deep adaptive design in coordinates of what was read.

    Foster et al. 2021. A reading y says how far the source is, r = exp(-y / 2) up to noise. c is
    the mean of all places, where those with larger readings weigh more; s is the length scale of
    these weights. Places are seen relative to c and s, so that the network does far from the source
    what it does close to it. The sum over readings does not depend on their order.

    Args:
        power: how much larger readings weigh.
        start: the first place.
        encode, choose: networks of a reading and of their sum.
    """

    power: Array
    start: Array
    encode: eqx.nn.MLP
    choose: eqx.nn.MLP

    @staticmethod
    def init(width: int, *, key) -> "Seeker":
        """Random weights."""
        e_key, c_key = jr.split(key)
        encode = eqx.nn.MLP(FIRST, width, width, 2, jax.nn.gelu, key=e_key)
        choose = eqx.nn.MLP(2 * width + 4, 2, width, 2, jax.nn.gelu, key=c_key)
        return Seeker(jnp.asarray(1.0), jnp.zeros(2), encode, choose)

    def __call__(
        self,
        place: Float[Array, "n 2"],
        reading: Float[Array, "n"],
        known: Bool[Array, "n"],
        *,
        key,
    ) -> Float[Array, "2"]:
        """The next place, given those that are known; all others are ignored."""
        log_r = -0.5 * reading
        score = jnp.where(known, -2 * self.power * log_r, -1e9)
        weight = jnp.where(known, jax.nn.softmax(score), 0.0)
        centre = weight @ place
        log_s = jnp.where(known.any(), (weight * log_r).sum(), 0.0)
        scale = jnp.exp(log_s)
        away = (place - centre) / scale
        far = jnp.sqrt((away**2).sum(-1) + 1e-6)
        ratio = log_r - log_s
        seen = jnp.stack(
            [away[:, 0] / (1 + far), away[:, 1] / (1 + far), jnp.log1p(far), ratio,
             jnp.log1p(far) - jnp.logaddexp(ratio, 0.0), weight], -1
        )  # fmt: skip
        code = jax.vmap(self.encode)(seen)
        total = jnp.where(known[:, None], code, 0.0).sum(0) / 5
        mean = weight @ code
        count = known.sum() / READINGS
        state = jnp.concatenate([total, mean, jnp.stack([log_s, count]), centre - 0.5])
        # Nobody goes much farther than the nearest reading says: one who strays finds no way back.
        step = REACH * jnp.tanh(self.choose(state) / REACH)
        there = centre + jnp.maximum(scale, 3e-3) * step
        there = jnp.where(known.any(), there, 0.5 + self.start)
        return jnp.clip(there, 0.0, 1.0)


def objective(policy: Seeker, key, how: dict[str, Any]) -> tuple[Array, Array]:
    """Minus the information in nats, averaged over tasks; the last readings count most.

    Gradients go from the information through each reading and its place to the policy. They stop
    there: what a place does to later places is left out. Through all thirty of them gradients grow
    without bound, and the training is undone at times.
    """
    agent = frozen(policy)

    def one(k):
        s_key, p_key = jr.split(k)
        source = jr.uniform(s_key, (2,))
        place, reading = play(agent, source, how["readings"], key=p_key)
        count = jnp.arange(len(reading))
        at = jax.vmap(lambda n: policy(place, reading, count < n, key=None))(count)
        noise = reading - level(source, place)
        return information(source, Played(at, level(source, at) + noise), COARSE)

    gained = jax.vmap(one)(jr.split(key, how["batch"])).mean(0)
    weight = how["early"] * jnp.ones_like(gained) / len(gained)
    weight = weight.at[-1].add(1 - how["early"])
    return -(weight * gained).sum(), gained


def learn(how: dict[str, Any], seed: int, progress) -> tuple[Seeker, dict[str, Any]]:
    """A policy trained on sources drawn anew at every step, and facts of its training."""
    init_key, key = jr.split(jr.key(seed))
    policy = Seeker.init(how["width"], key=init_key)

    def told(gained):
        return f"{float(gained[-1]):.2f} nats"

    return improve(
        policy, lambda p, k: objective(p, k, how), how, told, progress, key=key, last=0.01
    )
