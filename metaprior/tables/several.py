"""Several targets as a sequence of conditionals: p(a, b, … | x) = p(a | x) p(b | x, a) …

Each conditional is a prior of its own that has the targets before it among its features. The chain
rule makes likelihoods exact. Where an earlier target is not known, draws from its predictive stand
for it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl

from metaprior import acquire
from metaprior.heads.draws import uniform_points
from metaprior.tables import chain, questions
from metaprior.tables.asked import (
    check_curves,
    check_sample,
    check_suggest,
    interval_levels,
    named_levels,
    suggested,
    target_of,
)
from metaprior.tables.chain import DRAWS, Link, Pass, blocks
from metaprior.tables.guarantee import need_guarantee
from metaprior.tables.learned import need_one_target
from metaprior.tables.padding import data_of, padded
from metaprior.tables.posterior import LEVELS, Posterior, in_own_units, sampled
from metaprior.tables.read import Rows


class JointPosterior:
    """What is believed of the several targets of one group, given its observed rows.

    Made by `Prior.adapt`.

    Args:
        info: of the prior.
        parts: what is believed of each target given the targets before it.

    Example:
        >>> import numpy as np, metaprior
        >>> rng = np.random.default_rng(0)
        >>> table = {"g": np.repeat(np.arange(12), 8), "x": rng.normal(size=96)}
        >>> table |= {"a": table["x"] + rng.normal(size=96), "b": rng.normal(size=96)}
        >>> prior = metaprior.Prior("alpaca", steps=4).fit(table, task="g", target=["a", "b"])
        >>> posterior = prior.adapt({"x": [0.0, 1.0], "a": [0.1, 1.2], "b": [0.0, 0.5]})
        >>> posterior.predict({"x": [0.5]}).columns[:6]
        ['a_mean', 'a_std', 'a_q05', 'a_q50', 'a_q95', 'a_epistemic']
    """

    def __init__(self, info: dict, parts: Sequence[Posterior]):
        self.info, self.parts = info, tuple(parts)

    @property
    def targets(self) -> list[str]:
        """Names of the targets, in their order."""
        return self.info["target"]

    @property
    def notes(self) -> tuple[str, ...]:
        """What may be wrong with the observed rows, such as other units."""
        return tuple(dict.fromkeys(note for part in self.parts for note in part.notes))

    def update(self, rows: Any) -> "JointPosterior":
        """A new posterior, with more rows of the group observed; see `Posterior.update`.

        Args:
            rows: a table with the features and every target.
        """
        return JointPosterior(self.info, [part.update(rows) for part in self.parts])

    def as_feature(self, i: int, z: np.ndarray) -> np.ndarray:
        """Outcomes of target `i` in model units (class indices) as a feature of later targets."""
        values = self.info["values"][self.targets[i]]
        if values is None:
            return self.parts[i].to_column(z)
        return np.asarray(values)[np.asarray(z, int)]

    def _even(self, n: int) -> np.ndarray:
        """The same even levels at every row, `(DRAWS, n, targets)`."""
        points = uniform_points(DRAWS, len(self.parts))
        return np.repeat(points[:, None], n, axis=1)

    def _links(self, rows: Rows) -> Iterator[tuple[int, Link]]:
        """Every target's link, after even draws of the targets before it."""
        walk = Pass(self, rows, self._even(rows.frame.height))
        for i in range(len(self.parts)):
            link = walk.link(i)
            yield i, link
            if i < len(self.parts) - 1:
                walk.draw(i, link)

    def predict(self, rows: Any, levels: Sequence[float] = LEVELS) -> pl.DataFrame:
        """Predictions of every target for rows, in their order and the targets' own units.

        The first target is predicted as by `Posterior.predict`. A later one is the mixture over 64
        draws of the targets before it, so that no row needs a target.

        Args:
            rows: a table with the features.
            levels: quantiles to give, each inside (0, 1) and given once.

        Returns:
            the columns of `Posterior.predict` for each target, as `<target>_mean`,
            `<target>_p_<class>` and so on.
        """
        first = self.parts[0]
        rows = first.trained.rows(rows, "query")
        asked = named_levels(levels)
        at = jnp.asarray(list(asked.values()), jnp.float32)
        later: list[list[pl.DataFrame]] = [[] for _ in self.parts[1:]]
        for block in blocks(rows, DRAWS):
            for i, link in self._links(block):
                if i:
                    part = self.parts[i]
                    out = chain.predict(link, part.trained.curve(), at, jr.key(0))
                    later[i - 1].append(part.table(out, block.frame.height, list(asked)))

        tables = [first.predict(rows, levels), *(pl.concat(blocks) for blocks in later)]
        named = [
            table.rename({column: f"{target}_{column}" for column in table.columns})
            for target, table in zip(self.targets, tables)
        ]
        return pl.concat(named, how="horizontal")

    def quantile(self, rows: Any, levels: Sequence[float] = LEVELS) -> pl.DataFrame:
        """Quantiles alone, as `<target>_q05` and so on, of the targets that are numbers."""
        named = named_levels(levels)
        wanted = [
            f"{part.trained.info['target']}_{name}"
            for part in self._numbers("quantile")
            for name in named
        ]
        return self.predict(rows, levels).select(wanted)

    def interval(self, rows: Any, share: float = 0.9, guaranteed: bool = False) -> pl.DataFrame:
        """`<target>_low` and `<target>_high` of the targets that are numbers.

        See `Posterior.interval`; of several targets nothing is guaranteed.
        """
        self._numbers("interval")
        if guaranteed:
            need_guarantee([part.trained for part in self.parts], share)
        found = self.quantile(rows, interval_levels(share))
        ends = ("low", "high")
        return found.rename(
            {c: f"{c[: c.rindex('_')]}_{ends[i % 2]}" for i, c in enumerate(found.columns)}
        )

    def log_prob(self, rows: Any, joint: bool = False) -> Any:
        """Log density of all targets of a row together, in their own units and in nats.

        By the chain rule it is exact. Of classes, log probability.

        Args:
            rows: a table with the features and every target.
            joint: of all rows together, with their dependence, instead of each on its own.

        Returns:
            `(n,)`, or with `joint` one number.
        """
        rows = self.parts[0].trained.rows(rows, "query")
        return sum(part.log_prob(rows, joint) for part in self.parts)

    def cdf(self, rows: Any) -> pl.DataFrame:
        """Probability of each outcome, or less, whatever the other targets of its row are.

        Args:
            rows: a table with the features and the targets.

        Returns:
            a column for each target that is numbers.
        """
        self._numbers("cdf")
        first = self.parts[0]
        rows = first.trained.rows(rows, "query")
        found: dict[str, list[np.ndarray]] = {}
        if first.trained.units is not None:
            found[self.targets[0]] = [first.cdf(rows)]
        for block in blocks(rows, DRAWS):
            for i, link in self._links(block):
                trained = self.parts[i].trained
                if i and trained.units is not None:
                    y = trained.outcomes(block)
                    y = np.pad(y, ((0, link.x.shape[1] - len(y)), (0, 0)))
                    below = np.asarray(chain.cdf(link, y, jr.key(0)), np.float64)
                    found.setdefault(self.targets[i], []).append(below[: block.frame.height])
        return pl.DataFrame({name: np.concatenate(each) for name, each in found.items()})

    def _numbers(self, what: str) -> list[Posterior]:
        """The targets that are numbers, of which there must be one."""
        found = [part for part in self.parts if part.trained.units is not None]
        if not found:
            self.parts[0].need_numbers(what)
        return found

    def repeated(self, rows: Rows, m: int) -> pl.DataFrame | None:
        """Rows once for each of `m` draws, with draws in the place of features that they lack.

        Nothing where they lack none.
        """
        first = self.parts[0]
        filled = first.trained.filled(first.known, first.y, rows)
        if filled is None:
            return None
        n = rows.frame.height
        draw = np.arange(m) % (filled[1].height // n)
        return filled[1][(draw[:, None] * n + np.arange(n)).reshape(-1)]

    def sample(
        self, rows: Any, n: int = 100, seed: int = 0, functions: bool = False, noise: bool = True
    ) -> pl.DataFrame:
        """Outcomes of all targets drawn together.

        Args:
            rows: a table with the features.
            n: draws for each row, at least 1.
            seed: of the draws, at least 0.
            functions: draw whole functions of the group, so that the rows of a draw depend on one
                another too. Otherwise each row is drawn on its own.
            noise: whether outcomes scatter about the functions. Without it, which needs
                `functions`, each target's function is given at the values of those before it.

        Returns:
            `draw` and `row` (both from 1) and a column for each target.
        """
        check_sample(n, seed, functions, noise)
        rows = self.parts[0].trained.rows(rows, "query")
        self.parts[0].note(self.parts[0].trained.remarks(rows))
        if functions:
            check_curves(rows.frame.height)
            return sampled(self._curves(rows, n, seed, noise))
        rng = np.random.default_rng(seed)
        found: list[list[np.ndarray]] = [[] for _ in self.parts]
        for block in blocks(rows, n):
            levels = rng.uniform(size=(n, block.frame.height, len(self.parts)))
            walk = Pass(self, block, levels)
            for i, part in enumerate(self.parts):
                found[i].append(part.to_column(walk.draw(i, walk.link(i))))

        columns = [np.concatenate(column, axis=1) for column in found]
        return sampled(dict(zip(self.targets, columns)))

    def _curves(self, rows: Rows, n: int, seed: int, noise: bool) -> dict[str, np.ndarray]:
        """Columns `(n, rows)` of functions, each target's at the drawn values of those before."""
        count, size = rows.frame.height, questions.CURVES
        found: dict[str, list[np.ndarray]] = {}
        for number in range(-(-n // size)):
            many = self.repeated(rows, size)
            if many is None:
                many = rows.frame[np.tile(np.arange(count), size)]
            for i, part in enumerate(self.parts):
                trained = part.trained
                x = trained.encode(Rows(many, rows.where)).reshape(size, count, -1)
                which = np.asarray([seed % 2**32, number * len(self.parts) + i], np.uint32)
                support, curve = part.support(), trained.curve()
                pair = questions.curves(trained.learner, support, padded(x), curve, which)
                value, outcome = (np.asarray(a)[:, :count] for a in pair)
                for name, column in part.named(value, outcome, noise).items():
                    if name != self.targets[i]:  # probabilities of classes
                        name = f"{self.targets[i]}_{name}"
                    found.setdefault(name, []).append(column)
                shown = outcome if noise or trained.units is None else value
                column = self.as_feature(i, shown[..., 0]).reshape(-1)
                many = many.with_columns(pl.Series(self.targets[i], column))
        return {name: np.concatenate(each)[:n] for name, each in found.items()}

    def effects(self) -> dict[str, pl.DataFrame]:
        """`Posterior.effects` of each target, by name, given the targets before it."""
        return {name: part.effects() for name, part in zip(self.targets, self.parts, strict=True)}

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
        """Which of the candidate rows to observe next, all targets of a row at once.

        To learn, scores are sums over the targets, as `gain_nats` is in any case. Each target's
        term is given the targets before it, and averaged over them: by the chain rule the sums are
        the entropy of all outcomes together and the information in them. `"variance"` adds the
        variances of standardised targets. To maximise or minimise, scores are of the one target.
        A chosen row is taken as observed at its expected outcome, each target at what is expected
        given the expected ones before it.

        Args:
            candidates: rows that could be observed, without the targets.
            n: how many to choose, at most the number of candidates.
            by, goal: see `Posterior.suggest`. The information in the highest value, `"mes"`, of a
                later target is given the targets before it, and averaged over them.
            seed: of what is drawn, at least 0.
            target: the one to maximise or minimise.

        Returns:
            the chosen rows in order, with `row` (1 is the first candidate), `score` and
            `gain_nats`.
        """
        rows = self.parts[0].trained.rows(candidates, "pool")
        rule = check_suggest(rows.frame.height, n, by, seed, goal)
        if rule == "learned":
            need_one_target(len(self.parts))
        i = target_of(self.targets, goal, target)
        self.parts[i].need_goal(goal, rule, rows)
        posterior, chosen, scores, gains = self, [], [], []
        for step in range(n):
            key = jr.fold_in(jr.key(seed), step)
            value, gain = posterior._scores(rows, rule if goal == "learn" else "random", key)
            if goal != "learn":
                value = posterior._sought(rows, i, rule, goal, (seed, step), key)
            value = np.where(np.isin(np.arange(len(value)), chosen), -np.inf, value)
            pick = int(value.argmax())
            chosen.append(pick)
            scores.append(float(value[pick]))
            gains.append(float(gain[pick]))
            if step < n - 1:
                posterior = posterior._observe_expected(Rows(rows.frame[pick], rows.where), key)
        return suggested(rows.frame, chosen, scores, gains)

    def _sought(
        self, rows: Rows, i: int, by: str, goal: str, seed: tuple[int, int], key: Any
    ) -> np.ndarray:
        """Scores of the rows by target `i` in its own unit, the targets before it averaged over."""
        part, count, sign = self.parts[i], rows.frame.height, acquire.SIGNS[goal]
        if not i:
            known, x = part.arrays(rows)
            out = part.scores(data_of(known, part.y), padded(x), count, by, goal, key)
            return np.asarray(out[0])[:count]
        units, drawn = part.trained.units, None
        assert units is not None  # `need_goal` has asked
        if by in acquire.DRAWN:
            first = (seed[0] + 1_000_003 * seed[1]) % 2**32
            curves = self._curves(rows, acquire.DRAWN[by], first, noise=False)
            values = units.to_z(curves[self.targets[i]])
            drawn = acquire.of_functions(jnp.asarray(values, jnp.float32), by, sign)
        links = [(b.frame.height, dict(self._links(b))[i]) for b in blocks(rows, DRAWS)]
        if len(part.y):
            best = sign * (sign * part.y[:, 0]).max()
        else:  # of what is expected, as nothing is known
            each = [np.asarray(chain.expected(link, key))[:size] for size, link in links]
            best = sign * (sign * np.concatenate(each)).max()
        found, done = [], 0
        for size, link in links:
            own = drawn
            if drawn is not None and by == "thompson":  # a value for each row
                own = jnp.pad(drawn[done : done + size], (0, link.x.shape[1] - size))
            curve, at = part.trained.curve(), jnp.asarray(best, jnp.float32)
            value = chain.seek(link, curve, own, at, by, sign, key)
            found.append(np.asarray(value)[:size])
            done += size
        return in_own_units(units, np.concatenate(found), best, by)

    def _scores(self, rows: Rows, by: str, key) -> tuple[np.ndarray, np.ndarray]:
        """Score and information of every row, summed over the targets."""
        first = self.parts[0]
        x = padded(first.trained.encode(rows))
        out = questions.score(first.trained.learner, first.support(), x, by, key)
        total = np.stack([np.asarray(a, float)[: rows.frame.height] for a in out[:2]])
        done = 0
        for block in blocks(rows, DRAWS):
            size = block.frame.height
            for i, link in self._links(block):
                if i:
                    total[:, done : done + size] += np.stack(chain.score(link, by, key))[:, :size]
            done += size
        return total[0], total[1]

    def _observe_expected(self, row: Rows, key) -> "JointPosterior":
        """With a row observed at its expected outcome."""
        frame, parts = row.frame, []
        for i, part in enumerate(self.parts):
            x = part.trained.encode(Rows(frame, row.where))
            out = questions.score(part.trained.learner, part.support(), padded(x), "random", key)
            expected = np.asarray(out[2])[:1]
            column = self.as_feature(i, expected[:, 0])
            frame = frame.with_columns(pl.Series(self.targets[i], column))
            parts.append(part.observe(x, expected))
        return JointPosterior(self.info, parts)
