"""A table of new groups, and a posterior that is updated row by row: what a user waits for.

    python -m benchmarks.many_groups [--groups 10000] [--rows 5] [--observed 500] [--steps 50]

Fits the default method on the table of `metaprior demo` (few steps, as what is learned does not
change what predicting costs), predicts groups of 5 + 5 rows in a fresh process (the first time,
which compiles, and again), and adds one row to a posterior of 500. Each is given in seconds of the
clock and of all processor cores together: on a busy machine the second counts.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.first import MAIN, took


def options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_groups")
    parser.add_argument("--groups", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=5, help="observed rows of each, and rows asked")
    parser.add_argument("--observed", type=int, default=500, help="rows before the update")
    parser.add_argument("--steps", type=int, default=50, help="of the fit")
    return parser.parse_args(argv)


def new_groups(groups: int, rows: int, seed: int = 0) -> pl.DataFrame:
    """Days of the demo's kind, whose first rows have a temperature."""
    rng, n = np.random.default_rng(seed), groups * 2 * rows
    observed = np.tile(np.arange(2 * rows) < rows, groups)
    temperature = np.where(observed, rng.normal(55, 15, n), np.nan)
    columns = {
        "group": np.repeat([f"new {i}" for i in range(groups)], 2 * rows),
        "day_of_year": np.repeat(rng.integers(1, 366, groups), 2 * rows),
        "hour": rng.integers(0, 24, n),
        "wind_speed": rng.gamma(3.0, 4.0, n),
        "temp": temperature,
    }
    return pl.DataFrame(columns).with_columns(pl.col("temp").fill_nan(None))


def updates(prior, observed: int) -> dict[str, tuple[float, float]]:
    """Seconds of adapting to so many rows and one more, and of adding the one, warm."""
    frame = new_groups(1, (observed + 11) // 2 + 1, seed=1)
    frame = frame.with_columns(temp=pl.lit(55.0) + pl.int_range(pl.len()) % 7)
    rows, one, asked = frame[:observed], frame[observed], frame[observed + 1 :][:8].drop("temp")
    everything = frame[: observed + 1]
    known = prior.adapt(rows[:-1]).update(rows[-1])
    return {
        "adapt to all and predict": timed(lambda: prior.adapt(everything).predict(asked)),
        "update with one row and predict": timed(lambda: known.update(one).predict(asked)),
    }


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the clock and of the cores, of the quickest of several runs after a first one."""
    run()
    seconds = []
    for _ in range(7):
        began, worked = time.perf_counter(), time.process_time()
        run()
        seconds.append((time.perf_counter() - began, time.process_time() - worked))
    clock, cores = zip(*seconds, strict=True)
    return min(clock), min(cores)


def worked() -> float:
    """Seconds that all processes started here took of the cores."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(argv: list[str] | None = None) -> None:
    from metaprior.cli.demo import airport_days
    from metaprior.system.terminal import use_cache

    chosen = options(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["METAPRIOR_CACHE"] = str(folder / "cache")
        use_cache()
        import metaprior

        columns = ["day_of_year", "hour", "wind_speed"]
        prior = metaprior.Prior(steps=chosen.steps)
        prior.fit(airport_days(), task="group", target="temp", features=columns)
        prior.save(folder / "prior")
        new_groups(chosen.groups, chosen.rows).write_csv(folder / "new.csv")
        command = ["predict", str(folder / "prior"), str(folder / "new.csv")]
        for when in ("first, with compiling", "again"):
            before, out = worked(), ["--out", str(folder / "said.csv")]
            clock, _ = took(["-c", MAIN, *command, *out], folder / "cache")
            cores = worked() - before
            print(f"{chosen.groups} groups, {when}: {clock:.1f} s, of cores {cores:.1f} s")
        for what, each in updates(metaprior.load(folder / "prior"), chosen.observed).items():
            clock, cores = (1e3 * seconds for seconds in each)
            print(f"{chosen.observed} rows, {what}: {clock:.1f} ms, of cores {cores:.1f} ms")


if __name__ == "__main__":
    main()
