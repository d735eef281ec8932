"""Pooled gradient boosting: one model for all rows of all groups, cross-fitted over groups.

A model is arrays, so that a saved prior holds no pickle and prediction needs NumPy only.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import numpy as np

from metaprior.tables.baselines.grow import RATE, Grower, Node, best_round

MOST_ROWS = 50_000  # trees of 15 leaves learn little from more, and take minutes
TREES = 20_000  # of many classes fewer rounds are grown, of larger steps
FEWEST_ROUNDS, LARGEST_RATE = 20, 0.3
PATIENCE = 50  # rounds without a lower loss before growing ends
LEAST_LOG = -8.0  # log probability of a class: one bad row must not outweigh all others
BLOCK = 1 << 16  # rows times trees walked at once: what the processor's cache holds


class Walk(NamedTuple):
    """The nodes of several models in the form that prediction walks through.

    A leaf is its own child, so that rows may go on there while others are still on their way. The
    trees of an output are sorted, deep ones first.

    Args:
        feature, threshold, value: one entry a node.
        missing_right: whether a row goes right for want of a value, one entry a node.
        child: left and right child of each node, one after the other.
        root: first nodes, `(c, t)` for `c` raw outputs.
        deeper: how many trees of an output, at most, are deeper than 0, 1, … levels.
    """

    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray
    missing_right: np.ndarray
    child: np.ndarray
    root: np.ndarray
    deeper: tuple[int, ...]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The sum of the trees' leaves for each row, `(n, c)`."""
        flat, missing = rows.ravel(), np.isnan(rows).any()
        begin = np.arange(len(rows))[:, None, None] * rows.shape[1]
        at = np.tile(self.root, (len(rows), 1, 1))

        for trees in self.deeper:
            here = at[..., :trees]
            x = flat.take(self.feature.take(here) + begin)
            right = x > self.threshold.take(here)
            if missing:  # no comparison with NaN is true: without this they all go left
                right |= np.isnan(x) & self.missing_right.take(here)
            at[..., :trees] = self.child.take(2 * here + right)

        return self.value.take(at).sum(axis=-1)


class Trees(eqx.Module):
    """One boosted model as flat arrays over its nodes; a row goes left where x <= threshold.

    Args:
        feature, threshold, left, right, missing_left, leaf, value: one entry a node, all trees
            joined.
        root: first node of each tree, `(t, c)` for `c` raw outputs.
        base: raw output before any tree, `(c,)`.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    leaf: np.ndarray
    value: np.ndarray
    root: np.ndarray
    base: np.ndarray

    @staticmethod
    def of(rounds: list[list[list[Node]]], base: np.ndarray) -> "Trees":
        """A model of grown trees: of each round, one tree for each raw output."""
        trees = [tree for some in rounds for tree in some]
        root = np.cumsum([0, *map(len, trees)])[:-1]
        shift = np.repeat(root, [len(tree) for tree in trees])
        columns = map(np.array, zip(*(node for tree in trees for node in tree), strict=True))
        feature, threshold, left, right, missing_left, leaf, value = columns
        return Trees(
            feature=feature.astype(np.int32),
            threshold=threshold.astype(np.float64),
            left=(left + shift).astype(np.int32),
            right=(right + shift).astype(np.int32),
            missing_left=missing_left.astype(bool),
            leaf=leaf.astype(bool),
            value=value.astype(np.float64),
            root=root.reshape(len(rounds), -1).astype(np.int32),
            base=base,
        )

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Raw outputs `(n, c)` for raw columns `(n, f)`; missing values are NaN."""
        return _predict(self._walk, raw) + self.base

    @functools.cached_property
    def _walk(self) -> Walk:
        return _walk_of((self,))


