"""Building blocks: the inner loop and diagonal normals."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import draw
from scipy import optimize, stats

from metaprior.heads import Categorical, Gaussian, Ordinal, StudentT
from metaprior.infer import gp
from metaprior.infer.cholesky import factorise
from metaprior.infer.descend import LONGEST, Curvature, Rate, Rates, as_step, descend
from metaprior.infer.gaussian import Diagonal, Full, LowRank
from metaprior.infer.gp import contrast, factorise_rows
from metaprior.infer.laplace import fisher_roots, laplace, log_det
from metaprior.infer.rows import outputs_after_step, takes
from metaprior.infer.svgd import bandwidth, direction, svgd
from metaprior.nets.mlp import apply, mlp


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_descent_is_a_map_estimate(x64, steps):
    """Truncated descent on a linear model is a MAP estimate under a normal prior.

    Santos 1996; Grant et al. 2018, section 3.
    """
    rng = np.random.default_rng(0)
    x, y, start, rate = rng.normal(size=(7, 3)), rng.normal(size=7), rng.normal(size=3), 0.05

    def loss(w):
        return 0.5 * ((jnp.asarray(y) - jnp.asarray(x) @ w) ** 2).sum()

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

    def outer(v):
        return _curved(descend(_curved, unravel(v[:-1]), v[-1], steps)) + v[0]

    at = jnp.concatenate([flat, jnp.asarray([0.1])])
    gradient = jax.grad(outer)(at)
    step = 1e-6 * jnp.eye(at.size)
    numeric = jnp.stack([(outer(at + e) - outer(at - e)) / 2e-6 for e in step])
    np.testing.assert_allclose(gradient, numeric, atol=1e-7)


def test_first_order_stops_the_inner_gradient_only(x64):
    inner, outer = lambda w: w**4, lambda w: w**2
    both = [
        jax.grad(lambda w: outer(descend(inner, w, 0.1, first_order=f)))(jnp.asarray(1.0))
        for f in (False, True)
    ]
    adapted = 1.0 - 0.1 * 4.0
    np.testing.assert_allclose(both, [2 * adapted * (1 - 0.1 * 12.0), 2 * adapted])


BY_ROWS = {  # rows of the support, options
    "a few rows": (4, {}),
    "one row": (1, {}),
    "no row": (0, {}),
    "more rows than units": (30, {}),
    "first order": (4, {"first_order": True}),
    "learned activation": (4, {"activation": eqx.nn.PReLU()}),
}


@pytest.mark.parametrize("rows, options", BY_ROWS.values(), ids=BY_ROWS)
def test_a_step_by_rows_is_a_step(rows, options, x64, key):
    """The same outputs and derivatives: nothing but the order of the sums differs."""
    keys = jax.random.split(key, 5)
    options = {"activation": jnp.tanh} | options
    net = mlp(2, 3, 12, 2, key=keys[0], activation=options.pop("activation"))
    shapes = ((rows, 2), (rows, 3), (5, 2), (5, 3))
    x, y, query, along = (jax.random.normal(k, s) for k, s in zip(keys[1:], shapes))

    def risk(raw, y):
        return ((raw - y) ** 2).sum() / 7

    def without_weights(net, x, y, query, rate):
        return outputs_after_step(lambda raw: risk(raw, y), net, x, query, Rate(rate), **options)

    def with_weights(net, x, y, query, rate):
        adapted = descend(lambda w: risk(apply(w, x), y), net, rate, **options)
        return apply(adapted, query)

    arguments = eqx.filter((net, x, y, query, jnp.asarray(0.3)), eqx.is_inexact_array)
    rest = eqx.filter(net, eqx.is_inexact_array, inverse=True)

    def both(a):
        """Value and gradient of either: compiled together, as single operations take longer."""
        return [
            jax.value_and_grad(lambda a: (along * f(eqx.combine(a[0], rest), *a[1:])).sum())(a)
            for f in (without_weights, with_weights)
        ]

    found, expected = jax.jit(both)(arguments)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_layers_have_their_own_activations(key):
    """A learned one, with a slope for each layer and unit, as equinox's own call has it."""
    net = eqx.nn.MLP(2, 3, 4, 2, eqx.nn.PReLU(), key=key)
    slopes = jnp.linspace(0.1, 0.9, 8).reshape(2, 4)
    net = eqx.tree_at(lambda n: n.activation.negative_slope, net, slopes)
    x = jax.random.normal(key, (5, 2))
    np.testing.assert_allclose(apply(net, x), jax.vmap(net)(x), rtol=1e-5, atol=1e-6)


