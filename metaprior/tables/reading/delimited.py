"""Text with a row a line: what separates its columns, and their fields exactly as written."""

import csv
import dataclasses
import itertools
import re

import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.tables.reading.separators import (
    END,
    NOTHING,
    NUMBER,
    SEPARATORS,
    decimal_of,
    first_records,
    records,
    separator_of,
)

_LONG = f"a field has more than {csv.field_size_limit():,} characters; is a quote missing?"
SAMPLE = 65_536  # characters, by which the separator is found, or more where lines are long
_LINES = 10
LARGE = 1_000_000  # characters; longer text is read by polars where it is plain

_SEP_LINE = re.compile(r'"?sep=([^\w"])"?\s*', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Fields:
    """What a text says.

    Args:
        names: of the columns, as written but without blanks around them; "" where there is none.
        frame: a column of text for each name, in order, called `0`, `1`, …
        notes: what was made of the text.
        decimal: the decimal mark where the fields make it plain, else `None`.
    """

    names: list[str]
    frame: pl.DataFrame
    notes: tuple[str, ...]
    decimal: str | None


@dataclasses.dataclass
class _Head:
    """The lines before the names: where the rest begins, and what was said there."""

    start: int = 0
    lines: int = 0
    comments: list[str] = dataclasses.field(default_factory=list)
    separator: str | None = None


def fields(text: str, where: str) -> Fields:
    """The fields of a text.

    Raises:
        InputError: names the line that cannot be read.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    head = _head(text)
    text = text[head.start :]
    if not text:
        raise InputError(f"{where}: the file is empty.")
    sample = _sample(text)
    try:
        separator = head.separator or separator_of(sample, where, head.lines)
        names, notes, end = _names(sample, separator, head, where)
    except csv.Error:
        raise InputError(f"{where}: from line {head.lines + 1} on: {_LONG}") from None

    reading = _Reading(separator, where, head.lines + text.count("\n", 0, end), names)
    body = text[end:]
    frame = _plain(body, reading) if len(body) > LARGE else None
    if frame is None:
        frame = reading.rows(body)
    if reading.names_rows:
        names = ["", *names]
        notes.append("the first column has no name in the first line, as R writes row names.")
    decimal = decimal_of(sample, separator)
    return Fields(names, frame, tuple(_how(separator, decimal) + notes + reading.notes()), decimal)


def _head(text: str) -> _Head:
    """Blank lines, comments and `sep=;` before the names of the columns."""
    head = _Head()
    for line in re.finditer(r"[^\n]*(\n|$)", text):
        said = line[0].strip()
        if head.lines == 0 and (told := _SEP_LINE.fullmatch(line[0])):
            head.separator = told[1]
        elif said.startswith("#"):
            head.comments.append(line[0].strip("\n"))
        elif said:
            break
        head.lines += 1
        head.start = line.end()
        if line.end() == len(text):
            break
    return head


def _sample(text: str) -> str:
    """Whole lines from the beginning, of which the first may be very long."""
    end = 0
    for _ in range(_LINES):
        end = text.find("\n", end) + 1
        if not end:
            return text
    further = text.rfind("\n", 0, SAMPLE) + 1
    return text[: max(end, further)]


def _commented(comment: str, separator: str) -> list[str]:
    """A comment as names of columns."""
    rows = first_records(comment.lstrip("# "), separator)
    return stripped(rows[0]) if rows else []


def stripped(names: list[str]) -> list[str]:
    """Names without blanks around them, and without the mark of UTF-8."""
    return [name.strip().removeprefix("\ufeff") for name in names]


def _names(
    sample: str, separator: str, head: _Head, where: str
) -> tuple[list[str], list[str], int]:
    """The names of the columns, notes, and where the rows begin."""
    rows = list(itertools.islice(records(sample, separator), 2))
    if len(rows) < 2:
        raise InputError(f"{where}: line {head.lines + 1} opens a quote that nothing closes.")
    names, notes = stripped(rows[0][1]), []
    end = 0
    for _ in range(rows[1][0] - 1):  # the lines of the first row
        end = sample.find("\n", end) + 1 or len(sample)

    numbers = [name for name in names if NUMBER.fullmatch(name)]
    if head.comments and numbers:
        commented = _commented(head.comments[-1], separator)
        if len(commented) == len(names) and not any(map(NUMBER.fullmatch, commented)):
            said = "the names of the columns are those of the line that begins with '#'."
            return commented, [said], 0
    if head.comments:
        many = len(head.comments)
        lines = "1 line" if many == 1 else f"{many} lines"
        notes.append(f"{lines} that begin with '#' were left out.")
    if len(numbers) == len(names) or any(not name.lstrip("+-").isdecimal() for name in numbers):
        notes.append(
            f"the first line was taken as names of columns, and holds numbers "
            f"({numbers[0]}): does the table lack a line of names?"
        )
    return names, notes, end


def _how(separator: str, decimal: str | None) -> list[str]:
    """A note where a file is not written as usual."""
    between = (
        ""
        if separator in (",", NOTHING)
        else f"{SEPARATORS.get(separator, repr(separator))} between columns"
    )
    mark = "',' as decimal mark" if decimal == "," else ""
    said = " and ".join(filter(None, (between, mark)))
    return [f"read with {said}."] if said else []


class _Reading:
    """Reads rows of known width, and remembers what it left out or filled."""

    def __init__(self, separator: str, where: str, lines: int, names: list[str]):
        self.separator, self.where, self.lines, self.names = separator, where, lines, names
        self.width = len(names)
        self.names_rows = False
        self.blank: list[int] = []
        self.short: list[int] = []
        self.comments: list[int] = []
        self.again: list[int] = []

    def rows(self, body: str) -> pl.DataFrame:
        """All rows, by the rules of CSV."""
        found = self._numbered(body, self.lines)
        if self._has_row_names([row for _, row in found]):
            self.names_rows = True
            self.width += 1
        kept = [self._fitted(line, row) for line, row in found]
        columns = zip(*kept) if kept else [()] * self.width
        return pl.DataFrame(
            {str(i): column for i, column in enumerate(columns)},
            schema={str(i): pl.String for i in range(self.width)},
        )

    def _has_row_names(self, rows: list[list[str]]) -> bool:
        """Whether each row has a name before its fields, as R writes: a number or a text."""
        if not rows or not all(len(row) == self.width + 1 for row in rows):
            return False
        first = [row[0].strip() for row in rows]
        counted = first == [str(i + 1) for i in range(len(first))]
        return counted or (len(set(first)) == len(first) and not any(map(NUMBER.fullmatch, first)))

    def _numbered(self, body: str, before: int) -> list[tuple[int, list[str]]]:
        """Rows that hold something, each with the number of its first line."""
        found: list[tuple[int, list[str]]] = []
        line, row = 0, []
        try:
            for line, row in records(body, self.separator):
                if not any(map(str.strip, row)):
                    self.blank.append(before + line)
                elif row[0].startswith("#") and len(row) != self.width:
                    self.comments.append(before + line)
                elif self.width > 1 and stripped(row) == self.names:
                    self.again.append(before + line)
                else:
                    found.append((before + line, row))
        except csv.Error:
            raise InputError(f"{self.where}: from line {before + line + 1} on: {_LONG}") from None
        if row != [END]:
            raise InputError(
                f"{self.where}: line {before + line} opens a quote that nothing closes."
            )
        return found[:-1]

    def _fitted(self, line: int, row: list[str]) -> list[str]:
        if len(row) == self.width:
            return row
        if len(row) < self.width:
            self.short.append(line)
            return row + [""] * (self.width - len(row))
        if any(map(str.strip, row[self.width :])):
            mark = SEPARATORS.get(self.separator, repr(self.separator))
            raise InputError(
                f"{self.where}: line {line} has {len(row)} fields and the first line has "
                f"{self.width}; text that holds {mark} needs quotes around it."
            )
        return row[: self.width]

    def notes(self) -> list[str]:
        """What was left out or filled."""
        said = []
        if self.blank:
            said.append(f"left out without values: {_lines(self.blank)}.")
        if self.comments:
            said.append(f"left out as comments, which begin with '#': {_lines(self.comments)}.")
        if self.again:
            said.append(
                f"left out, as the names of columns stand there again: {_lines(self.again)}."
            )
        if self.short:
            said.append(f"fewer fields than names, the rest is missing: {_lines(self.short)}.")
        return said


def _lines(numbers: list[int]) -> str:
    """`line 3`, `lines 3 and 5`, `lines 3, 5, 7 and 12 more`."""
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    shown = [str(number) for number in numbers[:3]]
    more = len(numbers) - len(shown)
    last = f"{more} more" if more else shown.pop()
    return f"lines {', '.join(shown)} and {last}"


def _outside(text: str, separator: str) -> str | None:
    """What stands outside of quotes; `None` where a quote is not at an end of a field."""
    if '"' not in text:
        return text
    signs = np.frombuffer(f"\n{text}\n".encode(), np.uint8)
    quotes = np.flatnonzero(signs == ord('"'))
    # A quote beside another one is a quote within a field.
    ends = [ord(separator), ord("\n"), ord('"')]
    before, behind = signs[quotes[::2] - 1], signs[quotes[1::2] + 1]
    if np.isin(before, ends).all() and np.isin(behind, ends).all():
        return "".join(text.split('"')[::2])
    return None


def _plain(body: str, reading: _Reading) -> pl.DataFrame | None:
    """Rows of a long text by polars; `None` if there is anything that only slow reading can tell.

    polars fills short rows without a word and has its own ideas of quotes, so the separators
    outside of quotes are counted.
    """
    separator, width = reading.separator, reading.width
    if (
        separator == " "
        or not separator.isascii()
        or "\n#" in body
        or body.startswith("#")
        or f'{separator} "' in body
    ):
        return None
    whole, body = body, body.rstrip("\n")
    outside = _outside(body, separator)
    if outside is None:
        return None
    try:
        frame = pl.read_csv(
            body.encode(),
            has_header=False,
            separator=separator,
            schema={str(i): pl.String for i in range(width)},
            empty_string_is_null=False,
        )
    except pl.exceptions.PolarsError:
        return None
    if outside.count(separator) != frame.height * (width - 1):
        return None
    if outside.count("\n") + 1 != frame.height:
        return None
    if frame.select(pl.all_horizontal(pl.all().str.strip_chars() == "").any()).item():
        return None
    if (frame["0"].str.strip_chars() == reading.names[0]).any():  # the names again, perhaps
        return None
    last = reading.lines + body.count("\n") + 1
    reading.blank += range(last + 1, last + whole[len(body) :].count("\n"))
    return frame
