"""`Mixture`: what a posterior says of y at given x, and the scores of it."""

from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from metaprior.heads.base import AbstractHead
from metaprior.heads.inversion import quantile
from metaprior.task import Data

JOINT = 64  # draws a component where the entropy of several outcomes is estimated
TAIL = 4.5  # normal score of the outermost weighted atoms of a component


class Part(eqx.Module):
    """Components of a mixture that share a head.

    Args:
        head: reads `params`.
        params: natural parameters, `(s, n, …)`: the components lead.
        log_weight: of the components, `(s,)`; the exponentials need not sum to 1.
        inside: the share of each component's variance that more observations could remove,
            `(s, n, p)`. `None` for particles, whose own spread is noise; a closed-form predictive
            has it.
    """

    head: AbstractHead
    params: Array
    log_weight: Float[Array, "s"]
    inside: Array | None = None

    def removable(self) -> Array:
        """`inside`, as zeros where there is none."""
        if self.inside is None:
            return jnp.zeros_like(self.head.mean(self.params))
        return self.inside


class Mixture(eqx.Module):
    """What a posterior says of y at `n` points: a weighted mixture of densities.

    When it comes from `AbstractPosterior.sample`, component `i` is the same function at all points,
    so `joint_log_prob` is meaningful; `log_prob` is the marginal one, point by point.
    """

    parts: tuple[Part, ...]

    @staticmethod
    def equal(head: AbstractHead, params: Array, inside: Array | None = None) -> "Mixture":
        """Components of the same weight; the arguments are those of `Part`."""
        return Mixture((Part(head, params, jnp.zeros(params.shape[0], params.dtype), inside),))

    def log_weights(self) -> Float[Array, "s"]:
        """Log weights of all components; their exponentials sum to 1."""
        w = jnp.concatenate([part.log_weight for part in self.parts])
        return w - jax.nn.logsumexp(w)

    def _average(self, values: Iterable[Array]) -> Array:
        """Weighted mean over all components, given their values part by part."""
        each = jnp.concatenate(list(values))
        return jnp.tensordot(jnp.exp(self.log_weights()), each, axes=1)

    def _log_densities(self, y: Float[Array, "n p"]) -> Float[Array, "s n"]:
        return jnp.concatenate([part.head.log_prob(part.params, y[None]) for part in self.parts])

    def log_prob(self, y: Float[Array, "n p"]) -> Float[Array, "n"]:
        """Marginal log density of each point: the log of the *mean* density, in nats."""
        return log_sum(self._log_densities(y) + self.log_weights()[:, None])

    def joint_log_prob(self, data: Data) -> Float[Array, ""]:
        """Joint log density of all points in the mask, in nats, for coherent components."""
        each = jnp.where(data.mask, self._log_densities(data.y), 0.0).sum(-1)
        return jax.nn.logsumexp(each + self.log_weights())

    def mean(self) -> Array:
        """Expected outcome `(n, p)`; for classes the probabilities `(n, C)`."""
        return self._average(part.head.mean(part.params) for part in self.parts)

    def variance(self) -> Array:
        """Total predictive variance, by the law of total variance."""
        noise = self._average(part.head.variance(part.params) for part in self.parts)
        return noise + self._spread()

    def _spread(self) -> Array:
        """Variance between the components' means."""
        center = self.mean()
        return self._average((part.head.mean(part.params) - center) ** 2 for part in self.parts)

    def epistemic(self) -> Array:
        """Variance that more observations of the task could remove, same shape as `mean`."""
        return self._spread() + self._average(part.removable() for part in self.parts)

    def cdf(self, y: Float[Array, "n p"]) -> Float[Array, "n p"]:
        """P(Y <= y), each point and outcome on its own."""
        return self._average(part.head.cdf(part.params, y[None]) for part in self.parts)

    def quantile(self, level) -> Float[Array, "n p"]:
        """The value below which a share `level` in (0, 1) lies, to the precision of the numbers."""
        level_ = jnp.asarray(level)
        each = jnp.concatenate([part.head.quantile(part.params, level_) for part in self.parts])

        # The mixture's quantile lies between those of its components. A little slack around them
        # forgives heads whose quantile and cdf are inverse to each other only nearly.
        width = jnp.concatenate([part.head.variance(part.params) for part in self.parts])
        slack = 1e-2 * jnp.sqrt(width.max(0))
        start = jnp.tensordot(jnp.exp(self.log_weights()), each, axes=1)
        return quantile(self._below, level_, each.min(0) - slack, each.max(0) + slack, start)

    def _below(self, v: Float[Array, "n p"], sign: Array) -> Float[Array, "n p"]:
        """P(sign Y <= v) for a sign of 1 or -1; where it is small, it keeps its digits."""

        def one(part):
            if part.head.symmetric:
                return part.head.cdf(part.params.at[..., 0].multiply(sign), v[None])
            below = part.head.cdf(part.params, sign * v[None])
            return jnp.where(sign > 0, below, 1 - below)

        return self._average(map(one, self.parts))

    def atoms(self, count: int = 50) -> tuple[Array, Array]:
        """A discrete stand-in: values `(a, n, p)` and weights `(a,)`.

        The values are `count` quantiles a component. Integrals against them converge as 1/count²;
        the CRPS and the entropy use them.
        """
        levels = (jnp.arange(count) + 0.5) / count
        values = jnp.concatenate([_quantiles(part, levels) for part in self.parts])
        return values, self._shared_weights(count)

    def weighted_atoms(
        self, count: int, shift: Array | float = 0.0
    ) -> tuple[Float[Array, "n a"], Float[Array, "n a"]]:
        """Each component's quantiles at even normal scores, and the mass that each stands for.

        They reach far into the tails, where `atoms` has none. One number a point.

        Args:
            count: atoms of a component.
            shift: moves all scores by this share of their distance.
        """
        step = 2 * TAIL / (count - 1)
        scores = jnp.linspace(-TAIL, TAIL, count) + shift * step
        inner = jax.scipy.special.ndtr(scores[1:] - step / 2)
        mass = jnp.diff(inner, prepend=0.0, append=1.0)
        levels = jax.scipy.special.ndtr(scores)

        def each(part):
            return jax.vmap(lambda level: part.head.quantile(part.params, level)[..., 0])(levels)

        values = jnp.moveaxis(jnp.concatenate([each(part) for part in self.parts], axis=1), -1, 0)
        values = values.reshape(len(values), -1)
        mass = (mass[:, None] * jnp.exp(self.log_weights())).astype(values.dtype).reshape(-1)
        return values, jnp.broadcast_to(mass, values.shape)

    def _joint_atoms(self, count: int) -> tuple[Array, Array]:
        """Like `atoms`, where outcomes must stay together: `count` fixed draws a component."""
        values = jnp.concatenate([_joint_draws(part, count) for part in self.parts])
        return values.reshape(-1, *values.shape[2:]), self._shared_weights(count)

    def _shared_weights(self, count: int) -> Float[Array, "a"]:
        """Weights where each component is replaced by `count` values."""
        return jnp.repeat(jnp.exp(self.log_weights()), count) / count

    def crps(self, y: Float[Array, "n p"]) -> Float[Array, "n"]:
        """Continuous ranked probability score E|Y - y| - E|Y - Y'|/2, units of y, summed over p."""
        return crps(*self.atoms(), y)

    def entropy(self) -> Float[Array, "n"]:
        """Entropy of the predictive at each point, in nats.

        One outcome: against 16 quantiles a component. Several: against `JOINT` joint draws a
        component from a fixed key, with a standard error of about sqrt(p / 128 s) nats for `s`
        equal components.
        """
        head = self.parts[0].head
        if head.classes:
            p = self.mean()
            return -jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0.0).sum(-1)
        values, weights = self.atoms(16) if head.y_dim == 1 else self._joint_atoms(JOINT)
        return -jnp.tensordot(weights, jax.vmap(self.log_prob)(values), axes=1)

    def information(self) -> Float[Array, "n"]:
        """Mutual information between the outcome at a point and the function (BALD), in nats.

        Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", 2011,
        equation 2: entropy of the predictive less the mean entropy given the function. Clipped at
        zero. Of classes of which a part holds `inside`, to second order in how functions differ.
        """
        noise = self._average(_noise_entropy(part) for part in self.parts)
        return jnp.maximum(self.entropy() - noise, 0.0)


