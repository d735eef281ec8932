"""Classes from one or a few images: Omniglot's episodes, Lake's one-shot runs, or a user's own
folders.
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.evaluation import calibration
from metaprior.protocols.few_shot_images.data import MINIMAL, Pictures, Runs
from metaprior.protocols.few_shot_images.pictures import GUESSING
from metaprior.protocols.few_shot_images.training import (
    TEST_KEY,
    draw_tasks,
    episodes,
    sized,
    train,
)
from metaprior.protocols.protocol import Figure, Outcome
from metaprior.tables.baselines.hausdorff import distances
from metaprior.task import Data, Task

HAUSDORFF = "hausdorff"


CHUNK = 20  # tasks in one call


def title(way: int, shot: int) -> str:
    """A setting's name."""
    return f"{way}-way {shot}-shot"


@eqx.filter_jit
def _judge(learner, tasks: Task, key, samples: int, slots: int):
    def one(pair):
        task, k = pair
        keys = jr.split(k)
        posterior = learner.posterior(task.support, key=keys[0])
        p = posterior.predict(task.query.x, key=keys[1], samples=samples).mean()
        shown = (
            jax.nn.one_hot(task.support.y[:, 0].astype(int), slots) * task.support.mask[:, None]
        ).sum(0) > 0
        p = jnp.where(shown, p, 0.0)
        return p / jnp.maximum(p.sum(-1, keepdims=True), 1e-30)

    return jax.lax.map(one, (tasks, jr.split(key, tasks.support.x.shape[0])))


def judge(
    learner, tasks: Task, seed: int, samples: int, slots: int, rows: tuple[int, int]
) -> np.ndarray:
    """Probabilities of the classes that the support shows, renormalised, `(t, n, slots)`.

    Support and query are padded to `rows` and tasks to multiples of `CHUNK`: one program for all
    settings.
    """
    count, n = tasks.query.mask.shape

    def longer(data, size):
        def more(a):
            return np.pad(
                a, [(0, -count % CHUNK), (0, size - a.shape[1])] + [(0, 0)] * (a.ndim - 2)
            )

        return jax.tree.map(more, jax.device_get(data))

    tasks = Task(longer(tasks.support, rows[0]), longer(tasks.query, rows[1]))
    found = []
    for start in range(0, count, CHUNK):
        part = jax.tree.map(lambda a: jnp.asarray(a[start : start + CHUNK]), tasks)
        found.append(np.asarray(_judge(learner, part, jr.key(seed + start), samples, slots)))
    return np.concatenate(found)[:count, :n]


def run_tasks(runs: Runs) -> Task:
    """Lake's runs as tasks."""
    count, way = runs.answer.shape

    def row(images):
        return jnp.asarray(images.reshape(count, way, -1), jnp.float32) / 255

    def y(classes):
        return jnp.asarray(classes, jnp.float32)[..., None]

    mask = jnp.ones((count, way), bool)
    names = np.broadcast_to(np.arange(way), (count, way))
    return Task(
        Data(row(runs.support), y(names), mask), Data(row(runs.query), y(runs.answer), mask)
    )


def measure(
    setting: str, p: np.ndarray, y: np.ndarray
) -> tuple[list[Figure], dict[str, np.ndarray]]:
    """Figures and rows of one setting, from probabilities `(t, n, c)` and classes `(t, n)`."""
    t, n, c = p.shape
    true = np.take_along_axis(p, y[..., None], 2)[..., 0]
    hit = p.argmax(-1) == y
    nll = -np.log(np.maximum(true, 1e-12))
    pooled = calibration.ece(p.reshape(-1, c), y.ravel())
    rng = np.random.default_rng(0)
    again = [rng.integers(0, t, t) for _ in range(100)]
    spread = (
        np.std([calibration.ece(p[i].reshape(-1, c), y[i].ravel()) for i in again], ddof=1)
        if t > 1
        else None
    )
    figures = [
        Figure.of(setting, "accuracy", hit.mean(1)),
        Figure.of(setting, "nll", nll.mean(1)),
        Figure(setting, "ece", pooled, None if spread is None else float(spread), t),
        Figure(
            setting,
            "ece_calibrated",
            *calibration.if_calibrated(calibration.ece, p.reshape(-1, c)),
            t,
        ),
    ]

    def row(v):
        return np.broadcast_to(v, (t, n)).ravel()

    columns = {
        "setting": np.full(t * n, setting),
        "task": row(np.arange(t)[:, None]),
        "row": row(np.arange(n)),
        "y": y.ravel(),
        "predicted": p.argmax(-1).ravel(),
        "nll": nll.ravel(),
    }
    return figures, columns | {f"p_{k}": p[..., k].ravel().astype(np.float32) for k in range(c)}


