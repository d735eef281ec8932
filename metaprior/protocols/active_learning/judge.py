"""Labels chosen by what a posterior does not know, against labels chosen at random."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Categorical, Gaussian, StudentT
from metaprior.method import Spec
from metaprior.methods import METHODS
from metaprior.protocols import characters
from metaprior.protocols.active_learning.data import POOL, SUBJECTS, Pools, fold_of
from metaprior.protocols.active_learning.figures import (
    KEPT,
    ROWS,
    Found,
    _joined,
    best_found,
    columns_of,
    curves,
    figures_of,
)
from metaprior.protocols.active_learning.labelling import (
    RULES,
    SEEKING,
    Goal,
    OfLines,
    Uneven,
    Uninformed,
    label,
)
from metaprior.protocols.active_learning.pictures import UNINFORMED
from metaprior.protocols.protocol import (
    Outcome,
    Tell,
    trained,
)
from metaprior.sources import SineLine
from metaprior.task import Task

EXACT = "exact posterior"


LINES, CHARACTERS, BLOBS = "sine or line", "Omniglot", "normal classes"


WAY = 5


SLOW = ("ar_cnp", "nuts", "bnn")  # fit or draw anew for minutes, after every label


def _label(
    learner, tasks: Task, options, key, *, unit, sign=0, cost=None, expected=None, rules=RULES
) -> Found:
    """`label` on these tasks, back in numpy."""
    t, n = tasks.support.mask.shape
    cost = np.ones((t, n)) if cost is None else cost
    goals = Goal(
        jnp.full(t, float(sign or 1)),
        jnp.asarray(np.ones((t, n)) if expected is None else expected, jnp.float32),
    )
    keys, one = jr.split(key, t), (options["labels"], tuple(options["samples"]))
    each = [
        label(learner, tasks, goals, jnp.asarray((RULES + SEEKING).index(r)), keys, *one)
        for r in rules
    ]
    all_of = {
        name: np.stack([np.asarray(judged[name]) for judged, _ in each]) for name in each[0][0]
    }
    judged = {name: all_of[name][:, :KEPT] for name in ROWS if name in all_of}
    judged |= {
        "y": np.asarray(tasks.query.y)[:KEPT, :, 0],
        "mask": np.asarray(tasks.query.mask)[:KEPT],
    }
    arrays = (np.asarray(a) for a in (tasks.support.x, tasks.support.y[..., 0], tasks.support.mask))
    picks = np.stack([np.asarray(p) for _, p in each])
    return Found(
        rules, all_of["nll"], all_of["error"], picks, *arrays, np.asarray(unit), sign, cost, judged
    )


@eqx.filter_jit
def _stacked(source: Any, keys) -> Task:
    """A task a key."""
    return jax.vmap(source)(keys)


def _simulated(
    setting: str, method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell
):
    """Which x of a sine wave or a line, or which drawing of five classes."""
    labels, facts = options["labels"], {}
    train: Any
    test: Any
    if setting == LINES:
        train, test, spec = SineLine(30, 20), SineLine(30, 30), Spec(1, Gaussian(1))
        exact: Any = OfLines(test)
    else:
        blobs = characters.Blobs()
        exact = characters.BlobLearner(WAY, blobs.spread)
        domains: list[Any] = [blobs, blobs]
        if setting == CHARACTERS:
            domains = [
                characters.Drawings(jnp.asarray(data["characters"][k])) for k in ("train", "test")
            ]
        train, test = (
            characters.Pooled(domains[0], WAY, 30, 20),
            characters.Pooled(domains[1], WAY, 30, 30),
        )
        spec = Spec(blobs.dim if setting == BLOBS else characters.FEATURES, Categorical(WAY))
    learner, rules = exact, RULES
    if method == UNINFORMED:
        learner, rules = Uninformed(spec.head), RULES[:1]
    elif method != EXACT:
        steps = options["steps"]["lines" if setting == LINES else "classes"]
        learner, facts = trained(
            method,
            spec,
            Uneven(train, labels),
            2000 + seed,
            steps,
            lambda done, what: tell(0.7 * done, what),
        )
    tell(0.7, "labelling")
    count = options["slow_tasks"] if method in SLOW else options["tasks"]
    tasks = _stacked(test, jr.split(jr.fold_in(jr.key(60_001), seed), options["tasks"]))
    tasks = jax.tree.map(lambda a: a[:count], tasks)
    return [
        _label(learner, tasks, options, jr.key(60_002 + seed), unit=np.arange(count), rules=rules)
    ], facts


def _table(setting: str, method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell):
    """Which row of a group of a table; a split at a time."""
    subject, rows = SUBJECTS[setting], data[setting]
    folds, found, facts = options["folds"][setting], [], {}
    for i in range(folds):

        def share(done, what):
            return tell((i + done) / folds, f"split {i + 1} of {folds}: {what}")

        fold = fold_of(rows, subject, (i + seed) % 5)
        if method == UNINFORMED:
            learner, fact = Uninformed(Gaussian(1, scale=1.0)), {}
        else:
            spec, source = (
                Spec(fold.table.x.shape[1], StudentT(1)),
                Uneven(Pools(fold.table, POOL), options["labels"]),
            )
            learner, fact = trained(
                method,
                spec,
                source,
                3000 + 10 * seed + i,
                options["steps"]["tables"],
                lambda done, what: share(0.6 * done, what),
            )
        facts[f"split {i + 1}"] = fact
        share(0.6, "labelling")
        rng = np.random.default_rng(seed)
        count = options["slow_tasks"] if method in SLOW else options["table_tasks"]
        groups = np.resize(rng.permutation(fold.held), max(1, count // folds))
        pools = np.minimum(subject.pool, rows.count[groups] * 2 // 3)
        key = jr.fold_in(jr.key(60_003), 10 * seed + i)

        def draw_tasks(table):
            return eqx.filter_jit(table.tasks)(jnp.asarray(groups), jnp.asarray(pools), key=key)

        beside = np.zeros((fold.table.y.shape[0], 1), np.float32)
        also = {}
        for name, values in (("cost", rows.cost), ("expected", fold.expected_cost)):
            beside[: len(values), 0] = values  # the same draws, of another column
            also[name] = np.asarray(
                draw_tasks(eqx.tree_at(lambda t: t.y, fold.table, jnp.asarray(beside))).support.y[
                    ..., 0
                ]
            )
        rules = RULES + (SEEKING[: 1 + (subject.cost is not None)] if subject.seeks else ())
        rules = rules if method != UNINFORMED else RULES[:1]
        sign = {"high": 1, "low": -1, None: 0}[subject.seeks]
        if not subject.cost:
            also = {}
        found.append(
            _label(
                learner,
                draw_tasks(fold.table),
                options,
                jr.fold_in(key, 1),
                unit=rows.split[groups],
                sign=sign,
                rules=rules,
                **also,
            )
        )
    return found, facts


def settings_of(method: str, data: Any) -> list[str]:
    """What this method can run on these data."""
    if method == EXACT:
        return [LINES, *([] if "characters" in data else [BLOBS])]
    if method == UNINFORMED:
        return [
            CHARACTERS if "characters" in data else BLOBS,
            *(name for name in SUBJECTS if name in data),
        ]
    kinds = METHODS[method].kinds
    found = [LINES] if "numbers" in kinds else []
    found += [CHARACTERS if "characters" in data else BLOBS] if "classes" in kinds else []
    return found + [name for name in SUBJECTS if name in data and "numbers" in kinds]


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Every setting in turn."""
    data, figures, columns = data or {}, [], []
    drawing: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    settings = settings_of(method, data)
    for i, setting in enumerate(settings):

        def share(done, what):
            return tell((i + done) / len(settings), f"{setting}: {what}")

        make = _table if setting in SUBJECTS else _simulated
        parts, facts[setting] = make(setting, method, seed, options, data, share)
        found = _joined(parts)
        figures += figures_of(setting, found)
        columns.append(columns_of(setting, found))
        for kind, values in (("nll", found.nll), ("error", found.error)):
            drawing[f"{kind} {setting}"] = curves(values, found.unit)
        if found.sign:
            drawing[f"regret {setting}"] = curves(best_found(found)[0], found.unit)
        if setting == LINES:
            drawing |= {
                "lines x": found.x[:4, :, 0],
                "lines y": found.y[:4],
                "lines picks": found.picks[:, :4],
            }
    joined = {k: np.concatenate([c[k] for c in columns]) for k in columns[0]}
    note = (
        f"slow, so judged on {options['slow_tasks']} tasks of each setting"
        if method in SLOW
        else ""
    )
    return Outcome(figures, joined, drawing, note, facts)
