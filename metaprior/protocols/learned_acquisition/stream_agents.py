"""Who answers or asks: a classifier with Bayes' rule, and a policy trained by what it gains."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int

from metaprior.method import AbstractLearner
from metaprior.methods.embedded import Embedded
from metaprior.nets.conv import Conv4
from metaprior.nets.mlp import apply
from metaprior.protocols.learned_acquisition.stream_world import (
    ASK,
    ASKED,
    WAY,
    Played,
    Streams,
    reward,
)
from metaprior.protocols.policies import frozen, gain, improve
from metaprior.system.compiled import jit
from metaprior.task import Data


def apart(learner: Any) -> tuple[Any, AbstractLearner]:
    """A learner's network of images, and the learner on its features: images go through once."""
    if isinstance(learner, Embedded):
        return learner.net, learner.base
    return learner.net, eqx.tree_at(lambda m: m.net, learner, eqx.nn.Identity())


def answers(p: Float[Array, "3"], left: Array, worth: Array | float) -> Array:
    """Bayes' rule: whether an answer is worth more than its label.

    An answer gains 2 p - 1. A label costs 0.05, and helps with the images that are left.

    Args:
        p: probabilities of the answers.
        left: share of the stream that is left after this image, 0 … 1.
        worth: of a label at the beginning, in rewards.
    """
    return 2 * p.max() - 1 > ASKED + worth * left


def probabilities(
    agent: Any, x: Float[Array, "n d"], label: Int[Array, "n"]
) -> Callable[..., Array]:
    """`(i, known, key) -> p`: of the labels of image i, given the labels that are known.

    Args:
        agent: a learner, or the policy, whose own probabilities these are then.
        x, label: of the stream.
    """
    if isinstance(agent, Policy):
        f = agent.features(x)
        return lambda i, known, key: jnp.exp(agent.predict(f @ f[i], label, known))
    net, base = apart(agent)
    features, y = apply(net, x), label.astype(x.dtype)[:, None]

    def of_learner(i, known, key):
        p_key, q_key = jr.split(key)
        posterior = base.posterior(Data(features, y, known), key=p_key)
        return posterior.predict(features[i][None], key=q_key, samples=1).mean()[0]

    return of_learner


def ask_or_answer(
    agent: Any, x: Float[Array, "n d"], label: Int[Array, "n"], worth: Array | float, *, key
) -> Played:
    """A stream by Bayes' rule: labels that are asked for are told, and of the others nothing."""
    n, predict = len(x), probabilities(agent, x, label)

    def step(known, now):
        i, k = now
        p = predict(i, known, k)
        answer = answers(p, (n - 1 - i) / n, worth)
        action = jnp.where(answer, jnp.argmax(p), ASK)
        return known.at[i].set(~answer), (action, p.max())

    each = jnp.arange(n), jr.split(key, n)
    action, p = jax.lax.scan(step, jnp.zeros(n, bool), each)[1]
    return Played(action, label, p)


@jit
def play_by_rule(
    agent: Any, streams: Streams, keys, worth: Float[Array, "w"]
) -> tuple[Played, Float[Array, "t w n"]]:
    """The same streams for each worth of a label; and what they gain."""

    def one(k):
        s_key, p_key = jr.split(k)
        x, label = streams(s_key)
        played = jax.vmap(lambda w: ask_or_answer(agent, x, label, w, key=p_key))(worth)
        return played, reward(played.action, played.label)

    return jax.lax.map(one, keys, batch_size=8)


class Policy(eqx.Module):
    """Representation, prediction and selection, trained together by what they gain.

    Bachman, Sordoni & Trischler, "Learning Algorithms for Active Learning", ICML 2017, have these
    three parts; the task and the rewards are Woodward & Finn's. A network makes an image a feature.
    An image is compared with those whose labels are known (a matching network; a class without any
    has a learned similarity). A recurrent network sees how sure that is, and asks or not.

    Args:
        net: of images.
        log_scale: log of the scale of similarities.
        novel: similarity with a class that has no labels.
        cell, ask, value: recurrent network; logit of asking; what is still to be gained.
    """

    net: Conv4
    log_scale: Array
    novel: Array
    cell: eqx.nn.GRUCell
    ask: eqx.nn.Linear
    value: eqx.nn.Linear

    @staticmethod
    def init(net: Conv4, width: int, *, key) -> "Policy":
        """Random weights; at first it asks every second time."""
        c_key, a_key, v_key = jr.split(key, 3)
        return Policy(
            net,
            jnp.log(jnp.asarray(10.0)),
            jnp.asarray(0.5),
            eqx.nn.GRUCell(WAY + 4, width, key=c_key),
            eqx.nn.Linear(width, "scalar", key=a_key),
            eqx.nn.Linear(width, "scalar", key=v_key),
        )

    def features(self, x: Float[Array, "n d"]) -> Float[Array, "n e"]:
        """Of length one."""
        f = apply(self.net, x)
        return f * jax.lax.rsqrt((f * f).sum(-1, keepdims=True) + 1e-8)

    def predict(
        self, like: Float[Array, "n"], label: Int[Array, "n"], known: Bool[Array, "n"]
    ) -> Float[Array, "3"]:
        """Log probabilities, from similarities with images whose labels may be known."""
        scale = jnp.exp(self.log_scale)
        hot = (label[:, None] == jnp.arange(WAY)) & known[:, None]
        each = jnp.where(hot, scale * like[:, None], -1e9)
        logits = jnp.where(hot.any(0), jax.nn.logsumexp(each, axis=0), scale * self.novel)
        return jax.nn.log_softmax(logits)

    def run(
        self,
        f: Float[Array, "n e"],
        label: Int[Array, "n"],
        *,
        forced: Bool[Array, "n"] | None = None,
        greedy: bool = False,
        key,
    ) -> tuple[Array, Array, Array, Array]:
        """A stream.

        Args:
            f, label: features of the images, and labels.
            forced: where it asks, if that is decided already: a replay with gradients.
            greedy: whether it asks where that is more likely than not, and not at random.
            key: of the choices.

        Returns:
            at each image: whether it asks, the logit of that, the value, and log probabilities of
            the labels.
        """
        n, like = len(f), f @ f.T

        def step(carry, now):
            h, known, last = carry
            i, k, given = now
            log_p = self.predict(like[i], label, known)
            p = jnp.sort(jnp.exp(log_p))[::-1]
            best = jnp.where(known, like[i], -1.0).max()
            hot = (label[:, None] == jnp.arange(WAY)) & known[:, None]
            seen = jnp.stack([best, hot.any(0).sum() / WAY, i / n, last])
            h = self.cell(jnp.concatenate([p, seen]), h)
            logit = self.ask(h)
            drawn = (logit > 0) if greedy else jr.bernoulli(k, jax.nn.sigmoid(logit))
            asks = drawn if forced is None else given
            carry = h, known.at[i].set(asks), asks.astype(h.dtype)
            return carry, (asks, logit, self.value(h), log_p)

        start = jnp.zeros(self.cell.hidden_size), jnp.zeros(n, bool), jnp.zeros(())
        given = jnp.zeros(n, bool) if forced is None else forced
        each = jnp.arange(n), jr.split(key, n), given
        return jax.lax.scan(step, start, each)[1]


