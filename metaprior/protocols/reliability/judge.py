"""Whether stated probabilities come true: training, and what is said of every row."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.evaluation import calibration
from metaprior.method import AbstractLearner
from metaprior.mixture import Mixture, Part, crps
from metaprior.protocols.cell import item_of, part_of, to_numpy, trained
from metaprior.protocols.characters import BlobLearner, Blobs, FewShot
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import joined
from metaprior.protocols.reliability.data import BLOBS, CHARACTERS, WAY, Setting, settings_of
from metaprior.protocols.reliability.figures import (
    QUANTILES,
    class_columns,
    class_figures,
    number_columns,
    number_figures,
)
from metaprior.sources.exact import Known

EXACT = "exact posterior"
TEST_KEY, VALIDATION_KEY = 90_001, 90_002
ATOMS = 20  # quantiles of a component for the CRPS, within 1e-3 of its scale
KEPT = 256  # components of an exact mixture of thousands
BINS = 15  # of the diagrams
# Figures, tables of raw predictions, and arrays that are drawn, of one setting.
Judged = tuple[list[Figure], list[dict[str, np.ndarray]], dict[str, np.ndarray]]


def thinned(mixture: Mixture, most: int) -> Mixture:
    """The `most` heaviest components, where there are more and all parts share a head."""
    weights = jnp.concatenate([p.log_weight for p in mixture.parts])
    if len(weights) <= most:
        return mixture
    log_weight, kept = jax.lax.top_k(weights, most)
    params = jnp.concatenate([p.params for p in mixture.parts])[kept]
    return Mixture((Part(mixture.parts[0].head, params, log_weight),))


@eqx.filter_jit
def judge_numbers(
    learner: AbstractLearner, source: Any, keys, samples: int
) -> dict[str, jax.Array]:
    """What is said of the query rows of one task a key, `(t, q)`; quantiles `(t, 3, q)`."""

    def one(key):
        task = source(key)
        y = task.query.y
        posterior = learner.posterior(task.support, key=jr.fold_in(key, 1))
        mixture = posterior.predict(task.query.x, key=jr.fold_in(key, 2), samples=samples)
        found = {"y": y[:, 0], "nll": -mixture.log_prob(y), "mean": mixture.mean()[:, 0]}

        # what sorts components would take too long with thousands of them
        mixture = thinned(mixture, KEPT)
        quantiles = jax.vmap(mixture.quantile)(jnp.asarray(QUANTILES))[..., 0]
        score = crps(*mixture.atoms(ATOMS), y)
        return found | {"pit": mixture.cdf(y)[:, 0], "crps": score, "quantiles": quantiles}

    return jax.lax.map(one, keys, batch_size=8)


@eqx.filter_jit
def judge_classes(
    learner: AbstractLearner, source: FewShot, keys, samples: int
) -> dict[str, jax.Array]:
    """Probabilities of the query rows of one task a key.

    Returns:
        `p`, `(t, q, c)`, and `y`, `(t, q)`, of rows of the episode; `outside`, `(t, q, c)`, of rows
        of classes that are not in it.
    """

    def one(key):
        task, outside = source.beside(key)
        posterior = learner.posterior(task.support, key=jr.fold_in(key, 1))
        x = jnp.concatenate([task.query.x, outside])
        p = posterior.predict(x, key=jr.fold_in(key, 2), samples=samples).mean()
        n = len(task.query.x)
        return {"p": p[:n], "outside": p[n:], "y": task.query.y[:, 0]}

    return jax.lax.map(one, keys, batch_size=16)


def train(
    method: str, name: str, setting: Setting, seed: int, options: dict[str, Any], tell: Tell
) -> tuple[Any, dict[str, Any]]:
    """The learner of a setting, trained where it can be, and facts of its training."""
    if method == EXACT:
        exact = BlobLearner(WAY, Blobs().spread) if name == BLOBS else Known(setting.test)
        return exact, {}
    steps = options["steps"]["classes" if setting.spec.head.classes else "numbers"]
    return trained(method, setting.spec, setting.train, 1000 + seed, steps, tell)


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Every setting in turn."""
    figures: list[Figure] = []
    tables: list[dict[str, np.ndarray]] = []
    drawing: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    settings = settings_of(options, data)
    if method == EXACT:
        settings.pop(CHARACTERS, None)  # nobody knows the exact posterior of drawn characters

    for i, (name, setting) in enumerate(settings.items()):
        told = item_of(tell, i, len(settings), name)
        learner, own = train(method, name, setting, seed, options, part_of(told, 0.0, 0.7))
        told(0.7, "predicting")
        if setting.spec.head.classes:
            found, more = of_classes(name, setting, learner, seed, options)
            own = own | more
        else:
            found = of_numbers(name, setting, learner, seed, options)
        figures += found[0]
        tables += found[1]
        drawing |= found[2]
        if own:
            facts[name] = own
    return Outcome(figures, joined(tables), drawing, facts=facts)