def test_what_a_step_by_rows_takes(key):
    net = mlp(1, 1, 40, 2, key=key)
    assert takes(net, Rate(0.01), 1) and takes(net, Rate(jnp.asarray(0.01)), 1)
    assert not takes(net, Rate(0.01), 2) and not takes(net, Rate(0.01), 0)
    assert not takes(net, Rates.init(net, 0.01), 1)
    assert not takes(eqx.nn.MLP(1, 1, 4, 1, use_bias=False, key=key), Rate(0.01), 1)
    assert not takes(eqx.nn.Linear(1, 1, key=key), Rate(0.01), 1)


def test_few_steps_are_written_out(x64, key, monkeypatch):
    """The numbers of the loop, with a rate for each step, forwards and backwards; no loop is left
    in the program.
    """
    w = jax.random.normal(key, (4, 2))
    rate = Curvature.init(w[0], 0.1, 3)
    rate = eqx.tree_at(lambda r: r.rates, rate, jnp.arange(6.0).reshape(3, 2) / 10)

    def both(w):
        along = descend(lambda v: ((v**2 - 1) ** 2).sum(), w[0], rate, 3)
        return (along + svgd(lambda v: -((v**2 - 1) ** 2).sum(), w, rate, 3)).sum()

    def look():
        program = jax.jit(jax.value_and_grad(both))
        return "while" in program.lower(w).as_text(), *program(w)

    looped, value, gradient = look()
    monkeypatch.setattr("metaprior.infer.descend.FEW", 0)
    looped_too, expected, along = look()
    assert not looped and looped_too
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, along, rtol=1e-10)


def test_a_rate_a_weight():
    w = {"a": jnp.ones(2), "b": jnp.ones(())}
    rates = {"a": jnp.asarray([0.0, 0.5]), "b": jnp.asarray(1.0)}
    moved = descend(lambda w: w["a"].sum() + w["b"], w, rates)
    np.testing.assert_allclose(moved["a"], [1.0, 0.5])
    np.testing.assert_allclose(moved["b"], 0.0)
    with pytest.raises(ValueError, match="structure of the weights"):
        descend(lambda w: w["a"].sum(), w, {"a": 0.1, "c": 0.2})


def test_what_users_give_as_a_rate_is_one_type(key):
    """Numbers and arrays stay what they are, so that the first are fixed and the second learned."""
    w = {"a": jnp.ones(2), "b": jnp.ones(())}
    assert as_step(0.1) == Rate(0.1) and isinstance(as_step(0.1).value, float)
    assert eqx.is_array(as_step(jnp.asarray(0.1)).value)
    rates = Rates.init(w, 0.5)
    assert as_step(rates) is rates and as_step(rates.values) == rates
    curvature = Curvature.init(w, 0.5, 1)
    moved = [
        descend(lambda w: w["a"].sum() + w["b"], w, rate)
        for rate in (0.5, jnp.asarray(0.5), Rate(0.5), rates, rates.values, curvature)
    ]
    for one in moved:
        np.testing.assert_allclose(one["a"], [0.5, 0.5])
        np.testing.assert_allclose(one["b"], 0.5)


@pytest.mark.parametrize("walk", [descend, svgd])
def test_a_curvature_has_no_rates_beyond_its_steps(walk):
    """It says so; an index beyond an array's end would take the last one again."""
    w = jnp.ones((1, 3))
    curvature = Curvature.init(w if walk is descend else w[0], 0.1, steps=2)
    with pytest.raises(ValueError, match="steps it was made for, 2; the descent makes 3"):
        jax.jit(lambda w: walk(lambda v: (v**2).sum(), w, curvature, 3))(w)
    assert walk(lambda v: (v**2).sum(), w, curvature, 1).shape == w.shape


