"""Bytes of a text file as text, whatever its encoding."""

import codecs
import re

from metaprior.errors import InputError

# UTF-32 before UTF-16: its mark begins with theirs.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_GUESSED = [
    "cp1252",
    "cp1250",
    "cp1251",
    "cp1253",
    "cp1254",
    "koi8_r",
    "mac_roman",
    "cp437",
    "cp850",
    "shift_jis",
    "euc_jp",
    "gb18030",
    "big5",
    "euc_kr",
]
_MANY = 200  # lines that are not ASCII, by which an encoding is guessed
_CALLED = {"cp1252": "Windows-1252 (Latin-1)", "latin_1": "Latin-1"}


def decoded(data: bytes, where: str) -> tuple[str, tuple[str, ...]]:
    """Text of a file, and a note unless it was UTF-8.

    Raises:
        InputError: where the bytes are no text.
    """
    name, text = _decode(data, where)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(
            f"{where}: line {line} holds a zero byte; this is no text file of a table."
        )
    if name == "utf-8":
        return text, ()
    return text, (f"read as {_CALLED.get(name, name.upper())} text",)


def _decode(data: bytes, where: str) -> tuple[str, str]:
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name, _strictly(data[len(mark) :], name, where)
    name = _unmarked(data)
    if name:
        return name, _strictly(data, name, where)
    try:
        return "utf-8", data.decode("utf-8")
    except UnicodeDecodeError:
        name = _guessed(data)
        return name, data.decode(name, errors="replace")


def _strictly(data: bytes, name: str, where: str) -> str:
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(name, errors="replace").count("\n") + 1
        raise InputError(
            f"{where}: line {line} is no {name.upper()} text; is the file whole?"
        ) from None


def _unmarked(data: bytes) -> str | None:
    """UTF-16 without a mark: in text of mostly Latin letters every second byte is zero."""
    start = data[:2000]
    if len(start) < 4 or b"\0" not in start:
        return None
    for name, zeros, others in (
        ("utf-16-le", start[1::2], start[::2]),
        ("utf-16-be", start[::2], start[1::2]),
    ):
        if zeros.count(0) > 0.7 * len(zeros) and not others.count(0):
            return name
    return None


def _guessed(data: bytes) -> str:
    """The encoding of text that is not Unicode; Windows-1252 where too little text tells."""
    lines = re.findall(rb"[^\n]*[\x80-\xff][^\n]*", data[:10_000_000])[:_MANY]
    sample = b"\n".join(lines)
    from charset_normalizer import from_bytes

    western = _all_decodes(data, "cp1252")
    if western and not re.search(rb"[\x80-\xff]{3}", sample):
        return "cp1252"  # Western languages have such letters one at a time
    best = from_bytes(sample, cp_isolation=_GUESSED).best()
    if best is not None and _all_decodes(data, best.encoding):
        return best.encoding
    return "cp1252" if western else "latin_1"


def _all_decodes(data: bytes, name: str) -> bool:
    try:
        data.decode(name)
    except UnicodeDecodeError:
        return False
    return True
