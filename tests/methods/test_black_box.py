"""Methods that read the support as a sequence, and autoregressive mode against exact joints."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draw

from metaprior import Data, Spec, fit
from metaprior.heads import Categorical, Gaussian, StudentT
from metaprior.method import AbstractLearner
from metaprior.methods import CNP, METHODS, SNAIL, ALPaCA, AutoregressiveMode, Process, ProtoNet
from metaprior.methods.autoregressive_mode import FUNCTIONS
from metaprior.methods.snail import Sequence
from metaprior.mixture import Mixture
from metaprior.nets.attention import Attention
from metaprior.nets.kernels import gram
from metaprior.nets.mlp import apply
from metaprior.nets.sets import sequence
from metaprior.posterior import AbstractPosterior
from metaprior.protocols.oracles.pointwise import KnownByPoint
from metaprior.sources import GP
from metaprior.testing import example_task


@pytest.mark.quick("acnp", "anp")
@pytest.mark.parametrize("name", ["recurrent", "snail", "acnp", "anp"])
def test_padding_may_be_anywhere(name, key):
    """Three rows, in slots 0, 1, 2 of 3 and in slots 1, 2 and 5 of 6.

    Other numbers are between them.
    """
    options = dict(width=8) | (dict(length=4) if name == "snail" else {})
    method = METHODS[name].init(Spec(2, Gaussian(1)), key=key, **options)
    task = example_task(key, Gaussian(1), 2, 3)
    plain = Data(task.support.x[:3], task.support.y[:3], jnp.ones(3, bool))
    slots = jnp.asarray([1, 2, 5])

    def spread(a):
        return jnp.full((6, a.shape[1]), 50.0).at[slots].set(a)

    apart = Data(spread(plain.x), spread(plain.y), jnp.zeros(6, bool).at[slots].set(True))

    @eqx.filter_jit
    def look(support):
        return (
            method.posterior(support, key=key)
            .predict(task.query.x, key=key, samples=4)
            .parts[0]
            .params
        )

    np.testing.assert_allclose(look(apart), look(plain), atol=1e-5)


def test_attention_computes_only_what_is_read(key):
    """Query points alone are what they are among all rows, in value and gradient.

    They take fewer operations.
    """
    encoder = Attention.init(Spec(1, Gaussian(1)), width=16, depth=2, key=key)
    tasks = draw(GP("eq", fewest=10, support=10, query=10), key, 4)
    arrays, static = eqx.partition(encoder, eqx.is_inexact_array)

    def squared(read):
        def rows(a):
            return jax.vmap(lambda t: read(eqx.combine(a, static), t))(tasks)

        return jax.jit(jax.value_and_grad(lambda a: (rows(a) ** 2).mean())).lower(arrays).compile()

    everything = squared(lambda e, t: e.read(t.support, t.query.x)[11:])
    queries = squared(lambda e, t: e(t.support, t.query.x))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        everything(arrays),
        queries(arrays),
    )
    assert queries.cost_analysis()["flops"] < 0.9 * everything.cost_analysis()["flops"]


def test_snail_reads_a_query_point_as_the_last_of_its_sequence(key):
    """The query point put into the sequence itself.

    Causal blocks give it what they give query points on their own.
    """
    snail = SNAIL.init(Spec(2, Gaussian(1)), key=key, width=4, length=4)
    task = example_task(key, Gaussian(1), 2, 6)

    @eqx.filter_jit
    def look(support, x):
        h = apply(snail.each, sequence(support, x[:1], 0))
        inside = Sequence(h, h[:1], jnp.asarray(6))
        for block in snail.blocks:
            inside = block(inside)
        return snail.raw(support, x)[0], snail.last(inside.past[6])

    np.testing.assert_allclose(*look(task.support, task.query.x), atol=1e-6)


def test_snail_needs_a_length():
    with pytest.raises(ValueError, match="at least 2 rows; got 1"):
        SNAIL.init(Spec(2, Gaussian(1)), key=jax.random.key(0), length=1)


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(samples=0), "at least 1 draw"),
        (dict(objective="map"), "objective 'ml' or 'elbo'; got 'map'"),
        (dict(q="cauchy"), "q 'normal' or 'flow'"),
        (dict(width=12), "no multiple of 8"),
    ],
)
def test_neural_process_options(options, message, key):
    with pytest.raises(ValueError, match=message):
        METHODS["np"].init(Spec(2, Gaussian(1)), key=key, **options)


def test_deterministic_path_of_a_deep_set(key):
    """What the support says reaches the query also where z does not: two supports, the same z."""
    options = dict(width=8, depth=1, latent=2, encoder="deep set", deterministic=True)
    method = METHODS["np"].init(Spec(2, Gaussian(1)), key=key, **options)
    one, other = (example_task(jax.random.key(i), Gaussian(1), 2, 4).support for i in (1, 2))
    x, z = jax.numpy.zeros((3, 2)), jax.numpy.zeros(2)
    assert not jax.numpy.allclose(method.raw(one, x, z), method.raw(other, x, z))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ml", "elbo"])
def test_flow_is_trained(objective, key):
    """Finite gradients, which reach the flow's own networks."""
    options = dict(width=8, depth=1, latent=2, samples=2, encoder="deep set")
    method = METHODS["flow_np"].init(Spec(2, Gaussian(1)), key=key, objective=objective, **options)
    task = example_task(key, Gaussian(1), 2, 4)
    moving, fixed = eqx.partition(method, eqx.is_inexact_array)

    def loss(p):
        return eqx.combine(p, fixed).loss(task, key=key)

    value, gradient = jax.jit(jax.value_and_grad(loss))(moving)
    assert bool(jnp.isfinite(value)) and all(
        bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(gradient)
    )
    assert all(float(jnp.abs(a).max()) > 0 for a in jax.tree.leaves(gradient.latent))


