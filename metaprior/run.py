"""The folder that `fit` makes: what it holds, when it may be written to, and how a run is continued."""

import errno
import hashlib
import io
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from metaprior.errors import InputError

FORMAT = "metaprior run"
HOLDOUT = 0.2  # share of the groups that `fit` keeps for `evaluate`
ROOM = 16 * 2**20  # bytes that must be free before a fit starts
_OURS = {"prior", "run.json", "checkpoint", "last_good"}
PART = ".part"
_KIND = re.compile("^(table|support|query|pool): ")


@contextmanager
def naming(path: str | Path | None) -> Generator[None]:
    """Input errors raised inside name the file `path`, if they do not name it or another already."""
    try:
        yield
    except InputError as error:
        named = str(error).split(": ")[0]
        if path is None or str(path) in str(error) or (os.sep in named and os.path.exists(named)):
            raise
        raise type(error)(f"{path}: {re.sub(_KIND, '', str(error))}") from None


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """`write(part)` to a file beside `path`, which then takes its place: never half a file under the real name."""
    part = path.with_name(path.name + PART)
    try:
        write(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_parquet(path: Path, frame: Any) -> None:
    """A frame as a file, made in memory first: polars itself says a full disk in words that nobody can look for."""
    whole = io.BytesIO()
    frame.write_parquet(whole)
    write_atomic(path, lambda part: part.write_bytes(whole.getbuffer()))


def check_writable(path: Path) -> None:
    """`path` can be made here: a plain name in a folder that exists or can be made, with room on the disk."""
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
    """An output file may be new, or replace an earlier one of the same kind (same first line)."""
    check_writable(path)
    if not path.exists():
        return
    if not path.is_file():
        raise InputError(f"{path}: exists and is not a file; choose another --out.")
    with path.open("rb") as file:
        first = file.readline(65536).decode("utf-8", "replace").strip()
    if header is None or first != header:
        raise InputError(f"{path}: exists and holds something else; choose another --out or remove it.")


def continued(folder: Path, form: str, ours: set[str]) -> dict[str, Any] | None:
    """The record of an earlier run in an output folder; `None` where it is new or empty.

    Args:
        folder: the output folder.
        form: what `run.json` must say it is.
        ours: names that such a run makes; anything else in the folder is an `InputError`.
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
        raise InputError(f"{folder}: --out holds something else ({other[0]}); choose another folder.")
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
    names = ("metaprior", "jax", "jaxlib", "equinox", "optax", "numpy", "polars", "scikit-learn")
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
    """What else the bits of a run may depend on: the platform, the processor, the accelerators, XLA's settings."""
    import jax

    found = jax.devices()
    return {"platform": platform.platform(), "processor": processor(), "cpus": os.cpu_count(),
            "backend": found[0].platform, "device": found[0].device_kind, "device_count": len(found),
            "xla_flags": os.environ.get("XLA_FLAGS", "")}  # fmt: skip


class Run:
    """A run folder: `prior` when finished, `run.json` always, `checkpoint/` while it fits."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.prior = self.folder / "prior"
        self.record = self.folder / "run.json"
        self.checkpoint = self.folder / "checkpoint"
        self.last_good = self.folder / "last_good"  # a prior of before a loss was not finite

    @property
    def finished(self) -> bool:
        return self.prior.is_file()

    def read(self) -> dict[str, Any]:
        """What `run.json` says."""
        try:
            record = json.loads(self.record.read_text("utf-8"))
        except FileNotFoundError:
            raise InputError(f"{self.record}: no such file; was {self.folder} made by `metaprior fit`?") from None
        except (ValueError, OSError):
            record = None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise InputError(f"{self.record}: not the record of a metaprior run.")
        return record

    def load(self) -> Any:
        """The finished prior."""
        if not self.folder.exists():
            raise InputError(f"{self.folder}: no such folder.")
        if self.folder.is_file():
            path = self.folder  # a prior file by itself is as good
        elif not self.finished:
            if self.record.exists():
                raise InputError(f"{self.folder}: this fit has not finished; continue it with `fit --resume`.")
            raise InputError(f"{self.folder}: holds no prior; was it made by `metaprior fit`?")
        else:
            path = self.prior
        import metaprior

        with naming(path):
            return metaprior.load(path)

    def check_new(self, resume: bool) -> None:
        """`fit` may write here: a new or empty folder, or with `resume` an unfinished run."""
        check_writable(self.folder)
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: --out is a file; give a folder.")
        names = {entry.name for entry in self.folder.iterdir() if not entry.name.endswith(PART)}
        if not names or (names == {"checkpoint"} and not any(self.checkpoint.iterdir())):
            return  # nothing, or a fit that was cut off as it began
        if "run.json" not in names or not names <= _OURS:
            other = sorted(names - _OURS) or sorted(names)
            raise InputError(f"{self.folder}: --out holds something else ({other[0]}); choose another folder.")
        if not resume and self.finished:
            raise InputError(f"{self.folder}: --out holds a finished prior; choose another folder or remove it.")
        if not resume:
            raise InputError(f"{self.folder}: --out holds an unfinished run; continue it with --resume or remove it.")

    def check_same(self, options: dict[str, Any], table: Path) -> None:
        """A continued run has the options and the table it was started with."""
        record = self.read()
        for name, value in options.items():
            was = record["options"].get(name, False)
            if was != value and not (name == "skip_bad_tasks" and value):  # what a fit that met one is told to add
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{self.folder}: was started with {flag} {was}, now {flag} {value}; they must agree.")
        if record["table_sha256"] != digest(table):
            raise InputError(f"{table}: has changed since the run in {self.folder} was started.")

    def fit(self, table: Path, options: dict[str, Any], progress: Callable | None, devices: int | str = 1) -> Any:
        """Start or continue the run and finish it; nothing is written before the table has been found good."""
        import metaprior

        settings, columns = split_options(options, table)
        try:
            prior = metaprior.Prior(**settings, devices=devices)
        except ValueError as error:
            raise InputError(str(error)) from None
        from metaprior.culprits import BadTask
        from metaprior.devices import first

        made = not self.folder.exists()
        fresh = not self.record.exists()
        writes = first()

        begun = False

        def tell(done: float, what: str) -> None:  # called first when the table has been read and checked
            nonlocal begun
            if writes and not begun and (fresh or self.read()["options"] != options):
                self.start(table, options, devices)
            begun = True
            if progress is not None:
                progress(done, what)

        try:
            with naming(table):
                prior.fit(table, **columns, checkpoint=self.checkpoint, progress=tell)
        except InputError as error:
            if writes and fresh and not isinstance(error, BadTask):
                self.remove(made)
            if not isinstance(error, BadTask) or prior.trained is None:
                raise
            if writes:
                prior.info.pop("seconds", None)
                write_atomic(self.last_good, prior.save)
            raise BadTask(f"{error} {self.last_good} is the prior of before, to predict with.") from None
        if not writes:
            return prior
        seconds = prior.info.pop("seconds", None)  # the same prior is the same bits, however long it took
        write_atomic(self.prior, prior.save)
        prior.info["seconds"] = seconds
        self.clean()
        return prior

    def start(self, table: Path, options: dict[str, Any], devices: int | str = 1) -> None:
        """Write the record of a run that begins."""
        record = {
            "format": FORMAT,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "table": str(table.absolute()),
            "table_sha256": digest(table),
            "versions": versions(),
            "machine": machine(),
            "devices": devices,
            "seed": options["seed"],
            "options": options,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.record, lambda part: part.write_text(json.dumps(record, indent=1) + "\n", "utf-8"))

    def clean(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        self.last_good.unlink(missing_ok=True)
        for part in self.folder.glob("*" + PART):
            part.unlink(missing_ok=True)

    def remove(self, folder: bool) -> None:
        """Undo the start of a run."""
        self.clean()
        self.record.unlink(missing_ok=True)
        if folder and self.folder.exists():
            self.folder.rmdir()

    def recorded(self) -> tuple[Path, dict[str, Any]]:
        """The table and options of the fit, if the table is still there and the same."""
        record = self.read()
        table = Path(record["table"])
        if not table.exists():
            raise InputError(f"{table}: no such file; --splits fits again from the table of `fit`. Put it back.")
        if digest(table) != record["table_sha256"]:
            raise InputError(f"{table}: has changed since {self.folder} was fitted; --splits needs the same table.")
        return table, record["options"]

    def refit(self, seed: int, progress: Callable | None) -> Any:
        """The same fit from the recorded table with another seed: another split of the groups."""
        table, options = self.recorded()
        import metaprior

        settings, columns = split_options(options, table)
        with naming(table):
            return metaprior.Prior(**{**settings, "seed": seed}).fit(table, **columns, progress=progress)


def split_options(options: dict[str, Any], table: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's options as arguments of `Prior` and of `Prior.fit`."""
    names = ("method", "log_target", "steps", "seed", "kind", "split_by", "holdout", "skip_bad_tasks")
    columns = {n: options[n] for n in ("task", "target", "features")}
    return {n: options[n] for n in names if n in options}, {**columns, "target": split_target(options["target"], table)}


def split_target(text: str, table: Path) -> str | list[str]:
    """`a,b` as two columns, unless the table has one of that name."""
    if "," not in text:
        return text
    from metaprior.table import read

    if text in read(table).columns:
        return text
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"--target {text!r} is empty; give column names with commas between.")
    return names


def plain_os_error(error: OSError) -> str:
    """An operating system's error in one line."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{where}the disk is full; free some space and run the command again (an unfinished fit with --resume)."
    return f"{where}{error.strerror or error}."
