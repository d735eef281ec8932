"""`check_method`: the whole contract of a method, training included."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from metaprior.heads import Gaussian
from metaprior.heads.base import AbstractHead
from metaprior.method import AbstractMethod, Spec
from metaprior.task import Data, Task
from metaprior.testing.case import Case, finite, make_case, put, same, stack
from metaprior.testing.learner import check_learner


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
        untrained: arrays that the loss need not depend on, besides those that the class names in
            `untrained`.
        resampled: the posterior draws noise for each support row. More padding or another order
            then gives other draws of the same posterior, and answers are compared within this
            tolerance, with 1024 draws.
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

    case = make_case(built, head, x_dim, pooled, tolerance)
    _check_training(case, built, (*untrained, *getattr(built, "untrained", ())))
    check_learner(
        built,
        head=head,
        x_dim=x_dim,
        pooled=pooled,
        ordered=ordered,
        resampled=resampled,
        tolerance=tolerance,
    )
    return built


def _check_training(case: Case, method: AbstractMethod, untrained: tuple[str, ...]) -> None:
    """Loss and gradients of all tasks at once, and the loss of one task eagerly."""
    tasks = stack([Task(task.support, _longer(task.query)) for task in case.tasks])
    keys = jr.split(jr.key(12), len(case.tasks))
    moving, fixed = eqx.partition(case.learner, eqx.is_inexact_array)

    @jax.jit
    def gradients(arrays, tasks, keys):
        def loss(arrays, task, key):
            return eqx.combine(arrays, fixed).loss(task, key=key)

        def one(task, key):
            return jax.value_and_grad(loss)(arrays, task, key)

        return jax.vmap(one)(tasks, keys)

    losses = _check_finite_loss(lambda arrays: gradients(arrays, tasks, keys), moving, untrained)
    _check_eager_loss(case, method, losses, keys)


def _longer(query: Data) -> Data:
    """The rows, and as many padding rows with odd numbers in them."""

    def twice(a, junk):
        return put(np.concatenate([a, np.full_like(a, junk)]))

    return Data(twice(query.x, 37.0), twice(query.y, 1.0), twice(query.mask, False))


def _check_finite_loss(gradients: Callable, moving: Any, untrained: tuple[str, ...]) -> Any:
    """Finite loss and gradients; each meta-parameter moves the loss of some task.

    Returns the losses at the start.
    """
    # A little off the start: a layer that starts at zero hides the gradients of those before it.
    random = np.random.default_rng(13)
    near = jax.tree.map(
        lambda a: put(np.asarray(a) + 0.05 * random.normal(size=a.shape), a.dtype), moving
    )
    start, gradient = gradients(moving)
    _check_values(start, gradient, "at the start")
    value, gradient = gradients(near)
    _check_values(value, gradient, "near the start")

    for path, leaf in jax.tree.leaves_with_path(gradient):
        name = _name(path)
        assert _declared(name, untrained) or (np.asarray(leaf) != 0).any(), (
            f"The loss of no task depends on {name}: it is an array, hence a meta-parameter, but "
            "never learned. Use it in the loss, make it a Python number, or name it in the class's "
            "`untrained`."
        )
    return start


def _check_values(value: Any, gradient: Any, where: str) -> None:
    """Losses of all tasks and their gradients at one point."""
    assert value.ndim == 1, f"loss() must be a number a task; it has shape {value.shape[1:]}."
    finite(value, f"The loss is not finite {where} (tasks with 6, 4, 1 and 0 support rows).")
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(np.asarray(leaf)).all(), (
            f"The gradient of {_name(path)} is not finite {where}. Usual causes: sqrt or a norm at "
            "zero, 0/0 for an empty support, or a where() whose other branch is infinite (make its "
            "input safe first)."
        )


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path).lstrip(".")


def _declared(name: str, untrained: tuple[str, ...]) -> bool:
    """Whether an array, or what it is a part of, need not be learned."""
    return any(name == whole or name.startswith((f"{whole}.", f"{whole}[")) for whole in untrained)


def _check_eager_loss(case: Case, method: AbstractMethod, losses: Any, keys: Any) -> None:
    """The loss of one task, eagerly and without padding, is the compiled one."""
    task, key, compiled = case.tasks[1], keys[1], losses[1]
    eager = method.loss(task, key=key)
    if float(np.abs(compiled - eager)) > case.tolerance * (1 + float(np.abs(eager))):
        # Padding or compiling: which of them made the difference?
        longer = Task(task.support, _longer(task.query))
        message = "Query rows outside the mask changed the loss."
        padded = method.loss(longer, key=key)
        same(padded, eager, case.tolerance, message)
    message = "The loss compiled and vmapped over tasks differs from the eager loss of one task."
    same(compiled, eager, case.tolerance, message)
