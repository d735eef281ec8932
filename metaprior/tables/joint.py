"""Several targets of many new groups: each given those before it, for all groups at once.

A row may hold some of the targets. What it holds is observed, and the later targets of the row are
predicted given it. A later target counts as observed where all targets before it are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl

from metaprior.heads.draws import uniform_points
from metaprior.system.programs import kept_by_size
from metaprior.tables.chain import BLOCK, DRAWS, Link, drawn, predicted
from metaprior.tables.grouped import Table
from metaprior.tables.many import Batch, batches, run_all, scattered
from metaprior.tables.read import Rows
from metaprior.tables.several import JointPosterior
from metaprior.tables.split import Split
from metaprior.tables.stages import part_of
from metaprior.tables.trained import Trained

Tell = Callable[[float, str], None]
FIRST = 0.1  # share of the work that the first target takes


@kept_by_size
def _draw(learner, stacked, curve, levels, key):
    """`drawn` for links that differ in their group."""
    return jax.vmap(lambda one: drawn(Link(learner, *one), curve, levels, key))(stacked)


@kept_by_size
def _predict(learner, stacked, curve, levels, key):
    """`predicted` for links that differ in their group."""
    return jax.vmap(lambda one: predicted(Link(learner, *one), curve, levels, key))(stacked)


class JointTable:
    """The rows of all targets in a table of new groups.

    Args:
        info: of the prior.
        parts: what was learned of each target.
        split: the table.
    """

    def __init__(self, info: dict, parts: Sequence[Trained], split: Split):
        frame, self.targets = split.rows.frame, list(info["target"])
        absent = [name for name in self.targets if name not in frame.columns]
        frame = frame.with_columns(pl.lit(None, pl.Float64).alias(name) for name in absent)
        # A later target is learned from beside the earlier ones: it needs them.
        usable = np.logical_and.accumulate(split.known, axis=1)
        whole = Split(Rows(frame, split.rows.where), split.names, split.group, usable)
        self.split, self.usable = split, usable
        self.tables = [Table(part, whole, usable[:, i]) for i, part in enumerate(parts)]
        self.nothing = JointPosterior(info, [table.nothing() for table in self.tables])
        self.notes = list(self.tables[0].trained.remarks(split.rows))
        self.notes += [note for table in self.tables for note in table.doubts] + self._unused()

    def _unused(self) -> list[str]:
        notes = []
        for i, target in enumerate(self.targets):
            count = int((self.split.known[:, i] & ~self.usable[:, i]).sum())
            if count:
                before = " or ".join(self.targets[:i])
                notes.append(
                    f"{self.split.rows.where}: {count} rows hold {target!r} but not {before}, "
                    f"which comes before it: nothing is learned from their {target!r}."
                )
        return notes

    def predict(self, levels: dict[str, float], progress: Tell | None) -> pl.DataFrame:
        """Predictions of the rows that lack a target; none of a target that a row holds."""
        asked = np.flatnonzero(self.split.asked)

        answers = []
        if not self.usable[:, 0].all():
            first = self.tables[0].predict(levels, part_of(progress, 0.0, FIRST))
            # It answers rows that lack the first target; the others are left empty below.
            place = np.cumsum(~self.usable[:, 0])[asked] - 1
            answers.append(first[np.maximum(place, 0)])
        else:
            answers.append(pl.DataFrame())
        for table, out in zip(
            self.tables[1:], self._walk_all(levels, part_of(progress, FIRST, 1.0))
        ):
            rows = jax.tree.map(lambda value: value[asked], out)
            answers.append(table.nothing().table(rows, len(asked), list(levels)))
        said = [self._named(i, answer, asked) for i, answer in enumerate(answers)]
        return pl.concat([one for one in said if one.width], how="horizontal")

    def _named(self, i: int, answer: pl.DataFrame, asked: np.ndarray) -> pl.DataFrame:
        """An answer under the target's name, empty where the row holds the target."""
        lacks = ~self.split.known[asked, i]
        if not lacks.any():
            return pl.DataFrame()
        return answer.select(
            pl.when(pl.Series(lacks)).then(pl.col(name)).alias(f"{self.targets[i]}_{name}")
            for name in answer.columns
        )

    def posteriors(self) -> list[JointPosterior]:
        """Of every group, given its observed rows."""
        each = zip(*(table.posteriors() for table in self.tables), strict=True)
        return [JointPosterior(self.nothing.info, parts) for parts in each]

    def _walk_all(self, levels: dict[str, float], progress: Tell | None) -> list[Any]:
        """What is predicted of every later target, by number of the row."""
        at = jnp.asarray(list(levels.values()), jnp.float32)
        known, asked = self.tables[0].known, self.tables[0].runs(self.split.asked)
        todo = batches(known, asked, most=BLOCK // DRAWS)
        found = run_all(todo, lambda batch: self._walk(batch, at), "predicting", progress)
        return scattered(todo, found, len(self.split.group))

    def _walk(self, batch: Batch, levels) -> list[Any]:
        """One pass over the targets: what is drawn of each is a feature of the next ones."""
        rows, real = batch.asked.rows, batch.asked.real
        many = self.tables[0].split.rows.frame[np.tile(rows[real], DRAWS)]
        points = uniform_points(DRAWS, len(self.targets))
        even = jnp.asarray(np.repeat(points[:, None], rows.shape[1], axis=1), jnp.float32)
        before = np.zeros((len(rows), 0, 1, rows.shape[1]), np.float32)
        shares, found = before[:, :, 0], []
        for i, table in enumerate(self.tables):
            learner, curve = table.trained.learner, table.trained.curve()
            x = self._encoded(table, many, batch) if i else batch.asked.of(table.x)[:, None]
            stacked = (table.support(batch), x, before, shares)
            if i:
                found.append(_predict(learner, stacked, curve, levels, jr.key(0)))
            if i == len(self.tables) - 1:
                break
            z, share = map(np.asarray, _draw(learner, stacked, curve, even[:, :, i], jr.key(0)))
            # What a row holds stands in place of all draws, and more rows do not change it.
            holds = self.usable[rows, i] & real
            z = np.where(holds[:, None], batch.asked.of(table.y)[:, None, :, 0], z)
            share = np.where(holds, np.float32(0), share)
            earlier = before if i else np.zeros((len(rows), 0, *z.shape[1:]), z.dtype)
            before = np.concatenate([earlier, z[:, None]], axis=1)
            shares = np.concatenate([shares, share[:, None]], axis=1)
            column = self.nothing.as_feature(i, np.moveaxis(z, 1, 0)[:, real].reshape(-1))
            many = many.with_columns(pl.Series(self.targets[i], column))
        return found

    def _encoded(self, table: Table, many: pl.DataFrame, batch: Batch) -> np.ndarray:
        """Rows with drawn targets as their program reads them, `(groups, draws, rows, d)`."""
        flat = table.trained.encode(Rows(many, self.split.rows.where))
        x = np.zeros((DRAWS, *batch.asked.rows.shape, flat.shape[1]), flat.dtype)
        x[:, batch.asked.real] = flat.reshape(DRAWS, -1, flat.shape[1])
        return np.moveaxis(x, 0, 1)
