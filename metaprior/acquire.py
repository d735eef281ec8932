"""Which observation next: scores of candidate rows under the current posterior.

The goal decides which rules there are. To `"learn"` is to know the function: `score`. To
`"maximise"` or `"minimise"` is to find the row whose outcome is largest or smallest: `seek`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import ndtr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from metaprior.heads import Gaussian, StudentT
from metaprior.heads.student_t import standard_cdf, standard_density
from metaprior.mixture import Mixture, Part, functions_of
from metaprior.posterior import AbstractPosterior
from metaprior.task import Data

SAMPLES = 256  # functions of a method that predicts by sampling
ATOMS = 161  # that stand for a component; of many components each has fewer
OPTIMISM = 2.0  # deviations of a confidence bound: the level is 0.977
TINY = 1e-12  # the least scale of a function that is known


def _entropy(mixture: Mixture, key: PRNGKeyArray) -> Array:
    return mixture.entropy()


def _information(mixture: Mixture, key: PRNGKeyArray) -> Array:
    return mixture.information()


def _variance(mixture: Mixture, key: PRNGKeyArray) -> Array:
    return mixture.epistemic().sum(-1)


def _random(mixture: Mixture, key: PRNGKeyArray) -> Array:
    return jr.uniform(key, mixture.mean().shape[:1])


SCORES: dict[str, Callable[[Mixture, PRNGKeyArray], Array]] = {
    "entropy": _entropy,
    "bald": _information,
    "variance": _variance,
    "random": _random,
}
SEEKING = ("improvement", "thompson", "ucb", "mes", "random")
# Functions drawn whole that a rule reads; of the others none. The highest values of 32 stand for
# what the highest may be.
DRAWN = {"thompson": 1, "mes": 32}

# The rules of each goal; the first is the default. `"learned"` is of a prior: `acquire_learned`.
GOALS: dict[str, tuple[str, ...]] = {
    "learn": (*SCORES, "learned"),
    "maximise": SEEKING,
    "minimise": SEEKING,
}
SIGNS = {"maximise": 1, "minimise": -1}


def score(mixture: Mixture, by: str, *, key: PRNGKeyArray) -> Float[Array, "n"]:
    """Score of every row where the goal is to learn; the highest is the one to observe.

    Args:
        mixture: the predictive at the candidate rows.
        by: `"entropy"` of the predictive in nats; `"bald"`, the mutual information between the
            row's outcome and the function in nats (Houlsby et al. 2011); `"variance"`, the part of
            the predictive variance that observations can remove; or `"random"`.
        key: for `"random"`.
    """
    if by not in SCORES:
        raise ValueError(f"by is one of {', '.join(SCORES)}; got {by!r}.")
    return jnp.asarray(SCORES[by](mixture, key))


# How much larger outcomes are than one, both in the model's units: (outcomes, that one).
Gain = Callable[[Array, Array], Array]


def seek(
    posterior: AbstractPosterior,
    x: Float[Array, "n d"],
    observed: Data,
    by: str,
    sign: int,
    *,
    key: PRNGKeyArray,
    samples: int = SAMPLES,
) -> Float[Array, "n"]:
    """Score of every row where an optimum is sought; the highest is the one to observe.

    Args:
        posterior: given the observed rows, of one number.
        x: the candidate rows.
        observed: the rows so far. None is allowed.
        by: see `sought`.
        sign: 1 to maximise, -1 to minimise.
        key: of draws.
        samples: functions of a method that predicts by sampling.

    Example:
        >>> import jax, jax.numpy as jnp, metaprior
        >>> from metaprior import acquire
        >>> seen = metaprior.Data.of([-1.0, 1.0], [0.3, -0.2])
        >>> posterior = metaprior.sources.GP().exact(seen)
        >>> x = jnp.linspace(-2, 2, 41)[:, None]
        >>> scores = acquire.seek(posterior, x, seen, "improvement", 1, key=jax.random.key(0))
        >>> bool(scores.min() >= 0), scores.shape
        (True, (41,))
    """
    p_key, f_key, key = jr.split(key, 3)
    mixture = posterior.predict(x, key=p_key, samples=samples)
    drawn = draws(posterior, x, by, sign, key=f_key)
    best = best_so_far(observed, mixture, sign)
    return sought(mixture, drawn, best, by, sign, key=key)


def draws(
    posterior: AbstractPosterior,
    x: Float[Array, "n d"],
    by: str,
    sign: int,
    *,
    key: PRNGKeyArray,
    real: Bool[Array, "n"] | None = None,
) -> Array | None:
    """What a rule reads of functions drawn whole at the candidate rows.

    Args:
        posterior, x, by, sign: of `seek`.
        key: of the draws.
        real: which candidates are no padding.

    Returns:
        for `"thompson"` a function `(n,)`; for `"mes"` the highest values of `sign` times some
        functions, `(k,)`; `None` for the others.
    """
    count = DRAWN.get(by)
    if count is None:
        return None
    return of_functions(functions_at(posterior, x, count, key=key), by, sign, real)


def of_functions(
    functions: Float[Array, "s n"], by: str, sign: int, real: Bool[Array, "n"] | None = None
) -> Array:
    """`draws` of functions that are there; `DRAWN` says how many a rule reads."""
    if by == "thompson":
        return functions[0]
    values = sign * functions
    return (values if real is None else jnp.where(real, values, -jnp.inf)).max(1)


def functions_at(
    posterior: AbstractPosterior, x: Float[Array, "n d"], count: int, *, key: PRNGKeyArray
) -> Float[Array, "s n"]:
    """Values of `count` functions drawn whole, without the noise of outcomes."""
    draw_key, pick_key = jr.split(key)
    mixture = posterior.sample(x, key=draw_key, samples=count)
    return functions_of(mixture, count, key=pick_key)[0][..., 0]


def best_so_far(
    observed: Data, mixture: Mixture, sign: int, real: Bool[Array, "n"] | None = None
) -> Float[Array, ""]:
    """The best outcome observed; before there is one, the best of the expected outcomes.

    Args:
        observed: the rows so far.
        mixture: the predictive at the candidate rows.
        sign: of an outcome that is good.
        real: which candidates are no padding.
    """
    expected = sign * mixture.mean()[:, 0]
    expected = expected if real is None else jnp.where(real, expected, -jnp.inf)
    seen = jnp.where(observed.mask, sign * observed.y[:, 0], -jnp.inf).max(initial=-jnp.inf)
    return sign * jnp.where(observed.mask.any(), seen, expected.max())


def sought(
    mixture: Mixture,
    drawn: Array | None,
    best: Float[Array, ""],
    by: str,
    sign: int,
    *,
    key: PRNGKeyArray,
    gain: Gain | None = None,
) -> Float[Array, "n"]:
    """The score of `seek`, of a predictive and of what was drawn.

    Args:
        mixture: the predictive at the candidate rows, of one number.
        drawn: what `draws` gives.
        best: so far, in the units of the mixture.
        by: `"improvement"`, expected on the best (Jones, Schonlau & Welch, "Efficient Global
            Optimization of Expensive Black-Box Functions", 1998); `"thompson"`, of one drawn
            function on the best (Thompson, Biometrika 1933); `"ucb"`, of a confidence bound on the
            best: see `bound`; `"mes"`, information about the highest value in nats: see
            `information_of_highest`; or `"random"`.
        sign: 1 to maximise, -1 to minimise.
        key: for `"random"`.
        gain: how much larger one outcome is than another, in the user's units; `None` where these
            are those of the mixture, up to a factor.
    """
    if by not in SEEKING:
        raise ValueError(f"by is one of {', '.join(SEEKING)}; got {by!r}.")
    if by == "random":
        return _random(mixture, key)
    known = noiseless(mixture)
    if by == "improvement":
        return improvement(known, best, sign, gain)
    difference = gain or _difference
    if by == "ucb":
        return sign * difference(bound(known, sign), best)
    assert drawn is not None  # the others read draws
    if by == "thompson":
        return sign * difference(drawn, best)
    return information_of_highest(known, drawn, sign)


def _difference(z: Array, best: Array) -> Array:
    return z - best


def noiseless(mixture: Mixture) -> Mixture:
    """What a predictive says of the function, without the noise of outcomes, as far as it is known.

    Where a component says how much of its variance more rows could remove, only that is left. The
    spread of a drawn function's outcomes, and of a network's, stays as it is: there is no telling
    noise from what is not known.
    """

    def one(part: Part) -> Part:
        if part.inside is None or not isinstance(part.head, Gaussian | StudentT):
            return part
        share = jnp.sqrt(part.inside / part.head.variance(part.params))
        return Part(part.head, part.params.at[..., 1].multiply(share), part.log_weight)

    return Mixture(tuple(map(one, mixture.parts)))


def improvement(
    mixture: Mixture, best: Float[Array, ""], sign: int | Array = 1, gain: Gain | None = None
) -> Float[Array, "n"]:
    """Expected improvement on `best`: E max(sign (Y - best), 0) at each point.

    Of a mixture it is the weighted sum over the components. Normal and Student-t components have
    closed forms. All others, and all where a `gain` is given, are weighted quantiles.

    Args:
        mixture: at the points, of one number.
        best: what is to be improved on.
        sign: 1 to maximise, -1 to minimise.
        gain: see `sought`.
    """
    if gain is not None or not all(_closed(part) for part in mixture.parts):
        values, mass = mixture.weighted_atoms(_atoms(mixture))
        gains = jnp.maximum(sign * (gain or _difference)(values, best), 0.0)
        return (mass * gains).sum(-1)
    return mixture._average(_improvement(part, best, sign) for part in mixture.parts)


def _atoms(mixture: Mixture) -> int:
    """Atoms of a component: so many that all together say enough."""
    count = sum(part.log_weight.shape[0] for part in mixture.parts)
    return max(ATOMS // count, 9)


def _closed(part: Part) -> bool:
    return isinstance(part.head, Gaussian | StudentT)


def _improvement(part: Part, best: Array, sign: int | Array) -> Float[Array, "s n"]:
    """In closed form, of each component: with z = sign (mean - best) / s, of a normal
    s (z Φ(z) + φ(z)), of a Student-t s (z T(z) + (ν + z²) / (ν - 1) t(z)).
    """
    scale = jnp.maximum(part.params[..., 0, 1], TINY)
    z = sign * (part.params[..., 0, 0] - best) / scale
    if isinstance(part.head, Gaussian):
        each = z * ndtr(z) + jnp.exp(jax.scipy.stats.norm.logpdf(z))
    else:
        df = part.params[..., 0, 2]
        each = z * standard_cdf(z, df) + (df + z * z) / (df - 1) * standard_density(z, df)
    return scale * jnp.maximum(each, 0.0)


def _single_normal(mixture: Mixture) -> tuple[Float[Array, "n"], Float[Array, "n"]] | None:
    """Mean and standard deviation at each point, where the mixture is one normal."""
    (part, *others) = mixture.parts
    if others or not isinstance(part.head, Gaussian) or part.params.shape[0] != 1:
        return None
    return part.params[0, :, 0, 0], part.params[0, :, 0, 1]


def bound(mixture: Mixture, sign: int) -> Float[Array, "n"]:
    """The level that the function exceeds (to minimise: stays below) with probability 0.023.

    Of a normal it is the mean and twice the standard deviation (Srinivas, Krause, Kakade & Seeger,
    "Gaussian Process Optimization in the Bandit Setting", ICML 2010, with β = 4). As a quantile it
    is the same on every scale of the target (Kaufmann, Cappé & Garivier, "On Bayesian Upper
    Confidence Bounds for Bandit Problems", AISTATS 2012).
    """
    if (normal := _single_normal(mixture)) is not None:
        return normal[0] + sign * OPTIMISM * normal[1]
    return mixture.quantile(ndtr(jnp.asarray(sign * OPTIMISM)))[:, 0]


def information_of_highest(
    mixture: Mixture, highest: Float[Array, "k"], sign: int = 1
) -> Float[Array, "n"]:
    """Mutual information between the function at a point and its highest value, in nats.

    Wang & Jegelka, "Max-value Entropy Search for Efficient Bayesian Optimization", ICML 2017,
    equation 6: the entropy at a point, less its mean over draws of the highest value h, given that
    the function there is below h. A single normal has their closed form; any other mixture is
    weighted quantiles.

    Args:
        mixture: at the points, of one number.
        highest: highest values of `sign` times drawn functions.
        sign: 1 to maximise, -1 to minimise.
    """
    if (normal := _single_normal(mixture)) is not None:
        gap = (highest[:, None] - sign * normal[0]) / jnp.maximum(normal[1], TINY)
        ratio = jnp.exp(jax.scipy.stats.norm.logpdf(gap) - jax.scipy.special.log_ndtr(gap))
        return (0.5 * gap * ratio - jax.scipy.special.log_ndtr(gap)).mean(0)

    values, mass = mixture.weighted_atoms(_atoms(mixture))
    surprise = -jax.vmap(mixture.log_prob, in_axes=1, out_axes=1)(values[..., None])
    lowest = jnp.argmin(sign * values, axis=1)

    def given(h):
        inside = jnp.where(sign * values <= h, mass, 0.0)
        # One that lies below all atoms leaves the lowest of them.
        none = inside.sum(1, keepdims=True) == 0
        one = jax.nn.one_hot(lowest, values.shape[1], dtype=mass.dtype) * mass
        inside = jnp.where(none, one, inside)
        total = inside.sum(1)
        return (inside * surprise).sum(1) / total + jnp.log(total)

    entropy = (mass * surprise).sum(1)
    return jnp.maximum(entropy - jax.lax.map(given, highest).mean(0), 0.0)
