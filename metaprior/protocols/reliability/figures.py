"""The figures of `reliability`, and the raw predictions that they follow from."""

import functools
from collections.abc import Callable

import numpy as np

from metaprior.evaluation import calibration
from metaprior.protocols.pooled import expected, pooled
from metaprior.protocols.protocol import Figure
from metaprior.protocols.raw import task_rows

QUANTILES = (0.05, 0.5, 0.95)

# Figures of pooled rows in bins.
BINNED: dict[str, Callable[..., float]] = {
    "ece15": functools.partial(calibration.ece, bins=15),
    "ece10": functools.partial(calibration.ece, bins=10),
    "mce15": functools.partial(calibration.mce, bins=15),
    "mce15_10": functools.partial(calibration.mce, bins=15, least=10),
    "adaptive15": functools.partial(calibration.adaptive_ece, bins=15),
    "class_adaptive15": functools.partial(calibration.class_adaptive_ece, bins=15),
}


def if_calibrated(setting: str, metric: str, p: np.ndarray) -> Figure:
    """What `metric` is expected to be, were these probabilities `(t, q, c)` right."""
    return expected(setting, metric, BINNED[metric], p)


def number_figures(setting: str, rows: dict[str, np.ndarray]) -> list[Figure]:
    """Of one setting with numbers: rows `(t, q)` and quantiles `(t, 3, q)`."""
    low, high = rows["quantiles"][:, 0], rows["quantiles"][:, -1]
    pit, error = rows["pit"], calibration.quantile_error
    rms = functools.partial(error, kind="rms")
    by_task = {
        "coverage90": (pit >= 0.05) & (pit <= 0.95),
        "width90": high - low,
        "interval90": calibration.interval_score(low, high, rows["y"], 0.9),
        "crps": rows["crps"],
    }
    return [
        Figure.of(setting, "nll", rows["nll"].mean(1)),
        pooled(setting, "calibration", error, pit),
        pooled(setting, "calibration_rms", rms, pit),
        *(Figure.of(setting, metric, values.mean(1)) for metric, values in by_task.items()),
    ]


def class_figures(setting: str, p: np.ndarray, y: np.ndarray, outside: np.ndarray) -> list[Figure]:
    """Of one setting with classes.

    Args:
        setting: its name.
        p: probabilities of query rows, `(t, q, c)`.
        y: their classes, `(t, q)`.
        outside: probabilities of rows of classes that are not in the episode, `(t, q, c)`.
    """
    came = np.take_along_axis(p, y[..., None], -1)[..., 0]
    nll = -np.log(np.maximum(came, 1e-300))
    figures = [
        Figure.of(setting, "nll", nll.mean(1)),
        Figure.of(setting, "accuracy", (p.argmax(-1) == y).mean(1)),
    ]
    for metric, figure in BINNED.items():
        figures.append(pooled(setting, metric, figure, p, y))
        figures.append(if_calibrated(setting, metric, p))

    brier = ((p - np.eye(p.shape[-1])[y]) ** 2).sum(-1)
    inside_h, outside_h = calibration.entropy(p), calibration.entropy(outside)
    return [
        *figures,
        Figure.of(setting, "brier", brier.mean(1)),
        Figure.of(setting, "entropy_in", inside_h.mean(1)),
        Figure.of(setting, "entropy_out", outside_h.mean(1)),
        pooled(setting, "auroc", calibration.auroc, inside_h, outside_h),
    ]


def number_columns(setting: str, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Raw predictions of a setting with numbers."""
    columns = _task_columns(setting, *rows["y"].shape, inside=True)
    for name in ("y", "nll", "mean", "pit", "crps"):
        columns[name] = rows[name].ravel().astype(np.float32)
    for i, level in enumerate(QUANTILES):
        name = f"q{round(100 * level):02d}"
        columns[name] = rows["quantiles"][:, i].ravel().astype(np.float32)
    return columns


def class_columns(
    setting: str, p: np.ndarray, y: np.ndarray, inside: bool
) -> dict[str, np.ndarray]:
    """Raw predictions of a setting with classes; `inside`: of classes of the episode."""
    t, q, classes = p.shape
    columns = _task_columns(setting, t, q, inside)
    columns["y"] = y.ravel().astype(np.float32)
    for k in range(classes):
        columns[f"p_{k}"] = p[..., k].ravel().astype(np.float32)
    return columns


def _task_columns(setting: str, tasks: int, rows: int, inside: bool) -> dict[str, np.ndarray]:
    """Which row is which; rows are many here, so that small integers count."""
    columns = task_rows(setting, tasks, rows)
    for name in ("task", "row"):
        columns[name] = columns[name].astype(np.int32)
    return columns | {"inside": np.full(tasks * rows, inside)}