def test_curvature_multiplies_along_every_axis(key):
    """rates ∘ (A G B) for a matrix, rates ∘ A g for a vector, by hand.

    It starts as one rate for all.
    """
    w = {"m": jnp.ones((2, 3)), "v": jnp.ones(2), "s": jnp.ones(()), "long": jnp.ones(LONGEST + 1)}
    gradient = jax.tree.map(lambda a: jax.random.normal(key, a.shape), w)
    start = Curvature.init(w, 0.3, steps=2)
    for a, b in zip(jax.tree.leaves(start(gradient, 1)), jax.tree.leaves(gradient)):
        np.testing.assert_allclose(a, 0.3 * b, rtol=1e-6)
    moved = jax.tree.map(
        lambda a: a + jax.random.normal(jax.random.fold_in(key, a.size), a.shape), start
    )
    step = moved(gradient, 1)
    of = dict(zip(sorted(w), moved.turns))  # leaves of a dictionary are in the order of its keys
    np.testing.assert_allclose(
        step["m"], moved.rates["m"][1] * (of["m"][0] @ gradient["m"] @ of["m"][1].T), rtol=1e-5
    )
    np.testing.assert_allclose(
        step["v"], moved.rates["v"][1] * (of["v"][0] @ gradient["v"]), rtol=1e-5
    )
    np.testing.assert_allclose(step["s"], moved.rates["s"][1] * gradient["s"], rtol=1e-6)
    assert of["long"] == (None,)  # too long for a matrix
    some = Curvature.init(Diagonal(w, w), 0.3, steps=1, turned=Diagonal(True, False))
    assert [len(turns) for turns in some.turns] == [1, 2, 0, 1, 0, 0, 0, 0]


def test_curvature_in_descent_and_in_stein_descent(key):
    """One particle moves as descent does; both use the rates of their step."""
    w = {"m": jnp.ones((2, 3)), "v": jnp.ones(2)}
    curvature = Curvature.init(w, 0.1, steps=2)
    curvature = eqx.tree_at(
        lambda c: c.rates["v"], curvature, jnp.asarray([[0.0, 0.0], [0.5, 0.5]])
    )

    def loss(w):
        return 0.5 * (w["m"] ** 2).sum() + w["v"].sum()

    moved = descend(loss, w, curvature, 2)
    np.testing.assert_allclose(moved["m"], 0.9**2 * w["m"], rtol=1e-6)
    np.testing.assert_allclose(moved["v"], [0.5, 0.5])
    alone = svgd(lambda w: -loss(w), jax.tree.map(lambda a: a[None], w), curvature, 2)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(moved)):
        np.testing.assert_allclose(a[0], b, rtol=1e-6)


def test_diagonal_against_full_covariances(key):
    """The KL of normals with covariance matrices, and scipy's density."""
    keys = jax.random.split(key, 5)

    def draw(k):
        return {"a": jax.random.normal(k, (3, 2)), "b": jax.random.normal(k)}

    p, q, w = (
        Diagonal(draw(keys[0]), draw(keys[1])),
        Diagonal(draw(keys[2]), draw(keys[3])),
        draw(keys[4]),
    )

    def flat(tree):
        return np.asarray(jax.flatten_util.ravel_pytree(tree)[0], float)

    gap, s, s0 = (
        flat(p.mean) - flat(q.mean),
        np.diag(np.exp(2 * flat(p.log_std))),
        np.diag(np.exp(2 * flat(q.log_std))),
    )
    inverse = np.linalg.inv(s0)
    determinants = np.linalg.slogdet(s0)[1] - np.linalg.slogdet(s)[1]
    kl = 0.5 * (np.trace(inverse @ s) + gap @ inverse @ gap - gap.size + determinants)
    np.testing.assert_allclose(p.kl(q), kl, rtol=1e-5)
    np.testing.assert_allclose(
        p.log_prob(w), stats.multivariate_normal.logpdf(flat(w), flat(p.mean), s), rtol=1e-5
    )
    np.testing.assert_allclose(p.kl(p), 0.0, atol=1e-6)


def test_diagonal_over_a_network(key):
    net = eqx.nn.MLP(2, 1, 4, 1, key=key)
    q = Diagonal.around(net, 0.5)
    draws = draw(lambda k: q.sample(key=k)(jnp.ones(2)), key, 3)
    assert draws.shape == (3, 1) and float(draws.std()) > 0
    weights = draw(lambda k: q.sample(key=k).layers[0].weight, key, 4000)
    np.testing.assert_allclose(weights.std(0), 0.5, atol=0.05)
    np.testing.assert_allclose(weights.mean(0), net.layers[0].weight, atol=0.05)


