"""How good a learner is on tasks it has not seen, beside baselines, paired over tasks."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.evaluation import metrics
from metaprior.evaluation.units import Units, outcomes, summary
from metaprior.method import AbstractLearner
from metaprior.mixture import crps
from metaprior.system.lowering import jit
from metaprior.task import Task

SAMPLES = 128
METHOD = "method"


@jit
def _points(learner: AbstractLearner, tasks: Task, units: Units | None, key):
    """Per-row figures of every task, `(t, n, …)`."""

    def one(task):
        post_key, key_ = jr.split(key)
        posterior = learner.posterior(task.support, key=post_key)
        mixture = posterior.predict(task.query.x, key=key_, samples=SAMPLES)
        y = task.query.y
        nll = -mixture.log_prob(y)
        if units is None:
            return {"nll": nll, "p": mixture.mean(), "y": y[:, 0]}
        nll = nll + jnp.log(units.scale)
        target, mean = units.to_y(y), summary(mixture, units, task.support)[0]
        out = {
            "y": target[:, 0],
            "mean": mean[:, 0],
            "nll": nll + (jnp.log(target)[:, 0] if units.log else 0.0),
            "error": (mean - target)[:, 0],
            "crps": crps(*outcomes(mixture, units, task.support), target),
            "pit": mixture.cdf(y)[:, 0],
        }
        if units.log:
            out |= {"nll_log": nll, "error_log": units.scale * (mixture.mean() - y)[:, 0]}
        return out

    return jax.lax.map(one, tasks, batch_size=32)


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
    """

    def __init__(
        self,
        statistics: dict,
        points: dict,
        classes: int,
        grouped: dict[int, np.ndarray] | None = None,
    ):
        self.statistics, self.points, self.classes, self.grouped = (
            statistics,
            points,
            classes,
            grouped,
        )

    @staticmethod
    def merge(evaluations: "list[Evaluation]") -> "Evaluation":
        """Of several splits, as if their tasks were one set."""
        first = evaluations[0]
        have = {K: [e for e in evaluations if K in e.statistics] for K in first.statistics}

        def join(get, K, name):
            columns = {m: [get(e)[K][name][m] for e in have[K]] for m in get(first)[K][name]}
            if "task" in columns:
                starts = np.cumsum([0, *(e.tasks(K) for e in have[K])])
                columns["task"] = [task + start for task, start in zip(columns["task"], starts)]
            return {m: np.concatenate(arrays) for m, arrays in columns.items()}

        both = []
        for get in (lambda e: e.statistics, lambda e: e.points):
            both.append({K: {name: join(get, K, name) for name in get(first)[K]} for K in have})
        known = all(e.grouped is not None for e in evaluations)
        grouped = (
            {K: np.concatenate([e.groups(K) for e in have[K]]) for K in have} if known else None
        )
        return Evaluation(both[0], both[1], first.classes, grouped)

    def tasks(self, K: int) -> int:
        """How many there are at K support rows."""
        return len(next(iter(self.statistics[K].values()))["nll"])

    def groups(self, K: int) -> np.ndarray:
        """The group of each task, `(t,)`."""
        return np.arange(self.tasks(K)) if self.grouped is None else self.grouped[K]

    def figures(self, K: int) -> dict:
        """Every metric of every learner at K support rows, with 95 % intervals and paired
        differences.
        """
        table, own = {}, self.statistics[K][METHOD]
        tasks, groups = self.tasks(K), self.groups(K)
        weights, n_groups = metrics.resamples({K: groups})[K], len(np.unique(groups))
        for name, statistics in self.statistics[K].items():
            row: dict = {"n_tasks": tasks, "n_groups": n_groups, "ci": {}}
            difference = {}
            for metric, s in statistics.items():
                finish = metrics.METRICS[metric].finish
                draws = finish(weights @ s)
                row[metric] = float(finish(s.sum(0)))
                row["ci"][metric] = metrics.interval(row[metric], draws, n_groups)
                if name != METHOD:
                    gap = finish(weights @ own[metric]) - draws
                    mean = float(finish(own[metric].sum(0)) - finish(s.sum(0)))
                    low, high = metrics.interval(mean, gap, n_groups)
                    difference[metric] = {"mean": mean, "low": low, "high": high}
            table[name] = row | ({"difference": difference} if difference else {})
        return table

    def sentence(self) -> str:
        """Whether meta-learning earns its keep on these data, in plain words."""
        better, worse, same, gains = [], [], [], {}
        for K in self.statistics:
            figures = self.figures(K)
            best = min((n for n in figures if n != METHOD), key=lambda n: figures[n]["nll"])
            gap = figures[best]["difference"]["nll"]
            sure = gap["low"] is not None and not gap["low"] <= 0 <= gap["high"]
            (same if not sure else better if gap["mean"] < 0 else worse).append(K)
            gains[K] = (gap["mean"], gap["low"], gap["high"], best)

        def say(Ks):
            return ", ".join(str(K) for K in Ks)

        if all(len(np.unique(self.groups(K))) < 2 for K in self.statistics):
            return "One group cannot tell whether meta-learning earns its keep: hold out more."
        if better:
            K = min(better, key=lambda K: gains[K][0])
            mean, low, high, best = gains[K]
            text = (
                f"Meta-learning earns its keep here: with {say(better)} observed rows it beats the best baseline, "
                f"most at {K} ({-mean:.2f} nats a row better than {best}, 95 % interval {-high:.2f} to {-low:.2f})."
            )
        else:
            text = (
                "Meta-learning does not earn its keep on these data: at no number of observed rows is it "
                "better than the best baseline beyond chance."
            )
        if same:
            text += f" With {say(same)} it makes no difference that these tasks can show."
        if worse:
            text += f" With {say(worse)} the best baseline is better: use it there."
        return text

    def to_json(self) -> dict:
        """`{"shots": {"5": {name: figures}}, "sentence": …}`, plain numbers only."""
        return {
            "shots": {str(K): self.figures(K) for K in self.statistics},
            "sentence": self.sentence(),
        }


