"""`check_method`: what every method must hold, as a suite for methods of this package and of
others.

Each check raises an `AssertionError` that says what was broken and where to look.
"""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Gaussian
from metaprior.method import AbstractLearner, AbstractMethod, Spec
from metaprior.posterior import AbstractHead
from metaprior.system.files import load, save
from metaprior.task import Data, Task, pad

SLOTS, QUERY, SAMPLES, MANY = 6, 5, 16, 1024


@dataclass(frozen=True)
class _Case:
    """A learner, tasks for it, and the compiled functions that all checks share."""

    learner: AbstractLearner
    head: AbstractHead
    tasks: tuple[Task, ...]
    look: Callable  # what `_look` says, and more: `_more`
    brief: Callable  # what `_look` says
    tolerance: float
    resampled: float | None
    traces: list

    @property
    def other_draws(self) -> float:
        """Tolerance where the number or order of the slots differs."""
        return self.resampled or self.tolerance


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


def _look(posterior, query, key, samples):
    """What a posterior says of the query rows, as arrays."""
    predictive = posterior.predict(query.x, key=key, samples=samples)
    seen = _judge(predictive, query) | {
        "predict().mean": predictive.mean(),
        "predict().variance": predictive.variance(),
    }
    if not _density(predictive):
        return seen
    return seen | {"joint_log_prob": posterior.joint_log_prob(query, key=key, samples=samples)}


def _more(posterior, query, key, head):
    """Whole functions at each query row twice; one row jointly and marginally; how much mass the
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
    if head.classes:
        y = jnp.broadcast_to(
            jnp.arange(head.classes, dtype=query.y.dtype)[:, None, None], (head.classes, QUERY, 1)
        )
        each = jnp.exp(jax.vmap(predictive.log_prob)(y))
        return seen | {"mass": each.sum(0), "gap": jnp.abs(each.T - predictive.mean()).max()}
    # y = mean + sd sinh(t): fine near the mean, and far into heavy tails
    t = jnp.linspace(-13.0, 13.0, 6001)
    scale = 0.3 * jnp.sqrt(predictive.variance())
    y = predictive.mean() + scale * jnp.sinh(t)[:, None, None]
    density = jnp.exp(jax.vmap(predictive.log_prob)(y)) * jnp.cosh(t)[:, None] * scale[:, 0]
    return seen | {"mass": density.sum(0) * (t[1] - t[0]), "gap": jnp.zeros(())}


def _density(predictive) -> bool:
    """Whether all of it has a density; else only samples are known."""
    return all(part.head.density for part in predictive.parts)


def _judge(predictive, query):
    """The outcomes' log density, or their CRPS where there is none."""
    if _density(predictive):
        return {"predict().log_prob": predictive.log_prob(query.y)}
    return {"predict().crps": predictive.crps(query.y)}


def _put(array, dtype=None):
    """On the device; `jnp.asarray` would compile a program for each shape."""
    return jax.device_put(np.asarray(array, dtype))


def _gaps(a, b):
    """How far the arrays of two trees are from each other, relative to 1 + their size, by name."""
    for (path, left), (_, right) in zip(jax.tree.leaves_with_path(a), jax.tree.leaves_with_path(b)):
        left, right = (
            np.asarray(left),
            np.asarray(right),
        )  # numpy: nothing here needs to be compiled
        yield (
            jax.tree_util.keystr(path, simple=True),
            float(np.max(np.abs(left - right) / (1.0 + np.abs(right)))),
        )


def _same(a, b, tolerance, message):
    """Two trees of arrays are equal within a tolerance relative to their size."""
    for name, gap in _gaps(a, b):
        assert gap <= tolerance, (
            f"{message} {name or 'The value'} differs by {gap:.2g} (relative to 1 + its size)."
        )


def _finite(tree, message):
    for path, leaf in jax.tree.leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True)
        assert np.isfinite(np.asarray(leaf)).all(), (
            f"{message} {name or 'The value'} is {np.asarray(leaf).ravel()[:5]}."
        )


