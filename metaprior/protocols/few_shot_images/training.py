"""Training methods on images: their networks, their tasks, their step."""

from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Categorical
from metaprior.images.tree import resize
from metaprior.method import Spec
from metaprior.methods import METHODS
from metaprior.methods.embedded import Embedded
from metaprior.nets.conv import Conv4, ResNet12
from metaprior.protocols.cell import loss_of, minutes
from metaprior.protocols.few_shot_images.controls import CONTROLS, Control
from metaprior.protocols.few_shot_images.data import Pictures
from metaprior.protocols.few_shot_images.predicted import classes_of, judge
from metaprior.protocols.protocol import Tell
from metaprior.sources.episodes import Episodes
from metaprior.task import Task
from metaprior.training import adam, fit

VALIDATION_KEY = 555  # of the tasks that choose the step
LOOKS = 10  # at them in a training
TIMED = 2  # steps after the first that say how long a training takes
NETS = ("conv4", "resnet12")
EARLY = 0.3  # of the steps: a network chosen before is remarked on
# See images through `Embedded`.
BLACK = ("recurrent", "snail", "cnp", "acnp", "tnp", "np", "anp", "flow_np")
TUNED: dict[str, dict[str, Any]] = {
    "protonet": {"embedding": 64, "pseudo_count": 0.0},
    "matching": {"embedding": 64, "pseudo_count": 0.0},
    "metaqda": {"embedding": 64},
    "versa": {"features": 64, "samples": 10},
    "platipus": {"gamma": 0.01, "samples": 1, "objective": "elbo"},
}
# Steps of a method relative to the budget's: a step with an inner loop costs more.
SHARE = {
    "maml": 0.4,
    "emaml": 0.1,
    "llama": 0.2,
    "abml": 0.1,
    "vampire": 0.1,
    "bmaml": 0.1,
    "platipus": 0.1,
}


class Network(NamedTuple):
    """What a network looks at, and its size.

    Args:
        kind: of `NETS`.
        size, channels: of an image.
        filters: of each block of Conv4; ResNet-12 has its paper's.
        pooled: whether Conv4 halves the image by max-pools, as ResNet-12 does, else by strides.
    """

    kind: str
    size: int
    channels: int
    filters: tuple[int, ...]
    pooled: bool

    def init(self, outputs: int, *, key: Any) -> Any:
        """Random weights, `outputs` numbers an image."""
        size, channels = self.size, self.channels
        if self.kind == "resnet12":
            return ResNet12.init(outputs, key=key, size=size, channels=channels)
        return Conv4.init(
            outputs,
            key=key,
            size=size,
            channels=channels,
            filters=self.filters,
            pooled=self.pooled,
        )


@eqx.filter_jit
def fresh(key: Any, method: str, way: int, network: Network) -> Any:
    """An untrained method with an image network."""
    spec = Spec(network.size**2 * network.channels, Categorical(way), net=network.init)
    row = METHODS[method]
    if method in BLACK:
        return Embedded.init(spec, key=key, base=row.method, **row.options)  # ty: ignore[invalid-argument-type]
    hyper = dict(TUNED.get(method, {}))
    if method == "maml":  # Finn et al.'s rates for 5 and 20 classes, from which it learns its own
        rate = jnp.asarray(0.4 if way <= 5 else 0.1)
        hyper = METHODS["maml_fixed"].options | {"inner_lr": rate}
    return row.init(spec, key=key, **hyper)


def sized(data: Pictures, side: int) -> Pictures:
    """Images no larger than the budget has time for."""
    if data.images.pixels.shape[1] <= side:
        return data
    pixels = np.stack([resize(image, side) for image in data.images.pixels])
    return replace(data, images=replace(data.images, pixels=pixels))


