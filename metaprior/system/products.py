"""Products of matrices whose derivatives are such products again.

JAX gives the derivative of `a @ b` in `b` as another product, transposed. XLA, on CPUs, takes the
transpose into that product, which then goes to a routine a third as fast as the one for rows with
columns. The derivatives of the three products here are those three, each with its result in the
order that is needed. They take matrices, or as many of both along leading axes.
"""

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float


def nn(a: Float[Array, "... n m"], b: Float[Array, "... m r"]) -> Float[Array, "... n r"]:
    """`a @ b`."""
    return _bind(a, b, "nn")


def nt(a: Float[Array, "... n m"], b: Float[Array, "... r m"]) -> Float[Array, "... n r"]:
    """`a` times the transpose of `b`."""
    return _bind(a, b, "nt")


def tn(a: Float[Array, "... m n"], b: Float[Array, "... m r"]) -> Float[Array, "... n r"]:
    """The transpose of `a` times `b`."""
    return _bind(a, b, "tn")


def column_sums(a: Float[Array, "... n r"]) -> Float[Array, "... r"]:
    """The sum of the rows of each matrix."""
    return SUMS.bind(a)


def plus_row(a: Float[Array, "n r"], row: Float[Array, " r"]) -> Float[Array, "n r"]:
    """`a + row`, whose derivative in `row` is `column_sums`."""
    return a + ROWS.bind(row, n=len(a))


SUMMED = {"nn": (1, 0), "nt": (1, 1), "tn": (0, 0)}  # axis of each matrix
DERIVATIVES = {
    "nn": (lambda ct, a, b: nt(ct, b), lambda ct, a, b: tn(a, ct)),
    "nt": (lambda ct, a, b: nn(ct, b), lambda ct, a, b: tn(ct, a)),
    "tn": (lambda ct, a, b: nt(b, ct), lambda ct, a, b: nn(a, ct)),
}
PRODUCT = Primitive("matrix_product")


def _bind(a, b, form):
    """`dimension_numbers` follow from the form; they stand there as `dot_general` has them, for
    what counts operations.
    """
    kind = jnp.result_type(a, b)
    leading = tuple(range(a.ndim - 2))
    over = tuple((len(leading) + axis,) for axis in SUMMED[form])
    return PRODUCT.bind(
        a.astype(kind), b.astype(kind), form=form, dimension_numbers=(over, (leading, leading))
    )


def _plain(a, b, *, form, dimension_numbers):
    return jax.lax.dot_general(a, b, dimension_numbers)


def _shape(a, b, *, form, dimension_numbers):
    rows, columns = (matrix.shape[-1 - axis] for matrix, axis in zip((a, b), SUMMED[form]))
    return a.update(shape=(*a.shape[:-2], rows, columns))


def _batched(arrays, axes, **params):
    if None in axes:  # what all share: one large product, in the form that JAX finds
        return jax.vmap(lambda a, b: _plain(a, b, **params), axes)(*arrays), 0
    return _bind(*(jnp.moveaxis(x, axis, 0) for x, axis in zip(arrays, axes)), params["form"]), 0


PRODUCT.def_impl(jax.jit(_plain, static_argnames=("form", "dimension_numbers")))
PRODUCT.def_abstract_eval(_shape)
mlir.register_lowering(PRODUCT, mlir.lower_fun(_plain, multiple_results=False))
batching.primitive_batchers[PRODUCT] = _batched
ad.defbilinear(
    PRODUCT,
    lambda ct, a, b, *, form, dimension_numbers: DERIVATIVES[form][0](ct, a, b),
    lambda ct, a, b, *, form, dimension_numbers: DERIVATIVES[form][1](ct, a, b),
)

SUMS, ROWS = Primitive("column_sums"), Primitive("rows_of_one")


def _sums(a):
    return a.sum(-2)


def _times_ones(a):
    """XLA hands sums of 4,096 numbers and more to a library that takes twice as long for many small
    matrices as a product of each with a row of ones.
    """
    if a.ndim == 2 or a.size < 4096 or a.dtype != jnp.float32:
        return _sums(a)
    batch, rows = tuple(range(a.ndim - 2)), (a.ndim - 2,)
    return jax.lax.dot_general(jnp.ones(a.shape[:-1], a.dtype), a, ((rows, rows), (batch, batch)))


def _rows(row, *, n):
    return jnp.broadcast_to(row[..., None, :], (*row.shape[:-1], n, row.shape[-1]))


SUMS.def_impl(jax.jit(_sums))
SUMS.def_abstract_eval(lambda a: a.update(shape=(*a.shape[:-2], a.shape[-1])))
mlir.register_lowering(SUMS, mlir.lower_fun(_sums, multiple_results=False))
mlir.register_lowering(SUMS, mlir.lower_fun(_times_ones, multiple_results=False), platform="cpu")
batching.primitive_batchers[SUMS] = lambda a, axis: (SUMS.bind(jnp.moveaxis(*a, *axis, 0)), 0)
ad.deflinear2(SUMS, lambda ct, a: [ROWS.bind(ct, n=a.aval.shape[-2])])

ROWS.def_impl(jax.jit(_rows, static_argnames="n"))
ROWS.def_abstract_eval(lambda row, *, n: row.update(shape=(*row.shape[:-1], n, row.shape[-1])))
mlir.register_lowering(ROWS, mlir.lower_fun(_rows, multiple_results=False))
batching.primitive_batchers[ROWS] = lambda row, axis, *, n: (
    ROWS.bind(jnp.moveaxis(*row, *axis, 0), n=n),
    0,
)
ad.deflinear2(ROWS, lambda ct, row, *, n: [SUMS.bind(ct)])
