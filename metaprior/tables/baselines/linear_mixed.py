"""The linear mixed model of a table, as a learner whose posterior is exact."""

import numpy as np

from metaprior.heads import Gaussian
from metaprior.methods.process import Process
from metaprior.nets.kernels import RandomEffects
from metaprior.nets.means import Mean, Scale
from metaprior.tables.baselines.learners import on_device
from metaprior.tables.reml import VARIES, Fitted, Sums, fit_reml, parts_of, starts, within

MOST_SLOPES = 16  # columns with a slope a group
MOST_CORRELATED = 8  # more slopes than these would be uncorrelated
NO_EFFECT = -30.0  # log of a deviation that is none


def slopes(x: np.ndarray, start: np.ndarray, most: int) -> np.ndarray:
    """Columns that get a slope a group: those that vary most within groups.

    Args:
        x: standardised columns, the rows of a group together, `(n, d)`.
        start: first row of each group.
        most: how many, at most.
    """
    variance = within(x, start)
    order = np.argsort(-variance, kind="stable")[:most]
    return np.sort(order[variance[order] > VARIES])


def _basis(x: np.ndarray) -> np.ndarray:
    """Directions of the columns that the rows tell apart, `(1 + d, p)`.

    All levels of a category add up to the intercept: such directions are left out, which changes no
    prediction.
    """
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    return vectors[:, values > 1e-9 * values[-1]]


def fit_mixed(
    x: np.ndarray,
    y: np.ndarray,
    start: np.ndarray,
    fold: np.ndarray,
    most_slopes: int = MOST_SLOPES,
) -> Process:
    """Mixed models of the groups outside each fold and, last, of all groups; stacked.

    Fixed effects of all columns; a random intercept, and random slopes where Akaike's criterion has
    them: uncorrelated, or all correlated. It is fitted by REML.

    Args:
        x: standardised columns, the rows of a group together, `(n, d)`.
        y: outcomes `(n,)`.
        start: first row of each group, `(g,)`.
        fold: of each group, `(g,)`.
        most_slopes: columns that may have a slope a group; 0: a random intercept alone.
    """
    count = np.diff(np.append(start, len(y)))
    x, y = x.astype(np.float64), y.astype(np.float64)
    fixed = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    effects = np.append(
        0, 1 + slopes(x, start, most_slopes)
    )  # columns of `fixed` with random effects
    *parts, whole = [_part(fixed, effects, y, count, keep) for keep in parts_of(fold)]

    best, chosen, correlated = _choose(*whole, np.arange(len(effects)))
    lambda_ = best.factor / np.sqrt(best.variance)
    found = []
    for sums, basis in parts:
        fitted = _fit(sums.some(chosen), correlated, start=lambda_)
        found.append(_effects(fitted, basis, effects[chosen]))
    found.append(_effects(best, whole[1], effects[chosen]))
    return _learner(found)


def _part(fixed, effects, y, count, keep) -> tuple[Sums, np.ndarray]:
    """The sums of some groups, and the basis of their fixed effects."""
    rows = np.repeat(keep, count)
    x, basis = fixed[rows], _basis(fixed[rows])
    return Sums.of(x @ basis, x[:, effects], y[rows], starts(count[keep])), basis


def _fit(sums: Sums, correlated: bool, start: np.ndarray | None = None) -> Fitted:
    # With nearly as many columns as rows the fixed effects need something to hold them; they are
    # then no longer free, as REML has them.
    held = 4 * len(sums.xy) > sums.rows
    return fit_reml(
        sums, correlated=correlated, restricted=not held, ridge=float(held), start=start
    )


def _choose(sums: Sums, basis: np.ndarray, every: np.ndarray) -> tuple[Fitted, np.ndarray, bool]:
    """The best covariance by Akaike's criterion: its fit, its random effects, and whether they are
    correlated.
    """
    options = [(_fit(sums.some(every[:1]), True), every[:1], True)]
    if len(every) > 1:
        alone = _fit(sums, False)
        options.append((alone, every, False))
        if len(every) <= 1 + MOST_CORRELATED:
            start = alone.factor / np.sqrt(alone.variance)
            options.append((_fit(sums, True, start=start), every, True))
    return min(options, key=lambda option: option[0].aic)


def _effects(fitted: Fitted, basis: np.ndarray, effects: np.ndarray) -> tuple[np.ndarray, ...]:
    """Fixed effects, a factor of the covariance of all effects of a new group, and the noise.

    What is not known of the fixed effects is as unknown in a new group, so it is one more random
    effect, which the group's rows then tell.
    """
    own = np.zeros((len(basis), len(effects)))
    own[effects] = fitted.factor
    values, vectors = np.linalg.eigh(fitted.beta_cov)
    unsure = basis @ (vectors * np.sqrt(np.maximum(values, 0.0)))
    unsure = np.pad(unsure, ((0, 0), (0, len(basis) - unsure.shape[1])))
    return basis @ fitted.beta, np.concatenate([own, unsure], axis=1), np.sqrt(fitted.variance)


def _learner(found: list[tuple[np.ndarray, ...]]) -> Process:
    """The models as processes on the columns, stacked."""
    beta, factor, noise = (np.stack(part) for part in zip(*found))
    q, floor = factor.shape[1], 1e-6
    kernel = RandomEffects(on_device(factor), on_device(np.full((len(found), q), NO_EFFECT)), 1)
    mean = Mean(None, on_device(beta[..., None]), None, 0, 1, 1)
    scale = Scale(on_device(np.log(np.maximum(noise - floor, floor))), None, floor)
    return Process(mean, (kernel,), scale, Gaussian(1), columns=q - 1)