def _walk_of(models: tuple[Trees, ...]) -> Walk:
    """The trees of several models as those of one, whose raw outputs are sums over the models."""
    sizes = [len(model.leaf) for model in models]
    shift = np.cumsum([0, *sizes])[:-1]

    def joined(name):
        return np.concatenate([getattr(model, name) for model in models])

    # A leaf leads to itself. What files of 0.1.0 have as a leaf's children means nothing.
    leaf, node = joined("leaf"), np.arange(sum(sizes))
    first = np.repeat(shift, sizes)
    left = np.where(leaf, node, joined("left") + first)
    right = np.where(leaf, node, joined("right") + first)
    pairs = zip(models, shift, strict=True)
    root = np.concatenate([model.root + start for model, start in pairs]).T

    depth = _depths(root.ravel(), leaf, left, right).reshape(root.shape)
    root = np.take_along_axis(root, np.argsort(-depth, axis=1, kind="stable"), axis=1)
    levels = range(depth.max(initial=0))
    return Walk(
        feature=joined("feature").astype(np.intp),
        threshold=np.where(leaf, np.inf, joined("threshold")),
        value=joined("value"),
        missing_right=~leaf & ~joined("missing_left"),
        child=np.stack([left, right], axis=1).ravel(),
        root=root,
        deeper=tuple(int((depth > level).sum(axis=1).max()) for level in levels),
    )


