"""Trees as headers of JSON and arrays: modules, containers, numbers, strings and functions.

`encode` writes down a tree; `Reader` builds it again, and refuses what `encode` does not write. A
node of a header is

- `null`, a truth value, a whole number, a finite number or a string: itself,
- `{"float": "nan"}` (or `inf`, `-inf`): a number that JSON does not have,
- `{"array": type, "shape": [...], "kind": ...}`: the next of the arrays, which follow the header,
- `{"function": name}`: one of `names.FUNCTIONS`,
- `{"class": name, "fields": {...}}`: a module,
- `{"named": name, "items": [...]}`: a named tuple,
- `{"tuple": [...]}`, `{"list": [...]}`, `{"dict": [[key, value], ...]}`: a container.
"""

import dataclasses
import inspect
import math
from typing import Any

import equinox as eqx
import jax
import numpy as np

from metaprior.errors import InputError
from metaprior.system.annotations import odd_fields
from metaprior.system.names import (
    FUNCTIONS,
    Refused,
    find_class,
    is_findable,
    name_of,
    name_of_function,
)

# Containers in containers: far below Python's limit on recursion, far above real trees.
DEPTH = 100
# Arrays: an empty one takes a few bytes of a file, but a kilobyte of JAX's memory.
MOST = 100_000
TYPES = ("float32", "float64", "int32", "int64", "uint32", "uint8", "bool")
KINDS = ("jax", "numpy", "scalar")
FLOATS = {repr(number): number for number in (math.nan, math.inf, -math.inf)}


def _is_key(node: Any) -> bool:
    """Whether a node can be a key: it hashes by itself, without a class's own code."""
    if type(node) is tuple:
        return all(_is_key(item) for item in node)
    return node is None or type(node) in (bool, int, float, str)


def _is_array(node: Any) -> bool:
    """Whether a node is an array or a number of NumPy's, and has bytes to be saved."""
    if isinstance(node, (str, np.ma.MaskedArray)):  # a text of NumPy's is a string, too
        return False
    return isinstance(node, (np.ndarray, np.generic, jax.Array))


def encode(node: Any, arrays: list, depth: int = 0) -> Any:
    """The header of a tree.

    Args:
        node: the tree.
        arrays: its arrays are appended here, in the order in which the header names them.
        depth: how many containers are around it.

    Raises:
        InputError: it holds something that cannot be saved.
    """
    if depth > DEPTH:
        raise InputError("a tree that is nested so deeply cannot be saved.")

    def each(items):
        return [encode(item, arrays, depth + 1) for item in items]

    if _is_array(node):
        return _encode_array(node, arrays)
    if node is None or isinstance(node, (bool, str)):
        return node
    if type(node) is int and -(2**63) <= node < 2**64:
        return node
    if type(node) is float:
        return node if math.isfinite(node) else {"float": repr(node)}
    if isinstance(node, eqx.Module):
        _check_findable(type(node), eqx.Module)
        held = vars(node)
        names = [field.name for field in dataclasses.fields(node) if field.name in held]
        values = each([held[name] for name in names])
        return {"class": name_of(type(node)), "fields": dict(zip(names, values, strict=True))}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        _check_findable(type(node), tuple)
        return {"named": name_of(type(node)), "items": each(node)}
    if type(node) in (tuple, list):
        return {type(node).__name__: each(node)}
    if type(node) is dict and all(_is_key(key) for key in node):
        return {"dict": [each(pair) for pair in node.items()]}
    if (name := name_of_function(node)) is not None:
        return {"function": name}
    if inspect.isroutine(node):
        raise InputError(f"the function {node.__name__} cannot be saved.")
    raise InputError(f"a {type(node).__name__} of this kind cannot be saved.")


def _encode_array(node: Any, arrays: list) -> dict[str, Any]:
    if str(node.dtype) not in TYPES:
        raise InputError(f"an array of type {node.dtype} cannot be saved.")
    if len(arrays) == MOST:
        raise InputError(f"a tree of more than {MOST} arrays cannot be saved.")
    arrays.append(np.asarray(node))
    kind = "scalar"
    if isinstance(node, jax.Array):
        kind = "jax"
    elif isinstance(node, np.ndarray):
        kind = "numpy"
    return {"array": str(node.dtype), "shape": list(node.shape), "kind": kind}


def _check_findable(cls: type, base: type) -> None:
    # It is better to refuse it now than when the file is read.
    if not is_findable(cls, base):
        raise InputError(f"{name_of(cls)} cannot be saved: no class is found by that name.")


def _converted(cls: type[eqx.Module], held: dict[str, Any]) -> dict[str, Any]:
    """What a module's own converters make of values that do not fit its fields.

    Such values come from older versions: 0.1.0 held the rate of an inner loop as a bare number,
    array or tree. Equinox keeps the converter of a field in its metadata.
    """
    odd, found = odd_fields(cls, held), {}
    for field in dataclasses.fields(cls):
        converter = field.metadata.get("converter")
        if converter is not None and field.name in odd:
            found[field.name] = converter(held[field.name])
    return found


