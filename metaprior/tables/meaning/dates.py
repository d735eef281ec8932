"""Dates, times of day and durations as people write them."""

from typing import Literal

import polars as pl

Order = Literal["dmy", "mdy"]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_OTHERS = {"mär": 3, "mrz": 3, "mai": 5, "okt": 10, "dez": 12, "ene": 1, "abr": 4, "ago": 8}
_OTHERS |= {"dic": 12, "fév": 2, "avr": 4, "aoû": 8, "déc": 12}
_NUMBER_OF = {name: i + 1 for i, name in enumerate(_MONTHS)} | _OTHERS

_DAY = r"(?:\p{L}{2,9}\.?,?\s+)?"  # of the week
_NAME = r"(?P<name>\p{L}{3,9})\.?"
_TIME = (
    r"(?:(?:\s*T|,?\s+|:)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}(?:[.,][0-9]+)?))?"
    r"\s*(?P<half>[AaPp])?(?:\.?[Mm]\.?)?\s*(?P<zone>Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}|[+-][0-9]{2})?"
    r"(?:\s*\[[^\]]*\])?)?"
)
# Each with the groups that it has: y, m, d, or a and b where the order decides.
_FORMS = (
    r"(?P<y>[0-9]{4})[-/.](?P<m>[0-9]{1,2})[-/.](?P<d>[0-9]{1,2})",
    r"(?P<a>[0-9]{1,2})(?:[-/]|\.\s?)(?P<b>[0-9]{1,2})(?:[-/]|\.\s?)(?P<y>[0-9]{4}|[0-9]{2})",
    _DAY
    + r"(?P<d>[0-9]{1,2})(?:st|nd|rd|th|\.)?[\s\-/]*"
    + _NAME
    + r",?[\s\-/]*(?P<y>[0-9]{4}|[0-9]{2})",
    _DAY + _NAME + r"[\s\-]+(?P<d>[0-9]{1,2})(?:st|nd|rd|th)?,?[\s\-]+(?P<y>[0-9]{4})",
    r"(?P<y>[0-9]{4})[-/\s]" + _NAME + r"[-/\s](?P<d>[0-9]{1,2})",
)
_SHORT = (
    r"^(?P<y>[0-9]{4})[-/](?P<m>[0-9]{1,2})$",
    r"^" + _NAME + r",?[\s\-]+(?P<y>[0-9]{4})$",
    r"^(?P<y>[0-9]{4})[-\s]?[Qq](?P<q>[1-4])$",
    r"^(?P<y>(?:19|20)[0-9]{2})(?P<m>[0-9]{2})(?P<d>[0-9]{2})$",
    # As ctime writes it: the year is behind the time.
    r"^\p{L}{3}\s+" + _NAME + r"\s+(?P<d>[0-9]{1,2})\s+(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2}):"
    r"(?P<second>[0-9]{2})\s+(?:\p{L}{3,4}\s+)?(?P<y>[0-9]{4})$",
)
_FIELDS = ("y", "m", "d", "a", "b", "q", "name", "hour", "minute", "second", "half", "zone")
COMPACT = r"^(?:19|20)[0-9]{6}$"  # 20240131


def _fields(text: pl.Series) -> pl.DataFrame:
    """What the first form that fits finds in each cell."""
    found: dict[str, pl.Series] = {
        name: pl.Series(name, [None] * len(text), dtype=pl.String) for name in _FIELDS
    }
    for pattern in (*(f"^{form}{_TIME}$" for form in _FORMS), *_SHORT):
        groups = text.str.extract_groups(pattern).struct.unnest()
        fresh = groups["y"].is_not_null() & found["y"].is_null()
        if not fresh.any():
            continue
        for name in groups.columns:
            found[name] = groups[name].zip_with(fresh, found[name]).alias(name)
    return pl.DataFrame(found)


def orders(text: pl.Series) -> set[Order]:
    """Orders of day and month that some cell needs: none, one, or both."""
    found = _fields(text.drop_nulls().unique())
    first, second = found["a"].cast(pl.Int64, strict=False), found["b"].cast(pl.Int64, strict=False)
    needed: set[Order] = set()
    if (first > 12).any():
        needed.add("dmy")
    if (second > 12).any():
        needed.add("mdy")
    return needed


def ambiguous(text: pl.Series) -> str | None:
    """A cell whose day and month could be either way round: 3/4/2024, not 3.4.2024."""
    cells = text.drop_nulls().unique(maintain_order=True)
    either = _fields(cells)["a"].is_not_null() & ~cells.str.contains(r"^[0-9]{1,2}\.")
    return cells.filter(either)[0] if either.any() else None