def _depths(root: np.ndarray, leaf: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many splits lie on the longest way through each tree, `(t,)`."""
    depth, tree, at = np.zeros(len(root), int), np.arange(len(root)), root
    while True:
        inner = ~leaf[at]
        at, tree = at[inner], tree[inner]
        if not len(at):
            return depth
        depth[tree] += 1
        at, tree = np.concatenate([left[at], right[at]]), np.concatenate([tree, tree])


def _predict(walk: Walk, raw: np.ndarray) -> np.ndarray:
    """The sum of the trees' leaves for each row, `(n, c)`, a block of rows at a time."""
    step = max(1, BLOCK // max(1, walk.root.size))
    total = np.empty((len(raw), len(walk.root)))
    for first in range(0, len(raw), step):
        total[first : first + step] = walk(np.asarray(raw[first : first + step], np.float64))
    return total


class Boosting(eqx.Module):
    """Boosting models fitted on all groups but one fold each; their average predicts a new group.

    Args:
        folds: one `Trees` a fold.
        classes: number of classes, 0 for numbers.
    """

    folds: tuple[Trees, ...]
    classes: int = eqx.field(static=True)

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Predictions for rows of groups that were not learned from.

        Args:
            raw: columns as they are, NaN where missing, `(n, f)`.

        Returns:
            numbers `(n, 1)`, or log probabilities `(n, C)`.
        """
        base = np.mean([trees.base for trees in self.folds], axis=0)
        return _output(_predict(self._walk, raw) / len(self.folds) + base, self.classes)

    @functools.cached_property
    def _walk(self) -> Walk:
        return _walk_of(self.folds)


def _output(raw: np.ndarray, classes: int) -> np.ndarray:
    """Numbers as they are; raw outputs of classes as log probabilities."""
    if not classes:
        return raw
    if classes == 2:
        raw = np.concatenate([np.zeros_like(raw), raw], axis=1)
    raw = raw - raw.max(axis=1, keepdims=True)
    return np.maximum(raw - np.log(np.exp(raw).sum(axis=1, keepdims=True)), LEAST_LOG)


def _loss(output: np.ndarray, y: np.ndarray, classes: int) -> float:
    """Sum of squared errors, or of negative log probabilities."""
    if not classes:
        return float(((output[:, 0] - y) ** 2).sum())
    return float(-output[np.arange(len(y)), y.astype(int)].sum())


class Fold:
    """A model that grows on the rows of the other folds.

    Args:
        raw: columns of all rows, NaN where missing, `(n, f)`.
        y: outcomes of all rows, `(n,)`.
        inside, outside: rows to train on, and rows of the fold.
        classes: number of classes, 0 for numbers.
        rate: share of a Newton step that a tree takes.
    """

    def __init__(
        self, raw: np.ndarray, y: np.ndarray, inside, outside, classes: int, rate: float = RATE
    ):
        self.y, self.outside, self.classes = y, outside, classes
        self.grow = Grower(raw, inside, outside, rate)
        self.base = _base(y[inside], classes)
        self.raw = np.tile(self.base, (len(y), 1))
        self.rounds: list[list[list[Node]]] = []

    def round(self) -> float:
        """Grow a tree for each raw output, and give the loss on the fold's own rows."""
        trees = []
        steps = np.empty_like(self.raw)
        for output, (gradient, curvature) in enumerate(self._derivatives()):
            tree, steps[:, output] = self.grow(gradient, curvature)
            trees.append(tree)
        self.raw += steps
        self.rounds.append(trees)
        return _loss(
            _output(self.raw[self.outside], self.classes), self.y[self.outside], self.classes
        )

    def _derivatives(self):
        """Of the loss at every row, first and second, for each raw output."""
        if not self.classes:
            yield self.raw[:, 0] - self.y, None
        elif self.classes == 2:
            p = 1 / (1 + np.exp(-self.raw[:, 0]))
            yield p - self.y, p * (1 - p)
        else:
            p = np.exp(self.raw - self.raw.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            for c in range(self.classes):
                yield p[:, c] - (self.y == c), p[:, c] * (1 - p[:, c])


def _base(y: np.ndarray, classes: int) -> np.ndarray:
    """The best raw outputs without any tree."""
    if not classes:
        return y.mean(keepdims=True)
    # A class that the fold's groups do not have is taken as half a row.
    rows = np.maximum(np.bincount(y.astype(int), minlength=classes), 0.5)
    log_share = np.log(rows / len(y))
    return log_share[1:] - log_share[:1] if classes == 2 else log_share - log_share.mean()


def cross_fit(
    raw: np.ndarray,
    y: np.ndarray,
    fold: np.ndarray,
    *,
    classes: int = 0,
    rounds: int = 300,
    seed: int = 0,
) -> tuple[Boosting, np.ndarray]:
    """Boosting per fold and the out-of-fold prediction of every row.

    The number of rounds is the one with the lowest mean loss on held-out groups, the same for all
    folds; trees stop growing after `PATIENCE` rounds without a lower loss. Where there are many
    classes, of which each has a tree a round, rounds are fewer and steps larger. Where a table has
    more than `MOST_ROWS` rows, its trees grow on so many of them, drawn at random.

    Args:
        raw: columns as they are, NaN where missing, `(n, f)`.
        y: outcome `(n,)`; a class index with classes.
        fold: the fold of each row's group, `(n,)`, values 0 … folds - 1.
        classes: number of classes, 0 for numbers.
        rounds: most boosting rounds.
        seed: of the draw of rows.

    Returns:
        the models, and predictions `(n, 1)` or log probabilities `(n, C)` of each row by the model
        that did not see its group.
    """
    use = np.random.default_rng(seed).permutation(len(y))[:MOST_ROWS]
    use.sort()
    columns, outcome, part = raw[use], y[use], fold[use]
    parts, outputs = int(fold.max()) + 1, classes if classes > 2 else 1
    fewer = max(FEWEST_ROUNDS, min(rounds, TREES // (parts * outputs)))
    rate = min(LARGEST_RATE, RATE * max(rounds / fewer, 1.0))
    rounds = min(rounds, fewer)
    folds = []
    for k in range(parts):
        inside = np.flatnonzero(part != k)
        folds.append(Fold(columns, outcome, inside, np.flatnonzero(part == k), classes, rate))

    best = best_round(folds, rounds, PATIENCE)

    models = tuple(Trees.of(one.rounds[:best], one.base) for one in folds)
    output = np.empty((len(y), len(models[0].base)))
    for k, trees in enumerate(models):
        output[fold == k] = trees(raw[fold == k])
    return Boosting(models, classes), _output(output, classes)