class Oracle(AbstractLearner):
    """The exact posterior of a source's tasks."""

    source: GP

    def posterior(self, support, *, key):
        return self.source.exact(support)


def _learner(name):
    if name == "gp":
        return Oracle(GP("eq", noise=0.3)), 1
    if name == "alpaca":
        return ALPaCA.init(Spec(2, Gaussian(1)), key=jax.random.key(0), width=8, size=4), 2
    return Process.init(Spec(2, StudentT(1)), key=jax.random.key(0), width=8, features=4), 2


@pytest.mark.parametrize("name", ["gp", "alpaca", "process"])
def test_chain_rule_is_the_exact_joint(name, x64):
    """Where predictions are consistent, every order gives the joint density.

    A row outside the mask counts for nothing.
    """
    learner, x_dim = _learner(name)
    task = example_task(jax.random.key(1), Gaussian(1), x_dim, 4)
    query = Data(task.query.x, task.query.y, jnp.asarray([True, True, False, True, True]))
    key = jax.random.key(2)

    @eqx.filter_jit
    def joint(learner, key):
        return learner.posterior(task.support, key=key).joint_log_prob(query, key=key, samples=1)

    chain = [joint(AutoregressiveMode(learner), jax.random.key(s)) for s in range(3)]
    np.testing.assert_allclose(chain, joint(learner, key), atol=1e-4)


