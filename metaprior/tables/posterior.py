"""One group under a prior: what its observed rows say of its other rows, and which row to observe
next.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl
from jaxtyping import Array

from metaprior import acquire
from metaprior.errors import InputError
from metaprior.evaluation.units import summary
from metaprior.posterior import Mixture
from metaprior.system.programs import kept
from metaprior.task import Data


def bucket(n: int) -> int:
    """Rows that `n` rows are padded to, so that few programs are compiled: 0, 8, 16, 32, 64, …"""
    return 0 if n == 0 else max(8, 1 << (n - 1).bit_length())


def padded(x: np.ndarray) -> Array:
    """Encoded rows on the device, with rows of zeros up to the bucket's size; at least one bucket."""
    return jax.device_put(np.pad(x, ((0, bucket(max(len(x), 1)) - len(x)), (0, 0))))


@kept
def _predict(learner, support, x, units, levels):
    post_key, key = jr.split(
        jr.key(0)
    )  # in here: made outside it is a program of its own to compile
    mixture = learner.posterior(support, key=post_key).predict(x, key=key, samples=256)
    if units is None:
        return {"p": mixture.mean(), "epistemic": mixture.information()}
    mean, std = summary(mixture, units, support)
    slope = std / jnp.sqrt(mixture.variance())
    quantiles = jax.vmap(mixture.quantile)(levels)
    return {
        "mean": mean[:, 0],
        "std": std[:, 0],
        "quantiles": units.to_y(quantiles)[..., 0],
        "epistemic": (slope * jnp.sqrt(mixture.epistemic()))[:, 0],
    }


TAIL = 4.5  # normal score at which the quantiles that stand for a component end
TINY = 1e-6  # levels are kept so far from 0 and 1


def log_weights(mixture: Mixture) -> Array:
    """Of all components, summing to one."""
    return jax.nn.log_softmax(jnp.concatenate([part.log_weight for part in mixture.parts]))


def atoms(mixture: Mixture, knots: int, shift: Array | float = 0.0) -> tuple[Array, Array]:
    """Each component's quantiles at even normal scores, moved by `shift` of their distance: values
    and mass `(n, a)`.
    """
    step = 2 * TAIL / (knots - 1)
    scores = jnp.linspace(-TAIL, TAIL, knots) + shift * step
    inner = jax.scipy.special.ndtr(scores[1:] - step / 2)
    mass = jnp.diff(inner, prepend=0.0, append=1.0)
    levels = jax.scipy.special.ndtr(scores)

    def each(part):
        return jax.vmap(lambda level: part.head.quantile(part.params, level)[..., 0])(levels)

    values = jnp.moveaxis(jnp.concatenate([each(part) for part in mixture.parts], axis=1), -1, 0)
    values = values.reshape(len(values), -1)
    mass = (mass[:, None] * jnp.exp(log_weights(mixture))).astype(values.dtype).reshape(-1)
    return values, jnp.broadcast_to(mass, values.shape)


def invert(values: Array, mass: Array) -> Callable[[Array], Array]:
    """Levels `(m, n)` to quantiles of the atoms at each of n rows, straight lines between them in
    normal scores.
    """
    values, mass = jax.lax.sort((values, mass / mass.sum(-1, keepdims=True)), num_keys=1)

    def score(level):
        return jax.scipy.special.ndtri(jnp.clip(level, TINY, 1 - TINY))

    at = jax.vmap(jnp.interp, in_axes=(1, 0, 0), out_axes=1)
    return lambda levels: at(score(levels), score(jnp.cumsum(mass, axis=-1) - 0.5 * mass), values)


def outcomes_at(mixture: Mixture, levels: Array) -> Array:
    """What the predictive gives at levels `(m, n)` uniform in (0, 1): draws, in the model's units
    or class indices.
    """
    if not mixture.parts[0].head.classes:
        return invert(*atoms(mixture, 81))(levels)
    below = jnp.cumsum(mixture.mean(), axis=-1)[:, :-1]
    return (levels[..., None] > below).sum(-1).astype(below.dtype)


@kept
def _sample(learner, support, x, levels):
    post_key, key = jr.split(jr.key(0))
    return outcomes_at(
        learner.posterior(support, key=post_key).predict(x, key=key, samples=256), levels
    )


@kept
def score(learner, support, x, by, key):
    post_key, key = jr.split(key)
    mixture = learner.posterior(support, key=post_key).predict(x, key=key, samples=256)
    value = acquire.score(mixture, by, key=key)
    expected = (
        mixture.mean().argmax(-1)[:, None].astype(x.dtype)
        if mixture.parts[0].head.classes
        else mixture.mean()
    )
    return value, mixture.information(), expected


def check_suggest(candidates: int, n: int, by: str) -> None:
    """Arguments of `suggest`."""
    if by not in acquire.SCORES:
        raise InputError(f"by is one of {', '.join(acquire.SCORES)}; got {by!r}.")
    if not 1 <= n <= candidates:
        raise InputError(f"n is between 1 and the number of candidates ({candidates}); got {n}.")


def suggested(
    frame: pl.DataFrame, chosen: list[int], scores: list[float], gains: list[float]
) -> pl.DataFrame:
    """The chosen candidates with what is said of them."""
    extra = pl.DataFrame({"row": [c + 1 for c in chosen], "score": scores, "gain_nats": gains})
    keep = [c for c in frame.columns if c not in extra.columns]
    return pl.concat([frame[chosen].select(keep), extra], how="horizontal")


def check_sample(n: int) -> None:
    """Arguments of `sample`."""
    if n < 1:
        raise InputError(f"n is at least 1 draw; got {n}.")


