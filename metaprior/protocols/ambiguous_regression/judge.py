"""A sine wave or a line: training, judging, and telling the two families apart."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from scipy.stats import chi2

from metaprior.heads import Gaussian, MixtureDensity
from metaprior.method import Spec
from metaprior.mixture import Mixture, Part
from metaprior.protocols import raw
from metaprior.protocols.cell import to_numpy, trained
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.sources import SineLine
from metaprior.sources.exact import Known
from metaprior.task import Task

EXACT, POINTWISE, PRIOR = "exact", "cnp with a mixture head", "prior draws"
SLOW = ("nuts", "bnn", "ar_cnp")
TEST_KEY = 90210  # tasks that no default was chosen on
FAMILIES = ("sine", "line")
NEITHER = 2  # number of a function that is of neither family, or does not fit the rows
SURE = 0.99  # of true functions fit the rows that their task shows
GRID = 64  # points at which functions are told apart
SHOWN = 3  # tasks of the report's pictures
STORED = 20  # tasks of a number of rows whose drawn functions are kept


def distances(x, f):
    """How far each function is from each family: `(s, n) -> (2, s)`, in units of y.

    Functions are fitted by least squares on {sin x, cos x} and on {x, 1}. The distance is the root
    mean square of what is left over the grid.
    """
    bases = (
        jnp.concatenate([jnp.sin(x), jnp.cos(x)], 1),
        jnp.concatenate([x, jnp.ones_like(x)], 1),
    )

    def distance(basis):
        left = f.T - basis @ jnp.linalg.lstsq(basis, f.T)[0]
        return jnp.sqrt((left**2).mean(0))

    return jnp.stack([distance(basis) for basis in bases])


def families(x, f):
    """Which family each function is nearer to, and how far from it: `(s, n) -> (s,), (s,)`."""
    rms = distances(x, f)
    return rms.argmin(0), rms.min(0)


def at_points(mixture: Mixture, points: slice) -> Mixture:
    """The same components at some of the points."""

    def cut(part):
        inside = None if part.inside is None else part.inside[:, points]
        return Part(part.head, part.params[:, points], part.log_weight, inside)

    return Mixture(tuple(cut(part) for part in mixture.parts))


def functions(mixture: Mixture, key, draws: int):
    """`draws` functions, `(draws, n)`: the means of coherent draws.

    A method whose posterior is one density a point has no functions to draw. For a normal head its
    mean stands in for them, for a mixture head an independent outcome at every point ("version 0").
    """
    first = mixture.parts[0]
    if isinstance(first.head, Gaussian):
        f = raw.component_means(mixture)[..., 0]
    else:
        keys = jr.split(key, draws)
        f = jax.vmap(lambda k: first.head.sample(first.params[0], key=k))(keys)[..., 0]
    return f[jnp.arange(draws) % f.shape[0]]  # fewer are repeated


def look(learner, source: SineLine, tasks, keys, draws: int, samples: int):
    """Everything that is measured on stacked tasks; arrays with a leading axis of tasks."""
    grid = jnp.linspace(*source.x, GRID)[:, None]

    def one(pair):
        task, key = pair
        keys = jr.split(key, 4)
        query = task.query
        posterior = learner.posterior(task.support, key=keys[0])
        rows = len(task.support.mask)
        places = jnp.concatenate([grid, task.support.x, query.x])
        drawn = raw.functions_at(posterior, places, key=keys[1], samples=samples)
        mixture = at_points(drawn, slice(GRID + rows, None))
        if raw.known_by_draws(posterior):
            # the same draws serve everything
            joint = mixture.joint_log_prob(query)
        else:
            mixture = posterior.predict(query.x, key=keys[2], samples=samples)
            joint = posterior.joint_log_prob(query, key=keys[2], samples=samples)

        f = functions(at_points(drawn, slice(0, GRID + rows)), keys[3], draws)
        f, there = f[:, :GRID], f[:, GRID:]
        off = jnp.where(task.support.mask, (there - task.support.y[:, 0]) / source.noise, 0.0)
        misfit = (off**2).sum(1)
        fits = misfit <= chi2.ppf(SURE, rows)
        rms, spread = distances(grid, f), f.std(1)
        near = rms.min(0) <= jnp.maximum(2 * source.noise, 0.45 * spread)
        return {
            "nll": -mixture.log_prob(query.y),
            "log_p": raw.log_terms(mixture, query.y),
            "joint_log_p": raw.joint_terms(posterior, mixture, query, joint),
            "to_sine": rms[0],
            "to_line": rms[1],
            "spread": spread,
            "mean": mixture.mean()[:, 0],
            "joint": -joint / query.count,
            "family": jnp.where(near & fits, rms.argmin(0), NEITHER),
            "fits": fits,
            "misfit": misfit,
            "f": f,
            "p": source.exact(task.support).family()[0],
        }

    return jax.lax.map(one, (tasks, keys), batch_size=8)


def learner_of(method: str, source: SineLine, seed: int, steps: int, tell: Tell):
    """The learner that is judged, trained where it can be, and facts of its training."""
    if method in (EXACT, PRIOR):
        return Known(source, looks=method == EXACT), {}
    if method == POINTWISE:
        return trained("cnp", Spec(1, MixtureDensity(5)), source, seed, steps, tell)
    return trained(method, Spec(1, Gaussian(1)), source, seed, steps, tell)


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Train on 1 to 5 rows, judge at each number of rows."""
    training = SineLine(support=5, query=10, fewest=1)
    learner, facts = learner_of(method, training, seed, options["steps"], tell)
    count = options["slow_tasks"] if method in SLOW else options["tasks"]
    compiled = eqx.filter_jit(look)

    figures, tables = [], []
    drawing = {"grid": np.linspace(*training.x, GRID)}
    for k in options["shots"]:
        tell(1.0, f"judging with {k} rows")
        source = SineLine(support=k, query=20)
        tasks = jax.jit(jax.vmap(source))(jr.split(jr.key(TEST_KEY + k), count))
        keys = jr.split(jr.key(TEST_KEY), count)
        found = to_numpy(
            compiled(learner, source, tasks, keys, options["draws"], options["samples"])
        )
        figures += measure(f"K = {k}", found, np.asarray(tasks.query.y[..., 0]))
        tables.append(rows_of(f"K = {k}", found, tasks))
        drawing |= shown(k, found, tasks)

    note = "" if count == options["tasks"] else f"judged on {count} tasks, as it is slow"
    return Outcome(figures, raw.joined(tables), drawing, note, facts)


