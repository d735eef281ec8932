"""Trained methods against exact answers and published numbers; minutes."""

import jax
import jax.numpy as jnp
import optax
import pytest

from metaprior import Spec, fit
from metaprior.heads import Gaussian
from metaprior.methods import CNP, MAML, NP
from metaprior.sources import GP, Sinusoid


@pytest.mark.slow
@pytest.mark.parametrize(
    "method,options,steps,joint,margin",
    [
        # A mean over the support learns slowly: the gain on the trivial predictor was 0.23 here and 0.31 at 40,000 steps.
        (CNP, {}, 15_000, False, 0.15),
        (CNP, dict(encoder="attention"), 8_000, False, 0.3),
        (NP, {}, 15_000, True, None),
    ],
)
def test_neural_processes_stay_below_the_oracle(method, options, steps, joint, margin, key):
    source = GP("eq")
    made = method.init(Spec(1, Gaussian(1)), key=key, **options)
    trained = fit(made, source, key=jax.random.key(1), steps=steps, every=1000).method
    tasks = jax.vmap(source)(jax.random.split(jax.random.key(2), 1024))

    def look(pair):
        task, key = pair
        row = []
        for posterior in (source.exact(task.support), trained.posterior(task.support, key=key)):
            together = posterior.joint_log_prob(task.query, key=key, samples=128) / source.query
            each = posterior.predict(task.query.x, key=key, samples=128).log_prob(task.query.y).mean()
            row.append(jnp.stack([together, each]))
        return jnp.stack(row)

    keys = jax.random.split(jax.random.key(3), 1024)
    exact, ours = jnp.moveaxis(jax.jit(lambda p: jax.lax.map(look, p, batch_size=32))((tasks, keys)), 1, 0)
    trivial = float(-0.5 * (jnp.log(2 * jnp.pi * tasks.query.y.var()) + 1))
    gap = (ours - exact)[:, 0 if joint else 1]
    error = float(gap.std() / len(gap) ** 0.5)
    print(f"\n{method.__name__}: joint {ours[:, 0].mean():.3f} (exact {exact[:, 0].mean():.3f}), marginal "
          f"{ours[:, 1].mean():.3f} (exact {exact[:, 1].mean():.3f}), trivial {trivial:.3f}")  # fmt: skip
    assert float(gap.mean()) < 2 * error
    assert margin is None or float(ours[:, 1].mean()) > trivial + margin


@pytest.mark.slow
def test_maml_sinusoid(key):
    """Section 5.1 of the paper, 15,000 iterations: one gradient step on 10 rows."""
    maml = MAML.init(Spec(1, Gaussian(1, scale=0.5**0.5)), key=key)
    fitted = fit(
        maml, Sinusoid(), key=jax.random.key(1), steps=15_000, batch=25, every=1000, optimiser=optax.adam(1e-3)
    )
    tasks = jax.vmap(Sinusoid(query=100))(jax.random.split(jax.random.key(2), 2000))

    def squared(task):
        posterior = fitted.method.posterior(task.support, key=key)
        return ((posterior.predict(task.query.x, key=key, samples=1).mean() - task.query.y) ** 2).mean()

    errors = jax.jit(jax.vmap(squared))(tasks)
    speed = 15_000 * 25 / fitted.seconds
    print(f"\nMAML sinusoid: MSE {errors.mean():.3f}, {fitted.seconds:.1f} s, {speed:.0f} tasks a second")
    assert 0.40 < float(errors.mean()) < 0.70
