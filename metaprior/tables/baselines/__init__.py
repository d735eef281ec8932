"""Baselines: what a practitioner would use, reported beside every method.

`BASELINES` lists them by name with a line on each. `TRAINED` holds those with a few variances to
learn (`offset`, `mixed`, `gp`): the same `fit` trains them on the same groups as the methods.
"""

from metaprior.tables.baselines.boosting import Boosting, Trees, cross_fit
from metaprior.tables.baselines.learners import (
    BASELINES,
    TRAINED,
    Fixed,
    boosting,
    gp,
    marginal,
    mixed,
    offset,
)

__all__ = [
    "BASELINES",
    "TRAINED",
    "Boosting",
    "Fixed",
    "Trees",
    "boosting",
    "cross_fit",
    "gp",
    "marginal",
    "mixed",
    "offset",
]
