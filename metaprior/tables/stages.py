"""The parts of a fit: kept on disk so that a killed run continues, and joined into one progress."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metaprior.errors import InputError
from metaprior.system import devices, faults, files

Tell = Callable[[float, str], None]


def stop_if_asked() -> None:
    """Stop where SIGTERM has come.

    Several processes stop at the same place: one that stopped alone would let the others wait for
    ever.
    """
    if devices.anywhere(faults.asked()):
        raise faults.Stopped


class Stages:
    """Results of the parts of a fit, kept in a folder so that a killed run continues from them."""

    def __init__(self, folder: str | Path | None):
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:  # nothing is kept
            return

        def there(place=self.folder):
            return sorted(f.name for f in place.iterdir()) if place.is_dir() else []

        what = "the processes see different files; give a folder that all of them share."
        devices.agree(there, f"{self.folder}: {what}")
        if devices.first():
            self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, run: Callable, trains: bool = False) -> Any:
        """`run()`, or what it gave last time; a training stage also gets `state` and `save`."""
        if self.folder is None:
            return run()
        stem = name.replace(" ", "_").replace("+", "and")
        path, partial = self.folder / f"{stem}.done", self.folder / f"{stem}.state"

        def save(state) -> None:
            if devices.first():
                files.save(partial, state)
            stop_if_asked()

        stop_if_asked()
        if path.exists():
            return _kept(path)
        if trains:
            # SIGTERM waits for the next state to be saved.
            state = _kept(partial) if partial.exists() else None
            with faults.saving():
                result = run(state=state, save=save)
        else:
            result = run()
        if devices.first():
            files.save(path, result)
            partial.unlink(missing_ok=True)
        return result


def _kept(path: Path) -> Any:
    """What a file of an unfinished run holds, or what to do about it."""
    try:
        return files.load(path)
    except InputError as error:
        raise InputError(f"{error} Without this file --resume computes it again.") from None


class Progress:
    """Joins the shares of consecutive stages into one."""

    def __init__(self, call: Callable[[float, str], None] | None):
        self.call, self.base, self.share, self.what = call, 0.0, 0.0, ""

    def start(self, what: str, share: float) -> None:
        """The next stage, which is `share` of the whole."""
        self.base, self.share, self.what = self.base + self.share, share, what
        self.within(0.0)

    def within(self, done: float) -> None:
        """How much of the stage is done."""
        if self.call is not None:
            self.call(min(self.base + self.share * done, 1.0), self.what)


def part_of(progress: Tell | None, first: float, last: float) -> Tell | None:
    """Progress of a part of the work as progress of the whole."""
    if progress is None:
        return None
    return lambda done, what: progress(first + (last - first) * done, what)


def share_of(progress: Tell | None, i: int, targets: Sequence[str]) -> Tell | None:
    """Progress of the i-th target as progress of the whole."""
    if progress is None:
        return None
    return lambda done, what: progress((i + done) / len(targets), f"{targets[i]}: {what}")