def _plain(leaf) -> bool:
    return eqx.is_array(leaf) and not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _case(learner, head, x_dim, pooled, tolerance, resampled=None) -> _Case:
    keys = jr.split(jr.key(11), 4)
    tasks = tuple(example_task(k, head, x_dim, s, pooled) for k, s in zip(keys, (SLOTS, 4, 1, 0)))
    # Weak types (arrays made from Python numbers) would compile everything twice.
    learner = jax.tree.map(lambda a: _put(a) if _plain(a) else a, learner)
    traces = []
    samples = MANY if resampled else SAMPLES

    def look(learner, support, query, key):
        """In one program, as compiling takes nearly all of the time that the checks need."""
        traces.append(None)
        posterior = learner.posterior(support, key=key)
        return _look(posterior, query, key, samples), _more(posterior, query, key, head)

    def brief(learner, support, query, key):
        return _look(learner.posterior(support, key=key), query, key, samples)

    return _Case(learner, head, tasks, eqx.filter_jit(look), brief, tolerance, resampled, traces)


# ---- what a learner must hold ----


def _check_finite(case):
    for task in case.tasks:
        shown = int(task.support.count)
        what = f"The posterior from {shown} support rows is not finite."
        what += (
            ""
            if shown
            else " An empty support must give the prior: divide by max(count, 1), mask before reducing."
        )
        _finite(case.look(case.learner, task.support, task.query, jr.key(1)), what)
    assert len(case.traces) == 1, (
        f"{len(case.traces)} compilations for {len(case.tasks)} support sizes. The shapes are the same (padding): nothing "
        "may depend on the number of rows as a Python number, and no static field may hold an array's value."
    )


def _check_key(case):
    task, key = case.tasks[1], jr.key(2)
    again = [case.look(case.learner, task.support, task.query, key) for _ in range(2)]
    _same(*again, 0.0, "The same key gave two answers; all noise must come from the key.")


def _check_padding(case):
    task, key = case.tasks[1], jr.key(3)
    shown, mask = task.support, task.support.mask[:, None]
    plain, _ = case.look(case.learner, shown, task.query, key)

    def fill(a, junk):
        return _put(np.where(mask, a, junk), a.dtype)

    junk = Data(fill(shown.x, 37.0), fill(shown.y, 1.0), shown.mask)
    message = "Rows outside the mask changed the answer: a reduction over points does not go through the mask."
    _same(case.look(case.learner, junk, task.query, key)[0], plain, case.tolerance, message)


def _check_order(case):
    task, key = case.tasks[0], jr.key(4)
    turned = jax.tree.map(lambda a: _put(np.asarray(a)[[3, 0, 5, 1, 4, 2]]), task.support)
    pair = [
        case.look(case.learner, support, task.query, key)[0] for support in (task.support, turned)
    ]
    message = "The order of the support rows changed the answer. A method that reads a sequence passes ordered=True."
    _same(*pair, case.other_draws, message)


def _check_eager(case):
    task, key = case.tasks[1], jr.key(5)
    predictive = case.learner.posterior(task.support, key=key).predict(
        task.query.x, key=key, samples=MANY if case.resampled else SAMPLES
    )
    eager = _judge(predictive, task.query)
    compiled, _ = case.look(case.learner, task.support, task.query, key)
    compiled = {name: compiled[name] for name in eager}
    _same(
        eager,
        compiled,
        case.tolerance,
        "The compiled posterior differs from the eager one: look for a side effect.",
    )


def _stack(tasks):
    return jax.tree.map(lambda *a: _put(np.stack(a)), *tasks)


def _check_vmap(case):
    """All tasks at once, with three more padding rows; only where the two make a difference it is
    asked which did.
    """
    keys = jr.split(jr.key(6), len(case.tasks))

    def longer(support):
        return pad(support, SLOTS + 3)

    alone = [case.look(case.learner, t.support, t.query, k)[0] for t, k in zip(case.tasks, keys)]
    call = eqx.filter_jit(
        lambda m, t, k: jax.vmap(lambda a, b: case.brief(m, a.support, a.query, b))(t, k)
    )
    together = call(
        case.learner, _stack([Task(longer(t.support), t.query) for t in case.tasks]), keys
    )
    if all(gap <= case.tolerance for _, gap in _gaps(together, _stack(alone))):
        return
    task = case.tasks[1]
    more = eqx.filter_jit(case.brief)(case.learner, longer(task.support), task.query, keys[1])
    message = "Three more padding rows changed the answer: something depends on the number of slots (a mean over "
    _same(
        more,
        alone[1],
        case.other_draws,
        message + "them), or noise is drawn a slot (see `resampled`).",
    )
    message = "vmap over tasks differs from a loop: some operation mixes tasks or reuses one task's noise."
    _same(call(case.learner, _stack(case.tasks), keys), _stack(alone), 10 * case.tolerance, message)


