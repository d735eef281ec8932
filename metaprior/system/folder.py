"""Folders and files that a command writes: whole or not at all, and known when it comes again."""

import errno
import hashlib
import io
import json
import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from metaprior.errors import InputError

ROOM = 16 * 2**20  # bytes that must be free before a fit starts
PART = ".part"  # the end of a name whose file is not whole yet


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that its name never stands for half of it.

    Args:
        path: the file's name.
        write: is called with the path of another file beside it, which then takes its place.
    """
    part = path.with_name(path.name + PART)
    try:
        write(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_parquet(path: Path, frame: Any) -> None:
    """Write a frame as Parquet.

    It is made in memory first: polars itself reports a full disk without its error number.
    """
    whole = io.BytesIO()
    frame.write_parquet(whole)
    write_atomic(path, lambda part: part.write_bytes(whole.getbuffer()))


def check_writable(path: Path) -> None:
    """Refuse a path that cannot be made here, or on a disk without room.

    Raises:
        InputError: what is in the way.
    """
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{path}: {parent} is a file, not a folder.")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{path}: no permission to write in {parent}.")
    free = shutil.disk_usage(parent).free
    if free < ROOM:
        raise InputError(f"{path}: the disk is full ({free / 2**20:.1f} MB free in {parent}).")


def check_output(path: Path, header: str | None = None) -> None:
    """Refuse an output file that would replace one of another kind.

    Args:
        path: the file to be written.
        header: its first line. An earlier file with the same one may be replaced.
    """
    check_writable(path)
    if not path.exists():
        return
    if not path.is_file():
        raise InputError(f"{path}: exists and is not a file; choose another --out.")
    with path.open("rb") as file:
        first = file.readline(65536).decode("utf-8", "replace").strip()
    if header is None or first != header:
        raise InputError(
            f"{path}: exists and holds something else; choose another --out or remove it."
        )


def continued(folder: Path, form: str, ours: set[str]) -> dict[str, Any] | None:
    """The record of an earlier run in an output folder; `None` where it is new or empty.

    Args:
        folder: the output folder.
        form: what `run.json` must say it is.
        ours: names that such a run makes.

    Raises:
        InputError: the folder holds anything else.
    """
    check_writable(folder)
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise InputError(f"{folder}: --out is a file; give a folder.")
    names = {entry.name for entry in folder.iterdir() if not entry.name.endswith(PART)}
    if not names:
        return None
    try:
        before = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        before = None
    if not isinstance(before, dict) or before.get("format") != form or not names <= ours:
        other = sorted(names - ours) or sorted(names)
        raise InputError(
            f"{folder}: --out holds something else ({other[0]}); choose another folder."
        )
    return before


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed(*names: str) -> dict[str, str]:
    """Versions of those packages that there are."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def versions() -> dict[str, str]:
    """What a run depended on."""
    names = ("metaprior", "jax", "jaxlib", "equinox", "optax", "numpy", "polars")
    return {"python": platform.python_version()} | installed(*names)


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What else the bits of a run may depend on: the hardware and XLA's settings."""
    import jax

    found = jax.devices()
    return {
        "platform": platform.platform(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "backend": found[0].platform,
        "device": found[0].device_kind,
        "device_count": len(found),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def plain_os_error(error: OSError) -> str:
    """An operating system's error in one line."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{where}the disk is full; free some space and run the command again "
            "(an unfinished fit with --resume)."
        )
    return f"{where}{error.strerror or error}."
