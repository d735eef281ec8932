"""figures of reliability."""

from collections.abc import Callable, Sequence

import numpy as np

from metaprior.evaluation import calibration
from metaprior.protocols.protocol import (
    Figure,
)

QUANTILES = (0.05, 0.5, 0.95)


def _pooled(
    setting: str, metric: str, figure: Callable, *arrays: np.ndarray, repeats: int = 100
) -> Figure:
    """`figure` of rows pooled over tasks; its standard error by resampling tasks. Arrays are `(t,
    q, …)`.
    """
    tasks, rng = len(arrays[0]), np.random.default_rng(0)

    def join(index):
        return [a[index].reshape(-1, *a.shape[2:]) for a in arrays]

    draws = [figure(*join(rng.integers(tasks, size=tasks))) for _ in range(repeats)]
    return Figure(
        setting, metric, float(figure(*join(np.arange(tasks)))), float(np.std(draws, ddof=1)), tasks
    )


# Figures of pooled rows in bins: never 0 on finitely many rows, even when every probability comes
# true.
BINNED: dict[str, Callable] = {
    "ece15": lambda p, y: calibration.ece(p, y, 15),
    "ece10": lambda p, y: calibration.ece(p, y, 10),
    "mce15": lambda p, y: calibration.mce(p, y, 15),
    "mce15_10": lambda p, y: calibration.mce(p, y, 15, least=10),
    "adaptive15": lambda p, y: calibration.adaptive_ece(p, y, 15),
    "class_adaptive15": lambda p, y: calibration.class_adaptive_ece(p, y, 15),
}


def if_calibrated(setting: str, metric: str, p: np.ndarray) -> Figure:
    """What `metric` is expected to be were these probabilities right."""
    expected = calibration.if_calibrated(BINNED[metric], p.reshape(-1, p.shape[-1]))
    return Figure(setting, f"{metric}_calibrated", *expected, len(p))


def number_figures(setting: str, rows: dict[str, np.ndarray]) -> list[Figure]:
    """Of one setting with numbers."""
    low, high = rows["quantiles"][:, 0], rows["quantiles"][:, -1]

    def of(metric, values):
        return Figure.of(setting, metric, values.mean(1))

    pit = rows["pit"]
    return [
        of("nll", rows["nll"]),
        _pooled(setting, "calibration", calibration.quantile_error, pit),
        _pooled(
            setting, "calibration_rms", lambda u: calibration.quantile_error(u, kind="rms"), pit
        ),
        of("coverage90", (pit >= 0.05) & (pit <= 0.95)),
        of("width90", high - low),
        of("interval90", calibration.interval_score(low, high, rows["y"], 0.9)),
        of("crps", rows["crps"]),
    ]


def class_figures(setting: str, p: np.ndarray, y: np.ndarray, outside: np.ndarray) -> list[Figure]:
    """Of one setting with classes: `p` `(t, q, c)`, `y` `(t, q)`, `outside` `(t, q, c)`."""
    inside_h, outside_h = calibration.entropy(p), calibration.entropy(outside)

    def rows(metric):
        return _pooled(setting, metric, BINNED[metric], p, y)

    came = np.take_along_axis(p, y[..., None], -1)[..., 0]
    return [
        Figure.of(setting, "nll", -np.log(np.maximum(came, 1e-300)).mean(1)),
        Figure.of(setting, "accuracy", (p.argmax(-1) == y).mean(1)),
        *(
            figure
            for metric in BINNED
            for figure in (rows(metric), if_calibrated(setting, metric, p))
        ),
        Figure.of(setting, "brier", ((p - np.eye(p.shape[-1])[y]) ** 2).sum(-1).mean(1)),
        Figure.of(setting, "entropy_in", inside_h.mean(1)),
        Figure.of(setting, "entropy_out", outside_h.mean(1)),
        _pooled(setting, "auroc", calibration.auroc, inside_h, outside_h),
    ]


def _number_columns(setting: str, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    t, q = rows["y"].shape
    columns = {
        "setting": np.full(t * q, setting),
        "task": np.repeat(np.arange(t, dtype=np.int32), q),
        "row": np.tile(np.arange(q, dtype=np.int32), t),
        "inside": np.ones(t * q, bool),
    }
    columns |= {k: rows[k].ravel().astype(np.float32) for k in ("y", "nll", "mean", "pit", "crps")}
    return columns | {
        f"q{round(100 * level):02d}": rows["quantiles"][:, i].ravel().astype(np.float32)
        for i, level in enumerate(QUANTILES)
    }


def _class_columns(
    setting: str, p: np.ndarray, y: np.ndarray, inside: bool
) -> dict[str, np.ndarray]:
    t, q, c = p.shape
    columns = {
        "setting": np.full(t * q, setting),
        "task": np.repeat(np.arange(t, dtype=np.int32), q),
        "row": np.tile(np.arange(q, dtype=np.int32), t),
        "inside": np.full(t * q, inside),
    }
    columns |= {"y": y.ravel().astype(np.float32)}
    return columns | {f"p_{k}": p[..., k].ravel().astype(np.float32) for k in range(c)}


def _joined(tables: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One table; columns that a part has not are NaN there."""
    names = list(dict.fromkeys(name for table in tables for name in table))

    def size(table):
        return len(table["y"])

    def absent(table):
        return np.full(size(table), np.nan, np.float32)

    return {
        name: np.concatenate([t[name] if name in t else absent(t) for t in tables])
        for name in names
    }
