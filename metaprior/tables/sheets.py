"""The first sheet of a workbook: Excel's, old or new, and OpenDocument's."""

import datetime
import logging

import polars as pl

from metaprior.errors import InputError
from metaprior.tables.names import Table, tabled

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
        frame = book.load_sheet(0, header_row=None, schema_sample_rows=None, n_rows=1).to_polars()
        if not frame.height:
            raise InputError(f"{where}: the sheet {book.sheet_names[0]!r} is empty.")
        names = [_name(value) for value in frame.row(0)]
        body = book.load_sheet(0, header_row=None, skip_rows=1, schema_sample_rows=None)
        frame = body.to_polars()
    except fastexcel.FastExcelError as error:
        said = str(error).splitlines()[0]
        raise InputError(
            f"{where}: is a workbook that cannot be read ({said}); save it as .xlsx or as CSV."
        ) from None
    finally:
        log.removeFilter(_silent)
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


def _silent(record: logging.LogRecord) -> bool:
    return False


def _name(value: object) -> str:
    return "" if value is None else str(value).strip()


def _times(column: pl.Series) -> pl.Series:
    """Times of day, which Excel keeps as moments of its day zero."""
    if column.dtype != pl.Datetime or not column.drop_nulls().dt.date().is_in(_NO_DAY).all():
        return column
    return column if column.null_count() == len(column) else column.dt.time()
