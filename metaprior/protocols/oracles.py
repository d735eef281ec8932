"""Every method on tasks whose exact posterior is known: how far from it each one stays."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from metaprior.heads import Categorical, Gaussian
from metaprior.method import Spec
from metaprior.posterior import AbstractHead, Particles, Sampled
from metaprior.protocols.protocol import (
    Anchor,
    Drawn,
    Figure,
    Metric,
    Outcome,
    Picture,
    Protocol,
    able,
    trained,
)
from metaprior.protocols.raw import first_rows, functions_at, joint_terms, log_p, log_terms
from metaprior.report.figures import STYLE, colours, to_svg
from metaprior.sources import GP, Circles, Harmonic, Linear, SineLine, Sinusoid
from metaprior.sources.exact import Known

DRAWN = "drawn"  # as many support rows as in training
HELD_OUT = 20261124  # key of the tasks that are judged: defaults were chosen on other tasks
EXACT = "exact"
SLACK = 2e-3  # nats: jitter of the sources and the width of their grids


class Case(NamedTuple):
    """Tasks to train and be judged on, and the numbers of support rows at which methods are judged."""

    what: str
    source: Any
    steps: int
    shots: tuple = (0, 1, 2, 5, 10, DRAWN)
    x_dim: int = 1
    head: AbstractHead = Gaussian(1)

    @property
    def exact(self) -> bool:
        return hasattr(self.source, "exact")


def cases() -> dict[str, Case]:
    """The sources, by name."""
    return {
        "linear": Case(
            "Linear functions of two inputs, noise 0.3", Linear.of(2, fewest=0), 2_000, x_dim=2
        ),
        "gp": Case(
            "Gaussian process, EQ kernel, noise variance 0.05, 0 to 30 rows (Bruinsma et al. 2023)",
            GP("eq", noise=0.05**0.5, support=30),
            3_000,
        ),
        "sineline": Case(
            "A sine wave or a line, noise 0.3 (Finn, Xu & Levine 2018)", SineLine(fewest=0), 5_000
        ),
        "mean": Case(
            "A normal mean seen with normal noise, both of variance 1, an input that says nothing (VERSA's toy)",
            Linear(jnp.zeros(2), jnp.asarray([[1.0], [0.0]]), 1.0, query=15, fewest=0),
            1_000,
        ),
        "sinusoid": Case(
            "Sine waves, noise variance 0.02, 0 to 10 rows (Harrison, Sharma & Pavone 2018)",
            Sinusoid(noise=0.02**0.5, fewest=0),
            3_000,
        ),
        "harmonic": Case(
            "Sine waves of any frequency, clean query rows; 1 to 20 rows in training (Yoon et al. 2018)",
            Harmonic(support=20, query=20, fewest=1),
            5_000,
            (5, 10, 20),
        ),
        "circles": Case(
            "Inside a circle or not, from points inside alone, 1 label in 100 wrong (Finn, Xu & Levine 2018)",
            Circles(support=10, fewest=0),
            3_000,
            x_dim=2,
            head=Categorical(2),
        ),
    }


def held_out(case: Case, tasks: int):
    """`(tasks x shots, …)` tasks and their keys: each task with every number of support rows."""
    drawn = jax.jit(jax.vmap(case.source))(jax.random.split(jax.random.key(HELD_OUT), tasks))
    slots = jnp.arange(drawn.support.mask.shape[1])

    def some(k):
        return eqx.tree_at(
            lambda t: t.support.mask, drawn, jnp.broadcast_to(slots < k, drawn.support.mask.shape)
        )

    each = [drawn if k == DRAWN else some(k) for k in case.shots]
    together = jax.tree.map(lambda *a: jnp.stack(a, 1).reshape(-1, *a[0].shape[1:]), *each)
    return together, jax.random.split(jax.random.key(3), tasks * len(each))


def judge(learner, case: Case, judged: Any, minutes: float, samples: int = 256, block: int = 10):
    """Figures `(tasks, shots, …)` of as many tasks as time allows, and seconds.

    A row: `y`, `mean` (the second of two classes' probability), `nll` and `log_p`
    (`raw.log_terms`); a task: `joint`, nll a row, and `joint_log_p`.
    """

    def one(learner, pair):
        task, key = pair
        keys, query = jax.random.split(key, 3), task.query
        posterior = learner.posterior(task.support, key=keys[0])
        predictive = posterior.predict(query.x, key=keys[1], samples=samples)
        joint = posterior.joint_log_prob(query, key=keys[2], samples=samples)
        drawn = predictive
        if isinstance(posterior, Sampled | Particles):  # the draws of which `joint` is the mean
            drawn = functions_at(posterior, query.x, key=keys[2], samples=samples)
        return {
            "y": query.y[:, 0],
            "mean": predictive.mean()[:, -1],
            "nll": -predictive.log_prob(query.y),
            "joint": -joint / query.count,
            "log_p": log_terms(predictive, query.y),
            "joint_log_p": joint_terms(posterior, drawn, query, joint),
        }

    block = min(block * len(case.shots), len(judged[1]))

    def part(i):
        return jax.tree.map(lambda a: a[i : i + block], judged)

    run = eqx.filter_jit(
        lambda learner, pairs: jax.lax.map(lambda p: one(learner, p), pairs, batch_size=10)
    )
    look = run.lower(learner, part(0)).compile()  # ty: ignore[missing-attribute]
    found, began = [], time.monotonic()
    for i in range(0, len(judged[1]) - block + 1, block):
        found.append({k: np.asarray(v) for k, v in look(learner, part(i)).items()})
        if time.monotonic() - began > 60 * minutes:
            break
    seconds = time.monotonic() - began
    together = {k: np.concatenate([f[k] for f in found]) for k in found[0]}
    return {k: v.reshape(-1, len(case.shots), *v.shape[1:]) for k, v in together.items()}, seconds


def of_tasks(found: dict[str, np.ndarray]) -> np.ndarray:
    """Marginal nll, joint nll and squared error, `(tasks, shots, 3)`."""
    wide = {k: np.asarray(found[k], np.float64) for k in ("nll", "joint", "mean", "y")}
    error = (wide["mean"] - wide["y"]) ** 2
    return np.stack([wide["nll"].mean(-1), wide["joint"], error.mean(-1)], -1)


def score(learner, case: Case, judged: Any, minutes: float, samples: int = 256):
    """`of_tasks` of a learner, and seconds."""
    found, seconds = judge(learner, case, judged, minutes, samples)
    return of_tasks(found), seconds


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell) -> Outcome:
    """Train on each source in turn and judge on tasks that are the same for all methods."""
    figures: list[Figure] = []
    columns: dict[str, list] = {}
    facts: dict[str, Any] = {"steps": 0, "train_seconds": 0.0}
    short = []
    names = options["sources"]
    for i, name in enumerate(names):
        case = cases()[name]

        def part(done, what):
            return tell((i + done) / len(names), f"{name}: {what}")

        judged = held_out(case, options["tasks"])
        best, _ = judge(Known(case.source), case, judged, 60.0, options["samples"])
        if method == EXACT:
            found = best
        else:
            steps = max(1, round(case.steps * options["steps_share"]))
            learner, told = trained(
                method, Spec(case.x_dim, case.head), case.source, seed, steps, part
            )
            facts = {
                **told,
                "steps": facts["steps"] + told["steps"],
                "train_seconds": round(facts["train_seconds"] + told.get("train_seconds", 0.0), 1),
            }
            part(1.0, "judging")
            found, _ = judge(learner, case, judged, options["minutes"], options["samples"])
        count = len(found["joint"])
        own, exact = of_tasks(found), of_tasks(best)[:count]
        if count < options["tasks"]:
            short.append(f"{count} tasks of {name}")
        for j, k in enumerate(case.shots):
            setting, values = f"{name}: K = {k}", own[:, j]
            figures += [
                Figure.of(setting, "nll", values[:, 0]),
                Figure.of(setting, "mse", values[:, 2]),
            ]
            if method != EXACT:
                gap = values - exact[:, j]
                figures += [
                    Figure.of(setting, "gap", gap[:, 0]),
                    Figure.of(setting, "joint_gap", gap[:, 1]),
                ]
            n = found["y"].shape[-1]
            each = {
                c: np.repeat(v, n)
                for c, v in (
                    ("task", np.arange(count)),
                    ("joint_nll", own[:, j, 1]),
                    ("exact_joint_nll", exact[:, j, 1]),
                )
            }
            rows = {
                "setting": np.full(count * n, setting),
                "row": np.tile(np.arange(n), count),
                **each,
                **{c: found[c][:, j].ravel() for c in ("y", "mean", "nll")},
                "exact_nll": best["nll"][:count, j].ravel(),
                "log_p": log_p(found["log_p"][:, j]),
                "joint_log_p": first_rows(found["joint_log_p"][:, j], n),
            }
            columns = {c: [*columns.get(c, []), v] for c, v in rows.items()}
    note = f"slow, so judged on {', '.join(short)}" if short else ""
    return Outcome(figures, {c: np.concatenate(v) for c, v in columns.items()}, {}, note, facts)


def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """Distance from the exact posterior against the number of rows, a picture a source."""
    pictures = []
    names = list(dict.fromkeys(c.method for c in cells if c.method != EXACT))
    shades = colours(["method", *names])
    for source in options["sources"]:
        case = cases()[source]
        ks = [k for k in case.shots if k != DRAWN]
        with matplotlib.rc_context(STYLE):
            canvas = Canvas(figsize=(4.6, 3.6))
            axes = canvas.add_subplot()
            for name in names:
                found = {
                    f.setting: f.value
                    for c in cells
                    if c.method == name
                    for f in c.figures
                    if f.metric == "gap"
                }
                values = [found.get(f"{source}: K = {k}", np.nan) for k in ks]
                axes.plot(
                    range(len(ks)),
                    np.maximum(values, 1e-3),
                    "o-",
                    ms=4,
                    mec="white",
                    mew=0.6,
                    color=shades[name],
                    label=name,
                )
            axes.set_yscale("log")
            axes.set_xticks(range(len(ks)), [str(k) for k in ks])
            axes.set_xlabel("observed rows")
            axes.set_ylabel("nats a row above the exact posterior")
            axes.legend(ncols=1 + len(names) // 8)
            svg = to_svg(canvas, f"gap-{source}", f"Distance from the exact posterior, {source}")
        pictures.append(
            Picture(source, f"{case.what}. Marginal; 0 would be exact.", svg, wide=False)
        )
    return pictures


def sentence(cells: Sequence[Drawn]) -> str:
    """Who is nearest, and whether anyone is better than possible."""
    gaps: dict[str, list[float]] = {}
    below = []
    for c in cells:
        for f in c.figures:
            if f.metric == "gap":
                gaps.setdefault(c.method, []).append(f.value)
            if (
                f.metric in ("gap", "joint_gap")
                and f.error is not None
                and f.value < -2 * f.error - SLACK
            ):
                below.append(f"{c.method} at {f.setting}")
    if not gaps:
        return ""
    best = min(gaps, key=lambda n: np.mean(gaps[n]))
    text = f"{best} stays nearest to the exact posteriors, {np.mean(gaps[best]):.2f} nats a row above them on average. "
    return text + (
        f"Better than possible, so wrong: {', '.join(below)}."
        if below
        else "None is better than the exact one beyond two standard errors."
    )


_TOY = "Closed form, variances 1; NLL of a query row (Gordon et al. 2019, the toy problem)."
_G9 = "Computed before on other tasks (Harrison et al. 2018's sinusoid); ALPaCA trained for 10,000 iterations."
PROTOCOL = Protocol(
    name="oracles",
    title="How far from the exact posterior",
    lead=(
        "On these sources Bayes' rule can be carried out exactly, so that a method's distance from the best possible "
        "prediction is known: a KL divergence in nats per query row, for marginals and for all query rows jointly."
    ),
    papers=(
        'Harrison, Sharma & Pavone, "Meta-Learning Priors for Efficient Online Bayesian Regression", WAFR 2018',
        'Gordon et al., "Meta-Learning Probabilistic Inference for Prediction", ICLR 2019',
        'Bruinsma et al., "Autoregressive Conditional Neural Processes", ICLR 2023',
        'Finn, Xu & Levine, "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018',
    ),
    choices=(
        "Every method with its default settings, on tasks with none to all support rows; the same held-out tasks for all.",
        "`drawn`: as many support rows as in training.",
        "Joint densities of posteriors that are only known through draws are taken from a finite number of them, which overstates the gap.",
        "A gap below zero by more than two standard errors would be a leak or a wrong metric.",
    ),
    metrics={
        "gap": Metric("marginal NLL above the exact posterior's", "nats a row", "low"),
        "joint_gap": Metric("joint NLL above the exact posterior's", "nats a row", "low"),
        "nll": Metric("marginal NLL", "nats a row", "low"),
        "mse": Metric("MSE of the mean", "squared units of y", "low"),
    },
    methods=("np", "dkt", "platipus"),
    able=able("numbers", but=("ensemble", "stack")),
    budgets={
        "quick": {
            "sources": ["linear", "gp", "mean", "sinusoid"],
            "steps_share": 0.4,
            "tasks": 100,
            "samples": 64,
            "minutes": 0.2,
        },
        "full": {
            "sources": ["linear", "gp", "mean", "sinusoid", "sineline"],
            "steps_share": 4.0,
            "tasks": 300,
            "samples": 256,
            "minutes": 2.0,
        },
    },
    without={"ensemble": "several emaml, which runs by itself"},
    run=run,
    draw=draw,
    references=(EXACT,),
    anchors=(
        Anchor("closed form", "mean: K = 5", "nll", 1.49601, _TOY),
        Anchor("closed form", "mean: K = 10", "nll", 1.46244, _TOY),
        *(
            Anchor("exact, computed before", f"sinusoid: K = {k}", "nll", v, _G9)
            for k, v in ((0, 1.912), (1, 1.119), (2, 0.095), (5, -0.326), (10, -0.442))
        ),
        *(
            Anchor("ALPaCA, computed before", f"sinusoid: K = {k}", "nll", v, _G9)
            for k, v in ((0, 1.943), (1, 1.337), (2, 0.409), (5, -0.108), (10, -0.284))
        ),
    ),
    sentence=sentence,
)
