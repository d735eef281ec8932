"""Every job of the benchmarks and every method, compiled for a GPU that is not there.

    pip install 'jax[cuda13]'               # 3 GB: XLA's compiler for GPUs and its libraries
    python -m benchmarks.deviceless [--only maml-1,llama] [--devices 4]

A line each: seconds to compile; programs that a GPU is asked to start one after another, in one
turn of its loops (a step of training) and outside of them; calls of NVIDIA's libraries; sums over
devices. Only a GPU can try out which way to compute a product is fast, so XLA takes its first here.
Where it refuses that one, the line is of cuBLAS in its place.
"""

import argparse
import collections
import functools
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

# NVIDIA H200: what XLA asks of a device, from its data sheet and from the tables of compute
# capability 9.0.
H200 = """
gpu_device_info {
  cuda_compute_capability { major: 9 } core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  device_memory_size: 151000000000 memory_bandwidth: 4800000000000 l2_cache_size: 62914560
}
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 patch: 0 }
"""
STARTED = r"= .*? (?:fusion|custom-call|all-reduce-start|copy|sort)\("


def training(name: str, mesh: Any) -> tuple[Callable, tuple]:
    """Steps of `fit` for one job, and the arrays that they begin with."""
    import jax
    import optax

    from benchmarks import ours
    from benchmarks.cases import CASES
    from metaprior import training as training_steps

    case, optimiser = CASES[name], optax.adam(ours.RATE)
    state = training_steps._start_one(ours.method_of(case), jax.random.key(1), optimiser)

    def steps(state: Any, source: Any, count: Any) -> Any:
        return training_steps._chunk(state, source, None, optimiser, count, case.batch, None, mesh)

    return steps, (state, ours.source_of(case), jax.numpy.array(10))


def compiled(function: Callable, arguments: tuple, sharding: Any, **options: Any) -> str:
    """XLA's program for the devices of `sharding`, as text."""
    import equinox as eqx
    import jax

    arrays, static = eqx.partition(arguments, eqx.is_array)
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), arrays
    )

    def call(arrays):
        return eqx.filter(function(*eqx.combine(arrays, static)), eqx.is_array)

    # Choose as on a GPU what depends on the device that JAX prefers; keep nothing traced before.
    with mock.patch.object(jax, "default_backend", return_value="gpu"):
        jax.clear_caches()
        found = jax.jit(call).lower(shapes).compile(compiler_options=options or None).as_text()
    jax.clear_caches()
    return found or ""


def started(text: str) -> tuple[int, int]:
    """How many programs a GPU is asked to start: in one turn of every loop, and outside of them."""
    turned = set(re.findall(r"body=(%[\w.-]+)", text))
    inside, outside = 0, 0
    for block in re.split(r"\n(?=ENTRY |%)", text):
        count = len(re.findall(STARTED, block))
        inside += count * (block.split(" ", 1)[0] in turned)
        outside += count * block.startswith("ENTRY ")
    return inside, outside


def line(function: Callable, arguments: tuple, sharding: Any) -> str:
    """What became of one program."""
    import jax

    began, refused = time.monotonic(), ""
    try:
        text = compiled(function, arguments, sharding)
    except jax.errors.JaxRuntimeError as error:
        refused = f"; without cuBLAS: {str(error)[:60]} …"
        text = compiled(function, arguments, sharding, xla_gpu_enable_triton_gemm=False)
    seconds = time.monotonic() - began
    calls = collections.Counter(re.findall(r'custom_call_target="([^"]+)"', text))
    inside, outside = started(text)
    parts = [f"{seconds:.1f} s", f"{inside} + {outside} programs"]
    parts += [f"{count} {name}" for name, count in calls.items()]
    if sums := len(re.findall(r"= \S.* all-reduce-start\(", text)):
        parts.append(f"{sums} {'sum' if sums == 1 else 'sums'} over devices")
    return ", ".join(parts) + refused


def main() -> int:
    from benchmarks.cases import CASES

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deviceless", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--only", help="jobs and methods, separated by commas")
    parser.add_argument("--devices", type=int, default=1, help="GPUs that share the tasks of a job")
    arguments = parser.parse_args()
    if arguments.devices < 1:
        parser.error("--devices is at least 1")
    # XLA logs every product that it refuses, whole.
    os.environ |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"

    import jax
    from jax.experimental import topologies

    from benchmarks.agree import program
    from metaprior.methods import METHODS
    from metaprior.system.devices import mesh_of

    # A combination is made of learners that are trained.
    methods = [name for name, row in METHODS.items() if row.group != "combination"]
    known = list(dict.fromkeys([*CASES, *methods]))
    names = known if arguments.only is None else arguments.only.split(",")
    if unknown := sorted({*names} - {*known}):
        parser.error(f"--only knows {', '.join(known)}; not {', '.join(unknown)}")
    try:
        found = topologies.get_topology_desc(
            platform="cuda", target_config=H200, topology=f"1x1x{arguments.devices}"
        )
    except Exception as error:  # JAX says it in many ways
        print(
            f"JAX has no compiler for GPUs here: pip install 'jax[cuda13]' ({error})"[:300],
            file=sys.stderr,
        )
        return 2
    one, gpus = jax.sharding.SingleDeviceSharding(found.devices[0]), list(found.devices)
    # A label, what makes the function and its arguments, and where they lie.
    programs: list[tuple[str, Callable[[], tuple], Any]] = []
    for name in filter(CASES.__contains__, names):
        with mock.patch.object(jax, "devices", return_value=gpus):
            mesh = mesh_of("all", CASES[name].batch)
        where = one
        if mesh is not None:
            where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        programs.append((f"job {name}", functools.partial(training, name, mesh), where))
    for name in filter(methods.__contains__, names):
        programs.append((f"method {name}", functools.partial(program, name), one))
    failed = False
    for label, parts, where in programs:
        try:
            print(f"{label}: {line(*parts(), where)}", flush=True)
        except jax.errors.JaxRuntimeError as error:
            failed = True
            print(f"{label}: REFUSED: {str(error)[:300]}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
