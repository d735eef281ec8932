"""Which row next: rules that seek an optimum, against closed forms, quadrature and draws."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import integrate, stats

from metaprior import Data, Particles, acquire
from metaprior.evaluation import units
from metaprior.evaluation.units import Units
from metaprior.heads import Gaussian, MixtureDensity, StudentT
from metaprior.mixture import Mixture, Part
from metaprior.posterior import Pool
from metaprior.sources import GP

# Weights, means, deviations and degrees of freedom of two components at three points.
WEIGHT = np.array([0.3, 0.7])
MEAN = np.array([[0.3, -1.0, 2.0], [0.0, 0.5, -3.0]])
SCALE = np.array([[0.5, 2.0, 0.1], [1.0, 0.3, 1.5]])
DF = np.array([[4.0, 30.0, 2.6], [7.0, 5.0, 12.0]])
BEST = 0.4


def normals(inside=None):
    params = jnp.asarray(np.stack([MEAN, SCALE], -1)[:, :, None], jnp.float32)
    return Mixture((Part(Gaussian(1), params, jnp.log(jnp.asarray(WEIGHT)), inside),))


def students():
    params = jnp.asarray(np.stack([MEAN, SCALE, DF], -1)[:, :, None], jnp.float32)
    return Mixture((Part(StudentT(1), params, jnp.log(jnp.asarray(WEIGHT))),))


def densities(kind, i):
    each = {
        "normal": stats.norm(MEAN[:, i], SCALE[:, i]),
        "t": stats.t(DF[:, i], MEAN[:, i], SCALE[:, i]),
    }
    return lambda v: float(WEIGHT @ each[kind].pdf(v))


def expected(kind, gain):
    """E max(gain(Y), 0) at each point, by quadrature."""
    found = []
    for i in range(3):
        ends = sorted({BEST, *MEAN[:, i]})
        p = densities(kind, i)

        def term(v, p=p):
            return max(gain(v), 0.0) * p(v)

        parts = [(-60, ends[0]), *itertools.pairwise(ends), (ends[-1], 60)]
        if kind == "t":  # to infinity
            parts += [(-np.inf, -60), (60, np.inf)]
        found.append(sum(integrate.quad(term, a, b, limit=400)[0] for a, b in parts))
    return np.array(found)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("kind", "mixture"), [("normal", normals), ("t", students)])
def test_improvement_is_the_integral_in_closed_form_and_by_atoms(kind, mixture, sign):
    want = expected(kind, lambda v: sign * (v - BEST))
    best = jnp.asarray(BEST)
    got = acquire.improvement(mixture(), best, sign)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    # 80 atoms of each component; a t's tails end at a level of 3e-6, and with 2.6 degrees of
    # freedom 1e-2 of the improvement lies in the tails that its quantiles are interpolated in.
    by_atoms = acquire.improvement(mixture(), best, sign, lambda z, best: z - best)
    np.testing.assert_allclose(by_atoms, want, rtol=5e-3 if kind == "normal" else 2e-2, atol=1e-4)


def test_improvement_without_a_closed_form_is_that_of_draws():
    head = MixtureDensity(1, 3)
    raw = jr.normal(jr.key(0), (2, 4, head.raw_dim))
    mixture = Mixture.equal(head, head.params(raw))
    drawn = jax.vmap(lambda k: head.sample(mixture.parts[0].params, key=k))(
        jr.split(jr.key(1), 40_000)
    )
    gains = np.maximum(np.asarray(drawn)[..., 0] - 0.5, 0).transpose(1, 0, 2).reshape(2, -1, 4)
    got = acquire.improvement(mixture, jnp.asarray(0.5))
    error = gains.reshape(-1, 4).std(0) / 80_000**0.5
    assert (np.abs(got - gains.mean((0, 1))) < 5 * error + 5e-3).all()  # five standard errors


@pytest.mark.parametrize("name", ["log", "straight"])
@pytest.mark.parametrize("sign", [1, -1])
def test_improvement_is_in_the_users_unit(name, sign):
    """y = exp(2 + 0.3 z) or 2 + 0.3 z, by quadrature within the bounds of `AbstractCurve`."""
    own = Units(2.0, 0.3, -4.0, 6.0, log=name == "log")
    support, best = Data.of([0.0], [BEST]), jnp.asarray(BEST)

    def y(z):
        z = np.clip(z, -5, 7) if name == "log" else z
        return np.exp(2 + 0.3 * z) if name == "log" else 2 + 0.3 * z

    want = expected("normal", lambda z: sign * (y(z) - y(BEST)))
    gain = units.gain(own.curve(), support)
    key = jr.key(0)
    score = acquire.sought(normals(), None, best, "improvement", sign, key=key, gain=gain)
    np.testing.assert_allclose(own.gains(score, best), want, rtol=5e-3, atol=1e-3)
    # A bound is at the same outcome on every scale.
    bound = acquire.bound(normals(), sign)
    score = acquire.sought(normals(), None, best, "ucb", sign, key=key, gain=gain)
    np.testing.assert_allclose(
        own.gains(score, best), sign * (y(np.asarray(bound)) - y(BEST)), rtol=1e-3, atol=1e-3
    )


def test_bounds_are_quantiles_and_mean_plus_two_deviations_of_a_normal():
    one = Mixture((Part(Gaussian(1), normals().parts[0].params[:1], jnp.zeros(1)),))
    for sign in (1, -1):
        np.testing.assert_allclose(
            acquire.bound(one, sign), MEAN[0] + 2 * sign * SCALE[0], rtol=1e-6
        )
        below = normals().cdf(acquire.bound(normals(), sign)[:, None])[:, 0]
        np.testing.assert_allclose(below, stats.norm.cdf(2 * sign), atol=1e-4)


def test_noise_is_taken_off_where_a_component_says_what_is_removable():
    inside = jnp.asarray(0.25 * SCALE[..., None] ** 2, jnp.float32)
    known = acquire.noiseless(normals(inside)).parts[0].params
    np.testing.assert_allclose(known[..., 0, 1], 0.5 * SCALE, rtol=1e-5)
    np.testing.assert_allclose(known[..., 0, 0], MEAN, rtol=1e-6)
    assert acquire.noiseless(normals()).parts[0] is not None
    np.testing.assert_array_equal(
        acquire.noiseless(normals()).parts[0].params, normals().parts[0].params
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_information_of_the_highest_is_the_entropy_less_that_of_the_cut_density(sign):
    """By quadrature: of one normal (the closed form) and of two (atoms)."""
    highest = np.array([0.8, 2.5])
    for mixture, weight in ((normals(), WEIGHT), (None, np.array([1.0, 0.0]))):
        if mixture is None:
            params = normals().parts[0].params[:1]
            mixture = Mixture((Part(Gaussian(1), params, jnp.zeros(1)),))
        got = acquire.information_of_highest(mixture, jnp.asarray(highest), sign)
        v = np.linspace(-25, 25, 400_001)
        for i in (0, 1):  # the third point is far above one of the highest values
            p = weight @ stats.norm.pdf(v[None], MEAN[:, i, None], SCALE[:, i, None])

            def entropy(p):
                return integrate.trapezoid(-p * np.log(np.maximum(p, 1e-300)), v)

            cut = [p * (sign * v <= h) for h in highest]
            want = entropy(p) - np.mean([entropy(c / integrate.trapezoid(c, v)) for c in cut])
            assert got[i] == pytest.approx(want, abs=0.01)


def test_thompson_is_a_function_drawn_by_weight_and_mes_reads_the_highest_of_real_rows():
    low, high = (
        Particles.single(jnp.asarray(v), lambda w, x: w + 0 * x, Gaussian(1, scale=1.0))
        for v in (0.0, 1.0)
    )
    pool = Pool((low, high), jnp.log(jnp.asarray([0.25, 0.75])))
    x = jnp.zeros((3, 1))
    drawn = [float(acquire.draws(pool, x, "thompson", 1, key=jr.key(i))[0]) for i in range(200)]
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.12)  # four standard errors
    functions = jnp.asarray([[0.0, 1.0, 9.0], [3.0, 2.0, 9.0]])
    real = jnp.asarray([True, True, False])
    np.testing.assert_array_equal(acquire.of_functions(functions, "mes", 1, real), [1, 3])
    np.testing.assert_array_equal(acquire.of_functions(functions, "mes", -1, real), [0, -2])


def test_the_best_so_far_is_observed_or_else_expected():
    seen = Data(
        jnp.zeros((3, 1)), jnp.asarray([[5.0], [1.0], [2.0]]), jnp.asarray([False, True, True])
    )
    nothing = Data(seen.x, seen.y, jnp.zeros(3, bool))
    mean = WEIGHT @ MEAN
    for sign, best in ((1, 2.0), (-1, 1.0)):
        assert acquire.best_so_far(seen, normals(), sign) == best
        found = acquire.best_so_far(nothing, normals(), sign)
        assert found == pytest.approx(sign * (sign * mean).max(), rel=1e-5)
    real = jnp.asarray([False, True, True])
    assert acquire.best_so_far(nothing, normals(), 1, real) == pytest.approx(
        mean[1:].max(), rel=1e-5
    )


@pytest.mark.parametrize("by", acquire.SEEKING)
def test_seeking_minima_is_seeking_maxima_of_the_negative(by):
    source = GP()
    x = jnp.linspace(-2, 2, 31)[:, None]
    seen = Data.of([-1.0, 1.0], [0.3, -0.2])
    flipped = Data(seen.x, -seen.y, seen.mask)
    if by in ("thompson", "random"):  # their draws are not mirrored
        score = acquire.seek(source.exact(seen), x, seen, by, -1, key=jr.key(0))
        assert score.shape == (31,) and jnp.isfinite(score).all()
        return
    a = acquire.seek(source.exact(seen), x, seen, by, -1, key=jr.key(0))
    b = acquire.seek(source.exact(flipped), x, flipped, by, 1, key=jr.key(0))
    # Highest values are of 32 other functions.
    np.testing.assert_allclose(a, b, atol=0.15 if by == "mes" else 1e-4)


def test_rules_have_names():
    with pytest.raises(ValueError, match="by is one of improvement"):
        acquire.sought(normals(), None, jnp.asarray(0.0), "entropy", 1, key=jr.key(0))
