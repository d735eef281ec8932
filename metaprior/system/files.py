"""Saving and loading: modules as a JSON header and raw arrays, never pickle.

Layout: the line `metaprior 2`, a SHA-256 of everything after it, the lengths of the header and of
the arrays (eight bytes each, little endian), the JSON header, then the arrays' bytes in the order
in which the header names them. Reading checks the sum before it parses and the sizes before it
allocates. What a file names is looked up, never imported, and never called: classes of modules that
are imported already or are ours, and functions of `_FUNCTIONS`.
"""

import dataclasses
import hashlib
import importlib
import inspect
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metaprior.errors import InputError
from metaprior.system.annotations import odd_fields

MAGIC = b"metaprior 2\n"
_START = len(MAGIC) + 32 + 8 + 8
_DEPTH = (
    100  # of containers in containers: far below Python's limit on recursion, far above real trees
)
_MOST = 100_000  # arrays: an empty one takes a few bytes of a file, but a kilobyte of JAX's memory
_TYPES = ("float32", "float64", "int32", "int64", "uint32", "uint8", "bool")
_KINDS = ("jax", "numpy", "scalar")
_FLOATS = {repr(number): number for number in (math.nan, math.inf, -math.inf)}
# Where the classes of priors and states are; imported when a file names a class that is not there
# yet.
_HOMES = (
    "metaprior.tables.prior",
    "metaprior.methods",
    "metaprior.methods.embedded",
    "metaprior.heads",
    "metaprior.infer",
    "metaprior.nets",
    "metaprior.nets.conv",
    "metaprior.sources",
    "optax",
)


# Where the classes are that files of 0.1.0 name: a whole module, or one class of it.
_MOVED = {
    "metaprior.adapted": "metaprior.tables.posterior",
    "metaprior.baselines.boosting": "metaprior.tables.baselines.boosting",
    "metaprior.baselines.learners": "metaprior.tables.baselines.learners",
    "metaprior.chain": "metaprior.tables.several",
    "metaprior.evaluate": "metaprior.evaluation.evaluate",
    "metaprior.evaluate:Units": "metaprior.evaluation.units:Units",
    "metaprior.fit": "metaprior.training",
    "metaprior.prior": "metaprior.tables.prior",
    "metaprior.table": "metaprior.tables.columns",
}


def _functions() -> dict[str, Any]:
    """What modules may hold as activations: pure functions of arrays, by their public names."""
    found = {
        f"jax.nn:{name}": f for name, f in vars(jax.nn).items() if callable(f) and name[0] != "_"
    }
    elementwise = [name for name in vars(jnp) if isinstance(getattr(np, name, None), np.ufunc)]
    found |= {f"jax.numpy:{name}": getattr(jnp, name) for name in elementwise}
    # What an MLP does after its last layer unless told otherwise: a function that has no name to be
    # found by.
    straight = inspect.signature(eqx.nn.MLP.__init__).parameters["final_activation"].default
    return found | {"equinox.nn:MLP.final_activation": straight}


_FUNCTIONS = _functions()
_NAMES = {id(function): name for name, function in _FUNCTIONS.items()}


class _Refused(Exception):
    pass


def _name(thing: type) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _find(name: Any, base: type) -> Any:
    """The subclass of `base` with that name."""
    if type(name) is not str or name.count(":") != 1:
        raise _Refused("an unreadable name")
    module, path = _MOVED.get(name, name).split(":")
    module = _MOVED.get(module, module)
    if module not in sys.modules and module.startswith(("metaprior.", "optax.")):
        for home in _HOMES:
            importlib.import_module(home)
    if module not in sys.modules:
        raise _Refused(f"a class of {module!r}, which is not imported; import it first")
    found: Any = sys.modules[module]
    for part in path.split("."):
        # Not `getattr`, which runs what a lazy module or a descriptor does when it is looked at.
        found = inspect.getattr_static(found, part, None)
        if not issubclass(type(found), type):
            raise _Refused(f"the unknown name {name!r}")
    abstract = any(
        getattr(found, f"__abstract{what}__", ()) for what in ("methods", "vars", "classvars")
    )
    named = base is not tuple or type(inspect.getattr_static(found, "_fields", None)) is tuple
    if base not in found.__mro__ or abstract or not named:
        raise _Refused(f"{name!r}, which is no {'module' if base is eqx.Module else 'named tuple'}")
    return found


def _is_key(node: Any) -> bool:
    """Only what hashes by itself, without a class's own code."""
    if type(node) is tuple:
        return all(_is_key(item) for item in node)
    return node is None or type(node) in (bool, int, float, str)


