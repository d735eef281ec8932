"""Classes that have an order, as cumulative logits."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metaprior.heads.base import check_raw
from metaprior.heads.categorical import AbstractClassHead


class Ordinal(AbstractClassHead):
    """One of `classes` classes in an order; y is its index, in one column.

    McCullagh, "Regression Models for Ordinal Data", Journal of the Royal Statistical Society B,
    1980: P(y <= k) = σ(c_k - m). The location m is the only number a point that the network gives.
    The cuts c_1 < c_2 < … are meta-parameters, in this head: all points share them. Natural
    parameters: log probabilities.

    Args:
        first: c_1.
        log_gaps: logs of c_2 - c_1, c_3 - c_2, …, `(classes - 2,)`.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.heads import Ordinal
        >>> head = Ordinal.init(4)
        >>> head.mean(head.params(jnp.zeros((1, 1)))).round(4).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
        >>> bool(head.mean(head.params(jnp.ones((1, 1))))[0, 3] > 0.25)
        True
    """

    first: Float[Array, ""]
    log_gaps: Float[Array, "c-2"]
    classes: int = eqx.field(static=True)

    @classmethod
    def init(cls, classes: int, counts: Sequence[float] | np.ndarray | None = None) -> "Ordinal":
        """At location 0 the classes are as frequent as `counts` says.

        Args:
            classes: at least 3; two are `Categorical`.
            counts: how often each occurs, `(classes,)`; one is added to each. `None`: all alike.
        """
        if classes < 3:
            raise ValueError(f"Ordinal needs at least 3 classes; got {classes}. Two have no order.")
        each = np.ones(classes) if counts is None else np.asarray(counts) + 1.0
        share = np.cumsum(each)[:-1] / each.sum()
        cuts = np.log(share / (1 - share))
        return cls(jnp.asarray(cuts[0]), jnp.asarray(np.log(np.diff(cuts))), classes)  # ty: ignore[invalid-argument-type]

    @property
    def raw_dim(self) -> int:
        return 1

    def cuts(self) -> Float[Array, "c-1"]:
        """c_1 < c_2 < …"""
        steps = jnp.concatenate([self.first[None], jnp.exp(self.log_gaps)])
        return jnp.cumsum(steps)

    def params(self, raw: Float[Array, "*b r"]) -> Array:
        check_raw(self, raw)
        above = self.cuts() - raw  # cut k less the location
        below = jax.nn.log_sigmoid(above)
        beyond = jax.nn.log_sigmoid(-above)
        # σ(b) - σ(a) = σ(b) σ(-a) (1 - e^(a - b)), without a difference of nearly equal numbers.
        inside = below[..., 1:] + beyond[..., :-1] + jnp.log1p(-jnp.exp(-jnp.exp(self.log_gaps)))
        return jnp.concatenate([below[..., :1], inside, beyond[..., -1:]], axis=-1)


def location_of(log_p: Float[Array, "*b c"]) -> Float[Array, "*b 1"]:
    """Where probabilities of ordered classes lie: the mean of the log odds of more than each cut.

    Of probabilities that an `Ordinal` gives, it is the location less the mean of the cuts.
    """
    up = jax.lax.cumlogsumexp(log_p, axis=log_p.ndim - 1)[..., :-1]
    down = jax.lax.cumlogsumexp(log_p, axis=log_p.ndim - 1, reverse=True)[..., 1:]
    return (down - up).mean(-1, keepdims=True)