class Reader:
    """Builds a tree from its header, and its arrays in the order in which the header names them.

    The header can be anything that JSON can hold: whoever made the file may mean harm. Only what
    `encode` writes is built, no class's own code runs, and sizes are checked before memory is
    taken.
    """

    def __init__(self, data: bytes, at: int):
        self.data = data  # a file
        self.at = at  # where the next array starts in it
        self.count = 0  # arrays so far
        # How many optimiser's states are around: modules in them hold `None` for what is not
        # trained.
        self.loose = 0

    def array(self, name: Any, shape: Any, kind: Any) -> Any:
        """The next array of the file."""
        if name not in TYPES or kind not in KINDS or type(shape) is not list:
            raise Refused("an unknown type of array")
        self.count += 1
        if self.count > MOST:
            raise Refused(f"more than {MOST} arrays")
        if len(shape) > 64 or any(type(n) is not int or not 0 <= n < 2**63 for n in shape):
            raise Refused("an impossible shape")
        dtype = np.dtype(name)
        size = dtype.itemsize * math.prod(shape)
        if size > len(self.data) - self.at or (kind == "scalar" and shape):
            raise Refused("an impossible shape")
        array = np.ndarray(shape, dtype.newbyteorder("<"), self.data, self.at).astype(dtype)
        if name == "bool" and (array.view(np.uint8) > 1).any():
            raise Refused("truth values other than 0 and 1")
        self.at += size
        if kind == "jax":
            return jax.device_put(array)  # not `jnp.asarray`, which compiles for each new shape
        return array[()] if kind == "scalar" else array

    def module(self, name: Any, fields: Any, depth: int) -> eqx.Module:
        """A module with those fields; its `__init__` does not run."""
        cls = find_class(name, eqx.Module)
        known = {f.name for f in dataclasses.fields(cls)}
        if type(fields) is not dict or not set(fields) <= known:
            raise Refused(f"fields of {name} that this version does not know")
        # A field may be left out where the class has an attribute of that name: its default, or a
        # property that stands for it.
        nothing = object()
        lacking = [
            field
            for field in known - set(fields)
            if inspect.getattr_static(cls, field, nothing) is nothing
        ]
        if lacking:
            raise Refused(f"{name} without its field {min(lacking)!r}")
        held = {field: self.tree(value, depth) for field, value in fields.items()}
        held |= _converted(cls, held)
        if not self.loose and (odd := odd_fields(cls, held)):
            raise Refused(f"{name} with a {type(held[odd[0]]).__name__} as its field {odd[0]!r}")
        module = object.__new__(cls)
        vars(module).update(held)
        return module

    def items(self, nodes: Any, depth: int) -> list:
        """The nodes of a list, each as a tree."""
        if type(nodes) is not list:
            raise Refused("an unreadable header")
        return [self.tree(node, depth) for node in nodes]

    def tree(self, node: Any, depth: int = 0) -> Any:
        """What a node of the header stands for."""
        if depth > DEPTH:
            raise Refused("a tree that is nested too deeply")
        if node is None or type(node) in (bool, int, str):
            return node
        if type(node) is float and math.isfinite(node):
            return node
        if type(node) is not dict:
            raise Refused("an unreadable header")
        depth += 1
        match tuple(node), *node.values():
            case ("float",), str(name) if name in FLOATS:
                return FLOATS[name]
            case ("function",), str(name) if name in FUNCTIONS:
                return FUNCTIONS[name]
            case ("array", "shape", "kind"), *how:
                return self.array(*how)
            case ("class", "fields"), name, fields:
                return self.module(name, fields, depth)
            case ("named", "items"), name, nodes:
                return self.named(name, nodes, depth)
            case ("tuple",), nodes:
                return tuple(self.items(nodes, depth))
            case ("list",), nodes:
                return self.items(nodes, depth)
            case ("dict",), list(pairs):
                return self.dictionary(pairs, depth)
        raise Refused(f"an unreadable header ({str(tuple(node))[:60]})")

    def named(self, name: Any, nodes: Any, depth: int) -> Any:
        """A named tuple, such as an optimiser's state."""
        self.loose += 1
        cls, items = find_class(name, tuple), self.items(nodes, depth)
        self.loose -= 1
        if len(items) != len(cls._fields):
            raise Refused(f"{name!r} with {len(items)} items")
        return tuple.__new__(cls, items)  # not `cls(*items)`: nothing of the class runs

    def dictionary(self, pairs: list, depth: int) -> dict:
        """A dictionary of pairs of a key and a value."""
        if any(type(pair) is not list or len(pair) != 2 for pair in pairs):
            raise Refused("an unreadable header ('dict')")
        items = [self.items(pair, depth) for pair in pairs]
        # Only once the keys are known to be plain may they be hashed.
        if not all(_is_key(key) for key, _ in items) or len(dict(items)) != len(items):
            raise Refused("unusable or repeated keys")
        return dict(items)
