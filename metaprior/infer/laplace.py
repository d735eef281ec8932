"""Laplace approximations of a network's posterior, with the generalised Gauss-Newton curvature.

MacKay, "A Practical Bayesian Framework for Backpropagation Networks", 1992; Ritter, Botev & Barber,
"A Scalable Laplace Approximation for Neural Networks", ICLR 2018; Daxberger et al., "Laplace
Redux", NeurIPS 2021.

At a mode w of log p(y | w) - ‖w - w0‖²_{P₀} / 2 the posterior is N(w, H⁻¹), H = P₀ + sum_n J_nᵀ Λ_n
J_n, with J_n the Jacobian of the raw outputs at row n and Λ_n the Fisher information of the head in
them. H is written P₀ + RᵀR, one row of R for each row of data and each node at which the head's
score is taken.
"""

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import norm
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead
from metaprior.infer.cholesky import Factor, factorise
from metaprior.infer.gaussian import Diagonal, Full
from metaprior.nets.mlp import layers
from metaprior.task import Data

# Gauss-Hermite nodes of a standard normal: exact for polynomials of degree 5, hence for every entry
# of the Fisher information of a normal's mean and log scale.
_NODES, _WEIGHTS = (-(3**0.5), 0.0, 3**0.5), (1 / 6, 2 / 3, 1 / 6)
STRUCTURES = ("full", "diagonal", "kronecker")


def _class_nodes(head: AbstractHead, raw: Float[Array, "n r"]) -> tuple[Array, Array]:
    """All classes at every row `(m, n, 1)`, and their probabilities `(m, n)`."""
    index = jnp.arange(head.classes, dtype=raw.dtype)[:, None, None]
    y = jnp.broadcast_to(index, (head.classes, raw.shape[0], 1))
    return y, jnp.moveaxis(head.mean(head.params(raw)), -1, 0)


def _number_nodes(head: AbstractHead, raw: Float[Array, "n r"]) -> tuple[Array, Array]:
    """All combinations of three quantiles an outcome `(m, n, p)`, and their weights `(m, 1)`."""
    if head.y_dim > 4:
        raise ValueError(
            f"Laplace takes 3^p nodes a row for p outcomes: at most 4; the head has {head.y_dim}."
        )
    params = head.params(raw)
    levels = [norm.cdf(jnp.asarray(z, raw.dtype)) for z in _NODES]
    values = [head.quantile(params, level) for level in levels]  # each (n, p)
    which = np.array(list(itertools.product(range(3), repeat=head.y_dim)))  # (m, p)

    def node(chosen):
        return jnp.stack([values[i][:, j] for j, i in enumerate(chosen)], -1)

    weight = jnp.asarray(np.prod(np.array(_WEIGHTS)[which], 1), raw.dtype)
    return jnp.stack([node(chosen) for chosen in which]), weight[:, None]


def fisher_roots(head: AbstractHead, raw: Float[Array, "n r"]) -> Float[Array, "n m r"]:
    """Rows r_k with Λ_n = sum_k r_k r_kᵀ: weighted scores d log p(y_k | raw) / d raw at nodes y_k.

    The nodes are all classes, weighted by their probability, which is exact; or three quantiles of
    each number, which is exact for normals. The sum is positive semi-definite whatever the head.
    """
    y, weight = _class_nodes(head, raw) if head.classes else _number_nodes(head, raw)
    y, weight = jax.lax.stop_gradient(y), jnp.broadcast_to(weight, y.shape[:2])
    score = jax.grad(lambda r, y: head.log_prob(head.params(r[None]), y[None])[0])
    each = jax.vmap(jax.vmap(score), in_axes=(None, 0))(raw, y)  # (m, n, r)
    return jnp.moveaxis(jnp.sqrt(weight)[:, :, None] * each, 0, 1)


