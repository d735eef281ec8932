"""Several copies of a learner trained at once, one for each fold of the groups."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.method import Spec
from metaprior.sources.table import Table
from metaprior.system.programs import kept_once
from metaprior.tables import culprits
from metaprior.training import fit

BATCH = 16  # tasks a training step
ROWS = 32  # most rows of a group in one training episode
QUERY = 24  # most rows that a held-out task is judged on
LOOKS = 48  # held-out tasks by which a member is stopped; five times as many at most
SMALLEST = 64  # entries that arrays of a table are padded to
SHOTS = (0, 1, 2, 3, 5, 8, 12, 20)


def take(members: Any, index) -> Any:
    """Some members, or one, of a stacked module.

    Taken on the host: on the device, slicing compiles a program for each shape.
    """

    def part(leaf):
        return jax.device_put(np.asarray(leaf)[index]) if eqx.is_array(leaf) else leaf

    return jax.tree.map(part, members)


def roomy(values: np.ndarray, fill: int = 0) -> np.ndarray:
    """With more entries up to 64, 256, 1024, …: tables of like size share their programs."""
    size = max(SMALLEST, 4 ** int(np.ceil(np.log2(len(values)) / 2)))
    more = [(0, size - len(values)), *[(0, 0)] * (values.ndim - 1)]
    return np.pad(values, more, constant_values=fill)


def slots(rows: int, most: int) -> int:
    """Rows that tasks have, of which a group has at most `rows`: 8, 16, 24, … up to `most`."""
    return int(min(-(-max(rows, 1) // 8) * 8, most))


class Groups(eqx.Module):
    """Training groups as flat arrays, the rows of a group together.

    Args:
        x: encoded features, the pooled prediction in the last columns, `(r, d)`.
        y: standardised, or class indices, `(r, 1)`.
        start, count: first row and number of rows of each group, `(g,)`.
        fold: of each group, 0 … folds - 1, `(g,)`.
        spec: shape of the tasks.
    """

    x: np.ndarray
    y: np.ndarray
    start: np.ndarray
    count: np.ndarray
    fold: np.ndarray
    spec: Spec

    def spec_of(self, tasks) -> Spec:
        """The spec of a method that is trained on so many groups."""
        return dataclasses.replace(self.spec, tasks=jnp.asarray(tasks))

    def table(self, groups, support: int, query: int) -> Table:
        """A source over some of the groups."""
        own = [roomy(values) for values in (self.x, self.y, self.start, self.count)]
        arrays = jax.device_put([*own, np.apply_along_axis(roomy, -1, groups, -1)])
        return Table(*arrays, support, query)

    def folds(self, everything: bool = False) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Groups that each member trains on, and groups that it holds out.

        With `everything`, a last member trains on all groups.
        """
        index = np.arange(len(self.count))
        inside = [index[self.fold != k] for k in range(self.fold.max() + 1)]
        outside = [index[self.fold == k] for k in range(self.fold.max() + 1)]
        if everything:
            inside.append(index)
        return inside, outside


def aligned(lists: list[np.ndarray]) -> np.ndarray:
    """Index lists as rows of one array, with -1 behind the shorter ones."""
    longest = max(map(len, lists))
    return np.stack([np.pad(a, (0, longest - len(a)), constant_values=-1) for a in lists])


def _axes(source: Table) -> Table:
    none = jax.tree.map(lambda _: None, source)
    return eqx.tree_at(lambda s: s.groups, none, 0, is_leaf=lambda leaf: leaf is None)


@kept_once
def _keys(key, members: int):
    """Of the members' initial values, of the training, and of the members' validation tasks."""
    keys = jr.split(key, members + 1)
    return keys[:-1], keys[-1], jr.split(keys[-1], members)


@kept_once
def _initial(make: Callable, spec: Spec, keys, decay):
    """One member a key, stacked; `spec` has as many numbers of tasks."""

    def one(tasks, k, d):
        own = dataclasses.replace(spec, tasks=tasks)
        return make(own, key=k) if d is None else make(own, key=k, decay=d)

    return eqx.filter_vmap(one)(spec.tasks, keys, decay)


