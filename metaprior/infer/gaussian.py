"""Independent normal distributions over the arrays of a pytree."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy import stats
from jaxtyping import Array, Float, PRNGKeyArray


def _total(function, *trees) -> Float[Array, ""]:
    """Sum of `function` over all elements of all arrays."""
    arrays = [eqx.filter(tree, eqx.is_inexact_array) for tree in trees]
    return sum(leaf.sum() for leaf in jax.tree.leaves(jax.tree.map(function, *arrays)))


class Diagonal(eqx.Module):
    """N(mean, diag(exp(log_std)²)) over the floating-point arrays of a pytree, a network for instance.

    Args:
        mean: any pytree; what is not a floating-point array is the same in every draw.
        log_std: a pytree with arrays of the same shapes at the same places.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.infer.gaussian import Diagonal
        >>> p = Diagonal(jnp.zeros(3), jnp.zeros(3))
        >>> float(Diagonal(jnp.ones(3), jnp.zeros(3)).kl(p)), p.sample(key=jax.random.key(0)).shape
        (1.5, (3,))
    """

    mean: Any
    log_std: Any

    @staticmethod
    def around(mean: Any, std: float) -> "Diagonal":
        """The same standard deviation for every array element of `mean`."""
        log_std = jax.tree.map(lambda a: jnp.full_like(a, jnp.log(std)), eqx.filter(mean, eqx.is_inexact_array))
        return Diagonal(mean, log_std)

    def sample(self, *, key: PRNGKeyArray) -> Any:
        """One draw, mean + std * noise: differentiable in both."""
        mean, fixed = eqx.partition(self.mean, eqx.is_inexact_array)
        log_std = eqx.filter(self.log_std, eqx.is_inexact_array)
        leaves, tree = jax.tree.flatten(mean)
        noise = [jr.normal(k, a.shape, a.dtype) for k, a in zip(jr.split(key, len(leaves)), leaves)]
        draw = lambda m, s, e: m + jnp.exp(s) * e
        return eqx.combine(jax.tree.map(draw, mean, log_std, jax.tree.unflatten(tree, noise)), fixed)

    def log_prob(self, w: Any) -> Float[Array, ""]:
        """Log density of `w`, in nats."""
        return _total(lambda a, m, s: stats.norm.logpdf(a, m, jnp.exp(s)), w, self.mean, self.log_std)

    def kl(self, other: "Diagonal") -> Float[Array, ""]:
        """KL(self ‖ other) in nats."""

        def each(m, s, m0, s0):
            return s0 - s + 0.5 * (jnp.exp(2 * (s - s0)) + ((m - m0) * jnp.exp(-s0)) ** 2 - 1)

        return _total(each, self.mean, self.log_std, other.mean, other.log_std)
