"""List columns of predictions.parquet: what single draws give, from which likelihoods and coverage
are computed again.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.methods.embedded import EmbeddedPosterior
from metaprior.mixture import Mixture
from metaprior.posterior import AbstractPosterior, Particles, Pool, Sampled, Stacked
from metaprior.task import Data

KEPT = (
    50  # tasks of a setting whose draws are kept one by one; of the others what their mixture gives
)
MOST = 256  # components of a mixture, beyond which only the whole is kept


def log_terms(mixture: Mixture, y: Float[Array, "n p"]) -> Float[Array, "n s"]:
    """Log densities of each row by component, scaled by the weights: the log of their mean is the
    mixture's.

    Of a mixture of more than `MOST` components one number a row, its own.
    """
    weights = jnp.concatenate([part.log_weight for part in mixture.parts])
    if len(weights) > MOST:
        return mixture.log_prob(y)[:, None]
    each = jnp.concatenate([part.head.log_prob(part.params, y[None]) for part in mixture.parts])
    return each.T + jnp.log(1.0 * len(weights)) + weights - jax.nn.logsumexp(weights)


def functions_at(
    posterior: AbstractPosterior, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int
) -> Mixture:
    """Functions of a posterior at x: all where they are finitely many, else `samples` draws.

    Figures then say of an ensemble what it is, not what a random choice among its members is.
    """
    call = posterior.predict if _finite(posterior) else posterior.sample
    return call(x, key=key, samples=samples)


def _finite(posterior: AbstractPosterior) -> bool:
    """Whether a posterior is particles, or a mixture of such posteriors."""
    if isinstance(posterior, Stacked):
        return _finite(posterior.posterior)
    if isinstance(posterior, Pool):
        return all(_finite(each) for each in posterior.posteriors)
    if isinstance(posterior, EmbeddedPosterior):
        return _finite(posterior.base)
    return isinstance(posterior, Particles)


def joint_terms(
    posterior: AbstractPosterior, drawn: Mixture, data: Data, joint: Array
) -> Float[Array, "s"]:
    """Log densities of all rows together: a draw each where draws are all that is known, else one,
    `joint`.
    """
    if not isinstance(posterior, Sampled | Particles):
        return joint[None]
    each = jnp.concatenate([part.head.log_prob(part.params, data.y[None]) for part in drawn.parts])
    return jnp.where(data.mask, each, 0.0).sum(-1)


def lists(values: Any) -> np.ndarray:
    """A column of lists, or of `None` where there is none."""
    column = np.empty(len(values), object)
    for i, value in enumerate(values):
        column[i] = (
            value if value is None or value.dtype == np.uint8 else np.asarray(value, np.float32)
        )
    return column


def log_p(terms: np.ndarray) -> np.ndarray:
    """A list a row from `log_terms` of tasks, `(t, n, s)`: of the first `KEPT` tasks all, of others
    the log of the mean.
    """
    whole = log_mean(terms)
    return lists(
        [
            row if t < KEPT else whole[t, i, None]
            for t, task in enumerate(terms)
            for i, row in enumerate(task)
        ]
    )


def first_rows(values: Any, rows: int) -> np.ndarray:
    """What belongs to a task: a list in the first of its `rows`, `None` in the others."""
    return lists([value if i == 0 else None for value in values for i in range(rows)])


def log_mean(terms: np.ndarray) -> np.ndarray:
    """The log of the mean of what these are the logs of, along the last axis."""
    return np.logaddexp.reduce(np.asarray(terms, np.float64), -1) - np.log(terms.shape[-1])
