"""Files of every format: read by what they hold, or refused with what helps."""

import bz2
import datetime
import gzip
import io
import lzma
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import polars as pl
import pytest
import xlsxwriter
from backports import zstd

from metaprior.errors import InputError
from metaprior.tables.read import found, read
from metaprior.tables.reading import files
from metaprior.tables.reading.files import read_bytes, read_file

TEXT = "g,x\nä,1.5\nb,2\n"
FRAME = pl.DataFrame({"g": ["ä", "b"], "x": [1.5, 2.0]})


def written(how, **options) -> bytes:
    file = io.BytesIO()
    getattr(FRAME, how)(file, **options)
    return file.getvalue()


def zipped(names: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return file.getvalue()


def workbook(*sheets, **options) -> bytes:
    """Rows of cells of each sheet."""
    file = io.BytesIO()
    with xlsxwriter.Workbook(file, {"in_memory": True}) as book:
        day = book.add_format({"num_format": "yyyy-mm-dd"})
        hour = book.add_format({"num_format": "hh:mm"})
        for rows in sheets:
            sheet = book.add_worksheet()
            for i, row in enumerate(rows):
                for j, cell in enumerate(row):
                    if isinstance(cell, datetime.date):
                        sheet.write_datetime(i, j, cell, day)
                    elif isinstance(cell, datetime.time):
                        sheet.write_datetime(i, j, cell, hour)
                    elif cell is not None:
                        sheet.write(i, j, cell)
    return file.getvalue()


SHEET = [["g", "x"], ["ä", 1.5], ["b", 2]]
GOOD = {
    "UTF-8": TEXT.encode(),
    "UTF-8 with a mark": TEXT.encode("utf-8-sig"),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 LE without a mark": TEXT.encode("utf-16-le"),
    "UTF-16 BE without a mark": TEXT.encode("utf-16-be"),
    "UTF-32": TEXT.encode("utf-32"),
    "Latin-1": TEXT.encode("latin-1"),
    "DOS's end": TEXT.encode() + b"\x1a",
    "gzip": gzip.compress(TEXT.encode()),
    "gzip of UTF-16": gzip.compress(TEXT.encode("utf-16")),
    "gzip twice": gzip.compress(gzip.compress(TEXT.encode())),
    "zstd": zstd.compress(TEXT.encode()),
    "bzip2": bz2.compress(TEXT.encode()),
    "xz": lzma.compress(TEXT.encode()),
    "a zip of one file": zipped({"t.csv": TEXT.encode(), "__MACOSX/t": b""}),
    "Parquet": written("write_parquet"),
    "Parquet in gzip": gzip.compress(written("write_parquet")),
    "Arrow": written("write_ipc"),
    "Feather with zstd": written("write_ipc", compression="zstd"),
    "an Arrow stream": written("write_ipc_stream"),
    "Excel": workbook(SHEET),
}


@pytest.mark.parametrize("kind", GOOD)
def test_the_same_table_in_every_format(kind, tmp_path):
    """By what it holds: the name says CSV."""
    path = tmp_path / "t.csv"
    path.write_bytes(GOOD[kind])
    assert read(path).equals(FRAME)
    table = read_file(path)
    assert table.written == (table.frame["x"].dtype == pl.String)
    assert found(io.BytesIO(GOOD[kind])).frame.equals(table.frame)


ENCODINGS = [
    ("Größe\nCafé\nµm\n", "cp1252", "Windows-1252"),
    ("l’été — né\n", "cp1252", "Windows-1252"),
    ("группа\nпервый\nвторой\nмужской\n", "cp1251", "CP1251"),
    ("группа\nпервый\nвторой\nмужской\n", "koi8_r", "KOI8-R"),
    ("Kraków\nŁódź\nmężczyzna\nżółty\n", "cp1250", "CP1250"),
    ("東京\n大阪\nグループ\n男性\n", "shift_jis", "SHIFT-JIS"),
    ("北京\n上海\n广州\n体重\n", "gb18030", "GB18030"),
    ("서울\n부산\n남자\n그룹\n", "euc_kr", "EUC-KR"),
]


@pytest.mark.parametrize("text,encoding,note", ENCODINGS, ids=[row[1] for row in ENCODINGS])
def test_encodings_are_found_and_said(text, encoding, note):
    table = read_bytes(("x\n" + text).encode(encoding), "t.csv")
    assert table.frame["x"].to_list() == text.splitlines()
    assert any(note in said for said in table.notes), table.notes


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


BAD = [
    ("nothing", b"", ["empty"]),
    ("nothing in gzip", gzip.compress(b""), ["empty"]),
    ("JSON", b' [{"g": 1}]', ["JSON", "polars"]),
    ("lines of JSON", b'{"g": 1}\n{"g": 2}\n', ["JSON"]),
    ("a web page", b"\n<html><body>", ["web page"]),
    ("XML that Excel reads", b'\xef\xbb\xbf<?xml version="1.0"?>', ["XML"]),
    ("PDF", b"%PDF-1.7\n", ["PDF"]),
    ("HDF5", b"\x89HDF\r\n\x1a\n\0\0", ["HDF5", "pandas"]),
    ("SPSS", b"$FL2@(#) SPSS DATA FILE", ["SPSS", "pandas"]),
    ("Stata", b"<stata_dta><header>", ["Stata"]),
    ("SAS", 12 * b"\0" + b"\xc2\xea\x81\x60\xb3\x14", ["SAS"]),
    ("R", gzip.compress(b"X\n\0\0\0\3\0\4\2\1"), ["an R file", "write.csv"]),
    ("R data", bz2.compress(b"RDX3\nX\n"), ["an R file"]),
    ("a pickle", pickle.dumps({"g": [1]}), ["pickle", "never loaded"]),
    ("a pickle in gzip", gzip.compress(pickle.dumps([1], 2)), ["pickle"]),
    ("a NumPy array", array(), ["NumPy"]),
    ("NumPy arrays", zipped({"x.npy": array()}), ["NumPy"]),
    ("a database", b"SQLite format 3\0", ["SQLite"]),
    ("an archive", zipped({"a.csv": b"x", "b.csv": b"y"}), ["2 files", "a.csv, b.csv"]),
    ("half an archive", zipped({"a.csv": b"x"})[:-9], ["archive", "cannot be unpacked"]),
    ("a tar", 257 * b"a" + b"ustar\x0000", ["tar"]),
    ("an old workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + 600 * b"\0", ["workbook", ".xlsx"]),
    ("a workbook without cells", workbook([]), ["sheet 'Sheet1' is empty"]),
    ("a title in a workbook", workbook([["Cows"], [], *SHEET]), ["first row", "1 cell", "have 2"]),
    ("a picture", b"\x89PNG\r\n\x1a\n", ["picture"]),
    ("bytes", bytes(range(200)), ["line 1", "zero byte", "no text"]),
    ("a zero byte", b"g,x\na,1\nb\0,2\n", ["line 3", "zero byte"]),
    ("half of gzip", gzip.compress(TEXT.encode())[:-9], ["gzip", "whole"]),
    ("half of zstd", zstd.compress(TEXT.encode() * 99)[:-9], ["zstd", "whole"]),
    ("half of UTF-16", TEXT.encode("utf-16")[:-1], ["line 3", "UTF-16", "whole"]),
    ("half of Parquet", GOOD["Parquet"][:-30] + b"PAR1", ["not a readable table"]),
    ("half of Arrow", GOOD["Arrow"][:-30], ["not a readable table"]),
]


@pytest.mark.parametrize("kind,content,words", BAD, ids=[row[0] for row in BAD])
def test_what_is_no_table_is_named(kind, content, words, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_file(path)
    said = str(error.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    assert all(word in said for word in words), said


def test_paths_that_are_no_files(tmp_path):
    hidden = tmp_path / "hidden.csv"
    hidden.write_text(TEXT)
    hidden.chmod(0)
    rows = [
        (tmp_path, "is a folder"),
        (tmp_path / "no.csv", "no such file"),
        ("https://a.org/t.csv", "nothing is fetched; download"),
        ("s3://bucket/t.csv", "nothing is fetched"),
        ("a" * 300, "no such file"),
        ("a\0b", "no such file"),
    ]
    if os.geteuid():
        rows.append((hidden, "permission denied"))
    for path, words in rows:
        with pytest.raises(InputError, match=words):
            read_file(path)


@pytest.mark.parametrize("name", ["a [b]*.csv", "ä ☃.csv", "-t.csv", "100% {x}.parquet"])
def test_names_of_files_are_names(name, tmp_path):
    (tmp_path / name).write_bytes(GOOD["Parquet" if name.endswith("t") else "UTF-8"])
    assert read(tmp_path / name).equals(FRAME)


def test_cells_of_a_workbook():
    """Dates and times are such, mixed columns are text; what is empty is left out, with a note."""
    day, hour = datetime.date(2020, 3, 1), datetime.time(7, 30)
    rows = [
        ["g", "n", "day", "hour", "mixed", "truth", None, None],
        ["a", 1, day, hour, 1, True, None, None],
        [None] * 8,
        ["b", 2.5, None, None, "x", False, None, " "],
        [None] * 8,
    ]
    table = read_bytes(workbook(rows, [["other"]], [["third"]]), "t.xlsx")
    assert table.frame.rows() == [
        ("a", 1.0, datetime.datetime(2020, 3, 1), hour, "1", True),
        ("b", 2.5, None, None, "x", False),
    ]
    said = " ".join(table.notes)
    assert "'Sheet1' was read; there are also 'Sheet2', 'Sheet3'" in said
    assert "1 row without values" in said and "2 columns without a name" in said
    assert not table.written


def test_a_table_that_begins_further_down_in_a_sheet():
    rows = [[], [None, None], *[[None, *row] for row in SHEET]]
    assert read_bytes(workbook(rows), "t.xlsx").frame.equals(FRAME)


def test_columns_that_are_no_data():
    text = ",X,rownames,id,n,,\n" + "".join(
        f"{i},{i + 1},{i + 1},{i},{2 * i},,\n" for i in range(4)
    )
    table = read_bytes(text.encode(), "t.csv")
    assert table.frame.columns == ["column_1", "X", "rownames", "id", "n"]
    assert table.aside == ("column_1", "X", "rownames")
    assert sum("only counts the rows" in note for note in table.notes) == 3
    assert "2 columns without a name and without values left out." in table.notes
    other = read_bytes(b",X,y\na,1,2\nb,3,4\n", "t.csv")
    assert other.aside == () and other.notes == ("column 1 has no name; it is called 'column_1'.",)


def test_names_that_are_twice_there():
    for text in (b"x,x\n1,2\n", b"x, x\n1,2\n"):
        with pytest.raises(InputError, match="two columns are called 'x'"):
            read_bytes(text, "t.csv")


def test_standard_input(monkeypatch):
    class Input:
        buffer = io.BytesIO(TEXT.encode())

    files.standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", Input)
    assert read("-").equals(FRAME) and read("-").equals(FRAME)
    monkeypatch.setattr(sys, "stdin", None)
    files.standard_input.cache_clear()
    with pytest.raises(InputError, match="standard input: there is none"):
        read("-")


def test_reading_loads_no_other_library(tmp_path):
    (tmp_path / "t.csv").write_bytes(TEXT.encode())
    (tmp_path / "t.arrow").write_bytes(GOOD["Arrow"])
    (tmp_path / "t.xlsx").write_bytes(GOOD["Excel"])
    code = (
        "import sys; from metaprior.tables.read import read;"
        "[read(f't.{end}') for end in ('csv', 'arrow', 'xlsx')];"
        "print(sorted({'pandas', 'pyarrow', 'jax', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]" and done.stderr == ""
