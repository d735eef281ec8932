"""Do stated probabilities come true? Figures on pooled predictions, in numpy.

Every function takes predictions of many tasks laid end to end. Errors binned task by task and then
averaged would be biased upward, since a bin of a few rows is never where it should be. All figures
are computed in double precision. Where a figure has several definitions in the literature, the name
says which one is meant.

Classes: `p` are probabilities `(n, c)`, `y` class indices `(n,)`. Numbers: `pit` are F(y), the
predictive distribution function at the true outcome, `(n,)`.
"""

from typing import Any, NamedTuple

import numpy as np

# Parts of scipy are imported where they are used: those who only predict need not wait for them.

LEVELS = np.linspace(0.05, 0.95, 20)  # of Rothfuss et al., "PACOH", ICML 2021


class Bins(NamedTuple):
    """A reliability diagram, bin by bin.

    Args:
        count: number of rows.
        stated: mean stated probability; NaN where the bin is empty.
        came: share that came true; NaN where the bin is empty.
    """

    count: np.ndarray
    stated: np.ndarray
    came: np.ndarray

    def gap(self) -> np.ndarray:
        """|share - stated| of each bin, 0 where it is empty."""
        return np.abs(np.nan_to_num(self.came - self.stated))


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Totals over counts; NaN where nothing was counted."""
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _binned(stated: np.ndarray, came: np.ndarray, slot: np.ndarray, bins: int) -> Bins:
    """The diagram of rows whose bins are known."""
    count = np.bincount(slot, minlength=bins)

    def total(values):
        return np.bincount(slot, np.asarray(values, np.float64), minlength=bins)

    return Bins(count, _mean(total(stated), count), _mean(total(came), count))


def _classes(p: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and class indices as arrays of matching shapes."""
    p, y = np.asarray(p, np.float64), np.asarray(y).astype(int).ravel()
    if p.ndim != 2 or len(p) != len(y) or len(y) == 0:
        raise ValueError(
            "Calibration takes p of shape (n, c) and y of shape (n,), n > 0; "
            f"got {p.shape} and {y.shape}."
        )
    return p, y


def equal_width(stated: Any, came: Any, bins: int = 15) -> Bins:
    """Bins (a, b] of equal width, the first with 0 in it.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.

    Args:
        stated: probabilities, `(n,)`.
        came: whether each came true, `(n,)`.
        bins: their number.
    """
    stated = np.asarray(stated, np.float64).ravel()
    return _binned(stated, np.asarray(came, np.float64).ravel(), width_slot(stated, bins), bins)


def width_slot(stated: np.ndarray, bins: int) -> np.ndarray:
    """Which of the bins of `equal_width` each probability is in."""
    below = np.searchsorted(np.linspace(0, 1, bins + 1), stated, side="left")
    return np.clip(below - 1, 0, bins - 1)


def equal_mass(stated: Any, came: Any, bins: int = 15) -> Bins:
    """Bins of equally many rows, give or take one, in the order of the stated probability."""
    stated = np.asarray(stated, np.float64).ravel()
    slot = np.empty(len(stated), int)
    slot[np.argsort(stated, kind="stable")] = np.arange(len(stated)) * bins // len(stated)
    return _binned(stated, np.asarray(came, np.float64).ravel(), slot, bins)


