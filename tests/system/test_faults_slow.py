"""kill -9 at random moments: no broken file, nothing that blocks, and the same bits in the end."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import QUICK, tiny_csv

import metaprior
from metaprior.system import files

KILLS = {"auto": 2, "maml": 2, "reproduce": 2, "evaluate": 2, "save": 12}
FIT = ["fit", "t.csv", "--task", "g", "--target", "y", "--steps", "120"]
REPRODUCE = [
    "reproduce",
    "few-tasks",
    "--methods",
    "maml",
    "--set",
    "steps=20",
    "--set",
    "sizes=[1,2]",
    "--set",
    'families=["PACOH sinusoid"]',
    "--set",
    "tasks=20",
]
# Processes begin with everything imported: nothing can be broken before, and it is up to half of
# what a command takes.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["metaprior.tables.prior", "metaprior.evaluation.evaluate", "metaprior.protocols.runner"]
)


def begin(folder: Path, log: Path) -> None:
    """In a new process: works in a folder, compiles as tests do, keeps programs in the folder,
    writes to `log`.
    """
    import jax

    os.chdir(folder)
    os.environ |= {"XLA_FLAGS": QUICK, "METAPRIOR_CACHE": str(folder / "cache")}
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    for stream in (1, 2):
        os.dup2(
            os.open(log.with_suffix(f".{stream}"), os.O_CREAT | os.O_TRUNC | os.O_WRONLY), stream
        )


def command(folder: Path, log: Path, arguments: tuple[str, ...]) -> None:
    """One command of the terminal."""
    from metaprior.cli.app import main

    begin(folder, log)
    main(list(arguments))


def save(folder: Path, log: Path, told) -> None:
    """Saves two priors over each other for ever."""
    begin(folder, log)
    prior = metaprior.load("whole/prior")
    told.send("on")
    while True:
        for turn in ("even", "odd"):
            prior.info["notes"] = [turn * 200_000]
            prior.save("saved")


class Killer:
    """Runs commands in a folder, and kills some of them at moments drawn from a fixed seed."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.rng, self.kills = folder, np.random.default_rng(seed), 0
        self.log = folder / f"log{seed}"

    def start(self, work: Callable, *arguments) -> multiprocessing.process.BaseProcess:
        process = PROCESSES.Process(
            target=work, args=(self.folder, self.log, *arguments), daemon=True
        )
        process.start()
        return process

    def said(self, stream: int) -> str:
        return self.log.with_suffix(f".{stream}").read_text("utf-8")

    def run(self, *arguments: str) -> tuple[str, float]:
        """A command that is left alone: what it prints, and how long it took."""
        began = time.monotonic()
        process = self.start(command, arguments)
        process.join()
        assert process.exitcode == 0, self.said(2)
        return self.said(1), time.monotonic() - began

    def cut(self, seconds: float, *arguments: str) -> bool:
        """A command that is killed after a random share of so many seconds, unless it has finished
        by then.
        """
        process = self.start(command, arguments)
        process.join(float(self.rng.uniform(0.1, 1.0)) * seconds)
        process.kill()
        process.join()
        assert process.exitcode in (0, -9), self.said(2)
        self.kills += process.exitcode == -9
        return process.exitcode == -9

    def until_done(
        self, seconds: float, most: int, check: Callable[[], None], *arguments: str
    ) -> float:
        """One command, killed and started again until it ends, at most so often; then how long it
        took if never killed.
        """
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


def fits(killer: Killer, method: str, seconds: float, wanted: bytes) -> int:
    """Fits killed again and again, each finished at last; the number of finished ones."""
    done, until = 0, killer.kills + KILLS[method]
    while killer.kills < until:
        out = killer.folder / f"{method}{done}"
        arguments = (*FIT, "--method", method, "--out", out.name, "--resume")
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
        if not killer.cut(seconds, "evaluate", "whole", "--shots", "1", "--splits", "1", "--json"):
            seconds = time.monotonic() - began
        assert {p: p.read_bytes() for p in folder.iterdir()} == before
    assert killer.run("evaluate", "whole", "--shots", "1", "--splits", "1", "--json")[0] == wanted


def saves(killer: Killer, kills: int) -> None:
    """A prior that is saved over and over is one of those that were saved."""
    path = killer.folder / "saved"
    for _ in range(kills):
        hears, told = PROCESSES.Pipe(duplex=False)
        process = killer.start(save, told)
        told.close()
        assert hears.recv() == "on", killer.said(2)
        time.sleep(float(killer.rng.uniform(0.05, 0.6)))
        process.kill()
        process.join()
        killer.kills += 1
        if path.exists():
            assert metaprior.load(path).info["notes"][0] in ("even" * 200_000, "odd" * 200_000)
    assert path.exists()


@pytest.mark.slow
def test_twenty_kills(tmp_path, capsys):
    began = time.monotonic()
    (tmp_path / "t.csv").write_text(tiny_csv())
    one, two = Killer(tmp_path, 0), Killer(tmp_path, 1)
    auto, maml = ((*FIT, "--method", method, "--out") for method in ("auto", "maml"))
    with ThreadPoolExecutor(2) as pool:  # the programs are compiled here, by runs that nobody kills

        def left() -> int:
            one.run(*auto, "cold")
            _, seconds = one.run(*auto, "whole auto")
            wanted = (tmp_path / "whole auto" / "prior").read_bytes()
            assert (tmp_path / "cold" / "prior").read_bytes() == wanted
            return fits(one, "auto", seconds, wanted)

        def right() -> tuple[int, int]:
            two.run(*maml, "cold maml")
            _, seconds = two.run(*maml, "whole")
            evaluation, _ = two.run("evaluate", "whole", "--shots", "1", "--splits", "1", "--json")
            _, length = two.run("evaluate", "whole", "--shots", "1", "--splits", "1", "--json")
            evaluations(two, length, evaluation, KILLS["evaluate"])
            saves(two, KILLS["save"])
            found = fits(two, "maml", seconds, (tmp_path / "whole" / "prior").read_bytes())
            two.run(*REPRODUCE, "--out", "study")
            _, seconds = two.run(*REPRODUCE, "--out", "study warm")
            results = lasting(json.loads((tmp_path / "study" / "results.json").read_text("utf-8")))
            return found, studies(two, seconds, results, KILLS["reproduce"])

        done = [half.result() for half in [pool.submit(left), pool.submit(right)]]
    assert one.kills + two.kills == sum(KILLS.values())
    took = time.monotonic() - began
    with capsys.disabled():
        print(f"\n{one.kills + two.kills} kills, finished fits and studies {done}, {took:.0f} s")
