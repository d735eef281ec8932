"""One view of an object is shown, the others are to be drawn."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.errors import InputError
from metaprior.heads import Gaussian
from metaprior.images import read_views
from metaprior.method import AbstractLearner, Spec
from metaprior.methods import METHODS
from metaprior.protocols.generation_controls import CVAE, MeanView, average, ssim, weights
from metaprior.protocols.generation_pictures import CONTROL, MEAN, draw
from metaprior.protocols.protocol import (
    Anchor,
    Drawn,
    Figure,
    Metric,
    Outcome,
    Protocol,
    Tell,
    inside,
)
from metaprior.protocols.raw import functions_at, lists
from metaprior.sources.views import ObjectViews
from metaprior.training import fit

FILE = "views3d_furniture32.npz"
SIZE, MULTIPLES, ASKED = 32, 4, 6
SPLIT = 20261126  # seed of the split, and key of the sides that are shown
MOST = 5000
# mean squared difference of all pixels of all views, below which two models are one object
ALIKE = 0.0015
SCALE = 0.2  # of a pixel, at the start; learned
NEAR, SIDE = 30.0, (60.0, 120.0)  # degrees from the view shown
DRAWS = 32
PIXELS = 1_200_000  # of a cell whose predicted means are kept in its predictions
SHOWN = 4  # objects kept for the picture


@dataclasses.dataclass
class Objects:
    """Grey views of objects, split.

    Args:
        views: bytes, `(m, v, 32, 32)`.
        azimuth: degrees.
        names: of the objects.
        train, validation, test: rows of `views`.
        remark: what was changed or left out.
    """

    views: np.ndarray
    azimuth: np.ndarray
    names: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    remark: str


def load(path: Path | None) -> Objects:
    """The furniture in a folder of data, or views of one's own."""
    if path is None:
        raise InputError(
            f"ambiguous-generation: needs views of objects; give --data a folder that holds {FILE}, an .npz of views, or a "
            "folder of objects, each a folder of its views."
        )
    path = Path(path)
    read = read_views(inside(path, FILE), SIZE)
    return split(read.pixels, read.azimuth, read.names, str(path), read.remarks)


def split(
    pixels: np.ndarray,
    azimuth: np.ndarray,
    names: tuple[str, ...],
    path: str,
    remarks: Sequence[str] = (),
) -> Objects:
    """70 % of the objects for training, 10 % for validation, 20 % for test; objects of one name or
    look stay together.
    """
    rng, said = np.random.default_rng(SPLIT), list(remarks)
    if len(pixels) > MOST:
        kept = np.sort(rng.choice(len(pixels), MOST, replace=False))
        said.append(f"{MOST} of {len(pixels)} objects taken at random")
        pixels, names = pixels[kept], tuple(names[i] for i in kept)
    if pixels.shape[-1] > 1:
        said.append("colours were averaged to grey")
    views = np.round(pixels.mean(-1)).astype(np.uint8)
    groups = together(views, names)
    if len(groups) < 10:
        raise InputError(
            f"{path}: holds {len(groups)} different objects; at least 10 are needed to hold some out."
        )
    order = [groups[i] for i in rng.permutation(len(groups))]
    cuts = [int(0.7 * len(order)), int(0.8 * len(order))]
    parts = (order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :])
    train, validation, test = (
        np.array(sorted(i for group in part for i in group)) for part in parts
    )
    said.append(f"{len(views)} models in {len(groups)} groups of one name or look")
    return Objects(
        views, np.asarray(azimuth, float), names, train, validation, test, "; ".join(said)
    )