class JointEvaluation:
    """Figures of every target given the true ones before it, and of all targets of a row together.

    Args:
        targets: of each target; all on the same tasks and rows.
        joint: `nll` alone: by the chain rule the sum of the targets', for the method and for every
            baseline.
    """

    def __init__(self, targets: dict[str, Evaluation], joint: Evaluation):
        self.targets, self.joint = targets, joint

    @staticmethod
    def of(targets: dict[str, Evaluation]) -> "JointEvaluation":
        """The joint figures of evaluations on the same rows."""
        first, *others = targets.values()
        statistics: dict = {}
        for K in first.statistics:
            statistics[K] = {}
            for name in first.statistics[K]:
                nll = [e.statistics[K][name]["nll"] for e in (first, *others)]
                total = np.stack([np.sum([s[:, 0] for s in nll], axis=0), nll[0][:, 1]], axis=1)
                statistics[K][name] = {"nll": total}
        return JointEvaluation(
            targets, Evaluation(statistics, {K: {} for K in statistics}, 0, first.grouped)
        )

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

    def to_json(self) -> dict:
        """`{"targets": {name: {"shots": …, "sentence": …}}, "joint": {"shots": …, "sentence": …}}`."""
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
        grouped: see `Evaluation`.
        progress: called with the share done.
    """
    statistics: dict = {}
    points: dict = {}
    total, done = len(tasks) * len(learners), 0
    for K, some in tasks.items():
        mask = np.asarray(some.query.mask)
        real = mask.any(axis=1)  # tasks without query rows are padding
        mask = mask[real]
        statistics[K], points[K] = {}, {}
        for name, learner in learners.items():
            rows = {
                k: np.asarray(v, np.float64)[real]
                for k, v in _points(learner, some, units, key).items()
            }
            count = metrics.class_statistics if classes else metrics.number_statistics
            statistics[K][name] = count(rows, mask)
            kept = ("p", "y", "nll") if classes else ("y", "mean", "nll", "crps", "pit")
            points[K][name] = {"task": np.nonzero(mask)[0]} | {k: rows[k][mask] for k in kept}
            done += 1
            if progress is not None:
                progress(done / total)
    return Evaluation(statistics, points, classes, grouped)
