"""Times who does a case: a process each, asked in turn.

In turn, so that whatever else the machine does hits all of them alike.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import DEFAULTS, GPU, OURS, Case

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 300.0  # seconds that an answer may take, compilation included


class WorkerError(Exception):
    """A worker said what went wrong, or nothing any more."""


class Worker:
    """One who is timed, in a process of its own."""

    def __init__(self, who: str, case: str, cores: int | str) -> None:
        more = {"OMP_NUM_THREADS": str(cores)}
        if cores == GPU:  # all share its memory; JAX by itself takes three quarters of it
            more = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        command = [sys.executable, "-m", "benchmarks.worker", who, case, str(cores)]
        # A session of its own: Ctrl-C reaches the parent alone, which ends its workers.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            start_new_session=True,
            env=os.environ | more,
        )
        self.tail = ""

    def read(self) -> Any:
        """The next answer."""
        end = time.monotonic() + PATIENCE
        streams = [self.process.stdout, self.process.stderr]
        while time.monotonic() < end:
            ready, _, _ = select.select(streams, [], [], 1.0)
            for stream in ready:
                if stream is self.process.stderr:
                    # Read, so that the pipe never fills and blocks the worker.
                    text = os.read(stream.fileno(), 65536).decode(errors="replace")
                    self.tail = (self.tail + text)[-2000:]
                    streams = streams if text else streams[:1]
                    continue
                line = self.process.stdout.readline()  # ty: ignore[unresolved-attribute]
                if not line:
                    raise WorkerError(
                        "ended: " + (self.tail.strip().splitlines() or ["without a word"])[-1]
                    )
                answer = json.loads(line)
                if "error" in answer:
                    raise WorkerError(answer["error"])
                return answer.get("answer")
        raise WorkerError(f"no answer within {PATIENCE:.0f} s")

    def ask(self, command: str) -> Any:
        try:
            self.process.stdin.write(command + "\n")  # ty: ignore[unresolved-attribute]
            self.process.stdin.flush()  # ty: ignore[unresolved-attribute]
        except OSError:
            pass  # it has ended: what it said last is the reason
        return self.read()

    def end(self) -> None:
        """End this process and no other."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()  # ty: ignore[unresolved-attribute]
            except OSError:
                pass


def line_of(who: str, cores: int | str) -> dict[str, Any]:
    unknown = dict.fromkeys(("error", "agrees", "flops", "bytes"))
    return {"who": who, "cores": cores, "train": [], "adapt": []} | unknown


def run(
    case: Case, lines: list[tuple[str, int | str]], repeats: int, seconds: float, say: Any
) -> list[dict[str, Any]]:
    """All repeats of all who do a case, one slice each in turn.

    Returns:
        a line for each of `lines`: tasks a second of training (`train`) and milliseconds of
        adapting (`adapt`), a number for each repeat; `agrees`, the relative distance to our
        gradient; `error` where it could not be timed.
    """
    found = [line_of(*line) for line in lines]
    workers: list[Worker | None] = []
    try:
        say(f"{case.name}: starting {len(lines)} processes")
        workers += [Worker(who, case.name, cores) for who, cores in lines]

        def tell(i: int, command: str | None = None) -> Any:
            """The answer, or nothing and a reason in the line."""
            worker = workers[i]
            if worker is None:
                return None
            try:
                return worker.read() if command is None else worker.ask(command)
            except WorkerError as error:
                found[i]["error"] = str(error)
                worker.end()
                workers[i] = None

        for i in range(len(lines)):
            tell(i)
        say(f"{case.name}: all warm")
        _guard(lines, found, tell)
        for repeat in range(repeats):
            for i in range(len(lines)):
                train = tell(i, f"train {seconds}")
                adapt = tell(i, f"adapt {seconds / 4}")
                if train and adapt:
                    found[i]["train"].append(train["done"] / train["seconds"])
                    found[i]["adapt"].append(1e3 * adapt["seconds"] / adapt["done"])
            say(f"{case.name}: repeat {repeat + 1} of {repeats}")
    finally:
        for worker in workers:
            if worker is not None:
                worker.end()
    return found


def _guard(lines: list[tuple[str, int | str]], found: list[dict[str, Any]], tell: Any) -> None:
    """Before any timing: the peers' loss and gradient at our weights and tasks are ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "reference.npz")
        tell(0, f"reference {path}")
        for i, (who, _) in enumerate(lines):
            if who not in (OURS, DEFAULTS) and found[0]["error"] is None:
                found[i]["agrees"] = tell(i, f"check {path}")
            elif found[i]["error"] is None:
                found[i] |= tell(i, "work") or {}


def middle(values: list[float]) -> float | None:
    return median(values) if values else None


def peak(cores: int, size: int = 2048, repeats: int = 5) -> float:
    """GFLOP/s of a large float32 matrix product on so many cores: a bound for everything else."""
    code = (
        "import os, time, numpy as np\n"
        f"a = np.ones(({size}, {size}), np.float32); a @ a\n"
        "best = 1e9\n"
        f"for _ in range({repeats}):\n"
        "    t = time.perf_counter(); a @ a; best = min(best, time.perf_counter() - t)\n"
        f"print(2e-9 * {size} ** 3 / best)\n"
    )
    threads = {f"{name}_NUM_THREADS": str(cores) for name in ("OPENBLAS", "OMP", "MKL")}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | threads,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(ran.stdout)


def machine_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(gpu: bool = False) -> dict[str, Any]:
    """What figures depend on."""
    import platform

    from metaprior.system.folder import installed, processor

    own: dict[str, Any] = {}
    if gpu:
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True
        )
        if ran.returncode:
            raise WorkerError((ran.stderr.strip().splitlines() or ["benchmarks.gpu failed"])[-1])
        own = json.loads(ran.stdout)
    peaks = {GPU: own.pop("peak_gflops")} if gpu else {str(n): round(peak(n), 1) for n in (1, 2)}
    return {
        "cpu": processor(),
        "cores": machine_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": installed(
            "metaprior", "jax", "jaxlib", "equinox", "optax", "numpy", "torch", "higher"
        ),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "peak_gflops": peaks,
    } | own
