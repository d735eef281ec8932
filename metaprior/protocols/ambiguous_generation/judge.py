"""One view of an object is shown, the others are to be drawn."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Gaussian
from metaprior.method import AbstractLearner, Spec
from metaprior.methods import METHODS
from metaprior.protocols.ambiguous_generation.controls import CVAE, MeanView, average, ssim, weights
from metaprior.protocols.ambiguous_generation.data import ASKED, MULTIPLES, SPLIT, Objects, coarse
from metaprior.protocols.ambiguous_generation.pictures import CONTROL, MEAN
from metaprior.protocols.protocol import (
    Figure,
    Outcome,
    Tell,
)
from metaprior.protocols.raw import functions_at, lists
from metaprior.sources.views import ObjectViews
from metaprior.training import fit

SCALE = 0.2  # of a pixel, at the start; learned


NEAR, SIDE = 30.0, (60.0, 120.0)  # degrees from the view shown


DRAWS = 32


PIXELS = 1_200_000  # of a cell whose predicted means are kept in its predictions


SHOWN = 4  # objects kept for the picture


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
