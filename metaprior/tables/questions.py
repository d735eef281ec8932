"""Questions to a learner about one group, as compiled programs in the model's units.

In all of them `support` holds the observed rows and `x` the rows that are asked about, `(n, d)`.
Where rows lack a feature, values were drawn for it: then `x` is `(m, n, d)`, and `support` is
stacked alike or the same for all draws.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from metaprior import acquire, acquire_learned
from metaprior.evaluation import units
from metaprior.evaluation.units import moments
from metaprior.mixture import Mixture, functions_of
from metaprior.posterior import merged
from metaprior.system.programs import kept_by_size
from metaprior.tables.quantiles import outcomes_at
from metaprior.tables.updates import rebuilt
from metaprior.task import Data

SAMPLES = 256  # functions of a method that predicts by sampling
FEWEST = 32  # of them for each draw of features
CURVES = 32  # whole curves in one program


def _each(function, support: Data, x: Array, *more: Array) -> Any:
    """`function(support, x, …)` of every draw of the features."""
    own = 0 if support.x.ndim == 3 else None
    axes = (Data(own, own, own), 0, *(0 for _ in more))  # ty: ignore[invalid-argument-type]
    return eqx.filter_vmap(function, in_axes=axes)(support, x, *more)


def first(support: Data) -> Data:
    """The observed rows, where there are several draws of their features those of the first."""
    return support if support.x.ndim == 2 else jax.tree.map(lambda a: a[0], support)


def believed(learner, support, x, key) -> tuple[Mixture, Array]:
    """What is believed of each row, and how much of its variance more rows could remove."""
    post_key, key = jr.split(key)

    def one(support, x, samples=SAMPLES):
        mixture = learner.posterior(support, key=post_key).predict(x, key=key, samples=samples)
        return mixture, mixture.epistemic()

    if x.ndim == 2:
        return one(support, x)
    fewer = max(SAMPLES // len(x), FEWEST)
    each, removable = _each(lambda support, x: one(support, x, fewer), support, x)
    # What only the feature could tell, no other row can.
    return merged(each), removable.mean(0)


def predicted(learner, support, x, curve, levels):
    """What `Posterior.table` reads of the rows `x` of a group; the rows lead in every array."""
    # The key is made in here: outside, making it is a program of its own to compile.
    mixture, removable = believed(learner, support, x, jr.key(0))
    if mixture.parts[0].head.classes:
        return {"p": mixture.mean(), "epistemic": _information(learner, support, x, mixture)}
    return _described(mixture, removable, support, curve, levels)


def _described(mixture, removable, support, curve, levels):
    """What `Posterior.table` reads of a mixture of numbers."""
    return {
        **moments(mixture, curve, first(support)),
        "quantiles": jax.vmap(mixture.quantile, out_axes=1)(levels)[..., 0],
        # As a share of the standard deviation: with a logarithm a unit differs from row to row.
        "removable": jnp.sqrt(removable / mixture.variance())[:, 0],
    }


def _information(learner, support, x, mixture):
    """Information about the group's function in each row, nats."""
    if x.ndim == 2:
        return mixture.information()

    def one(support, x):
        return believed(learner, support, x, jr.key(0))[0].information()

    return _each(one, support, x).mean(0)


predict = kept_by_size(predicted)


@kept_by_size
def predict_groups(learner, support, x, curve, levels):
    """`predicted` for stacked groups: supports `(g, k, …)` and rows `(g, n, d)`."""
    return jax.vmap(lambda some, rows: predicted(learner, some, rows, curve, levels))(support, x)


@kept_by_size
def predict_updated(learner, support, leaves, x, curve, levels):
    """`predicted`, of a posterior that is there already."""
    key = jr.split(jr.key(0))[1]
    mixture = rebuilt(learner, support, leaves).predict(x, key=key, samples=SAMPLES)
    if mixture.parts[0].head.classes:
        return {"p": mixture.mean(), "epistemic": mixture.information()}
    return _described(mixture, mixture.epistemic(), support, curve, levels)


@kept_by_size
def sample(learner, support, x, curve, levels):
    """Outcomes of each row at levels `(m, n)`."""
    drawn = outcomes_at(believed(learner, support, x, jr.key(0))[0], levels)
    return drawn if curve is None else jnp.clip(drawn, *curve.bounds(first(support)))


@kept_by_size
def log_prob(learner, support, x, curve, y):
    """Log density of each row's outcome `(n, 1)`; of a count, its log probability."""
    return units.log_prob(believed(learner, support, x, jr.key(0))[0], curve, y)


@kept_by_size
def cdf(learner, support, x, curve, y):
    """Probability of less than each row's outcome `(n, 1)`, or as much."""
    return units.below(believed(learner, support, x, jr.key(0))[0], curve, y)


