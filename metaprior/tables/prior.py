"""The front door: learn a prior from a table, adapt it to a new group, predict, suggest, save."""

import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl

import metaprior
from metaprior.errors import InputError
from metaprior.evaluation.evaluate import METHOD, Evaluation, JointEvaluation, evaluate
from metaprior.evaluation.units import Units
from metaprior.heads import Categorical, StudentT
from metaprior.method import AbstractLearner, Spec
from metaprior.system import files
from metaprior.system.annotations import fits
from metaprior.system.devices import agree, cores, mesh_of
from metaprior.tables import learn
from metaprior.tables import several as chain
from metaprior.tables.baselines import Boosting, cross_fit
from metaprior.tables.columns import Features, same_label
from metaprior.tables.culprits import BadTask, BadTasks
from metaprior.tables.groups import (
    SKIP,
    Arrays,
    Checked,
    check_all,
    frame_of,
    in_units,
    runs,
    sorted_groups,
)
from metaprior.tables.posterior import Posterior
from metaprior.tables.read import as_frame, need_columns
from metaprior.tables.stages import Progress, Stages

AUTO = "auto"
INFO = {
    "method": str,
    "task": str,
    "target": str | list[str],
    "features": list[str],
    "notes": list[str],
    "seed": int,
    "classes": list[str] | dict[str, list[str] | None] | None,
    "groups": dict[str, int],
    "rows": int,
    "arrays": bool,
    "split_by": str | None,
    "log_target": bool,
    "version": str,
}
MOST_QUERY = 50


class HeldOut(eqx.Module):
    """Groups kept for `evaluate`: encoded rows, a group's together; y in model units or class
    indices.
    """

    x: np.ndarray
    y: np.ndarray
    start: np.ndarray
    count: np.ndarray
    group: np.ndarray | None = None  # its number among all groups of the table


class Trained(eqx.Module):
    """Everything a saved prior holds."""

    info: dict
    features: Features
    boosting: Boosting
    units: Units | None
    learner: AbstractLearner
    baselines: dict
    held: HeldOut | None


