"""From encoded groups to learners: folds, pooled boosting, trained members, stacked weights."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.errors import InputError
from metaprior.method import AbstractLearner, Spec
from metaprior.methods.ensemble import Ensemble
from metaprior.methods.process import Process
from metaprior.methods.stack import Stack, fit_weights
from metaprior.sources.table import Table
from metaprior.system.devices import mesh_of
from metaprior.system.lowering import jit
from metaprior.tables import baselines, culprits
from metaprior.training import fit

BATCH = 16  # tasks a training step
ROWS = 32  # most rows of a group in one training episode
DECAYS = {
    "numbers": (0.0, 0.7),
    "classes": (0.0,),
}  # Laplace's evidence has no sequential terms to weigh
SHOTS = (0, 1, 2, 3, 5, 8, 12, 20)


def take(members: Any, index) -> Any:
    """Some members, or one, of a stacked module; on the host, as slicing compiles a program for
    each shape.
    """

    def part(leaf):
        return jax.device_put(np.asarray(leaf)[index]) if eqx.is_array(leaf) else leaf

    return jax.tree.map(part, members)


def equal_rows(lists: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Index lists as rows of one array; the shorter ones repeat some of their own entries."""
    longest = max(map(len, lists))
    return np.stack([np.concatenate([a, rng.choice(a, longest - len(a))]) for a in lists])


