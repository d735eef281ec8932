"""Classes, as logits."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads.base import AbstractHead, check_raw


class AbstractClassHead(AbstractHead):
    """A head for one of `classes` classes; natural parameters are logits, one a class."""

    density: ClassVar[bool] = True

    @property
    def y_dim(self) -> int:
        return 1

    def log_prob(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b"]:
        label = y[..., 0].astype(int)
        hot = jax.nn.one_hot(label, self.classes, dtype=params.dtype)
        # A padding row may hold any number; a label that is no class has probability zero.
        known = (label >= 0) & (label < self.classes)
        return jnp.where(known, (jax.nn.log_softmax(params) * hot).sum(-1), -jnp.inf)

    def loss(
        self, params: Array, y: Float[Array, "*b p"], *, key: PRNGKeyArray
    ) -> Float[Array, "*b"]:
        return -self.log_prob(params, y)

    def sample(self, params: Array, *, key: PRNGKeyArray) -> Float[Array, "*b p"]:
        return jr.categorical(key, params)[..., None].astype(params.dtype)

    def mean(self, params: Array) -> Array:
        return jax.nn.softmax(params)

    def variance(self, params: Array) -> Array:
        p = jax.nn.softmax(params)
        return p * (1 - p)

    def entropy(self, params: Array) -> Float[Array, "*b"]:
        log_p = jax.nn.log_softmax(params)
        return -(jnp.exp(log_p) * log_p).sum(-1)

    def cdf(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        raise TypeError("Classes have no cdf; ask for probabilities (mean).")

    def quantile(self, params: Array, level: Float[Array, ""]) -> Float[Array, "*b p"]:
        raise TypeError("Classes have no quantiles; ask for probabilities (mean).")


class Categorical(AbstractClassHead):
    """One of `classes` classes; y is its index, in one column. Natural parameters: logits.

    Args:
        classes: number of classes, at least 2.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.heads import Categorical
        >>> head = Categorical(3)
        >>> float(head.log_prob(jnp.zeros((1, 3)), jnp.ones((1, 1)))[0])  # log(1/3)
        -1.0986123085021973
    """

    classes: int = eqx.field(static=True)

    def __check_init__(self):
        if self.classes < 2:
            raise ValueError(f"Categorical needs at least 2 classes; got {self.classes}.")

    @property
    def raw_dim(self) -> int:
        return self.classes

    def params(self, raw: Float[Array, "*b r"]) -> Array:
        check_raw(self, raw)
        return raw
