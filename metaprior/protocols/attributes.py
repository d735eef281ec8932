"""Ambiguous faces: positives share three attributes, of which a pair is meant."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from metaprior.errors import InputError
from metaprior.heads import Categorical
from metaprior.images import read_attributes
from metaprior.method import AbstractLearner, Spec
from metaprior.nets.conv import Conv4
from metaprior.protocols.attributes_pictures import draw
from metaprior.protocols.protocol import (
    Anchor,
    Drawn,
    Figure,
    Metric,
    Outcome,
    Protocol,
    Tell,
    able,
    inside,
    trained,
)
from metaprior.protocols.raw import functions_at
from metaprior.sources.attributes import (
    PAIRS,
    Episode,
    SharedAttributes,
    Triples,
    split_triples,
    triples,
)
from metaprior.training import adam

FILE = "avatars_open_peeps32.npz"
KNOWN = "attributes known"
SHOTS, QUERY, SIZE = 5, 10, 32
DRAWS = 10  # sampled classifiers an episode
HELD_OUT = 20261125  # key of the judged episodes, and seed of both splits
MOST_IMAGES, MOST_TRIPLES = 20_000, 400
FEATURES, FILTERS = 32, 16
TINY = 1e-4  # probability the reference gives to what it knows to be wrong


@dataclasses.dataclass
class Faces:
    """Distinct images, split, and signed triples of their attributes, split.

    Args:
        pixels: `(n, 32, 32, c)`, bytes.
        values: `(n, a)`.
        names: of the attributes.
        train, validation, test: rows of `pixels`.
        triples: for training, validation and test.
        remark: what was left out.
        features: of all images, by seed and steps; filled when first asked for.
    """

    pixels: np.ndarray
    values: np.ndarray
    names: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    triples: tuple[Triples, Triples, Triples]
    remark: str
    features: dict = dataclasses.field(default_factory=dict)


def load(path: Path | None) -> Faces:
    """The avatars in a folder of data, or images with attributes of one's own."""
    if path is None:
        raise InputError(
            f"attributes: needs images; give --data a folder that holds {FILE}, or CelebA's folder."
        )
    path = Path(path)
    read = read_attributes(inside(path, FILE), SIZE)
    return split(read.pixels, read.values, tuple(read.names), str(path), read.remarks)


def split(
    pixels: np.ndarray,
    values: np.ndarray,
    names: tuple[str, ...],
    path: str,
    remarks: Sequence[str] = (),
) -> Faces:
    """60 % of the distinct images for training, 15 % for validation, 25 % for test; triples of
    attributes likewise.
    """
    if values.shape[1] < 3:
        raise InputError(
            f"{path}: has {values.shape[1]} attributes; a concept is a pair of three, so give 3 or more."
        )
    rng = np.random.default_rng(HELD_OUT)
    first = np.sort(np.unique(pixels.reshape(len(pixels), -1), axis=0, return_index=True)[1])
    said = list(remarks)
    if len(first) < len(pixels):
        said.append(
            f"{len(pixels) - len(first)} of {len(pixels)} images left out as copies of others"
        )
    if len(first) > MOST_IMAGES:
        said.append(f"{MOST_IMAGES} of {len(first)} distinct images taken at random")
        first = np.sort(rng.choice(first, MOST_IMAGES, replace=False))
    order = rng.permutation(len(first))
    first_cut, second_cut = int(0.6 * len(first)), int(0.75 * len(first))
    train, validation, test = parts = (
        order[:first_cut],
        order[first_cut:second_cut],
        order[second_cut:],
    )
    pixels, values = pixels[first], values[first]
    good = [{(*c, *s) for c, s in triples(values[p], SHOTS, QUERY)} for p in parts]
    every = triples(values[parts[0]], SHOTS, QUERY)
    chosen = split_triples(
        every.take([(*c, *s) in good[1] & good[2] for c, s in every]), MOST_TRIPLES, HELD_OUT
    )
    if chosen is None:
        raise InputError(
            f"{path}: too few images for their {values.shape[1]} attributes: fewer than 3 triples of attributes have, in each "
            f"of training, validation and test images, {SHOTS} positives and {SHOTS} negatives to show and {QUERY} of each to ask."
        )
    return Faces(pixels, values, names, train, validation, test, chosen, "; ".join(said))


