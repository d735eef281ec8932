"""The part `boards`: which point to label next, where uncertainty is a bad guide."""

from typing import Any

import jax
import jax.random as jr
import numpy as np

from metaprior.protocols.cell import item_of, part_of
from metaprior.protocols.learned_acquisition.boards_pictures import draw, sentence
from metaprior.protocols.learned_acquisition.boards_world import Boards, Clouds, Points
from metaprior.protocols.learned_acquisition.choosing import (
    Score,
    at_random,
    choose,
    feature,
    learn,
)
from metaprior.protocols.learned_acquisition.forest import Forest
from metaprior.protocols.learned_acquisition.part import Part
from metaprior.protocols.protocol import Figure, Metric, Outcome, Tell
from metaprior.protocols.raw import joined, task_rows
from metaprior.system.compiled import jit
from metaprior.task import Task

RANDOM, UNCERTAIN = "random points", "most uncertain"
CLOUDS = "learned from clouds"
FIRST = 2  # points that have a label before any is chosen, one of each class
POINTS = Points()
SETTINGS = {
    "2 x 2": Boards(POINTS, 0.5),
    "4 x 4": Boards(POINTS, 0.25),
    "2 x 2, turned": Boards(POINTS, 1.0, np.pi / 4),  # with 0.5 its corners would have fields more
    "clouds": Clouds(POINTS),
}
TEST_KEY, TRAIN_KEY = 20261203, 20261204


@jit
def drawn(source: Any, keys) -> Task:
    """A task a key."""
    return jax.vmap(source)(keys)


def rule_of(
    method: str, learner: Any, seed: int, options: dict[str, Any], tell: Tell
) -> tuple[Score, dict[str, Any]]:
    """What chooses, and facts of how it was learned."""
    if method == RANDOM:
        return at_random(seed), {}
    if method == UNCERTAIN:
        return feature("entropy"), {}
    keys = jr.split(jr.fold_in(jr.key(TRAIN_KEY), seed), options["states"])
    tasks = drawn(Clouds(POINTS), keys)
    room = FIRST, options["labels"]
    how = {name: options[name] for name in ("rounds", "few")}
    rule = learn(learner, tasks, room, **how, by="error", tell=tell)
    return rule, {"drops": rule.drops, "explained": round(rule.explained, 4)}


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Learn the rule, if it is one, and label the points of every board with it."""
    forest, most = Forest(options["trees"]), options["labels"]
    score, facts = rule_of(method, forest, seed, options, part_of(tell, 0.0, 0.6))
    figures, tables, drawing = [], [], {}
    for i, (setting, source) in enumerate(SETTINGS.items()):
        item_of(part_of(tell, 0.6, 1.0), i, len(SETTINGS))(0.0, setting)
        keys = jr.split(jr.fold_in(jr.key(TEST_KEY), i), options["tasks"])
        tasks = drawn(source, keys)
        found = choose(forest, tasks, score, FIRST, most)
        error = found.error.mean(-1).T  # (t, k)
        figures.append(Figure.of(setting, "board_error", error[:, 1:].mean(1)))
        figures.append(Figure.of(setting, "board_last", error[:, -1]))
        places = np.take_along_axis(np.asarray(tasks.support.x), found.order[:, :most, None], 1)
        labels = np.take_along_axis(np.asarray(tasks.support.y)[..., 0], found.order[:, :most], 1)
        tables.append(
            task_rows(setting, len(error), most)
            | {
                "place_x": places[..., 0].ravel(),
                "place_y": places[..., 1].ravel(),
                "label": labels.ravel(),
                # after this label; before the second there is nothing to learn from
                "error": np.pad(error, [(0, 0), (FIRST - 1, 0)], constant_values=np.nan).ravel(),
            }
        )
        drawing[f"boards {setting}"] = error.mean(0)
        drawing[f"boards places {setting}"] = places[0]
        drawing[f"boards labels {setting}"] = labels[0]
    return Outcome(figures, joined(tables), drawing, facts=facts)


_QUICK = {"labels": 24, "trees": 50, "tasks": 40, "states": 300, "rounds": 2, "few": 4}
BOARD_PART = Part(
    budgets={"quick": _QUICK, "full": _QUICK | {"tasks": 300, "states": 2_000, "labels": 50}},
    choices=(
        "Boards: 100 points in the unit square may be labelled and 200 others are judged; two have "
        "a label at first, one of each class. The learner is a random forest of 50 trees, as in "
        "Konyushkova et al.; trees have at most seven splits on a path. Error: the share of wrong "
        "classes, its mean over all numbers of labels.",
        f"“{UNCERTAIN}”: the point whose predicted class is the least sure. “{CLOUDS}”: expected "
        "drop of the error, regressed on tasks of two normal clouds alone; boards were never "
        "seen. Half of the simulated tasks have random labels, the other half those that the rule "
        "of the first half chooses.",
        "Features of a point are the package's, those of `suggest --by learned`: what the forest "
        "says of it, how many points are labelled, and how far they are. The paper's are of "
        "the forest alone. The setting “clouds” is what the rule was learned on: there "
        "uncertainty is a good guide.",
    ),
    metrics={
        "board_error": Metric("error, mean over labels", "share", "low"),
        "board_last": Metric("error with all labels", "share", "low"),
    },
    references=(RANDOM, UNCERTAIN, CLOUDS),
    methods=False,
    run=run,
    draw=draw,
    sentence=sentence,
)
