"""Which training group made a loss not finite, found after the fact."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from metaprior.errors import InputError
from metaprior.sources.table import Table
from metaprior.training import Fitted

DRAWS = 4  # tasks of each group, as a task may hold only some of its rows


class BadTasks(Exception):
    """Groups, by their index among the training groups or by name, whose tasks have no finite loss
    or gradient.
    """

    def __init__(self, groups: list, when: str = "", method: Any = None):
        super().__init__(groups)
        self.groups, self.when = groups, when  # …, after which step of which training
        self.method = method  # the last good parameters
        self.learned: Any = None  # everything learned with them, where there is enough of it


class BadTask(InputError):
    """A group that no prior can be trained on; the message names it."""


@eqx.filter_jit
def _finite(methods: Any, source: Table, groups, shots, keys):
    """Whether loss and gradient of a task of each group are finite, for each of the stacked methods
    `(m, t)`.
    """

    def one(method, group, k, key):
        task_key, loss_key = jr.split(key)
        task = source.task(group, k, key=task_key)
        params, rest = eqx.partition(method, eqx.is_inexact_array)
        loss, grads = jax.value_and_grad(lambda p: eqx.combine(p, rest).loss(task, key=loss_key))(
            params
        )
        return jnp.isfinite(loss) & jnp.all(
            jnp.stack([jnp.isfinite(g).all() for g in jax.tree.leaves(grads)])
        )

    def each(m):
        return jax.lax.map(lambda t: one(m, *t), (groups, shots, keys), batch_size=8)

    return eqx.filter_vmap(each, in_axes=(eqx.if_array(0),))(methods)


def trouble(fitted: Fitted, source: Table, what: str, members: bool) -> str | None:
    """What to say of a fit that met a loss that is not finite; `None` of any other.

    Args:
        fitted: what `fit` gave back.
        source: of its tasks.
        what: was trained.
        members: several were, stacked.

    Raises:
        BadTasks: with the last good parameters some groups, at most half of them, have no finite
            loss.
    """
    failed, best = np.atleast_1d(fitted.state.failed), np.atleast_1d(fitted.state.best_loss)
    lost = failed | (~np.isfinite(best) if fitted.validation else False)
    if not lost.any():
        return None
    method = fitted.state.method
    if not members:
        method = jax.tree.map(lambda a: a[None] if eqx.is_array(a) else a, method)
    count = len(source.count)
    groups = np.tile(np.arange(count), DRAWS)
    most = np.minimum(
        source.support, np.asarray(source.count) - 1
    )  # no support, one row, half of them, all
    shots = np.concatenate([most * 0, np.minimum(most, 1), most // 2, most])
    finite: np.ndarray = np.array(
        _finite(method, source, groups, shots, jr.split(jr.key(0), len(groups)))
    )
    bad = np.any(~finite.reshape(len(finite), DRAWS, count), axis=1)
    some = bad & (
        bad.mean(axis=1, keepdims=True) <= 0.5
    )  # parameters that suit no group say nothing of any
    blamed = np.flatnonzero(np.any(some, axis=0))
    if len(blamed):
        # The optimiser counts the steps that were used: none after the first failure of a member.
        counts = [
            np.atleast_1d(count)
            for _, count in optax.tree.get_all_with_path(fitted.state.optimiser, "count")
        ]
        step = min([int(count[lost].min()) for count in counts], default=0)
        raise BadTasks(blamed.tolist(), f" after step {step} of training {what}", fitted.method)
    which = f" in {lost.sum()} of {len(lost)} members" if members else ""
    return f"{what}: the loss was not finite{which}, and no group is to blame; the last good state was kept."
