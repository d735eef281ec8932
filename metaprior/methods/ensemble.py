"""Ensembles of any method."""

from typing import Any, Self

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.method import AbstractLearner, AbstractMethod, AbstractUpdating, Spec, updated
from metaprior.posterior import Postponed, Stacked
from metaprior.system.devices import over_particles
from metaprior.task import Data, Task

MANY = 1024  # rows from which members condition one after another


def _condition(member: AbstractLearner, support: Data, key: PRNGKeyArray):
    return member.posterior(support, key=key)


def _row(name: str) -> Any:
    """The row of THE TABLE, where `fit` trains it."""
    from metaprior.methods import get  # here, as THE TABLE has Ensemble among its rows

    if not get(name).trainable:
        raise ValueError(f"Ensemble takes members that `fit` trains; {name} is none of them.")
    return get(name)


class Ensemble(AbstractUpdating, AbstractMethod):
    """Lakshminarayanan, Pritzel & Blundell, NeurIPS 2017: members with other initial weights.

    "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", section 2.4, for
    meta-learning. The objective is the mean of the members' losses, so that each is trained as it
    would be alone. The posterior is their mixture with equal weights.

    With MAML as the base this is EMAML of Yoon et al., "Bayesian Model-Agnostic Meta-Learning",
    NeurIPS 2018.

    Args:
        members: methods of one kind, stacked: every array has a leading member axis.

    Example:
        >>> import jax, metaprior
        >>> from metaprior.heads import Gaussian
        >>> spec = metaprior.Spec(1, Gaussian(1))
        >>> init = metaprior.methods.Ensemble.init
        >>> ensemble = init(spec, members=3, width=8, key=jax.random.key(0))
        >>> support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
        >>> posterior = ensemble.posterior(support, key=jax.random.key(1))
        >>> x = jax.numpy.zeros((4, 1))
        >>> posterior.predict(x, key=jax.random.key(2), samples=1).mean().shape
        (4, 1)
    """

    members: AbstractMethod

    @property
    def learning_rate(self) -> float:
        """The members' own: each is trained as it would be alone."""
        return self.members.learning_rate

    @property
    def untrained(self) -> tuple[str, ...]:
        """Arrays that the members' losses need not depend on."""
        return tuple(f"members.{name}" for name in getattr(self.members, "untrained", ()))

    @classmethod
    def init(
        cls,
        spec: Spec,
        *,
        key: PRNGKeyArray,
        base: str | type[AbstractMethod] = "maml",
        members: int = 5,
        **hyper: Any,
    ) -> Self:
        """Members that differ in their key.

        Args:
            spec: shape of the tasks.
            key: of all initial weights.
            base: of the members: the name of a row that `fit` trains, or a class.
            members: how many, at least 1 (5: figure 1 of the paper shows little gain beyond it).
            hyper: options of the base's own `init`.
        """
        if members < 1:
            raise ValueError(f"Ensemble takes at least 1 member; got {members}.")
        kind = _row(base) if isinstance(base, str) else base

        def make(k):
            return kind.init(spec, key=k, **hyper)

        return cls(eqx.filter_vmap(make)(jr.split(key, members)))

    def _each(self, call, key):
        """`call(member, key)` for every member, results stacked."""
        each = eqx.filter_vmap(call, in_axes=(eqx.if_array(0), 0))
        return each(over_particles(self.members), self._keys(key))

    def _keys(self, key):
        """One a member."""
        return jr.split(key, len(jax.tree.leaves(eqx.filter(self.members, eqx.is_array))[0]))

    def loss(self, task: Task, *, key: PRNGKeyArray) -> Float[Array, ""]:
        return self._each(lambda member, k: member.loss(task, key=k), key).mean()

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Stacked | Postponed:
        if len(support.mask) > MANY:
            return Postponed(_condition, self.members, support, self._keys(key))
        return Stacked(self._each(lambda member, k: member.posterior(support, key=k), key))

    def update(
        self,
        posterior: Stacked | Postponed,
        everything: Data,
        new: Data,
        *,
        key: PRNGKeyArray,
    ) -> Stacked | Postponed:
        if isinstance(posterior, Postponed) or len(everything.mask) > MANY:
            return self.posterior(everything, key=key)  # which costs nothing yet

        def one(member, own, k):
            return updated(member, own, everything, new, key=k)

        each = eqx.filter_vmap(one, in_axes=(eqx.if_array(0), eqx.if_array(0), 0))
        found = each(over_particles(self.members), posterior.posterior, self._keys(key))
        return Stacked(found)
