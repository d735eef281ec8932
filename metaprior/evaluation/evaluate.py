"""How good a learner is on tasks it has not seen, beside baselines, paired over tasks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.random as jr
import numpy as np

from metaprior.evaluation import metrics, verdicts
from metaprior.evaluation.metrics import METHOD
from metaprior.evaluation.units import (
    Counts,
    Curve,
    Units,
    below,
    log_prob,
    moments,
    scores,
)
from metaprior.evaluation.verdicts import About
from metaprior.method import AbstractLearner
from metaprior.system.programs import kept_by_size
from metaprior.task import Task

SAMPLES = 128  # functions drawn where a learner predicts by sampling


@kept_by_size
def _points(learner: AbstractLearner, tasks: Task, curve: Curve | None, key):
    """Per-row figures of every task, `(t, n, …)`, in the model's units."""

    def one(task):
        post_key, draw_key = jr.split(key)
        posterior = learner.posterior(task.support, key=post_key)
        mixture = posterior.predict(task.query.x, key=draw_key, samples=SAMPLES)
        y = task.query.y
        found = {"y": y[:, 0], "log_prob": log_prob(mixture, curve, y)}
        if mixture.parts[0].head.classes:
            return found | {"p": mixture.mean()}
        if isinstance(curve, Counts):
            found["pit_low"] = mixture.cdf(curve.ends(y)[0])[:, 0]
        return found | {
            "moments": moments(mixture, curve, task.support),
            "scores": scores(mixture, curve, task.support, y),
            "middle": mixture.mean()[:, 0],
            "pit": below(mixture, curve, y),
        }

    # Not all at once: the atoms of a hundred functions take much memory.
    return jax.lax.map(one, tasks, batch_size=32)


def _figures(found: dict[str, Any], units: Units | None) -> dict[str, np.ndarray]:
    """The same in the user's units, `(t, n, …)`."""
    y, nll = found["y"], -found["log_prob"]
    if units is None:
        return {"y": y, "nll": nll, "p": found["p"]}
    target, mean = units.to_y(y), units.moments(found["moments"])[0][..., 0]
    # Modelled as they are both may be large numbers that differ by little.
    gap = mean - target if not units.straight else units.scale * (found["middle"] - y)
    pit = found["pit"]
    if units.counts:
        # Anywhere in the step of the distribution: Czado, Gneiting & Held, "Predictive Model
        # Assessment for Count Data", Biometrics 2009, equation 1.
        place = np.random.default_rng(0).uniform(size=pit.shape)
        pit = found["pit_low"] + place * (pit - found["pit_low"])
    rows = {
        "y": target,
        "mean": mean,
        "error": gap,
        "crps": units.crps(found["scores"]),
        "pit": pit,
        # A density changes with the unit: by its scale, and by the slope of the scale.
        "nll": nll + units.log_slope(y),
    }
    if units.log and not units.counts:
        rows["nll_log"] = nll + np.log(units.scale)
        rows["error_log"] = units.scale * (found["middle"] - y)
    return rows


