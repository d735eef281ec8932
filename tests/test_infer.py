"""Building blocks: the inner loop and diagonal normals."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metaprior.infer.descend import descend
from metaprior.infer.gaussian import Diagonal
from metaprior.infer.gp import cholesky, contrast, laplace


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_descent_is_a_map_estimate(x64, steps):
    """Truncated descent on a linear model = MAP under a normal prior (Santos 1996; Grant et al. 2018, section 3)."""
    rng = np.random.default_rng(0)
    x, y, start, rate = rng.normal(size=(7, 3)), rng.normal(size=7), rng.normal(size=3), 0.05
    loss = lambda w: 0.5 * ((jnp.asarray(y) - jnp.asarray(x) @ w) ** 2).sum()
    adapted = descend(loss, jnp.asarray(start), rate, steps)
    eigenvalues, basis = np.linalg.eigh(x.T @ x)
    q = basis @ np.diag(((1 - rate * eigenvalues) ** -float(steps) - 1) / eigenvalues) @ basis.T
    precision = np.linalg.inv(q)
    expected = np.linalg.solve(x.T @ x + precision, x.T @ y + precision @ start)
    np.testing.assert_allclose(adapted, expected, atol=1e-8)


def _curved(w):
    return (jnp.tanh(w["a"]) ** 2).sum() + (w["a"][0] * w["b"] - 1.0) ** 2


@pytest.mark.parametrize("steps", [1, 4])
def test_meta_gradient_against_differences(x64, steps):
    start = {"a": jnp.asarray([0.3, -0.7]), "b": jnp.asarray(0.9)}
    flat, unravel = jax.flatten_util.ravel_pytree(start)
    outer = lambda v: _curved(descend(_curved, unravel(v[:-1]), v[-1], steps)) + v[0]
    at = jnp.concatenate([flat, jnp.asarray([0.1])])
    gradient = jax.grad(outer)(at)
    step = 1e-6 * jnp.eye(at.size)
    numeric = jnp.stack([(outer(at + e) - outer(at - e)) / 2e-6 for e in step])
    np.testing.assert_allclose(gradient, numeric, atol=1e-7)


def test_first_order_stops_the_inner_gradient_only(x64):
    inner, outer = lambda w: w**4, lambda w: w**2
    both = [jax.grad(lambda w: outer(descend(inner, w, 0.1, first_order=f)))(jnp.asarray(1.0)) for f in (False, True)]
    adapted = 1.0 - 0.1 * 4.0
    np.testing.assert_allclose(both, [2 * adapted * (1 - 0.1 * 12.0), 2 * adapted])


def test_a_rate_a_weight():
    w = {"a": jnp.ones(2), "b": jnp.ones(())}
    rates = {"a": jnp.asarray([0.0, 0.5]), "b": jnp.asarray(1.0)}
    moved = descend(lambda w: w["a"].sum() + w["b"], w, rates)
    np.testing.assert_allclose(moved["a"], [1.0, 0.5])
    np.testing.assert_allclose(moved["b"], 0.0)
    with pytest.raises(ValueError, match="structure of the weights"):
        descend(lambda w: w["a"].sum(), w, {"a": 0.1, "c": 0.2})


def test_diagonal_against_full_covariances(key):
    """The KL of normals with covariance matrices, and scipy's density."""
    keys = jax.random.split(key, 5)
    draw = lambda k: {"a": jax.random.normal(k, (3, 2)), "b": jax.random.normal(k)}
    p, q, w = Diagonal(draw(keys[0]), draw(keys[1])), Diagonal(draw(keys[2]), draw(keys[3])), draw(keys[4])
    flat = lambda tree: np.asarray(jax.flatten_util.ravel_pytree(tree)[0], float)
    gap, s, s0 = flat(p.mean) - flat(q.mean), np.diag(np.exp(2 * flat(p.log_std))), np.diag(np.exp(2 * flat(q.log_std)))
    inverse = np.linalg.inv(s0)
    determinants = np.linalg.slogdet(s0)[1] - np.linalg.slogdet(s)[1]
    kl = 0.5 * (np.trace(inverse @ s) + gap @ inverse @ gap - gap.size + determinants)
    np.testing.assert_allclose(p.kl(q), kl, rtol=1e-5)
    np.testing.assert_allclose(p.log_prob(w), stats.multivariate_normal.logpdf(flat(w), flat(p.mean), s), rtol=1e-5)
    np.testing.assert_allclose(p.kl(p), 0.0, atol=1e-6)


def test_diagonal_over_a_network(key):
    net = eqx.nn.MLP(2, 1, 4, 1, key=key)
    q = Diagonal.around(net, 0.5)
    draws = jax.vmap(lambda k: q.sample(key=k)(jnp.ones(2)))(jax.random.split(key, 3))
    assert draws.shape == (3, 1) and float(draws.std()) > 0
    weights = jax.vmap(lambda k: q.sample(key=k).layers[0].weight)(jax.random.split(key, 4000))
    np.testing.assert_allclose(weights.std(0), 0.5, atol=0.05)
    np.testing.assert_allclose(weights.mean(0), net.layers[0].weight, atol=0.05)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_laplace_against_the_dense_hessian(x64, classes):
    """Mode, precision, evidence and its derivative, from the curvature written out in full; two rows are padding."""
    n, mask = 7, jnp.arange(7) < 5
    x, mean = jax.random.normal(jax.random.key(0), (n, 2)), jax.random.normal(jax.random.key(2), (n, classes))
    y = jax.random.randint(jax.random.key(1), (n,), 0, classes).astype(float)
    k = jnp.exp(-0.5 * ((x[:, None] - x[None]) ** 2).sum(-1)) + 1e-6 * jnp.eye(n)
    run = lambda s: laplace(cholesky(s * k, mask), s * mean, y, mask, steps=20)
    found, factor, a = run(2.0), cholesky(2.0 * k, mask), contrast(classes)
    latents, hot = len(a), jax.nn.one_hot(y.astype(int), classes) * mask[:, None]

    def log_joint(flat):
        u = flat.reshape(latents, n).T
        f = 2.0 * mean + factor @ u @ a
        return (jax.nn.log_softmax(f) * hot).sum() - 0.5 * (u * u).sum()

    mode = found.mode.T.reshape(-1)
    np.testing.assert_allclose(jax.grad(log_joint)(mode), 0.0, atol=1e-9)
    h = -jax.hessian(log_joint)(mode)
    np.testing.assert_allclose(found.evidence, log_joint(mode) - 0.5 * np.linalg.slogdet(h)[1], atol=1e-9)
    v = jax.random.normal(jax.random.key(3), (n, 4))
    b = np.kron(np.eye(latents), v)
    dense = (b.T @ np.linalg.inv(h) @ b).reshape(latents, 4, latents, 4)
    np.testing.assert_allclose(found.covariance(v), np.stack([dense[:, q, :, q] for q in range(4)]), atol=1e-9)
    white = jnp.eye(n * (latents + 1)).reshape(n, latents + 1, -1)  # a draw is linear in its noise
    root = jnp.moveaxis(found.draw(white) - found.mode[:, :, None], 0, 1).reshape(latents * n, -1)
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(h), atol=1e-9)
    difference = (run(2.0 + 1e-5).evidence - run(2.0 - 1e-5).evidence) / 2e-5
    np.testing.assert_allclose(jax.grad(lambda s: run(s).evidence)(2.0), difference, atol=1e-6)
