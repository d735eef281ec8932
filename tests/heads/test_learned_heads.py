"""Heads with arrays of their own, or known through fixed draws: what they say is one density."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from metaprior.heads import Autoregressive, Energy, Flow, Implicit, MixtureDensity
from metaprior.heads.draws import row_noise
from metaprior.heads.network import at
from metaprior.mixture import Mixture, Part
from metaprior.posterior import Particles, Pool, Stacked

# Name, head, and how far each may be off: mean (in standard deviations), variance (share), entropy
# (nats), cdf. The docstrings state these bounds: one outcome is quadrature on a grid, several are
# 256 or 512 even points.
SHAPES = {
    "mixture": (lambda key: MixtureDensity(3), 1e-3, 1e-3, 0.01, 1e-3),
    "mixture of 2": (lambda key: MixtureDensity(3, 2), 1e-3, 1e-3, 0.02, 1e-3),
    "autoregressive": (
        lambda key: Autoregressive.init(1, inner=MixtureDensity(2), key=key),
        1e-3,
        0.01,
        0.01,
        5e-3,
    ),
    "autoregressive of 2": (lambda key: Autoregressive.init(2, key=key), 0.02, 0.03, 0.02, 0.02),
    "flow": (lambda key: Flow.init(1, key=key), 1e-3, 0.01, 0.02, 1e-3),
    "flow of 2": (lambda key: Flow.init(2, key=key), 0.03, 0.1, 0.05, 0.03),
    "energy": (lambda key: Energy.init(1, key=key), 2e-3, 2e-3, 1e-3, 2e-3),
    "energy of 2": (lambda key: Energy.init(2, key=key), 0.01, 0.02, 0.01, 0.02),
    "implicit": (lambda key: Implicit.init(1, key=key), None, None, None, 5e-3),
    "implicit of 2": (
        lambda key: Implicit.init(2, objective="adversarial", key=key),
        None,
        None,
        None,
        0.02,
    ),
}
QUICK = ["mixture", "mixture of 2", "flow", "energy", "implicit"]
SHAPED = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in SHAPES]
DENSE = [case for case in SHAPED if SHAPES[case.values[0]][1] is not None]  # those with a density
LEVELS = np.array([0.01, 0.1, 0.3, 0.5, 0.8, 0.95])
DRAWN = 4000


def shaken(name):
    """The head with its arrays moved away from their start, and raw outputs of 3 points."""
    head = SHAPES[name][0](jr.key(0))
    arrays, rest = eqx.partition(head, eqx.is_inexact_array)
    random = np.random.default_rng(0)

    def move(a):
        return jnp.asarray(1.5 * np.asarray(a) + 0.1 * random.normal(size=a.shape), a.dtype)

    raw = 0.7 * jr.normal(jr.key(1), (3, head.raw_dim))
    return eqx.combine(jax.tree.map(move, arrays), rest), raw


@eqx.filter_jit
def look(head, raw):
    """All that a head says, and the same by sums over a fine grid around its mean."""
    params, p = head.params(raw), head.y_dim
    out = {"mean": head.mean(params), "variance": head.variance(params)}
    out["drawn"] = head.sample(
        jnp.broadcast_to(params[:, None], (3, DRAWN, *params.shape[1:])), key=jr.key(3)
    )
    out["below"] = head.cdf(params[:, None], out["drawn"])
    out["back"] = jax.vmap(lambda level: head.cdf(params, head.quantile(params, level)))(
        jnp.asarray(LEVELS)
    )
    if not head.density:
        return out
    t = jnp.linspace(-12.0, 12.0, 4001) if p == 1 else jnp.linspace(-5.0, 5.0, 601)
    scale = 0.3 * jnp.sqrt(out["variance"])
    axis = out["mean"] + scale * jnp.sinh(t)[:, None, None]  # (g, 3, p)
    cell = jnp.cosh(t)[:, None, None] * scale * (t[1] - t[0])
    index = jnp.stack(jnp.meshgrid(*[jnp.arange(len(t))] * p, indexing="ij"), -1).reshape(-1, p)
    y = jnp.stack([axis[index[:, j], :, j] for j in range(p)], -1)
    log_p = head.log_prob(params, y)
    share = jnp.exp(log_p) * jnp.stack([cell[index[:, j], :, j] for j in range(p)]).prod(0)
    center = (share[..., None] * y).sum(0)
    exact = {
        "mass": share.sum(0),
        "mean": center,
        "variance": (share[..., None] * (y - center) ** 2).sum(0),
    }
    return out | {
        "exact": exact | {"entropy": -(share * log_p).sum(0)},
        "entropy": head.entropy(params),
    }


@functools.cache
def seen(name):
    return jax.tree.map(np.asarray, look(*shaken(name)))


@pytest.mark.parametrize("name", DENSE)
def test_moments_are_those_of_the_density(name):
    got, (_, mean, variance, entropy, _) = seen(name), SHAPES[name]
    exact = got["exact"]
    # the grid's own error: 1e-4 in one dimension, up to 7e-4 with 601 points an axis (a coupled
    # flow; 1.6e-3 with 301)
    np.testing.assert_allclose(exact["mass"], 1.0, atol=1e-3)
    scale = np.sqrt(exact["variance"])
    np.testing.assert_allclose((got["mean"] - exact["mean"]) / scale, 0.0, atol=mean)
    np.testing.assert_allclose(got["variance"] / exact["variance"], 1.0, atol=variance)
    np.testing.assert_allclose(got["entropy"], exact["entropy"], atol=entropy)


@pytest.mark.parametrize("name", SHAPED)
def test_shaped_samples_follow_the_cdf(name):
    """Kolmogorov's 0.1 % bound for the samples, and the head's own bound for its cdf.

    The first is 1.95 / sqrt(n).
    """
    got, off = seen(name), SHAPES[name][-1]
    for share in np.moveaxis(got["below"], 1, -1).reshape(-1, DRAWN):
        assert stats.kstest(share, "uniform").statistic < 1.95 / DRAWN**0.5 + off
    scale = np.sqrt(got["variance"])
    np.testing.assert_allclose(
        (got["mean"] - got["drawn"].mean(1)) / scale, 0.0, atol=0.03 + 4 / DRAWN**0.5
    )
    # the variance of a sample variance with kurtosis up to 6
    np.testing.assert_allclose(
        got["variance"] / got["drawn"].var(1), 1.0, atol=0.1 + 4 * (5 / DRAWN) ** 0.5
    )


@pytest.mark.parametrize("name", SHAPED)
def test_shaped_quantile_inverts_the_cdf(name):
    np.testing.assert_allclose(
        seen(name)["back"],
        np.broadcast_to(LEVELS[:, None, None], seen(name)["back"].shape),
        atol=1e-5,
    )


@pytest.mark.quick("mixture", "energy", "implicit")
@pytest.mark.parametrize("name", SHAPED)
def test_gradients_of_gradients_are_finite(name):
    """Two inner steps on the raw outputs, differentiated through.

    Outcomes and outputs are far out as well.
    """
    head, raw = shaken(name)
    arrays, rest = eqx.partition(head, eqx.is_inexact_array)
    y = jnp.asarray([0.0, 1.0, -30.0, 1000.0])[:, None] * jnp.ones(head.y_dim)

    @jax.jit
    def gradients(arrays, raw):
        def outer(arrays, raw):
            own = eqx.combine(arrays, rest)

            def risk(r):
                return own.loss(own.params(r), y, key=jr.key(4)).mean()

            for _ in range(2):
                raw = raw - 0.01 * jax.grad(risk)(raw)
            return risk(raw)

        return jax.vmap(jax.value_and_grad(outer, argnums=(0, 1)), in_axes=(None, 0))(arrays, raw)

    first = jnp.concatenate([raw, raw[:1]])
    many = jnp.stack([0 * first, first, 10 * first, 100 * first])
    for leaf in jax.tree.leaves(gradients(arrays, many)):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize(
    "name", ["mixture of 2", "autoregressive of 2", "flow", "energy", "implicit"]
)
def test_particles_lead(name, key):
    """Several particles against the outcomes of one are one particle after another.

    `Mixture` calls a head in this way.
    """
    head, _ = shaken(name)
    raw, y = jr.normal(key, (4, 3, head.raw_dim)), jr.normal(key, (3, head.y_dim))

    def say(params, y):
        return [head.cdf(params, y)] + ([head.log_prob(params, y)] if head.density else [])

    together = jax.jit(lambda raw: say(head.params(raw), y[None]))(raw)
    alone = jax.jit(jax.vmap(lambda r: say(head.params(r), y)))(raw)
    for a, b in zip(together, alone):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mixture", "autoregressive of 2", "flow", "energy", "implicit"])
def test_double_precision(name, x64):
    head, raw = shaken(name)
    out = jax.eval_shape(
        lambda r: (
            head.mean(head.params(r)),
            head.sample(head.params(r), key=jr.key(0)),
            head.loss(head.params(r), head.mean(head.params(r)), key=jr.key(0)),
            head.quantile(head.params(r), 0.5),
        ),
        raw,
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("float64")}


def test_mixture_density_against_scipy():
    head = MixtureDensity(2)
    params = jnp.asarray([[[np.log(0.3), -1.0, 0.5], [np.log(0.7), 2.0, 1.5]]])
    each, weights = stats.norm([-1.0, 2.0], [0.5, 1.5]), np.array([0.3, 0.7])
    y = jnp.asarray([[0.4]])
    np.testing.assert_allclose(
        head.log_prob(params, y), np.log([weights @ each.pdf(0.4)]), rtol=1e-5
    )
    np.testing.assert_allclose(head.cdf(params, y), [[weights @ each.cdf(0.4)]], rtol=1e-5)
    np.testing.assert_allclose(head.quantile(params, float(weights @ each.cdf(0.4))), y, atol=1e-4)
    np.testing.assert_allclose(head.mean(params), [[1.1]], rtol=1e-5)
    np.testing.assert_allclose(
        head.variance(params), [[0.3 * 0.25 + 0.7 * 2.25 + 0.21 * 9.0]], rtol=1e-5
    )


def test_components_start_apart():
    """At raw outputs of zero, means are even points of a standard normal, so gradients differ."""
    head = MixtureDensity(4)
    start = head.params(jnp.zeros((1, head.raw_dim)))[0, :, 1]
    assert np.diff(start).min() > 0.3 and abs(float(start.mean())) < 1e-5
    slope = jax.grad(lambda raw: head.log_prob(head.params(raw), jnp.ones((1, 1))).sum())(
        jnp.zeros((1, 12))
    )
    assert len(np.unique(np.asarray(slope.reshape(4, 3)[:, 1]).round(6))) == 4


@pytest.mark.slow
def test_coupling_layers_have_the_stated_slopes():
    """The log determinant is that of the Jacobian, and the way back undoes the way there."""
    head, raw = shaken("flow of 2")
    params, z = head.params(raw), jr.normal(jr.key(5), (50, 3, 2))

    @jax.jit
    def check(z):
        y = head._from_base(params, z)
        back, log_slope = head._to_base(params, y)
        jacobian = jax.vmap(
            jax.vmap(jax.jacfwd(lambda y, q: head._to_base(q, y)[0])), in_axes=(0, None)
        )(y, params)
        return back, log_slope, jnp.linalg.slogdet(jacobian)[1]

    back, log_slope, exact = check(z)
    np.testing.assert_allclose(back, z, atol=2e-3)
    np.testing.assert_allclose(log_slope, exact, atol=2e-3)


def test_energy_score_is_the_crps():
    """The mean of the loss over keys, for one outcome, is the CRPS of the generator's outcomes."""
    head, raw = shaken("implicit")
    params, y = head.params(raw[:1]), jnp.asarray([[0.3]])
    each = jax.jit(jax.vmap(lambda k: head.loss(params, y, key=k)[0]))(jr.split(jr.key(6), 4000))
    exact = jax.jit(lambda p: Mixture((Part(head, p[None], jnp.zeros(1)),)).crps(y)[0])(params)
    error = float(each.std()) / 4000**0.5
    assert abs(float(each.mean()) - float(exact)) < 4 * error + 0.01 * float(exact)


