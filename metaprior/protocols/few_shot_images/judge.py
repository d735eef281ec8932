"""Classes from one or a few images: judging episodes, Lake's runs, and what needs no training."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.errors import InputError
from metaprior.evaluation import calibration
from metaprior.protocols.cell import item_of
from metaprior.protocols.few_shot_images.data import MINIMAL, Pictures, Runs
from metaprior.protocols.few_shot_images.predicted import classes_of, compact, judge
from metaprior.protocols.few_shot_images.training import (
    NETS,
    draw_tasks,
    drawn_classes,
    episodes,
    sized,
    train,
)
from metaprior.protocols.pooled import expected, pooled
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import joined, task_rows
from metaprior.tables.baselines.hausdorff import distances
from metaprior.task import Data, Task

HAUSDORFF, GUESSING = "hausdorff", "guessing"  # the references
TEST_KEY = 90210  # of the tasks that are judged
LAKE_WAY = 20  # classes of one of Lake's runs
BOTH_MINIMAL = f"mean of {' and '.join(MINIMAL)}"


class Part(NamedTuple):
    """Figures, raw predictions, and arrays that are drawn, of one setting."""

    figures: list[Figure]
    table: dict[str, np.ndarray]
    drawing: dict[str, np.ndarray]


def title(way: int, shot: int) -> str:
    """How figures name a number of classes and of images shown of each."""
    return f"{way}-way {shot}-shot"


def run_of(name: str) -> str:
    """How figures name Lake's runs after training on a background."""
    return f"20 runs, {name}"


def run_tasks(runs: Runs) -> Task:
    """Lake's runs as tasks."""
    count, way = runs.answer.shape

    def data(images: np.ndarray, classes: np.ndarray) -> Data:
        x = jnp.asarray(images.reshape(count, way, -1), jnp.float32) / 255
        y = jnp.asarray(classes, jnp.float32)[..., None]
        return Data(x, y, jnp.ones((count, way), bool))

    names = np.broadcast_to(np.arange(way), (count, way))
    return Task(data(runs.support, names), data(runs.query, runs.answer))


def measure(
    setting: str, p: np.ndarray, y: np.ndarray, classes: np.ndarray | None = None
) -> tuple[list[Figure], dict[str, np.ndarray]]:
    """Figures and raw predictions of one setting.

    Args:
        setting: its name.
        p: probabilities, `(t, n, c)`.
        y: classes, `(t, n)`.
        classes: which classes of all each task has, `(t, way)`, where several tasks share some.
    """
    t, n, way = p.shape
    came = np.take_along_axis(p, y[..., None], 2)[..., 0]
    nll, best = -np.log(np.maximum(came, 1e-12)), p.argmax(-1)
    figures = [
        Figure.of(setting, "accuracy", (best == y).mean(1), classes),
        Figure.of(setting, "nll", nll.mean(1), classes),
        pooled(setting, "ece", calibration.ece, p, y),
        expected(setting, "ece", calibration.ece, p),
    ]
    columns = task_rows(setting, t, n) | {
        "y": y.ravel(),
        "predicted": best.ravel(),
        "nll": nll.ravel(),
    }
    for k in range(way):
        columns[f"p_{k}"] = p[..., k].ravel().astype(np.float32)
    return figures, columns


def error_of(name: str, wrong: np.ndarray) -> Figure:
    """Share of wrong answers in Lake's runs `(runs, 20)`, with its standard error over runs."""
    return Figure.of(run_of(name), "error", wrong.mean(1))


def backgrounds_of(options: dict[str, Any], data: Pictures) -> list[str]:
    """What is trained on for Lake's runs, where they are there."""
    if data.runs is None:
        return []
    return [name for name in options["backgrounds"] if name in data.parts]


def guess(options: dict[str, Any], data: Pictures) -> Outcome:
    """What giving every class the same probability comes to, in every setting."""
    figures = []
    for way, shot in data.settings:
        setting = f"{data.name}, {title(way, shot)}"
        figures.append(Figure(setting, "accuracy", 1 / way))
        figures.append(Figure(setting, "nll", float(np.log(way))))
    for name in backgrounds_of(options, data):
        figures.append(Figure(run_of(name), "error", 1 - 1 / LAKE_WAY))
        figures.append(Figure(run_of(name), "nll", float(np.log(LAKE_WAY))))
    return Outcome(figures, {})


def rows_for(data: Pictures, options: dict[str, Any]) -> tuple[int, int]:
    """Support and query rows of the largest task, to which all are padded."""
    support = max(way * shot for way, shot in data.settings)
    query = options["query"] * max(way for way, _ in data.settings)
    return support, max(LAKE_WAY, query)