class Prior:
    """A prior over functions, learned from groups of rows.

    Args:
        method: `"auto"` (several learners stacked with weights that depend on the number of
            observed rows) or a name from `metaprior.methods.METHODS`.
        log_target: model the logarithm of the target; all figures stay in the target's own units.
        steps: most training steps; `None` takes the method's default.
        seed: of everything random.
        kind: `"numbers"`, `"classes"`, or `"auto"`: classes when the target is text, boolean, or
            has exactly two values.
        holdout: share of the groups to keep for `evaluate`, 0 to 0.5.
        split_by: column; groups that share a value of it stay on one side of every split.
        devices: train on so many of JAX's devices, or on `"all"` of them; on a CPU, where JAX has
            not started before, these are its cores. The result does not depend on it but for the
            order of sums.
        skip_bad_tasks: leave groups out whose target is missing, infinite or so large that nothing
            can be learned beside it, or whose loss is not finite in training; `info["notes"]` names
            them. Otherwise they are errors.

    Example:
        >>> import numpy as np, metaprior
        >>> rng = np.random.default_rng(0)
        >>> tasks = [(x := rng.uniform(-1, 1, (8, 1)), x[:, 0] * rng.normal() + rng.normal()) for _ in range(12)]
        >>> prior = metaprior.Prior(steps=20).fit(tasks=tasks)
        >>> prior.adapt(([[0.0], [1.0]], [0.5, 1.5])).predict([[0.5]]).columns
        ['mean', 'std', 'q05', 'q50', 'q95', 'epistemic']
    """

    def __init__(
        self,
        method: str = AUTO,
        *,
        log_target: bool = False,
        steps: int | None = None,
        seed: int = 0,
        kind: str = "auto",
        holdout: float = 0.0,
        split_by: str | None = None,
        devices: int | str = 1,
        skip_bad_tasks: bool = False,
    ):
        if method not in (AUTO, "stack"):
            from metaprior import methods

            methods.get(method)
        if kind not in ("auto", "numbers", "classes"):
            raise InputError(f"kind is auto, numbers or classes; got {kind!r}.")
        if not 0 <= holdout <= 0.5:
            raise InputError(f"holdout is a share between 0 and 0.5; got {holdout}.")
        if steps is not None and steps < 1:
            raise InputError(f"steps is at least 1; got {steps}.")
        if devices != 1:
            cores(learn.BATCH)
        mesh_of(devices, learn.BATCH)  # refuses a number of devices that JAX does not see
        self.method, self.log_target, self.steps, self.seed = method, log_target, steps, seed
        self.kind, self.holdout, self.split_by, self.devices = kind, holdout, split_by, devices
        self.skip_bad_tasks = skip_bad_tasks
        self.trained: Trained | None = None
        self.parts: tuple[
            Prior, ...
        ] = ()  # several targets: a prior each, the targets before it among its features
        self.joint: dict | None = None

    # --- fitting
    # -------------------------------------------------------------------------------------

    def fit(
        self,
        table: Any = None,
        *,
        task: str | None = None,
        target: str | Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        tasks: Arrays | None = None,
        checkpoint: str | Path | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> "Prior":
        """Learn from a table of groups, or from `tasks=[(x1, y1), …]`.

        Args:
            table: polars or pandas frame, mapping of columns, or path of a CSV or Parquet file.
            task: column that names the group.
            target: column to predict, or several: then p(a, b | x) = p(a | x) p(b | x, a), in the
                order given.
            features: columns to predict from; by default all others (but `split_by`'s stays one of
                them).
            tasks: arrays instead of a table: x `(n, d)` or `(n,)` and y `(n,)` of each group.
            checkpoint: folder for intermediate results; a later call with the same data continues
                from them to the same bits.
            progress: called with the share done and what is being done.

        Raises:
            InputError: names the file, column and row that cannot be used, or the groups with which
                the loss in training is not finite; in that case what was learned before is this
                prior.
        """
        begin = time.perf_counter()
        if tasks is not None:
            table, task, target = frame_of(tasks), "task", "y"
        if table is None or task is None or target is None:
            raise InputError("fit takes a table with task= and target=, or tasks=[(x, y), …].")
        targets = [target] if isinstance(target, str) else list(target)
        where = str(table) if isinstance(table, (str, Path)) else "table"
        split_by = [] if self.split_by is None else [self.split_by]
        frame = as_frame(
            table, None if features is None else [task, *targets, *features, *split_by]
        )
        skip: dict[str, str] | None = {} if self.skip_bad_tasks else None
        while True:
            checked = check_all(
                frame,
                task,
                targets,
                features,
                where,
                kind=self.kind,
                log=self.log_target,
                split_by=self.split_by,
                holdout=self.holdout,
                seed=self.seed,
                skip=skip,
            )
            for some in checked if self.method not in (AUTO, "stack") else ():
                learn.check_kind(self.method, some.target, len(some.labels or ()))
            folder = (
                None
                if checkpoint is None
                else Path(checkpoint, *([f"without {len(skip)}"] if skip else []))
            )
            try:
                return self._learn_all(checked, targets, folder, progress, tasks is not None, begin)
            except BadTasks as bad:
                names = bad.groups
                if skip is None:
                    kept = (
                        ""
                        if folder is None
                        else f" The last good state is in {folder}: add --resume and"
                    )
                    raise BadTask(
                        f"{where}: column {task!r}: with {', '.join(map(repr, names))} the loss is not finite{bad.when}; "
                        f"nothing later was used. Correct the rows and fit anew, or leave such groups out:{kept} {SKIP}."
                    ) from None
                skip |= {name: "its loss in training is not finite" for name in names}

    def _learn_all(
        self, checked: list[Checked], targets, checkpoint, progress, arrays: bool, begin: float
    ) -> "Prior":
        """Everything after the checks."""
        if len(targets) == 1:
            self.parts, self.joint = (), None
            self._learn(checked[0], checkpoint, progress, arrays=arrays, begin=begin)
            return self
        parts = []
        for i, some in enumerate(checked):
            part = Prior(
                self.method,
                log_target=self.log_target,
                steps=self.steps,
                seed=self.seed,
                kind=self.kind,
                holdout=self.holdout,
                split_by=self.split_by,
                devices=self.devices,
            )
            folder = None if checkpoint is None else Path(checkpoint) / f"target {i + 1}"
            part._learn(some, folder, chain.share_of(progress, i, targets))
            part.info.pop("seconds")
            parts.append(part)
        self.trained, self.parts = None, tuple(parts)
        self.joint = chain.joint_info(
            [part.info for part in parts], [some.values for some in checked]
        )
        self.joint["seconds"] = round(time.perf_counter() - begin, 1)
        return self

    def _learn(self, checked: Checked, checkpoint, progress, *, arrays=False, begin=None) -> None:
        """Everything after the checks, for one target."""
        begin = time.perf_counter() if begin is None else begin
        frame, task, target, names, where, group, held, fold, units, z, labels, _, left_out = (
            checked
        )
        train_rows, classes = ~held[group], len(labels or ())
        learned = Features.learn(frame.filter(pl.Series(train_rows)), names, group[train_rows])
        encoded, raw = learned.encode(frame, where)
        stage = Stages(checkpoint)
        tell = Progress(progress)
        tell.start("boosting on all groups", 0.15)
        row_fold = fold[group]
        boost = stage(
            "boosting",
            lambda: cross_fit(
                raw[train_rows],
                z[train_rows],
                row_fold[train_rows],
                classes=classes,
                seed=self.seed,
            ),
        )
        boosting, out_of_fold = boost
        pooled = np.zeros((len(z), out_of_fold.shape[1]), np.float32)
        pooled[train_rows] = out_of_fold
        if held.any():
            pooled[~train_rows] = boosting(raw[~train_rows])
        x = np.concatenate([encoded, pooled], axis=1).astype(np.float32)
        head = Categorical(classes) if classes else StudentT(1)
        spec = Spec(x.shape[1], head, pooled.shape[1])
        y32 = z[:, None].astype(np.float32)

        def part(keep):
            return (x[keep[group]], y32[keep[group]], *runs(group[keep[group]]))

        groups = learn.Groups(*part(~held), fold[~held], spec)

        def marks():
            return [hashlib.sha256(a.tobytes()).hexdigest() for a in (x, y32)]

        agree(marks, "The processes were given different tables.")
        run = (
            learn.learn_auto
            if self.method in (AUTO, "stack")
            else functools.partial(learn.learn_one, self.method)
        )
        stopped: BadTasks | None = None
        try:
            result = run(
                groups,
                seed=self.seed,
                steps=self.steps,
                stage=stage,
                tell=tell,
                spread=self.devices,
            )
        except BadTasks as bad:
            called = frame[task].cast(pl.String).to_list()
            first = runs(group)[0][~held]
            result, stopped = (
                bad.learned,
                BadTasks([called[first[i]] for i in bad.groups], bad.when),
            )
            if result is None:
                raise stopped from None
        info = {
            "method": self.method,
            "task": task,
            "target": target,
            "features": [c.name for c in learned.columns],
            "classes": labels,
            "groups": {"train": int((~held).sum()), "test": int(held.sum())},
            "rows": len(z),
            "notes": [*left_out, *learned.notes, *result.notes],
            "log_target": self.log_target,
            "seed": self.seed,
            "split_by": self.split_by,
            "arrays": arrays,
            "version": metaprior.__version__,
            "seconds": round(time.perf_counter() - begin, 1),
        }
        kept = HeldOut(*part(held), np.flatnonzero(held)) if held.any() else None
        self.trained = Trained(
            info, learned, boosting, units, result.learner, result.baselines, kept
        )
        if stopped is not None:
            raise stopped

    # --- using
    # ---------------------------------------------------------------------------------------

    @property
    def info(self) -> dict:
        """What was learned from what: columns, groups, classes, notes, seconds."""
        return self.joint if self.joint is not None else self._ready().info

    def _ready(self) -> Trained:
        if self.trained is None:
            raise InputError("This prior has learned nothing yet; call fit or load.")
        return self.trained

    def frame(self, rows: Any) -> pl.DataFrame:
        """Rows without a target as a table: x where the prior was fitted on arrays, else a table
        already.
        """
        if self._ready().info["arrays"] and not _tabular(rows):
            return frame_of([(rows, None)])
        return as_frame(rows, text=self.text())

    def text(self) -> list[str]:
        """Columns that a file's rows hold as text, whatever they look like."""
        return (
            [name for part in self.parts for name in part.text()]
            if self.joint
            else self._ready().features.text()
        )

    def encode(self, frame: pl.DataFrame, where: str = "table") -> np.ndarray:
        """Encoded feature columns with the pooled prediction behind them, `(n, d)`."""
        trained = self._ready()
        if frame.height == 0:
            return np.zeros((0, self._width()), np.float32)
        encoded, raw = trained.features.encode(frame, where)
        return np.concatenate([encoded, trained.boosting(raw)], axis=1).astype(np.float32)

    def _width(self) -> int:
        frame = pl.DataFrame({c.name: [None] for c in self._ready().features.columns})
        return self.encode(frame).shape[1]

    def model_y(self, frame: pl.DataFrame, where: str = "table") -> np.ndarray:
        """The target column in the model's units, `(n, 1)`."""
        trained, target = self._ready(), self.info["target"]
        need_columns(frame, [target], where)
        series = frame[target]
        if trained.units is None:
            index = {label: i for i, label in enumerate(self.info["classes"])}
            labels = [None if v is None else str(v) for v in series.to_list()]
            labels = [same_label(v, index) for v in labels]
            for row, label in enumerate(labels):
                if label not in index:
                    known = ", ".join(index)
                    raise InputError(
                        f"{where}: column {target!r}, row {row + 1}: {label!r} is no class; classes: {known}."
                    )
            return np.array([index[v] for v in labels], np.float32)[:, None]
        return in_units(series, trained.units, where)

    def adapt(self, rows: Any = None) -> Posterior | chain.JointPosterior:
        """Condition on the observed rows of a new group: none, some, or all of them.

        Args:
            rows: a table with the features and every target; `(x, y)` arrays where the prior was
                fitted on arrays; `None` for no rows.
        """
        if self.joint is None:
            return self._adapt(rows)
        frame = None if rows is None else as_frame(rows, text=self.text())
        return chain.JointPosterior(self.joint, [part._adapt(frame) for part in self.parts])

    def _adapt(self, rows: Any) -> Posterior:
        width = self._width()
        if rows is None:
            frame = None
        elif self._ready().info["arrays"] and isinstance(rows, tuple):
            frame = frame_of([rows])
        else:
            frame = as_frame(rows, text=self.text())
        if frame is None or frame.height == 0:
            if frame is not None and frame.width:  # a header alone can be wrong too
                need_columns(
                    frame,
                    [*(c.name for c in self._ready().features.columns), self.info["target"]],
                    "support",
                )
            return Posterior(self, np.zeros((0, width), np.float32), np.zeros((0, 1), np.float32))
        return Posterior(self, self.encode(frame, "support"), self.model_y(frame, "support"))

    def evaluate(
        self,
        table: Any = None,
        *,
        shots: Sequence[int] = (0, 1, 2, 5, 10),
        seed: int = 0,
        progress: Callable[[float, str], None] | None = None,
    ) -> Evaluation | JointEvaluation:
        """Score the method and every baseline on groups it has not seen.

        Args:
            table: groups to use; `None` takes those that `fit` held out.
            shots: numbers of observed rows; each group with more rows than that gives one task, its
                observed rows drawn at random and at most 50 of the rest predicted.
            seed: of the draws, which are the same for every learner.
            progress: called with the share done and what is being done.
        """
        if self.joint is None:
            return self._evaluate(self._held(table), shots, seed, progress)
        targets, each = self.joint["target"], {}
        held = [part._held(table) for part in self.parts]  # all found good before any is scored
        for i, part in enumerate(self.parts):
            each[targets[i]] = part._evaluate(
                held[i], shots, seed, chain.share_of(progress, i, targets)
            )
        return JointEvaluation.of(each)

    def _held(self, table: Any) -> HeldOut:
        """The groups that `fit` held out, or those of a table."""
        trained = self._ready()
        if table is None:
            if trained.held is None:
                raise InputError(
                    "No groups were held out when this prior was fitted; give a table."
                )
            return trained.held
        where = str(table) if isinstance(table, (str, Path)) else "table"
        frame, task = as_frame(table, text=self.text()), self.info["task"]
        need_columns(frame, [task], where)
        group, order = sorted_groups(frame, task, where)
        x, y = self.encode(frame, where)[order], self.model_y(frame, where)[order]
        return HeldOut(x, y, *runs(group))

    def _evaluate(
        self, held: HeldOut, shots: Sequence[int], seed: int, progress: Callable | None
    ) -> Evaluation:
        trained = self._ready()
        if any(K < 0 for K in shots):
            raise InputError(f"shots are numbers of rows, at least 0; got {list(shots)}.")
        spec = Spec(held.x.shape[1], StudentT(1), 0)
        source = learn.Groups(
            held.x, held.y, held.start, held.count, np.zeros(len(held.start), int), spec
        )
        table_source = source.table(np.arange(len(held.start)), max(max(shots), 1), MOST_QUERY)
        tasks, grouped = {}, {}
        for K in shots:
            enough = np.flatnonzero(held.count > K)
            if len(enough):
                grouped[int(K)] = enough if held.group is None else held.group[enough]
                size = (
                    -(-len(held.start) // 32) * 32
                )  # the same number of tasks at every K: one compiled program
                padded = np.resize(enough, size)
                some = table_source.tasks(padded, np.full(size, K), key=jr.fold_in(jr.key(seed), K))
                real = jnp.arange(size)[:, None] < len(enough)
                tasks[int(K)] = eqx.tree_at(lambda t: t.query.mask, some, some.query.mask & real)
        if not tasks:
            raise InputError(
                f"No group has more than {min(shots)} rows, so there is nothing to predict."
            )
        learners = {METHOD: trained.learner} | trained.baselines
        tell = (lambda share: progress(share, "evaluating")) if progress else None
        return evaluate(
            learners,
            tasks,
            units=trained.units,
            key=jr.key(seed),
            grouped=grouped,
            progress=tell,
            classes=len(self.info["classes"] or ()),
        )

    def save(self, path: str | Path) -> None:
        """Write the prior to one file: a JSON header and arrays, no pickle."""
        if self.joint is not None:
            files.save(path, chain.Chain(self.joint, tuple(part.trained for part in self.parts)))
        else:
            files.save(path, self._ready())


def load(path: str | Path) -> Prior:
    """Read a prior that `Prior.save` wrote.

    Raises:
        InputError: when the file is missing, damaged, foreign or from another version.
    """
    found = files.load(path)
    parts = found.parts if isinstance(found, chain.Chain) else (found,)
    if not parts or not all(isinstance(part, Trained) for part in parts):
        raise InputError(f"{path}: not a prior.")
    if not all(
        fits(one.info.get(name), kind) for one in (found, *parts) for name, kind in INFO.items()
    ):
        raise InputError(f"{path}: a prior that does not say what was learned from what.")
    priors = []
    for part in parts:
        priors.append(_unfitted(part.info))
        priors[-1].trained = part
    if not isinstance(found, chain.Chain):
        return priors[0]
    whole = _unfitted(found.info)
    whole.parts, whole.joint = tuple(priors), found.info
    return whole


def _unfitted(info: dict) -> Prior:
    return Prior(
        info["method"], log_target=info["log_target"], seed=info["seed"], split_by=info["split_by"]
    )


def _tabular(rows: Any) -> bool:
    return isinstance(rows, (pl.DataFrame, dict, str, Path)) or hasattr(rows, "columns")
