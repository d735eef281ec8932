"""Implicit models of an outcome: a generator of samples, without a density."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads.draws import Draws, leading, normal_nodes
from metaprior.heads.gaussian import check_raw
from metaprior.heads.network import at, network
from metaprior.posterior import AbstractHead

OBJECTIVES = ("energy score", "adversarial")


def _frozen(tree):
    return jax.tree.map(lambda a: jax.lax.stop_gradient(a) if eqx.is_array(a) else a, tree)


def _length(gap):
    """Euclidean length of the last axis; its gradient at zero is zero."""
    square = (gap * gap).sum(-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


class Implicit(AbstractHead):
    """y = m + g(c, z), z ~ N(0, I): a generator; location m and context c are read from the network. Samples only.

    `objective="energy score"`: the energy score E‖Y - y‖ - E‖Y - Y'‖ / 2 in units of y, unbiased over `samples` draws
    a row (Gneiting & Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 2007, section 4.3);
    for one outcome it is the CRPS. Strictly proper, stable.

    `objective="adversarial"`: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014. One number a row,
    -log D(c, y) - log(1 - D(c, Y)) - log D(c, Y): the discriminator D lives in this head; in the first two terms
    everything else is a constant, in the last (their non-saturating one) D is. D sees the context but sends no gradient
    to it. The value is no measure of progress; use the CRPS.

    No `log_prob` and no `entropy`: score it with the CRPS. Mean, variance, cdf and quantiles are those of `draws`
    outcomes at even points z: with 256 and one outcome, means within 0.01 and cdfs within 1/256 of their spread.

    Args:
        generator: g; its arrays, like those of the discriminator, are meta-parameters.
        discriminator: D before its sigmoid; `None` for the energy score.
        dim: number of outcomes `p`.
        width: numbers in the context.
        noise: numbers in z.
        samples: draws a row in training.
        draws: even points z.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from metaprior.heads import Implicit
        >>> head = Implicit.init(1, key=jax.random.key(0))
        >>> head.raw_dim, head.sample(head.params(jnp.zeros((5, 17))), key=jax.random.key(1)).shape
        (17, (5, 1))
    """

    generator: eqx.nn.MLP
    discriminator: eqx.nn.MLP | None
    dim: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    noise: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    draws: int = eqx.field(static=True)

    density = False

    @classmethod
    def init(
        cls, dim: int = 1, *, key, objective="energy score", width=16, noise: int | None = None, hidden=32, depth=2,
        samples=8, draws=256,
    ) -> "Implicit":  # fmt: skip
        """A small generator and, for the adversarial objective, a discriminator of its size.

        Args:
            dim: number of outcomes `p`, at least 1.
            key: initial weights.
            objective: `"energy score"` or `"adversarial"`.
            width: numbers in the context.
            noise: numbers in z; `None` for one an outcome.
            hidden, depth: units and hidden layers.
            samples: draws a row in training, at least 2.
            draws: even points z for moments, cdf and quantiles.
        """
        if objective not in OBJECTIVES:
            raise ValueError(f"Implicit has the objectives {', '.join(map(repr, OBJECTIVES))}; got {objective!r}.")
        if dim < 1 or samples < 2:
            raise ValueError(f"Implicit takes dim of at least 1 and samples of at least 2; got {dim} and {samples}.")
        g_key, d_key = jr.split(key)
        noise = dim if noise is None else noise
        generator = network(width + noise, dim, hidden, depth, key=g_key)
        other = network(width + dim, 1, hidden, depth, key=d_key) if objective == "adversarial" else None
        return cls(generator, other, dim, width, noise, samples, draws)  # ty: ignore[missing-argument, invalid-argument-type]

    @property
    def raw_dim(self):
        return self.dim + self.width

    @property
    def y_dim(self):
        return self.dim

    @property
    def classes(self):
        return 0

    def params(self, raw):
        check_raw(self, raw)
        return raw

    def generate(self, params, z):
        """m + g(c, z); leading axes broadcast."""
        return params[..., : self.dim] + at(self.generator, params[..., self.dim :], z)

    def log_prob(self, params, y):
        raise TypeError(
            "Implicit has samples but no density, so no log_prob: score it with the CRPS, or take a head with a density."
        )

    def loss(self, params, y, *, key):
        lead = jnp.broadcast_shapes(params.shape[:-1], y.shape[:-1])
        drawn = self.generate(params, jr.normal(key, (self.samples, *lead, self.noise), params.dtype))
        if self.discriminator is not None:
            return self._adversarial(jax.lax.stop_gradient(params[..., self.dim :]), drawn, y)
        i, j = np.triu_indices(self.samples, 1)
        return _length(drawn - y).mean(0) - 0.5 * _length(drawn[i] - drawn[j]).mean(0)

    def _adversarial(self, context, drawn, y):
        judge = lambda net, y: at(net, context, y)[..., 0]  # logit of D
        fake = jax.nn.softplus(judge(self.discriminator, jax.lax.stop_gradient(drawn))).mean(0)
        real = jax.nn.softplus(-judge(self.discriminator, y))
        return real + fake + jax.nn.softplus(-judge(_frozen(self.discriminator), drawn)).mean(0)

    def sample(self, params, *, key):
        return self.generate(params, jr.normal(key, (*params.shape[:-1], self.noise), params.dtype))

    def _draws(self, params):
        z, log_weight = normal_nodes(self.draws, self.noise)
        values = self.generate(params, leading(z, params, 1))
        return Draws(values, jnp.broadcast_to(leading(log_weight, params, 0), values.shape[:-1]))

    def mean(self, params):
        return self._draws(params).mean()

    def variance(self, params):
        return self._draws(params).variance()

    def entropy(self, params):
        raise TypeError(
            "Implicit has samples but no density, so no entropy: use the variance, or take a head with a density."
        )

    def cdf(self, params, y):
        return self._draws(params).cdf(y)

    def quantile(self, params, level):
        return self._draws(params).quantile(level)
