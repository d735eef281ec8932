"""Exact conditioning of Gaussian and Student-t processes, and Laplace's method for classes.

Padding rows get a unit diagonal and no covariance with anything, so they change nothing.
Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, chapters 2 and 3; Shah, Wilson &
Ghahramani, "Student-t Processes as Alternatives to Gaussian Processes", AISTATS 2014.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float

from metaprior.heads.student_t import log_gamma_ratio


def cholesky(covariance: Float[Array, "n n"], mask: Bool[Array, "n"]) -> Float[Array, "n n"]:
    """Lower factor of the covariance of the rows in the mask; identity elsewhere."""
    both = mask[:, None] & mask[None]
    eye = jnp.eye(covariance.shape[0], dtype=covariance.dtype)
    return jnp.linalg.cholesky(jnp.where(both, covariance, eye))


def whiten(factor, residual, mask):
    """L⁻¹ r with padding rows at zero: independent unit normals under the model."""
    return solve_triangular(factor, jnp.where(mask, residual, 0.0), lower=True)


def sequential_log_prob(factor, z, mask, df=None) -> Float[Array, "n"]:
    """log p(y_i | y_1 … y_{i-1}) of each row in order, in nats; zero outside the mask.

    `z` comes from `whiten`. With `df` the process is Student-t with that many degrees of freedom:
    after i rows the predictive has df + i of them and its scale has followed the residuals.
    """
    log_scale = jnp.log(jnp.diagonal(factor))
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


def contrast(classes: int) -> Float[Array, "l c"]:
    """How latent processes enter the logits: one for two classes (the second's log odds), else one a class."""
    return jnp.array([[0.0, 1.0]]) if classes == 2 else jnp.eye(classes)


def laplace(
    factor: Float[Array, "n n"], mean: Float[Array, "n c"], y: Float[Array, "n"], mask, steps: int = 6
) -> tuple[Float[Array, "n l"], Float[Array, "m m"], Float[Array, ""]]:
    """Laplace's approximation for a softmax of Gaussian processes that share a covariance L Lᵀ.

    Works with whitened values u, logits f = mean + (L u) A with A the `contrast`, so that the Hessian
    I + (I ⊗ Lᵀ) A W Aᵀ (I ⊗ L) is never singular (Rasmussen & Williams section 3.5 in other coordinates).
    Newton's iteration runs outside differentiation; one more step at its fixed point carries exact first
    derivatives.

    Returns:
        the mode u `(n, l)`, the lower Cholesky factor of its precision `(l n, l n)` (latent-major),
        and the log evidence in nats.
    """
    n, c = mean.shape
    a = contrast(c).astype(mean.dtype)
    latents = a.shape[0]
    hot = jax.nn.one_hot(y.astype(int), c, dtype=mean.dtype) * mask[:, None]

    def hessian(f, factor):
        p = jax.nn.softmax(f) * mask[:, None]
        pa = p @ a.T
        w = jnp.einsum("nc,kc,lc->nkl", p, a, a) - pa[:, :, None] * pa[:, None, :]
        right = jnp.einsum("nkl,nj->nklj", w, factor)
        h = jnp.einsum("ni,nklj->kilj", factor, right).reshape(latents * n, latents * n)
        return jnp.linalg.cholesky(h + jnp.eye(latents * n, dtype=h.dtype))

    def newton(u, factor, mean):
        f = mean + factor @ u @ a
        gradient = factor.T @ ((hot - jax.nn.softmax(f) * mask[:, None]) @ a.T) - u
        step = cho_solve((hessian(f, factor), True), gradient.T.reshape(-1)).reshape(latents, n).T
        # A step of more than 5 standard deviations leaves the region where the quadratic holds.
        size = jnp.sqrt((step * step).mean() + 1e-12)
        return u + step * jnp.minimum(1.0, 5.0 / size)

    fixed = jax.lax.stop_gradient((factor, mean))
    start = jnp.zeros((n, latents), mean.dtype)
    u = jax.lax.fori_loop(0, steps, lambda _, u: newton(u, *fixed), start)
    u = newton(jax.lax.stop_gradient(u), factor, mean)
    f = mean + factor @ u @ a
    precision = hessian(f, factor)
    log_lik = (jax.nn.log_softmax(f) * hot).sum()
    evidence = log_lik - 0.5 * (u * u).sum() - jnp.log(jnp.diagonal(precision)).sum()
    return u, precision, evidence
