"""Numbers as people write them: decimal commas, marks of thousands, units, bounds."""

import dataclasses
from typing import Literal

import polars as pl

Decimal = Literal[".", ",", "both"]

_MINUS = "−–‒﹣－"  # what typesetters and spreadsheets write for "-"
_MONEY = r"[$€£¥₹₽₩]|R\$|kr\.?|Rs\.?|CHF|EUR|GBP|JPY|USD"
# A bound, a sign, a currency, digits with marks between, a power of ten, a unit.
_PATTERN = (
    r"^(?P<bound>[<>≤≥~≈]=?)?\s*(?P<sign>[+-])?\s*"
    rf"(?P<before>{_MONEY})?\s*(?P<inner>[+-])?\s*"
    r"(?P<body>[.,]?[0-9](?:[0-9.,'’_\s]*[0-9])?[.,]?)"
    r"(?P<power>[eE][+-]?[0-9]+)?"
    r"\s*(?P<after>[^0-9\s.,:;/\\<>()'\x22+\-_][^:;<>()'\x22]{0,11})?$"
)
_BLANK_THOUSANDS = r"^[0-9]{1,3}(?:[\s'’_][0-9]{3})+(?:[.,][0-9]+)?$"
_THREE = r"^[1-9][0-9]{{0,2}}{mark}[0-9]{{3}}$"


@dataclasses.dataclass(frozen=True)
class Numeral:
    """How the numbers of a column are written.

    Args:
        decimal: the decimal mark; `"both"`: a point in some cells and a comma in others.
        unit: what stands before or after them in all cells that have a unit, such as `kg`.
    """

    decimal: Decimal = "."
    unit: str = ""


def _plain(text: pl.Series) -> pl.Series:
    """Without what spreadsheets add: a quote before, `="5"`, and typeset minus signs."""
    text = text.str.replace(r'^="(.*)"$', "${1}").str.replace(r"^['’]([^'’]*)$", "${1}")
    return text.str.replace_all(rf"[{_MINUS}]", "-").str.strip_chars()


def parts(text: pl.Series) -> pl.DataFrame:
    """Bound, sign, body, power and unit of each cell; the body is null where it is no number."""
    found = _plain(text).str.extract_groups(_PATTERN).struct.unnest()
    body = pl.col("body")
    # Blanks and apostrophes between digits are marks of thousands, or there are two numbers.
    spaced = body.str.contains(r"[\s'’_]")
    closed = pl.when(body.str.contains(_BLANK_THOUSANDS)).then(body.str.replace_all(r"[\s'’_]", ""))
    unit = pl.coalesce(pl.col("before"), pl.col("after")).fill_null("")
    return found.select(
        pl.col("bound").fill_null(""),
        ((pl.col("sign") == "-") | (pl.col("inner") == "-")).fill_null(False).alias("minus"),
        pl.when(spaced).then(closed).otherwise(body).alias("body"),
        pl.col("power").fill_null(""),
        unit.str.strip_chars(" .").alias("unit"),
    )


def votes(bodies: pl.Series) -> tuple[bool, bool]:
    """Whether some numbers can only have a decimal comma, and whether some only a decimal point."""
    dots, commas = bodies.str.count_matches(r"\."), bodies.str.count_matches(",")
    last = bodies.str.extract(r"([.,])[^.,]*$")
    three_comma = bodies.str.contains(_THREE.format(mark=","))
    three_dot = bodies.str.contains(_THREE.format(mark=r"\."))
    mixed = (dots > 0) & (commas > 0)
    comma = mixed & (last == ",") | (dots > 1) | (commas == 1) & (dots == 0) & ~three_comma
    point = mixed & (last == ".") | (commas > 1) | (dots == 1) & (commas == 0) & ~three_dot
    return bool(comma.any()), bool(point.any())


def thousands(cells: pl.Series) -> bool:
    """Whether every point in the cells could be a mark of thousands, and there is one."""
    dotted = cells.filter(cells.str.contains(r"\."))
    return len(dotted) > 0 and bool(
        dotted.str.contains(r"^[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+$").all()
    )


def decided(bodies: pl.Series, hint: Decimal | None) -> tuple[Decimal, str]:
    """The decimal mark of a column, and what a user should know of the choice.

    Args:
        bodies: digits and marks, as `parts` finds them.
        hint: the mark of the table's other columns, if they agree on one.
    """
    bodies = bodies.drop_nulls()
    comma, point = votes(bodies)
    if comma and point:
        return "both", "it has decimal commas and decimal points; both are read as that"
    if comma:
        return ",", ""
    if point:
        return ".", ""
    thousands = bodies.filter(bodies.str.contains(_THREE.format(mark=",")))
    dotted = bodies.filter(bodies.str.contains(_THREE.format(mark=r"\.")))
    if hint == "," and len(dotted):
        return ",", f"{dotted[0]!r} is read as {dotted[0].replace('.', '')}, as in other columns"
    if hint == "," and len(thousands):
        return ",", f"{thousands[0]!r} is read with a decimal comma, as in other columns"
    if len(thousands):
        first = thousands[0]
        return ".", f"{first!r} is read as {first.replace(',', '')}"
    return ".", ""


def values(found: pl.DataFrame, how: Numeral) -> pl.Series:
    """Cells as numbers, null where a cell is not written as `how` says."""
    body = pl.col("body")
    if how.decimal == "both":
        one = body.str.count_matches("[.,]") <= 1
        digits = pl.when(one).then(body.str.replace(",", "."))
    else:
        mark, group = (r"\.", ",") if how.decimal == "." else (",", r"\.")
        grouped = body.str.contains(rf"^[0-9]{{1,3}}(?:{group}[0-9]{{3}})+(?:{mark}[0-9]*)?$")
        single = body.str.contains(rf"^[0-9]*{mark}?[0-9]*$")
        digits = (
            pl.when(grouped)
            .then(body.str.replace_all(group, ""))
            .when(single)
            .then(body)
            .otherwise(None)
        )
        digits = digits.str.replace(",", ".", literal=True)
    # A unit that stands in no other cell is another quantity; without one it is the same.
    same = (pl.col("unit") == "") | (pl.col("unit").str.to_lowercase() == how.unit.lower())
    number = (digits + pl.col("power")).cast(pl.Float64, strict=False)
    signed = pl.when(pl.col("minus")).then(-number).otherwise(number)
    return found.select(pl.when(same).then(signed).alias("value"))["value"]


def numbers(text: pl.Series, how: Numeral) -> pl.Series:
    """Written numbers, null where a cell is none; also inf and such, which have no digits."""
    found = values(parts(text), how)
    if how.decimal == ",":
        return found
    return found.zip_with(found.is_not_null(), text.cast(pl.Float64, strict=False))
