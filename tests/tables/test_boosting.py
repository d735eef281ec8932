"""Pooled boosting: the reference is what scikit-learn's own boosting predicts."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from metaprior.system import files
from metaprior.tables.baselines.boosting import Boosting, Fold, Trees, cross_fit
from metaprior.tables.baselines.grow import FEWEST, LEAVES, RATE, RIDGE, Grower

MODULE = sys.modules[cross_fit.__module__]  # `baselines.boosting` is the learner
ROUNDS = 12
SAME = {
    "learning_rate": RATE,
    "max_iter": ROUNDS,
    "max_leaf_nodes": LEAVES,
    "min_samples_leaf": FEWEST,
    "l2_regularization": RIDGE,
    "early_stopping": False,
}


def table(rows=900, columns=4, missing=0.0, seed=0):
    """Columns, a smooth number and the noise about it."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(rows, columns))
    raw[:, -1] = np.round(raw[:, -1])  # few distinct values
    number = raw[:, 0] + np.sin(3 * raw[:, 1]) * raw[:, 3] + 0.3 * rng.normal(size=rows)
    raw[rng.random(raw.shape) < missing] = np.nan
    return raw, number


def outcome(number, classes):
    """A number, or the class of a number; the first classes are the rarer ones."""
    if not classes:
        return number
    shares = np.arange(1, classes) / classes
    return np.digitize(number, np.quantile(number, shares**1.5)).astype(float)


def grown(raw, y, classes, rounds=ROUNDS):
    """One model on all rows."""
    fold = Fold(raw, y, np.arange(len(y)), np.arange(0), classes)
    for _ in range(rounds):
        fold.round()
    return fold, Trees.of(fold.rounds, fold.base)


def walked(trees, row):
    """The raw outputs of one row, node by node: what the fields of `Trees` mean."""
    total = trees.base.copy()
    for roots in trees.root:
        for output, at in enumerate(roots):
            while not trees.leaf[at]:
                x = row[trees.feature[at]]
                left = trees.missing_left[at] if np.isnan(x) else x <= trees.threshold[at]
                at = trees.left[at] if left else trees.right[at]
            total[output] += trees.value[at]
    return total


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [0, 2, 3])
def test_predictions_are_those_of_scikit_learn(classes, missing):
    """Same splits, same leaves, same sides for missing values: by its public `predict`."""
    raw, number = table(missing=missing)
    y = outcome(number, classes)
    new = table(missing=0.2, seed=1)[0]
    _, trees = grown(raw, y, classes)
    if classes:
        theirs = HistGradientBoostingClassifier(**SAME).fit(raw, y)
        read = theirs.decision_function
    else:
        theirs = HistGradientBoostingRegressor(**SAME).fit(raw, y)
        read = theirs.predict

    assert np.ptp(read(raw)) > 0.5
    expected = read(raw).reshape(len(raw), -1)
    np.testing.assert_allclose(trees(raw), expected, rtol=0, atol=1e-6)
    # Several thresholds can part the training rows alike, and new rows may lie between them: of
    # many values ours is half-way to the next one, theirs is one of them.
    apart = np.abs(trees(new) - read(new).reshape(len(new), -1)).max(axis=1)
    assert (apart < 1e-6).mean() > 0.97