@pytest.mark.quick("two", "ordered")
@pytest.mark.parametrize("kind", ["two", "three", "five", "ordered"])
def test_laplace_against_the_dense_hessian(x64, kind):
    """Mode, precision, evidence and its derivative, from the curvature written out in full.

    Two rows are padding.
    """
    n, mask = 7, jnp.arange(7) < 5
    heads = {"two": Categorical(2), "three": Categorical(3), "five": Categorical(5)}
    head = (heads | {"ordered": Ordinal.init(4, [3, 1, 5, 2])})[kind]
    classes, a = head.classes, contrast(head)
    x, mean = (
        jax.random.normal(jax.random.key(0), (n, 2)),
        jax.random.normal(jax.random.key(2), (n, head.raw_dim)),
    )
    y = jax.random.randint(jax.random.key(1), (n,), 0, classes).astype(float)
    k = jnp.exp(-0.5 * ((x[:, None] - x[None]) ** 2).sum(-1)) + 1e-6 * jnp.eye(n)

    def run(s):
        lower = factorise_rows(s * k, mask).lower
        cuts = jax.tree.map(lambda c: 0.5 * s * c, head)  # which only classes in an order have
        return gp.laplace(lower, s * mean, cuts, y, mask, steps=200)

    found, factor = eqx.filter_jit(run)(2.0), factorise_rows(2.0 * k, mask).lower
    latents = len(a)

    def log_joint(flat):
        u = flat.reshape(latents, n).T
        f = 2.0 * mean + factor @ u @ a
        return (head.log_prob(head.params(f), y[:, None]) * mask).sum() - 0.5 * (u * u).sum()

    mode = found.mode.T.reshape(-1)
    np.testing.assert_allclose(jax.jit(jax.grad(log_joint))(mode), 0.0, atol=1e-9)
    h = -jax.jit(jax.hessian(log_joint))(mode)
    np.testing.assert_allclose(
        found.evidence, log_joint(mode) - 0.5 * np.linalg.slogdet(h)[1], atol=1e-9
    )
    v = jax.random.normal(jax.random.key(3), (n, 4))
    b = np.kron(np.eye(latents), v)
    dense = (b.T @ np.linalg.inv(h) @ b).reshape(latents, 4, latents, 4)
    np.testing.assert_allclose(
        found.covariance(v), np.stack([dense[:, q, :, q] for q in range(4)]), atol=1e-9
    )
    white = jnp.eye(n * (latents + 1)).reshape(n, latents + 1, -1)  # a draw is linear in its noise
    root = jnp.moveaxis(found.draw(white) - found.mode[:, :, None], 0, 1).reshape(latents * n, -1)
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(h), atol=1e-9)

    def evidence(s):
        return run(s).evidence

    low, high = (jax.jit(evidence)(s) for s in (2.0 - 1e-5, 2.0 + 1e-5))
    np.testing.assert_allclose(jax.jit(jax.grad(evidence))(2.0), (high - low) / 2e-5, atol=1e-6)


def test_the_mode_of_classes_is_found_where_the_prior_is_wide(x64):
    """Newton's steps leave it by hundreds of nats: 20 classes, latents of deviation 3.

    The log joint is concave; at its maximum it is that of a long ascent by another library.
    """
    n, classes = 12, 20
    x = jax.random.normal(jax.random.key(0), (n, 2))
    k = 10.0 * jnp.exp(-((x[:, None] - x[None]) ** 2).sum(-1)) + 1e-3 * jnp.eye(n)
    lower, mean = factorise(k).lower, jax.random.normal(jax.random.key(2), (n, classes))
    drawn = mean + lower @ jax.random.normal(jax.random.key(3), (n, classes))
    y = jax.random.categorical(jax.random.key(4), drawn).astype(float)
    hot = jax.nn.one_hot(y.astype(int), classes)

    @jax.jit
    def loss(flat):
        u = flat.reshape(n, classes)
        return 0.5 * (u * u).sum() - (jax.nn.log_softmax(mean + lower @ u) * hot).sum()

    best = optimize.minimize(jax.value_and_grad(loss), np.zeros(n * classes), jac=True)
    mask = jnp.ones(n, bool)
    found = eqx.filter_jit(gp.laplace)(lower, mean, Categorical(classes), y, mask)
    assert 0 <= loss(found.mode.reshape(-1)) - best.fun < 1e-3


