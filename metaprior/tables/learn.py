"""From encoded groups to learners: one method, or several stacked, and the baselines."""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from metaprior.errors import InputError
from metaprior.method import AbstractLearner
from metaprior.methods.ensemble import Ensemble
from metaprior.methods.process import Process
from metaprior.methods.stack import Stack, fit_weights
from metaprior.sources.table import Table
from metaprior.system.devices import mesh_of
from metaprior.tables import baselines, culprits
from metaprior.tables.checked import Checked
from metaprior.tables.members import (
    BATCH,
    ROWS,
    SHOTS,
    Groups,
    draw_tasks,
    held_out_tasks,
    log_prob,
    slots,
    take,
    train_members,
)
from metaprior.tables.stages import Progress, Stages
from metaprior.training import fit

# Of each bag of processes: how fast the weights of a group's rows fall; see `Process`. Laplace's
# evidence, which classes need, is no sum over rows.
DECAYS = {"numbers": (0.0, 0.7), "classes": (0.0,)}


class Learned(eqx.Module):
    """Trained learners: the one asked for, and every baseline by name."""

    learner: AbstractLearner
    baselines: dict[str, AbstractLearner]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Training:
    """How all learners of a prior are trained.

    Args:
        seed: of everything random.
        steps: most training steps; `None` takes the method's default.
        devices: how many, or `"all"`.
        stage: keeps the results of finished parts.
        tell: the progress of the whole.
    """

    seed: int
    steps: int | None
    devices: int | str
    stage: Stages
    tell: Progress

    @property
    def key(self) -> jax.Array:
        """Of everything random."""
        return jr.key(self.seed)

    def within(self, done: int, total: int, loss) -> None:
        """What `fit` reports, as progress of the whole."""
        self.tell.within(done / total)


def kinds_for(classes: bool, ordered: bool) -> set[str]:
    """What a method must predict for such a target.

    What predicts classes and no numbers has a place for each class, and none between them.
    """
    if ordered:
        return {"classes", "numbers"}
    return {"classes" if classes else "numbers"}


def check_kind(name: str, one: Checked) -> None:
    """The method predicts what the target holds."""
    kinds = set(baselines.find(name).kinds)
    if kinds_for(bool(one.classes), one.ordered) <= kinds:
        return
    if one.ordered and "classes" in kinds:
        raise InputError(
            f"{one.where}: {name} takes classes without an order; leave out --ordered, or take "
            "another method."
        )
    has, lacks = ("classes", "numbers") if one.classes else ("numbers", "classes")
    verb = "has" if one.classes else "is"
    raise InputError(
        f"{one.where}: {name} predicts {lacks}; the target {one.target!r} {verb} {has}. "
        "Methods for both: see `metaprior methods`."
    )


def learn_one(name: str, groups: Groups, training: Training) -> Learned:
    """One method by name, stopped early on the groups of the first fold, and the baselines."""
    from metaprior.methods import get

    key, tell = training.key, training.tell
    tell.start("fitting the baselines", 0.2)
    base, _, notes = learn_baselines(groups, key=key, stage=training.stage)
    if name in base:
        others = {other: learner for other, learner in base.items() if other != name}
        if name in baselines.FIXED:
            notes = (*notes, f"{name}: observed rows of a group do not change its predictions.")
        return Learned(base[name], others, notes)

    row = get(name)
    tell.start(f"training {name}", 0.65)
    method = row.init(groups.spec_of(len(groups.folds()[0][0])), key=key)
    if not row.trainable:
        return Learned(method, base, notes)

    source, validation = _tasks_of(groups, row.method is Process, jr.fold_in(key, 1))

    def run(**kept):
        fitted = fit(
            method,
            source,
            key=jr.fold_in(key, 2),
            steps=training.steps or 4000,
            batch=BATCH,
            mesh=mesh_of(training.devices, BATCH),
            validation=validation,
            every=100,
            patience=1000,
            progress=training.within,
            **kept,
        )
        return fitted.method, culprits.trouble(fitted, source, name, members=False)

    try:
        learner, note = training.stage(name, run, trains=True)
    except culprits.BadTasks as bad:
        bad.learned = Learned(bad.method, base, notes)
        raise
    return Learned(learner, base, (*notes, *([note] if note else [])))


