"""A target's own units: from the user's numbers to the model's, and predictions back again."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from metaprior.mixture import Mixture
from metaprior.task import Data


class Units(eqx.Module):
    """The user's scale: y = center + scale z, or the exponential of that when `log`.

    Args:
        center, scale: of the training rows, on the log scale with `log`.
        low, high: smallest and largest training outcome, in the model's units.
        log: whether the target was modelled on the log scale.
    """

    center: float
    scale: float
    low: float
    high: float
    log: bool = eqx.field(static=True, default=False)

    def to_z(self, y):
        """From the user's units to the model's."""
        return ((np.log(y) if self.log else y) - self.center) / self.scale

    def to_y(self, z):
        """From the model's units to the user's."""
        y = self.center + self.scale * z
        return jnp.exp(y) if self.log else y


def outcomes(mixture: Mixture, units: Units, support: Data) -> tuple[Array, Array]:
    """Atoms `(a, n, p)` of the predictive in the user's units, and their weights.

    The exponential of a Student-t has no mean: a component of small weight could stand for any
    number. With `log` the atoms therefore end one deviation (of the log target) beyond the outcomes
    seen in training and in the support. Likelihoods and quantiles are not cut.
    """
    values, weights = mixture.atoms()
    if units.log:
        # The range of what the prior was trained on and of what this group has shown.
        seen = jnp.where(support.mask[:, None], support.y, units.low)
        low, high = seen.min(0, initial=units.low), seen.max(0, initial=units.high)
        values = jnp.clip(values, low - 1.0, high + 1.0)
    return units.to_y(values), weights


def summary(mixture: Mixture, units: Units, support: Data) -> tuple[Array, Array]:
    """Mean and standard deviation in the user's units, `(n, p)` each.

    With `log` they are the mean and deviation of the atoms of `outcomes`.
    """
    if not units.log:
        return units.to_y(mixture.mean()), units.scale * jnp.sqrt(mixture.variance())
    y, weights = outcomes(mixture, units, support)
    mean = jnp.tensordot(weights, y, axes=1)
    return mean, jnp.sqrt(jnp.tensordot(weights, (y - mean) ** 2, axes=1))
