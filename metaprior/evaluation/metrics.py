"""Metrics, declared once: name, unit, direction, and how sums over tasks become the figure.

Every metric is a function of sums over tasks of small statistics. So one bootstrap serves them all,
pooled figures (coverage, calibration error) and averages over tasks alike: resample the tasks, add
up, finish.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from metaprior.evaluation import calibration

LEVELS = calibration.LEVELS  # of the calibration error
BINS = 15  # of the top class's probability
METHOD = "method"  # what the learner that the others are baselines for is called


class Metric(NamedTuple):
    """A metric.

    Args:
        name: key in results.
        unit: of the figure, in words.
        better: `"low"`, `"high"`, or the value to be reached.
        finish: summed statistics `(…, k)` -> the figure `(…)`.
    """

    name: str
    unit: str
    better: str | float
    finish: Callable[[np.ndarray], np.ndarray]


def _mean(s):
    """Of the sum and the count `(…, 2)`."""
    return s[..., 0] / np.maximum(s[..., 1], 1e-12)


def _calibration(s):
    """Mean gap of the rows below each quantile level; last comes the number of rows."""
    share = s[..., :-1] / np.maximum(s[..., -1:], 1e-12)
    return np.abs(share - LEVELS).mean(-1)


def _bins(s):
    """Rows in each bin, and the gap between confidence and accuracy there."""
    count, confidence, hit = np.split(s, 3, axis=-1)
    gap = np.abs(hit - confidence) / np.maximum(count, 1e-12)
    return count, gap


def _ece(s):
    count, gap = _bins(s)
    return (count * gap).sum(-1) / np.maximum(count.sum(-1), 1e-12)


def _mce(s):
    count, gap = _bins(s)
    # A bin of a few rows has a large gap by chance alone.
    return np.where(count >= 10, gap, 0.0).max(-1)


METRICS = {
    m.name: m
    for m in (
        Metric("nll", "nats a row", "low", _mean),
        Metric("rmse", "units of the target", "low", _mean),
        Metric("crps", "units of the target", "low", _mean),
        Metric("coverage90", "share of rows", 0.9, _mean),
        Metric("calibration", "mean gap over 20 quantile levels", "low", _calibration),
        Metric("nll_log", "nats a row, of the log", "low", _mean),
        Metric("rmse_log", "log units", "low", _mean),
        Metric("accuracy", "share of rows", "high", _mean),
        Metric("brier", "squared, summed over classes", "low", _mean),
        Metric("ece", f"top class, {BINS} equal bins", "low", _ece),
        Metric("mce", f"top class, bins with 10 rows or more of {BINS}", "low", _mce),
    )
}


def per_task(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean over each task's rows, as statistics `(t, 2)` of an average over tasks."""
    mean = np.where(mask, values, 0.0).sum(1) / np.maximum(mask.sum(1), 1)
    return np.stack([mean, np.ones(len(mean))], axis=1)


def pooled(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Sums and counts of each task, for an average over all rows."""
    return np.stack([np.where(mask, values, 0.0).sum(1), mask.sum(1)], axis=1).astype(float)


def number_statistics(point: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of every metric for numbers.

    Args:
        point: per-row `nll`, `error`, `crps`, `pit`, and where the target is modelled on the log
            scale `nll_log`, `error_log`; `(t, n)` each.
        mask: which rows exist, `(t, n)`.
    """

    def rmse(e):
        return np.stack([np.sqrt(per_task(e**2, mask)[:, 0]), np.ones(len(e))], axis=1)

    below = (point["pit"][..., None] <= LEVELS) & mask[..., None]
    inside = (point["pit"] >= 0.05) & (point["pit"] <= 0.95)
    out = {
        "nll": per_task(point["nll"], mask),
        "rmse": rmse(point["error"]),
        "crps": per_task(point["crps"], mask),
        "coverage90": pooled(inside, mask),
        "calibration": np.concatenate([below.sum(1), mask.sum(1)[:, None]], axis=1).astype(float),
    }
    if "nll_log" in point:
        out |= {"nll_log": per_task(point["nll_log"], mask), "rmse_log": rmse(point["error_log"])}
    return out


def class_statistics(point: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of every metric for classes.

    Args:
        point: per-row `nll` `(t, n)`, probabilities `p` `(t, n, c)` and labels `y` `(t, n)`.
        mask: which rows exist, `(t, n)`.
    """
    p, y = point["p"], point["y"].astype(int)
    confidence, hit = p.max(-1), p.argmax(-1) == y
    brier = ((p - np.eye(p.shape[-1])[y]) ** 2).sum(-1)

    # Rows, sums of confidences, and hits in each bin.
    slot = calibration.width_slot(confidence, BINS)
    one = (np.eye(BINS)[slot] * mask[..., None]).astype(float)
    bins = [one, one * confidence[..., None], one * hit[..., None]]
    bins = np.concatenate([b.sum(1) for b in bins], axis=1)
    return {
        "nll": per_task(point["nll"], mask),
        "accuracy": per_task(hit, mask),
        "brier": per_task(brier, mask),
        "ece": bins,
        "mce": bins,
    }


def bootstrap_weights(tasks: int, repeats: int = 1000, seed: int = 0) -> np.ndarray:
    """How often each task occurs in each of `repeats` resamples, `(repeats, tasks)`."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=repeats).astype(float)


def resamples(
    groups: dict[int, np.ndarray], repeats: int = 1000, seed: int = 0
) -> dict[int, np.ndarray]:
    """For each K, how often each of its tasks occurs in each resample, `(repeats, tasks)`.

    Groups are resampled, not tasks. A group's tasks come and go together, at every K and in every
    split that held the group out.
    """
    names, places = np.unique(np.concatenate(list(groups.values())), return_inverse=True)
    weights = bootstrap_weights(len(names), repeats, seed)
    ends = np.cumsum([len(g) for g in groups.values()])
    return {K: weights[:, places[end - len(g) : end]] for (K, g), end in zip(groups.items(), ends)}


def interval(value: float, draws: np.ndarray, groups: int) -> tuple[float | None, float | None]:
    """95 % interval from bootstrap draws, made wider where groups are few.

    The percentiles alone are too narrow for few groups. The factor sqrt(G / (G - 1)) t / z on their
    distance from the value makes the bootstrap of a mean over G groups as wide as Student's
    interval (Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician
    2015, section 4). One group says nothing about others, so that there is no interval.
    """
    # Imported here: half a second, which those who only predict need not wait for.
    from scipy import stats

    if groups < 2:
        return None, None
    t, z = stats.t.ppf(0.975, groups - 1), stats.norm.ppf(0.975)
    factor = (groups / (groups - 1)) ** 0.5 * t / z
    low, high = np.quantile(draws, [0.025, 0.975])
    below, above = max(value - low, 0.0), max(high - value, 0.0)
    return float(value - factor * below), float(value + factor * above)
