"""Ambiguous classification: circles in the plane from a few points inside, beside the exact
posterior.
"""

import functools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from metaprior.heads import Categorical
from metaprior.method import AbstractLearner, Spec
from metaprior.posterior import Particles, Sampled
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
from metaprior.protocols.raw import KEPT, first_rows, functions_at, joint_terms, log_p, log_terms
from metaprior.report.figures import INK, METHOD, MUTED, POINT, STYLE, to_svg
from metaprior.sources.circles import Circles
from metaprior.sources.exact import Known
from metaprior.task import Task

HELD_OUT = 20261124  # key of the tasks that are judged; training draws its own from the seed
SHOTS = (1, 2, 3, 5)
SETS = 20  # sampled sets {x: p(inside) > 1/2} for coverage and spread
SIDE = 40  # grid of the box on which sets are compared
SHOWN, DRAWS, FINE = 3, 14, 72  # of the pictures: tasks, functions, and the grid's side


def lattice(box: float, side: int) -> jax.Array:
    """Middles of `side` x `side` cells of the box, `(side², 2)`, the first coordinate changing
    fastest.
    """
    place = (jnp.arange(side) + 0.5) * box / side
    return jnp.stack([jnp.tile(place, side), jnp.repeat(place, side)], axis=1)


def tasks(source: Circles, shots: int, count: int) -> tuple[Task, jax.Array, jax.Array]:
    """Held-out tasks with `shots` points inside, their centres and radii."""
    keys = jr.split(jr.fold_in(jr.key(HELD_OUT), shots), count)
    each = jax.vmap(source)(keys)
    mask = jnp.broadcast_to(jnp.arange(source.support) < shots, each.support.mask.shape)
    return eqx.tree_at(lambda t: t.support.mask, each, mask), *jax.vmap(source.circle)(keys)


def functions(posterior, x, *, key, samples: int) -> jax.Array:
    """p(inside) of sampled functions, `(s, n)`."""
    mixture = functions_at(posterior, x, key=key, samples=samples)
    return jnp.concatenate([part.head.mean(part.params)[..., 1] for part in mixture.parts])


@eqx.filter_jit
def judge(
    learner: AbstractLearner, some: tuple, box: float, samples: int, key
) -> dict[str, jax.Array]:
    """Figures of every task: rows `nll`, `p`, `y`, and `joint`, `best_iou`, `disagreement` and
    `covered` a task.

    Beside them what they follow from: log densities by draw, cells of the grid that each set shares
    with the true one and that either holds, and the share of sets that hold each cell.

    Likelihoods are of `samples` draws of the function; where they are all a method has, both of the
    same ones. Sets are compared on a `SIDE` x `SIDE` grid of the box, the true one being the disc's
    part in the box.
    """
    x = lattice(box, SIDE)

    def one(item):
        task, center, radius = item
        keys = jr.split(key, 4)
        posterior = learner.posterior(task.support, key=keys[0])
        mixture = posterior.predict(task.query.x, key=keys[1], samples=samples)
        if isinstance(posterior, Sampled | Particles):
            joint = mixture.joint_log_prob(task.query)
        else:
            joint = posterior.joint_log_prob(task.query, key=keys[2], samples=samples)
        sets = functions(posterior, x, key=keys[3], samples=SETS) > 0.5
        true = ((x - center) ** 2).sum(1) <= radius**2
        overlap, union = (sets & true).sum(1), (sets | true).sum(1)
        iou = overlap / jnp.maximum(union, 1)
        n, share = sets.shape[0], sets.mean(0)
        pairs = (2 * share * (1 - share)).mean() * n / max(n - 1, 1)
        return {
            "nll": -mixture.log_prob(task.query.y),
            "p": mixture.mean()[:, 1],
            "y": task.query.y[:, 0],
            "joint": -joint / task.query.count,
            "best_iou": iou.max(),
            "covered": iou.max() >= 0.5,
            "disagreement": pairs,
            "log_p": log_terms(mixture, task.query.y),
            "joint_log_p": joint_terms(posterior, mixture, task.query, joint),
            "overlap": overlap,
            "union": union,
            "share": share,
        }

    return jax.lax.map(one, some, batch_size=8)


