"""Student's t around zero, fitted to errors. Of SciPy only what loads at once."""

import numpy as np

LEAST = 1e-8  # of a squared scale


def scale_of(errors: np.ndarray, df: float) -> float:
    """The scale with these degrees of freedom under which errors are most likely, by EM."""
    square = errors**2
    size = max(square.mean(), LEAST)
    for _ in range(30):
        size = max(((df + 1) * square / (df + square / size)).mean(), LEAST)
    return float(np.sqrt(size))


def log_density(errors: np.ndarray, df: float) -> np.ndarray:
    """Of errors under the t with these degrees of freedom and the scale that suits them."""
    from scipy.special import gammaln

    scale = scale_of(errors, df)
    top = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * np.log(df * np.pi) - np.log(scale)
    return top - (df + 1) / 2 * np.log1p((errors / scale) ** 2 / df)
