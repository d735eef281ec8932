"""Several targets as a sequence of conditionals: p(a, b, … | x) = p(a | x) p(b | x, a) …

Each conditional is a prior of its own that has the targets before it among its features. The chain
rule makes likelihoods exact; where an earlier target is not known, draws from its predictive stand
for it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl

from metaprior import acquire
from metaprior.evaluation.units import summary
from metaprior.heads.draws import uniform_points
from metaprior.posterior import Mixture, Part
from metaprior.system.programs import kept
from metaprior.tables import posterior as adapted
from metaprior.tables.posterior import (
    TINY,
    Posterior,
    atoms,
    bucket,
    invert,
    log_weights,
    outcomes_at,
)

DRAWS = 64  # of the earlier targets, for each row
FUNCTIONS = 32  # of methods that predict by sampling, for each of those draws
KNOTS = 11  # quantiles that stand for a component at each draw
BLOCK = 16_384  # rows times draws in one compiled call


class Chain(eqx.Module):
    """What a saved prior of several targets holds: the parts' `Trained`, in the order of the
    targets.
    """

    info: dict
    parts: tuple[Any, ...]


def joint_info(infos: list[dict], values: list[list | None]) -> dict:
    """What was learned from what, for all targets.

    Args:
        infos: of the parts.
        values: each target's classes as a feature column holds them, `None` for numbers.
    """

    def by_target(items):
        return dict(zip([info["target"] for info in infos], items, strict=True))

    notes = list(dict.fromkeys(note for info in infos for note in info["notes"]))
    several = {
        "target": [info["target"] for info in infos],
        "notes": notes,
        "values": by_target(values),
    }
    return infos[0] | several | {"classes": by_target([info["classes"] for info in infos])}


def share_of(
    progress: Callable[[float, str], None] | None, i: int, targets: Sequence[str]
) -> Callable | None:
    """Progress of the i-th target as progress of the whole."""
    if progress is None:
        return None
    return lambda done, what: progress((i + done) / len(targets), f"{targets[i]}: {what}")


class _Given(eqx.Module):
    """A predictive at `n` rows for each of `m` draws of the earlier targets.

    Args:
        mixture: at all `m * n` points, draw after draw.
        before: the `j` earlier targets' draws in model units, `(j, m, n)`.
        removable: share of each earlier target's variance that more rows of the group could remove,
            `(j, n)`.
    """

    mixture: Mixture
    before: jax.Array
    removable: jax.Array

    @property
    def draws(self) -> int:
        return self.before.shape[1]

    def each(self, function: Callable, *more) -> Any:
        """`function` of every draw's predictive (and its entry of `more`); results `(m, n, …)`."""

        def lead(a):
            return jnp.moveaxis(a.reshape(a.shape[0], self.draws, -1, *a.shape[2:]), 1, 0)

        arrays = [
            (lead(p.params), None if p.inside is None else lead(p.inside))
            for p in self.mixture.parts
        ]

        def one(args):
            arrays, *more = args
            parts = [
                Part(p.head, a, p.log_weight, b) for p, (a, b) in zip(self.mixture.parts, arrays)
            ]
            return function(Mixture(tuple(parts)), *more)

        return jax.lax.map(one, (arrays, *more))

    def quantiles(self, levels: jax.Array) -> jax.Array:
        """Quantiles `(l, n)` with the earlier targets integrated out.

        A component is replaced by few atoms, in other places at every draw, so that those of all
        draws lie close; one step of Newton's from there is within 1e-3 of the level.
        """
        shift = jnp.asarray(uniform_points(self.draws, 2)[:, 1] - 0.5, self.before.dtype)
        values, mass = self.each(lambda mixture, shift: atoms(mixture, KNOTS, shift), shift)

        def join(a):
            return jnp.moveaxis(a, 0, 1).reshape(a.shape[1], -1)

        start = invert(join(values), join(mass))(
            jnp.broadcast_to(levels[:, None], (len(levels), values.shape[1]))
        )
        most = 0.1 * jnp.sqrt(self.moments()[1][:, 0])

        def newton(args):
            level, y = args
            at = jnp.tile(y, self.draws)[:, None]
            below = self._split(self.mixture.cdf(at)[:, 0]).mean(0)
            density = self._split(jnp.exp(self.mixture.log_prob(at))).mean(0)
            return y - jnp.clip((below - level) / jnp.maximum(density, TINY), -most, most)

        return jax.lax.map(newton, (levels, start))

    def outcomes_at(self, levels: jax.Array) -> jax.Array:
        """One outcome at levels `(m, n)` for each draw: a component is chosen by the level, and
        what is left of the level, uniform again, is that of the outcome within it.
        """
        if self.mixture.parts[0].head.classes:
            return outcomes_at(self.mixture, levels.reshape(1, -1)).reshape(levels.shape)
        u, weight = levels.reshape(-1), jnp.exp(log_weights(self.mixture))
        upper = jnp.cumsum(weight)
        chosen = jnp.minimum((u[:, None] > upper).sum(-1), len(weight) - 1)
        rest = jnp.clip((u - (upper - weight)[chosen]) / weight[chosen], TINY, 1 - TINY)
        value, first = jnp.zeros_like(u), 0
        for part in self.mixture.parts:
            own = chosen - first
            params = part.params[jnp.clip(own, 0, len(part.log_weight) - 1), jnp.arange(len(u))]
            here = jax.vmap(lambda params, level: part.head.quantile(params, level)[0])(
                params, rest
            )
            value = jnp.where((own >= 0) & (own < len(part.log_weight)), here, value)
            first += len(part.log_weight)
        return value.reshape(levels.shape)

    def share(self) -> jax.Array:
        """How much of the spread over draws more rows of the group could remove, `(n,)`.

        To first order: the earlier targets' own shares, weighted by how much of the spread goes
        with each.
        """
        mean = self._split(self.mixture.mean())
        if not len(self.before):
            return jnp.zeros(mean.shape[1], mean.dtype)

        def center(a, axis):
            return a - a.mean(axis, keepdims=True)

        before = center(self.before, 1)
        together = (before[..., None] * center(mean, 0)[None]).mean(1)
        weight = (together**2).sum(-1) / jnp.maximum((before**2).mean(1), 1e-12) + 1e-9
        return (weight * self.removable).sum(0) / weight.sum(0)

    def _split(self, a):
        return a.reshape(self.draws, -1, *a.shape[1:])

    def functions(self) -> tuple[jax.Array, jax.Array]:
        """Weights `(s,)` of the components and their means `(s, n, p)`, averaged over the draws.

        A component is one function, the same at all draws: what differs between the means, more
        rows can remove.
        """
        parts = self.mixture.parts
        means = jnp.concatenate([p.head.mean(p.params) for p in parts])
        means = means.reshape(len(means), self.draws, -1, means.shape[-1]).mean(1)
        return jnp.exp(log_weights(self.mixture)), means

    def moments(self):
        """Mean, variance and its removable part with the earlier targets integrated out, `(n, p)`
        each.

        What a closed form leaves open of a function counts as alike at all draws: the removable
        part is at most too large.
        """
        mean, noise = self._split(self.mixture.mean()), self._split(self.mixture.variance())
        weight, means = self.functions()
        inside = self._split(self.mixture.epistemic() - self.mixture._spread()).mean(0)
        own = jnp.tensordot(weight, (means - mean.mean(0)) ** 2, axes=1) + jnp.maximum(inside, 0.0)
        between = mean.var(0)
        return mean.mean(0), noise.mean(0) + between, own + self.share()[:, None] * between

    def removable_share(self) -> jax.Array:
        """Share of this target's variance that more rows of the group could remove, `(n,)`."""
        _, total, part = self.moments()
        return part.sum(-1) / jnp.maximum(total.sum(-1), 1e-12)


