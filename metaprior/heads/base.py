"""What a head is: raw outputs of a network in, the density of an outcome out."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads.draws import Draws
from metaprior.task import Data


class AbstractHead(eqx.Module):
    """Turns raw network outputs into p(y | x), one density a point.

    `params` maps `raw_dim` network outputs to the natural parameters of the density. All other
    methods read those parameters, so that closed-form posteriors can make them directly. The
    leading axes of `params` (particles, points) broadcast against those of `y`.

    Attributes:
        classes: number of classes; 0 when outcomes are numbers.
        density: false where only samples are known: then `log_prob` and `entropy` raise.
        symmetric: whether `params[..., 0]` is a location around which the density is even.
        momentum: of the optimiser that `fit` takes for `loss` (Adam's first decay rate).
    """

    classes: eqx.AbstractVar[int]
    density: eqx.AbstractClassVar[bool]
    symmetric: ClassVar[bool] = False
    momentum: ClassVar[float] = 0.9

    @property
    @abstractmethod
    def raw_dim(self) -> int:
        """How many numbers a point the network must give."""

    @property
    @abstractmethod
    def y_dim(self) -> int:
        """Number of outcome columns, `p`."""

    @abstractmethod
    def params(self, raw: Float[Array, "*b r"]) -> Array:
        """Natural parameters from raw outputs."""

    @abstractmethod
    def log_prob(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b"]:
        """Log density (log probability for classes), summed over the `p` outcomes, in nats."""

    # It has a key because some losses draw outcomes; those with a density ignore it.
    @abstractmethod
    def loss(
        self, params: Array, y: Float[Array, "*b p"], *, key: PRNGKeyArray
    ) -> Float[Array, "*b"]:
        """What training minimises at a point: -log_prob, or a proper score without a density."""

    def risk(self, raw: Float[Array, "n r"], data: Data, *, key: PRNGKeyArray) -> Float[Array, ""]:
        """Mean loss of raw outputs over the rows of `data`; zero where there is no row."""
        return data.mean(self.loss(self.params(raw), data.y, key=key))

    @abstractmethod
    def sample(self, params: Array, *, key: PRNGKeyArray) -> Float[Array, "*b p"]:
        """One outcome a point."""

    @abstractmethod
    def mean(self, params: Array) -> Array:
        """Expected outcome `(…, p)`; for classes the probabilities `(…, C)`."""

    @abstractmethod
    def variance(self, params: Array) -> Array:
        """Variance of what `mean` is the mean of; for classes p (1 - p)."""

    @abstractmethod
    def entropy(self, params: Array) -> Float[Array, "*b"]:
        """Entropy in nats, summed over the `p` outcomes."""

    @abstractmethod
    def cdf(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        """P(Y <= y) for each outcome; classes have none and raise."""

    @abstractmethod
    def quantile(self, params: Array, level: Float[Array, ""]) -> Float[Array, "*b p"]:
        """Value below which a share `level` of the outcomes lies; classes have none and raise."""


class AbstractNumberHead(AbstractHead):
    """A head for `dim` numbers a point, not for classes."""

    dim: eqx.AbstractVar[int]

    @property
    def y_dim(self) -> int:
        return self.dim

    @property
    def classes(self) -> int:
        return 0


class AbstractDrawnHead(AbstractNumberHead):
    """A head for numbers whose moments, cdf and quantiles are those of finitely many outcomes."""

    @abstractmethod
    def outcomes(self, params: Array) -> Draws:
        """Weighted outcomes that stand for the density, always the same ones."""

    def mean(self, params: Array) -> Array:
        return self.outcomes(params).mean()

    def variance(self, params: Array) -> Array:
        return self.outcomes(params).variance()

    def cdf(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        return self.outcomes(params).cdf(y)

    def quantile(self, params: Array, level: Float[Array, ""]) -> Float[Array, "*b p"]:
        return self.outcomes(params).quantile(level)


def check_raw(head: AbstractHead, raw: Array) -> None:
    """Refuse outputs of a network that are more or fewer than the head reads."""
    if raw.shape[-1] != head.raw_dim:
        raise ValueError(
            f"{type(head).__name__} reads {head.raw_dim} numbers a point; "
            f"the network gives {raw.shape[-1]}."
        )
