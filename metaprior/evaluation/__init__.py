"""How good a learner is: scores on new tasks, how sure they are, and calibration.

`evaluate` scores learners on the same tasks and gives an `Evaluation`: every metric with an
interval, and paired differences. Several targets give a `JointEvaluation`. `metrics` declares the
metrics; `calibration` has figures of calibration for pooled predictions, by their names in the
literature; `Units` goes between a user's units and the model's.
"""

from metaprior.evaluation import calibration, metrics
from metaprior.evaluation.evaluate import Evaluation, JointEvaluation, evaluate
from metaprior.evaluation.units import Units

__all__ = ["Evaluation", "JointEvaluation", "Units", "calibration", "evaluate", "metrics"]
