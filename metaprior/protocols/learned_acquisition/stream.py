"""The part `stream`: answer, or ask for the label."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Categorical
from metaprior.method import Spec
from metaprior.protocols.cell import cut_short, part_of, trained
from metaprior.protocols.few_shot_images.data import Pictures
from metaprior.protocols.few_shot_images.training import Network, sized
from metaprior.protocols.learned_acquisition.part import Part
from metaprior.protocols.learned_acquisition.stream_agents import (
    learn,
    play_by_rule,
    play_policy,
)
from metaprior.protocols.learned_acquisition.stream_pictures import draw, sentence
from metaprior.protocols.learned_acquisition.stream_world import (
    ASK,
    LENGTH,
    WAY,
    Played,
    Shown,
    Streams,
    instance,
    play_simple,
    reward,
    streams_of,
)
from metaprior.protocols.protocol import Anchor, Figure, Metric, Outcome, Tell
from metaprior.protocols.raw import task_rows
from metaprior.system.compiled import jit

ORACLE, INFERS, ASKS, GUESSES = "oracle", "oracle that infers", "always asks", "guesses"
POLICY = "learned policy"
SIMPLE = {ORACLE: "oracle", INFERS: "infers", ASKS: "ask", GUESSES: "guess"}
ALL = "stream"
SHOWN = (1, 2, 5, 10)  # images of a class that figures are given for, as in the paper
TEST_KEY, VALIDATION_KEY = 20261206, 20261207
EXAMPLE = 20  # images of a task of the classifier


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Train who learns, and let all see the same streams of the test classes."""
    if data is None:
        return Outcome([], {}, note="no images: give --data FOLDER")
    data = sized(data.of_seed(seed), options["side"])
    streams = streams_of(data, "test")
    keys = jr.split(jr.key(TEST_KEY), options["tasks"])
    classes = np.asarray(_classes(streams, keys))
    more: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    if method in SIMPLE:
        label = np.asarray(_labels(streams, keys))
        played = play_simple(SIMPLE[method], label, seed)
    elif method == POLICY:
        net = network(data, options).init(options["embedding"], key=jr.key(1000 + seed))
        how = options["policy"]
        policy, facts = learn(net, streams_of(data, "train"), how, seed, part_of(tell, 0.0, 0.9))
        tell(0.9, "playing")
        played = play_policy(policy, streams, keys)
        worth = facts["worth of a label"] = worth_of(policy, data, options)
        gained = play_by_rule(policy, streams, keys, jnp.asarray([worth, 0.0]))[1]
        more["reward_rule"] = np.asarray(gained[:, 0]).sum(-1)
        more["reward_myopic"] = np.asarray(gained[:, 1]).sum(-1)
    else:
        learner, facts = classifier(method, data, seed, options, part_of(tell, 0.0, 0.7))
        tell(0.7, "choosing the worth of a label")
        worth = facts["worth of a label"] = worth_of(learner, data, options)
        tell(0.8, "playing")
        played, gained = play_by_rule(learner, streams, keys, jnp.asarray([worth, 0.0]))
        more["reward_myopic"] = np.asarray(gained[:, 1]).sum(-1)
        played = jax.tree.map(lambda a: a[:, 0], played)
    played = Played(*(np.asarray(a) for a in played))
    drawing = {"stream asked": curve(played.action == ASK, played.label)}
    drawing["stream right"] = curve(played.action == played.label, played.label)
    # What Omniglot's own remarks say is of the other protocol.
    notes = [*data.remarks] if facts and data.name != "Omniglot" else []
    note = "; ".join(filter(None, [*notes, cut_short(facts)]))
    return Outcome(measure(played, classes, more), columns(played), drawing, note, facts)


@jit
def _labels(streams: Streams, keys) -> jax.Array:
    """Labels of streams; the key is split as those who see images do."""
    return jax.vmap(lambda k: streams(jr.split(k)[0])[1])(keys)


@jit
def _classes(streams: Streams, keys) -> jax.Array:
    """Classes of streams, `(t, 3)`."""
    return jax.vmap(lambda k: streams.classes_of(jr.split(k)[0]))(keys)


def network(data: Pictures, options: dict[str, Any]) -> Network:
    """What classifiers and the policy see images with."""
    _, size, _, channels = data.images.pixels.shape
    return Network("conv4", size, channels, tuple(options["filters"]), False)


def classifier(
    method: str, data: Pictures, seed: int, options: dict[str, Any], tell: Tell
) -> tuple[Any, dict[str, Any]]:
    """A row of THE TABLE, trained on beginnings of streams of the training classes."""
    net = network(data, options)
    spec = Spec(net.size**2 * net.channels, Categorical(WAY), net=net.init)
    source = Shown(streams_of(data, "train", EXAMPLE))
    settings = {
        "batch": options["batch"],
        "learning_rate": options["learning_rate"],
        "at_once": 1,
        "hyper": {"embedding": options["embedding"]},
    }
    return trained(method, spec, source, seed, options["steps"], tell, **settings)


def worth_of(learner: Any, data: Pictures, options: dict[str, Any]) -> float:
    """The worth of a label that gains most in streams of the validation classes."""
    grid = np.asarray(options["worths"], np.float32)
    keys = jr.split(jr.key(VALIDATION_KEY), options["tasks"])
    streams, gained = streams_of(data, "val"), []
    for first in range(0, len(grid), 2):  # the program that judges serves here too
        pair = jnp.asarray(np.resize(grid[first : first + 2], 2))
        gained.append(np.asarray(play_by_rule(learner, streams, keys, pair)[1]).sum(-1).mean(0))
    return options["worths"][int(np.concatenate(gained)[: len(grid)].argmax())]