def run(method: str, seed: int, options: dict[str, Any], data: Pictures, tell: Tell) -> Outcome:
    """Train and judge one method."""
    if method == HAUSDORFF:
        return hausdorff(data, tell)
    if method == GUESSING:
        return guess(options, data)
    if options["net"] not in NETS:
        raise InputError(f"--set net takes {' or '.join(NETS)}; got {options['net']!r}.")
    data = data.of_seed(seed)
    data = data if options["size"] else sized(data, options["side"])
    data = replace(data, rotations=data.rotations or options.get("rotate_own", False))
    ways = sorted({way for way, _ in data.settings})
    ways = ways if options["every_way"] else ways[-1:]
    backgrounds = backgrounds_of(options, data)
    trainings = len(ways) + len(backgrounds)

    parts: list[Part] = []
    facts: dict[str, Any] = {}
    remarks = list(data.remarks)
    for i, slots in enumerate(ways):
        told = item_of(tell, i, trainings)
        classes = (data.parts["train"], data.parts["val"])
        found = train(method, seed, data, classes, slots, options, told, False)
        learner, facts[f"{slots}-way"], remark = found
        remarks += [remark] if remark else []
        for way, shot in data.settings:
            # the smallest network that has as many classes
            if slots == min(w for w in ways if w >= way):
                told(1.0, f"judging {data.name}, {title(way, shot)}")
                part, said = of_episodes(learner, data, slots, (way, shot), options, not parts)
                parts.append(part)
                remarks += said

    wrong = {}
    for i, name in enumerate(backgrounds):
        told = item_of(tell, len(ways) + i, trainings)
        classes = _with_validation(data.parts[name], seed)
        found = train(method, seed, data, classes, LAKE_WAY, options, told, True)
        learner, facts[name], remark = found
        remarks += [f"{name}: {remark}"] if remark else []
        part, wrong[name] = of_runs(name, learner, data, options)
        parts.append(part)
    figures = [figure for part in parts for figure in part.figures]
    if set(MINIMAL) <= set(wrong):
        figures.append(error_of(BOTH_MINIMAL, np.mean([wrong[name] for name in MINIMAL], axis=0)))
    drawing = {name: array for part in parts for name, array in part.drawing.items()}
    tables = [part.table for part in parts]
    return Outcome(figures, joined(tables), drawing, "; ".join(remarks), facts)


def _with_validation(classes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An eighth of the classes of a background choose the step; the others train."""
    order = np.random.default_rng(seed).permutation(len(classes))
    held = classes[order[: max(6, len(classes) // 8)]]
    return np.setdiff1d(classes, held), held


def of_episodes(
    learner: Any,
    data: Pictures,
    slots: int,
    setting: tuple[int, int],
    options: dict[str, Any],
    with_example: bool,
) -> tuple[Part, list[str]]:
    """One setting of episodes, and remarks.

    Args:
        learner: what is judged.
        data: the images.
        slots: classes that the network tells apart.
        setting: classes of a task, and images shown of each.
        options: of the budget.
        with_example: whether a task is kept for a picture.
    """
    way, shot = setting
    name = f"{data.name}, {title(way, shot)}"
    source = episodes(data, data.parts["test"], way, shot, options["query"], slots=slots)
    few = len(data.parts["test"]) - len(source.count)
    remarks = []
    if few:
        images = shot + source.query
        classes = "class" if few == 1 else "classes"
        remarks.append(f"{name}: {few} {classes} with fewer than {images} images left out")

    key = jr.key(TEST_KEY + 10 * way + shot)
    tasks = draw_tasks(source, key, options["tasks"])
    classes = drawn_classes(source, key, options["tasks"])
    rows, samples = rows_for(data, options), options["samples"]
    p = judge(learner, tasks, TEST_KEY, samples, slots, rows)
    p, y, names = compact(p, classes_of(tasks.query), classes_of(tasks.support))
    figures, table = measure(name, p, y, np.asarray(classes))
    drawing = reliability(name, p, y)
    if with_example:
        drawing |= example(tasks, p, y, names, data)
    return Part(figures, table, drawing), remarks


def of_runs(
    name: str, learner: Any, data: Pictures, options: dict[str, Any]
) -> tuple[Part, np.ndarray]:
    """Lake's runs after training on a background, and which answers were wrong, `(runs, 20)`."""
    assert data.runs is not None
    tasks = run_tasks(data.runs)
    rows, samples = rows_for(data, options), options["samples"]
    p = judge(learner, tasks, TEST_KEY, samples, LAKE_WAY, rows)
    y = classes_of(tasks.query)
    wrong = (p.argmax(-1) != y).astype(float)
    (_, *figures), table = measure(run_of(name), p, y)  # the error says what the accuracy would
    drawing = {f"wrong {name}": wrong.mean(1), **reliability(run_of(name), p, y)}
    return Part([error_of(name, wrong), *figures], table, drawing), wrong


def reliability(setting: str, p: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Bins of the most probable class: rows, stated, came true."""
    confidence, hit = calibration.top(p.reshape(-1, p.shape[-1]), y.ravel())
    return {f"bins {setting}": np.stack(calibration.equal_width(confidence, hit))}


def example(
    tasks: Task, p: np.ndarray, y: np.ndarray, names: np.ndarray, data: Pictures
) -> dict[str, np.ndarray]:
    """The first task, the same for every method: an image of each class, and query images."""
    t = 0
    shape = data.images.pixels.shape[1:]
    support = np.asarray(tasks.support.x[t]).reshape(-1, *shape)
    query = np.asarray(tasks.query.x[t]).reshape(-1, *shape)
    slot = classes_of(tasks.support)[t]
    first = [int(np.flatnonzero(slot == name)[0]) for name in names[t]][:5]
    shown = np.flatnonzero(y[t] < 5)
    shown = shown[np.linspace(0, len(shown) - 1, min(6, len(shown))).round().astype(int)]
    return {
        "example support": support[first],
        "example query": query[shown],
        "example p": p[t][shown][:, :5],
        "example y": y[t][shown],
    }


def hausdorff(data: Pictures, tell: Tell) -> Outcome:
    """No learning: the class whose drawing is nearest in the modified Hausdorff distance."""
    if data.runs is None:
        return Outcome([], {}, note="needs Lake's runs, which are not among these images")
    answer = data.runs.answer
    nearest: list[np.ndarray] = []
    for i, (support, query) in enumerate(zip(*data.runs.full)):
        tell(i / len(answer), "comparing drawings")
        nearest.append(distances(query, support).argmin(1))
    found = np.array(nearest)
    name, wrong = "no background", (found != answer).astype(float)
    columns = task_rows(run_of(name), *answer.shape) | {
        "y": answer.ravel(),
        "predicted": found.ravel(),
    }
    return Outcome([error_of(name, wrong)], columns, {f"wrong {name}": wrong.mean(1)})
