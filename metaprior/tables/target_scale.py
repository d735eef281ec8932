"""The scale that a target of numbers is modelled on: as it is, a logarithm, or another one.

Box & Cox, "An Analysis of Transformations", Journal of the Royal Statistical Society B, 1964:
scales are compared by the density that a model on each of them gives to the outcomes themselves,
which takes the slope of the transformation in.
"""

from typing import NamedTuple

import numpy as np
import polars as pl

from metaprior.bends import Shares, YeoJohnson
from metaprior.tables.meaning.values import numbers
from metaprior.tables.reml import VARIES, Fitted, Sums, fit_reml, starts, within
from metaprior.tables.scaling import Used
from metaprior.tables.tails import log_density, scale_of

SCALES = ("auto", "linear", "log", "log1p", "counts", "shares", "yeo-johnson")
GROUPS, ROWS, COLUMNS = 200, 24, 12  # at most, of those that decide
SLOPES = 2  # columns with a slope a group
ALIKE = 3.0  # outcomes whose ratio is below this are alike on both scales
CLEAR = 0.02  # nats a row by which another scale must be better
BENT = 0.25  # from 1, of a power that bends a scale
SMALL = 10  # a quarter of the outcomes that may be counts are at most this
BENDS = {"shares": Shares, "yeo-johnson": YeoJohnson}
FREEDOMS = (2.5, 3.0, 4.0, 6.0, 10.0, 20.0, 100.0)  # of the noise


class TargetScale(NamedTuple):
    """A scale of a target.

    Args:
        name: `"linear"`, `"log"`, `"log1p"`, `"shares"`, `"yeo-johnson"`, or `"counts"`: whole
            numbers, of which each stands for what rounds to it, on the scale of log1p.
        shift: what is added before the logarithm.
        gain: nats a row that it is better by than the target as it is; `None` where nobody asked.
        bend: the scale of shares, or that of Yeo and Johnson.
    """

    name: str
    shift: float = 0.0
    gain: float | None = None
    bend: Shares | YeoJohnson | None = None

    @property
    def log(self) -> bool:
        """Whether it is a logarithm."""
        return self.name in ("log", "log1p", "counts")

    @property
    def counts(self) -> bool:
        """Whether outcomes are what a smooth variable is rounded to."""
        return self.name == "counts"

    def spread(self, y: np.ndarray) -> np.ndarray:
        """Outcomes to learn from: counts anywhere in what rounds to them, others as they are.

        A density that is fitted to numbers that may be anywhere in there gives a lower bound on the
        probability of the count: Theis, van den Oord & Bethge, "A Note on the Evaluation of
        Generative Models", ICLR 2016, section 3.1. Fitted to the whole numbers it would have peaks
        there.
        """
        if not self.counts:
            return y
        return y + np.random.default_rng(0).uniform(-0.5, 0.5, len(y))

    def of(self, y: np.ndarray) -> np.ndarray:
        """Outcomes on this scale."""
        if self.bend is not None:
            return self.bend.of(y)
        return np.log(y + self.shift) if self.log else y

    def log_slope(self, y: np.ndarray) -> np.ndarray:
        """Log of the slope of `of`, at outcomes."""
        if self.bend is not None:
            return self.bend.log_slope(y)
        return -np.log(y + self.shift) if self.log else np.zeros(len(y))

    def said(self) -> str:
        """Of a target whose scale was chosen."""
        gain = f"groups that a model has not seen are {self.gain:.2f} nats a row more likely"
        if self.counts:
            return (
                f"counts are modelled, with a probability each: {gain} than with the density of a "
                "number; --target-scale linear takes them as numbers."
            )
        if isinstance(self.bend, Shares):
            what = f"the log odds of it as a share of {self.bend.size:g}"
        elif self.bend is not None:
            power = f"the power {self.bend.power:.2g} about {self.bend.middle:.3g}"
            what = f"it without its skew (Yeo and Johnson's transformation, {power})"
        else:
            what = f"the logarithm of it plus {self.shift:g}" if self.shift else "its logarithm"
        return f"{what} is modelled: {gain} than as it is; --target-scale linear takes it as it is."


def named(name: str, y: np.ndarray) -> TargetScale:
    """The scale of this name for outcomes of which none is too small for it."""
    if name == "log1p":
        return TargetScale(name, _shift(y))
    if name in BENDS:
        return TargetScale(name, bend=BENDS[name].fit(y))
    return TargetScale(name, 1.0 if name == "counts" else 0.0)


def _shift(y: np.ndarray) -> float:
    """1 for whole numbers, else the middle one of the positive outcomes."""
    if (y == np.round(y)).all():
        return 1.0
    return float(f"{np.median(y[y > 0]):.3g}")


def choose(
    y: np.ndarray,
    frame: pl.DataFrame,
    used: list[Used],
    group: np.ndarray,
    fold: np.ndarray,
    alone: bool = True,
) -> TargetScale:
    """The scale on which groups that a model has not seen are most likely.

    The model is a linear mixed model with squares and heavy tails: what it takes from the features
    and from a group's own rows is nearly what any learner takes. The target stays as it is where
    that is hardly worse.

    Args:
        y: outcomes of the training rows, `(n,)`.
        frame: the rows.
        used: what was learned of each feature column.
        group: number of the group of each row, in order, `(n,)`.
        fold: of each group, `(g,)`.
        alone: whether it is the only target: others may be counts only then.
    """
    linear = TargetScale("linear")
    candidates = _candidates(y, alone)
    if not candidates:
        return linear
    rows = _some_rows(group)
    y, group = y[rows], group[rows]
    x = _columns(frame[rows], used)
    chosen, group = np.unique(group, return_inverse=True)
    fold = fold[chosen] % 2
    if len(np.unique(fold)) < 2 or y.min() == y.max():
        return linear

    base = _likelihood(linear, y, x, group, fold)
    best, most = linear, 0.0
    for one in candidates:
        gains = _likelihood(one, y, x, group, fold) - base
        gain, error = gains.mean(), gains.std() / np.sqrt(len(gains))
        # One with a power of its own, or that few know, must be clearly better than a logarithm.
        least = most + CLEAR if one.bend is not None else most
        if gain > max(least, CLEAR, 2 * error):
            best, most = one._replace(gain=float(gain)), gain
    return best


