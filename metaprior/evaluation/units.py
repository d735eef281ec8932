"""A target's own units: from the user's numbers to the model's, and predictions back again.

Compiled programs count in single precision, which holds seven digits. They see the model's scale
alone. What goes in and what comes out is converted here, in double precision.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from metaprior.bends import Shares, YeoJohnson
from metaprior.mixture import Mixture, crps
from metaprior.task import Data

STEEPEST = 40.0  # an outcome is at most exp(40) times the mean, so that its square is a number
NONE = -1e4  # below everything, in the model's units
FINE = 200  # atoms of a component
NARROW = 1e-3  # a share of the probability on its side below which an interval is a density's


class AbstractCurve(eqx.Module):
    """What compiled programs read of the units of a target that is not modelled as it is.

    Args:
        scale: of the target on the scale that it is modelled on.
        low, high: smallest and largest training outcome, in the model's units.
    """

    scale: eqx.AbstractVar[np.ndarray]
    low: eqx.AbstractVar[np.ndarray]
    high: eqx.AbstractVar[np.ndarray]

    def bounds(self, support: Data) -> tuple[Array, Array]:
        """The least and the largest outcome that counts, in the model's units, `(p,)` each.

        The exponential of a Student-t has no mean: a component of small weight could stand for any
        number. So outcomes end one deviation beyond those seen in training and in the support.
        Likelihoods and quantiles are not cut.
        """
        seen = jnp.where(support.mask[:, None], support.y, self.low)
        return seen.min(0, initial=self.low) - 1.0, seen.max(0, initial=self.high) + 1.0


class LogScale(AbstractCurve):
    """Of one that is modelled by its logarithm; the fields are those of `AbstractCurve`."""

    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Bent(AbstractCurve):
    """Of one that is modelled on a scale of `metaprior.bends`.

    Args:
        scale, low, high: as in `AbstractCurve`.
        center: of the target on that scale.
        bend: the scale, its numbers as arrays.
    """

    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    center: np.ndarray
    bend: YeoJohnson | Shares

    def natural(self, z: Array) -> Array:
        """Outcomes less the middle and over the size of the scale."""
        return self.bend.back(self.center + self.scale * z, jnp)


class Counts(AbstractCurve):
    """Of counts, modelled by the logarithm of 1 more: each stands for all that rounds to it.

    Args:
        scale, low, high: as in `AbstractCurve`.
        center: of that logarithm.
    """

    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    center: np.ndarray

    def whole(self, z: Array) -> Array:
        """The counts that outcomes in the model's units round to."""
        return jnp.maximum(jnp.round(jnp.expm1(self.center + self.scale * z)), 0.0)

    def width(self, z: Array) -> Array:
        """How wide that is; also of counts so large that both ends are one number."""
        return jnp.log1p(1 / (self.whole(z) + 0.5)) / self.scale

    def ends(self, z: Array) -> tuple[Array, Array]:
        """Between which numbers, in the model's units, what rounds to these counts lies."""
        count = self.whole(z)
        low = (jnp.log(count + 0.5) - self.center) / self.scale
        return jnp.where(count > 0, low, NONE), (jnp.log(count + 1.5) - self.center) / self.scale


Curve = LogScale | Bent | Counts