def test_rows_held_out_do_not_move_a_threshold():
    """Days of the year, whole days held out: a day between two others is nearer to one of them."""
    rng = np.random.default_rng(0)
    day = rng.permutation(365)[:300].repeat(4).astype(float)
    y = np.sin(day / 58) + 0.1 * rng.normal(size=len(day))
    fold = np.arange(300).repeat(4) % 3
    model, out_of_fold = cross_fit(day[:, None], y, fold, rounds=ROUNDS)
    assert len(model.folds[0].root) == ROUNDS
    for k in range(3):
        theirs = HistGradientBoostingRegressor(**SAME).fit(day[fold != k, None], y[fold != k])
        expected = theirs.predict(day[fold == k, None])
        np.testing.assert_allclose(out_of_fold[fold == k, 0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_row_goes_where_its_nodes_say(classes):
    """The walk over all trees at once is the walk node by node, and training's own steps."""
    raw, number = table(missing=0.1)
    fold, trees = grown(raw, outcome(number, classes), classes)
    together = trees(raw)
    np.testing.assert_allclose(together, fold.raw, rtol=0, atol=1e-12)
    by_hand = np.stack([walked(trees, row) for row in raw[:50]])
    np.testing.assert_allclose(together[:50], by_hand, rtol=0, atol=1e-12)
    # A row's bits do not depend on the rows beside it.
    alone = np.concatenate([trees(row[None]) for row in raw[:50]])
    np.testing.assert_array_equal(alone, together[:50])


def test_many_rows_are_walked_in_blocks(monkeypatch):
    raw, number = table(missing=0.1)
    trees = grown(raw, number, 0)[1]
    together = trees(raw)
    monkeypatch.setattr(MODULE, "BLOCK", 100)
    np.testing.assert_array_equal(trees(raw), together)
    assert trees(raw[:0]).shape == (0, 1)


def test_missing_values_go_where_training_says():
    """To the side of the outcomes that rows without a value had; else to the larger side."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 600)
    x[:200] = np.nan
    high = np.isnan(x) | (x > 0.7)
    model = grown(x[:, None], np.where(high, 5.0, 0.0), 0, rounds=200)[1]
    assert model(np.array([[np.nan], [0.9], [0.1]])).round(1).tolist() == [[5.0], [5.0], [0.0]]

    apart = grown(x[:, None], np.where(np.isnan(x), 5.0, 0.0), 0, rounds=200)[1]
    assert apart(np.array([[np.nan], [0.9], [0.1]])).round(1).tolist() == [[5.0], [0.0], [0.0]]

    seen = x[200:]
    complete = grown(seen[:, None], np.where(seen > 0.7, 5.0, 0.0), 0, rounds=200)[1]
    assert complete(np.array([[np.nan]])).round(1).tolist() == [[0.0]]


def test_leaves_hold_enough_rows():
    raw, number = table(rows=300)
    grow = Grower(raw, np.arange(250), np.arange(250, 300))
    nodes, step = grow(-number)
    leaves = [node.value for node in nodes if node.leaf]
    sizes = [(step[:250] == value).sum() for value in leaves]
    assert 2 <= len(leaves) <= LEAVES
    assert sum(sizes) == 250
    assert min(sizes) >= FEWEST
    assert set(step[250:]) <= set(leaves)  # rows to be predicted take the same way


@pytest.mark.parametrize("raw", [np.zeros((90, 0)), np.ones((90, 2)), np.full((90, 1), np.nan)])
def test_columns_that_say_nothing_leave_the_mean(raw):
    y = np.random.default_rng(0).normal(size=90)
    model, held = cross_fit(raw, y, np.arange(90) % 3)
    assert held.shape == (90, 1)
    np.testing.assert_allclose(model(raw[:1]), [[y.mean()]], atol=1e-12)


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_out_of_fold_predictions_have_not_seen_their_group(classes):
    """Each row's prediction is that of its fold's model, which other folds' outcomes decide."""
    raw, number = table(missing=0.05)
    y, fold = outcome(number, classes), np.arange(len(number)) % 3
    model, held = cross_fit(raw, y, fold, classes=classes, rounds=ROUNDS)
    for k, trees in enumerate(model.folds):
        mine = fold == k
        one = Boosting((trees,), classes)
        np.testing.assert_allclose(held[mine], one(raw[mine]), rtol=0, atol=1e-12)

    changed = y.copy()
    changed[fold == 1] = np.roll(y[fold == 1], 1)
    trees = cross_fit(raw, changed, fold, classes=classes, rounds=ROUNDS)[0].folds[1]
    same = min(len(trees.value), len(model.folds[1].value))
    np.testing.assert_array_equal(trees.value[:same], model.folds[1].value[:same])


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_sum_to_one(classes):
    raw, number = table()
    y = outcome(number, classes)
    model, held = cross_fit(raw, y, np.arange(len(y)) % 3, classes=classes, rounds=ROUNDS)
    for log_p in (held, model(raw)):
        assert log_p.shape == (len(y), classes)
        np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1.0, atol=1e-3)
    assert (held.argmax(axis=1) == y).mean() > 0.6


def test_growing_ends_where_held_out_rows_gain_no_more():
    """An outcome of noise alone takes few rounds, and no more than asked for are kept."""
    raw, number = table()
    fold = np.arange(len(number)) % 3
    noise = np.random.default_rng(5).normal(size=len(number))
    assert len(cross_fit(raw, noise, fold)[0].folds[0].root) < 20
    assert len(cross_fit(raw, number, fold, rounds=7)[0].folds[0].root) == 7


def test_large_tables_learn_from_some_rows(monkeypatch):
    """The seed draws them; every row is predicted."""
    monkeypatch.setattr(MODULE, "MOST_ROWS", 300)
    raw, number = table()
    fold = np.arange(len(number)) % 3
    first, again, other = (cross_fit(raw, number, fold, rounds=5, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])
    assert ((first[1][:, 0] - number) ** 2).mean() < number.var()


@pytest.mark.parametrize("classes", [0, 3])
def test_same_bits_again_saved_and_loaded(tmp_path, classes):
    raw, number = table(missing=0.1)
    y, fold = outcome(number, classes), np.arange(len(number)) % 3
    model, held = cross_fit(raw, y, fold, classes=classes, rounds=ROUNDS)
    again, held_again = cross_fit(raw, y, fold, classes=classes, rounds=ROUNDS)
    np.testing.assert_array_equal(held, held_again)
    np.testing.assert_array_equal(model(raw), again(raw))

    files.save(tmp_path / "model", model)
    loaded = files.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded(raw), model(raw))
    files.save(tmp_path / "again", loaded)  # what a prediction keeps is not saved
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


