"""Sources know their own answers: grids against brute force, oracles against published values."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw
from scipy.special import logsumexp

from metaprior.sources import GP, Harmonic, SineLine, Sinusoid
from metaprior.task import pad

ALPACA = Sinusoid(noise=0.02**0.5, fewest=0)
LINES = SineLine(fewest=0)


def shown(data, k):
    """The same rows, the first k of them in the mask."""
    return eqx.tree_at(lambda d: d.mask, data, jnp.arange(data.mask.shape[0]) < k)


def densities(posterior, query):
    marginal = posterior.predict(query.x, key=jax.random.key(0), samples=1).log_prob(query.y)
    return marginal, posterior.joint_log_prob(query, key=jax.random.key(0), samples=1)


def by_hand(source, data, cells=500):
    """log p(family, y of the rows shown), on a grid of `cells`² for each family.

    It is computed in double precision.
    """
    x, y = (np.asarray(a, np.float64)[np.asarray(data.mask)][:, 0] for a in (data.x, data.y))

    def middle(low, high):
        return low + (high - low) * (np.arange(cells) + 0.5) / cells

    families = [(source.amplitude, source.phase, lambda a, b, x: a * np.sin(x - b))]
    if isinstance(source, SineLine):
        families.append((source.slope, source.intercept, lambda a, b, x: a * x + b))
    found = []
    for one, two, f in families:
        a, b = middle(*one)[:, None], middle(*two)[None]
        log_p = -0.5 * sum(((f(a, b, u) - v) / source.noise) ** 2 for u, v in zip(x, y)) + 0 * a * b
        log_p = log_p - 0.5 * len(x) * np.log(2 * np.pi * source.noise**2)
        found.append(logsumexp(log_p) - 2 * np.log(cells) - np.log(len(families)))
    return np.array(found)


@eqx.filter_jit
def look(source, support, query):
    """What the exact posterior says.

    Probabilities of the families, marginal and joint densities, and each of 3 rows alone.
    """
    posterior, alone = source.exact(support), []
    for i in range(3):
        first = jax.tree.map(lambda a: jnp.roll(a, -i, 0), query)
        alone.append(densities(posterior, shown(first, 1))[1])
    return posterior.family(), *densities(posterior, query), jnp.stack(alone)


@pytest.mark.quick("sine")
@pytest.mark.parametrize("source", [LINES, ALPACA], ids=["sine or line", "sine"])
def test_grid_is_bayes_rule(source):
    """In single precision, with 10 query rows at once.

    And one row has the same density in joint and marginal.
    """
    for k in (0, 1, 2, 10):
        task = source(jax.random.key(k))
        support = shown(task.support, k)
        own = by_hand(source, support)
        both = by_hand(source, eqx.tree_at(lambda t: t.support, task, support).union)
        family, marginal, joint, alone = look(source, support, task.query)
        assert float(joint) == pytest.approx(logsumexp(both) - logsumexp(own), abs=0.01)
        np.testing.assert_allclose(family, np.exp(own - logsumexp(own)), atol=1e-3)
        np.testing.assert_allclose(marginal[:3], alone, atol=0.02)
        padded = look(source, pad(support, 15), task.query)
        np.testing.assert_allclose(padded[1], marginal, atol=1e-3)
        np.testing.assert_allclose(padded[2], joint, atol=1e-3)


def test_grid_draws_whole_functions(x64):
    @jax.jit
    def both(support, query):
        posterior = LINES.exact(support)
        drawn = posterior.sample(query.x, key=jax.random.key(1), samples=10_000)
        exact = posterior.predict(query.x, key=jax.random.key(1), samples=1)
        figures = [(m.mean(), m.variance(), m.epistemic()) for m in (drawn, exact)]
        few = shown(query, 2)  # a row more, and the draws would have to hit a rare function
        return (
            *figures,
            drawn.joint_log_prob(few),
            posterior.joint_log_prob(few, key=jax.random.key(1), samples=1),
        )

    task = LINES(jax.random.key(3))
    for k in (0, 2):
        drawn, exact, estimate, joint = both(shown(task.support, k), task.query)
        off = np.abs((drawn[0] - exact[0]) / np.sqrt(exact[1])).max()
        assert off < 0.04  # 4 standard errors: 4 / sqrt(10,000)
        np.testing.assert_allclose(drawn[1], exact[1], rtol=0.1)
        np.testing.assert_allclose(drawn[2], exact[2], rtol=0.1)
        assert float(estimate) == pytest.approx(float(joint), abs=0.2)


# What the exact posterior reaches: nll of a query row in nats, and for the families the probability
# of the true one. The figures are of 500 (first) and about 1,000 tasks; the bounds are 3.5 standard
# errors of the difference from ours, which have deviations of 0.65, 0.65, 0.65, 0.5, 0.32 and 0.26
# a task (0.44 at K = 0 for the sine waves).
SHOTS = (0, 1, 2, 3, 5, 10)
PUBLISHED = [
    (
        LINES,
        500,
        (2.589, 1.845, 1.004, 0.620, 0.454, 0.319),
        (0.5, 0.653, 0.836, 0.944, 0.985, 0.997),
    ),
    (ALPACA, 1000, (1.912, 1.119, 0.095, -0.167, -0.326, -0.442), None),
]


@pytest.mark.slow
@pytest.mark.parametrize("source,tasks,nll,p", PUBLISHED, ids=["sine or line", "sine"])
def test_grid_has_the_published_values(source, tasks, nll, p):
    ours = 300

    def one(pair):
        key, k = pair
        task = source(key)
        posterior = source.exact(shown(task.support, k))
        right = posterior.family()[source.family(key)] if p else jnp.zeros(())
        return densities(posterior, task.query)[0].mean(), right

    keys = jnp.tile(jax.random.split(jax.random.key(6), ours), len(SHOTS))
    run = jax.jit(lambda pairs: jax.lax.map(one, pairs, batch_size=20))
    found, right = (
        np.asarray(a).reshape(len(SHOTS), ours)
        for a in run((keys, jnp.repeat(jnp.asarray(SHOTS), ours)))
    )
    print("\n", -found.mean(1), right.mean(1))
    error = 3.5 * found.std(1) * (1 / ours + 1 / tasks) ** 0.5
    assert (np.abs(-found.mean(1) - np.array(nll)) < error).all(), (-found.mean(1), error)
    if p:
        error = 3.5 * right.std(1) * (1 / ours + 1 / tasks) ** 0.5 + 1e-3
        assert (np.abs(right.mean(1) - np.array(p)) < error).all(), (right.mean(1), error)


# The generators of Bruinsma et al., "Autoregressive Conditional Neural Processes", ICLR 2023 (noise
# variance 0.05, 0 to 30 support and 50 query rows): log density of a query row, jointly and
# marginally, from 4,000 tasks.
@pytest.mark.parametrize(
    "kernel,joint,marginal",
    [
        ("eq", -0.246, -0.657),
        pytest.param("matern52", -0.366, -0.775, marks=pytest.mark.slow),
        pytest.param("weakly periodic", -0.623, -0.999, marks=pytest.mark.slow),
    ],
)
def test_gp_of_the_neural_process_papers(kernel, joint, marginal):
    source = GP(kernel, noise=0.05**0.5, support=30)

    def one(key):
        task = source(key)
        each, together = densities(source.exact(task.support), task.query)
        return each.mean(), together / source.query

    each, together = jax.jit(lambda k: jax.lax.map(one, k, batch_size=50))(
        jax.random.split(jax.random.key(8), 1500)
    )
    print("\n", together.mean(), each.mean())
    assert float(together.mean()) == pytest.approx(joint, abs=0.02)
    # Ours has a standard error of 0.010, theirs 0.006.
    assert float(each.mean()) == pytest.approx(marginal, abs=0.02)


def test_harmonic_is_that_of_the_paper():
    """Predicting zero costs 4.255, which is E A² E sin² over the ranges.

    Noise is on the support alone, in proportion to A.
    """
    tasks = draw(Harmonic(fewest=1), jax.random.key(9), 4000)
    assert abs(float((tasks.query.y**2).mean()) - 4.255) < 0.25  # standard error 0.06
    quiet = draw(Harmonic(noise=0.0, fewest=1), jax.random.key(9), 4000)
    assert (tasks.query.y == quiet.query.y).all()
    noise = np.asarray(tasks.support.y - quiet.support.y)
    amplitude = np.abs(np.asarray(quiet.query.y)).max(1)[:, 0]
    assert noise.std() == pytest.approx(0.01 * (((5.0**3 - 0.1**3) / 3 / 4.9) ** 0.5), rel=0.05)
    assert np.corrcoef(np.abs(noise).mean((1, 2)), amplitude)[0, 1] > 0.5
    assert set(tasks.support.count.tolist()) == set(range(1, 11))


def test_a_sinusoid_without_noise_has_no_exact_posterior():
    with pytest.raises(ValueError, match="its noise is 0"):
        Sinusoid().exact(Sinusoid()(jax.random.key(0)).support)
