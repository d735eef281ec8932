"""How many rows of a task are shown."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from metaprior.task import Data, Task, split


def shots(data: Data, support: int, fewest: int | None, *, key: PRNGKeyArray) -> Task:
    """The first `support` rows as support, the others as query; not all support may be shown.

    Args:
        data: all rows of a task, in random order.
        support: rows of the support, shown or not.
        fewest: the number of rows shown is uniform in `fewest` … `support`; `None` shows all.
        key: for that number.
    """
    if fewest is not None and not 0 <= fewest <= support:
        raise ValueError(f"A task shows between 0 and {support} support rows; fewest is {fewest}.")
    task = split(data, support)
    if fewest is None:
        return task
    # Rows that are not shown stay in place, outside the mask: the shape is the same for all.
    count = jr.randint(key, (), fewest, support + 1)
    return eqx.tree_at(lambda t: t.support.mask, task, jnp.arange(support) < count)
