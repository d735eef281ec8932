"""Saving and loading: modules as a JSON header and raw arrays, never pickle.

Layout: the line `metaprior 1`, eight bytes with the header's length (little endian), the JSON header,
then the arrays' bytes. The header holds the tree of modules, the arrays' types, shapes and places, and a
SHA-256 of the arrays. Reading checks all of it before it allocates, and builds only classes of metaprior,
equinox and optax, and modules that the program has already imported.
"""

import dataclasses
import hashlib
import importlib
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metaprior.errors import InputError

MAGIC = b"metaprior 1\n"
_TYPES = {"float32", "float64", "int32", "int64", "uint32", "uint8", "bool"}
_OURS = ("metaprior.", "equinox.", "optax.", "jax.")
# What an MLP does after its last layer unless told otherwise: a function that has no name to be found by.
_STRAIGHT = inspect.signature(eqx.nn.MLP.__init__).parameters["final_activation"].default


class _Refused(Exception):
    pass


def _name(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _encode(node: Any, arrays: list) -> Any:
    if node is None or isinstance(node, (bool, str)):
        return node
    if isinstance(node, (int, float)) and not isinstance(node, np.generic):
        return node if np.isfinite(node) else {"float": repr(node)}
    if isinstance(node, (np.ndarray, np.generic, jax.Array)):
        array = np.asarray(node)
        if str(array.dtype) not in _TYPES:
            raise InputError(f"an array of type {array.dtype} cannot be saved.")
        arrays.append(array)
        return {"array": len(arrays) - 1, "jax": isinstance(node, jax.Array)}
    if isinstance(node, eqx.Module):
        fields = [f.name for f in dataclasses.fields(node) if f.name in node.__dict__]
        return {"class": _name(type(node)), "fields": {f: _encode(getattr(node, f), arrays) for f in fields}}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return {"named": _name(type(node)), "items": [_encode(item, arrays) for item in node]}
    if isinstance(node, (tuple, list)):
        return {type(node).__name__: [_encode(item, arrays) for item in node]}
    if isinstance(node, dict):
        return {"dict": [[_encode(k, arrays), _encode(v, arrays)] for k, v in node.items()]}
    if callable(node) and hasattr(node, "__module__") and hasattr(node, "__qualname__"):
        return {"function": _name(node)}
    raise InputError(f"a {type(node).__name__} cannot be saved.")


def _find(name: Any) -> Any:
    """The class or function of that name, from our own libraries or from what is already imported."""
    if not isinstance(name, str) or name.count(":") != 1:
        raise _Refused("an unreadable name")
    module, path = name.split(":")
    if module.startswith(_OURS):
        try:
            found = importlib.import_module(module)
        except ImportError:
            raise _Refused(f"the unknown module {module}") from None
    elif module in sys.modules:
        found = sys.modules[module]
    else:
        raise _Refused(f"a class of {module}, which is not imported; import it first")
    for part in path.split("."):
        found = getattr(found, part, None)
        if found is None or isinstance(found, type(sys)):
            raise _Refused(f"the unknown name {name}")
    return found


def _decode(node: Any, arrays: list) -> Any:
    if node is None or isinstance(node, (bool, str, int, float)):
        return node
    if not isinstance(node, dict):
        raise _Refused("an unreadable header")
    if "float" in node:
        return float(node["float"])
    if "array" in node:
        array = arrays[node["array"]]
        return jnp.asarray(array) if node["jax"] else array
    if "class" in node:
        cls = _find(node["class"])
        if not (isinstance(cls, type) and issubclass(cls, eqx.Module)):
            raise _Refused(f"{node['class']}, which is no module")
        names = {f.name for f in dataclasses.fields(cls)}
        if not set(node["fields"]) <= names:
            raise _Refused(f"fields of {node['class']} that this version does not know")
        module = object.__new__(cls)
        for name, value in node["fields"].items():
            object.__setattr__(module, name, _decode(value, arrays))
        return module
    if "named" in node:
        cls = _find(node["named"])
        if not (isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")):
            raise _Refused(f"{node['named']}, which is no named tuple")
        return cls(*[_decode(item, arrays) for item in node["items"]])
    if "tuple" in node:
        return tuple(_decode(item, arrays) for item in node["tuple"])
    if "list" in node:
        return [_decode(item, arrays) for item in node["list"]]
    if "dict" in node:
        return {_decode(k, arrays): _decode(v, arrays) for k, v in node["dict"]}
    if "function" in node:
        if node["function"] == _name(_STRAIGHT):
            return _STRAIGHT
        module = str(node["function"]).split(":")[0]
        function = _find(node["function"]) if module.startswith(("jax.", "equinox.", "metaprior.")) else None
        if not callable(function) or isinstance(function, type):
            raise _Refused(f"the function {node['function']}")
        return function
    raise _Refused("an unreadable header")


def save(path: str | Path, tree: Any) -> None:
    """Write a tree of modules, containers, numbers, strings and arrays; the file appears whole or not at all."""
    path, arrays = Path(path), []
    encoded = _encode(tree, arrays)
    blobs = [np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<"), copy=False).tobytes() for a in arrays]
    digest = hashlib.sha256()
    for blob in blobs:
        digest.update(blob)
    index = [[str(a.dtype), list(a.shape)] for a in arrays]
    header = json.dumps({"tree": encoded, "arrays": index, "sha256": digest.hexdigest()}).encode()
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(MAGIC + len(header).to_bytes(8, "little") + header)
            for blob in blobs:
                file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: str | Path) -> Any:
    """Read what `save` wrote; anything else is an `InputError` that says what is wrong with the file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    data = path.read_bytes()
    start = len(MAGIC) + 8
    if not data.startswith(b"metaprior "):
        raise InputError(f"{path}: not a file that metaprior saved.")
    if not data.startswith(MAGIC):
        raise InputError(f"{path}: written by another version of metaprior; this one reads format 1.")
    size = int.from_bytes(data[len(MAGIC) : start], "little")
    if size > len(data) - start:
        raise InputError(f"{path}: the file is cut short.")
    try:
        header = json.loads(data[start : start + size])
        arrays, at = [], start + size
        shapes = [(np.dtype(t), [int(n) for n in shape]) for t, shape in header["arrays"] if t in _TYPES]
        total = sum(t.itemsize * int(np.prod(s, dtype=object)) for t, s in shapes)
        if len(shapes) != len(header["arrays"]) or any(n < 0 for _, s in shapes for n in s):
            raise _Refused("unknown array types")
        if total != len(data) - at:
            raise InputError(f"{path}: the file is cut short or has something appended.")
        if hashlib.sha256(data[at:]).hexdigest() != header["sha256"]:
            raise InputError(f"{path}: the file is damaged (its checksum does not match).")
        for dtype, shape in shapes:
            count = int(np.prod(shape, dtype=object))
            arrays.append(np.frombuffer(data, dtype.newbyteorder("<"), count, at).astype(dtype).reshape(shape))
            at += count * dtype.itemsize
        return _decode(header["tree"], arrays)
    except _Refused as error:
        raise InputError(f"{path}: refused: it names {error}.") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: the file is damaged ({type(error).__name__}).") from None