def _pair(seed, d=4):
    """A mean and a covariance."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    return rng.normal(size=d), root @ root.T + 0.1 * np.eye(d)


@pytest.mark.parametrize("kind", ["full", "low rank"])
def test_correlated_normals_against_scipy(kind, x64):
    """Log density and KL as written with dense matrices; moments of 40,000 draws.

    The moments lie within 5 standard errors.
    """
    mean, cov = _pair(0)
    tree = {"a": jnp.asarray(mean[:1]), "b": jnp.asarray(mean[1:]), "name": "fixed"}
    if kind == "full":
        q = Full(tree, jnp.linalg.cholesky(jnp.linalg.inv(jnp.asarray(cov))))
        other_mean, other_cov = _pair(1)
        other = Full(
            jnp.asarray(other_mean), jnp.linalg.cholesky(jnp.linalg.inv(jnp.asarray(other_cov)))
        )
    else:
        factor = np.random.default_rng(2).normal(size=(4, 2))
        log_std = np.array([-0.5, 0.2, 0.0, -1.0])
        cov = factor @ factor.T + np.diag(np.exp(2 * log_std))
        q = LowRank(tree, jnp.asarray(factor), jnp.asarray(log_std))
        other_mean, spread = np.array([0.3, 0.0, -1.0, 0.5]), np.array([0.4, -0.2, 0.1, 0.9])
        other_cov = np.diag(np.exp(2 * spread))
        other = Diagonal(jnp.asarray(other_mean), jnp.asarray(spread))
    point = jax.tree.map(lambda a: a + 0.3 if eqx.is_array(a) else a, tree)
    assert float(q.log_prob(point)) == pytest.approx(
        stats.multivariate_normal.logpdf(mean + 0.3, mean, cov), abs=1e-10
    )
    inverse, gap = np.linalg.inv(other_cov), other_mean - mean
    log_det = np.linalg.slogdet(other_cov)[1] - np.linalg.slogdet(cov)[1]
    kl = 0.5 * (np.trace(inverse @ cov) + gap @ inverse @ gap - 4 + log_det)
    same = eqx.tree_at(lambda q: q.mean, q, jnp.asarray(mean))
    assert float(same.kl(other)) == pytest.approx(kl, abs=1e-9)
    draws = draw(lambda k: q.sample(key=k)["b"], jax.random.key(0), 40_000)
    scale = np.sqrt(np.diag(cov)[1:])
    assert (np.abs(np.asarray(draws).mean(0) - mean[1:]) / scale).max() < 5 / 200
    assert (
        np.abs(
            np.cov(np.asarray(draws).T) / np.outer(scale, scale)
            - cov[1:, 1:] / np.outer(scale, scale)
        ).max()
        < 0.04
    )


def test_little_noise_beside_wide_factors_keeps_its_digits():
    """In single precision, 50 numbers of 8 factors and noise 0.01: the density of a draw within
    0.005 nats. As a difference of two squares of 10⁶ it would be 0.1 to 0.3 off.
    """
    random = np.random.default_rng(0)
    for _ in range(4):
        factor = random.normal(size=(50, 8))
        point = factor @ random.normal(size=8) + 0.01 * random.normal(size=50)
        exact = stats.multivariate_normal.logpdf(
            point, np.zeros(50), factor @ factor.T + 1e-4 * np.eye(50)
        )
        log_std = jnp.full(50, jnp.log(0.01))
        q = LowRank(jnp.zeros(50), jnp.asarray(factor, jnp.float32), log_std)
        assert float(q.log_prob(jnp.asarray(point, jnp.float32))) == pytest.approx(exact, abs=5e-3)


# ---- Stein variational gradient descent ----


def test_repulsion_is_the_gradient_of_the_kernel(x64):
    """Finite differences of k(a, b) = exp(-‖a - b‖²/h) in its first argument, summed.

    Nothing else drives particles apart.
    """
    w = np.random.default_rng(3).normal(size=(6, 3))
    h = float(bandwidth(jnp.asarray(w)))

    def kernel(a, b):
        return np.exp(-((a - b) ** 2).sum() / h)

    steps = 1e-6 * np.eye(3)
    expected = [
        sum((kernel(a + e, b) - kernel(a - e, b)) / 2e-6 for a in w) / 6 for b in w for e in steps
    ]
    ours = direction(jnp.asarray(w), jnp.zeros((6, 3)), jnp.asarray(h))
    np.testing.assert_allclose(np.asarray(ours).ravel(), expected, atol=1e-9)


def test_bandwidth_is_that_of_the_paper(x64):
    """Median of squared distances between different particles, over log m."""
    w = np.random.default_rng(4).normal(size=(5, 2))
    between = [((a - b) ** 2).sum() for i, a in enumerate(w) for b in w[:i]]
    assert float(bandwidth(jnp.asarray(w))) == pytest.approx(np.median(between) / np.log(5))
    assert float(bandwidth(jnp.zeros((1, 2)))) == 1.0


@pytest.mark.slow
def test_svgd_recovers_a_correlated_normal(x64):
    """100 particles: mean and covariance within 10 % of the scales.

    They are no independent draws: they are more exact.
    """
    mean, cov = jnp.asarray([1.0, -2.0]), jnp.asarray([[1.0, 0.8], [0.8, 1.5]])
    inverse = jnp.linalg.inv(cov)

    def log_prob(w):
        return -0.5 * (w["a"] - mean) @ inverse @ (w["a"] - mean)

    start = {"a": jax.random.normal(jax.random.key(0), (100, 2)), "fixed": "name"}
    moved = jax.jit(lambda s: svgd(log_prob, {"a": s}, 0.5, 2000)["a"])(start["a"])
    scale = jnp.sqrt(jnp.diagonal(cov))
    assert float(jnp.abs((moved.mean(0) - mean) / scale).max()) < 0.1
    assert float(jnp.abs((jnp.cov(moved.T) - cov) / jnp.outer(scale, scale)).max()) < 0.1


def test_svgd_under_an_optimiser_comes_to_the_same_place(x64):
    def log_prob(w):
        return -0.5 * ((w - 3.0) ** 2).sum()

    start = jax.random.normal(jax.random.key(0), (8, 1))
    walk = jax.jit(lambda w, rate, steps: svgd(log_prob, w, rate, steps), static_argnums=(1, 2))
    by_adam = walk(start, optax.adam(optax.cosine_decay_schedule(0.1, 1000)), 1000)
    np.testing.assert_allclose(jnp.sort(by_adam, 0), jnp.sort(walk(start, 0.5, 2000), 0), atol=1e-3)


def test_svgd_with_one_particle_climbs(x64):
    climb = svgd(lambda w: -0.5 * ((w - 1.0) ** 2).sum(), jnp.zeros((1, 2)), 0.1, 3)
    descent = descend(lambda w: 0.5 * ((w - 1.0) ** 2).sum(), jnp.zeros(2), 0.1, 3)
    np.testing.assert_allclose(climb[0], descent)
    gradient = jax.grad(lambda w: svgd(lambda v: -(v**2).sum(), w, 0.1, 2).sum())(jnp.zeros((3, 2)))
    assert np.isfinite(np.asarray(gradient)).all()  # particles in one place


# ---- Laplace ----


@pytest.mark.quick("head0-y0", "head2-y2")
@pytest.mark.parametrize(
    "head,y",
    [
        (Gaussian(2), [[0.3, 1.0], [0.1, -2.0]]),
        (Gaussian(1, scale=0.7), [[0.3], [0.1]]),
        (Categorical(3), [[0.0], [2.0]]),
        (StudentT(1), [[0.3], [0.1]]),
    ],
)
def test_fisher_information_against_many_draws(head, y, x64):
    """Mean outer product of scores over 200,000 draws.

    Exact for normals and classes; three nodes for Student's t.
    """
    raw = jax.random.normal(jax.random.key(0), (2, head.raw_dim))
    r = fisher_roots(head, raw)
    ours = jnp.einsum("nmr,nms->nrs", r, r)
    score = jax.grad(lambda r, y: head.log_prob(head.params(r[None]), y[None])[0])

    def outer(key):
        drawn = head.sample(head.params(raw), key=key)
        s = jax.vmap(score)(raw, drawn)
        return s[:, :, None] * s[:, None]

    many = jax.jit(lambda keys: jax.lax.map(outer, keys, batch_size=1000).mean(0))
    expected = many(jax.random.split(jax.random.key(1), 200_000))
    bound = 0.35 if isinstance(head, StudentT) else 0.03
    assert float(jnp.abs(ours - expected).max()) < bound * float(jnp.abs(expected).max())


@pytest.mark.quick("kronecker")
@pytest.mark.parametrize("structure", ["full", "diagonal", "kronecker"])
def test_laplace_structures(structure, x64):
    """Against the dense Gauss-Newton matrix of a small network.

    Precision, log determinant, covariance of draws.
    """
    from metaprior import Data
    from metaprior.nets.mlp import apply, mlp

    net = mlp(2, 1, 3, 1, key=jax.random.key(0), activation=jnp.tanh)
    data = Data(jax.random.normal(jax.random.key(1), (5, 2)), jnp.zeros((5, 1)), jnp.arange(5) < 4)
    head, p = Gaussian(1, scale=0.5), 2.0
    fit_to = eqx.filter_jit(lambda data: laplace(apply, net, head, data, p, structure))
    q = fit_to(data)
    flat, unravel = jax.flatten_util.ravel_pytree(eqx.filter(net, eqx.is_inexact_array))
    static = eqx.partition(net, eqx.is_inexact_array)[1]
    jac = jax.jit(jax.jacobian(lambda v: apply(eqx.combine(unravel(v), static), data.x)[:4, 0]))(
        flat
    )
    dense = p * jnp.eye(flat.size) + jac.T @ jac / 0.5**2
    covariance = jnp.linalg.inv(dense)
    if structure == "full":
        np.testing.assert_allclose(q.dense().covariance(), covariance, atol=1e-10)
        assert float(log_det(q)) == pytest.approx(float(jnp.linalg.slogdet(dense)[1]))
    if structure == "diagonal":
        np.testing.assert_allclose(
            jnp.exp(-2 * jax.flatten_util.ravel_pytree(q.log_std)[0]), jnp.diagonal(dense)
        )
        return

    def flatten(k):
        return jax.flatten_util.ravel_pytree(eqx.filter(q.sample(key=k), eqx.is_inexact_array))[0]

    draws = jax.jit(jax.vmap(flatten))(jax.random.split(jax.random.key(2), 100_000))
    found = jnp.cov(draws.T)
    if structure == "full":
        assert float(jnp.abs(found - covariance).max()) < 0.03 * float(covariance.max())
        return
    # K-FAC of the last layer by hand: (sum a aᵀ + √p I) ⊗ (mean g gᵀ + √p I), with g = 1 / 0.5
    a = jnp.concatenate(
        [jax.vmap(lambda x: jnp.tanh(net.layers[0](x)))(data.x[:4]), jnp.ones((4, 1))], 1
    )
    block = jnp.linalg.inv((a.T @ a + p**0.5 * jnp.eye(4)) * (4.0 + p**0.5))
    assert float(jnp.abs(found[-4:, -4:] - block).max()) < 0.03 * float(block.max())
    empty = fit_to(eqx.tree_at(lambda d: d.mask, data, jnp.zeros(5, bool)))
    assert float(log_det(empty)) == pytest.approx(flat.size * np.log(p))  # without rows: the prior


@pytest.mark.slow
def test_laplace_of_a_last_layer_is_conjugate(x64):
    """Its arrays as `w`, the features inside `apply`: exactly Bayesian linear regression."""
    from metaprior import Data
    from metaprior.nets.mlp import mlp

    net = mlp(2, 1, 3, 1, key=jax.random.key(0), activation=jnp.tanh)
    data = Data(jax.random.normal(jax.random.key(1), (5, 2)), jnp.zeros((5, 1)), jnp.arange(5) < 4)

    def features(x):
        return jax.vmap(lambda row: jnp.tanh(net.layers[0](row)))(x)

    q = laplace(
        lambda last, x: jax.vmap(last)(features(x)),
        net.layers[1],
        Gaussian(1, scale=0.5),
        data,
        2.0,
        "full",
    )
    phi = jnp.concatenate([features(data.x[:4]), jnp.ones((4, 1))], axis=1)
    exact = jnp.linalg.inv(2.0 * jnp.eye(4) + phi.T @ phi / 0.5**2)
    np.testing.assert_allclose(q.dense().covariance(), exact, atol=1e-10)


def test_laplace_refuses(x64):
    from metaprior import Data

    data = Data.of([[1.0]], [1.0])
    with pytest.raises(ValueError, match="'full', 'diagonal', 'kronecker'; got 'dense'"):
        laplace(lambda w, x: x @ w, jnp.ones((1, 1)), Gaussian(1, scale=1.0), data, 1.0, "dense")
    with pytest.raises(TypeError, match=r"equinox.nn.MLP"):
        laplace(
            lambda w, x: x @ w, jnp.ones((1, 1)), Gaussian(1, scale=1.0), data, 1.0, "kronecker"
        )


def test_llama_draws_functions_of_the_linearised_network(x64):
    """At the mode they are the network; along a direction of the weights they are straight."""
    from metaprior import Data, Spec
    from metaprior.methods import LLAMA

    llama = LLAMA.init(Spec(1, Gaussian(1)), key=jax.random.key(0), width=6, depth=1)
    support = Data.of([[0.0], [1.0], [2.0]], [1.0, 0.0, 1.0])
    posterior, mode = llama.posterior(support, key=None), llama.q(support, None).mean
    x = jnp.linspace(-3, 3, 7)[:, None]
    at = posterior.apply(mode, x)
    np.testing.assert_allclose(at, apply(mode, x), atol=1e-12)
    drawn = posterior.draw(jax.random.key(1))

    def along(share, call):
        moved = jax.tree.map(
            lambda a, b: a + share * (b - a) if eqx.is_inexact_array(a) else a, mode, drawn
        )
        return call(moved, x) - at

    np.testing.assert_allclose(along(2.0, posterior.apply), 2 * along(1.0, posterior.apply))
    slope = along(1e-6, apply) / 1e-6
    np.testing.assert_allclose(along(1.0, posterior.apply), slope, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_llama_is_exact_on_a_linear_normal_model(x64):
    """Descent to the end on likelihood and prior, and Laplace's normal there.

    That is the conjugate posterior, to 1e-6.
    """
    from metaprior import Data, Spec
    from metaprior.methods import LLAMA

    rng = np.random.default_rng(5)
    x, y, mask = rng.normal(size=(6, 2)), rng.normal(size=(6, 1)), np.arange(6) < 5
    sd, precision = 0.5, 3.0
    llama = LLAMA.init(
        Spec(2, Gaussian(1, scale=sd)),
        key=jax.random.key(0),
        depth=0,
        precision=precision,
        inner_lr=0.2,
        steps=3000,
        clip=None,
    )

    def flatten(net):
        return np.asarray(jax.flatten_util.ravel_pytree(eqx.filter(net, eqx.is_inexact_array))[0])

    start = flatten(llama.net)
    q = llama.q(Data(jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask)), jax.random.key(1))
    phi = np.insert(x[mask], 2, 1.0, axis=1)  # weights, then the bias
    covariance = np.linalg.inv(precision * np.eye(3) + phi.T @ phi / sd**2)
    mean = covariance @ (precision * start + phi.T @ y[mask, 0] / sd**2)
    np.testing.assert_allclose(flatten(q.mean), mean, atol=1e-6)
    np.testing.assert_allclose(q.dense().covariance(), covariance, atol=1e-6)
    # truncated, without a stated prior: the precision that k steps imply, here against Santos' at a
    # small rate
    short = LLAMA.init(
        Spec(2, Gaussian(1, scale=1.0)), key=jax.random.key(0), depth=0, inner_lr=1e-4, steps=3
    )
    implied = short.q(
        Data(jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask)), jax.random.key(1)
    ).precision
    eigenvalues = np.linalg.eigvalsh(phi.T @ phi / 5)
    santos = ((1 - 1e-4 * eigenvalues) ** -3.0 - 1) / eigenvalues / 5
    np.testing.assert_allclose(1 / np.asarray(implied), santos, rtol=1e-2)