def _given(learner, support, x, before, removable, key) -> _Given:
    post_key, key = jr.split(key)
    samples = FUNCTIONS if len(x) > 1 else 256
    posterior = learner.posterior(support, key=post_key)
    return _Given(
        posterior.predict(x.reshape(-1, x.shape[-1]), key=key, samples=samples), before, removable
    )


@kept
def _draw(learner, support, x, before, removable, levels, key):
    """Outcomes at `levels` `(m, n)` given the earlier ones, and the share of their variance that
    can be removed.
    """
    given = _given(learner, support, x, before, removable, key)
    drawn = outcomes_at(given.mixture, levels) if len(x) == 1 else given.outcomes_at(levels)
    return drawn, given.removable_share()


@kept
def _predict(learner, support, x, before, removable, units, levels, key):
    """What `adapted` predicts, with the earlier targets integrated out."""
    given = _given(learner, support, x, before, removable, key)
    if units is None:
        p, (weight, means) = given._split(given.mixture.mean()), given.functions()

        def entropy(p):
            return -jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0.0).sum(-1)

        total = entropy(p.mean(0))
        own, between = (
            total - jnp.tensordot(weight, entropy(means), axes=1),
            total - entropy(p).mean(0),
        )
        return {"p": p.mean(0), "epistemic": jnp.maximum(own + given.share() * between, 0.0)}
    mean, std = given.each(lambda mixture: summary(mixture, units, support))
    mean, std = mean.mean(0), jnp.sqrt((std**2).mean(0) + mean.var(0))
    _, total, part = given.moments()
    return {
        "mean": mean[:, 0],
        "std": std[:, 0],
        "quantiles": units.to_y(given.quantiles(levels)),
        "epistemic": (std * jnp.sqrt(part / total))[:, 0],
    }


