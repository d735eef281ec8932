"""A control with a latent a view, and how images and draws are weighed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from metaprior.heads import Gaussian
from metaprior.heads.base import AbstractHead
from metaprior.method import AbstractMethod
from metaprior.methods.neural_process import NP
from metaprior.nets.mlp import apply, mlp
from metaprior.nets.sets import DeepSet
from metaprior.posterior import Sampled
from metaprior.task import Task


def ssim(a: Float[Array, "h w"], b: Float[Array, "h w"]) -> Float[Array, ""]:
    """Structural similarity of two grey images in 0 … 1; 1 where they are the same.

    Wang, Bovik, Sheikh & Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", IEEE Transactions on Image Processing 2004, equation 13 with K = 0.01 and 0.03,
    averaged over all 11 x 11 windows inside the image, weighted by a Gaussian of standard deviation
    1.5. Images smaller than a window have one of their own size.

    Example:
        >>> import jax.numpy as jnp
        >>> from metaprior.protocols.ambiguous_generation.controls import ssim
        >>> float(ssim(jnp.eye(16), jnp.eye(16)))
        1.0
    """
    across = [window(n, min(11, n)) for n in a.shape]

    def mean(image):
        return across[0] @ image @ across[1].T

    c1, c2 = 0.01**2, 0.03**2
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    return ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()


def window(n: int, width: int, std: float = 1.5) -> Float[Array, "m n"]:
    """Weighted means over windows of a row of `n` pixels, as a matrix."""
    place = jnp.arange(n)[None] - jnp.arange(n - width + 1)[:, None]
    weight = jnp.exp(-0.5 * ((place - (width - 1) / 2) / std) ** 2) * (
        (place >= 0) & (place < width)
    )
    return weight / weight.sum(1, keepdims=True)


def _with_summary(x, summary):
    """The summary of the support beside every row."""
    return jnp.concatenate([x, jnp.broadcast_to(summary, (len(x), *summary.shape))], axis=1)


def _decode(method, summary, w, x):
    """Means of views; `w` are the bits of the key that draws a latent for each."""
    z_key = jr.wrap_key_data(w)
    inputs = _with_summary(x, summary)
    z = method.latent.sample(method.latent.params(apply(method.prior, inputs)), key=z_key)
    return apply(method.decoder, jnp.concatenate([inputs, z], axis=1))


class CVAE(AbstractMethod):
    """The conditional variational autoencoder of Sohn, Lee & Yan, NIPS 2015.

    "Learning Structured Output Representation using Deep Conditional Generative Models":
    p(y | x, support) = ∫ p(y | x, r, z) p(z | x, r) dz with a summary r of the support and a latent
    z of every *view*. Two views of one draw have nothing in common but what was shown. It is
    trained on equation 4, the evidence bound.

    Args:
        encoder: r.
        prior, posterior_net: to the numbers of p(z | x, r) and of q(z | x, r, y).
        decoder: from x, r and z to the image.
        latent: reads the numbers as a normal.
        head: of the pixels.
    """

    encoder: DeepSet
    prior: eqx.nn.MLP
    posterior_net: eqx.nn.MLP
    decoder: eqx.nn.MLP
    latent: Gaussian
    head: AbstractHead

    @classmethod
    def init(cls, spec, *, key, width=256, depth=2, latent=32):
        """Networks of equal width; `latent` numbers in z."""
        keys = jr.split(key, 4)
        density, inputs = Gaussian(latent), spec.x_dim + width
        return cls(
            DeepSet.init(spec, width=width, depth=depth, key=keys[0]),
            mlp(inputs, density.raw_dim, width, 1, key=keys[1]),
            mlp(inputs + spec.head.y_dim, density.raw_dim, width, 1, key=keys[2]),
            mlp(inputs + latent, spec.head.raw_dim, width, depth, key=keys[3]),
            density,
            spec.head,
        )

    def weigh(self, task: Task, key, blind: bool = False) -> tuple[Array, Array]:
        """Of every query row: log p(y | x, z), and log q(z) - log p(z).

        Args:
            task: whose query is drawn.
            key: of the draw of z.
            blind: z is a draw of the prior, not of q.
        """
        query = task.query
        inputs = _with_summary(query.x, self.encoder.summary(task.support))
        prior = self.latent.params(apply(self.prior, inputs))
        seen = jnp.concatenate([inputs, query.y], axis=1)
        q = self.latent.params(apply(self.posterior_net, seen))
        z = self.latent.sample(prior if blind else q, key=key)
        params = self.head.params(apply(self.decoder, jnp.concatenate([inputs, z], axis=1)))
        gap = self.latent.log_prob(q, z) - self.latent.log_prob(prior, z)
        return self.head.log_prob(params, query.y), gap

    def loss(self, task, *, key):
        fit, gap = self.weigh(task, key)
        return task.query.mean(gap - fit)

    def posterior(self, support, *, key):
        return Sampled(
            jr.key_data, eqx.Partial(_decode, self, self.encoder.summary(support)), self.head
        )


def weights(learner: Any, task: Task, key, samples: int) -> Array | None:
    """Log importance weights of draws, nats; `None` for a learner without a proposal.

    The sum of their `average` is a lower bound (in expectation) on log p(query | support).

    Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, equation 8: log of
    the mean of p(query | z) p(z | support) / r(z). Half of the `2 samples` draws come from the
    network q that has seen the query, half from p(z | support), and r is their average: the
    defensive mixture of Hesterberg, "Weighted Average Importance Sampling and Defensive Mixture
    Distributions", Technometrics 1995. A q that is too narrow then does no harm.

    Returns:
        `(2 samples, 1)`, or `(2 samples, views)` where views are independent.
    """
    keys = jr.split(key, samples)
    if isinstance(learner, CVAE):
        from_q = jax.vmap(lambda k: learner.weigh(task, k, False))(keys)
        from_p = jax.vmap(lambda k: learner.weigh(task, k, True))(keys)
        return jnp.where(task.query.mask, together(from_q, from_p), 0.0)
    if not isinstance(learner, NP):
        return None
    prior, q = learner.q(task.support), learner.q(task.union)

    def weigh(k, source):
        z = learner.latent.sample(source, key=k)
        params = learner.head.params(learner.raw(task.support, task.query.x, z))
        fit = jnp.where(task.query.mask, learner.head.log_prob(params, task.query.y), 0.0).sum()
        return fit, learner.latent.log_prob(q, z) - learner.latent.log_prob(prior, z)

    over_draws = jax.vmap(weigh, in_axes=(0, None))
    return together(over_draws(keys, q), over_draws(keys, prior))[:, None]


def together(from_q: tuple[Array, Array], from_p: tuple[Array, Array]) -> Array:
    """Log weights of draws with `log p(y | z)` and `log q(z) - log p(z)`."""
    fit, gap = (jnp.concatenate([a, b]) for a, b in zip(from_q, from_p))
    return fit - jnp.logaddexp(gap, 0.0) + jnp.log(2.0)


def average(weight: Array) -> Array:
    """Log of the mean weight, along the first axis."""
    return jax.nn.logsumexp(weight, axis=0) - jnp.log(1.0 * len(weight))