def episodes(
    data: Pictures, part: np.ndarray, way: int, shot: int, query: int, **more: Any
) -> Episodes:
    """Tasks of some classes.

    Args:
        data: the images.
        part: indices of the classes.
        way, shot: classes of a task, and images shown of each.
        query: images asked of each class; fewer where the classes have not as many.
        more: options of `Episodes.of`.
    """
    images = data.images
    count = np.bincount(images.label, minlength=len(images.names))[part]
    rich = max(way, len(part) // 2)  # as many classes have enough images
    least = np.sort(count)[::-1][:rich].min() - shot
    groups = np.unique(images.group, return_inverse=True)[1]
    return Episodes.of(
        images.pixels,
        np.where(np.isin(images.label, part), images.label, -1),
        way=way,
        shot=shot,
        query=int(min(query, max(1, least))),
        group=groups[images.label],
        rotations=data.rotations,
        **more,
    )


class Trained(NamedTuple):
    """A learner for a number of classes.

    Args:
        learner: of the step that was best on held-out classes.
        facts: of its training.
        remark: what a reader should know of it; empty mostly.
    """

    learner: Any
    facts: dict[str, Any]
    remark: str


def train(
    method: str,
    seed: int,
    data: Pictures,
    parts: tuple[np.ndarray, np.ndarray],
    way: int,
    options: dict[str, Any],
    tell: Tell,
    lake: bool,
) -> Trained:
    """One network for tasks of `way` classes and one image each.

    Args:
        method, seed, data, options, tell: as in `Protocol.run`.
        parts: classes to train on, and those that choose the step.
        way: classes of a task.
        lake: whether it is trained for Lake's runs.
    """
    learn, hold = parts
    turned = 4 if data.rotations else 1  # turned classes are further ones
    held = episodes(data, hold, min(way, len(hold) * turned), 1, 2, slots=way)
    validation = draw_tasks(held, jr.key(VALIDATION_KEY), options["validation"])
    _, size, _, channels = data.images.pixels.shape
    if method in CONTROLS:
        some = np.isin(data.images.label, learn)
        pixels = jnp.asarray(data.images.pixels[some].reshape(some.sum(), -1), jnp.float32) / 255
        control = Control.fit(method, pixels, validation, way)
        return Trained(control, {"scale": float(control.scale)}, "")

    init_key, fit_key = jr.split(jr.key(seed), 2)
    more: dict[str, Any] = {"padded": len(data.images.names)}
    if data.runs is not None:  # arrays, so that all trainings are one program
        more["affine"] = jnp.asarray(1.0 if lake else options["affine"])
        more["within"] = jnp.asarray(0.5 if lake else 0.0)
    source = episodes(data, learn, way, 1, options["train_query"], **more)

    kind, filters = options["net"], tuple(options["filters"])
    network = Network(kind, size, channels, filters, options["pooled"])
    steps = max(20, round(options["lake_steps" if lake else "steps"] * SHARE.get(method, 1.0)))
    optimiser = adam(options["learning_rate"], steps)
    start, state, seconds = fresh(init_key, method, way, network), None, 0.0
    right, step, learner, forecast = 0.0, 0, start, ""
    told = loss_of(lambda done, what: tell(done, what + forecast))
    # Probabilities of new classes may be too sure from the first steps on, while ever more of the
    # classes are right: a likelihood would choose an untrained network.
    looks = np.unique(np.linspace(0, steps, LOOKS + 1).round().astype(int)[1:]).tolist()
    # The first step is compiled; the next ones say how long all take.
    marks = sorted({1, 1 + TIMED, *looks})
    for i, done in enumerate(marks):
        fitted = fit(
            start,
            source,
            key=fit_key,
            steps=done,
            batch=options["batch"] * (4 if way <= 5 else 1),
            at_once=1,
            every=steps,
            optimiser=optimiser,
            state=state,
            progress=lambda now, _, loss: told(now, steps, loss),
        )
        state, seconds = fitted.state, seconds + fitted.seconds
        if i == 1:
            each = fitted.seconds / (done - marks[0])
            forecast = f", {steps} steps of {each:.2g} s: about {minutes(steps * each)}"
        if done not in looks:
            continue
        found = accuracy(fitted.method, validation, way, options["samples"])
        if found >= right:
            right, step, learner = found, done, fitted.method
        if fitted.outcome != "done":
            break
    facts = {
        "steps": fitted.steps,
        "step chosen": step,
        "accuracy on held-out classes": round(right, 4),
        "seconds": round(seconds, 1),
        "training": fitted.outcome,
    }
    remark = ""
    if step < EARLY * steps:
        remark = (
            f"{way}-way: step {step} of {steps} was best on held-out classes; later ones learn "
            "what does not carry over to new classes"
        )
    return Trained(learner, facts, remark)


def accuracy(learner: Any, tasks: Task, slots: int, samples: int) -> float:
    """Share of the query images of tasks that are classified rightly."""
    rows = tasks.support.mask.shape[1], tasks.query.mask.shape[1]
    p = judge(learner, tasks, VALIDATION_KEY, samples, slots, rows)
    return float((p.argmax(-1) == classes_of(tasks.query))[np.asarray(tasks.query.mask)].mean())


@eqx.filter_jit
def draw_tasks(source: Episodes, key, count: int) -> Task:
    """`count` tasks on a leading axis."""
    return jax.vmap(source)(jr.split(key, count))


@eqx.filter_jit
def drawn_classes(source: Episodes, key, count: int) -> jax.Array:
    """Which classes the tasks of `draw_tasks` have, `(count, way)`."""
    return jax.vmap(source.classes_of)(jr.split(key, count))