def test_files_of_scikit_learns_trees_predict_the_same():
    """0.1.0 kept leaves whose children are node 0, numbered through all trees."""
    raw, number = table(missing=0.1)
    trees = grown(raw, number, 0)[1]
    old = Trees(
        **{
            **{name: getattr(trees, name) for name in ("feature", "missing_left", "value")},
            **{name: getattr(trees, name) for name in ("leaf", "root", "base")},
            "left": np.where(trees.leaf, 0, trees.left).astype(np.int32),
            "right": np.where(trees.leaf, 0, trees.right).astype(np.int32),
            "threshold": np.where(trees.leaf, 0.0, trees.threshold),
        }
    )
    np.testing.assert_array_equal(old(raw), trees(raw))


def test_a_class_of_one_fold_alone_has_a_small_probability_elsewhere():
    raw, fold = table(rows=90)[0], np.arange(90) % 3
    _, output = cross_fit(raw, (fold == 1) + (fold == 1) * (raw[:, 0] > 0.0), fold, classes=3)
    assert np.isfinite(output).all()
    np.testing.assert_allclose(np.exp(output).sum(1), 1.0, rtol=1e-6)
    assert np.exp(output[fold == 1, 1:]).max() < 0.2  # by trees that saw class 0 alone


def test_scikit_learn_is_not_imported():
    code = (
        "import numpy as np, sys; from metaprior.tables.baselines import cross_fit;"
        "x = np.arange(90.0); cross_fit(x[:, None], x, np.arange(90) % 3, rounds=2)[0](x[:, None]);"
        "print('sklearn' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_many_classes_take_fewer_rounds_of_larger_steps(monkeypatch):
    """40 classes, each of which has a tree a round: out of fold half of what the shares give."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 40, (2000, 1))
    y, fold = np.floor(x[:, 0]), np.arange(2000) % 5
    monkeypatch.setattr(MODULE, "TREES", 4_000)
    model, out_of_fold = cross_fit(x, y, fold, classes=40)
    rounds = len(model.folds[0].root)
    assert 10 < rounds <= 4_000 / (5 * 40)
    loss = -out_of_fold[np.arange(2000), y.astype(int)].mean()
    assert loss < 0.5 * np.log(40)
