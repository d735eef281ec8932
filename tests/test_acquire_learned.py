"""Learning active learning: features of candidates, and how much their outcomes lower the loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from metaprior.acquire_learned import FEATURES, cut, features, looked, losses, parted
from metaprior.method import AbstractLearner
from metaprior.sources import GP
from metaprior.task import Data


class Exact(AbstractLearner):
    """The exact posterior of a Gaussian process."""

    source: GP

    def posterior(self, support, *, key):
        return self.source.exact(support)


@eqx.filter_jit
def simulated(source, number):
    """Drops at two candidates of a task, and by how much the variance falls at its query."""
    learner = Exact(source)

    def one(key):
        task_key, part_key, look_key = jr.split(key, 3)
        task = source(task_key)
        seen, pool = parted(task.query, 4, key=part_key)
        args = {"key": look_key, "few": 1}
        _, drop, _ = looked(learner, seen, pool, pool, by="error", **args)
        again = looked(learner, seen, pool, pool, by="nll", **args)
        # The row that was looked at is told by its features: the same key, the same row.
        rows = features(
            source.exact(seen).predict(pool.x, key=key, samples=1), pool.x, pool.mask, seen
        )
        row = jnp.argmin(jnp.abs(rows - again[0][0]).sum(1) + jnp.where(pool.mask, 0.0, 1e9))
        after = seen.put(seen.count, pool.x[row], pool.y[row])

        def variance(data):
            said = source.exact(data).predict(pool.x, key=key, samples=1)
            return pool.mean(said.variance()[:, 0]), pool.mean(losses(said, pool.y, "nll"))

        (wide, before), (narrow, later) = variance(seen), variance(after)
        return drop[0], wide - narrow, again[1][0] - (before - later)

    return jax.vmap(one)(jr.split(jr.key(number), 400))


def test_drops_are_on_average_what_the_exact_posterior_expects():
    """The squared error falls by as much as the variance, in the mean over tasks; and each drop is
    the difference of the losses before and after.
    """
    drop, expected, off = map(np.asarray, simulated(GP(), 0))
    gap = drop - expected
    assert abs(gap.mean()) < 3.5 * gap.std() / 20 and expected.mean() > 4 * gap.std() / 20
    np.testing.assert_allclose(off, 0.0, atol=2e-4)


@pytest.mark.quick("3")
@pytest.mark.parametrize("count", [0, 3])
def test_features_do_not_see_padding(count):
    """Nor the order of rows; without an observed row all is finite."""
    source, key = GP(), jr.key(1)
    x = jr.normal(key, (6, 1))
    seen = Data.of(jr.normal(jr.key(2), (4, 1)), jnp.arange(4.0)).first(count)
    said = source.exact(seen)

    def found(x, real):
        return features(said.predict(x, key=key, samples=1), x, real, seen)

    plain = found(x, jnp.ones(6, bool))
    assert plain.shape == (6, len(FEATURES)) and bool(jnp.isfinite(plain).all())
    wide = found(jnp.pad(x[::-1], [(0, 3), (0, 0)]), jnp.arange(9) < 6)[:6][::-1]
    np.testing.assert_allclose(wide, plain, rtol=1e-4, atol=1e-5)
    assert plain[0, FEATURES.index("observed")] == count


def test_a_pool_is_cut_into_observed_rows_and_candidates():
    """Every row of the mask is one or the other; at least one is a candidate."""
    pool = Data(jnp.arange(7.0)[:, None], jnp.zeros((7, 1)), jnp.arange(7) < 5)
    counts = set()
    for i in range(40):
        seen, left = parted(pool, 9, key=jr.key(i))
        rows = [np.asarray(part.x[part.mask, 0]) for part in (seen, left)]
        assert sorted(np.concatenate(rows)) == [0, 1, 2, 3, 4] and seen.mask.shape == (9,)
        counts.add(len(rows[0]))
    assert counts == {0, 1, 2, 3, 4}
    seen, left = cut(pool, jnp.array([3, 1, 0, 2, 4, 5, 6]), jnp.asarray(2), 3)
    assert seen.x[seen.mask, 0].tolist() == [3, 1] and left.x[left.mask, 0].tolist() == [0, 2, 4]