def share_of(found: dict[str, np.ndarray], family: str) -> np.ndarray:
    """The share of a task's draws that belong to a family, `(t,)`."""
    return (found["family"] == FAMILIES.index(family)).mean(1)


def rows_of(setting: str, found: dict[str, np.ndarray], tasks: Task) -> dict[str, np.ndarray]:
    """The raw predictions at one number of rows; what belongs to a task is in its first row."""
    t, n = found["nll"].shape
    kept = [f.ravel() if i < STORED else None for i, f in enumerate(found["f"])]
    by_task = {
        "joint_nll": found["joint"],
        "p_sine": found["p"],
        "sampled_sine": share_of(found, "sine"),
        "sampled_line": share_of(found, "line"),
    }
    rows = {
        "x": np.asarray(tasks.query.x[..., 0]).ravel(),
        "y": np.asarray(tasks.query.y[..., 0]).ravel(),
        "mean": found["mean"].ravel(),
        "nll": found["nll"].ravel(),
        **{name: np.repeat(values, n) for name, values in by_task.items()},
        "log_p": raw.log_p(found["log_p"]),
        "functions": raw.first_rows(kept, n),
    }
    for name in ("joint_log_p", "to_sine", "to_line", "spread", "misfit"):
        rows[name] = raw.first_rows(found[name], n)
    return raw.task_rows(setting, t, n) | rows


def shown(k: int, found: dict[str, np.ndarray], tasks: Task) -> dict[str, np.ndarray]:
    """What the pictures need at one number of rows."""
    drawing = {
        f"p{k}": found["p"],
        f"sine{k}": share_of(found, "sine"),
        f"line{k}": share_of(found, "line"),
    }
    if k not in (1, 2):
        return drawing
    # functions are drawn of tasks that leave both families open
    both = np.flatnonzero((found["p"] > 0.3) & (found["p"] < 0.7))[:SHOWN]
    return drawing | {
        f"f{k}": found["f"][both][:, :30],
        f"family{k}": found["family"][both][:, :30],
        f"x{k}": np.asarray(tasks.support.x)[both, :, 0],
        f"y{k}": np.asarray(tasks.support.y)[both, :, 0],
        f"p_shown{k}": found["p"][both],
    }


def measure(setting: str, found: dict[str, np.ndarray], y: np.ndarray) -> list[Figure]:
    """The figures at one number of rows; `y` are the outcomes `(t, q)`."""
    p, family, fits = found["p"], found["family"], found["fits"].mean(1)
    ambiguous = (p > 0.1) & (p < 0.9)
    # Among many draws of the prior some fit by chance.
    both = (family == 0).any(1) & (family == 1).any(1) & (fits >= 0.5)
    return [
        Figure.of(setting, "nll", found["nll"].mean(1)),
        Figure.of(setting, "joint", found["joint"]),
        Figure.of(setting, "mse", ((found["mean"] - y) ** 2).mean(1)),
        Figure.of(setting, "coverage", both[ambiguous].astype(float)),
        Figure.of(setting, "frequency", np.abs((family == 0).mean(1) - p)[ambiguous]),
        Figure.of(setting, "fits", fits),
        Figure.of(setting, "incoherent", (family == NEITHER).mean(1)),
    ]