def roots(apply: Callable, w: Any, head: AbstractHead, data: Data) -> Float[Array, "k d"]:
    """R with sum_n J_nᵀ Λ_n J_n = RᵀR; rows outside the mask are zero."""
    moving, fixed = eqx.partition(w, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(moving)

    def raw_of(v):
        return apply(eqx.combine(unravel(v), fixed), data.x)

    jacobian = jax.jacrev(raw_of)(flat)  # (n, r, d)
    scores = fisher_roots(head, raw_of(flat)) * data.mask[:, None, None]
    return jnp.einsum("nmr,nrd->nmd", scores, jacobian).reshape(-1, flat.shape[0])


class GaussNewton(eqx.Module):
    """N(mean, (p I + RᵀR)⁻¹) in factors of the size of the data: exact for any number of weights.

    Args:
        mean: the mode, any pytree with `d` floating-point numbers.
        precision: p of the prior, 1 / squared units of the weights.
        roots: R, `(k, d)`.
        factor: Cholesky factor of I + R Rᵀ / p, `(k, k)`.
    """

    mean: Any
    precision: Array
    roots: Float[Array, "k d"]
    factor: Factor

    @staticmethod
    def of(mean: Any, precision: Array, roots: Float[Array, "k d"]) -> "GaussNewton":
        """The factor of I + R Rᵀ / p computed."""
        eye = jnp.eye(roots.shape[0], dtype=roots.dtype)
        return GaussNewton(mean, precision, roots, factorise(eye + roots @ roots.T / precision))

    def sample(self, *, key: PRNGKeyArray) -> Any:
        """One draw of the prior, corrected as if it had been fitted to noise (Matheron's rule)."""
        moving, fixed = eqx.partition(self.mean, eqx.is_inexact_array)
        flat, unravel = ravel_pytree(moving)
        prior_key, noise_key = jr.split(key)
        k, d = self.roots.shape
        start = jr.normal(prior_key, (d,), flat.dtype) / jnp.sqrt(self.precision)
        gap = jr.normal(noise_key, (k,), flat.dtype) - self.roots @ start
        step = self.roots.T @ self.factor.solve(gap) / self.precision
        return eqx.combine(unravel(flat + start + step), fixed)

    def log_det(self) -> Float[Array, ""]:
        """log det of the precision."""
        return self.roots.shape[1] * jnp.log(self.precision) + self.factor.log_det()

    def dense(self) -> Full:
        """The same with a matrix of size `d`: for small networks and for tests."""
        eye = jnp.eye(self.roots.shape[1], dtype=self.roots.dtype)
        return Full(self.mean, factorise(self.precision * eye + self.roots.T @ self.roots).lower)


class Kronecker(eqx.Module):
    """Layer by layer N(W, …) with precision (A + √p I) ⊗ (G + √p I).

    This is Martens & Grosse's K-FAC with its damping. A is the sum of outer products of a layer's
    inputs, G the mean of outer products of the scores of its outputs.

    Args:
        mean: an `equinox.nn.MLP` at the mode.
        inputs, outputs: Cholesky factors of the two for every layer; a bias is a last input
            of one.
    """

    mean: eqx.nn.MLP
    inputs: tuple[Factor, ...]
    outputs: tuple[Factor, ...]

    def sample(self, *, key: PRNGKeyArray) -> eqx.nn.MLP:
        """One draw of the whole network."""
        keys = jr.split(key, len(self.inputs))
        layers = []
        for layer, a, g, k in zip(self.mean.layers, self.inputs, self.outputs, keys):
            noise = jr.normal(k, (len(g.lower), len(a.lower)), a.lower.dtype)
            step = a.unwhiten(g.unwhiten(noise).T).T
            moved = layer.weight + step[:, :-1], layer.bias + step[:, -1]  # ty: ignore[unsupported-operator]
            layers.append(eqx.tree_at(lambda m: (m.weight, m.bias), layer, moved))
        return eqx.tree_at(lambda m: m.layers, self.mean, tuple(layers))

    def log_det(self) -> Float[Array, ""]:
        """log det of the precision."""
        each = []
        for a, g in zip(self.inputs, self.outputs):
            each.append(len(g.lower) * a.log_det() + len(a.lower) * g.log_det())
        return jnp.stack(each).sum()


def _kronecker(net: eqx.nn.MLP, precision: Array, head: AbstractHead, data: Data) -> Kronecker:
    def forward(x, shifts):
        """Raw outputs, with something added to every layer's outputs, and every layer's inputs."""
        inputs = []
        for (layer, activation), shift in zip(layers(net), shifts):
            inputs.append(jnp.append(x, 1.0))
            x = activation(layer(x) + shift)
        return x, inputs

    zero = [jnp.zeros(layer.weight.shape[0], data.x.dtype) for layer in net.layers]
    raw, inputs = jax.vmap(lambda x: forward(x, zero))(data.x)
    slope_of = jax.jacrev(lambda shifts, x: forward(x, shifts)[0])
    slopes = jax.vmap(slope_of, in_axes=(None, 0))(zero, data.x)  # each (n, r, o)
    scores = fisher_roots(head, raw) * data.mask[:, None, None]
    root = jnp.sqrt(precision)
    a_factors, g_factors = [], []
    for a, slope in zip(inputs, slopes):
        a = a * data.mask[:, None]
        g = jnp.einsum("nmr,nro->nmo", scores, slope)
        cov_g = jnp.einsum("nmo,nmp->op", g, g) / jnp.maximum(data.count, 1)
        a_factors.append(factorise(a.T @ a + root * jnp.eye(a.shape[1], dtype=a.dtype)))
        g_factors.append(factorise(cov_g + root * jnp.eye(g.shape[2], dtype=a.dtype)))
    return Kronecker(net, tuple(a_factors), tuple(g_factors))


def laplace(
    apply: Callable[[Any, Float[Array, "n d"]], Float[Array, "n r"]],
    w: Any,
    head: AbstractHead,
    data: Data,
    precision: Array | float,
    structure: str = "full",
) -> GaussNewton | Diagonal | Kronecker:
    """Laplace's approximation at `w`.

    Args:
        apply: `(w, x) -> raw`.
        w: the mode; for the last layer alone, pass its arrays as `w` and the rest inside `apply`.
        head: with a density; its Fisher information in the raw outputs is the curvature.
        data: the rows that were seen; without rows the result is the prior around `w`.
        precision: p of the prior N(., I / p), 1 / squared units of the weights.
        structure: `"full"` (exact, in factors of the size of the data), `"diagonal"`, or
            `"kronecker"` (`w` must be an `equinox.nn.MLP`).

    Returns:
        a distribution over `w` with `sample(key=)`; `log_det` takes it.

    Example:
        >>> import jax, jax.numpy as jnp, metaprior
        >>> from metaprior.heads import Gaussian
        >>> from metaprior.infer.laplace import laplace, log_det
        >>> data = metaprior.Data.of([[1.0], [2.0]], [1.0, 2.0])
        >>> q = laplace(lambda w, x: x @ w, jnp.ones((1, 1)), Gaussian(1, scale=1.0), data, 3.0)
        >>> round(float(jnp.exp(log_det(q))), 4)  # 3 + 1² + 2²
        8.0
    """
    if structure not in STRUCTURES:
        raise ValueError(
            f"laplace has the structures {', '.join(map(repr, STRUCTURES))}; got {structure!r}."
        )
    precision = jnp.asarray(precision, data.x.dtype)
    if structure == "kronecker":
        if not isinstance(w, eqx.nn.MLP):
            name = type(w).__name__
            raise TypeError(
                f"The Kronecker structure is that of an equinox.nn.MLP's layers; got {name}."
            )
        return _kronecker(w, precision, head, data)
    r = roots(apply, w, head, data)
    if structure == "full":
        return GaussNewton.of(w, precision, r)
    flat, unravel = ravel_pytree(eqx.filter(w, eqx.is_inexact_array))
    return Diagonal(w, unravel(-0.5 * jnp.log(precision + (r * r).sum(0)).astype(flat.dtype)))


def log_det(q: GaussNewton | Diagonal | Kronecker) -> Float[Array, ""]:
    """log det of the precision of an approximation."""
    if isinstance(q, Diagonal):
        return -2 * ravel_pytree(q.log_std)[0].sum()
    return q.log_det()
