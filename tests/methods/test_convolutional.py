"""The convolutional neural process, and what a transformer one predicts with."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from metaprior import Data, Spec
from metaprior.heads import Categorical, Gaussian, MixtureDensity, StudentT
from metaprior.methods import CNP, METHODS, AutoregressiveMode, ConvCNP
from metaprior.testing import check_method, example_task

LITTLE: dict = dict(width=8, depth=2, points=64, spacing=0.125)


def params(method, support, x):
    found = method.posterior(support, key=jr.key(0)).predict(x, key=jr.key(0), samples=1)
    return found.parts[0].params[0]


@pytest.fixture(scope="module")
def method():
    return ConvCNP.init(Spec(1, Gaussian(1)), key=jr.key(0), **LITTLE)


def moved(data: Data, by: float) -> Data:
    return Data(data.x + by, data.y, data.mask)


def test_a_moved_task_gets_the_same_answer(method):
    task = example_task(jr.key(1), Gaussian(1), 1, 4)
    here = params(method, task.support, task.query.x)
    assert float(jnp.abs(here[1:] - here[:1]).max()) > 1e-3  # it depends on x
    np.testing.assert_allclose(
        params(method, moved(task.support, 16.0), task.query.x + 16.0), here, atol=1e-4
    )


def test_the_prior_is_the_same_everywhere(method):
    nothing = Data(jnp.asarray([[3.0]]), jnp.asarray([[9.0]]), jnp.zeros(1, bool))
    found = params(method, nothing, jnp.asarray([[-50.0], [0.0], [0.03], [1e4]]))
    np.testing.assert_allclose(found, jnp.broadcast_to(found[:1], found.shape), atol=1e-6)


@pytest.mark.quick("convcnp")
@pytest.mark.parametrize("name", ["tnp", "convcnp"])
def test_a_point_does_not_see_other_query_points(name):
    options = LITTLE if name == "convcnp" else dict(width=8, depth=2)
    method = METHODS[name].init(Spec(1, Gaussian(1)), key=jr.key(0), **options)
    task = example_task(jr.key(2), Gaussian(1), 1, 4)
    x = jnp.concatenate([task.query.x, jnp.asarray([[30.0]])])
    together = params(method, task.support, x)[:5]
    np.testing.assert_allclose(together, params(method, task.support, task.query.x), atol=1e-5)


def test_a_pooled_prediction_is_a_value_of_the_row():
    """It moves the answer, and not the grid."""
    method = ConvCNP.init(Spec(2, Gaussian(1), pooled=1), key=jr.key(0), **LITTLE)
    task = example_task(jr.key(3), Gaussian(1), 2, 4, pooled=1)
    here, by = params(method, task.support, task.query.x), jnp.asarray([16.0, 0.0])
    there = params(
        method,
        Data(task.support.x + by, task.support.y, task.support.mask),
        task.query.x + by,
    )
    np.testing.assert_allclose(there, here, atol=1e-4)
    other = params(method, task.support, task.query.x.at[:, 1].add(1.0))
    assert float(jnp.abs(other - here).max()) > 1e-3


@pytest.mark.slow
def test_the_contract_with_a_pooled_prediction():
    check_method(ConvCNP, x_dim=2, pooled=1, **LITTLE)


@pytest.mark.slow
def test_the_contract_of_two_outcomes():
    check_method(ConvCNP, head=Gaussian(2), x_dim=1, **LITTLE)


@pytest.mark.parametrize(
    "head,taken",
    [
        (Gaussian(2, floor=0.1), MixtureDensity(5, 2, floor=0.1)),
        (Gaussian(1, scale=0.5), Gaussian(1, scale=0.5)),
        (StudentT(1), StudentT(1)),
        (MixtureDensity(2), MixtureDensity(2)),
        (Categorical(3), Categorical(3)),
    ],
)
def test_a_mixture_stands_in_for_a_free_normal_alone(head, taken):
    found = METHODS["tnp"].init(Spec(1, head), key=jr.key(0), width=8, depth=1).head
    assert jax.tree.structure(found) == jax.tree.structure(taken) and type(found) is type(taken)
    assert type(CNP.init(Spec(1, head), key=jr.key(0), width=8, depth=1).head) is type(head)


@pytest.mark.quick("convcnp")
@pytest.mark.parametrize("name", ["tnp", "convcnp"])
def test_the_autoregressive_row_goes_around_others(name):
    options = LITTLE if name == "convcnp" else dict(width=8, depth=1)
    spec, key = Spec(1, Gaussian(1)), jr.key(0)
    around = METHODS["ar_cnp"].init(spec, key=key, base=name, **options)
    alone = METHODS[name].init(spec, key=key, **options)
    assert isinstance(around, AutoregressiveMode)
    assert eqx.tree_equal(around.base, alone)
    # a chain of marginals: one row alone has the base's own density, two rows another one together
    task = example_task(jr.key(4), Gaussian(1), 1, 4)
    two = Data(task.query.x[:2], task.query.y[:2], jnp.ones(2, bool))
    posterior = around.posterior(task.support, key=key)
    joint = posterior.joint_log_prob(two, key=key, samples=1)
    first = alone.posterior(task.support, key=key)
    each = first.predict(two.x, key=key, samples=1).log_prob(two.y)
    chains = []
    for a, b in ((0, 1), (1, 0)):
        seen = Data(
            jnp.concatenate([task.support.x, two.x[a : a + 1]]),
            jnp.concatenate([task.support.y, two.y[a : a + 1]]),
            jnp.concatenate([task.support.mask, jnp.ones(1, bool)]),
        )
        then = alone.posterior(seen, key=key).predict(two.x[b : b + 1], key=key, samples=1)
        chains.append(float(each[a] + then.log_prob(two.y[b : b + 1])[0]))
    assert min(abs(float(joint) - chain) for chain in chains) < 1e-4
