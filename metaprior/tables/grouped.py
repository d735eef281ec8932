"""The rows of one target in a table of new groups, and what is said of them all at once."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
import polars as pl

from metaprior.system.programs import kept_by_size
from metaprior.tables.asked import interval_levels
from metaprior.tables.guarantee import ends, guarantee_of
from metaprior.tables.learned import learned_rule
from metaprior.tables.many import Batch, Runs, batches, predict_all, run_all, scattered
from metaprior.tables.padding import MOST_OBSERVED, said_of, some_of
from metaprior.tables.posterior import Posterior
from metaprior.tables.questions import described, scored
from metaprior.tables.read import Rows
from metaprior.tables.split import Split
from metaprior.tables.trained import Trained
from metaprior.task import Data

Tell = Callable[[float, str], None]


@kept_by_size
def _score(learner, support, x, by, key):
    """`scored` for stacked groups."""
    return jax.vmap(lambda some, rows: scored(learner, some, rows, by, key))(support, x)


@kept_by_size
def _describe(learner, support, x, real, key):
    """`described` for stacked groups."""
    return jax.vmap(lambda *group: described(learner, *group, key))(support, x, real)


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
        self.doubts = trained.doubts(split.rows, self.y)
        self.is_known = known
        self.known, self.asked = self.observed(), self.runs(~known)

    @property
    def notes(self) -> tuple[str, ...]:
        """What may be wrong with the rows."""
        many = np.bincount(self.split.group[self.is_known], minlength=1).max()
        more = (f"{self.split.rows.where}: {said_of(many)}",) if many > MOST_OBSERVED else ()
        return (*self.doubts, *more, *self.trained.remarks(self.split.rows))

    def observed(self, most: int | None = None) -> Runs:
        """The rows that are conditioned on: those of a very large group in part."""
        runs, used = self.runs(self.is_known), self.is_known.copy()
        large = np.flatnonzero(runs.count > (MOST_OBSERVED if most is None else most))
        for start, count in zip(runs.start[large], runs.count[large]):
            rows = runs.order[start : start + count]
            used[rows] = False
            used[rows[some_of(count, most)]] = True
        return self.runs(used) if len(large) else runs

    def runs(self, use: np.ndarray) -> Runs:
        """The rows in a mask by their groups."""
        return Runs.of(self.split.group, use, self.split.count)

    def support(self, batch: Batch) -> Data:
        """The rows of this target that were observed in the groups of a batch, stacked."""
        first = np.zeros(len(batch.groups), int)
        block = self.known.rows(batch.groups, first, batch.known.rows.shape[1])
        block = block.padded(len(batch.known.rows))
        return Data(*jax.device_put((block.of(self.x), block.of(self.y), block.real)))

    def predict(self, levels: dict[str, float], progress: Tell | None) -> pl.DataFrame:
        """Predictions of the rows without the target, in order; quantiles by name."""
        rows, at = np.sort(self.asked.order), list(levels.values())
        out = self._said(self.known, at, progress)
        table = self.nothing().table(out, len(rows), list(levels))
        return self._with_gaps(table, rows, lambda one, some: one.predict(some, at))

    def _said(
        self, known: Runs, levels: Sequence[float], progress: Tell | None = None
    ) -> dict[str, np.ndarray]:
        """What is predicted of the rows without the target, in order, from the known rows."""
        trained, rows = self.trained, np.sort(self.asked.order)
        found = predict_all(
            trained.learner,
            trained.curve(),
            (self.x, self.y),
            known,
            self.asked,
            levels,
            progress,
        )
        return {name: values[rows] for name, values in found.items()}

    def _with_gaps(
        self,
        table: pl.DataFrame,
        rows: np.ndarray,
        ask: Callable[[Posterior, Rows], pl.DataFrame],
    ) -> pl.DataFrame:
        """Predictions with those of groups whose rows lack a feature, one group at a time."""
        frame, group = self.split.rows.frame, self.split.group
        some = np.unique(group[self.trained.lacking(self.split.rows)])
        if not len(some):
            return table
        values = table.to_numpy().copy()
        for one in some.tolist():
            here = np.flatnonzero(group[rows] == one)
            if len(here):
                asked = Rows(frame[rows[here]], self.split.rows.where)
                values[here] = ask(self.posterior(one), asked).to_numpy()
        return pl.DataFrame(values, table.schema)

    def interval(self, share: float) -> pl.DataFrame:
        """Guaranteed `low` and `high` of the rows without the target, in order."""
        known = self.observed(guarantee_of(self.trained, share).most)
        out, rows = self._said(known, interval_levels(share)), np.sort(self.asked.order)
        count = known.count[self.split.group[rows]]
        table = pl.DataFrame(ends(self.trained, out["quantiles"], count, share))
        return self._with_gaps(table, rows, lambda one, some: one.interval(some, share, True))

    def nothing(self) -> Posterior:
        """The posterior of a group of which nothing was observed."""
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
        self.known = self.observed()
        # The learned rule looks at all rows that are left, the others at a row at a time.
        left = ~(self.is_known if by == "learned" else self.split.known[:, 0])
        todo = batches(self.known, self.runs(left & some))

        def run(batch):
            support, x = self.support(batch), batch.asked.of(self.x)
            if by == "learned":
                return _describe(self.trained.learner, support, x, batch.asked.real, key)
            return _score(self.trained.learner, support, x, by, key)

        found = run_all(todo, run, "scoring", progress)
        value, gain, expected = scattered(todo, found, len(self.x))
        if by == "learned":
            value = learned_rule(self.trained)[0](value)
        return value, gain, expected[:, 0]

    def observe(self, rows: np.ndarray, outcomes: np.ndarray) -> None:
        """Take some rows as observed."""
        self.is_known = self.is_known.copy()
        self.is_known[rows] = True
        self.y[rows, 0] = outcomes[rows]

    def posteriors(self) -> list[Posterior]:
        """Of every group, given its observed rows."""
        return [self.posterior(group) for group in range(self.split.count)]

    def posterior(self, group: int) -> Posterior:
        """Of one group, given its observed rows."""
        first, runs = self.known.start[group], self.known
        rows = runs.order[first : first + runs.count[group]]
        known = self.split.rows.frame[rows]
        return Posterior(self.trained, self.x[rows], self.y[rows], known=known)
