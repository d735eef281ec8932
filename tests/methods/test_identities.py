"""Methods against exact answers computed in another way."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import draw
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from metaprior import Data, Spec, Task, fit, split
from metaprior.heads import Categorical, Gaussian
from metaprior.infer.gaussian import Diagonal
from metaprior.infer.rows import takes
from metaprior.methods import METHODS, VERSA, ALPaCA


def observed(key, d=2, support=5, query=4):
    """Five support rows (one more is padding) and query rows.

    As `Data`, and as arrays of what is in the mask.
    """
    x_key, y_key = jax.random.split(key)
    n = support + 1 + query
    x, y = jax.random.normal(x_key, (n, d)), jax.random.normal(y_key, (n, 1))
    shown = Data(x[: support + 1], y[: support + 1], jnp.arange(support + 1) < support)
    rest = Data(x[support + 1 :], y[support + 1 :], jnp.ones(query, bool))
    numpy = [
        np.asarray(a) for a in (x[:support], y[:support, 0], x[support + 1 :], y[support + 1 :, 0])
    ]
    return shown, rest, numpy


def agree(posterior, query, mean, covariance, y):
    """Marginals and the joint density are those of N(mean, covariance)."""
    predictive = posterior.predict(query.x, key=jax.random.key(0), samples=1)
    np.testing.assert_allclose(predictive.mean()[:, 0], mean, atol=1e-5)
    np.testing.assert_allclose(predictive.variance()[:, 0], np.diag(covariance), atol=1e-5)
    joint = posterior.joint_log_prob(query, key=jax.random.key(0), samples=1)
    np.testing.assert_allclose(
        joint, stats.multivariate_normal.logpdf(y, mean, covariance), atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3])
def test_the_loss_of_maml_is_the_risk_of_what_it_adapts(steps, x64):
    """With one step it goes another way than `adapt`. A row of the support is padding."""
    maml = METHODS["maml"].init(
        Spec(2, Gaussian(1)), key=jax.random.key(0), steps=steps, inner_lr=0.1
    )
    support, query, _ = observed(jax.random.key(1))
    assert takes(maml.net, maml.inner_lr, steps) == (steps == 1)
    key = jax.random.key(2)
    inner, outer = jax.random.split(key)
    risk = maml.risk(maml.adapt(support, inner), query, outer)
    np.testing.assert_allclose(maml.loss(Task(support, query), key=key), risk, rtol=1e-12)
    before = maml.risk(maml.net, query, outer)
    assert abs(risk - before) > 1e-3


PLAIN = {
    "rbf": kernels.ConstantKernel(1.7**2) * kernels.RBF([0.8, 1.3]),
    "linear": kernels.ConstantKernel(1.7**2) * kernels.DotProduct(1e-8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_dkt_is_gaussian_process_regression(name, x64):
    """Without a network: scikit-learn's posterior, and its marginal likelihood is the loss."""
    dkt = METHODS["dkt"].init(Spec(2, Gaussian(1)), key=jax.random.key(0), kernel=name, width=0)
    kernel = eqx.tree_at(lambda k: k.log_std, dkt.kernels[0], jnp.log(1.7))
    if name == "rbf":
        kernel = eqx.tree_at(lambda k: k.log_length, kernel, jnp.log(jnp.asarray([0.8, 1.3])))
    noise = 0.3 + dkt.noise.floor
    dkt = eqx.tree_at(
        lambda m: (m.kernels[0], m.noise.log_std, m.mean.weights),
        dkt,
        (kernel, jnp.log(0.3), jnp.full((1, 1), 0.4)),
    )
    support, query, (x, y, x_q, y_q) = observed(jax.random.key(1))
    reference = GaussianProcessRegressor(PLAIN[name], alpha=noise**2, optimizer=None).fit(
        x, y - 0.4
    )
    mean, covariance = reference.predict(x_q, return_cov=True)
    posterior = dkt.posterior(support, key=jax.random.key(2))
    agree(posterior, query, mean + 0.4, covariance + noise**2 * np.eye(len(y_q)), y_q)
    loss = dkt.loss(
        Task(support, Data(query.x, query.y, jnp.zeros(len(y_q), bool))), key=jax.random.key(3)
    )
    np.testing.assert_allclose(-len(y) * loss, reference.log_marginal_likelihood_value_, atol=1e-5)


def test_alpaca_is_conjugate_regression(x64):
    """Bayesian linear regression on the network's features, in weights.

    K ~ N(mean, noise (A Aᵀ)⁻¹).
    """
    alpaca = ALPaCA.init(
        Spec(2, Gaussian(1)), key=jax.random.key(0), width=8, size=4, noise_variance=0.2
    )
    root = jnp.eye(4) + 0.3 * jax.random.normal(jax.random.key(1), (4, 4))
    alpaca = eqx.tree_at(lambda m: m.root, alpaca, root)
    support, query, (x, y, x_q, y_q) = observed(jax.random.key(2))
    phi, phi_q = np.asarray(alpaca.phi(x)), np.asarray(alpaca.phi(x_q))
    precision = np.asarray(root @ root.T) / 0.2
    covariance = np.linalg.inv(precision + phi.T @ phi / 0.2)
    mean = covariance @ (precision @ np.asarray(alpaca.mean)[:, 0] + phi.T @ y / 0.2)
    posterior = alpaca.posterior(support, key=jax.random.key(3))
    agree(
        posterior, query, phi_q @ mean, phi_q @ covariance @ phi_q.T + 0.2 * np.eye(len(y_q)), y_q
    )


