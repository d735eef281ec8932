"""Boosting on features of a group's observed rows, with a modelled spread and heavy tails.

What a strong user of boosting writes for groups: the mean of the rows observed so far, their
spread, the nearest one, and how many there are, as further columns. Each outcome is a Student's t
whose location and log scale are sums of trees, grown by natural gradients: Duan et al., "NGBoost:
Natural Gradient Boosting for Probabilistic Prediction", ICML 2020, and Thomas et al., "Gradient
Boosting for Distributional Regression", Statistics and Computing 2018, for two outputs in turn.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metaprior.heads import StudentT
from metaprior.method import AbstractLearner
from metaprior.posterior import Particles
from metaprior.tables.baselines.grow import LEAVES, Grower, Node, best_round
from metaprior.tables.baselines.learners import on_device
from metaprior.tables.members import SHOTS
from metaprior.tables.tails import log_density, scale_of
from metaprior.task import Data, pad

EXAMPLES = 20_000  # at most, of all trees
COPIES = 4  # at most, of a row as an example
RATE, EDGES = 0.1, 64  # coarser than in `cross_fit`: as good here, in a third of the time
ROUNDS, PATIENCE = 100, 10
ROOM = 16  # numbers of trees are padded to 16, 32, 64, …, so that tables share programs
FLOOR = 3e-3  # of the scale, standard deviations of the outcome
FAR = 1e6  # distance of the nearest observed row where there is none: more than any
FREEDOMS = (3.0, 4.0, 6.0, 10.0, 20.0, 50.0)


class Forest(eqx.Module):
    """Trees of at most `LEAVES` leaves whose nodes are all compared at once.

    Lucchese et al., "QuickScorer: A Fast Algorithm to Rank Documents with Additive Ensembles of
    Regression Trees", SIGIR 2015: a node that sends a row to the right rules out the leaves on its
    left; the first leaf that no node rules out is the row's.

    Args:
        feature, threshold: one entry a node, `(LEAVES - 1, t)`.
        keep: bits of the leaves that a node leaves where the row goes right, of the same shape.
        value: of each leaf, from left to right, `(t, LEAVES)`.
    """

    feature: Array
    threshold: Array
    keep: Array
    value: Array

    def __call__(self, x: Float[Array, "n c"]) -> Float[Array, "n t"]:
        """The value of every tree for every row."""

        def compare(left, node):
            feature, threshold, keep = node
            return left & jnp.where(x[:, feature] > threshold, keep, -1), None

        start = jnp.full((x.shape[0], self.value.shape[0]), -1, jnp.int32)
        left, _ = jax.lax.scan(compare, start, (self.feature, self.threshold, self.keep))
        leaf = jax.lax.population_count((left & -left) - 1)
        return jnp.take_along_axis(self.value[None], leaf[:, :, None], axis=2)[:, :, 0]


def _forest(location: list[list[Node]], scale: list[list[Node]]) -> list[np.ndarray]:
    """The fields of a `Forest` of two outputs, each with as many trees; some may have no node."""
    room = max(ROOM, 2 ** int(np.ceil(np.log2(max(len(location), 1)))))
    empty = [[Node(0, np.inf, 0, 0, True, True, 0.0)]] * (room - len(location))
    trees = [*location, *empty, *scale, *empty]
    inner = LEAVES - 1
    feature = np.zeros((inner, len(trees)), np.int32)
    threshold = np.full((inner, len(trees)), np.inf, np.float32)
    keep = np.full((inner, len(trees)), -1, np.int32)
    value = np.zeros((len(trees), LEAVES), np.float32)
    for t, nodes in enumerate(trees):
        order: list[int] = []  # leaves from left to right
        places: dict[int, tuple[int, int]] = {}  # of the leaves below a node: first, behind last

        def walk(at: int) -> tuple[int, int]:
            node, first = nodes[at], len(order)
            if node.leaf:
                order.append(at)
            else:
                walk(node.left)
                places[at] = (first, len(order))
                walk(node.right)
            return first, len(order)

        walk(0)
        for j, (at, (first, behind)) in enumerate(places.items()):
            feature[j, t], threshold[j, t] = nodes[at].feature, nodes[at].threshold
            keep[j, t] = ~(((1 << (behind - first)) - 1) << first)
        value[t, : len(order)] = [nodes[at].value for at in order]
    return [feature, threshold, keep, value]


def columns_of(x, residual, distance, seen, shrink):
    """What trees see of a row and of the observed rows of its group.

    NumPy in training, `jax.numpy` in use: the same lines.

    Args:
        x: of the rows, `(n, d)`.
        residual: what the pooled prediction leaves of the observed rows, `(n, k)`.
        distance: from each row to the observed ones, `(n, k)`.
        seen: which of them there are, `(n, k)`.
        shrink: rows that weigh as much as the prior mean 0 of a group's residuals.

    Returns:
        columns `(n, d + 6)`, and the shrunken mean of the residuals `(n,)`.
    """
    xp: Any = jnp if isinstance(x, jax.Array) else np
    count = seen.sum(1)
    total = xp.where(seen, residual, 0.0).sum(1)
    offset = total / (count + shrink)
    mean = total / xp.maximum(count, 1)
    gap = xp.where(seen, residual - mean[:, None], 0.0)
    spread = xp.sqrt((gap**2).sum(1) / xp.maximum(count - 1, 1))
    near = xp.where(seen, distance, FAR)
    first = xp.arange(near.shape[1]) == xp.argmin(near, axis=1)[:, None]
    nearest = xp.where(first & seen, residual, 0.0).sum(1)
    known = [count, mean, offset, spread, nearest, near.min(1)]
    return xp.concatenate([x, xp.stack([k.astype(x.dtype) for k in known], 1)], axis=1), offset


class Observed(AbstractLearner):
    """Trees on a row's columns and on features of the observed rows.

    Args:
        forest: trees of the location, then as many of the log scale.
        weight: of each tree, one over the number of models that are averaged.
        log_scale: before any tree.
        shrink: see `columns_of`.
        df: degrees of freedom.
        head: a `StudentT`.
    """

    forest: Forest
    weight: Array
    log_scale: Array
    shrink: Array
    df: Array
    head: StudentT

    def _apply(self, support: Data, x: Float[Array, "n d"]) -> Float[Array, "n 3"]:
        residual = support.y[:, 0] - support.x[:, -1]
        squares = ((x[:, None, :-1] - support.x[None, :, :-1]) ** 2).sum(-1)
        seen = jnp.broadcast_to(support.mask, squares.shape)
        residual = jnp.broadcast_to(residual, squares.shape)
        columns, offset = columns_of(x, residual, jnp.sqrt(squares), seen, self.shrink)
        values = self.forest(columns)
        half = values.shape[1] // 2
        location = x[:, -1] + offset + self.weight * values[:, :half].sum(1)
        scale = jnp.exp(self.log_scale + self.weight * values[:, half:].sum(1))
        scale = jnp.maximum(scale, self.head.floor + 1e-4)
        return self.head.raw(location[:, None], scale[:, None], self.df[None])

    def posterior(self, support: Data, *, key: PRNGKeyArray) -> Particles:
        room = max(len(support.mask), 1)  # the nearest of no rows at all has no place
        return Particles.single(pad(support, room), self._apply, self.head)


class _Examples(NamedTuple):
    """Rows with some other rows of their group.

    Args:
        columns: see `columns_of`.
        left: what pooled prediction and offset leave of the outcome, `(n,)`.
        fold: of the row's group.
    """

    columns: np.ndarray
    left: np.ndarray
    fold: np.ndarray


def examples_of(x, y, start, group, fold, shrink) -> _Examples:
    """Each row a few times, each time with other rows of its group, at random."""
    rng, rows = np.random.default_rng(0), np.arange(len(y))
    size = np.bincount(group)[group]
    copies = int(np.clip(EXAMPLES // len(y), 1, COPIES))
    found = []
    for _ in range(copies):
        some = rows if len(y) <= EXAMPLES else np.sort(rng.permutation(len(y))[:EXAMPLES])
        # The rows of a group in random order; those behind a row, around the end, are a random set.
        order = np.lexsort((rng.random(len(y)), group))
        place = np.empty(len(y), int)
        place[order] = rows - start[group[order]]
        behind = place[some, None] + np.arange(1, max(SHOTS) + 1)
        other = order[start[group[some], None] + behind % size[some, None]]
        shots = rng.choice(SHOTS, len(some))
        seen = np.arange(max(SHOTS)) < np.minimum(shots, size[some] - 1)[:, None]
        residual = (y - x[:, -1])[other]
        squares = np.zeros(other.shape)
        for column in x.T[:-1]:  # all at once they would not fit where there are hundreds
            squares += (column[some, None] - column[other]) ** 2
        columns, offset = columns_of(x[some], residual, np.sqrt(squares), seen, shrink)
        found.append((columns, y[some] - x[some, -1] - offset, fold[group[some]]))
    return _Examples(*map(np.concatenate, zip(*found)))


class _Fold:
    """A model that grows on the examples of the other folds."""

    def __init__(self, examples: _Examples, inside: np.ndarray, outside: np.ndarray, df: float):
        self.left, self.outside, self.df = examples.left, outside, df
        self.grow = Grower(examples.columns, inside, outside, RATE, EDGES)
        self.log_scale = np.log(scale_of(examples.left[inside], df))
        self.location = np.zeros(len(self.left))
        self.spread = np.full(len(self.left), self.log_scale)
        self.trees: tuple[list, list] = ([], [])
        self.errors = [self._errors()]  # of the fold's rows, over their scale, by round

    def round(self) -> float:
        """Grow a tree for the location and one for the log scale; the loss on the fold's rows."""
        df = self.df
        error, variance = self.left - self.location, np.exp(2 * self.spread)
        weight = (df + 1) / (df * variance + error**2)
        fisher = (df + 1) / ((df + 3) * variance)
        tree, step = self.grow(-weight * error, fisher)
        self.trees[0].append(tree)
        self.location += step
        error = self.left - self.location
        share = error**2 / (df * variance + error**2)
        tree, step = self.grow(1 - (df + 1) * share, np.full(len(share), 2 * df / (df + 3)))
        self.trees[1].append(tree)
        self.spread += step
        self.errors.append(self._errors())
        return self.loss()

    def _errors(self) -> np.ndarray:
        out = self.outside
        return (self.left[out] - self.location[out]) * np.exp(-self.spread[out])

    def loss(self) -> float:
        """Sum of negative log densities on the fold's rows, but for a constant."""
        square = self.errors[-1] ** 2
        spread = self.spread[self.outside]
        return float((spread + 0.5 * (self.df + 1) * np.log1p(square / self.df)).sum())


