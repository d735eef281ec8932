"""Convolutions over a set of observations of one input, on a grid that moves with them.

Rows become a function on a grid, a convolutional network reads it, and every query point reads the
grid around it. A task that is moved along x moves its grid, and gets the same answer.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from metaprior.nets.mlp import affine
from metaprior.system.compiled import apart

DENSITY = 1e-8  # added where the signal is divided by the density of rows


class Grid(eqx.Module):
    """Where the points of a task's grid are, along x.

    Args:
        place: of the points, in order, units of x.
        step: between them, units of x.
    """

    place: Float[Array, "g"]
    step: Float[Array, ""]

    @staticmethod
    def around(
        x: Float[Array, "n"], mask: Bool[Array, "n"], points: int, spacing: float, margin: int
    ) -> "Grid":
        """With the middle of the rows in its middle.

        The step is `spacing`. Rows that reach over more than the grid without `margin` points at
        each end stretch it: the step grows until they fit.
        """
        shown = mask.any()
        low = jnp.where(shown, jnp.where(mask, x, jnp.inf).min(), 0.0)
        high = jnp.where(shown, jnp.where(mask, x, -jnp.inf).max(), 0.0)
        step = jnp.maximum(spacing, (high - low) / (points - 1 - 2 * margin))
        offset = jnp.arange(points) - 0.5 * (points - 1)
        return Grid(0.5 * (low + high) + step * offset.astype(x.dtype), step)

    def closeness(self, x: Float[Array, "n"], log_length: Array) -> Float[Array, "g n"]:
        """-r² / (2 l²) between the points and `x`, with l in steps."""
        return -0.5 * ((self.place[:, None] - x) / self.step * jnp.exp(-log_length)) ** 2

    def spread(
        self, x: Float[Array, "n"], values: Float[Array, "n c"], mask: Bool[Array, "n"], log_length
    ) -> tuple[Float[Array, "g 1"], Float[Array, "g c"]]:
        """The density of rows at every point, and the mean of the values of the rows near it."""
        weight = jnp.where(mask, jnp.exp(self.closeness(x, log_length)), 0.0)
        density = weight.sum(1, keepdims=True)
        return density, weight @ values / (density + DENSITY)

    def read(
        self, features: Float[Array, "g c"], x: Float[Array, "q"], log_length: Array
    ) -> Float[Array, "q c"]:
        """The mean of the features near each `x`; beyond the grid, those of its end."""
        inside = jnp.clip(x, self.place[0], self.place[-1])
        return jax.nn.softmax(self.closeness(inside, log_length), axis=0).T @ features


@apart
def convolve(layer: eqx.nn.Linear, rows: Float[Array, "g c"], dilation: int) -> Float[Array, "g f"]:
    """A convolution along the rows, as one product with the neighbours side by side.

    The first and the last row go on beyond the ends. There the network sees no data, and the same
    in every row: so a grid of any length would give what an endless one gives.
    """
    taps = layer.weight.shape[1] // rows.shape[1]
    reach = dilation * (taps // 2)
    wide = jnp.pad(rows, ((reach, reach), (0, 0)), mode="edge")
    near = [wide[i * dilation : i * dilation + len(rows)] for i in range(taps)]
    return affine(layer, jnp.concatenate(near, axis=1))


class SetConv(eqx.Module):
    """From a set to features at query points, through a grid.

    The grid is of fixed size. The network reads the density d as d / (1 + d): more rows than in
    training do not carry it far from what it knows. Layer i of the network sees neighbours 2^i
    points apart, so that a few layers see far.

    Args:
        log_length: in which the set is spread over the grid and read from it, steps of the grid.
        first: from density and values to the width of the network.
        layers: residual convolutions.
        points: of the grid.
        spacing: between them, units of x.
    """

    log_length: Float[Array, "2"]
    first: eqx.nn.Linear
    layers: tuple[eqx.nn.Linear, ...]
    points: int = eqx.field(static=True)
    spacing: float = eqx.field(static=True)

    @staticmethod
    def init(
        values: int,
        *,
        key: PRNGKeyArray,
        width: int,
        depth: int,
        points: int,
        spacing: float,
        taps: int = 5,
    ) -> "SetConv":
        """Random weights; both lengths start at 2 steps."""
        keys = jr.split(key, 1 + depth)
        return SetConv(
            jnp.log(jnp.full(2, 2.0)),
            eqx.nn.Linear(1 + values, width, key=keys[0]),
            tuple(eqx.nn.Linear(taps * width, width, key=k) for k in keys[1:]),
            points,
            spacing,
        )

    def __call__(
        self,
        x: Float[Array, "n"],
        values: Float[Array, "n c"],
        mask: Bool[Array, "n"],
        at: Float[Array, "q"],
    ) -> Float[Array, "q w"]:
        grid = Grid.around(x, mask, self.points, self.spacing, self.points // 16)
        density, signal = grid.spread(x, values, mask, self.log_length[0])
        h = affine(self.first, jnp.concatenate([density / (1 + density), signal], axis=1))
        for i, layer in enumerate(self.layers):
            h = h + convolve(layer, jax.nn.relu(h), 2**i)
        return grid.read(jax.nn.relu(h), at, self.log_length[1])
