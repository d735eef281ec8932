"""Convolutional conditional neural processes."""

from typing import Self

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.errors import InputError
from metaprior.heads import AbstractHead
from metaprior.method import AbstractMethod, Spec
from metaprior.nets.mlp import apply, mlp
from metaprior.nets.set_conv import SetConv
from metaprior.posterior import Particles
from metaprior.task import Data, Task


def _raw(w, x):
    encoder, decoder, support = w
    beside = jnp.where(support.mask[:, None], support.x[:, 1:], 0.0)
    values = jnp.where(support.mask[:, None], support.y, 0.0)
    values = jnp.concatenate([values, beside], axis=1)
    features = encoder(support.x[:, 0], values, support.mask, x[:, 0])
    return apply(decoder, jnp.concatenate([features, x[:, 1:]], axis=1))


class ConvCNP(AbstractMethod):
    """Gordon et al., "Convolutional Conditional Neural Processes", ICLR 2020.

    The support becomes two functions of x (equations 3 and 4): the density of its rows,
    h_0(x) = Σ ψ(x - x_i), and the mean of the outcomes near x, h_1(x) = Σ y_i ψ(x - x_i) / h_0(x),
    with ψ(r) = exp(-r² / 2 l²) and l learned. A convolutional network reads them on a grid. The
    features at a query point are the mean of those near it, and a small network gives from them the
    input of the head. The objective is the mean nll of the query rows given the support.

    Nothing sees where on the line a task is. A task that is moved along x gets the same answer
    there, also outside the range of the training tasks. With an empty support the density is zero:
    the prior is the same at all x.

    The grid has a fixed number of points around the middle of the support, and goes on beyond its
    ends as it ends. So the answer at a point does not depend on the other query points. Layer i
    looks 2^i points apart, where the paper has a U-Net: that sees as far, and stays equivariant.
    The network reads h_0 / (1 + h_0): with h_0 itself, ten times the rows of training made it sure
    of wrong answers.

    It reads one column of x. The prediction of a pooled model beside it is a further value of every
    row.

    Args:
        encoder: from the support to features at the query points.
        decoder: from features to the input of the head.
        head: what is predicted.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> convcnp = metaprior.methods.ConvCNP.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = convcnp.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    encoder: SetConv
    decoder: eqx.nn.MLP
    head: AbstractHead

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        width: int = 32,
        depth: int = 5,
        points: int = 192,
        spacing: float = 1 / 16,
    ) -> Self:
        """A network of dilated convolutions of 5 points.

        Args:
            spec: shape of the tasks; one column of x, the pooled prediction aside.
            key: initial weights.
            width, depth: channels and layers.
            points: of the grid, at least 16.
            spacing: between them, units of x, above 0. What changes within two of them is lost.
                Tasks whose support is wider than about 7/8 of the grid (192 points 1/16 apart are
                12 units) stretch it, and are seen less finely.

        Raises:
            InputError: x has more columns, or none.
        """
        head, columns = spec.head, spec.x_dim - spec.pooled
        if head.classes:
            raise TypeError(
                f"ConvCNP predicts numbers; it cannot use the head {type(head).__name__}."
            )
        if points < 16 or not spacing > 0:
            raise ValueError(
                f"ConvCNP has at least 16 points, a spacing above 0 apart; got {points}, {spacing}."
            )
        if columns != 1:
            raise InputError(f"ConvCNP reads one input column; the tasks have {columns}.")
        e_key, d_key = jr.split(key)
        encoder = SetConv.init(
            head.y_dim + spec.pooled,
            width=width,
            depth=depth,
            points=points,
            spacing=spacing,
            key=e_key,
        )
        return cls(encoder, mlp(width + spec.pooled, head.raw_dim, width, 1, key=d_key), head)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        raw = _raw((self.encoder, self.decoder, task.support), task.query.x)
        return self.head.risk(raw, task.query, key=key)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        return Particles.single((self.encoder, self.decoder, support), _raw, self.head)
