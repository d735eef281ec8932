"""Are whole functions calibrated? Ranks of the truth among draws, a few numbers a task."""

import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from metaprior.heads import Gaussian
from metaprior.infer.cholesky import factorise
from metaprior.infer.gp import lifted
from metaprior.method import AbstractLearner, Spec
from metaprior.mixture import Mixture
from metaprior.nets.kernels import gram
from metaprior.protocols.cell import cut_short, part_of, to_numpy, trained
from metaprior.protocols.oracles.pointwise import BY_POINT, KnownByPoint
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import component_means
from metaprior.sources import GP
from metaprior.sources.exact import Known
from metaprior.task import Data, Task, split

SHOWN, ASKED, NOISE = 5, 20, 0.05  # rows of a judged task, and the noise of all
DRAWS = 99  # of the vector of outcomes
TEST_KEY = 20261201
BLOCK = 50  # tasks in one call
BOUND = 1.358  # of Kolmogorov's statistic times the root of the number of tasks, at 95 %
EXACT = "exact"
NARROW, WIDE = "exact x 0.8", "exact x 1.25"
PRIOR = "prior draws"
REFERENCES = (EXACT, BY_POINT, NARROW, WIDE, PRIOR)
RANKS = ("tarp", "pit", "highest", "average")


class Control(NamedTuple):
    """What is known to be right or wrong.

    Args:
        learner: it.
        spread: how much farther from their mean draws are put.
    """

    learner: AbstractLearner
    spread: float = 1.0


def controls(source: GP) -> dict[str, Control]:
    """By name: the exact posterior, and what is wrong with the others is in their names."""
    exact = Known(source)
    return {
        EXACT: Control(exact),
        BY_POINT: Control(KnownByPoint(source)),
        NARROW: Control(exact, 0.8),
        WIDE: Control(exact, 1.25),
        PRIOR: Control(Known(source, looks=False)),
    }


def tasks(source: GP, key, count: int) -> tuple[Task, Float[Array, "t n"]]:
    """Tasks, and the function without noise at their query rows."""

    def one(k):
        x_key, f_key, e_key = jr.split(k, 3)
        n = SHOWN + ASKED
        x = jr.uniform(x_key, (n, 1), minval=source.low, maxval=source.high)
        f = factorise(lifted(gram(source.kernel, x, x))).lower @ jr.normal(f_key, (n,))
        data = Data.of(x, f + source.noise * jr.normal(e_key, (n,)))

        return split(data, SHOWN), f[SHOWN:]

    return jax.jit(jax.vmap(one))(jr.split(key, count))


def outcomes(
    mixture: Mixture, spread: float, key
) -> tuple[Float[Array, "s n"], Float[Array, "s n"]]:
    """`DRAWS` outcomes of all rows together, and their functions without noise."""
    f = component_means(mixture)[..., 0]

    def whole(k):
        """One outcome of each function."""
        keys = jr.split(k, len(mixture.parts))
        drawn = [part.head.sample(part.params, key=k) for part, k in zip(mixture.parts, keys)]
        return jnp.concatenate(drawn)[..., 0]

    if len(f) == DRAWS:
        y = whole(key)
    else:  # one function for all draws, or some of each of several learners
        pick, noise = jr.split(key)
        weights = jnp.concatenate([part.log_weight for part in mixture.parts])
        chosen = jr.categorical(pick, weights, shape=(DRAWS,))
        y = jax.vmap(lambda i, k: whole(k)[i])(chosen, jr.split(noise, DRAWS))
        f = f[chosen]
    middle = f.mean(0)
    return middle + spread * (y - middle), middle + spread * (f - middle)


def share_below(draws: Float[Array, "s"], truth: Array, key) -> Array:
    """Where the truth lies among draws, in 0 … 1; uniform if they are as it is.

    Ties are broken at random, and so is the place within the gap between two draws.
    """
    first, second = jr.split(key)
    ties = (draws == truth).sum()
    rank = (draws < truth).sum() + jnp.floor(jr.uniform(first) * (ties + 1))
    return (rank + jr.uniform(second)) / (len(draws) + 1)


