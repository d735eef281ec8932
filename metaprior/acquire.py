"""Which observation next: scores of candidate rows under the current posterior."""

from collections.abc import Callable

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.mixture import Mixture


def _entropy(mixture: Mixture, key: PRNGKeyArray) -> Array:
    return mixture.entropy()


def _information(mixture: Mixture, key: PRNGKeyArray) -> Array:
    return mixture.information()


def _variance(mixture: Mixture, key: PRNGKeyArray) -> Array:
    return mixture.epistemic().sum(-1)


def _random(mixture: Mixture, key: PRNGKeyArray) -> Array:
    return jr.uniform(key, mixture.mean().shape[:1])


SCORES: dict[str, Callable[[Mixture, PRNGKeyArray], Array]] = {
    "entropy": _entropy,
    "bald": _information,
    "variance": _variance,
    "random": _random,
}


def score(mixture: Mixture, by: str, *, key: PRNGKeyArray) -> Float[Array, "n"]:
    """Score of every row; the highest is the one to observe.

    Args:
        mixture: the predictive at the candidate rows.
        by: `"entropy"` of the predictive in nats; `"bald"`, the mutual information between the
            row's outcome and the function in nats (Houlsby et al. 2011); `"variance"`, the part of
            the predictive variance that observations can remove; or `"random"`.
        key: for `"random"`.
    """
    if by not in SCORES:
        raise ValueError(f"by is one of {', '.join(SCORES)}; got {by!r}.")
    return jnp.asarray(SCORES[by](mixture, key))
