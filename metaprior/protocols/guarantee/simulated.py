"""Groups of which everything is known: rules that turn scores into a threshold, and their truth."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from metaprior.evaluation.conformal import hierarchical, row_weights, weighted_quantile

SHARE = 0.9
SIZES, LARGE = (2, 2, 2, 60), 60  # rows of a group, equally likely; three in four are small
NOISE = {"small": 1.5, "large": 0.5}  # small groups are the noisy ones
EXACT = "exact"


class Scores(NamedTuple):
    """Scores of some groups.

    Args:
        score: of each row, `(n,)`.
        levels: see `conformal.hierarchical`.
        rng: for what is random.
    """

    score: np.ndarray
    levels: tuple[np.ndarray, ...]
    rng: np.random.Generator


def pooled(some: Scores) -> float:
    """Split conformal prediction as if rows were exchangeable."""
    n = len(some.score)
    return weighted_quantile(some.score, np.ones(n), n + 1.0, SHARE)


def by_distribution(some: Scores) -> float:
    """The quantile of the mean distribution of the groups, which says nothing for few of them."""
    total = float(len(np.unique(some.levels[0])))
    return weighted_quantile(some.score, row_weights(*some.levels), total, SHARE)


def one_row(some: Scores) -> float:
    """Split conformal prediction with a random row of each group, and the others left out."""
    order = some.rng.permutation(len(some.score))
    _, first = np.unique(some.levels[0][order], return_index=True)
    return weighted_quantile(some.score[order[first]], np.ones(len(first)), len(first) + 1.0, SHARE)


def by_groups(some: Scores) -> float:
    """Hierarchical conformal prediction."""
    return hierarchical(some.score, some.levels, SHARE)


RULES: dict[str, Callable[[Scores], float]] = {
    "hierarchical": by_groups,
    "one row a group": one_row,
    "distribution pooling": by_distribution,
    "pooled rows": pooled,
}


def drawn(groups: int, rng: np.random.Generator) -> Scores:
    """|y| of the rows of groups: y = level + noise, the level standard normal."""
    count = rng.choice(SIZES, groups)
    group = np.repeat(np.arange(groups), count)
    noise = np.where(count == LARGE, NOISE["large"], NOISE["small"])[group]
    y = rng.normal(size=groups)[group] + noise * rng.normal(size=len(group))
    return Scores(np.abs(y), (group,), rng)


def held(threshold: np.ndarray | float) -> np.ndarray:
    """The probability that a random row of a new group has |y| of at most a threshold."""
    shares = {"small": SIZES.count(2) / len(SIZES), "large": SIZES.count(LARGE) / len(SIZES)}
    each = [
        share * (2 * ndtr(np.asarray(threshold) / np.hypot(1.0, NOISE[kind])) - 1)
        for kind, share in shares.items()
    ]
    return np.sum(each, axis=0)


def exact() -> float:
    """The threshold that holds the share exactly, which whoever knows the law would take."""
    return float(brentq(lambda t: held(t) - SHARE, 0.1, 20.0))
