"""Standard errors of means over tasks."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def standard_error(
    values: Float[np.ndarray, "t"], classes: Int[np.ndarray, "t w"] | None = None
) -> float | None:
    """Of the mean of one value a task; `None` of a single one.

    Tasks made of a few classes are not independent: a thousand tasks of eight people say little
    more than the eight people do. The error is then also taken by leaving out one class after the
    other, with all its tasks (the delete-one jackknife; Efron & Stein, "The Jackknife Estimate of
    Variance", Annals of Statistics 1981, which is at least the variance on average), and the larger
    one counts. Where all tasks have the same classes, nothing is left to say so.

    Args:
        values: one a task.
        classes: of each task.

    Example:
        >>> import numpy as np
        >>> from metaprior.protocols.spread import standard_error
        >>> standard_error(np.array([1.0, 3.0]))
        1.0
        >>> standard_error(np.array([1.0, 1.0, 3.0, 3.0]), np.array([[0], [0], [1], [1]]))
        1.0
    """
    n = len(values)
    if n < 2:
        return None
    over_tasks = float(values.std(ddof=1) / n**0.5)
    return over_tasks if classes is None else max(over_tasks, _jackknife(values, classes))


def _jackknife(values: Float[np.ndarray, "t"], classes: Int[np.ndarray, "t w"]) -> float:
    without = [values[(classes != c).all(1)] for c in np.unique(classes)]
    means = np.array([left.mean() for left in without if len(left)])
    if len(means) < 2:
        return 0.0
    return float(((len(means) - 1) * means.var()) ** 0.5)


def mean_error(errors: Sequence[float | None], means: Sequence[float]) -> float | None:
    """Of a mean over seeds: that over the tasks of a seed, or between seeds where it is larger.

    Tasks are mostly the same at every seed, and more seeds do not make more of them.

    Args:
        errors: over the tasks of each seed.
        means: of each seed.
    """
    found = []
    within = [error for error in errors if error is not None]
    if within:
        found.append(float(np.sqrt(np.mean(np.square(within)))))
    if len(means) > 1:
        found.append(float(np.std(means, ddof=1) / len(means) ** 0.5))
    return max(found, default=None)
