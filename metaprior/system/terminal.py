"""What all commands share: the cache of compiled programs, a progress bar, checks of numbers."""

import codecs
import io
import os
import re
import sys
import time
import warnings
from typing import Any

from metaprior.errors import InputError
from metaprior.system import cache

SHOTS = "0,1,2,5,10"


def use_cache() -> None:
    """Keep compiled programs between runs.

    They lie in `cache.folder()`. This sets environment variables, which JAX reads when it is first
    imported: it is for a process of our own, and nothing that a user imports calls it.
    """
    prepare()
    folder = cache.folder()
    if folder is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    # An entry that a killed process left half-written is compiled anew.
    warnings.filterwarnings(
        "ignore", message="Error (reading|writing) persistent compilation cache"
    )
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(cache.LEAST_SECONDS))


def prepare() -> None:
    """Set up JAX and its libraries for a process of our own; what the user has set stays."""
    # Matrix products in full: GPUs and TPUs round their factors by default.
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    # LAPACK wakes threads for matrices of 32 rows or more and lets them spin. On two busy cores
    # the gradient of sixteen factors took 43 ms, and takes 0.3 ms with one thread.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    give_devices_threads()


def give_devices_threads() -> None:
    """Where the host is told to be several devices, let JAX have threads for each of them.

    Devices wait for each other's sums: one that does so in the only thread would wait for ever.
    JAX reads the number when it starts.
    """
    forced = re.search(r"host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
    count = int(forced[1] if forced else os.environ.get("JAX_NUM_CPU_DEVICES") or 1)
    if count > 1:
        os.environ.setdefault("PJRT_NPROC", str(2 * count + 2))


# What is printed for characters that a terminal does not have.
_PLAIN = {
    "…": "...",
    "–": "-",
    "—": "-",
    "−": "-",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "▲": "^",
    "▼": "v",
    "±": "+/-",
    "×": "x",
    "·": ".",
    "•": "*",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "²": "^2",
    "█": "#",
    "━": "-",
    "╸": "-",
    "╺": "-",
}


def print_anywhere() -> None:
    """Let everything be printed, whatever the encoding of the terminal.

    Signs that it does not have are replaced by like ones, and letters by their numbers, as in
    `\\u0142`. This changes the standard streams: it is for a process of our own.
    """
    codecs.register_error("metaprior", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="metaprior")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = [_PLAIN.get(sign, sign) for sign in error.object[error.start : error.end]]
    text = "".join(shown).encode("ascii", errors="backslashreplace").decode("ascii")
    return text, error.end


class Progress:
    """A bar on stderr with the time left, once work has taken a second.

    Where stderr is no terminal, a plain line every five seconds instead.
    """

    def __init__(self, start: float = 0.0, stop: float = 1.0):
        self.start, self.stop = start, stop
        self.began = time.monotonic()
        self.said = self.began
        self.bar: Any = None
        self.row: Any = None

    def part(self, start: float, stop: float) -> "Progress":
        """Let what comes next fill the bar from `start` to `stop`."""
        self.start, self.stop = start, stop
        return self

    def __call__(self, fraction: float, what: str) -> None:
        """Show `what` and that this `fraction` of the part is done, from 0 to 1."""
        done = self.start + (self.stop - self.start) * min(max(fraction, 0.0), 1.0)
        now = time.monotonic()
        spent = now - self.began
        if spent < 1.0:
            return

        told = ""
        if done > 0.01:  # before that the guess jumps about
            told = f"about {int(spent * (1 - done) / done) + 1} s left"
        if not sys.stderr.isatty():
            if now - self.said > 5.0:
                self.said = now
                print(f"{done:4.0%}  {what}  {told}", file=sys.stderr, flush=True)
            return
        if self.bar is None:
            self._show(what)
        self.bar.update(self.row, completed=done, description=what, left=told)

    def _show(self, what: str) -> None:
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[left]}"),
        )
        self.bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        self.row = self.bar.add_task(what, total=1.0, left="")
        self.bar.start()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.stop()


def whole_numbers(text: str, flag: str) -> tuple[int, ...]:
    """The numbers of a text such as `0,1,5`, each once, in order."""
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < 0:
        raise InputError(
            f"{flag} takes whole numbers of at least 0 with commas, such as {SHOTS}; got {text!r}."
        )
    return numbers


def names_in(text: str) -> list[str]:
    """`a,b` as names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def say_note(note: str) -> None:
    """Print what a user should know, beside what a command answers."""
    print(f"note: {note}", file=sys.stderr)


def device_count(text: str) -> int | str:
    """What `--devices` says: a number, or `all`."""
    if text == "all":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--devices is a number of at least 1, or all; got {text!r}.")
    return int(text)


def at_least(value: int | None, least: int, flag: str) -> None:
    """Refuse a number that is too small; `None` is a flag that was not given."""
    if value is not None and value < least:
        raise InputError(f"{flag} must be at least {least}; got {value}.")
