"""Files of every format as tables, told apart by what they hold and not by their names."""

import functools
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import polars as pl

from metaprior.errors import InputError
from metaprior.system.folder import digest
from metaprior.tables.reading.decoding import decoded
from metaprior.tables.reading.delimited import fields
from metaprior.tables.reading.names import Table, tabled
from metaprior.tables.reading.packed import unpacked
from metaprior.tables.reading.refused import READ, refusal
from metaprior.tables.reading.sheets import sheet

STDIN = "-"
_START = 4096  # bytes, which tell the format
_PARQUET = b"PAR1"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # old Excel, and old Word


def read_file(path: str | Path, columns: Sequence[str] | None = None) -> Table:
    """The table in a file, or from standard input where the path is `-`.

    Args:
        path: of the file.
        columns: the only columns to read of a Parquet file. If one of them is missing, all columns
            are read, so that the complaint about it can list them.

    Raises:
        InputError: names the file, and what would help.
    """
    where = called(path)
    if str(path) == STDIN:
        return read_bytes(standard_input(), where)
    need_file(path)
    try:
        with Path(path).open("rb") as file:
            if _is_parquet(file):
                return _parquet(Path(path), columns, where)
            return read_bytes(file.read(), where)
    except PermissionError:
        raise InputError(f"{where}: may not be read (permission denied).") from None
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error}).") from None


def read_bytes(data: bytes, where: str) -> Table:
    """The table that the bytes of a file hold."""
    data = unpacked(data, where)
    if not data:
        raise InputError(f"{where}: the file is empty.")
    if data.startswith(_PARQUET) and data.endswith(_PARQUET):
        return _parquet(io.BytesIO(data), None, where)
    with _readable(where):
        if data.startswith(b"ARROW1\0\0"):
            return _typed(pl.read_ipc(data), where)
        if data.startswith(b"\xff\xff\xff\xff"):
            return _typed(pl.read_ipc_stream(data), where)
    if data.startswith(_OLE):
        return sheet(data, where)
    if data.startswith(b"PK\x03\x04") or data.startswith(b"PK\x05\x06"):
        return _zipped(data, where)
    why = refusal(data[:_START])
    if why:
        raise InputError(f"{where}: {why}")
    text, notes = decoded(data, where)
    read = fields(text, where)
    return tabled(
        read.frame,
        read.names,
        where,
        notes=[*notes, *read.notes],
        decimal=read.decimal,
        written=True,
    )


def called(path: str | Path) -> str:
    """What messages call a file."""
    return "standard input" if str(path) == STDIN else str(path)


def need_file(path: str | Path) -> None:
    """The path is that of a file, or `-`; or an error that says what it is."""
    if str(path) == STDIN:
        return
    path, where = Path(path), str(path)
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError):  # too long a name, or a zero byte in it
        there = folder = False
    if folder:
        raise InputError(f"{where}: is a folder; give a file. {READ}.")
    if not there and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", where):
        raise InputError(
            f"{where}: is an address, and nothing is fetched; download the file first."
        )
    if not there:
        raise InputError(f"{where}: no such file.")


@functools.cache
def standard_input() -> bytes:
    """All of standard input, which can be read once only."""
    if sys.stdin is None:
        raise InputError("standard input: there is none.")
    return sys.stdin.buffer.read()


def place(path: Path) -> str:
    """Where a record says that a table lay."""
    return STDIN if str(path) == STDIN else str(path.absolute())


def fingerprint(path: Path) -> str:
    """SHA-256 of a table's bytes."""
    if str(path) == STDIN:
        return hashlib.sha256(standard_input()).hexdigest()
    return digest(path)


def again(place: str, why: str) -> Path:
    """The file of a recorded table; or an error, where that is gone.

    Args:
        place: what the record says.
        why: it is needed, the rest of a sentence.
    """
    if place == STDIN:
        raise InputError(
            f"standard input cannot be read again; {why}. Fit from a file to be able to."
        )
    if not Path(place).is_file():
        raise InputError(f"{place}: no such file; {why}. Put it back.")
    return Path(place)


@contextmanager
def _readable(where: str) -> Generator[None]:
    """Inside, an error of polars is an input error."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"{where}: not a readable table: {said}") from None


def _is_parquet(file: BinaryIO) -> bool:
    """Whether a file begins and ends as Parquet does; asked at its beginning, and left there."""
    if not file.seekable():
        return False
    begins = file.read(4)
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - 4, 0))
    ends = file.read(4)
    file.seek(0)
    return begins == ends == _PARQUET and size > 8


def _parquet(source: Path | io.BytesIO, columns: Sequence[str] | None, where: str) -> Table:
    with _readable(where):
        # Without `glob`, a name with brackets or stars is a name, not a pattern.
        lazy = pl.scan_parquet(source, glob=False)
        if columns is not None and set(columns) <= set(lazy.collect_schema().names()):
            lazy = lazy.select(list(dict.fromkeys(columns)))
        # Decoded piece by piece: a wide table need not fit into memory twice.
        return _typed(lazy.collect(engine="streaming"), where)


def _typed(frame: pl.DataFrame, where: str) -> Table:
    return tabled(frame, frame.columns, where)


def _zipped(data: bytes, where: str) -> Table:
    """A workbook, or the one file in an archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            names = [name for name in names if not name.startswith("__MACOSX/")]
            if {"xl/workbook.xml", "xl/workbook.bin", "content.xml"} & set(names):
                return sheet(data, where)
            if any(name.endswith(".npy") for name in names):
                raise InputError(
                    f"{where}: is a NumPy file; give its arrays as a mapping of columns in Python."
                )
            if len(names) != 1:
                raise InputError(
                    f"{where}: is an archive of {len(names)} files ({', '.join(names[:5])}"
                    f"{', …' if len(names) > 5 else ''}); unpack it and give one of them."
                )
            inner = archive.read(names[0])
    except (
        zipfile.BadZipFile,
        RuntimeError,
        NotImplementedError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: is an archive that cannot be unpacked ({error}).") from None
    return read_bytes(inner, where)
