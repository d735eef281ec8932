"""NUTS as the reference: joint densities within their error, chains that speak for themselves."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from metaprior import Spec
from metaprior.heads import Gaussian
from metaprior.methods import NUTS
from metaprior.protocols.oracles.data import cases, held_out
from metaprior.protocols.oracles.judge import judge, of_chains, of_tasks, sentence_on_chains

LINEAR = dict(features="linear", noise_variance=0.09)


def known(x_dim: int) -> NUTS:
    """With the prior and the noise of the source `linear`."""
    learner = NUTS.init(Spec(x_dim, Gaussian(1)), key=jr.key(0), **LINEAR)
    prior = jnp.zeros_like(learner.base.mean), 0.3 * learner.base.root  # coefficients from N(0, 1)
    return eqx.tree_at(lambda m: (m.base.mean, m.base.root), learner, prior)


@pytest.mark.slow
def test_joint_densities_are_within_their_error():
    """Of the linear-Gaussian base's closed form, from no row to all; the tables tell the error."""
    case = cases()["linear"]._replace(shots=(0, 1, 5, "drawn"))
    learner, judged = known(case.x_dim), held_out(case, 10)
    found, _ = judge(learner, case, judged, 10.0)
    exact, _ = judge(learner.base, case, judged, 10.0)
    gap = found["joint"] - exact["joint"]
    z = gap / found["joint_error"]
    print(f"\njoint above the closed form {gap.mean(0)}, error {found['joint_error'].mean(0)}")
    assert np.abs(gap.mean(0)).max() < 0.02 and np.abs(gap).max() < 0.1
    assert (z**2).mean() ** 0.5 < 2
    assert np.abs(of_tasks(found) - of_tasks(exact))[..., 0].mean() < 0.03

    said = of_chains(found)
    assert said["rhat"] < 1.03 and said["ess"] > 200 and said["divergences"] < 1
    assert said["joint_error"] < 0.1 and of_chains(exact) == {}
    assert f"R-hat up to {said['rhat']:.3f}" in sentence_on_chains([said, {}])
    assert sentence_on_chains([{}]) == ""


@pytest.mark.slow
def test_a_joint_density_of_nothing_is_one():
    """And one of a single row is the marginal."""
    learner, task = known(2), cases()["linear"].source(jr.key(1))
    posterior = eqx.filter_jit(learner.posterior)(task.support, key=jr.key(2))
    look = eqx.filter_jit(posterior.joint)
    nothing = eqx.tree_at(lambda d: d.mask, task.query, jnp.zeros_like(task.query.mask))
    assert abs(look(nothing, key=jr.key(3)).value) < 1e-5
    single = eqx.tree_at(lambda d: d.mask, nothing, nothing.mask.at[0].set(True))
    value, error = look(single, key=jr.key(3))
    marginal = posterior.predict(single.x, key=jr.key(4), samples=1).log_prob(single.y)[0]
    assert abs(value - marginal) < 4 * error + 1e-4
