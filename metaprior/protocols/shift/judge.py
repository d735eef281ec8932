"""What a change of the tasks costs: nats above the exact answer, coverage, spread."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.errors import InputError
from metaprior.heads import AbstractHead, Categorical, Gaussian, StudentT
from metaprior.method import AbstractLearner, Spec
from metaprior.methods import METHODS
from metaprior.protocols.cell import cut_short, item_of, part_of, to_numpy, trained
from metaprior.protocols.pooled import pooled
from metaprior.protocols.properties.judge import judge
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import joined, task_rows
from metaprior.protocols.shift.data import (
    MOST,
    Setting,
    as_arrays,
    settings,
    tasks_of_training,
    trained_on,
)
from metaprior.protocols.shift.labels import (
    WRONG_LABELS,
    LabelSetting,
    label_settings,
    labelled,
)
from metaprior.sources.exact import Known
from metaprior.task import Data, Task

EXACT, WRONG, PRIOR = "exact", "exact, trained prior", "prior alone"
REFERENCES = (EXACT, WRONG, PRIOR)
HEADS = {"student_t": StudentT, "gaussian": Gaussian}
TEST_KEY = 20261207
SAMPLES = 64  # draws of the function, for methods that have no closed form
COLUMNS = ("y", "mean", "variance", "nll", "pit")
LEVEL = 0.9  # of the bands
BAND = 1.645  # standard deviations, in pictures
SEEN = ("unshifted", "other x", "beyond rows", "periodic", "row far off")
Rows = dict[str, np.ndarray]


class Part(NamedTuple):
    """What is trained once: tasks with numbers, or with labels.

    Args:
        head: of the outcomes.
        source: of the training tasks.
        settings: kinds of tasks to judge on, by name, that of training first.
        known: the tasks of training, as the trained prior knows them.
    """

    head: AbstractHead
    source: Any
    settings: Mapping[str, Setting | LabelSetting]
    known: Any


def parts(options: Mapping[str, Any]) -> dict[str, Part]:
    """By what is predicted."""
    if options["head"] not in HEADS:
        raise InputError(f"shift has the heads {', '.join(HEADS)}; got {options['head']!r}.")
    seen = options["seen"]
    wrong = WRONG_LABELS if seen else 0.0
    return {
        "numbers": Part(
            HEADS[options["head"]](1), tasks_of_training(seen), settings(), trained_on(MOST)
        ),
        "classes": Part(Categorical(2), labelled(wrong, fewest=0), label_settings(), labelled()),
    }


def every_setting() -> dict[str, Setting | LabelSetting]:
    """By name, of both parts."""
    return {**settings(), **label_settings()}


@functools.lru_cache
def held_out(name: str, count: int) -> Task:
    """The judged tasks of a setting."""
    return every_setting()[name].tasks(jr.split(jr.key(TEST_KEY), count))


def said(learner: AbstractLearner, name: str, count: int, seed: int = 0) -> Rows:
    """What a learner says of the rows of the judged tasks of a setting, `(t, n)`."""
    return judged(learner, held_out(name, count), seed, name in label_settings())


def judged(learner: AbstractLearner, some: Task, seed: int, classes: bool = False) -> Rows:
    """What a learner says of the query rows of stacked tasks, `(t, n)`."""
    pair = (some, some.query.y[..., 0])
    found = judge(as_arrays(learner), pair, classes, SAMPLES, jr.key(seed))
    return to_numpy(found, np.float64)


@functools.lru_cache
def exact(name: str, count: int) -> Rows:
    """The rows of the exact posterior, which knows the setting."""
    return said(every_setting()[name].exact, name, count)


def bands(learner: AbstractLearner, name: str, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """What a picture shows of the first judged task of a setting: band, rows shown, rows asked.

    The band is asked for as if it were the rows of `count` tasks, by the program that judges them.
    """
    first = jax.tree.map(lambda a: a[:1], held_out(name, count))
    shown, asked = (np.stack([d.x[0, :, 0], d.y[0, :, 0]]) for d in (first.support, first.query))
    shown = shown[:, np.asarray(first.support.mask[0])]
    each = np.concatenate([shown[0], asked[0]])
    x = np.linspace(each.min(), each.max(), count * asked.shape[1], dtype=np.float32)
    support = jax.tree.map(lambda a: jnp.repeat(a, count, 0), first.support)
    blocks = jnp.asarray(x.reshape(count, -1, 1))
    query = Data(blocks, jnp.zeros_like(blocks), jnp.ones(blocks.shape[:2], bool))
    found = judged(learner, Task(support, query), seed)
    mean, half = found["mean"].ravel(), BAND * np.sqrt(found["variance"].ravel())
    band = np.stack([x, mean - half, mean + half])[:, :: max(1, len(x) // 200)]
    return {f"band {name}": band, f"rows {name}": shown, f"asked {name}": asked}


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Train on one kind of tasks, and judge on it and on every change of it."""
    figures, tables, drawing, facts, notes = [], [], {}, {}, []
    todo = parts(options)
    if method not in REFERENCES and "classes" not in METHODS[method].kinds:
        notes.append(f"{method} does not predict labels")
        del todo["classes"]
    for i, (kind, part) in enumerate(todo.items()):
        told, learner = item_of(tell, i, len(todo), kind), None
        if method not in REFERENCES:
            task = part_of(told, 0.0, 0.8)
            spec, steps = Spec(1, part.head), options["steps"]
            learner, found = trained(method, spec, part.source, seed, steps, task)
            notes += [f"{kind}: {note}" for note in [cut_short(found)] if note]
            seconds = facts.get("train_seconds", 0.0) + found.get("train_seconds", 0.0)
            facts = found | {"train_seconds": round(seconds, 1)}
        own: dict[str, Rows] = {}
        base, *_ = part.settings
        for j, (name, setting) in enumerate(part.settings.items()):
            part_of(told, 0.8, 1.0)(j / len(part.settings), f"judging, {name}")
            count = options["tasks"]
            best = exact(name, count)
            if learner is None and method != EXACT:
                reference = Known(part.known, looks=method == WRONG)
                own[name] = said(reference, name, count)
            else:
                own[name] = best if learner is None else said(learner, name, count, seed)
            true = {base: exact(base, count), name: best}
            figures += measure(name, base, own, true, bool(setting.moved))
            if name in SEEN and method not in (WRONG, PRIOR):
                drawing |= bands(learner or setting.exact, name, count, seed)
            t, n = best["y"].shape
            columns = {c: own[name][c].ravel() for c in COLUMNS if c in own[name]}
            tables.append(task_rows(name, t, n) | columns | {"exact_nll": best["nll"].ravel()})
    return Outcome(figures, joined(tables), drawing, "; ".join(notes), facts)


