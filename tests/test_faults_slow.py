"""kill -9 at random moments: no broken file, nothing that blocks, and the same bits in the end."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import QUICK, tiny_csv

import metaprior
from metaprior import files

KILLS = {"fit": 16, "reproduce": 8, "evaluate": 8, "save": 18}
FIT = ["fit", "t.csv", "--task", "g", "--target", "y", "--steps", "120"]
REPRODUCE = ["reproduce", "few-tasks", "--methods", "maml", "--set", "steps=20", "--set", "sizes=[1,2]", "--set",
             'families=["PACOH sinusoid"]', "--set", "tasks=20"]  # fmt: skip
SAVE = """
import sys, metaprior
prior = metaprior.load(sys.argv[1])
print("on", flush=True)
while True:
    for turn in ("even", "odd"):
        prior.info["notes"] = [turn * 200_000]
        prior.save(sys.argv[2])
"""


class Killer:
    """Runs commands in a folder, and kills some of them at moments drawn from a fixed seed."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.rng, self.kills = folder, np.random.default_rng(seed), 0
        self.environment = {
            **os.environ,
            "METAPRIOR_CACHE": str(folder / "cache"),
            "XLA_FLAGS": QUICK,
        }

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> tuple[str, float]:
        """A command that is left alone: what it prints, and how long it took."""
        began = time.monotonic()
        process = self.start(sys.executable, "-m", "metaprior.cli", *arguments)
        out, err = process.communicate()
        assert process.returncode == 0, err
        return out, time.monotonic() - began

    def cut(self, seconds: float, *arguments: str) -> bool:
        """A command that is killed after a random share of so many seconds, unless it has finished by then."""
        process = self.start(sys.executable, "-m", "metaprior.cli", *arguments)
        timer = threading.Timer(float(self.rng.uniform(0.1, 1.0)) * seconds, process.kill)
        timer.start()
        _, err = process.communicate()
        timer.cancel()
        assert process.returncode in (0, -9), err
        self.kills += process.returncode == -9
        return process.returncode == -9

    def until_done(self, seconds: float, most: int, check: Callable[[], None], *arguments: str) -> float:
        """One command, killed and started again until it ends, at most so often; then how long it took if never killed."""
        whole = self.kills
        while self.kills - whole < most:
            began, before = time.monotonic(), self.kills
            cut = self.cut(seconds, *arguments)
            check()
            if not cut:
                return time.monotonic() - began if before == whole else seconds
        self.run(*arguments)
        check()
        return seconds


def check(folder: Path) -> None:
    """Every file under its real name is whole."""
    for path in folder.rglob("*") if folder.exists() else ():
        if path.is_dir() or path.name.endswith(".part"):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        elif path.suffix == ".parquet":
            pl.read_parquet(path)
        elif path.suffix == ".npz":
            with np.load(path) as file:
                assert all(file[name] is not None for name in file.files)
        elif path.suffix in (".state", ".done") or path.name == "prior":
            files.load(path)
        else:
            assert path.suffix == ".html" and path.read_text("utf-8").rstrip().endswith("</html>")


def lasting(value):
    """Results without what a second run cannot have in common with the first."""
    if isinstance(value, dict):
        return {k: lasting(v) for k, v in value.items() if "seconds" not in k}
    return [lasting(v) for v in value] if isinstance(value, list) else value


def fits(killer: Killer, name: str, seconds: float, wanted: bytes, kills: int) -> int:
    """Fits killed again and again, each finished at last; the number of finished ones."""
    done, until = 0, killer.kills + kills
    while killer.kills < until:
        out = killer.folder / f"{name}{done}"
        arguments = (*FIT, "--out", out.name, "--resume")
        seconds = killer.until_done(seconds, until - killer.kills, lambda: check(out), *arguments)
        assert {p.name for p in out.iterdir()} == {"prior", "run.json"}
        assert (out / "prior").read_bytes() == wanted
        done += 1
    return done


def studies(killer: Killer, seconds: float, wanted, kills: int) -> int:
    """The same for a protocol."""
    done, until = 0, killer.kills + kills
    while killer.kills < until:
        out = killer.folder / f"study{done}"
        arguments = (*REPRODUCE, "--out", out.name)
        seconds = killer.until_done(seconds, until - killer.kills, lambda: check(out), *arguments)
        assert lasting(json.loads((out / "results.json").read_text("utf-8"))) == wanted
        assert {p.name for p in out.iterdir()} == {
            "run.json",
            "cells",
            "results.json",
            "predictions.parquet",
            "report.html",
        }
        done += 1
    return done


def evaluations(killer: Killer, seconds: float, wanted: str, kills: int) -> None:
    """`evaluate` changes nothing, killed or not."""
    folder = killer.folder / "whole"
    before = {p: p.read_bytes() for p in folder.iterdir()}
    start = killer.kills
    while killer.kills - start < kills:
        began = time.monotonic()
        if not killer.cut(seconds, "evaluate", "whole", "--shots", "1", "--json"):
            seconds = time.monotonic() - began
        assert {p: p.read_bytes() for p in folder.iterdir()} == before
    assert killer.run("evaluate", "whole", "--shots", "1", "--json")[0] == wanted


def saves(killer: Killer, kills: int) -> None:
    """A prior that is saved over and over is one of those that were saved."""
    path = killer.folder / "saved"
    for _ in range(kills):
        process = killer.start(sys.executable, "-c", SAVE, "whole/prior", "saved")
        assert process.stdout.readline() == "on\n", process.stderr.read()
        time.sleep(float(killer.rng.uniform(0.05, 0.6)))
        process.kill()
        process.communicate()
        killer.kills += 1
        if path.exists():
            assert metaprior.load(path).info["notes"][0] in ("even" * 200_000, "odd" * 200_000)
    assert path.exists()


@pytest.mark.slow
def test_fifty_kills(tmp_path, capsys):
    began = time.monotonic()
    (tmp_path / "t.csv").write_text(tiny_csv())
    one, two = Killer(tmp_path, 0), Killer(tmp_path, 1)
    with ThreadPoolExecutor(2) as pool:  # the programs are compiled here, by runs that nobody kills
        first = [pool.submit(one.run, *FIT, "--out", "cold"), pool.submit(two.run, *REPRODUCE, "--out", "study")]
        [f.result() for f in first]
        again = [pool.submit(one.run, *FIT, "--out", "whole"), pool.submit(two.run, *REPRODUCE, "--out", "study warm")]
        seconds = [f.result()[1] for f in again]
        wanted = (tmp_path / "whole" / "prior").read_bytes()
        assert (tmp_path / "cold" / "prior").read_bytes() == wanted
        results = lasting(json.loads((tmp_path / "study" / "results.json").read_text("utf-8")))
        evaluation, _ = one.run("evaluate", "whole", "--shots", "1", "--json")
        _, length = one.run("evaluate", "whole", "--shots", "1", "--json")

        def left() -> int:
            found = fits(one, "left", seconds[0], wanted, KILLS["fit"] // 2)
            evaluations(one, length, evaluation, KILLS["evaluate"])
            return found

        def right() -> tuple[int, int]:
            found = studies(two, seconds[1], results, KILLS["reproduce"])
            saves(two, KILLS["save"])
            return found, fits(two, "right", seconds[0], wanted, KILLS["fit"] // 2)

        halves = [pool.submit(left), pool.submit(right)]
        done = [half.result() for half in halves]
    assert one.kills + two.kills == sum(KILLS.values())
    with capsys.disabled():
        print(f"\n{one.kills + two.kills} kills, finished fits and studies {done}, {time.monotonic() - began:.0f} s")