def _encode(node: Any, arrays: list, depth: int = 0) -> Any:
    if depth > _DEPTH:
        raise InputError("a tree that is nested so deeply cannot be saved.")

    def each(items):
        return [_encode(item, arrays, depth + 1) for item in items]

    if isinstance(node, (np.ndarray, np.generic, jax.Array)) and not isinstance(
        node, (str, np.ma.MaskedArray)
    ):
        if str(node.dtype) not in _TYPES:
            raise InputError(f"an array of type {node.dtype} cannot be saved.")
        if len(arrays) == _MOST:
            raise InputError(f"a tree of more than {_MOST} arrays cannot be saved.")
        arrays.append(np.asarray(node))
        kind = (
            "jax"
            if isinstance(node, jax.Array)
            else "numpy"
            if isinstance(node, np.ndarray)
            else "scalar"
        )
        return {"array": str(node.dtype), "shape": list(node.shape), "kind": kind}
    if node is None or isinstance(node, (bool, str)):
        return node
    if type(node) is int and -(2**63) <= node < 2**64:
        return node
    if type(node) is float:
        return node if math.isfinite(node) else {"float": repr(node)}
    if isinstance(node, eqx.Module):
        _findable(type(node), eqx.Module)
        held = vars(node)
        return {
            "class": _name(type(node)),
            "fields": {
                f.name: each([held[f.name]])[0] for f in dataclasses.fields(node) if f.name in held
            },
        }
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        _findable(type(node), tuple)
        return {"named": _name(type(node)), "items": each(node)}
    if type(node) in (tuple, list):
        return {type(node).__name__: each(node)}
    if type(node) is dict and all(_is_key(key) for key in node):
        return {"dict": [each(pair) for pair in node.items()]}
    if id(node) in _NAMES:
        return {"function": _NAMES[id(node)]}
    what = (
        f"the function {node.__name__}"
        if inspect.isroutine(node)
        else f"a {type(node).__name__} of this kind"
    )
    raise InputError(f"{what} cannot be saved.")


def _findable(cls: type, base: type) -> None:
    """Better refused now than when the file is read."""
    try:
        found = _find(_name(cls), base)
    except _Refused:
        found = None
    if found is not cls:
        raise InputError(f"{_name(cls)} cannot be saved: no class is found by that name.")


class _Reader:
    """Builds a tree from its header, and its arrays from `data` as the header comes to them."""

    def __init__(self, data: bytes, at: int):
        self.data, self.at, self.count = data, at, 0
        self.loose = (
            0  # inside an optimiser's state: modules there hold `None` for what is not trained
        )

    def array(self, name: Any, shape: Any, kind: Any) -> Any:
        if name not in _TYPES or kind not in _KINDS or type(shape) is not list:
            raise _Refused("an unknown type of array")
        self.count += 1
        if self.count > _MOST:
            raise _Refused(f"more than {_MOST} arrays")
        if len(shape) > 64 or any(type(n) is not int or not 0 <= n < 2**63 for n in shape):
            raise _Refused("an impossible shape")
        dtype = np.dtype(name)
        size = dtype.itemsize * math.prod(shape)
        if size > len(self.data) - self.at or (kind == "scalar" and shape):
            raise _Refused("an impossible shape")
        array = np.ndarray(shape, dtype.newbyteorder("<"), self.data, self.at).astype(dtype)
        if name == "bool" and (array.view(np.uint8) > 1).any():
            raise _Refused("truth values other than 0 and 1")
        self.at += size
        # Not `jnp.asarray`, which compiles a program for each new shape.
        return jax.device_put(array) if kind == "jax" else array[()] if kind == "scalar" else array

    def module(self, name: Any, fields: Any, depth: int) -> eqx.Module:
        cls = _find(name, eqx.Module)
        known = {f.name for f in dataclasses.fields(cls)}
        if type(fields) is not dict or not set(fields) <= known:
            raise _Refused(f"fields of {name} that this version does not know")
        # A class attribute is a default, or a property that stands for the field.
        lacking = [f for f in known - set(fields) if inspect.getattr_static(cls, f, self) is self]
        if lacking:
            raise _Refused(f"{name} without its field {min(lacking)!r}")
        held = {field: self.tree(value, depth) for field, value in fields.items()}
        if not self.loose and (odd := odd_fields(cls, held)):
            raise _Refused(f"{name} with a {type(held[odd[0]]).__name__} as its field {odd[0]!r}")
        module = object.__new__(cls)
        vars(module).update(held)
        return module

    def items(self, nodes: Any, depth: int) -> list:
        if type(nodes) is not list:
            raise _Refused("an unreadable header")
        return [self.tree(node, depth) for node in nodes]

    def tree(self, node: Any, depth: int = 0) -> Any:
        if depth > _DEPTH:
            raise _Refused("a tree that is nested too deeply")
        if (
            node is None
            or type(node) in (bool, int, str)
            or (type(node) is float and math.isfinite(node))
        ):
            return node
        if type(node) is not dict:
            raise _Refused("an unreadable header")
        depth += 1
        match tuple(node), *node.values():
            case ("float",), str(name) if name in _FLOATS:
                return _FLOATS[name]
            case ("function",), str(name) if name in _FUNCTIONS:
                return _FUNCTIONS[name]
            case ("array", "shape", "kind"), *how:
                return self.array(*how)
            case ("class", "fields"), name, fields:
                return self.module(name, fields, depth)
            case ("named", "items"), name, nodes:
                self.loose += 1
                cls, items = _find(name, tuple), self.items(nodes, depth)
                self.loose -= 1
                if len(items) != len(cls._fields):
                    raise _Refused(f"{name!r} with {len(items)} items")
                return tuple.__new__(cls, items)  # not `cls(*items)`: nothing of the class runs
            case ("tuple",), nodes:
                return tuple(self.items(nodes, depth))
            case ("list",), nodes:
                return self.items(nodes, depth)
            case ("dict",), list(pairs) if all(
                type(pair) is list and len(pair) == 2 for pair in pairs
            ):
                decoded = [self.items(pair, depth) for pair in pairs]
                if not all(_is_key(key) for key, _ in decoded) or len(dict(decoded)) != len(
                    decoded
                ):
                    raise _Refused("unusable or repeated keys")
                return dict(decoded)
        raise _Refused(f"an unreadable header ({str(tuple(node))[:60]})")