def datetimes(text: pl.Series, order: Order = "dmy") -> pl.Series:
    """Cells as points in time (UTC where they have a zone), null where a cell is no date."""
    first, second = ("d", "m") if order == "dmy" else ("m", "d")
    whole = pl.Int64
    two = pl.col("y").str.len_chars() == 2
    year = pl.col("y").cast(whole, strict=False)
    # Two digits: 1970 to 2069, as POSIX has it within a year.
    year = pl.when(two).then(year + pl.when(year < 70).then(2000).otherwise(1900)).otherwise(year)
    named = (
        pl.col("name").str.to_lowercase().str.slice(0, 3).replace_strict(_NUMBER_OF, default=None)
    )
    either = {
        first: pl.col("a").cast(whole, strict=False),
        second: pl.col("b").cast(whole, strict=False),
    }
    quarter = pl.col("q").cast(whole, strict=False) * 3 - 2
    month = pl.coalesce(
        pl.col("m").cast(whole, strict=False), either["m"], named.cast(whole, strict=False), quarter
    )
    day = pl.coalesce(
        pl.col("d").cast(whole, strict=False),
        either["d"],
        pl.when(pl.col("y").is_not_null()).then(1),
    )
    hour = pl.col("hour").cast(whole, strict=False).fill_null(0)
    half = pl.col("half").str.to_lowercase()
    hour = pl.when(half.is_not_null()).then(hour % 12).otherwise(hour)
    hour = hour + pl.when(half == "p").then(12).otherwise(0)
    minute = pl.col("minute").cast(whole, strict=False).fill_null(0)
    second = pl.col("second").str.replace(",", ".").cast(pl.Float64, strict=False).fill_null(0.0)
    clock = (hour <= 24) & (minute < 60) & (second < 61)
    zone = pl.col("zone").str.extract_groups(r"([+-])([0-9]{2}):?([0-9]{2})?")
    away = zone.struct.field("2").cast(whole, strict=False).fill_null(0) * 60
    away = away + zone.struct.field("3").cast(whole, strict=False).fill_null(0)
    away = pl.when(zone.struct.field("1") == "-").then(-away).otherwise(away)
    # Through text, since a 31st of June is no date and not an error.
    written = pl.format(
        "{}-{}-{}",
        year.cast(pl.String).str.zfill(4),
        month.cast(pl.String).str.zfill(2),
        day.cast(pl.String).str.zfill(2),
    )
    date = written.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    micro = ((hour * 60 + minute - away) * 60e6 + second * 1e6).round().cast(whole, strict=False)
    when = pl.when(clock).then(date + pl.duration(microseconds=micro))
    return _fields(text).select(when.alias(text.name))[text.name]


_CLOCK = (
    r"^(?P<minus>-)?(?:(?P<days>[0-9]+)\s*(?:days?|d),?\s*)?"
    r"(?P<hours>[0-9]{1,4}):(?P<minutes>[0-5][0-9])(?::(?P<seconds>[0-5][0-9](?:[.,][0-9]+)?))?"
    r"\s*(?P<half>[AaPp])?(?:\.?[Mm]\.?)?$"
)
_SPANS = (
    r"^(?P<minus>-)?P(?:(?P<days>[0-9]+)D)?(?:T(?:(?P<hours>[0-9]+)H)?(?:(?P<minutes>[0-9]+)M)?"
    r"(?:(?P<seconds>[0-9]+(?:\.[0-9]+)?)S)?)?$",
    r"^(?P<minus>-)?(?:(?P<days>[0-9]+)\s*d(?:ays?)?)?[\s,]*(?:(?P<hours>[0-9]+)\s*h(?:ours?|rs?)?)?"
    r"[\s,]*(?:(?P<minutes>[0-9]+)\s*m(?:in(?:utes?)?)?)?[\s,]*"
    r"(?:(?P<seconds>[0-9]+(?:\.[0-9]+)?)\s*s(?:ec(?:onds?)?)?)?$",
)


def hours(text: pl.Series) -> pl.Series:
    """Times of day and durations in hours, null where a cell is neither."""
    result = pl.Series(text.name, [None] * len(text), dtype=pl.Float64)
    for pattern in (_CLOCK, *_SPANS):
        some = text.str.contains(r"[0-9]") if pattern is not _CLOCK else text.is_not_null()
        found = text.str.extract_groups(pattern).struct.unnest()
        number = {
            name: pl.col(name).str.replace(",", ".").cast(pl.Float64, strict=False).fill_null(0.0)
            for name in ("days", "hours", "minutes", "seconds")
        }
        given = pl.any_horizontal(pl.col(n).is_not_null() for n in number)
        hour = number["hours"]
        if "half" in found.columns:
            half = pl.col("half").str.to_lowercase()
            hour = pl.when(half.is_not_null()).then(hour % 12).otherwise(hour)
            hour = hour + pl.when(half == "p").then(12.0).otherwise(0.0)
        total = number["days"] * 24 + hour + number["minutes"] / 60 + number["seconds"] / 3600
        signed = pl.when(pl.col("minus").is_not_null()).then(-total).otherwise(total)
        values = found.select(pl.when(given).then(signed).alias("v"))["v"]
        result = result.zip_with(result.is_not_null() | ~some.fill_null(False), values)
    return result.alias(text.name)
