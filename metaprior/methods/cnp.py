"""Conditional neural processes."""

from typing import Self

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import AbstractHead, Categorical, Gaussian, MixtureDensity
from metaprior.method import AbstractMethod, Spec
from metaprior.nets.attention import Attention
from metaprior.nets.mlp import apply, mlp, zero_last
from metaprior.nets.sets import ByClass, DeepSet
from metaprior.posterior import Particles
from metaprior.task import Data, Task

ENCODERS = {"deep set": DeepSet, "attention": Attention}


def _raw(w, x):
    encoder, decoder, by_class, support = w
    raw = apply(decoder, jnp.concatenate([x, encoder(support, x)], axis=1))
    return raw if by_class is None else raw + by_class(support, x)


class CNP(AbstractMethod):
    """Garnelo et al., "Conditional Neural Processes", ICML 2018.

    r is the average of h(x_i, y_i) over the support, and p(y | x, support) = head(g(x, r))
    (equations 1 to 3). The objective is the mean nll of the query rows given the support (equation
    4). Points are independent given the support: there is one function, and what it does not know
    is noise.

    With `encoder="attention"`, the row `acnp`, r differs from point to point. This is the
    deterministic path of Kim et al., "Attentive Neural Processes", ICLR 2019, with the transformer
    of `metaprior.nets.attention` for their attention.

    The row `tnp` is that with four layers and a mixture of normals at each point: Nguyen & Grover,
    "Transformer Neural Processes", ICML 2022, the diagonal one (TNP-D). There the rows of the
    support attend to the support in every layer, and query points do so too, and to nothing else. A
    mixture of Gaussians for their one is what later work predicts with.

    One average over rows of all classes hardly tells whose row was which. For classes, the encoder
    `"deep set"` has logits from averages over each class's own rows beside it, as the paper's
    classification on Omniglot has (section 4.3). At first those are the prediction: g's last layer
    is zero. It learns what the classes' numbers mean, where they mean something.

    Args:
        encoder: h, from support and x to r.
        decoder: g.
        head: what is predicted.
        by_class: logits from each class's own rows; `None` for none.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> cnp = metaprior.methods.CNP.init(spec, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = cnp.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    encoder: DeepSet | Attention
    decoder: eqx.nn.MLP
    head: AbstractHead
    by_class: ByClass | None = None

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        width: int = 128,
        depth: int = 2,
        encoder: str = "deep set",
        components: int = 0,
    ) -> Self:
        """Encoder and decoder of equal size.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            width, depth: hidden units (128 in the paper's one-dimensional regression; 64 in the
                rows `acnp` and `tnp`, whose layers do more) and layers of each part (4 in `tnp`,
                whose paper has 6).
            encoder: `"deep set"` (the paper) or `"attention"`, whose width is a multiple of 8.
            components: of a normal mixture in the place of a `Gaussian` head whose scale is free;
                0 keeps the head. Any other head stays as it is: it was asked for.
        """
        if encoder not in ENCODERS:
            raise ValueError(
                f"CNP has the encoders {', '.join(map(repr, ENCODERS))}; got {encoder!r}."
            )
        head = spec.head
        if components and isinstance(head, Gaussian) and head.scale is None:
            head = MixtureDensity(components, head.dim, floor=head.floor)
        e_key, d_key = jr.split(key)
        h = ENCODERS[encoder].init(spec, width=width, depth=depth, key=e_key)
        g = mlp(spec.x_dim + width, head.raw_dim, width, depth, key=d_key)
        if encoder == "attention" or not isinstance(head, Categorical):
            return cls(h, g, head)
        c_key = jr.fold_in(key, 1)
        own = ByClass.init(spec.x_dim, head.classes, width=width, depth=depth, key=c_key)
        return cls(h, zero_last(g), head, own)

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        raw = _raw((self.encoder, self.decoder, self.by_class, task.support), task.query.x)
        return self.head.risk(raw, task.query, key=key)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        w = self.encoder, self.decoder, self.by_class, support
        return Particles.single(w, _raw, self.head)
