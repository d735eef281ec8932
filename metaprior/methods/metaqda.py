"""Quadratic discriminant analysis with a learned prior."""

from collections.abc import Callable
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Categorical
from metaprior.heads.student_t import log_gamma_ratio
from metaprior.infer.cholesky import Factor, factorise
from metaprior.method import AbstractMethod, Spec
from metaprior.methods.embedded import in_one_pass
from metaprior.nets.mlp import apply, network
from metaprior.nets.sets import memberships
from metaprior.posterior import Particles
from metaprior.task import Data, Task


class Belief(eqx.Module):
    """Normal-inverse-Wishart distributions of the mean and covariance of normal classes, in
    coordinates z in which the prior has the location 0 and the scale matrix df I.

    Args:
        mean: where the class's mean is expected, `(C, d)`.
        weight: how many rows that is worth, κ, `(C,)`.
        df: degrees of freedom of the predictive, ν - d + 1, `(C,)`.
        factor: of the scale matrix S, arrays `(C, d, d)`.
    """

    mean: Float[Array, "c d"]
    weight: Float[Array, "c"]
    df: Float[Array, "c"]
    factor: Factor

    def log_prob(self, z: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Log density of rows in each class: Student's t, with df degrees of freedom and the scale
        matrix S (κ + 1) / (κ df).
        """
        d = z.shape[1]

        def of_class(mean, weight, df, factor):
            wide = (weight + 1) / weight
            square = (factor.whiten((z - mean).T) ** 2).sum(0) / wide
            # log Γ((df + d) / 2) - log Γ(df / 2), without their difference
            level = log_gamma_ratio(df + jnp.arange(d)).sum()
            level = level - 0.5 * d * jnp.log(jnp.pi * wide) - 0.5 * factor.log_det()
            return level - 0.5 * (df + d) * jnp.log1p(square)

        return jax.vmap(of_class, out_axes=1)(self.mean, self.weight, self.df, self.factor)


def _logits(w, x):
    net, root, location, belief = w
    return belief.log_prob((apply(net, x) - location) @ root.T)


class MetaQDA(AbstractMethod):
    """Zhang, Meng, Henry & Hospedales, "Shallow Bayesian Meta Learning for Real-World Few-Shot
    Recognition", ICCV 2021: a normal distribution for each class, with a learned prior.

    Class c has a mean and a covariance of its own, drawn from a normal-inverse-Wishart prior
    NIW(m, κ, S, ν) that all classes share. Given the rows of the class, with n of them and the mean
    x̄, it is one again: κ_c = κ + n, ν_c = ν + n, m_c = (κ m + n x̄) / κ_c, and S_c is S + Σ (x - x̄)
    (x - x̄)ᵀ + κ n / κ_c (x̄ - m)(x̄ - m)ᵀ. A row in the class is then Student's t, with ν_c - d + 1
    degrees of freedom, and p(y = c | x) is its density over that in all classes. This is the fully
    Bayesian variant of the paper; the objective is the mean nll of the query rows.

    Here features are learned with the prior; the paper's come from a network trained before. A
    class without rows has the predictive of the prior. Without any rows all classes are alike, so
    it is for tasks in which classes mean something else each time.

    Args:
        net: the features f.
        head: `Categorical`.
        location: m, `(d,)`.
        root: R, `(d, d)`: S = (ν - d + 1) (RᵀR)⁻¹. Rows count in the coordinates R (f(x) - m).
        log_weight: log κ, in rows.
        log_df: log(ν - d + 1).

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Categorical
        >>> spec = metaprior.Spec(2, Categorical(3))
        >>> metaqda = metaprior.methods.MetaQDA.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([[0.0, 1.0]], [2])
        >>> posterior = metaqda.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 2))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 3)
    """

    net: Callable
    head: Categorical
    location: Float[Array, "d"]
    root: Float[Array, "d d"]
    log_weight: Array
    log_df: Array

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        width: int = 64,
        depth: int = 2,
        embedding: int = 32,
        weight: float = 1.0,
        df: float = 32.0,
    ) -> Self:
        """A fully connected network of features, or `spec.net`'s.

        Args:
            spec: shape of the tasks; its head must be `Categorical`.
            key: initial weights.
            width, depth: hidden units and layers of the network.
            embedding: features (32; 64 with a convolutional network). 0: x itself.
            weight: κ at first, in rows.
            df: ν - d + 1 at first: how many rows the covariances that classes share are worth.
        """
        head = spec.categorical("MetaQDA")
        if weight <= 0 or df <= 0:
            raise ValueError(f"MetaQDA takes a weight and a df above 0; got {weight} and {df}.")
        if embedding < 0:
            raise ValueError(
                f"MetaQDA takes an embedding of 0 (x itself) or more features; got {embedding}."
            )
        if embedding:
            net = network(spec, embedding, width, depth, key=key)
        else:
            net = eqx.nn.Identity()
        d = embedding or spec.x_dim
        log_weight, log_df = (jnp.log(jnp.asarray(a, float)) for a in (weight, df))
        return cls(net, head, jnp.zeros(d), jnp.eye(d), log_weight, log_df)

    def belief(self, support: Data) -> Belief:
        """What is known of each class."""
        z = (apply(self.net, support.x) - self.location) @ self.root.T
        hot = memberships(support, self.head.classes)
        count, prior = hot.sum(0), jnp.exp(self.log_weight)
        middle = hot.T @ z / jnp.maximum(count, 1)[:, None]
        away = hot[:, :, None] * (z[:, None] - middle)
        weight, df = prior + count, jnp.exp(self.log_df) + count
        scale = jnp.exp(self.log_df) * jnp.eye(z.shape[1], dtype=z.dtype)
        scale = scale + jnp.einsum("nci,ncj->cij", away, away)
        shrunk = prior * count / weight
        scale = scale + shrunk[:, None, None] * middle[:, :, None] * middle[:, None]
        mean = (count / weight)[:, None] * middle
        return Belief(mean, weight, df, jax.vmap(factorise)(scale))

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        self, task = in_one_pass(self, task)
        w = self.net, self.root, self.location, self.belief(task.support)
        return self.head.risk(_logits(w, task.query.x), task.query, key=key)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        w = self.net, self.root, self.location, self.belief(support)
        return Particles.single(w, _logits, self.head)