def keys_of(which: int, seed: int, tasks: int) -> jax.Array:
    """Keys of held-out tasks; the same for all methods of a seed."""
    return jr.split(jr.fold_in(jr.key(which), seed), tasks)


def of_numbers(
    name: str, setting: Setting, learner: Any, seed: int, options: dict[str, Any]
) -> Judged:
    """Figures, tables and drawing of a setting with numbers."""
    keys = keys_of(TEST_KEY, seed, options["tasks"])
    found = judge_numbers(learner, setting.test, keys, options["samples"])
    rows = to_numpy(found, np.float64)
    drawing = {f"pit {name}": calibration.pit_histogram(rows["pit"].ravel(), 20)}
    return number_figures(name, rows), [number_columns(name, rows)], drawing


def of_classes(
    name: str, setting: Setting, learner: Any, seed: int, options: dict[str, Any]
) -> tuple[Judged, dict[str, float]]:
    """Figures, tables and drawing of a setting with classes; and the fitted temperature."""

    def look(source: FewShot, which: int) -> dict[str, np.ndarray]:
        keys = keys_of(which, seed, options["tasks"])
        return to_numpy(judge_classes(learner, source, keys, options["samples"]), np.float64)

    rows = look(setting.test, TEST_KEY)
    y = rows["y"].astype(int)
    parts = [_shown(name, rows["p"], y, rows["outside"])]
    facts = {}
    if options["temperature"]:
        held = look(setting.validation, VALIDATION_KEY)
        p = held["p"].reshape(-1, WAY)
        temperature = facts["temperature"] = calibration.fit_temperature(p, held["y"].ravel())
        p, outside = (calibration.tempered(rows[k], temperature) for k in ("p", "outside"))
        parts.append(_shown(tempered(name), p, y, outside))

    figures = [figure for part in parts for figure in part[0]]
    tables = [table for part in parts for table in part[1]]
    drawing = {key: array for part in parts for key, array in part[2].items()}
    return (figures, tables, drawing), facts


def tempered(name: str) -> str:
    """How the setting is called whose probabilities have a temperature."""
    return f"{name}, temperature fitted on validation tasks"


def _shown(name: str, p: np.ndarray, y: np.ndarray, outside: np.ndarray) -> Judged:
    """Figures, tables and drawing of probabilities `(t, q, c)`, in and out of the episode."""
    none = np.full(outside.shape[:2], -1)  # rows from outside have no class
    tables = [class_columns(name, p, y, True), class_columns(name, outside, none, False)]

    confidence, hit = calibration.top(p.reshape(-1, WAY), y.ravel())
    bins = calibration.equal_width(confidence, hit, BINS)
    edges = np.linspace(0, np.log(WAY), 31)
    entropies = [
        np.histogram(calibration.entropy(values), edges)[0] / values[..., 0].size
        for values in (p, outside)
    ]
    drawing = {
        f"bins {name}": np.stack(bins).astype(np.float64),
        f"entropy {name}": np.stack(entropies),
    }
    return class_figures(name, p, y, outside), tables, drawing
