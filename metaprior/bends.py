"""Scales of a target that are neither straight nor a logarithm.

Each takes numbers as NumPy's floats or, inside compiled programs, as arrays of JAX. An outcome y is
`middle + size v`; `of` takes y to the scale, `back` a value u of the scale to v.
"""

from typing import Any, NamedTuple

import numpy as np

LEAST = 0.05  # of a power and of 2 less it: every number is then a value of the scale
POWERS = np.linspace(LEAST, 2 - LEAST, 39)
MOST = 5_000  # outcomes that decide on a power
ENDS = 0.01  # margin where outcomes are nothing and the whole alone


class YeoJohnson(NamedTuple):
    """Yeo & Johnson, "A New Family of Power Transformations", Biometrika 2000, equation 2.1.

    It takes skew out of numbers of either sign, and has the power of Box and Cox on either side.

    Args:
        middle, size: of the outcomes: it is the transformation of v.
        power: λ, between 0 and 2; below 1 it draws in large numbers, above 1 small ones.
    """

    middle: float
    size: float
    power: float

    @staticmethod
    def fit(y: np.ndarray) -> "YeoJohnson":
        """The one under which outcomes are most likely to be normal."""
        middle = float(np.median(y))
        size = float(1.4826 * np.median(np.abs(y - middle))) or float(y.std()) or 1.0
        y = y[np.linspace(0, len(y) - 1, min(len(y), MOST)).astype(int)]
        if y.min() == y.max():
            return YeoJohnson(middle, size, 1.0)
        each = [YeoJohnson(middle, size, float(power)) for power in POWERS]
        return max(each, key=lambda one: one._normal(y))

    def _normal(self, y: np.ndarray) -> float:
        """Log-likelihood of a normal on this scale, up to a constant, nats a row."""
        return float(self.log_slope(y).mean() - np.log(self.of(y).std()))

    def of(self, y: np.ndarray) -> np.ndarray:
        """Outcomes on this scale."""
        v = (y - self.middle) / self.size
        power = self._side(v, np)
        return np.sign(v) * np.expm1(power * np.log1p(np.abs(v))) / power

    def back(self, u: Any, xp: Any = np) -> Any:
        """v of values of the scale; `xp` is `numpy` or `jax.numpy`."""
        power = self._side(u, xp)
        return xp.sign(u) * xp.expm1(xp.log1p(power * xp.abs(u)) / power)

    def log_slope(self, y: np.ndarray) -> np.ndarray:
        """Log of the slope of `of`, at outcomes."""
        v = (y - self.middle) / self.size
        return (self._side(v, np) - 1) * np.log1p(np.abs(v)) - np.log(self.size)

    def takes(self, y: np.ndarray) -> np.ndarray:
        """Which numbers it takes: all."""
        return np.ones(y.shape, bool)

    def _side(self, v: Any, xp: Any) -> Any:
        """The power on the side of zero where each number is."""
        return xp.where(v >= 0, self.power, 2 - self.power)


class Shares(NamedTuple):
    """The log odds of a share of a whole.

    Args:
        size: the whole: 1, or 100 for percentages.
        margin: what is added to the share and to what it leaves, so that 0 and the whole have log
            odds too; 0 where no outcome is one of them. As a part of the whole.
        middle: 0, where shares begin.
    """

    size: float
    margin: float
    middle: float = 0.0

    @staticmethod
    def fit(y: np.ndarray) -> "Shares":
        """For outcomes between 0 and 1, or between 0 and 100.

        The margin is half of the least distance from either end that is not zero.
        """
        size = 1.0 if y.max() <= 1 else 100.0
        v = y / size
        ends = np.minimum(v, 1 - v)
        if ends.min() > 0:
            return Shares(size, 0.0)
        if not (ends > 0).any():
            return Shares(size, ENDS)
        return Shares(size, float(f"{0.5 * ends[ends > 0].min():.2g}"))

    def of(self, y: np.ndarray) -> np.ndarray:
        """Outcomes on this scale."""
        v = y / self.size
        return np.log(v + self.margin) - np.log(1 - v + self.margin)

    def back(self, u: Any, xp: Any = np) -> Any:
        """v of values of the scale; `xp` is `numpy` or `jax.numpy`."""
        share = 1 / (1 + xp.exp(xp.clip(-u, -80.0, 80.0)))  # the exponential stays a number
        return xp.clip((1 + 2 * self.margin) * share - self.margin, 0.0, 1.0)

    def log_slope(self, y: np.ndarray) -> np.ndarray:
        """Log of the slope of `of`, at outcomes."""
        v = y / self.size
        ends = np.log(v + self.margin) + np.log(1 - v + self.margin)
        return np.log(1 + 2 * self.margin) - ends - np.log(self.size)

    def takes(self, y: np.ndarray) -> np.ndarray:
        """Which numbers it takes: shares, the ends among them where it has a margin."""
        v = y / self.size
        return (v >= 0) & (v <= 1) if self.margin else (v > 0) & (v < 1)
