"""The tasks of `properties`: sine waves and lines, in and out of the training range."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.sources import SineLine
from metaprior.sources.labelled import Labelled
from metaprior.task import Task

HELD_OUT = 20261124  # key of the tasks that are judged; training draws its own from the seed
NOISE = 0.3
CLASSES = " (classes)"  # ends the settings of methods that predict classes alone
SHOTS = (1, 5, 10, 50, 200)
LEARNT = (5, 10)  # numbers of rows at which expressive power is judged: training has 1 to 20
GROWTH = (10, 50, 200)  # numbers of rows over which the error should fall

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


def source_of(where: str, classes: bool, support: int, **options: Any) -> SineLine | Labelled:
    """Tasks of a range, with numbers or with labels."""
    waves = SineLine(support=support, query=20, noise=NOISE, **RANGES[where], **options)
    return Labelled(waves) if classes else waves


def slots(shots: int) -> int:
    """Support rows including padding.

    All numbers of rows share two shapes, so that only two programs are compiled.
    """
    shapes = (max(LEARNT), max(SHOTS))
    return min(rows for rows in shapes if rows >= shots)


def tasks(where: str, classes: bool, shots: int, count: int) -> tuple[Task, jax.Array]:
    """Held-out tasks, and at each query row the function without noise.

    The latter is the function's value, or the probability of label 1; `(t, q)`.
    """
    source = source_of(where, classes, slots(shots))
    keys = jr.split(jr.fold_in(jr.key(HELD_OUT), list(RANGES).index(where)), count)
    noisy = source.waves if isinstance(source, Labelled) else source
    # the same keys without noise give the same functions and inputs
    clean = jax.vmap(dataclasses.replace(noisy, noise=0.0))(keys).query.y[..., 0]

    each = jax.vmap(source)(keys)
    mask = jnp.broadcast_to(jnp.arange(slots(shots)) < shots, each.support.mask.shape)
    each = eqx.tree_at(lambda t: t.support.mask, each, mask)
    return each, jax.scipy.stats.norm.cdf(clean / NOISE) if classes else clean
