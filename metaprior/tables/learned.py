"""`suggest --by learned`: what a row is worth, learned from the groups that `fit` kept aside.

`acquire_learned` says what is regressed on what. The groups are those that no weight was learned
from: in them the loss falls as it does in a new group.
"""

import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior import acquire_learned
from metaprior.errors import InputError
from metaprior.sources import Table
from metaprior.system.devices import usable_cores
from metaprior.system.programs import kept
from metaprior.tables.baselines import Boosting, cross_fit

if TYPE_CHECKING:
    from metaprior.tables.trained import HeldOut, Trained

OBSERVED, POOL, QUERY = 16, 40, 24  # most rows of a simulated group
STATES, AT_ONCE, FEW = 2048, 64, 4  # simulated groups, those in one program, candidates of each
FOLDS = 5  # of the groups
CUT = 0.005  # share of the drops at either end that count as the one at the cut

Tell = Callable[[float, str], None]


class Rule(eqx.Module):
    """What each row is worth: the expected drop of the mean NLL of a group's other rows, in nats.

    Args:
        drop: of `acquire_learned.FEATURES`.
        groups, drops: how many of each it was learned from.
        explained: share of the variance of the drops that it explains in groups left out.
        features: names of what it reads; a rule of other features is learned anew.
    """

    drop: Boosting
    groups: int
    drops: int
    explained: float
    features: tuple[str, ...] = acquire_learned.FEATURES

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Of features `(…, f)`."""
        flat = self.drop(features.reshape(-1, features.shape[-1]))
        return flat[:, 0].reshape(features.shape[:-1])

    @staticmethod
    def of(features: np.ndarray, drops: np.ndarray, unit: np.ndarray, seed: int = 0) -> "Rule":
        """Regress drops on features, in `FOLDS` folds of the units.

        Args:
            features: `(n, f)`.
            drops: `(n,)`; the extreme ones are cut, as one outcome far outside must not rule.
            unit: the group of each, `(n,)`, or the set of groups that are alike.
            seed: of the folds.
        """
        drops = np.clip(drops, *np.quantile(drops, [CUT, 1 - CUT])).astype(np.float64)
        units, unit = np.unique(unit, return_inverse=True)
        fold = np.random.default_rng(seed).permutation(len(units))[unit] % FOLDS
        drop, out = cross_fit(features.astype(np.float64), drops, fold)
        wrong, spread = ((out[:, 0] - drops) ** 2).mean(), max(float(drops.var()), 1e-30)
        return Rule(drop, len(units), len(drops), float(1 - wrong / spread))


def begun(table: Table, group: jax.Array, key: jax.Array):
    """A group with some rows observed, others that could be, and others that are judged."""
    task_key, many_key = jr.split(key)
    count = table.count[group]
    task = table.task(group, jnp.minimum(POOL, count * 2 // 3), key=task_key)
    return *acquire_learned.parted(task.support, OBSERVED, key=many_key), task.query


@kept
def simulate(learner, table, group, number):
    """`acquire_learned.looked` of one simulated group after another.

    Args:
        table: of the groups.
        group: of each simulated group its number in the table, `(t,)`.
        number: seeds, `(t,)`.
    """

    def one(group, number):
        key, look_key = jr.split(jr.fold_in(jr.key(0), number))
        seen, pool, query = begun(table, group, key)
        return acquire_learned.looked(learner, seen, pool, query, key=look_key, few=FEW)

    return jax.vmap(one)(group, number)


def learn(trained: "Trained", held: "HeldOut", progress: Tell | None = None) -> Rule:
    """The rule of a prior, from groups kept aside that have three rows or more."""
    large = np.flatnonzero(held.count >= 3)
    sets = np.arange(len(held.count)) if held.sets is None else held.sets
    if len(np.unique(sets[large])) < FOLDS:
        raise InputError(
            f"by=learned needs at least {FOLDS} groups kept aside that have three rows or more; "
            f"this prior has {len(np.unique(sets[large]))}. Use another rule, such as variance."
        )
    start, count = held.start.astype(np.int32), held.count.astype(np.int32)
    rows = held.x, held.y, start, count, large.astype(np.int32)
    table = Table(*jax.device_put(rows), POOL, QUERY)
    group = np.resize(np.random.default_rng(0).permutation(large), STATES).astype(np.int32)
    number = np.arange(STATES, dtype=np.int32)

    def run(first: int):
        some = slice(first, first + AT_ONCE)
        out = simulate(trained.learner, table, group[some], number[some])
        return jax.tree.map(np.asarray, out)

    # The first compiles; the others go side by side.
    found, todo = [run(0)], range(AT_ONCE, STATES, AT_ONCE)
    with ThreadPoolExecutor(usable_cores()) as workers:
        for one in workers.map(run, todo):
            found.append(one)
            if progress is not None:
                progress(len(found) * AT_ONCE / STATES, "learning what rows are worth")
    features, drops, there = (np.concatenate(each) for each in zip(*found, strict=True))
    there &= np.isfinite(drops) & np.isfinite(features).all(-1)
    unit = np.broadcast_to(sets[group][:, None], there.shape)
    return Rule.of(features[there], drops[there], unit[there])


# Of each prior in use: it takes seconds, so that `fit` does not wait for it.
_found: dict[int, Rule] = {}


def known_rule(trained: "Trained") -> Rule | None:
    """The rule, if it has been learned."""
    saved = trained.rule
    if saved is not None and saved.features == acquire_learned.FEATURES:
        return saved
    return _found.get(id(trained))


def learned_rule(trained: "Trained", progress: Tell | None = None) -> tuple[Rule, list[str]]:
    """The rule of a prior, learned when it is first asked for; and what is said of that.

    Raises:
        InputError: no groups were kept aside, or too few of them.
    """
    rule = known_rule(trained)
    if rule is not None:
        return rule, []
    if trained.held is None:
        raise InputError(
            "by=learned is learned from groups that the prior has not seen; this one kept none "
            "aside. Fit it with holdout=0.2, as the command `metaprior fit` does."
        )
    begin = time.perf_counter()
    rule = _found[id(trained)] = learn(trained, trained.held, progress)
    weakref.finalize(trained, _found.pop, id(trained), None)
    said = (
        f"by=learned: learned in {time.perf_counter() - begin:.0f} s, from {rule.drops} simulated "
        f"observations in {rule.groups} groups kept aside. Of how much an observation lowers the "
        f"loss it explains {100 * max(rule.explained, 0):.0f} % in groups left out."
    )
    if rule.explained <= 0:
        said += " That is nothing: rather use another rule, such as variance."
    return rule, [said]


def need_one_target(targets: int) -> None:
    """The rule is of one target."""
    if targets > 1:
        raise InputError(
            f"by=learned is of one target; this prior predicts {targets} together. Fit a prior of "
            "one of them, or use another rule."
        )
