"""Labels chosen by what a posterior does not know, against labels chosen at random."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.errors import InputError
from metaprior.heads import Categorical, Gaussian, StudentT
from metaprior.method import Spec
from metaprior.methods import METHODS
from metaprior.protocols import characters
from metaprior.protocols.active_pictures import UNINFORMED, draw, sentence
from metaprior.protocols.active_tables import POOL, SUBJECTS, Pools, fold_of, read_rows
from metaprior.protocols.labelling import RULES, SEEKING, Goal, OfLines, Uneven, Uninformed, label
from metaprior.protocols.protocol import (
    Anchor,
    Figure,
    Metric,
    Outcome,
    Protocol,
    Tell,
    able,
    trained,
)
from metaprior.protocols.raw import lists
from metaprior.sources import SineLine
from metaprior.task import Task

EXACT = "exact posterior"
LINES, CHARACTERS, BLOBS = "sine or line", "Omniglot", "normal classes"
WAY = 5
SLOW = ("ar_cnp", "nuts", "bnn")  # fit or draw anew for minutes, after every label
KEPT = 100  # tasks of a setting whose judged rows are kept one by one
ROWS = ("log_p", "mean", "std")


def _metrics() -> dict[str, Metric]:
    """Areas under random's curves, and what each other rule is below them."""
    kinds = {
        "nll": ("NLL", "nats a row", RULES),
        "error": ("error", "squared training deviations, or share of wrong classes", RULES),
        "regret": ("regret", "training deviations short of the pool's best", (*RULES, SEEKING[0])),
        "timed": (
            "regret in time",
            "training deviations, mean over seconds spent",
            (*RULES, *SEEKING),
        ),
    }
    found = {}
    for kind, (name, unit, rules) in kinds.items():
        found[f"{kind}_random"] = Metric(f"{name}, random labels", unit, "low")
        for rule in rules[1:]:
            gain = f"{name}: random minus {rule}"
            found[f"{kind}_gain_{rule.replace(' ', '_')}"] = Metric(gain, unit, "high")
    return found


METRICS = _metrics()


class Found(NamedTuple):
    """What one setting gave, arrays with leading axes of rules and tasks.

    Args:
        rules: their names.
        nll, error: `(r, t, labels + 1)`; picks: `(r, t, labels)`, rows of the pool.
        x, y: of the pool, `(t, n, d)` and `(t, n)`; mask: `(t, n)`.
        unit: of each task; tasks of one unit are averaged before standard errors are taken.
        sign: of y that is sought, 0 where none is.
        cost: seconds of each row of the pool, `(t, n)`.
        judged: of the first `KEPT` tasks, each judged row: `log_p`, `mean` and `std` with axes `(r,
            t, labels + 1, q, …)`, of classes no `std`, and `y` and `mask`, `(t, q)`.
    """

    rules: tuple[str, ...]
    nll: np.ndarray
    error: np.ndarray
    picks: np.ndarray
    x: np.ndarray
    y: np.ndarray
    mask: np.ndarray
    unit: np.ndarray
    sign: int
    cost: np.ndarray
    judged: dict[str, np.ndarray]


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


def best_found(found: Found) -> tuple[np.ndarray, np.ndarray]:
    """Regret against the pool's best, `(r, t, labels + 1)`, and seconds spent, the same shape; y in
    training deviations.

    Before the first label the regret is that of a row at random.
    """
    good = np.where(found.mask, found.sign * found.y, -np.inf)
    top = good.max(1)
    start = top - np.where(found.mask, good, 0.0).sum(1) / found.mask.sum(1)

    def at(a):
        return np.stack([np.take_along_axis(a, p, 1) for p in found.picks])

    regret = top[None, :, None] - np.maximum.accumulate(at(good), -1)
    regret = np.concatenate(
        [np.broadcast_to(start[None, :, None], (*regret.shape[:2], 1)), regret], -1
    )
    seconds = np.concatenate([np.zeros((*regret.shape[:2], 1)), at(found.cost).cumsum(-1)], -1)
    return regret, seconds


