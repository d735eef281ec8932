"""Programs kept between processes: a later one skips tracing, which for a prior takes longer than
all the rest.

JAX's compilation cache finds a program only when the function has been traced and lowered anew.
Beside its entries lies here what a function was traced to (`jax.export`), under a name made of all
that the trace depends on.
"""

import functools
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import export

from metaprior.errors import InputError
from metaprior.system import files
from metaprior.system.compiled import effort, full_precision, jit, least_effort

LITTLE = 1e8  # rows times numbers of a learner: a second or less, however it is compiled
_OURS = ("metaprior", "equinox", "optax")  # packages whose sources the name covers


@functools.cache
def _versions() -> str:
    """What code runs here: versions, and size and time of each of this package's own files, which
    may be edited.
    """
    root = Path(__file__).parents[1]
    stats = [(str(path.relative_to(root)), path.stat()) for path in sorted(root.rglob("*.py"))]
    ours = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return repr((jax.__version__, eqx.__version__, jax.default_backend(), ours))


def _name(function: FunctionType, arguments: tuple) -> str | None:
    """A digest of everything that the trace depends on; none where it depends on code of others, or
    on many devices.
    """
    if any(len(a.devices()) > 1 for a in jax.tree.leaves(arguments) if isinstance(a, jax.Array)):
        return None
    shapes = jax.tree.map(lambda a: f"{a.dtype}{a.shape}" if eqx.is_array(a) else a, arguments)
    try:
        header, arrays = files.described(shapes)
    except InputError:  # a function of somebody's as an activation, say
        return None
    if not all(
        module.split(".")[0] in _OURS
        for module in re.findall(r'"(?:class|named)": "([^":]+):', header)
    ):
        return None
    digest = hashlib.sha256(
        repr(
            (function.__module__, function.__qualname__, str(jnp.result_type(float)), _versions())
        ).encode()
    )
    for part in (header.encode(), *(array.tobytes() for array in arrays)):
        digest.update(part)
    return f"traced-{digest.hexdigest()[:32]}"


def _read(path: Path) -> export.Exported | None:
    try:
        data = path.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            return export.deserialize(bytearray(data[32:]))
    except (
        Exception
    ):  # absent, or of a version of the format that this JAX does not read: traced anew
        pass
    return None


def _trace(path: Path, function: FunctionType, arguments: tuple) -> export.Exported:
    arrays, static = eqx.partition(arguments, eqx.is_array)
    leaves, tree = jax.tree.flatten(arrays)

    def flat(leaves):
        return function(*eqx.combine(jax.tree.unflatten(tree, leaves), static))

    data = export.export(jax.jit(flat))(
        [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves]
    ).serialize()
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(hashlib.sha256(data).digest() + data)
        temporary.replace(path)
    except OSError:  # a full disk or a folder that is read only: nothing is kept
        temporary.unlink(missing_ok=True)
    return export.deserialize(
        data
    )  # as a later process does, so that it finds the compiled program too


def kept(function: FunctionType, options: Callable[[], dict[str, Any]] = effort) -> Callable:
    """`jit(function, options)`, traced once for all processes that share a compilation cache.

    For functions of a module, called with positional arguments and returning arrays in tuples or
    dictionaries. Arguments that only this process knows of (classes defined outside the package)
    are traced as ever.
    """
    plain = jit(function, options)
    ready: dict[str, Callable | None] = {}  # none: it cannot be exported

    @functools.wraps(function)
    @full_precision
    def call(*arguments: Any) -> Any:
        folder = jax.config.values["jax_compilation_cache_dir"]
        name = _name(function, arguments) if folder else None
        if name is None:
            return plain(*arguments)
        if name not in ready:
            path = Path(folder) / name
            try:
                ready[name] = jax.jit(
                    (_read(path) or _trace(path, function, arguments)).call, **options()
                )
            except Exception:  # an error of the function's own comes again below
                ready[name] = None
        program = ready[name]
        return (
            program(jax.tree.leaves(eqx.filter(arguments, eqx.is_array)))
            if program
            else plain(*arguments)
        )

    return call


def kept_by_size(function: FunctionType) -> Callable:
    """`kept` for what asks a learner, the first argument; with the least effort where it has little
    to do.

    What a default prior says of some rows compiles for 7 CPU-seconds and runs for 6 ms; with the
    least effort for 2 s and 12 ms. Rows are what an array has before its last axis.
    """
    little, much = kept(function, least_effort), kept(function)

    @functools.wraps(function)
    def call(learner: Any, *arguments: Any) -> Any:
        numbers, arrays = (
            [a for a in jax.tree.leaves(tree) if eqx.is_array(a) and a.size]
            for tree in (learner, arguments)
        )
        rows = max((a.size // a.shape[-1] for a in arrays if a.ndim > 1), default=0)
        work = rows * sum(a.size for a in numbers)
        return (little if work <= LITTLE else much)(learner, *arguments)

    return call