def _check_proper(case):
    """The predictive is a density (probabilities), checked at each query point with 1 support row
    and with all.
    """
    for task in (case.tasks[0], case.tasks[2]):
        _, more = case.look(case.learner, task.support, task.query, jr.key(7))
        if "mass" not in more:
            return
        off = float(np.abs(np.asarray(more["mass"]) - 1).max())
        name = (
            "probabilities of the classes sum to"
            if case.head.classes
            else "predictive density integrates to"
        )
        assert off < 1e-2, (
            f"The {name} {np.asarray(more['mass'])}, not 1: log_prob of the mixture is not normalised."
        )
        assert float(more["gap"]) < 1e-3, (
            "predict().mean is not the probability that log_prob gives."
        )


def _check_sample(case):
    """Draws are whole functions: equal at equal x; and one row has the same density jointly and
    marginally.
    """
    task = case.tasks[1]
    _, more = case.look(case.learner, task.support, task.query, jr.key(8))
    width = case.head.classes or case.head.y_dim
    for mean, weight in zip(more["drawn"], more["weights"]):
        assert mean.shape == (weight.shape[0], 2 * QUERY, width), (
            f"sample() gave a part of shape {mean.shape}; components ({weight.shape[0]}) lead, then points "
            f"({2 * QUERY}), then {width} outcomes."
        )
        mean = np.asarray(mean)
        gap = np.abs(mean[:, :QUERY] - mean[:, QUERY:]).max()
        limit = 0.05 * np.sqrt(np.asarray(more["variance"]).max())
        assert float(gap) <= float(limit), (
            f"A draw differs by {float(gap):.2g} between two rows with the same x. Component i of sample() must be one "
            "function for all x: draw the task's parameters once a component, not once a point."
        )
    if "joint" in more:
        joint, marginal = float(more["joint"]), float(more["marginal"])
        assert abs(joint - marginal) < 0.02, (
            f"One row alone has log density {joint:.4f} in joint_log_prob and {marginal:.4f} in predict; with one row "
            "they are the same quantity. Check the noise, and that log_prob takes the log of a mean."
        )


def _roundtrip(learner: AbstractLearner) -> AbstractLearner:
    """The learner written to a file and read back."""
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "learner", learner)
        return load(Path(folder) / "learner")


def _check_files(case):
    task, key = case.tasks[1], jr.key(10)
    pair = [
        case.look(learner, task.support, task.query, key)
        for learner in (_roundtrip(case.learner), case.learner)
    ]
    _same(
        *pair,
        0.0,
        "The saved learner differs from the one in memory: an array hides outside the leaves.",
    )


def check_learner(
    learner: AbstractLearner,
    *,
    head: AbstractHead,
    x_dim: int = 2,
    pooled: int = 0,
    ordered: bool = False,
    resampled: float | None = None,
    tolerance: float = 2e-3,
) -> None:
    """The contract of anything with a `posterior`; `check_method` adds what training needs.

    Args:
        learner: ready to use, trained or not.
        head: what its tasks predict.
        x_dim: number of input columns.
        pooled: how many of them, the last ones, are a pooled model's prediction.
        ordered: the answer may depend on the order of the support rows.
        resampled: the posterior draws noise a support row, so that more padding or another order
            gives other draws of the same posterior; answers are then compared within this
            tolerance, with 1024 draws.
        tolerance: for equalities that only rounding breaks, relative to 1 + the size.
    """
    case = _case(learner, head, x_dim, pooled, tolerance, resampled)
    _check_finite(case)
    _check_key(case)
    _check_padding(case)
    if not ordered:
        _check_order(case)
    _check_eager(case)
    _check_vmap(case)
    _check_proper(case)
    _check_sample(case)
    _check_files(case)


# ---- what training needs ----


def _name(path) -> str:
    return jax.tree_util.keystr(path).lstrip(".")


