"""Labels chosen by what a posterior does not know, against labels chosen at random."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Categorical, Gaussian, StudentT
from metaprior.method import Spec
from metaprior.methods import METHODS
from metaprior.protocols import characters
from metaprior.protocols.active_learning.data import (
    POOL,
    SUBJECTS,
    Fold,
    Pools,
    Rows,
    Subject,
    fold_of,
)
from metaprior.protocols.active_learning.figures import (
    Found,
    best_found,
    columns_of,
    curves,
    figures_of,
    joined_splits,
    kept_rows,
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
from metaprior.protocols.cell import item_of, part_of, trained
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import joined
from metaprior.sources import SineLine
from metaprior.task import Task

EXACT, UNINFORMED = "exact posterior", "no labels"  # the references
LINES, CHARACTERS, BLOBS = "sine or line", "Omniglot", "normal classes"
WAY = 5
SLOW = ("ar_cnp", "nuts", "bnn")  # fit or draw anew for minutes, after every label
SHOWN = 4  # tasks of the picture of choices


class Asked(NamedTuple):
    """Tasks whose pools are labelled, and what is sought in them.

    Args:
        tasks: stacked; the support is the pool.
        unit: of each task.
        rules: names of the rules that choose.
        sign: of y that is sought, 0 where none is.
        cost: seconds of each row of the pool, `(t, n)`; `None` where labels cost the same.
        expected: what a row is thought to cost, `(t, n)`; `None` where labels cost the same.
    """

    tasks: Task
    unit: np.ndarray
    rules: tuple[str, ...] = RULES
    sign: int = 0
    cost: np.ndarray | None = None
    expected: np.ndarray | None = None


def label_all(learner: Any, asked: Asked, options: dict[str, Any], key: jax.Array) -> Found:
    """Label these tasks by each rule in turn; what came out, in numpy."""
    tasks = asked.tasks
    t, n = tasks.support.mask.shape
    same = np.ones((t, n))
    cost = same if asked.cost is None else asked.cost
    expected = same if asked.expected is None else asked.expected
    goals = Goal(jnp.full(t, float(asked.sign or 1)), jnp.asarray(expected, jnp.float32))

    keys, samples = jr.split(key, t), tuple(options["samples"])
    judged, picks = [], []
    for rule in asked.rules:
        index = jnp.asarray((RULES + SEEKING).index(rule))
        seen, chosen = label(learner, tasks, goals, index, keys, options["labels"], samples)
        judged.append(seen)
        picks.append(np.asarray(chosen))
    by_rule = {name: np.stack([np.asarray(j[name]) for j in judged]) for name in judged[0]}

    query = tasks.query
    rows = kept_rows(by_rule, np.asarray(query.y)[..., 0], np.asarray(query.mask))
    return Found(
        rules=asked.rules,
        nll=by_rule["nll"],
        error=by_rule["error"],
        picks=np.stack(picks),
        x=np.asarray(tasks.support.x),
        y=np.asarray(tasks.support.y[..., 0]),
        mask=np.asarray(tasks.support.mask),
        unit=np.asarray(asked.unit),
        sign=asked.sign,
        cost=cost,
        judged=rows,
    )


@eqx.filter_jit
def _stacked(source: Any, keys) -> Task:
    """A task a key."""
    return jax.vmap(source)(keys)


class Simulated(NamedTuple):
    """Where the tasks of a setting come from, and who knows their posterior."""

    train: Any
    test: Any
    spec: Spec
    exact: Any


def simulated(setting: str, data: Any) -> Simulated:
    """Which x of a sine wave or a line, or which drawing of five classes."""
    if setting == LINES:
        test = SineLine(30, 30)
        return Simulated(SineLine(30, 20), test, Spec(1, Gaussian(1)), OfLines(test))
    blobs = characters.Blobs()
    train: Any = blobs
    test: Any = blobs
    columns = blobs.dim
    if setting == CHARACTERS:
        parts = data["characters"]
        train, test = (characters.Drawings(jnp.asarray(parts[k])) for k in ("train", "test"))
        columns = characters.FEATURES
    return Simulated(
        characters.Pooled(train, WAY, 30, 20),
        characters.Pooled(test, WAY, 30, 30),
        Spec(columns, Categorical(WAY)),
        characters.BlobLearner(WAY, blobs.spread),
    )


def judge_simulated(
    setting: str, method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell
) -> tuple[Found, dict[str, Any]]:
    """A setting whose tasks are drawn; what came out, and facts of the training."""
    source = simulated(setting, data)
    learner, facts = source.exact, {}
    if method == UNINFORMED:
        learner = Uninformed(source.spec.head)
    elif method != EXACT:
        steps = options["steps"]["lines" if setting == LINES else "classes"]
        uneven, told = Uneven(source.train, options["labels"]), part_of(tell, 0.0, 0.7)
        learner, facts = trained(method, source.spec, uneven, 2000 + seed, steps, told)

    tell(0.7, "labelling")
    count = options["slow_tasks"] if method in SLOW else options["tasks"]
    # slow methods get the first of the tasks that all others get
    keys = jr.split(jr.fold_in(jr.key(60_001), seed), options["tasks"])
    tasks = jax.tree.map(lambda a: a[:count], _stacked(source.test, keys))
    rules = RULES[:1] if method == UNINFORMED else RULES
    asked = Asked(tasks, np.arange(count), rules)
    return label_all(learner, asked, options, jr.key(60_002 + seed)), facts


def rules_of(subject: Subject, method: str) -> tuple[str, ...]:
    """The rules that choose rows of a table."""
    if method == UNINFORMED:
        return RULES[:1]
    if subject.seeks is None:
        return RULES
    return RULES + (SEEKING if subject.cost else SEEKING[:1])


def asked_of(
    rows: Rows, subject: Subject, fold: Fold, method: str, count: int, seed: int, key: jax.Array
) -> Asked:
    """`count` tasks of the groups that a split holds out."""
    groups = np.resize(np.random.default_rng(seed).permutation(fold.held), count)
    pools = np.minimum(subject.pool, rows.count[groups] * 2 // 3)

    def draw(table) -> Task:
        return eqx.filter_jit(table.tasks)(jnp.asarray(groups), jnp.asarray(pools), key=key)

    def beside(values: np.ndarray) -> np.ndarray:
        """Another column of the rows of the pools: the same draws from a table that has it as y."""
        column = np.zeros((fold.table.y.shape[0], 1), np.float32)
        column[: len(values), 0] = values
        return np.asarray(
            draw(eqx.tree_at(lambda t: t.y, fold.table, jnp.asarray(column))).support.y[..., 0]
        )

    asked = Asked(
        draw(fold.table),
        rows.split[groups],
        rules_of(subject, method),
        {"high": 1, "low": -1, None: 0}[subject.seeks],
    )
    if subject.cost is None:
        return asked
    return asked._replace(cost=beside(rows.cost), expected=beside(fold.expected_cost))


def judge_table(
    setting: str, method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell
) -> tuple[Found, dict[str, Any]]:
    """Which row of a group of a table, a split at a time; and facts of the trainings."""
    subject, rows = SUBJECTS[setting], data[setting]
    folds, labels = options["folds"][setting], options["labels"]
    tasks = options["slow_tasks"] if method in SLOW else options["table_tasks"]
    found, facts = [], {}
    for i in range(folds):
        told = item_of(tell, i, folds, f"split {i + 1} of {folds}")
        fold = fold_of(rows, subject, (i + seed) % 5)
        learner, own = Uninformed(Gaussian(1, scale=1.0)), {}
        if method != UNINFORMED:
            spec = Spec(fold.table.x.shape[1], StudentT(1))
            source, steps = Uneven(Pools(fold.table, POOL), labels), options["steps"]["tables"]
            training = part_of(told, 0.0, 0.6)
            learner, own = trained(method, spec, source, 3000 + 10 * seed + i, steps, training)
        facts[f"split {i + 1}"] = own

        told(0.6, "labelling")
        key = jr.fold_in(jr.key(60_003), 10 * seed + i)
        count = max(1, tasks // folds)
        asked = asked_of(rows, subject, fold, method, count, seed, key)
        found.append(label_all(learner, asked, options, jr.fold_in(key, 1)))
    return joined_splits(found), facts


def settings_of(method: str, data: Any) -> list[str]:
    """What this method can run on these data."""
    classes = CHARACTERS if "characters" in data else BLOBS
    tables = [name for name in SUBJECTS if name in data]
    if method == EXACT:
        # nobody knows the exact posterior of drawn characters and of tables
        return [LINES] if classes == CHARACTERS else [LINES, BLOBS]
    if method == UNINFORMED:
        return [classes, *tables]
    kinds = METHODS[method].kinds
    found = [LINES] if "numbers" in kinds else []
    if "classes" in kinds:
        found.append(classes)
    return found + tables if "numbers" in kinds else found


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Every setting in turn."""
    data = data or {}
    figures: list[Figure] = []
    tables, drawing, facts = [], {}, {}
    settings = settings_of(method, data)
    for i, setting in enumerate(settings):
        judge = judge_table if setting in SUBJECTS else judge_simulated
        told = item_of(tell, i, len(settings), setting)
        found, facts[setting] = judge(setting, method, seed, options, data, told)
        figures += figures_of(setting, found)
        tables.append(columns_of(setting, found))
        drawing |= drawn_of(setting, found)
    note = ""
    if method in SLOW:
        note = f"slow, so judged on {options['slow_tasks']} tasks of each setting"
    return Outcome(figures, joined(tables), drawing, note, facts)


def drawn_of(setting: str, found: Found) -> dict[str, np.ndarray]:
    """What the pictures need of a setting."""
    drawing = {
        f"nll {setting}": curves(found.nll, found.unit),
        f"error {setting}": curves(found.error, found.unit),
    }
    if found.sign:
        drawing[f"regret {setting}"] = curves(best_found(found)[0], found.unit)
    if setting == LINES:
        drawing["lines x"] = found.x[:SHOWN, :, 0]
        drawing["lines y"] = found.y[:SHOWN]
        drawing["lines picks"] = found.picks[:, :SHOWN]
    return drawing