class Groups(eqx.Module):
    """Training groups as flat arrays: rows of a group together, the pooled prediction in the last
    columns.
    """

    x: np.ndarray
    y: np.ndarray  # (r, 1): standardised, or class index
    start: np.ndarray
    count: np.ndarray
    fold: np.ndarray  # (g,) 0 … folds - 1
    spec: Spec

    def table(self, groups, support: int, query: int) -> Table:
        """A source over some of the groups."""
        arrays = jax.device_put([self.x, self.y, self.start, self.count, groups])
        return Table(*arrays, support, query, int(self.count.max()))

    def folds(self, everything: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Groups that each member trains on, and the ones it holds out; `everything` adds a member
        on all.
        """
        rng, index = np.random.default_rng(0), np.arange(len(self.count))
        inside = [index[self.fold != k] for k in range(self.fold.max() + 1)]
        outside = [index[self.fold == k] for k in range(self.fold.max() + 1)]
        return equal_rows(inside + ([index] if everything else []), rng), equal_rows(outside, rng)


def _axes(source: Table) -> Table:
    none = jax.tree.map(lambda _: None, source)
    return eqx.tree_at(lambda s: s.groups, none, 0, is_leaf=lambda leaf: leaf is None)


@jit
def _initial(make: Callable, spec: Spec, keys, decay):
    """One member a key, stacked."""
    if decay is None:
        return eqx.filter_vmap(lambda k: make(spec, key=k))(keys)
    return eqx.filter_vmap(lambda k, d: make(spec, key=k, decay=d))(keys, decay)


@eqx.filter_jit
def _draw(source: Table, groups, shots, keys):
    """Tasks of groups `(m, t)` with so many support rows, stacked `(m, t, …)`."""
    return jax.vmap(lambda g, k, key: source.tasks(g, k, key=key))(groups, shots, keys)


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
    """One member a fold (times `copies` of decays), all at once; without `held` also one on all
    groups.

    With `held`, each member stops where the groups of its own fold say so. Gives the members,
    stacked, and what to say of them if their losses did not stay finite.
    """
    inside, outside = groups.folds(everything=not held)
    rows = int(
        min(ROWS // 2 if groups.spec.head.classes else ROWS, groups.count.max())
    )  # Laplace costs more
    members = len(copies) * len(inside)
    decay = None if copies[0] is None else jnp.repeat(jnp.asarray(copies), len(inside))
    inside, outside = np.tile(inside, (len(copies), 1)), np.tile(outside, (len(copies), 1))
    keys = jr.split(key, members + 1)
    source = groups.table(inside, 0, rows)
    validation = None
    if held:
        looks = max(1, 48 // outside.shape[1])
        validation = _draw(
            source,
            np.repeat(outside, looks, axis=1),
            np.zeros((members, looks * outside.shape[1]), int),
            jr.split(keys[-1], members),
        )
    start = _initial(make, groups.spec, keys[:-1], decay)
    fitted = fit(
        start,
        source,
        key=keys[-1],
        steps=steps,
        batch=BATCH,
        learning_rate=rate,
        validation=validation,
        axes=_axes(source),
        **options,
    )
    return fitted.method, culprits.trouble(fitted, source, what, members=True)


@jit
def _log_prob(members, tasks, key):
    def one(member, task):
        predictive = member.posterior(task.support, key=key).predict(
            task.query.x, key=key, samples=64
        )
        return predictive.log_prob(task.query.y)

    def run(m, t):
        return jax.lax.map(lambda task: one(m, task), t, batch_size=32)

    return eqx.filter_vmap(run, in_axes=(eqx.if_array(0), eqx.if_array(0)))(members, tasks)


def held_out_tasks(groups: Groups, *, key, most: int = 240):
    """For each fold, tasks from its own groups at every K of `SHOTS`; stacked `(folds, t, …)`."""
    _, outside = groups.folds()
    support = int(min(max(SHOTS), max(groups.count.max() - 1, 1)))
    source = groups.table(outside[0], support, int(min(24, groups.count.max())))
    per_fold = max(1, most // len(outside))
    rng = np.random.default_rng(1)
    chosen, shots = [], []
    for fold in outside:
        pick, k = [], []
        for K in SHOTS:
            enough = fold[groups.count[fold] > K]
            enough = enough if len(enough) else fold
            pick.append(rng.permutation(np.resize(rng.permutation(enough), per_fold)))
            k.append(np.minimum(K, groups.count[pick[-1]] - 1))
        chosen.append(np.concatenate(pick))
        shots.append(np.concatenate(k))
    tasks = _draw(source, np.stack(chosen), np.stack(shots), jr.split(key, len(outside)))
    return tasks, np.stack(shots)


class Learned(eqx.Module):
    """Trained learners: the one asked for, and every baseline by name."""

    learner: AbstractLearner
    baselines: dict[str, AbstractLearner]
    notes: tuple[str, ...] = ()


def check_kind(name: str, target: str, classes: int) -> None:
    """The method predicts what the target holds."""
    from metaprior.methods import get

    has, lacks = ("classes", "numbers") if classes else ("numbers", "classes")
    if has not in get(name).kinds:
        verb = "has" if classes else "is"
        raise InputError(
            f"{name} predicts {lacks}; the target {target!r} {verb} {has}. Methods for both: see `metaprior methods`."
        )


def _within(tell):
    """How `fit` reports to the progress of the whole."""
    return lambda done, total, loss: tell.within(done / total)


def learn_one(
    name: str, groups: Groups, *, seed: int, steps: int | None, stage: Callable, tell, spread=None
) -> Learned:
    """One method by name, stopped early on the groups of the first fold, and the baselines."""
    from metaprior.methods import get

    row = get(name)
    key = jr.key(seed)
    tell.start("fitting the baselines", 0.2)
    base, _, notes = learn_baselines(groups, key=key, stage=stage)
    tell.start(f"training {name}", 0.65)
    method = row.init(groups.spec, key=key)
    if not row.trainable:
        return Learned(method, base, notes)
    whole = (
        row.method is Process
    )  # trained on all rows of a group in order; others on support and query
    rows = int(min(ROWS, groups.count.max()))
    half = int(max(1, min(16, groups.count.max() - 1)))
    inside, outside = groups.folds()
    source = groups.table(inside[0], 0 if whole else half, rows if whole else half)
    held = np.resize(outside[0], 64)
    most = np.maximum(np.minimum(groups.count[held] - 1, half), 0)
    shots = np.minimum(np.resize(SHOTS, 64), most)
    validation = source.tasks(held, np.zeros(64, int) if whole else shots, key=jr.fold_in(key, 1))

    def run(**o):
        fitted = fit(
            method,
            source,
            key=jr.fold_in(key, 2),
            steps=steps or 4000,
            batch=BATCH,
            mesh=mesh_of(spread, BATCH),
            validation=validation,
            every=100,
            patience=1000,
            progress=_within(tell),
            **o,
        )
        return fitted.method, culprits.trouble(fitted, source, name, members=False)

    try:
        learner, note = stage(name, run, trains=True)
    except culprits.BadTasks as bad:
        bad.learned = Learned(bad.method, base, notes)
        raise
    return Learned(learner, base, (*notes, *([note] if note else [])))


def learn_auto(
    groups: Groups, *, seed: int, steps: int | None, stage: Callable, tell, spread=None
) -> Learned:
    """The default: bags of processes and the baselines, stacked on held-out groups."""
    key = jr.key(seed)
    decays = DECAYS["classes" if groups.spec.head.classes else "numbers"]
    # Programs compile on one core and small batches run on one: two at a time keep both cores busy.
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(learn_baselines, groups, key=key, stage=stage)
        if (
            spread != 1
        ):  # devices that wait for one another in two programs at once would wait for ever
            waiting.result()
        tell.start("training processes and baselines", 0.75)
        try:
            fitted, note = stage(
                "bags of processes",
                lambda **o: train_members(
                    "bags of processes",
                    Process.init,
                    groups,
                    key=jr.fold_in(key, 1),
                    steps=steps or 1500,
                    rate=1e-2,
                    held=True,
                    copies=decays,
                    every=50,
                    patience=300,
                    progress=_within(tell),
                    mesh=mesh_of(spread, BATCH),
                    **o,
                ),
                trains=True,
            )
        except culprits.BadTasks as bad:
            base, members, notes = waiting.result()
            bad.learned = _stacked(groups, base, members, bad.method, len(decays), key)
            raise
        base, members, notes = waiting.result()
    tell.start("weighing the learners", 0.1)
    learned = stage("stack", lambda: _stacked(groups, base, members, fitted, len(decays), key))
    return dataclasses.replace(learned, notes=(*notes, *([note] if note else [])))


def _stacked(groups: Groups, base: dict, members: dict, fitted, copies: int, key) -> Learned:
    """Weights fitted on tasks of groups that the learners' members did not train on."""
    n = int(groups.fold.max()) + 1
    experts = {f"process {i}": take(fitted, slice(i * n, (i + 1) * n)) for i in range(copies)}
    tasks, shots = held_out_tasks(groups, key=jr.fold_in(key, 2))
    held = {name: take(m, slice(0, n)) for name, m in members.items()} | experts

    def repeat(leaf):
        return jnp.repeat(leaf[None], n, 0) if eqx.is_array(leaf) else leaf

    held["boosting"] = jax.tree.map(repeat, base["boosting"])
    log_p = {
        name: _log_prob(m, tasks, key).reshape(-1, tasks.query.mask.shape[-1])
        for name, m in held.items()
    }
    mask = tasks.query.mask.reshape(-1, tasks.query.mask.shape[-1])
    table = jnp.stack(list(log_p.values()), -1)
    c = fit_weights(
        jnp.maximum(table, -30.0),
        mask,
        jnp.asarray(shots.reshape(-1), table.dtype),
        jnp.asarray(len(groups.count), table.dtype),
    )
    final = base | {name: Ensemble(m) for name, m in experts.items()}
    return Learned(Stack(tuple(final[name] for name in held), c), base)


def learn_baselines(groups: Groups, *, key, stage: Callable):
    """Every baseline, the fold members of the trained ones, and what to say of them."""
    spec = groups.spec
    y = jnp.asarray(groups.y[:, 0])
    base = {"marginal": baselines.marginal(spec, y)}
    base["boosting"] = baselines.boosting(
        spec, y, jnp.asarray(groups.x[:, groups.x.shape[1] - spec.pooled :])
    )
    members, notes = {}, []
    for name, make in baselines.TRAINED.items():

        def run(name=name, make=make, **o):
            return train_members(
                name, make, groups, key=key, steps=300, rate=3e-2, held=False, every=100, **o
            )

        members[name], note = stage(name, run, trains=True)
        notes += [note] if note else []
        base[name] = take(members[name], -1)
    return base, members, tuple(notes)
