"""What a prior says of a whole table of new groups."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.random as jr
import numpy as np
import polars as pl

from metaprior.system.programs import kept
from metaprior.tables.asked import check_suggest
from metaprior.tables.many import Runs, batches, run_all, scattered
from metaprior.tables.posterior import Posterior, predicted, scored
from metaprior.tables.read import Rows
from metaprior.tables.split import Split, split
from metaprior.tables.trained import Trained

Tell = Callable[[float, str], None]
Say = Callable[[str], None]
SCORED = ("row", "score", "gain_nats")


@kept
def _predict(learner, support, x, log, levels):
    """`predicted` for stacked groups: supports `(g, k, …)` and rows `(g, n, d)`."""
    return jax.vmap(lambda some, rows: predicted(learner, some, rows, log, levels))(support, x)


@kept
def _score(learner, support, x, by, key):
    """`scored` for stacked groups."""
    return jax.vmap(lambda some, rows: scored(learner, some, rows, by, key))(support, x)


class Table:
    """The rows of one target in a table of new groups, encoded.

    Args:
        trained: of the target.
        split: the table.
        known: whether a row holds the target, `(n,)`.
    """

    def __init__(self, trained: Trained, split: Split, known: np.ndarray):
        self.trained, self.split = trained, split
        self.x = trained.encode(split.rows)
        self.y = trained.observed(split.rows, known)
        self.notes = trained.doubts(split.rows, self.y)
        self.is_known = known
        self.known = Runs.of(split.group, known, split.count)
        self.asked = Runs.of(split.group, ~known, split.count)

    def predict(self, levels: dict[str, float], progress: Tell | None) -> pl.DataFrame:
        """Predictions of the rows without the target, in order; quantiles by name."""
        trained, at = self.trained, np.asarray(list(levels.values()), np.float32)
        log = trained.log_scale()
        todo = batches(self.known, self.asked)

        def run(batch):
            support, x = batch.support(self.x, self.y), batch.asked.of(self.x)
            return _predict(trained.learner, support, x, log, at)

        found = scattered(todo, run_all(todo, run, "predicting", progress), len(self.x))
        rows = np.sort(self.asked.order)
        out = jax.tree.map(lambda value: value[rows], found)
        return self._nothing().table(out, len(rows), list(levels))

    def _nothing(self) -> Posterior:
        return Posterior(self.trained, self.x[:0], self.y[:0])

    def scores(
        self, by: str, key, groups: np.ndarray | None = None, progress: Tell | None = None
    ) -> tuple[np.ndarray, ...]:
        """Score, information and expected outcome of the rows without the target, `(n,)` each.

        Args:
            by, key: of `Prior.suggest`.
            groups: a mask of those to score; all by default. Zeros stand in other groups.
            progress: called with the share done.
        """
        some = np.ones(len(self.x), bool) if groups is None else groups[self.split.group]
        runs = (
            Runs.of(self.split.group, rows & some, self.split.count)
            for rows in (self.is_known, ~self.split.known[:, 0])
        )
        todo = batches(*runs)

        def run(batch):
            support, x = batch.support(self.x, self.y), batch.asked.of(self.x)
            return _score(self.trained.learner, support, x, by, key)

        found = run_all(todo, run, "scoring", progress)
        value, gain, expected = scattered(todo, found, len(self.x))
        return value, gain, expected[:, 0]

    def observe(self, rows: np.ndarray, outcomes: np.ndarray) -> None:
        """Take some rows as observed."""
        self.is_known = self.is_known.copy()
        self.is_known[rows] = True
        self.y[rows, 0] = outcomes[rows]

    def posteriors(self) -> list[Posterior]:
        """Of every group, given its observed rows."""
        x, y, runs = self.x[self.known.order], self.y[self.known.order], self.known
        ends = zip(runs.start, runs.start + runs.count, strict=True)
        return [Posterior(self.trained, x[a:b], y[a:b]) for a, b in ends]


def predict(
    parts: Sequence[Trained],
    rows: Rows,
    keep: Sequence[str],
    levels: dict[str, float],
    progress: Tell | None,
    say: Say,
) -> pl.DataFrame:
    """See `Prior.predict`.

    Args:
        parts: what was learned of each target.
        rows: the table.
        levels: of the quantiles, by name.
        keep, progress, say: as there.
    """
    found = split(rows, parts)
    found.need_asked("predict")
    table, label = Table(parts[0], found, found.known[:, 0]), found.label(keep)
    _tell([*found.notes, *table.notes], say)
    return found.beside(label, table.predict(levels, progress))


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is asked of `suggest`, which explains it."""

    n: int
    by: str
    seed: int
    over_all: bool


