"""What needs no training: nearest pixels, cosines of pixels, a logistic regression a task."""

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import Categorical
from metaprior.method import AbstractLearner
from metaprior.posterior import Particles
from metaprior.protocols.logistic import NEVER, regression
from metaprior.task import Data, Task

NEAREST, COSINE, LOGISTIC = "nearest pixels", "cosine of pixels", "logistic regression"
CONTROLS = (NEAREST, COSINE, LOGISTIC)
SCALES = tuple(float(s) for s in np.geomspace(0.1, 1000, 17))  # tried on held-out classes


class Control(AbstractLearner):
    """Logits of classes from pixels alone.

    Args:
        name: one of `CONTROLS`. Logits are the scale times

            - `NEAREST`: minus the squared distance to the class's nearest image;
            - `COSINE`: the cosine between an image and the class's mean image;
            - `LOGISTIC`: those of a logistic regression that is fitted to the task, whose weights
              have a normal prior of precision 1 / scale; there the scale is no factor.

        middle: the mean training image, which is taken off, `(d,)`.
        size: mean squared distance from it, a pixel.
        scale: see above; a softmax needs one, and held-out classes choose it.
        classes: how many labels there are.
    """

    name: str = eqx.field(static=True)
    middle: Array
    size: Array
    scale: Array
    classes: int = eqx.field(static=True)

    @classmethod
    def fit(cls, name: str, pixels: Array, validation: Task, classes: int) -> Self:
        """The mean image of some, and the scale under which held-out tasks are most likely.

        Args:
            name: one of `CONTROLS`.
            pixels: training images, `(n, d)`, between 0 and 1.
            validation: stacked tasks of held-out classes.
            classes: how many labels there are.
        """
        middle = pixels.mean(0)
        size = ((pixels - middle) ** 2).sum(1).mean()

        @eqx.filter_jit
        def loss(scale: Array) -> Array:
            def one(task: Task) -> Array:
                control = cls(name, middle, size, scale, classes)
                head, raw = Categorical(classes), control.logits(task.support, task.query.x)
                return task.query.mean(-head.log_prob(head.params(raw), task.query.y))

            return jax.lax.map(one, validation, batch_size=8).mean()

        losses = [float(loss(jnp.asarray(scale))) for scale in SCALES]
        return cls(name, middle, size, jnp.asarray(SCALES[int(np.argmin(losses))]), classes)

    def seen(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Images less the mean one, of unit size in the mean."""
        return (x - self.middle) / jnp.sqrt(self.size)

    def logits(self, support: Data, x: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Of the classes, `NEVER` of those of which the support shows nothing."""
        label = jax.nn.one_hot(support.y[:, 0].astype(int), self.classes) * support.mask[:, None]
        shown, query = self.seen(support.x), self.seen(x)
        if self.name == NEAREST:
            square = (query**2).sum(1)[:, None] + (shown**2).sum(1) - 2 * query @ shown.T
            far = jnp.where(label.T[None] > 0, square[:, None], jnp.inf).min(-1)
            found = -self.scale * far
        elif self.name == COSINE:
            found = self.scale * _unit(query) @ _unit(label.T @ shown).T
        else:
            found = regression(label, shown, support.mask, query, self.scale)
        return jnp.where(label.any(0), found, NEVER)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles.single((self, support), _raw, Categorical(self.classes))


def _raw(w: tuple[Control, Data], x: Float[Array, "n d"]) -> Float[Array, "n c"]:
    control, support = w
    return control.logits(support, x)


def _unit(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Rows of length one."""
    return x / jnp.sqrt(jnp.maximum((x**2).sum(1, keepdims=True), 1e-12))
