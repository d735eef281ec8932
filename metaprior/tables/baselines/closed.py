"""Boosting plus an offset or a Gaussian process for each group, fitted by evidence, in NumPy.

The evidence of a Gaussian process and its gradient are those of Rasmussen & Williams, "Gaussian
Processes for Machine Learning", 2006, equations 5.8 and 5.9, summed over groups.
"""

from typing import NamedTuple

import numpy as np

from metaprior.heads import Gaussian
from metaprior.methods.process import Process
from metaprior.nets.kernels import Constant, Stationary
from metaprior.nets.means import Mean, Scale
from metaprior.tables.baselines.learners import on_device
from metaprior.tables.reml import Sums, fit_reml, parts_of, starts

ROWS = 32  # most rows of a group that the evidence of a process is computed with
GROUPS = 200  # most groups, which settle a handful of numbers
NUMBERS = 20_000_000  # most squared differences that are held at once
FLOOR = 3e-3  # of the noise's deviation, as in `Scale`
NONE = -12.0  # log of a deviation that is none
JITTER = 1e-5


def fit_offset(pooled: np.ndarray, y: np.ndarray, count: np.ndarray, fold: np.ndarray) -> Process:
    """Offset models of the groups outside each fold and, last, of all groups; stacked.

    The fit is by REML: the pooled prediction has one fixed effect, a group one random intercept.

    Args:
        pooled: prediction of every row, `(n, 1)`, the rows of a group together.
        y: outcomes, `(n,)`.
        count: number of rows of each group, `(g,)`.
        fold: of each group, `(g,)`.
    """
    pooled, y = pooled.astype(np.float64), y.astype(np.float64)
    found = []
    for keep in parts_of(fold):
        rows = np.repeat(keep, count)
        ones = np.ones((rows.sum(), 1))
        sums = Sums.of(pooled[rows], ones, y[rows], starts(count[keep]))
        fitted = fit_reml(sums, ridge=1e-6 * len(y))
        offset = max(abs(float(fitted.factor[0, 0])), np.exp(NONE))
        noise = max(np.sqrt(fitted.variance) - FLOOR, FLOOR)
        found.append((fitted.beta[0], np.log(offset), np.log(noise)))
    coefficient, offset, noise = map(on_device, zip(*found))
    return Process(
        Mean(coefficient, None, None, 1, 0, 1),
        (Constant(offset),),
        Scale(noise, None),
        Gaussian(1),
        columns=None,
    )


class _Padded(NamedTuple):
    """Some groups with as many rows each.

    Args:
        squares: of the differences between rows in each column, `(g, n, n, d)`.
        y: `(g, n)`.
        mask: which rows there are, `(g, n)`.
    """

    squares: np.ndarray
    y: np.ndarray
    mask: np.ndarray


def _padded(x, y, start, count, rng) -> _Padded:
    """At most `GROUPS` groups with at most `ROWS` rows each, drawn where there are more."""
    width = int(min(count.max(), ROWS))
    most = max(1, min(GROUPS, NUMBERS // (width * width * max(x.shape[1], 1))))
    groups = np.sort(rng.permutation(len(count))[:most])
    rows = np.zeros((len(groups), width), int)
    mask = np.zeros(rows.shape, bool)
    for i, g in enumerate(groups):
        chosen = start[g] + rng.permutation(count[g])[:width]
        rows[i, : len(chosen)], mask[i, : len(chosen)] = chosen, True
    near = x[rows]
    squares = (near[:, :, None] - near[:, None]) ** 2
    return _Padded(squares, y[rows] * mask, mask)


def _evidence(numbers: np.ndarray, data: _Padded) -> tuple[float, np.ndarray]:
    """Minus the log evidence a row, and its gradient.

    Args:
        numbers: logs of the deviations of the offset, of the smooth function and of the noise; logs
            of the length scales.
        data: the groups.
    """
    offset, smooth, noise = np.exp(2 * numbers[:3])
    weight = np.exp(-2 * numbers[3:])
    both = data.mask[:, :, None] & data.mask[:, None]
    near = smooth * np.exp(-0.5 * (data.squares @ weight)) * both
    eye = np.eye(data.mask.shape[1])
    jitter = JITTER * (1 + offset + smooth)
    diagonal = np.where(data.mask, noise + jitter, 1.0)
    covariance = near + offset * both + eye * diagonal[:, None]
    precision = np.linalg.inv(covariance)
    log_det = np.linalg.slogdet(covariance)[1].sum()

    alpha = (precision @ data.y[..., None])[..., 0]
    rows = data.mask.sum()
    value = 0.5 * ((data.y * alpha).sum() + log_det + rows * np.log(2 * np.pi))

    # Half of K⁻¹ - α αᵀ, among rows that there are.
    slope = 0.5 * (precision - alpha[:, :, None] * alpha[:, None]) * both
    trace = np.einsum("gnn->", slope)
    along = slope * near
    gradient = np.empty_like(numbers)
    gradient[0] = 2 * offset * (slope.sum() + JITTER * trace)
    gradient[1] = 2 * (along.sum() + JITTER * smooth * trace)
    gradient[2] = 2 * noise * trace
    gradient[3:] = np.tensordot(along, data.squares, 3) * weight
    return value / rows, gradient / rows


def fit_gp(
    x: np.ndarray,
    pooled: np.ndarray,
    y: np.ndarray,
    start: np.ndarray,
    count: np.ndarray,
    fold: np.ndarray,
) -> Process:
    """Processes of the groups outside each fold and, last, of all groups; stacked.

    The pooled prediction is the mean as it is. A coefficient of it that the evidence chooses suits
    groups of which many rows are known, and leaves a new group without any with a wrong mean.

    Args:
        x: standardised columns, `(n, d)`, the rows of a group together; one length scale each.
        start: first row of each group, `(g,)`.
        pooled, y, count, fold: as `fit_offset` takes them.
    """
    from scipy.optimize import minimize

    d = x.shape[1]
    x, y = x.astype(np.float64), y.astype(np.float64) - pooled[:, 0]
    rng = np.random.default_rng(0)
    # Distances grow with the square root of the number of columns, and the length scales with them.
    length = np.full(d, 0.5 * np.log(max(d, 1)) + 0.3)
    first = np.concatenate([np.log([0.3, 0.4, 0.5]), length])
    bounds = [*[(NONE, 3.0)] * 2, (np.log(FLOOR), 3.0), *[(-4.0, 6.0)] * d]

    def best(keep: np.ndarray, begin: np.ndarray, steps: int) -> np.ndarray:
        data = _padded(x, y, start[keep], count[keep], rng)
        options = {"maxiter": steps, "ftol": 1e-6}
        return minimize(
            _evidence, begin, (data,), "L-BFGS-B", jac=True, bounds=bounds, options=options
        ).x

    *outside, every = parts_of(fold)
    whole = best(every, first, 100)
    found = np.stack([*(best(keep, whole, 30) for keep in outside), whole])  # which are near
    logs = np.log(np.maximum(np.exp(found[:, 2]) - FLOOR, 0.1 * FLOOR))
    offset, smooth, noise = (on_device(part) for part in (found[:, 0], found[:, 1], logs))
    lengths = on_device(found[:, 3:])
    return Process(
        Mean(on_device(np.ones(len(found))), None, None, 1, 0, 1),
        (Constant(offset), Stationary(smooth, lengths, "eq")),
        Scale(noise, None, FLOOR),
        Gaussian(1),
        columns=d,
    )