def curve(what: np.ndarray, label: np.ndarray, most: int = 12) -> np.ndarray:
    """Mean over images that are the 1st, 2nd, … `most`-th of their class."""
    seen = instance(label)
    return np.array([what[seen == i + 1].mean() for i in range(most)])


def measure(
    played: Played, classes: np.ndarray, more: dict[str, np.ndarray] | None = None
) -> list[Figure]:
    """Figures of whole streams and of the first, second, fifth and tenth image of a class.

    Args:
        played: arrays `(t, n)`.
        classes: of each stream, `(t, 3)`.
        more: further values a stream, by metric.
    """
    asked, right = played.action == ASK, played.action == played.label
    gained = np.asarray(reward(played.action, played.label), np.float64)
    with np.errstate(invalid="ignore"):
        answered = right.sum(1) / (~asked).sum(1)
    values = {"reward": gained.sum(1), "right": right.mean(1), "requests": asked.mean(1)}
    values |= {"answered": answered} | (more or {})
    figures = [Figure.of(ALL, name, each, classes) for name, each in values.items()]
    seen = instance(played.label)
    for k in SHOWN:
        here = seen == k
        count = here.sum(1)
        for name, what in (("right", right), ("requests", asked)):
            share = np.where(count > 0, (what & here).sum(1) / np.maximum(count, 1), np.nan)
            figures.append(Figure.of(f"image {k} of a class", name, share, classes))
    return figures


def columns(played: Played) -> dict[str, np.ndarray]:
    """A row an image: `action` is an answer 0, 1, 2 or 3 for a request; `p` of the likeliest."""
    tasks, n = played.label.shape
    found = {"instance": instance(played.label), **played._asdict()}
    return task_rows(ALL, tasks, n) | {name: a.ravel() for name, a in found.items()}


_PAPER = (
    "Woodward & Finn 2016, table 1: 28 x 28 pixels, 1,200 training characters, 100,000 steps of 50 "
    "streams; all images count, and a request is not right."
)
_EXACT = "Exact: 3 requests and 27 right answers, 30 requests, or a third right of 30."
_QUICK = {
    "side": 16,
    "size": 0,
    "filters": [32, 32, 32, 32],
    "embedding": 32,
    "steps": 4_000,
    "batch": 8,
    "learning_rate": 2e-3,
    "worths": [round(0.1 * i, 1) for i in range(16)],
    "tasks": 400,
    "policy": {
        "steps": 2_000,
        "batch": 8,
        "width": 32,
        "learning_rate": 4e-3,
        "discount": 0.9,
        "fit": 0.3,
        "tell": 1.0,
        "entropy": 0.01,
    },
}
STREAM = Part(
    budgets={
        "quick": _QUICK,
        "full": _QUICK
        | {
            "side": 28,
            "filters": [32, 64, 64, 64],
            "steps": 20_000,
            "tasks": 2_000,
            "policy": _QUICK["policy"] | {"steps": 40_000},
        },
    },
    choices=(
        "Stream: 30 images of three test classes in random order, each answered with one of three "
        "labels (+1 if right, -1 if wrong) or asked about (-0.05, and its label is told). What an "
        "answer gained is not told. Classes of Omniglot are turned by 0, 90, 180 or 270 degrees, "
        "and split 1028, 172 and 423 (Vinyals).",
        "Bayes' rule: a method that was trained on beginnings of streams (0 to 6 random images "
        "shown) gives p, also of a class without a label yet. It answers if 2 p - 1 is above -0.05 "
        "and the worth of a label, which falls in a line to 0 at the last image. Its worth at the "
        "first image is one number, chosen by what streams of the validation classes gain. "
        "“Myopic”: a label has no worth.",
        f"“{POLICY}” (stream): a convolutional network, a matching network on what was labelled so "
        "far and a recurrent network that asks or not, trained together from nothing: "
        "representation, prediction and selection (Bachman et al. 2017). Requests have a plain "
        "policy gradient with a learned baseline. Answers change nothing of what follows; their "
        "expected reward has a gradient of its own.",
        f"“{ORACLE}” asks at the first image of each class: 26.85, the paper's. “{INFERS}” leaves "
        "out the third class, whose label is the one that is left: 27.9 is the most that can be "
        "had for certain.",
    ),
    metrics={
        "reward": Metric("reward of a stream", "of 30 images", "high"),
        "reward_rule": Metric("reward by Bayes' rule on its own probabilities", "of 30", "high"),
        "reward_myopic": Metric("reward by the myopic rule", "a label has no worth", "high"),
        "right": Metric("accuracy", "share of all images; a request is not right", "high"),
        "answered": Metric("accuracy of answers", "share of the images answered", "high"),
        "requests": Metric("requests", "share of images", None),
    },
    references=(*SIMPLE, POLICY),
    methods=True,
    run=run,
    draw=draw,
    sentence=sentence,
    anchors=(
        Anchor("oracle, exact", ALL, "reward", 3 * -0.05 + 27, _EXACT),
        Anchor("always asks, exact", ALL, "reward", LENGTH * -0.05, _EXACT),
        Anchor("guesses, exact", ALL, "reward", -LENGTH / 3, _EXACT),
        Anchor("Woodward & Finn 2016", ALL, "right", 0.759, _PAPER),
        Anchor("Woodward & Finn 2016", ALL, "requests", 0.072, _PAPER),
    ),
)
