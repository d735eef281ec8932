"""The parts `boards` and `rows` of `learned-acquisition`: forests, boards, choices, figures."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from metaprior.protocols import get
from metaprior.protocols.learned_acquisition import boards, rows
from metaprior.protocols.learned_acquisition.boards_world import Boards, Clouds, Points
from metaprior.protocols.learned_acquisition.choosing import choose, feature, learn
from metaprior.protocols.learned_acquisition.forest import Forest, grown, walked
from metaprior.task import Data


def options(part, **changed):
    return get("learned-acquisition").budgets["quick"][part] | changed


def silent(done, what):
    pass


def test_forests_are_scikit_learns():
    """Probabilities of one forest differ from scikit-learn's no more than those of two of its own
    with other seeds do.
    """
    ensemble = pytest.importorskip("sklearn.ensemble")
    tasks = boards.drawn(Boards(Points(20, 60)), jr.split(jr.key(0), 12))
    forest = Forest(50)

    @jax.jit
    def ours(tasks):
        def one(task):
            said = forest.posterior(task.support, key=jr.key(1))
            return said.predict(task.query.x, key=jr.key(0), samples=1).mean()[:, 1]

        return jax.vmap(one)(tasks)

    def theirs(i, seed):
        made = ensemble.RandomForestClassifier(50, random_state=seed, n_jobs=1)
        made.fit(tasks.support.x[i], tasks.support.y[i, :, 0])
        return made.predict_proba(tasks.query.x[i])[:, 1]

    mine = np.asarray(ours(tasks))
    first, second = (np.array([theirs(i, seed) for i in range(12)]) for seed in (0, 1))
    assert ((mine - first) ** 2).mean() < 1.15 * ((second - first) ** 2).mean()
    assert abs((mine - first).mean()) < 0.02


def test_a_tree_fits_its_bootstrap_and_ignores_padding():
    """Every drawn row is in a pure leaf of a deep tree; rows outside the mask do not count."""
    x = jr.uniform(jr.key(0), (12, 2))
    y = (jnp.arange(12) % 2)[:, None] * 1.0
    data = Data(x, y, jnp.arange(12) < 8)
    for i in range(5):
        tree = jax.jit(grown)(data, jr.key(i))
        drawn = np.unique(jr.randint(jr.split(jr.key(i))[0], (12,), 0, 8)[:8])
        share = np.exp(walked(tree, x))
        assert (share[drawn, y[drawn, 0].astype(int)] > 0.999).all()
        moved = Data(x.at[8:].set(9.0), y.at[8:].set(1.0), data.mask)
        again = jax.jit(grown)(moved, jr.key(i))
        np.testing.assert_array_equal(walked(again, x), walked(tree, x))


def test_boards_are_what_they_are_called():
    """Fields alternate; a turned board is that of the turned points; one of each class is first."""
    points = Points(60, 40)
    for side in (0.5, 0.25):
        task = Boards(points, side)(jr.key(3))
        field = np.floor((np.asarray(task.query.x) - 0.5) / side).sum(1).astype(int) % 2
        assert (field == task.query.y[:, 0]).all()
        assert task.support.y[:2, 0].tolist() == [0, 1]
    turned = Boards(points, 1.0, np.pi / 4)(jr.key(3))
    # Turned by an eighth, the borders are the diagonals.
    side = (np.asarray(turned.query.x) - 0.5) ** 2 @ [1, -1]
    for own in (turned.query.y[side > 1e-4], turned.query.y[side < -1e-4]):
        assert len(np.unique(own)) == 1
    both = boards.drawn(Clouds(points), jr.split(jr.key(4), 20)).support.y[:, :2, 0]
    assert (np.asarray(both) == [0, 1]).all()


def test_a_rule_chooses_each_row_once_and_the_best_first():
    """The score's own order, after the rows that are there at first."""
    tasks = boards.drawn(Boards(Points(12, 6)), jr.split(jr.key(5), 3))
    found = choose(Forest(4), tasks, feature("remote"), 2, 6)
    assert found.error.shape == (5, 3, 6) and (np.sort(found.order, 1) == np.arange(12)).all()
    assert (found.order[:, :2] == [0, 1]).all()
    x = np.asarray(tasks.support.x)
    for task in range(3):
        left = np.arange(2, 12)
        for pick in found.order[task, 2:6]:
            middle = x[task, left].mean(0)
            assert pick == left[np.linalg.norm(x[task, left] - middle, axis=1).argmax()]
            left = left[left != pick]


def test_a_rule_is_learned_from_rounds():
    """Twice as many drops from two rounds as from one."""
    tasks = boards.drawn(Clouds(Points(20, 20)), jr.split(jr.key(6), 40))
    rule = learn(Forest(4), tasks, (2, 6), rounds=2, few=3, by="error", tell=silent)
    assert rule.drops == 120 and rule.groups == 40 and np.isfinite(rule.explained)


@pytest.mark.quick("most uncertain")
@pytest.mark.parametrize("method", [boards.RANDOM, boards.UNCERTAIN, boards.CLOUDS])
def test_figures_of_boards_follow_from_predictions(method):
    small = options("boards", labels=5, trees=4, tasks=3, states=30, few=2)
    out = boards.run(method, 0, small, None, silent)
    table = out.predictions
    for figure in out.figures:
        here = table["setting"] == figure.setting
        error = table["error"][here].reshape(3, 5)
        assert np.isnan(error[:, 0]).all() and error.min(initial=1.0, where=error >= 0) >= 0
        kept = error[:, 2:] if figure.metric == "board_error" else error[:, -1:]
        assert figure.value == pytest.approx(kept.mean(), abs=1e-6)
    assert {f.setting for f in out.figures} == set(boards.SETTINGS)


@pytest.mark.slow
def test_figures_of_rows_follow_from_predictions():
    """Gains are the differences of the rules' areas; a picture is drawn of them."""
    steps = dict.fromkeys(options("rows")["steps"], 20)
    out = rows.run(rows.CELL, 0, options("rows", tasks=6, states=60, steps=steps), None, silent)
    value = {(f.setting, f.metric): f.value for f in out.figures}
    for setting in (rows.LINES, rows.WEATHER):
        for rule in ("random", "variance"):
            gain = value[setting, f"rows_nll_{rule}"] - value[setting, "rows_nll_learned"]
            assert value[setting, f"rows_nll_gain_{rule}"] == pytest.approx(gain, abs=1e-6)
    table = out.predictions
    here = (table["setting"] == rows.LINES) & (table["rule"] == "learned")
    nll = table["nll"][here].reshape(6, rows.LABELS + 1)
    assert value[rows.LINES, "rows_nll_learned"] == pytest.approx(nll[:, 1:].mean(), abs=1e-5)
