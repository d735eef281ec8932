"""MetaQDA against densities written out, and against the classifier that knows its prior."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from metaprior import Data, Spec, fit, split
from metaprior.heads import Categorical
from metaprior.methods import MetaQDA

CLASSES, D = 3, 4


def made(embedding: int = 0, **options) -> MetaQDA:
    """Some method whose prior is none that anything starts with."""
    spec, (a, b) = Spec(D, Categorical(CLASSES)), jax.random.split(jax.random.key(3))
    method = MetaQDA.init(spec, key=a, embedding=embedding, width=8, **options)
    root = method.root + 0.3 * jax.random.normal(b, method.root.shape)
    location = jnp.linspace(-0.5, 1.0, len(root))
    return eqx.tree_at(lambda m: (m.root, m.location), method, (root, location))


def density(method: MetaQDA, rows, x):
    """Log density of `x` in a class with these rows, by the formulas of the paper and scipy."""
    m, kappa = np.asarray(method.location), float(np.exp(method.log_weight))
    d, n = len(m), len(rows)
    nu = float(np.exp(method.log_df)) + d - 1
    s = (nu - d + 1) * np.linalg.inv(np.asarray(method.root.T @ method.root))
    if n:
        mean = rows.mean(0)
        s = s + (rows - mean).T @ (rows - mean)
        s = s + kappa * n / (kappa + n) * np.outer(mean - m, mean - m)
        m = (kappa * m + n * mean) / (kappa + n)
    kappa, nu = kappa + n, nu + n
    df = nu - d + 1
    return stats.multivariate_t.logpdf(x, m, s * (kappa + 1) / (kappa * df), df)


def predicted(method, support, x):
    posterior = method.posterior(support, key=jax.random.key(0))
    return posterior.predict(x, key=jax.random.key(1), samples=1).mean()


@pytest.mark.parametrize("embedding,options", [(0, {}), (3, dict(weight=0.3, df=2.0))])
def test_classes_are_as_likely_as_their_t_densities(embedding, options, x64):
    """Three rows of one class, one of another, none of the third; a padding row changes nothing."""
    method, (a, b) = made(embedding, **options), jax.random.split(jax.random.key(0))
    x, query = jax.random.normal(a, (5, D)), jax.random.normal(b, (6, D))
    mask = jnp.arange(5) != 2
    label = np.array([0, 1, 2, 0, 0])
    support = Data(x.at[2].set(50.0), jnp.asarray(label, float)[:, None], mask)
    f = jax.vmap(method.net)
    rows = [np.asarray(f(x))[(label == c) & np.asarray(mask)] for c in range(CLASSES)]
    each = np.stack([density(method, r, np.asarray(f(query))) for r in rows], 1)
    np.testing.assert_allclose(predicted(method, support, query), softmax(each, 1), atol=1e-10)

    nothing = Data(support.x, support.y, jnp.zeros(5, bool))
    np.testing.assert_allclose(predicted(method, nothing, query), 1 / CLASSES, atol=1e-12)


def test_rows_are_as_likely_in_any_order(x64):
    """The chain rule gives the density of all rows of a class together: no order is special.

    Predictives of another posterior than the prior's would not agree.
    """
    method, x = made(), jax.random.normal(jax.random.key(4), (4, D))

    def joint(x):
        total = 0.0
        for i in range(4):
            seen = Data(x, jnp.zeros((4, 1)), jnp.arange(4) < i)
            posterior = method.belief(seen)
            z = (x[i][None] - method.location) @ method.root.T
            total += float(posterior.log_prob(z)[0, 0])
        return total

    assert joint(x) == pytest.approx(joint(x[jnp.array([2, 0, 3, 1])]), abs=1e-10)


class Drawn(eqx.Module):
    """Tasks whose classes are drawn from a normal-inverse-Wishart prior: κ 0.5, m 1, 6 degrees of
    freedom of the predictive, scale matrix 6 diag(1, 2 …)⁻¹ in `D` dimensions.
    """

    def __call__(self, key):
        w_key, m_key, x_key, o_key = jax.random.split(key, 4)
        nu, scale = 6 + D - 1, jnp.sqrt(6 / jnp.arange(1.0, D + 1))

        def cholesky(k):  # of a Wishart matrix with ν degrees of freedom: its precision
            normal, square = jax.random.split(k)
            lower = jnp.tril(jax.random.normal(normal, (D, D)), -1)
            return lower + jnp.diag(
                jnp.sqrt(2 * jax.random.gamma(square, 0.5 * (nu - jnp.arange(D))))
            )

        root = jax.vmap(cholesky)(jax.random.split(w_key, CLASSES))

        def normal(k, root, count):  # rows with the covariance scale (L Lᵀ)⁻¹ scale
            e = jax.random.normal(k, (D, count))
            return (jnp.linalg.solve(root.T, e) * scale[:, None]).T

        mean = jax.vmap(lambda k, r: normal(k, r, 1))(jax.random.split(m_key, CLASSES), root)
        x = jax.vmap(lambda k, r: normal(k, r, 8))(jax.random.split(x_key, CLASSES), root)
        x = (1 + mean / 0.5**0.5 + x).reshape(-1, D)
        y = jnp.repeat(jnp.arange(CLASSES), 8)
        order = jax.random.permutation(o_key, len(y))
        return split(Data.of(x[order], y[order]), 9)


@pytest.mark.slow
def test_learns_the_prior_that_classes_are_drawn_from():
    """Within 0.01 nats of the classifier with the prior itself, from a start 0.05 above it; 2,000
    tasks (a standard error of the difference of about 0.002).
    """
    spec, tasks = Spec(D, Categorical(CLASSES)), jax.random.split(jax.random.key(9), 2000)
    start = MetaQDA.init(spec, key=jax.random.key(0), embedding=0)
    fitted = fit(start, Drawn(), key=jax.random.key(1), steps=1500, learning_rate=1e-2)
    truth = MetaQDA.init(spec, key=jax.random.key(0), embedding=0, weight=0.5, df=6.0)
    root = jnp.diag(jnp.sqrt(jnp.arange(1.0, D + 1)))
    truth = eqx.tree_at(lambda m: (m.root, m.location), truth, (root, jnp.ones(D)))

    @eqx.filter_jit
    def nll(method):
        return jax.vmap(lambda k: method.loss(Drawn()(k), key=k))(tasks)

    first, exact, found = (np.asarray(nll(m)) for m in (start, truth, fitted.method))
    print(f"\n{first.mean():.4f} before, {found.mean():.4f} after, {exact.mean():.4f} exact")
    assert first.mean() > exact.mean() + 0.05
    assert exact.mean() - 0.005 < found.mean() < exact.mean() + 0.01
