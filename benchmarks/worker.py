"""One who is timed, in a process of its own: each command from the parent gets a line of JSON.

    python -m benchmarks.worker WHO CASE CORES

CORES is a number, or "gpu". Commands: `train SECONDS`, `adapt SECONDS`, `reference FILE`, `check
FILE`, `work`. The end of the input ends it, so that no worker outlives its parent.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def sliced(
    call: Callable[[], int | None], seconds: float, finish: Callable[[], None]
) -> tuple[int, float]:
    """How much `call` does in so many seconds, and the seconds until that was finished.

    It is called at least once. A call counts as one unless it says how much it did.
    """
    begin, done = time.perf_counter(), 0
    while True:
        done += call() or 1
        if time.perf_counter() - begin >= seconds:
            finish()
            return done, time.perf_counter() - begin


def pin(cores: int) -> None:
    """This process on so many cores, the last ones: a machine does its own work on the first."""
    if hasattr(os, "sched_setaffinity"):
        able = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, able[-cores:])


def make(who: str, name: str, cores: str) -> Any:
    """The one to be timed, warmed up."""
    from benchmarks.cases import CASES, DEFAULTS, GPU, OURS

    case = CASES[name]
    if who in (OURS, DEFAULTS):
        from benchmarks.ours import Ours

        return Ours(case, plain=who == OURS, gpu=cores == GPU)
    import torch

    if cores == GPU:
        torch.set_default_device("cuda")
        torch.backends.cudnn.allow_tf32 = False  # as matrix products are, on both sides
    else:
        torch.set_num_threads(int(cores))
    from benchmarks.peers import make as peer

    return peer(who, case)


def answer(one: Any, command: str, argument: str) -> Any:
    if command in ("train", "adapt"):
        done, spent = sliced(
            one.step if command == "train" else one.adapt, float(argument), one.finish
        )
        return {"done": done, "seconds": spent}
    if command == "reference":
        return one.reference(argument)
    if command == "check":
        return one.check(argument)
    return one.work()


def main(who: str, name: str, cores: str) -> None:
    if cores.isdigit():
        pin(int(cores))
    # What libraries print must not mix with the answers.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(value: Any) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    try:
        one = make(who, name, cores)
        say({"ready": True})
        for line in sys.stdin:
            command, _, argument = line.strip().partition(" ")
            say({"answer": answer(one, command, argument)})
    except Exception as error:
        say({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})


if __name__ == "__main__":
    main(*sys.argv[1:])