def runs_figures(name: str, wrong: np.ndarray) -> list[Figure]:
    """Share of wrong answers, with the standard error over runs."""
    return [Figure.of(f"20 runs, {name}", "error", wrong.mean(1))]


def guess(options: dict[str, Any], data: Pictures) -> Outcome:
    """What giving every class the same probability comes to, in every setting."""
    figures = []
    for way, shot in data.settings:
        setting = f"{data.name}, {title(way, shot)}"
        figures += [
            Figure(setting, "accuracy", 1 / way),
            Figure(setting, "nll", float(np.log(way))),
        ]
    if data.runs is not None:
        for name in (b for b in options["backgrounds"] if b in data.parts):
            figures += [
                Figure(f"20 runs, {name}", "error", 0.95),
                Figure(f"20 runs, {name}", "nll", float(np.log(20))),
            ]
    return Outcome(figures, {})


def run(method: str, seed: int, options: dict[str, Any], data: Pictures, tell) -> Outcome:
    """Train and judge one method."""
    if method == HAUSDORFF:
        return hausdorff(data, tell)
    if method == GUESSING:
        return guess(options, data)
    data = sized(data, options["side"])
    data = replace(data, rotations=data.rotations or options.get("rotate_own", False))
    found: dict[str, dict[str, np.ndarray]] = {}
    figures, facts, drawing = [], {}, {}
    ways = sorted({way for way, _ in data.settings})
    ways = ways if options["every_way"] else ways[-1:]
    runs = data.runs
    backgrounds = [b for b in options["backgrounds"] if b in data.parts] if runs is not None else []
    share, done = 1 / (len(ways) + len(backgrounds)), 0
    most = max(w for w, _ in data.settings)
    rows = (max(w * k for w, k in data.settings), max(20, options["query"] * most))

    def part(x, what):
        return tell((done + x) * share, what)

    remarks = list(data.remarks)
    for at in ways:
        parts = (data.parts["train"], data.parts["val"])
        learner, facts[f"{at}-way"] = train(method, seed, data, parts, at, options, part, False)
        done += 1
        for way, shot in data.settings:
            if at != min(w for w in ways if w >= way):
                continue
            setting = f"{data.name}, {title(way, shot)}"
            tell(done * share, f"judging {setting}")
            source = episodes(data, data.parts["test"], way, shot, options["query"], slots=at)
            few = len(data.parts["test"]) - len(source.count)
            if few:
                remarks.append(
                    f"{setting}: {few} class{'es' * (few > 1)} with fewer than {shot + source.query} images left out"
                )
            tasks = draw_tasks(source, jr.key(TEST_KEY + 10 * way + shot), options["tasks"])
            p = judge(learner, tasks, TEST_KEY, options["samples"], at, rows)
            y = np.asarray(tasks.query.y[..., 0]).astype(int)
            p, y, names = compact(p, y, np.asarray(tasks.support.y[..., 0]).astype(int))
            new, found[setting] = measure(setting, p, y)
            figures += new
            drawing |= reliability(setting, p, y)
            if not any(k.startswith("example") for k in drawing):
                drawing |= example(tasks, p, y, names, data)
    minimal = []
    for name in backgrounds:
        classes = data.parts[name]
        held = classes[
            np.random.default_rng(seed).permutation(len(classes))[: max(6, len(classes) // 8)]
        ]
        parts = (np.setdiff1d(classes, held), held)
        learner, facts[name] = train(method, seed, data, parts, 20, options, part, True)
        done += 1
        tasks = run_tasks(runs)  # ty: ignore[invalid-argument-type]
        p = judge(learner, tasks, TEST_KEY, options["samples"], 20, rows)
        y = np.asarray(tasks.query.y[..., 0]).astype(int)
        new, found[name] = measure(f"20 runs, {name}", p, y)
        wrong = (p.argmax(-1) != y).astype(float)
        figures += [*runs_figures(name, wrong), *new[1:]]
        drawing |= {f"wrong {name}": wrong.mean(1)} | reliability(f"20 runs, {name}", p, y)
        minimal += [wrong] if name in MINIMAL else []
    if len(minimal) == len(MINIMAL):
        figures += runs_figures("mean of small1 and small2", np.mean(minimal, axis=0))
    columns = {k for rows in found.values() for k in rows}

    def filled(rows, k):
        return rows[k] if k in rows else np.full(len(rows["y"]), np.nan, np.float32)

    predictions = {
        k: np.concatenate([filled(rows, k) for rows in found.values()]) for k in sorted(columns)
    }
    note = "; ".join(remarks)
    return Outcome(figures, predictions, drawing, note, facts)


def compact(p: np.ndarray, y: np.ndarray, names: np.ndarray):
    """Classes 0 … way - 1 in the order of the support, where labels were some of more slots."""
    order = np.stack(
        [row[np.sort(np.unique(row, return_index=True)[1])] for row in names]
    )  # (t, way)
    p = np.take_along_axis(p, order[:, None, :], axis=2)
    return p, (y[..., None] == order[:, None, :]).argmax(-1), order


def reliability(setting: str, p: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Bins of the most probable class: rows, stated, came true."""
    confidence, hit = calibration.top(p.reshape(-1, p.shape[-1]), y.ravel())
    return {f"bins {setting}": np.stack(calibration.equal_width(confidence, hit))}


def example(tasks: Task, p, y, names, data: Pictures) -> dict[str, np.ndarray]:
    """One task: an image of each class, and the query images whose prediction is least certain."""
    t = int(np.argmin(p.max(-1).mean(1)))  # of the tasks the hardest
    shape = data.images.pixels.shape[1:]
    support = np.asarray(tasks.support.x[t]).reshape(-1, *shape)
    first = [
        int(np.flatnonzero(np.asarray(tasks.support.y[t, :, 0]).astype(int) == name)[0])
        for name in names[t]
    ][:5]
    shown = np.flatnonzero(y[t] < 5)
    shown = shown[np.argsort(p[t][shown].max(-1))][:6]
    query = np.asarray(tasks.query.x[t]).reshape(-1, *shape)
    return {
        "example support": support[first],
        "example query": query[shown],
        "example p": p[t][shown][:, :5],
        "example y": y[t][shown],
    }


def hausdorff(data: Pictures, tell) -> Outcome:
    """No learning: the class whose drawing is nearest in the modified Hausdorff distance."""
    if data.runs is None:
        return Outcome([], {}, note="needs Lake's runs, which are not among these images")
    guesses = []
    for i, (support, query) in enumerate(zip(*data.runs.full)):
        tell(i / len(data.runs.answer), "comparing drawings")
        guesses.append(distances(query, support).argmin(1))
    guess, answer = np.array(guesses), data.runs.answer
    wrong = (guess != answer).astype(float)
    rows = np.indices(answer.shape)
    columns = {
        "setting": np.full(answer.size, "20 runs, no background"),
        "task": rows[0].ravel(),
        "row": rows[1].ravel(),
        "y": answer.ravel(),
        "predicted": guess.ravel(),
    }
    return Outcome(
        runs_figures("no background", wrong), columns, {"wrong no background": wrong.mean(1)}
    )
