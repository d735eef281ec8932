"""What a prior is judged on: tasks from groups that it has not seen."""

import dataclasses
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.evaluation.evaluate import METHOD, Evaluation, JointEvaluation, evaluate
from metaprior.evaluation.verdicts import About
from metaprior.heads import StudentT
from metaprior.method import Spec
from metaprior.tables.baselines import BASELINES
from metaprior.tables.groups import runs, sorted_groups
from metaprior.tables.members import Groups, draw_tasks
from metaprior.tables.ordered import MOST_QUERY, columns_of_time, first_rows, in_order
from metaprior.tables.read import Rows
from metaprior.tables.stages import share_of
from metaprior.tables.trained import HeldOut, Trained
from metaprior.task import Task

_EVEN = 32  # the number of tasks is a multiple of this

Tell = Callable[[float, str], None]


def _held(trained: Trained, rows: Rows | None) -> HeldOut:
    """The groups of a table, or without one the groups that `fit` held out."""
    if rows is None:
        if trained.held is None:
            raise InputError("No groups were held out when this prior was fitted; give a table.")
        return trained.held
    task = trained.info["task"]
    rows.need([task])
    group, order = sorted_groups(rows.frame, task, rows.where)
    x, y = trained.encode(rows)[order], trained.outcomes(rows)[order]
    start, count = runs(group)
    names = tuple(rows.frame[task].cast(pl.String)[order][start].to_list())
    times = columns_of_time(rows.frame[order], (task, trained.info["target"]))
    return HeldOut(x, y, start, count, None, times, names)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the learners of one target are judged on.

    Args:
        tasks: for each number of observed rows.
        grouped: the number of each task's group, for each number of observed rows.
        seed: of everything random.
        order: the column in whose order rows are observed; `None`: at random.
        notes: what should be known of that order.
    """

    tasks: dict[int, Task]
    grouped: dict[int, np.ndarray]
    seed: int
    order: str | None = None
    notes: tuple[str, ...] = ()


def tasks_of(
    trained: Trained,
    rows: Rows | None,
    shots: Sequence[int],
    seed: int,
    order: str | None = None,
) -> Judged:
    """Tasks from the groups of a table, or without one from the groups that `fit` held out.

    Args:
        trained: what was learned of the target.
        rows: the table.
        shots: numbers of observed rows.
        seed: of the draws.
        order: the column in whose order rows are observed; `None`: at random.
    """
    held, notes = _held(trained, rows), ()
    by = trained.info.get("holdout_by")
    if rows is None and by:
        notes = (f"{by}: the judged groups have larger values than any that was learned from.",)
    if order is not None:
        where = "the groups that were kept aside" if rows is None else rows.where
        held, said = in_order(held, order, where)
        notes += said
    if any(K < 0 for K in shots):
        raise InputError(f"shots are numbers of rows, at least 0; got {list(shots)}.")
    count = len(held.start)
    spec = Spec(held.x.shape[1], StudentT(1), 0)
    groups = Groups(held.x, held.y, held.start, held.count, np.zeros(count, int), spec)
    source = groups.table(np.arange(count), max(max(shots), 1), MOST_QUERY)
    # The same number of tasks at every K: one compiled program.
    size = -(-count // _EVEN) * _EVEN

    tasks, grouped = {}, {}
    for K in shots:
        enough = np.flatnonzero(held.count > K)
        if not len(enough):
            continue
        grouped[int(K)] = enough if held.group is None else held.group[enough]
        key = jr.fold_in(jr.key(seed), K)
        if order is None:
            some = draw_tasks(source, np.resize(enough, size), np.full(size, K), key)
        else:
            some = first_rows(held, np.resize(enough, size), K, max(max(shots), 1), seed)
        # Tasks that only fill up the size have nothing to predict.
        real = np.arange(size)[:, None] < len(enough)
        mask = jax.device_put(np.asarray(some.query.mask) & real)
        tasks[int(K)] = eqx.tree_at(lambda t: t.query.mask, some, mask)

    if not tasks:
        where = "held-out groups" if rows is None else rows.where
        raise InputError(
            f"{where}: no group has more than {min(shots)} rows, so there is nothing to predict."
        )
    return Judged(tasks, grouped, seed, order, notes)


def score(trained: Trained, judged: Judged, progress: Tell | None) -> Evaluation:
    """The method and the baselines of one target on the same tasks."""
    method = trained.info["method"]
    tell = None if progress is None else lambda share: progress(share, "evaluating")
    return evaluate(
        {METHOD: trained.learner} | trained.baselines,
        judged.tasks,
        units=trained.units,
        key=jr.key(judged.seed),
        classes=trained.classes,
        grouped=judged.grouped,
        about=About(
            trained.info["target"],
            method if method in BASELINES else None,
            judged.order,
            judged.notes,
        ),
        progress=tell,
    )


def evaluate_all(
    parts: Sequence[Trained],
    joint: dict | None,
    rows: Rows | None,
    shots: Sequence[int],
    seed: int,
    order: str | None,
    progress: Tell | None,
) -> Evaluation | JointEvaluation:
    """See `Prior.evaluate`.

    Args:
        parts: what was learned of each target.
        joint: what was learned from what, of several targets.
        rows: the table.
        shots, seed, order, progress: as there.
    """
    # Every target's tasks are found good before any is scored.
    judged = [tasks_of(one, rows, shots, seed, order) for one in parts]
    if joint is None:
        return score(parts[0], judged[0], progress)
    targets, each = joint["target"], {}
    for i, one in enumerate(parts):
        each[targets[i]] = score(one, judged[i], share_of(progress, i, targets))
    return JointEvaluation.of(each)
