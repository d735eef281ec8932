"""The lecture's table: expressive power, consistency and awareness of uncertainty, as measured
numbers.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from metaprior.heads import Categorical, Gaussian
from metaprior.method import AbstractLearner, Spec
from metaprior.methods import METHODS
from metaprior.methods.stack import Stack, fit_weights
from metaprior.protocols.protocol import (
    Drawn,
    Figure,
    Metric,
    Outcome,
    Picture,
    Protocol,
    Tell,
    able,
    cut_short,
    trained,
)
from metaprior.report.figures import INK, METHOD, MUTED, OTHERS, STYLE, to_svg
from metaprior.sources import SineLine
from metaprior.sources.labelled import Labelled
from metaprior.task import Task

HELD_OUT = 20261124  # key of the tasks that are judged; training draws its own from the seed
SHOTS = (1, 5, 10, 50, 200)
LEARNT = (5, 10)  # numbers of rows at which expressive power is judged: within training's 1 to 20
GROWTH = (10, 50, 200)  # and those over which the error should fall
RANGES: dict[str, dict[str, Any]] = {
    "inside": {},
    "other functions": {
        "amplitude": (5.0, 8.0),
        "phase": (np.pi, 2 * np.pi),
        "slope": (3.0, 5.0),
        "intercept": (3.0, 5.0),
    },
    "other inputs": {"x": (5.0, 10.0)},
}
NOISE = 0.3
MIXED = ("process", "np")  # members of `stack` here
STEEPER = (
    "maml",
    "emaml",
    "ensemble",
)  # one fixed step of 0.01 says little of what gradient descent can do
CLASSES = " (classes)"


class Known(AbstractLearner):
    """The learner that knows how the tasks are made; without `looks` the one that never looks at
    their rows.
    """

    source: SineLine | Labelled
    looks: bool = eqx.field(static=True, default=True)

    def posterior(self, support, *, key):
        shown = support.mask if self.looks else jnp.zeros_like(support.mask)
        return self.source.exact(eqx.tree_at(lambda d: d.mask, support, shown))


def source_of(where: str, classes: bool, support: int, **options: Any) -> SineLine | Labelled:
    """Tasks of a range."""
    waves = SineLine(support=support, query=20, noise=NOISE, **RANGES[where], **options)
    return Labelled(waves) if classes else waves


def slots(shots: int) -> int:
    """Support rows including padding: two shapes for all numbers of rows, hence two programs to
    compile.
    """
    return min(n for n in (max(LEARNT), max(SHOTS)) if n >= shots)


def tasks(where: str, classes: bool, shots: int, count: int) -> tuple[Task, jax.Array]:
    """Held-out tasks, and at each query row the function without noise: its value, or the
    probability of label 1.
    """
    source = source_of(where, classes, slots(shots))
    keys = jr.split(jr.fold_in(jr.key(HELD_OUT), list(RANGES).index(where)), count)
    waves = dataclasses.replace(
        source.waves if isinstance(source, Labelled) else source, noise=0.0
    )  # the same functions and inputs
    clean = jax.vmap(waves)(keys).query.y[..., 0]
    each = jax.vmap(source)(keys)
    mask = jnp.broadcast_to(jnp.arange(slots(shots)) < shots, each.support.mask.shape)
    each = eqx.tree_at(lambda t: t.support.mask, each, mask)
    return each, jax.scipy.stats.norm.cdf(clean / NOISE) if classes else clean


@eqx.filter_jit
def judge(
    learner: AbstractLearner, some: tuple[Task, jax.Array], classes: bool, samples: int, key
) -> dict[str, Any]:
    """Of every query row, `(t, n)`: `nll`, `mean` (the predicted number, or probability of label
    1), its `variance` including noise, `truth` (both without noise), `y`, and `pit` (numbers
    alone).
    """

    def one(item):
        task, truth = item
        post, draw = jr.split(key)
        mixture = learner.posterior(task.support, key=post).predict(
            task.query.x, key=draw, samples=samples
        )
        mean, variance = mixture.mean()[:, -1], mixture.variance()[:, -1]
        out = {"nll": -mixture.log_prob(task.query.y), "mean": mean, "variance": variance}
        out |= {"truth": truth, "y": task.query.y[:, 0]}
        return out if classes else out | {"pit": mixture.cdf(task.query.y)[:, 0]}

    return jax.lax.map(one, some, batch_size=8)


@functools.lru_cache
def exact(
    where: str, classes: bool, shots: int, count: int, looks: bool = True
) -> dict[str, np.ndarray]:
    """The exact posterior's rows (or the prior's), which knows the range the tasks come from."""
    learner = Known(source_of(where, classes, slots(shots)), looks)
    found = judge(learner, tasks(where, classes, shots, count), classes, 1, jr.key(0))
    return {name: np.asarray(value) for name, value in found.items()}


def stacked(
    spec: Spec, source: Any, seed: int, steps: int, tell: Tell, **options: Any
) -> tuple[Stack, dict]:
    """A mixture of `MIXED`, its weights from 256 tasks that the members did not see."""
    found = []
    for i, name in enumerate(MIXED):

        def told(share, what):
            return tell((i + share) / len(MIXED), f"{name}: {what}")

        found.append(trained(name, spec, source, seed, steps, told, **options))
    learners = tuple(learner for learner, _ in found)

    @eqx.filter_jit
    def rows(learner):
        def one(task):
            mixture = learner.posterior(task.support, key=jr.key(0)).predict(
                task.query.x, key=jr.key(1), samples=64
            )
            return mixture.log_prob(task.query.y), task.query.mask, task.support.count

        return jax.lax.map(
            lambda k: one(source(k)), jr.split(jr.fold_in(jr.key(seed), 1), 256), batch_size=16
        )

    each = [rows(learner) for learner in learners]
    log_prob = jnp.stack([log_prob for log_prob, _, _ in each], -1)
    _, mask, count = each[0]
    weights = fit_weights(log_prob, mask, count.astype(log_prob.dtype), jnp.asarray(256.0))
    return Stack(learners, weights), {"members": list(MIXED), "steps": steps}


def resampled(
    setting: str, metric: str, statistic: Callable[[np.ndarray], Any], count: int
) -> Figure:
    """A figure that is no mean over tasks: `statistic` of task indices, its error from 200
    resamples of the tasks.
    """
    rng = np.random.default_rng(0)
    draws = [float(statistic(rng.integers(count, size=count))) for _ in range(200)]
    return Figure(setting, metric, float(statistic(np.arange(count))), float(np.std(draws)), count)


def measure(
    found: dict[int, dict], true: dict[int, dict], prior: dict[int, dict], where: str, label: str
) -> list[Figure]:
    """All figures of a range, from rows at every number of support rows."""
    count = len(next(iter(found.values()))["nll"])
    distance = {K: np.sqrt(((f["mean"] - f["truth"]) ** 2).mean(1)) for K, f in found.items()}

    def error(K, i):
        return np.median(
            distance[K][i]
        )  # one task on which descent diverged would be all of a mean

    figures = []
    for K, f in found.items():
        at = f"{label}: K = {K}"
        figures.append(resampled(at, "rmse", lambda i: error(K, i), count))
        figures.append(Figure.of(at, "nll", f["nll"].mean(1)))
        figures.append(Figure.of(at, "gap", (f["nll"] - true[K]["nll"]).mean(1)))
    if where == "inside":
        far = sum(
            ((f["mean"] - true[K]["mean"]) ** 2).mean(1) for K, f in found.items() if K in LEARNT
        )
        base = sum(((prior[K]["mean"] - true[K]["mean"]) ** 2).mean(1) for K in LEARNT)
        figures.append(
            resampled(label, "expressive", lambda i: 1 - far[i].mean() / base[i].mean(), count)
        )

    def logs(i):
        return np.log([max(error(K, i), 1e-9) for K in GROWTH])

    figures.append(
        resampled(label, "slope", lambda i: np.polyfit(np.log(GROWTH), logs(i), 1)[0], count)
    )
    figures.append(resampled(label, "ratio", lambda i: np.exp(logs(i)[-1] - logs(i)[0]), count))

    def join(name):
        return np.stack([f[name] for f in found.values()], 1).reshape(count, -1)

    mean, y, variance = join("mean"), join("y"), join("variance")
    figures.append(
        Figure.of(
            label,
            "gap",
            (join("nll") - np.stack([t["nll"] for t in true.values()], 1).reshape(count, -1)).mean(
                1
            ),
        )
    )

    def spread(i):
        return np.sqrt(variance[i].mean() / ((mean[i] - y[i]) ** 2).mean())

    figures.append(resampled(label, "spread", spread, count))
    if "pit" in next(iter(found.values())):
        pit = join("pit")
        figures.append(Figure.of(label, "coverage90", ((pit >= 0.05) & (pit <= 0.95)).mean(1)))
    return figures


def run(method: str, seed: int, options: dict, data: None, tell: Tell) -> Outcome:
    """Train a method on tasks of 1 to 20 rows and judge it in and out of that range."""
    reference = method.startswith("exact")
    classes = (
        method == "exact_classes"
        if reference
        else method != "stack" and "numbers" not in METHODS[method].kinds
    )

    def of(name):
        return options[name].get(method, options[name]["classes" if classes else ""])

    count, learner, facts = of("tasks"), None, {}
    if not reference:

        def told(share, what):
            return tell(0.7 * share, what)

        spec = Spec(1, Categorical(2) if classes else Gaussian(1))
        train = stacked if method == "stack" else functools.partial(trained, method)
        source = source_of("inside", classes, 20, fewest=1)
        hyper = {"steps": 5, "inner_lr": jnp.asarray(0.01)} if method in STEEPER else {}
        learner, facts = train(
            spec, source, seed, of("steps"), told, batch=options["batch"], hyper=hyper
        )
    figures, drawing = [], {}
    columns: dict[str, list] = {
        k: [] for k in ("setting", "task", "row", "y", "truth", "mean", "variance", "nll", "pit")
    }
    for at, where in enumerate(RANGES):
        label, found, true, prior = where + CLASSES * classes, {}, {}, {}
        for i, K in enumerate(SHOTS):
            tell(0.7 + 0.3 * (at + i / len(SHOTS)) / len(RANGES), f"judging {label}, K = {K}")
            true[K] = exact(where, classes, K, count)
            prior[K] = (
                exact(where, classes, K, count, False) if K in LEARNT and where == "inside" else {}
            )
            found[K] = true[K]
            if learner is not None:
                rows = judge(
                    learner,
                    tasks(where, classes, K, count),
                    classes,
                    options["samples"],
                    jr.key(seed),
                )
                found[K] = {name: np.asarray(value) for name, value in rows.items()}
            t, n = found[K]["y"].shape
            columns["setting"].append(np.full(t * n, f"{label}: K = {K}"))
            columns["task"].append(np.repeat(np.arange(t), n))
            columns["row"].append(np.tile(np.arange(n), t))
            for name in ("y", "truth", "mean", "variance", "nll", "pit"):
                columns[name].append(found[K].get(name, np.full((t, n), np.nan)).ravel())
        figures += measure(found, true, prior, where, label)
        drawing[where] = np.array(
            [
                [f.value, f.error]
                for f in figures
                if f.setting.startswith(label + ":") and f.metric == "rmse"
            ]
        )
    return Outcome(
        figures,
        {k: np.concatenate(v) for k, v in columns.items()},
        drawing,
        note=cut_short(facts),
        facts=facts,
    )


def draw(cells: Sequence[Drawn], options: dict, data: None) -> list[Picture]:
    """Error against support rows in and out of range; and the table as a picture."""
    pictures = []
    with matplotlib.rc_context(STYLE):
        for classes in (False, True):
            first: dict[str, Drawn] = {}
            for cell in cells:
                if any(f.setting == "inside" + CLASSES * classes for f in cell.figures):
                    first.setdefault(cell.method, cell)
            if not [name for name in first if not name.startswith("exact")]:
                continue
            pictures += [_growth(first, classes), _table(first, classes)]
    return pictures


def _growth(first: dict[str, Drawn], classes: bool) -> Picture:
    """One line a method, one panel a range."""
    figure = Canvas(figsize=(11.0, 3.9), layout="constrained")
    shades = (METHOD, *OTHERS, *matplotlib.colormaps["tab20"].colors)  # ty: ignore[missing-attribute]
    order = sorted(first.items(), key=lambda item: item[0].startswith("exact"))
    for axes, where in zip(figure.subplots(1, len(RANGES), squeeze=False)[0], RANGES):
        for i, (name, cell) in enumerate(order):
            known = name.startswith("exact")
            value, error = cell.drawing[where].T
            style: dict = (
                dict(color=INK, lw=2.2, zorder=5)
                if known
                else dict(color=shades[i % len(shades)], lw=1.4)
            )
            axes.plot(SHOTS, value, marker="o", ms=3.5, label="exact" if known else name, **style)
            axes.fill_between(
                SHOTS,
                np.maximum(value - error, 1e-3),
                value + error,
                color=style["color"],
                alpha=0.12,
                lw=0,
            )
        axes.axvspan(1, 20, color=METHOD, alpha=0.06, lw=0)
        axes.set(xscale="log", yscale="log", title=where, xlabel="support rows")
        axes.set_xticks(SHOTS, [str(k) for k in SHOTS])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("error of p(label 1)" if classes else "error of the mean, units of y")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(9, len(labels)))
    what = " (classes)" if classes else ""
    return Picture(
        f"Does more data help?{what}",
        "Root mean square distance to the function without noise, median over tasks. Shaded: numbers of rows seen in "
        "training. A consistent learner's line keeps falling, also to the right of the shade and on tasks unlike "
        "those of training; the exact posterior's (black; it knows the range) falls as one over the root of the rows.",
        to_svg(
            figure, f"properties-growth{'-classes' * classes}", f"Error against support rows{what}"
        ),
    )


COLUMNS = (("expressive", "inside", "expressive\npower"),) + tuple(
    (metric, where, f"{label}\n{where.split()[-1]}")
    for metric, label in (("slope", "slope"), ("gap", "NLL gap"), ("spread", "spread"))
    for where in RANGES
)


def _good(metric: str, value: float) -> float:
    """0 … 1, for shading alone: 1 is as good as the exact posterior."""
    if metric == "expressive":
        return value
    if metric == "slope":
        return -value / 0.5
    return 1 - value / 2 if metric == "gap" else 1 - abs(np.log(max(value, 1e-6))) / np.log(4.0)


def _table(first: dict[str, Drawn], classes: bool) -> Picture:
    """The lecture's table, shaded."""
    names = sorted(first, key=lambda n: (not n.startswith("exact"), n))
    figure = Canvas(figsize=(11.0, 0.9 + 0.3 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for row, name in enumerate(names):
        value = {(f.metric, f.setting): f.value for f in first[name].figures}
        for column, (metric, where, _) in enumerate(COLUMNS):
            v = value.get((metric, where + CLASSES * classes), float("nan"))
            good = float(np.clip(_good(metric, v), 0, 1)) if np.isfinite(v) else 0.0
            axes.add_patch(
                Rectangle((column, row), 0.96, 0.92, color=METHOD, alpha=0.06 + 0.6 * good, lw=0)
            )
            text = f"{v:.2f}" if abs(v) < 100 else f"{v:.0e}"
            axes.text(
                column + 0.48, row + 0.48, text, ha="center", va="center", color=INK, fontsize=9
            )
    axes.set(xlim=(0, len(COLUMNS)), ylim=(len(names), 0))
    axes.set_xticks(np.arange(len(COLUMNS)) + 0.48, [label for _, _, label in COLUMNS], color=MUTED)
    axes.xaxis.tick_top()
    axes.set_yticks(
        np.arange(len(names)) + 0.48, ["exact" if n.startswith("exact") else n for n in names]
    )
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    what = " (classes)" if classes else ""
    return Picture(
        f"The table{what}",
        "The darker, the nearer to what the exact posterior does: expressive power 1, slope -0.5, gap 0, spread 1.",
        to_svg(
            figure,
            f"properties-table{'-classes' * classes}",
            f"Expressive power, consistency, awareness{what}",
        ),
    )


def sentence(cells: Sequence[Drawn]) -> str:
    """Who is best at each property, among methods for numbers."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for cell in cells:
        for f in cell.figures:
            if not cell.method.startswith("exact"):
                found.setdefault((f.metric, f.setting), {}).setdefault(cell.method, []).append(
                    f.value
                )

    def best(metric, where, pick):
        return pick(found[metric, where], key=lambda m: float(np.mean(found[metric, where][m])))

    if ("expressive", "inside") not in found:
        return ""
    return (
        f"Most expressive: {best('expressive', 'inside', max)}. Error falls fastest with rows on functions unlike "
        f"those of training: {best('slope', 'other functions', min)}; on inputs unlike them: "
        f"{best('slope', 'other inputs', min)}. Nearest to the exact posterior in likelihood inside: "
        f"{best('gap', 'inside', min)}; on other functions: {best('gap', 'other functions', min)}."
    )


PROTOCOL = Protocol(
    name="properties",
    title="Expressive power, consistency, awareness of uncertainty",
    lead="The lecture's comparison of meta-learners, measured. Tasks are sine waves and lines with noise of standard "
    "deviation 0.3 and 1 to 20 rows in training. Expressive power: how much of the Bayes-optimal learner's "
    "prediction a method's mean reproduces. Consistency: whether its error keeps falling as rows are added, beyond "
    "the numbers seen in training and on tasks outside the training range. Awareness of uncertainty: its likelihood "
    "beside the exact posterior's, and its stated spread beside its error.",
    papers=(
        "Finn, “Learning to Learn with Gradients”, 2018, and Stanford CS330: the three properties",
        "Finn, Xu & Levine, “Probabilistic Model-Agnostic Meta-Learning”, NeurIPS 2018: the tasks",
    ),
    choices=(
        "The lecture names the properties and gives no measure. Expressive power here: 1 - E(m - m*)² / E(m₀ - m*)² "
        "at 5 and 10 rows, m the method's predictive mean, m* that of the exact posterior, m₀ that of the prior. 1: "
        "the optimal learner; 0: no better than not looking at the rows. It covers what a method can represent and "
        "what training made of it.",
        "Consistency: least-squares slope of log error against log rows at 10, 50 and 200 rows, and the ratio of the "
        "errors at 200 and 10. Error is the median over tasks of the root mean square distance between mean and "
        "function without noise: out of range a few tasks on which descent diverges would be all of a mean (they show "
        "in the NLL). Optimal: -0.5 and about 0.2.",
        "Awareness: NLL above the exact posterior's, pooled over 1 to 200 rows; spread: stated predictive standard "
        "deviation over actual error, root mean squares, 1 is right, below it the method is too sure; coverage of "
        "the central 90 % interval.",
        "Outside: other functions have amplitude 5 to 8, phase π to 2π, slope and intercept 3 to 5 (training: 0.1 to "
        "5, 0 to π, -3 to 3); other inputs lie in [5, 10] (training: [-5, 5]). The exact posterior there knows the "
        "range; no method does.",
        "Methods that predict classes alone (protonet, matching) stand in a setting of their own: the label is "
        "whether the noisy outcome is positive, error is that of the probability of label 1, and the exact posterior "
        "sums over a grid.",
        f"{', '.join(STEEPER)} take 5 inner steps of a learned rate; all else are the table's defaults. `stack` mixes "
        f"{' and '.join(MIXED)} with weights from 256 further tasks. Slow methods are judged on fewer tasks; the count "
        "is in results.json. Errors of slopes, ratios and spreads are from 200 resamples of the tasks.",
    ),
    metrics={
        "expressive": Metric("expressive power", "share of the optimal learner's mean", "high"),
        "slope": Metric("consistency: slope", "of log error in log rows", "low"),
        "ratio": Metric("consistency: ratio", "error at 200 rows over that at 10", "low"),
        "gap": Metric("NLL above exact", "nats a row", "low"),
        "spread": Metric("spread", "stated over actual error", 1.0),
        "coverage90": Metric("coverage of 90 %", "share of rows", 0.9),
        "rmse": Metric("error to the function", "units of y (probability for classes)", "low"),
        "nll": Metric("NLL", "nats a row", "low"),
    },
    methods=("maml", "np", "process"),
    able=tuple(dict.fromkeys((*able("numbers"), "stack", *able("classes")))),
    budgets={
        "quick": {
            "steps": {"": 1500, "classes": 1500},
            "batch": 16,
            "samples": 64,
            "tasks": {
                "": 64,
                "classes": 32,
                "nuts": 4,
                "bnn": 16,
                "llama": 32,
                "platipus": 32,
                "bmaml": 32,
                "ar_cnp": 32,
            },
        },
        "full": {
            "steps": {"": 20000, "classes": 20000},
            "batch": 25,
            "samples": 256,
            "tasks": {"": 400, "classes": 200, "nuts": 40, "bnn": 100, "ar_cnp": 200},
        },
    },
    run=run,
    draw=draw,
    references=("exact", "exact_classes"),
    sentence=sentence,
)
