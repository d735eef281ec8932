"""Which observation next: scores of candidate rows under the current posterior."""

from collections.abc import Callable

import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.posterior import Mixture

SCORES: dict[str, Callable[[Mixture, PRNGKeyArray], Array]] = {
    "entropy": lambda mixture, key: mixture.entropy(),
    "bald": lambda mixture, key: mixture.information(),
    "variance": lambda mixture, key: mixture.epistemic().sum(-1),
    "random": lambda mixture, key: jr.uniform(key, mixture.mean().shape[:1]),
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
    return jax.numpy.asarray(SCORES[by](mixture, key))
