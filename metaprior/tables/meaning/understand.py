"""What each column of a table is, decided from its cells and from what the user says."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from metaprior.errors import InputError
from metaprior.tables.meaning import dates, numerals
from metaprior.tables.meaning.kinds import (
    FALSE,
    KEEP_NA,
    MARKS,
    TRUE,
    Choices,
    Kind,
    as_kind,
    cleaned,
    unreadable,
)
from metaprior.tables.meaning.notes import Note, count, some
from metaprior.tables.rows import Rows

ENOUGH = 0.8  # of the cells: then a column is numbers or dates, and the others are missing
HALF = 0.5  # of a target's cells: then it is numbers with mistakes in it, which are errors
DISTINCT = 0.9  # of the rows have a value of their own: then a column names the rows
SHOWN = 1000  # different cells, and so many others, show what a column is
FEW = 20  # rows say nothing about that
EXACT = 2**53  # whole numbers beyond it lose digits
_ZIP = r"(?i)^(zip|zip_?code|post_?code|postal_?code|plz)$"
_CODE = r"^[+-]?0[0-9]+$"
_WHOLE = r"^[+-]?[0-9]+$"


def understand(
    rows: Rows,
    choices: Choices = Choices(),
    names: Sequence[str] = (),
    targets: Mapping[str, str] | None = None,
    drop: bool = False,
) -> tuple[Rows, dict[str, Kind], list[Note]]:
    """A table with typed columns, the kind of each column, and notes.

    Args:
        rows: the table.
        choices: what the user says of the columns.
        names: columns that hold names whatever they look like, such as that of the groups.
        targets: columns to predict, each with `"numbers"`, `"classes"` or `"auto"`.
        drop: whether cells of a target that are no numbers are missing; otherwise they are errors.

    Raises:
        InputError: what the user says does not fit a column.
    """
    choices.check(rows)
    frame, targets = rows.frame, targets or {}
    texts = {
        c: cleaned(frame[c], missing=choices.absent(c))
        for c in frame.columns
        if frame[c].dtype == pl.String
    }
    decimal = "," if rows.decimal == "," else _common_decimal(texts.values())
    order = _common_order(texts.values())
    kinds, notes, columns = {}, [], []
    for series in frame.iter_columns():
        name = series.name
        if name in texts:
            column = _Column(series, texts[name], choices, rows, decimal, order)
            kind, said = column.kind(name in names, targets.get(name), drop)
        else:
            kind, said = _of_type(series, choices, name in names)
        typed, more = as_kind(series, kind, rows.where)
        notes += [Note(name, one) for one in (*more, *said)]
        kinds[name] = kind
        columns.append(typed)
    return dataclasses.replace(rows, frame=pl.DataFrame(columns)), kinds, notes


@dataclasses.dataclass(frozen=True)
class _Column:
    """A column of text.

    Args:
        series: as it was written.
        text: without blanks and marks of missing values.
        choices: what the user says.
        rows: the table.
        decimal, order: what other columns of the table need.
    """

    series: pl.Series
    text: pl.Series
    choices: Choices
    rows: Rows
    decimal: numerals.Decimal | None
    order: dates.Order | None

    def kind(self, is_name: bool, target: str | None, drop: bool) -> tuple[Kind, list[str]]:
        """What the column is, and what to say of that."""
        name, lax = self.series.name, drop or target is None
        if is_name or name in self.choices.categorical:
            return self.names()
        if name in self.choices.numeric or target == "numbers":
            return self.numbers(lax, forced=True)
        if name in self.choices.dates():
            return self.dates(self.choices.dates()[name])
        if not self.text.count():
            return Kind("number", missing=self.absent), []
        if target == "classes":
            return self.plain() if self.is_plain and not self.is_code else self.names()
        if self.is_plain:
            return self.plain()
        return self.other(target, lax)

    @property
    def absent(self) -> tuple[str, ...]:
        return self.choices.absent(self.series.name)

    @property
    def is_plain(self) -> bool:
        """Whether all cells are numbers that every program reads."""
        return self.text.cast(pl.Float64, strict=False).null_count() == self.text.null_count()

    @property
    def is_code(self) -> bool:
        """Whether some number begins with a zero, as codes do."""
        return bool(self.text.str.contains(_CODE).any())

    def plain(self) -> tuple[Kind, list[str]]:
        """Cells that are all numbers: numbers, unless they are codes or dates."""
        name, first = self.series.name, self.text.str.contains(_CODE).arg_true()
        if len(first) and self.text.drop_nulls().str.contains(_WHOLE).all():
            kind, said = self.names()
            why = f"kept as names, since {self.text[first[0]]!r} begins with a zero; "
            return kind, [f"{why}--numeric {name} makes numbers of them.", *said]
        if (pl.Series([name]).str.contains(_ZIP)).all():
            kind, said = self.names()
            return kind, [f"kept as names, as postal codes; --numeric {name} changes that.", *said]
        if self.is_compact:
            return Kind("date", missing=self.absent), [
                f"{self.text.drop_nulls()[0]} and the like are read as dates (year, month, day); "
                f"--numeric {name} keeps the numbers."
            ]
        seen = self.text.drop_nulls().unique(maintain_order=True)
        if self.decimal == "," and numerals.thousands(seen):
            numeral, said = self.numeral(seen)
            return Kind("number", numeral.decimal, missing=self.absent), said
        kind, said = Kind("number", missing=self.absent), []
        if seen.str.contains(_WHOLE).all():
            kind, said = beyond_exact(self.text, name, self.absent)
        if kind.name == "number" and set(self.rows.frame.dtypes) != {pl.String}:
            # In a file everything is text; a frame with other types could have made it a number.
            said = [f"text of which all is numbers; --categorical {name} makes names of it.", *said]
        return kind, said

    @property
    def is_compact(self) -> bool:
        """Whether all cells are dates such as 20240131."""
        seen = self.text.drop_nulls()
        if not seen.str.contains(dates.COMPACT).all() or seen.n_unique() < 2:
            return False
        return dates.datetimes(seen.unique()).null_count() == 0

    def other(self, target: str | None, lax: bool) -> tuple[Kind, list[str]]:
        """Cells that are not all plain numbers."""
        cells = self.text.drop_nulls().value_counts(sort=True)
        # The most frequent cells, and some of the others: they show what the column is.
        cells = pl.concat([cells[:SHOWN], cells[SHOWN:].gather_every(1 + len(cells) // SHOWN)])
        found = cells[self.series.name]

        def share(readable: pl.Series) -> float:
            often = cells["count"].to_numpy()
            return float(often[readable.to_numpy()].sum() / often.sum())

        low = found.str.to_lowercase()
        if low.is_in([TRUE, FALSE]).all():
            return Kind("truth", missing=self.absent), []
        day_first, month_first = dates.datetimes(found, "dmy"), dates.datetimes(found, "mdy")
        if share(day_first.is_not_null() | month_first.is_not_null()) >= ENOUGH:
            return self.dates("")
        numeral, _ = self.numeral(found)
        numbers = share(numerals.numbers(found, numeral).is_not_null())
        hours = share(dates.hours(found).is_not_null())
        if hours >= ENOUGH and hours > numbers:
            return Kind("hours", lax=hours < 1, missing=self.absent), []
        if numbers >= ENOUGH or (target and numbers >= HALF):
            return self.numbers(lax)
        kind, said = self.names()
        if numbers >= HALF:
            said = [*self.nearly(found, numeral), *said]
        return kind, said

    def numeral(self, found: pl.Series) -> tuple[numerals.Numeral, list[str]]:
        """How the numbers are written, and what to say of it."""
        parts = numerals.parts(found)
        decimal, doubt = numerals.decided(parts["body"], self.decimal)
        units = parts.filter(pl.col("body").is_not_null() & (pl.col("unit") != ""))["unit"]
        unit = str(units.str.to_lowercase().mode().sort()[0]) if len(units) else ""
        said = []
        one = found.filter(found.str.contains(","))
        if decimal == "," and not doubt and self.rows.decimal != "," and len(one):
            said.append(f"read with a decimal comma ({one[0]!r}).")
        elif doubt:
            said.append(f"{doubt}.")
        if unit:
            said.append(f"numbers with {unit!r}, which is left out.")
        bound = parts["bound"].is_in(["", "=", "~", "≈"])
        if not bound.all():
            first = found.filter(~bound)[0]
            often = int(self.text.is_in(found.filter(~bound).implode()).sum())
            said.append(f"{count(often, 'bound')} such as {first!r} taken as the number itself.")
        return numerals.Numeral(decimal, unit), said

    def numbers(self, lax: bool, forced: bool = False) -> tuple[Kind, list[str]]:
        """As numbers, the other cells missing (or errors later)."""
        name, found = self.series.name, self.text.drop_nulls().unique(maintain_order=True)
        numeral, said = self.numeral(found)
        read = numerals.numbers(found, numeral)
        if forced and len(found) and not read.count():
            raise self.none_is("a number")
        if lax and not forced and read.null_count():
            said = [*said, f"--categorical {name} takes its cells as names."]
        lax = lax and read.null_count() > 0
        return Kind("number", numeral.decimal, numeral.unit, lax=lax, missing=self.absent), said

    def dates(self, order: str) -> tuple[Kind, list[str]]:
        """As dates."""
        name, said = self.series.name, []
        found = self.text.drop_nulls().unique(maintain_order=True)
        needed = dates.orders(found)
        if not order and len(needed) == 2:
            kind, said = self.names()
            return kind, [
                "taken as text, since some dates need the day first and some the month; "
                f"--date {name}:dmy or --date {name}:mdy decides.",
                *said,
            ]
        either = dates.ambiguous(found)
        if not order:
            order = next(iter(needed), self.order or "dmy")
            if either and not needed:
                first = "day" if order == "dmy" else "month"
                why = "as in other columns" if self.order else "but could be either way round"
                other = "mdy" if order == "dmy" else "dmy"
                said.append(
                    f"{either!r} is read with the {first} first, {why}; --date {name}:{other} "
                    "changes that."
                )
        read = dates.datetimes(found, "mdy" if order == "mdy" else "dmy")
        kind = Kind("date", order=order, lax=read.null_count() > 0, missing=self.absent)
        if not read.count():
            raise self.none_is("a date")
        return kind, said

    def none_is(self, what: str) -> InputError:
        """The error where a column is said to be what no cell of it is."""
        name, where = self.series.name, self.rows.where
        row = self.text.is_not_null().arg_true()
        if not len(row):
            return InputError(f"{where}: column {name!r} has no value, so none is {what}.")
        first = self.text[row[0]]
        return InputError(
            f"{where}: column {name!r}, row {row[0] + 1}: {first!r} is not {what}, nor is any "
            "other cell."
        )

    def names(self) -> tuple[Kind, list[str]]:
        """As names: of levels, classes or groups."""
        name, keep = self.series.name, self.choices.keep_na
        text = cleaned(self.series, keep, self.absent)
        said = []
        trimmed = self.series.filter(text.is_not_null()).n_unique() - text.drop_nulls().n_unique()
        if trimmed:
            odd = self.series.filter((self.series != text).fill_null(False))
            said.append(f"{odd[0]!r} is the same as {odd[0].strip()!r}: blanks are left out.")
        words = self.series.str.strip_chars().drop_nulls()
        words = words.filter(words.is_in([m for m in MARKS if m])).unique(maintain_order=True)
        absent = [w for w in words if not (text == w).any()]
        if absent and not keep:
            said.append(f"{some(absent)} counts as missing; {KEEP_NA} makes it a name.")
        kind = Kind("name", keep_na=keep, missing=self.absent)
        hardly = len(text) >= FEW and text.n_unique() >= DISTINCT * text.count() > 0
        if hardly and name not in self.choices.categorical:
            kind = dataclasses.replace(kind, name="id")
        return kind, said

    def nearly(self, found: pl.Series, numeral: numerals.Numeral) -> list[str]:
        """A note on a column of names of which most are numbers."""
        read = numerals.numbers(found, numeral)
        wrong = self.text.is_in(found.filter(read.is_null()).implode()).fill_null(False)
        units = numerals.parts(found)["unit"].drop_nulls().unique(maintain_order=True)
        units = units.filter(units != "")
        if len(units) > 1:
            return [
                f"taken as text, since its numbers have several units ({some(units.to_list())})."
            ]
        return [
            f"taken as text, since {unreadable(self.text, wrong)} are no numbers; "
            f"--numeric {self.series.name} makes these missing."
        ]


def beyond_exact(text: pl.Series, name: str, absent: tuple[str, ...]) -> tuple[Kind, list[str]]:
    """Whole numbers: numbers, or names where double precision would lose digits."""
    kind = Kind("number", missing=absent)
    size = text.cast(pl.Float64, strict=False).abs().max()
    if size is None or not isinstance(size, float) or size <= EXACT:
        return kind, []
    what = "whole numbers beyond 2^53, of which a computer's numbers lose the last digits"
    number = text.cast(pl.Float64, strict=False)
    if 1e18 <= size <= 2.3e18 and number.n_unique() >= DISTINCT * text.n_unique():
        return kind, [f"{what}; read as numbers (times in nanoseconds?)."]
    hardly = text.n_unique() >= DISTINCT * text.count()
    kind = dataclasses.replace(kind, name="id" if hardly and len(text) >= FEW else "name")
    return kind, [f"{what}; taken as names, and --numeric {name} changes that."]


def _of_type(series: pl.Series, choices: Choices, is_name: bool) -> tuple[Kind, list[str]]:
    """The kind of a column that has the type of its library."""
    name, dtype = series.name, series.dtype
    absent = choices.absent(name)
    if isinstance(dtype, (pl.List, pl.Array, pl.Struct, pl.Object, pl.Binary)):
        return Kind("other"), []
    if is_name or name in choices.categorical:
        return Kind("name", keep_na=choices.keep_na, missing=absent), []
    if name in choices.dates():
        if not (dtype.is_temporal() or dtype.is_integer()):
            raise InputError(f"column {name!r} holds {dtype}, which is no date.")
        return Kind("date", order=choices.dates()[name] or "dmy", missing=absent), []
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        if name in choices.numeric:
            return Kind("number", lax=True, missing=absent), []
        return Kind("name", keep_na=choices.keep_na, missing=absent), []
    if dtype == pl.Boolean:
        return Kind("truth"), []
    if dtype in (pl.Time, pl.Duration):
        return Kind("hours"), []
    if dtype.is_temporal():
        return Kind("date"), []
    if dtype.is_integer() and name not in choices.numeric:
        if pl.Series([name]).str.contains(_ZIP).all():
            return Kind("name", missing=absent), [
                f"kept as names, as postal codes; --numeric {name} changes that."
            ]
        return beyond_exact(series, name, absent)
    return Kind("number", missing=absent), []


def _common_decimal(columns: Iterable[pl.Series]) -> numerals.Decimal | None:
    """A comma, if some columns need a decimal comma and none needs a decimal point."""
    comma = point = False
    for text in columns:
        seen = text.drop_nulls().head(20_000).unique()
        if seen.cast(pl.Float64, strict=False).null_count() == 0:
            point |= bool(seen.str.contains(r"^[^.]*\.([0-9]{1,2}|[0-9]{4,})$|^[+-]?0?\.").any())
        elif seen.str.contains(r"[0-9][.,][0-9]").any():
            needs = numerals.votes(numerals.parts(seen)["body"].drop_nulls())
            comma, point = comma | needs[0], point | needs[1]
    return "," if comma and not point else None


def _common_order(columns: Iterable[pl.Series]) -> dates.Order | None:
    """The order of day and month that the dates of a table need, if they need just one."""
    needed: set[dates.Order] = set()
    for text in columns:
        if (
            text.drop_nulls()
            .head(1000)
            .str.contains(r"^[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{2}")
            .any()
        ):
            needed |= dates.orders(text)
    return needed.pop() if len(needed) == 1 else None
