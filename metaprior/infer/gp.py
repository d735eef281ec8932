"""Exact conditioning of Gaussian and Student-t processes, and Laplace's method for classes.

Padding rows get a unit diagonal and no covariance with anything, so they change nothing. Rasmussen
& Williams, "Gaussian Processes for Machine Learning", 2006, chapters 2 and 3; Shah, Wilson &
Ghahramani, "Student-t Processes as Alternatives to Gaussian Processes", AISTATS 2014.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metaprior.heads import AbstractHead
from metaprior.heads.student_t import log_gamma_ratio
from metaprior.infer.cholesky import Factor, factorise


def factorise_rows(covariance: Float[Array, "n n"], mask: Bool[Array, "n"]) -> Factor:
    """The factor of the covariance of the rows in the mask; of the identity elsewhere."""
    both = mask[:, None] & mask[None]
    eye = jnp.eye(covariance.shape[0], dtype=covariance.dtype)
    return factorise(jnp.where(both, covariance, eye))


def lifted(covariance: Float[Array, "n n"], rows: int = 0) -> Float[Array, "n n"]:
    """With as much more on the diagonal as rounding may take from it: 2 ε times the rows times the
    largest variance. Then it can be factorised however close points lie.

    Args:
        covariance: of function values.
        rows: more of them that it is factorised together with.
    """
    n = len(covariance)
    lift = 2 * (n + rows) * jnp.finfo(covariance.dtype).eps
    lift = lift * jnp.diagonal(covariance).max(initial=0.0)
    return covariance + lift * jnp.eye(n, dtype=covariance.dtype)


def draw_factor(
    own: Float[Array, "n n"],
    mask: Bool[Array, "n"],
    cross: Float[Array, "n m"],
    among: Float[Array, "m m"],
) -> Float[Array, "m m"]:
    """A factor of the covariance of function values given others: their draws are it times noise.

    It is the last block of the factor of all values together. The given covariance less what the
    others explain, factorised on its own, would be indefinite by rounding wherever points lie
    close.

    Args:
        own: covariance of what is given, noise included.
        mask: which of it is real.
        cross: covariance of what is given and what is drawn.
        among: covariance of what is drawn.
    """
    n, drawn = len(own), jnp.ones(len(among), bool)
    joint = jnp.block([[own, cross], [cross.T, lifted(among, n)]])
    return factorise_rows(joint, jnp.concatenate([mask, drawn])).lower[n:, n:]


def whiten(factor: Factor, residual, mask):
    """L⁻¹ r with padding rows at zero: independent unit normals under the model."""
    return factor.whiten(jnp.where(mask, residual, 0.0))


def sequential_log_prob(factor: Factor, z, mask, df=None) -> Float[Array, "n"]:
    """log p(y_i | y_1 … y_{i-1}) of each row in order, in nats; zero outside the mask.

    `z` comes from `whiten`. With `df` the process is Student-t with that many degrees of freedom:
    after i rows the predictive has df + i of them and its scale has followed the residuals.
    """
    log_scale = jnp.log(jnp.diagonal(factor.lower))
    if df is None:
        log_p = -0.5 * z * z - 0.5 * jnp.log(2 * jnp.pi) - log_scale
    else:
        before = jnp.cumsum(mask) - mask
        surprise = jnp.cumsum(z * z) - z * z
        v = df + before
        s2 = (df + surprise) / v
        log_p = log_gamma_ratio(v) - 0.5 * jnp.log(jnp.pi * v * s2) - log_scale
        log_p = log_p - 0.5 * (v + 1) * jnp.log1p(z * z / (v * s2))
    return jnp.where(mask, log_p, 0.0)


def contrast(head: AbstractHead) -> Float[Array, "l r"]:
    """How latent processes enter the raw outputs: one for two classes (the second's log odds) and
    for classes in an order, else one a class.
    """
    return jnp.array([[0.0, 1.0]]) if head.raw_dim == 2 else jnp.eye(head.raw_dim)


class Laplace(eqx.Module):
    """Normal approximation of whitened latents u `(n, l)`: a mode and a precision H in the factors
    of

        H = A - R Rᵀ,  A block diagonal with I + Lᵀ P_k L,  R stacked from Lᵀ P_k,  P_k = diag(p_k),

    the structure of the softmax (Rasmussen & Williams section 3.5): `l` factors of size n, never
    one of size l n. With one latent (two classes, or classes in an order) the curvature goes into
    A, and R has no columns.

    Args:
        mode: most probable u.
        block: factors of the blocks of A, arrays `(l, n, n)`.
        right: A⁻¹ R, `(l, n, n)`; `None` with one latent.
        rest: factor of I - Rᵀ A⁻¹ R; `None` with one latent.
        evidence: approximate log p(y), nats.
    """

    mode: Float[Array, "n l"]
    block: Factor
    right: Float[Array, "l n n"] | None
    rest: Factor | None
    evidence: Float[Array, ""]

    def covariance(self, v: Float[Array, "n q"]) -> Float[Array, "q l l"]:
        """Covariance over the latents of vᵀ u, for each column of v."""
        own = jax.vmap(lambda c: (c.whiten(v) ** 2).sum(0))(self.block)
        cov = own.T[:, :, None] * jnp.eye(own.shape[0], dtype=v.dtype)
        if self.rest is not None:
            rest = self.rest
            shared = jax.vmap(lambda r: rest.whiten(r.T @ v))(self.right)
            cov = cov + jnp.einsum("knq,lnq->qkl", shared, shared)
        return cov

    def draw(self, white: Float[Array, "n k s"]) -> Float[Array, "n l s"]:
        """Draws of u from unit normals, `k = l + 1` numbers a row and draw."""
        latents = self.mode.shape[1]
        u = jax.vmap(lambda c, z: c.unwhiten(z))(self.block, jnp.moveaxis(white[:, :latents], 1, 0))
        if self.right is not None and self.rest is not None:
            u = u + self.right @ self.rest.unwhiten(white[:, latents])
        return self.mode[:, :, None] + jnp.moveaxis(u, 0, 1)


class _Rows(eqx.Module):
    """The likelihood of the rows of a task as a function of raw outputs."""

    head: AbstractHead
    y: Float[Array, "n"]
    mask: Bool[Array, "n"]

    def log_prob(self, raw: Float[Array, "n r"]) -> Float[Array, ""]:
        """Of all rows."""
        each = self.head.log_prob(self.head.params(raw), self.y[:, None])
        return jnp.where(self.mask, each, 0.0).sum()

    def slope(self, raw: Float[Array, "n r"]) -> Float[Array, "n l"]:
        """Derivative in the latents."""
        return jax.grad(self.log_prob)(raw) @ contrast(self.head).astype(raw.dtype).T

    def weight(self, raw: Float[Array, "n r"]) -> Float[Array, "l n"]:
        """Of one latent the curvature; of more the probabilities, which the softmax's are made of.

        Zero outside the mask.
        """
        a = contrast(self.head).astype(raw.dtype)
        if len(a) > 1:
            return (jax.nn.softmax(raw) * self.mask[:, None]).T
        one = jnp.ones((len(raw), 1), raw.dtype)
        _, change = jax.jvp(lambda f: self.slope(raw + f @ a), (0.0 * one,), (one,))
        return -change.T


def _curvature(weight: Float[Array, "l n"], factor):
    """Factors of the precision: see `Laplace`."""
    eye = jnp.eye(len(factor), dtype=factor.dtype)
    block = jax.vmap(factorise)(eye + jnp.einsum("ni,kn,nj->kij", factor, weight, factor))
    if len(weight) == 1:
        return block, None, None
    r = factor.T[None] * weight[:, None, :]
    right = jax.vmap(lambda c, b: c.solve(b))(block, r)
    jitter = 1e-6 if factor.dtype == jnp.float32 else 1e-12
    rest = factorise((1 + jitter) * eye - jnp.einsum("kni,knj->ij", r, right))
    return block, right, rest


def _solve(block, right, rest, b: Float[Array, "n l"]) -> Float[Array, "n l"]:
    """H⁻¹ b."""
    x = jax.vmap(lambda c, v: c.solve(v))(block, b.T)
    if rest is not None:
        x = x + right @ rest.solve(jnp.einsum("knm,nk->m", right, b))
    return x.T


def _mode(lower, mean, rows: _Rows, steps: int) -> Float[Array, "n l"]:
    """Most probable whitened latents, by Nesterov's accelerated gradient under one metric.

    The curvature of a softmax, and that of cumulative logits, is nowhere more than half the
    identity (of one log odds, a quarter): Böhning, "Multinomial logistic regression algorithm",
    1992. Steps under that bound never leave the region where they climb, as Newton's do where the
    prior is wide, and they all share one factor, however many classes there are.
    """
    a = contrast(rows.head).astype(mean.dtype)
    bound = 0.25 if rows.head.classes == 2 else 0.5
    seen = lower * rows.mask[:, None]
    factor = factorise(jnp.eye(len(lower), dtype=lower.dtype) + bound * seen.T @ seen)

    def climb(i, found):
        before, ahead = found
        slope = lower.T @ rows.slope(mean + lower @ ahead @ a) - ahead
        now = ahead + factor.solve(slope)
        return now, now + i / (i + 3.0) * (now - before)

    start = jnp.zeros((len(mean), len(a)), mean.dtype)
    return jax.lax.fori_loop(0, steps, climb, (start, start))[0]


def _trace(weight, lower, block, right, rest) -> Float[Array, ""]:
    """tr(H⁻¹ H(weight, L)) less a constant, with H⁻¹ fixed: it changes as log det H does."""
    own = jnp.einsum("ij,kmj->kim", lower, block.inverse)  # (l, n, n)
    if rest is None:
        return (weight * (own**2).sum(-1)).sum()
    shared = jnp.einsum("ij,kjm->kim", lower, jnp.einsum("kij,mj->kim", right, rest.inverse))
    mean = (weight[:, :, None] * shared).sum(0)
    each = weight * (1 - weight) * (own**2).sum(-1) + weight * (shared**2).sum(-1)
    return each.sum() - (mean**2).sum()


def laplace(
    lower: Float[Array, "n n"],
    mean: Float[Array, "n r"],
    head: AbstractHead,
    y: Float[Array, "n"],
    mask: Bool[Array, "n"],
    steps: int = 16,
) -> Laplace:
    """Laplace's approximation for classes whose latent processes share a covariance L Lᵀ.

    Works with whitened values u, raw outputs f = mean + (L u) A with A the `contrast`, so that the
    precision is never singular. The mode is looked for outside differentiation; a Newton step from
    there, where the gradient is all but zero, carries exact first derivatives. So does the log
    determinant, to first order about the precision before that step.

    Args:
        lower: L.
        mean: raw outputs where the latents are zero.
        head: `Categorical` or `Ordinal`.
        y: class indices.
        mask: which rows are real.
        steps: towards the mode, before Newton's.
    """
    a, rows = contrast(head).astype(mean.dtype), _Rows(head, y, mask)
    fixed, center, frozen = jax.lax.stop_gradient((lower, mean, rows))
    start = jax.lax.stop_gradient(_mode(fixed, center, frozen, steps))
    before = frozen.weight(center + fixed @ start @ a)
    curvature = jax.lax.stop_gradient(_curvature(before, fixed))
    slope = lower.T @ rows.slope(mean + lower @ start @ a) - start
    u = start + _solve(*curvature, slope)
    f = mean + lower @ u @ a

    block, right, rest = curvature
    log_det = jax.vmap(lambda c: c.log_det())(block).sum()
    if rest is not None:
        log_det = log_det + rest.log_det()
    log_det = log_det + _trace(rows.weight(f), lower, *curvature)
    log_det = log_det - jax.lax.stop_gradient(_trace(before, fixed, *curvature))
    evidence = rows.log_prob(f) - 0.5 * (u * u).sum() - 0.5 * log_det
    return Laplace(u, block, right, rest, evidence)
