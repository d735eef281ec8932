"""Several targets as a sequence of conditionals: p(a, b, … | x) = p(a | x) p(b | x, a) …

Each conditional is a prior of its own that has the targets before it among its features. The chain
rule makes likelihoods exact. Where an earlier target is not known, draws from its predictive stand
for it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl

from metaprior import acquire
from metaprior.evaluation.units import moments
from metaprior.heads.draws import uniform_points
from metaprior.method import AbstractLearner
from metaprior.system.programs import kept
from metaprior.tables import posterior as one
from metaprior.tables.asked import check_sample, check_suggest, named_levels
from metaprior.tables.given import Given
from metaprior.tables.posterior import Posterior, bucket
from metaprior.tables.quantiles import outcomes_at
from metaprior.tables.read import Rows
from metaprior.task import Data

DRAWS = 64  # of the earlier targets, for each row
FUNCTIONS = 32  # of methods that predict by sampling, for each of those draws
BLOCK = 16_384  # rows times draws in one compiled call


class Link(eqx.Module):
    """What compiled functions read of one target, after draws of the targets before it.

    Args:
        learner: of the target.
        support: the observed rows.
        x: encoded rows for each draw of the earlier targets, `(m, n, d)`; `m` is 1 for the first.
        before, removable: see `Given`.
    """

    learner: AbstractLearner
    support: Data
    x: jax.Array
    before: jax.Array
    removable: jax.Array

    def given(self, key) -> Given:
        """The predictive at every draw."""
        post_key, key = jr.split(key)
        # The first target is predicted once, so it can have more functions.
        samples = FUNCTIONS if len(self.x) > 1 else one.SAMPLES
        posterior = self.learner.posterior(self.support, key=post_key)
        x = self.x.reshape(-1, self.x.shape[-1])
        return Given(posterior.predict(x, key=key, samples=samples), self.before, self.removable)


def drawn(link, log, levels, key):
    """Outcomes at `levels` `(m, n)` given the earlier ones, and the removable share of variance."""
    given = link.given(key)
    if len(link.x) == 1:
        values = outcomes_at(given.mixture, levels)
    else:
        values = given.outcomes_at(levels)
    if log is not None:
        values = jnp.clip(values, *log.bounds(link.support))
    return values, given.removable_share()


_draw = kept(drawn)


def predicted(link, log, levels, key):
    """What `Posterior.predict` gives, with the earlier targets integrated out."""
    given = link.given(key)
    if given.mixture.parts[0].head.classes:
        return _predict_classes(given)
    _, total, part = given.moments()
    each = given.each(lambda mixture: moments(mixture, log, link.support))
    return {
        **jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), each),
        "quantiles": given.quantiles(levels).T,
        "removable": jnp.sqrt(part / total)[:, 0],
    }


_predict = kept(predicted)


def _predict_classes(given: Given) -> dict[str, jax.Array]:
    def entropy(p):
        return -jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0.0).sum(-1)

    p, (weight, means) = given.split(given.mixture.mean()), given.functions()
    total = entropy(p.mean(0))
    own = total - jnp.tensordot(weight, entropy(means), axes=1)
    between = total - entropy(p).mean(0)
    return {"p": p.mean(0), "epistemic": jnp.maximum(own + given.share() * between, 0.0)}


@kept
def _score(link, by, key):
    """A target's terms of the score of `suggest` and of the information.

    Both are averaged over the earlier targets.
    """
    given = link.given(key)
    information = given.each(lambda mixture: mixture.information()).mean(0)
    if by == "random":  # drawn once, for the first target
        return jnp.zeros_like(information), information
    if by == "variance":
        return given.moments()[2].sum(-1), information
    return given.each(lambda mixture: acquire.score(mixture, by, key=key)).mean(0), information


class _Pass:
    """One pass over the targets of some rows: what is drawn of each is a feature of the next ones.

    Args:
        posterior: of the group.
        rows: without targets.
        levels: of the draws, `(m, n, targets)`.
    """

    def __init__(self, posterior: "JointPosterior", rows: Rows, levels: np.ndarray):
        self.posterior, self.rows = posterior, rows
        self.m, self.n = levels.shape[:2]
        self.size = bucket(max(self.n, 1))
        pad = ((0, 0), (0, self.size - self.n), (0, 0))
        self.levels = jnp.asarray(np.pad(levels, pad, constant_values=0.5), jnp.float32)
        # Every row once for each draw, with a column more for each target that was drawn.
        self.many = rows.frame[np.tile(np.arange(self.n), self.m)]
        self.drawn: list[jax.Array] = []
        self.shares: list[jax.Array] = []

    def link(self, i: int) -> Link:
        """Of target `i`, when all targets before it are drawn."""
        part = self.posterior.parts[i]
        frame = self.many if i else self.rows.frame
        encoded = part.trained.encode(Rows(frame, self.rows.where))
        x = encoded.reshape(self.m if i else 1, self.n, encoded.shape[1])
        x = jnp.asarray(np.pad(x, ((0, 0), (0, self.size - self.n), (0, 0))))
        if i:
            before, removable = jnp.stack(self.drawn), jnp.stack(self.shares)
        else:
            before = jnp.zeros((0, 1, self.size), x.dtype)
            removable = before[:, 0]
        return Link(part.trained.learner, part.support(), x, before, removable)

    def draw(self, i: int, link: Link) -> np.ndarray:
        """Draws `(m, n)` of target `i`, which the later targets then see."""
        log = self.posterior.parts[i].trained.log_scale()
        drawn, share = _draw(link, log, self.levels[:, :, i], jr.key(0))
        self.drawn.append(drawn)
        self.shares.append(share)
        values = np.asarray(drawn)[:, : self.n]
        column = self.posterior.as_feature(i, values).reshape(-1)
        self.many = self.many.with_columns(pl.Series(self.posterior.targets[i], column))
        return values


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
        return tuple(note for part in self.parts for note in part.notes)

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
        walk = _Pass(self, rows, self._even(rows.frame.height))
        for i in range(len(self.parts)):
            link = walk.link(i)
            yield i, link
            if i < len(self.parts) - 1:
                walk.draw(i, link)

    def predict(self, rows: Any, levels: Sequence[float] = (0.05, 0.5, 0.95)) -> pl.DataFrame:
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
        for block in _blocks(rows, DRAWS):
            for i, link in self._links(block):
                if i:
                    part = self.parts[i]
                    out = _predict(link, part.trained.log_scale(), at, jr.key(0))
                    later[i - 1].append(part.table(out, block.frame.height, list(asked)))

        tables = [first.predict(rows, levels), *(pl.concat(blocks) for blocks in later)]
        named = [
            table.rename({column: f"{target}_{column}" for column in table.columns})
            for target, table in zip(self.targets, tables)
        ]
        return pl.concat(named, how="horizontal")

    def sample(self, rows: Any, n: int = 100, seed: int = 0) -> pl.DataFrame:
        """Outcomes of all targets drawn together.

        Each row is drawn on its own, and its targets with their dependence.

        Args:
            rows: a table with the features.
            n: draws for each row, at least 1.
            seed: of the draws, at least 0.

        Returns:
            `draw` and `row` (both from 1) and a column for each target.
        """
        check_sample(n, seed)
        rows = self.parts[0].trained.rows(rows, "query")
        rng = np.random.default_rng(seed)
        blocks: list[list[np.ndarray]] = [[] for _ in self.parts]
        for block in _blocks(rows, n):
            levels = rng.uniform(size=(n, block.frame.height, len(self.parts)))
            walk = _Pass(self, block, levels)
            for i, part in enumerate(self.parts):
                blocks[i].append(part.to_column(walk.draw(i, walk.link(i))))

        columns = [np.concatenate(column, axis=1) for column in blocks]
        return one.sampled(dict(zip(self.targets, columns)))

    def suggest(
        self, candidates: Any, n: int = 1, by: str = "entropy", seed: int = 0
    ) -> pl.DataFrame:
        """Which of the candidate rows to observe next, all targets of a row at once.

        Scores and `gain_nats` are sums over the targets. Each target's term is given the targets
        before it, and averaged over them: by the chain rule the sums are the entropy of all
        outcomes together and the information in them. `"variance"` adds the variances of
        standardised targets. A chosen row is taken as observed at its expected outcome, each target
        at what is expected given the expected ones before it.

        Args:
            candidates: rows that could be observed, without the targets.
            n: how many to choose, at most the number of candidates.
            by: `"entropy"`, `"bald"`, `"variance"` or `"random"`; see `metaprior.acquire`.
            seed: for `"random"`, at least 0.

        Returns:
            the chosen rows in order, with `row` (1 is the first candidate), `score` and
            `gain_nats`.
        """
        rows = self.parts[0].trained.rows(candidates, "pool")
        check_suggest(rows.frame.height, n, by, seed)
        posterior, chosen, scores, gains = self, [], [], []
        for step in range(n):
            key = jr.fold_in(jr.key(seed), step)
            value, gain = posterior._scores(rows, by, key)
            value = np.where(np.isin(np.arange(len(value)), chosen), -np.inf, value)
            pick = int(value.argmax())
            chosen.append(pick)
            scores.append(float(value[pick]))
            gains.append(float(gain[pick]))
            if step < n - 1:
                posterior = posterior._observe_expected(Rows(rows.frame[pick], rows.where), by, key)
        return one.suggested(rows.frame, chosen, scores, gains)

    def _scores(self, rows: Rows, by: str, key) -> tuple[np.ndarray, np.ndarray]:
        """Score and information of every row, summed over the targets."""
        first = self.parts[0]
        x = one.padded(first.trained.encode(rows))
        out = one.score(first.trained.learner, first.support(), x, by, key)
        total = np.stack([np.asarray(a, float)[: rows.frame.height] for a in out[:2]])
        done = 0
        for block in _blocks(rows, DRAWS):
            size = block.frame.height
            for i, link in self._links(block):
                if i:
                    total[:, done : done + size] += np.stack(_score(link, by, key))[:, :size]
            done += size
        return total[0], total[1]

    def _observe_expected(self, row: Rows, by: str, key) -> "JointPosterior":
        """With a row observed at its expected outcome."""
        frame, parts = row.frame, []
        for i, part in enumerate(self.parts):
            x = part.trained.encode(Rows(frame, row.where))
            out = one.score(part.trained.learner, part.support(), one.padded(x), by, key)
            expected = np.asarray(out[2])[:1]
            column = self.as_feature(i, expected[:, 0])
            frame = frame.with_columns(pl.Series(self.targets[i], column))
            parts.append(part.observe(x, expected))
        return JointPosterior(self.info, parts)


def _blocks(rows: Rows, draws: int) -> Iterator[Rows]:
    """Rows in blocks that keep compiled calls small."""
    size = 1 << max(3, (max(BLOCK // draws, 1)).bit_length() - 1)
    for start in range(0, max(rows.frame.height, 1), size):
        yield Rows(rows.frame[start : start + size], rows.where)
