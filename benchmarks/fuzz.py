"""Reads damaged tables: whatever a file holds, it is read or refused in one line.

    POLARS_MAX_THREADS=1 python -m benchmarks.fuzz --files 100000 --check 20

Small tables of many formats are written and damaged: bytes flipped, parts cut out, doubled or taken
from another file. They are read, and checked as `metaprior fit` checks them. An error other than
`InputError`, or one of several lines, is printed with what was read; so is a file that takes longer
than a second.
"""

import argparse
import base64
import bz2
import gzip
import io
import lzma
import random
import sys
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable

import polars as pl

from metaprior.errors import InputError
from metaprior.tables.checked import check_all
from metaprior.tables.plan import Plan
from metaprior.tables.read import rows_of
from metaprior.tables.reading.packed import zstd

SLOW = 1.0  # seconds of the processor
_CELLS: list[Callable[[random.Random], str]] = [
    lambda r: f"{r.gauss(0, 3):.3g}",
    lambda r: str(r.randint(-5, 1000)),
    lambda r: f"{r.randint(1, 28):02}.{r.randint(1, 12):02}.2020",
    lambda r: f"2020-{r.randint(1, 12):02}-{r.randint(1, 31):02}",
    lambda r: f"{r.randint(0, 25)}:{r.randint(0, 59):02}",
    lambda r: f"{r.randint(0, 9999)},{r.randint(0, 99)}",
    lambda r: r.choice(["a", "b", "yes", "no ", " NA", "", "-", "?", "Zoë", "#N/A", "true"]),
    lambda r: r.choice(["€ 3", "5 %", "<0.05", "1.000,5", "1e400", "nan", "inf", "01", "1_0"]),
    lambda r: r.choice(['a "b" c', "x, y", "line\nbreak", "tab\there", "# no", "'q'", "\u2028"]),
]
_BITS = [
    b'"',
    b",",
    b";",
    b"\t",
    b"|",
    b"\n",
    b"\r",
    b"\0",
    b"#",
    b"\xff",
    b"\xfe",
    b" ",
    b"=",
    b"1",
]


def cell(random: random.Random) -> str:
    return random.choice(_CELLS)(random)


def table(random: random.Random) -> list[list[str]]:
    """Names and rows, now and then with one of another length."""
    width, height = random.randint(1, 6), random.choice([0, 1, 2, 5, 5, 12, 12, 30])
    names = random.sample(["g", "x", "y", "", "X", "day", "Größe", "a b", "1", "Unnamed: 0"], width)
    kinds = [random.choice(_CELLS) for _ in names]
    rows = [names]
    for i in range(height):
        row = [kind(random) for kind in kinds]
        row[0] = f"g{i // 4}" if random.random() < 0.7 else row[0]
        if random.random() < 0.02:
            row = row[: random.randint(0, width)] + [cell(random)] * random.randint(0, 2)
        rows.append(row)
    return rows


def written(rows: list[list[str]], random: random.Random) -> str:
    """A table as text."""
    separator = random.choice(",,,;;\t| ")
    quoted = random.choice(["never", "needed", "needed", "always"])
    end = random.choice(["\n", "\n", "\r\n", "\r"])

    def field(text: str) -> str:
        needs = quoted == "needed" and any(sign in text for sign in (separator, '"', "\n"))
        return '"' + text.replace('"', '""') + '"' if needs or quoted == "always" else text

    lines = [separator.join(map(field, row)) for row in rows]
    if random.random() < 0.1:
        lines.insert(0, random.choice([f"sep={separator}", "# comment", "A title", "", "#a,b"]))
    if random.random() < 0.1:
        lines.insert(
            random.randint(0, len(lines)), random.choice(["", ",,,", " ", "# c", separator])
        )
    return end.join(lines) + random.choice(["", end, end + end])


def encoded(random: random.Random) -> bytes:
    """A table as a file."""
    rows = table(random)
    how = random.random()
    if how < 0.1:
        return stored(rows, random)
    text = written(rows, random)
    code = random.choice(
        ["utf-8"] * 24
        + ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "cp1251", "utf-32"]
    )
    return text.encode(code, errors="replace")


