"""Convolutions over sets against a second formulation, and that the grid does not show."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from metaprior.nets.set_conv import Grid, SetConv, convolve


def net(points=64, depth=2):
    return SetConv.init(1, width=4, depth=depth, points=points, spacing=0.125, key=jr.key(0))


def rows(key, n=5):
    """Places in [-1, 1], values, and a mask that leaves out the last row."""
    x_key, y_key = jr.split(key)
    x = jr.uniform(x_key, (n,), minval=-1.0, maxval=1.0)
    return x, jr.normal(y_key, (n, 1)), jnp.arange(n) < n - 1


@pytest.mark.parametrize("dilation", [1, 3])
def test_a_convolution_is_one(dilation):
    """XLA's own, on rows whose ends are repeated."""
    layer = eqx.nn.Linear(5 * 2, 3, key=jr.key(0))
    h = jr.normal(jr.key(1), (11, 2))
    reach = 2 * dilation
    wide = jnp.concatenate([jnp.repeat(h[:1], reach, 0), h, jnp.repeat(h[-1:], reach, 0)])
    kernel = layer.weight.reshape(3, 5, 2).transpose(1, 2, 0)
    out = jax.lax.conv_general_dilated(
        wide[None],
        kernel,
        (1,),
        "VALID",
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    expected = out[0] + layer.bias
    np.testing.assert_allclose(convolve(layer, h, dilation), expected, atol=1e-5)


def test_density_and_signal():
    """Equations 3 and 4 of the paper, row by row; features are read by the same kernel."""
    x, y, mask = rows(jr.key(2))
    grid = Grid.around(x, mask, 40, 0.125, 2)
    density, signal = grid.spread(x, y, mask, jnp.log(1.5))
    psi = np.exp(
        -0.5 * ((np.asarray(grid.place)[:, None] - np.asarray(x[:4])) / (1.5 * 0.125)) ** 2
    )
    np.testing.assert_allclose(density[:, 0], psi.sum(1), rtol=1e-4, atol=1e-6)
    near = psi.sum(1) > 1e-3
    mean = (psi @ np.asarray(y[:4]))[:, 0] / psi.sum(1)
    np.testing.assert_allclose(signal[near, 0], mean[near], rtol=1e-3, atol=1e-4)

    read = grid.read(grid.place[:, None], x, jnp.log(1.0))  # of a line it is the line
    np.testing.assert_allclose(read[:, 0], x, atol=1e-3)


def test_the_grid_is_around_the_rows():
    x, y, mask = jnp.asarray([1.0, 3.0, 99.0]), jnp.zeros((3, 1)), jnp.asarray([True, True, False])
    grid = Grid.around(x, mask, 40, 0.125, 2)
    np.testing.assert_allclose(grid.place.mean(), 2.0, rtol=1e-6)
    np.testing.assert_allclose(jnp.diff(grid.place), 0.125, rtol=1e-4)
    # rows that reach over more stretch it, and lie inside, two points from its ends
    wide = Grid.around(x, jnp.ones(3, bool), 40, 0.125, 2)
    np.testing.assert_allclose(wide.place[jnp.asarray([2, -3])], [1.0, 99.0], rtol=1e-5)
    none = Grid.around(x, jnp.zeros(3, bool), 40, 0.125, 2)
    assert bool(jnp.isfinite(none.place).all()) and float(none.step) == 0.125
    assert not any(a.any() for a in none.spread(x, y, jnp.zeros(3, bool), jnp.zeros(())))


def test_moved_rows_give_the_same():
    x, y, mask = rows(jr.key(3))
    at, encoder = jnp.linspace(-2.0, 2.0, 9), net()
    here, there = encoder(x, y, mask, at), encoder(x + 8.0, y, mask, at + 8.0)
    assert float(jnp.ptp(here)) > 0.05
    np.testing.assert_allclose(there, here, atol=1e-4)
    order = jnp.asarray([3, 0, 4, 2, 1])
    np.testing.assert_allclose(encoder(x[order], y[order], mask[order], at), here, atol=1e-5)


def test_a_longer_grid_gives_the_same():
    """Also for queries beyond the ends of the shorter one."""
    x, y, mask = rows(jr.key(4))
    at = jnp.linspace(-12.0, 12.0, 25)
    short, long = net(64), net(256)
    np.testing.assert_allclose(short(x, y, mask, at), long(x, y, mask, at), atol=1e-5)
    far = short(x, y, mask, jnp.asarray([500.0]))
    np.testing.assert_allclose(far, short(x, y, jnp.zeros(5, bool), jnp.zeros(1)), atol=1e-5)
