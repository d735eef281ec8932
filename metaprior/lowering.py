"""What JAX is told to do otherwise. By importing this module: matrix products in full float32; on CPUs, factorisations one
matrix after another, random bits in one pass, and sums of outer products as products of rows. Also on CPUs: to compile
what runs briefly with less effort, by `jit`; and to compute a part of a network once, by `apart`."""

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.extend.random
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import mlir

# XLA's CPU client (jaxlib 0.10) shares out the matrices of a batched factorisation among the threads of its pool, and
# whoever asked for it waits, in a thread of the same pool. Where as many factorisations run at once as there are threads,
# each waits for parts that stand behind the others in the queue, for ever: a dozen in one program are enough on two or
# three cores. A single matrix is factorised where the call is. So a batch is lowered to a loop over its matrices; what
# `vmap` and derivatives make of a factorisation is JAX's own, and other platforms keep theirs.
PRIMITIVES = ("cholesky", "triangular_solve", "lu", "eigh", "svd", "householder_product")


def _one_by_one(primitive, lower):
    """A lowering rule that gives `lower` single matrices only."""

    def loop(*arrays, **params):
        batch = arrays[0].shape[:-2]
        flat = [a.reshape(math.prod(batch), *a.shape[len(batch) :]) for a in arrays]
        found = jax.lax.map(lambda one: primitive.bind(*one, **params), flat)
        whole = lambda a: a.reshape(*batch, *a.shape[1:])
        return [whole(a) for a in found] if primitive.multiple_results else whole(found)

    looped = mlir.lower_fun(loop, multiple_results=primitive.multiple_results)

    def rule(ctx, *arrays, **params):
        single = math.prod(ctx.avals_in[0].shape[:-2]) == 1
        return (lower if single else looped)(ctx, *arrays, **params)

    return rule


def _one_matrix_after_another() -> None:
    try:
        rules = mlir._platform_specific_lowerings["cpu"]
        for name in PRIMITIVES:
            primitive = getattr(jax.lax.linalg, f"{name}_p")
            mlir.register_lowering(primitive, _one_by_one(primitive, rules[primitive].rule), platform="cpu")
    except (AttributeError, KeyError):  # another JAX: with one thread nobody waits, and nothing is shared out
        os.environ.setdefault("PJRT_NPROC", "1")


def _random_bits_apart() -> None:
    """On CPUs JAX lowers its generator, for a short compile, to a loop that reads and writes the whole array five times, with
    a dozen copies each time; where its twenty rounds stand in the program itself, XLA repeats them in all that use them.
    Apart they are computed once, in one pass: the same bits, a step of ABML in a twelfth less time, and PLATIPUS compiles
    in three quarters of the time.
    """
    try:
        primitive = jax.extend.random.threefry2x32_p
        in_one_pass = mlir._lowerings[primitive].rule
    except (AttributeError, KeyError):  # another JAX: as it does it
        return
    rounds = Primitive("threefry2x32_in_one_pass")
    rounds.multiple_results = True
    rounds.def_abstract_eval(
        lambda *words: [w.update(shape=jnp.broadcast_shapes(*(v.shape for v in words))) for w in words[2:]]
    )
    mlir.register_lowering(rounds, in_one_pass)
    mlir.register_lowering(primitive, mlir.lower_fun(apart(rounds.bind), multiple_results=True), platform="cpu")


def _sums_of_outer_products() -> None:
    """Gradients of weights are products over the rows of two arrays, sums of outer products, and XLA on CPUs does not take
    all of them the quick way.

    The gradient of the weights of each of many tasks goes to a routine that is three times as slow as the one for products
    of rows with columns. With the first array turned round before, which costs little, MAML with 5 steps and ensembles
    train a tenth faster. That of weights which tasks share is over tasks and rows: for two axes XLA turns both arrays
    round, and computes what led to them again in that order. With one axis instead, which is the same memory, MAML with a
    step, BMAML and ensembles train an eighth faster; from 256 columns on it is slower.
    """
    product = jax.lax.dot_general_p
    try:
        rule = mlir._platform_specific_lowerings["cpu"][product].rule
    except (AttributeError, KeyError):  # another JAX: as it does it
        return

    def turned(a, b, *, dimension_numbers, **params):
        _, batch = dimension_numbers
        a = jax.lax.optimization_barrier(jnp.swapaxes(a, -1, -2))  # or XLA takes it back
        return product.bind(a, b, dimension_numbers=(((a.ndim - 1,), (b.ndim - 2,)), batch), **params)

    def over_one_axis(a, b, *, dimension_numbers, **params):
        flat = [_one_axis(array, *axes) for array, *axes in zip((a, b), *dimension_numbers)]
        batch = tuple(range(len(dimension_numbers[1][0])))
        over = (len(batch),)
        return product.bind(*flat, dimension_numbers=((over, over), (batch, batch)), **params)

    def lower(ctx, a, b, *, dimension_numbers, **params):
        given = dimension_numbers, *ctx.avals_in
        other = over_one_axis if _sums_over_axes(*given) else turned if _sums_outer_products(*given) else None
        call = mlir.lower_fun(other, multiple_results=False) if other else rule
        return call(ctx, a, b, dimension_numbers=dimension_numbers, **params)

    mlir.register_lowering(product, lower, platform="cpu")


