"""What JAX is told to do otherwise. By importing this module: matrix products in full float32; on
CPUs, factorisations one matrix after another, random bits in one pass, and products of many small
matrices in the form that XLA computes fastest. Also on CPUs: to compile what runs briefly with less
effort, by `jit`; and to compute a part once, by `apart`.
"""

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

# XLA's CPU client (jaxlib 0.10) shares out the matrices of a batched factorisation among the
# threads of its pool, and whoever asked for it waits, in a thread of the same pool. Where as many
# factorisations run at once as there are threads, each waits for parts that stand behind the others
# in the queue, for ever: a dozen in one program are enough on two or three cores. A single matrix
# is factorised where the call is. So a batch is lowered to a loop over its matrices; what `vmap`
# and derivatives make of a factorisation is JAX's own, and other platforms keep theirs.
PRIMITIVES = ("cholesky", "triangular_solve", "lu", "eigh", "svd", "householder_product")


def _one_by_one(primitive, lower):
    """A lowering rule that gives `lower` single matrices only."""

    def loop(*arrays, **params):
        batch = arrays[0].shape[:-2]
        flat = [a.reshape(math.prod(batch), *a.shape[len(batch) :]) for a in arrays]
        found = jax.lax.map(lambda one: primitive.bind(*one, **params), flat)

        def whole(a):
            return a.reshape(*batch, *a.shape[1:])

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
            mlir.register_lowering(
                primitive, _one_by_one(primitive, rules[primitive].rule), platform="cpu"
            )
    except (
        AttributeError,
        KeyError,
    ):  # another JAX: with one thread nobody waits, and nothing is shared out
        os.environ.setdefault("PJRT_NPROC", "1")


def _random_bits_apart() -> None:
    """On CPUs JAX lowers its generator, for a short compile, to a loop that reads and writes the
    whole array five times, with a dozen copies each time; where its twenty rounds stand in the
    program itself, XLA repeats them in all that use them. Apart they are computed once, in one
    pass: the same bits, a step of ABML in a twelfth less time, and PLATIPUS compiles in three
    quarters of the time.
    """
    try:
        primitive = jax.extend.random.threefry2x32_p
        in_one_pass = mlir._lowerings[primitive].rule
    except (AttributeError, KeyError):  # another JAX: as it does it
        return
    rounds = Primitive("threefry2x32_in_one_pass")
    rounds.multiple_results = True
    rounds.def_abstract_eval(
        lambda *words: [
            w.update(shape=jnp.broadcast_shapes(*(v.shape for v in words))) for w in words[2:]
        ]
    )
    mlir.register_lowering(rounds, in_one_pass)
    mlir.register_lowering(
        primitive, mlir.lower_fun(apart(rounds.bind), multiple_results=True), platform="cpu"
    )


def _products() -> None:
    """Products of many small matrices, on CPUs: the same numbers in a form that XLA computes
    faster.

    It brings every product into the form of a batch of matrices, rows with columns. What stands
    otherwise is turned round in memory before, together with everything elementwise that leads to
    it, which is computed again in that order. The forms below need none of that;
    docs/performance.md says what each brought.
    """
    product = jax.lax.dot_general_p
    try:
        rule = mlir._platform_specific_lowerings["cpu"][product].rule
    except (AttributeError, KeyError):  # another JAX: as it does it
        return

    def lower(ctx, a, b, *, dimension_numbers, **params):
        other = _form(*dimension_numbers, *ctx.avals_in)
        if other is None:
            return rule(ctx, a, b, dimension_numbers=dimension_numbers, **params)
        call = functools.partial(
            other, functools.partial(product.bind, **params), *dimension_numbers
        )
        return mlir.lower_fun(call, multiple_results=False)(ctx, a, b)

    mlir.register_lowering(product, lower, platform="cpu")


def _form(over, batch, a, b) -> Callable | None:
    """What to make of a product `over` some axes of `a` and some of `b`; `None` as it is."""
    if not a.dtype == b.dtype == jnp.float32:
        return None
    if len(over[0]) > 1:
        free = [_free(x, *axes) for x, *axes in zip((a, b), over, batch)]
        entries = math.prod(x.shape[axis] for x, axes in zip((a, b), free) for axis in axes)
        if entries >= 256**2:  # it would be slower
            return None
        between = any(axes and min(axes) < max(summed) for axes, summed in zip(free, over))
        return _summed_after if between and not batch[0] else _over_one_axis
    if not batch[0]:

        def inside(array, axes):
            return axes and 0 < axes[0] < array.ndim - 1

        def small(x, y, axes):
            return x.ndim == 2 and inside(y, axes) and x.size <= math.prod(y.shape[axes[0] :])

        return _matrix_for_each if small(a, b, over[1]) or small(b, a, over[0]) else None
    leading, rows = tuple(range(a.ndim - 2)), (a.ndim - 2,)

    def same(pair, axes):
        return tuple(map(tuple, pair)) == (axes, axes)

    own = a.ndim == b.ndim > 2 and same(batch, leading) and same(over, rows)
    # With few columns or many rows there is nothing to gain.
    return _turned if own and min(a.shape[-1], b.shape[-1]) >= 8 and a.shape[-2] <= 100 else None