@eqx.filter_jit
def boundaries(learner: AbstractLearner, some: Task, box: float, key) -> jax.Array:
    """p(inside) of up to `DRAWS` functions on a grid, for pictures, in 255ths: `(t, s, FINE,
    FINE)`.
    """
    post, draw = jr.split(key)
    x = lattice(box, FINE)

    def each(t):
        return functions(learner.posterior(t.support, key=post), x, key=draw, samples=DRAWS)

    found = jnp.round(255 * jax.lax.map(each, some)[:, :DRAWS]).astype(jnp.uint8)
    return found.reshape(*found.shape[:2], FINE, FINE)


@functools.lru_cache
def exact(source: Circles, shots: int, count: int) -> dict[str, np.ndarray]:
    """The exact posterior's figures."""
    found = judge(Known(source), tasks(source, shots, count), source.box, 1, jr.key(0))
    return {name: np.asarray(value) for name, value in found.items()}


def run(method: str, seed: int, options: dict, data: None, tell: Tell) -> Outcome:
    """Train a method on circles of 1 to 5 points and judge it at each number of points."""
    source = Circles(support=max(SHOTS), fewest=min(SHOTS))
    if method == "exact":
        learner, facts = Known(source), {}
    else:

        def told(share, what):
            return tell(0.8 * share, what)

        steps = options["steps"].get(method, options["steps"][""])
        spec = Spec(2, Categorical(2))
        learner, facts = trained(
            method, spec, source, seed, steps, told, batch=options["batch"], hyper=_hyper(method)
        )
    figures, tables = [], []
    for i, shots in enumerate(SHOTS):
        tell(0.8 + 0.2 * i / len(SHOTS), f"judging at K = {shots}")
        count, setting = options["tasks"], f"K = {shots}"
        true = exact(source, shots, count)
        found = true
        if method != "exact":
            found = judge(
                learner, tasks(source, shots, count), source.box, options["samples"], jr.key(seed)
            )
        found = {name: np.asarray(value) for name, value in found.items()}

        def add(metric, values):
            return figures.append(Figure.of(setting, metric, values))

        add("nll", found["nll"].mean(1))
        add("gap", (found["nll"] - true["nll"]).mean(1))
        add("joint", found["joint"])
        add("joint_gap", found["joint"] - true["joint"])
        add("accuracy", ((found["p"] > 0.5) == (found["y"] > 0.5)).mean(1))
        add("coverage", found["covered"])
        add("best_iou", found["best_iou"])
        spread = float(found["disagreement"].mean() / true["disagreement"].mean())
        figures.append(Figure(setting, "spread", spread, None, count))
        t, n = found["y"].shape
        where = {
            "setting": np.full(t * n, setting),
            "task": np.repeat(np.arange(t), n),
            "row": np.tile(np.arange(n), t),
        }
        whole = {name: first_rows(found[name], n) for name in ("joint_log_p", "overlap", "union")}
        share = first_rows([s if i < KEPT else None for i, s in enumerate(found["share"])], n)
        rows = {name: found[name].ravel() for name in ("y", "p", "nll")}
        rows |= {
            "log_p": log_p(found["log_p"]),
            "disagreement": np.repeat(found["disagreement"], n),
        }
        tables.append(where | rows | whole | {"share": share})
    drawing = {}
    for shots in (1, 3):
        some, center, radius = tasks(source, shots, SHOWN)
        p = boundaries(learner, some, source.box, jr.key(seed))
        x = jnp.where(some.support.mask[..., None], some.support.x, jnp.nan)
        named = {"p": p, "x": x, "center": center, "radius": radius}
        drawing |= {f"{name}_{shots}": np.asarray(value) for name, value in named.items()}
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    return Outcome(figures, columns, drawing, note=cut_short(facts), facts=facts)


