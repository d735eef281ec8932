"""How cost grows: with tasks, particles, inner steps, rows, width, devices, and rows of a table.

    python -m benchmarks.scale CURVE SIZE…    points of one curve, in this process, as JSON

Each curve is measured in a process of its own, so that memory is its own and devices can be forced.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import ROOT

SIZES: dict[str, tuple[int, ...]] = {
    "batch": (1, 4, 10, 25, 100, 300, 1000, 10_000),
    "particles": (1, 2, 5, 10, 20, 50),
    "inner steps": (1, 2, 5, 10, 20, 50),
    "support rows": (5, 50, 500, 5000),
    "width": (20, 40, 80, 160, 320, 640),
    "devices": (1, 2, 4),
    "table rows": (100, 1000, 10_000, 100_000, 1_000_000),
    "memory": (10, 20, 50, 100),
    "memory, checkpoints": (10, 20, 50, 100),
}
WHAT = {
    "batch": "MAML: ms a meta-step against tasks a step",
    "particles": "BMAML: ms a meta-step against particles",
    "inner steps": "MAML: ms a meta-step against inner steps",
    "support rows": "MAML: ms a meta-step against support rows (and as many query rows)",
    "width": "MAML: ms a meta-step against hidden units",
    "devices": (
        "MAML, 100 tasks: ms a meta-step against forced host devices, which share the same cores"
    ),
    "table rows": "Prior(steps=20).fit: seconds against rows of a Parquet table",
    "table memory": (
        "Prior(steps=20).fit: peak memory of the process, MB, against rows of a Parquet table"
    ),
    "memory": "second-order MAML: temporary memory of the meta-gradient, MB, against inner steps",
    "memory, checkpoints": "the same with checkpoints=10",
}


def step_ms(
    method: Any, source: Any, batch: int = 25, mesh: Any = None, seconds: float = 0.3
) -> float:
    """Milliseconds of a meta-step in `metaprior.fit`: the median of three slices."""
    import jax
    import optax

    import metaprior

    optimiser, state, done = optax.adam(1e-3), None, 0

    def run(steps: int) -> float:
        nonlocal state, done
        done += steps
        began = time.perf_counter()
        state = metaprior.fit(
            method,
            source,
            key=jax.random.key(1),
            steps=done,
            every=steps,
            batch=batch,
            optimiser=optimiser,
            state=state,
            mesh=mesh,
        ).state
        return time.perf_counter() - began

    run(1)
    run(1)  # the state of a first call may be laid out in another way
    steps = 1
    while (spent := run(steps)) < 0.1:
        steps *= 4
    steps = max(1, round(seconds * steps / spent))
    return 1e3 * median(run(steps) / steps for _ in range(3))


def maml(**options: Any) -> Any:
    import equinox as eqx
    import jax

    import metaprior
    from metaprior.heads import Gaussian

    spec = metaprior.Spec(1, Gaussian(1, scale=0.5**0.5))
    options = {"inner_lr": 0.01, "steps": 1, "clip": None} | options
    return eqx.filter_jit(metaprior.methods.MAML.init)(spec, key=jax.random.key(0), **options)


def bmaml(particles: int) -> Any:
    import equinox as eqx
    import jax

    import metaprior
    from metaprior.heads import Gaussian

    spec = metaprior.Spec(1, Gaussian(1, scale=0.5**0.5))
    init = metaprior.methods.BMAML.init
    return eqx.filter_jit(init)(
        spec, key=jax.random.key(0), particles=particles, inner_lr=0.01, steps=1, clip=None
    )


def temporary(method: Any, source: Any, batch: int = 25) -> float:
    """MB that the compiled meta-gradient needs beside its inputs and outputs."""
    import equinox as eqx
    import jax

    moving, rest = eqx.partition(method, eqx.is_inexact_array)

    def mean(moving, keys):
        tasks = jax.vmap(source)(keys)
        return jax.vmap(lambda task, k: eqx.combine(moving, rest).loss(task, key=k))(
            tasks, keys
        ).mean()

    compiled = (
        jax.jit(jax.grad(mean)).lower(moving, jax.random.split(jax.random.key(0), batch)).compile()
    )
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


def on_devices(n: int) -> float:
    from metaprior.sources import Sinusoid
    from metaprior.system.devices import mesh_of

    return step_ms(maml(), Sinusoid(), 100, mesh_of(n, 100))


def table(rows: int) -> tuple[float, float]:
    """Seconds of `Prior.fit` on a made table with groups of 10 rows, and peak memory in MB."""
    import resource

    import numpy as np
    import polars as pl

    import metaprior

    rng = np.random.default_rng(0)
    group = np.arange(rows) // 10
    x = rng.uniform(-1, 1, (rows, 3))
    slope = rng.normal(size=(group[-1] + 1, 3))
    y = (slope[group] * x).sum(1) + 0.1 * rng.normal(size=rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        pl.DataFrame(
            {"group": group, "a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y}
        ).write_parquet(path)
        del x, y, group, slope
        began = time.perf_counter()
        metaprior.Prior("maml", steps=20).fit(path, task="group", target="y")
        seconds = time.perf_counter() - began
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def point(curve: str, size: int) -> Any:
    """One measurement of a curve."""
    from metaprior.sources import Sinusoid

    source = Sinusoid()
    ways: dict[str, Callable[[], Any]] = {
        "batch": lambda: step_ms(maml(), source, size),
        "particles": lambda: step_ms(bmaml(size), source),
        "inner steps": lambda: step_ms(maml(steps=size), source),
        "support rows": lambda: step_ms(maml(), Sinusoid(size, size)),
        "width": lambda: step_ms(maml(width=size), source),
        "devices": lambda: on_devices(size),
        "table rows": lambda: table(size),
        "memory": lambda: temporary(maml(steps=size), source),
        "memory, checkpoints": lambda: temporary(maml(steps=size, checkpoints=10), source),
    }
    return ways[curve]()


def measure(say: Any) -> dict[str, Any]:
    """All curves: `{name: {"what", "x", "y"}}`, with `error` where one could not be measured."""
    found: dict[str, Any] = {}
    for curve, sizes in SIZES.items():
        say(f"scale: {curve}")
        # Peak memory is a process's own, so each table has one.
        groups = [[size] for size in sizes] if curve == "table rows" else [list(sizes)]
        x, y, error = [], [], None
        for group in groups:
            values, error = _apart(curve, group)
            x, y = x + group[: len(values)], y + values
            if error:
                break
        if curve == "table rows":
            found["table memory"] = {
                "what": WHAT["table memory"],
                "x": x,
                "y": [pair[1] for pair in y],
                "error": error,
            }
            y = [pair[0] for pair in y]
        found[curve] = {"what": WHAT[curve], "x": x, "y": y, "error": error}
    return found


def _apart(curve: str, sizes: list[int], seconds: float = 240.0) -> tuple[list[Any], str | None]:
    """What a process of its own says of these sizes, until it ends or time is up."""
    environment = dict(os.environ)
    if curve == "devices":
        flags = f"--xla_force_host_platform_device_count={max(sizes)}"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flags}".strip()
        environment["JAX_PLATFORMS"] = "cpu"  # also beside a GPU
    command = [sys.executable, "-m", "benchmarks.scale", curve, *map(str, sizes)]
    # A session of its own: Ctrl-C reaches the parent alone, which ends it.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    error = None
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        error = f"stopped after {seconds:.0f} s"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if error is None and process.returncode:
        error = (err.strip().splitlines() or ["failed"])[-1][:300]
    return [json.loads(line) for line in out.splitlines()], error


if __name__ == "__main__":
    for size in sys.argv[2:]:
        print(json.dumps(point(sys.argv[1], int(size))), flush=True)
