"""Objects seen from several sides: some views are shown, the others are to be drawn."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from metaprior.task import Data, Task, split


class ObjectViews(eqx.Module):
    """View reconstruction: an object from the sides that are not shown.

    Gordon et al., "Meta-Learning Probabilistic Inference for Prediction", ICLR 2019, section 5.3. A
    task is an object. x is the side that it is seen from: sine and cosine of the azimuth and of its
    first multiples (a box repeats itself after a quarter turn). y is the image, its pixels in
    0 … 1. The support is `shown` views at random, the query `query` of the others.

    Args:
        pixels: bytes, `(m, v, d)`: objects, views, pixels.
        angle: of the views, radians; `(v,)`.
        shown: views in the support.
        query: views in the query; `None` for all others.
        mirrored: whether half of the objects are replaced by their mirror images: pixels reversed
            from left to right, angles of the opposite sign.
        size: height and width of the image.
        multiples: of the azimuth whose sine and cosine x has.

    Example:
        >>> import jax, numpy as np
        >>> from metaprior.sources.views import ObjectViews
        >>> source = ObjectViews.of(np.zeros((3, 8, 4, 4), np.uint8), np.arange(8) * 45.0)
        >>> task = source(jax.random.key(0))
        >>> task.support.y.shape, task.query.x.shape
        ((1, 16), (7, 8))
    """

    pixels: Array
    angle: Float[Array, "v"]
    shown: int = eqx.field(static=True, default=1)
    query: int | None = eqx.field(static=True, default=None)
    mirrored: bool = eqx.field(static=True, default=False)
    size: int = eqx.field(static=True, default=32)
    multiples: int = eqx.field(static=True, default=4)

    @staticmethod
    def of(
        views, azimuth, shown: int = 1, query: int | None = None, mirrored: bool = False
    ) -> "ObjectViews":
        """From grey images `(m, v, h, w)` of bytes and azimuths in degrees."""
        views = np.asarray(views, np.uint8)
        flat = jnp.asarray(views.reshape(*views.shape[:2], -1))
        angle = jnp.asarray(np.deg2rad(np.asarray(azimuth, float)), jnp.result_type(float))
        return ObjectViews(flat, angle, shown, query, mirrored, views.shape[2])

    def rows(self, item: Int[Array, ""], views: Int[Array, "n"], turn=False) -> Data:
        """Some views of an object, or of its mirror image."""
        # In a mirror, pixels run from right to left and the object turns the other way.
        angle, y = self.angle[views], self.pixels[item, views].astype(float) / 255.0
        image = y.reshape(len(views), self.size, -1)
        y = jnp.where(turn, image[:, :, ::-1], image).reshape(y.shape)
        angle = jnp.where(turn, -angle, angle)
        turns = angle[:, None] * jnp.arange(1.0, self.multiples + 1)
        x = jnp.concatenate([jnp.sin(turns), jnp.cos(turns)], axis=1)
        return Data(x, y, jnp.ones(len(views), bool))

    def __call__(self, key) -> Task:
        item_key, view_key, turn_key = jr.split(key, 3)
        count, sides = self.pixels.shape[:2]
        asked = sides - self.shown if self.query is None else self.query
        order = jr.permutation(view_key, sides)[: self.shown + asked]
        turn = jr.bernoulli(turn_key) if self.mirrored else False
        return split(self.rows(jr.randint(item_key, (), 0, count), order, turn), self.shown)

    def task(self, item: Int[Array, ""], view: Int[Array, ""]) -> Task:
        """One view of an object shown, all others asked, in the order in which they follow it."""
        order = (view + jnp.arange(self.angle.shape[0])) % self.angle.shape[0]
        return Task(self.rows(item, order[:1]), self.rows(item, order[1:]))
