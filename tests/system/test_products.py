"""Products whose derivatives are such products again."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from metaprior.system.products import column_sums, nn, nt, plus_row, tn

EQUATIONS = {nn: "...ij,...jk->...ik", nt: "...ij,...kj->...ik", tn: "...ji,...jk->...ik"}
SHAPES = {nn: ((9, 10), (10, 12)), nt: ((9, 10), (12, 10)), tn: ((10, 9), (10, 12))}
each = pytest.mark.parametrize("product", EQUATIONS, ids=lambda product: product.__name__)


def plain(product):
    return lambda a, b: jnp.einsum(EQUATIONS[product], a, b)


def pair(product, *leading):
    keys = jax.random.split(jax.random.key(0))
    return [jax.random.normal(key, (*leading, *shape)) for key, shape in zip(keys, SHAPES[product])]


def same(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected
    )


@each
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_products(product, leading, x64):
    a, b = pair(product, *leading)
    same([f(a, b) for f in (product, jax.jit(product))], 2 * [np.einsum(EQUATIONS[product], a, b)])


@each
def test_kinds_are_promoted(product, x64):
    a, b = pair(product)
    same(product(np.float32(a), b), np.einsum(EQUATIONS[product], np.float32(a), b))
    assert product(a.astype(int), b.astype(np.float32)).dtype == jnp.result_type(int, np.float32)


@each
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (2, 1)])
def test_batches_and_derivatives(product, axes, x64):
    """Backwards, forwards over backwards, and backwards twice, of a batch in which both, or one,
    are many.
    """
    a, b = (
        x if axis is None else jnp.moveaxis(x, 0, axis) for x, axis in zip(pair(product, 4), axes)
    )
    a, b = (x[0] if axis is None else x for x, axis in zip((a, b), axes))

    def everything(f):
        def loss(a, b):
            return jnp.sin(jax.vmap(f, axes, 1)(a, b)).sum()

        slope = jax.grad(loss, (0, 1))
        forwards = jax.jvp(slope, (a, b), (jnp.cos(a), jnp.cos(b)))
        return forwards, jax.grad(lambda a, b: sum((g**3).sum() for g in slope(a, b)), (0, 1))(a, b)

    same(everything(product), everything(plain(product)))


@each
def test_nothing_is_transposed_after_a_product(product):
    """But what is turned before it, behind a barrier (`metaprior.system.compiled`); JAX's own
    derivatives are transposed.
    """

    def transposed(f):
        slope = jax.grad(lambda a, b: jnp.sin(f(a, b)).sum(), (0, 1))

        def curved(a, b):
            return sum((g**3).sum() for g in slope(a, b))

        text = jax.jit(jax.vmap(jax.grad(curved, (0, 1)))).lower(*pair(product, 4)).as_text()
        return text.count("stablehlo.transpose") - len(
            re.findall(r"optimization_barrier .* : tensor<\d", text)
        )

    assert transposed(product) == 0 < transposed(plain(product))


@pytest.mark.parametrize(
    ("tasks", "rows", "columns"), [(3, 5, 4), (16, 32, 8), (2, 3, 700), (4, 0, 3)]
)
def test_a_row_is_added_and_summed_like_any_other(tasks, rows, columns, x64):
    """Values and derivatives, backwards, forwards and twice, for each task and with a row that all
    share.
    """
    a, row = (
        jax.random.normal(jax.random.key(i), s)
        for i, s in enumerate([(tasks, rows, columns), (tasks, columns)])
    )

    def both(add, total):
        def one(a, row):
            y = jnp.sin(add(a, row))
            return (jnp.cos(total(y)) * row).sum() + total(y).sum()

        def grad(a, row):
            return jax.grad(lambda a, row: jax.vmap(one)(a, row).sum(), (0, 1))(a, row)

        def shared(a, row):
            return jax.grad(lambda r: jax.vmap(one, (0, None))(a, r).sum())(row[0])

        def twice(a, row):
            return jax.grad(lambda r: (shared(a, r) ** 2).sum())(row)

        def forward(a, row):
            return jax.jvp(lambda r: jax.vmap(one)(a, r), (row,), (row,))

        return jax.jit(
            lambda a, row: (grad(a, row), shared(a, row), twice(a, row), forward(a, row))
        )

    ours = both(plus_row, column_sums)
    plain = both(lambda a, row: a + row, lambda a: a.sum(0))
    for x, y in zip(jax.tree.leaves(ours(a, row)), jax.tree.leaves(plain(a, row)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10)
    low = [x.astype(jnp.float32) for x in (a, row)]
    for x, y in zip(jax.tree.leaves(ours(*low)), jax.tree.leaves(plain(*low)), strict=True):
        np.testing.assert_allclose(
            x, y, rtol=1e-3, atol=1e-3 * (1 + float(jnp.abs(y).max(initial=0)))
        )


@pytest.mark.parametrize(
    ("shape", "product"), [((16, 32, 8), 1), ((15, 32, 8), 0), ((2, 8, 32, 8), 1), ((512, 8), 0)]
)
def test_many_large_sums_are_products_with_ones(shape, product):
    text = jax.jit(column_sums).lower(jnp.ones(shape)).as_text()
    assert text.count("dot_general") == product
    np.testing.assert_array_equal(
        column_sums(jnp.ones(shape)), jnp.full((*shape[:-2], shape[-1]), shape[-2])
    )
