"""Distributions over functions: the interface (`AbstractPosterior`) and four kinds of them."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads.base import AbstractHead
from metaprior.mixture import Mixture, Part
from metaprior.task import Data


class AbstractPosterior(eqx.Module):
    """A distribution over functions, given the support of one task."""

    @abstractmethod
    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        """`samples` functions, each coherent over all `x`: component `i` is function `i`.

        Mixtures of several posteriors (`Pool`, `Stacked`) give `samples` functions of each.
        """

    @abstractmethod
    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        """The marginal predictive at each point; exact where the method has a closed form."""

    @abstractmethod
    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        """Log density of all rows of `data` together, in nats."""


Apply = Callable[[Any, Float[Array, "n d"]], Float[Array, "n r"]]


def _length(stacked: Any) -> int:
    """Length of the leading axis that all arrays of a tree share."""
    return next(leaf.shape[0] for leaf in jax.tree.leaves(stacked) if eqx.is_array(leaf))


def _rows(stacked: Any, index: Any) -> Any:
    """The tree with its arrays indexed along their leading axis."""
    return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, stacked)


class Particles(AbstractPosterior):
    """Finitely many functions, each as likely: `apply(w[i], x)` gives the raw outputs of the i-th.

    The predictive and joint densities are exact: they use all particles, whatever `samples` says.

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
        return Particles(_rows(w, None), apply, head)

    def _params(self, w: Any, x: Float[Array, "n d"]) -> Array:
        outputs = eqx.filter_vmap(self.apply, in_axes=(eqx.if_array(0), None))(w, x)
        return self.head.params(outputs)

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        """`samples` functions: every particle equally often, as far as the numbers allow.

        Fewer than there are: different ones, drawn by `key`. As many: all of them, in order. More:
        all of them in turn, and a last round of different ones drawn by `key`.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> from metaprior import Particles
            >>> from metaprior.heads import Gaussian
            >>> three = Particles(jnp.arange(3.0), lambda w, x: w * x, Gaussian(1, scale=1.0))
            >>> drawn = three.sample(jnp.ones((1, 1)), key=jax.random.key(0), samples=6)
            >>> drawn.parts[0].params[:, 0, 0, 0].tolist()
            [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]
        """
        count = _length(self.w)
        rounds, rest = divmod(samples, count)
        which = jnp.tile(jnp.arange(count), rounds)
        if rest:
            which = jnp.concatenate([which, jr.permutation(key, count)[:rest]])

        # A function is evaluated once, however often it is drawn, and only if it is drawn.
        if rounds:
            params = self._params(self.w, x)[which]
        else:
            params = self._params(_rows(self.w, which), x)
        return Mixture.equal(self.head, params)

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        return Mixture.equal(self.head, self._params(self.w, x))

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        return self.predict(data.x, key=key, samples=samples).joint_log_prob(data)


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

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        def one(k):
            return self.apply(self.draw(k), x)

        return Mixture.equal(self.head, self.head.params(jax.vmap(one)(jr.split(key, samples))))

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        return self.sample(x, key=key, samples=samples)

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        return self.sample(data.x, key=key, samples=samples).joint_log_prob(data)


class Pool(AbstractPosterior):
    """A mixture of posteriors with log weights `(m,)`: functions of the i-th with weight w_i."""

    posteriors: tuple[AbstractPosterior, ...]
    log_weight: Float[Array, "m"]

    def _join(self, mixtures: list[Mixture]) -> Mixture:
        parts = []
        for mixture, log_weight in zip(mixtures, self.log_weight):
            # Each posterior counts with its own weight, however its components are scaled.
            total = jax.nn.logsumexp(jnp.concatenate([part.log_weight for part in mixture.parts]))
            for part in mixture.parts:
                own = part.log_weight - total + log_weight
                parts.append(Part(part.head, part.params, own, part.inside))
        return Mixture(tuple(parts))

    def _keyed(self, key: PRNGKeyArray) -> Iterator[tuple[AbstractPosterior, PRNGKeyArray]]:
        """Each posterior with a key of its own."""
        return zip(self.posteriors, jr.split(key, len(self.posteriors)))

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        return self._join([q.sample(x, key=k, samples=samples) for q, k in self._keyed(key)])

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        return self._join([q.predict(x, key=k, samples=samples) for q, k in self._keyed(key)])

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        each = [q.joint_log_prob(data, key=k, samples=samples) for q, k in self._keyed(key)]
        return jax.nn.logsumexp(jnp.stack(each) + jax.nn.log_softmax(self.log_weight))


def merged(stacked: Mixture) -> Mixture:
    """The components of equally likely mixtures side by side, given mixtures with a leading axis.

    They are one part where the mixtures share the head. A head with trained arrays of its own
    differs from one to the next: then there is a part for each.
    """

    def merge(a):
        return a.reshape(-1, *a.shape[2:])

    parts = []
    for part in stacked.parts:
        if jax.tree.leaves(eqx.filter(part.head, eqx.is_array)):
            parts += [_rows(part, i) for i in range(len(part.log_weight))]
        else:
            inside = None if part.inside is None else merge(part.inside)
            parts.append(Part(part.head, merge(part.params), merge(part.log_weight), inside))
    return Mixture(tuple(parts))


class AbstractStacked(AbstractPosterior):
    """Equal-weight mixture of posteriors of one kind, which `_each` asks."""

    @abstractmethod
    def _each(self, call: Callable, key: PRNGKeyArray):
        """`call(posterior, key)` for every member, results stacked."""

    def sample(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        return merged(self._each(lambda q, k: q.sample(x, key=k, samples=samples), key))

    def predict(self, x: Float[Array, "n d"], *, key: PRNGKeyArray, samples: int) -> Mixture:
        return merged(self._each(lambda q, k: q.predict(x, key=k, samples=samples), key))

    def joint_log_prob(self, data: Data, *, key: PRNGKeyArray, samples: int) -> Float[Array, ""]:
        each = self._each(lambda q, k: q.joint_log_prob(data, key=k, samples=samples), key)
        return jax.nn.logsumexp(each) - jnp.log(each.shape[0])


class Stacked(AbstractStacked):
    """`m` posteriors stacked on a leading axis."""

    posterior: AbstractPosterior

    def _each(self, call: Callable, key: PRNGKeyArray):
        keys = jr.split(key, _length(self.posterior))
        return eqx.filter_vmap(call, in_axes=(eqx.if_array(0), 0))(self.posterior, keys)


class Postponed(AbstractStacked):
    """Posteriors of learners that condition anew, one after another, whenever asked.

    For many rows: of `m` factors of a large covariance no two are in memory at once.

    Args:
        condition: `(member, support, key) -> posterior`.
        members: stacked on a leading axis.
        support: the observed rows.
        keys: one a member.
    """

    condition: Callable = eqx.field(static=True)
    members: Any
    support: Data
    keys: PRNGKeyArray

    def _each(self, call: Callable, key: PRNGKeyArray):
        arrays, fixed = eqx.partition(self.members, eqx.is_array)
        rest = []

        def one(args):
            arrays, own, k = args
            member = eqx.combine(arrays, fixed)
            found = call(self.condition(member, self.support, own), k)
            result, constant = eqx.partition(found, eqx.is_array)
            rest[:] = [constant]
            return result

        stacked = jax.lax.map(one, (arrays, self.keys, jr.split(key, len(self.keys))))
        return eqx.combine(stacked, rest[0])
