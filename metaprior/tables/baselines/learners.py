"""The baselines as learners.

Two of them ignore the support. The others, here for classes, are special cases of the Gaussian
process method, and are trained.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from metaprior.heads import Categorical, Gaussian
from metaprior.method import AbstractLearner, Spec
from metaprior.methods.process import Process
from metaprior.nets.kernels import Constant, RandomEffects, Stationary
from metaprior.nets.means import Mean
from metaprior.posterior import AbstractHead, Particles
from metaprior.task import Data


class Fixed(AbstractLearner):
    """Predicts the same for every task: the support changes nothing.

    Args:
        base: raw outputs that hold for every point, `(r,)`.
        head: reads them.
        pooled: how many of the last columns of x are added to the first raw outputs.
    """

    base: Array
    head: AbstractHead
    pooled: int = eqx.field(static=True, default=0)

    def _apply(self, base, x):
        extra = x[:, x.shape[1] - self.pooled :]
        rest = base.shape[0] - self.pooled  # raw outputs without a pooled column
        return base + jnp.pad(extra, ((0, 0), (0, rest)))

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles(self.base[None], self._apply, self.head)


def on_device(value) -> Array:
    """Numbers in JAX's float type, as they are: operations there compile a program each."""
    return jax.device_put(np.asarray(value, jnp.result_type(float)))


def marginal(spec: Spec, y: np.ndarray) -> Fixed:
    """The training tasks' marginal: one normal, or the class frequencies."""
    if spec.head.classes:
        # One is added to each count: a class that no task has is rare, not impossible.
        counts = np.bincount(y.astype(int), minlength=spec.head.classes) + 1.0
        return Fixed(on_device(np.log(counts / counts.sum())), Categorical(spec.head.classes))
    return Fixed(on_device(y.mean()[None]), Gaussian(1, scale=on_device(y.std())))


def boosting(spec: Spec, y: np.ndarray, pooled: np.ndarray) -> Fixed:
    """Pooled gradient boosting with the spread of its out-of-fold residuals.

    Args:
        spec: the tasks' shape; its last columns hold the pooled prediction.
        y: outcomes, `(n,)`.
        pooled: out-of-fold predictions, `(n, 1)`, or log probabilities, `(n, C)`.
    """
    if spec.head.classes:
        classes = spec.head.classes
        return Fixed(on_device(np.zeros(classes)), Categorical(classes), spec.pooled)
    spread = np.sqrt(((y - pooled[:, 0]) ** 2).mean())
    return Fixed(on_device(np.zeros(1)), Gaussian(1, scale=on_device(spread)), 1)


def _process(spec, mean, kernels):
    return Process(mean, kernels, None, spec.head, columns=spec.x_dim - spec.pooled)


def _pooled_mean(spec):
    """The boosting prediction, where the tasks have one, times a number that is learned.

    Log odds given the group are farther from zero than those over all groups, which boosting gives.
    """
    coefficient = jnp.ones(()) if spec.pooled else None
    return Mean(coefficient, None, None, spec.pooled, 0, spec.head.raw_dim)


def offset(spec: Spec, *, key) -> Process:
    """Boosting plus one number for each group, shrunk to 0: the practitioner's mixed model."""
    return _process(spec, _pooled_mean(spec), (Constant(jnp.log(jnp.asarray(0.3))),))


def mixed(spec: Spec, *, key) -> Process:
    """Linear mixed model with correlated random slopes, logistic: for classes.

    Of classes in an order, the cumulative one.

    Laird & Ware, "Random-Effects Models for Longitudinal Data", Biometrics 1982, written as the
    Gaussian process that is the same model.
    """
    d, out = spec.x_dim - spec.pooled, spec.head.raw_dim
    mean = Mean(None, jnp.zeros((1 + d, out)), None, 0, 1, out)
    return _process(spec, mean, (RandomEffects.init(d, 1, 0.3, key=key),))


def gp(spec: Spec, *, key) -> Process:
    """A Gaussian process for each task around the boosting mean, one length scale a column."""
    d = spec.x_dim - spec.pooled
    # Distances grow with the square root of the number of columns, and the length scales with them.
    length = jnp.full(d, 0.5 * jnp.log(float(max(d, 1))) + 0.3)
    kernels = (
        Constant(jnp.log(jnp.asarray(0.3))),
        Stationary(jnp.log(jnp.asarray(0.4)), length, "eq"),
    )
    return _process(spec, _pooled_mean(spec), kernels)


FIXED = ("marginal", "boosting")  # predict the same whatever rows of a group are observed
TRAINED = {"offset": offset, "mixed": mixed, "gp": gp}