def _panel(axes, drawing: dict[str, np.ndarray], shots: int, task: int, box: float) -> None:
    """Sampled boundaries, the true circle and the points of one task."""
    place = (np.arange(FINE) + 0.5) * box / FINE
    for p in drawing[f"p_{shots}"][task].astype(float) / 255:
        if p.min() < 0.5 < p.max():
            axes.contour(place, place, p, levels=[0.5], colors=[METHOD], linewidths=0.8, alpha=0.55)
    angle = np.linspace(0, 2 * np.pi, 100)
    (a, b), r = drawing[f"center_{shots}"][task], drawing[f"radius_{shots}"][task]
    axes.plot(a + r * np.cos(angle), b + r * np.sin(angle), color=INK, lw=1.6, ls=(0, (4, 2)))
    x = drawing[f"x_{shots}"][task]
    axes.plot(x[:, 0], x[:, 1], "o", ms=5.5, mfc=POINT, mec="white", mew=0.9)
    axes.set(xlim=(0, box), ylim=(0, box), aspect="equal", xticks=[], yticks=[])
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(True)


def draw(cells: Sequence[Drawn], options: dict, data: None) -> list[Picture]:
    """Sampled boundaries of every method beside the exact posterior's, and the gap to it against K."""
    first = {}
    for cell in cells:
        first.setdefault(cell.method, cell)
    names = [n for n in ("exact",) if n in first] + [n for n in first if n != "exact"]
    box, pictures = Circles().box, []
    with matplotlib.rc_context(STYLE):
        for shots in (1, 3):
            figure = Canvas(figsize=(1.75 * len(names), 1.85 * SHOWN), layout="constrained")
            grid = figure.subplots(SHOWN, len(names), squeeze=False)
            for column, name in enumerate(names):
                for task in range(SHOWN):
                    _panel(grid[task, column], first[name].drawing, shots, task, box)
                grid[0, column].set_title(name)
            points = "one point" if shots == 1 else f"{shots} points"
            pictures.append(
                Picture(
                    f"Where could the circle be, given {points} inside it?",
                    f"Three tasks (rows). Green: boundaries of up to {DRAWS} functions drawn from each posterior; red: "
                    "the points shown; dashed: the true circle. A posterior that knows what it does not know draws "
                    "circles of many sizes and places through the points, as the exact one does.",
                    to_svg(figure, f"circles-{shots}", f"Sampled decision boundaries, {points}"),
                )
            )
        pictures.append(_against_shots(first))
    return pictures


