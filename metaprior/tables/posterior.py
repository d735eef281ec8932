"""One group under a prior: predictions from its observed rows, and which row to observe next."""

from collections.abc import Sequence
from typing import Any

import jax.random as jr
import numpy as np
import polars as pl
from jaxtyping import Array

from metaprior import acquire
from metaprior.errors import InputError
from metaprior.evaluation.units import Units
from metaprior.tables import pictures, questions
from metaprior.tables.asked import (
    check_curves,
    check_sample,
    check_suggest,
    interval_levels,
    named_levels,
    suggested,
    target_of,
)
from metaprior.tables.explain import effects
from metaprior.tables.explanation import effect_frame
from metaprior.tables.guarantee import ends, guarantee_of, said_of_guarantee
from metaprior.tables.learned import learned_rule
from metaprior.tables.padding import (
    MOST_OBSERVED,
    data_of,
    longer,
    padded,
    said_of,
    some_of,
)
from metaprior.tables.read import Rows
from metaprior.tables.split import need_one
from metaprior.tables.trained import Trained
from metaprior.tables.updates import State, append, can_update, start
from metaprior.task import Data

LEVELS = (0.05, 0.5, 0.95)


def in_own_units(units: Units, score: Any, best: Any, by: str) -> np.ndarray:
    """A score of `acquire.sought` in the target's own unit, where it is a gain."""
    plain = by in ("mes", "random")
    return np.asarray(score, np.float64) if plain else units.gains(score, best)


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
        notes: what may be wrong with the observed rows, such as other units. What is noted of rows
            that are asked about is added.
        known: the observed rows as they came, if there are any.
        state: what `update` left of conditioning on them.

    Example:
        >>> import numpy as np, metaprior
        >>> rng = np.random.default_rng(0)
        >>> table = {"g": np.repeat(np.arange(12), 8), "x": rng.normal(size=96)}
        >>> table["y"] = table["x"] + rng.normal(size=96)
        >>> prior = metaprior.Prior("alpaca", steps=4).fit(table, task="g", target="y")
        >>> posterior = prior.adapt({"x": [0.0, 1.0], "y": [0.1, 1.2]})
        >>> posterior.interval({"x": [0.5]}, 0.9).columns
        ['low', 'high']
        >>> posterior.log_prob({"x": [0.5, 0.7], "y": [0.4, 0.9]}).shape
        (2,)
        >>> posterior.sample({"x": [0.5, 0.7]}, n=10, functions=True).shape
        (20, 3)
    """

    def __init__(
        self,
        trained: Trained,
        x: np.ndarray,
        y: np.ndarray,
        notes: Sequence[str] = (),
        known: pl.DataFrame | None = None,
        state: State | None = None,
    ):
        if state is None and len(x) > MOST_OBSERVED:
            rows, notes = some_of(len(x)), (*notes, said_of(len(x)))
            x, y, known = x[rows], y[rows], None if known is None else known[rows]
        self.trained, self.x, self.y, self.notes = trained, x, y, tuple(notes)
        self.known, self.state = known, state

    def support(self) -> Data:
        """The observed rows, padded, on the device."""
        return data_of(self.x, self.y)

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
        notes = [*self.notes, *trained.doubts(found, y), *trained.remarks(found)]
        all_x, all_y = np.concatenate([self.x, x]), np.concatenate([self.y, y])
        known = found.frame.select(trained.features.names())
        if self.known is not None:
            before = self.known.select(known.columns)
            known = pl.concat([before, known], how="vertical_relaxed")
        state, learner = self.state, trained.learner
        if can_update(learner):
            state = start(learner, self.support()) if state is None else state
            state = append(learner, state, all_x, all_y, len(self.x))
        return Posterior(trained, all_x, all_y, list(dict.fromkeys(notes)), known, state)

    def observe(self, x: np.ndarray, y: np.ndarray) -> "Posterior":
        """With more encoded rows observed."""
        more = np.concatenate([self.x, x]), np.concatenate([self.y, y])
        return Posterior(self.trained, *more, self.notes)

    def note(self, notes: Sequence[str]) -> None:
        """Add what is not in `notes` yet."""
        self.notes = tuple(dict.fromkeys([*self.notes, *notes]))

    def arrays(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """The observed and other rows as the prior encodes them, `(n, d)` each.

        Where rows lack a feature that no training row lacked: `(m, n, d)`, once for each draw of
        what they lack.
        """
        self.note(self.trained.remarks(rows))
        filled = self.trained.fill(self.known, self.y, rows)
        if filled is None:
            return self.x, self.trained.encode(rows)
        if self.known is None and len(self.x):  # only known as they were encoded
            return np.broadcast_to(self.x, (len(filled[1]), *self.x.shape)), filled[1]
        return filled

    def _asked(self, rows: Any, called: str = "query") -> tuple[Rows, Data, Array]:
        """Rows, and what a compiled question reads: the observed ones and these, padded."""
        rows = self.trained.rows(rows, called)
        known, x = self.arrays(rows)
        return rows, data_of(known, self.y), padded(x)

    def to_column(self, values: np.ndarray) -> np.ndarray:
        """Outcomes in the model's units as the user's numbers, or class indices as classes."""
        if self.trained.units is None:
            return np.asarray(self.trained.info["classes"])[np.asarray(values, int)]
        return self.trained.units.to_y(values)

    def predict(self, rows: Any, levels: Sequence[float] = LEVELS) -> pl.DataFrame:
        """Predictions for rows, in their order and the target's own units.

        Args:
            rows: a table with the features (the target may be absent), or x where fitted on arrays.
            levels: quantiles to give, each inside (0, 1) and given once.

        Returns:
            for numbers: `mean`, `std`, a column for each level (`q05` of 0.05, `q2.5` of 0.025),
            and `epistemic`, the standard deviation that more rows of the group could remove. For
            classes: `p_<class>` each, and `epistemic` in nats.
        """
        named = named_levels(levels)
        return self.table(*self._predicted(rows, list(named.values())), list(named))

    def _predicted(self, rows: Any, levels: Sequence[float]) -> tuple[dict[str, Any], int]:
        """What `table` reads, and the number of rows."""
        at, trained = np.asarray(levels, np.float32), self.trained
        rows, support, x = self._asked(rows)
        learner, curve = trained.learner, trained.curve()
        if self.state is None or x.ndim == 3:
            out = questions.predict(learner, support, x, curve, at)
        else:
            out = questions.predict_updated(learner, *self.state, x, curve, at)
        return out, rows.frame.height

    def quantile(self, rows: Any, levels: Sequence[float] = LEVELS) -> pl.DataFrame:
        """Quantiles of a target of numbers alone, a column for each level; see `predict`."""
        self.need_numbers("quantile")
        return self.predict(rows, levels).select(list(named_levels(levels)))

    def interval(self, rows: Any, share: float = 0.9, guaranteed: bool = False) -> pl.DataFrame:
        """Between which numbers a share of the outcomes of each row lies.

        As many lie below `low` as above `high`.

        Args:
            rows: see `predict`.
            share: inside (0, 1).
            guaranteed: make the posterior's own interval so much wider, or narrower, that it holds
                the share of the rows of new groups whatever the model is worth (hierarchical
                conformal prediction, `evaluation.conformal`). How much is read off the groups that
                `fit` kept aside, at 0, 1, 2, 5 and 10 observed rows; between these the larger of
                both counts, and of more rows 10 drawn at random. New groups must be like those
                kept aside, and the observed rows a random choice. It holds over groups, not in
                each: a group may have more rows outside.

        Returns:
            `low` and `high`.

        Raises:
            InputError: with `guaranteed`, no groups were kept aside, or fewer than T with
                T / (T + 1) of at least the share: 9 of 0.9.
        """
        self.need_numbers("interval")
        levels = interval_levels(share)
        if guaranteed:
            return self._guaranteed(rows, share)
        return self.predict(rows, levels).select(low=pl.nth(2), high=pl.nth(3))

    def _guaranteed(self, rows: Any, share: float) -> pl.DataFrame:
        """See `interval`."""
        trained, count = self.trained, len(self.y)
        most, some = guarantee_of(trained, share).most, self
        if count > most:
            keep = some_of(count, most)
            known = None if self.known is None else self.known[keep]
            some = Posterior(trained, self.x[keep], self.y[keep], known=known)
        out, n = some._predicted(rows, interval_levels(share))
        self.note([*some.notes, *said_of_guarantee(trained, share, np.array([count]))])
        return pl.DataFrame(ends(trained, out["quantiles"][:n], len(some.y), share))

    def log_prob(self, rows: Any, joint: bool = False) -> Any:
        """Log density of outcomes in the target's own unit; for classes log probability. In nats.

        Args:
            rows: a table with the features and the target.
            joint: of all rows together, with their dependence, instead of each on its own.

        Returns:
            `(n,)`, or with `joint` one number.
        """
        rows, support, x = self._asked(rows)
        y, trained = self.trained.outcomes(rows), self.trained
        n, end = len(y), x.shape[-2]
        slope = 0.0 if trained.units is None else trained.units.log_slope(y[:, 0])
        if joint:
            if trained.units is not None and trained.units.counts:
                raise InputError(
                    "The probability of several counts together has no formula here; log_prob of "
                    "each row, or sample(functions=True), say what can be said."
                )
            mask = np.arange(end) < n
            each = questions.joint_log_prob(trained.learner, support, x, longer(y, end), mask)
            return float(each) - float(np.sum(slope))
        curve = trained.curve()
        each = questions.log_prob(trained.learner, support, x, curve, longer(y, end))
        return np.asarray(each, np.float64)[:n] - slope

    def cdf(self, rows: Any) -> np.ndarray:
        """Probability of the outcome of each row, or less, `(n,)`; not for classes.

        Args:
            rows: a table with the features and the target.
        """
        self.need_numbers("cdf")
        rows, support, x = self._asked(rows)
        y = self.trained.outcomes(rows)
        trained, end = self.trained, x.shape[-2]
        below = questions.cdf(trained.learner, support, x, trained.curve(), longer(y, end))
        return np.asarray(below, np.float64)[: len(y)]

    def need_numbers(self, what: str) -> None:
        """The target is numbers."""
        if self.trained.units is None:
            raise InputError(
                f"{what} is for numbers; the target {self.trained.info['target']!r} has classes, "
                "which have no order. predict gives their probabilities."
            )

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

    def sample(
        self, rows: Any, n: int = 100, seed: int = 0, functions: bool = False, noise: bool = True
    ) -> pl.DataFrame:
        """Outcomes drawn from what `predict` describes.

        Args:
            rows: a table with the features (the target may be absent), or x where fitted on arrays.
            n: draws for each row, at least 1.
            seed: of the draws, at least 0.
            functions: draw whole functions of the group: the rows of a draw depend on one another
                as the posterior says. Otherwise each row is drawn on its own.
            noise: whether outcomes scatter about the function. Without it, which needs `functions`,
                the function's own values are given; for classes their probabilities.

        Returns:
            `draw` and `row` (both from 1) and the outcome under the target's name, or `p_<class>`.
        """
        check_sample(n, seed, functions, noise)
        rows, support, x = self._asked(rows)
        trained, count = self.trained, rows.frame.height
        curve = trained.curve()
        if functions:
            check_curves(count)
            value, outcome = self._curves(support, x, n, seed)
            return sampled(self.named(value[:, :count], outcome[:, :count], noise))
        levels = np.random.default_rng(seed).uniform(size=(n, x.shape[-2])).astype(np.float32)
        values = np.asarray(questions.sample(trained.learner, support, x, curve, levels))
        return sampled({trained.info["target"]: self.to_column(values[:, :count])})

    def _curves(self, support: Data, x: Array, n: int, seed: int) -> tuple[np.ndarray, ...]:
        """Values and outcomes of `n` functions, `(n, rows, …)` in the model's units."""
        trained, parts = self.trained, []
        for number in range(-(-n // questions.CURVES)):
            which = np.asarray([seed % 2**32, number], np.uint32)
            parts.append(questions.curves(trained.learner, support, x, trained.curve(), which))
        value, outcome = (np.concatenate(each)[:n] for each in zip(*parts))
        return value, outcome

    def named(self, value: np.ndarray, outcome: np.ndarray, noise: bool) -> dict[str, np.ndarray]:
        """Columns `(m, n)` of functions: outcomes, or without noise the functions' values."""
        target, classes = self.trained.info["target"], self.trained.info["classes"]
        if noise:
            return {target: self.to_column(outcome[..., 0])}
        if classes is None:
            assert self.trained.units is not None  # numbers have some
            return {target: self.trained.units.smooth(value[..., 0])}
        return {f"p_{c}": value[..., i].astype(np.float64) for i, c in enumerate(classes)}

    def effects(self) -> pl.DataFrame:
        """How each feature moves this group's function, over rows as in training.

        Returns:
            the frame `Explanation.effects`, its band that of what is known of this group.
        """
        return effect_frame(self.trained, effects(self.trained, self.support()))

    def plot(
        self,
        x: str | None = None,
        *,
        by: str | None = None,
        at: dict[str, Any] | None = None,
        curves: int = 8,
        ax: Any = None,
    ) -> Any:
        """A picture of a group along a feature: observed rows, median, 90 % band, functions drawn,
        and where to observe next.

        Args:
            x: feature of numbers along the axis; the first by default.
            by: feature of names, a line for each.
            at: values of other features; by default the middle or commonest of the observed rows.
            curves: functions to draw, 0 for none; with `by` there are none.
            ax: Matplotlib axes to draw on; by default those of a new figure.

        Returns:
            the Matplotlib figure.
        """
        return pictures.of_posterior(self, x, by, ax, curves, at)

    def suggest(
        self,
        candidates: Any,
        n: int = 1,
        by: str | None = None,
        seed: int = 0,
        *,
        goal: str = "learn",
        target: str | None = None,
    ) -> pl.DataFrame:
        """Which of the candidate rows to observe next.

        After each choice the row is taken as observed at its expected outcome (for classes its most
        likely class) before the next is chosen, so that `n` rows do not tell the same thing.

        Args:
            candidates: rows that could be observed, without the target.
            n: how many to choose, at most the number of candidates.
            by: to learn `"entropy"` (default), `"bald"`, `"variance"`, `"random"` or `"learned"`;
                to maximise or minimise `"improvement"` (default), `"thompson"`, `"ucb"`, `"mes"`
                or `"random"`. See `metaprior.acquire`. `"learned"` is the drop of the mean NLL of
                the group's other rows, in nats, as the groups say that `fit` kept aside; it is
                learned when it is first asked for, and saved with the prior: see
                `metaprior.acquire_learned`.
            seed: of what is drawn, at least 0.
            goal: `"learn"` of the group's function, or `"maximise"` or `"minimise"` the target,
                which is of numbers.
            target: the one that is sought; there is one here.

        Returns:
            the chosen rows in order, with `row` (1 is the first candidate), `score` (by `by`; to
            maximise or minimise in the target's own unit: how much better than the best so far, or
            than the best that is expected before a row was observed; of `"mes"` in nats), and
            `gain_nats`, how much the observation is expected to tell of the group's function.
        """
        rows = self.trained.rows(candidates, "pool")
        rule = check_suggest(rows.frame.height, n, by, seed, goal)
        target_of([self.trained.info["target"]], goal, target)
        self.need_goal(goal, rule, rows)
        (known, x), y = self.arrays(rows), self.y
        pool, count = padded(x), rows.frame.height
        real = np.arange(pool.shape[-2]) < count

        chosen, scores, gains = [], [], []
        for step in range(n):
            key = jr.fold_in(jr.key(seed), step)
            free = ~np.isin(np.arange(pool.shape[-2]), chosen)  # a row is chosen once
            if rule == "learned":
                out = self._worth(data_of(known, y), pool, free & real, key)
            else:
                out = self.scores(data_of(known, y), pool, count, rule, goal, key)
            value, gain, expected = (np.asarray(a)[:count] for a in out)
            value = np.where(free[:count], value, -np.inf)
            pick = int(value.argmax())
            chosen.append(pick)
            scores.append(float(value[pick]))
            gains.append(float(gain[pick]))
            one = slice(pick, pick + 1)
            known = np.concatenate([known, x[..., one, :]], axis=-2)
            y = np.concatenate([y, expected[one]])
        return suggested(rows.frame, chosen, scores, gains)

    def need_goal(self, goal: str, by: str, rows: Rows) -> None:
        """The target has a best value, and there are not too many rows for whole functions."""
        if goal != "learn" and self.trained.units is None:
            raise InputError(
                f"the goal {goal} is for numbers; the target {self.trained.info['target']!r} has "
                "classes. The goal learn is for both."
            )
        if goal != "learn" and by in acquire.DRAWN:
            check_curves(rows.frame.height, f"by={by}")

    def _worth(self, support: Data, pool: Array, free: np.ndarray, key: Any) -> tuple[Any, ...]:
        """What `scores` gives, by the learned rule; `free` are the rows that could be observed."""
        rule, said = learned_rule(self.trained)
        self.note(said)
        features, gain, expected = questions.describe(
            self.trained.learner, support, pool, free, key
        )
        return rule(np.asarray(features)), gain, expected

    def scores(
        self, support: Data, pool: Array, count: int, by: str, goal: str, key: Any
    ) -> tuple[Any, Any, Any]:
        """Score in the target's own unit, information and expected outcome of the rows of a pool.

        The pool is padded: the first `count` rows are real.
        """
        learner = self.trained.learner
        if goal == "learn":
            return questions.score(learner, support, pool, by, key)
        real, sign = np.arange(pool.shape[-2]) < count, acquire.SIGNS[goal]
        curve, units = self.trained.curve(), self.trained.units
        out = questions.seek(learner, support, pool, real, curve, by, sign, key)
        value, best, gain, expected = out
        assert units is not None  # `need_goal` has asked
        return in_own_units(units, value, best, by), gain, expected
