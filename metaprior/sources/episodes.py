"""Episodes of a set of labelled images: a few classes, a few images of each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from metaprior.task import Data, Task


class Episodes(eqx.Module):
    """`way` classes at random, `shot` + `query` different images of each.

    Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra, "Matching Networks for One Shot Learning",
    NeurIPS 2016, section 2.2. The images stay on the device as bytes. A task is a draw of indices,
    so that episodes are drawn inside the compiled step of `fit`. Inputs are pixels in 0 … 1,
    flattened; support and query hold the classes one after the other.

    Args:
        pixels: all images, `(m, h, w, c)`.
        members: the images of every class, `(C, most)`, padded.
        count: how many a class has, `(C,)`; 0 for one that is not drawn.
        group: of every class, `(C,)`, such as its alphabet.
        large: groups of at least `way` classes, `(groups,)` bool.
        way, shot, query: classes of a task, and images of each.
        slots: classes that the head knows; labels are `way` of them at random. Equal to `way`
            unless given.
        rotations: each class turned by 90, 180 and 270 degrees is another class (Santoro et al.
            2016). Images are square.
        within: share of tasks whose classes are all of one group (all turned alike).
        affine: strength of a random affine map of every image; 1.0 is Koch, Zemel & Salakhutdinov,
            "Siamese Neural Networks for One-shot Image Recognition", 2015, section 3.3: turned by
            up to 10 degrees, sheared by up to 0.3, scaled by 0.8 to 1.2, moved by up to 2 pixels of
            28. 0.0 (default) leaves images as they are.

    Example:
        >>> import jax, numpy as np
        >>> from metaprior.sources import Episodes
        >>> pixels = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1), np.uint8)
        >>> source = Episodes.of(pixels, np.repeat(np.arange(10), 6), way=5, shot=1, query=3)
        >>> task = source(jax.random.key(0))
        >>> task.support.x.shape, task.query.y.shape
        ((5, 64), (15, 1))
    """

    pixels: UInt8[Array, "m h w c"]
    members: Int[Array, "C most"]
    count: Int[Array, "C"]
    group: Int[Array, "C"]
    large: Bool[Array, "g"]
    way: int = eqx.field(static=True)
    shot: int = eqx.field(static=True)
    query: int = eqx.field(static=True)
    slots: int = eqx.field(static=True)
    rotations: bool = eqx.field(static=True)
    within: Array | float
    affine: Array | float

    @classmethod
    def of(
        cls,
        pixels,
        label,
        *,
        way: int,
        shot: int = 1,
        query: int = 5,
        group=None,
        slots: int | None = None,
        rotations: bool = False,
        within: Array | float = 0.0,
        affine: Array | float = 0.0,
        padded: int = 0,
    ) -> "Episodes":
        """From images and labels; classes with fewer than `shot + query` images are left out.

        Args:
            pixels: `(m, h, w, c)` bytes.
            label: class of every image, `(m,)` whole numbers; images with a negative label are left
                out.
            way, shot, query, slots, rotations, within, affine: as above.
            group: of every image, `(m,)`, whole numbers from 0; all alike unless given.
            padded: places for classes and groups, so that sources of few and of many share one
                compiled program.
        """
        pixels, label = np.asarray(pixels), np.asarray(label)
        group = np.zeros_like(label) if group is None else np.asarray(group)
        if pixels.ndim != 4 or pixels.dtype != np.uint8 or label.shape != pixels.shape[:1]:
            raise ValueError(
                "Episodes takes bytes (m, h, w, c) and labels (m,); "
                f"got {pixels.shape} {pixels.dtype} and {label.shape}."
            )
        if rotations and pixels.shape[1] != pixels.shape[2]:
            raise ValueError(
                f"Turned images must be square; got {pixels.shape[1]} x {pixels.shape[2]}."
            )
        found = [np.flatnonzero(label == c) for c in np.unique(label[label >= 0])]
        found = [rows for rows in found if len(rows) >= shot + query]
        turned = 4 if rotations else 1
        if len(found) * turned < way:
            raise ValueError(
                f"{way}-way tasks need {way} classes of at least {shot + query} images; "
                f"there are {len(found)}."
            )

        # With `padded`, shapes must not depend on which classes are large enough.
        classes, most = max(padded, len(found)), max(map(len, found))
        if padded:
            most = max(most, np.bincount(label[label >= 0]).max())
        members = np.zeros((classes, most), np.int32)
        count, of_class = np.zeros(classes, np.int32), np.zeros(classes, np.int32)
        for i, rows in enumerate(found):
            members[i, : len(rows)] = rows
            count[i] = len(rows)
            of_class[i] = group[rows[0]]

        sizes = np.bincount(of_class[: len(found)], minlength=padded)
        large = sizes >= way
        if (eqx.is_array(within) or within > 0) and not large.any():
            raise ValueError(
                f"No group has {way} classes, which tasks within a group need; "
                f"the largest has {sizes.max()}."
            )
        arrays = [jnp.asarray(a) for a in (pixels, members, count, of_class, large)]
        return cls(*arrays, way, shot, query, slots or way, rotations, within, affine)

    def classes(self, key: PRNGKeyArray) -> tuple[Int[Array, "way"], Int[Array, "way"]]:
        """Classes of a task and how often each is turned by 90 degrees."""
        u_key, kind_key, group_key, turn_key = jr.split(key, 4)
        turned = 4 if self.rotations else 1

        # The classes with the largest of random numbers; a number below zero keeps one out, as long
        # as there are enough others.
        u = jr.uniform(u_key, (len(self.count), turned))
        if eqx.is_array(self.within) or self.within > 0:
            group = jnp.argmax(jnp.where(self.large, jr.uniform(group_key, self.large.shape), -1.0))
            turn = jr.randint(turn_key, (), 0, turned)
            inside = (self.group == group)[:, None] & (jnp.arange(turned) == turn)
            u = jnp.where(jr.bernoulli(kind_key, self.within) & ~inside, -1.0, u)
        u = jnp.where((self.count > 0)[:, None], u, -2.0)
        _, chosen = jax.lax.top_k(u.ravel(), self.way)
        return chosen // turned, chosen % turned

    def classes_of(self, key: PRNGKeyArray) -> Int[Array, "way"]:
        """The classes of the task that `key` gives, however they are turned."""
        return self.classes(jr.split(key, 4)[0])[0]

    def images(self, key: PRNGKeyArray, index: Array, turn: Array) -> Float[Array, "k d"]:
        """Images as rows: in 0 … 1, turned, and moved where `affine` says so."""
        x = self.pixels[index].astype(jnp.float32) / 255.0
        if self.rotations:
            # Which pixel stands where, for each of the four turns.
            size = x.shape[1]
            places = np.arange(size * size).reshape(size, size)
            order = jnp.asarray(np.stack([np.rot90(places, k).ravel() for k in range(4)]))
            flat = x.reshape(len(x), size * size, -1)
            x = jnp.take_along_axis(flat, order[turn][..., None], axis=1).reshape(x.shape)
        if eqx.is_array(self.affine) or self.affine > 0:
            x = jax.vmap(lambda image, k: warp(image, self.affine, key=k))(x, jr.split(key, len(x)))
        return x.reshape(len(x), -1)

    def __call__(self, key: PRNGKeyArray) -> Task:
        class_key, image_key, slot_key, warp_key = jr.split(key, 4)
        classes, turn = self.classes(class_key)
        each = self.shot + self.query
        u = jr.uniform(image_key, (self.way, self.members.shape[1]))
        u = jnp.where(jnp.arange(u.shape[1]) < self.count[classes][:, None], u, -1.0)
        _, place = jax.lax.top_k(u, each)
        index = jnp.take_along_axis(self.members[classes], place, axis=1)
        x = self.images(warp_key, index.ravel(), jnp.repeat(turn, each)).reshape(self.way, each, -1)

        # The classes are in random order already: labels are drawn only where there are more.
        name = jnp.arange(self.way)
        if self.slots != self.way:
            name = jr.permutation(slot_key, self.slots)[: self.way]
        y = jnp.broadcast_to(name.astype(x.dtype)[:, None, None], (self.way, each, 1))

        def rows(a, b):
            mask = jnp.ones(self.way * (b - a), bool)
            return Data(x[:, a:b].reshape(-1, x.shape[-1]), y[:, a:b].reshape(-1, 1), mask)

        return Task(rows(0, self.shot), rows(self.shot, each))


def warp(
    image: Float[Array, "h w c"], strength: Array | float, *, key: PRNGKeyArray
) -> Float[Array, "h w c"]:
    """A random affine map about the middle; beyond the edge lies more of the edge.

    Output pixel (i, j) is read at (c j + d i, a j + b i) of the image, first along rows, then along
    columns (Catmull & Smith, "3-D Transformations of Images in Scanline Order", SIGGRAPH 1980).
    Each of the two is a linear interpolation, as a product with a band matrix: a gather of single
    pixels is several times slower on a CPU.
    """
    h, w, _ = image.shape
    u = strength * jr.uniform(key, (7,), minval=-1.0, maxval=1.0)
    cos, sin = jnp.cos(u[0] * np.pi / 18), jnp.sin(u[0] * np.pi / 18)
    turn = jnp.array([[cos, -sin], [sin, cos]])
    shear = jnp.array([[1.0, 0.3 * u[1]], [0.3 * u[2], 1.0]])
    (a, b), (c, d) = turn @ shear @ jnp.diag(1.0 + 0.2 * u[3:5])

    # Where row i and column j are read, `(h, w)` each. The columns move every pixel down already,
    # so that the rows must allow for it.
    i, j = jnp.arange(h) - (h - 1) / 2, jnp.arange(w) - (w - 1) / 2
    across = (a - b * c / d) * j[None] + (b / d) * i[:, None] + u[5] * w / 14
    down = d * i[:, None] + c * j[None] + u[6] * h / 14
    return _read(_read(image, across).swapaxes(0, 1), down.T).swapaxes(0, 1)


def _read(image: Float[Array, "h w c"], place: Float[Array, "h w"]) -> Float[Array, "h w c"]:
    """Every row of the image at other places, counted from its middle."""
    w = image.shape[1]
    place = jnp.clip(place + (w - 1) / 2, 0.0, w - 1.0)
    weight = jnp.maximum(0.0, 1.0 - jnp.abs(place[:, :, None] - jnp.arange(w)))
    return jnp.einsum("hjw,hwc->hjc", weight, image)
