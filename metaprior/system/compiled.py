"""How our own programs are compiled.

With less effort where they run briefly, in parts where that is quicker, with products in full
float32. Importing this module changes nothing for other programs.
"""

import functools
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, TypeVar, cast

import equinox as eqx
import jax
from jax.experimental.xla_metadata import set_xla_metadata

Function = TypeVar("Function", bound=Callable[..., Any])


def effort() -> dict[str, Any]:
    """Options of `jax.jit` for what runs briefly.

    On CPUs that is LLVM's first level of optimisation, unless XLA_FLAGS says which.
    Such programs compile in half to two thirds of the time. Those of dense networks are as fast as
    with all of LLVM's work, but convolutions are not (ProtoNet with Conv4 trains a fifth more
    slowly), so that `fit` keeps to XLA's default.
    """
    chosen = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.default_backend() != "cpu":
        return {}
    return {"compiler_options": {"xla_backend_optimization_level": 1}}


def least_effort() -> dict[str, Any]:
    """Options of `jax.jit` for what runs once, on little data.

    On CPUs nothing is optimised: initial weights of a process compile in a seventh of XLA's own
    time, and what they compute takes milliseconds in any case.
    """
    options = effort()
    if options:
        options["compiler_options"]["xla_backend_optimization_level"] = 0
        if version("jaxlib").startswith("0.10."):  # XLA ends at an option that it does not know
            options["compiler_options"] |= {
                "xla_cpu_use_fusion_emitters": False,
                "xla_cpu_parallel_codegen_split_count": 1,
            }
    return options


def jit(function: Callable, options: Callable[[], dict[str, Any]] | None = None) -> Callable:
    """`eqx.filter_jit` with so much `effort`, or other options."""
    # At the first call: `effort` starts JAX.
    compiled = functools.cache(lambda: eqx.filter_jit(function, **(options or effort)()))

    @functools.wraps(function)
    @full_precision
    def call(*arguments: Any) -> Any:
        return compiled()(*arguments)

    return call


def apart(function: Callable) -> Callable:
    """`function`, on CPUs compiled as a program of its own inside the one that calls it.

    It takes arrays and modules. XLA computes what is elementwise anew in everything that reads it,
    and for the gradient of weights in transposed order: in a backward pass the chain of a
    normalisation, a pool and what a residual row adds up was computed several times. What goes into
    such a call and comes out of it lies in memory. With convolutions and normalisations apart, on
    one core, ProtoNet with Conv4 trains 1.6 times as fast, attention 1.2 and MAML with Conv4 1.1
    times. Small arrays gain nothing: with their layers apart MAML on sinusoids is a tenth slower.
    """

    def inner(*arguments: Any) -> Any:
        with set_xla_metadata(inlineable="true"):  # what is called inside belongs to it
            return function(*arguments)

    compiled = eqx.filter_jit(inner)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        if jax.default_backend() != "cpu":
            return function(*arguments)
        with set_xla_metadata(
            inlineable="false"
        ):  # XLA's own name for it, which it reads at every call
            return compiled(*arguments)

    return call


def full_precision(function: Function) -> Function:
    """`function` with matrix products in full float32, unless the user chose otherwise.

    GPUs and TPUs round the factors of a product to 10 or 7 bits by default. Covariance matrices do
    not survive that.
    """

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        chosen = jax.config.values["jax_default_matmul_precision"]
        with jax.default_matmul_precision(chosen or "highest"):
            return function(*arguments, **options)

    return cast(Function, call)