def stored(rows: list[list[str]], random: random.Random) -> bytes:
    """A table in a format of columns."""
    names = [name or f"c{i}" for i, name in enumerate(rows[0])]
    full = [row for row in rows[1:] if len(row) == len(names)]
    frame = pl.DataFrame(full, schema=dict.fromkeys(names, pl.String), orient="row")
    file = io.BytesIO()
    random.choice([frame.write_parquet, frame.write_ipc, frame.write_ipc_stream])(file)
    return file.getvalue()


def packed(data: bytes, random: random.Random) -> bytes:
    """Now and then compressed."""
    if random.random() > 0.15:
        return data
    how = random.choice([gzip.compress, bz2.compress, lzma.compress, zstd().compress, zipped])
    return how(data)


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("t.csv", data)
    return file.getvalue()


def damaged(data: bytes, random: random.Random) -> bytes:
    """A file with some of its bytes changed, cut out, doubled, or taken from another one."""
    for _ in range(random.choice([0, 0, 1, 1, 2, 5])):
        if not data:
            return data
        start = random.randrange(len(data))
        end = min(len(data), start + random.choice([1, 2, 10, 100]))
        how = random.randrange(6)
        if how == 0:
            data = data[:start] + bytes([random.randrange(256)]) + data[start + 1 :]
        elif how == 1:
            data = data[:start] + data[end:]
        elif how == 2:
            data = data[:end] + data[start:]
        elif how == 3:
            data = data[:start]
        elif how == 4:
            data = data[:start] + random.choice(_BITS) * random.choice([1, 1, 2, 9]) + data[start:]
        else:
            other = encoded(random)
            data = data[:start] + other[random.randrange(len(other) + 1) :] + data[end:]
    return data


def fuzzed(seed: int) -> bytes:
    """A damaged file, the same for the same seed."""
    chance = random.Random(seed)
    data = encoded(chance)
    if chance.random() < 0.5:
        return damaged(packed(data, chance), chance)
    return packed(damaged(data, chance), chance)


def outcome(data: bytes, check: bool = True) -> str:
    """What becomes of a file: `read`, `checked`, or where it was refused.

    Args:
        data: the file.
        check: whether what was read is checked too.

    Raises:
        Exception: what must not happen.
    """
    try:
        rows = rows_of(io.BytesIO(data), "t.csv")
    except InputError as error:
        return _refused("reading", error)
    names = rows.frame.columns
    if not check:
        return "read"
    task = "g" if "g" in names else names[0]
    target = "y" if "y" in names and task != "y" else names[-1]
    try:
        check_all(rows, Plan(task=task, targets=[target], holdout=0.2), skip={})
    except InputError as error:
        return _refused("checking", error)
    return "checked"


def _refused(when: str, error: InputError) -> str:
    said = str(error)
    assert said.strip() and "\n" not in said and len(said) < 2000, f"not one line: {said!r}"
    return f"refused in {when}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    parser.add_argument("--check", type=int, default=1, help="check each so many-th file too")
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    found: Counter[str] = Counter()
    slow, bad, began = 0, 0, time.monotonic()
    for seed in range(arguments.seed, arguments.seed + arguments.files):
        data, start = fuzzed(seed), time.process_time()
        try:
            found[outcome(data, seed % arguments.check == 0)] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            bad += 1
            print(f"seed {seed}: {base64.b64encode(data[:3000]).decode()}", file=sys.stderr)
            traceback.print_exception(error)
        took = time.process_time() - start
        if took > SLOW:
            slow += 1
            print(f"seed {seed} took {took:.1f} s", file=sys.stderr)
    for name, count in found.most_common():
        print(f"{count:8,}  {name}")
    print(f"{bad:8,}  failed\n{slow:8,}  slow\n{time.monotonic() - began:8.0f}  seconds")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
