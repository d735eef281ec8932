"""Learning from checked tables: one target, or several one after another."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path

import numpy as np
import polars as pl

import metaprior
from metaprior.errors import InputError
from metaprior.heads import AbstractHead, Categorical, Ordinal, StudentT
from metaprior.method import Spec
from metaprior.system.devices import agree, cores, mesh_of
from metaprior.tables import learn
from metaprior.tables.asked import whole
from metaprior.tables.baselines import Boosting, cross_fit, find
from metaprior.tables.checked import Checked
from metaprior.tables.columns import Features
from metaprior.tables.culprits import BadTasks
from metaprior.tables.gaps import Gaps
from metaprior.tables.groups import digests, joined, runs
from metaprior.tables.meaning.kinds import Choices
from metaprior.tables.members import BATCH, Groups
from metaprior.tables.ordered import columns_of_time
from metaprior.tables.plan import Plan
from metaprior.tables.stages import Progress, Stages
from metaprior.tables.target_scale import SCALES
from metaprior.tables.trained import AUTO, HeldOut, Trained

Tell = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to learn; the arguments of `Prior`, which explains them."""

    method: str = AUTO
    target_scale: str = "auto"
    steps: int | None = None
    seed: int = 0
    kind: str = "auto"
    holdout: float = 0.0
    holdout_by: str | None = None
    split_by: str | None = None
    devices: int | str = 1
    skip_bad_tasks: bool = False
    part: int = 0
    order: str | None = None
    drop_missing_targets: bool = False
    keep_na: bool = False
    missing: tuple[str, ...] = ()

    @property
    def automatic(self) -> bool:
        """Whether several learners are stacked."""
        return self.method in (AUTO, "stack")

    def checked(self) -> "Settings":
        """The same, if all arguments are in range."""
        if not self.automatic:
            find(self.method)
        if self.kind not in ("auto", "numbers", "classes"):
            raise InputError(f"kind is auto, numbers or classes; got {self.kind!r}.")
        if self.target_scale not in SCALES:
            known = ", ".join(SCALES)
            raise InputError(f"target_scale is one of {known}; got {self.target_scale!r}.")
        # `not` also refuses NaN.
        if not isinstance(self.holdout, Real) or not 0 <= self.holdout <= 0.5:
            raise InputError(f"holdout is a share between 0 and 0.5; got {self.holdout!r}.")
        steps = None if self.steps is None else whole(self.steps, "steps", 1)
        seed, part = whole(self.seed, "seed", 0), whole(self.part, "part", 0)
        if self.holdout_by is not None and not self.holdout:
            raise InputError("holdout_by needs the share to keep aside too, such as holdout=0.2.")
        if self.holdout_by is not None and part:
            raise InputError(
                "part is 0 with holdout_by: the groups with its largest values are one part."
            )
        if self.devices != 1:
            cores(BATCH)
        mesh_of(self.devices, BATCH)  # refuses a number of devices that JAX does not see
        return dataclasses.replace(self, steps=steps, seed=seed, part=part)

    def plan(
        self, task: str, targets: list[str], features: Sequence[str] | None, choices: Choices
    ) -> Plan:
        """What is to be learned of the columns of a table."""
        return Plan(
            task=task,
            targets=targets,
            features=features,
            kind=self.kind,
            scale=self.target_scale,
            split_by=self.split_by,
            holdout=self.holdout,
            holdout_by=self.holdout_by,
            seed=self.seed,
            part=self.part,
            order=self.order,
            choices=choices,
            drop=self.drop_missing_targets,
        )


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A checked table as numbers.

    Args:
        x: encoded features with the pooled prediction behind them, `(n, d)`.
        y: the target, `(n, 1)`.
        features: how columns became numbers.
        boosting: gives the pooled prediction.
        pooled: columns of the pooled prediction.
        gaps: what the training rows say of a feature that a new row lacks.
    """

    x: np.ndarray
    y: np.ndarray
    features: Features
    boosting: Boosting
    pooled: int
    gaps: Gaps | None


def fit_target(
    checked: Checked,
    settings: Settings,
    *,
    checkpoint: Path | None = None,
    progress: Tell | None = None,
    arrays: bool = False,
    begin: float | None = None,
) -> tuple[Trained | None, BadTasks | None]:
    """Learn one target.

    Args:
        checked: the table.
        settings: how to learn.
        checkpoint: folder for the results of finished parts.
        progress: called with the share done and what is being done.
        arrays: whether the table was made of arrays.
        begin: when the fit began.

    Returns:
        what was learned; and groups with which a loss was not finite, if there are any. What was
        learned is then of before that, or `None`.
    """
    begin = time.perf_counter() if begin is None else begin
    stage, tell = Stages(checkpoint), Progress(progress)
    tell.start("boosting on all groups", 0.15)
    encoded = _encode(checked, stage, settings.seed)
    # Processes that train together on different rows would give nonsense without an error.
    agree(lambda: _marks(encoded), "The processes were given different tables.")

    held, group = checked.held, checked.group
    spec = Spec(encoded.x.shape[1], _head(checked), encoded.pooled)
    groups = Groups(*_rows(encoded, group, ~held), checked.fold[~held], spec)
    training = learn.Training(settings.seed, settings.steps, settings.devices, stage, tell)

    stopped = None
    try:
        if settings.automatic:
            result = learn.learn_auto(groups, training)
        else:
            result = learn.learn_one(settings.method, groups, training)
    except BadTasks as bad:
        # Learners know groups by their numbers; the user knows them by their names.
        stopped = BadTasks(_names(checked, ~held, bad.groups), bad.when)
        result = bad.learned
        if result is None:
            return None, stopped

    info = _info(checked, settings, list(result.notes))
    info |= {"features": encoded.features.names(), "arrays": arrays}
    info["seconds"] = round(time.perf_counter() - begin, 1)
    aside = None
    if held.any():
        kept = _rows(encoded, group, held)
        names = _names(checked, held, range(len(kept[2])))
        times = columns_of_time(
            checked.frame.filter(pl.Series(held[group])), (checked.task, checked.target)
        )
        sets = None
        if settings.split_by:
            sets = joined(checked.frame[settings.split_by], group)[held]
        aside = HeldOut(*kept, np.flatnonzero(held), times, tuple(names), sets)
    trained = Trained(
        info=info,
        features=encoded.features,
        boosting=encoded.boosting,
        units=checked.units,
        learner=result.learner,
        baselines=result.baselines,
        held=aside,
        gaps=encoded.gaps,
        groups=np.sort(digests(_names(checked, ~held, range(int((~held).sum()))))),
    )
    return trained, stopped


def _head(checked: Checked) -> AbstractHead:
    """What is predicted at a row."""
    if not checked.classes:
        return StudentT(1)
    if not checked.ordered:
        return Categorical(checked.classes)
    seen = checked.z[~checked.held[checked.group]]
    return Ordinal.init(checked.classes, np.bincount(seen.astype(int), minlength=checked.classes))


def _info(checked: Checked, settings: Settings, notes: list[str]) -> dict:
    """What is learned from what."""
    held = checked.held
    return {
        "method": settings.method,
        "task": checked.task,
        "target": checked.target,
        "classes": checked.labels,
        "ordered": checked.ordered,
        "groups": {"train": int((~held).sum()), "test": int(held.sum())},
        "rows": len(checked.z),
        "notes": [*checked.notes, *notes],
        "target_scale": settings.target_scale,
        "seed": settings.seed,
        "split_by": settings.split_by,
        "holdout_by": settings.holdout_by,
        "kinds": {name: kind.to_json() for name, kind in checked.kinds.items()},
        "version": metaprior.__version__,
    }


def _encode(checked: Checked, stage: Stages, seed: int) -> Encoded:
    """Features from the training groups, and the pooled prediction of every row."""
    frame, z, group = checked.frame, checked.z, checked.group
    train = ~checked.held[group]
    features = Features.of(checked.used)
    encoded, raw = features.encode(frame, checked.where)

    def boost():
        fold = checked.fold[group][train]
        return cross_fit(raw[train], z[train], fold, classes=checked.classes, seed=seed)

    boosting, out_of_fold = stage("boosting", boost)
    # A training row is predicted by the trees that did not see its group, as a new group's row is.
    pooled = np.zeros((len(z), out_of_fold.shape[1]), np.float32)
    pooled[train] = out_of_fold
    if checked.held.any():
        pooled[~train] = boosting(raw[~train])

    x = np.concatenate([encoded, pooled], axis=1).astype(np.float32)
    shown = frame.filter(pl.Series(train))
    gaps = Gaps.learn(features, shown, (encoded[train], raw[train]), z[train], group[train])
    return Encoded(x, z[:, None].astype(np.float32), features, boosting, pooled.shape[1], gaps)


def _marks(encoded: Encoded) -> list[str]:
    """What all processes must have in common."""
    return [hashlib.sha256(a.tobytes()).hexdigest() for a in (encoded.x, encoded.y)]


def _rows(encoded: Encoded, group: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, ...]:
    """x, y, first rows and numbers of rows of the groups in `keep`."""
    rows = keep[group]
    return (encoded.x[rows], encoded.y[rows], *runs(group[rows]))


def _names(checked: Checked, some: np.ndarray, groups: Iterable[int]) -> list[str]:
    """Names of groups by their numbers among those in `some`."""
    called = checked.frame[checked.task].cast(pl.String).to_list()
    first = runs(checked.group)[0][some]
    return [called[first[i]] for i in groups]


def joint_info(infos: list[dict], values: list[list | None]) -> dict:
    """What was learned from what, for all targets.

    Args:
        infos: of the parts.
        values: each target's classes as a feature column holds them, `None` for numbers.
    """
    targets = [info["target"] for info in infos]
    return infos[0] | {
        "kinds": {name: kind for info in infos for name, kind in info["kinds"].items()},
        "target": targets,
        "notes": list(dict.fromkeys(note for info in infos for note in info["notes"])),
        "values": dict(zip(targets, values, strict=True)),
        "classes": dict(zip(targets, [info["classes"] for info in infos], strict=True)),
    }