def _integer(text: str) -> int:
    # The length first: reading a number of very many digits takes the square of their time.
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise _Refused("a number out of range")
    return int(text)


def _distinct(pairs: list) -> dict:
    if len(dict(pairs)) != len(pairs):
        raise _Refused("a name twice")
    return dict(pairs)


def _constant(text: str) -> None:
    raise _Refused(f"the number {text}")


def _write(path: Path, header: bytes, blobs: list[bytes]) -> None:
    parts = [
        len(header).to_bytes(8, "little"),
        sum(map(len, blobs)).to_bytes(8, "little"),
        header,
        *blobs,
    ]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.writelines([MAGIC, digest.digest(), *parts])
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def described(tree: Any) -> tuple[str, list[np.ndarray]]:
    """The header of a tree, and the arrays that it leaves out."""
    arrays: list[np.ndarray] = []
    return json.dumps(_encode(tree, arrays), allow_nan=False), arrays


def save(path: str | Path, tree: Any) -> None:
    """Write a tree of modules, containers, numbers, strings and arrays; the file appears whole or
    not at all.
    """
    header, arrays = described(tree)
    _write(
        Path(path),
        header.encode(),
        [a.astype(a.dtype.newbyteorder("<"), copy=False).tobytes() for a in arrays],
    )


def _checked(path: Path) -> tuple[bytes, int]:
    """The bytes of a whole and undamaged file, and its header's length."""
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    with path.open("rb") as file:
        first = file.read(len(MAGIC))
        if not MAGIC.startswith(first):
            if first.startswith(b"metaprior "):
                raise InputError(
                    f"{path}: written by another version of metaprior; this one reads format 2."
                )
            raise InputError(f"{path}: not a file that metaprior saved.")
        file.seek(0)
        data = file.read()
    size, rest = (int.from_bytes(data[at : at + 8], "little") for at in (_START - 16, _START - 8))
    if len(data) < _START + size + rest:
        raise InputError(f"{path}: the file is cut short or damaged.")
    if len(data) > _START + size + rest:
        raise InputError(f"{path}: the file is damaged, or something was appended to it.")
    if hashlib.sha256(memoryview(data)[len(MAGIC) + 32 :]).digest() != data[len(MAGIC) :][:32]:
        raise InputError(f"{path}: the file is damaged (its checksum does not match).")
    return data, size


def load(path: str | Path) -> Any:
    """Read what `save` wrote; anything else is an `InputError` that says what is wrong with the
    file.
    """
    path = Path(path)
    data, size = _checked(path)
    try:
        # Decoded here: `json` would guess an encoding.
        header = json.loads(
            data[_START : _START + size].decode("ascii"),
            parse_int=_integer,
            parse_constant=_constant,
            object_pairs_hook=_distinct,
        )
        reader = _Reader(data, _START + size)
        tree = reader.tree(header)
        if reader.at != len(data):
            raise _Refused("arrays that nothing uses")
        return tree
    except _Refused as error:
        raise InputError(f"{path}: refused: it holds {error}.") from None
    except Exception as error:  # whatever a crafted header makes Python, NumPy or JAX raise
        raise InputError(f"{path}: refused: it cannot be read ({type(error).__name__}).") from error
