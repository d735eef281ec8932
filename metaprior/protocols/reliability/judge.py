"""Whether stated probabilities come true, of numbers and of classes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.evaluation import calibration
from metaprior.method import AbstractLearner
from metaprior.mixture import Mixture, Part, crps
from metaprior.protocols.characters import BlobLearner, Blobs, FewShot
from metaprior.protocols.protocol import (
    Figure,
    Outcome,
    Tell,
    trained,
)
from metaprior.protocols.reliability.data import BLOBS, CHARACTERS, WAY, _sources
from metaprior.protocols.reliability.figures import (
    QUANTILES,
    _class_columns,
    _joined,
    _number_columns,
    class_figures,
    number_figures,
)
from metaprior.sources.exact import Known

EXACT = "exact posterior"


ATOMS = 20  # quantiles of a component for the CRPS, within 1e-3 of its scale


KEPT = 256  # components of an exact mixture of thousands


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
    """Per-row figures of one task a key, `(t, q)`; quantiles `(t, 3, q)`."""

    def one(key):
        task = source(key)
        y = task.query.y
        posterior = learner.posterior(task.support, key=jr.fold_in(key, 1))
        mixture = posterior.predict(task.query.x, key=jr.fold_in(key, 2), samples=samples)
        nll, mean = -mixture.log_prob(y), mixture.mean()[:, 0]
        mixture = thinned(mixture, KEPT)
        quantiles = jax.vmap(mixture.quantile)(jnp.asarray(QUANTILES))[..., 0]
        return {
            "y": y[:, 0],
            "nll": nll,
            "mean": mean,
            "pit": mixture.cdf(y)[:, 0],
            "crps": crps(*mixture.atoms(ATOMS), y),
            "quantiles": quantiles,
        }

    return jax.lax.map(one, keys, batch_size=8)


@eqx.filter_jit
def judge_classes(
    learner: AbstractLearner, source: FewShot, keys, samples: int
) -> dict[str, jax.Array]:
    """Probabilities of query rows `(t, q, c)`, in and out of the episode, and the classes of the
    former.
    """

    def one(key):
        task, outside = source.beside(key)
        posterior = learner.posterior(task.support, key=jr.fold_in(key, 1))
        x = jnp.concatenate([task.query.x, outside])
        p = posterior.predict(x, key=jr.fold_in(key, 2), samples=samples).mean()
        n = len(task.query.x)
        return {"p": p[:n], "outside": p[n:], "y": task.query.y[:, 0]}

    return jax.lax.map(one, keys, batch_size=16)


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Every setting in turn."""
    figures: list[Figure] = []
    tables: list[dict[str, np.ndarray]] = []
    drawing: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    settings = {
        k: v for k, v in _sources(options, data).items() if method != EXACT or k != CHARACTERS
    }
    for i, (setting, (source, test, validation, spec)) in enumerate(settings.items()):

        def share(done, what):
            return tell((i + done) / len(settings), f"{setting}: {what}")

        if method == EXACT:
            learner: Any = BlobLearner(WAY, Blobs().spread) if setting == BLOBS else Known(test)
        else:

            def training(done, what):
                return share(0.7 * done, what)

            steps = options["steps"]["classes" if spec.head.classes else "numbers"]
            learner, facts[setting] = trained(method, spec, source, 1000 + seed, steps, training)
        share(0.7, "predicting")
        keys = jr.split(jr.fold_in(jr.key(90_001), seed), options["tasks"])
        if not spec.head.classes:
            found = judge_numbers(learner, test, keys, options["samples"])
            rows = {k: np.asarray(v, np.float64) for k, v in found.items()}
            figures += number_figures(setting, rows)
            tables.append(_number_columns(setting, rows))
            drawing[f"pit {setting}"] = calibration.pit_histogram(rows["pit"].ravel(), 20)
            continue

        def look(src, keys):
            return {
                k: np.asarray(v, np.float64)
                for k, v in judge_classes(learner, src, keys, options["samples"]).items()
            }

        rows = look(test, keys)
        y = rows["y"].astype(int)
        shown = {setting: 1.0}
        if options["temperature"]:
            held = look(validation, jr.split(jr.fold_in(jr.key(90_002), seed), options["tasks"]))
            temperature = calibration.fit_temperature(held["p"].reshape(-1, WAY), held["y"].ravel())
            facts.setdefault(setting, {})["temperature"] = temperature
            shown[f"{setting}, temperature fitted on validation tasks"] = temperature
        for name, temperature in shown.items():
            p, outside = (
                rows[k] if temperature == 1.0 else calibration.tempered(rows[k], temperature)
                for k in ("p", "outside")
            )
            figures += class_figures(name, p, y, outside)
            tables += [
                _class_columns(name, p, y, True),
                _class_columns(name, outside, np.full(outside.shape[:2], -1), False),
            ]
            bins = calibration.equal_width(*calibration.top(p.reshape(-1, WAY), y.ravel()), 15)
            drawing[f"bins {name}"] = np.stack(bins).astype(np.float64)
            edges = np.linspace(0, np.log(WAY), 31)
            both = [
                np.histogram(calibration.entropy(v), edges)[0] / v[..., 0].size
                for v in (p, outside)
            ]
            drawing[f"entropy {name}"] = np.stack(both)
    return Outcome(figures, _joined(tables), drawing, facts=facts)
