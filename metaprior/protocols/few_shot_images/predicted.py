"""What a learner says of the classes of images, in programs that serve all settings."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.task import Data, Task

CHUNK = 20  # tasks in one call


@eqx.filter_jit
def _judge(learner, tasks: Task, key, samples: int, slots: int):
    """`judge` of one chunk of tasks."""

    def one(pair):
        task, k = pair
        keys = jr.split(k)
        posterior = learner.posterior(task.support, key=keys[0])
        p = posterior.predict(task.query.x, key=keys[1], samples=samples).mean()
        label = jax.nn.one_hot(task.support.y[:, 0].astype(int), slots)
        shown = (label * task.support.mask[:, None]).sum(0) > 0
        p = jnp.where(shown, p, 0.0)
        return p / jnp.maximum(p.sum(-1, keepdims=True), 1e-30)

    return jax.lax.map(one, (tasks, jr.split(key, tasks.support.x.shape[0])))


def judge(
    learner: Any, tasks: Task, seed: int, samples: int, slots: int, rows: tuple[int, int]
) -> np.ndarray:
    """Probabilities of the classes that the support shows, renormalised, `(t, n, slots)`.

    Args:
        learner: what is judged.
        tasks: stacked.
        seed: of the draws.
        samples: draws of the function.
        slots: classes that the method tells apart.
        rows: of support and query, to which tasks are padded, as they are to multiples of `CHUNK`:
            one program serves all settings.
    """
    count, n = tasks.query.mask.shape

    def longer(data: Data, size: int) -> Data:
        def padded(a: np.ndarray) -> np.ndarray:
            more = [(0, -count % CHUNK), (0, size - a.shape[1])]
            return np.pad(a, more + [(0, 0)] * (a.ndim - 2))

        return jax.tree.map(padded, jax.device_get(data))

    tasks = Task(longer(tasks.support, rows[0]), longer(tasks.query, rows[1]))
    found = []
    for start in range(0, count, CHUNK):
        chunk = jax.tree.map(lambda a: jnp.asarray(a[start : start + CHUNK]), tasks)
        found.append(np.asarray(_judge(learner, chunk, jr.key(seed + start), samples, slots)))
    return np.concatenate(found)[:count, :n]


def classes_of(data: Data) -> np.ndarray:
    """Classes of the rows, `(t, n)`."""
    return np.asarray(data.y[..., 0]).astype(int)


def compact(
    p: np.ndarray, y: np.ndarray, names: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes 0 … way - 1 in the order of the support, where labels were some of more slots.

    Args:
        p: probabilities of the slots, `(t, n, slots)`.
        y: slots of the query rows, `(t, n)`.
        names: slots of the support rows, `(t, m)`.

    Returns:
        Probabilities `(t, n, way)`, classes `(t, n)`, and the slot of each class, `(t, way)`.
    """

    def in_order(row: np.ndarray) -> np.ndarray:
        return row[np.sort(np.unique(row, return_index=True)[1])]

    order = np.stack([in_order(row) for row in names])
    p = np.take_along_axis(p, order[:, None, :], axis=2)
    return p, (y[..., None] == order[:, None, :]).argmax(-1), order
