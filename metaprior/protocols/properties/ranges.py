"""ranges of properties."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.method import AbstractLearner
from metaprior.sources import SineLine
from metaprior.sources.labelled import Labelled
from metaprior.task import Task

HELD_OUT = 20261124  # key of the tasks that are judged; training draws its own from the seed


SHOTS = (1, 5, 10, 50, 200)


LEARNT = (5, 10)  # numbers of rows at which expressive power is judged: within training's 1 to 20


GROWTH = (10, 50, 200)  # and those over which the error should fall


RANGES: dict[str, dict[str, Any]] = {
    "inside": {},
    "other functions": {
        "amplitude": (5.0, 8.0),
        "phase": (np.pi, 2 * np.pi),
        "slope": (3.0, 5.0),
        "intercept": (3.0, 5.0),
    },
    "other inputs": {"x": (5.0, 10.0)},
}


NOISE = 0.3


CLASSES = " (classes)"


class Known(AbstractLearner):
    """The learner that knows how the tasks are made; without `looks` the one that never looks at
    their rows.
    """

    source: SineLine | Labelled
    looks: bool = eqx.field(static=True, default=True)

    def posterior(self, support, *, key):
        shown = support.mask if self.looks else jnp.zeros_like(support.mask)
        return self.source.exact(eqx.tree_at(lambda d: d.mask, support, shown))


def source_of(where: str, classes: bool, support: int, **options: Any) -> SineLine | Labelled:
    """Tasks of a range."""
    waves = SineLine(support=support, query=20, noise=NOISE, **RANGES[where], **options)
    return Labelled(waves) if classes else waves


def slots(shots: int) -> int:
    """Support rows including padding: two shapes for all numbers of rows, hence two programs to
    compile.
    """
    return min(n for n in (max(LEARNT), max(SHOTS)) if n >= shots)


def tasks(where: str, classes: bool, shots: int, count: int) -> tuple[Task, jax.Array]:
    """Held-out tasks, and at each query row the function without noise: its value, or the
    probability of label 1.
    """
    source = source_of(where, classes, slots(shots))
    keys = jr.split(jr.fold_in(jr.key(HELD_OUT), list(RANGES).index(where)), count)
    waves = dataclasses.replace(
        source.waves if isinstance(source, Labelled) else source, noise=0.0
    )  # the same functions and inputs
    clean = jax.vmap(waves)(keys).query.y[..., 0]
    each = jax.vmap(source)(keys)
    mask = jnp.broadcast_to(jnp.arange(slots(shots)) < shots, each.support.mask.shape)
    each = eqx.tree_at(lambda t: t.support.mask, each, mask)
    return each, jax.scipy.stats.norm.cdf(clean / NOISE) if classes else clean