def _against_shots(first: dict[str, Drawn]) -> Picture:
    """NLL above the exact posterior's against the number of points."""
    figure = Canvas(figsize=(7.2, 2.9), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, metric, label in zip(
        panels, ("gap", "joint_gap"), ("one label at a time", "all labels together")
    ):
        axes.axhline(0, color=MUTED, lw=1, ls=(0, (4, 3)))
        for name, cell in first.items():
            if name != "exact":
                value = {f.setting: f.value for f in cell.figures if f.metric == metric}
                axes.plot(
                    range(len(SHOTS)),
                    [value[f"K = {k}"] for k in SHOTS],
                    marker="o",
                    ms=4,
                    label=name,
                )
        axes.set_xticks(range(len(SHOTS)), [str(k) for k in SHOTS])
        axes.set(title=label, xlabel="points shown", ylabel="nats a row above the exact posterior")
    panels[1].legend()
    return Picture(
        "Distance from the exact posterior",
        "Negative log-likelihood less that of the exact posterior (dashed line) on the same tasks. A method with the "
        "right marginals and incoherent functions is near the line on the left and far from it on the right.",
        to_svg(figure, "circles-gap", "NLL above the exact posterior"),
    )


def sentence(cells: Sequence[Drawn]) -> str:
    """The best method's distance from the exact posterior, over all numbers of points."""
    gaps: dict[str, list[float]] = {}
    for cell in cells:
        if cell.method != "exact":
            gaps.setdefault(cell.method, []).append(
                np.mean([f.value for f in cell.figures if f.metric == "gap"])
            )
    if not gaps:
        return ""
    best = min(gaps, key=lambda name: float(np.mean(gaps[name])))
    return (
        f"{best} comes nearest to the exact posterior: {np.mean(gaps[best]):.3f} nats a row above it, averaged over "
        f"{', '.join(str(k) for k in SHOTS)} points."
    )


# One step of rate 0.01 is for squared errors of sine waves: on labels it leaves MAML where it
# started.
MAML_STEPS, MAML_RATE = 5, 0.1


def _hyper(method: str) -> dict:
    return (
        {"steps": MAML_STEPS, "inner_lr": jnp.asarray(MAML_RATE)}
        if method in ("maml", "emaml")
        else {}
    )


PROTOCOL = Protocol(
    name="ambiguous-classification",
    title="Which circle? Classification from a few points of one class",
    lead="Points of the plane are inside or outside of an unknown circle; a task shows one to five points inside it "
    "and nothing else. Many circles explain them. Each method draws functions from its posterior; their decision "
    "boundaries stand beside those of the exact posterior over centre and radius, and its likelihoods are the "
    "yardstick.",
    papers=(
        "Finn, Xu & Levine, “Probabilistic Model-Agnostic Meta-Learning”, NeurIPS 2018, section 5",
    ),
    choices=(
        "The paper prints no ranges. Here: centre uniform in the box [0, 5]², radius uniform in [0.1, 2], support "
        "points uniform in the part of the disc inside the box, all labelled 1; query points uniform in the box.",
        "One query label in a hundred is wrong, in training and test, so that the exact posterior's likelihoods are "
        "finite.",
        "Training shows 1 to 5 points; each number is judged on tasks of its own, the same for all methods and seeds.",
        "NLL: minus the log of the mean probability over draws of the function (100 in quick, 256 in full), each "
        "label by itself; joint: of all 20 labels of a task together, per label. With finitely many draws the joint "
        "one is overstated a little.",
        f"MAML (and EMAML) take {MAML_STEPS} inner steps of a learned rate from {MAML_RATE}; all else are the table's "
        "defaults.",
        f"Coverage: share of tasks in which at least one of {SETS} sampled sets {{p > 1/2}} overlaps the true disc "
        "with an intersection over union of 0.5 or more, on a 40 x 40 grid. Methods of one function have one set.",
        "Spread: area on which two sampled sets disagree, mean over pairs and tasks, over that of the exact "
        "posterior; 1 is right, 0 is one function.",
    ),
    metrics={
        "nll": Metric("NLL", "nats a row", "low"),
        "gap": Metric("NLL above exact", "nats a row", "low"),
        "joint": Metric("joint NLL", "nats a row", "low"),
        "joint_gap": Metric("joint NLL above exact", "nats a row", "low"),
        "accuracy": Metric("accuracy", "share of rows", "high"),
        "coverage": Metric("coverage", "share of tasks", "high"),
        "best_iou": Metric("best overlap", f"IoU, best of {SETS}", "high"),
        "spread": Metric("spread", "of the exact posterior's", 1.0),
    },
    methods=("maml", "platipus", "np"),
    able=able("classes"),
    budgets={
        "quick": {
            "steps": {"": 1500, "maml": 3000, "platipus": 1000},
            "batch": 16,
            "tasks": 150,
            "samples": 100,
        },
        "full": {"steps": {"": 30000}, "batch": 25, "tasks": 1000, "samples": 256},
    },
    run=run,
    draw=draw,
    references=("exact",),
    sentence=sentence,
)
