"""The first sheet of a workbook: Excel's, old or new, and OpenDocument's."""

import datetime
import logging
from typing import TYPE_CHECKING

import polars as pl

from metaprior.errors import InputError
from metaprior.tables.reading.names import Table, tabled

if TYPE_CHECKING:
    import fastexcel

_FAR = 100  # rows, in which the names of the columns must be
_NO_DAY = (datetime.date(1899, 12, 30), datetime.date(1899, 12, 31))  # of a time of day in Excel


def sheet(data: bytes, where: str) -> Table:
    """The first sheet; notes say that there are others, and which rows were left out.

    Raises:
        InputError: where it cannot be read.
    """
    import fastexcel

    log = logging.getLogger("fastexcel.types.dtype")
    log.addFilter(_silent)  # it warns of empty columns
    try:
        book = fastexcel.read_excel(data)
        if not book.sheet_names:
            raise InputError(f"{where}: the workbook has no sheet.")
        first = _rows(book, 0, _FAR).rows()
        above = next((i for i, row in enumerate(first) if any(row)), None)
        if above is None:
            raise InputError(f"{where}: the sheet {book.sheet_names[0]!r} is empty.")
        names = [_name(value) for value in first[above]]
        frame = pl.DataFrame(schema={str(i): pl.String for i in range(len(names))})
        if len(first) > above + 1:
            frame = _rows(book, above + 1)
    except fastexcel.FastExcelError as error:
        said = str(error).splitlines()[0]
        raise InputError(
            f"{where}: is a workbook that cannot be read ({said}); save it as .xlsx or as CSV."
        ) from None
    finally:
        log.removeFilter(_silent)
    filled = [series for series in frame.get_columns() if series.null_count() < len(series)]
    if sum(map(bool, names)) == 1 < len(filled):
        raise InputError(
            f"{where}: the first row of the sheet {book.sheet_names[0]!r} has 1 cell and the rows "
            f"below it have {len(filled)}; the first row must hold the names of the columns."
        )

    notes = []
    if len(book.sheet_names) > 1:
        others = ", ".join(map(repr, book.sheet_names[1:4]))
        notes.append(f"the sheet {book.sheet_names[0]!r} was read; there are also {others}.")
    names += [""] * (frame.width - len(names))
    frame = frame.select(_times(column) for column in frame.get_columns())
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    if blank.any():
        many = "1 row" if blank.sum() == 1 else f"{blank.sum()} rows"
        notes.append(f"{many} without values left out.")
    return tabled(frame.filter(~blank), names, where, notes=notes)


def _rows(book: "fastexcel.ExcelReader", skipped: int, most: int | None = None) -> pl.DataFrame:
    """The rows of the first sheet below some; blanks are no values."""
    sheet = book.load_sheet(
        0,
        header_row=None,
        skip_rows=skipped,
        schema_sample_rows=None,
        whitespace_as_null=True,
        n_rows=most,
    )
    return sheet.to_polars()


def _silent(record: logging.LogRecord) -> bool:
    return False


def _name(value: object) -> str:
    return "" if value is None else str(value).strip()


def _times(column: pl.Series) -> pl.Series:
    """Times of day, which Excel keeps as moments of its day zero."""
    if column.dtype != pl.Datetime or not column.drop_nulls().dt.date().is_in(_NO_DAY).all():
        return column
    return column if column.null_count() == len(column) else column.dt.time()
