"""Operations and memory traffic of matrix products, counted in the traced program."""

from collections.abc import Callable
from math import prod
from typing import Any

import equinox as eqx
import jax


def count(call: Callable, *arguments: Any) -> float:
    """Multiplications and additions of all matrix products that one call makes.

    XLA's own cost analysis counts the body of a loop once, whatever its length; here a scan counts
    as often as it runs. A loop of unknown length counts once.
    """
    return _of(_traced(call, arguments), _operations)


def traffic(call: Callable, *arguments: Any) -> float:
    """Bytes of all matrix products of one call, each operand read and each result written once."""
    return _of(_traced(call, arguments), _bytes)


def _traced(call: Callable, arguments: tuple) -> Any:
    arrays, rest = eqx.partition(arguments, eqx.is_array)
    return jax.make_jaxpr(lambda a: call(*eqx.combine(a, rest)))(arrays).jaxpr


def _operations(product: Any) -> float:
    (contract, _), _ = product.params["dimension_numbers"]
    inner = prod(product.invars[0].aval.shape[i] for i in contract)
    return 2.0 * inner * prod(product.outvars[0].aval.shape)


def _bytes(product: Any) -> float:
    arrays = [array.aval for array in (*product.invars, *product.outvars)]
    return float(sum(prod(a.shape) * a.dtype.itemsize for a in arrays))


def _of(jaxpr: Any, cost: Callable[[Any], float]) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "matrix_product"):
            total += cost(equation)
            continue
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        inside = [_of(part, cost) for part in _inside(equation.params.values())]
        # Of a condition's branches one runs: the dearest.
        total += times * (
            max(inside, default=0.0) if equation.primitive.name == "cond" else sum(inside)
        )
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
