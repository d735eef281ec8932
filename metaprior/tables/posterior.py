"""One group under a prior: predictions from its observed rows, and which row to observe next."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl
from jaxtyping import Array

from metaprior import acquire
from metaprior.evaluation.units import moments
from metaprior.system.programs import kept
from metaprior.tables.asked import check_sample, check_suggest, named_levels
from metaprior.tables.quantiles import outcomes_at
from metaprior.tables.split import need_one
from metaprior.tables.trained import Trained
from metaprior.tables.updates import State, append, can_update, padded_rows, rebuilt, start
from metaprior.task import Data

SAMPLES = 256  # functions of a method that predicts by sampling


def bucket(n: int) -> int:
    """Rows that `n` rows are padded to, so that few programs are compiled: 0, 8, 16, 32, 64, …"""
    return 0 if n == 0 else max(8, 1 << (n - 1).bit_length())


def padded(x: np.ndarray) -> Array:
    """Encoded rows on the device, with rows of zeros up to a bucket's size, at least 8."""
    return jax.device_put(np.pad(x, ((0, bucket(max(len(x), 1)) - len(x)), (0, 0))))


def predictive(learner, support, x, key):
    """The mixture that a learner predicts at `x` from the support."""
    post_key, key = jr.split(key)
    return learner.posterior(support, key=post_key).predict(x, key=key, samples=SAMPLES)


def predicted(learner, support, x, log, levels):
    """What `Posterior.table` reads of the rows `x` of a group; the rows lead in every array."""
    # The key is made in here: outside, making it is a program of its own to compile.
    return described(predictive(learner, support, x, jr.key(0)), support, log, levels)


def described(mixture, support, log, levels):
    """What `Posterior.table` reads of a mixture at the rows of a group."""
    if mixture.parts[0].head.classes:
        return {"p": mixture.mean(), "epistemic": mixture.information()}
    return {
        **moments(mixture, log, support),
        "quantiles": jax.vmap(mixture.quantile, out_axes=1)(levels)[..., 0],
        # As a share of the standard deviation: with a logarithm a unit differs from row to row.
        "removable": jnp.sqrt(mixture.epistemic() / mixture.variance())[:, 0],
    }


_predict = kept(predicted)


@kept
def _predict_updated(learner, support, leaves, x, log, levels):
    """`predicted`, of a posterior that is there already."""
    key = jr.split(jr.key(0))[1]
    mixture = rebuilt(learner, support, leaves).predict(x, key=key, samples=SAMPLES)
    return described(mixture, support, log, levels)


@kept
def _sample(learner, support, x, log, levels):
    drawn = outcomes_at(predictive(learner, support, x, jr.key(0)), levels)
    return drawn if log is None else jnp.clip(drawn, *log.bounds(support))


def scored(learner, support, x, by, key):
    """Score by `by`, information in nats, and expected outcome of each row."""
    post_key, key = jr.split(key)
    mixture = learner.posterior(support, key=post_key).predict(x, key=key, samples=SAMPLES)
    value = acquire.score(mixture, by, key=key)
    expected = mixture.mean()
    if mixture.parts[0].head.classes:
        expected = expected.argmax(-1)[:, None].astype(x.dtype)
    return value, mixture.information(), expected


score = kept(scored)


def suggested(
    frame: pl.DataFrame, chosen: list[int], scores: list[float], gains: list[float]
) -> pl.DataFrame:
    """The chosen candidates with what is said of them."""
    extra = pl.DataFrame({"row": [c + 1 for c in chosen], "score": scores, "gain_nats": gains})
    keep = [c for c in frame.columns if c not in extra.columns]
    return pl.concat([frame[chosen].select(keep), extra], how="horizontal")


def sampled(columns: dict[str, np.ndarray]) -> pl.DataFrame:
    """Draws `(m, n)` of each target as one long table."""
    m, n = next(iter(columns.values())).shape
    index = {"draw": np.repeat(np.arange(1, m + 1), n), "row": np.tile(np.arange(1, n + 1), m)}
    values = {name: column.reshape(-1) for name, column in columns.items()}
    return pl.concat([pl.DataFrame(index), pl.DataFrame(values)], how="horizontal")