def _candidates(y: np.ndarray, alone: bool) -> list[TargetScale]:
    """Other scales that all outcomes have, if they would make a difference."""
    whole = (y == np.round(y)).all()
    counts = alone and whole and y.min() >= 0 and np.quantile(y, 0.25) <= SMALL
    found = []
    if y.min() >= 0 and (y > 0).any():
        low, high = np.quantile(y[y > 0], [0.02, 0.98])
        if y.min() == 0 or high >= ALIKE * low:
            found += [named("log", y)] if y.min() > 0 else []
            # Of whole numbers that may be counts, log1p has no more to say than a probability of
            # each.
            found.append(named("counts" if counts else "log1p", y))
    # Of small shares alone the log odds are the logarithm.
    if y.min() >= 0 and 0.5 < y.max() <= 1 and not whole:
        found.append(named("shares", y))
    bend = YeoJohnson.fit(y)
    if not counts and abs(bend.power - 1) > BENT:
        found.append(TargetScale("yeo-johnson", bend=bend))
    return found


def _some_rows(group: np.ndarray) -> np.ndarray:
    """Numbers of rows of at most `GROUPS` groups, at most `ROWS` each."""
    rng = np.random.default_rng(0)
    which = rng.permutation(int(group.max()) + 1)[:GROUPS]
    order = rng.permutation(len(group))
    order = order[np.argsort(group[order], kind="stable")]
    rank = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    return order[(rank < ROWS) & np.isin(group[order], which)]


def _columns(frame: pl.DataFrame, used: list[Used]) -> np.ndarray:
    """Standardised columns and their squares, `(n, p)`; the first ones where there are many."""
    found: list[np.ndarray] = []
    for one in used:
        if one.scale is not None:
            scaled = one.scale.of(numbers(frame[one.name]))
            found += [scaled, scaled**2 - 1]
        elif one.levels is not None:
            text = frame[one.name].cast(pl.String).fill_null("").to_numpy()
            found += [(text == level).astype(float) for level in one.levels]
    if not found:
        return np.zeros((frame.height, 0))
    x = np.stack(found[:COLUMNS], axis=1)
    return x[:, x.std(0) > 1e-9]


def _likelihood(
    scale: TargetScale, y: np.ndarray, x: np.ndarray, group: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """Mean log density of each group's outcomes under a model of the other half, `(g,)`."""
    placed = scale.of(scale.spread(y))
    spread = placed.std()
    u = (placed - placed.mean()) / spread
    fixed = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    count = np.bincount(group)
    varies = np.flatnonzero(within(x, starts(count)) > VARIES)[:SLOPES]
    z = fixed[:, [0, *(1 + varies)]]
    errors, dets = np.zeros(len(y)), np.zeros(len(y))
    for half in (0, 1):
        known, judged = fold[group] != half, fold[group] == half
        sums = Sums.of(fixed[known], z[known], u[known], starts(count[fold != half]))
        fitted = fit_reml(sums, correlated=False, restricted=False, ridge=1.0)
        errors[judged], dets[judged] = _whitened(
            u[judged] - fixed[judged] @ fitted.beta, z[judged], fitted, count[fold == half]
        )
    if scale.counts:
        ends = scale.of(y[:, None] + [-0.5, 0.5])
        ends[y == 0, 0] = -np.inf
        density = _masses(errors, (ends - placed[:, None]) / (spread * np.exp(dets)[:, None]))
    else:
        density = _tails(errors) - dets - np.log(spread) + scale.log_slope(y)
    return np.bincount(group, density) / count


def _whitened(
    error: np.ndarray, z: np.ndarray, fitted: Fitted, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each row's error given the rows of its group before it, over its deviation; and the log of
    that.
    """
    place = np.arange(count.max()) < count[:, None]
    rows = np.zeros((*place.shape, z.shape[1]))
    rows[place] = z
    e = np.zeros(place.shape)
    e[place] = error
    effects = rows @ fitted.factor
    covariance = effects @ effects.transpose(0, 2, 1)
    covariance += np.eye(place.shape[1]) * np.where(place, fitted.variance, 1.0)[:, None]
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, e[..., None])[..., 0]
    return white[place], np.log(np.diagonal(factor, axis1=1, axis2=2))[place]


def _masses(errors: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Log probability of what rounds to each outcome, under the Student-t that fits best.

    Args:
        errors: `(n,)`.
        gaps: from them to both ends of it, `(n, 2)`.
    """
    from scipy.special import stdtr

    ends = (errors[:, None] + gaps).T

    def mass(df: float) -> np.ndarray:
        low, high = stdtr(df, ends / scale_of(errors, df))
        return np.log(np.maximum(high - low, 1e-12))

    return max(map(mass, FREEDOMS), key=np.sum)


def _tails(errors: np.ndarray) -> np.ndarray:
    """Log density of errors under the Student-t that fits them best."""
    return max((log_density(errors, df) for df in FREEDOMS), key=np.sum)
