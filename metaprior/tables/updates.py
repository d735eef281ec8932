"""The state of a group's posterior between calls: further rows are added to what is there."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from metaprior.method import AbstractLearner, AbstractUpdating, updated
from metaprior.posterior import AbstractPosterior
from metaprior.system.programs import kept
from metaprior.tables.padding import bucket, data_of
from metaprior.task import Data

STEP = 8  # new rows that one program takes


def _keys() -> tuple[jax.Array, jax.Array]:
    """Of the posterior and of its predictions, as everywhere in tables."""
    post_key, key = jr.split(jr.key(0))
    return post_key, key


def _leaves(posterior: AbstractPosterior) -> tuple[jax.Array, ...]:
    return tuple(jax.tree.leaves(eqx.filter(posterior, eqx.is_array)))


def rebuilt(learner: AbstractLearner, support: Data, leaves: tuple) -> AbstractPosterior:
    """The posterior of a support from its arrays; its shape is that of conditioning anew."""

    def make(learner, support):
        return learner.posterior(support, key=_keys()[0])

    like = eqx.filter_eval_shape(make, learner, support)
    shapes, rest = eqx.partition(like, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(shapes), leaves), rest)


@kept
def _start(learner, support):
    return _leaves(learner.posterior(support, key=_keys()[0]))


@kept
def _append(learner, before, leaves, everything, new):
    posterior = rebuilt(learner, before, leaves)
    return _leaves(updated(learner, posterior, everything, new, key=_keys()[0]))


class State(NamedTuple):
    """A posterior's arrays, and the padded rows that it was conditioned on."""

    support: Data
    leaves: tuple[Any, ...]


def can_update(learner: AbstractLearner) -> bool:
    """Whether further rows cost less than all rows anew."""
    return isinstance(learner, AbstractUpdating)


def start(learner: AbstractLearner, support: Data) -> State:
    """Conditioned on all rows at once."""
    return State(support, _start(learner, support))


def append(
    learner: AbstractLearner, state: State, x: np.ndarray, y: np.ndarray, known: int
) -> State:
    """Conditioned on further rows.

    Each row is added where its bucket just has a place for it, so that it makes no difference
    whether rows come together or one by one.

    Args:
        learner: of the state.
        state: of the first `known` rows.
        x, y: all rows, encoded.
        known: how many of them the state has.
    """
    while known < len(x):
        size = bucket(known + 1)
        last = min(known + STEP, size, len(x))
        everything = data_of(x[:last], y[:last], size)
        new = data_of(x[known:last], y[known:last], STEP)
        leaves = _append(learner, state.support, state.leaves, everything, new)
        state, known = State(everything, leaves), last
    return state
