"""Rows of a table, with where they came from."""

import dataclasses
import difflib
from collections.abc import Sequence

import polars as pl

from metaprior.errors import InputError
from metaprior.tables.reading.names import held, is_nested

_SHOWN = 30  # names of columns in a message


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a table and where they came from.

    Args:
        frame: the rows.
        where: what messages about them begin with: the file's name, or "support" and the like.
        notes: what was made of the source, and what was left out.
        aside: columns that are no features unless someone names them: those that only count the
            rows, those of lists.
        decimal: the decimal mark of numbers in text, where the source makes it plain.
    """

    frame: pl.DataFrame
    where: str
    notes: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    decimal: str | None = None

    def need(self, names: Sequence[str]) -> None:
        """All of `names` are columns of single values, or an error."""
        need_columns(self.frame, names, self.where, self.notes)


def need_columns(
    frame: pl.DataFrame, names: Sequence[str], where: str, notes: Sequence[str] = ()
) -> None:
    """All of `names` are columns of single values, or an error that says which there are.

    Args:
        frame: the table.
        names: of the columns.
        where: what messages call the table.
        notes: what was made of its source, which may explain why a column is not there.
    """
    for name in names:
        if name not in frame.columns:
            how = f" (Of the table: {' '.join(notes)})" if notes else ""
            raise InputError(f"{where}: no column {name!r}; {_there(name, frame.columns)}{how}")
        if is_nested(frame[name].dtype):
            raise InputError(
                f"{where}: column {name!r} holds {held(frame[name].dtype)}; "
                "columns hold numbers, text or dates."
            )


def _there(name: str, columns: list[str]) -> str:
    """Which column may have been meant, and which there are."""
    if not columns:
        return "there are no columns."
    alike = {other.casefold().strip(): other for other in columns}
    near = difflib.get_close_matches(name.casefold().strip(), alike, 1)
    meant = f"did you mean {alike[near[0]]!r}? The columns" if near else "the columns"
    # Quoted where a space at either end would be overlooked.
    shown = [repr(other) if other != other.strip() else other for other in columns[:_SHOWN]]
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return f"{meant} are {', '.join(shown)}{more}."