def one_task(learner: AbstractLearner, spread: float, task: Task, f: Array, key) -> dict:
    """The ranks of one task and its energy score.

    - `tarp`: of the distance of all outcomes from a random place, among that of drawn ones. Lemos,
      Coogan, Hezaveh & Perreault-Levasseur, "Sampling-Based Accuracy Testing of Posterior
      Estimators for General Inference", ICML 2023.
    - `pit`: of one outcome.
    - `highest`, `average`: of the function's largest and mean value over the rows. Talts,
      Betancourt, Simpson, Vehtari & Gelman, "Validating Bayesian Inference Algorithms with
      Simulation-Based Calibration", 2018.
    - `energy`: of the outcomes. Gneiting & Raftery, JASA 2007, equation 22.
    """
    keys = jr.split(key, 8)
    x, y = task.query.x, task.query.y[:, 0]
    posterior = learner.posterior(task.support, key=keys[0])
    mixture = posterior.sample(x, key=keys[1], samples=DRAWS)
    drawn, functions = outcomes(mixture, spread, keys[2])
    place = jr.normal(keys[3], y.shape)

    def away(a):
        return jnp.sqrt(((a - place) ** 2).sum(-1))

    between = jnp.sqrt(((drawn[:, None] - drawn[None]) ** 2).sum(-1)).sum()
    to_truth = jnp.sqrt(((drawn - y) ** 2).sum(-1)).mean()
    return {
        "tarp": share_below(away(drawn), away(y), keys[4]),
        "pit": share_below(drawn[:, 0], y[0], keys[5]),
        "highest": share_below(functions.max(1), f.max(), keys[6]),
        "average": share_below(functions.mean(1), f.mean(), keys[7]),
        "energy": to_truth - 0.5 * between / (DRAWS * (DRAWS - 1)),
    }


@eqx.filter_jit
def _judge(learner: AbstractLearner, spread, some: tuple[Task, Array], keys) -> dict[str, Array]:
    def one(item):
        (task, f), key = item
        return one_task(learner, spread, task, f, key)

    return jax.lax.map(one, (some, keys), batch_size=10)


def judge(
    learner: AbstractLearner, spread: float, source: GP, options: dict[str, Any], tell: Tell
) -> dict[str, np.ndarray]:
    """`one_task` of as many tasks as time allows, `(t,)` each."""
    count = options["tasks"]
    some, keys = tasks(source, jr.key(TEST_KEY), count), jr.split(jr.key(TEST_KEY + 1), count)
    found, began = [], time.monotonic()
    for start in range(0, count, BLOCK):
        tell(start / count, "judging")
        part = jax.tree.map(lambda a, start=start: a[start : start + BLOCK], (some, keys))
        found.append(to_numpy(_judge(learner, jnp.asarray(spread), *part), np.float64))
        if len(found) == 1:
            began = time.monotonic()  # the first call compiles
        if time.monotonic() - began > 60 * options["minutes"]:
            break
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Train a method on functions with 0 to 10 rows, and rank the truth among its draws."""
    source = GP(noise=NOISE, query=ASKED)
    known, facts = controls(source).get(method), {}
    if known is None:
        told = part_of(tell, 0.0, 0.7)
        spec = Spec(1, Gaussian(1))
        learner, facts = trained(method, spec, source, seed, options["steps"], told)
        known = Control(learner)
    found = judge(*known, source, options, part_of(tell, 0.7, 1.0))
    count = len(found["tarp"])
    notes = [cut_short(facts)] if facts else []
    if count < options["tasks"]:
        notes.append(f"slow, so judged on {count} tasks")
    columns = {"task": np.arange(count), **found}
    drawing = {name: found[name] for name in ("tarp", "pit")}
    note = "; ".join(note for note in notes if note)
    return Outcome(measure(found), columns, drawing, note, facts)


def measure(found: dict[str, np.ndarray]) -> list[Figure]:
    """The figures, from `one_task` of tasks."""
    count = len(found["tarp"])
    figures = [Figure("", name, deviation(found[name]), None, count) for name in RANKS]
    figures.append(Figure("", "bound", BOUND / count**0.5, None, count))
    for share in (0.5, 0.9):
        inside = np.abs(found["tarp"] - 0.5) < share / 2
        figures.append(Figure.of("", f"central{100 * share:.0f}", inside))
    return [*figures, Figure.of("", "energy", found["energy"])]


def deviation(shares: np.ndarray) -> float:
    """Largest distance of their distribution from the uniform one (Kolmogorov)."""
    ordered, n = np.sort(shares), len(shares)
    steps = np.arange(n + 1) / n
    return float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))
