"""Implicit models of an outcome: a generator of samples, without a density."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads.base import AbstractDrawnHead, check_raw
from metaprior.heads.draws import Draws, leading, normal_nodes, row_noise
from metaprior.heads.network import at, network

OBJECTIVES = ("energy score", "adversarial")
_FAST = 10.0  # the discriminator's logits move this much faster than its weights


def _frozen(tree):
    """The tree, as constants for the gradient."""
    return jax.tree.map(lambda a: jax.lax.stop_gradient(a) if eqx.is_array(a) else a, tree)


def _length(gap):
    """Euclidean length of the last axis; its gradient at zero is zero."""
    square = (gap * gap).sum(-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


class Implicit(AbstractDrawnHead):
    """A generator of outcomes, y = m + z + g(c, z) with z ~ N(0, I): samples, but no density.

    The location m and the context c are read from the learner's network; the first p numbers of z
    are the ones added. It starts near N(m, I), the spread of standardised outcomes.

    `objective="energy score"`: E‖Y - y‖ - E‖Y - Y'‖ / 2 in units of y, unbiased over `samples`
    draws a row (Gneiting & Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation",
    JASA 2007, section 4.3); for one outcome it is the CRPS. It is strictly proper and stable: take
    this one.

    `objective="adversarial"`: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, with
    a discriminator D in this head and one number a row,
    -log D(c, y) - log(1 - D(c, Y)) - log D(c, Y). The first two terms train D alone. The last (the
    paper's non-saturating one) trains all but D. D sees the context but sends no gradient to it.

    One optimiser trains both, and the two circle each other or go to infinity unless kept. Four
    things keep them: no momentum, which feeds the circling (Gidel et al., "Negative Momentum for
    Improved Game Dynamics", AISTATS 2019; `fit` asks the head, an optimiser of your own should have
    none either); a penalty on D's slopes in y (Mescheder, Geiger & Nowozin, "Which Training Methods
    for GANs do actually Converge?", ICML 2018); logits ten times the network's, so that D learns
    faster (Heusel et al., NeurIPS 2017); and units that do not saturate far away. The value is no
    measure of progress; use the CRPS.

    There is no `log_prob` and no `entropy`: score it with the CRPS. Mean, variance, cdf and
    quantiles are those of `draws` outcomes at fixed points z. With one outcome and one number in z
    the cdf is exact to 0.005 (quadrature), else to 0.02.

    Args:
        generator: g; its arrays, like those of the discriminator, are meta-parameters.
        discriminator: D before its sigmoid; `None` for the energy score.
        dim: number of outcomes `p`.
        width: numbers in the context.
        noise: numbers in z.
        samples: draws a row in training.
        draws: points z.
        penalty: weight of half the squared slopes of D's logits.

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
    penalty: float = eqx.field(static=True)

    density: ClassVar[bool] = False

    @classmethod
    def init(
        cls,
        dim: int = 1,
        *,
        key,
        objective="energy score",
        width=16,
        noise: int | None = None,
        hidden=32,
        depth=2,
        samples=8,
        draws=256,
        penalty=0.1,
    ) -> "Implicit":
        """A small generator and, for the adversarial objective, a discriminator of its size.

        Args:
            dim: number of outcomes `p`, at least 1.
            key: initial weights.
            objective: `"energy score"` or `"adversarial"`.
            width: numbers in the context.
            noise: numbers in z, at least one an outcome; `None` for just that.
            hidden, depth: units and hidden layers.
            samples: draws a row in training, at least 2.
            draws: points z for moments, cdf and quantiles.
            penalty: weight of half the squared slopes of the discriminator's logits. With 0.1,
                1,000 steps of `fit` end within 0.02 of the exact CRPS, 0.53, of two far branches;
                0.02 to 3 do not diverge.
        """
        if objective not in OBJECTIVES:
            raise ValueError(
                f"Implicit has the objectives {', '.join(map(repr, OBJECTIVES))}; "
                f"got {objective!r}."
            )
        noise = dim if noise is None else noise
        if not 1 <= dim <= noise or samples < 2:
            raise ValueError(
                "Implicit takes at least 1 outcome, as many numbers of noise and 2 samples; "
                f"got {dim}, {noise} and {samples}."
            )
        g_key, d_key = jr.split(key)
        generator = network(width + noise, dim, hidden, depth, key=g_key)
        judge = network(width + dim, 1, hidden, depth, key=d_key, activation=jax.nn.leaky_relu)
        other = judge if objective == "adversarial" else None
        return cls(generator, other, dim, width, noise, samples, draws, penalty)  # ty: ignore[missing-argument, invalid-argument-type]

    @property
    def momentum(self) -> float:
        return super().momentum if self.discriminator is None else 0.0

    @property
    def raw_dim(self) -> int:
        return self.dim + self.width

    def params(self, raw: Float[Array, "*b r"]) -> Array:
        check_raw(self, raw)
        return raw

    def generate(self, params, z):
        """m + z + g(c, z); leading axes broadcast."""
        location, context = params[..., : self.dim], params[..., self.dim :]
        return location + z[..., : self.dim] + at(self.generator, context, z)

    def log_prob(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b"]:
        raise TypeError(
            "Implicit has samples but no density, so no log_prob: score it with the CRPS, or take "
            "a head with a density."
        )

    def loss(
        self, params: Array, y: Float[Array, "*b p"], *, key: PRNGKeyArray
    ) -> Float[Array, "*b"]:
        lead = jnp.broadcast_shapes(params.shape[:-1], y.shape[:-1])
        z = row_noise(self.samples, lead, self.noise, params.dtype, key=key)
        drawn = self.generate(params, z)
        if self.discriminator is not None:
            return self._adversarial(jax.lax.stop_gradient(params[..., self.dim :]), drawn, y)

        # Every pair of different draws once: the mean over them is unbiased.
        i, j = np.triu_indices(self.samples, 1)
        return _length(drawn - y).mean(0) - 0.5 * _length(drawn[i] - drawn[j]).mean(0)

    def _adversarial(self, context, drawn, y):
        """The adversarial objective of the class, a number a row."""

        def judge(net, y):
            return _FAST * at(net, context, y)[..., 0]  # logit of D

        def slope(y):
            return jax.grad(lambda y: judge(self.discriminator, y).sum())(y)

        def steep(y):
            return 0.5 * self.penalty * (slope(y) ** 2).sum(-1)

        made = jax.lax.stop_gradient(drawn)
        real = jax.nn.softplus(-judge(self.discriminator, y)) + steep(y)
        fake = jax.nn.softplus(judge(self.discriminator, made)) + steep(made)
        fooled = jax.nn.softplus(-judge(_frozen(self.discriminator), drawn))
        return real + (fake + fooled).mean(0)

    def sample(self, params: Array, *, key: PRNGKeyArray) -> Float[Array, "*b p"]:
        return self.generate(params, jr.normal(key, (*params.shape[:-1], self.noise), params.dtype))

    def outcomes(self, params: Array) -> Draws:
        z, log_weight = normal_nodes(self.draws, self.noise)
        values = self.generate(params, leading(z, params, 1))
        return Draws(values, jnp.broadcast_to(leading(log_weight, params, 0), values.shape[:-1]))

    def entropy(self, params: Array) -> Float[Array, "*b"]:
        raise TypeError(
            "Implicit has samples but no density, so no entropy: use the variance, or take a head "
            "with a density."
        )