def top(p: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The largest probability of each row, and whether its class came."""
    p, y = _classes(p, y)
    return p.max(-1), p.argmax(-1) == y


def ece(p: Any, y: Any, bins: int = 15) -> float:
    """Expected calibration error of the top class, with bins of equal width.

    It is the mean over rows of |accuracy - confidence|, both of the row's bin.

    Example:
        >>> from metaprior.evaluation import calibration
        >>> round(calibration.ece([[0.8, 0.2]] * 5, [0, 0, 0, 1, 1]), 3)
        0.2
    """
    return _mean_gap(equal_width(*top(p, y), bins))


def _mean_gap(table: Bins) -> float:
    """Mean gap over rows."""
    return float((table.count * table.gap()).sum() / table.count.sum())


def mce(p: Any, y: Any, bins: int = 15, least: int = 1) -> float:
    """Maximum calibration error of the top class, over bins of at least `least` rows.

    A bin of one row has an error of up to 1 by itself, so the figure over all bins says little
    about the predictions.
    """
    table = equal_width(*top(p, y), bins)
    return float(np.where(table.count >= least, table.gap(), 0.0).max())


def adaptive_ece(p: Any, y: Any, bins: int = 15) -> float:
    """Calibration error of the top class with bins of equal mass."""
    return _mean_gap(equal_mass(*top(p, y), bins))


def class_adaptive_ece(p: Any, y: Any, bins: int = 15) -> float:
    """Adaptive calibration error over every class: 1 / (c r) sum_{c, r} |acc - conf|.

    Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019, equation 3, with r
    ranges of equal mass for each of the c classes.
    """
    p, y = _classes(p, y)
    gaps = [equal_mass(p[:, c], y == c, bins).gap().mean() for c in range(p.shape[1])]
    return float(np.mean(gaps))


def brier(p: Any, y: Any) -> float:
    """Brier (1950): the mean over rows of the squared error summed over classes, 0 … 2.

    Some authors divide it by the number of classes.
    """
    p, y = _classes(p, y)
    return float(((p - np.eye(p.shape[1])[y]) ** 2).sum(-1).mean())


def binary_brier(stated: Any, came: Any) -> float:
    """Mean of (stated - came)² of one event, 0 … 1, as scikit-learn has it.

    With two classes it is half of `brier`.
    """
    return float(((np.asarray(stated, np.float64) - np.asarray(came, np.float64)) ** 2).mean())


def entropy(p: Any) -> np.ndarray:
    """Entropy of each row of probabilities, in nats."""
    p = np.asarray(p, np.float64)
    return -np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0.0).sum(-1)


def if_calibrated(figure: Any, p: Any, repeats: int = 50) -> tuple[float, float]:
    """What `figure(p, y)` would be if these probabilities were right, and its standard error.

    Binned errors are never 0 on finitely many rows. This is the mean over `repeats` sets of labels
    that are drawn from `p`.
    """
    p, rng = np.asarray(p, np.float64), np.random.default_rng(1)
    upto = np.cumsum(p, -1) / p.sum(-1, keepdims=True)
    values = [figure(p, (rng.random((len(p), 1)) > upto[:, :-1]).sum(-1)) for _ in range(repeats)]
    return float(np.mean(values)), float(np.std(values, ddof=1) / repeats**0.5)


def auroc(inside: Any, outside: Any) -> float:
    """Chance that a row from outside scores higher than one from inside, ties counting half.

    With `entropy` as the score it says how well uncertainty finds the rows whose class is not in
    the episode.
    """
    from scipy.stats import rankdata

    inside = np.asarray(inside, np.float64).ravel()
    outside = np.asarray(outside, np.float64).ravel()
    m, n = len(outside), len(inside)
    rank = rankdata(np.concatenate([outside, inside]))[:m].sum()
    return float((rank - m * (m + 1) / 2) / (m * n))  # Mann and Whitney's U, as a share of pairs


def auroc_error(inside: Any, outside: Any) -> float:
    """Standard error of `auroc`, rows of each side being independent.

    DeLong, DeLong & Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver
    Operating Characteristic Curves", Biometrics 1988: of the mean over rows of one side of the
    share of the other side that it beats, and likewise of the other side.
    """
    from scipy.stats import rankdata

    inside = np.asarray(inside, np.float64).ravel()
    outside = np.asarray(outside, np.float64).ravel()
    m, n = len(outside), len(inside)
    rank = rankdata(np.concatenate([outside, inside]))
    beats = (rank[:m] - rankdata(outside)) / n
    beaten = (rank[m:] - rankdata(inside)) / m
    return float((beats.var(ddof=1) / m + beaten.var(ddof=1) / n) ** 0.5)


def class_nll(p: Any, y: Any) -> float:
    """Mean of -log p of the class that came, in nats."""
    p, y = _classes(p, y)
    return float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-300)).mean())


def tempered(p: Any, temperature: float) -> np.ndarray:
    """Probabilities proportional to p^(1 / temperature): logits divided by it."""
    log_p = np.log(np.maximum(np.asarray(p, np.float64), 1e-300)) / temperature
    powered = np.exp(log_p - log_p.max(-1, keepdims=True))
    return powered / powered.sum(-1, keepdims=True)


def fit_temperature(p: Any, y: Any) -> float:
    """The temperature in e^-4 … e^4 that minimises the nll.

    Give it validation tasks, never the tasks that are reported.
    """
    from scipy.optimize import minimize_scalar

    p, y = _classes(p, y)

    def nll(log_temperature):
        return class_nll(tempered(p, np.exp(log_temperature)), y)

    return float(np.exp(minimize_scalar(nll, bounds=(-4, 4), method="bounded").x))


# ---- numbers ----


def reached(pit: Any, levels: Any = LEVELS) -> np.ndarray:
    """Share of rows below their predictive quantile of each level; the ideal is the level."""
    pit = np.sort(np.asarray(pit, np.float64).ravel())
    return np.searchsorted(pit, np.asarray(levels), side="right") / len(pit)


def quantile_error(pit: Any, levels: Any = LEVELS, kind: str = "mean") -> float:
    """How far the shares below predictive quantiles are from the levels.

    Args:
        pit: F(y) of each row.
        levels: of the quantiles.
        kind: `"mean"` of |gap| (PACOH's code for networks), `"rms"` of the gaps (its code for
            Gaussian processes), or `"sum"` of their squares (Kuleshov, Fenner & Ermon, "Accurate
            Uncertainties for Deep Learning Using Calibrated Regression", ICML 2018, equation 9 with
            equal weights 1).
    """
    gap = reached(pit, levels) - np.asarray(levels)
    kinds = {
        "mean": np.abs(gap).mean(),
        "rms": np.sqrt((gap**2).mean()),
        "sum": (gap**2).sum(),
    }
    if kind not in kinds:
        raise ValueError(f"kind is one of {', '.join(kinds)}; got {kind!r}.")
    return float(kinds[kind])


def central_error(pit: Any, shares: Any = LEVELS) -> float:
    """Mean |gap| between the coverage of central intervals and their probability.

    A bias to one side can cancel here; it cannot with `quantile_error`.
    """
    shares = np.asarray(shares)
    covered = np.array([coverage(pit, share) for share in shares])
    return float(np.abs(covered - shares).mean())


def coverage(pit: Any, share: float = 0.9) -> float:
    """Share of rows inside their central interval of probability `share`."""
    return float((np.abs(np.asarray(pit, np.float64) - 0.5) <= share / 2).mean())


def interval_score(low: Any, high: Any, y: Any, share: float = 0.9) -> np.ndarray:
    """Interval score of each row, units of y; low is good.

    It is the width, plus 2 / (1 - share) times how far y lies outside: Gneiting & Raftery,
    "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 2007, equation 43.
    """
    low, high, y = (np.asarray(a, np.float64) for a in (low, high, y))
    return high - low + 2 / (1 - share) * (np.maximum(low - y, 0) + np.maximum(y - high, 0))


def crps_ensemble(samples: Any, y: Any, fair: bool = False) -> np.ndarray:
    """Continuous ranked probability score of equally likely outcomes, units of y.

    It is mean |X - y| - 1/2 mean |X - X'|.

    Args:
        samples: `(s, …)`.
        y: `(…)`.
        fair: divide the second mean by s (s - 1) instead of s². The result is then unbiased for
            the score of the distribution that the samples come from.
    """
    x, y = np.sort(np.asarray(samples, np.float64), axis=0), np.asarray(y, np.float64)
    s = len(x)

    # sum_ij |x_i - x_j| = 2 sum_i weight_i x_i for sorted x: no double sum over samples.
    weight = (2 * np.arange(1, s + 1) - s - 1).reshape(-1, *[1] * (x.ndim - 1))
    pairs = s * (s - 1) if fair else s * s
    return np.abs(x - y).mean(0) - (weight * x).sum(0) / pairs


def crps_normal(mean: Any, std: Any, y: Any) -> np.ndarray:
    """Continuous ranked probability score of N(mean, std²), in closed form, units of y."""
    from scipy.stats import norm

    std = np.asarray(std, np.float64)
    z = (np.asarray(y, np.float64) - np.asarray(mean, np.float64)) / std
    return std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - np.pi**-0.5)


def pit_histogram(pit: Any, bins: int = 20) -> np.ndarray:
    """Share of rows in each of `bins` equal parts of [0, 1]; the ideal is 1 / bins each."""
    count = np.histogram(np.clip(np.asarray(pit, np.float64), 0, 1), bins, (0, 1))[0]
    return count / count.sum()
