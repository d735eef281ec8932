"""Columns of predictions.parquet, from which the figures can be computed again.

Most are one number a row. Some are lists: what each single draw of a posterior gives, which
likelihoods and coverage need.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.methods.embedded import EmbeddedPosterior
from metaprior.methods.nuts import ByChains
from metaprior.mixture import Mixture
from metaprior.posterior import AbstractPosterior, Particles, Pool, Sampled, Stacked
from metaprior.task import Data

# Tasks of a setting whose draws are kept one by one; of the others, what their mixture gives.
KEPT = 50
MOST = 256  # components of a mixture, beyond which only the whole is kept


def task_rows(setting: str, tasks: int, rows: int) -> dict[str, np.ndarray]:
    """The columns that say which row is which: `setting`, `task` and `row`, `tasks * rows` long."""
    return {
        "setting": np.full(tasks * rows, setting),
        "task": np.repeat(np.arange(tasks), rows),
        "row": np.tile(np.arange(rows), tasks),
    }


def joined(
    tables: Sequence[dict[str, np.ndarray]], first: str = "setting"
) -> dict[str, np.ndarray]:
    """Tables below one another.

    Args:
        tables: columns by name. A column that a table lacks is NaN there.
        first: a column that every table has.
    """
    names = list(dict.fromkeys(name for table in tables for name in table))

    def column(table: dict[str, np.ndarray], name: str) -> np.ndarray:
        absent = np.full(len(table[first]), np.nan, np.float32)
        return table.get(name, absent)

    return {name: np.concatenate([column(table, name) for table in tables]) for name in names}


def log_terms(mixture: Mixture, y: Float[Array, "n p"]) -> Float[Array, "n s"]:
    """Log densities of each row under each component.

    They are scaled by the weights, so that the log of their mean is the mixture's log density. A
    mixture of more than `MOST` components gives one number a row, its own.
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
    if isinstance(posterior, EmbeddedPosterior | ByChains):
        return _finite(posterior.base)
    return isinstance(posterior, Particles)


def known_by_draws(posterior: AbstractPosterior) -> bool:
    """Whether draws of the function are all that there is; densities are then means over them."""
    return isinstance(posterior, Sampled | Particles)


def component_means(mixture: Mixture) -> Float[Array, "s n p"]:
    """The mean of each component at each row: each drawn function, without the noise."""
    return jnp.concatenate([part.head.mean(part.params) for part in mixture.parts])


def joint_terms(
    posterior: AbstractPosterior, drawn: Mixture, data: Data, joint: Array
) -> Float[Array, "s"]:
    """Log densities of all rows together.

    A method that is known by its draws gives one number a draw. Another gives one number, `joint`.
    """
    if not known_by_draws(posterior):
        return joint[None]
    each = jnp.concatenate([part.head.log_prob(part.params, data.y[None]) for part in drawn.parts])
    return jnp.where(data.mask, each, 0.0).sum(-1)


def lists(values: Any) -> np.ndarray:
    """A column of lists, or of `None` where there is none."""
    column = np.empty(len(values), object)
    for i, value in enumerate(values):
        as_it_is = value is None or value.dtype == np.uint8  # pixels stay bytes
        column[i] = value if as_it_is else np.asarray(value, np.float32)
    return column


def log_p(terms: np.ndarray) -> np.ndarray:
    """A list for each row, from `log_terms` of tasks, `(t, n, s)`.

    The first `KEPT` tasks keep every draw; the others keep the log of the mean.
    """
    whole = log_mean(terms)
    found: list[np.ndarray] = []
    for t, task in enumerate(terms):
        found.extend(task if t < KEPT else whole[t, :, None])
    return lists(found)


def first_rows(values: Any, rows: int) -> np.ndarray:
    """What belongs to a task: a list in the first of its `rows`, `None` in the others."""
    found = [None] * (len(values) * rows)
    found[::rows] = list(values)
    return lists(found)


def log_mean(terms: np.ndarray) -> np.ndarray:
    """The log of the mean of what these are the logs of, along the last axis."""
    return np.logaddexp.reduce(np.asarray(terms, np.float64), -1) - np.log(terms.shape[-1])
