"""Bytes of a text file as text, whatever its encoding."""

import codecs
import re
from functools import partial

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
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp874", "koi8_r"),
    *("mac_roman", "cp850", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
]
_CYRILLIC = ("cp1251", "koi8_r")  # one has capitals where the other has small letters
_CALLED = {"cp1252": "Windows-1252 (Latin-1)", "latin_1": "Latin-1"}
_SEARCHED = 10_000_000  # bytes, in which words are looked for by which an encoding is guessed
_WORDS = 2000
_ENOUGH = 4000  # bytes; fewer are repeated for the guess, which needs some
# A sign between letters, as no Western language has it: letters of another encoding.
_SIGN_INSIDE = re.compile(r"[^\W\d_][^\w\x00-\x7f’‘´–—·\xad][^\W\d_]")


def decoded(data: bytes, where: str) -> tuple[str, tuple[str, ...]]:
    """Text of a file, and a note unless it was UTF-8.

    Raises:
        InputError: where the bytes are no text.
    """
    name, text = _decode(data, where)
    text = text.rstrip("\x1a")  # with which DOS ended files
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{where}: line {line} holds a zero byte, so this is no text file.")
    if name == "utf-8":
        return text, ()
    return text, (f"read as {_CALLED.get(name, name.upper().replace('_', '-'))} text.",)


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
        return name, data.decode(name)


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
    even, odd = start[::2], start[1::2]
    for name, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros.count(0) > 0.7 * len(zeros) and not others.count(0):
            return name
    return None


def _guessed(data: bytes) -> str:
    """The encoding of text that is not Unicode: Windows-1252 unless it would be no language."""
    words = re.findall(rb"[^\s,;\"]*[\x80-\xff][^\s,;\"]*", data[:_SEARCHED])[:_WORDS]
    sample = b"\n".join(words)
    western = _all_decodes(data, "cp1252")
    # Western languages have letters that are not ASCII one or two at a time.
    if western and not re.search(rb"[\x80-\xff]{3}", sample):
        if not _SIGN_INSIDE.search(sample.decode("cp1252")):
            return "cp1252"
    from charset_normalizer import from_bytes

    repeated = b"\n".join([sample] * (1 + _ENOUGH // max(1, len(sample))))
    best = from_bytes(repeated, cp_isolation=_GUESSED).best()
    name = "cp1252" if best is None else best.encoding
    if name in _CYRILLIC:
        name = min(_CYRILLIC, key=partial(_capitals, sample))
    if _all_decodes(data, name):
        return name
    return "cp1252" if western else "latin_1"


def _capitals(sample: bytes, name: str) -> int:
    return sum(map(str.isupper, sample.decode(name, errors="replace")))


def _all_decodes(data: bytes, name: str) -> bool:
    try:
        data.decode(name)
    except UnicodeDecodeError:
        return False
    return True
