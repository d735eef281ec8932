"""training of few-shot-images."""

import functools
from dataclasses import replace
from typing import Any

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
from metaprior.nets.conv import Conv4
from metaprior.protocols.few_shot_images.data import Pictures
from metaprior.sources.episodes import Episodes
from metaprior.task import Task
from metaprior.training import fit

TEST_KEY, VALIDATION_KEY = 90210, 555  # tasks that are judged on, and those that choose the step


BLACK = (
    "recurrent",
    "snail",
    "cnp",
    "acnp",
    "np",
    "anp",
    "flow_np",
)  # see images through `Embedded`


TUNED: dict[str, dict[str, Any]] = {
    "protonet": {"embedding": 64, "pseudo_count": 0.0},
    "matching": {"embedding": 64, "pseudo_count": 0.0},
    "versa": {"features": 64, "samples": 10},
}


# Steps of a method relative to those of the budget: a step with an inner loop costs more.
SHARE = {
    "maml": 0.4,
    "emaml": 0.1,
    "llama": 0.2,
    "abml": 0.1,
    "vampire": 0.1,
    "bmaml": 0.1,
    "platipus": 0.1,
}


@eqx.filter_jit
def fresh(
    key: Any,
    method: str,
    size: int,
    channels: int,
    way: int,
    filters: tuple[int, ...],
    pooled: bool,
) -> Any:
    """An untrained method with an image network."""
    net = functools.partial(
        Conv4.init, size=size, channels=channels, filters=filters, pooled=pooled
    )
    spec = Spec(size * size * channels, Categorical(way), net=net)
    row = METHODS[method]
    if method in BLACK:
        return Embedded.init(spec, key=key, base=row.method, **row.options)  # ty: ignore[invalid-argument-type]
    hyper = dict(TUNED.get(method, {}))
    if method == "maml":  # Finn et al.'s rates for 5 and 20 classes, from which it learns its own
        hyper = {"inner_lr": jnp.asarray(0.4 if way <= 5 else 0.1)}
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
    """Tasks of some classes; as many query images as every class of them has, at most `query`."""
    images = data.images
    label = np.where(np.isin(images.label, part), images.label, -1)
    groups = np.unique(images.group, return_inverse=True)[1]
    count = np.bincount(images.label, minlength=len(images.names))[part]
    query = int(min(query, max(1, np.sort(count)[::-1][: max(way, len(part) // 2)].min() - shot)))
    source = functools.partial(
        Episodes.of,
        images.pixels,
        label,
        way=way,
        shot=shot,
        query=query,
        group=groups[images.label],
    )
    return source(rotations=data.rotations, **more)


def train(
    method: str,
    seed: int,
    data: Pictures,
    parts,
    way: int,
    options: dict[str, Any],
    tell,
    lake: bool,
):
    """One network for tasks of `way` classes and one image each, its step chosen on held-out
    classes.
    """
    keys = jr.split(jr.key(seed), 2)
    steps = max(20, round(options["lake_steps" if lake else "steps"] * SHARE.get(method, 1.0)))
    learn, hold = parts
    more: dict[str, Any] = {"padded": len(data.images.names)}
    if data.runs is not None:  # arrays, so that all trainings are one program
        more |= {
            "affine": jnp.asarray(1.0 if lake else options["affine"]),
            "within": jnp.asarray(0.5 if lake else 0.0),
        }
    source = episodes(data, learn, way, 1, options["train_query"], **more)
    held = episodes(data, hold, min(way, len(hold) * (4 if data.rotations else 1)), 1, 2, slots=way)
    validation = draw_tasks(held, jr.key(VALIDATION_KEY), options["validation"])
    shape = data.images.pixels.shape
    learner = fresh(
        keys[0], method, shape[1], shape[3], way, tuple(options["filters"]), options["pooled"]
    )

    def progress(done, of, loss):
        return tell(done / of, f"training, loss {loss:.3f}")

    batch = options["batch"] * (4 if way <= 5 else 1)
    fitted = fit(
        learner,
        source,
        key=keys[1],
        steps=steps,
        batch=batch,
        at_once=1,
        every=max(1, steps // 10),
        validation=validation,
        learning_rate=options["learning_rate"],
        progress=progress,
    )
    facts = {
        "steps": fitted.steps,
        "step chosen": int(fitted.state.best_step),
        "seconds": round(fitted.seconds, 1),
    }
    return fitted.method, facts | {"training": fitted.outcome}


@eqx.filter_jit
def draw_tasks(source: Episodes, key, count: int) -> Task:
    """`count` tasks on a leading axis."""
    return jax.vmap(source)(jr.split(key, count))
