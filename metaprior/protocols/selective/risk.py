"""Errors of what is kept when the least certain rows, or whole tasks, are left out."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

RESAMPLED = 200  # sets of tasks of which errors are the spread


def risk_curve(
    loss: Float[np.ndarray, "n"], doubt: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """The mean loss of the k least doubtful, k = 1 … n.

    El-Yaniv & Wiener, "On the Foundations of Noise-Free Selective Classification", JMLR 2010. Ties
    stay in the order given.
    """
    order = np.argsort(doubt, kind="stable")
    return np.cumsum(loss[order]) / np.arange(1, len(loss) + 1)


def kept(curve: Float[np.ndarray, "n"], share: float) -> float:
    """The mean loss of such a share, at least of one."""
    return float(curve[max(1, round(share * len(curve))) - 1])


def figures(
    loss: Float[np.ndarray, "t n"],
    doubt: Float[np.ndarray, "t n"],
    best: Float[np.ndarray, "t n"],
) -> dict[str, float]:
    """What is left out by rows and by whole tasks.

    Args:
        loss: squared errors.
        doubt: stated standard deviations, or what else orders rows.
        best: those of the exact posterior.

    Returns:
        `rmse`, of all rows; `kept80`, `kept50`, root of the mean loss of such a share; `area`, the
        mean of `risk_curve` (Geifman & El-Yaniv, "Selective Classification for Deep Neural
        Networks", NeurIPS 2017), and `excess`, that less the area of the same losses in the order
        of `best`; `tasks80`, `tasks50` and `tasks_excess` of whole tasks in the order of their mean
        doubt.
    """
    curve = risk_curve(loss.ravel(), doubt.ravel())
    ideal = risk_curve(loss.ravel(), best.ravel())
    whole = loss.mean(1)
    tasks, ideal_tasks = (risk_curve(whole, values.mean(1)) for values in (doubt, best))
    return {
        "rmse": float(curve[-1] ** 0.5),
        "kept80": kept(curve, 0.8) ** 0.5,
        "kept50": kept(curve, 0.5) ** 0.5,
        "area": float(curve.mean()),
        "excess": float(curve.mean() - ideal.mean()),
        "tasks80": kept(tasks, 0.8) ** 0.5,
        "tasks50": kept(tasks, 0.5) ** 0.5,
        "tasks_excess": float(tasks.mean() - ideal_tasks.mean()),
    }


def with_errors(
    call: Callable[..., dict[str, float]], *arrays: Float[np.ndarray, "t n"]
) -> dict[str, tuple[float, float]]:
    """Figures with standard errors: their spread over tasks drawn with replacement.

    Args:
        call: gives figures by name.
        arrays: the tasks lead.
    """
    rng, t = np.random.default_rng(0), len(arrays[0])
    again = []
    for _ in range(RESAMPLED):
        pick = rng.integers(0, t, t)
        again.append(call(*(array[pick] for array in arrays)))
    return {
        name: (value, float(np.std([each[name] for each in again], ddof=1)))
        for name, value in call(*arrays).items()
    }
