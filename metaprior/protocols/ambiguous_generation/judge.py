"""One view of an object is shown, the others are drawn: training, drawing, judging."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.heads import Gaussian
from metaprior.method import AbstractLearner, Spec
from metaprior.methods import METHODS
from metaprior.protocols.ambiguous_generation.controls import CVAE, average, ssim, weights
from metaprior.protocols.ambiguous_generation.data import ASKED, MULTIPLES, SPLIT, Objects, coarse
from metaprior.protocols.ambiguous_generation.smoothers import MEAN, NEAREST, RIDGE, smoother
from metaprior.protocols.cell import (
    loss_of,
    option,
    parameters,
    part_of,
    to_numpy,
    training_facts,
)
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import component_means, functions_at, lists
from metaprior.sources.views import ObjectViews
from metaprior.training import fit

CONTROL = "C-VAE"
SCALE = 0.2  # of a pixel, at the start; learned
NEAR, SIDE = 30.0, (60.0, 120.0)  # degrees from the view shown
DRAWS = 32
PIXELS = 1_200_000  # of a cell whose predicted means are kept in its predictions
FACTORS = (0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
SHOWN = 4  # objects and draws kept for the picture
# A neural process whose functions are draws of a latent.
LATENT = {"objective": "elbo", "samples": 1, "latent": 16}
DEEP_SET = {"encoder": "deep set", "deterministic": True, "width": 256}
SETTINGS: dict[str, dict[str, Any]] = {
    "np": {**LATENT, **DEEP_SET},
    "anp": {**LATENT, "width": 128},
    "flow_np": {**LATENT, **DEEP_SET},
    "cnp": {"width": 256},
    "acnp": {"width": 128},
    "maml": METHODS["maml_fixed"].options,
    "versa": {"samples": 4},
    "ensemble": {"base": "cnp", "members": 4, "width": 256},
    CONTROL: {"width": 256, "latent": 32},
}


def spec_of(data: Objects) -> Spec:
    """Sines and cosines in, pixels with a common learned standard deviation out."""
    return Spec(2 * MULTIPLES, Gaussian(data.views[0, 0].size, scale=jnp.asarray(SCALE)))


def trained(
    method: str, seed: int, options: dict, data: Objects, tell: Tell
) -> tuple[AbstractLearner, dict[str, Any]]:
    """A row or a control, made of the training objects, and facts of the training.

    The validation objects decide which step is kept, and then what the standard deviation of a
    pixel is: on the objects that it was trained on, a network is too near to the truth.
    """
    if method in (MEAN, NEAREST, RIDGE):
        learner, chosen = smoother(method, data)
        return learner, {} if method == MEAN else {"chosen": chosen}
    init_key, fit_key, check_key = jr.split(jr.key(seed), 3)
    init = CVAE.init if method == CONTROL else METHODS[method].init

    def start(key):
        return init(spec_of(data), key=key, **SETTINGS.get(method, {}))

    learner = eqx.filter_jit(start)(init_key)
    asked = min(ASKED, len(data.azimuth) - 1)
    tasks = ObjectViews.of(data.views[data.train], data.azimuth, query=asked)
    check = ObjectViews.of(data.views[data.validation], data.azimuth, query=asked)
    validation = jax.jit(jax.vmap(check))(jr.split(check_key, options["validation"]))
    steps = option(options, "steps", method)
    fitted = fit(
        learner,
        tasks,
        key=fit_key,
        steps=steps,
        batch=options["batch"],
        learning_rate=options["rate"],
        validation=validation,
        every=max(1, steps // 20),
        patience=None,
        progress=loss_of(tell, digits=0),
    )
    facts = {"parameters": parameters(learner), **training_facts(fitted)}
    best, factor = rescaled(fitted.method, check, jr.fold_in(check_key, 1))
    return best, facts | {"best_step": int(fitted.state.best_step), "scale": factor}


def rescaled(learner: AbstractLearner, held: ObjectViews, key) -> tuple[AbstractLearner, float]:
    """With a standard deviation of pixels that suits held-out objects, and its ratio to before.

    The ratio is the one of `FACTORS` with the best joint NLL of all views, each object being shown
    from one side.
    """
    count, sides = held.pixels.shape[:2]
    whole = dataclasses.replace(held, query=None)
    shown = jnp.asarray(np.random.default_rng(SPLIT).integers(0, sides, count))

    def times(factor):
        def scale(head):
            return Gaussian(head.dim, factor * head.scale) if _common(head) else head

        return jax.tree.map(scale, learner, is_leaf=_common)

    found = [judge(times(f), whole, jnp.arange(count), shown, key, DRAWS) for f in FACTORS]
    best = FACTORS[int(np.argmin([each["bound"].mean() for each in found]))]
    return times(best), best


def _common(node: Any) -> bool:
    """Whether this is a head with one standard deviation for all rows."""
    return isinstance(node, Gaussian) and node.scale is not None


@eqx.filter_jit
def judge(
    learner: AbstractLearner, tasks: ObjectViews, items, sides, key, draws: int
) -> dict[str, jax.Array]:
    """What is drawn of each object and view shown, and figures of it.

    Args:
        learner: what is judged.
        tasks: the objects.
        items, sides: which object and which of its views is shown, `(t,)` each.
        key: of the draws.
        draws: of each object.

    Returns:
        Of the other views `(t, n)`: `mse`, `ssim` and `spread`; of draws `(t, s, n)`: `log_p` and
        `draw_mse`; of an object `(t,)`: `best`, `mixture` and `bound`; `weight`, whose average is
        the bound; and images `mean`, `draws`, `y` and `shown`.
    """
    size = tasks.size

    def image(flat):
        return flat.reshape(size, -1)

    def one(item):
        task = tasks.task(*item)
        keys = jr.split(key, 3)
        posterior = learner.posterior(task.support, key=keys[0])
        mixture = functions_at(posterior, task.query.x, key=keys[1], samples=draws)
        y = task.query.y
        log_p = jnp.concatenate(
            [part.head.log_prob(part.params, y[None]) for part in mixture.parts]
        )
        means = component_means(mixture)
        mean, s = means.mean(0), means.shape[0]

        likeness = jax.vmap(lambda a, b: ssim(image(a), image(b)))(mean.clip(0.0, 1.0), y)
        # root mean squared difference between two draws: twice the variance between them
        spread = jnp.sqrt(2 * means.var(0).mean(1) * s / max(s - 1, 1))
        joint = jax.nn.logsumexp(log_p.sum(1)) - jnp.log(1.0 * s)
        weight = weights(learner, task, keys[2], draws)
        if weight is None:  # no proposal that sees the answer: the mixture of draws stands in
            weight = joint[None, None]
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
    """Train on the training objects, judge on held-out ones.

    Args:
        method, seed, options, data, tell: as in `Protocol.run`.
        which: `"test"` or `"validation"`.
    """
    data = coarse(data.of_seed(seed), options["pool"])
    learner, facts = trained(method, seed, options, data, part_of(tell, 0.0, 0.8))

    tell(0.8, "judging")
    rows, sides, times = getattr(data, which), len(data.azimuth), options["shown"]
    tasks = ObjectViews.of(data.views[rows], data.azimuth)
    items = np.tile(np.arange(len(rows)), times)
    shown = np.random.default_rng(SPLIT).integers(0, sides, len(items))
    key = jr.key(seed + 1)
    found = to_numpy(judge(learner, tasks, jnp.asarray(items), jnp.asarray(shown), key, DRAWS))

    other = (shown[:, None] + np.arange(1, sides)) % sides
    turn = data.azimuth[other] - data.azimuth[shown][:, None]
    away = np.abs((turn + 180) % 360 - 180)
    t, n = away.shape
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
    figures = measure(found, away, times)
    return Outcome(figures, columns | raw_of(found), _drawing(found, away), data.remark, facts)


def measure(found: dict[str, np.ndarray], away: np.ndarray, times: int) -> list[Figure]:
    """The figures.

    Args:
        found: as `judge` gives it.
        away: angle of each judged view to the view shown, degrees, `(t, n)`.
        times: how often each object is shown.
    """
    pixels, log_p = found["y"].shape[-1], found["log_p"]
    marginal = -(np.logaddexp.reduce(log_p, 1) - np.log(log_p.shape[1])) / pixels

    def spread(views: np.ndarray) -> np.ndarray:
        return np.nanmean(np.where(views, found["spread"], np.nan), 1)

    by_task = {
        "mse": found["mse"].mean(1),
        "ssim": found["ssim"].mean(1),
        "joint": found["bound"],
        "mixture": found["mixture"],
        "marginal": marginal.mean(1),
        "best": found["best"],
        "near": spread(away <= NEAR),
        "side": spread((away >= SIDE[0]) & (away <= SIDE[1])),
    }
    # views of one object that is shown several times are not independent: errors are over objects
    return [Figure.of("", name, v.reshape(times, -1).mean(0)) for name, v in by_task.items()]


def _as_bytes(image: np.ndarray) -> np.ndarray:
    """Grey levels in 0 … 1 as bytes."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _drawing(found: dict[str, np.ndarray], away: np.ndarray) -> dict[str, np.ndarray]:
    """What the pictures need."""
    images = {name: _as_bytes(found[name][:SHOWN]) for name in ("draws", "y", "shown")}
    return {
        "mean": _as_bytes(found["mean"]),
        **images,
        "spread": found["spread"],
        "away": away,
        "mse": found["mse"],
    }


def raw_of(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Lists of each judged view: pixels of as many objects as `PIXELS` allow, and of each draw."""
    t, n, pixels = found["mean"].shape
    kept = max(1, PIXELS // (n * pixels))

    def images(a: np.ndarray) -> np.ndarray:
        return lists([view if i < kept else None for i, task in enumerate(a) for view in task])

    def by_draw(a: np.ndarray) -> np.ndarray:
        return lists(np.swapaxes(a, 1, 2).reshape(t * n, -1))

    # where views are not independent, what belongs to an object is in its first view
    weight = np.swapaxes(found["weight"], 1, 2)  # (t, views or 1, draws)
    count = weight.shape[1]
    bound = [weight[i, j] if j < count else None for i in range(t) for j in range(n)]
    return {
        "mean": images(found["mean"]),
        "target": images(np.round(found["y"] * 255).astype(np.uint8)),
        "log_p": by_draw(found["log_p"]),
        "draw_mse": by_draw(found["draw_mse"]),
        "bound_log_p": lists(bound),
    }
