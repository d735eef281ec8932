"""What all checks share: small tasks, a compiled look at a posterior, and comparisons."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from metaprior.heads.base import AbstractHead
from metaprior.method import AbstractLearner
from metaprior.mixture import Mixture
from metaprior.posterior import AbstractPosterior
from metaprior.task import Data, Task

SLOTS = 6  # support rows of a task, shown or padding
QUERY = 5  # query rows of a task
SAMPLES = 16  # functions drawn for a predictive
MANY = 1024  # the same, where two sets of draws are compared with each other
SHOWN = (SLOTS, 4, 1, 0)  # support rows of the tasks that a learner is checked on


@dataclass(frozen=True)
class Case:
    """A learner, tasks for it, and the compiled functions that all checks share.

    Args:
        learner: what is checked.
        head: what its tasks predict.
        tasks: one for each number of support rows in `SHOWN`.
        look: `(learner, support, query, key)` -> what `_look` says, and what `_more` says.
        brief: the same arguments -> what `_look` says.
        samples: functions drawn for a predictive.
        tolerance: for equalities that only rounding breaks, relative to 1 + the size.
        resampled: the tolerance where other draws of the same posterior are compared, or `None`.
        traces: gets an entry each time that `look` is compiled.
    """

    learner: AbstractLearner
    head: AbstractHead
    tasks: tuple[Task, ...]
    look: Callable
    brief: Callable
    samples: int
    tolerance: float
    resampled: float | None
    traces: list

    @property
    def other_draws(self) -> float:
        """Tolerance where the number or the order of the slots differs."""
        return self.resampled or self.tolerance


def make_case(
    learner: AbstractLearner,
    head: AbstractHead,
    x_dim: int,
    pooled: int,
    tolerance: float,
    resampled: float | None = None,
) -> Case:
    """A case on example tasks; the arguments are those of `check_learner`."""
    keys = jr.split(jr.key(11), len(SHOWN))
    tasks = tuple(example_task(key, head, x_dim, n, pooled) for key, n in zip(keys, SHOWN))
    learner = jax.tree.map(_strong, learner)
    samples = MANY if resampled else SAMPLES
    traces = []

    # In one program, as compiling takes nearly all of the time that the checks need.
    def look(learner, support, query, key):
        traces.append(None)
        posterior = learner.posterior(support, key=key)
        return _look(posterior, query, key, samples), _more(posterior, query, key, head)

    def brief(learner, support, query, key):
        return _look(learner.posterior(support, key=key), query, key, samples)

    return Case(
        learner=learner,
        head=head,
        tasks=tasks,
        look=eqx.filter_jit(look),
        brief=brief,
        samples=samples,
        tolerance=tolerance,
        resampled=resampled,
        traces=traces,
    )


def example_task(key, head: AbstractHead, x_dim: int, shots: int, pooled: int = 0) -> Task:
    """A small task with `shots` of 6 support rows shown and 5 query rows."""
    return _example(key, head.classes, head.y_dim, x_dim, pooled, shots)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _example(key, classes, y_dim, x_dim, pooled, shots):
    x_key, w_key, e_key = jr.split(key, 3)
    n = SLOTS + QUERY
    x = jr.normal(x_key, (n, x_dim))
    w = jr.normal(w_key, (x_dim, max(classes, y_dim)))
    f = x @ w + 0.3 * jr.normal(e_key, (n, w.shape[1]))
    y = jnp.argmax(f, axis=1)[:, None].astype(float) if classes else f

    if pooled:  # log probabilities for classes, a prediction for numbers
        last = x[:, x_dim - pooled :]
        x = x.at[:, x_dim - pooled :].set(jax.nn.log_softmax(last) if classes else last)

    support = Data(x[:SLOTS], y[:SLOTS], jnp.arange(SLOTS) < shots)
    return Task(support, Data(x[SLOTS:], y[SLOTS:], jnp.ones(QUERY, bool)))


def judge(predictive: Mixture, query: Data) -> dict[str, Array]:
    """The outcomes' log density, or their CRPS where there is none."""
    if _has_density(predictive):
        return {"predict().log_prob": predictive.log_prob(query.y)}
    return {"predict().crps": predictive.crps(query.y)}


def _has_density(predictive: Mixture) -> bool:
    """Whether all of it has a density; else only samples are known."""
    return all(part.head.density for part in predictive.parts)


