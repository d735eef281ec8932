"""What a prior says of a whole table of new groups."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import polars as pl

from metaprior.system.programs import kept
from metaprior.tables.many import Runs, batches, run_all, scattered
from metaprior.tables.posterior import Posterior, predicted
from metaprior.tables.read import Rows
from metaprior.tables.split import Split, split
from metaprior.tables.trained import Trained

Tell = Callable[[float, str], None]
Say = Callable[[str], None]


@kept
def _predict(learner, support, x, log, levels):
    """`predicted` for stacked groups: supports `(g, k, …)` and rows `(g, n, d)`."""
    return jax.vmap(lambda some, rows: predicted(learner, some, rows, log, levels))(support, x)


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
    return Posterior(trained, x, y, trained.doubts(rows, y))
