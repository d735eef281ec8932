"""Pooled gradient boosting: one model for all rows of all groups, cross-fitted over groups.

scikit-learn grows the trees; what is kept is arrays, so that a saved prior holds no pickle and
prediction needs no scikit-learn.
"""

import itertools

import equinox as eqx
import numpy as np

from metaprior.errors import InputError

MOST_ROWS = 50_000  # with more, growing trees of 15 leaves would take minutes


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
    def of(model, rounds: int) -> "Trees":
        """The first `rounds` rounds of a fitted scikit-learn histogram boosting model."""
        trees = [tree.nodes for round in model._predictors[:rounds] for tree in round]
        outputs = len(model._predictors[0])
        size = np.array([0] + [len(nodes) for nodes in trees])
        root = np.cumsum(size)[:-1]
        shift = np.repeat(root, size[1:]) if trees else np.zeros(0, int)
        nodes = np.concatenate(trees) if trees else model._predictors[0][0].nodes[:0]
        return Trees(
            feature=nodes["feature_idx"].astype(np.int32),
            threshold=nodes["num_threshold"].astype(np.float64),
            left=(nodes["left"] + shift).astype(np.int32),
            right=(nodes["right"] + shift).astype(np.int32),
            missing_left=nodes["missing_go_to_left"].astype(bool),
            leaf=nodes["is_leaf"].astype(bool),
            value=nodes["value"].astype(np.float64),
            root=root.reshape(-1, outputs).astype(np.int32),
            base=np.asarray(model._baseline_prediction, np.float64).reshape(-1),
        )

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Raw outputs `(n, c)` for raw columns `(n, f)`; missing values are NaN."""
        total = np.tile(self.base, (len(raw), 1))
        for block in range(0, len(raw), 4096):
            rows = raw[block : block + 4096]
            at = np.broadcast_to(self.root, (len(rows), *self.root.shape)).copy()
            while not (done := self.leaf[at]).all():
                x = np.take_along_axis(
                    rows, self.feature[at].reshape(len(rows), -1), axis=1
                ).reshape(at.shape)
                left = np.where(np.isnan(x), self.missing_left[at], x <= self.threshold[at])
                at = np.where(done, at, np.where(left, self.left[at], self.right[at]))
            total[block : block + 4096] += self.value[at].sum(axis=1)
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
        """Prediction for rows of groups outside the training set: `(n, 1)`, or log probabilities
        `(n, C)`.
        """
        return _output(np.mean([trees(raw) for trees in self.folds], axis=0), self.classes)


def _output(raw: np.ndarray, classes: int) -> np.ndarray:
    if not classes:
        return raw
    if classes == 2:
        raw = np.concatenate([np.zeros_like(raw), raw], axis=1)
    raw = raw - raw.max(axis=1, keepdims=True)
    return np.maximum(raw - np.log(np.exp(raw).sum(axis=1, keepdims=True)), -8.0)


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
    folds. Learning rate, leaves and rows a leaf are scikit-learn's defaults, with a lower rate
    (0.05) and fewer leaves (15) for the few thousand rows that such tables have. The trees of
    larger tables grow on `MOST_ROWS` rows drawn at random.

    Args:
        raw: columns as they are, NaN where missing, `(n, f)`.
        y: outcome `(n,)`; a class index with classes.
        fold: the fold of each row's group, `(n,)`, values 0 … folds - 1.
        classes: number of classes, 0 for numbers.
        rounds: most boosting rounds.
        seed: of scikit-learn's random numbers.

    Returns:
        the models, and predictions `(n, 1)` or log probabilities `(n, C)` of each row by the model
        that did not see its group.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    options = dict(
        learning_rate=0.05,
        max_iter=rounds,
        max_leaf_nodes=15,
        min_samples_leaf=20,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    use = np.zeros(len(y), bool)
    use[np.random.default_rng(seed).permutation(len(y))[:MOST_ROWS]] = True
    models, loss = [], np.zeros(rounds)
    # One thread: as fast as two on tables of up to tens of thousands of rows, and threads that spin
    # while they wait bring a busy machine to a halt.
    with threadpool_limits(1, "openmp"):
        for k in range(fold.max() + 1):
            inside, outside = use & (fold != k), use & (fold == k)
            if classes and len(np.unique(y[inside])) < classes:
                raise InputError(
                    "A class occurs in too few groups: cross-fitting needs each class in several groups."
                )
            models.append(kind(**options).fit(raw[inside], y[inside]))
            for i, stage in enumerate(models[-1]._staged_raw_predict(raw[outside])):
                loss[i] += _loss(_output(stage, classes), y[outside], classes)
        best = int(np.argmin(loss)) + 1
        raw_output = np.zeros((len(y), max(1, classes if classes > 2 else 1)))
        for k, model in enumerate(models):
            stages = model._staged_raw_predict(raw[fold == k])
            raw_output[fold == k] = next(itertools.islice(stages, best - 1, None))
    trees = tuple(Trees.of(model, best) for model in models)
    probe = np.flatnonzero(fold == 0)[:50]
    if not np.allclose(trees[0](raw[probe]), raw_output[probe], rtol=1e-6, atol=1e-6):
        raise RuntimeError(
            "scikit-learn changed how it stores trees; pin scikit-learn to the tested range."
        )
    return Boosting(trees, classes), _output(raw_output, classes)


def _loss(output: np.ndarray, y: np.ndarray, classes: int) -> float:
    """Sum of squared errors, or of negative log probabilities."""
    if not classes:
        return float(((output[:, 0] - y) ** 2).sum())
    return float(-output[np.arange(len(y)), y.astype(int)].sum())