@kept_by_size
def joint_log_prob(learner, support, x, y, mask):
    """Log density of all outcomes together."""
    post_key, key = jr.split(jr.key(0))

    def one(support, x):
        posterior = learner.posterior(support, key=post_key)
        return posterior.joint_log_prob(Data(x, y, mask), key=key, samples=SAMPLES)

    if x.ndim == 2:
        return one(support, x)
    return jax.nn.logsumexp(_each(one, support, x)) - jnp.log(len(x))


def drawn_functions(learner, support, x, curve, key) -> tuple[Array, Array]:
    """`CURVES` functions of the group at all rows: their values, and outcomes with noise.

    A function is drawn whole. Where several learners are mixed, the learner comes first, by its
    weight, and then a function of it.

    Returns:
        values `(CURVES, n, 1)`, or probabilities of classes `(CURVES, n, C)`; and outcomes
        `(CURVES, n, 1)`.
    """
    post_key, draw_key = jr.split(key)

    def some(support, x, keys, count):
        mixture = learner.posterior(support, key=keys[0]).sample(x, key=keys[1], samples=count)
        return functions_of(mixture, count, key=keys[2])

    if x.ndim == 2:
        value, outcome = some(support, x, (post_key, *jr.split(draw_key)), CURVES)
    else:  # a function for each draw of the features
        keys = jr.split(draw_key, (len(x), 2))

        def one(support, x, keys):
            value, outcome = some(support, x, (post_key, keys[0], keys[1]), 1)
            return value[0], outcome[0]

        value, outcome = _each(one, support, x, keys)
    if curve is None:
        return value, outcome
    low, high = curve.bounds(first(support))
    return jnp.clip(value, low, high), jnp.clip(outcome, low, high)


@kept_by_size
def curves(learner, support, x, curve, which):
    """See `drawn_functions`; `which` is a seed and a number, with other functions for each."""
    return drawn_functions(learner, support, x, curve, jr.fold_in(jr.key(which[0]), which[1]))


def scored(learner, support, x, by, key):
    """Score by `by`, information in nats, and expected outcome of each row."""
    post_key, key = jr.split(key)

    def one(support, x):
        mixture = learner.posterior(support, key=post_key).predict(x, key=key, samples=SAMPLES)
        return acquire.score(mixture, by, key=key), mixture.information(), mixture.mean()

    return _averaged(one, support, x)


def _averaged(one, support, x):
    """Value, information and expected outcome over the draws of the features."""
    if x.ndim == 2:
        value, information, expected = one(support, x)
    else:
        value, information, expected = (a.mean(0) for a in _each(one, support, x))
    if expected.shape[1] > 1:  # probabilities: the most likely class
        expected = expected.argmax(-1)[:, None].astype(x.dtype)
    return value, information, expected


score = kept_by_size(scored)


def described(learner, support, x, real, key):
    """`acquire_learned.features`, information in nats, and expected outcome of each row.

    Args:
        real: which rows are no padding, `(n,)`.
    """
    post_key, key = jr.split(key)

    def one(support, x):
        mixture = learner.posterior(support, key=post_key).predict(x, key=key, samples=SAMPLES)
        features = acquire_learned.features(mixture, x, real, support)
        return features, mixture.information(), mixture.mean()

    return _averaged(one, support, x)


describe = kept_by_size(described)


def sought(learner, support, x, real, curve, by, sign, key):
    """Score by `by` where an optimum is sought, best so far, information, expected outcome.

    Args:
        real: which rows are no padding, `(n,)`.
        curve: of the target's units.
        by, sign: see `acquire.sought`.
    """
    post_key, draw_key, key = jr.split(key, 3)

    def one(support, x, samples=SAMPLES, count=acquire.DRAWN.get(by, 0)):
        posterior = learner.posterior(support, key=post_key)
        mixture = posterior.predict(x, key=key, samples=samples)
        functions = None
        if count:
            functions = acquire.functions_at(posterior, x, count, key=draw_key)
        return mixture, functions, mixture.information(), mixture.mean()

    if x.ndim == 2:
        mixture, functions, information, expected = one(support, x)
    else:
        fewer, count = max(SAMPLES // len(x), FEWEST), acquire.DRAWN.get(by, 0)
        count = -(-count // len(x))
        each, functions, information, expected = _each(
            lambda support, x: one(support, x, fewer, count), support, x
        )
        mixture, information, expected = merged(each), information.mean(0), expected.mean(0)
        functions = None if functions is None else functions.reshape(-1, functions.shape[-1])
    observed = first(support)
    best = acquire.best_so_far(observed, mixture, sign, real)
    drawn = None if functions is None else acquire.of_functions(functions, by, sign, real)
    gain = units.gain(curve, observed)
    value = acquire.sought(mixture, drawn, best, by, sign, key=key, gain=gain)
    return value, best, information, expected


seek = kept_by_size(sought)
