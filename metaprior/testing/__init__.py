"""The contract: what every learner and every method must hold, here and in other packages.

`check_method` makes a method and checks it whole; `check_learner` checks a learner that is made
already and need not be trainable. Each check raises an `AssertionError` that says what was broken
and where to look.
"""

from metaprior.testing.case import example_task
from metaprior.testing.learner import check_learner
from metaprior.testing.method import check_method

__all__ = ["check_learner", "check_method", "example_task"]
