"""The part `rows`: which row to observe next, the learned rule beside variance and chance."""

from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax.random as jr
import numpy as np

from metaprior.heads import Gaussian, StudentT
from metaprior.method import Spec
from metaprior.protocols.active_learning import data as tables
from metaprior.protocols.active_learning.judge import LINES, asked_of
from metaprior.protocols.active_learning.labelling import Uneven
from metaprior.protocols.cell import item_of, part_of, trained
from metaprior.protocols.learned_acquisition.boards import drawn
from metaprior.protocols.learned_acquisition.choosing import at_random, choose, feature, learn
from metaprior.protocols.learned_acquisition.part import Part
from metaprior.protocols.learned_acquisition.rows_pictures import draw, sentence
from metaprior.protocols.protocol import Anchor, Figure, Metric, Outcome, Tell
from metaprior.protocols.raw import joined, task_rows
from metaprior.sources import SineLine
from metaprior.task import Task

CELL, METHOD = "process row by row", "process"
WEATHER = "weather"
RULES = ("random", "variance", "learned")
LABELS = 8
PACKAGED = "weather_airport_days.parquet"


class World(NamedTuple):
    """A setting.

    Args:
        spec: of its tasks.
        source: of tasks to train on, the pool as their support.
        shown: the same with a pool as it is judged.
        tasks: that are judged, stacked.
        unit: of each, those that share one are no independent evidence.
    """

    spec: Spec
    source: Any
    shown: Any
    tasks: Task
    unit: np.ndarray


def lines(count: int, seed: int) -> World:
    """Sine waves and lines, as in `active-learning`."""
    source = SineLine(30, 20)
    tasks = drawn(SineLine(30, 30), jr.split(jr.fold_in(jr.key(60_001), seed), count))
    return World(Spec(1, Gaussian(1)), source, source, tasks, np.arange(count))


def weather(count: int, seed: int) -> World:
    """Days at airports, as in `active-learning`; the table is in the package."""
    subject = tables.SUBJECTS[WEATHER]._replace(file=PACKAGED)
    with resources.as_file(resources.files("metaprior.data") / PACKAGED) as path:
        rows = tables.read_rows(Path(path).parent, subject)
    fold = tables.fold_of(rows, subject, seed % 5)
    asked = asked_of(rows, subject, fold, METHOD, count, seed, jr.fold_in(jr.key(60_003), seed))
    source, shown = (tables.Pools(fold.table, pool) for pool in (tables.POOL, subject.pool))
    spec = Spec(fold.table.x.shape[1], StudentT(1))
    return World(spec, source, shown, asked.tasks, asked.unit)


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Train a process, learn the rule from the same tasks, and choose rows by every rule."""
    figures: list[Figure] = []
    rows, drawing, facts = [], {}, {}
    worlds = {LINES: lines, WEATHER: weather}
    for i, (setting, make) in enumerate(worlds.items()):
        told = item_of(tell, i, len(worlds), setting)
        world = make(options["tasks"], seed)
        steps = options["steps"][setting]
        uneven = Uneven(world.source, LABELS)
        learner, own = trained(METHOD, world.spec, uneven, seed, steps, part_of(told, 0.0, 0.5))
        keys = jr.split(jr.fold_in(jr.key(60_004), seed), options["states"])
        simulated = drawn(world.shown, keys)
        how = {"rounds": 1, "few": options["few"], "by": "nll"}
        rule = learn(learner, simulated, (0, LABELS), **how, tell=part_of(told, 0.5, 0.8))
        facts[setting] = own | {"drops": rule.drops, "explained": round(rule.explained, 4)}

        scores = (at_random(seed), feature("variance"), rule)
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, score in zip(RULES, scores):
            told(0.8, name)
            chosen = choose(learner, world.tasks, score, 0, LABELS)
            found[name] = {
                what: _means(getattr(chosen, what), world.tasks) for what in ("nll", "error")
            }
            picked = np.pad(chosen.order[:, :LABELS], [(0, 0), (0, 1)], constant_values=-1)
            rows.append(
                task_rows(setting, len(picked), LABELS + 1)
                | {"rule": np.full(picked.size, name), "picked": picked.ravel().astype(np.float32)}
                | {what: values.ravel() for what, values in found[name].items()}
            )
            drawing[f"rows {name} {setting}"] = found[name]["nll"].mean(0)
        figures += figures_of(setting, found, world.unit)
    return Outcome(figures, joined(rows), drawing, facts=facts)


def _means(each: np.ndarray, tasks: Task) -> np.ndarray:
    """Means over the judged rows, `(t, k)`, of values `(k, t, q)`."""
    mask = np.asarray(tasks.query.mask)
    return (np.where(mask, each, 0.0).sum(-1) / mask.sum(-1)).T


def figures_of(
    setting: str, found: dict[str, dict[str, np.ndarray]], unit: np.ndarray
) -> list[Figure]:
    """The area of each rule, and how much less that of the learned one is, task by task."""
    units = np.unique(unit, return_inverse=True)[1]
    figures = []
    for what in ("nll", "error"):
        area = {}
        for name in RULES:
            each = found[name][what][:, 1:].mean(1)
            # tasks of a unit are one piece of evidence
            area[name] = np.bincount(units, each) / np.bincount(units)
            figures.append(Figure.of(setting, f"rows_{what}_{name}", area[name]))
        for name in RULES[:2]:
            gain = area[name] - area["learned"]
            figures.append(Figure.of(setting, f"rows_{what}_gain_{name}", gain))
    return figures


_QUICK = {
    "tasks": 200,
    "states": 2_000,
    "few": 4,
    "steps": {LINES: 1_500, WEATHER: 600},
}
_METRICS = {
    f"rows_{what}_{name}": Metric(f"{label}, {name}", unit, "low")
    for what, label, unit in (("nll", "NLL", "nats a row"), ("error", "squared error", "variances"))
    for name in RULES
} | {
    f"rows_{what}_gain_{name}": Metric(f"{label}, {name} less learned", unit, "high")
    for what, label, unit in (("nll", "NLL", "nats a row"), ("error", "squared error", "variances"))
    for name in RULES[:2]
}
ROWS_PART = Part(
    budgets={
        "quick": _QUICK,
        "full": _QUICK
        | {"tasks": 1_000, "states": 10_000, "steps": {LINES: 20_000, WEATHER: 3_000}},
    },
    choices=(
        "Rows: the tasks of `active-learning`, sine waves or lines and days at airports, the "
        "method process. Figures are means over 1 to 8 observed rows of a pool. Learned: the rule "
        "of `suggest --by learned`, regressed on the drop of NLL in tasks of the training source, "
        "or in training groups, where random rows are observed. Gains are differences task by "
        "task; days of one date count once.",
    ),
    metrics=_METRICS,
    references=(CELL,),
    methods=False,
    run=run,
    draw=draw,
    sentence=sentence,
    anchors=tuple(
        Anchor(
            "the same rule",
            setting,
            f"rows_nll_gain_{name}",
            0.0,
            "By definition: what a rule gains that is no better.",
        )
        for setting in (LINES, WEATHER)
        for name in RULES[:2]
    ),
)
