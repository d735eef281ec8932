"""Ambiguous faces: positives share three attributes, of which a pair is meant."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Categorical
from metaprior.method import AbstractLearner, Spec
from metaprior.protocols.attributes.data import HELD_OUT, Faces, source
from metaprior.protocols.attributes.features import FEATURES, features
from metaprior.protocols.protocol import (
    Figure,
    Outcome,
    Tell,
    trained,
)
from metaprior.protocols.raw import functions_at
from metaprior.sources.attributes import (
    PAIRS,
    Episode,
    SharedAttributes,
)

KNOWN = "attributes known"


DRAWS = 10  # sampled classifiers an episode


TINY = 1e-4  # probability the reference gives to what it knows to be wrong


@eqx.filter_jit
def classify(
    learner: AbstractLearner, tasks: SharedAttributes, keys, draws: int
) -> tuple[jax.Array, Episode]:
    """P(positive) of sampled classifiers at all query images, `(t, s, 3, n)`, and the episodes."""

    def one(key):
        episode_key, fit_key, draw_key = jr.split(key, 3)
        episode = tasks.episode(episode_key)
        x = episode.query.x.reshape(-1, episode.query.x.shape[-1])
        posterior = learner.posterior(episode.support, key=fit_key)
        mixture = functions_at(posterior, x, key=draw_key, samples=draws)
        p = jnp.concatenate([part.head.mean(part.params)[..., 1] for part in mixture.parts])
        return p.reshape(p.shape[0], *episode.query.y.shape[:2]), episode

    return jax.lax.map(one, keys, batch_size=10)


def know(episode: Episode, key, draws: int) -> jax.Array:
    """What knows the attributes and takes each pair as equally likely: `draws` classifiers, `(s, 3,
    n)`.
    """
    pair = jnp.asarray(PAIRS)[jr.randint(key, (draws,), 0, len(PAIRS))]  # (s, 2)
    both = episode.held[..., pair].all(-1)  # (3, n, s)
    return jnp.moveaxis(jnp.where(both, 1 - TINY, TINY), -1, 0)


def score(p: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Table 1 of the paper, a value an episode.

    A classifier belongs to the pair under whose query labels its likelihood is highest. A pair is
    covered when a classifier belongs to it; of those that do, the likeliest is its classifier.
    Accuracy and NLL are means over the covered pairs of the pair's classifier on the pair's query.

    Args:
        p: P(positive) of the classifiers; `(t, s, 3, n)`.
        y: labels; `(t, 3, n)`.

    Returns:
        `coverage` (1 to 3), `accuracy` (per cent), `nll` (nats a label), `marginal`: minus the log
            of the classifiers'
        mean probability, nats a label, all three queries.
    """
    p = np.asarray(p, np.float64).clip(1e-7, 1 - 1e-7)
    right = np.where(y[:, None] > 0.5, p, 1 - p)
    nll, accuracy = -np.log(right).mean(-1), (right > 0.5).mean(-1)  # (t, s, 3)
    mine = np.eye(len(PAIRS), dtype=bool)[nll.argmin(-1)]  # (t, s, 3)
    covered = mine.any(1)  # (t, 3)
    best = np.where(mine, nll, np.inf).argmin(1)[:, None]  # (t, 1, 3)

    def of_best(values):
        return np.take_along_axis(values, best, 1)[:, 0]

    def mean(values):
        return (of_best(values) * covered).sum(-1) / covered.sum(-1)

    return {
        "coverage": covered.sum(-1).astype(float),
        "accuracy": 100 * mean(accuracy),
        "nll": mean(nll),
        "marginal": -np.log(right.mean(1)).mean((-1, -2)),
    }


def settings(method: str) -> dict[str, Any]:
    """Options of a row that are not its defaults; chosen on the validation images and triples."""

    def rate(start):
        return jnp.asarray(start)  # learned from here

    if method in ("maml", "emaml", "ensemble"):
        return {"inner_lr": rate(0.1)}
    if method == "platipus":  # its own 0.02 hardly lets two draws differ
        return {"inner_lr": rate(0.1), "std": 0.2, "depth": 2}
    if method == "bmaml":
        return {"inner_lr": rate(0.3), "depth": 2}
    return {"encoder": "deep set"} if method in ("np", "flow_np") else {}


def run(method: str, seed: int, options: dict, data: Faces, tell: Tell, which: int = 2) -> Outcome:
    """Train on the training images and triples, judge on held-out ones (`which`: 1 for validation,
    2 for test).
    """
    keys = jr.split(jr.key(HELD_OUT + which), options["tasks"])
    if method == KNOWN:
        tasks = source(data, data.pixels, which)
        look = eqx.filter_jit(
            lambda ks: jax.lax.map(lambda k: tasks.episode(jr.split(k, 3)[0]), ks, batch_size=10)
        )
        episodes = look(keys)
        p = jax.vmap(lambda e, k: know(e, k, DRAWS))(episodes, keys)
        facts: dict[str, Any] = {}
    else:
        tell(0.0, "features")
        x = features(data, seed, options["feature_steps"])
        spec, steps = (
            Spec(FEATURES, Categorical(2)),
            options["steps"].get(method, options["steps"][""]),
        )

        def told(done, what):
            return tell(0.2 + 0.6 * done, what)

        learner, facts = trained(
            method,
            spec,
            source(data, x, 0),
            seed,
            steps,
            told,
            batch=options["batch"],
            hyper=settings(method),
        )
        tell(0.8, "judging")
        tasks = source(data, x, which)
        p, episodes = classify(learner, tasks, keys, DRAWS)
    p, y = np.asarray(p), np.asarray(episodes.query.y[..., 0])
    values = score(p, y)
    figures = [Figure.of("", name, each) for name, each in values.items()]
    t, s, _, n = p.shape
    columns = {
        "task": np.repeat(np.arange(t), 3 * n),
        "pair": np.tile(np.repeat(np.arange(3), n), t),
        "row": np.tile(np.arange(n), 3 * t),
        "y": y.ravel().astype(np.int8),
    }
    for i in range(DRAWS):
        columns[f"p_{i}"] = (
            p[:, i].ravel().astype(np.float32) if i < s else np.full(t * 3 * n, np.nan, np.float32)
        )
    few = "" if s == DRAWS else f"{s} classifier{'s' * (s > 1)} an episode: all that it has"
    note = "; ".join(filter(None, (few, data.remark)))
    rows = (data.train, data.validation, data.test)[which]
    drawing = {
        "p": p[:SHOWN],
        "y": y[:SHOWN],
        "held": np.asarray(episodes.held[:SHOWN]),
        "coverage": values["coverage"],
        "triple": np.asarray(episodes.triple[:SHOWN]),
        "support": data.pixels[rows][np.asarray(episodes.shown[:SHOWN])],
        "query": data.pixels[rows][np.asarray(episodes.asked[:SHOWN])],
    }
    return Outcome(figures, columns, drawing, note, facts)


SHOWN = 3  # episodes kept for the picture
