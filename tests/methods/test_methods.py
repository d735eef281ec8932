"""Learning: every method beats its initial self with the default settings of `fit`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import draw

from metaprior import Data, Spec, Task, fit, split, training
from metaprior.heads import (
    Autoregressive,
    Categorical,
    Energy,
    Flow,
    Gaussian,
    Implicit,
    MixtureDensity,
    StudentT,
)
from metaprior.infer.descend import AbstractStep, Curvature, Rate, Rates, as_step
from metaprior.methods import METHODS
from metaprior.methods.stack import PENALTY, fit_weights, shot_features
from metaprior.sources import Linear, Sinusoid
from metaprior.system import files

# name, head, nats a query row by which training must improve on the start (about half of what it
# does), options
LEARNERS = [
    ("maml", Gaussian(1), 0.10, {}),
    ("maml", StudentT(1), 0.10, {}),
    ("maml", Categorical(2), 0.03, {}),
    ("maml_fixed", Gaussian(1), 0.10, {}),
    ("protonet", Categorical(2), 0.10, {}),
    ("cnp", Gaussian(1), 0.25, dict(width=64)),
    ("cnp", StudentT(1), 0.25, dict(width=64)),
    ("cnp", Categorical(2), 0.04, dict(width=64)),
    ("acnp", Gaussian(1), 0.25, {}),
    ("acnp", Categorical(2), 0.04, {}),
    ("ar_cnp", Gaussian(1), 0.25, {}),
    ("np", Gaussian(1), 0.15, {}),
    ("np", Gaussian(1), 0.15, dict(objective="elbo")),
    ("np", Categorical(2), 0.05, {}),
    ("anp", Gaussian(1), 0.15, {}),
    ("flow_np", Gaussian(1), 0.15, {}),
    ("recurrent", Gaussian(1), 0.15, {}),
    ("recurrent", Categorical(2), 0.04, {}),
    ("snail", Gaussian(1), 0.15, dict(width=16, depth=1, length=8)),
    ("snail", Gaussian(1), 0.15, {}),
    ("snail", Categorical(2), 0.04, {}),
    ("alpaca", Gaussian(1), 0.25, dict(width=32)),
    ("process", StudentT(1), 0.10, dict(width=8)),
    ("matching", Categorical(2), 0.5, {}),
    ("dkt", Gaussian(1), 0.35, {}),
    ("bmaml", Gaussian(1), 0.15, dict(width=20, depth=2, objective="chaser")),
    ("bmaml", Gaussian(1), 0.15, dict(width=20, depth=2, objective="chaser", subset="last_layer")),
    ("nuts", Gaussian(1), 0.25, dict(width=32, warmup=50, draws=25)),
    ("versa", Gaussian(1), 0.12, dict(width=32, samples=8)),
    ("versa", Categorical(2), 0.07, dict(width=32, samples=8)),
    ("dkt", Categorical(2), 0.02, {}),
    ("process", Categorical(2), 0.02, dict(width=8)),
    ("tnp", Gaussian(1), 0.25, {}),
    ("ensemble", Gaussian(1), 0.10, dict(members=2)),
    ("ensemble", Categorical(2), 0.045, dict(members=2, base="protonet")),
    ("gnp", Gaussian(1), 0.25, dict(width=64)),
    ("agnp", Gaussian(1), 0.4, {}),
    ("metaqda", Categorical(2), 0.3, {}),
]


class Tasks(eqx.Module):
    """Linear tasks with standardised outcomes; classes are the sign of the outcome."""

    linear: Linear
    classes: bool = eqx.field(static=True)

    def __call__(self, key):
        task = self.linear(key)

        def outcome(y):
            return (y > 0).astype(y.dtype) if self.classes else y

        return eqx.tree_at(
            lambda t: (t.support.y, t.query.y),
            task,
            (outcome(task.support.y), outcome(task.query.y)),
        )


@eqx.filter_jit
def held_out(method, tasks: Task, keys):
    """Mean marginal negative log density of a query row, in nats.

    The CRPS where there is no density.
    """

    def one(task, key):
        predictive = method.posterior(task.support, key=key).predict(
            task.query.x, key=key, samples=32
        )
        known = all(part.head.density for part in predictive.parts)
        return (
            -predictive.log_prob(task.query.y) if known else predictive.crps(task.query.y)
        ).mean()

    return jax.vmap(one)(tasks, keys).mean()


@pytest.mark.quick(
    "maml-head0-0.1-options0",
    "protonet-head3-0.1-options3",
    "cnp-head6-0.04-options6",
    "alpaca-head20-0.25-options20",
)
@pytest.mark.parametrize("name,head,margin,options", LEARNERS)
def test_training_helps(name, head, margin, options, key):
    source = Tasks(
        Linear(0.3 * jnp.ones(3), 0.6 * jnp.eye(3), 0.3, support=6, query=8, fewest=0),
        bool(head.classes),
    )
    method = METHODS[name].init(Spec(2, head), key=key, **options)
    fitted = fit(method, source, key=jax.random.key(1), steps=300)
    assert fitted.outcome == "done"
    # Chains take a second a task.
    keys = jax.random.split(jax.random.key(2), 40 if name == "nuts" else 200)
    tasks = jax.jit(jax.vmap(source))(keys)
    before, after = (float(held_out(m, tasks, keys)) for m in (method, fitted.method))
    print(f"\n{name} {type(head).__name__}: {before:.3f} before, {after:.3f} after")
    assert after < before - margin, f"{before:.3f} before, {after:.3f} after"


class Modes(eqx.Module):
    """Two branches, one of them at random for every row: y = ±(1 + 0.3 x).

    A second outcome is ±x / 2 with the same sign. Noise has the standard deviation 0.1. The entropy
    given x is -0.192 nats with one outcome, and 0.884 less with two. The best normal has 1.373
    nats, two of them together 1.700 (both by integration over x).
    """

    outcomes: int = eqx.field(static=True)

    def __call__(self, key):
        x_key, sign_key, noise_key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, (14, 1))
        sign = jax.random.rademacher(sign_key, (14, 1), x.dtype)
        mean = sign * jnp.concatenate([1 + 0.3 * x, 0.5 * x], axis=1)[:, : self.outcomes]
        y = mean + 0.1 * jax.random.normal(noise_key, mean.shape)
        return split(Data(x, y, jnp.ones(14, bool)), 6)


# name, head, steps, what training must improve on the start by (about half of what it does), and
# where it must end: NLL in nats, about a nat below any normal, or CRPS in units of y where there is
# no density
SHAPED = [
    ("mixture", lambda key: MixtureDensity(3), 500, 0.8, 0.2),
    ("flow", lambda key: Flow.init(1, key=key), 500, 0.8, 0.2),
    ("energy", lambda key: Energy.init(1, key=key), 500, 0.8, 0.4),
    ("implicit", lambda key: Implicit.init(1, key=key), 500, 0.025, 0.61),
    (
        "adversarial",
        lambda key: Implicit.init(1, objective="adversarial", key=key),
        1000,
        0.05,
        0.57,
    ),
    ("mixture of 2", lambda key: MixtureDensity(3, 2), 500, 2.0, 0.0),
    (
        "autoregressive of 2",
        lambda key: Autoregressive.init(2, inner=MixtureDensity(2), key=key),
        500,
        2.0,
        0.0,
    ),
    ("flow of 2", lambda key: Flow.init(2, key=key), 500, 1.8, 0.0),
    ("energy of 2", lambda key: Energy.init(2, key=key), 500, 1.4, 0.7),
    ("implicit of 2", lambda key: Implicit.init(2, key=key), 500, 0.03, 0.95),
]


@pytest.mark.quick("mixture")
@pytest.mark.parametrize(
    "name,make,steps,margin,most",
    [pytest.param(*r, id=r[0]) for r in SHAPED],
)
def test_heads_learn_two_modes(name, make, steps, margin, most, key):
    head = make(key)
    source, method = Modes(head.y_dim), METHODS["cnp"].init(Spec(1, head), width=32, key=key)
    fitted = fit(method, source, key=jax.random.key(1), steps=steps, learning_rate=3e-3)
    assert fitted.outcome == "done"
    keys = jax.random.split(jax.random.key(2), 200)
    tasks = jax.jit(jax.vmap(source))(keys)
    before, after = (float(held_out(m, tasks, keys)) for m in (method, fitted.method))
    print(f"\n{name}: {before:.3f} before, {after:.3f} after")
    assert after < before - margin and after < most, f"{before:.3f} before, {after:.3f} after"


def test_sinusoid_is_that_of_the_paper():
    """Zero predictor 4.25, one row in ten thousand no larger than the largest amplitude."""
    tasks = draw(Sinusoid(), jax.random.key(3), 4000)
    assert tasks.support.x.shape == (4000, 10, 1) and bool(tasks.support.mask.all())
    y = jnp.concatenate([tasks.support.y, tasks.query.y], axis=1)
    assert abs(float((y**2).mean()) - 4.2506) < 0.25
    assert float(jnp.abs(y).max()) <= 5.0 and float(jnp.abs(tasks.query.x).max()) <= 5.0


def test_random_shots():
    tasks = draw(Sinusoid(support=4, fewest=1), jax.random.key(4), 500)
    assert set(tasks.support.count.tolist()) == {1, 2, 3, 4}
    with pytest.raises(ValueError, match="between 0 and 4"):
        Sinusoid(support=4, fewest=5)(jax.random.key(0))


@pytest.mark.slow
def test_meta_sgd_learns_its_rates(key):
    """An array of a rate is trained, a float is not."""
    spec = Spec(1, Gaussian(1, scale=0.5**0.5))
    learned = METHODS["maml"].init(spec, key=key, inner_lr=jnp.asarray(0.01), width=16)
    fitted = fit(learned, Sinusoid(), key=key, steps=50)
    assert float(fitted.method.inner_lr.value) != pytest.approx(0.01, abs=1e-4)
    fixed = METHODS["maml"].init(spec, key=key, inner_lr=0.01, width=16)
    assert fit(fixed, Sinusoid(), key=key, steps=50).method.inner_lr == Rate(0.01)


RATES = {"maml": 3e-3, "maml_fixed": 3e-3, "emaml": 3e-3, "ensemble": 3e-3}
RATES |= {"llama": 3e-3, "abml": 3e-3, "vampire": 3e-3, "platipus": 5e-3, "bmaml": 1e-2}
RATES |= {"process": 1e-2, "dkt": 3e-3, "pacoh": 1e-2, "pacoh_nn": 1e-2, "f_pacoh": 1e-2}


@pytest.mark.parametrize("name", [n for n, row in METHODS.items() if row.trainable])
def test_fit_takes_the_learning_rate_of_the_method(name, key, monkeypatch):
    """Unless it is given one."""

    def asked(rate, steps, momentum):
        raise LookupError(rate, momentum)

    monkeypatch.setattr(training, "adam", asked)
    head = Gaussian(1) if "numbers" in METHODS[name].kinds else Categorical(2)
    method = eqx.filter_eval_shape(METHODS[name].init, Spec(1, head), key=key)
    for given, taken in ((None, RATES.get(name, 1e-3)), (0.5, 0.5)):
        with pytest.raises(LookupError) as told:
            fit(method, Sinusoid(), key=key, learning_rate=given)
        assert told.value.args == (taken, 0.9)


def test_momentum_is_what_the_head_bears(key, monkeypatch):
    """Adversaries circle with it; a head in an ensemble is found too."""

    def asked(rate, steps, momentum):
        raise LookupError(momentum)

    monkeypatch.setattr(training, "adam", asked)
    for objective, taken in (("adversarial", 0.0), ("energy score", 0.9)):
        head = Implicit.init(1, objective=objective, key=key)
        for name in ("cnp", "ensemble"):
            method = eqx.filter_eval_shape(METHODS[name].init, Spec(1, head), key=key)
            with pytest.raises(LookupError) as told:
                fit(method, Sinusoid(), key=key)
            assert told.value.args == (taken,)


def test_members_are_trained_at_the_rate_of_one(key):
    ensemble = METHODS["ensemble"].init(Spec(1, Gaussian(1)), base="bmaml", members=2, key=key)
    assert ensemble.learning_rate == METHODS["bmaml"].method.learning_rate == 1e-2


@pytest.mark.parametrize("form", ["number", "array", "a rate a weight", "curvature"])
def test_rates_that_older_files_hold_are_read(form, tmp_path, key):
    """0.1.0 held a bare number, array or tree, and `None` in an optimiser's state."""
    method = METHODS["abml"].init(Spec(1, Gaussian(1)), width=4, depth=1, inner_lr=0.1, key=key)
    rate = {
        "number": 0.1,
        "array": jnp.asarray(0.1),
        "a rate a weight": Rates.init(method.prior, 0.1).values,
        "curvature": Curvature.init(method.prior, 0.1, 5),
    }[form]
    old = jax.tree.map(lambda leaf: leaf, method)
    object.__setattr__(old, "inner_lr", rate)
    moments = optax.adam(1e-3).init(eqx.filter(old, eqx.is_inexact_array))
    files.save(tmp_path / "old", (old, moments))
    found, state = files.load(tmp_path / "old")
    assert found.inner_lr == as_step(rate) and isinstance(found.inner_lr, AbstractStep)
    wanted = optax.adam(1e-3).init(eqx.filter(found, eqx.is_inexact_array))
    assert jax.tree.structure(state) == jax.tree.structure(wanted)
    files.save(tmp_path / "new", (found, state))
    assert eqx.tree_equal(files.load(tmp_path / "new"), (found, state))
    task = Task(Data.of([0.0], [1.0]), Data.of([1.0], [2.0]))
    assert eqx.filter_eval_shape(found.loss, task, key=key).shape == ()


def test_weights_of_a_stack_are_where_the_slope_vanishes():
    """Of the objective as the docstring says it, in JAX, with rows that do not exist."""
    rng = np.random.default_rng(0)
    log_p = rng.normal(-2, 2, (80, 6, 3)).astype(np.float32)
    log_p[..., 1] += 1  # one is better
    mask, shots = rng.random((80, 6)) < 0.8, np.repeat([0, 2, 10, 20], 20)
    log_p[~mask] = np.nan
    found = fit_weights(log_p, mask, shots, 10)

    def loss(c):
        weight = mask / np.maximum(mask.sum(1, keepdims=True), 1) / 80
        log_w = jax.nn.log_softmax(shot_features(jnp.asarray(shots, float)) @ c.T)
        mixed = jax.nn.logsumexp(np.where(mask[..., None], log_p, 0.0) + log_w[:, None], axis=-1)
        return PENALTY * (c * c).sum() / 10 - (weight * mixed).sum()

    assert abs(jax.grad(loss)(found)).max() < 1e-4 < abs(jax.grad(loss)(0 * found)).max() / 100
    assert found[1, 0] > max(found[0, 0], found[2, 0])