@kept
def _score(learner, support, x, before, removable, by, key):
    """A link's term of the score of `suggest`, and of the information, averaged over the earlier
    targets.
    """
    given = _given(learner, support, x, before, removable, key)
    information = given.each(lambda mixture: mixture.information()).mean(0)
    if by == "random":  # drawn once, for the first target
        return jnp.zeros_like(information), information
    if by == "variance":
        return given.moments()[2].sum(-1), information
    return given.each(lambda mixture: acquire.score(mixture, by, key=key)).mean(0), information


class JointPosterior:
    """What is believed of the several targets of one group, given its observed rows. Made by
    `Prior.adapt`.

    Args:
        info: of the prior.
        parts: what is believed of each target given those before it.

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

    def _known(self, i: int, z: np.ndarray) -> np.ndarray:
        """Outcomes of target `i` in model units (class indices) as a column among the later
        targets' features.
        """
        values = self.info["values"][self.info["target"][i]]
        return (
            self.parts[i].to_column(z) if values is None else np.asarray(values)[np.asarray(z, int)]
        )

    def _links(self, frame: pl.DataFrame, levels: np.ndarray, where: str):
        """Link after link: `i`, what compiled functions take of it, and a call that gives its
        outcomes at levels.

        Each call draws target `i` `(m, n)` and adds it to what the later links see.
        """
        m, n = levels.shape[:2]
        size = bucket(max(n, 1))
        at = jnp.asarray(
            np.pad(levels, ((0, 0), (0, size - n), (0, 0)), constant_values=0.5), jnp.float32
        )
        many = frame[np.tile(np.arange(n), m)]
        z, shares = [], []
        for i, part in enumerate(self.parts):
            encoded = part.prior.encode(many if i else frame, where)
            x = encoded.reshape(m if i else 1, n, encoded.shape[1])
            x = jnp.asarray(np.pad(x, ((0, 0), (0, size - n), (0, 0))))
            before = jnp.stack(z) if i else jnp.zeros((0, 1, size), x.dtype)
            link = (
                part.prior.trained.learner,
                part.support(),
                x,
                before,
                jnp.stack(shares) if i else before[:, 0],
            )

            def draw():
                nonlocal many
                drawn, share = _draw(*link, at[:, :, i], jr.key(0))
                column = self._known(i, np.asarray(drawn)[:, :n])
                many = many.with_columns(pl.Series(self.info["target"][i], column.reshape(-1)))
                z.append(drawn)
                shares.append(share)
                return np.asarray(drawn)[:, :n]

            yield i, link, draw

    def _even(self, n: int) -> np.ndarray:
        """The same even levels at every row, `(DRAWS, n, targets)`."""
        points = uniform_points(DRAWS, len(self.parts))
        return np.repeat(points[:, None], n, axis=1)

    def predict(self, rows: Any, levels: Sequence[float] = (0.05, 0.5, 0.95)) -> pl.DataFrame:
        """Predictions of every target for rows, in their order and the targets' own units.

        The first target's are those of `Posterior.predict`. Of a later one they are the mixture
        over 64 draws of the targets before it, so that no row needs a target.

        Args:
            rows: a table with the features.
            levels: quantiles to give, each in (0, 1).

        Returns:
            the columns of `Posterior.predict` for each target, as `<target>_mean`,
            `<target>_p_<class>` and so on.
        """
        frame = self.parts[0].prior.frame(rows)
        tables = [self.parts[0].predict(frame, levels)]
        quantile_levels = jnp.asarray(levels, jnp.float32)
        later: list[list] = [[] for _ in self.parts[1:]]
        for block, part_of in _blocks(frame, DRAWS):
            for i, link, draw in self._links(part_of, self._even(block), "query"):
                if i:
                    out = _predict(
                        *link, self.parts[i].prior.trained.units, quantile_levels, jr.key(0)
                    )
                    later[i - 1].append(self.parts[i].table(out, block, levels))
                if i < len(self.parts) - 1:
                    draw()
        tables += [pl.concat(blocks) for blocks in later]
        named = [
            t.rename(lambda c, name=name: f"{name}_{c}")
            for name, t in zip(self.info["target"], tables)
        ]
        return pl.concat(named, how="horizontal")

    def sample(self, rows: Any, n: int = 100, seed: int = 0) -> pl.DataFrame:
        """Outcomes of all targets drawn together: each row on its own, its targets with their
        dependence.

        Args:
            rows: a table with the features.
            n: draws a row, at least 1.
            seed: of the draws.

        Returns:
            `draw` and `row` (both from 1) and a column a target.
        """
        adapted.check_sample(n)
        frame = self.parts[0].prior.frame(rows)
        rng = np.random.default_rng(seed)
        blocks = []
        for block, some in _blocks(frame, n):
            levels = rng.uniform(size=(n, block, len(self.parts)))
            blocks.append(
                [
                    self.parts[i].to_column(draw())
                    for i, _, draw in self._links(some, levels, "query")
                ]
            )
        columns = [np.concatenate(column, axis=1) for column in zip(*blocks)]
        return adapted.sampled(dict(zip(self.info["target"], columns)))

    def suggest(
        self, candidates: Any, n: int = 1, by: str = "entropy", seed: int = 0
    ) -> pl.DataFrame:
        """Which of the candidate rows to observe next, all targets of a row at once.

        Scores and `gain_nats` are sums over the targets, each given those before it and averaged
        over them: by the chain rule the entropy of, and the information in, the outcomes together.
        `"variance"` adds the variances of standardised targets. A chosen row is taken as observed
        at its expected outcome, each target at what is expected given the expected ones before it.

        Args:
            candidates: rows that could be observed, without the targets.
            n: how many to choose, at most the number of candidates.
            by: `"entropy"`, `"bald"`, `"variance"` or `"random"`; see `metaprior.acquire`.
            seed: for `"random"`.

        Returns:
            the chosen rows in order, with `row` (1 is the first candidate), `score` and
            `gain_nats`.
        """
        frame = self.parts[0].prior.frame(candidates)
        adapted.check_suggest(frame.height, n, by)
        posterior, chosen, scores, gains = self, [], [], []
        for step in range(n):
            key = jr.fold_in(jr.key(seed), step)
            value, gain = posterior._scores(frame, by, key)
            value = np.where(np.isin(np.arange(len(value)), chosen), -np.inf, value)
            pick = int(value.argmax())
            chosen.append(pick)
            scores.append(float(value[pick]))
            gains.append(float(gain[pick]))
            if step < n - 1:
                posterior = posterior._observe_expected(frame[pick], by, key)
        return adapted.suggested(frame, chosen, scores, gains)

    def _scores(self, frame: pl.DataFrame, by: str, key) -> tuple[np.ndarray, np.ndarray]:
        first = self.parts[0]
        x = adapted.padded(first.prior.encode(frame, "pool"))
        out = adapted.score(first.prior.trained.learner, first.support(), x, by, key)
        total = np.stack([np.asarray(a, float)[: frame.height] for a in out[:2]])
        done = 0
        for block, some in _blocks(frame, DRAWS):
            for i, link, draw in self._links(some, self._even(block), "pool"):
                if i:
                    total[:, done : done + block] += np.stack(_score(*link, by, key))[:, :block]
                if i < len(self.parts) - 1:
                    draw()
            done += block
        return total[0], total[1]

    def _observe_expected(self, row: pl.DataFrame, by: str, key) -> "JointPosterior":
        parts = []
        for i, part in enumerate(self.parts):
            x = part.prior.encode(row, "pool")
            expected = np.asarray(
                adapted.score(
                    part.prior.trained.learner, part.support(), adapted.padded(x), by, key
                )[2]
            )[:1]
            row = row.with_columns(
                pl.Series(self.info["target"][i], self._known(i, expected[:, 0]))
            )
            parts.append(part.observe(x, expected))
        return JointPosterior(self.info, parts)


def _blocks(frame: pl.DataFrame, draws: int):
    """Rows in blocks that keep compiled calls small, each with its number of rows."""
    size = 1 << max(3, (max(BLOCK // draws, 1)).bit_length() - 1)
    for start in range(0, max(frame.height, 1), size):
        some = frame[start : start + size]
        yield some.height, some
