"""Products of matrices whose derivatives are such products again.

JAX gives the derivative of `a @ b` in `b` as another product, transposed. XLA, on CPUs, takes the transpose into that product,
which then goes to a routine a third as fast as the one for rows with columns. The derivatives of the three products here are
those three, each with its result in the order that is needed. They take matrices, or as many of both along leading axes.
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


SUMMED = {"nn": (1, 0), "nt": (1, 1), "tn": (0, 0)}  # axis of each matrix
DERIVATIVES = {
    "nn": (lambda ct, a, b: nt(ct, b), lambda ct, a, b: tn(a, ct)),
    "nt": (lambda ct, a, b: nn(ct, b), lambda ct, a, b: tn(ct, a)),
    "tn": (lambda ct, a, b: nt(b, ct), lambda ct, a, b: nn(a, ct)),
}
PRODUCT = Primitive("matrix_product")


def _bind(a, b, form):
    """`dimension_numbers` follow from the form; they stand there as `dot_general` has them, for what counts operations."""
    kind = jnp.result_type(a, b)
    leading = tuple(range(a.ndim - 2))
    over = tuple((len(leading) + axis,) for axis in SUMMED[form])
    return PRODUCT.bind(a.astype(kind), b.astype(kind), form=form, dimension_numbers=(over, (leading, leading)))


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
