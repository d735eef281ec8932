"""Distributions over functions (`AbstractPosterior`) and what they say of y at given x (`Mixture`)."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.task import Data


class AbstractHead(eqx.Module):
    """Turns raw network outputs into p(y | x), one density a point.

    `params` maps `raw_dim` network outputs to the natural parameters of the density; all other
    methods read those parameters, so that closed-form posteriors can make them directly. The
    leading axes of `params` (particles, points) broadcast against those of `y`. `classes` is the
    number of classes, 0 when outcomes are numbers. `density` is false where only samples are known,
    so that `log_prob` and `entropy` raise.
    """

    classes: eqx.AbstractVar[int]
    density: eqx.AbstractClassVar[bool]

    @property
    @abstractmethod
    def raw_dim(self) -> int:
        """How many numbers a point the network must give."""

    @property
    @abstractmethod
    def y_dim(self) -> int:
        """Number of outcome columns, `p`."""

    @abstractmethod
    def params(self, raw: Float[Array, "*b r"]) -> Array:
        """Natural parameters from raw outputs."""

    @abstractmethod
    def log_prob(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b"]:
        """Log density (log probability for classes), summed over the `p` outcomes, in nats."""

    @abstractmethod
    def loss(
        self, params: Array, y: Float[Array, "*b p"], *, key: PRNGKeyArray
    ) -> Float[Array, "*b"]:
        """What training minimises at a point: -log_prob where there is a density, else a proper
        score.
        """

    def risk(self, raw: Float[Array, "n r"], data: Data, *, key: PRNGKeyArray) -> Float[Array, ""]:
        """Mean loss of raw outputs over the rows of `data`; zero where there is no row."""
        return data.mean(self.loss(self.params(raw), data.y, key=key))

    @abstractmethod
    def sample(self, params: Array, *, key: PRNGKeyArray) -> Float[Array, "*b p"]:
        """One outcome a point."""

    @abstractmethod
    def mean(self, params: Array) -> Array:
        """Expected outcome `(…, p)`; for classes the probabilities `(…, C)`."""

    @abstractmethod
    def variance(self, params: Array) -> Array:
        """Variance of what `mean` is the mean of; for classes p (1 - p)."""

    @abstractmethod
    def entropy(self, params: Array) -> Float[Array, "*b"]:
        """Entropy in nats, summed over the `p` outcomes."""

    @abstractmethod
    def cdf(self, params: Array, y: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
        """P(Y <= y) for each outcome; classes have none and raise."""

    @abstractmethod
    def quantile(self, params: Array, level: Float[Array, ""]) -> Float[Array, "*b p"]:
        """Value below which a share `level` of the outcomes lies; classes have none and raise."""


def log_sum(each: Float[Array, "s *b"]) -> Float[Array, "*b"]:
    """Log of the sum of exponentials along the first axis, without a NaN gradient where all terms
    are impossible, as in a padding row whose label is no class.
    """
    never = (each == -jnp.inf).all(0)
    return jnp.where(never, -jnp.inf, jax.nn.logsumexp(jnp.where(never, 0.0, each), axis=0))


JOINT = 64  # draws a component where the entropy of several outcomes is estimated


class Part(eqx.Module):
    """Components of a mixture that share a head: `params` `(s, n, …)`, `log_weight` `(s,)`.

    `inside` is the share of each component's variance that more observations could remove
    (`(s, n, p)`): zero for a particle (its spread is noise), positive for a closed-form predictive.
    """

    head: AbstractHead
    params: Array
    log_weight: Float[Array, "s"]
    inside: Array | None = None


class Mixture(eqx.Module):
    """What a posterior says of y at `n` points: a weighted mixture of densities.

    When it comes from `AbstractPosterior.sample`, component `i` is the same function at all points,
    so `joint_log_prob` is meaningful; `log_prob` is the marginal one, point by point.
    """

    parts: tuple[Part, ...]

    def _log_weights(self) -> Array:
        w = jnp.concatenate([part.log_weight for part in self.parts])
        return w - jax.nn.logsumexp(w)

    def _each(self, function: Callable[[Part], Array]) -> Array:
        """`function` of every part, joined along the component axis."""
        return jnp.concatenate([function(part) for part in self.parts])

    def _average(self, function: Callable[[Part], Array]) -> Array:
        values = self._each(function)
        return jnp.tensordot(jnp.exp(self._log_weights()), values, axes=1)

    def log_prob(self, y: Float[Array, "n p"]) -> Float[Array, "n"]:
        """Marginal log density of each point: the log of the *mean* density, in nats."""
        each = self._each(lambda part: part.head.log_prob(part.params, y[None]))
        return log_sum(each + self._log_weights()[:, None])

    def joint_log_prob(self, data: Data) -> Float[Array, ""]:
        """Joint log density of all points in the mask, in nats, for coherent components."""
        each = self._each(lambda part: part.head.log_prob(part.params, data.y[None]))
        each = jnp.where(data.mask, each, 0.0).sum(-1)
        return jax.nn.logsumexp(each + self._log_weights())

    def mean(self) -> Array:
        """Expected outcome `(n, p)`; for classes the probabilities `(n, C)`."""
        return self._average(lambda part: part.head.mean(part.params))

    def variance(self) -> Array:
        """Total predictive variance, law of total variance."""
        noise = self._average(lambda part: part.head.variance(part.params))
        return noise + self._spread()

    def _spread(self) -> Array:
        center = self.mean()
        return self._average(lambda part: (part.head.mean(part.params) - center) ** 2)

    def epistemic(self) -> Array:
        """Variance that more observations of the task could remove, same shape as `mean`."""
        inside = [part.inside for part in self.parts]
        parts = [
            jnp.zeros_like(p.head.mean(p.params)) if i is None else i
            for p, i in zip(self.parts, inside)
        ]
        weights = jnp.exp(self._log_weights())
        return self._spread() + jnp.tensordot(weights, jnp.concatenate(parts), axes=1)

    def cdf(self, y: Float[Array, "n p"]) -> Float[Array, "n p"]:
        """P(Y <= y), each point and outcome on its own."""
        return self._average(lambda part: part.head.cdf(part.params, y[None]))

    def quantile(self, level) -> Float[Array, "n p"]:
        """The value below which a share `level` in (0, 1) lies, by bisection to 1e-6 of the
        bracket.
        """
        each = self._each(lambda part: part.head.quantile(part.params, jnp.asarray(level)))
        slack = 1e-3 * (jnp.abs(each).max(0) + 1e-3)
        return bisect(self.cdf, level, each.min(0) - slack, each.max(0) + slack)

    def atoms(self, count: int = 50) -> tuple[Array, Array]:
        """A discrete stand-in: values `(a, n, p)` and weights `(a,)`, `count` quantiles a
        component.

        Integrals against it converge as 1/count²; the CRPS and the entropy use it.
        """
        levels = (jnp.arange(count) + 0.5) / count

        def values(part):
            q = jax.vmap(lambda level: part.head.quantile(part.params, level))(levels)
            return jnp.swapaxes(q, 0, 1).reshape(-1, *q.shape[2:])

        weights = jnp.repeat(jnp.exp(self._log_weights()), count) / count
        return self._each(values), weights

    def _joint_atoms(self, count: int) -> tuple[Array, Array]:
        """Like `atoms`, where outcomes must stay together: `count` draws a component, always the
        same ones.
        """
        values = self._each(lambda part: _joint_draws(part, count))
        weights = jnp.repeat(jnp.exp(self._log_weights()), count) / count
        return values.reshape(-1, *values.shape[2:]), weights

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
        if not head.classes:
            values, weights = self.atoms(16) if head.y_dim == 1 else self._joint_atoms(JOINT)
            return -jnp.tensordot(weights, jax.vmap(self.log_prob)(values), axes=1)
        p = self.mean()
        return -jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0.0).sum(-1)

    def information(self) -> Float[Array, "n"]:
        """Mutual information between the outcome at a point and the function (BALD), in nats.

        Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", 2011,
        equation 2: entropy of the predictive less the mean entropy given the function. Clipped at
        zero.
        """

        def noise_entropy(part):
            if part.head.classes or part.head.y_dim == 1:
                entropy = part.head.entropy(part.params)
            else:  # against the draws of the predictive's entropy, so that their noise cancels
                y = jnp.swapaxes(_joint_draws(part, JOINT), 0, 1)
                entropy = -part.head.log_prob(part.params, y).mean(0)
            if part.inside is None:
                return entropy
            total = part.head.variance(part.params)
            share = jnp.maximum(1 - part.inside / total, 1e-12)
            return entropy + 0.5 * jnp.log(share).sum(-1)

        return jnp.maximum(self.entropy() - self._average(noise_entropy), 0.0)


def _joint_draws(part: Part, count: int) -> Float[Array, "s m n p"]:
    """Outcomes drawn whole from each component, always the same ones."""

    def draw(k):
        return part.head.sample(part.params, key=k)

    return jax.vmap(draw, out_axes=1)(jax.random.split(jax.random.key(0), count))


def bisect(cdf: Callable[[Array], Array], level, low: Array, high: Array) -> Array:
    """Where the increasing `cdf` reaches `level`, elementwise, to 1e-9 of the bracket (30
    halvings).
    """

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        below = cdf(middle) < level
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, 30, halve, (low, high))
    return 0.5 * (low + high)


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
    # E|Y - Y'|/2 = sum_i w_i v_i (F_i + F_{i-1} - 1) for sorted v_i
    half_gap = (w * values * (2 * below - w - 1)).sum(0)
    return ((w * jnp.abs(values - y)).sum(0) - half_gap).sum(-1)


class AbstractPosterior(eqx.Module):
    """A distribution over functions, given the support of one task."""

    @abstractmethod
    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        """`samples` functions, each coherent over all `x`: component `i` is function `i`."""

    @abstractmethod
    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        """The marginal predictive at each point; exact where the method has a closed form."""

    @abstractmethod
    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        """Log density of all rows of `data` together, in nats."""


Apply = Callable[[Any, Float[Array, "n d"]], Float[Array, "n r"]]


class Particles(AbstractPosterior):
    """Finitely many functions: `apply(w[i], x)` gives the raw outputs of the `i`-th.

    Args:
        w: parameters with a leading particle axis.
        apply: `(w_i, x) -> raw` for one particle.
        head: reads the raw outputs.
    """

    w: Any
    apply: Apply
    head: AbstractHead

    @staticmethod
    def single(w: Any, apply: Apply, head: AbstractHead) -> "Particles":
        """Certainty about one function: `w` without a particle axis."""
        return Particles(jax.tree.map(lambda a: a[None] if eqx.is_array(a) else a, w), apply, head)

    def sample(self, x, *, key, samples):
        """All particles, whatever `samples` says: they are all the functions there are."""
        params = self.head.params(
            eqx.filter_vmap(self.apply, in_axes=(eqx.if_array(0), None))(self.w, x)
        )
        return Mixture((Part(self.head, params, jnp.zeros(params.shape[0], params.dtype)),))

    def predict(self, x, *, key, samples):
        return self.sample(x, key=key, samples=samples)

    def joint_log_prob(self, data, *, key, samples):
        return self.sample(data.x, key=key, samples=samples).joint_log_prob(data)


class Sampled(AbstractPosterior):
    """A posterior known through `draw(key) -> w`; each draw is one function.

    Args:
        draw: one draw of the task's parameters.
        apply: `(w, x) -> raw`.
        head: reads the raw outputs.
    """

    draw: Callable[[PRNGKeyArray], Any]
    apply: Apply
    head: AbstractHead

    def sample(self, x, *, key, samples):
        def one(k):
            return self.apply(self.draw(k), x)

        params = self.head.params(jax.vmap(one)(jax.random.split(key, samples)))
        return Mixture((Part(self.head, params, jnp.zeros(samples, params.dtype)),))

    def predict(self, x, *, key, samples):
        return self.sample(x, key=key, samples=samples)

    def joint_log_prob(self, data, *, key, samples):
        return self.sample(data.x, key=key, samples=samples).joint_log_prob(data)


class Pool(AbstractPosterior):
    """A mixture of posteriors with log weights `(m,)`: functions of the i-th with probability w_i."""

    posteriors: tuple[AbstractPosterior, ...]
    log_weight: Float[Array, "m"]

    def _join(self, mixtures: list[Mixture]) -> Mixture:
        parts = []
        for i, mixture in enumerate(mixtures):
            total = jax.nn.logsumexp(jnp.concatenate([p.log_weight for p in mixture.parts]))
            for p in mixture.parts:
                parts.append(
                    Part(p.head, p.params, p.log_weight - total + self.log_weight[i], p.inside)
                )
        return Mixture(tuple(parts))

    def _all(self, call: Callable, key: PRNGKeyArray) -> list:
        keys = jax.random.split(key, len(self.posteriors))
        return [call(posterior, k) for posterior, k in zip(self.posteriors, keys)]

    def sample(self, x, *, key, samples):
        return self._join(self._all(lambda q, k: q.sample(x, key=k, samples=samples), key))

    def predict(self, x, *, key, samples):
        return self._join(self._all(lambda q, k: q.predict(x, key=k, samples=samples), key))

    def joint_log_prob(self, data, *, key, samples):
        each = self._all(lambda q, k: q.joint_log_prob(data, key=k, samples=samples), key)
        return jax.nn.logsumexp(jnp.stack(each) + jax.nn.log_softmax(self.log_weight))


class Stacked(AbstractPosterior):
    """Equal-weight mixture of `m` posteriors of one kind, stacked on a leading axis."""

    posterior: AbstractPosterior

    def _each(self, call: Callable, key: PRNGKeyArray):
        size = next(leaf for leaf in jax.tree.leaves(self.posterior) if eqx.is_array(leaf)).shape[0]
        keys = jax.random.split(key, size)
        return eqx.filter_vmap(call, in_axes=(eqx.if_array(0), 0))(self.posterior, keys)

    def _flatten(self, mixture: Mixture) -> Mixture:
        """Members' components side by side: in one part where they share the head, else in a part a
        member.
        """

        def merge(a):
            return a.reshape(-1, *a.shape[2:])

        parts = []
        for p in mixture.parts:
            if jax.tree.leaves(
                eqx.filter(p.head, eqx.is_array)
            ):  # each member has trained arrays of its own
                parts += [
                    jax.tree.map(lambda a: a[i] if eqx.is_array(a) else a, p)
                    for i in range(len(p.log_weight))
                ]
            else:
                inside = None if p.inside is None else merge(p.inside)
                parts.append(Part(p.head, merge(p.params), merge(p.log_weight), inside))
        return Mixture(tuple(parts))

    def sample(self, x, *, key, samples):
        return self._flatten(self._each(lambda q, k: q.sample(x, key=k, samples=samples), key))

    def predict(self, x, *, key, samples):
        return self._flatten(self._each(lambda q, k: q.predict(x, key=k, samples=samples), key))

    def joint_log_prob(self, data, *, key, samples):
        each = self._each(lambda q, k: q.joint_log_prob(data, key=k, samples=samples), key)
        return jax.nn.logsumexp(each) - jnp.log(each.shape[0])
