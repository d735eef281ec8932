"""Programs kept between processes: a later one skips tracing, which for a prior takes longer than
all the rest.

JAX's compilation cache finds a program only when the function has been traced and lowered anew.
Beside its entries lies here what a function was traced to (`jax.export`), under a name made of all
that the trace depends on.
"""

import contextlib
import functools
import hashlib
import inspect
import json
import os
import re
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from types import FunctionType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.experimental.compilation_cache import compilation_cache

from metaprior.errors import InputError
from metaprior.system import cache, files
from metaprior.system.compiled import effort, full_precision, jit, least_effort
from metaprior.system.trees import Reader

LITTLE = 1e8  # rows times numbers of a learner: a second or less, however it is compiled
_OURS = ("metaprior", "equinox", "optax")  # packages whose sources the name covers


_OPTIONS = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": cache.LEAST_SECONDS,
}
_lock, _inside = threading.Lock(), 0
_before: dict[str, Any] = {}  # JAX's options outside of `_keeping`


@contextlib.contextmanager
def _keeping(folder: str) -> Generator[None]:
    """JAX keeps what is compiled in here in that folder; afterwards its options are as they were.

    It has one folder for all threads. The first that comes sets it, and the last that goes sets it
    back.
    """
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _before.update({name: jax.config.values[name] for name in _OPTIONS})
            _set(_OPTIONS | {"jax_compilation_cache_dir": folder})
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _set(_before)
                _before.clear()


def _chosen() -> str | None:
    """JAX's own folder, where the user or `terminal.use_cache` chose one."""
    with _lock:
        return (_before or jax.config.values)["jax_compilation_cache_dir"]


def _set(options: dict[str, Any]) -> None:
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX looks at its options once only


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
    shapes = jax.tree.map(_depended_on, arguments)
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


def _depended_on(leaf: Any) -> Any:
    """What of an argument's leaf the trace depends on: of arrays type and shape, of functions of a
    module here their names.
    """
    if eqx.is_array(leaf):
        return f"{leaf.dtype}{leaf.shape}"
    module, name = (getattr(leaf, what, None) for what in ("__module__", "__qualname__"))
    ours = inspect.isroutine(leaf) and str(module).split(".")[0] == "metaprior"
    if ours and "<" not in str(name):  # a function in a function is not told by its name
        owner = getattr(leaf, "__self__", None)  # the class that a class method makes
        return f"{module}:{name} of {owner!r}"
    return leaf


def _parts(data: bytes) -> tuple[export.Exported, Any]:
    """A function from arrays to arrays, and the tree in which the latter stand."""
    size = int.from_bytes(data[:8], "little")
    tree = Reader(b"", 0).tree(json.loads(data[8 : 8 + size]))
    return export.deserialize(bytearray(data[8 + size :])), tree


def _read(path: Path) -> tuple[export.Exported, Any] | None:
    try:
        data = path.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            return _parts(data[32:])
    except (
        Exception
    ):  # absent, or of a version of the format that this JAX does not read: traced anew
        pass
    return None


def _trace(path: Path, function: FunctionType, arguments: tuple) -> tuple[export.Exported, Any]:
    taken, static = eqx.partition(arguments, eqx.is_array)
    leaves, tree = jax.tree.flatten(taken)
    given = []  # where arrays are in what it gives, and the rest of it

    def flat(leaves):
        found = function(*eqx.combine(tree.unflatten(leaves), static))
        arrays, rest = eqx.partition(found, eqx.is_array)
        given.append((jax.tree.structure(arrays), rest))
        return jax.tree.leaves(arrays)

    program = export.export(jax.jit(flat))(
        [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves]
    ).serialize()
    places, rest = given[0]
    empty = places.unflatten([jax.device_put(np.zeros(0, np.float32))] * places.num_leaves)
    header = files.described(eqx.combine(empty, rest))[0].encode()
    data = len(header).to_bytes(8, "little") + header + program
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(hashlib.sha256(data).digest() + data)
        temporary.replace(path)
    except OSError:  # a full disk or a folder that is read only: nothing is kept
        temporary.unlink(missing_ok=True)
    return _parts(data)  # as a later process does, so that it finds the compiled program too


def _placed(leaves: list) -> list:
    """On their device for good, as what a kept program gives is.

    For what is there for the time being JAX compiles the same program once more.
    """
    device = next((d for a in leaves if isinstance(a, jax.Array) for d in a.devices()), None)
    return jax.device_put(leaves, device)


def kept(function: FunctionType, options: Callable[[], dict[str, Any]] = effort) -> Callable:
    """`jit(function, options)`, traced once for all processes that share a compilation cache.

    For functions of a module, called with positional arguments. What they take and give is what a
    file can hold (`files.save`), and functions of this package's modules. Arguments that only this
    process knows of (classes defined outside the package) are traced as ever.
    """
    plain = jit(function, options)
    # The program, and the tree in which what it gives stands; none: it cannot be exported.
    ready: dict[str, tuple[Callable, Any, Any] | None] = {}

    @functools.wraps(function)
    @full_precision
    def call(*arguments: Any) -> Any:
        chosen = _chosen()
        folder = chosen or cache.folder()
        name = _name(function, arguments) if folder else None
        if folder is None or name is None:
            return plain(*arguments)
        new = name not in ready
        if new:
            path = Path(folder) / name
            try:
                traced, tree = _read(path) or _trace(path, function, arguments)
                places = jax.tree.structure(eqx.filter(tree, eqx.is_array))
                ready[name] = jax.jit(traced.call, **options()), places, tree
            except Exception:  # an error of the function's own comes again below
                ready[name] = None
        if not (found := ready[name]):
            return plain(*arguments)
        program, places, tree = found
        with _keeping(folder) if new and not chosen else contextlib.nullcontext():
            leaves = program(_placed(jax.tree.leaves(eqx.filter(arguments, eqx.is_array))))
        return eqx.combine(places.unflatten(leaves), tree)

    return call


def kept_once(function: FunctionType) -> Callable:
    """`kept` with the least effort, for what runs once, on little data."""
    return kept(function, least_effort)


def kept_by_size(function: FunctionType) -> Callable:
    """`kept` for what asks a learner, the first argument; with the least effort where it has little
    to do.

    What a default prior says of some rows compiles for 7 CPU-seconds and runs for 6 ms; with the
    least effort for 2 s and 12 ms. Rows are what an array has before its last axis.
    """
    little, much = kept_once(function), kept(function)

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