def _free(array, over, batch) -> list[int]:
    """The axes of a product's operand that its result has beside those of the batch."""
    return [axis for axis in range(array.ndim) if axis not in over and axis not in batch]


def _one_axis(array, over, batch):
    """The axes of the batch first, those `over` which is summed as one, then the others."""
    free = _free(array, over, batch)
    shape = lambda axes: [array.shape[axis] for axis in axes]
    return array.transpose(*batch, *over, *free).reshape(*shape(batch), math.prod(shape(over)), *shape(free))


def _sums_over_axes(dimension_numbers, a, b) -> bool:
    """Of matrices of less than 256 by 256, over more than one axis."""
    entries = math.prod(x.shape[axis] for x, *axes in zip((a, b), *dimension_numbers) for axis in _free(x, *axes))
    return len(dimension_numbers[0][0]) > 1 and a.dtype == b.dtype == jnp.float32 and entries < 256**2


def _sums_outer_products(dimension_numbers, a, b) -> bool:
    """Of a batch of matrices `(…, n, r)` and `(…, n, d)`, over `n`; with few columns or many rows there is nothing to gain."""
    (over_a, over_b), batch = dimension_numbers
    leading = tuple(range(a.ndim - 2))
    return (
        a.ndim == b.ndim > 2
        and all(tuple(dims) == leading for dims in batch)
        and (tuple(over_a), tuple(over_b)) == ((a.ndim - 2,), (b.ndim - 2,))
        and a.dtype == b.dtype == jnp.float32
        and min(a.shape[-1], b.shape[-1]) >= 8
        and a.shape[-2] <= 100
    )


def effort() -> dict[str, Any]:
    """Options of `jax.jit` for what runs briefly: on CPUs LLVM's first level of optimisation, unless XLA_FLAGS says which.

    Such programs compile in half to two thirds of the time. Those of dense networks are as fast as with all of LLVM's work,
    but convolutions are not (ProtoNet with Conv4 trains a fifth more slowly), so that `fit` keeps to XLA's default.
    """
    chosen = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.default_backend() != "cpu":
        return {}
    return {"compiler_options": {"xla_backend_optimization_level": 1}}


def jit(function: Callable) -> Callable:
    """`eqx.filter_jit` with so much `effort`."""
    compiled = functools.cache(lambda: eqx.filter_jit(function, **effort()))  # at the first call: `effort` starts JAX

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return compiled()(*arguments)

    return call


def apart(function: Callable) -> Callable:
    """`function` of arrays and modules, on CPUs compiled as a program of its own inside the one that calls it.

    XLA computes what is elementwise anew in everything that reads it, and for the gradient of weights in transposed order:
    in a backward pass the chain of a normalisation, a pool and what a residual row adds up was computed several times. What
    goes into such a call and comes out of it lies in memory. With convolutions and normalisations apart, on one core,
    ProtoNet with Conv4 trains 1.6 times as fast, attention 1.2 and MAML with Conv4 1.1 times. Small arrays gain nothing:
    with their layers apart MAML on sinusoids is a tenth slower.
    """

    def inner(*arguments: Any) -> Any:
        with set_xla_metadata(inlineable="true"):  # what is called inside belongs to it
            return function(*arguments)

    compiled = eqx.filter_jit(inner)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        if jax.default_backend() != "cpu":
            return function(*arguments)
        with set_xla_metadata(inlineable="false"):  # XLA's own name for it, which it reads at every call
            return compiled(*arguments)

    return call


def _full_products() -> None:
    """GPUs and TPUs round the factors of a product to 10 or 7 bits by default; covariance matrices do not survive that. What
    the user has chosen stays.
    """
    if getattr(jax.config, "jax_default_matmul_precision", None) is None:
        jax.config.update("jax_default_matmul_precision", "highest")


_full_products()
_one_matrix_after_another()
_random_bits_apart()
_sums_of_outer_products()