def regret_in_time(regret: np.ndarray, seconds: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """Mean regret while the first `budget` seconds `(t,)` are spent; a row counts once its seconds
    have passed.
    """
    ends = np.minimum(
        np.concatenate([seconds, np.full((*seconds.shape[:2], 1), np.inf)], -1),
        budget[None, :, None],
    )
    return (regret * np.diff(ends, axis=-1)).sum(-1) / budget[None]


def _mean_of_units(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """One value a unit."""
    _, index, count = np.unique(unit, return_inverse=True, return_counts=True)
    return np.bincount(index, values) / count


def figures_of(setting: str, found: Found) -> list[Figure]:
    """Areas under the curves (means over 1 … labels), and their paired differences from random's."""
    figures = []
    areas = {"nll": found.nll[:, :, 1:].mean(-1), "error": found.error[:, :, 1:].mean(-1)}
    if found.sign:
        regret, seconds = best_found(found)
        areas["regret"] = regret[:, :, 1:].mean(-1)
        if (found.cost != 1).any():
            pool = np.where(found.mask, found.cost, 0.0).sum(1) / found.mask.sum(1)
            areas["timed"] = regret_in_time(regret, seconds, pool * found.picks.shape[-1] / 2)
    for kind, area in areas.items():
        for rule, values in zip(found.rules, area):
            name = (
                f"{kind}_{rule.replace(' ', '_')}"
                if rule == "random"
                else f"{kind}_gain_{rule.replace(' ', '_')}"
            )
            if name in METRICS:
                gain = values if rule == "random" else area[0] - values
                figures.append(Figure.of(setting, name, _mean_of_units(gain, found.unit)))
    return figures


def columns_of(setting: str, found: Found) -> dict[str, np.ndarray]:
    """One row a rule, task and number of labels."""
    r, t, n = found.nll.shape
    rule, task, labels = (i.ravel() for i in np.indices((r, t, n)))
    before = np.concatenate([np.full((r, t, 1), -1), found.picks], -1).ravel()

    def at(a):
        return np.where(before >= 0, a[task, np.maximum(before, 0)], np.nan)

    return {
        "setting": np.full(r * t * n, setting),
        "rule": np.array(found.rules)[rule],
        "task": task.astype(np.int32),
        "unit": found.unit[task].astype(np.int32),
        "labels": labels.astype(np.int32),
        "row": before.astype(np.int32),
        "y": at(found.y).astype(np.float32),
        "seconds": at(found.cost).astype(np.float32),
        "nll": found.nll.ravel().astype(np.float32),
        "error": found.error.ravel().astype(np.float32),
        **_judged_rows(found, rule, task, labels),
    }


def _judged_rows(found: Found, rule, task, labels) -> dict[str, np.ndarray]:
    """Lists of what was said of each judged row; `None` for tasks beyond those that are kept."""
    own, kept = found.judged, len(found.judged["mask"])

    def each(values):
        return lists([values(r, t, n) if t < kept else None for r, t, n in zip(rule, task, labels)])

    def row(name, r, t, n):
        return own[name][r, t, n][own["mask"][t]].ravel() if name in own else None

    said = {f"judged_{name}": each(lambda r, t, n: row(name, r, t, n)) for name in ROWS}
    return said | {"judged_y": each(lambda r, t, n: own["y"][t][own["mask"][t]])}


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


def _joined(parts: Sequence[Found]) -> Found:
    """The tasks of several splits as one set; rows are kept of the first."""
    first, by_rule = parts[0], ("nll", "error", "picks")

    def join(name):
        return np.concatenate([getattr(p, name) for p in parts], 1 if name in by_rule else 0)

    nll, error, picks, x, y, mask, unit, cost = (
        join(n) for n in (*by_rule, "x", "y", "mask", "unit", "cost")
    )
    return Found(first.rules, nll, error, picks, x, y, mask, unit, first.sign, cost, first.judged)


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


def curves(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """`(3, r, labels + 1)`: means over units, and half a 95 % interval of them and of their
    differences from random's.
    """
    each = np.stack(
        [[_mean_of_units(v, unit) for v in rule.T] for rule in values]
    )  # (r, labels + 1, u)

    def half(a):
        return (
            1.96 * a.std(-1, ddof=1) / a.shape[-1] ** 0.5
            if a.shape[-1] > 1
            else np.full(a.shape[:-1], np.nan)
        )

    return np.stack([each.mean(-1), half(each), half(each - each[:1])])


def load(path: Path | None) -> dict[str, Any]:
    """What there is in a folder of omniglot28.npz and the tables of `SUBJECTS`; sine waves and
    lines need nothing.
    """
    found: dict[str, Any] = {}
    if path is None:
        return found
    if not path.is_dir():
        names = ", ".join(["omniglot28.npz", *(s.file for s in SUBJECTS.values())])
        raise InputError(f"{path}: active-learning reads a folder with any of {names}.")
    if (path / "omniglot28.npz").exists():
        found["characters"] = characters.read(path / "omniglot28.npz")
    return found | {
        name: read_rows(path, s) for name, s in SUBJECTS.items() if (path / s.file).exists()
    }


def reads(path: Path) -> list[Path]:
    """What `load` reads."""
    places = [path / name for name in ("omniglot28.npz", *(s.file for s in SUBJECTS.values()))]
    return [place for place in places if place.exists()]


_LABELS = {"labels": 8, "samples": [64, 24]}
PROTOCOL = Protocol(
    name="active-learning",
    title="Which label next?",
    lead=(
        "A posterior that knows what it does not know should say which row to label next. Every rule starts with nothing, "
        "labels one row of a pool after another, and is judged on other rows of the same task; the same tasks, pools and "
        "draws serve every rule, so that differences from random labels are paired."
    ),
    papers=(
        'Houlsby, Huszár, Ghahramani & Lengyel, "Bayesian Active Learning for Classification and Preference Learning", 2011',
        'Finn, Xu & Levine, "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018, section 5',
        'Jones, Schonlau & Welch, "Efficient Global Optimization of Expensive Black-Box Functions", 1998',
        'Snoek, Larochelle & Adams, "Practical Bayesian Optimization of Machine Learning Algorithms", NeurIPS 2012',
    ),
    choices=(
        "Entropy: of the predictive. BALD: the mutual information of a row's outcome and the function. Variance: the part of the "
        "predictive variance that observations can remove. Ties and rows already labelled are left out; nothing is labelled twice.",
        f"“{UNINFORMED}” sees no label: every class alike, or the mean and the standard deviation of the training rows. Labels "
        "that best lower the NLL of other rows are known in no setting, so that gains have no upper bound beside them; the "
        "exact posterior's gains stand where there is one.",
        "Areas are means over 1 to 8 labels; gains are random's area less the rule's, task by task. Tasks that share a unit (a "
        "date, an assay, a data set) are averaged before standard errors are taken, and the errors are over units.",
        "Training tasks show 0 to 8 rows of a pool, half of them rows that a random score of x prefers: rules do not choose "
        "evenly, and methods trained on even choices alone are sure of themselves with uneven ones.",
        "Sine or line: a pool of 30 and 30 judged rows, noise 0.3. The exact posterior is represented by "
        "drawn functions.",
        "Omniglot: five classes of which any drawing may be labelled (none at first), Lake's background alphabets for training "
        "and his evaluation alphabets for judging; images as 48 principal components. Error: the share of wrong classes.",
        "Weather: an airport's day, 14 of its hours may be labelled and the others are judged; days are split by date, since three "
        "airports share one weather.",
        "Molecules: 40 compounds of an assay may be labelled, 24 others are judged; 13 descriptors without the structure itself. "
        "Configurations: the log of the error of 40 configurations on a data set; smallest is best.",
        "Columns and outcomes of a table are standardised by its training groups alone. Where splits are several, each judges "
        "groups that its prior was not trained on.",
        "Improvement: expected improvement on the best row labelled so far (on the pool's mean before there is one); a second: "
        "divided by the training time that a regression on the other data sets expects. Regret in time is the mean regret while "
        "seconds of half as many average configurations as there are labels are spent; measured seconds, which no rule sees.",
    ),
    metrics=METRICS,
    methods=("np", "dkt", "process"),
    able=tuple(dict.fromkeys(n for k in ("numbers", "classes") for n in able(k))),
    budgets={
        "quick": _LABELS
        | {
            "steps": {"lines": 1_500, "classes": 600, "tables": 600},
            "tasks": 100,
            "table_tasks": 90,
            "slow_tasks": 10,
            "folds": {"weather": 1, "molecules": 1, "configurations": 1},
        },
        "full": _LABELS
        | {
            "steps": {"lines": 20_000, "classes": 10_000, "tables": 3_000},
            "tasks": 500,
            "table_tasks": 300,
            "slow_tasks": 50,
            "folds": {"weather": 1, "molecules": 5, "configurations": 5},
        },
    },
    run=run,
    draw=draw,
    references=(EXACT, UNINFORMED),
    anchors=tuple(
        Anchor(
            "random labels",
            setting,
            f"{kind}_gain_{rule}",
            0.0,
            "By definition: gains are taken from random labels.",
        )
        for setting in (LINES, CHARACTERS, BLOBS, *SUBJECTS)
        for kind in ("nll", "error")
        for rule in RULES[1:]
    )
    + tuple(
        Anchor(
            "the best row first",
            setting,
            "regret_random",
            0.0,
            "Exact: who knows the outcomes labels the best row at once.",
        )
        for setting, subject in SUBJECTS.items()
        if subject.seeks
    ),
    load=load,
    reads=reads,
    sentence=sentence,
)