def objective(
    policy: Policy, streams: Streams, how: dict[str, Any], key
) -> tuple[Array, tuple[Array, Array]]:
    """Policy gradient of asking, expected reward of answers, error of the value, entropy.

    What is asked changes all that follows: its gradient is Williams' (Machine Learning 1992), with
    a learned baseline. An answer changes nothing, so that its expected reward has a gradient of
    its own; drawn from the probabilities, it is 2 p - 1 for the true label's p.
    """
    s_key, r_key = jr.split(key)
    x, label = jax.vmap(streams)(jr.split(s_key, how["batch"]))
    keys = jr.split(r_key, how["batch"])
    f = jax.vmap(policy.features)(x)
    agent, seen = frozen(policy), jax.lax.stop_gradient(f)
    asks = jax.vmap(lambda f, y, k: agent.run(f, y, key=k)[0])(seen, label, keys)

    def one(f, label, asks, k):
        _, logit, value, log_p = policy.run(f, label, forced=asks, key=k)
        own = jnp.take_along_axis(log_p, label[:, None], 1)[:, 0]
        gained = jnp.where(asks, ASKED, 2 * jnp.exp(own) - 1)
        total = gain(jax.lax.stop_gradient(gained), how["discount"])
        log_action = jax.nn.log_sigmoid(jnp.where(asks, logit, -logit))
        entropy = -(jax.nn.sigmoid(logit) * logit) + jax.nn.softplus(logit)
        return log_action, gained, own, total, value, entropy

    log_action, gained, own, total, value, entropy = jax.vmap(one)(f, label, asks, keys)
    better = jax.lax.stop_gradient(total - value)
    better = better / (better.std() + 1e-3)
    loss = -(log_action * better).mean() - gained.mean() + how["fit"] * -own.mean()
    loss = loss + how["tell"] * apart_from_all(jnp.exp(policy.log_scale), f, label)
    loss = loss + 0.1 * ((total - value) ** 2).mean() - how["entropy"] * entropy.mean()
    return loss, (gained.sum(1).mean(), asks.mean())


def apart_from_all(
    scale: Array, f: Float[Array, "b n e"], label: Int[Array, "b n"]
) -> Float[Array, ""]:
    """The nll of each image's class given all other images of all streams of a step.

    Three classes a stream say little of how to tell classes apart; all of a step are many. It is
    the matching network's objective, with one image left out after the other.
    """
    b, n, e = f.shape
    own = (label + WAY * jnp.arange(b)[:, None]).ravel()
    rows = f.reshape(b * n, e)
    like = scale * rows @ rows.T
    other = ~jnp.eye(b * n, dtype=bool)
    same = other & (own[:, None] == own)
    total = jax.nn.logsumexp(jnp.where(other, like, -1e9), axis=1)
    return (total - jax.nn.logsumexp(jnp.where(same, like, -1e9), axis=1)).mean()


def learn(
    net: Conv4, streams: Streams, how: dict[str, Any], seed: int, progress
) -> tuple[Policy, dict[str, Any]]:
    """A policy trained on streams of the training classes, and facts of its training."""
    init_key, key = jr.split(jr.key(seed))
    policy = Policy.init(net, how["width"], key=init_key)

    def told(seen):
        return f"reward {float(seen[0]):.1f}, asks {float(seen[1]):.0%}"

    return improve(policy, lambda p, k: objective(p, streams, how, k), how, told, progress, key=key)


@jit
def play_policy(policy: Policy, streams: Streams, keys) -> Played:
    """Streams with the more likely choices."""

    def one(k):
        s_key, p_key = jr.split(k)
        x, label = streams(s_key)
        asks, _, _, log_p = policy.run(policy.features(x), label, greedy=True, key=p_key)
        return Played(jnp.where(asks, ASK, jnp.argmax(log_p, 1)), label, jnp.exp(log_p.max(1)))

    return jax.lax.map(one, keys, batch_size=16)