def suggest(
    parts: Sequence[Trained],
    rows: Rows,
    keep: Sequence[str] | None,
    wish: Wish,
    progress: Tell | None,
    say: Say,
) -> pl.DataFrame:
    """See `Prior.suggest`; the arguments are those of `predict`, and the wish."""
    found = split(rows, parts)
    found.need_asked("suggest")
    count = np.bincount(found.group[found.asked], minlength=found.count)
    check_suggest(int(count.sum() if wish.over_all else count.max()), wish.n, wish.by, wish.seed)
    targets = [part.info["target"] for part in parts]
    if keep is None:
        keep = [name for name in rows.frame.columns if name not in (*targets, *SCORED)]
    label, table = found.label(keep), Table(parts[0], found, found.known[:, 0])
    fewer = ((0 < count) & (count < wish.n)).sum()
    if fewer and not wish.over_all:
        table.notes += (
            f"{rows.where}: {fewer} of {found.count} groups have fewer than {wish.n} rows without "
            "the target: all of them are given.",
        )
    _tell([*found.notes, *table.notes], say)

    chosen, scores, gains = _chosen(table, wish, progress)
    extra = dict(zip(SCORED, (chosen + 1, scores, gains), strict=True))
    place = np.cumsum(found.asked) - 1  # of a row among those that lack the target
    return found.beside(label[place[chosen]], pl.DataFrame(extra))


def _chosen(table: Table, wish: Wish, progress: Tell | None) -> tuple[np.ndarray, ...]:
    """Rows in the order in which to observe them, group by group or over all, and their scores."""
    free, group = table.split.asked.copy(), table.split.group
    rounds: list[tuple[np.ndarray, ...]] = []
    value, gain, expected = np.zeros((3, len(free)))
    changed = None  # all groups
    for step in range(wish.n):
        tell = progress if changed is None else None
        key = jr.fold_in(jr.key(wish.seed), step)
        new = table.scores(wish.by, key, changed, tell)
        here = slice(None) if changed is None else changed[group]
        value[here], gain[here], expected[here] = (a[here] for a in new)
        pick = _best(np.where(free, value, -np.inf), group, free, wish.over_all)
        rounds.append((pick, np.full(len(pick), step), value[pick], gain[pick]))
        free[pick] = False
        table.observe(pick, expected)
        if wish.over_all:
            changed = np.arange(table.split.count) == group[pick[0]]

    rows, step, scores, gains = (np.concatenate(each) for each in zip(*rounds, strict=True))
    order = np.arange(len(rows)) if wish.over_all else np.lexsort((step, group[rows]))
    return rows[order], scores[order], gains[order]


def _best(value: np.ndarray, group: np.ndarray, free: np.ndarray, over_all: bool) -> np.ndarray:
    """The free row of the highest value, of each group or of all."""
    if over_all:
        return np.array([value.argmax()])
    rows = np.flatnonzero(free)
    rows = rows[np.lexsort((rows, -value[rows], group[rows]))]
    return rows[np.unique(group[rows], return_index=True)[1]]


def adapt_each(parts: Sequence[Trained], rows: Rows, say: Say) -> dict[Any, Posterior]:
    """See `Prior.adapt_each`."""
    found = split(rows, parts)
    table = Table(parts[0], found, found.known[:, 0])
    _tell([*found.notes, *table.notes], say)
    names = [None] if found.names is None else found.names.to_list()
    return dict(zip(names, table.posteriors(), strict=True))


def _tell(notes: Sequence[str], say: Say) -> None:
    for note in notes:
        say(note)


def of_group(trained: Trained, rows: Rows | None) -> Posterior:
    """The posterior of a group given its rows."""
    if rows is None or rows.frame.height == 0:
        if rows is not None and rows.frame.width:  # a header alone can be wrong too
            rows.need([*trained.features.names(), trained.info["target"]])
        nothing = np.zeros((0, trained.width()), np.float32), np.zeros((0, 1), np.float32)
        return Posterior(trained, *nothing)
    x, y = trained.encode(rows), trained.outcomes(rows)
    return Posterior(trained, x, y, (*rows.notes, *trained.doubts(rows, y)))
