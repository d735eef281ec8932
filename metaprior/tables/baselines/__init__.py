"""Baselines: what a practitioner would use, reported beside every method.

`BASELINES` is their table: each can be fitted, saved and used as a method can (`find` knows both).
`TRAINED` holds those with a few variances to learn (`offset`, `mixed`, `gp`): for classes the same
`fit` trains them on the same groups as the methods. For numbers `fit_offset`, `fit_mixed` and
`fit_gp` find the variances with the highest likelihood, without training, and `fit_observed` grows
trees.
"""

from metaprior.tables.baselines.boosting import Boosting, Trees, cross_fit
from metaprior.tables.baselines.closed import fit_gp, fit_offset
from metaprior.tables.baselines.learners import (
    FIXED,
    TRAINED,
    Fixed,
    boosting,
    gp,
    marginal,
    mixed,
    offset,
)
from metaprior.tables.baselines.linear_mixed import fit_mixed
from metaprior.tables.baselines.named import BASELINES, Baseline, find
from metaprior.tables.baselines.observed import fit_observed

__all__ = [
    "BASELINES",
    "FIXED",
    "TRAINED",
    "Baseline",
    "Boosting",
    "Fixed",
    "Trees",
    "boosting",
    "cross_fit",
    "find",
    "fit_gp",
    "fit_mixed",
    "fit_observed",
    "fit_offset",
    "gp",
    "marginal",
    "mixed",
    "offset",
]
