"""Features that a new row lacks and no training row lacked: what the others say of them.

A network has never seen such a gap. Zero in its place would claim that the feature is known to be
average. Instead several values are drawn for it, the row is predicted with each, and the predictive
is the mixture: it is as wide as it must be.

The draws come from a normal model with two levels. A row is the mean, plus what its group has in
common, plus its own part. Numbers enter as normal scores, so that what is drawn is distributed as
in training; classes of a text column enter as zeros and ones, and the largest one drawn counts.
What a new group has in common is learned from all its observed rows, the target included.
"""

import dataclasses
import zlib
from collections.abc import Iterator

import equinox as eqx
import numpy as np
import polars as pl

from metaprior.tables.columns import Category, Features, Number, as_numbers

DRAWS = 32  # of each gap
KNOTS = 201  # quantiles that stand for the distribution of a number
MOST = 256  # encoded columns whose covariances are kept
PREDICTORS = 32  # columns at most that a gap is predicted from
ROWS = 20_000  # of the table at most
_SMALL = 1e-6  # of a variance: keeps matrices invertible


class Gaps(eqx.Module):
    """What is learned of the feature columns, and of the target, for rows that lack a feature.

    Args:
        lacked: for each feature column, whether training rows lacked it, `(c,)`.
        low, high: smallest and largest number of each feature column in training, `(c,)`; NaN for
            text.
        knots: quantiles of each encoded column at even levels, `(d, k)`.
        mean: of the scores of the encoded columns and of the target, `(d + 1,)`.
        between, within: covariances of what groups have in common, and of a row's own part,
            `(d + 1, d + 1)`.
    """

    lacked: np.ndarray
    low: np.ndarray
    high: np.ndarray
    knots: np.ndarray
    mean: np.ndarray
    between: np.ndarray
    within: np.ndarray

    @staticmethod
    def learn(
        features: Features,
        frame: pl.DataFrame,
        columns: tuple[np.ndarray, np.ndarray],
        z: np.ndarray,
        group: np.ndarray,
    ) -> "Gaps | None":
        """From the training rows; nothing where there are no features, or too many.

        Args:
            features: how columns became numbers.
            frame: the rows, those of a group together.
            columns: what `features` made of them, encoded and raw.
            z: the target in the model's units, or class indices, `(n,)`.
            group: of each row.
        """
        encoded, raw = columns
        if not features.columns or encoded.shape[1] > MOST:
            return None
        lacked = np.array([bool(absent(frame[c.name]).any()) for c in features.columns])
        numbers = np.array([isinstance(column, Number) for column in features.columns])
        low, high = (
            np.where(numbers, end(np.where(np.isnan(raw), -sign * np.inf, raw), axis=0), np.nan)
            for end, sign in ((np.min, -1), (np.max, 1))
        )
        rows = slice(0, ROWS)
        encoded, z, group = encoded[rows].astype(np.float64), z[rows], group[rows]
        knots = np.quantile(encoded, (np.arange(KNOTS) + 0.5) / KNOTS, axis=0).T
        nothing = np.zeros(0)
        start = Gaps(lacked, low, high, knots, nothing, nothing, nothing)
        scores = np.column_stack([start.scores(features, encoded), np.clip(z, -6.0, 6.0)])
        return Gaps(lacked, low, high, knots, *_two_levels(scores, group))

    def where(self, features: Features, frame: pl.DataFrame) -> np.ndarray:
        """Which features each row lacks though no training row did, `(n, columns)`."""
        found = np.zeros((frame.height, len(features.columns)), bool)
        for i, column in enumerate(features.columns):
            if not self.lacked[i] and column.name in frame.columns:
                found[:, i] = absent(frame[column.name])
        return found

    def scores(self, features: Features, encoded: np.ndarray) -> np.ndarray:
        """Encoded columns on the scale of the normal model, `(n, d)`."""
        found = np.array(encoded, np.float64)
        for column, first, _ in spans(features):
            if isinstance(column, Number):
                found[:, first] = _score(encoded[:, first], self.knots[first])
        return found

    def fill(
        self, features: Features, known: pl.DataFrame, z: np.ndarray, asked: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows with their gaps filled by draws: all rows of the first draw, then of the second, …

        Args:
            features: how columns became numbers.
            known: the observed rows of a group.
            z: their targets in the model's units, or class indices, `(n, 1)`.
            asked: other rows of the group.

        Returns:
            the observed rows and the others, each row `DRAWS` times.
        """
        own, there = (self._blank(features, frame) for frame in (known, asked))
        seen = np.column_stack([own, np.clip(z[:, :1], -6.0, 6.0)])
        rest = np.column_stack([there, np.full(len(there), np.nan)])
        use = self._chosen(np.asarray(np.isnan(np.concatenate([own, there])).any(0)))
        both = np.ix_(use, use)
        model = _Group(self.mean[use], self.between[both], self.within[both])
        drawn = model.draw(seen[:, use], rest[:, use])

        def filled(frame, values):
            full = np.zeros((*values.shape[:2], len(self.mean)))
            full[:, :, use] = values
            return self._filled(features, frame, full)

        return filled(known, drawn[0]), filled(asked, drawn[1])

    def typical(self, features: Features, rows: int) -> pl.DataFrame:
        """`DRAWS` groups of so many rows, all features drawn: the rows of a group together."""
        d, rng = len(self.mean), np.random.default_rng(0)
        shared = _white(rng.normal(size=(DRAWS, d))) @ _root(self.between).T
        own = _white(rng.normal(size=(DRAWS * rows, d))) @ _root(self.within).T
        names = features.names()
        blank = pl.DataFrame({name: pl.Series([None] * rows, dtype=pl.String) for name in names})
        # Features that some training rows lacked are drawn like the others.
        never = dataclasses.replace(self, lacked=np.zeros_like(self.lacked))
        return never._filled(
            features, blank, self.mean + shared[:, None] + own.reshape(DRAWS, rows, d)
        )

    def _chosen(self, wanted: np.ndarray) -> np.ndarray:
        """Numbers of the columns that enter: the wanted ones, those most like them, the target."""
        total = self.between + self.within
        size = np.sqrt(np.diagonal(total)) + 1e-12
        like = np.abs(total / np.outer(size, size))[:-1, :-1][:, wanted].max(1, initial=0.0)
        like[wanted] = 2.0
        most = max(int(wanted.sum()) + PREDICTORS, 2 * PREDICTORS)
        return np.append(np.sort(np.argsort(-like, kind="stable")[:most]), len(self.mean) - 1)

    def _blank(self, features: Features, frame: pl.DataFrame) -> np.ndarray:
        """Scores of rows, NaN where a feature is lacking."""
        if not frame.height:
            return np.zeros((0, len(self.mean) - 1))
        found = self.scores(features, features.encode(frame)[0])
        gap = self.where(features, frame)
        for i, (_, first, count) in enumerate(spans(features)):
            found[gap[:, i], first : first + count] = np.nan
        return found

    def _filled(self, features: Features, frame: pl.DataFrame, drawn: np.ndarray) -> pl.DataFrame:
        """Every row once for each draw, with what was drawn in its gaps."""
        draws, gap = len(drawn), self.where(features, frame)
        many = frame.select(features.names())[np.tile(np.arange(frame.height), draws)]
        for i, (column, first, count) in enumerate(spans(features)):
            rows = gap[:, i]
            if not rows.any():
                continue
            if isinstance(column, Number):
                value = np.interp(drawn[:, :, first], _normal_scores(), self.knots[first])
                value = column.mean + column.std * value
                value = value if column.unit is None else column.unit * np.expm1(value)
                own = as_numbers(frame[column.name], "table")
                values = pl.Series(column.name, np.where(rows, value, own).reshape(-1))
            else:
                level = drawn[:, :, first : first + count].argmax(-1)
                names = np.array([*column.levels, None], object)[level]
                own = frame[column.name].cast(pl.String).to_numpy()
                values = np.where(rows, names, own).reshape(-1).tolist()
                values = pl.Series(column.name, values, pl.String)
            many = many.with_columns(values)
        return many


def spans(features: Features) -> Iterator[tuple[Number | Category, int, int]]:
    """Each feature with its first encoded column and the number of those."""
    first = 0
    for column in features.columns:
        count = 1 + column.missing if isinstance(column, Number) else len(column.levels) + 1
        yield column, first, count
        first += count


def absent(series: pl.Series) -> np.ndarray:
    """Rows of a column without a value."""
    gone = series.is_null()
    if series.dtype.is_float():
        gone = gone | series.is_nan().fill_null(True)
    return gone.to_numpy()


def _normal_scores() -> np.ndarray:
    from scipy.special import ndtri

    return ndtri((np.arange(KNOTS) + 0.5) / KNOTS)


def _score(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Normal scores of values; of equal values the middle one."""
    levels = _normal_scores()
    if np.all(np.diff(knots) > 0):
        return np.interp(values, knots, levels)
    low, high = (np.searchsorted(knots, values, side=side) for side in ("left", "right"))
    return levels[np.clip((low + high) // 2, 0, KNOTS - 1)]


def _two_levels(values: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean, and covariances between and within groups, by the moments of an analysis of variance.

    Args:
        values: rows, those of a group together, `(n, d)`.
        group: of each row.
    """
    _, start, count = np.unique(group, return_index=True, return_counts=True)
    mean, n, groups = values.mean(0), len(values), len(start)
    centers = np.add.reduceat(values, start) / count[:, None]
    own = values - np.repeat(centers, count, axis=0)
    within = own.T @ own / max(n - groups, 1)
    apart = (centers - mean) * np.sqrt(count)[:, None]
    typical = (n - (count**2).sum() / n) / max(groups - 1, 1)  # rows of a group
    between = (apart.T @ apart / max(groups - 1, 1) - within) / max(typical, 1e-9)
    size, axes = np.linalg.eigh(between)  # what was estimated may be no covariance
    between = (axes * np.maximum(size, 0.0)) @ axes.T
    return mean, _shrunk(between, groups), _shrunk(within, n - groups)


def _shrunk(covariance: np.ndarray, rows: int) -> np.ndarray:
    """With correlations pulled towards 0, the more the fewer rows they come from.

    Schäfer & Strimmer, "A Shrinkage Approach to Large-Scale Covariance Matrix Estimation", 2005:
    the weight is the sum of the variances of the correlations over the sum of their squares.
    """
    size = np.sqrt(np.maximum(np.diagonal(covariance), 1e-12))
    r = np.clip(covariance / np.outer(size, size), -1.0, 1.0)
    other = ~np.eye(len(r), dtype=bool)
    squares = (r[other] ** 2).sum()
    noise = ((1 - r[other] ** 2) ** 2).sum() / max(rows - 1, 1)
    keep = 1.0 - min(1.0, noise / squares) if squares else 0.0
    found = np.where(other, keep * covariance, covariance)
    return found + _SMALL * np.diag(np.maximum(np.diagonal(covariance), 1e-6))


class _Group:
    """The normal model of one group; NaN stands for what is not known."""

    def __init__(self, mean: np.ndarray, between: np.ndarray, within: np.ndarray):
        self.mean, self.between, self.within = mean, between, within

    def draw(self, seen: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draws `(DRAWS, n, d)` of observed and of other rows, equal to them where they are known.

        Rows have what their group has in common in common in each draw too. A row among `rest`
        knows the observed rows and itself: its draws do not depend on the rows beside it, nor on
        their order.
        """
        center, left = self._common(seen)
        shared = center + _pairs(0, len(self.mean))[:, None] @ _root(left).T
        total = left + self.within
        observed = self._rows(seen, shared, center, total, self.within)
        return observed, self._rows(rest, shared, center, total, total)

    def _common(self, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of what the group has in common, given its observed rows."""
        precision, pull = np.linalg.inv(self.between), np.zeros(len(self.mean))
        for pattern, rows in _patterns(~np.isnan(seen)):
            k = np.flatnonzero(pattern)
            inverse = np.linalg.inv(self.within[np.ix_(k, k)])
            precision[np.ix_(k, k)] += len(rows) * inverse
            pull[k] += inverse @ (seen[np.ix_(rows, k)] - self.mean[k]).sum(0)
        left = np.linalg.inv(precision)
        return left @ pull, 0.5 * (left + left.T)

    def _rows(self, values, shared, center, total, matrix) -> np.ndarray:
        """Draws of rows: drawn freely, then moved to what is known of each (Matheron's rule).

        Args:
            values: rows with NaN.
            shared: draws of what the group has in common, `(DRAWS, 1, d)`.
            center: the mean of those.
            total: covariance of a row in the draws.
            matrix: the covariance that decides what known columns say of the others.
        """
        d, root = values.shape[1], _root(self.within).T
        found = np.repeat(values[None], DRAWS, 0)
        for pattern, rows in _patterns(~np.isnan(values)):
            k, m = np.flatnonzero(pattern), np.flatnonzero(~pattern)
            if not len(m):
                continue
            gain = matrix[np.ix_(m, k)] @ np.linalg.inv(matrix[np.ix_(k, k)])
            known = values[np.ix_(rows, k)]
            middle = (self.mean + center)[m] + (known - (self.mean + center)[k]) @ gain.T
            own = np.stack([_pairs(zlib.crc32(values[row].tobytes()), d) for row in rows], axis=1)
            some = self.mean + shared + own @ root
            drawn = some[..., m] + (known - some[..., k]) @ gain.T - middle
            # Pairs of draws make the mean exact; this does the same for the variance.
            apart = np.zeros((len(m), d))
            apart[np.arange(len(m)), m] = 1.0
            apart[:, k] -= gain
            wanted = np.sqrt(np.maximum(np.einsum("id,de,ie->i", apart, total, apart), 0.0))
            drawn *= wanted / np.maximum(np.sqrt((drawn**2).mean(0)), 1e-12)
            found[np.ix_(np.arange(DRAWS), rows, m)] = middle + drawn
        return found


def _white(draws: np.ndarray) -> np.ndarray:
    """Draws `(n, d)` moved and turned so that their mean is 0 and their covariance 1, where there
    are enough of them: what is read off them is then nearer to its expectation.
    """
    n, d = draws.shape
    if n < 2 * d:
        return draws
    draws = draws - draws.mean(0)
    return draws @ np.linalg.inv(np.linalg.cholesky(draws.T @ draws / n)).T


def _pairs(seed: int, d: int) -> np.ndarray:
    """Standard normals `(DRAWS, d)`, the second half of the draws the first with other signs."""
    half = np.random.default_rng(seed).normal(size=(DRAWS // 2, d))
    return np.concatenate([half, -half])


def _root(covariance: np.ndarray) -> np.ndarray:
    size, axes = np.linalg.eigh(covariance)
    return axes * np.sqrt(np.maximum(size, 0.0))


def _patterns(known: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each set of known columns that occurs, with the rows that have it."""
    if not len(known):
        return
    sets, index = np.unique(known, axis=0, return_inverse=True)
    for i, pattern in enumerate(sets):
        yield pattern, np.flatnonzero(index.reshape(-1) == i)