def _check_training(case, untrained):
    """Finite loss and gradients; each meta-parameter moves the loss of some task; vmap, jit and
    eager agree.
    """
    method, keys = case.learner, jr.split(jr.key(12), len(case.tasks))

    def twice(a, junk):
        return _put(np.concatenate([a, np.full_like(a, junk)]))

    def padded(q):
        return Data(twice(q.x, 37.0), twice(q.y, 1.0), twice(q.mask, False))

    tasks = _stack([Task(task.support, padded(task.query)) for task in case.tasks])
    moving, fixed = eqx.partition(method, eqx.is_inexact_array)

    @jax.jit
    def gradients(m, tasks, keys):
        def one(t, k):
            return jax.value_and_grad(lambda p: eqx.combine(p, fixed).loss(t, key=k))(m)

        return jax.vmap(one)(tasks, keys)

    # A little off the start: a layer that starts at zero hides the gradients of those before it.
    random = np.random.default_rng(13)
    off = jax.tree.map(
        lambda a: _put(np.asarray(a) + 0.05 * random.normal(size=a.shape), a.dtype), moving
    )
    for where, point in (("at the start", moving), ("near the start", off)):
        value, gradient = gradients(point, tasks, keys)
        assert value.shape == (len(case.tasks),), (
            f"loss() must be a number a task; it has shape {value.shape[1:]}."
        )
        _finite(value, f"The loss is not finite {where} (tasks with 6, 4, 1 and 0 support rows).")
        for path, leaf in jax.tree.leaves_with_path(gradient):
            assert np.isfinite(np.asarray(leaf)).all(), (
                f"The gradient of {_name(path)} is not finite {where}. Usual causes: sqrt or a norm at zero, 0/0 for an "
                "empty support, or a where() whose other branch is infinite (make its input safe first)."
            )
    for path, leaf in jax.tree.leaves_with_path(gradient):
        declared = any(
            _name(path) == u or _name(path).startswith((f"{u}.", f"{u}[")) for u in untrained
        )
        assert declared or (np.asarray(leaf) != 0).any(), (
            f"The loss of no task depends on {_name(path)}: it is an array, hence a meta-parameter, but never learned. Use "
            "it in the loss, make it a Python number, or name it in the class's `untrained`."
        )
    task, key = case.tasks[1], keys[1]
    compiled, eager = gradients(moving, tasks, keys)[0][1], method.loss(task, key=key)
    if float(np.abs(compiled - eager)) > case.tolerance * (1 + float(np.abs(eager))):
        message = "Query rows outside the mask changed the loss."
        _same(
            method.loss(Task(task.support, padded(task.query)), key=key),
            eager,
            case.tolerance,
            message,
        )
    message = "The loss compiled and vmapped over tasks differs from the eager loss of one task."
    _same(compiled, eager, case.tolerance, message)


def check_method(
    method: type[AbstractMethod] | Callable[..., AbstractMethod],
    *,
    head: AbstractHead | None = None,
    x_dim: int = 2,
    pooled: int = 0,
    ordered: bool = False,
    untrained: tuple[str, ...] = (),
    resampled: float | None = None,
    tolerance: float = 2e-3,
    **hyper: Any,
) -> AbstractMethod:
    """The contract of a method, also of one written outside this package.

    Finite loss and gradients for every meta-parameter; compiled = eager; vmap = loop; one
    compilation for all support sizes; no dependence on padding or (unless `ordered`) on the order
    of the rows; an empty support works; the same key gives the same answer; the predictive is
    normalised; draws are whole functions; one row has the same density jointly and marginally;
    saved = loaded. Where the head has no density, the CRPS stands in for it.

    Args:
        method: a class with `init(spec, key=, **hyper)`, or a function that is called in the same
            way.
        head: what is predicted; `Gaussian(1)` unless given.
        x_dim: number of input columns.
        pooled: how many of them, the last ones, are a pooled model's prediction.
        ordered: the answer may depend on the order of the support rows.
        resampled: the posterior draws noise a support row, so that more padding or another order
            gives other draws of the same posterior; answers are then compared within this
            tolerance, with 1024 draws.
        untrained: arrays that the loss need not depend on, besides those that the class names in
            `untrained`.
        tolerance: for equalities that only rounding breaks, relative to 1 + the size.
        hyper: options of `init`.

    Returns:
        the method that was checked.

    Raises:
        AssertionError: the first thing that was broken, and where to look.

    Example:
        >>> from metaprior.methods import MAML
        >>> from metaprior.testing import check_method
        >>> maml = check_method(MAML, width=8)
    """
    head = Gaussian(1) if head is None else head
    init = method.init if isinstance(method, type) else method  # ty: ignore[missing-union-attribute]
    built = init(Spec(x_dim, head, pooled), key=jr.key(0), **hyper)
    _check_training(
        _case(built, head, x_dim, pooled, tolerance), (*untrained, *getattr(built, "untrained", ()))
    )
    checks = dict(ordered=ordered, resampled=resampled, tolerance=tolerance)
    check_learner(built, head=head, x_dim=x_dim, pooled=pooled, **checks)  # ty: ignore[invalid-argument-type]
    return built
