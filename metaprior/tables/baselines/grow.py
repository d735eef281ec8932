"""Gradient boosting from histograms, in NumPy: which splits make the trees of `boosting`.

The algorithm is that of LightGBM and of scikit-learn's `HistGradientBoosting`, and the trees are
the same: Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017.
Each tree is a Newton step on the loss (Friedman, "Greedy Function Approximation: A Gradient
Boosting Machine", Annals of Statistics 2001). It is written here because scikit-learn's trees can
only be read through private names, and importing it takes longer than a small table needs to train.
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

RATE = 0.05  # lower than the usual 0.1, for the few thousand rows that such tables have
LEAVES = 15  # fewer than the usual 31, for the same reason
FEWEST = 20  # training rows of a leaf
RIDGE = 1.0  # added to every sum of second derivatives
FLATTEST = 1e-3  # sum of second derivatives that both sides of a split need
EDGES = 254  # 255 values and "missing" are the 256 codes of one byte
CELLS = 1 << 16  # counted in one call; more would leave the processor's cache


class Bins:
    """Columns as codes of one byte: how many of a column's edges lie below the value.

    Args:
        raw: columns, NaN where missing, `(n, f)`.
        inside: rows that the edges lie between. Other rows must not move them: a day that was held
            out would get an edge of its own, on one side of which it always is.
        edges: most edges of a column, at most `EDGES`.
    """

    def __init__(self, raw: np.ndarray, inside: np.ndarray, edges: int = EDGES):
        self.edges = [_edges(column[~np.isnan(column)], edges) for column in raw[inside].T]
        self.size = 2 + max(map(len, self.edges), default=0)  # codes, the last one for missing
        self.code = np.empty(raw.T.shape, np.uint8)  # (f, n): a column's codes together
        for code, own, column in zip(self.code, self.edges, raw.T, strict=True):
            code[:] = np.searchsorted(own, column)
            code[np.isnan(column)] = self.size - 1

    def threshold(self, column: int, code: int) -> float:
        """The largest value on the left of a split after `code`."""
        edges = self.edges[column]
        # A split after a column's last code parts what is missing from everything else.
        return edges[code] if code < len(edges) else np.inf


def _edges(values: np.ndarray, most: int) -> np.ndarray:
    """Half-way between distinct values, or quantiles where there are too many of them."""
    distinct = np.unique(values)
    if len(distinct) <= most + 1:
        return (distinct[:-1] + distinct[1:]) / 2
    shares = np.linspace(0, 1, most + 2)[1:-1]
    at = np.quantile(values, shares, method="averaged_inverted_cdf")
    # Half-way here too: rounding must not decide on which side a value lies.
    above = np.unique(np.searchsorted(distinct, at, side="right"))
    above = above[above < len(distinct)]
    return (distinct[above - 1] + distinct[above]) / 2


class Node(NamedTuple):
    """One entry for each field of `Trees`; children are numbered within their tree."""

    feature: int
    threshold: float
    left: int
    right: int
    missing_left: bool
    leaf: bool
    value: float


class Split(NamedTuple):
    """The best way to split a part; `gain` is negative where no way is allowed."""

    gain: float
    column: int
    code: int  # the last one that goes left
    missing_left: bool
    left: np.ndarray  # sums of the left half


class Part(NamedTuple):
    """The rows that reach a node: first the `inside` training rows, then those to be predicted."""

    node: int
    rows: np.ndarray
    inside: int
    sums: np.ndarray  # of gradient, curvature (unless it is 1) and number of training rows, (m,)
    counts: np.ndarray | None = None  # the same sums by column and code, (m, f, size)
    split: Split | None = None


class Grower:
    """Grows trees on some rows of a table.

    Args:
        raw: columns, NaN where missing, `(n, f)`.
        inside: training rows.
        outside: rows that are predicted beside them.
        rate: share of a Newton step that a tree takes.
        edges: most edges of a column, at most `EDGES`.
    """

    def __init__(
        self,
        raw: np.ndarray,
        inside: np.ndarray,
        outside: np.ndarray,
        rate: float = RATE,
        edges: int = EDGES,
    ):
        bins = self.bins = Bins(raw, inside, edges)
        self.inside, self.rate = len(inside), rate
        self.rows = np.concatenate([inside, outside])
        self.missing = np.flatnonzero((bins.code[:, inside] == bins.size - 1).any(axis=1))

    def __call__(self, gradient: np.ndarray, curvature: np.ndarray | None = None):
        """One tree, and the step that it takes on every row.

        Leaves are split in the order of their gain, until there are `LEAVES` of them.

        Args:
            gradient, curvature: first and second derivative of the loss at each row, `(n,)`; no
                curvature stands for 1.

        Returns:
            the tree's nodes, parents before children, and steps `(n,)`, 0 for rows of neither kind.
        """
        weights = [gradient] if curvature is None else [gradient, curvature]
        nodes: list = [None]
        done: list[Part] = []
        heap: list[tuple[float, int, Part]] = []

        fresh = [self._root(weights)]
        while True:
            for part in fresh:
                if part.split is not None and part.split.gain > 0:
                    heapq.heappush(heap, (-part.split.gain, part.node, part))
                else:
                    done.append(part)
            if not heap or len(done) + len(heap) == LEAVES:
                break
            part = heapq.heappop(heap)[2]
            fresh = self._halves(part, nodes)
            if len(done) + len(heap) + 2 < LEAVES:
                fresh = self._searched(part, fresh, weights)

        step = np.zeros(len(gradient))
        for part in done + [entry[2] for entry in heap]:
            value = -self.rate * part.sums[0] / (part.sums[1] + RIDGE)
            nodes[part.node] = Node(0, np.inf, part.node, part.node, True, True, value)
            step[part.rows] = value
        return nodes, step

    def _root(self, weights: list[np.ndarray]) -> Part:
        inside = self.rows[: self.inside]
        sums = np.array([*(weight[inside].sum() for weight in weights), self.inside])
        root = Part(0, self.rows, self.inside, sums)
        if self.inside < 2 * FEWEST or not len(self.bins.code):
            return root
        counts = self._count(inside, weights)
        return root._replace(counts=counts, split=self._splits(counts[None], sums[None])[0])

    def _halves(self, part: Part, nodes: list) -> list[Part]:
        """Both halves of a part, whose node is noted."""
        split = part.split
        assert split is not None  # only such parts wait to be split
        code = self.bins.code[split.column].take(part.rows)
        goes = code <= split.code
        if split.missing_left:
            goes |= code == self.bins.size - 1
        inside = int(split.left[-1])
        left = Part(len(nodes), part.rows[goes], inside, split.left)
        right = Part(len(nodes) + 1, part.rows[~goes], part.inside - inside, part.sums - split.left)

        missing_left = split.missing_left
        if split.column not in self.missing:
            # Training says nothing about missing values here: they follow the larger half.
            missing_left = left.inside > right.inside
        threshold = self.bins.threshold(split.column, split.code)
        nodes[part.node] = Node(
            split.column, threshold, left.node, right.node, missing_left, False, 0.0
        )
        nodes += [None, None]
        return [left, right]

    def _searched(self, whole: Part, halves: list[Part], weights: list[np.ndarray]) -> list[Part]:
        """The halves with what they need to be split again."""
        small = int(halves[1].inside < halves[0].inside)
        if halves[1 - small].inside < 2 * FEWEST:
            return halves
        assert whole.counts is not None  # it has been split
        # Only the smaller half is counted; what is left of the whole is the other one.
        counts = np.empty((2, *whole.counts.shape))
        counts[small] = self._count(halves[small].rows[: halves[small].inside], weights)
        np.subtract(whole.counts, counts[small], out=counts[1 - small])
        splits = self._splits(counts, np.array([half.sums for half in halves]))
        found = zip(halves, counts, splits, strict=True)
        return [half._replace(counts=count, split=split) for half, count, split in found]

    def _count(self, rows: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
        """Sums of the weights, and number of rows, by column and code: `(m, f, size)`."""
        code, size = self.bins.code, self.bins.size
        weights = [weight.take(rows) for weight in weights]
        counts = np.empty((len(weights) + 1, len(code), size))
        wide = max(1, CELLS // len(rows))
        for first in range(0, len(code), wide):
            some = code[first : first + wide].take(rows, axis=1)
            columns = len(some)
            cell = (some + np.arange(0, size * columns, size)[:, None]).ravel()
            for sums, weight in zip(counts, [*weights, None], strict=True):
                each = weight if weight is None else weight[None].repeat(columns, axis=0).ravel()
                found = np.bincount(cell, each, size * columns)
                sums[first : first + columns] = found.reshape(columns, size)
        return counts

    def _splits(self, counts: np.ndarray, sums: np.ndarray) -> list[Split]:
        """The best split of some parts, of all columns, codes and sides for what is missing.

        Args:
            counts: `(parts, m, f, size)`.
            sums: `(parts, m)`.
        """
        left = counts[..., :-1].cumsum(axis=-1)
        columns, codes = left.shape[-2:]
        if len(self.missing):
            # These columns once more, with missing values on the left; of equal splits the first
            # one is taken, and here that is the one on the right end.
            more = left[:, :, self.missing] + counts[:, :, self.missing, -1:]
            left = np.concatenate([left, more[..., ::-1]], axis=2)

        sums = sums[:, :, None, None]
        right = sums - left
        gain = _score(left) + _score(right) - _score(sums)
        least = np.minimum(left[:, 1:], right[:, 1:])
        gain[least[:, -1] < FEWEST] = -1.0
        gain[least[:, 0] < FLATTEST] = -1.0

        splits = []
        gain = gain.reshape(len(gain), -1)
        for part, best in enumerate(gain.argmax(axis=1)):
            at, code = divmod(int(best), codes)
            half = left[part, :, at, code]
            again = at >= columns
            column = int(self.missing[at - columns]) if again else at
            code = codes - 1 - code if again else code
            splits.append(Split(float(gain[part, best]), column, code, again, half))
        return splits


def _score(sums: np.ndarray) -> np.ndarray:
    """Twice how much a Newton step lowers the loss of rows with these sums, `(parts, m, …)`."""
    return sums[:, 0] ** 2 / (sums[:, 1] + RIDGE)


class Growing(Protocol):
    """A model of one fold that grows by a round of trees."""

    def round(self) -> float:
        """Grow, and give the loss on the fold's own rows."""


def best_round(folds: Sequence[Growing], rounds: int, patience: int, start: float = np.inf) -> int:
    """Grow all folds together until their loss does not fall any more.

    Args:
        folds: the models.
        rounds: most rounds.
        patience: rounds without a lower loss before growing ends.
        start: the loss before any tree, where a model without trees may be the best one.

    Returns:
        after how many rounds the loss was lowest.
    """
    loss = [start]
    while len(loss) <= rounds and len(loss) - 1 - int(np.argmin(loss)) < patience:
        loss.append(sum(one.round() for one in folds))
    return int(np.argmin(loss))
