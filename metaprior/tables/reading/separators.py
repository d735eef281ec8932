"""What separates the columns of a text, and which decimal mark its numbers have."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from metaprior.errors import InputError

SEPARATORS = {",": "','", "\t": "tabs", ";": "';'", "|": "'|'", " ": "spaces"}
NOTHING = "\x1f"  # separates the columns of a file that has one
END = "\x1eend"  # a line put below a text

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_COMMA = re.compile(r"[-+]?(\d{1,3}(\.\d{3})+|\d*),\d+([eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}((,\d{3})+(\.\d+)?|(\.\d{3})+)")


def records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of text by the rules of CSV, each with the number of its first line, from 1.

    The last row is `[END]` alone, unless a quote before it was never closed.
    """
    if separator == " ":
        text = re.sub(r"[ \t]+", " ", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))
    spaced = separator == " " or f'{separator} "' in text
    text += END if text.endswith("\n") or not text else "\n" + END
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=spaced)
    line = 1
    for row in reader:
        yield line, row
        line = reader.line_num + 1


def first_records(text: str, separator: str) -> list[list[str]]:
    """The rows of a sample that hold something; not the last one where that is cut off."""
    try:
        rows = [row for _, row in records(text, separator)]
    except csv.Error:
        return []
    return [row for row in rows[:-1] if any(map(str.strip, row))]


def separator_of(sample: str, where: str, lines: int) -> str:
    """What stands between the columns: the mark by which most rows have as many as the names."""
    best, found = (0.0, 0), None
    for mark in SEPARATORS:
        rows = first_records(sample, mark)
        if not rows or len(rows[0]) < 2 or (mark == " " and not _space(rows, sample)):
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


def _space(rows: list[list[str]], sample: str) -> bool:
    """Whether blanks separate columns: all rows alike, and one column of numbers, or all quoted."""
    width = len(rows[0])
    if (
        len(rows) < 2
        or len({len(row) for row in rows[1:]}) > 1
        or len(rows[1]) - width not in (0, 1)
    ):
        return False
    if sample.count('" "') >= len(rows):
        return True
    return any(_is_numeric(column) for column in zip(*rows[1:]))


def _is_numeric(fields: Iterable[str]) -> bool:
    """Whether fields are numbers, or missing as statisticians write it."""
    seen = [field for field in fields if field not in ("NA", "NaN", "nan", ".", "?", "-")]
    return bool(seen) and all(map(NUMBER.fullmatch, seen))


def _need_names(sample: str, where: str, lines: int) -> None:
    """A first line of one field above rows of several is a title, not names."""
    for mark in SEPARATORS:
        rows = first_records(sample, mark)
        width, count = Counter(map(len, rows[1:])).most_common(1)[0] if len(rows) > 2 else (0, 0)
        if (
            width < 2
            or count < 0.9 * (len(rows) - 1)
            or (mark == " " and not _space(rows[1:], sample))
        ):
            continue
        if mark == "," and all(_COMMA.fullmatch(",".join(row).strip()) for row in rows[1:]):
            continue  # one column of numbers with a decimal comma
        raise InputError(
            f"{where}: line {lines + 1} has 1 field and the lines below it have {width}; the first "
            "line must hold the names of the columns. Remove what stands above them."
        )


def decimal_of(sample: str, separator: str) -> str | None:
    """The decimal mark, where some fields have one and no field has another."""
    comma = point = False
    for row in first_records(sample, separator)[1:]:
        for field in map(str.strip, row):
            if "," in field and _COMMA.fullmatch(field):
                comma |= separator == ";" or not _THOUSANDS.fullmatch(field)
            elif "." in field and NUMBER.fullmatch(field) and not _THOUSANDS.fullmatch(field):
                point = True
    if comma == point:
        return None
    return "," if comma else "."
