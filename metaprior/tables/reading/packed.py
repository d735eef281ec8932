"""Compressed bytes as they were before: gzip, zstd, bzip2, xz."""

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import Any

from metaprior.errors import InputError

_DEEP = 3  # how often a file may be compressed


def unpacked(data: bytes, where: str) -> bytes:
    """The bytes without compression; bytes that have none are given back.

    Raises:
        InputError: where they are damaged.
    """
    for _ in range(_DEEP):
        found = _by_mark(data)
        if found is None:
            return data
        name, unpack = found
        try:
            data = unpack(data)
        except (
            OSError,
            EOFError,
            ValueError,
            zlib.error,
            lzma.LZMAError,
            zstd().ZstdError,
        ) as error:
            raise InputError(
                f"{where}: is {name} that cannot be unpacked ({error}); is the file whole?"
            ) from None
    return data


def _by_mark(data: bytes) -> tuple[str, Callable[[bytes], bytes]] | None:
    if data.startswith(b"\x1f\x8b"):
        return "gzip", gzip.decompress
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd", zstd().decompress
    if data.startswith(b"BZh") and data[4:10] == b"1AY&SY":
        return "bzip2", bz2.decompress
    if data.startswith(b"\xfd7zXZ\x00"):
        return "xz", lzma.decompress
    return None


def zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
