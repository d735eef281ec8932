"""PLATIPUS: its two objectives."""

import jax
import pytest

from metaprior import Spec
from metaprior.heads import Gaussian
from metaprior.methods import PLATIPUS
from metaprior.testing import example_task


def test_one_draw_gives_both_objectives_the_same_mean(key):
    """KL is the mean of log q - log p; a bound by several draws is the tighter one."""
    spec, task = Spec(2, Gaussian(1)), example_task(key, Gaussian(1), 2, 4)

    def mean(objective, samples):
        options = dict(width=4, depth=1, steps=1, gamma=1e-4, samples=samples, objective=objective)
        method = PLATIPUS.init(spec, key=key, **options)
        losses = jax.jit(jax.vmap(lambda k: method.loss(task, key=k)))
        return float(losses(jax.random.split(key, 500)).mean())

    paper = mean("elbo", 1)
    assert mean("iwae", 1) == pytest.approx(paper, abs=0.05)
    assert mean("iwae", 5) < paper