def _tasks_of(groups: Groups, whole: bool, key) -> tuple[Table, Any]:
    """What a method trains on, and 64 tasks of the first fold's groups to stop by.

    Args:
        groups: of the table.
        whole: whether the method trains on all rows of a group in order; others train on support
            and query.
        key: of the validation tasks.
    """
    rows, half = slots(groups.count.max(), ROWS), slots(groups.count.max() - 1, ROWS // 2)
    inside, outside = groups.folds()
    source = groups.table(inside[0], 0 if whole else half, rows if whole else half)
    held = np.resize(outside[0], 64)
    if whole:
        shots = np.zeros(64, int)
    else:
        most = np.maximum(np.minimum(groups.count[held] - 1, half), 0)
        shots = np.minimum(np.resize(SHOTS, 64), most)
    return source, draw_tasks(source, held, shots, key)


def learn_auto(groups: Groups, training: Training) -> Learned:
    """The default: bags of processes and the baselines, stacked on held-out groups."""
    key, stage = training.key, training.stage
    decays = DECAYS["classes" if groups.spec.head.classes else "numbers"]
    name = "bags of processes"

    def run(**kept):
        return train_members(
            name,
            Process.init,
            groups,
            key=jr.fold_in(key, 1),
            steps=training.steps or _steps(len(groups.count)),
            rate=1e-2,
            held=True,
            copies=decays,
            every=50,
            patience=300,
            progress=training.within,
            mesh=mesh_of(training.devices, BATCH),
            **kept,
        )

    def beside_training():
        base, members, notes = learn_baselines(groups, key=key, stage=stage)
        return base, notes, _Judged.of(groups, base, members, jr.fold_in(key, 2), key)

    # Programs compile on one core and small batches run on one: two at a time keep both cores busy.
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(beside_training)
        if training.devices != 1:
            # Devices that wait for one another in two programs at once would wait for ever.
            waiting.result()
        training.tell.start("training processes and baselines", 0.75)
        try:
            fitted, note = stage(name, run, trains=True)
        except culprits.BadTasks as bad:
            base, notes, judged = waiting.result()
            bad.learned = judged.stacked(base, bad.method, len(decays))
            raise
        base, notes, judged = waiting.result()

    training.tell.start("weighing the learners", 0.1)
    learned = stage("stack", lambda: judged.stacked(base, fitted, len(decays)))
    return dataclasses.replace(learned, notes=(*notes, *([note] if note else [])))


def _steps(groups: int) -> int:
    """Most training steps of the processes.

    Where there are up to 200 groups members are best after 150 to 300 steps, and a rate that falls
    until 400 ends a little better than one that falls until 1,500 and is stopped. A thousand groups
    have more to say.
    """
    return min(max(400, 2 * groups), 1500)


@dataclasses.dataclass(frozen=True)
class _Judged:
    """What the baselines say of groups that their members did not train on.

    Args:
        groups: of the table.
        tasks: of each fold's groups, stacked, and the number of support rows of each.
        log_p: of every query row, by name, `(t, n)`.
        key: of learners that draw.
    """

    groups: Groups
    tasks: tuple[Any, np.ndarray]
    log_p: dict[str, np.ndarray]
    key: jax.Array

    @staticmethod
    def of(groups: Groups, base: dict, members: dict, draws, key) -> "_Judged":
        """Of the baselines.

        Args:
            groups: of the table.
            base: the baselines by name.
            members: the members of the trained ones, one for each fold.
            draws: key of the tasks.
            key: of learners that draw.
        """
        n = int(groups.fold.max()) + 1
        held = {name: take(m, slice(0, n)) for name, m in members.items()}

        # Boosting is one learner; its predictions of training groups are cross-fitted already.
        def repeat(leaf):
            return np.repeat(np.asarray(leaf)[None], n, 0) if eqx.is_array(leaf) else leaf

        held["boosting"] = jax.tree.map(repeat, base["boosting"])
        tasks = held_out_tasks(groups, key=draws)
        return _Judged(groups, tasks, _log_p(held, tasks[0], key), key)

    def stacked(self, base: dict, fitted: Any, copies: int) -> Learned:
        """The processes and the baselines with the weights that suit these tasks.

        Args:
            base: the baselines by name.
            fitted: members of the processes, one for each fold of each copy.
            copies: of the processes.
        """
        n = int(self.groups.fold.max()) + 1
        experts = {f"process {i}": take(fitted, slice(i * n, (i + 1) * n)) for i in range(copies)}
        tasks, shots = self.tasks
        log_p = self.log_p | _log_p(experts, tasks, self.key)
        table = np.maximum(np.stack(list(log_p.values()), -1), -30.0)
        mask = np.asarray(tasks.query.mask).reshape(table.shape[:2])
        weights = fit_weights(table, mask, shots.reshape(-1), len(self.groups.count))
        final = base | {name: Ensemble(m) for name, m in experts.items()}
        return Learned(Stack(tuple(final[name] for name in log_p), weights), base)


def _log_p(held: dict, tasks: Any, key) -> dict[str, np.ndarray]:
    """Of every query row, `(t, n)`, by learners given by their members."""
    points = tasks.query.mask.shape[-1]
    found = {name: log_prob(m, tasks, key) for name, m in held.items()}
    return {name: np.asarray(log_p).reshape(-1, points) for name, log_p in found.items()}


def _closed(name: str, groups: Groups) -> Process:
    """A baseline of numbers outside of each fold and of all groups, without training."""
    width = groups.x.shape[1] - groups.spec.pooled
    x, pooled, y = groups.x[:, :width], groups.x[:, width:], groups.y[:, 0]
    if name == "mixed":
        return baselines.fit_mixed(x, y, groups.start, groups.fold)
    if name == "offset":
        return baselines.fit_offset(pooled, y, groups.count, groups.fold)
    return baselines.fit_gp(x, pooled, y, groups.start, groups.count, groups.fold)


def learn_baselines(groups: Groups, *, key, stage: Stages):
    """Every baseline, the fold members of the trained ones, and what to say of them."""
    spec = groups.spec
    y, pooled = groups.y[:, 0], groups.x[:, groups.x.shape[1] - spec.pooled :]
    base = {
        "marginal": baselines.marginal(spec, y),
        "boosting": baselines.boosting(spec, y, pooled),
    }
    members, notes = {}, []
    for name, make in baselines.TRAINED.items():
        if not spec.head.classes:
            members[name] = stage(name, functools.partial(_closed, name, groups))
            base[name] = take(members[name], -1)
            continue

        def run(name=name, make=make, **kept):
            return train_members(
                name, make, groups, key=key, steps=300, rate=3e-2, held=False, every=100, **kept
            )

        members[name], note = stage(name, run, trains=True)
        notes += [note] if note else []
        base[name] = take(members[name], -1)

    if not spec.head.classes:
        rows = (groups.x, groups.y[:, 0], groups.start, groups.count, groups.fold)
        members["observed"], base["observed"] = stage(
            "observed", functools.partial(baselines.fit_observed, *rows)
        )
    return base, members, tuple(notes)