@kept_once
def _draw(source: Table, groups, shots, keys):
    """Tasks of groups `(m, t)` with so many support rows, stacked `(m, t, …)`."""
    return jax.vmap(lambda g, k, key: source.tasks(g, k, key=key))(groups, shots, keys)


@kept_once
def draw_tasks(source: Table, groups, shots, key):
    """`source.tasks` as one program: operation by operation it would be fifty."""
    return source.tasks(groups, shots, key=key)


def train_members(
    what: str,
    make: Callable,
    groups: Groups,
    *,
    key,
    steps: int,
    rate: float,
    held: bool,
    copies: tuple = (None,),
    **options,
):
    """One member for each fold, all trained at once.

    Args:
        what: is trained, for messages.
        make: a member from a spec and a key, and its decay where `copies` says one.
        groups: of the table.
        key: of everything random.
        steps, rate: of the training.
        held: whether each member stops where the groups of its own fold say so. Otherwise there is
            one more member, on all groups.
        copies: of each member, one for each decay.
        **options: of `fit`.

    Returns:
        the members, stacked, and what to say of them if their losses did not stay finite.
    """
    inside, outside = groups.folds(everything=not held)
    # Classes need Laplace's approximation, which costs more.
    rows = slots(groups.count.max(), ROWS // 2 if groups.spec.head.classes else ROWS)
    members = len(copies) * len(inside)
    decay = None
    if copies[0] is not None:
        decay = np.repeat(np.asarray(copies, jnp.result_type(float)), len(inside))
    own, last, looking = _keys(key, members)
    source = groups.table(np.tile(aligned(inside), (len(copies), 1)), 0, rows)

    validation = None
    if held:
        rng = np.random.default_rng(0)
        size = LOOKS * min(-(-max(map(len, outside)) // LOOKS), 5)
        looks = [np.resize(rng.permutation(fold), size) for fold in outside]
        repeated = np.tile(np.stack(looks), (len(copies), 1))
        shots = np.zeros(repeated.shape, int)
        validation = _draw(source, repeated, shots, looking)

    counts = np.tile([len(some) for some in inside], len(copies))
    start = _initial(make, groups.spec_of(counts), own, decay)
    fitted = fit(
        start,
        source,
        key=last,
        steps=steps,
        batch=BATCH,
        learning_rate=rate,
        validation=validation,
        axes=_axes(source),
        **options,
    )
    return fitted.method, culprits.trouble(fitted, source, what, members=True)


@kept_once
def log_prob(members, tasks, key):
    """Log density of every query row under each of the stacked members, `(m, t, n)`."""

    def one(member, task):
        predictive = member.posterior(task.support, key=key).predict(
            task.query.x, key=key, samples=64
        )
        return predictive.log_prob(task.query.y)

    def run(m, t):
        return jax.lax.map(lambda task: one(m, task), t, batch_size=32)

    return eqx.filter_vmap(run, in_axes=(eqx.if_array(0), eqx.if_array(0)))(members, tasks)


def held_out_tasks(groups: Groups, *, key, most: int = 240):
    """For each fold, tasks from its own groups at every K of `SHOTS`.

    Returns:
        tasks stacked `(folds, t, …)`, and the number of support rows of each, `(folds, t)`.
    """
    _, outside = groups.folds()
    support = slots(groups.count.max() - 1, max(SHOTS))
    source = groups.table(outside[0], support, slots(groups.count.max(), QUERY))
    per_fold = max(1, most // len(outside))
    rng = np.random.default_rng(1)

    chosen, shots = [], []
    for fold in outside:
        pick, k = [], []
        for K in SHOTS:
            enough = fold[groups.count[fold] > K]
            if not len(enough):  # no group is so large: as many rows as there are
                enough = fold
            pick.append(rng.permutation(np.resize(rng.permutation(enough), per_fold)))
            k.append(np.minimum(K, groups.count[pick[-1]] - 1))
        chosen.append(np.concatenate(pick))
        shots.append(np.concatenate(k))

    tasks = _draw(source, np.stack(chosen), np.stack(shots), jr.split(key, len(outside)))
    return tasks, np.stack(shots)