@dataclass(eq=False)
class Evaluation:
    """Statistics of every learner on the same tasks, at several numbers of support rows.

    Args:
        statistics: `[K][name][metric]` -> sums a task, `(t, k)`; the method is called `"method"`.
        points: `[K][name]` -> of all query rows, pooled: `task` (its number), `y`, `nll` and, for
            numbers, `mean`, `crps`, `pit` in the user's units; for classes the probabilities `p`,
            `(n, c)`.
        classes: number of classes, 0 for numbers.
        grouped: `[K]` -> the number of each task's group in the table, `(t,)`: tasks of one group
            are resampled together. `None`: every task is a group.
        about: what is judged, for words.
    """

    statistics: dict
    points: dict
    classes: int
    grouped: dict[int, np.ndarray] | None = None
    about: About = About()

    @staticmethod
    def merge(evaluations: "list[Evaluation]") -> "Evaluation":
        """Of several splits, as if their tasks were one set."""
        statistics: dict = {}
        points: dict = {}
        grouped: dict[int, np.ndarray] = {}
        for K in evaluations[0].statistics:
            # A split whose groups are all small has no tasks with many support rows.
            some = [e for e in evaluations if K in e.statistics]
            statistics[K] = _concatenate([e.statistics[K] for e in some])
            points[K] = _concatenate([e._numbered(K, start) for e, start in _starts(some, K)])
            grouped[K] = np.concatenate([e.groups(K) for e in some])
        known, first = all(e.grouped is not None for e in evaluations), evaluations[0]
        # One on each thing: of another split it differs by its example alone.
        notes = {
            note.partition(":")[0]: note for e in reversed(evaluations) for note in e.about.notes
        }
        about = replace(first.about, notes=tuple(notes.values()))
        return Evaluation(statistics, points, first.classes, grouped if known else None, about)

    def _numbered(self, K: int, start: int) -> dict:
        """`points` at K support rows, the numbers of the tasks beginning at `start`."""
        return {
            name: columns | ({"task": columns["task"] + start} if "task" in columns else {})
            for name, columns in self.points[K].items()
        }

    def tasks(self, K: int) -> int:
        """How many there are at K support rows."""
        return len(next(iter(self.statistics[K].values()))["nll"])

    def groups(self, K: int) -> np.ndarray:
        """The group of each task, `(t,)`."""
        return np.arange(self.tasks(K)) if self.grouped is None else self.grouped[K]

    def figures(self, K: int) -> dict:
        """Every metric of every learner at K support rows.

        Returns:
            by learner: each metric, `ci` (its 95 % interval), `n_tasks`, `n_groups`, for numbers
            `level90` (see `level`), and for the baselines `difference` (method minus baseline with
            its paired interval).
        """
        table, own = {}, self.statistics[K][METHOD]
        tasks, groups = self.tasks(K), self.groups(K)
        weights, n_groups = metrics.resamples({K: groups})[K], len(np.unique(groups))
        for name, statistics in self.statistics[K].items():
            row: dict = {"n_tasks": tasks, "n_groups": n_groups, "ci": {}}
            if "coverage90" in statistics:
                row["level90"] = self.level(K, name)
            difference = {}
            for metric, sums in statistics.items():
                finish = metrics.METRICS[metric].finish
                draws = finish(weights @ sums)
                row[metric] = float(finish(sums.sum(0)))
                row["ci"][metric] = metrics.interval(row[metric], draws, n_groups)
                if name == METHOD:
                    continue

                # Paired: the same resamples for both, so that what is hard for both cancels.
                gap = finish(weights @ own[metric]) - draws
                mean = float(finish(own[metric].sum(0)) - finish(sums.sum(0)))
                low, high = metrics.interval(mean, gap, n_groups)
                difference[metric] = {"mean": mean, "low": low, "high": high}
            table[name] = row | ({"difference": difference} if difference else {})
        return table

    def level(self, K: int, name: str = METHOD) -> dict:
        """How the coverage of the 90 % intervals differs over groups; see `verdicts.level`."""
        return verdicts.level(self.statistics[K][name]["coverage90"], self.groups(K))

    def sentence(self) -> str:
        """Whether meta-learning earns its keep on these data, in plain words."""
        return self._sentence({K: self.figures(K) for K in self.statistics})

    def _sentence(self, shots: dict) -> str:
        return verdicts.verdict(shots, self.about) + verdicts.order_words(self.about.order)

    def level_sentence(self) -> str:
        """Whether the level of the 90 % intervals holds over groups; `""` for classes."""
        return _level_sentence({K: self.figures(K) for K in self.statistics})

    def to_json(self) -> dict:
        """`{"shots": {"5": {name: figures}}, "sentence": …}`, plain numbers only."""
        shots = {K: self.figures(K) for K in self.statistics}
        return {
            "shots": {str(K): figures for K, figures in shots.items()},
            "sentence": self._sentence(shots),
            "level": _level_sentence(shots),
            "order": self.about.order,
            "notes": list(self.about.notes),
        }


def _level_sentence(shots: dict) -> str:
    """In words, from the figures at each number of support rows."""
    if any("level90" not in figures[METHOD] for figures in shots.values()):
        return ""
    return verdicts.level_words({K: figures[METHOD]["level90"] for K, figures in shots.items()})


def _starts(evaluations: list[Evaluation], K: int) -> Iterator[tuple[Evaluation, int]]:
    """Each evaluation, and how many tasks with K support rows come before its own."""
    start = 0
    for evaluation in evaluations:
        yield evaluation, start
        start += evaluation.tasks(K)


