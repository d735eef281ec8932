"""Whole functions from a learner that predicts points one at a time."""

from typing import Any, Self

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.method import AbstractLearner, AbstractMethod, Spec
from metaprior.methods.cnp import CNP
from metaprior.posterior import AbstractPosterior, Mixture, Part
from metaprior.task import Data, Task, concat

FUNCTIONS = 16  # drawn to see how far they lie apart


class AutoregressiveMode(AbstractMethod):
    """Bruinsma et al., "Autoregressive Conditional Neural Processes", ICLR 2023.

    A learner that predicts point by point also gives joint predictions, without more training, by
    the chain rule p(y_1 … y_n | x, support) = Π_i p(y_i | x_i, support ∪ {(x_j, y_j), j < i}).
    Outcomes that were predicted are fed back as if they had been observed. So a CNP gives joint,
    correlated and multimodal predictions, at the price of a pass a point.

    The order of the points matters where the learner is no exact posterior. It is random, as in the
    paper, and comes from the key. A base whose predictions are consistent gives back its own joint.

    It is trained as its base is. It also goes around any trained learner:
    `AutoregressiveMode(learner)`.

    Args:
        base: any learner.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> cnp = metaprior.methods.CNP.init(spec, key=jax.random.key(0))
        >>> learner = metaprior.methods.AutoregressiveMode(cnp)
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = learner.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.sample(x, key=jax.random.key(2), samples=10).parts[0].params.shape
        (10, 4, 1, 2)
    """

    base: AbstractLearner

    @property
    def learning_rate(self) -> float:
        """The base's own."""
        return self.trained.learning_rate

    @property
    def trained(self) -> AbstractMethod:
        """The base, where `fit` can train it."""
        if not isinstance(self.base, AbstractMethod):
            name = type(self.base).__name__
            raise TypeError(f"`fit` cannot train {name}, nor AutoregressiveMode around it.")
        return self.base

    @classmethod
    def init(cls, spec: Spec, *, key: PRNGKeyArray, base: Any = CNP, **hyper: Any) -> Self:
        """Around a fresh method.

        Args:
            spec: shape of the tasks.
            key: initial weights.
            base: a name from `METHODS` or a class; `"acnp"` in the row `ar_cnp`.
            hyper: options of the base's own `init`.
        """
        from metaprior.methods import get  # here, as THE TABLE has this class among its rows

        base = get(base) if isinstance(base, str) else base
        return cls(base.init(spec, key=key, **hyper))

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return self.trained.loss(task, key=key)

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> "PointByPoint":
        return PointByPoint(self.base, support, self.base.posterior(support, key=key))


def _outcome(mixture: Mixture, key) -> Float[Array, "n p"]:
    """One outcome a point, of a component chosen by its weight."""
    which, *keys = jr.split(key, 1 + len(mixture.parts))
    each = jnp.concatenate(
        [part.head.sample(part.params, key=k) for part, k in zip(mixture.parts, keys)]
    )
    log_weight = jnp.concatenate([part.log_weight for part in mixture.parts])
    chosen = jr.categorical(which, log_weight, shape=each.shape[1:2])
    return jnp.take_along_axis(each, chosen[None, :, None], axis=0)[0]


class PointByPoint(AbstractPosterior):
    """Marginals of the base; joint densities and draws by the chain rule.

    The points come in a random order.

    Args:
        base: the learner.
        support: what was observed.
        marginal: the base's posterior given it.
    """

    base: AbstractLearner
    support: Data
    marginal: AbstractPosterior

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        """The base's marginals. Where they are one component a point, what more rows could remove
        of its variance is how far the means (of classes, the probabilities) of drawn functions lie
        apart. The compiler leaves it out where nobody asks.
        """
        found = self.marginal.predict(x, key=key, samples=samples)
        parts = found.parts
        if sum(len(part.log_weight) for part in parts) > 1 or parts[0].inside is not None:
            return found  # the base says so itself
        drawn = self.sample(x, key=jr.fold_in(key, 1), samples=FUNCTIONS)
        apart = drawn._spread() * FUNCTIONS / (FUNCTIONS - 1)

        def part(one: Part) -> Part:
            whole = one.head.variance(one.params)
            return Part(one.head, one.params, one.log_weight, jnp.minimum(apart, whole))

        return Mixture(tuple(part(one) for one in found.parts))

    def given(self, data: Data, key) -> AbstractPosterior:
        """The base's posterior once the rows of `data` have been seen too."""
        return self.base.posterior(concat(self.support, data), key=key)

    def outcomes(self, x: Float[Array, "n d"], *, key) -> Float[Array, "n p"]:
        """One outcome a point, noise included, drawn together (procedure 2.1)."""
        n = x.shape[0]
        outcome_count = self.marginal.predict(x[:1], key=key, samples=1).parts[0].head.y_dim
        order_key, *keys = jr.split(key, 1 + n)

        def point(seen, now):
            i, k = now
            first, second, third = jr.split(k, 3)
            predictive = self.given(seen, first).predict(x[i][None], key=second, samples=1)
            y = seen.y.at[i].set(_outcome(predictive, third)[0].astype(x.dtype))
            return Data(x, y, seen.mask.at[i].set(True)), None

        # Rows enter by their mask, so that one program serves however many were drawn.
        nothing = Data(x, jnp.zeros((n, outcome_count), x.dtype), jnp.zeros(n, bool))
        order = jr.permutation(order_key, n)
        return jax.lax.scan(point, nothing, (order, jnp.stack(keys)))[0].y

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        """Functions: the base's own, once it has seen outcomes drawn together at all of `x`.

        This last pass smooths away what the base takes for noise, as the paper does for its smooth
        samples. It also makes the function the same at equal x.
        """
        # Only the heads of these parts are used, not their parameters.
        template = self.marginal.sample(x, key=key, samples=1).parts

        def one(k):
            draw, first, second = jr.split(k, 3)
            shown = Data(x, self.outcomes(x, key=draw), jnp.ones(x.shape[0], bool))
            parts = self.given(shown, first).sample(x, key=second, samples=1).parts
            total = jax.nn.logsumexp(jnp.concatenate([part.log_weight for part in parts]))
            return [(part.params, part.log_weight - total) for part in parts]

        def merge(a):
            return a.reshape(-1, *a.shape[2:])

        parts = []
        for part, (params, log_weight) in zip(template, jax.vmap(one)(jr.split(key, samples))):
            parts.append(Part(part.head, merge(params), merge(log_weight)))
        return Mixture(tuple(parts))

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        order_key, key = jr.split(key)
        rank = jr.permutation(order_key, data.mask.shape[0])

        def row(i):
            before = Data(data.x, data.y, data.mask & (rank < rank[i]))
            first, second = jr.split(jr.fold_in(key, i))
            predictive = self.given(before, first).predict(
                data.x[i][None], key=second, samples=samples
            )
            return predictive.log_prob(data.y[i][None])[0]

        each = jax.lax.map(row, jnp.arange(data.mask.shape[0]))
        return jnp.where(data.mask, each, 0.0).sum()
