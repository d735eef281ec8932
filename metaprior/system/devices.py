"""Several devices and several processes that train one prior together.

JAX does the work. A `Mesh` names the devices; `spread` gives each of them its share of a step's
tasks and adds up the gradients; `join` makes several processes one program.
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
from metaprior.system.terminal import give_devices_threads

TASKS, PARTICLES = "tasks", "particles"


def _own() -> list[int] | None:
    """The GPUs that belong to this process, as `jax.distributed.initialize` takes them.

    `[]` means all that it sees, and `None` leaves the choice to JAX. Under Slurm, JAX takes the one
    GPU whose number the process has among those of its machine. That is wrong where there is one
    process on a machine, and out of range where Slurm has already shared the GPUs out
    (`--gpus-per-task`): then all that are seen belong to it.
    """
    told = os.environ
    if "JAX_LOCAL_DEVICE_IDS" in told or "SLURM_STEP_NUM_TASKS" not in told:
        return None
    visible = len(told.get("CUDA_VISIBLE_DEVICES", "").split(","))
    shared_out = visible < int(told.get("SLURM_GPUS_ON_NODE", "0"))
    one_a_machine = told["SLURM_STEP_NUM_TASKS"] == told.get("SLURM_STEP_NUM_NODES")
    return [] if shared_out or one_a_machine else None


def join(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Make this process one of several that run the same program.

    Only a user who asks for several processes comes here. Options of JAX are set for this process.

    Args:
        coordinator: `HOST:PORT` of the first process. Without it, JAX asks Slurm and others.
        processes: how many there are.
        process_id: which one this is, from 0.

    Raises:
        InputError: the address cannot be used, or the processes do not find each other.
    """
    if jax.distributed.is_initialized():
        return
    if coordinator is not None:
        _check_address(coordinator, process_id == 0)
        print(
            f"process {process_id} of {processes}: waits for the others at {coordinator}",
            file=sys.stderr,
        )
    # JAX would otherwise handle SIGTERM itself, and the fit would not stop.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, processes, process_id, _own())
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"The processes did not find each other ({str(error).splitlines()[0]})."
        ) from None


def _check_address(coordinator: str, here: bool) -> None:
    """Refuse an address that cannot work.

    JAX itself waits five minutes for a host that does not exist, and crashes where the port is
    taken.

    Args:
        coordinator: `HOST:PORT`.
        here: whether this process opens the port.
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
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def anywhere(flag: bool) -> bool:
    """Whether `flag` holds in any of the processes. All of them have to ask."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.int32(flag)).any())


def agree(facts: Callable[[], list[str]], message: str) -> None:
    """Raise an `InputError` in all processes where they do not find the same facts.

    A single process does not call `facts`.
    """
    if jax.process_count() == 1:
        return
    mark = np.frombuffer(hashlib.sha256(json.dumps(facts()).encode()).digest(), np.int32)
    if (multihost_utils.process_allgather(mark) != mark).any():
        raise InputError(message)


def by_first(call: Callable[[], None]) -> None:
    """Call in the first process only. Where that fails, all processes stop."""
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
    """End this process at once where it fails alone; the others end when they next wait for it.

    Without this, JAX lets a process that ends wait for the others, and the others for it: minutes.
    """
    try:
        yield
    except InputError:  # all processes raise it, and end by themselves
        raise
    except (Exception, KeyboardInterrupt) as error:
        if not jax.distributed.is_initialized():
            raise
        message = _said_of_others(error)
        _leave_at_once(_exit_status(error, message))
        if message:
            raise InputError(message) from None
        raise


def _said_of_others(error: BaseException) -> str | None:
    """What to tell the user where the error comes from JAX or another process; else `None`."""
    said = str(error)
    if "Unable to initialize backend" in said:
        return f"JAX does not start in this process: {said.splitlines()[0]}"
    if re.search(r"Gloo|NCCL|[Cc]oordination|[Hh]eartbeat", said):
        return "another process has ended; continue with the same command and --resume."
    return None


def _exit_status(error: BaseException, message: str | None) -> int:
    """The status that the command line would give the same error in a process alone."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if message or isinstance(error, OSError) else 1


def _leave_at_once(status: int) -> None:
    """Once Python has ended, and said why, end the process without waiting for JAX."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)


