"""Whether a value is of the kind that an annotation says, for files that hold what they like."""

import functools
import types
import typing
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

_ARRAYS = (np.ndarray, np.generic, jax.Array)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except Exception:  # annotations whose names nobody finds: the class is taken as it is
        return {}


def odd_fields(cls: type, held: dict[str, Any]) -> list[str]:
    """Names of the fields of a module that do not hold what the class says."""
    return [name for name, value in held.items() if not fits(value, _hints(cls).get(name, Any))]


def fits(value: Any, hint: Any) -> bool:
    """Whether a value fits an annotation; every value fits one that is not understood.

    Members that were trained side by side hold arrays for numbers too, and half of a module that
    was parted (`eqx.partition`) holds `None` for arrays, numbers and functions.
    """
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inside)
    if origin is typing.Literal:
        return any(type(value) is type(one) and value == one for one in inside)
    if hint in (int, float, bool, jax.Array, np.ndarray) or hasattr(hint, "array_type"):
        plain = {bool: (bool,), int: (bool, int)}.get(hint, (bool, int, float))
        return value is None or isinstance(value, (*_ARRAYS, *plain))
    if origin is tuple and type(value) is tuple:
        if len(inside) == 2 and inside[1] is ...:
            return all(fits(item, inside[0]) for item in value)
        return len(value) == len(inside) and all(
            fits(item, one) for item, one in zip(value, inside)
        )
    if origin in (list, dict) and type(value) is origin:
        items = value if origin is list else [part for pair in value.items() for part in pair]
        return all(fits(item, inside[i % len(inside)]) for i, item in enumerate(items))
    if Callable in (origin, hint):
        return value is None or callable(value)
    if hint is types.NoneType:
        return value is None
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return isinstance(value, kind) and not odd_fields(kind, value._asdict())
    if kind in (list, dict, tuple, str) or (
        isinstance(kind, type) and issubclass(kind, eqx.Module)
    ):
        return isinstance(value, kind)
    return True