def covered(pit: np.ndarray) -> np.ndarray:
    """Whether outcomes are in the middle `LEVEL`, from where they are in what was said."""
    return np.abs(pit - 0.5) <= LEVEL / 2


def spread(variance: np.ndarray, error: np.ndarray) -> float:
    """The stated deviation over the root of the mean squared error."""
    return float(np.sqrt(variance.mean() / np.square(error).mean()))


def measure(
    name: str, base: str, own: dict[str, Rows], best: dict[str, Rows], moved: bool
) -> list[Figure]:
    """The figures of a setting.

    Args:
        name, base: of the setting, and of that of training.
        own: what the learner says, in both.
        best: the same of the exact posterior.
        moved: whether the tasks are those of `base` but for outcomes that are wrong.
    """
    gap = {place: (own[place]["nll"] - best[place]["nll"]).mean(1) for place in best}
    here = own[name]
    figures = [
        Figure.of(name, "gap", gap[name]),
        Figure.of(name, "nll", here["nll"].mean(1)),
    ]
    if "pit" in here:  # numbers
        error = here["mean"] - here["y"]
        figures.append(Figure.of(name, "coverage90", covered(here["pit"]).mean(1)))
        figures.append(pooled(name, "spread", spread, here["variance"], error))
    if name != base:
        figures.append(Figure.of(name, "added", gap[name] - gap[base]))
    if moved:
        figures.append(Figure.of(name, "lost", (here["nll"] - own[base]["nll"]).mean(1)))
    return figures
