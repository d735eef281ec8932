"""What a column means: numbers, dates, hours, truth values or names.

Cells of text files come as they were written, those of frames with the types of their library.
What each column is, is decided once (`understand`) and saved with the prior; `apply` reads the
columns of later tables the same way.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import polars as pl

from metaprior.errors import InputError
from metaprior.tables.meaning import dates, numerals
from metaprior.tables.meaning.notes import Note
from metaprior.tables.reading.names import is_nested
from metaprior.tables.rows import Rows

# Cells that hold no value, in columns of every kind.
MARKS = (
    *("", "NA", "N/A", "n/a", "na", "#N/A", "<NA>", "NaN", "nan", "NaT"),
    *("null", "NULL", "Null", "None", "-", ".", "?"),
)
KINDS = ("number", "date", "hours", "truth", "name", "id", "other")
KEEP_NA = "--keep-na (in Python keep_na=True)"
TRUE, FALSE = "true", "false"


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a column is read.

    Args:
        name: `"number"`, `"date"`, `"hours"`, `"truth"`, `"name"`, `"id"` (names that hardly
            repeat), or `"other"` (lists and such).
        decimal, unit: of numbers; see `Numeral`.
        order: of day and month in dates.
        lax: whether cells that cannot be read are missing; otherwise they are errors later.
        keep_na: whether NA and its like are names, in columns of names.
        missing: more cells that hold no value.
    """

    name: str
    decimal: numerals.Decimal = "."
    unit: str = ""
    order: str = "dmy"
    lax: bool = False
    keep_na: bool = False
    missing: tuple[str, ...] = ()

    @property
    def numeral(self) -> numerals.Numeral:
        """How numbers are written."""
        return numerals.Numeral(self.decimal, self.unit)

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the file of a prior: only what differs from the defaults."""
        default = Kind(self.name)
        found = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(default, field.name)
        }
        if self.missing:
            found["missing"] = list(self.missing)
        return {"name": self.name, **found}

    @staticmethod
    def of_json(saved: Mapping[str, Any]) -> "Kind":
        """What `to_json` gave.

        Raises:
            KeyError: there is no such kind.
        """
        if saved["name"] not in KINDS:
            raise KeyError(saved["name"])
        rest: dict[str, Any] = {name: saved[name] for name in saved if name != "missing"}
        return Kind(**rest, missing=tuple(saved.get("missing", ())))


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a user says of the columns.

    Args:
        numeric, categorical, date: names of columns of that kind. A date can say its order,
            `"day:mdy"`.
        keep_na: whether NA and its like are names in columns of names.
        missing: more cells that hold no value, `"-999"` in all columns or `"x=-999"` in one.
        ordered: the classes of the target from the lowest to the highest, where they have an order.
    """

    numeric: Sequence[str] = ()
    categorical: Sequence[str] = ()
    date: Sequence[str] = ()
    keep_na: bool = False
    missing: Sequence[str] = ()
    ordered: Sequence[str] = ()

    def dates(self) -> dict[str, str]:
        """Columns of dates with their order, empty where it is not said."""
        found = {}
        for text in self.date:
            name, mark, order = text.rpartition(":")
            if mark and order in ("dmy", "mdy", "ymd"):
                found[name] = order
            else:
                found[text] = ""
        return found

    def absent(self, column: str) -> tuple[str, ...]:
        """What holds no value in a column, besides `MARKS`."""
        found = []
        for text in self.missing:
            name, mark, value = text.rpartition("=")
            if not mark or name == column:
                found.append(value)
        return tuple(found)

    def check(self, rows: Rows) -> None:
        """The columns are there, and each is said to be one thing."""
        named = [*self.numeric, *self.categorical, *self.dates()]
        named += [text.rpartition("=")[0] for text in self.missing if "=" in text]
        rows.need(named)
        kinds = [*dict.fromkeys(self.numeric), *dict.fromkeys(self.categorical), *self.dates()]
        for name in kinds:
            if kinds.count(name) > 1:
                raise InputError(
                    f"{rows.where}: the column {name!r} is said to be of two kinds; name it once "
                    "in --numeric, --categorical and --date."
                )


def apply(rows: Rows, kinds: Mapping[str, Kind]) -> tuple[Rows, list[Note]]:
    """A later table, its columns read as those of the first one; other columns stay.

    The decimal mark is that of the later table, where it is plain.
    """
    columns, notes = [], []
    for series in rows.frame.iter_columns():
        if series.name in kinds:
            if is_nested(series.dtype):
                rows.need([series.name])  # which says what it holds
            kind, how = _as_written(series, kinds[series.name], rows.decimal)
            series, said = as_kind(series, kind, rows.where)
            notes += [Note(series.name, one) for one in how]
            notes += [Note(series.name, one) for one in said]
        columns.append(series)
    return dataclasses.replace(rows, frame=pl.DataFrame(columns)), notes


def _as_written(series: pl.Series, kind: Kind, decimal: str | None) -> tuple[Kind, list[str]]:
    """The kind of a later column, whose file may have another decimal mark or order of dates.

    Args:
        series: the column.
        kind: of the first one.
        decimal: the mark that the source of the later table makes plain.
    """
    if series.dtype != pl.String or kind.name not in ("number", "date"):
        return kind, []
    marks: list[numerals.Decimal] = [",", "."] if decimal == "," else [".", ","]
    if kind.name == "date":
        others = [dataclasses.replace(kind, order=order) for order in ("dmy", "mdy")]
    else:
        others = [dataclasses.replace(kind, decimal=mark) for mark in marks]
    ways = [others[0], kind, others[1]] if decimal and kind.name == "number" else [kind, *others]
    cells = cleaned(series, missing=kind.missing).drop_nulls().unique(maintain_order=True)
    for way in ways:
        if not _READERS[kind.name](cells, way).null_count():
            if way == kind or way.decimal == decimal:
                return way, []
            how = f"the decimal mark {way.decimal!r}"
            if kind.name == "date":
                how = f"the {'month' if way.order == 'mdy' else 'day'} first"
            return way, [f"read with {how}, unlike what was learned from."]
    return kind, []