def cores(batch: int) -> None:
    """Make devices of a CPU's cores, as many as share `batch` tasks well.

    Only a user who asks for several devices comes here. It sets an option and an environment
    variable of JAX, and does nothing where JAX has already started, where the user has chosen a
    number of devices, or where there are several processes.
    """
    forced = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    chosen = getattr(jax.config, "jax_num_cpu_devices", -1) != -1
    if forced or chosen or jax.distributed.is_initialized():
        return
    count = max(n for n in range(1, min(usable_cores(), batch) + 1) if _shares_well(n, batch))
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has started
        return
    # One thread for each device. Devices wait for each other once a step (`spread`), and a thread
    # that waits is lost to the others: with fewer, nobody could go on. With more, they would only
    # hand small pieces of work to each other.
    os.environ.setdefault("PJRT_NPROC", str(count))


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shares_well(devices: int, batch: int) -> bool:
    """Whether an even division of so many tasks adds less than a third to them."""
    return -batch % devices < batch / 3


def mesh_of(devices: int | str | None, batch: int) -> Mesh | None:
    """A mesh of devices for `batch` tasks a step; `None` for one device.

    The first axis spreads the tasks. Where they do not divide evenly, some devices compute tasks
    of weight 0. Where that would add a third or more, the first axis has only as many devices as
    divide the tasks evenly, and the remaining factor is a second axis, for the particles.

    Args:
        devices: how many, or `"all"` of all processes.
        batch: tasks a step.

    Raises:
        InputError: JAX does not see so many, or some devices of several processes would be left
            out.
    """
    if devices is None or (devices == 1 and jax.process_count() == 1):
        return None
    give_devices_threads()
    found = jax.devices()
    count = len(found) if devices == "all" else devices
    if not isinstance(count, int) or not 1 <= count <= len(found):
        raise InputError(
            f"devices is 'all' or a number from 1 to {len(found)}, which JAX sees here; "
            f"got {devices!r}."
        )
    if count < len(found) and jax.process_count() > 1:
        raise InputError("Several processes use all their devices: give devices='all'.")
    if count == 1:
        return None
    tasks = count if _shares_well(count, batch) else math.gcd(count, batch)
    shape = np.array(found[:count]).reshape(tasks, count // tasks)
    return Mesh(shape, (TASKS, PARTICLES), axis_types=(AxisType.Auto, AxisType.Auto))


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """A tree with its arrays on every device of the mesh."""
    if mesh is None:
        return tree
    arrays, rest = eqx.partition(tree, eqx.is_array)
    if jax.process_count() > 1:  # an array of one process alone cannot become one of all
        arrays = jax.tree.map(np.asarray, arrays)
    return eqx.combine(jax.device_put(arrays, NamedSharding(mesh, PartitionSpec())), rest)


def whole(tree: Any, mesh: Mesh | None) -> Any:
    """Inside a compiled program: a tree with its arrays whole on every device.

    Particles may have been spread (`over_particles`).
    """
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

    def own(leaf):
        return jnp.asarray(leaf.addressable_data(0)) if isinstance(leaf, jax.Array) else leaf

    return jax.tree.map(own, tree)


def over_particles(tree: Any) -> Any:
    """Spread the leading axis of a tree's arrays over the devices that tasks leave free, if any."""
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
    """Spread a sum over tasks over the devices of a mesh.

    Args:
        call: `call(whole, *parts, weights) -> sum`: a weighted sum over the leading axis of the
            arrays `parts`, as a tree of arrays.
        mesh: its tasks axis shares out the leading axis of `parts`. `None` is one device.

    Returns:
        `run(whole, *parts)`, that sum. Every task has the weight 1 / their number; copies of the
        last one, of weight 0, fill up an uneven division.
    """

    def run(whole, *parts):
        count = parts[0].shape[0]
        weights = jnp.full(count, 1 / count)
        if mesh is None:
            return call(whole, *parts, weights)
        devices = mesh.shape[TASKS]
        more = -count % devices
        if more:
            parts = [jnp.concatenate([part, jnp.repeat(part[-1:], more, 0)]) for part in parts]

        def each(whole, *parts):
            # Every device has all of the parts and takes its own. To hand them out instead would
            # need an exchange.
            size = parts[0].shape[0] // devices
            start = jax.lax.axis_index(TASKS) * size
            own = [jax.lax.dynamic_slice_in_dim(part, start, size) for part in parts]
            # The results travel as one array: the devices then wait for each other only once.
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
