"""What a saved prior holds, how rows become what its learners read, and its files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.evaluation.units import Curve, Units
from metaprior.method import AbstractLearner
from metaprior.methods import METHODS
from metaprior.system import files
from metaprior.system.annotations import fits
from metaprior.tables.baselines import BASELINES, Boosting
from metaprior.tables.columns import Features
from metaprior.tables.gaps import DRAWS, Gaps
from metaprior.tables.groups import digests, frame_of
from metaprior.tables.learned import Rule
from metaprior.tables.meaning.kinds import Kind, apply
from metaprior.tables.meaning.notes import lines
from metaprior.tables.meaning.understand import understand
from metaprior.tables.read import Rows, is_table, rows_of
from metaprior.tables.remarks import remarks
from metaprior.tables.targets import class_indices, far_outside, in_units

AUTO = "auto"


def read_again(
    info: dict, text: Sequence[str], table: Any, called: str, may_be_empty: bool = False
) -> Rows:
    """A later table, its columns read as those that were learned from.

    Args:
        info: of the prior.
        text: columns that were text; what a prior of 0.1.0 knows of its columns.
        table, called, may_be_empty: see `rows_of`.
    """
    rows = rows_of(table, called, may_be_empty=may_be_empty)
    if "kinds" in info:
        rows, found = apply(rows, kinds_of(info))
        targets = info["target"] if isinstance(info["target"], list) else [info["target"]]
        needed = {info["task"], *targets, *info["features"]}
        notes = [note for note in found if note.column in needed]
    else:
        there = [name for name in (*text, info["task"]) if name in rows.frame.columns]
        names = info["target"] if isinstance(info["target"], list) else [info["target"]]
        rows, _, notes = understand(rows, names=there, targets=dict.fromkeys(names, "auto"))
    said = (f"{rows.where}: column {line}" for line in lines(notes))
    return dataclasses.replace(rows, notes=(*rows.notes, *said))


def kinds_of(info: dict) -> dict[str, Kind]:
    """How a prior reads its columns."""
    return {name: Kind.of_json(saved) for name, saved in info["kinds"].items()}


# What the header of every prior says, and of what kind it is.
INFO = {
    "method": str,
    "task": str,
    "target": str | list[str],
    "features": list[str],
    "notes": list[str],
    "seed": int,
    "classes": list[str] | dict[str, list[str] | None] | None,
    "ordered": bool | None,  # 0.1.0 does not say it
    "groups": dict[str, int],
    "rows": int,
    "arrays": bool,
    "split_by": str | None,
    "holdout_by": str | None,  # 0.1.0 does not say it
    "target_scale": str | None,
    "version": str,
}


class HeldOut(eqx.Module):
    """Groups kept for `evaluate`: encoded rows, those of a group together.

    Args:
        x: `(n, d)`.
        y: in the model's units or class indices, `(n, 1)`.
        start, count: first row and number of rows of each group.
        group: the number of each group among all groups of the table.
        times: columns that rows can be ordered by, numbers and dates in days, `(n,)` each.
        names: of the groups.
        sets: the number of each group's set, where groups that share a value were kept together.
    """

    x: np.ndarray
    y: np.ndarray
    start: np.ndarray
    count: np.ndarray
    group: np.ndarray | None = None
    times: dict[str, np.ndarray] | None = None
    names: tuple[str, ...] | None = None
    sets: np.ndarray | None = None


class Trained(eqx.Module):
    """Everything that a saved prior of one target holds.

    Args:
        info: what was learned from what; see `INFO`.
        features: how feature columns become numbers.
        boosting: the pooled prediction, which is a feature of every learner.
        units: of the target; `None` for classes.
        learner: the method that was asked for.
        baselines: learners by name.
        held: groups kept aside.
        gaps: what training rows say of a feature that a new row lacks; `None` in older files.
        rule: of `suggest --by learned`, once it has been asked for.
        groups: `digests` of the names of the groups that were learned from; `None` in older files.
    """

    info: dict
    features: Features
    boosting: Boosting
    units: Units | None
    learner: AbstractLearner
    baselines: dict
    held: HeldOut | None
    groups: np.ndarray | None = None
    gaps: Gaps | None = None
    rule: Rule | None = None

    @property
    def classes(self) -> int:
        """How many classes; 0 for numbers."""
        return len(self.info["classes"] or ())

    def curve(self) -> Curve | None:
        """What compiled programs read of the target's units."""
        return None if self.units is None else self.units.curve()

    def rows(self, table: Any, called: str, may_be_empty: bool = False) -> Rows:
        """A table of rows, or of x where the prior was fitted on arrays; no target is needed."""
        if isinstance(table, Rows):
            return table
        if self.info["arrays"] and not is_table(table):
            return Rows(frame_of([(table, None)]), called)
        return read_again(self.info, self.features.text(), table, called, may_be_empty)

    def encode(self, rows: Rows) -> np.ndarray:
        """Encoded feature columns with the pooled prediction behind them, `(n, d)`."""
        names = self.features.names()
        if self.gaps is not None and not set(names) <= set(rows.frame.columns):
            try:
                rows.need(names)
            except InputError as error:
                hint = "To predict without it, add a column of that name with empty cells."
                raise InputError(f"{error} {hint}") from None
        if rows.frame.height == 0:  # an empty column has no type to check
            return np.zeros((0, self.width()), np.float32)
        encoded, raw = self.features.encode(rows.frame, rows.where)
        return np.concatenate([encoded, self.boosting(raw)], axis=1).astype(np.float32)

    def filled(
        self, known: pl.DataFrame | None, y: np.ndarray, asked: Rows
    ) -> tuple[pl.DataFrame, pl.DataFrame] | None:
        """Observed and other rows of a group, `DRAWS` times each, with what they lack drawn.

        Nothing where no row lacks a feature that all training rows had.

        Args:
            known: the observed rows; `None` for none.
            y: their outcomes in the model's units, `(n, 1)`.
            asked: the other rows.
        """
        if self.gaps is None or asked.frame.height == 0:
            return None
        rows = [asked] if known is None else [Rows(known, "support"), asked]
        if not any(self.lacking(some).any() for some in rows):
            return None
        if known is None:
            known, y = asked.frame.head(0), np.zeros((0, 1), np.float32)
        return self.gaps.fill(self.features, known, y, asked.frame)

    def fill(
        self, known: pl.DataFrame | None, y: np.ndarray, asked: Rows
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The same, encoded: `(m, n, d)` each."""
        found = self.filled(known, y, asked)
        if found is None:
            return None
        before, rest = (self.encode(Rows(some, asked.where)) for some in found)
        shape = (DRAWS, -1, rest.shape[1])
        if not len(before):
            return np.zeros((DRAWS, *before.shape), np.float32), rest.reshape(shape)
        return before.reshape(shape), rest.reshape(shape)

    def lacking(self, rows: Rows) -> np.ndarray:
        """Which rows lack a feature that no training row lacked, `(n,)`."""
        if self.gaps is None:
            return np.zeros(rows.frame.height, bool)
        return np.asarray(self.gaps.where(self.features, rows.frame).any(axis=1))

    def remarks(self, rows: Rows) -> tuple[str, ...]:
        """Notes on features of rows that training does not cover."""
        return remarks(self.gaps, self.features, rows)

    def width(self) -> int:
        """Columns of an encoded row."""
        # A row needs a column, and there may be no features.
        empty = pl.DataFrame({name: [None] for name in (self.info["task"], *self.features.names())})
        return self.encode(Rows(empty, "table")).shape[1]

    def seen(self, names: pl.Series) -> list[str]:
        """Those of some groups that the prior has learned from, as far as names tell."""
        if self.groups is None:
            return []
        written = names.cast(pl.String)
        return written.filter(pl.Series(np.isin(digests(written.to_list()), self.groups))).to_list()

    def observed(self, rows: Rows, known: np.ndarray) -> np.ndarray:
        """`outcomes` of a table where some rows do not hold the target; zeros in these.

        Args:
            rows: of any groups.
            known: which rows hold the target.
        """
        if not known.any():
            return np.zeros((len(known), 1), np.float32)
        series = rows.frame[self.info["target"]]
        # Checked with the whole table, so that messages count its rows.
        stand_in = series.gather(np.full(len(known), known.argmax()))
        filled = rows.frame.with_columns(series.zip_with(pl.Series(known), stand_in))
        return np.where(known[:, None], self.outcomes(Rows(filled, rows.where)), np.float32(0))

    def outcomes(self, rows: Rows) -> np.ndarray:
        """The target column in the model's units or as class indices, `(n, 1)`."""
        target = self.info["target"]
        rows.need([target])
        if self.units is None:
            return class_indices(rows.frame[target], self.info["classes"], rows.where)
        return in_units(rows.frame[target], self.units, rows.where)

    def doubts(self, rows: Rows, outcomes: np.ndarray) -> tuple[str, ...]:
        """A note where outcomes are far outside of what was learned from, in other units perhaps.

        Args:
            rows: of a group.
            outcomes: of the rows, in the model's units, `(n, 1)`.
        """
        row = None if self.units is None else far_outside(outcomes[:, 0], self.units)
        if row is None:
            return ()
        target = self.info["target"]
        return (
            f"{rows.where}: column {target!r}, row {row + 1}: {rows.frame[target][row]} is far "
            "from everything that was learned from; are the units the same?",
        )


class Chain(eqx.Module):
    """What a saved prior of several targets holds: a part for each target, in their order."""

    info: dict
    parts: tuple[Trained, ...]


def load_trained(path: str | Path) -> Trained | Chain:
    """What `Prior.save` wrote.

    Raises:
        InputError: when the file is missing, damaged, foreign or of another version.
    """
    found = files.load(path)
    parts = found.parts if isinstance(found, Chain) else (found,)
    if not parts or not all(isinstance(part, Trained) for part in parts):
        raise InputError(f"{path}: not a prior.")
    for one in (found, *parts):
        if not all(fits(one.info.get(name), kind) for name, kind in INFO.items()):
            raise InputError(f"{path}: a prior that does not say what was learned from what.")
        try:
            kinds_of(one.info | {"kinds": one.info.get("kinds", {})})
        except (AttributeError, KeyError, TypeError):
            raise InputError(
                f"{path}: a prior that does not say how its columns are read."
            ) from None
        method = one.info["method"]
        if method not in (AUTO, *METHODS, *BASELINES):
            raise InputError(
                f"{path}: a prior of the method {method!r}, which this version does not have; "
                "fit it again."
            )
    return found