@pytest.mark.slow
def test_draws_have_the_exact_covariance(key):
    """The covariance of 2,000 draws, to 4 standard deviations of its error.

    The error of a covariance of at most 1.1 has a standard deviation of at most 0.035.
    """
    source = GP("eq", noise=0.3)
    support = Data.of([[-0.3], [0.4]], [1.0, -0.5])
    x = jnp.asarray([[-0.1], [0.2], [0.5], [0.2]])
    mean, v = source.exact(support)._state(x)
    cov = gram(source.kernel, x, x) - v.T @ v

    @jax.jit
    def look(key):
        posterior = AutoregressiveMode(Oracle(source)).posterior(support, key=key)
        outcomes = draw(lambda k: posterior.outcomes(x, key=k)[:, 0], key, 2000)
        return outcomes, posterior.sample(x, key=key, samples=2000).parts[0].params[:, :, 0, 0]

    outcomes, drawn = look(key)
    np.testing.assert_allclose(outcomes.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(jnp.cov(outcomes.T), cov + 0.3**2 * jnp.eye(4), atol=0.14)
    np.testing.assert_allclose(jnp.cov(drawn.T), cov, atol=0.14)
    np.testing.assert_allclose(
        drawn[:, 1], drawn[:, 3], atol=0.02
    )  # one function: equal at equal x


def test_draws_of_a_network_are_functions(key):
    """Components are the network's own functions given outcomes that were drawn together."""
    cnp = CNP.init(Spec(2, Gaussian(1)), key=key, width=8)
    task = example_task(key, Gaussian(1), 2, 4)

    @eqx.filter_jit
    def look(cnp, support, x):
        posterior = AutoregressiveMode(cnp).posterior(support, key=key)
        drawn = posterior.sample(x, key=key, samples=3).parts[0].params
        k = jax.random.split(jax.random.split(key, 3)[1], 3)[0]
        shown = Data(x, posterior.outcomes(x, key=k), jnp.ones(5, bool))
        return drawn, posterior.given(shown, key).predict(x, key=key, samples=1).parts[0].params

    drawn, again = look(cnp, task.support, task.query.x)
    assert drawn.shape == (3, 5, 1, 2)
    np.testing.assert_allclose(drawn[1], again[0], atol=1e-5)


def test_drawn_functions_tell_what_more_rows_could_remove(key):
    """Of a base that says nothing of it: the exact variance of the function, as sample variances of
    few functions give it, of which none may exceed that of the outcome. The marginals are the
    base's own.
    """
    source = GP("eq", noise=0.1)
    support = Data.of([[-0.3], [0.4]], [1.0, -0.5])
    x = jnp.asarray([[-0.3], [0.0], [0.6], [3.0]])
    mean, v = source.exact(support)._state(x)
    exact = jnp.diagonal(gram(source.kernel, x, x) - v.T @ v)

    @jax.jit
    def look(key):
        def one(k):
            posterior = AutoregressiveMode(KnownByPoint(source)).posterior(support, key=k)
            found = posterior.predict(x, key=k, samples=1)
            return found.epistemic()[:, 0], found.mean()[:, 0], found.variance()[:, 0]

        return jax.vmap(one)(jax.random.split(key, 100))

    apart, means, variance = look(key)
    np.testing.assert_allclose(means, jnp.broadcast_to(mean, means.shape), atol=1e-5)
    np.testing.assert_allclose(variance[0], exact + 0.1**2, atol=1e-5)
    chi = np.random.default_rng(0).chisquare(FUNCTIONS - 1, (100_000, 1)) / (FUNCTIONS - 1)
    expected = np.minimum(chi * np.asarray(exact), np.asarray(variance[0])).mean(0)
    # 100 of them: 4 % of error. What is drawn are means that have seen noisy outcomes.
    np.testing.assert_allclose(apart.mean(0), expected, rtol=0.15, atol=0.01)


class OneOfTwo(eqx.Module):
    """Two functions of x, as likely at first, that give two classes: their marginals alone."""

    def functions(self, x):
        """Probability of the second class under each, `(2, n)`."""
        p = 0.5 + 0.4 * jnp.sin(3 * x[:, 0])
        return jnp.stack([p, 1 - p])

    def weights(self, support):
        """Of the two, by Bayes' rule."""
        p = self.functions(support.x)
        came = jnp.log(jnp.where(support.y[:, 0] == 1, p, 1 - p))
        return jax.nn.softmax(jnp.where(support.mask, came, 0.0).sum(1))

    def posterior(self, support, *, key):
        return TwoMixed(self, self.weights(support))


class TwoMixed(AbstractPosterior):
    learner: OneOfTwo
    weights: Any

    def predict(self, x, *, key, samples):
        p = self.weights @ self.learner.functions(x)
        return Mixture.equal(Categorical(2), jnp.log(jnp.stack([1 - p, p], -1))[None])

    sample = predict

    def joint_log_prob(self, data, *, key, samples):
        return self.predict(data.x, key=key, samples=samples).log_prob(data.y).sum()


def test_drawn_functions_of_classes_tell_what_more_rows_could_remove(key):
    """Twelve points tell two functions apart, so that draws are one or the other. Then the variance
    of a probability is w (1 - w) (p - q)², here with w of a half and of Bayes' rule after one row;
    information is half of its ratio to p, within a seventh of the exact.
    """
    learner, x = OneOfTwo(), jnp.linspace(0.2, 4.0, 12)[:, None]
    support = Data.of([[0.5]], [1.0])
    p, q = learner.functions(x)
    for count in (0, 1):
        shown = Data(support.x, support.y, support.mask & (count > 0))
        w = learner.weights(shown)[0]

        def look(k, shown=shown):
            posterior = AutoregressiveMode(learner).posterior(shown, key=k)
            found = posterior.predict(x, key=k, samples=1)
            return found.mean()[:, 1], found.epistemic()[:, 1], found.information()

        mean, apart, nats = jax.jit(jax.vmap(look))(jax.random.split(key, 60))
        np.testing.assert_allclose(mean[0], w * p + (1 - w) * q, atol=1e-5)
        exact = w * (1 - w) * (p - q) ** 2
        np.testing.assert_allclose(apart.mean(0), exact, rtol=0.15, atol=0.01)
        whole = w * p + (1 - w) * q

        def entropy(a):
            return -a * jnp.log(a) - (1 - a) * jnp.log(1 - a)

        wanted = entropy(whole) - w * entropy(p) - (1 - w) * entropy(q)
        np.testing.assert_allclose(nats.mean(0), wanted, rtol=0.2, atol=0.02)


def test_classes_are_fed_back_as_classes(key):
    protonet = ProtoNet.init(Spec(2, Categorical(3)), key=key, width=8)
    task = example_task(key, Categorical(3), 2, 4)

    @eqx.filter_jit
    def look(protonet, support, x):
        posterior = AutoregressiveMode(protonet).posterior(support, key=key)
        return posterior.outcomes(x, key=key), posterior.sample(x, key=key, samples=3).mean()

    outcomes, probabilities = look(protonet, task.support, task.query.x)
    assert set(np.unique(outcomes)) <= {0.0, 1.0, 2.0}
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-5)


