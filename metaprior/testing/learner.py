"""`check_learner`: what a posterior must hold, whatever made the learner."""

import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from metaprior.heads.base import AbstractHead
from metaprior.method import AbstractLearner
from metaprior.system.files import load, save
from metaprior.task import Data, Task, pad
from metaprior.testing.case import (
    QUERY,
    SLOTS,
    Case,
    finite,
    gaps,
    judge,
    make_case,
    put,
    same,
    stack,
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
        resampled: the posterior draws noise for each support row. More padding or another order
            then gives other draws of the same posterior, and answers are compared within this
            tolerance, with 1024 draws.
        tolerance: for equalities that only rounding breaks, relative to 1 + the size.

    Raises:
        AssertionError: the first thing that was broken, and where to look.
    """
    case = make_case(learner, head, x_dim, pooled, tolerance, resampled)
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


def _check_finite(case: Case) -> None:
    """Finite answers at every number of support rows, all from one compiled program."""
    for task in case.tasks:
        shown = int(task.support.count)
        message = f"The posterior from {shown} support rows is not finite."
        if not shown:
            message += (
                " An empty support must give the prior: divide by max(count, 1), mask before "
                "reducing."
            )
        finite(case.look(case.learner, task.support, task.query, jr.key(1)), message)

    assert len(case.traces) == 1, (
        f"{len(case.traces)} compilations for {len(case.tasks)} support sizes. The shapes are the "
        "same (padding): nothing may depend on the number of rows as a Python number, and no "
        "static field may hold an array's value."
    )


def _check_key(case: Case) -> None:
    task, key = case.tasks[1], jr.key(2)
    again = [case.look(case.learner, task.support, task.query, key) for _ in range(2)]
    same(*again, 0.0, "The same key gave two answers; all noise must come from the key.")


def _check_padding(case: Case) -> None:
    """What stands in rows outside the mask makes no difference."""
    task, key = case.tasks[1], jr.key(3)
    shown, mask = task.support, task.support.mask[:, None]
    plain, _ = case.look(case.learner, shown, task.query, key)

    # Finite junk: padding may hold any finite number. 1.0 is also a class.
    def fill(a, junk):
        return put(np.where(mask, a, junk), a.dtype)

    junk = Data(fill(shown.x, 37.0), fill(shown.y, 1.0), shown.mask)
    filled, _ = case.look(case.learner, junk, task.query, key)
    message = (
        "Rows outside the mask changed the answer: a reduction over points does not go through "
        "the mask."
    )
    same(filled, plain, case.tolerance, message)


def _check_order(case: Case) -> None:
    task, key = case.tasks[0], jr.key(4)
    # All six rows are shown: with padding among them the mask would be turned as well.
    turned = jax.tree.map(lambda a: put(np.asarray(a)[[3, 0, 5, 1, 4, 2]]), task.support)
    plain, _ = case.look(case.learner, task.support, task.query, key)
    other, _ = case.look(case.learner, turned, task.query, key)
    message = (
        "The order of the support rows changed the answer. A method that reads a sequence passes "
        "ordered=True."
    )
    same(plain, other, case.other_draws, message)


def _check_eager(case: Case) -> None:
    task, key = case.tasks[1], jr.key(5)
    posterior = case.learner.posterior(task.support, key=key)
    eager = judge(posterior.predict(task.query.x, key=key, samples=case.samples), task.query)
    compiled, _ = case.look(case.learner, task.support, task.query, key)
    # Eagerly only the densities: each further figure would compile many small programs.
    compiled = {name: compiled[name] for name in eager}
    message = "The compiled posterior differs from the eager one: look for a side effect."
    same(eager, compiled, case.tolerance, message)


def _check_vmap(case: Case) -> None:
    """All tasks at once, with three more padding rows.

    Only where the two together make a difference is it asked which of them did: that compiles two
    programs more.
    """
    keys = jr.split(jr.key(6), len(case.tasks))
    wide = [Task(pad(task.support, SLOTS + 3), task.query) for task in case.tasks]
    alone = [
        case.look(case.learner, task.support, task.query, key)[0]
        for task, key in zip(case.tasks, keys)
    ]

    @eqx.filter_jit
    def all_at_once(learner, tasks, keys):
        def one(task, key):
            return case.brief(learner, task.support, task.query, key)

        return jax.vmap(one)(tasks, keys)

    together = all_at_once(case.learner, stack(wide), keys)
    if all(gap <= case.tolerance for _, gap in gaps(together, stack(alone))):
        return

    padded = eqx.filter_jit(case.brief)(case.learner, wide[1].support, wide[1].query, keys[1])
    message = (
        "Three more padding rows changed the answer: something depends on the number of slots "
        "(a mean over them), or noise is drawn a slot (see `resampled`)."
    )
    same(padded, alone[1], case.other_draws, message)

    batched = all_at_once(case.learner, stack(case.tasks), keys)
    message = (
        "vmap over tasks differs from a loop: some operation mixes tasks or reuses one task's "
        "noise."
    )
    # Batched products add up in another order: more rounding than elsewhere.
    same(batched, stack(alone), 10 * case.tolerance, message)


def _check_proper(case: Case) -> None:
    """The predictive is a density (probabilities) at each query point, from few rows and many."""
    for task in (case.tasks[0], case.tasks[2]):
        _, more = case.look(case.learner, task.support, task.query, jr.key(7))
        if "mass" not in more:
            return
        mass = np.asarray(more["mass"])
        name = "predictive density integrates to"
        if case.head.classes:
            name = "probabilities of the classes sum to"
        assert float(np.abs(mass - 1).max()) < 1e-2, (
            f"The {name} {mass}, not 1: log_prob of the mixture is not normalised."
        )
        assert float(more["gap"]) < 1e-3, (
            "predict().mean is not the probability that log_prob gives."
        )


def _check_sample(case: Case) -> None:
    """Draws are whole functions, and one row has the same density jointly and marginally."""
    task = case.tasks[1]
    _, more = case.look(case.learner, task.support, task.query, jr.key(8))
    width = case.head.classes or case.head.y_dim
    limit = 0.05 * np.sqrt(np.asarray(more["variance"]).max())
    for mean, weight in zip(more["drawn"], more["weights"]):
        components = weight.shape[0]
        assert mean.shape == (components, 2 * QUERY, width), (
            f"sample() gave a part of shape {mean.shape}; components ({components}) lead, then "
            f"points ({2 * QUERY}), then {width} outcomes."
        )

        # The second half of the points is the first half again.
        mean = np.asarray(mean)
        gap = np.abs(mean[:, :QUERY] - mean[:, QUERY:]).max()
        assert float(gap) <= float(limit), (
            f"A draw differs by {float(gap):.2g} between two rows with the same x. Component i of "
            "sample() must be one function for all x: draw the task's parameters once a "
            "component, not once a point."
        )

    if "joint" in more:
        joint, marginal = float(more["joint"]), float(more["marginal"])
        assert abs(joint - marginal) < 0.02, (
            f"One row alone has log density {joint:.4f} in joint_log_prob and {marginal:.4f} in "
            "predict; with one row they are the same quantity. Check the noise, and that log_prob "
            "takes the log of a mean."
        )


def _check_files(case: Case) -> None:
    task, key = case.tasks[1], jr.key(10)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "learner"
        save(path, case.learner)
        loaded = load(path)
    pair = [case.look(each, task.support, task.query, key) for each in (loaded, case.learner)]
    message = "The saved learner differs from the one in memory: an array hides outside the leaves."
    same(*pair, 0.0, message)
