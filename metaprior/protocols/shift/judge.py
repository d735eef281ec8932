"""What a change of the tasks costs: nats above the exact answer, coverage, spread."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.errors import InputError
from metaprior.heads import Gaussian, StudentT
from metaprior.method import AbstractLearner, Spec
from metaprior.protocols.cell import cut_short, item_of, part_of, to_numpy, trained
from metaprior.protocols.pooled import pooled
from metaprior.protocols.properties.judge import judge
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import joined, task_rows
from metaprior.protocols.shift.data import (
    MOST,
    UNSHIFTED,
    Setting,
    as_arrays,
    held_out,
    settings,
    tasks_of_training,
    trained_on,
)
from metaprior.sources.exact import Known
from metaprior.task import Data, Task

EXACT, WRONG, PRIOR = "exact", "exact, trained prior", "prior alone"
REFERENCES = (EXACT, WRONG, PRIOR)
HEADS = {"student_t": StudentT, "gaussian": Gaussian}
SAMPLES = 64  # draws of the function, for methods that have no closed form
COLUMNS = ("y", "mean", "variance", "nll", "pit")
LEVEL = 0.9  # of the bands
BAND = 1.645  # standard deviations, in pictures
SEEN = ("unshifted", "other x", "beyond rows", "periodic", "row far off")
Rows = dict[str, np.ndarray]


def reference(name: str, setting: Setting) -> AbstractLearner:
    """What is known to be right, or does not look, in a setting."""
    if name == EXACT:
        return setting.exact
    return Known(trained_on(MOST), looks=name == WRONG)


def said(learner: AbstractLearner, name: str, count: int, seed: int = 0) -> Rows:
    """What a learner says of the rows of the judged tasks of a setting, `(t, n)`."""
    return judged(learner, held_out(name, count), seed)


def judged(learner: AbstractLearner, some: Task, seed: int) -> Rows:
    """What a learner says of the query rows of stacked tasks, `(t, n)`."""
    pair = (some, some.query.y[..., 0])
    found = judge(as_arrays(learner), pair, False, SAMPLES, jr.key(seed))
    return to_numpy(found, np.float64)


@functools.lru_cache
def exact(name: str, count: int) -> Rows:
    """The rows of the exact posterior, which knows the setting."""
    return said(settings()[name].exact, name, count)


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
    """Train on one process, and judge on it and on every change of it."""
    learner, facts = None, {}
    if options["head"] not in HEADS:
        raise InputError(f"shift has the heads {', '.join(HEADS)}; got {options['head']!r}.")
    if method not in REFERENCES:
        spec, source = Spec(1, HEADS[options["head"]](1)), tasks_of_training(options["seen"])
        told = part_of(tell, 0.0, 0.7)
        learner, facts = trained(method, spec, source, seed, options["steps"], told)
        facts |= {"head": options["head"], "seen": options["seen"]}
    figures, tables, drawing, count = [], [], {}, options["tasks"]
    own: dict[str, Rows] = {}
    told = part_of(tell, 0.7, 1.0)
    for i, (name, setting) in enumerate(settings().items()):
        item_of(told, i, len(settings()))(0.0, f"judging, {name}")
        best = exact(name, count)
        if method == EXACT:
            own[name] = best
        else:
            own[name] = said(learner or reference(method, setting), name, count, seed)
        figures += measure(name, own, {UNSHIFTED: exact(UNSHIFTED, count), name: best})
        if name in SEEN and method not in (WRONG, PRIOR):
            drawing |= bands(learner or setting.exact, name, count, seed)
        t, n = best["y"].shape
        columns = {column: own[name][column].ravel() for column in COLUMNS}
        tables.append(task_rows(name, t, n) | columns | {"exact_nll": best["nll"].ravel()})
    return Outcome(figures, joined(tables), drawing, cut_short(facts) if facts else "", facts)


def covered(pit: np.ndarray) -> np.ndarray:
    """Whether outcomes are in the middle `LEVEL`, from where they are in what was said."""
    return np.abs(pit - 0.5) <= LEVEL / 2


def spread(variance: np.ndarray, error: np.ndarray) -> float:
    """The stated deviation over the root of the mean squared error."""
    return float(np.sqrt(variance.mean() / np.square(error).mean()))


def measure(name: str, own: dict[str, Rows], best: dict[str, Rows]) -> list[Figure]:
    """The figures of a setting.

    Args:
        name: of the setting.
        own: what the learner says, by setting, in this one and unshifted.
        best: the same of the exact posterior.
    """
    gap = {place: (own[place]["nll"] - best[place]["nll"]).mean(1) for place in best}
    here = own[name]
    figures = [
        Figure.of(name, "gap", gap[name]),
        Figure.of(name, "coverage90", covered(here["pit"]).mean(1)),
        pooled(name, "spread", spread, here["variance"], here["mean"] - here["y"]),
        Figure.of(name, "nll", here["nll"].mean(1)),
    ]
    if name != UNSHIFTED:
        figures.append(Figure.of(name, "added", gap[name] - gap[UNSHIFTED]))
    if settings()[name].moved:  # the same tasks as unshifted, but for one outcome
        lost = (here["nll"] - own[UNSHIFTED]["nll"]).mean(1)
        figures.append(Figure.of(name, "lost", lost))
    return figures
