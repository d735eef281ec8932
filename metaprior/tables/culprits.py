"""Which training group made a loss not finite, found after the fact."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.errors import InputError
from metaprior.sources.table import Table
from metaprior.tables.checked import SKIP
from metaprior.training import Fitted

DRAWS = 4  # tasks of each group, as a task may hold only some of its rows


class BadTasks(Exception):
    """Groups whose tasks have no finite loss or gradient.

    Args:
        groups: by their index among the training groups, or by name.
        when: where, in which training.
        method: the last good parameters.
    """

    def __init__(self, groups: list, when: str = "", method: Any = None):
        super().__init__(groups)
        self.groups, self.when, self.method = groups, when, method
        # Everything learned with the last good parameters, where there is enough of it.
        self.learned: Any = None


class BadTask(InputError):
    """A group that no prior can be trained on; the message names it."""


def bad_task(bad: BadTasks, where: str, task: str, kept: Path | None) -> BadTask:
    """The error that names groups with which a loss is not finite."""
    names = ", ".join(map(repr, bad.groups))
    state = "" if kept is None else f" The last good state is in {kept}: add --resume and"
    return BadTask(
        f"{where}: column {task!r}: with {names} the loss is not finite{bad.when}; nothing later "
        f"was used. Correct the rows and fit anew, or leave such groups out:{state} {SKIP}."
    )


@eqx.filter_jit
def _finite(methods: Any, source: Table, groups, shots, keys):
    """Whether loss and gradient of a task of each group are finite.

    Args:
        methods: stacked.
        source: of the tasks.
        groups, shots, keys: of each task, `(t,)`.

    Returns:
        for each method and task, `(m, t)`.
    """

    def one(method, group, k, key):
        task_key, loss_key = jr.split(key)
        task = source.task(group, k, key=task_key)
        params, rest = eqx.partition(method, eqx.is_inexact_array)

        def loss_of(params):
            return eqx.combine(params, rest).loss(task, key=loss_key)

        loss, grads = jax.value_and_grad(loss_of)(params)
        finite = [jnp.isfinite(g).all() for g in jax.tree.leaves(grads)]
        return jnp.isfinite(loss) & jnp.all(jnp.stack(finite))

    def each(m):
        return jax.lax.map(lambda t: one(m, *t), (groups, shots, keys), batch_size=8)

    return eqx.filter_vmap(each, in_axes=(eqx.if_array(0),))(methods)


def trouble(fitted: Fitted, source: Table, what: str, members: bool) -> str | None:
    """What to say of a fit that met a loss that is not finite; `None` of any other fit.

    Args:
        fitted: what `fit` gave back.
        source: of its tasks.
        what: was trained.
        members: whether several were trained, stacked.

    Raises:
        BadTasks: with the last good parameters some groups, at most half of them, have no finite
            loss.
    """
    skipped, best = np.atleast_1d(fitted.state.skipped), np.atleast_1d(fitted.state.best_loss)
    lost = (skipped > 0) | (~np.isfinite(best) if fitted.validation else False)
    if not lost.any():
        return None

    bad = _bad(fitted, source, members)
    # Parameters that suit no group say nothing of any.
    some = bad & (bad.mean(axis=1, keepdims=True) <= 0.5)
    blamed = np.flatnonzero(np.any(some, axis=0))
    if len(blamed):
        when = f" {_where(fitted)} of training {what}"
        raise BadTasks(blamed.tolist(), when, fitted.method)
    which = f" in {lost.sum()} of {len(lost)} members" if members else ""
    return (
        f"{what}: the loss was not finite {_where(fitted)}{which}, and no group is to blame; the "
        "last good state was kept."
    )


def _where(fitted: Fitted) -> str:
    """Where a loss was not finite: at steps, or only on what the training is judged by."""
    if not fitted.skipped:
        return "on the validation tasks"
    return f"at {fitted.skipped} of {fitted.steps} steps"


def _bad(fitted: Fitted, source: Table, members: bool) -> np.ndarray:
    """Whether some task of each group has no finite loss, for each member, `(m, g)`."""
    method = fitted.state.method
    if not members:
        method = jax.tree.map(lambda a: a[None] if eqx.is_array(a) else a, method)
    count = int((source.count > 0).sum())  # behind them is padding
    groups = np.tile(np.arange(count), DRAWS)
    most = np.minimum(source.support, np.asarray(source.count[:count]) - 1)
    # With no support, one row, half of the rows, and all of them.
    shots = np.concatenate([most * 0, np.minimum(most, 1), most // 2, most])
    keys = jr.split(jr.key(0), len(groups))
    finite = np.array(_finite(method, source, groups, shots, keys))
    return np.any(~finite.reshape(len(finite), DRAWS, count), axis=1)
