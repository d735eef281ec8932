"""Learners without meta-learned functions: what a practitioner would use, beside every method.

Each is one row of `BASELINES`: a name and a function from the tasks' shape to a learner. `offset`,
`mixed` and `gp` have a few variances, trained by the same `fit` on the same groups as the methods.
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
