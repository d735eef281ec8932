"""Being stopped, and being alone: what SIGTERM does to a command, and one process in a folder at a
time.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metaprior.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nobody checks
    fcntl: Any = None

STOPPED = 128 + signal.SIGTERM  # the exit status that shells give a process ended by SIGTERM
GRACE = 2.0  # seconds to unwind in, before the process ends wherever it is
# ends like everything that a killed process may leave behind, which no check of a folder minds
LOCK = "lock.part"


class Stopped(BaseException):
    """SIGTERM came. Like KeyboardInterrupt no Exception, so that nothing that survives failures
    survives it.
    """


class _Signals:
    """What the handler, the watching thread and the training threads know."""

    def __init__(self):
        self.asked = False  # SIGTERM came
        self.patient = False  # a stage that saves its state may go on to where it does
        self.saving = 0  # stages that do, running now
        self.lock = threading.Lock()


_signals = _Signals()


@contextmanager
def saving() -> Generator[None]:
    """Inside, SIGTERM waits: whoever saves a state looks at `asked` after it."""
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
    """Inside, SIGTERM raises `Stopped` in the main thread, and ends the process if that takes long.

    With `patient`, stages that save their state go on to where they do; a second SIGTERM ends the
    process at once. `message` is said where the process ends without unwinding.
    """
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # signals are handled in the main thread only
        yield
        return
    _signals.asked, _signals.patient = False, patient

    def handle(number, frame) -> None:
        again, _signals.asked = _signals.asked, True
        if not again and not (_signals.patient and _signals.saving):
            raise Stopped

    def watch() -> None:
        # Python runs handlers between its own instructions, and a compilation or a compiled program
        # can take minutes: the byte that the signal leaves in the pipe is read at once.
        count = 0
        while data := os.read(ear, 64):
            count += data.count(signal.SIGTERM)
            if count == 1 and not (_signals.patient and _signals.saving):
                time.sleep(GRACE)
            elif count < 2:
                continue
            shown = (
                "\r\x1b[K\x1b[?25h" if os.isatty(2) else ""
            )  # a progress bar may have hidden the cursor
            os.write(2, (shown + message).encode())
            os._exit(STOPPED)

    def dropped(found: Any) -> None:
        # Python drops what is raised where an object ends or garbage is collected, and says so with
        # a traceback.
        if found.exc_type is KeyboardInterrupt:
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        elif found.exc_type is not Stopped:  # after which `watch` ends the process
            hook(found)

    hook, sys.unraisablehook = sys.unraisablehook, dropped
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    before = signal.signal(signal.SIGTERM, handle)
    old = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.set_wakeup_fd(old)
        signal.signal(signal.SIGTERM, before)
        os.close(mouth)


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """Inside, no other process is in here with the same folder, which is made if need be and
    removed if left empty.

    An operating system's lock on a file: it ends with the process, however that ends.
    """
    made = [f for f in (folder, *folder.absolute().parents) if not f.exists()]
    try:
        file = _locked(folder) if fcntl else None
    # no folder can be made here, which the caller's checks say better; or a file system without
    # locks
    except OSError:
        file = None
    try:
        yield
    finally:
        if file is not None:
            (folder / LOCK).unlink(
                missing_ok=True
            )  # while it is held: whoever waits sees another file and asks again
            os.close(file)
        for each in made:
            try:
                each.rmdir()
            except OSError:
                break


def _locked(folder: Path) -> int:
    """An open file that this process holds the lock of."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(folder / LOCK)):
                return file
        except FileNotFoundError:  # it was removed between the two lines before
            pass
        except BlockingIOError:
            os.close(file)
            raise InputError(
                f"{folder}: another process works in this folder; wait for it to end, or choose another folder."
            ) from None
        except OSError:
            os.close(file)
            raise
        os.close(file)
