"""Text with a row a line: what separates its columns, and their fields exactly as written."""

import csv
import dataclasses
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator

import polars as pl

from metaprior.errors import InputError

SEPARATORS = {",": "','", "\t": "tabs", ";": "';'", "|": "'|'", " ": "spaces"}
NOTHING = "\x1f"  # separates the columns of a file that has one
_LONG = f"a field has more than {csv.field_size_limit():,} characters; is a quote missing?"
_END = "\x1eend"  # a line put below a text
SAMPLE = 65_536  # characters, by which the separator is found, or more where lines are long
_LINES = 10
LARGE = 1_000_000  # characters; longer text is read by polars where it is plain

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_COMMA = re.compile(r"[-+]?(\d{1,3}(\.\d{3})+|\d*),\d+([eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}((,\d{3})+(\.\d+)?|(\.\d{3})+)")
_SEP_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


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
        separator = head.separator or _separator(sample, where, head.lines)
        names, notes, end = _names(sample, separator, head, where)
    except csv.Error:
        raise InputError(f"{where}: from line {head.lines + 1} on: {_LONG}") from None

    reading = _Reading(separator, where, head.lines + text.count("\n", 0, end), len(names))
    body = text[end:]
    frame = _plain(body, reading) if len(body) > LARGE else None
    if frame is None:
        frame = reading.rows(body)
    if reading.names_rows:
        names = ["", *names]
        notes.append("the first column has no name in the first line, as R writes row names.")
    decimal = _decimal(sample, separator)
    return Fields(names, frame, tuple(_how(separator, decimal) + notes + reading.notes()), decimal)