def sampled(columns: dict[str, np.ndarray]) -> pl.DataFrame:
    """Draws `(m, n)` of each target as one long table."""
    m, n = next(iter(columns.values())).shape
    index = pl.DataFrame(
        {"draw": np.repeat(np.arange(1, m + 1), n), "row": np.tile(np.arange(1, n + 1), m)}
    )
    return pl.concat(
        [index, pl.DataFrame({k: v.reshape(-1) for k, v in columns.items()})], how="horizontal"
    )


class Posterior:
    """What is believed of one group, given its observed rows. Made by `Prior.adapt`.

    Args:
        prior: the fitted `Prior`.
        x, y: the observed rows as it encodes them, `(n, d)` and `(n, 1)`.
    """

    def __init__(self, prior: Any, x: np.ndarray, y: np.ndarray):
        self.prior, self.x, self.y = prior, x, y

    def support(self) -> Data:
        n = len(self.x)
        rows = [(0, bucket(n) - n), (0, 0)]
        arrays = (np.pad(self.x, rows), np.pad(self.y, rows), np.arange(bucket(n)) < n)
        return Data(*jax.device_put(arrays))

    def observe(self, x: np.ndarray, y: np.ndarray) -> "Posterior":
        """With more encoded rows observed."""
        return Posterior(self.prior, np.concatenate([self.x, x]), np.concatenate([self.y, y]))

    def to_column(self, values: np.ndarray) -> np.ndarray:
        """Outcomes in the model's units as the user's numbers, or class indices as classes."""
        trained = self.prior.trained
        if trained.units is None:
            return np.asarray(trained.info["classes"])[np.asarray(values, int)]
        return np.asarray(trained.units.to_y(values), np.float64)

    def predict(self, rows: Any, levels: Sequence[float] = (0.05, 0.5, 0.95)) -> pl.DataFrame:
        """Predictions for rows, in their order and the target's own units.

        Args:
            rows: a table with the features (the target may be absent), or x where fitted on arrays.
            levels: quantiles to give, each in (0, 1).

        Returns:
            numbers: `mean`, `std`, a `qNN` a level, and `epistemic`, the standard deviation that
                more
            rows of the group could remove. Classes: `p_<class>` each, and `epistemic` in nats.
        """
        trained = self.prior.trained
        x = self.prior.encode(self.prior.frame(rows), "query")
        n = len(x)
        out = _predict(
            trained.learner,
            self.support(),
            padded(x),
            trained.units,
            np.asarray(levels, np.float32),
        )
        return self.table(out, n, levels)

    def table(self, out: dict[str, Any], n: int, levels: Sequence[float]) -> pl.DataFrame:
        """The first `n` rows of what a compiled prediction gives, under the names that `predict`
        lists.
        """
        out = {k: np.asarray(v, np.float64) for k, v in out.items()}
        if (classes := self.prior.info["classes"]) is not None:
            columns = {f"p_{c}": out["p"][:n, i] for i, c in enumerate(classes)}
        else:
            columns = {"mean": out["mean"][:n], "std": out["std"][:n]}
            columns |= {
                f"q{round(100 * q):02d}": out["quantiles"][i, :n] for i, q in enumerate(levels)
            }
        return pl.DataFrame(columns | {"epistemic": out["epistemic"][:n]})

    def sample(self, rows: Any, n: int = 100, seed: int = 0) -> pl.DataFrame:
        """Outcomes drawn from what `predict` describes, each row on its own.

        Args:
            rows: a table with the features (the target may be absent), or x where fitted on arrays.
            n: draws a row, at least 1.
            seed: of the draws.

        Returns:
            `draw` and `row` (both from 1) and the outcome under the target's name.
        """
        check_sample(n)
        x = self.prior.encode(self.prior.frame(rows), "query")
        levels = np.random.default_rng(seed).uniform(size=(n, bucket(max(len(x), 1))))
        values = _sample(
            self.prior.trained.learner, self.support(), padded(x), levels.astype(x.dtype)
        )
        return sampled({self.prior.info["target"]: self.to_column(np.asarray(values)[:, : len(x)])})

    def suggest(
        self, candidates: Any, n: int = 1, by: str = "entropy", seed: int = 0
    ) -> pl.DataFrame:
        """Which of the candidate rows to observe next.

        After each choice the row is taken as observed at its expected outcome (for classes its most
        likely class) before the next is chosen, so that `n` rows do not tell the same thing.

        Args:
            candidates: rows that could be observed, without the target.
            n: how many to choose, at most the number of candidates.
            by: `"entropy"`, `"bald"`, `"variance"` or `"random"`; see `metaprior.acquire`.
            seed: for `"random"`.

        Returns:
            the chosen rows in order, with `row` (1 is the first candidate), `score` (by `by`), and
            `gain_nats`, how much the observation is expected to tell of the group's function.
        """
        frame = self.prior.frame(candidates)
        check_suggest(frame.height, n, by)
        x = self.prior.encode(frame, "pool")
        candidates = padded(x)
        posterior, chosen, scores, gains = self, [], [], []
        for step in range(n):
            key = jr.fold_in(jr.key(seed), step)
            out = score(self.prior.trained.learner, posterior.support(), candidates, by, key)
            value, gain, expected = (np.asarray(a)[: len(x)] for a in out)
            value = np.where(np.isin(np.arange(len(x)), chosen), -np.inf, value)
            pick = int(value.argmax())
            chosen.append(pick)
            scores.append(float(value[pick]))
            gains.append(float(gain[pick]))
            posterior = posterior.observe(x[pick : pick + 1], expected[pick : pick + 1])
        return suggested(frame, chosen, scores, gains)
