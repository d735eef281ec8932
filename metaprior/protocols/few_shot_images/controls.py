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
from metaprior.task import Data, Task

NEAREST, COSINE, LOGISTIC = "nearest pixels", "cosine of pixels", "logistic regression"
CONTROLS = (NEAREST, COSINE, LOGISTIC)
SCALES = tuple(float(s) for s in np.geomspace(0.1, 1000, 17))  # tried on held-out classes
STEPS = 150  # of the regression
NEVER = -1e9  # the logit of a class of which nothing is shown


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
            found = _regression(label, shown, support.mask, query, self.scale)
        return jnp.where(label.any(0), found, NEVER)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles.single((self, support), _raw, Categorical(self.classes))


def _raw(w: tuple[Control, Data], x: Float[Array, "n d"]) -> Float[Array, "n c"]:
    control, support = w
    return control.logits(support, x)


def _unit(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Rows of length one."""
    return x / jnp.sqrt(jnp.maximum((x**2).sum(1, keepdims=True), 1e-12))


def _regression(
    label: Float[Array, "m c"],
    shown: Float[Array, "m d"],
    mask: Array,
    query: Float[Array, "n d"],
    scale: Array,
) -> Float[Array, "n c"]:
    """Logits of a multinomial logistic regression with weights N(0, scale) a class.

    The weights are sums of the images shown, w = shownᵀ a: accelerated gradient steps in a need
    the products of images alone (Nesterov, "Introductory Lectures on Convex Optimization", 2004,
    section 2.2). Classes of which nothing is shown take no part.
    """
    gram = shown @ shown.T * mask * mask[:, None]
    present = label.any(0)
    # The curvature of the loss is at most half the products' largest value, and the prior's one.
    most = 0.5 * scale * jnp.abs(gram).sum(1).max() + 1.0

    def gradient(a):
        logits = jnp.where(present, scale * gram @ a, NEVER)
        return (jax.nn.softmax(logits) - label) * mask[:, None] + a

    def step(carry, i):
        a, before = carry
        ahead = a + i / (i + 3) * (a - before)
        return (ahead - gradient(ahead) / most, a), None

    zero = jnp.zeros_like(label)
    (a, _), _ = jax.lax.scan(step, (zero, zero), jnp.arange(STEPS, dtype=label.dtype))
    return scale * query @ shown.T @ (a * mask[:, None])
