"""A sine wave or a line: whether sampled functions hold both explanations, as often as the exact
posterior does.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Gaussian, MixtureDensity
from metaprior.method import Spec
from metaprior.mixture import Mixture, Part
from metaprior.posterior import Particles, Sampled
from metaprior.protocols.protocol import (
    Figure,
    Outcome,
    trained,
)
from metaprior.protocols.raw import first_rows, functions_at, joint_terms, log_p, log_terms
from metaprior.sources import SineLine
from metaprior.sources.exact import Known

EXACT, POINTWISE = "exact", "cnp with a mixture head"


NOISE = 0.3


TEST_KEY = 90210  # tasks that no default was chosen on


FAMILIES = ("sine", "line")


SHOWN = 3  # tasks of the report's pictures


STORED = 20  # tasks of a number of rows whose drawn functions are kept


def distances(x, f):
    """How far each function is from each family: `(s, n) -> (2, s)`.

    Least squares on {sin x, cos x} and on {x, 1}; the distance is the root mean square over the
    grid.
    """
    bases = (
        jnp.concatenate([jnp.sin(x), jnp.cos(x)], 1),
        jnp.concatenate([x, jnp.ones_like(x)], 1),
    )
    off = [f.T - b @ jnp.linalg.lstsq(b, f.T)[0] for b in bases]
    return jnp.stack([jnp.sqrt((r**2).mean(0)) for r in off])


def families(x, f):
    """Which family each function is nearer to, and how far from it: `(s, n) -> (s,), (s,)`."""
    rms = distances(x, f)
    return rms.argmin(0), rms.min(0)


def at_points(mixture: Mixture, points: slice) -> Mixture:
    """The same components at some of the points."""

    def cut(p):
        return Part(
            p.head,
            p.params[:, points],
            p.log_weight,
            None if p.inside is None else p.inside[:, points],
        )

    return Mixture(tuple(cut(part) for part in mixture.parts))


def functions(mixture: Mixture, key, draws: int):
    """`draws` functions, `(draws, n)`: means of coherent draws, and outcomes where there is one
    component.

    A method whose posterior is one density a point has no functions to draw: its mean for a normal
    head, an independent outcome at every point for a mixture head ("version 0").
    """
    (first, *_) = mixture.parts
    if isinstance(first.head, Gaussian):
        f = jnp.concatenate([part.head.mean(part.params)[..., 0] for part in mixture.parts])
    else:
        keys = jr.split(key, draws)
        f = jax.vmap(lambda k: first.head.sample(first.params[0], key=k))(keys)[..., 0]
    return f[jnp.arange(draws) % f.shape[0]]


def look(learner, source: SineLine, tasks, keys, draws: int, samples: int):
    """Everything that is measured on stacked tasks."""
    grid = jnp.linspace(*source.x, 64)[:, None]

    def one(pair):
        task, key = pair
        keys = jr.split(key, 4)
        posterior = learner.posterior(task.support, key=keys[0])
        n = len(grid)
        drawn = functions_at(
            posterior, jnp.concatenate([grid, task.query.x]), key=keys[1], samples=samples
        )
        mixture = at_points(drawn, slice(n, None))
        if isinstance(
            posterior, Sampled | Particles
        ):  # nothing but draws is known: the same ones serve everything
            joint = mixture.joint_log_prob(task.query)
        else:
            mixture = posterior.predict(task.query.x, key=keys[2], samples=samples)
            joint = posterior.joint_log_prob(task.query, key=keys[2], samples=samples)
        f = functions(at_points(drawn, slice(0, n)), keys[3], draws)
        rms, spread = distances(grid, f), f.std(1)
        near = rms.min(0) <= jnp.maximum(2 * source.noise, 0.45 * spread)
        return {
            "nll": -mixture.log_prob(task.query.y),
            "log_p": log_terms(mixture, task.query.y),
            "joint_log_p": joint_terms(posterior, mixture, task.query, joint),
            "to_sine": rms[0],
            "to_line": rms[1],
            "spread": spread,
            "mean": mixture.mean()[:, 0],
            "joint": -joint / task.query.count,
            "family": jnp.where(near, rms.argmin(0), 2),
            "f": f,
            "p": source.exact(task.support).family()[0],
        }

    return jax.lax.map(one, (tasks, keys), batch_size=8)


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell) -> Outcome:
    """Train on 1 to 5 rows, judge at each number of rows."""
    facts: dict[str, Any] = {}
    training = SineLine(support=5, query=10, fewest=1)
    if method == EXACT:
        learner = Known(training)
    elif method == POINTWISE:
        learner, facts = trained(
            "cnp", Spec(1, MixtureDensity(5)), training, seed, options["steps"], tell
        )
    else:
        learner, facts = trained(
            method, Spec(1, Gaussian(1)), training, seed, options["steps"], tell
        )
    count = options["slow_tasks"] if method in SLOW else options["tasks"]
    figures, columns, drawing = [], {}, {"grid": np.linspace(*training.x, 64)}
    run = eqx.filter_jit(look)
    for k in options["shots"]:
        tell(1.0, f"judging with {k} rows")
        source = SineLine(support=k, query=20)
        tasks = jax.jit(jax.vmap(source))(jr.split(jr.key(TEST_KEY + k), count))
        found = run(
            learner,
            source,
            tasks,
            jr.split(jr.key(TEST_KEY), count),
            options["draws"],
            options["samples"],
        )
        found = {name: np.asarray(value) for name, value in found.items()}
        figures += measure(f"K = {k}", found, np.asarray(tasks.query.y[..., 0]))
        rows = found["nll"].shape
        sine = (found["family"] == 0).mean(1)
        line = (found["family"] == 1).mean(1)

        def task(v):
            return np.broadcast_to(np.asarray(v)[:, None], rows).ravel()

        part = {
            "setting": np.full(rows, f"K = {k}").ravel(),
            "task": task(np.arange(count)),
            "x": np.asarray(tasks.query.x[..., 0]).ravel(),
            "y": np.asarray(tasks.query.y[..., 0]).ravel(),
            "mean": found["mean"].ravel(),
            "nll": found["nll"].ravel(),
            "joint_nll": task(found["joint"]),
            "p_sine": task(found["p"]),
            "sampled_sine": task(sine),
            "sampled_line": task(line),
            "row": np.tile(np.arange(rows[1]), count),
            "log_p": log_p(found["log_p"]),
            "functions": first_rows(
                [f.ravel() if t < STORED else None for t, f in enumerate(found["f"])], rows[1]
            ),
        }
        part |= {
            name: first_rows(found[name], rows[1])
            for name in ("joint_log_p", "to_sine", "to_line", "spread")
        }
        columns = {name: [*columns.get(name, []), value] for name, value in part.items()}
        if k in (1, 2):
            open_ = np.flatnonzero((found["p"] > 0.3) & (found["p"] < 0.7))[:SHOWN]
            drawing |= {
                f"f{k}": found["f"][open_][:, :30],
                f"family{k}": found["family"][open_][:, :30],
                f"x{k}": np.asarray(tasks.support.x)[open_, :, 0],
                f"y{k}": np.asarray(tasks.support.y)[open_, :, 0],
                f"p_shown{k}": found["p"][open_],
            }
        drawing |= {f"p{k}": found["p"], f"sine{k}": sine, f"line{k}": line}
    note = "" if count == options["tasks"] else f"judged on {count} tasks, as it is slow"
    return Outcome(
        figures, {k: np.concatenate(v) for k, v in columns.items()}, drawing, note, facts
    )


def measure(setting: str, found: dict[str, np.ndarray], y: np.ndarray) -> list[Figure]:
    """The figures at one number of rows."""
    p, family = found["p"], found["family"]
    ambiguous = (p > 0.1) & (p < 0.9)
    both = (family == 0).any(1) & (family == 1).any(1)
    named = np.maximum((family < 2).sum(1), 1)
    share = np.where((family < 2).any(1), (family == 0).sum(1) / named, np.nan)
    return [
        Figure.of(setting, "nll", found["nll"].mean(1)),
        Figure.of(setting, "joint", found["joint"]),
        Figure.of(setting, "mse", ((found["mean"] - y) ** 2).mean(1)),
        Figure.of(setting, "coverage", both[ambiguous].astype(float)),
        Figure.of(setting, "frequency", np.abs(share - p)[ambiguous]),
        Figure.of(setting, "incoherent", (family == 2).mean(1)),
    ]


SLOW = ("nuts", "bnn", "ar_cnp")
