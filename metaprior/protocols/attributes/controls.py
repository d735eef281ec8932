"""What learns nothing from other episodes: logistic regressions on parts of the features."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Categorical
from metaprior.method import AbstractLearner
from metaprior.posterior import Sampled
from metaprior.protocols.logistic import regression
from metaprior.task import Data

ONE, TEN, RANDOM = "one regression", "ten regressions", "random directions"
CONTROLS = (ONE, TEN, RANDOM)
SCALES = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the weights' prior, tried on validation episodes


class Regressions(AbstractLearner):
    """A logistic regression, fitted to the support, on a random part of the features.

    Args:
        name: one of `CONTROLS`: on all features, which is one function; on a random half of them;
            or on one random direction, along which a regression finds the side and the sureness.
        scale: variance of the weights' normal prior, of all features together.
    """

    name: str = eqx.field(static=True)
    scale: Array

    def part(self, width: int, key: PRNGKeyArray) -> Float[Array, "d k"]:
        """What features are multiplied by."""
        if self.name == ONE:
            return jnp.eye(width) / np.sqrt(width)
        if self.name == TEN:
            kept = jr.permutation(key, width)[: width // 2]
            return jnp.eye(width)[:, kept] / np.sqrt(width // 2)
        direction = jr.normal(key, (width, 1))
        return direction / jnp.linalg.norm(direction)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Sampled:
        return Sampled(eqx.Partial(_draw, self, support), _raw, Categorical(2))


def _draw(control: Regressions, support: Data, key: PRNGKeyArray) -> Any:
    part = control.part(support.x.shape[1], key)
    return part, support, control.scale


def _raw(w: Any, x: Float[Array, "n d"]) -> Float[Array, "n 2"]:
    part, support, scale = w

    def seen(x):  # a one behind the features: an intercept
        return jnp.concatenate([x @ part, jnp.ones((len(x), 1))], axis=1)

    label = jax.nn.one_hot(support.y[:, 0].astype(int), 2) * support.mask[:, None]
    return regression(label, seen(support.x), support.mask, seen(x), scale)