def functions_of(mixture: Mixture, count: int, *, key) -> tuple[Array, Array]:
    """One of the j-th functions of all learners by their weights, for each j.

    Args:
        mixture: from `AbstractPosterior.sample` with `samples=count`.
        count: functions of each learner.
        key: of the choice, and of the noise.

    Returns:
        values of `count` functions, `(count, n, p)` or probabilities of classes, and outcomes with
        noise, `(count, n, p)`.
    """
    pick_key, noise_key = jr.split(key)
    weights, values, outcomes = [], [], []
    for i, part in enumerate(mixture.parts):
        noise = part.head.sample(part.params, key=jr.fold_in(noise_key, i))
        weights.append(part.log_weight.reshape(-1, count))
        for found, array in ((values, part.head.mean(part.params)), (outcomes, noise)):
            found.append(array.reshape(-1, count, *array.shape[1:]))
    choice = jr.categorical(pick_key, jnp.concatenate(weights), axis=0)
    chosen = (choice, jnp.arange(count))
    return jnp.concatenate(values)[chosen], jnp.concatenate(outcomes)[chosen]


def _quantiles(part: Part, levels: Float[Array, "m"]) -> Float[Array, "a n p"]:
    """Quantiles of every component, the levels of a component together."""

    def at(level):
        return part.head.quantile(part.params, level)

    q = jax.vmap(at)(levels)
    return jnp.swapaxes(q, 0, 1).reshape(-1, *q.shape[2:])


