"""What a user writes, with the types that an editor shows: read by test_types.py, never run."""

from pathlib import Path
from typing import assert_type

import jax
import polars as pl

import metaprior
from metaprior.evaluation.evaluate import Evaluation, JointEvaluation
from metaprior.heads import Gaussian
from metaprior.infer.descend import AbstractStep
from metaprior.methods import MAML, Process
from metaprior.tables.posterior import Posterior
from metaprior.tables.several import JointPosterior


def a_table(path: Path) -> None:
    prior = metaprior.Prior("auto", steps=100).fit(path, task="unit", target="y")
    assert_type(prior, metaprior.Prior)
    posterior = prior.adapt(pl.DataFrame({"x": [1.0], "y": [2.0]}))
    assert_type(posterior, Posterior | JointPosterior)
    rows = {"x": [3.0]}
    assert_type(posterior.predict(rows, levels=(0.1, 0.9)), pl.DataFrame)
    assert_type(posterior.sample(rows, n=3), pl.DataFrame)
    assert_type(posterior.suggest(rows, n=1, by="bald"), pl.DataFrame)
    evaluation = prior.evaluate(shots=(0, 5))
    assert_type(evaluation, Evaluation | JointEvaluation)
    assert_type(evaluation.sentence(), str)
    prior.save(path)
    assert_type(metaprior.load(path), metaprior.Prior)


def a_method(key: jax.Array) -> None:
    spec = metaprior.Spec(1, Gaussian(1))
    maml = metaprior.methods.MAML.init(spec, key=key, inner_lr=0.01, steps=5)
    assert_type(maml, MAML)
    source = metaprior.sources.Sinusoid()
    fitted = metaprior.fit(maml, source, key=key, learning_rate=1e-3)
    assert_type(fitted, metaprior.Fitted[MAML])
    assert_type(fitted.outcome, str)
    assert_type(fitted.method, MAML)
    assert_type(fitted.method.inner_lr, AbstractStep)
    support = metaprior.Data.of([0.0, 1.0], [2.0, 3.0])
    posterior = fitted.method.posterior(support, key=key)
    assert_type(posterior, metaprior.Particles)
    predictive = posterior.predict(support.x, key=key, samples=10)
    assert_type(predictive, metaprior.Mixture)
    assert_type(predictive.mean(), jax.Array)
    assert_type(predictive.log_prob(support.y), jax.Array)
    assert_type(posterior.joint_log_prob(support, key=key, samples=10), jax.Array)
    task = metaprior.split(support, 1)
    assert_type(task, metaprior.Task)
    assert_type(maml.loss(task, key=key), jax.Array)
    assert_type(Process.init(spec, key=key).learning_rate, float)


def mistakes() -> None:
    """Each of these lines is an error; a checker that sees nothing would let it pass."""
    metaprior.Prior(step=100)
    metaprior.Priors()
    metaprior.Prior().adapt().predict()
    metaprior.methods.MAML.init(metaprior.Spec(1, Gaussian(1)))
    print(metaprior.Data.of([0.0]).rows)
