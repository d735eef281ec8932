"""How far every method on the device that JAX prefers is from the same method on the CPU.

    python -m benchmarks.agree [--methods maml,np] [--out FILE.json]

Loss, gradient and predictions are compared, with the same weights, tasks and random numbers and the
defaults of each method. Distances are relative, by norms. Rounding makes them about 1e-6 for a
gradient that is one product after another, and more where steps of adaptation repeat it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, machine_cores

TASKS, PATIENCE = 8, 300.0


def program(name: str) -> tuple[Callable, tuple]:
    """A function of arrays that adapts, predicts and gives loss and gradient; and the arrays."""
    import equinox as eqx
    import jax

    from metaprior import Spec
    from metaprior.heads import Categorical, Gaussian
    from metaprior.methods import METHODS
    from metaprior.sources import Sinusoid

    row = METHODS[name]
    classes = "numbers" not in row.kinds
    spec = Spec(1, Categorical(2) if classes else Gaussian(1))
    sinusoid = Sinusoid(10, 5)

    method = eqx.filter_jit(row.init)(spec, key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), TASKS)
    tasks = jax.vmap(sinusoid)(keys)
    if classes:
        signs = tuple((data.y > 0) * 1.0 for data in (tasks.support, tasks.query))
        tasks = eqx.tree_at(lambda t: (t.support.y, t.query.y), tasks, signs)
    arrays, static = eqx.partition(method, eqx.is_array)

    def look(arrays, tasks, keys):
        moving, rest = eqx.partition(eqx.combine(arrays, static), eqx.is_inexact_array)
        task = jax.tree.map(lambda a: a[0], tasks)
        posterior = eqx.combine(moving, rest).posterior(task.support, key=keys[0])
        found = {"predictions": posterior.predict(task.query.x, key=keys[0], samples=16).mean()}
        if row.trainable:

            def loss(moving, task, key):
                return eqx.combine(moving, rest).loss(task, key=key)

            def mean(moving):
                return jax.vmap(lambda task, key: loss(moving, task, key))(tasks, keys).mean()

            found["loss"], found["gradient"] = jax.value_and_grad(mean)(moving)
        return found

    return look, (arrays, tasks, keys)


def apart(name: str) -> dict[str, Any]:
    """Of one method: relative distances, and the device."""
    import jax
    import numpy as np

    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        look, arrays = program(name)
    look = jax.jit(look)

    def on(device):
        found = jax.device_get(look(*jax.device_put(arrays, device)))
        return {
            what: np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])
            for what, tree in found.items()
        }

    here, there = on(jax.devices()[0]), on(cpu)

    def far(a, b):
        return float(np.linalg.norm(a.astype(float) - b) / np.linalg.norm(b.astype(float)))

    return {"device": jax.devices()[0].device_kind} | {
        what: far(here[what], there[what]) for what in there
    }


def one(name: str) -> dict[str, Any]:
    """The same in a process of its own, or an error."""
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-m", "benchmarks.agree", "--one", name]
    began = time.monotonic()
    try:
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {PATIENCE:.0f} s"}
    if ran.returncode:
        found = {"error": (ran.stderr.strip().splitlines() or ["failed"])[-1]}
    else:
        found = json.loads(ran.stdout)
    return found | {"seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    from metaprior.methods import METHODS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--methods", default=",".join(METHODS), help="rows of METHODS, separated by commas"
    )
    parser.add_argument("--out", type=Path, help="write everything measured to this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(apart(arguments.one)))
        return
    names = arguments.methods.split(",")
    results: dict[str, Any] = {}
    with ThreadPoolExecutor(machine_cores()) as pool:
        asked = {pool.submit(one, name): name for name in names}
        for answer in as_completed(asked):
            name, found = asked[answer], answer.result()
            results[name] = found
            shown = [
                f"{k} {v:.1e}" if isinstance(v, float) and k != "seconds" else f"{k} {v}"
                for k, v in found.items()
            ]
            print(f"{name}: {', '.join(shown)}", flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