def test_classes_by_other_names_are_the_same_classes(key):
    """Logits of classes move with their numbers, and a class without rows has one too."""
    from metaprior.nets.sets import ByClass

    net = ByClass.init(2, 4, width=8, depth=1, key=key)
    task = example_task(key, Categorical(3), 2, 6)
    support, x = task.support, task.query.x
    logits = net(support, x)
    order = jnp.asarray([2, 0, 3, 1])
    other = Data(support.x, order[support.y.astype(int)].astype(float), support.mask)
    np.testing.assert_allclose(net(other, x)[:, order], logits, atol=1e-5)
    assert jnp.isfinite(logits).all() and not jnp.allclose(logits[:, 3], logits[:, 0])


def test_a_class_near_by_is_the_more_probable_before_training(key):
    """Among four classes of one row each; numbers in padding do not count."""
    from metaprior.nets.sets import ByClass

    net = ByClass.init(2, 4, width=8, depth=1, key=key)
    x = 3.0 * jnp.asarray([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [9.0, 9.0]])
    support = Data(x, jnp.asarray([[0.0], [1.0], [2.0], [3.0], [0.0]]), jnp.arange(5) < 4)
    assert net(support, x[:4]).argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnp", "np", "recurrent"])
def test_black_boxes_tell_classes_apart(name, key):
    """Five normal classes, five rows each: 80.9 % are possible, of 10,000 rows ± 0.4.

    With one summary of the rows of all classes they had 25, 26 and 35 %.
    """
    from metaprior.protocols.reliability.data import BLOBS, settings_of

    found = settings_of({"blobs": True}, None)[BLOBS]
    method = METHODS[name].init(found.spec, key=key)
    learner = fit(method, found.train, key=jax.random.key(1), steps=600).method
    tasks = jax.jit(jax.vmap(found.test))(jax.random.split(jax.random.key(2), 400))

    @jax.jit
    def right(task):
        p = learner.posterior(task.support, key=key).predict(task.query.x, key=key, samples=32)
        return (p.mean().argmax(-1) == task.query.y[:, 0]).mean()

    assert float(jax.lax.map(right, tasks, batch_size=50).mean()) >= 0.79


def test_a_class_is_read_from_its_own_rows_in_their_order(key):
    """Logits of classes move with their numbers; the order of a class's rows counts, between
    classes it does not.
    """
    method = METHODS["recurrent"].init(Spec(2, Categorical(3)), key=key, width=8)
    x, y = jax.random.normal(key, (4, 2)), jnp.asarray([[0.0], [1.0], [0.0], [1.0]])

    @eqx.filter_jit
    def look(x, y):
        posterior = method.posterior(Data(x, y, jnp.ones(4, bool)), key=key)
        return posterior.predict(jnp.ones((1, 2)), key=key, samples=1).mean()[0]

    said, swapped = look(x, y), jnp.asarray([1, 0, 3, 2])
    np.testing.assert_allclose(look(x[swapped], y[swapped]), said, atol=1e-6)
    np.testing.assert_allclose(look(x, 2 - y), said[::-1], atol=1e-6)
    assert not jnp.allclose(look(x[::-1], y[::-1]), said, atol=1e-4)
