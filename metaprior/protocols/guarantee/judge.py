"""Do intervals hold what they say in new groups? Rules on simulated groups, priors on tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.stats import beta

from metaprior.evaluation import conformal
from metaprior.evaluation.units import Units
from metaprior.methods import METHODS
from metaprior.protocols import raw
from metaprior.protocols.cell import item_of, part_of
from metaprior.protocols.guarantee.data import SUBJECTS, Subject
from metaprior.protocols.guarantee.simulated import EXACT, RULES, SHARE, Scores, drawn, exact, held
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.tables.asked import interval_levels
from metaprior.tables.guarantee import Kept
from metaprior.tables.prior import Prior

REFERENCES = (*RULES, EXACT)
HOLDOUT = 0.4  # of the groups: half of them calibrate, and the other half is judged
LOW = 0.8  # groups of which less is held are counted


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """A rule on simulated groups; or a prior of that method on each table."""
    if method in REFERENCES:
        return simulate(method, seed, options, tell)
    figures: list[Figure] = []
    tables, facts, notes = [], {"fit_seconds": {}}, []
    for i, (name, path) in enumerate(data.items()):
        if SUBJECTS[name].classes and "classes" not in METHODS[method].kinds:
            notes.append(f"{name} has classes, which {method} does not predict")
            continue
        jax.clear_caches()  # programs of many fits in one process exhaust its memory maps
        told = item_of(tell, i, len(data), name)
        prior = fitted(method, seed, SUBJECTS[name], path, options, part_of(told, 0.0, 0.9))
        facts["fit_seconds"][name] = prior.info["seconds"]
        for K in options["shots"]:
            told(0.9, f"{K} observed rows")
            rows = judged(prior, K, options["partitions"], seed)
            if rows is None:
                notes.append(f"{name}: too few groups have more than {K} rows")
                continue
            setting = f"K = {K}: {name}"
            figures += measure(setting, rows)
            count = len(rows["task"])
            tables.append({"setting": np.full(count, setting), **rows})
    if not tables:
        notes.append("no table to judge on")
        tables.append({"setting": np.zeros(0, str)})
    return Outcome(figures, raw.joined(tables), {}, "; ".join(notes), facts)


def simulate(rule: str, seed: int, options: dict[str, Any], tell: Tell) -> Outcome:
    """Thresholds of a rule from so many groups, and what they hold of new ones, exactly."""
    figures, tables = [], []
    sizes, count = options["sizes"], options["repetitions"]
    for i, T in enumerate(sizes):
        tell(i / len(sizes), f"{T} groups")
        rng = np.random.default_rng([seed, T])
        if rule == EXACT:
            threshold = np.full(count, exact())
        else:
            threshold = np.array([RULES[rule](drawn(T, rng)) for _ in range(count)])
        setting = f"simulated: T = {T}"
        figures.append(Figure.of(setting, "coverage", held(threshold)))
        figures.append(Figure.of(setting, "width", 2 * threshold))
        tables.append(
            {
                "setting": np.full(count, setting),
                "task": np.arange(count),
                "threshold": threshold,
                "held": held(threshold),
            }
        )
    return Outcome(figures, raw.joined(tables))


class Said(NamedTuple):
    """What a learner says of rows.

    Args:
        score: of each outcome, `(n,)`: at most 0 where what the learner states holds it.
        width: of what is stated when it is so much wider, `(n,)`: in units of y, or in classes.
    """

    score: np.ndarray
    width: Callable[[float], np.ndarray]

    @staticmethod
    def of_numbers(quantiles: np.ndarray, y: np.ndarray, units: Units) -> "Said":
        """Of intervals, in the model's units."""
        low, high = np.asarray(quantiles, np.float64).T

        def width(by: float) -> np.ndarray:
            first, last = conformal.widened(low, high, by)
            return units.to_y(last) - units.to_y(first)

        return Said(conformal.cqr(y, low, high), width)

    @staticmethod
    def of_classes(p: np.ndarray, y: np.ndarray) -> "Said":
        """Of the most probable classes that together have the share.

        A class is scored by the probability of all that are more probable (Romano, Sesia & Candès,
        "Classification with Valid and Adaptive Coverage", NeurIPS 2020, without its random part).
        """
        p = np.asarray(p, np.float64)
        above = np.where(p[:, None, :] > p[:, :, None], p[:, None, :], 0.0).sum(-1) - SHARE
        score = np.take_along_axis(above, y.astype(int)[:, None], 1)[:, 0]
        return Said(score, lambda by: (above <= by).sum(1))


