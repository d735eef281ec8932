"""Keys that draw in one pass give JAX's own numbers."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from metaprior.system.draws import QUICK

DRAWS = {
    "bits": lambda key: jr.bits(key, (3, 5)),
    "bytes": lambda key: jr.bits(key, (7,), "uint8"),
    "uniform": lambda key: jr.uniform(key, (4, 3)),
    "normal": lambda key: jr.normal(key, (1000,)),
    "one": lambda key: jr.normal(key),
    "none": lambda key: jr.normal(key, (0, 2)),
    "integers": lambda key: jr.randint(key, (9,), 0, 100),
    "order": lambda key: jr.permutation(key, 20),
    "gamma": lambda key: jr.gamma(key, 2.0, (4,)),
    "categorical": lambda key: jr.categorical(key, jnp.zeros((6, 3))),
    "split": lambda key: jr.key_data(jr.split(key, (2, 3))),
    "folded": lambda key: jr.key_data(jr.fold_in(key, 7)),
    "a key each": lambda key: jax.vmap(lambda k: jr.normal(k, (4,)))(jr.split(key, 3)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_same_numbers_as_with_jaxs_key(name):
    data = jr.key_data(jr.key(5))
    quick = jax.jit(lambda d: DRAWS[name](jr.wrap_key_data(d, impl=QUICK)))(data)
    plain = jax.jit(lambda d: DRAWS[name](jr.wrap_key_data(d)))(data)
    np.testing.assert_array_equal(quick, plain)


def test_double_precision(x64):
    data = jr.key_data(jr.key(5))
    quick, plain = (jr.normal(jr.wrap_key_data(data, impl=i), (5,)) for i in (QUICK, None))
    np.testing.assert_array_equal(quick, plain)


def test_draws_take_no_loop():
    data = jr.key_data(jr.key(0))
    text = jax.jit(lambda d: jr.bits(jr.wrap_key_data(d, impl=QUICK), (100,))).lower(data).compile()
    text = text.as_text()
    assert " while(" not in text and text.count(" call(") == 1
