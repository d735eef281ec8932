"""The references. NUTS: joint densities within their error, chains that speak for themselves. The
control without meta-learning: any units.
"""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from metaprior import Spec
from metaprior.heads import Gaussian, StudentT
from metaprior.methods import BNN, NUTS
from metaprior.protocols.cell import scales_of
from metaprior.protocols.oracles.data import cases, held_out
from metaprior.protocols.oracles.judge import judge, of_chains, of_tasks, score, sentence_on_chains
from metaprior.sources.exact import Known
from metaprior.task import Data

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


@pytest.mark.parametrize("head", [Gaussian(1), StudentT(1)])
def test_the_control_is_the_same_in_any_unit(head):
    """Inputs a hundred times and outcomes a thousand times as large, and the scales with them."""
    x, y = jr.normal(jr.key(0), (2, 6, 1))

    def said(a, b):
        spec, key = Spec(1, head), jr.key(1)
        bnn = BNN.init(spec, key=key, width=4, steps=40, samples=2, x_scale=a, y_scale=b)
        posterior = bnn.posterior(Data.of(a * x[:4], b * y[:4]), key=jr.key(2))
        found = posterior.predict(a * x[4:], key=jr.key(3), samples=20)
        return found.mean() / b, jnp.sqrt(found.variance()) / b

    # Softplus is no scale: a noise that is free within a factor of 1.6 is not quite the same.
    for one, other in zip(said(1.0, 1.0), said(100.0, 1000.0)):
        np.testing.assert_allclose(one, other, rtol=0.25, atol=0.1)


@pytest.mark.slow
def test_the_control_does_not_blow_up():
    """One row of a sine wave or a line: a median of 1.0 nats above exact; the mean was 153."""
    case = cases()["sineline"]._replace(shots=(1,))
    judged = held_out(case, 20)
    options = scales_of("bnn", case.source)
    assert options["y_scale"] == pytest.approx(3.6, rel=0.2)
    bnn = BNN.init(Spec(1, case.head), key=jr.key(0), **options)
    gap = score(bnn, case, judged, 5.0)[0] - score(Known(case.source), case, judged, 5.0)[0]
    print(f"\nbnn, K = 1: median {np.median(gap[:, 0, 0]):.2f} above exact")
    assert np.median(gap[:, 0, 0]) < 1.5 and gap[:, 0, 0].mean() < 10.0
