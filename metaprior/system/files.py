"""Saving and loading trees: a JSON header and raw arrays, never pickle.

Layout: the line `metaprior 2`, a SHA-256 of everything after it, the lengths of the header and of
the arrays (eight bytes each, little endian), the JSON header (`trees`), then the arrays' bytes in
the order in which the header names them. Reading checks the sum before it parses, and the sizes
before it allocates. Classes and functions are looked up by their names (`names`); nothing that a
file names is imported or called.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from metaprior.errors import InputError
from metaprior.system.names import Refused
from metaprior.system.trees import Reader, encode

MAGIC = b"metaprior 2\n"
_START = len(MAGIC) + 32 + 8 + 8  # of the header
_ANEW = "If another version of metaprior wrote it, fit again with this one."


def save(path: str | Path, tree: Any) -> None:
    """Write a tree of modules, containers, numbers, strings and arrays.

    The file appears whole or not at all.

    Raises:
        InputError: the tree holds something that cannot be saved.
    """
    header, arrays = described(tree)
    little = [array.astype(array.dtype.newbyteorder("<"), copy=False) for array in arrays]
    _write(Path(path), header.encode(), [array.tobytes() for array in little])


def load(path: str | Path) -> Any:
    """Read what `save` wrote.

    Raises:
        InputError: it is another file, of another version, damaged, or holds what `save` does not
            write; the message says which.
    """
    path = Path(path)
    data, size = _checked(path)
    try:
        # Decoded here: `json` would guess an encoding.
        header = json.loads(
            data[_START : _START + size].decode("ascii"),
            parse_int=_integer,
            parse_constant=_constant,
            object_pairs_hook=_distinct,
        )
        reader = Reader(data, _START + size)
        tree = reader.tree(header)
        if reader.at != len(data):
            raise Refused("arrays that nothing uses")
        return tree
    except Refused as error:
        raise InputError(f"{path}: refused: it holds {error}. {_ANEW}") from None
    except Exception as error:  # whatever a crafted header makes Python, NumPy or JAX raise
        raise InputError(f"{path}: refused: it cannot be read ({type(error).__name__}).") from error


def described(tree: Any) -> tuple[str, list[np.ndarray]]:
    """The header of a tree, and the arrays that it leaves out."""
    arrays: list[np.ndarray] = []
    return json.dumps(encode(tree, arrays), allow_nan=False), arrays


def _write(path: Path, header: bytes, blobs: list[bytes]) -> None:
    parts = [
        len(header).to_bytes(8, "little"),
        sum(map(len, blobs)).to_bytes(8, "little"),
        header,
        *blobs,
    ]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.writelines([MAGIC, digest.digest(), *parts])
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _checked(path: Path) -> tuple[bytes, int]:
    """The bytes of a whole and undamaged file, and its header's length."""
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    with path.open("rb") as file:
        # A few bytes first: another kind of file may be larger than the memory.
        first = file.read(len(MAGIC))
        if not MAGIC.startswith(first):
            if first.startswith(b"metaprior "):
                raise InputError(f"{path}: not in format 2, which this version reads. {_ANEW}")
            raise InputError(f"{path}: not a file that metaprior saved.")
        file.seek(0)
        data = file.read()
    size = int.from_bytes(data[_START - 16 : _START - 8], "little")  # of the header
    rest = int.from_bytes(data[_START - 8 : _START], "little")  # of the arrays
    if len(data) < _START + size + rest:
        raise InputError(f"{path}: the file is cut short or damaged.")
    if len(data) > _START + size + rest:
        raise InputError(f"{path}: the file is damaged, or something was appended to it.")
    if hashlib.sha256(memoryview(data)[len(MAGIC) + 32 :]).digest() != data[len(MAGIC) :][:32]:
        raise InputError(f"{path}: the file is damaged (its checksum does not match).")
    return data, size


def _integer(text: str) -> int:
    # The length first: the time to read a number grows with the square of its digits.
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise Refused("a number out of range")
    return int(text)


def _distinct(pairs: list) -> dict:
    if len(dict(pairs)) != len(pairs):
        raise Refused("a name twice")
    return dict(pairs)


def _constant(text: str) -> None:
    raise Refused(f"the number {text}")