def _joint_draws(part: Part, count: int) -> Float[Array, "s m n p"]:
    """Outcomes drawn whole from each component, always the same ones."""

    def draw(key):
        return part.head.sample(part.params, key=key)

    return jax.vmap(draw, out_axes=1)(jr.split(jr.key(0), count))


def _noise_entropy(part: Part) -> Float[Array, "s n"]:
    """Entropy of the outcome once the function is known, in nats."""
    if part.head.classes or part.head.y_dim == 1:
        entropy = part.head.entropy(part.params)
    else:
        # Against the same draws as the predictive's entropy, so that their noise cancels.
        y = jnp.swapaxes(_joint_draws(part, JOINT), 0, 1)
        entropy = -part.head.log_prob(part.params, y).mean(0)
    if part.inside is None:
        return entropy

    if part.head.classes:
        # Functions p_f that vary by `inside` about p: E KL(p_f ‖ p) to second order.
        p = jnp.maximum(part.head.mean(part.params), 1e-12)
        return entropy - jnp.minimum(0.5 * (part.inside / p).sum(-1), entropy)
    # A normal component still holds what observations could remove: take that share out.
    total = part.head.variance(part.params)
    share = jnp.maximum(1 - part.inside / total, 1e-12)
    return entropy + 0.5 * jnp.log(share).sum(-1)


def log_sum(each: Float[Array, "s *b"]) -> Float[Array, "*b"]:
    """Log of the sum of exponentials along the first axis, safe where all terms are impossible.

    That happens in a padding row whose label is no class. The plain formula has a NaN gradient
    there.
    """
    never = (each == -jnp.inf).all(0)
    return jnp.where(never, -jnp.inf, jax.nn.logsumexp(jnp.where(never, 0.0, each), axis=0))


def crps(
    values: Float[Array, "a n p"], weights: Float[Array, "a"], y: Float[Array, "n p"]
) -> Float[Array, "n"]:
    """Continuous ranked probability score of weighted atoms, units of y, summed over the outcomes.

    Gneiting & Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 2007,
    equation 21.
    """
    order = jnp.argsort(values, axis=0)
    values = jnp.take_along_axis(values, order, axis=0)
    w = weights[order]
    below = jnp.cumsum(w, axis=0)

    # E|Y - Y'|/2 = sum_i w_i v_i (F_i + F_{i-1} - 1) for sorted v_i: no double sum over atoms.
    half_gap = (w * values * (2 * below - w - 1)).sum(0)
    return ((w * jnp.abs(values - y)).sum(0) - half_gap).sum(-1)
