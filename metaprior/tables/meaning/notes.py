"""Notes on columns: at most a few lines, and one for columns that share what is said of them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

MANY = 4  # columns with the same note are one line from here on
_NAMED = 3  # of them


class Note(NamedTuple):
    """What is said of a column: without a capital letter, ending in a full stop."""

    column: str
    said: str


def lines(notes: Iterable[Note]) -> tuple[str, ...]:
    """One line for each column, or for many columns of which the same is said."""
    same: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        same.setdefault(note.said, []).append(note.column)
    found: dict[tuple[str, ...], list[str]] = {}
    for said, columns in same.items():
        if len(columns) >= MANY:
            found.setdefault(tuple(columns), []).append(said)
        else:
            for column in columns:
                found.setdefault((column,), []).append(said)
    return tuple(f"{called(names)}: {_joined(said)}" for names, said in found.items())


def called(names: Sequence[str]) -> str:
    """A column by its name, or how many there are with the first of their names."""
    if len(names) == 1:
        return names[0]
    more = ", …" if len(names) > _NAMED else ""
    return f"{len(names)} columns ({', '.join(names[:_NAMED])}{more})"


def _joined(said: Sequence[str]) -> str:
    """Sentences in a row."""
    first, *rest = said
    return " ".join([first, *(f"{one[:1].upper()}{one[1:]}" for one in rest)])


def count(number: int, one: str, several: str | None = None) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def some(words: Sequence[str], most: int = 3) -> str:
    """The first of some words, quoted, and how many more there are."""
    shown = ", ".join(map(repr, words[:most]))
    return shown + (f" and {len(words) - most} more" if len(words) > most else "")