def _concatenate(tables: list[dict]) -> dict:
    """Columns `[name][metric]` of several tables end to end."""
    first = tables[0]
    return {
        name: {m: np.concatenate([table[name][m] for table in tables]) for m in first[name]}
        for name in first
    }


@dataclass(eq=False)
class JointEvaluation:
    """Figures of every target given the true ones before it, and of all targets of a row together.

    Args:
        targets: of each target; all on the same tasks and rows.
        joint: `nll` alone: by the chain rule the sum of the targets', for the method and for every
            baseline that all targets have; `observed` is of numbers alone.
    """

    targets: dict[str, Evaluation]
    joint: Evaluation

    @staticmethod
    def of(targets: dict[str, Evaluation]) -> "JointEvaluation":
        """The joint figures of evaluations on the same rows."""
        first = next(iter(targets.values()))
        statistics: dict = {}
        for K in first.statistics:
            statistics[K] = {}
            for name in first.statistics[K]:
                if not all(name in e.statistics[K] for e in targets.values()):
                    continue
                # Sums and counts of each task: the sums add up, the counts are the same for all.
                each = [e.statistics[K][name]["nll"] for e in targets.values()]
                sums = np.sum([s[:, 0] for s in each], axis=0)
                statistics[K][name] = {"nll": np.stack([sums, each[0][:, 1]], axis=1)}
        about = replace(first.about, target="")
        joint = Evaluation(statistics, {K: {} for K in statistics}, 0, first.grouped, about)
        return JointEvaluation(targets, joint)

    @staticmethod
    def merge(evaluations: "list[JointEvaluation]") -> "JointEvaluation":
        """Of several splits, as if their tasks were one set."""
        each = {
            name: Evaluation.merge([e.targets[name] for e in evaluations])
            for name in evaluations[0].targets
        }
        return JointEvaluation.of(each)

    def sentence(self) -> str:
        """Whether meta-learning earns its keep for all targets together, in plain words."""
        return self.joint.sentence()

    def level_sentence(self) -> str:
        """Whether the level of each target's 90 % intervals holds over groups."""
        said = {name: e.level_sentence() for name, e in self.targets.items()}
        return " ".join(f"{name}: {text}" for name, text in said.items() if text)

    def to_json(self) -> dict:
        """`{"targets": {name: …}, "joint": …}`, each as `Evaluation.to_json` has it."""
        return {
            "targets": {k: e.to_json() for k, e in self.targets.items()},
            "joint": self.joint.to_json(),
        }


def evaluate(
    learners: dict[str, AbstractLearner],
    tasks: dict[int, Task],
    *,
    units: Units | None,
    key,
    classes: int = 0,
    grouped: dict[int, np.ndarray] | None = None,
    about: About | None = None,
    progress=None,
) -> Evaluation:
    """Score learners on the same tasks.

    Args:
        learners: by name; the one called `"method"` is compared with the others.
        tasks: for each K, tasks stacked on a leading axis, every support padded to the same size so
            that one compiled program serves all K.
        units: the user's scale; `None` for classes.
        key: for learners that predict by sampling.
        classes: number of classes, 0 for numbers.
        grouped, about: see `Evaluation`.
        progress: called with the share done.
    """
    count = metrics.class_statistics if classes else metrics.number_statistics
    kept = ("p", "y", "nll") if classes else ("y", "mean", "nll", "crps", "pit")
    statistics: dict = {}
    points: dict = {}
    total, done = len(tasks) * len(learners), 0
    for K, some in tasks.items():
        mask = np.asarray(some.query.mask)
        real = mask.any(axis=1)  # tasks without query rows are padding
        mask = mask[real]
        statistics[K], points[K] = {}, {}
        for name, learner in learners.items():
            # Every learner gets the same key, and double precision for the sums.
            found = _points(learner, some, None if units is None else units.curve(), key)
            found = jax.tree.map(lambda a: np.asarray(a, np.float64)[real], found)
            rows = _figures(found, units)
            statistics[K][name] = count(rows, mask)
            points[K][name] = {"task": np.nonzero(mask)[0]} | {k: rows[k][mask] for k in kept}
            done += 1
            if progress is not None:
                progress(done / total)
    return Evaluation(statistics, points, classes, grouped, about or About())
