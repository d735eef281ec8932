"""Files that hold no table that can be read: what they are, and what helps."""

import re

READ = "CSV or TSV text, Excel, Parquet and Arrow files are read, also inside gzip or zstd"
_PANDAS = "save it as CSV or Parquet, or read it with pandas and give the frame in Python"
_CSV = "save its table as CSV"
_POLARS = "in Python read it with polars and give the frame, or write it as CSV"

# What a file begins with, what that is, what helps.
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (rb"%PDF", "a PDF", _CSV),
    (rb"\x89HDF\r\n\x1a\n|CDF[\x01\x02\x05]", "an HDF5 or netCDF file", _PANDAS),
    (rb"\$FL[23]", "an SPSS file", _PANDAS),
    (rb"<stata_dta>|[\x6e-\x75][\x01\x02]\x01\x00", "a Stata file", _PANDAS),
    (rb"\0{12}\xc2\xea\x81\x60|HEADER RECORD\*{7}LIB", "a SAS file", _PANDAS),
    (rb"RD[AX][1-5]\n|[XAB]\n\0\0\0[\x02\x03]", "an R file", "write it with write.csv in R"),
    (rb"\x80[\x02-\x05][\x95}\]()c]", "a pickle, which may run programs and is never loaded", _CSV),
    (rb"\x93NUMPY", "a NumPy file", "give its arrays as a mapping of columns in Python"),
    (rb"SQLite format 3\0", "an SQLite database", "write the table as CSV"),
    (rb"Obj\x01|ORC[^ -~\s]", "an Avro or ORC file", "save it as Parquet"),
    (rb"FEA1[^ -~\s]", "a Feather file of version 1", "write it again as Feather 2 or Parquet"),
    (rb"Rar!\x1a|7z\xbc\xaf\x27\x1c|\x04\x22\x4d\x18|\x1f\x9d", "an archive", "unpack it"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*", "a picture", _CSV),
    (rb"\x7fELF|MZ.{58}\0\0", "a program", "give a table"),
    (rb"\{\\rtf", "a text with formats (RTF)", _CSV),
)
_JSON = re.compile(rb'\s*(\{\s*("|\})|\[\s*(\{|\[|\]))')
_MARKUP = re.compile(rb"\s*<(!doctype|html|head|body|table|\?xml|script|div)", re.IGNORECASE)


def refusal(start: bytes) -> str | None:
    """Why a file that begins so is not read, as the rest of a sentence; `None` if it may be.

    Args:
        start: the first bytes, some thousand.
    """
    for mark, what, helps in _KINDS:
        if re.match(mark, start, re.DOTALL):
            return f"is {what}; {helps}. {READ}."
    if start[257:262] == b"ustar":
        return f"is an archive (tar); unpack it. {READ}."
    text = start.removeprefix(b"\xef\xbb\xbf")
    if _JSON.match(text):
        return f"holds JSON; {_POLARS}. {READ}."
    if _MARKUP.match(text):
        return f"holds a web page or XML; {_CSV}. {READ}."
    return None