def fitted(
    method: str, seed: int, subject: Subject, path: Path, options: dict[str, Any], tell: Tell
) -> Prior:
    """A prior that has learned from six tenths of the groups."""
    prior = Prior(
        method,
        holdout=HOLDOUT,
        seed=seed,
        steps=options["most_steps"] or None,
        split_by=subject.split_by,
    )
    return prior.fit(path, task=subject.task, target=subject.target, progress=tell)


def judged(prior: Prior, K: int, partitions: int, seed: int) -> dict[str, np.ndarray] | None:
    """Every row that is asked about, and how often intervals held it; columns `(n,)`.

    The groups are parted in two halves many times: one sets the thresholds, the other is judged.

    Args:
        prior: that kept groups aside.
        K: observed rows of each group.
        partitions: how many times.
        seed: of the partitions.

    Returns:
        `task`, `set` (groups of one are alike) and `place`; `score`; of the posterior itself `own`
        and `own_width`; `guaranteed`, `guaranteed_width`, `pooled` and `marginal_width` are means
        over the partitions that judge the row. `None` where there are too few groups.
    """
    trained = prior._ready()
    assert trained.held is not None  # `fitted` keeps some
    kept = Kept.of(trained.held, seed)
    asked = kept.asked(K)
    levels = (kept.group[asked], kept.sets[asked])
    sets = np.unique(levels[1])
    if len(sets) < 2 * conformal.fewest(SHARE):
        return None

    def said(learner: Any, K: int) -> Said:
        (out,) = kept.predict(learner, trained.curve(), [K], interval_levels(SHARE))
        y, here = kept.y[asked, 0].astype(np.float64), asked[kept.asked(K)]
        if trained.units is None:
            return Said.of_classes(out["p"][here], y)
        return Said.of_numbers(out["quantiles"][here], y, trained.units)

    # What is said without a model is the same whatever is observed.
    own, marginal = said(trained.learner, K), said(trained.baselines["marginal"], 0)
    group, of_set = levels
    sums = {name: np.zeros(len(group)) for name in ("guaranteed", "guaranteed_width", "pooled")}
    sums["marginal_width"], times = np.zeros(len(group)), np.zeros(len(group))
    rng = np.random.default_rng(seed)
    for _ in range(partitions):
        first = np.isin(of_set, rng.permutation(sets)[: len(sets) // 2])
        parts, rest = (of_set[first], group[first]), ~first
        by, control = (
            conformal.hierarchical(some.score[first], parts, SHARE) for some in (own, marginal)
        )
        pooled = RULES["pooled rows"](Scores(own.score[first], parts, rng))
        times += rest
        sums["guaranteed"] += rest * (own.score <= by)
        sums["pooled"] += rest * (own.score <= pooled)
        sums["guaranteed_width"] += rest * own.width(by)
        sums["marginal_width"] += rest * marginal.width(control)
    means = {name: total / np.maximum(times, 1) for name, total in sums.items()}
    return {
        "task": group,
        "set": of_set,
        "place": kept.place[asked],
        "score": own.score,
        "own": (own.score <= 0).astype(np.float64),
        "own_width": own.width(0.0).astype(np.float64),
        **means,
    }


def by_set(rows: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The mean of a column in each set of groups: of rows in a group, then of groups."""
    weight = conformal.row_weights(rows["set"], rows["task"])
    _, index = np.unique(rows["set"], return_inverse=True)
    return np.bincount(index, weight * rows[name])


def measure(setting: str, rows: dict[str, np.ndarray]) -> list[Figure]:
    """The figures of one table and number of rows, from the columns of `judged`."""
    of = {"coverage": "guaranteed", "width": "guaranteed_width", "own_coverage": "own"}
    of |= {name: name for name in ("own_width", "marginal_width")} | {"pooled_coverage": "pooled"}
    figures = [Figure.of(setting, metric, by_set(rows, name)) for metric, name in of.items()]
    per_group = by_set(rows | {"set": rows["task"]}, "guaranteed")
    figures.append(Figure.of(setting, "short", per_group < LOW))
    low, high = binomial(rows)
    count = len(np.unique(rows["set"]))
    figures.append(Figure(setting, "low95", low, None, count))
    figures.append(Figure(setting, "high95", high, None, count))
    return figures


def binomial(rows: dict[str, np.ndarray]) -> tuple[float, float]:
    """95 % interval of the coverage, one row of each set of groups being one trial.

    Clopper & Pearson, Biometrika 1934. A set's first row counts as held in so many of the
    partitions; their mean number over sets is what is held.
    """
    _, first = np.unique(rows["set"], return_index=True)
    n, held_ = len(first), float(rows["guaranteed"][first].sum())
    low = beta.ppf(0.025, held_, n - held_ + 1) if held_ > 0 else 0.0
    high = beta.ppf(0.975, held_ + 1, n - held_) if held_ < n else 1.0
    return float(low), float(high)
