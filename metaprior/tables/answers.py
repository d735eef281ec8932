"""What a prior says of a whole table of new groups."""

from collections.abc import Callable

import jax
import numpy as np
import polars as pl

from metaprior.system.programs import kept
from metaprior.tables.many import Runs, batches, run_all, scattered
from metaprior.tables.posterior import Posterior, predicted
from metaprior.tables.split import Split
from metaprior.tables.trained import Trained

Tell = Callable[[float, str], None]


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
