"""Every method on the device that JAX prefers and on the CPU beside it: how far apart loss, gradient and predictions are.

    python -m benchmarks.agree [--methods maml,np] [--out FILE.json]

Same weights, tasks and random numbers; the defaults of each method. The distances are relative, by norms: rounding makes
them about 1e-6 where a gradient is one product after another, more where steps of adaptation repeat it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, machine_cores

TASKS, PATIENCE = 8, 300.0


def apart(name: str) -> dict[str, Any]:
    """Of one method: relative distances, and the device."""
    import equinox as eqx
    import jax
    import numpy as np

    from metaprior import Spec
    from metaprior.heads import Categorical, Gaussian
    from metaprior.methods import METHODS
    from metaprior.sources import Sinusoid

    row = METHODS[name]
    classes = "numbers" not in row.kinds
    spec = Spec(1, Categorical(2) if classes else Gaussian(1))
    sinusoid = Sinusoid(10, 5)

    def draw(key):
        tasks = jax.vmap(sinusoid)(jax.random.split(key, TASKS))
        if classes:
            tasks = eqx.tree_at(lambda t: (t.support.y, t.query.y), tasks,
                                ((tasks.support.y > 0) * 1.0, (tasks.query.y > 0) * 1.0))  # fmt: skip
        return tasks

    def look(moving, rest, tasks, key):
        method = eqx.combine(moving, rest)
        keys = jax.random.split(key, TASKS)

        def mean(moving):
            losses = jax.vmap(lambda task, k: eqx.combine(moving, rest).loss(task, key=k))(tasks, keys)
            return losses.mean()

        task = jax.tree.map(lambda a: a[0], tasks)
        predicted = method.posterior(task.support, key=key).predict(task.query.x, key=key, samples=16)
        found = {"predictions": predicted.mean()}
        if row.trainable:
            found["loss"], found["gradient"] = jax.value_and_grad(mean)(moving)
        return found

    def on(device):
        with jax.default_device(device):
            method = eqx.filter_jit(row.init)(spec, key=jax.random.key(0))
            moving, rest = eqx.partition(method, eqx.is_inexact_array)
            moving, rest, tasks, key = jax.device_put((moving, eqx.filter(rest, eqx.is_array), draw(jax.random.key(1)),
                                                       jax.random.key(2)), device)  # fmt: skip
            _, static = eqx.partition(eqx.partition(method, eqx.is_inexact_array)[1], eqx.is_array)
            call = jax.jit(lambda m, r, t, k: look(m, eqx.combine(r, static), t, k))
            found = call(moving, rest, tasks, key)
            return {
                k: np.concatenate([np.ravel(a) for a in jax.tree.leaves(v)]) for k, v in jax.device_get(found).items()
            }

    here, cpu = on(jax.devices()[0]), on(jax.devices("cpu")[0])
    far = lambda a, b: float(np.linalg.norm(a.astype(float) - b) / np.linalg.norm(b.astype(float)))
    return {"device": jax.devices()[0].device_kind} | {what: far(here[what], cpu[what]) for what in cpu}


def one(name: str) -> dict[str, Any]:
    """The same in a process of its own, or an error."""
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-m", "benchmarks.agree", "--one", name]
    began = time.monotonic()
    try:
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {PATIENCE:.0f} s"}
    found = {"error": (ran.stderr.strip().splitlines() or ["failed"])[-1]} if ran.returncode else json.loads(ran.stdout)
    return found | {"seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    from metaprior.methods import METHODS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS), help="rows of METHODS, separated by commas")
    parser.add_argument("--out", type=Path, help="write everything measured to this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(apart(arguments.one)))
        return
    names = arguments.methods.split(",")
    results: dict[str, Any] = {}
    with ThreadPoolExecutor(machine_cores()) as pool:
        for name, found in zip(names, pool.map(one, names)):
            results[name] = found
            shown = [
                f"{k} {v:.1e}" if isinstance(v, float) and k != "seconds" else f"{k} {v}" for k, v in found.items()
            ]
            print(f"{name}: {', '.join(shown)}", flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
