"""What every command shares: the compilation cache, a bar with the time left, and checks of
numbers.
"""

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from metaprior.errors import InputError

SHOTS = "0,1,2,5,10"


def use_cache() -> None:
    """Compiled programs are kept between runs, in METAPRIOR_CACHE or the user's cache folder; empty
    turns it off.
    """
    folder = os.environ.get("METAPRIOR_CACHE")
    if folder is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = str(Path(base) / "metaprior" / "compiled")
    if not folder or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    # An entry that a killed process left half-written is compiled anew.
    warnings.filterwarnings(
        "ignore", message="Error (reading|writing) persistent compilation cache"
    )
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


class Progress:
    """A bar with the time left on stderr, once work has taken a second; plain lines where there is
    no terminal.
    """

    def __init__(self, start: float = 0.0, stop: float = 1.0):
        self.start, self.stop = start, stop
        self.began = time.monotonic()
        self.said = self.began
        self.bar: Any = None
        self.row: Any = None

    def part(self, start: float, stop: float) -> "Progress":
        """What comes next takes this share of the whole."""
        self.start, self.stop = start, stop
        return self

    def __call__(self, fraction: float, what: str) -> None:
        done = self.start + (self.stop - self.start) * min(max(fraction, 0.0), 1.0)
        now = time.monotonic()
        if now - self.began < 1.0:
            return
        left = (now - self.began) * (1 - done) / done if done > 0.01 else None
        told = "" if left is None else f"about {int(left) + 1} s left"
        if not sys.stderr.isatty():
            if now - self.said > 5.0:
                self.said = now
                print(f"{done:4.0%}  {what}  {told}", file=sys.stderr, flush=True)
            return
        if self.bar is None:
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
        self.bar.update(self.row, completed=done, description=what, left=told)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.stop()


def whole_numbers(text: str, flag: str) -> tuple[int, ...]:
    """`0,1,5` as numbers."""
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        numbers = (-1,)
    if numbers[0] < 0:
        raise InputError(
            f"{flag} takes whole numbers of at least 0 with commas, such as {SHOTS}; got {text!r}."
        )
    return numbers


def device_count(text: str) -> int | str:
    """`--devices`: a number, or all."""
    if text == "all":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--devices is a number of at least 1, or all; got {text!r}.")
    return int(text)


def at_least(value: int | None, least: int, flag: str) -> None:
    if value is not None and value < least:
        raise InputError(f"{flag} must be at least {least}; got {value}.")
