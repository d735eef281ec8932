"""Image networks: a convolutional encoder, a residual one, and a decoder.

Each maps one row to one row.
An image is a flattened row `(size * size * channels,)`, height before width before channels, so
that `nets.mlp.apply` maps a network over images as over any other rows, and no method knows that it
sees images. A convolution is nine shifted copies of the image beside each other and one matrix
product: where every task has weights of its own (MAML), `vmap` makes of `lax.conv` a grouped
convolution, which XLA runs an order of magnitude more slowly on a CPU.

Normalisation is over groups of channels of *one* image (Wu & He, "Group Normalization", ECCV 2018).
Batch statistics would let the rows of a query set see one another, and the support rows see the
query: a transductive method by accident.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.system.compiled import apart

GROUPS = 8  # at most; fewer where the channels do not divide by it


def patches(image: Float[Array, "h w c"], stride: int = 1) -> Float[Array, "h/stride w/stride 9*c"]:
    """The 3 x 3 neighbourhood of every pixel, zeros outside.

    It is ordered as a kernel `(3, 3, c)` flattened.
    """
    h, w, _ = image.shape
    wide = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    return jnp.concatenate(
        [wide[i : i + h : stride, j : j + w : stride] for i in range(3) for j in range(3)], axis=-1
    )


def pool(image: Float[Array, "h w c"]) -> Float[Array, "h//2 w//2 c"]:
    """The largest of each 2 x 2 square; an odd last row or column is left out."""
    h, w = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    rows = jnp.maximum(image[0:h:2, :w], image[1:h:2, :w])
    return jnp.maximum(rows[:, 0::2], rows[:, 1::2])


class Conv(eqx.Module):
    """A 3 x 3 (or 1 x 1) convolution that keeps the size, as a matrix product.

    Args:
        kernel: `(f, 9 * c)` or, for 1 x 1, `(f, c)`; starts from He's normal. Outputs first, as in
            a linear layer: its gradient is a product of rows as they are.
        bias: `(f,)`, zero at first; `None` where a normalisation follows, which has its own.
        stride: every pixel, or every second one (rounded up).
    """

    kernel: Float[Array, "f k"]
    bias: Float[Array, "f"] | None
    stride: int = eqx.field(static=True, default=1)

    @classmethod
    def init(
        cls,
        inputs: int,
        outputs: int,
        *,
        key: PRNGKeyArray,
        window: int = 3,
        bias: bool = False,
        stride: int = 1,
    ) -> "Conv":
        """Weights for `inputs` and `outputs` channels; `window` is 3 or 1."""
        fan = window * window * inputs
        kernel = (jr.normal(key, (fan, outputs)) * (2 / fan) ** 0.5).T
        return cls(kernel, jnp.zeros(outputs) if bias else None, stride)

    @apart
    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, "h w f"]:
        wide = image if self.kernel.shape[1] == image.shape[-1] else patches(image, self.stride)
        out = wide @ self.kernel.T
        return out if self.bias is None else out + self.bias


class GroupNorm(eqx.Module):
    """Zero mean and unit variance over the pixels and channels of each group of one image.

    Wu & He 2018, equation 7.

    Args:
        scale, shift: of every channel, `(c,)`; one and zero at first.
        groups: of neighbouring channels.
    """

    scale: Float[Array, "c"]
    shift: Float[Array, "c"]
    groups: int = eqx.field(static=True)

    @classmethod
    def init(cls, channels: int, groups: int = GROUPS) -> "GroupNorm":
        """The largest number of groups up to `groups` that divides the channels."""
        groups = next(g for g in range(min(groups, channels), 0, -1) if channels % g == 0)
        return cls(jnp.ones(channels), jnp.zeros(channels), groups)

    @apart
    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        c, per = image.shape[-1], image.shape[-1] // self.groups

        def spread(v):
            return jnp.broadcast_to(v[:, None], (self.groups, per)).reshape(c)

        # Sums over pixels first: what is left is a vector a channel, so that one multiply-add a
        # pixel remains.
        first, second = image.mean((0, 1)), (image * image).mean((0, 1))
        mean, square = (
            first.reshape(self.groups, per).mean(1),
            second.reshape(self.groups, per).mean(1),
        )
        rate = spread(jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0.0) + 1e-5)) * self.scale
        return image * rate + (self.shift - spread(mean) * rate)


def _image(row: Float[Array, "d"], size: int, channels: int) -> Float[Array, "h w c"]:
    if row.shape != (size * size * channels,):
        raise ValueError(
            f"An image network for {size} x {size} x {channels} reads rows of "
            f"{size * size * channels} numbers; got shape {row.shape}."
        )
    return row.reshape(size, size, channels)


class Conv4(eqx.Module):
    """Four blocks of 3 x 3 convolution, normalisation, ReLU and 2 x 2 max-pool; a linear layer.

    The network of Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016, section
    4.1, which nearly all few-shot papers share, with a group normalisation in the place of the
    batch normalisation (see above).

    Args:
        convs, norms: of the blocks.
        last: linear layer, of the flattened 64 (for 28 x 28) features.
        size, channels: of the image.

    Example:
        >>> import jax
        >>> from metaprior.nets.conv import Conv4
        >>> from metaprior.nets.mlp import apply
        >>> net = Conv4.init(5, size=28, filters=8, key=jax.random.key(0))
        >>> apply(net, jax.numpy.zeros((3, 784))).shape
        (3, 5)
    """

    convs: tuple[Conv, ...]
    norms: tuple[GroupNorm, ...]
    last: eqx.nn.Linear
    size: int = eqx.field(static=True)
    channels: int = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        outputs: int,
        *,
        key: PRNGKeyArray,
        size: int = 28,
        channels: int = 1,
        filters: int | tuple[int, ...] = 64,
        blocks: int = 4,
        groups: int = GROUPS,
        pooled: bool = True,
    ) -> "Conv4":
        """Random weights.

        Args:
            outputs: numbers an image.
            key: initial weights.
            size, channels: of the image; `size` is its height and width, at least `2**blocks`.
            filters: channels of every block (64 in the papers, 32 for MAML's miniImageNet), or of
                each.
            blocks: four; five for VERSA's miniImageNet. Read only where `filters` is one number.
            groups: most groups of the normalisation.
            pooled: `False` halves the image by a stride of 2 in the place of the max-pool (MAML's
                Omniglot network), a quarter of the work.
        """
        each = (filters,) * blocks if isinstance(filters, int) else tuple(filters)
        blocks = len(each)
        if size < 2**blocks:
            raise ValueError(
                f"{blocks} blocks halve an image {blocks} times: size is at least {2**blocks}; "
                f"got {size}."
            )
        keys = jr.split(key, blocks + 1)
        widths = (channels, *each)
        stride = 1 if pooled else 2
        convs = tuple(
            Conv.init(a, b, stride=stride, key=k) for a, b, k in zip(widths, widths[1:], keys)
        )
        norms = tuple(GroupNorm.init(width, groups) for width in each)
        left = (size // 2**blocks if pooled else -(-size // 2**blocks)) ** 2 * each[-1]
        return cls(convs, norms, eqx.nn.Linear(left, outputs, key=keys[-1]), size, channels)

    def __call__(self, row: Float[Array, "d"]) -> Float[Array, "r"]:
        image = _image(row, self.size, self.channels)
        for conv, norm in zip(self.convs, self.norms):
            # The pool before the ReLU gives the same numbers, of which a quarter need the ReLU.
            image = norm(conv(image))
            image = jax.nn.relu(pool(image) if conv.stride == 1 else image)
        return self.last(image.reshape(-1))


class Residual(eqx.Module):
    """Three convolutions and a shortcut, then a 2 x 2 max-pool."""

    convs: tuple[Conv, ...]
    norms: tuple[GroupNorm, ...]
    shortcut: Conv
    shortcut_norm: GroupNorm

    @classmethod
    def init(cls, inputs: int, outputs: int, groups: int, *, key: PRNGKeyArray) -> "Residual":
        """Random weights; see `ResNet12`."""
        keys = jr.split(key, 4)
        convs = tuple(
            Conv.init(a, outputs, key=k) for a, k in zip((inputs, outputs, outputs), keys)
        )
        norms = tuple(GroupNorm.init(outputs, groups) for _ in convs)
        return cls(
            convs,
            norms,
            Conv.init(inputs, outputs, window=1, key=keys[3]),
            GroupNorm.init(outputs, groups),
        )

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, "h//2 w//2 f"]:
        out = image
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            out = norm(conv(out))
            out = leaky(out) if i < len(self.convs) - 1 else out
        return leaky(pool(out + self.shortcut_norm(self.shortcut(image))))


def leaky(x: Array) -> Array:
    """Leaky ReLU with slope 0.1 (Oreshkin et al. 2018)."""
    return jnp.maximum(x, 0.1 * x)


class ResNet12(eqx.Module):
    """Four residual blocks of three convolutions, the mean over pixels, a linear layer.

    Oreshkin, Rodríguez López & Lacoste, "TADAM", NeurIPS 2018, section 4, with the widths of Lee et
    al., "Meta-Learning with Differentiable Convex Optimization", CVPR 2019 (64, 160, 320, 640);
    group normalisation, no dropout.

    Args:
        blocks: four `Residual`.
        last: linear layer.
        size, channels: of the image.

    Example:
        >>> import jax
        >>> from metaprior.nets.conv import ResNet12
        >>> options = dict(size=32, channels=3, widths=(8, 8, 8, 8))
        >>> net = ResNet12.init(5, **options, key=jax.random.key(0))
        >>> net(jax.numpy.zeros(3072)).shape
        (5,)
    """

    blocks: tuple[Residual, ...]
    last: eqx.nn.Linear
    size: int = eqx.field(static=True)
    channels: int = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        outputs: int,
        *,
        key: PRNGKeyArray,
        size: int = 84,
        channels: int = 3,
        widths: tuple[int, ...] = (64, 160, 320, 640),
        groups: int = GROUPS,
    ) -> "ResNet12":
        """Random weights.

        Args:
            outputs: numbers an image.
            key: initial weights.
            size, channels: of the image; `size` is its height and width, at least `2**len(widths)`.
            widths: channels of the blocks.
            groups: most groups of the normalisation.
        """
        if size < 2 ** len(widths):
            raise ValueError(
                f"ResNet12 takes images of at least {2 ** len(widths)} pixels a side; got {size}."
            )
        keys = jr.split(key, len(widths) + 1)
        blocks = tuple(
            Residual.init(a, b, groups, key=k) for a, b, k in zip((channels, *widths), widths, keys)
        )
        return cls(blocks, eqx.nn.Linear(widths[-1], outputs, key=keys[-1]), size, channels)

    def __call__(self, row: Float[Array, "d"]) -> Float[Array, "r"]:
        image = _image(row, self.size, self.channels)
        for block in self.blocks:
            image = block(image)
        return self.last(image.mean((0, 1)))


class Decoder(eqx.Module):
    """From a code to an image.

    A linear layer, then blocks of upsampling, 3 x 3 convolution, normalisation and ReLU.

    Upsampling repeats each pixel twice each way before an ordinary convolution, which leaves no
    chequered pattern (Odena, Dumoulin & Olah, "Deconvolution and Checkerboard Artifacts", Distill
    2016). The result is a row of raw numbers, `channels` a pixel: a head, a sigmoid or nothing may
    follow.

    Args:
        first: linear layer.
        convs, norms: of the blocks.
        last: convolution to `channels`.
        size: height and width of the image.
        filters: channels before the last convolution.

    Example:
        >>> import jax
        >>> from metaprior.nets.conv import Decoder
        >>> Decoder.init(16, size=32, filters=8, key=jax.random.key(0))(jax.numpy.zeros(16)).shape
        (1024,)
    """

    first: eqx.nn.Linear
    convs: tuple[Conv, ...]
    norms: tuple[GroupNorm, ...]
    last: Conv
    size: int = eqx.field(static=True)
    filters: int = eqx.field(static=True)

    @classmethod
    def init(
        cls,
        inputs: int,
        *,
        key: PRNGKeyArray,
        size: int = 32,
        channels: int = 1,
        filters: int = 32,
        blocks: int = 3,
        groups: int = GROUPS,
    ) -> "Decoder":
        """Random weights.

        Args:
            inputs: numbers in the code.
            key: initial weights.
            size: height and width of the image.
            channels: numbers a pixel, such as 1 for grey, 3 for colours, twice that for a mean and
                a spread.
            filters: channels of the blocks.
            blocks: each doubles the image; the linear layer gives one of `size / 2**blocks` pixels
                a side, rounded up.
            groups: most groups of the normalisation.
        """
        side = -(-size // 2**blocks)
        keys = jr.split(key, blocks + 2)
        convs = tuple(Conv.init(filters, filters, key=k) for k in keys[2:])
        norms = tuple(GroupNorm.init(filters, groups) for _ in convs)
        first = eqx.nn.Linear(inputs, side * side * filters, key=keys[0])
        return cls(
            first, convs, norms, Conv.init(filters, channels, bias=True, key=keys[1]), size, filters
        )

    def __call__(self, code: Float[Array, "k"]) -> Float[Array, "d"]:
        side = -(-self.size // 2 ** len(self.convs))
        image = jax.nn.relu(self.first(code)).reshape(side, side, self.filters)
        for conv, norm in zip(self.convs, self.norms):
            image = jax.nn.relu(norm(conv(double(image))))
        return self.last(image[: self.size, : self.size]).reshape(-1)


def double(image: Float[Array, "h w c"]) -> Float[Array, "2*h 2*w c"]:
    """Each pixel as a 2 x 2 square."""
    h, w, c = image.shape
    return jnp.broadcast_to(image[:, None, :, None], (h, 2, w, 2, c)).reshape(2 * h, 2 * w, c)
