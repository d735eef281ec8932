"""Posteriors: how many functions they give, and which."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaprior import Data, Particles, Stacked
from metaprior.heads import Gaussian
from metaprior.protocols.raw import functions_at

COUNT = 5
X = jnp.ones((3, 1))


def times(w, x):
    return w * x


def particles(first: float = 0.0) -> Particles:
    return Particles(first + jnp.arange(1.0 * COUNT), times, Gaussian(1, scale=1.0))


def drawn(samples: int, seed: int = 0) -> np.ndarray:
    """Which particle each drawn function is."""
    mixture = particles().sample(X, key=jax.random.key(seed), samples=samples)
    (part,) = mixture.parts
    assert part.params.shape[0] == part.log_weight.shape[0] == samples
    assert not part.log_weight.any()
    mean = np.asarray(part.head.mean(part.params))
    assert (mean == mean[:, :1]).all()  # one function for all x
    return mean[:, 0, 0].astype(int)


@pytest.mark.parametrize("samples", [1, 2, 4, 5, 6, 10, 13])
def test_particles_give_as_many_functions_as_asked_for_each_equally_often(samples):
    often = np.bincount(drawn(samples), minlength=COUNT)
    assert often.sum() == samples
    assert often.max() - often.min() <= 1


def test_as_many_functions_as_particles_are_all_of_them_in_order():
    assert drawn(COUNT).tolist() == list(range(COUNT))


def test_the_key_alone_decides_which_particles_are_drawn():
    assert drawn(2, 3).tolist() == drawn(2, 3).tolist()
    seen = np.concatenate([drawn(1, seed) for seed in range(200)])
    often = np.bincount(seen, minlength=COUNT)
    assert often.min() > 20  # 40 each on average, with a standard deviation of 5.7


def test_predictive_and_joint_density_of_particles_use_all_of_them():
    data = Data.of(X, jnp.arange(3.0))
    for samples in (1, COUNT, 17):
        key = jax.random.key(samples)
        mean = particles().predict(X, key=key, samples=samples).mean()
        np.testing.assert_allclose(mean, jnp.full((3, 1), 2.0), rtol=1e-6)
        joint = particles().joint_log_prob(data, key=key, samples=samples)
        each = jnp.stack([jax.scipy.stats.norm.logpdf(data.y, i, 1.0).sum() for i in range(COUNT)])
        expected = jax.nn.logsumexp(each) - jnp.log(1.0 * COUNT)
        np.testing.assert_allclose(joint, expected, rtol=1e-5)


def test_protocols_judge_all_functions_where_they_are_few():
    both = Stacked(eqx.filter_vmap(particles)(jnp.asarray([0.0, 10.0])))
    for posterior, count in ((particles(), COUNT), (both, 2 * COUNT)):
        mixture = functions_at(posterior, X, key=jax.random.key(0), samples=3)
        assert sum(len(part.log_weight) for part in mixture.parts) == count
