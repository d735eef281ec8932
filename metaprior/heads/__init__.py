"""Heads: what is predicted at a point."""

from metaprior.heads.autoregressive import Autoregressive
from metaprior.heads.base import AbstractHead
from metaprior.heads.categorical import Categorical
from metaprior.heads.energy import Energy
from metaprior.heads.flow import Flow
from metaprior.heads.gaussian import Gaussian
from metaprior.heads.implicit import Implicit
from metaprior.heads.mixture import MixtureDensity
from metaprior.heads.ordinal import Ordinal
from metaprior.heads.student_t import StudentT

__all__ = [
    "AbstractHead",
    "Autoregressive",
    "Categorical",
    "Energy",
    "Flow",
    "Gaussian",
    "Implicit",
    "MixtureDensity",
    "Ordinal",
    "StudentT",
]
