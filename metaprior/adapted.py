"""One group under a prior: what its observed rows say of its other rows, and which row to observe next."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl

from metaprior import acquire
from metaprior.errors import InputError
from metaprior.evaluate import summary
from metaprior.task import Data, pad


def bucket(n: int) -> int:
    """Rows that `n` rows are padded to, so that few programs are compiled: 0, 8, 16, 32, 64, …"""
    return 0 if n == 0 else max(8, 1 << (n - 1).bit_length())


@eqx.filter_jit
def _predict(learner, support, x, units, levels, key):
    post_key, key = jr.split(key)
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


@eqx.filter_jit
def _score(learner, support, x, by, key):
    post_key, key = jr.split(key)
    mixture = learner.posterior(support, key=post_key).predict(x, key=key, samples=256)
    value = acquire.score(mixture, by, key=key)
    expected = mixture.mean().argmax(-1)[:, None].astype(x.dtype) if mixture.parts[0].head.classes else mixture.mean()
    return value, mixture.information(), expected


class Posterior:
    """What is believed of one group, given its observed rows. Made by `Prior.adapt`.

    Args:
        prior: the fitted `Prior`.
        x, y: the observed rows as it encodes them, `(n, d)` and `(n, 1)`.
    """

    def __init__(self, prior: Any, x: np.ndarray, y: np.ndarray):
        self.prior, self.x, self.y = prior, x, y

    def _support(self) -> Data:
        size = bucket(len(self.x))
        data = Data(jnp.asarray(self.x), jnp.asarray(self.y), jnp.ones(len(self.x), bool))
        return pad(data, size)

    def predict(self, rows: Any, levels: Sequence[float] = (0.05, 0.5, 0.95)) -> pl.DataFrame:
        """Predictions for rows, in their order and the target's own units.

        Args:
            rows: a table with the features (the target may be absent), or x where fitted on arrays.
            levels: quantiles to give, each in (0, 1).

        Returns:
            numbers: `mean`, `std`, a `qNN` a level, and `epistemic`, the standard deviation that more
            rows of the group could remove. Classes: `p_<class>` each, and `epistemic` in nats.
        """
        trained = self.prior.trained
        x = self.prior.encode(self.prior.frame(rows), "query")
        n = len(x)
        padded = jnp.asarray(np.pad(x, ((0, bucket(n) - n), (0, 0))))
        out = _predict(
            trained.learner, self._support(), padded, trained.units, jnp.asarray(levels, jnp.float32), jr.key(0)
        )
        out = {k: np.asarray(v, np.float64) for k, v in out.items()}
        if trained.units is None:
            columns = {f"p_{c}": out["p"][:n, i] for i, c in enumerate(trained.info["classes"])}
        else:
            columns = {"mean": out["mean"][:n], "std": out["std"][:n]}
            columns |= {f"q{round(100 * q):02d}": out["quantiles"][i, :n] for i, q in enumerate(levels)}
        return pl.DataFrame(columns | {"epistemic": out["epistemic"][:n]})

    def suggest(self, candidates: Any, n: int = 1, by: str = "entropy", seed: int = 0) -> pl.DataFrame:
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
        if by not in acquire.SCORES:
            raise InputError(f"by is one of {', '.join(acquire.SCORES)}; got {by!r}.")
        frame = self.prior.frame(candidates)
        if not 1 <= n <= frame.height:
            raise InputError(f"n is between 1 and the number of candidates ({frame.height}); got {n}.")
        x = self.prior.encode(frame, "pool")
        padded = jnp.asarray(np.pad(x, ((0, bucket(len(x)) - len(x)), (0, 0))))
        posterior, chosen, scores, gains = self, [], [], []
        for step in range(n):
            key = jr.fold_in(jr.key(seed), step)
            out = _score(self.prior.trained.learner, posterior._support(), padded, by, key)
            score, gain, expected = (np.asarray(a)[: len(x)] for a in out)
            score = np.where(np.isin(np.arange(len(x)), chosen), -np.inf, score)
            pick = int(score.argmax())
            chosen.append(pick)
            scores.append(float(score[pick]))
            gains.append(float(gain[pick]))
            posterior = Posterior(self.prior, np.concatenate([posterior.x, x[pick : pick + 1]]),
                                  np.concatenate([posterior.y, expected[pick : pick + 1]]))  # fmt: skip
        extra = pl.DataFrame({"row": [c + 1 for c in chosen], "score": scores, "gain_nats": gains})
        keep = [c for c in frame.columns if c not in extra.columns]
        return pl.concat([frame[chosen].select(keep), extra], how="horizontal")
