"""Rules that label a pool: against known answers, and whole runs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from conftest import draw
from outcomes import by, check, quiet
from scipy import stats

from metaprior.errors import InputError
from metaprior.heads import Gaussian
from metaprior.posterior import Mixture, Part
from metaprior.protocols import active_learning
from metaprior.protocols.active_learning import labelling
from metaprior.protocols.active_learning.data import SUBJECTS, fold_of, read_rows
from metaprior.sources import Linear
from metaprior.task import Data


class _Linear(labelling.AbstractLearner):
    source: Linear

    def posterior(self, support, *, key):
        return self.source.exact(support)


def _labelled(rule, rows=6, tasks=3):
    source = Linear.of(1, support=rows, query=5)
    made = draw(source, jr.key(0), tasks)
    made = eqx.tree_at(lambda t: t.support.mask, made, made.support.mask.at[:, -1].set(False))
    goals = labelling.Goal(jnp.ones(tasks), jnp.ones((tasks, rows)))
    index = jnp.asarray((labelling.RULES + labelling.SEEKING).index(rule))
    judged, picks = labelling.label(
        _Linear(source), made, goals, index, jr.split(jr.key(1), tasks), 5, (1, 1)
    )
    return made, (judged["nll"], judged["error"], picks)


@pytest.mark.quick("random")
@pytest.mark.parametrize("rule", labelling.RULES + labelling.SEEKING)
def test_each_rule_labels_each_row_of_the_pool_once_and_no_other(rule):
    tasks, (nll, error, picks) = _labelled(rule)
    assert np.array_equal(np.sort(picks, 1), np.tile(np.arange(5), (3, 1)))
    assert nll.shape == error.shape == (3, 6)
    for t in range(3):  # with the whole pool labelled, the same answer in whatever order
        task = jax.tree.map(lambda a: a[t], tasks)
        exact = Linear.of(1).exact(task.support).predict(task.query.x, key=jr.key(0), samples=1)
        assert float(nll[t, -1]) == pytest.approx(
            float(-exact.log_prob(task.query.y).mean()), abs=1e-4
        )


def test_uneven_tasks_show_each_row_of_the_pool_at_most_once():
    source = Linear.of(1, support=12, query=3)
    tasks = draw(labelling.Uneven(source, 4), jr.key(0), 300)
    x, mask = np.asarray(tasks.support.x)[..., 0], np.asarray(tasks.support.mask)
    assert set(mask.sum(1)) == set(range(5))
    assert all(len(np.unique(row[m])) == m.sum() for row, m in zip(x, mask))
    spread = x[mask.sum(1) == 4].std(1)
    assert spread.min() < 0.25 and spread.max() > 1.6  # close together, and at both ends


def test_variance_and_entropy_label_where_the_exact_predictive_is_widest():
    for rule in ("variance", "entropy", "bald"):
        tasks, (_, _, picks) = _labelled(rule)
        for t in range(3):
            x = np.abs(np.asarray(tasks.support.x[t, :5, 0]))  # at first the variance is 1 + x²
            assert picks[t, 0] == x.argmax()


def test_improvement_is_the_closed_form_of_a_normal():
    head, mean, std, best = Gaussian(1), np.array([0.3, -1.0]), np.array([0.5, 2.0]), 0.4
    params = jnp.stack([jnp.asarray(mean), jnp.asarray(std)], -1)[None, :, None]
    mixture = Mixture((Part(head, params, jnp.zeros(1)),))
    got = labelling.improvement(
        mixture, Data.of([0.0], [best]), labelling.Goal(jnp.ones(()), jnp.ones(2))
    )
    z = (mean - best) / std
    want = std * (z * stats.norm.cdf(z) + stats.norm.pdf(z))
    np.testing.assert_allclose(got, want, rtol=1e-4)


def _found(picks, y, cost):
    picks, y, cost = np.array(picks), np.array(y, float), np.array(cost, float)
    r, t, n = picks.shape
    blank = np.zeros((r, t, n + 1))
    return active_learning.figures.Found(
        ("random", "entropy"),
        blank,
        blank,
        picks,
        y[..., None],
        y,
        np.ones_like(y, bool),
        np.arange(t),
        -1,
        cost,
        {},
    )


def test_regret_and_regret_in_time_by_hand():
    found = _found([[[0, 1]], [[2, 0]]], [[3.0, 2.0, 1.0]], [[10.0, 5.0, 20.0]])  # least is best
    regret, seconds = active_learning.figures.best_found(found)
    np.testing.assert_allclose(regret, [[[1, 2, 1]], [[1, 0, 0]]])
    np.testing.assert_allclose(seconds, [[[0, 10, 15]], [[0, 20, 30]]])
    in_time = active_learning.figures.regret_in_time(regret, seconds, np.array([20.0]))
    np.testing.assert_allclose(in_time, [[(10 * 1 + 5 * 2 + 5 * 1) / 20], [1.0]])


def test_tasks_of_one_unit_count_once():
    found = _found(np.zeros((2, 4, 1), int), np.zeros((4, 2)), np.ones((4, 2)))
    nll = np.zeros((2, 4, 2))
    nll[0, :, 1] = [1, 1, 1, 5]
    found = found._replace(nll=nll, unit=np.array([0, 0, 0, 1]), sign=0)
    gain = next(
        f
        for f in active_learning.figures.figures_of("weather", found)
        if f.metric == "nll_gain_entropy"
    )
    assert gain.value == 3 and gain.count == 2


def test_a_split_of_a_table_leaves_judged_groups_out(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["group,origin,day_of_year,hour,wind_speed,pressure,temp"]
    for day in range(20):
        for origin in "AB":
            for hour in range(24):
                wind, temp = rng.random(), day + rng.normal()
                lines.append(f"{origin}{day},{origin},{day},{hour},{wind:.3f},1000,{temp:.3f}")
    (tmp_path / "weather_airport_days.csv").write_text("\n".join(lines))
    subject = SUBJECTS["weather"]
    rows = read_rows(tmp_path, subject)
    fold = fold_of(rows, subject, 2)
    inside = np.unique(np.asarray(fold.table.groups))
    assert (
        not set(rows.split[inside]) & set(rows.split[fold.held])
        and len(inside) + len(fold.held) == 40
    )
    mine = np.isin(rows.group, inside)
    y = np.asarray(fold.table.y)[: len(mine), 0][mine]
    assert y.mean() == pytest.approx(0, abs=1e-4) and y.std() == pytest.approx(1, abs=1e-4)
    task = fold.table.task(int(fold.held[0]), 14, key=jr.key(0))
    assert int(task.support.mask.sum()) == 14 and int(task.query.mask.sum()) == 10
    with pytest.raises(InputError, match=r"weather_airport_days\.csv: no column 'temp'"):
        (tmp_path / "weather_airport_days.csv").write_text("group,origin\na,b\n")
        read_rows(tmp_path, subject)


@pytest.mark.slow
def test_active_learning_runs_and_its_figures_follow_from_its_predictions(monkeypatch):
    monkeypatch.setattr(
        active_learning.judge, "settings_of", lambda method, data: [active_learning.judge.LINES]
    )
    options = active_learning.PROTOCOL.budgets["quick"] | {
        "labels": 3,
        "steps": {"lines": 2, "classes": 2},
        "tasks": 5,
        "samples": [2, 2],
    }
    outcome = active_learning.judge.run("maml", 0, options, None, quiet)
    check(active_learning.PROTOCOL, outcome, options)
    rows = outcome.predictions

    def at(rule):
        return (rows["setting"] == "sine or line") & (rows["rule"] == rule) & (rows["labels"] > 0)

    gain = rows["nll"][at("random")].mean() - rows["nll"][at("entropy")].mean()
    assert gain == pytest.approx(by(outcome, "sine or line", "nll_gain_entropy"), abs=1e-5)
