"""Floating-point operations of matrix products, counted in the traced program."""

from collections.abc import Callable
from math import prod
from typing import Any

import equinox as eqx
import jax


def count(call: Callable, *arguments: Any) -> float:
    """Multiplications and additions of all matrix products that one call makes.

    XLA's own cost analysis counts the body of a loop once, whatever its length; here a scan counts as often as it runs.
    A loop of unknown length counts once.
    """
    arrays, rest = eqx.partition(arguments, eqx.is_array)
    traced = jax.make_jaxpr(lambda a: call(*eqx.combine(a, rest)))(arrays)
    return _of(traced.jaxpr)


def _of(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contract, _), _ = equation.params["dimension_numbers"]
            inner = prod(equation.invars[0].aval.shape[i] for i in contract)
            total += 2.0 * inner * prod(equation.outvars[0].aval.shape)
            continue
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        inside = [_of(part) for part in _inside(equation.params.values())]
        # Of a condition's branches one runs: the dearest.
        total += times * (max(inside, default=0.0) if equation.primitive.name == "cond" else sum(inside))
    return total


def _inside(values: Any) -> list[Any]:
    """Programs among an equation's parameters."""
    found = []
    for value in values:
        if isinstance(value, (tuple, list)):
            found += _inside(value)
        elif hasattr(value, "jaxpr"):
            found.append(value.jaxpr)
        elif hasattr(value, "eqns"):
            found.append(value)
    return found
