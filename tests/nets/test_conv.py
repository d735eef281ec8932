"""Image networks against a second formulation, and that no image sees another."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from metaprior.nets.conv import Conv, Conv4, Decoder, GroupNorm, ResNet12, double, pool
from metaprior.nets.mlp import apply


def reference(net: Conv4, row):
    """Conv4 with XLA's own convolution, reduce_window and a normalisation by reshaping."""
    image = row.reshape(1, net.size, net.size, net.channels)
    for conv, norm in zip(net.convs, net.norms):
        kernel = conv.kernel.T.reshape(3, 3, image.shape[-1], -1)
        image = jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        _, h, w, c = image.shape
        grouped = image.reshape(h, w, norm.groups, c // norm.groups)
        mean, var = grouped.mean((0, 1, 3), keepdims=True), grouped.var((0, 1, 3), keepdims=True)
        image = ((grouped - mean) / jnp.sqrt(var + 1e-5)).reshape(
            1, h, w, c
        ) * norm.scale + norm.shift
        image = jax.nn.relu(image)
        image = jax.lax.reduce_window(
            image, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        )
    return net.last(image.reshape(-1))


def test_strides_halve_without_a_pool():
    """Every second output of the whole convolution, rounded up."""
    conv = Conv.init(2, 3, key=jr.key(0))
    image = jr.normal(jr.key(1), (7, 6, 2))
    strided = Conv(conv.kernel, None, 2)(image)
    np.testing.assert_allclose(strided, conv(image)[::2, ::2], atol=1e-5)
    net = Conv4.init(5, size=28, filters=8, pooled=False, key=jr.key(2))
    assert net.last.weight.shape == (5, 32) and net(jnp.zeros(784)).shape == (5,)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (33, 3)])
def test_conv4_is_the_convolution_of_xla(size, channels, x64):
    net = Conv4.init(5, size=size, channels=channels, filters=(4, 8), key=jr.key(0))
    net = jax.tree.map(lambda a: a.astype(float) + 0.05 if hasattr(a, "dtype") else a, net)
    row = jr.normal(jr.key(1), (size * size * channels,))
    both = jax.jit(
        lambda r: [
            jax.value_and_grad(lambda r: f(r).sum())(r)
            for f in (net, functools.partial(reference, net))
        ]
    )
    (ours, our_slope), (theirs, their_slope) = both(row)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    np.testing.assert_allclose(our_slope, their_slope, atol=1e-9)


def test_a_window_of_one_is_a_matrix_product_a_pixel():
    conv = Conv.init(3, 4, window=1, bias=True, key=jr.key(0))
    image = jr.normal(jr.key(1), (5, 5, 3))
    np.testing.assert_allclose(conv(image)[2, 3], conv.kernel @ image[2, 3], atol=1e-6)


def test_no_image_sees_another():
    """The answer for an image is the same alone and in any company: nothing leaks between query
    points.
    """
    net = Conv4.init(5, size=16, filters=8, key=jr.key(0))
    rows = jr.normal(jr.key(1), (6, 256))
    many = jax.jit(lambda rows: apply(net, rows))
    alone = jnp.concatenate([many(row[None]) for row in rows[:2]])
    np.testing.assert_allclose(many(rows)[:2], alone, atol=1e-5)
    np.testing.assert_allclose(many(rows.at[2:].set(100.0))[:2], alone, atol=1e-5)


def test_group_norm_is_normal_in_every_group():
    image = 3.0 + 2.0 * jr.normal(jr.key(0), (7, 7, 12))
    norm = GroupNorm.init(12)
    assert norm.groups == 6  # the largest divisor up to 8
    grouped = norm(image).reshape(49, 6, 2)
    np.testing.assert_allclose(grouped.mean((0, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(grouped.std((0, 2)), 1.0, atol=1e-3)


@pytest.mark.slow
def test_resnet_and_decoder_have_the_shapes_they_say():
    resnet = ResNet12.init(7, size=21, channels=3, widths=(8, 8, 16, 16), key=jr.key(0))
    assert resnet(jr.normal(jr.key(1), (21 * 21 * 3,))).shape == (7,)
    for size, channels in ((32, 1), (28, 3)):
        decoder = Decoder.init(4, size=size, channels=channels, filters=8, key=jr.key(2))
        out = apply(decoder, jr.normal(jr.key(3), (2, 4)))
        assert out.shape == (2, size * size * channels)
        assert float(jnp.abs(out[0] - out[1]).max()) > 1e-3  # the code matters


def test_doubling_and_pooling_are_inverse():
    image = jr.normal(jr.key(0), (5, 3, 2))
    np.testing.assert_array_equal(pool(double(image)), image)
    assert pool(image).shape == (2, 1, 2)


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="size is at least 16; got 8"):
        Conv4.init(5, size=8, key=jr.key(0))
    with pytest.raises(ValueError, match="at least 16 pixels a side; got 8"):
        ResNet12.init(5, size=8, key=jr.key(0))
    with pytest.raises(ValueError, match=r"reads rows of 784 numbers; got shape \(783,\)"):
        Conv4.init(5, size=28, filters=8, key=jr.key(0))(jnp.zeros(783))