def _head(text: str) -> _Head:
    """Blank lines, comments and `sep=;` before the names of the columns."""
    head = _Head()
    for line in re.finditer(r"[^\n]*(\n|$)", text):
        said = line[0].strip()
        if head.lines == 0 and (told := _SEP_LINE.fullmatch(said)):
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


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of text by the rules of CSV, each with the number of its first line, from 1.

    The last row is `[_END]` alone, unless a quote before it was never closed.
    """
    if separator == " ":
        text = re.sub(r"[ \t]+", " ", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))
    spaced = separator == " " or f'{separator} "' in text
    text += _END if text.endswith("\n") or not text else "\n" + _END
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=spaced)
    line = 1
    for row in reader:
        yield line, row
        line = reader.line_num + 1


def _first_records(text: str, separator: str) -> list[list[str]]:
    """The rows of a sample that hold something; not the last one where that is cut off."""
    try:
        rows = [row for _, row in _records(text, separator)]
    except csv.Error:
        return []
    return [row for row in rows[:-1] if any(map(str.strip, row))]


def _separator(sample: str, where: str, lines: int) -> str:
    """What stands between the columns: the mark by which most rows have as many as the names."""
    best, found = (0.0, 0), None
    for mark in SEPARATORS:
        rows = _first_records(sample, mark)
        if not rows or len(rows[0]) < 2 or (mark == " " and not _space(rows)):
            continue
        widths = [len(row) for row in rows[1:]]
        same = max(widths.count(len(rows[0])), widths.count(len(rows[0]) + 1))
        share = same / len(widths) if widths else 1.0
        if mark == " " and best[0] > 0.9:
            continue  # blanks are in many texts
        if (round(share, 2), len(rows[0])) > best:
            best, found = (round(share, 2), len(rows[0])), mark
    if found is None:
        _need_names(sample, where, lines)
    return found or NOTHING


def _space(rows: list[list[str]]) -> bool:
    """Whether blanks separate columns: all rows alike, and one column at least of numbers."""
    width = len(rows[0])
    if (
        len(rows) < 2
        or len({len(row) for row in rows[1:]}) > 1
        or len(rows[1]) - width not in (0, 1)
    ):
        return False
    return any(all(map(_NUMBER.fullmatch, column)) for column in zip(*rows[1:]))


def _need_names(sample: str, where: str, lines: int) -> None:
    """A first line of one field above rows of several is a title, not names."""
    for mark in SEPARATORS:
        rows = _first_records(sample, mark)
        width, count = Counter(map(len, rows[1:])).most_common(1)[0] if len(rows) > 2 else (0, 0)
        if width < 2 or count < 0.9 * (len(rows) - 1) or (mark == " " and not _space(rows[1:])):
            continue
        if mark == "," and all(_COMMA.fullmatch(",".join(row).strip()) for row in rows[1:]):
            continue  # one column of numbers with a decimal comma
        raise InputError(
            f"{where}: line {lines + 1} has 1 field and the lines below it have {width}; the first "
            "line must hold the names of the columns. Remove what stands above them."
        )


def _commented(comment: str, separator: str) -> list[str]:
    """A comment as names of columns."""
    rows = _first_records(comment.lstrip("# "), separator)
    return _stripped(rows[0]) if rows else []


def _stripped(names: list[str]) -> list[str]:
    return [name.strip().removeprefix("\ufeff") for name in names]


def _names(
    sample: str, separator: str, head: _Head, where: str
) -> tuple[list[str], list[str], int]:
    """The names of the columns, notes, and where the rows begin."""
    rows = list(itertools.islice(_records(sample, separator), 2))
    if len(rows) < 2:
        raise InputError(f"{where}: line {head.lines + 1} opens a quote that nothing closes.")
    names, notes = _stripped(rows[0][1]), []
    end = 0
    for _ in range(rows[1][0] - 1):  # the lines of the first row
        end = sample.find("\n", end) + 1 or len(sample)

    numbers = [name for name in names if _NUMBER.fullmatch(name)]
    if head.comments and numbers:
        commented = _commented(head.comments[-1], separator)
        if len(commented) == len(names) and not any(map(_NUMBER.fullmatch, commented)):
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


def _decimal(sample: str, separator: str) -> str | None:
    """The decimal mark, where some fields have one and no field has another."""
    comma = point = False
    for row in _first_records(sample, separator)[1:]:
        for field in map(str.strip, row):
            if "," in field and _COMMA.fullmatch(field):
                comma |= separator == ";" or not _THOUSANDS.fullmatch(field)
            elif "." in field and _NUMBER.fullmatch(field) and not _THOUSANDS.fullmatch(field):
                point = True
    if comma == point:
        return None
    return "," if comma else "."


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

    def __init__(self, separator: str, where: str, lines: int, width: int):
        self.separator, self.where, self.lines, self.width = separator, where, lines, width
        self.names_rows = False
        self.blank: list[int] = []
        self.short: list[int] = []
        self.comments: list[int] = []

    def rows(self, body: str) -> pl.DataFrame:
        """All rows, by the rules of CSV."""
        records = self._numbered(body, self.lines)
        if self._has_row_names([row for _, row in records]):
            self.names_rows = True
            self.width += 1
        kept = [self._fitted(line, row) for line, row in records]
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
        return counted or (len(set(first)) == len(first) and not any(map(_NUMBER.fullmatch, first)))

    def _numbered(self, body: str, before: int) -> list[tuple[int, list[str]]]:
        """Rows that hold something, each with the number of its first line."""
        records: list[tuple[int, list[str]]] = []
        line, row = 0, []
        try:
            for line, row in _records(body, self.separator):
                if not any(map(str.strip, row)):
                    self.blank.append(before + line)
                elif row[0].startswith("#") and len(row) != self.width:
                    self.comments.append(before + line)
                else:
                    records.append((before + line, row))
        except csv.Error:
            raise InputError(f"{self.where}: from line {before + line + 1} on: {_LONG}") from None
        if row != [_END]:
            raise InputError(
                f"{self.where}: line {before + line} opens a quote that nothing closes."
            )
        return records[:-1]

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


def _plain(body: str, reading: _Reading) -> pl.DataFrame | None:
    """Rows of a long text by polars; `None` if there is anything that only slow reading can tell.

    polars fills short rows without a word and has its own ideas of quotes, so the separators
    outside of quotes are counted.
    """
    separator, width = reading.separator, reading.width
    if separator == " " or "\n#" in body or body.startswith("#") or f'{separator} "' in body:
        return None
    whole, body = body, body.rstrip("\n")
    outside = "".join(body.split('"')[::2]) if '"' in body else body
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
    last = reading.lines + body.count("\n") + 1
    reading.blank += range(last + 1, last + whole[len(body) :].count("\n"))
    return frame