def _look(posterior: AbstractPosterior, query: Data, key, samples: int) -> dict[str, Array]:
    """What a posterior says of the query rows."""
    predictive = posterior.predict(query.x, key=key, samples=samples)
    seen = judge(predictive, query)
    seen["predict().mean"] = predictive.mean()
    seen["predict().variance"] = predictive.variance()
    if _has_density(predictive):
        seen["joint_log_prob"] = posterior.joint_log_prob(query, key=key, samples=samples)
    return seen


def _more(posterior: AbstractPosterior, query: Data, key, head: AbstractHead) -> dict[str, Any]:
    """What the checks of draws and densities read.

    Whole functions at each query row twice; one row jointly and marginally; how much mass the
    predictive has.
    """
    drawn = posterior.sample(jnp.concatenate([query.x, query.x]), key=key, samples=SAMPLES)
    seen = {
        "drawn": [part.head.mean(part.params) for part in drawn.parts],
        "weights": [part.log_weight for part in drawn.parts],
        "variance": drawn.variance(),
    }
    if not head.density:
        return seen

    row = Data(query.x[:1], query.y[:1], query.mask[:1])
    seen["joint"] = posterior.joint_log_prob(row, key=key, samples=256)
    seen["marginal"] = posterior.predict(row.x, key=key, samples=256).log_prob(row.y)[0]
    if not head.classes and head.y_dim > 1:
        return seen  # the integral over several outcomes is left to the head's own tests

    predictive = posterior.predict(query.x, key=key, samples=4)
    return seen | (_sum(predictive, head) if head.classes else _integral(predictive))


def _sum(predictive: Mixture, head: AbstractHead) -> dict[str, Array]:
    """What the probabilities of the classes sum to, and how far they are from `mean`."""
    mean = predictive.mean()
    label = jnp.arange(head.classes, dtype=mean.dtype)[:, None, None]
    y = jnp.broadcast_to(label, (head.classes, QUERY, 1))
    each = jnp.exp(jax.vmap(predictive.log_prob)(y))
    return {"mass": each.sum(0), "gap": jnp.abs(each.T - mean).max()}


def _integral(predictive: Mixture) -> dict[str, Array]:
    """What the density of one number integrates to."""
    # y = mean + sd sinh(t): fine near the mean, and far into heavy tails
    t = jnp.linspace(-13.0, 13.0, 6001)
    scale = 0.3 * jnp.sqrt(predictive.variance())
    y = predictive.mean() + scale * jnp.sinh(t)[:, None, None]
    density = jnp.exp(jax.vmap(predictive.log_prob)(y)) * jnp.cosh(t)[:, None] * scale[:, 0]
    return {"mass": density.sum(0) * (t[1] - t[0]), "gap": jnp.zeros(())}


def put(array: Any, dtype: Any = None) -> Array:
    """An array on the device; `jnp.asarray` would compile a program for each shape."""
    return jax.device_put(np.asarray(array, dtype))


def _strong(leaf: Any) -> Any:
    """An array with a dtype of its own.

    Weak types (arrays made from Python numbers) would compile everything twice. Random keys have
    no such type, and numpy cannot hold them.
    """
    if not eqx.is_array(leaf) or jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return put(leaf)


def stack(trees: Any) -> Any:
    """Trees of one shape as one, with a new leading axis."""
    return jax.tree.map(lambda *leaves: put(np.stack(leaves)), *trees)


def gaps(a: Any, b: Any) -> Iterator[tuple[str, float]]:
    """How far the arrays of two trees are from each other, relative to 1 + their size, by name."""
    for (path, left), (_, right) in zip(jax.tree.leaves_with_path(a), jax.tree.leaves_with_path(b)):
        left, right = np.asarray(left), np.asarray(right)  # nothing here needs to be compiled
        gap = np.max(np.abs(left - right) / (1.0 + np.abs(right)))
        yield jax.tree_util.keystr(path, simple=True), float(gap)


def same(a: Any, b: Any, tolerance: float, message: str) -> None:
    """Assert that two trees of arrays are equal within a tolerance relative to their size."""
    for name, gap in gaps(a, b):
        assert gap <= tolerance, (
            f"{message} {name or 'The value'} differs by {gap:.2g} (relative to 1 + its size)."
        )


def finite(tree: Any, message: str) -> None:
    """Assert that all arrays of a tree are finite."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True)
        assert np.isfinite(np.asarray(leaf)).all(), (
            f"{message} {name or 'The value'} is {np.asarray(leaf).ravel()[:5]}."
        )
