"""Several devices and several processes: JAX's own runtime, with the tasks of a step spread over a
mesh.
"""

import atexit
import hashlib
import json
import math
import os
import re
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from metaprior.errors import InputError

TASKS, PARTICLES = "tasks", "particles"


def _own() -> list[int] | None:
    """Which of the GPUs that this process sees are its own, as `jax.distributed.initialize` takes
    it: `[]` means all.

    Under Slurm JAX takes the one whose number the task has on its machine. That is wrong where a
    machine has one task, and out of range where Slurm has already shared its GPUs out
    (`--gpus-per-task`).
    """
    says = os.environ.get
    if "JAX_LOCAL_DEVICE_IDS" in os.environ or "SLURM_STEP_NUM_TASKS" not in os.environ:
        return None
    shared_out = len(says("CUDA_VISIBLE_DEVICES", "").split(",")) < int(
        says("SLURM_GPUS_ON_NODE", "0")
    )
    return (
        [] if shared_out or says("SLURM_STEP_NUM_TASKS") == says("SLURM_STEP_NUM_NODES") else None
    )


def join(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Make this process one of several that run the same program; without arguments as Slurm and
    others say.
    """
    if jax.distributed.is_initialized():
        return
    if coordinator is not None:
        _check_address(coordinator, process_id == 0)
        print(
            f"process {process_id} of {processes}: waits for the others at {coordinator}",
            file=sys.stderr,
        )
    # JAX's service would take SIGTERM for itself, and nobody would stop.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, processes, process_id, _own())
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"The processes did not find each other ({str(error).splitlines()[0]})."
        ) from None


def _check_address(coordinator: str, here: bool) -> None:
    """JAX waits five minutes for a host that there is not, and a port that is taken ends the
    process in its C++.
    """
    host, _, port = coordinator.rpartition(":")
    try:
        if not 0 < int(port) < 2**16:
            raise InputError(f"--coordinator: a port is from 1 to 65535; got {port}.")
        socket.getaddrinfo(host.strip("[]"), int(port))
        if here:
            socket.create_server(("", int(port))).close()
    except socket.gaierror:
        raise InputError(f"--coordinator: no host {host!r} is known here.") from None
    except OSError as error:
        raise InputError(
            f"--coordinator: port {port} cannot be used here ({error.strerror})."
        ) from None


def first() -> bool:
    """This process writes files and speaks; there is exactly one that does."""
    return jax.process_index() == 0


def anywhere(flag: bool) -> bool:
    """Whether `flag` holds in any of the processes, which all have to ask."""
    return (
        flag
        if jax.process_count() == 1
        else bool(multihost_utils.process_allgather(np.int32(flag)).any())
    )


def agree(facts: Callable[[], list[str]], message: str) -> None:
    """Every process finds the same facts; otherwise an `InputError` in all of them. One process
    alone does not look.
    """
    if jax.process_count() > 1:
        mark = np.frombuffer(hashlib.sha256(json.dumps(facts()).encode()).digest(), np.int32)
        if (multihost_utils.process_allgather(mark) != mark).any():
            raise InputError(message)


def by_first(call: Callable[[], None]) -> None:
    """`call()` in the first process alone; where it fails, all of them stop."""
    failed = None
    try:
        if first():
            call()
    except Exception as error:
        failed = error
    if anywhere(failed is not None) and failed is None:
        raise InputError("stopped, as the first process did.")
    if failed is not None:
        raise failed


@contextmanager
def together() -> Generator[None]:
    """Inside, an error that one of several processes meets alone ends it at once, and the others
    where they next meet it.

    JAX would have it wait for the others when it ends, and them for it: minutes.
    """
    try:
        yield
    except InputError:  # all processes end so
        raise
    except (Exception, KeyboardInterrupt) as error:
        if not jax.distributed.is_initialized():
            raise
        said, message = str(error), None
        if "Unable to initialize backend" in said:
            message = f"JAX does not start in this process: {said.splitlines()[0]}"
        elif re.search(r"Gloo|NCCL|[Cc]oordination|[Hh]eartbeat", said):
            message = "another process has ended; continue with the same command and --resume."
        status = (
            130
            if isinstance(error, KeyboardInterrupt)
            else 2
            if message or isinstance(error, OSError)
            else 1
        )

        def leave() -> None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

        atexit.register(leave)
        if message:
            raise InputError(message) from None
        raise


def cores(batch: int) -> None:
    """On CPUs make a device of every core, as many as share `batch` tasks well, where JAX has not
    started yet.

    Devices wait for each other once a step (`spread`), one thread each, so that with a thread a
    device one is always left that can go on; more threads would only hand small work to one
    another. Nothing changes for several processes, or where the number of devices has been chosen.
    """
    forced = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if (
        forced
        or getattr(jax.config, "jax_num_cpu_devices", -1) != -1
        or jax.distributed.is_initialized()
    ):
        return
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = max(n for n in range(1, min(here, batch) + 1) if -batch % n < batch / 3)
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has started
        return
    os.environ.setdefault("PJRT_NPROC", str(count))


def mesh_of(devices: int | str | None, batch: int) -> Mesh | None:
    """A mesh of so many devices (`"all"`: of all processes) for `batch` tasks a step; `None` for
    one device.

    The first axis spreads the tasks. Where filling up an uneven division would add a third to them
    or more, it has only as many devices as divide the tasks evenly, and the second axis what
    remains, for the particles.
    """
    if devices is None or (devices == 1 and jax.process_count() == 1):
        return None
    found = jax.devices()
    count = len(found) if devices == "all" else devices
    if not isinstance(count, int) or not 1 <= count <= len(found):
        raise InputError(
            f"devices is 'all' or a number from 1 to {len(found)}, which JAX sees here; got {devices!r}."
        )
    if count < len(found) and jax.process_count() > 1:
        raise InputError("Several processes use all their devices: give devices='all'.")
    if count == 1:
        return None
    tasks = count if -batch % count < batch / 3 else math.gcd(count, batch)
    shape = np.array(found[:count]).reshape(tasks, count // tasks)
    return Mesh(shape, (TASKS, PARTICLES), axis_types=(AxisType.Auto, AxisType.Auto))


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """The arrays of a tree on every device of the mesh."""
    if mesh is None:
        return tree
    arrays, rest = eqx.partition(tree, eqx.is_array)
    if jax.process_count() > 1:  # an array of one process alone cannot become one of all
        arrays = jax.tree.map(np.asarray, arrays)
    return eqx.combine(jax.device_put(arrays, NamedSharding(mesh, PartitionSpec())), rest)


def whole(tree: Any, mesh: Mesh | None) -> Any:
    """Inside a compiled program: results that every device has, as particles may have been spread."""
    if mesh is None:
        return tree
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(
        jax.lax.with_sharding_constraint(arrays, NamedSharding(mesh, PartitionSpec())), rest
    )


def local(tree: Any, mesh: Mesh | None) -> Any:
    """This process's copy of replicated arrays, on its first device."""
    if mesh is None:
        return tree
    return jax.tree.map(
        lambda a: jnp.asarray(a.addressable_data(0)) if isinstance(a, jax.Array) else a, tree
    )


def over_particles(tree: Any) -> Any:
    """Spread the leading axis of a tree's arrays over the devices that tasks leave free, where
    there are any.
    """
    mesh = jax.sharding.get_abstract_mesh()
    size = dict(mesh.shape).get(PARTICLES, 1) if mesh is not None and mesh.axis_names else 1
    if size == 1:
        return tree

    def spread(leaf):
        if not eqx.is_array(leaf) or leaf.ndim == 0 or leaf.shape[0] % size:
            return leaf
        return jax.lax.with_sharding_constraint(
            leaf, PartitionSpec(PARTICLES, *[None] * (leaf.ndim - 1))
        )

    return jax.tree.map(spread, tree)


def spread(call: Any, mesh: Mesh | None) -> Any:
    """`call(whole, *parts, weights) -> sum` with the leading axis of `parts` split over the tasks
    axis, and its results added up. Every part has the weight 1 / their number; where they do not
    divide evenly, copies of the last, of weight 0, fill up.
    """

    def run(whole, *parts):
        count = parts[0].shape[0]
        weights = jnp.full(count, 1 / count)
        if mesh is None:
            return call(whole, *parts, weights)
        devices = mesh.shape[TASKS]
        more = -count % devices
        parts = (
            [jnp.concatenate([part, jnp.repeat(part[-1:], more, 0)]) for part in parts]
            if more
            else parts
        )

        def each(whole, *parts):
            # Every device has all of the parts and takes its own, which needs no exchange as
            # handing them out would. The results travel as one array: devices wait for each other
            # once.
            size = parts[0].shape[0] // devices
            own = [
                jax.lax.dynamic_slice_in_dim(a, jax.lax.axis_index(TASKS) * size, size)
                for a in parts
            ]
            flat, unravel = ravel_pytree(call(whole, *own))
            return unravel(jax.lax.psum(flat, TASKS))

        return jax.shard_map(
            each,
            mesh=mesh,
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec(),
            axis_names={TASKS},
            check_vma=False,
        )(whole, *parts, jnp.pad(weights, (0, more)))

    return run
