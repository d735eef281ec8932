"""Figures of rows pooled over tasks, which are no means of one value a task."""

from collections.abc import Callable

import numpy as np

from metaprior.evaluation import calibration
from metaprior.protocols.protocol import Figure


def pooled(
    setting: str,
    metric: str,
    figure: Callable[..., float],
    *arrays: np.ndarray,
    repeats: int = 100,
) -> Figure:
    """A figure of pooled rows, with its standard error by resampling tasks.

    Rows of one task are not independent, so tasks are resampled and not rows.

    Args:
        setting, metric: as in `Figure`.
        figure: of arrays `(rows, …)`.
        arrays: `(tasks, rows of a task, …)`.
        repeats: resamples. One task alone has no error.
    """
    tasks, rng = len(arrays[0]), np.random.default_rng(0)

    def of_tasks(index: np.ndarray) -> float:
        return float(figure(*(a[index].reshape(-1, *a.shape[2:]) for a in arrays)))

    value = of_tasks(np.arange(tasks))
    if tasks == 1:
        return Figure(setting, metric, value, None, tasks)
    draws = [of_tasks(rng.integers(tasks, size=tasks)) for _ in range(repeats)]
    return Figure(setting, metric, value, float(np.std(draws, ddof=1)), tasks)


def expected(setting: str, metric: str, figure: Callable[..., float], p: np.ndarray) -> Figure:
    """What `figure` is expected to be, were these probabilities right; `metric` + `"_calibrated"`.

    Errors in bins are above 0 on finitely many rows, even when every probability comes true.

    Args:
        setting, metric: of the figure that this stands beside.
        figure: of probabilities `(rows, c)` and classes `(rows,)`.
        p: `(tasks, rows of a task, c)`.
    """
    value, error = calibration.if_calibrated(figure, p.reshape(-1, p.shape[-1]))
    return Figure(setting, f"{metric}_calibrated", value, error, len(p))
