"""Heads: what is predicted at a point."""

from metaprior.heads.categorical import Categorical
from metaprior.heads.gaussian import Gaussian
from metaprior.heads.student_t import StudentT

__all__ = ["Categorical", "Gaussian", "StudentT"]
