"""Ambiguous faces: training, sampled classifiers, and the paper's scores."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Categorical
from metaprior.method import AbstractLearner, Spec
from metaprior.protocols.attributes.controls import CONTROLS, ONE, SCALES, Regressions
from metaprior.protocols.attributes.data import HELD_OUT, Faces, source
from metaprior.protocols.attributes.features import FEATURES, features
from metaprior.protocols.cell import option, part_of, trained
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import component_means, functions_at
from metaprior.sources.attributes import (
    PAIRS,
    Episode,
    SharedAttributes,
)

KNOWN = "attributes known"
DRAWS = 10  # sampled classifiers an episode
SHOWN = 3  # episodes kept for the picture
AT_ONCE = 10  # episodes of one compiled step
LOOKS = 40  # validation episodes that choose the prior of the controls
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
        p = component_means(mixture)[..., 1]
        return p.reshape(p.shape[0], *episode.query.y.shape[:2]), episode

    return jax.lax.map(one, keys, batch_size=AT_ONCE)


def know(episode: Episode, key, draws: int) -> jax.Array:
    """`draws` classifiers that know the attributes, `(s, 3, n)`; each pair is equally likely."""
    pair = jnp.asarray(PAIRS)[jr.randint(key, (draws,), 0, len(PAIRS))]  # (s, 2)
    both = episode.held[..., pair].all(-1)  # (3, n, s)
    return jnp.moveaxis(jnp.where(both, 1 - TINY, TINY), -1, 0)


def score(p: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Table 1 of the paper, a value an episode.

    A classifier belongs to the pair under whose query labels its likelihood is highest. A pair is
    covered when a classifier belongs to it; of those that do, the likeliest is its classifier.
    Accuracy and NLL are means over covered pairs, of the pair's classifier on the pair's query.

    Args:
        p: P(positive) of the classifiers; `(t, s, 3, n)`.
        y: labels; `(t, 3, n)`.

    Returns:
        `coverage` (1 to 3), `accuracy` (per cent) and `nll` (nats a label); `marginal`: minus the
        log of the classifiers' mean probability, nats a label, over all three queries.
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

    def learned(start: float) -> jax.Array:
        """A rate that is learned: an array, not a number."""
        return jnp.asarray(start)

    if method == "platipus":  # its own 0.02 hardly lets two draws differ
        paper = {"gamma": 0.01, "samples": 1, "objective": "elbo"}
        return {"inner_lr": learned(0.1), "std": 0.2, "bias_std": 0.2, "depth": 2} | paper
    if method == "bmaml":
        return {"inner_lr": learned(0.3), "depth": 2}
    return {"encoder": "deep set"} if method in ("np", "flow_np") else {}


def control(name: str, validation: SharedAttributes) -> Regressions:
    """With the prior under which validation episodes are likeliest."""
    keys = jr.split(jr.key(HELD_OUT + 1), LOOKS)

    def loss(scale: float) -> float:
        p, episodes = classify(Regressions(name, jnp.asarray(scale)), validation, keys, DRAWS)
        values = score(np.asarray(p), np.asarray(episodes.query.y[..., 0]))
        return float(values["marginal"].mean())

    return Regressions(name, jnp.asarray(min(SCALES, key=loss)))


def classified(
    method: str, seed: int, options: dict, data: Faces, keys: jax.Array, tell: Tell, which: int
) -> tuple[jax.Array, Episode, dict[str, Any]]:
    """P(positive) of sampled classifiers, the episodes, and facts of the training."""
    if method == KNOWN:
        tasks = source(data, data.pixels, which)

        @eqx.filter_jit
        def look(keys):
            # the same key makes the same episode as in `classify`
            return jax.lax.map(lambda k: tasks.episode(jr.split(k, 3)[0]), keys, batch_size=AT_ONCE)

        episodes = look(keys)
        return jax.vmap(lambda e, k: know(e, k, DRAWS))(episodes, keys), episodes, {}

    tell(0.0, "features")
    x = features(data, seed, options["feature_steps"])
    if method in CONTROLS:
        learner = control(method, source(data, x, 1))
        p, episodes = classify(learner, source(data, x, which), keys, DRAWS)
        return (p[:, :1] if method == ONE else p), episodes, {"scale": float(learner.scale)}
    spec, steps = Spec(FEATURES, Categorical(2)), option(options, "steps", method)
    told, batch = part_of(tell, 0.2, 0.8), options["batch"]
    training, hyper = source(data, x, 0), settings(method)
    learner, facts = trained(method, spec, training, seed, steps, told, batch=batch, hyper=hyper)
    tell(0.8, "judging")
    p, episodes = classify(learner, source(data, x, which), keys, DRAWS)
    return p, episodes, facts


def run(method: str, seed: int, options: dict, data: Faces, tell: Tell, which: int = 2) -> Outcome:
    """Train on the training images and triples, judge on held-out ones.

    Args:
        method, seed, options, data, tell: as in `Protocol.run`.
        which: 1 for validation, 2 for the test.
    """
    keys = jr.split(jr.key(HELD_OUT + which), options["tasks"])
    given, episodes, facts = classified(method, seed, options, data, keys, tell, which)
    p, y = np.asarray(given), np.asarray(episodes.query.y[..., 0])
    values = score(p, y)
    figures = [Figure.of("", name, each) for name, each in values.items()]

    few, count = "", p.shape[1]
    if count < DRAWS:
        few = f"{count} classifier{'s' * (count > 1)} an episode: all that it has"
    note = "; ".join(filter(None, (few, data.remark)))
    pixels = data.pixels[data.parts[which]]
    drawing = {
        "p": p[:SHOWN],
        "y": y[:SHOWN],
        "held": np.asarray(episodes.held[:SHOWN]),
        "coverage": values["coverage"],
        "triple": np.asarray(episodes.triple[:SHOWN]),
        "support": pixels[np.asarray(episodes.shown[:SHOWN])],
        "query": pixels[np.asarray(episodes.asked[:SHOWN])],
    }
    return Outcome(figures, _columns(p, y), drawing, note, facts)


def _columns(p: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Raw predictions; a method of fewer classifiers than `DRAWS` has NaN for the others."""
    t, s, pairs, n = p.shape
    columns = {
        "task": np.repeat(np.arange(t), pairs * n),
        "pair": np.tile(np.repeat(np.arange(pairs), n), t),
        "row": np.tile(np.arange(n), pairs * t),
        "y": y.ravel().astype(np.int8),
    }
    absent = np.full(y.size, np.nan, np.float32)
    for i in range(DRAWS):
        columns[f"p_{i}"] = p[:, i].ravel().astype(np.float32) if i < s else absent
    return columns
