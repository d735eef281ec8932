"""A table of new groups: which rows belong together, which were observed, and which are asked.

Rows with the target are what was observed of their group; rows without it are predicted.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.gaps import absent
from metaprior.tables.meaning.values import as_numbers, is_text
from metaprior.tables.read import Rows
from metaprior.tables.trained import Trained

SHOWN = 3  # names of groups in a note


@dataclasses.dataclass(frozen=True)
class Split:
    """The rows of a table by their groups.

    Args:
        rows: the table, in the order of the file.
        names: of the groups, in the order in which they appear; none where the table has no column
            of groups.
        group: the number of each row's group, `(n,)`.
        known: whether a row holds each target, `(n, targets)`.
        notes: what was made of the table.
    """

    rows: Rows
    names: pl.Series | None
    group: np.ndarray
    known: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many groups."""
        return 1 if self.names is None else len(self.names)

    @property
    def asked(self) -> np.ndarray:
        """Whether a row lacks a target, `(n,)`."""
        return np.asarray(~self.known.all(axis=1))

    def need_asked(self, verb: str) -> None:
        """There is a row without the target."""
        if not self.asked.any():
            raise InputError(
                f"{self.rows.where}: nothing to {verb}: every row holds the target. Leave the "
                f"target empty in the rows to {verb}."
            )

    def label(self, keep: Sequence[str]) -> pl.DataFrame:
        """The group and the columns in `keep` of the rows that lack a target."""
        self.rows.need(keep)
        group = [] if self.names is None else [self.names.name]
        names = list(dict.fromkeys([*group, *keep]))
        return self.rows.frame.filter(pl.Series(self.asked)).select(names)

    def beside(self, label: pl.DataFrame, said: pl.DataFrame) -> pl.DataFrame:
        """What was said of some rows behind their labels."""
        for name in label.columns:
            if name in said.columns:
                raise InputError(
                    f"{self.rows.where}: the answer has a column {name!r} of its own; give the "
                    "table's column another name."
                )
        return pl.concat([label, said], how="horizontal")


def split(rows: Rows, parts: Sequence[Trained]) -> Split:
    """A table of new groups by the column of groups and the targets that the prior knows."""
    task, height = parts[0].info["task"], rows.frame.height
    notes = list(rows.notes)
    if task in rows.frame.columns:
        group, names = groups_of(rows, task)
        notes += _learned_from(parts[0], names, rows.where)
    else:
        group, names = np.zeros(height, int), None
        notes.append(f"{rows.where}: no column {task!r}, so all rows are taken as one group.")

    known = np.zeros((height, len(parts)), bool)
    for i, part in enumerate(parts):
        target = part.info["target"]
        if target in rows.frame.columns:
            known[:, i] = ~is_missing(rows.frame[target], rows.where, part.units is not None)
        else:
            notes.append(f"{rows.where}: no column {target!r}, so no value of it was observed.")
    found = Split(rows, names, group, known)
    notes += _alone(found)
    return dataclasses.replace(found, notes=tuple(notes))


def is_missing(series: pl.Series, where: str, number: bool = False) -> np.ndarray:
    """Which values are missing: of numbers, also of those written as text."""
    if number:
        return np.isnan(as_numbers(series, where))
    if is_text(series):
        return (series.cast(pl.String).str.strip_chars().fill_null("") == "").to_numpy()
    return absent(series)


def groups_of(rows: Rows, task: str) -> tuple[np.ndarray, pl.Series]:
    """The number of each row's group in order of appearance, and the names of the groups."""
    series = rows.frame[task]
    missing = is_missing(series, rows.where)
    if missing.any():
        row = int(np.flatnonzero(missing)[0]) + 1
        raise InputError(
            f"{rows.where}: column {task!r}, row {row}: no value. It names the group of the row."
        )
    if series.dtype == pl.String:
        series = series.str.strip_chars()
    names = series.unique(maintain_order=True)
    index = pl.DataFrame([names, pl.Series("number", np.arange(len(names)))])
    found = series.to_frame().join(index, on=task, how="left", maintain_order="left")
    return found.to_series(1).to_numpy(), names


def need_one(rows: Rows, task: str, use: str) -> None:
    """The rows are of one group, as far as the table says."""
    if task not in rows.frame.columns or rows.frame.height == 0:
        return
    count = rows.frame[task].drop_nulls().n_unique()
    if count > 1:
        raise InputError(
            f"{rows.where}: holds {count} values of {task!r}; predictions are for one group. {use}"
        )


def _learned_from(trained: Trained, names: pl.Series, where: str) -> list[str]:
    """A note on groups that the prior was trained on, by their names."""
    again = trained.seen(names)
    if not again:
        return []
    return [
        f"{where}: the prior has learned from {len(again)} of the {len(names)} groups, by their "
        f"names ({_listed(again)}). They are taken as new: only the rows given here count."
    ]


def _alone(found: Split) -> list[str]:
    """Notes on groups of which nothing was observed, and on those with nothing to predict."""
    if found.names is None or not found.asked.any():
        return []
    notes, every = [], np.arange(found.count)
    observed = np.isin(every, found.group[found.known.any(axis=1)])
    asked = np.isin(every, found.group[found.asked])
    for none, words in (
        (~observed, "no observed row: what is said of them is what the prior says of any group"),
        (~asked, "no row without the target: nothing is said of them"),
    ):
        if none.any():
            names = _listed(found.names.filter(pl.Series(none)).cast(pl.String).to_list())
            some = f"{none.sum()} of {found.count} groups have"
            notes.append(f"{found.rows.where}: {some} {words} ({names}).")
    return notes


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