class Namer(eqx.Module):
    """A convolutional network whose last hidden layer says which attributes an image has."""

    body: Conv4
    last: eqx.nn.Linear

    def __call__(self, row):
        return self.last(jax.nn.relu(self.body(row)))


def features(data: Faces, seed: int, steps: int, batch: int = 64) -> np.ndarray:
    """`FEATURES` numbers an image, standardised on the training images, of which alone the network
    is made.
    """
    if (seed, steps) in data.features:
        return data.features[seed, steps]
    n, size, _, channels = data.pixels.shape
    keys = jr.split(jr.key(seed), 3)
    body = Conv4.init(
        FEATURES, size=size, channels=channels, filters=FILTERS, pooled=False, key=keys[0]
    )
    net = Namer(body, eqx.nn.Linear(FEATURES, data.values.shape[1], key=keys[1]))
    arrays, rest = eqx.partition(net, eqx.is_inexact_array)
    optimiser = adam(3e-3, steps)
    images, values = (
        jnp.asarray(data.pixels[data.train]),
        jnp.asarray(data.values[data.train], float),
    )

    @jax.jit
    def train(arrays, state, key):
        def step(i, carry):
            arrays, state = carry
            rows = jr.randint(jr.fold_in(key, i), (batch,), 0, len(images))
            x = images[rows].reshape(batch, -1).astype(float) / 255.0

            def loss(arrays):
                raw = jax.vmap(eqx.combine(arrays, rest))(x)
                return optax.sigmoid_binary_cross_entropy(raw, values[rows]).mean()

            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimiser.update(jax.grad(loss)(arrays), state, arrays)
            return optax.apply_updates(arrays, updates), state

        return jax.lax.fori_loop(0, steps, step, (arrays, state))[0]

    net = eqx.combine(train(arrays, optimiser.init(arrays), keys[2]), rest)
    look = eqx.filter_jit(lambda body, x: jax.vmap(body)(x.astype(float) / 255.0))
    flat = data.pixels.reshape(n, -1)
    pad = np.concatenate([flat, flat[: -n % 100]])
    found = np.concatenate(
        [np.asarray(look(net.body, jnp.asarray(part))) for part in np.split(pad, len(pad) // 100)]
    )
    found = found[:n]
    own = found[data.train]
    data.features[seed, steps] = ((found - own.mean(0)) / (own.std(0) + 1e-6)).astype(np.float32)
    return data.features[seed, steps]


def source(data: Faces, x: np.ndarray, which: int) -> SharedAttributes:
    """Tasks on the images and triples for training (0), validation (1) or test (2)."""
    rows = (data.train, data.validation, data.test)[which]
    return SharedAttributes.of(x[rows], data.values[rows], data.triples[which], SHOTS, QUERY)


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


def sentence(cells: Sequence[Drawn]) -> str:
    """The best coverage of a method, beside MAML's accuracy."""
    found: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        if cell.method != KNOWN:
            values = {f.metric: f.value for f in cell.figures}
            found.setdefault(cell.method, []).append((values["coverage"], values["accuracy"]))
    means = {name: np.mean(values, axis=0) for name, values in found.items()}
    if not means:
        return ""
    best = max(means, key=lambda name: means[name][0])
    said = f"{best} finds {means[best][0]:.2f} of the 3 concepts, at an accuracy of {means[best][1]:.1f} %"
    if "maml" in means and best != "maml":
        said += f"; MAML finds {means['maml'][0]:.2f}, at {means['maml'][1]:.1f} %"
    return said + "."


_PAPER = "Finn, Xu & Levine 2018, table 1, recalled; CelebA, number of draws not stated"


def _anchor(name: str, accuracy: float, coverage: float, nll: float) -> list[Anchor]:
    values = {"accuracy": accuracy, "coverage": coverage, "nll": nll}
    return [Anchor(name, "", metric, value, _PAPER) for metric, value in values.items()]


ANCHORS = (
    *_anchor("MAML on CelebA", 89.0, 1.0, 0.73),
    *_anchor("MAML + noise on CelebA", 84.3, 1.89, 0.68),
    *_anchor("PLATIPUS (KL 0.05) on CelebA", 88.34, 1.59, 0.67),
    *_anchor("PLATIPUS (KL 0.15) on CelebA", 87.8, 1.94, 0.56),
    Anchor(
        "ten fair choices of a pair",
        "",
        "coverage",
        3 * (1 - (2 / 3) ** 10),
        "exact: 3 (1 - (2/3)^10)",
    ),
)

PROTOCOL = Protocol(
    name="attributes",
    title="Ambiguous faces: which two of three attributes are meant?",
    lead="Five faces are positives and share three attributes; five are negatives and have none of them. The concept that is "
    "asked about is a pair of the three, and nothing shown says which: three concepts are right. Ten classifiers are drawn "
    "from each method's posterior; a method that knows what it does not know draws classifiers of all three concepts, each "
    "of them accurate. A method of one function can mean one of them at best.",
    papers=(
        "Finn, Xu & Levine, “Probabilistic Model-Agnostic Meta-Learning”, NeurIPS 2018, section 6, table 1",
    ),
    choices=(
        "Attributes may be negated: a signed triple is three attributes, each wanted or unwanted (32 for the four attributes of "
        "the avatars; at most 400, taken at random). Triples are split at random, 5 in 8 for training, 1 for "
        "validation, 2 for test; one and its opposite, the same with the labels exchanged, stay together. A pair of a held-out "
        "triple may have been met in training with another third attribute.",
        "Images are split too: 60 % of the distinct ones for training, 15 % for validation, 25 % for test. Copies are left out. "
        "Settings were chosen on validation images and triples.",
        "A pair's query: 10 positives, which have both attributes of the pair, whatever the third; 10 negatives, which lack one "
        "or both; each drawn evenly from all such images that the support does not hold. Training asks one pair at random.",
        "Coverage, accuracy and NLL are the paper's: each classifier belongs to the concept under whose query labels its "
        "likelihood is highest; a concept is covered when a classifier belongs to it; accuracy and NLL are those of the "
        "likeliest classifier of each covered concept on its query, so they favour methods with more classifiers a little. The "
        "paper does not state the number of draws: ten here. Methods of a few functions have these (noted beside them).",
        "Marginal NLL is minus the log of the classifiers' mean probability, over the queries of all three concepts: what the "
        "mixture says of one label when it cannot know the concept.",
        f"All methods of a seed see the same {FEATURES} features of an image: the last hidden layer of a convolutional network "
        "trained to name the attributes of the training images, then fixed. What differs between methods is what they make of "
        "ambiguity, not how well they see. The paper trains a convolutional network with each method.",
        f"“{KNOWN}” is no method: it reads the true attributes and takes each pair to be as likely.",
        "MAML, PLATIPUS and BMAML learn an inner rate from 0.1, 0.1 and 0.3; PLATIPUS starts from a standard deviation of 0.2, "
        "since its own 0.02 hardly lets two draws differ (coverage 1.3 on validation episodes); neural processes have the encoder "
        "of the paper (deep set); all else are the table's defaults. Black boxes remember training triples: on "
        "validation triples the neural process covers more concepts and is right less often than MAML.",
    ),
    metrics={
        "accuracy": Metric("accuracy", "% of labels", "high"),
        "coverage": Metric("coverage", "of 3 concepts", "high"),
        "nll": Metric("NLL of the covered concepts", "nats a label", "low"),
        "marginal": Metric("marginal NLL", "nats a label", "low"),
    },
    methods=("maml", "platipus", "versa"),
    able=able("classes", but=("nuts", "stack")),  # NUTS would take hours an episode
    budgets={
        "quick": {
            "steps": {"": 1000, "platipus": 400, "bmaml": 300},
            "batch": 16,
            "tasks": 200,
            "feature_steps": 400,
        },
        "full": {"steps": {"": 20000}, "batch": 25, "tasks": 1000, "feature_steps": 2000},
    },
    without={"nuts": "hours an episode"},
    run=run,
    draw=draw,
    references=(KNOWN,),
    anchors=ANCHORS,
    load=load,
    reads=lambda path: [inside(path, FILE)],
    sentence=sentence,
)
