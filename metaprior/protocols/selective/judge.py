"""Does a method know when it does not know? Rows and tasks left out; tasks of other families."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.evaluation.calibration import auroc, auroc_error
from metaprior.heads import Gaussian
from metaprior.method import AbstractLearner, Spec
from metaprior.protocols import raw
from metaprior.protocols.cell import cut_short, part_of, to_numpy, trained
from metaprior.protocols.oracles.data import Case, held_out
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.selective import risk
from metaprior.protocols.selective.families import (
    ROWS,
    TRAINED,
    Drawn,
    others,
    supports,
    trained_on,
)
from metaprior.sources import SineLine
from metaprior.sources.exact import Known
from metaprior.task import Data, Task

EXACT = "exact"
BY_ERROR, NEAREST, RANDOM = "exact, by true error", "exact, by distance", "random"
RATIO, SPREAD = "likelihood ratio", "spread of y"
REFERENCES = (EXACT, BY_ERROR, NEAREST, RATIO, SPREAD, RANDOM)
LEAVING = (EXACT, BY_ERROR, NEAREST, RANDOM)  # references that say something of rows
TELLING = (EXACT, RATIO, SPREAD, RANDOM)  # and of tasks
TEST_KEY = 20261203
AT_ONCE = 20  # tasks of one compiled step
SAMPLES = 100  # draws of the function


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Train on sine waves and lines; leave out rows and tasks; tell other families apart."""
    source, facts = SineLine(support=ROWS, fewest=0), {}
    exact = Known(source)
    learner: AbstractLearner | None = exact
    if method not in REFERENCES:
        spec = Spec(1, Gaussian(1))
        told = part_of(tell, 0.0, 0.8)
        learner, facts = trained(method, spec, source, seed, options["steps"], told)
    figures, tables, drawing = [], [], {}
    if method in LEAVING or method not in REFERENCES:
        tell(0.8, "leaving rows out")
        for K, found in rows_of(learner, exact, source, options).items():
            doubt = doubts(method, found)
            setting = f"rows: K = {K}"
            figures += left_out(setting, found, doubt)
            tables.append(columns_of(setting, found, doubt))
            curve = risk.risk_curve(found["loss"].ravel(), doubt.ravel())
            drawing[setting] = curve[:: max(1, len(curve) // 200)]
    if method in TELLING or method not in REFERENCES:
        tell(0.9, "tasks of other families")
        shots = options["shots"]
        found = strangeness(method, learner, options["tasks"], shots)
        figures += told_apart(found, shots)
        tables += [
            {
                "setting": np.full(scores.size, f"tasks: {name}"),
                "task": np.repeat(np.arange(len(scores)), len(shots)),
                "shown": np.tile(shots, len(scores)),
                "strangeness": scores.ravel(),
            }
            for name, scores in found.items()
        ]
    note = cut_short(facts) if facts else ""
    return Outcome(figures, raw.joined(tables), drawing, note, facts)


# ---- rows and whole tasks left out ----


@eqx.filter_jit
def _said(learner: AbstractLearner, pairs: tuple[Task, Any]) -> dict[str, Any]:
    """Of each row its outcome, the mean, the standard deviation, and the nearest row shown."""

    def one(pair):
        task, key = pair
        own, draws = jr.split(key)
        posterior = learner.posterior(task.support, key=own)
        mixture = posterior.predict(task.query.x, key=draws, samples=SAMPLES)
        gap = jnp.abs(task.query.x[:, None, 0] - task.support.x[None, :, 0])
        return {
            "y": task.query.y[:, 0],
            "mean": mixture.mean()[:, 0],
            "std": jnp.sqrt(mixture.variance())[:, 0],
            "nearest": jnp.where(task.support.mask[None], gap, 10.0).min(1),
        }

    return jax.lax.map(one, pairs, batch_size=AT_ONCE)


def rows_of(
    learner: Any, exact: Known, source: SineLine, options: dict[str, Any]
) -> dict[int, dict[str, np.ndarray]]:
    """What is said of the rows of the judged tasks with each number of rows shown, `(t, n)`."""
    shots = tuple(options["shown"])
    case = Case("", source, 0, shots)
    judged = held_out(case, options["tasks"])
    own = to_numpy(_said(learner, judged), np.float64)
    best = own if learner is exact else to_numpy(_said(exact, judged), np.float64)
    found = own | {"exact_std": best["std"], "loss": (own["mean"] - own["y"]) ** 2}
    shaped = {name: v.reshape(-1, len(shots), v.shape[-1]) for name, v in found.items()}
    return {K: {name: v[:, i] for name, v in shaped.items()} for i, K in enumerate(shots)}


def doubts(method: str, found: dict[str, np.ndarray]) -> np.ndarray:
    """In which order rows are left out, the largest first."""
    if method == BY_ERROR:
        return found["loss"]
    if method == NEAREST:
        return found["nearest"]
    if method == RANDOM:
        return np.random.default_rng(0).random(found["loss"].shape)
    return found["std"]


def left_out(setting: str, found: dict[str, np.ndarray], doubt: np.ndarray) -> list[Figure]:
    """The figures at one number of rows shown."""
    errors = risk.with_errors(risk.figures, found["loss"], doubt, found["exact_std"])
    return [
        Figure(setting, name, value, error, len(doubt)) for name, (value, error) in errors.items()
    ]


def columns_of(
    setting: str, found: dict[str, np.ndarray], doubt: np.ndarray
) -> dict[str, np.ndarray]:
    """The raw predictions at one number of rows shown."""
    names = ("y", "mean", "std", "exact_std")
    columns = {name: found[name].ravel() for name in names} | {"doubt": doubt.ravel()}
    return raw.task_rows(setting, *doubt.shape) | columns


# ---- tasks unlike those of training ----


@eqx.filter_jit
def _sequential(learner: AbstractLearner, some: tuple[Data, Any]) -> Any:
    """log p(y_k | x_k, rows before it) of every row of each support, `(t, k)`.

    Their sums are the log density of the support: of the chain rule, for any learner.
    """

    def one(pair):
        data, key = pair

        def row(k, key):
            own, draws = jr.split(key)
            mixture = learner.posterior(data.first(k), key=own).predict(
                data.x[k][None], key=draws, samples=SAMPLES
            )
            return mixture.log_prob(data.y[k][None])[0]

        return jax.vmap(row)(jnp.arange(ROWS), jr.split(key, ROWS))

    return jax.lax.map(one, some, batch_size=AT_ONCE)


@eqx.filter_jit
def _evidence(drawn: Drawn, data: Data, shots: Any) -> Any:
    """log p of the first K rows of each support, `(t, shots)`."""

    def one(some):
        return jax.lax.map(lambda K: drawn.evidence(some.first(K)), shots)

    return jax.lax.map(one, data)


def strangeness(method: str, learner: Any, count: int, shots: list[int]) -> dict[str, np.ndarray]:
    """A score of the first K rows of each task, `(t, shots)`, by family; high is strange.

    Of a ratio the tasks of training have a score against each family: `"sine or line, steps"`.

    Args:
        method, learner: whose scores.
        count: tasks of each family.
        shots: numbers of rows K, 1 to `ROWS`.
    """
    own, families = trained_on(), others()
    keys = jr.split(jr.key(TEST_KEY), (1 + len(families), count))
    drawn = {TRAINED: own} | families
    tasks = {name: supports(each, k) for (name, each), k in zip(drawn.items(), keys)}
    last, at = np.asarray(shots) - 1, jnp.asarray(shots)
    if method == RATIO:
        found = {}
        for name, family in families.items():
            for label, data in ((f"{TRAINED}, {name}", tasks[TRAINED]), (name, tasks[name])):
                ratio = _evidence(family, data, at) - _evidence(own, data, at)
                found[label] = np.asarray(ratio, np.float64)
        return found
    rng, found = np.random.default_rng(0), {}
    for name, data in tasks.items():
        if method == RANDOM:
            found[name] = rng.random((count, len(shots)))
        elif method == SPREAD:  # of outcomes about zero, the mean of the training family's
            y = np.asarray(data.y, np.float64)[..., 0]
            found[name] = np.sqrt(np.cumsum(y**2, 1)[:, last] / np.asarray(shots))
        elif method == EXACT:
            found[name] = -np.asarray(_evidence(own, data, at), np.float64)
        else:
            each = _sequential(learner, (data, jr.split(jr.key(TEST_KEY + 1), count)))
            found[name] = -np.cumsum(np.asarray(each, np.float64), 1)[:, last]
    return found


def told_apart(found: dict[str, np.ndarray], shots: list[int]) -> list[Figure]:
    """How often a task of another family is stranger than one of training."""
    figures = []
    for name, scores in found.items():
        if name.startswith(TRAINED):
            continue
        inside = found.get(TRAINED, found.get(f"{TRAINED}, {name}"))
        assert inside is not None  # one of the two is there
        for i, K in enumerate(shots):
            pair = inside[:, i], scores[:, i]
            value, error = auroc(*pair), auroc_error(*pair)
            figures.append(Figure(f"{name}: K = {K}", "auroc", value, error, 2 * len(scores)))
    return figures