def _freedom(z: np.ndarray) -> float:
    """Degrees of freedom of errors over their scale, the scale free."""
    return max(FREEDOMS, key=lambda df: log_density(z, df).mean())


def _shrink(residual: np.ndarray, group: np.ndarray, count: np.ndarray) -> float:
    """Variance within groups over variance between them, by moments."""
    mean = np.bincount(group, residual) / count
    within = ((residual - mean[group]) ** 2).sum() / max(len(residual) - len(count), 1)
    between = mean.var() - (within / count).mean()
    return float(np.clip(within / max(between, 1e-9), 1e-3, 1e3))


def fit_observed(
    x: np.ndarray, y: np.ndarray, start: np.ndarray, count: np.ndarray, fold: np.ndarray
) -> tuple[Observed, Observed]:
    """Models of the groups outside each fold, stacked; and their average, for new groups.

    All share one number: how far the means of groups are shrunk. The number of rounds is the one
    with the lowest loss on held-out groups, as in `cross_fit`.

    Args:
        x: standardised columns, the pooled prediction in the last one, `(n, d + 1)`, the rows of a
            group together.
        y: outcomes, `(n,)`.
        start, count: first row and number of rows of each group, `(g,)`.
        fold: of each group, `(g,)`.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    group = np.repeat(np.arange(len(count)), count)
    shrink = _shrink(y - x[:, -1], group, count)
    examples = examples_of(x, y, start, group, fold, shrink)
    df = _freedom(examples.left)
    folds = []
    for k in range(int(fold.max()) + 1):
        inside = examples.fold != k
        folds.append(_Fold(examples, np.flatnonzero(inside), np.flatnonzero(~inside), df))

    best = best_round(folds, ROUNDS, PATIENCE, start=sum(one.loss() for one in folds))

    # Errors of held-out groups are larger than those that the trees grew on.
    z = np.concatenate([one.errors[best] for one in folds])
    df = _freedom(z)
    wider = np.log(scale_of(z, df))
    own = [[trees[:best] for trees in one.trees] for one in folds]
    every = [[tree for trees in own for tree in trees[kind]] for kind in (0, 1)]
    log_scale = [one.log_scale + wider for one in folds]
    forests = [_forest(location, scale) for location, scale in own]

    def model(forest: Forest, weight, log_scale) -> Observed:
        log_scale = np.asarray(log_scale)
        same = (on_device(np.full(log_scale.shape, number)) for number in (shrink, df))
        head = StudentT(1, floor=FLOOR)
        return Observed(forest, on_device(weight), on_device(log_scale), *same, head)

    together = Forest(*(jax.device_put(np.stack(parts)) for parts in zip(*forests)))
    members = model(together, np.ones(len(folds)), log_scale)
    average = Forest(*map(jax.device_put, _forest(*every)))
    return members, model(average, 1 / len(folds), np.mean(log_scale))
