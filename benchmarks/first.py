"""Times without a peer: the start of the program, to a trained model, the whole job on a table."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, machine_cores

MAIN = "from metaprior.cli.app import main; main()"
# Not even the check that jax stays out may be forgotten: an import that needs it would be quick
# once and slow ever after.
IMPORT = "import sys, metaprior; assert 'jax' not in sys.modules"
TABLE = """
import json, resource, time, metaprior
from metaprior.cli.demo import airport_days
table = airport_days()
began = time.perf_counter()
metaprior.Prior(holdout=0.1, split_by="day_of_year").fit(table, task="group", target="temp")
print(json.dumps(time.perf_counter() - began))
"""
SMALL = """
import sys, numpy as np, polars as pl, metaprior
rng = np.random.default_rng(0)
group = np.repeat(np.arange(30), 10)
x = rng.uniform(-1, 1, 300)
y = rng.normal(size=30)[group] * x + rng.normal(size=30)[group]
table = pl.DataFrame({"group": group, "x": x, "y": y})
table.write_csv(sys.argv[1] + "/table.csv")
rows = pl.DataFrame({"x": [0.1, 0.5], "y": [0.2, 0.4]})
rows.write_csv(sys.argv[1] + "/support.csv")
rows.select("x").write_csv(sys.argv[1] + "/query.csv")
"""


class Failed(Exception):
    """A process ended with an error: which, and its last word."""


def took(command: list[str], cache: Path | None = None, folder: Path = ROOT) -> tuple[float, str]:
    """Seconds of a fresh process from its start to its end, and what it printed."""
    # This checkout is timed in any folder, as in all other processes here, not what is installed.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    if cache is not None:
        environment |= {
            "METAPRIOR_CACHE": str(cache),
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
    began = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if ran.returncode:
        raise Failed(
            f"{' '.join(command)[:80]}: {(ran.stderr.strip().splitlines() or ['failed'])[-1]}"
        )
    return seconds, ran.stdout


def one(values: list[float], target: float | None, unit: str = "s", **more: Any) -> dict[str, Any]:
    return {"values": values, "target": target, "unit": unit, **more}


def first(repeats: int, say: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a user waits for, in a fresh process each time: its name and its time, one by one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        quick = {
            "import metaprior": (["-c", IMPORT], 0.3),
            "metaprior --help": (["-c", MAIN, "--help"], 0.5),
        }
        for what, (command, target) in quick.items():
            took(command)  # byte code is written once
            yield what, one([took(command)[0] for _ in range(repeats)], target)
            say(f"first: {what}")
        cold, warm, last = [], [], ""
        for i in range(min(repeats, 3)):
            cache = folder / f"cache {i}"
            seconds, last = took(["-m", "benchmarks.trained"], cache)
            cold.append(seconds)
            warm.append(took(["-m", "benchmarks.trained"], cache)[0])
            say(f"first: MAML until its error is below 0.40, {i + 1} of {min(repeats, 3)}")
        details = json.loads(last)
        yield "MAML from process start to error < 0.40, warm cache", one(warm, 5.0)
        yield "MAML from process start to error < 0.40, cold cache", one(cold, 8.0, details=details)
        took(["-c", SMALL, name])
        fit = "fit table.csv --task group --target y --out prior"
        took(["-c", MAIN, *fit.split()], folder / "cache", folder)
        say("first: a small prior for metaprior predict")
        files = "--support support.csv --query query.csv"
        predict = ["-c", MAIN, "predict", "prior", *files.split()]
        took(predict, folder / "cache", folder)
        later = [took(predict, folder / "cache", folder)[0] for _ in range(repeats)]
        yield "metaprior predict, from the second time on", one(later, 2.0)


def table(repeats: int, say: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The whole job: `Prior().fit` on the packaged table with a cold cache; once, as it is long."""
    with tempfile.TemporaryDirectory() as cache:
        say("table: Prior().fit on the packaged table")
        seconds = json.loads(took(["-c", TABLE], Path(cache))[1].splitlines()[-1])
    yield f"Prior().fit on the weather table, {machine_cores()} cores", one([seconds], None)