def _free(array, over, batch) -> list[int]:
    """The axes that a product keeps, beside those of the batch."""
    return [axis for axis in range(array.ndim) if axis not in over and axis not in batch]


def _turned(bind, over, batch, a, b):
    """The gradient of every task's own weights, a sum over few rows: `(…, n, r)` and `(…, n, d)`
    over `n`. XLA has a routine for it that is three times as slow as the one for products of rows
    with columns.
    """
    a = _untiled(jax.lax.optimization_barrier(jnp.swapaxes(a, -1, -2)))  # or XLA takes it back
    return _untiled(bind(a, b, dimension_numbers=(((a.ndim - 1,), (b.ndim - 2,)), batch)))


def _untiled(array):
    """`array`, times a one that XLA does not know. What only turns and adds arrays, as the sum of
    such gradients does, it computes in tiles with sides of powers of two, for 40 columns in twice
    the time; with a number in it in a plain loop.
    """
    return array * jax.lax.optimization_barrier(jnp.ones((), array.dtype))


def _over_one_axis(bind, over, batch, a, b):
    """The gradient of weights that tasks share, `(t, n, r)` and `(t, n, d)` over `t` and `n`: over
    one axis, which is the same memory.
    """

    def flat(array, over, batch):
        free = _free(array, over, batch)

        def shape(axes):
            return [array.shape[axis] for axis in axes]

        return array.transpose(*batch, *over, *free).reshape(
            *shape(batch), math.prod(shape(over)), *shape(free)
        )

    axes = tuple(range(len(batch[0])))
    row = (len(axes),)
    return bind(*map(flat, (a, b), over, batch), dimension_numbers=((row, row), (axes, axes)))


def _summed_after(bind, over, batch, a, b):
    """The gradient of a kernel that tasks share, `(t, p, d)` and `(t, q, d)` over `t` and `d`: for
    each `t`, then their sum.
    """
    first, rest = zip(*((axes[:1], axes[1:]) for axes in over))
    return bind(a, b, dimension_numbers=(rest, first)).sum(0)


def _matrix_for_each(bind, over, batch, a, b):
    """A kernel that tasks share times what belongs to the particles of each, `(q, p)` and `(t, p,
    d)`, in either order: a product for each `t`.
    """
    (i,), (j,) = over
    every = tuple(range(j if a.ndim == 2 else i))
    if a.ndim > 2:
        b = jnp.broadcast_to(b, (*a.shape[:i], *b.shape))
        return bind(a, b, dimension_numbers=(((i,), (i + j,)), (every, every)))
    a = jnp.broadcast_to(a, (*b.shape[:j], *a.shape))
    return jnp.moveaxis(bind(a, b, dimension_numbers=(((j + i,), (j,)), (every, every))), j, 0)


def effort() -> dict[str, Any]:
    """Options of `jax.jit` for what runs briefly: on CPUs LLVM's first level of optimisation,
    unless XLA_FLAGS says which.

    Such programs compile in half to two thirds of the time. Those of dense networks are as fast as
    with all of LLVM's work, but convolutions are not (ProtoNet with Conv4 trains a fifth more
    slowly), so that `fit` keeps to XLA's default.
    """
    chosen = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.default_backend() != "cpu":
        return {}
    return {"compiler_options": {"xla_backend_optimization_level": 1}}


def jit(function: Callable) -> Callable:
    """`eqx.filter_jit` with so much `effort`."""
    compiled = functools.cache(
        lambda: eqx.filter_jit(function, **effort())
    )  # at the first call: `effort` starts JAX

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return compiled()(*arguments)

    return call


def apart(function: Callable) -> Callable:
    """`function` of arrays and modules, on CPUs compiled as a program of its own inside the one
    that calls it.

    XLA computes what is elementwise anew in everything that reads it, and for the gradient of
    weights in transposed order: in a backward pass the chain of a normalisation, a pool and what a
    residual row adds up was computed several times. What goes into such a call and comes out of it
    lies in memory. With convolutions and normalisations apart, on one core, ProtoNet with Conv4
    trains 1.6 times as fast, attention 1.2 and MAML with Conv4 1.1 times. Small arrays gain
    nothing: with their layers apart MAML on sinusoids is a tenth slower.
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


def _full_products() -> None:
    """GPUs and TPUs round the factors of a product to 10 or 7 bits by default; covariance matrices
    do not survive that. What the user has chosen stays.
    """
    if getattr(jax.config, "jax_default_matmul_precision", None) is None:
        jax.config.update("jax_default_matmul_precision", "highest")


_full_products()
_one_matrix_after_another()
_random_bits_apart()
_products()
