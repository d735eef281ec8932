"""The sampler's account of itself, and densities by sequential Monte Carlo."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from metaprior.infer.evidence import evidence
from metaprior.infer.nuts import ESS, RHAT, agreement, nuts


def test_chains_that_differ_do_not_agree():
    """In place, in spread, as they go, or since they do not move; constants do not count."""
    draws = jr.normal(jr.key(0), (4, 250, 2))
    rhat, ess = jax.jit(agreement)(draws)
    assert 0.99 < rhat < 1.015 and 700 < ess <= 1000
    drift = jnp.linspace(-1.0, 1.0, 250)[None, :, None]
    stuck = jnp.broadcast_to(jnp.arange(4.0)[:, None, None], draws.shape)
    for wrong in (draws.at[0].add(0.5), draws.at[0].multiply(3.0), draws + drift, stuck):
        rhat, ess = jax.jit(agreement)(wrong)
        assert rhat > 1.02, wrong[:, :2]
    assert agreement(jnp.ones((4, 250, 1)))[0] == 1.0


@pytest.mark.slow
def test_chains_go_on_where_they_do_not_agree():
    """Side by side, an easy density ends at once, and one that is hard goes on and says so."""

    def run(width):
        def log_prob(w):  # a ridge along w², the narrower the harder
            return -0.5 * (w[0] ** 2 / 9 + ((w[1] - width * w[0] ** 2) / 0.2) ** 2)

        return nuts(log_prob, jr.normal(jr.key(0), (4, 2)), warmup=200, draws=250, key=jr.key(1))

    easy, hard = (
        jax.tree.map(lambda a: a[i], jax.jit(jax.vmap(run))(jnp.array([0.0, 1.0]))) for i in (0, 1)
    )
    assert easy.steps == 250 and easy.rhat <= RHAT and easy.ess >= ESS and easy.divergences == 0
    assert hard.steps > 250 and easy.w.shape == hard.w.shape == (1000, 2)
    assert hard.steps == 1000 or (hard.rhat <= RHAT and hard.ess >= ESS)
    error = easy.w[:, 0].std() / easy.effective(easy.w[:, 0]) ** 0.5
    assert abs(easy.w[:, 0].mean()) < 4 * error and abs(easy.w[:, 0].std() - 3) < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True])
def test_evidence_is_within_its_error(x64, dense):
    """Of rows of a linear function, far from nearly all draws of its prior."""
    d, n, noise = 6, 20, 0.1
    phi = jr.normal(jr.key(0), (n, d)) @ jnp.linalg.cholesky(0.3 * jnp.eye(d) + 0.7)
    y = phi @ jr.normal(jr.key(1), (d,)) + noise * jr.normal(jr.key(2), (n,))
    exact = stats.multivariate_normal(np.zeros(n), phi @ phi.T + noise**2 * np.eye(n)).logpdf(y)

    def log_prior(w):
        return -0.5 * (w**2).sum()

    def log_more(w):
        return jax.scipy.stats.norm.logpdf(y, phi @ w, noise).sum()

    def run(key):
        draw_key, key = jr.split(key)
        draws = jr.normal(draw_key, (8, 125, d))
        plain = jax.nn.logsumexp(jax.vmap(log_more)(draws.reshape(-1, d))) - jnp.log(1000.0)
        return evidence(log_prior, log_more, draws, dense=dense, key=key), plain

    found, plain = jax.jit(jax.vmap(run))(jr.split(jr.key(3), 20))
    z = (found.value - exact) / found.error
    assert (plain < exact - 10).all()  # the mean over draws is of no use
    assert found.error.max() < 1.0
    assert abs((found.value - exact).mean()) < 0.1
    assert (z**2).mean() ** 0.5 < 2 and jnp.abs(z).max() < 6