class Nothing(eqx.Module):
    """No features: the last layer is its bias."""

    def __call__(self, x):
        return jnp.zeros(0, x.dtype)


class Sum(eqx.Module):
    """The sum of the outcomes as a summary of the support."""

    def summary(self, data):
        return jnp.where(data.mask, data.y[:, 0], 0.0).sum()[None]


class Affine(eqx.Module):
    """Mean w s + b, and log variance likewise, of a bias given the sum s."""

    mean: jax.Array
    log_variance: jax.Array

    def __call__(self, code):
        both = jnp.stack([code[0], 1.0])
        return jnp.stack(
            [self.mean @ both, 0.5 * self.log_variance @ both + 2.0]
        )  # VERSA takes 2 off again


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10])
def test_versa_infers_a_mean(n):
    """Section 5.1 of the paper: psi ~ N(0, 1), y ~ N(psi, 1).

    q(psi | y) has four numbers to learn. The best fit on 2,500 tasks is 0.7 % (slope) and 0.004
    nats from the truth. Descent with a decaying rate averages over more than that of its 128,000
    tasks, and 100 draws narrow log q by 0.06 to 0.08: 2 % and 0.01 nats.
    """

    def source(key):
        mean_key, noise_key = jax.random.split(key)
        y = jax.random.normal(mean_key) + jax.random.normal(noise_key, (n + 15, 1))
        return split(Data(jnp.zeros_like(y), y, jnp.ones(n + 15, bool)), n)

    toy = VERSA(
        Nothing(), Sum(), None, Affine(jnp.zeros(2), jnp.zeros(2)), Gaussian(1, scale=1.0), 100
    )
    adam = optax.adam(optax.cosine_decay_schedule(2e-2, 2000))
    fitted = fit(
        toy, source, key=jax.random.key(0), steps=2000, batch=64, optimiser=adam, every=1000
    ).method
    precision = 1.0 + n
    slope = float(fitted.amortise.mean[0]) * precision
    tasks = draw(source, jax.random.key(1), 2000)
    sums = tasks.support.y.sum((1, 2))
    exact = jax.vmap(
        lambda s: Diagonal(s[None, None] / precision, jnp.full((1, 1), -0.5 * jnp.log(precision)))
    )(sums)
    q = jax.vmap(fitted.q)(tasks.support)
    kl = float(jax.vmap(lambda a, b: a.kl(b))(q, exact).mean())
    print(f"\nVERSA toy, n = {n}: slope {slope:.4f} of the exact one, KL {kl:.5f} nats")
    assert abs(slope - 1) < 0.02 and kl < 0.01


@pytest.mark.slow
def test_matching_is_attention(key):
    """Equation 1 of the paper in numpy, and what is said without rows."""
    matching = METHODS["matching"].init(
        Spec(2, Categorical(3)), key=key, scale=1.0, pseudo_count=0.0
    )
    support, query, (x, _, x_q, _) = observed(key)
    y = np.array([0, 1, 0, 1, 1])
    support = Data(support.x, jnp.asarray([*y, 2.0])[:, None], support.mask)
    f, g = (np.asarray(jax.vmap(matching.net)(a)) for a in (x_q, x))
    cosine = (f @ g.T) / np.linalg.norm(f, axis=1)[:, None] / np.linalg.norm(g, axis=1)
    attention = np.exp(cosine) / np.exp(cosine).sum(1, keepdims=True)

    def say(data):
        return matching.posterior(data, key=key).predict(query.x, key=key, samples=1)

    np.testing.assert_allclose(say(support).mean(), attention @ np.eye(3)[y], atol=1e-5)
    assert np.isfinite(say(support).log_prob(jnp.full((4, 1), 2.0))).all()  # no row of this class
    nothing = Data(support.x, support.y, jnp.zeros(6, bool))
    np.testing.assert_allclose(say(nothing).mean(), 1 / 3, atol=1e-6)