def together(views: np.ndarray, names: Sequence[str]) -> list[list[int]]:
    """Groups of objects that share a name, or of which one looks like the other from every side."""
    small = (
        views.reshape(*views.shape[:2], 16, 2, 16, 2).mean((3, 5)).reshape(len(views), -1) / 255.0
    )
    square = (small**2).sum(1)
    gap = (square[:, None] + square[None] - 2 * small @ small.T) / small.shape[1]
    leader = list(range(len(views)))

    def find(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    first: dict[str, int] = {}
    for i, name in enumerate(names):
        leader[find(i)] = find(first.setdefault(name, i))
    for i, j in zip(*np.nonzero(gap < ALIKE)):
        leader[find(int(i))] = find(int(j))
    groups: dict[int, list[int]] = {}
    for i in range(len(views)):
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())


def coarse(data: Objects, times: int) -> Objects:
    """Squares of `times` x `times` pixels averaged."""
    m, v, h, w = data.views.shape
    views = data.views.reshape(m, v, h // times, times, w // times, times).mean((3, 5))
    return dataclasses.replace(data, views=np.round(views).astype(np.uint8))


def spec_of(data: Objects) -> Spec:
    """Sines and cosines in, pixels with a common learned standard deviation out."""
    return Spec(2 * MULTIPLES, Gaussian(data.views[0, 0].size, scale=jnp.asarray(SCALE)))


SETTINGS: dict[str, dict[str, Any]] = {
    "np": {
        "objective": "elbo",
        "encoder": "deep set",
        "deterministic": True,
        "samples": 1,
        "width": 256,
        "latent": 16,
    },
    "anp": {"objective": "elbo", "samples": 1, "width": 128, "latent": 16},
    "flow_np": {
        "objective": "elbo",
        "encoder": "deep set",
        "deterministic": True,
        "samples": 1,
        "width": 256,
        "latent": 16,
    },
    "cnp": {"width": 256},
    "acnp": {"width": 128},
    "versa": {"samples": 4},
    "ensemble": {"base": "cnp", "members": 4, "width": 256},
    CONTROL: {"width": 256, "latent": 32},
}


def trained(
    method: str, seed: int, options: dict, data: Objects, tell: Tell
) -> tuple[AbstractLearner, dict]:
    """A row or the control, trained on the training objects; the best on validation objects is
    kept.
    """
    if method == MEAN:
        views = data.views[data.train].reshape(len(data.train), len(data.azimuth), -1) / 255.0
        mean = views.mean(0)
        head = Gaussian(mean.shape[1], scale=float(np.sqrt(((views - mean) ** 2).mean())))
        return MeanView(jnp.deg2rad(jnp.asarray(data.azimuth)), jnp.asarray(mean), head), {}
    keys = jr.split(jr.key(seed), 3)
    init = CVAE.init if method == CONTROL else METHODS[method].init
    learner = eqx.filter_jit(lambda key: init(spec_of(data), key=key, **SETTINGS.get(method, {})))(
        keys[0]
    )
    asked = min(ASKED, len(data.azimuth) - 1)
    tasks = ObjectViews.of(data.views[data.train], data.azimuth, query=asked)
    check = ObjectViews.of(data.views[data.validation], data.azimuth, query=asked)
    validation = jax.jit(jax.vmap(check))(jr.split(keys[2], options["validation"]))
    steps = options["steps"].get(method, options["steps"][""])
    fitted = fit(
        learner,
        tasks,
        key=keys[1],
        steps=steps,
        batch=options["batch"],
        learning_rate=options["rate"],
        validation=validation,
        every=max(1, steps // 20),
        patience=None,
        progress=lambda done, of, loss: tell(done / of, f"training, loss {loss:.0f}"),
    )
    arrays = jax.tree.leaves(eqx.filter(learner, eqx.is_inexact_array))
    facts = {
        "parameters": int(sum(a.size for a in arrays)),
        "steps": fitted.steps,
        "train_seconds": round(fitted.seconds, 1),
        "training": fitted.outcome,
        "best_step": int(fitted.state.best_step),
    }
    return fitted.method, facts


@eqx.filter_jit
def judge(
    learner: AbstractLearner, tasks: ObjectViews, items, sides, key, draws: int
) -> dict[str, jax.Array]:
    """Of each object and view shown: figures of the other views `(t, n)`, log densities `(t, s,
    n)`, images.
    """
    size = tasks.size

    def one(item):
        task = tasks.task(*item)
        keys = jr.split(key, 3)
        posterior = learner.posterior(task.support, key=keys[0])
        mixture = functions_at(posterior, task.query.x, key=keys[1], samples=draws)
        y = task.query.y
        log_p = jnp.concatenate(
            [part.head.log_prob(part.params, y[None]) for part in mixture.parts]
        )
        means = jnp.concatenate([part.head.mean(part.params) for part in mixture.parts])
        mean, s = means.mean(0), means.shape[0]

        def image(flat):
            return flat.reshape(size, -1)

        likeness = jax.vmap(lambda a, b: ssim(image(a), image(b)))(mean.clip(0.0, 1.0), y)
        # root mean squared difference between two draws: twice the variance between them
        spread = jnp.sqrt(2 * means.var(0).mean(1) * s / max(s - 1, 1))
        joint = jax.nn.logsumexp(log_p.sum(1)) - jnp.log(1.0 * s)
        weight = weights(learner, task, keys[2], draws)
        weight = joint[None, None] if weight is None else weight
        each = ((means - y) ** 2).mean(2)
        return {
            "mse": ((mean - y) ** 2).mean(1),
            "ssim": likeness,
            "spread": spread,
            "log_p": log_p,
            "best": each.mean(1).min(),
            "mixture": -joint / y.size,
            "bound": -average(weight).sum() / y.size,
            "draw_mse": each,
            "weight": weight,
            "mean": mean,
            "draws": means[:4],
            "y": y,
            "shown": task.support.y,
        }

    return jax.lax.map(one, (items, sides), batch_size=2)


def run(
    method: str, seed: int, options: dict, data: Objects, tell: Tell, which: str = "test"
) -> Outcome:
    """Train on the training objects, judge on held-out ones (`which`: `"test"` or `"validation"`)."""
    data = coarse(data, options["pool"])
    learner, facts = trained(method, seed, options, data, lambda done, what: tell(0.8 * done, what))
    tell(0.8, "judging")
    rows, sides, times = getattr(data, which), len(data.azimuth), options["shown"]
    tasks = ObjectViews.of(data.views[rows], data.azimuth)
    items = np.tile(np.arange(len(rows)), times)
    shown = np.random.default_rng(SPLIT).integers(0, sides, len(items))
    found = judge(learner, tasks, jnp.asarray(items), jnp.asarray(shown), jr.key(seed + 1), DRAWS)
    found = {name: np.asarray(value) for name, value in found.items()}
    pixels, log_p = found["y"].shape[-1], found["log_p"]
    other = (shown[:, None] + np.arange(1, sides)) % sides
    away = np.abs((data.azimuth[other] - data.azimuth[shown][:, None] + 180) % 360 - 180)
    marginal = -(np.logaddexp.reduce(log_p, 1) - np.log(log_p.shape[1])) / pixels

    def some(values, mask):
        return np.where(mask, values, np.nan)

    aside = (away >= SIDE[0]) & (away <= SIDE[1])
    near, side = (np.nanmean(some(found["spread"], mask), 1) for mask in (away <= NEAR, aside))
    measured = {
        "mse": found["mse"].mean(1),
        "ssim": found["ssim"].mean(1),
        "joint": found["bound"],
        "mixture": found["mixture"],
        "marginal": marginal.mean(1),
        "best": found["best"],
        "near": near,
        "side": side,
    }
    # views of one object that is shown several times are not independent: errors are over objects
    figures = [
        Figure.of("", name, values.reshape(times, -1).mean(0)) for name, values in measured.items()
    ]
    t, n = found["mse"].shape
    columns = {
        "task": np.repeat(np.arange(t), n),
        "object": np.repeat(rows[items], n),
        "row": np.tile(np.arange(n), t),
        "shown": np.repeat(data.azimuth[shown], n),
        "azimuth": data.azimuth[other].ravel(),
        "mse": found["mse"].ravel(),
        "ssim": found["ssim"].ravel(),
        "spread": found["spread"].ravel(),
        "bound": np.repeat(found["bound"], n),
    }
    columns |= raw_of(found)

    def as_bytes(a):
        return np.round(np.clip(a, 0, 1) * 255).astype(np.uint8)

    drawing = {
        "mean": as_bytes(found["mean"]),
        "draws": as_bytes(found["draws"][:SHOWN]),
        "y": as_bytes(found["y"][:SHOWN]),
        "shown": as_bytes(found["shown"][:SHOWN]),
        "spread": found["spread"],
        "away": away,
        "mse": found["mse"],
    }
    return Outcome(figures, columns, drawing, data.remark, facts)


def raw_of(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Lists of each judged view: pixels of as many objects as `PIXELS` allow, and what each draw
    gives.
    """
    t, n, pixels = found["mean"].shape

    def whole(a):
        return [
            v if i < max(1, PIXELS // (n * pixels)) else None
            for i, task in enumerate(a)
            for v in task
        ]

    by_draw = {
        name: lists(np.swapaxes(found[name], 1, 2).reshape(t * n, -1))
        for name in ("log_p", "draw_mse")
    }
    weight = np.swapaxes(found["weight"], 1, 2)  # (t, views or 1, draws)
    views = [weight[i, j] if j < weight.shape[1] else None for i in range(t) for j in range(n)]
    target = np.round(found["y"] * 255).astype(np.uint8)
    return {
        "mean": lists(whole(found["mean"])),
        "target": lists(whole(target)),
        **by_draw,
        "bound_log_p": lists(views),
    }


def sentence(cells: Sequence[Drawn]) -> str:
    """The best sampler beside the deterministic control."""
    found: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        for f in cell.figures:
            found.setdefault(cell.method, {}).setdefault(f.metric, []).append(f.value)
    mean = {
        name: {k: float(np.mean(v)) for k, v in values.items()} for name, values in found.items()
    }
    samplers = [name for name in mean if name not in (MEAN, CONTROL) and mean[name]["side"] > 0]
    if not samplers:
        return ""
    best = min(samplers, key=lambda name: mean[name]["joint"])
    said = f"{best}: mean squared error {mean[best]['mse']:.4f}, {mean[best]['joint']:.3f} nats a pixel"
    beside = [name for name in ("cnp", CONTROL, MEAN) if name in mean and name != best]
    said += "".join(
        f"; {name}: {mean[name]['mse']:.4f}, {mean[name]['joint']:.3f}" for name in beside
    )
    return (
        said
        + f". Its draws differ {mean[best]['side'] / max(mean[best]['near'], 1e-9):.2f} times as much from the side."
    )


_PAPER = "Gordon et al. 2019, table 3, recalled; ShapeNet, 12 classes, 500,000 steps"

PROTOCOL = Protocol(
    name="ambiguous-generation",
    title="The side of an object that is not seen",
    lead="One view of an object that training never met is shown; the 35 others are to be drawn. Views from nearly the same side "
    "are all but determined; those from a quarter turn away are not, since they show depth and parts that were hidden. Draws from a "
    "posterior over objects should differ there more than near the view shown, and each draw should be one object from all sides. A deterministic method draws their average.",
    papers=(
        "Gordon, Bronskill, Bauer, Nowozin & Turner, “Meta-Learning Probabilistic Inference for Prediction”, ICLR 2019, 5.3",
        "Sohn, Lee & Yan, “Learning Structured Output Representation using Deep Conditional Generative Models”, NIPS 2015",
        "Wang, Bovik, Sheikh & Simoncelli, “Image Quality Assessment”, IEEE TIP 2004",
    ),
    choices=(
        "Objects are split 70 : 10 : 20 for training, validation and test; those of one name, or that look alike from all sides, "
        "stay together. The step that is best on validation objects is kept, for every method.",
        "x: sines and cosines of the azimuth and its multiples to 4; y: grey pixels in 0 … 1, 16 x 16 in quick and 32 x 32 in full, normal with one learned "
        "standard deviation a method. Fully connected networks, 256 wide, the same sizes for method and control.",
        f"Each test object once (quick) or several times (full), its shown side at random. {DRAWS} draws; MSE and SSIM (11 x 11 "
        "Gaussian window) are of their mean; best: MSE of the draw nearest to the truth.",
        "Joint NLL: of all views of an object together, per pixel. Where the method has a proposal that sees the answer (neural "
        f"processes, C-VAE) it is an importance-weighted bound of {DRAWS} draws of each, proposal and prior, never better than the truth in "
        "expectation; else the mixture of draws, which is stated for all beside it. Marginal NLL: view by view, under the mixture of draws.",
        f"Diversity: root mean squared difference between two draws of a view within {NEAR:.0f}° of the shown one (near), or "
        f"{SIDE[0]:.0f}° to {SIDE[1]:.0f}° away (aside), where depth and hidden parts show; the back of most objects has the outline "
        "of their front. 0 for a deterministic method.",
        "cnp is the deterministic control: the same encoder and decoder without a latent. “C-VAE” has a latent a view, not an "
        "object: it describes single views well and its draws are incoherent, so that its joint NLL is low only with a proposal "
        "that has seen every view. “mean view” ignores what is shown. ensemble is four cnp, each a draw, with four times the "
        "parameters; the mean of many draws of one neural process has about the error of cnp.",
    ),
    metrics={
        "mse": Metric("MSE of the mean", "squared grey level", "low"),
        "ssim": Metric("SSIM of the mean", "1 is the same", "high"),
        "joint": Metric("joint NLL", "nats a pixel", "low"),
        "mixture": Metric("joint NLL, mixture of draws", "nats a pixel", "low"),
        "marginal": Metric("marginal NLL", "nats a pixel", "low"),
        "best": Metric("best draw's MSE", "squared grey level", "low"),
        "near": Metric("diversity near", "grey level", None),
        "side": Metric("diversity aside", "grey level", None),
    },
    methods=("cnp", "np", "ensemble"),
    able=("cnp", "acnp", "np", "anp", "flow_np", "maml", "versa", "alpaca", "ensemble"),
    budgets={
        "quick": {
            "steps": {"": 6000, "ensemble": 3500},
            "batch": 16,
            "rate": 2e-3,
            "validation": 64,
            "shown": 1,
            "pool": 2,
        },
        "full": {
            "steps": {"": 30000},
            "batch": 24,
            "rate": 1e-3,
            "validation": 256,
            "shown": 4,
            "pool": 1,
        },
    },
    without={
        **dict.fromkeys(("recurrent", "snail"), "read rows in an order, which one view has not"),
        "ar_cnp": "feeds back whole images, a pass a view",
        **dict.fromkeys(
            ("emaml", "llama", "abml", "vampire", "bmaml", "platipus"),
            "inner loops on networks of hundreds of pixels, of which maml alone has settings here",
        ),
        **dict.fromkeys(("dkt", "process"), "would be a Gaussian process for each pixel"),
        **dict.fromkeys(("nuts", "bnn"), "fit all weights of a network of pixels for each object"),
    },
    run=run,
    draw=draw,
    references=(MEAN, CONTROL),
    anchors=(
        Anchor("C-VAE on ShapeNet", "", "mse", 0.0269, _PAPER),
        Anchor("C-VAE on ShapeNet", "", "ssim", 0.5705, _PAPER),
        Anchor("VERSA on ShapeNet", "", "mse", 0.0108, _PAPER),
        Anchor("VERSA on ShapeNet", "", "ssim", 0.7893, _PAPER),
    ),
    load=load,
    reads=lambda path: [inside(path, FILE)],
    sentence=sentence,
)
