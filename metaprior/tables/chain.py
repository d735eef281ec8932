"""Several targets, one after another: what is drawn of each is a feature of the next."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl

from metaprior import acquire
from metaprior.evaluation.units import gain, moments
from metaprior.method import AbstractLearner
from metaprior.system.programs import kept
from metaprior.tables import questions
from metaprior.tables.given import Given
from metaprior.tables.padding import bucket
from metaprior.tables.quantiles import outcomes_at
from metaprior.tables.read import Rows
from metaprior.task import Data

if TYPE_CHECKING:
    from metaprior.tables.several import JointPosterior

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
        samples = FUNCTIONS if len(self.x) > 1 else questions.SAMPLES
        posterior = self.learner.posterior(self.support, key=post_key)
        x = self.x.reshape(-1, self.x.shape[-1])
        return Given(posterior.predict(x, key=key, samples=samples), self.before, self.removable)


def drawn(link, curve, levels, key):
    """Outcomes at `levels` `(m, n)` given the earlier ones, and the removable share of variance."""
    given = link.given(key)
    if len(link.x) == 1:
        values = outcomes_at(given.mixture, levels)
    else:
        values = given.outcomes_at(levels)
    if curve is not None:
        values = jnp.clip(values, *curve.bounds(link.support))
    return values, given.removable_share()


draw = kept(drawn)


def predicted(link, curve, levels, key):
    """What `Posterior.predict` gives, with the earlier targets integrated out."""
    given = link.given(key)
    if given.mixture.parts[0].head.classes:
        return _classes(given)
    _, total, part = given.moments()
    each = given.each(lambda mixture: moments(mixture, curve, link.support))
    return {
        **jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), each),
        "quantiles": given.quantiles(levels).T,
        "removable": jnp.sqrt(part / total)[:, 0],
    }


predict = kept(predicted)


def _classes(given: Given) -> dict[str, jax.Array]:
    def entropy(p):
        return -jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0.0).sum(-1)

    p, (weight, means) = given.split(given.mixture.mean()), given.functions()
    total = entropy(p.mean(0))
    own = total - jnp.tensordot(weight, entropy(means), axes=1)
    between = total - entropy(p).mean(0)
    return {"p": p.mean(0), "epistemic": jnp.maximum(own + given.share() * between, 0.0)}


@kept
def score(link, by, key):
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


@kept
def expected(link, key):
    """Expected outcome of a target of numbers, the earlier targets averaged over: `(n,)`."""
    return link.given(key).moments()[0][:, 0]


@kept
def seek(link, curve, drawn, best, by, sign, key):
    """A target's score of `acquire.sought`, the earlier targets averaged over."""
    given, larger = link.given(key), gain(curve, link.support)

    def score(mixture):
        return acquire.sought(mixture, drawn, best, by, sign, key=key, gain=larger)

    if by in ("improvement", "mes"):  # the first is linear in the density
        return given.each(score).mean(0)
    return score(given.together())


@kept
def cdf(link, y, key):
    """Probability of the outcome `(n, 1)` of each row, or less, the earlier targets averaged."""
    given = link.given(key)
    return given.split(given.mixture.cdf(jnp.tile(y, (given.draws, 1)))[:, 0]).mean(0)


class Pass:
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
        filled = posterior.repeated(rows, self.m)
        self.alike = filled is None  # all draws have the same features
        if filled is None:
            filled = rows.frame[np.tile(np.arange(self.n), self.m)]
        self.many: pl.DataFrame = filled
        self.drawn: list[jax.Array] = []
        self.shares: list[jax.Array] = []

    def link(self, i: int) -> Link:
        """Of target `i`, when all targets before it are drawn."""
        part = self.posterior.parts[i]
        once = self.alike and not i
        frame = self.rows.frame if once else self.many
        encoded = part.trained.encode(Rows(frame, self.rows.where))
        x = encoded.reshape(1 if once else self.m, self.n, encoded.shape[1])
        x = jnp.asarray(np.pad(x, ((0, 0), (0, self.size - self.n), (0, 0))))
        if i:
            before, removable = jnp.stack(self.drawn), jnp.stack(self.shares)
        else:
            before = jnp.zeros((0, len(x), self.size), x.dtype)
            removable = before[:, 0]
        return Link(part.trained.learner, part.support(), x, before, removable)

    def draw(self, i: int, link: Link) -> np.ndarray:
        """Draws `(m, n)` of target `i`, which the later targets then see."""
        curve = self.posterior.parts[i].trained.curve()
        drawn, share = draw(link, curve, self.levels[:, :, i], jr.key(0))
        self.drawn.append(drawn)
        self.shares.append(share)
        values = np.asarray(drawn)[:, : self.n]
        column = self.posterior.as_feature(i, values).reshape(-1)
        self.many = self.many.with_columns(pl.Series(self.posterior.targets[i], column))
        return values


def blocks(rows: Rows, draws: int) -> Iterator[Rows]:
    """Rows in blocks that keep compiled calls small."""
    size = 1 << max(3, (max(BLOCK // draws, 1)).bit_length() - 1)
    for start in range(0, max(rows.frame.height, 1), size):
        yield Rows(rows.frame[start : start + size], rows.where)