class Units(eqx.Module):
    """The user's scale: y = center + scale z, or what that stands for on a scale not y's own.

    Args:
        center, scale: of the training rows, on the log scale with `log`.
        low, high: smallest and largest training outcome, in the model's units.
        log: whether the target was modelled on the log scale.
        shift: what was added to it before the logarithm; outcomes are then never below 0.
        counts: whether outcomes are counts, each of which stands for all that rounds to it.
        bend: another scale that the target was modelled on, of `metaprior.bends`.
    """

    center: float
    scale: float
    low: float
    high: float
    log: bool = eqx.field(static=True, default=False)
    shift: float = eqx.field(static=True, default=0.0)
    counts: bool = eqx.field(static=True, default=False)
    bend: YeoJohnson | Shares | None = eqx.field(static=True, default=None)

    @property
    def straight(self) -> bool:
        """Whether the target was modelled as it is."""
        return not self.log and self.bend is None

    def curve(self) -> Curve | None:
        """What compiled programs read; nothing where they can do without."""
        if self.straight:
            return None
        numbers = self.scale, self.low, self.high, self.center
        arrays = [np.asarray(v, np.float32) for v in numbers]
        if self.bend is not None:
            return Bent(*arrays, jax.tree.map(lambda v: np.asarray(v, np.float32), self.bend))
        return Counts(*arrays) if self.counts else LogScale(*arrays[:3])

    def to_z(self, y: Any) -> np.ndarray:
        """From the user's units to the model's."""
        y = np.asarray(y, np.float64)
        if self.bend is not None:
            y = self.bend.of(y)
        return ((np.log(y + self.shift) if self.log else y) - self.center) / self.scale

    def to_y(self, z: Any) -> np.ndarray:
        """From the model's units to the user's."""
        return np.round(self.smooth(z)) if self.counts else self.smooth(z)

    def smooth(self, z: Any) -> np.ndarray:
        """The same of values that are no outcomes, such as a function's: counts are not rounded."""
        y = self.center + self.scale * np.asarray(z, np.float64)
        if self.bend is not None:
            return self.bend.middle + self.bend.size * self.bend.back(y)
        if not self.log:
            return y
        return np.maximum(np.exp(y) - self.shift, 0.0) if self.shift else np.exp(y)

    def log_slope(self, z: Any) -> np.ndarray:
        """log dy/dz at outcomes: what a log density in y has less than one in z, nats.

        Counts have probabilities, which no unit changes.
        """
        z = np.asarray(z, np.float64)
        if self.counts:
            return np.zeros_like(z)
        if self.bend is not None:
            return np.log(self.scale) - self.bend.log_slope(self.smooth(z))
        return np.log(self.scale) + (self.center + self.scale * z if self.log else 0.0 * z)

    def moments(self, found: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation in the user's units of what `moments` gives."""
        mean, std = (np.asarray(found[name], np.float64) for name in ("mean", "std"))
        if self.counts:
            return mean, std
        if self.bend is not None:
            return self.bend.middle + self.bend.size * mean, self.bend.size * std
        if not self.log:
            return self.to_y(mean), self.scale * std
        size = np.exp(self.center + np.asarray(found["at"], np.float64))
        return size * (1 + mean) - self.shift, size * std

    def gains(self, score: Any, best: Any) -> np.ndarray:
        """In the user's units, of a score of `acquire.sought` with `gain`.

        Args:
            score: `(n,)`.
            best: outcome so far that the gain is on, in the model's units.
        """
        score = np.asarray(score, np.float64)
        if self.counts:
            return score
        if self.bend is not None:
            return self.bend.size * score
        if not self.log:
            return self.scale * score
        return np.exp(self.center + self.scale * np.asarray(best, np.float64)) * score

    def crps(self, found: dict[str, Any]) -> np.ndarray:
        """In the user's units, of what `scores` gives."""
        size = 1.0 if self.counts else self.scale
        if self.bend is not None:
            size = self.bend.size
        if self.log and not self.counts:
            size = np.exp(self.center + np.asarray(found["at"], np.float64)[..., 0])
        return size * np.asarray(found["crps"], np.float64)


def _relative(mixture: Mixture, curve: LogScale, support: Data):
    """Atoms of the predictive less its mean, over it; the logarithm of the mean, less the center.

    Returns:
        atoms `(a, n, p)`, their weights `(a,)`, and logarithms `(n, p)`. Sums of exponentials stay
        within single precision that way, whatever the unit of the target.
    """
    values, weights = mixture.atoms()
    values = curve.scale * jnp.clip(values, *curve.bounds(support))
    each = values + jnp.log(weights)[:, None, None]
    at = jax.nn.logsumexp(each, axis=0)
    return jnp.expm1(jnp.minimum(values - at, STEEPEST)), weights, at


def _outcomes(mixture: Mixture, curve: Counts | Bent, support: Data) -> tuple[Array, Array]:
    """Outcomes that stand for the predictive, `(a, n, p)`, and their weights `(a,)`.

    Counts, or what is `natural` on another scale.
    """
    counts = isinstance(curve, Counts)
    # Steps cut through fewer atoms.
    values, weights = mixture.atoms(FINE) if counts else mixture.atoms()
    values = jnp.clip(values, *curve.bounds(support))
    return curve.whole(values) if counts else curve.natural(values), weights


def gain(curve: Curve | None, support: Data) -> Callable[[Array, Array], Array] | None:
    """What `Units.gains` turns into how much larger outcomes are than the best one.

    In the model's units both, of one target; on a logarithm as a share of the best one. Outcomes
    far out are drawn in, as in `moments`. `None` where the target was modelled as it is.
    """
    if curve is None:
        return None

    def larger(z: Array, best: Array) -> Array:
        low, high = curve.bounds(support)
        z = jnp.clip(z, low[0], high[0])
        if isinstance(curve, LogScale):
            return jnp.expm1(jnp.minimum(curve.scale * (z - best), STEEPEST))
        of = curve.whole if isinstance(curve, Counts) else curve.natural
        return of(z) - of(best)

    return larger


def log_prob(mixture: Mixture, curve: Curve | None, y: Array) -> Array:
    """Log density of outcomes `(n, 1)` in the model's units, of counts log probability: `(n,)`."""
    return log_mass(mixture, curve, y) if isinstance(curve, Counts) else mixture.log_prob(y)


def below(mixture: Mixture, curve: Curve | None, y: Array) -> Array:
    """Probability of an outcome of at most `y` `(n, 1)`: `(n,)`."""
    return mixture.cdf(curve.ends(y)[1] if isinstance(curve, Counts) else y)[:, 0]


def log_mass(mixture: Mixture, curve: Counts, y: Array) -> Array:
    """Log probability of counts `(n, 1)`, given in the model's units: `(n,)`, nats."""
    low, high = curve.ends(y)
    # On the side of the nearer tail, where a small difference keeps its digits.
    upper = mixture.cdf(low) > 0.5
    sign = jnp.where(upper, -1.0, 1.0)
    far = mixture._below(jnp.where(upper, -low, high), sign)
    mass = far - mixture._below(jnp.where(upper, -high, low), sign)
    # Of large counts what rounds to one is narrow: there the density is the better number.
    density = mixture.log_prob(y) + jnp.log(curve.width(y))[:, 0]
    narrow = (mass <= NARROW * far)[:, 0]
    return jnp.where(narrow, density, jnp.log(jnp.maximum(mass, 1e-30))[:, 0])


def moments(mixture: Mixture, curve: Curve | None, support: Data) -> dict[str, Array]:
    """What `Units.moments` turns into mean and standard deviation, `(n, p)` each.

    With a `curve`: of the atoms of the predictive, those far out drawn in.
    """
    if curve is None:
        return {"mean": mixture.mean(), "std": jnp.sqrt(mixture.variance())}
    if isinstance(curve, LogScale):
        atoms, weights, at = _relative(mixture, curve, support)
        return _of_atoms(atoms, weights) | {"at": at}
    return _of_atoms(*_outcomes(mixture, curve, support))


def _of_atoms(atoms: Array, weights: Array) -> dict[str, Array]:
    """Mean and standard deviation of `(a, n, p)` with weights `(a,)`."""
    mean = jnp.tensordot(weights, atoms, axes=1)
    return {"mean": mean, "std": jnp.sqrt(jnp.tensordot(weights, (atoms - mean) ** 2, axes=1))}


def scores(mixture: Mixture, curve: Curve | None, support: Data, y: Array) -> dict[str, Array]:
    """What `Units.crps` turns into the CRPS of outcomes `(n, p)`: `(n,)`, and `at`."""
    if curve is None:
        return {"crps": mixture.crps(y)}
    if isinstance(curve, LogScale):
        atoms, weights, at = _relative(mixture, curve, support)
        target = jnp.expm1(jnp.minimum(curve.scale * y - at, STEEPEST))
        return {"crps": crps(atoms, weights, target), "at": at}
    target = curve.whole(y) if isinstance(curve, Counts) else curve.natural(y)
    return {"crps": crps(*_outcomes(mixture, curve, support), target)}
