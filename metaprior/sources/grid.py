"""The exact posterior over families of functions, by a fine grid over their parameters."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Gaussian
from metaprior.infer.cholesky import factorise
from metaprior.mixture import Mixture, Part
from metaprior.posterior import AbstractPosterior
from metaprior.sources.exact import noisy
from metaprior.task import Data, concat

SIDE = 4  # cells along each side of a block


class Family(eqx.Module):
    """Functions f(x) = w(θ)ᵀ φ(x) with θ uniform in a rectangle.

    Args:
        features: φ, `(n, 1) -> (n, q)`.
        weights: w, two arrays of numbers in, `q` of the same shape out.
        low, high: corners of the rectangle.
        blocks: of the grid along both sides of it; each has 4 x 4 cells.
    """

    features: Callable[[Array], Array] = eqx.field(static=True)
    weights: Callable[[Array, Array], tuple[Array, ...]] = eqx.field(static=True)
    low: tuple[float, float] = eqx.field(static=True)
    high: tuple[float, float] = eqx.field(static=True)
    blocks: tuple[int, int] = eqx.field(static=True)

    def grid(self, dtype) -> Float[Array, "q b c"]:
        """w at the middle of every cell, the cells of a block together."""
        sides = []
        for low, high, blocks in zip(self.low, self.high, self.blocks):
            n = blocks * SIDE
            middle = low + (high - low) * (jnp.arange(n, dtype=dtype) + 0.5) / n
            sides.append(middle.reshape(blocks, SIDE))

        # Axes: block along the first side and the second, then cell along the first and the second.
        one, two = jnp.broadcast_arrays(sides[0][:, None, :, None], sides[1][None, :, None, :])
        w = jnp.stack(self.weights(one, two))
        return w.reshape(-1, one.shape[0] * one.shape[1], SIDE * SIDE)


def _waves(x):
    return jnp.concatenate([jnp.sin(x), jnp.cos(x)], axis=1)


def _cartesian(amplitude, phase):
    return amplitude * jnp.cos(phase), -amplitude * jnp.sin(phase)


def sines(amplitude: tuple[float, float], phase: tuple[float, float]) -> Family:
    """A sin(x - phase), which is A cos(phase) sin(x) - A sin(phase) cos(x)."""
    return Family(_waves, _cartesian, (amplitude[0], phase[0]), (amplitude[1], phase[1]), (32, 64))


def _affine(x):
    return jnp.concatenate([x, jnp.ones_like(x)], axis=1)


def _same(slope, intercept):
    return slope, intercept


def lines(slope: tuple[float, float], intercept: tuple[float, float]) -> Family:
    """slope x + intercept."""
    return Family(_affine, _same, (slope[0], intercept[0]), (slope[1], intercept[1]), (48, 24))


def _form(a, b, w):
    """wᵀ a w - 2 bᵀ w at every cell.

    Number by number: as products of matrices it takes thirty times as long.
    """
    total, q = 0.0, range(len(b))
    for i in q:
        row = sum(a[i, j] * w[j] for j in q)
        total = total + (row - 2 * b[i]) * w[i]
    return total


class Grid(AbstractPosterior):
    """Bayes' rule over every cell of the families' grids, the families equally likely at first.

    The likelihood of a cell needs only φᵀφ, φᵀy and yᵀy, so that tens of thousands of cells cost
    little. Joint densities sum over all cells, and draws are cells. Both are exact as long as a
    cell is narrower than 1.5 posterior standard deviations of θ: up to about 50 rows at the
    sources' noise. The marginal predictive makes one normal of each block of 16 neighbouring cells,
    with the block's exact probability, mean and variance.

    Args:
        families: where the function may come from.
        noise: standard deviation of the noise, units of y.
        support: what was observed.
    """

    families: tuple[Family, ...]
    noise: Array | float
    support: Data

    def _log_weights(self, data: Data) -> list[Array]:
        """log p(family, cell, y of `data`) of every cell, `(b, c)` a family."""
        y = jnp.where(data.mask, data.y[:, 0], 0.0)
        noise = 0.5 * data.count * jnp.log(2 * jnp.pi * self.noise**2)
        constant = -noise - jnp.log(1.0 * len(self.families))
        found = []
        for family in self.families:
            phi = jnp.where(data.mask[:, None], family.features(data.x), 0.0)
            w = family.grid(y.dtype)

            # Squares are taken around a least-squares fit: without it float32 would lose the small
            # differences between large squares.
            gram = phi.T @ phi + 1e-3 * jnp.eye(phi.shape[1], dtype=y.dtype)
            center = factorise(gram).solve(phi.T @ y)
            residual, off = y - phi @ center, w - center[:, None, None]
            squares = residual @ residual + _form(phi.T @ phi, phi.T @ residual, off)
            found.append(constant - 0.5 * squares / self.noise**2 - jnp.log(1.0 * w[0].size))
        return found

    def _evidence(self, data: Data) -> Array:
        """log p(family, y of `data`), `(f,)`."""
        return jnp.stack([jax.nn.logsumexp(each) for each in self._log_weights(data)])

    def family(self) -> Float[Array, "f"]:
        """Probability of each family given the support."""
        return jax.nn.softmax(self._evidence(self.support))

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        parts = []
        for family, each in zip(self.families, self._log_weights(self.support)):
            # Mean and covariance of w in each block, then of f at each point.
            w, share = family.grid(x.dtype), jax.nn.softmax(each, axis=1)
            mean = (share * w).sum(-1)
            off, phi = w - mean[..., None], family.features(x)
            spread = (share * off[:, None] * off[None]).sum(-1)
            inside = jnp.maximum(jnp.einsum("np,pqb,nq->bn", phi, spread, phi), 0.0)
            params = jnp.stack([mean.T @ phi.T, jnp.sqrt(inside + self.noise**2)], -1)
            log_weight = jax.nn.logsumexp(each, axis=1)
            parts.append(Part(Gaussian(1), params[:, :, None], log_weight, inside[..., None]))
        return Mixture(tuple(parts))

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        each = self._log_weights(self.support)
        sizes = [w.size for w in each]
        below = jnp.cumsum(jax.nn.softmax(jnp.concatenate([w.ravel() for w in each])))
        u = jr.uniform(key, (samples,), below.dtype, maxval=below[-1])
        cell = jnp.minimum(jnp.searchsorted(below, u, side="right"), sum(sizes) - 1)

        # A cell belongs to one family; the others' functions at its place are thrown away.
        f, first = jnp.zeros((samples, x.shape[0]), x.dtype), 0
        for family, size in zip(self.families, sizes):
            w = family.grid(x.dtype).reshape(-1, size)[:, jnp.clip(cell - first, 0, size - 1)]
            own = (cell >= first) & (cell < first + size)
            f = jnp.where(own[:, None], w.T @ family.features(x).T, f)
            first += size
        return noisy(f, self.noise)

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        both = jax.nn.logsumexp(self._evidence(concat(self.support, data)))
        return both - jax.nn.logsumexp(self._evidence(self.support))
