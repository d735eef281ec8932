"""The products of our own are those of JAX, with all that `vmap` and derivatives make of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaprior.system.products import nn, nt, tn


def turned(a):
    return jnp.swapaxes(a, -1, -2)


FORMS = {
    "nn": (nn, lambda a, b: a @ b, (5, 9), (9, 10)),
    "nt": (nt, lambda a, b: a @ turned(b), (5, 9), (10, 9)),
    "tn": (tn, lambda a, b: turned(a) @ b, (5, 9), (5, 10)),
}
# Axes that an inner and an outer `vmap` run over, of either factor; `None`: all share it.
INNER = [(0, 2), (2, None), (None, 0)]
OUTER = [(0, 0), (0, None), (None, 0)]


def factor(shape, axes, seed):
    """A matrix with the axes that `axes`, inner first, run over."""
    shape = list(shape)
    for axis, size in zip(axes, (3, 4)):
        if axis is not None:
            shape.insert(axis, size)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def second_order(product, inner, outer):
    """Value and gradient of what descends along a gradient, as training does."""

    def loss(a, b):
        each = jax.vmap(lambda a, b: jnp.sin(product(a, b)), inner)
        return jnp.cos(jax.vmap(each, outer)(a, b)).mean()

    def after(a, b):
        steps = jax.grad(loss, (0, 1))(a, b)
        return loss(a - steps[0], b - steps[1])

    return jax.value_and_grad(after, (0, 1))


@pytest.mark.parametrize("form", FORMS)
def test_products_and_derivatives_are_those_of_jax(form):
    ours, plain, left, right = FORMS[form]
    cases = list(itertools.product(INNER, OUTER))
    factors = [(factor(left, (i[0], o[0]), 0), factor(right, (i[1], o[1]), 1)) for i, o in cases]

    # One program for all cases, as compiling takes nearly all of the time.
    def all_of(product):
        return jax.jit(lambda pairs: [second_order(product, *c)(*p) for c, p in zip(cases, pairs)])

    found, wanted = all_of(ours)(factors), all_of(plain)(factors)
    for case, a, b in zip(cases, found, wanted):
        for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6, err_msg=str(case))
