"""Tasks drawn from a table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaprior.sources.table import Table, distinct


@pytest.mark.parametrize("count,most", [(5, 3), (5, 5), (4, 7), (1, 3)])
def test_every_order_of_distinct_numbers_is_as_likely(count, most):
    keys = jax.random.split(jax.random.key(0), 6000)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: distinct(key, count, most)))(keys))
    size = min(count, most)
    found = drawn[:, :size]
    assert (np.sort(found, axis=1)[:, 1:] > np.sort(found, axis=1)[:, :-1]).all()
    assert found.min() == 0 and found.max() == count - 1 and not drawn[:, size:].any()
    orders, times = np.unique(found, axis=0, return_counts=True)
    expected = len(keys) / np.prod(np.arange(count - size + 1, count + 1))
    assert len(orders) == round(len(keys) / expected)
    # Chi squared over its degrees of freedom: 1 on average, with a deviation of (2 / n)^1/2.
    freedom = max(len(orders) - 1, 1)
    assert ((times - expected) ** 2 / expected).sum() / freedom < 1 + 5 * (2 / freedom) ** 0.5


def test_a_large_group_costs_what_its_rows_cost():
    """The operations of a draw do not grow with the largest group."""

    def operations(count):
        table = Table(
            jnp.zeros((count + 1, 2)),
            jnp.zeros((count + 1, 1)),
            jnp.asarray([0, count]),
            jnp.asarray([count, 1]),
            jnp.arange(2),
            4,
            6,
        )
        program = jax.jit(lambda key: table(key)).lower(jax.random.key(0)).compile()
        return program.cost_analysis()["flops"]

    assert operations(50_000) == operations(50)


def test_the_rows_of_a_task_are_the_groups_own():
    rows = jnp.arange(30.0)[:, None]
    start, count = jnp.asarray([0, 12, 13]), jnp.asarray([12, 1, 17])
    table = Table(rows, -rows, start, count, jnp.arange(3), 4, 6)
    tasks = table.tasks([0, 1, 2], [4, 0, 2], key=jax.random.key(0))
    for i, (known, asked) in enumerate([(4, 6), (0, 1), (2, 6)]):
        parts = [tasks.support, tasks.query]
        seen = np.concatenate([np.asarray(p.x[i, :, 0])[np.asarray(p.mask[i])] for p in parts])
        assert [int(p.mask[i].sum()) for p in parts] == [known, asked]
        assert len(set(seen)) == len(seen) == known + asked
        assert (seen >= start[i]).all() and (seen < start[i] + count[i]).all()
        np.testing.assert_array_equal(parts[1].y[i], -parts[1].x[i])