class Posterior:
    """What is believed of one group, given its observed rows. Made by `Prior.adapt`.

    Args:
        trained: of the prior.
        x, y: the observed rows as the prior encodes them, `(n, d)` and `(n, 1)`.
        notes: what may be wrong with the observed rows, such as other units.
        state: what `update` left of conditioning on them.
    """

    def __init__(
        self,
        trained: Trained,
        x: np.ndarray,
        y: np.ndarray,
        notes: Sequence[str] = (),
        state: State | None = None,
    ):
        self.trained, self.x, self.y, self.notes = trained, x, y, tuple(notes)
        self.state = state

    def support(self) -> Data:
        """The observed rows, padded, on the device."""
        return padded_rows(self.x, self.y, bucket(len(self.x)))

    def update(self, rows: Any) -> "Posterior":
        """A new posterior, with more rows of the group observed.

        Updating twice gives the same as updating once with the rows of both, to the last bit, and
        as adapting to all rows anew, up to rounding. Learners in closed form add the new rows to
        what they have: processes (the members of `auto` too, and the baselines) and ALPaCA. For
        them `predict` then costs what the new rows cost. All others, and whatever predicts classes,
        adapt anew.

        Args:
            rows: a table with the features and the target.
        """
        trained = self.trained
        found = trained.rows(rows, "rows")
        need_one(found, trained.info["task"], "Update each group's posterior with its own rows.")
        x, y = trained.encode(found), trained.outcomes(found)
        notes = [*self.notes, *trained.doubts(found, y)]
        all_x, all_y = np.concatenate([self.x, x]), np.concatenate([self.y, y])
        state, learner = self.state, trained.learner
        if can_update(learner):
            state = start(learner, self.support()) if state is None else state
            state = append(learner, state, all_x, all_y, len(self.x), bucket)
        return Posterior(trained, all_x, all_y, list(dict.fromkeys(notes)), state)

    def observe(self, x: np.ndarray, y: np.ndarray) -> "Posterior":
        """With more encoded rows observed."""
        more = np.concatenate([self.x, x]), np.concatenate([self.y, y])
        return Posterior(self.trained, *more, self.notes)

    def to_column(self, values: np.ndarray) -> np.ndarray:
        """Outcomes in the model's units as the user's numbers, or class indices as classes."""
        if self.trained.units is None:
            return np.asarray(self.trained.info["classes"])[np.asarray(values, int)]
        return self.trained.units.to_y(values)

    def predict(self, rows: Any, levels: Sequence[float] = (0.05, 0.5, 0.95)) -> pl.DataFrame:
        """Predictions for rows, in their order and the target's own units.

        Args:
            rows: a table with the features (the target may be absent), or x where fitted on arrays.
            levels: quantiles to give, each inside (0, 1) and given once.

        Returns:
            for numbers: `mean`, `std`, a column for each level (`q05` of 0.05, `q2.5` of 0.025),
            and `epistemic`, the standard deviation that more rows of the group could remove. For
            classes: `p_<class>` each, and `epistemic` in nats.
        """
        named, trained = named_levels(levels), self.trained
        x, at = self._encode(rows, "query"), np.asarray(list(named.values()), np.float32)
        learner, log = trained.learner, trained.log_scale()
        if self.state is None:
            out = _predict(learner, self.support(), padded(x), log, at)
        else:
            out = _predict_updated(learner, *self.state, padded(x), log, at)
        return self.table(out, len(x), list(named))

    def _encode(self, rows: Any, called: str) -> np.ndarray:
        return self.trained.encode(self.trained.rows(rows, called))

    def table(self, out: dict[str, Any], n: int, names: Sequence[str]) -> pl.DataFrame:
        """The first `n` rows of a compiled prediction, under the names that `predict` lists."""
        units = self.trained.units
        if units is None:
            p, epistemic = (np.asarray(out[name], np.float64)[:n] for name in ("p", "epistemic"))
            columns = {f"p_{c}": p[:, i] for i, c in enumerate(self.trained.info["classes"])}
            return pl.DataFrame(columns | {"epistemic": epistemic})

        mean, std = (a[:n, ..., 0] for a in units.moments(out))
        if mean.ndim == 2:  # of draws of what is not known: by the law of total variance
            mean, std = mean.mean(1), np.sqrt((std**2).mean(1) + mean.var(1))
        columns = {"mean": mean, "std": std}
        for name, values in zip(names, units.to_y(out["quantiles"]).T):
            columns[name] = values[:n]
        removable = np.asarray(out["removable"], np.float64)[:n]
        return pl.DataFrame(columns | {"epistemic": std * removable})

    def sample(self, rows: Any, n: int = 100, seed: int = 0) -> pl.DataFrame:
        """Outcomes drawn from what `predict` describes, each row on its own.

        Args:
            rows: a table with the features (the target may be absent), or x where fitted on arrays.
            n: draws for each row, at least 1.
            seed: of the draws, at least 0.

        Returns:
            `draw` and `row` (both from 1) and the outcome under the target's name.
        """
        check_sample(n, seed)
        x = self._encode(rows, "query")
        uniform = np.random.default_rng(seed).uniform(size=(n, bucket(max(len(x), 1))))
        levels = uniform.astype(x.dtype)
        trained = self.trained
        log = trained.log_scale()
        drawn = _sample(trained.learner, self.support(), padded(x), log, levels)
        values = np.asarray(drawn)[:, : len(x)]
        return sampled({trained.info["target"]: self.to_column(values)})

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
            seed: for `"random"`, at least 0.

        Returns:
            the chosen rows in order, with `row` (1 is the first candidate), `score` (by `by`), and
            `gain_nats`, how much the observation is expected to tell of the group's function.
        """
        rows = self.trained.rows(candidates, "pool")
        check_suggest(rows.frame.height, n, by, seed)
        x = self.trained.encode(rows)
        pool = padded(x)

        posterior, chosen, scores, gains = self, [], [], []
        for step in range(n):
            key = jr.fold_in(jr.key(seed), step)
            out = score(self.trained.learner, posterior.support(), pool, by, key)
            value, gain, expected = (np.asarray(a)[: len(x)] for a in out)
            # A row is chosen once.
            value = np.where(np.isin(np.arange(len(x)), chosen), -np.inf, value)
            pick = int(value.argmax())
            chosen.append(pick)
            scores.append(float(value[pick]))
            gains.append(float(gain[pick]))
            posterior = posterior.observe(x[pick : pick + 1], expected[pick : pick + 1])
        return suggested(rows.frame, chosen, scores, gains)