def cleaned(text: pl.Series, keep_na: bool = False, missing: Sequence[str] = ()) -> pl.Series:
    """Cells without blanks around them; null where they hold no value."""
    text = text.cast(pl.String).str.strip_chars()
    marks = [*([""] if keep_na else MARKS), *missing]
    if not keep_na and (text == "+").any():
        marks.remove("-")  # beside a plus, a minus is a value
    return text.set(text.is_in(marks).fill_null(False), None)


def as_kind(series: pl.Series, kind: Kind, where: str) -> tuple[pl.Series, list[str]]:
    """A column read as what it is, and what to say of cells that could not be read.

    Raises:
        InputError: names the first cell that cannot be read, where the kind is not lax.
    """
    if kind.name == "other":
        return series, []
    if kind.name in ("name", "id"):
        return cleaned(_words(series), kind.keep_na, kind.missing), []
    if series.dtype != pl.String:
        if isinstance(series.dtype, (pl.Categorical, pl.Enum)):
            return as_kind(series.cast(pl.String), kind, where)
        return _typed(series, kind), []

    text = cleaned(series, missing=kind.missing)
    found = _READERS[kind.name](text, kind)
    wrong = found.is_null() & text.is_not_null()
    if kind.name == "number":
        found = _without(found, kind.missing)
    if not wrong.any():
        return found, []
    if not kind.lax:
        row = wrong.arg_true()[0]
        raise InputError(
            f"{where}: column {series.name!r}, row {row + 1}: {series[row]!r} is not "
            f"a {_WORD[kind.name]}."
        )
    rest = f"{_WORD[kind.name]}s and count as missing"
    return found, [f"{unreadable(text, wrong)} are no {rest}."]


def unreadable(text: pl.Series, wrong: pl.Series) -> str:
    """Cells that could not be read: `'unknown' (row 3, 12 cells)`."""
    cells = text.filter(wrong)
    names = cells.unique(maintain_order=True)
    said = []
    for name in names.head(3):
        row, often = wrong.arg_true()[(cells == name).arg_true()[0]] + 1, int((cells == name).sum())
        said.append(f"{name!r} (row {row}{f', {often} cells' if often > 1 else ''})")
    more = f" and {len(names) - 3} others" if len(names) > 3 else ""
    return ", ".join(said) + more


def by_cell(text: pl.Series, read: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """A column read cell by cell, each different cell once."""
    cells = text.unique(maintain_order=True)
    table = pl.DataFrame({"cell": cells, "value": read(cells)})
    joined = pl.DataFrame({"cell": text}).join(
        table, on="cell", how="left", maintain_order="left", nulls_equal=True
    )
    return joined["value"].alias(text.name)


def _numbers(text: pl.Series, kind: Kind) -> pl.Series:
    """Written numbers; whole ones as integers."""
    plain = text.cast(pl.Float64, strict=False)
    if plain.null_count() > text.null_count() or kind.decimal == ",":
        return by_cell(text, partial(numerals.numbers, how=kind.numeral))
    whole = text.cast(pl.Int64, strict=False)
    return plain if whole.null_count() > text.null_count() else whole


def _dates(text: pl.Series, kind: Kind) -> pl.Series:
    order = "mdy" if kind.order == "mdy" else "dmy"
    return by_cell(text, partial(dates.datetimes, order=order))


def _hours(text: pl.Series, kind: Kind) -> pl.Series:
    return by_cell(text, dates.hours)


def _truth(text: pl.Series, kind: Kind) -> pl.Series:
    low = text.str.to_lowercase()
    found = pl.Series(text.name, [None] * len(text), dtype=pl.Boolean)
    return found.set((low == TRUE).fill_null(False), True).set(
        (low == FALSE).fill_null(False), False
    )


_READERS = {"number": _numbers, "date": _dates, "hours": _hours, "truth": _truth}
_WORD = {"number": "number", "date": "date", "hours": "time of day", "truth": "truth value"}


def _words(series: pl.Series) -> pl.Series:
    """Values as names: whole numbers without the point that missing ones beside them gave them."""
    if series.dtype.is_float():
        seen = series.fill_nan(None).drop_nulls()
        if len(seen) and (seen == seen.round()).all() and (seen.abs() < 2**53).all():
            return series.fill_nan(None).cast(pl.Int64).cast(pl.String)
        return series.fill_nan(None).cast(pl.String)
    return series.cast(pl.String)


def _typed(series: pl.Series, kind: Kind) -> pl.Series:
    """A column that has the type of its library already."""
    kind_of = series.dtype
    if kind.name == "date" and kind_of.is_integer():  # 20240131
        return _dates(series.cast(pl.String), kind)
    if kind_of == pl.Time:
        return (series.cast(pl.Int64) / 3.6e12).cast(pl.Float64)
    if kind_of == pl.Duration:
        return (series.dt.total_microseconds() / 3.6e9).cast(pl.Float64)
    if isinstance(kind_of, pl.Datetime) and kind_of.time_zone is not None:
        return series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if kind_of == pl.Null or kind_of.is_decimal():
        series = series.cast(pl.Float64)
    return _without(series, kind.missing) if series.dtype.is_numeric() else series


def _without(number: pl.Series, missing: Sequence[str]) -> pl.Series:
    """Numbers, null where they are what stands for no value."""
    for text in missing:
        try:
            value = float(text)
        except ValueError:
            continue
        number = number.set((number == value).fill_null(False), None)
    return number
