"""PACOH and F-PACOH: exact identities, closed forms, and what the hyper-priors are for."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

from metaprior import Data, Spec
from metaprior.heads import Categorical, Gaussian, StudentT
from metaprior.infer.functional import FunctionPrior, kl_normal
from metaprior.infer.svgd import bandwidth, direction
from metaprior.methods import METHODS, PACOH, Process
from metaprior.methods.pacoh import WeightPrior
from metaprior.sources import CauchyMixture, Table
from metaprior.task import Task, pad, split
from metaprior.testing import check_method, example_task
from metaprior.training import fit

GP = dict(kernel="rbf", width=4, features=2)


def arrays(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))


def looked(method, task):
    """The loss, and its gradient in all arrays of θ."""
    found = eqx.filter_value_and_grad(lambda m: m.loss(task, key=jr.key(3)))
    value, gradient = eqx.filter_jit(found)(method)
    return value, gradient.theta


def slope(function, at):
    """Its gradient, compiled: operation by operation it takes ten times as long."""
    return eqx.filter_jit(eqx.filter_grad(function))(at)


def made(tasks=20, **options):
    spec = Spec(2, StudentT(1), tasks=tasks)
    return eqx.filter_jit(lambda key: PACOH.init(spec, key=key, **GP | options))(jr.key(0))


@pytest.fixture
def task():
    return jax.jit(lambda key: example_task(key, StudentT(1), 2, 4))(jr.key(5))


# --- the objective


@pytest.mark.parametrize("tasks", [None, 20])
def test_gp_map_is_the_evidence_with_pacohs_weight_and_a_normal_hyperprior(x64, task, tasks):
    """√T times -c log Z, c = 1 / (√(T m) + 1), and the hyper-prior over √T."""
    pacoh = made(tasks)
    process, m = pacoh.theta, int(task.union.count)
    total = 1e12 if tasks is None else tasks
    weight = total**0.5 / ((total * m) ** 0.5 + 1)

    def want(theta):
        evidence = -m * theta.loss(task, key=jr.key(0))
        return -weight * evidence - pacoh.hyperprior.log_prob(theta) / total**0.5

    value, found = looked(pacoh, task)
    for a, b in zip(arrays(found), arrays(slope(want, process)), strict=True):
        assert_allclose(a, b, rtol=1e-5, atol=1e-5 if tasks is None else 1e-9)
    # The value is that of the rows alone.
    alone = looked(made(tasks, hyper_std=1e9), task)[0]
    assert_allclose(value, alone, rtol=1e-9)


def test_with_a_flat_hyperprior_the_gradient_is_that_of_the_evidence(x64, task):
    """For every T, up to a constant: with c = 1 it is m times what `process` descends on."""
    pacoh = made(20, hyper_std=1e9)
    evidence = slope(lambda p: p.loss(task, key=jr.key(0)), pacoh.theta)
    m, total = float(task.union.count), 20
    scale = m * total**0.5 / ((total * m) ** 0.5 + 1)
    for a, b in zip(arrays(looked(pacoh, task)[1]), arrays(evidence), strict=True):
        assert_allclose(a, scale * b, rtol=1e-9, atol=1e-12)


def test_the_hyperprior_is_around_zero_for_networks_and_the_start_for_the_rest():
    pacoh = made(kernel="structured")
    start, centre = pacoh.theta, pacoh.hyperprior.mean
    assert float(centre.log_df) == float(start.log_df)
    deep = centre.kernels[-1]
    assert not any(a.any() for a in arrays(deep.net))
    assert float(deep.kernel.log_std) == float(start.kernels[-1].kernel.log_std)
    spec = Spec(1, Gaussian(1))
    weights = PACOH.init(spec, family="nn", std=0.3, key=jr.key(0)).hyperprior.mean
    assert not any(a.any() for a in arrays(weights.prior.mean))
    assert all(jnp.allclose(a, jnp.log(0.3)) for a in arrays(weights.prior.log_std))


def test_one_particle_is_the_most_probable(x64, task):
    one, best = made(q="svgd", members=1), made()
    stacked = jax.tree.map(lambda a: a[None] if eqx.is_array(a) else a, best.theta)
    one = eqx.tree_at(lambda p: p.theta, one, stacked)
    (value, found), (want, gradient) = looked(one, task), looked(best, task)
    assert_allclose(value, want, rtol=1e-9)
    for a, b in zip(arrays(found), arrays(gradient), strict=True):
        assert_allclose(a[0], b, rtol=1e-9, atol=1e-12)


def test_particles_move_along_steins_direction(x64, task):
    pacoh = made(q="svgd", members=3)
    moving, fixed = eqx.partition(pacoh.theta, eqx.is_inexact_array)
    s, m = 20**-0.5, float(task.union.count)

    def score(w):
        def log_q(w):
            theta = eqx.combine(w, fixed)
            evidence = -m * theta.loss(task, key=jr.key(0))
            return evidence / (m**0.5 + s) + s * pacoh.hyperprior.log_prob(theta)

        return jax.grad(log_q)(w)

    @jax.jit
    def along(moving):
        return direction(moving, jax.vmap(score)(moving), bandwidth(moving), s)

    for a, b in zip(arrays(looked(pacoh, task)[1]), arrays(along(moving)), strict=True):
        assert_allclose(-a, b, rtol=1e-8, atol=1e-10)


def test_variational_hyperposterior_without_spread_is_the_most_probable(x64, task):
    vi = made(q="vi", members=2, spread=1e-9)
    found, best = looked(vi, task)[1], looked(made(), task)[1]
    for a, b in zip(arrays(found.mean), arrays(best), strict=True):
        assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    # The entropy alone widens it, less what the hyper-prior's curvature takes back: 1 - (σ / s)².
    for a in arrays(found.log_std):
        assert_allclose(a, -(20**-0.5), rtol=1e-4)


# --- networks


def test_the_evidence_of_a_network_is_the_mean_over_draws(x64):
    """Of one linear unit the mean of exp(√m · mean log p) is an integral over its weights."""
    prior = WeightPrior.init(
        Spec(1, Gaussian(1, scale=0.5)), width=1, depth=0, draws=40_000, std=0.6, key=jr.key(0)
    )
    x, y = np.array([-1.0, 0.5, 2.0]), np.array([0.2, 0.1, -0.3])
    task = split(Data.of(x, y), 1)
    layer = prior.prior.mean.layers[0]
    mean = np.array([float(layer.weight[0, 0]), float(layer.bias[0])])

    def density(b, a):
        each = stats.norm.logpdf(y, a * x + b, 0.5).mean()
        return np.exp(3**0.5 * each) * stats.norm.pdf([a, b], mean, 0.6).prod()

    (a, b), wide = mean, 4.0
    total = integrate.dblquad(density, a - wide, a + wide, b - wide, b + wide)
    # The error of 40,000 draws is less than 1 %.
    assert_allclose(-3 * prior.loss(task, key=jr.key(1)), np.log(total[0]), atol=0.02)


@pytest.mark.slow
def test_networks_adapt_to_the_exact_posterior():
    """One linear layer has a normal posterior in closed form; SVGD and NUTS come to it."""
    x, y = jnp.array([[-1.0], [0.5], [2.0]]), jnp.array([0.9, 0.4, -1.3])
    phi = jnp.concatenate([x, jnp.ones_like(x)], 1)
    for adaptation, options in (("svgd", dict(particles=30, steps=1500)), ("nuts", {})):
        spec = Spec(1, Gaussian(1, scale=0.5))
        options = dict(width=1, depth=0, std=1.0, adaptation=adaptation) | options
        prior = WeightPrior.init(spec, key=jr.key(0), **options)
        layer = prior.prior.mean.layers[0]
        mean = jnp.array([layer.weight[0, 0], layer.bias[0]])
        cov = jnp.linalg.inv(jnp.eye(2) + phi.T @ phi / 0.25)
        exact = mean + cov @ phi.T @ (y - phi @ mean) / 0.25
        posterior = prior.posterior(Data.of(x, y), key=jr.key(1))
        predicted = posterior.predict(x, key=jr.key(2), samples=1)
        assert_allclose(predicted.mean()[:, 0], phi @ exact, atol=0.05)
        inside = jnp.sqrt(jnp.diag(phi @ cov @ phi.T))
        spread = jnp.sqrt(predicted.epistemic()[:, 0])
        assert_allclose(spread, inside, rtol=0.15)


# --- the functional hyper-prior


def test_kl_of_normals_against_scipy_and_draws(x64):
    rng = np.random.default_rng(0)
    a, b = (m @ m.T + np.eye(4) for m in rng.normal(size=(2, 4, 4)))
    mean, other = rng.normal(size=(2, 4))
    kl = jax.jit(kl_normal)
    found = kl(mean, a, other, b)
    inverse = np.linalg.inv(b)
    want = np.trace(inverse @ a) + (other - mean) @ inverse @ (other - mean) - 4
    want = 0.5 * (want + np.linalg.slogdet(b)[1] - np.linalg.slogdet(a)[1])
    assert_allclose(found, want, rtol=1e-10)
    p, q = stats.multivariate_normal(mean, a), stats.multivariate_normal(other, b)
    x = p.rvs(100_000, random_state=0)
    gaps = p.logpdf(x) - q.logpdf(x)
    assert abs(gaps.mean() - found) < 4 * gaps.std() / len(x) ** 0.5
    assert_allclose(kl(mean, a, mean, a), 0, atol=1e-10)


def test_a_process_like_the_plain_one_has_no_distance(x64):
    process = Process.init(Spec(1, Gaussian(1)), kernel="rbf", width=0, key=jr.key(0))

    def like(p):
        return [p.kernels[0].log_std, p.kernels[0].log_length]

    same = eqx.tree_at(like, process, [jnp.log(2.0) / 2, jnp.log(jnp.full(1, 0.2))])
    rows, plain = Data.of([0.0, 1.0, 1.5], [0.0, 0.0, 0.0]), FunctionPrior()
    distance = eqx.filter_jit(lambda p: plain.kl(p, rows, key=jr.key(1)))
    assert abs(float(distance(same))) < 1e-6
    assert float(distance(process)) > 1


@pytest.mark.parametrize("real", [0, 3, 30])
def test_measured_points_are_real_rows_and_uniform_ones(real):
    rows = Data.of(jnp.arange(100.0, 100.0 + real), jnp.zeros(real))
    rows = pad(rows, 40)
    x = FunctionPrior(low=-1.0, high=2.0).measured(rows, key=jr.key(0))[:, 0]
    own = x[x >= 100]
    assert len(x) == 20 and len(own) == min(real, 10) == len(set(own.tolist()))
    assert ((x >= 100) | ((x > -1) & (x < 2))).all()


def test_functional_objective(x64, task):
    """1/m (-log Z) + κ (1/√T + 1/(T m)) KL."""
    spec = Spec(2, StudentT(1), tasks=20)
    pacoh = PACOH.init(spec, functional=True, kappa=0.7, width=4, key=jr.key(0))
    process, m = pacoh.theta, int(task.union.count)
    x_key = jr.split(jr.key(3), 3)[1]

    def want(theta):
        kl = FunctionPrior().kl(theta, task.union, key=x_key)
        return theta.loss(task, key=jr.key(0)) + 0.7 * (20**-0.5 + 1 / (20 * m)) * kl

    for a, b in zip(arrays(looked(pacoh, task)[1]), arrays(slope(want, process)), strict=True):
        assert_allclose(a, b, rtol=1e-8, atol=1e-9)


class Scaled(eqx.Module):
    """Another source in units of a training set."""

    source: CauchyMixture
    units: jax.Array

    def __call__(self, key):
        x, y = self.units

        def scaled(data):
            return Data((data.x - x[0]) / x[1], (data.y - y[0]) / y[1], data.mask)

        task = self.source(key)
        return Task(scaled(task.support), scaled(task.query))


def few(count, key):
    """A `Table` of so many tasks of ten rows, and its units."""
    rows = jax.vmap(CauchyMixture(query=0))(jr.split(key, count)).support
    x, y = rows.x.reshape(-1, 1), rows.y.reshape(-1, 1)
    units = jnp.array([[x.mean(), x.std()], [y.mean(), y.std()]])
    x, y = (x - units[0, 0]) / units[0, 1], (y - units[1, 0]) / units[1, 1]
    index = jnp.arange(count)
    return Table(x, y, 10 * index, jnp.full(count, 10), index, 5, 5), units


@eqx.filter_jit
def said(method, source, key):
    """Mean standard deviation, and the share of outcomes in the band of 90 %, of 50 tasks."""

    def one(k):
        task = source(k)
        posterior = method.posterior(task.support, key=k)
        predicted = posterior.predict(task.query.x, key=k, samples=1)
        below = predicted.cdf(task.query.y)
        return jnp.sqrt(predicted.variance()).mean(), ((below > 0.05) & (below < 0.95)).mean()

    return [a.mean() for a in jax.vmap(one)(jr.split(key, 50))]


@pytest.mark.slow
def test_beyond_the_rows_f_pacoh_goes_back_to_its_plain_process():
    """With 20 tasks in [-10, 10], 3 to 6 length scales beyond.

    Measured with three seeds: the standard deviation is 4.8 to 5.4 times that inside, the coverage
    1.00 outside and 0.88 to 0.90 inside.
    """
    source, units = few(20, jr.key(11))
    method = METHODS["f_pacoh"].init(Spec(1, Gaussian(1), tasks=20), key=jr.key(12))
    fitted = fit(method, source, key=jr.key(13), steps=1500, batch=4, every=1500).method
    beyond = 3 * 0.2 * float(units[0, 1])
    inside, within = said(fitted, Scaled(CauchyMixture(), units), jr.key(14))
    outside, covered = said(fitted, Scaled(CauchyMixture(beyond=beyond), units), jr.key(15))
    assert outside > 3 * inside and covered > 0.85 and within > 0.8
    assert outside < 2**0.5 * 1.2


# --- as a method

VARIANTS = {
    "svgd": dict(q="svgd", members=2) | GP,
    "vi": dict(q="vi", members=2) | GP,
    "functional svgd": dict(q="svgd", members=2, functional=True, width=4),
    "functional vi": dict(q="vi", members=2, functional=True, width=4),
    "networks": dict(family="nn", q="svgd", members=2, width=8, depth=1, particles=2, steps=5),
    "vi of networks": dict(family="nn", q="vi", members=2, width=8, depth=1, particles=2, steps=5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_contract_of_variants(name):
    check_method(PACOH, **VARIANTS[name])


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(family="gpp"), "families 'gp' and 'nn'; got 'gpp'"),
        (dict(q="mcmc"), "'map', 'svgd' and 'vi'; got q='mcmc'"),
        (dict(members=0), "at least 1 member; got 0"),
        (dict(hyper_std=0.0), "above 0 and kappa of at least 0; got 0.0"),
        (dict(kappa=-1.0), "kappa of at least 0"),
        (dict(family="nn", functional=True), "processes of numbers; got the family 'nn'"),
        (dict(family="nn", adaptation="hmc"), "by 'svgd' or by 'nuts'; got 'hmc'"),
        (dict(family="nn", draws=0), "at least 1 draw"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PACOH.init(Spec(1, Gaussian(1)), key=jr.key(0), **options)


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(length=0.0), "length, std and jitter above 0"),
        (dict(low=1.0, high=1.0), "a box from low to high; got 1.0 to 1.0"),
        (dict(points=1), "at least 2 points; got 1"),
    ],
)
def test_wrong_function_priors_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FunctionPrior(**options)


def test_classes_have_no_functional_hyperprior():
    with pytest.raises(ValueError, match="got the family 'gp' and the head Categorical"):
        PACOH.init(Spec(1, Categorical(3)), key=jr.key(0), functional=True)


def test_spec_takes_a_number_of_tasks():
    with pytest.raises(ValueError, match="at least 1; got 0"):
        Spec(1, Gaussian(1), tasks=0)
    assert made(jnp.asarray(7)).tasks == 7 and made(None).tasks is None


def test_abml_weighs_its_hyperprior_by_the_number_of_tasks():
    init = METHODS["abml"].init
    with pytest.raises(ValueError, match="hyper=None where Spec says how many tasks"):
        init(Spec(1, Gaussian(1)), key=jr.key(0), hyper=None)

    def look(**options):
        abml = init(Spec(2, Gaussian(1), tasks=20), key=jr.key(0), width=4, depth=1, **options)
        task = example_task(jr.key(5), Gaussian(1), 2, 4)
        return abml.loss(task, key=jr.key(1))

    by_count, by_hand = jax.jit(lambda: (look(hyper=None), look(hyper=0.05)))()
    assert_allclose(by_count, by_hand, rtol=1e-6)