@pytest.mark.slow
def test_bmaml_goes_to_the_exact_posterior(x64):
    """A linear model with 10 rows, 100 particles.

    Mean within 1 % and covariance within 10 % of the scales. A mean over rows with the whole
    repulsion would go to the posterior's tenth root instead.
    """
    bmaml = METHODS["bmaml"].init(
        Spec(1, Gaussian(1, scale=0.5)),
        key=jax.random.key(0),
        depth=0,
        particles=100,
        inner_lr=0.3,
        steps=2000,
        clip=None,
        precision=1.0,
    )
    x = jax.random.normal(jax.random.key(1), (10, 1))
    y = x - 0.5 + 0.5 * jax.random.normal(jax.random.key(2), (10, 1))
    support, places = Data(x, y, jnp.ones(10, bool)), jnp.asarray([[0.0], [1.0]])
    posterior = eqx.filter_jit(lambda m: m.posterior(support, key=jax.random.key(3)))(bmaml)
    lines = posterior.sample(places, key=jax.random.key(4), samples=100).parts[0].params[:, :, 0, 0]
    phi, at = (jnp.concatenate([a, jnp.ones_like(a)], axis=1) for a in (x, places))
    exact = jnp.linalg.inv(jnp.eye(2) + phi.T @ phi / 0.25)
    mean, cov = (at @ exact @ phi.T @ y / 0.25)[:, 0], at @ exact @ at.T
    scale = jnp.sqrt(jnp.diagonal(cov))
    assert float(jnp.abs((lines.mean(0) - mean) / scale).max()) < 0.01
    assert float(jnp.abs((jnp.cov(lines.T) - cov) / jnp.outer(scale, scale)).max()) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("shown", [0, 5])
def test_nuts_samples_the_exact_posterior(shown, x64):
    """The predictive of draws of ALPaCA's last layer is ALPaCA's own.

    Within 4 standard errors of the draws.
    """
    alpaca = dict(features="linear", noise_variance=0.2, draws=1000, warmup=500)
    nuts = METHODS["nuts"].init(Spec(2, Gaussian(1)), key=jax.random.key(0), **alpaca)
    nuts = eqx.tree_at(
        lambda m: m.base.root, nuts, jnp.eye(3) + 0.3 * jax.random.normal(jax.random.key(1), (3, 3))
    )
    support, query, _ = observed(jax.random.key(2))
    support = Data(support.x, support.y, jnp.arange(6) < shown)
    found = eqx.filter_jit(lambda m, s: m.run(s, key=jax.random.key(3)))(nuts, support)
    assert int(found.divergences) == 0 and 0.7 < float(found.acceptance) < 0.99
    exact = nuts.base.posterior(support, key=jax.random.key(4))
    marginal = exact.predict(query.x, key=jax.random.key(5), samples=1)
    f = jax.jit(jax.vmap(lambda w: nuts.base.apply(w, query.x)[:, 0]))(found.w)  # (s, n)
    for values, expected in [
        (f, marginal.mean()[:, 0]),
        ((f - marginal.mean()[:, 0]) ** 2, marginal.epistemic()[:, 0]),
    ]:
        error = values.std(0) / jnp.sqrt(found.effective(values))
        assert float(found.effective(values).min()) > 400
        assert (jnp.abs(values.mean(0) - expected) < 4 * error).all(), (
            values.mean(0),
            expected,
            error,
        )

    posterior = eqx.filter_jit(lambda m, s: m.posterior(s, key=jax.random.key(3)))(nuts, support)
    ours, error = eqx.filter_jit(lambda p: p.joint(query, key=jax.random.key(6)))(posterior)
    true = exact.joint_log_prob(query, key=jax.random.key(6), samples=1)
    print(f"\nNUTS, {shown} rows: joint {ours:.4f} ± {error:.4f}, exact {true:.4f}")
    assert error < 0.3 and abs(ours - true) < 4 * error


PRIORS = [
    ("alpaca", Gaussian(2), {}),
    ("abml", Gaussian(1), {}),
    ("vampire", Categorical(3), {}),
    ("bnn", Gaussian(1), {}),
    ("llama", Gaussian(1), dict(precision=2.0)),
]


@pytest.mark.slow
@pytest.mark.parametrize("name,head,options", PRIORS)
def test_written_priors_are_densities(name, head, options, x64):
    """E log p(w) over draws is the negative entropy of the normal that `prior` says it is."""
    method = METHODS[name].init(Spec(2, head), key=jax.random.key(0), width=4, **options)
    w = eqx.filter_vmap(lambda k: method.prior.sample(key=k))(
        jax.random.split(jax.random.key(1), 4000)
    )
    log_p = eqx.filter_vmap(method.prior.log_prob)(w)
    numbers = np.concatenate(
        [np.asarray(a).reshape(4000, -1) for a in jax.tree.leaves(eqx.filter(w, eqx.is_array))], 1
    )
    d = numbers.shape[1]
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(numbers.T))[1] + d * (d + 1) / (
        4 * 4000
    )
    # log p has variance d / 2; the log determinant of a sample covariance has variance 2 d / n, its
    # bias is taken off
    assert abs(float(log_p.mean()) + entropy) < 4 * (d / 2 / 4000 + 0.5 * d / 4000) ** 0.5
    assert (
        method.apply(
            jax.tree.map(lambda a: a[0] if eqx.is_array(a) else a, w), jnp.ones((5, 2))
        ).shape[0]
        == 5
    )
