"""Hierarchical conformal prediction: intervals that hold in a new group, whatever the model.

Rows of a group are alike, so a row is no independent evidence. Groups are: those to calibrate with
and the new one are exchangeable. Dunn, Wasserman & Ramdas, "Distribution-Free Prediction Sets for
Two-Layer Hierarchical Models", JASA 2023; Lee, Barber & Willett, "Distribution-Free Inference with
Hierarchical Data", 2023.

All figures are in double precision, in numpy.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

SLACK = 1e-9  # a sum of shares that should be 0.9 may be a little less


def fewest(share: float) -> int:
    """How many groups it takes to guarantee such a share: T with T / (T + 1) >= share.

    Args:
        share: inside (0, 1).

    Example:
        >>> from metaprior.evaluation import conformal
        >>> [conformal.fewest(share) for share in (0.5, 0.8, 0.9, 0.95, 0.99)]
        [1, 4, 9, 19, 99]
    """
    return math.ceil(share / (1 - share) - SLACK)


def cqr(
    y: Float[np.ndarray, "*n"], low: Float[np.ndarray, "*n"], high: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n"]:
    """How far an outcome lies outside of its interval; inside, minus the distance to its end.

    Romano, Patterson & Candès, "Conformalized Quantile Regression", NeurIPS 2019, equation 6. An
    interval that is wider by q at both ends holds the outcomes whose score is at most q.

    Args:
        y: outcomes.
        low, high: ends of their intervals.
    """
    return np.maximum(low - y, y - high)


def row_weights(*levels: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Weights of rows that sum to 1 in each part of the first level, equal at each level.

    Args:
        levels: the number of each row's part, from the outermost: groups alone, or sets of groups
            and then groups.

    Example:
        >>> import numpy as np
        >>> from metaprior.evaluation import conformal
        >>> conformal.row_weights(np.array([0, 0, 0, 1])).round(2).tolist()
        [0.33, 0.33, 0.33, 1.0]
        >>> date, airport = np.array([0, 0, 0]), np.array([0, 1, 1])
        >>> conformal.row_weights(date, airport).tolist()
        [0.5, 0.25, 0.25]
    """
    weight, path = np.ones(len(levels[0])), [*levels, np.arange(len(levels[0]))]
    for outer, inner in itertools.pairwise(path):
        pairs, of_row = np.unique(np.stack([outer, inner]), axis=1, return_inverse=True)
        _, of_pair, count = np.unique(pairs[0], return_inverse=True, return_counts=True)
        weight /= count[of_pair][of_row.reshape(-1)]
    return weight


def weighted_quantile(
    scores: Float[np.ndarray, "n"], weights: Float[np.ndarray, "n"], total: float, share: float
) -> float:
    """The smallest score with that share of a total weight at or below it; infinite if none has.

    Args:
        scores, weights: of rows.
        total: of all weights, which may be more than these sum to.
        share: inside (0, 1).
    """
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order]) / total >= share - SLACK
    return float(scores[order[reached.argmax()]]) if reached.any() else math.inf


def hierarchical(
    scores: Float[np.ndarray, "n"], levels: Sequence[Int[np.ndarray, "n"]], share: float
) -> float:
    """The threshold that the score of a random row of a new group keeps with that probability.

    It is inf {t : 1 / (T + 1) Σ_g 1 / n_g #{j : s_gj <= t} >= share}. With any model, any law of
    the groups and any T the probability is at least `share`, and at most about 1 / (T + 1) more. It
    is over the groups that calibrate and the new one: a probability for one group it is not.

    Args:
        scores: of the rows of the T groups, each given a posterior that has not seen the row.
        levels: the group of each row; or the set of groups, and the group, where groups of one set
            are alike. T is then the number of sets.
        share: inside (0, 1).

    Returns:
        the threshold; infinite where T is below `fewest(share)`.

    Example:
        >>> import numpy as np
        >>> from metaprior.evaluation import conformal
        >>> scores, group = np.arange(18.0), np.repeat(np.arange(9), 2)
        >>> [conformal.hierarchical(scores, [group], share) for share in (0.8, 0.9)]
        [15.0, 17.0]
        >>> conformal.hierarchical(scores[:16], [group[:16]], 0.9)
        inf
    """
    weights = row_weights(*levels) if len(scores) else np.zeros(0)
    return weighted_quantile(scores, weights, len(np.unique(levels[0])) + 1.0, share)


def widened(
    low: Float[np.ndarray, "*n"], high: Float[np.ndarray, "*n"], by: Float[np.ndarray, "*n"] | float
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
    """Intervals wider by so much at both ends; narrower, at most to a point, where it is negative.

    Args:
        low, high: ends.
        by: thresholds of `cqr`.
    """
    by = np.maximum(by, -(high - low) / 2)
    return low - by, high + by