def test_noise_contrastive_loss_tends_to_the_density(key):
    """With much noise the mean loss of several outcomes is -log p.

    It is off by the error of the normaliser alone.
    """
    head, raw = shaken("energy of 2")
    many = dataclasses.replace(head, noise=2000)
    params, y = many.params(raw), jr.normal(key, (3, 2))
    loss = jax.vmap(lambda k: many.loss(params, y, key=k))
    each, exact = jax.jit(lambda k: (loss(k).mean(0), many.log_prob(params, y)))(jr.split(key, 20))
    np.testing.assert_allclose(each, -exact, atol=0.02)


def test_an_adversary_trains_both_and_neither_the_other():
    """Generator and discriminator: each gradient is that of its own terms."""
    head, raw = shaken("implicit of 2")
    y, key = jnp.ones((3, 2)), jr.key(7)

    def loss(generator, discriminator, raw):
        own = eqx.tree_at(
            lambda h: (h.generator, h.discriminator), head, (generator, discriminator)
        )
        return own.loss(own.params(raw), y, key=key).sum()

    split = [
        eqx.partition(net, eqx.is_inexact_array) for net in (head.generator, head.discriminator)
    ]

    def whole(g, d, r):
        return loss(eqx.combine(g, split[0][1]), eqx.combine(d, split[1][1]), r)

    slopes = jax.jit(jax.grad(whole, argnums=(0, 1, 2)))(split[0][0], split[1][0], raw)
    assert all((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(slopes))

    def drawn(g, r):
        return _generated(eqx.combine(g, split[0][1]), head, r, key)

    def judge(y):
        return -jax.nn.softplus(-_judged(head, raw, y))

    def fooling(g, r):  # -log D of what is generated, D a constant
        return -judge(drawn(g, r)).mean(0).sum()

    own = jax.jit(jax.grad(fooling, argnums=(0, 1)))(split[0][0], raw)
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves((slopes[0], slopes[2]))):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def _generated(generator, head, raw, key):
    z = row_noise(head.samples, (3,), head.noise, raw.dtype, key=key)
    return eqx.tree_at(lambda h: h.generator, head, generator).generate(raw, z)


def _judged(head, raw, y):
    return 10.0 * at(head.discriminator, raw[..., head.dim :], y)[..., 0]


@pytest.mark.quick("implicit")
@pytest.mark.parametrize("name", ["implicit", "autoregressive of 2"])
def test_members_keep_their_own_head(name, key):
    """A stack of posteriors whose heads hold arrays is the mixture of its members.

    That holds across jit and vmap, too.
    """
    head, raw = shaken(name)
    x, dim = jnp.ones((2, 1)), head.y_dim

    def single(k):
        return Particles(jr.normal(k, (2, raw.shape[1])), lambda w, x: x * w, SHAPES[name][0](k))

    keys, y = jr.split(key, 2), jnp.full((2, dim), 0.1)

    @eqx.filter_jit
    def say(posterior):
        mixture = posterior.predict(x, key=key, samples=1)
        more = [mixture.log_prob(y), mixture.information()] if head.density else [mixture.crps(y)]
        return [mixture.mean(), mixture.variance(), mixture.cdf(y), *more]

    stacked = Stacked(eqx.filter_jit(eqx.filter_vmap(single))(keys))
    pool = Pool(tuple(single(k) for k in keys), jnp.zeros(2))
    for together, alone in zip(say(stacked), say(pool)):
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
