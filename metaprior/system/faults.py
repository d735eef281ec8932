"""What ends a command, and what keeps two of them apart: SIGTERM, and one process in a folder.

A fit can take hours, and whoever runs it may end it at any moment: a user by Ctrl-C, a cluster by
SIGTERM. It then leaves a state to continue from, ends within seconds and says what to do next.
"""

import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaprior.errors import InputError

if TYPE_CHECKING:
    from filelock import FileLock

STOPPED = 128 + signal.SIGTERM  # the exit status that shells give a process ended by SIGTERM
GRACE = 2.0  # seconds to unwind in, before the process ends wherever it is
MOMENT = 0.2  # seconds to wait for a lock: another process may be just about to leave
# A killed process leaves this file behind. Checks of a folder pass over all names that end so.
LOCK = "lock.part"
SHOW_CURSOR = "\r\x1b[K\x1b[?25h"  # clears the line, too


class Stopped(BaseException):
    """SIGTERM came.

    Like KeyboardInterrupt it is no Exception: code that goes on after any failure must not go on
    after this.
    """


class _Signals:
    """What the handler, the watching thread and the training threads share."""

    def __init__(self):
        self.asked = False  # SIGTERM came
        self.patient = False  # stages that save their state may go on until they have
        self.saving = 0  # how many such stages are running
        self.lock = threading.Lock()

    @property
    def waits(self) -> bool:
        """Whether the process goes on until a running stage has saved its state."""
        return self.patient and self.saving > 0


_signals = _Signals()


@contextmanager
def saving() -> Generator[None]:
    """Let SIGTERM wait: the code inside saves a state, and looks at `asked` afterwards."""
    with _signals.lock:
        _signals.saving += 1
    try:
        yield
    finally:
        with _signals.lock:
            _signals.saving -= 1


def asked() -> bool:
    """Whether SIGTERM has come."""
    return _signals.asked


@contextmanager
def stoppable(message: str, patient: bool) -> Generator[None]:
    """Let SIGTERM raise `Stopped` in the main thread, and end the process if that takes too long.

    Args:
        message: what to say where the process ends without unwinding.
        patient: let stages that save their state (`saving`) go on until they have. A second
            SIGTERM then ends the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread only
        return
    _signals.asked, _signals.patient = False, patient

    def handle(number, frame) -> None:
        again, _signals.asked = _signals.asked, True
        if not again and not _signals.waits:
            raise Stopped

    def dropped(found: Any) -> None:
        # Python cannot raise inside `__del__` or the garbage collector: it prints a traceback and
        # goes on. Ctrl-C is therefore sent again. After `Stopped`, `_watch` ends the process.
        if found.exc_type is KeyboardInterrupt:
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        elif found.exc_type is not Stopped:
            hook(found)

    hook, sys.unraisablehook = sys.unraisablehook, dropped
    left = threading.Event()
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    before = signal.signal(signal.SIGTERM, handle)
    old = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(ear, message, left), daemon=True).start()
    try:
        yield
    finally:
        left.set()
        sys.unraisablehook = hook
        signal.set_wakeup_fd(old)
        signal.signal(signal.SIGTERM, before)
        os.close(mouth)


def _watch(ear: int, message: str, left: threading.Event) -> None:
    """End the process where SIGTERM comes and the main thread does not unwind.

    Python runs signal handlers between its own instructions, but a compilation or a compiled
    program can take minutes. The number of the signal, which is written to a pipe, is read at once.
    """
    count = 0
    while data := os.read(ear, 64):
        count += data.count(signal.SIGTERM)
        if count == 0 or (count == 1 and _signals.waits):
            continue
        if count == 1 and left.wait(GRACE):
            return  # the main thread has unwound: what is left of the process is its caller's
        shown = SHOW_CURSOR if os.isatty(2) else ""  # a progress bar may have hidden it
        os.write(2, (shown + message).encode())
        os._exit(STOPPED)


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """Keep every other process out of a folder while this one works in it.

    The folder is made if it does not exist, and removed again if it is left empty. What keeps
    others out is a lock of the operating system: it ends with the process, however that ends.

    Raises:
        InputError: another process works in the folder.
    """
    made = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    lock = _locked(folder)
    try:
        yield
    finally:
        if lock is not None:
            # The file goes while the lock is held. Whoever waits for it sees that it is gone, and
            # makes a new one. Windows removes no open file; there `release` does it.
            with suppress(PermissionError):
                (folder / LOCK).unlink(missing_ok=True)
            lock.release()
        with suppress(OSError):  # a folder that holds something stays, and so do its parents
            for each in made:
                each.rmdir()


def _locked(folder: Path) -> "FileLock | None":
    """Take the lock of a folder; `None` where there can be none."""
    # Imported here: commands that write nothing should not wait for it.
    from filelock import FileLock, Timeout

    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / LOCK, timeout=MOMENT)
            lock.acquire()
            return lock
        except Timeout:
            raise InputError(
                f"{folder}: another process works in this folder; wait for it to end, or choose "
                "another folder."
            ) from None
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        except OSError:
            # The folder cannot be made, which the checks of the command say better, or its file
            # system has no locks.
            return None
