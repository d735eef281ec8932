"""What `active-learning` keeps of each judged row gives its figures again."""

import numpy as np
import polars as pl
import pytest
from outcomes import by, quiet

from metaprior.protocols.active_learning import PROTOCOL, figures, judge
from metaprior.protocols.active_learning.data import SUBJECTS, read_rows
from metaprior.protocols.files import column


def again(outcome, setting, tasks):
    """NLL, error and areas of a setting from what was said of each judged row; tasks beyond the
    kept ones have none.
    """
    frame = pl.DataFrame({k: column(v) for k, v in outcome.predictions.items()}).filter(
        setting=setting
    )
    frame = frame.filter(pl.col("judged_y").is_not_null())
    assert frame["task"].n_unique() == tasks
    log_p, mean, y = (np.array(frame[f"judged_{k}"].to_list()) for k in ("log_p", "mean", "y"))
    np.testing.assert_allclose(-log_p.mean(1), frame["nll"], rtol=1e-6, atol=1e-5)
    if frame["judged_std"].null_count() == 0:
        std = np.array(frame["judged_std"].to_list())
        assert mean.shape == std.shape == y.shape and (std > 0).all()
        error = ((mean - y) ** 2).mean(1)
    else:
        p = mean.reshape(*y.shape, -1)
        np.testing.assert_allclose(p.sum(-1), 1, atol=1e-5)
        np.testing.assert_allclose(
            np.take_along_axis(p, y.astype(int)[..., None], -1)[..., 0], np.exp(log_p), atol=1e-5
        )
        error = (p.argmax(-1) != y).mean(1)
    np.testing.assert_allclose(error, frame["error"], rtol=1e-5, atol=1e-5)
    frame = frame.with_columns(nll=-log_p.mean(1), error=error).filter(pl.col("labels") > 0)
    for kind in ("nll", "error"):
        area = {rule[0]: rows[kind].mean() for rule, rows in frame.group_by("rule")}
        for name, value in (
            (f"{kind}_random", area["random"]),
            (f"{kind}_gain_bald", area["random"] - area["bald"]),
        ):
            assert value == pytest.approx(by(outcome, setting, name), rel=1e-5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("setting", [judge.LINES, judge.BLOBS])
def test_judged_rows_give_the_figures_again(monkeypatch, setting):
    monkeypatch.setattr(judge, "settings_of", lambda method, data: [setting])
    options = PROTOCOL.budgets["quick"] | {
        "labels": 2,
        "tasks": 4,
        "samples": [2, 2],
    }
    outcome = judge.run(judge.EXACT, 0, options, None, quiet)
    again(outcome, setting, 4)


def test_rows_are_kept_of_the_first_tasks(monkeypatch):
    monkeypatch.setattr(figures, "KEPT", 3)
    monkeypatch.setattr(judge, "settings_of", lambda method, data: [judge.LINES])
    options = PROTOCOL.budgets["quick"] | {
        "labels": 2,
        "tasks": 4,
        "samples": [2, 2],
    }
    rows = judge.run(judge.EXACT, 0, options, None, quiet).predictions
    assert all(
        (judged is None) == (task == 3) for judged, task in zip(rows["judged_mean"], rows["task"])
    )


def test_who_sees_no_label_has_the_prior_figures():
    """Five classes alike: log 5 nats and, by the first class, four fifths wrong on average; random
    labels alone.
    """
    options = PROTOCOL.budgets["quick"] | {
        "labels": 2,
        "tasks": 40,
        "samples": [1, 1],
    }
    outcome = judge.run(judge.UNINFORMED, 0, options, None, quiet)
    value = {(f.setting, f.metric): f.value for f in outcome.figures}
    assert set(value) == {("normal classes", "nll_random"), ("normal classes", "error_random")}
    assert value["normal classes", "nll_random"] == pytest.approx(np.log(5), abs=1e-5)
    assert value["normal classes", "error_random"] == pytest.approx(
        0.8, abs=4 * 0.4 / (40 * 30) ** 0.5
    )


def test_who_sees_no_label_of_a_table_is_a_standard_normal(data, monkeypatch):
    rows = {"weather": read_rows(data, SUBJECTS["weather"])}
    monkeypatch.setattr(judge, "settings_of", lambda method, data: ["weather"])
    options = PROTOCOL.budgets["quick"] | {
        "labels": 2,
        "table_tasks": 4,
        "samples": [1, 1],
    }
    outcome = judge.run(judge.UNINFORMED, 0, options, rows, quiet)
    frame = pl.DataFrame({k: column(v) for k, v in outcome.predictions.items()})
    y = [np.array(v) for v in frame["judged_y"].to_list()]
    nll = [0.5 * np.log(2 * np.pi) + 0.5 * (v**2).mean() for v in y]
    np.testing.assert_allclose(frame["nll"], nll, rtol=1e-5, atol=1e-5)
    error = frame.filter(pl.col("labels") > 0)["error"].mean()
    assert by(outcome, "weather", "error_random") > 0 and frame["rule"].unique().to_list() == [
        "random"
    ]
    assert error == pytest.approx(np.mean([(v**2).mean() for v in y]), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ar_cnp", "bnn"])
def test_slow_methods_run_on_fewer_tasks(monkeypatch, method):
    monkeypatch.setattr(judge, "settings_of", lambda method, data: [judge.LINES])
    options = PROTOCOL.budgets["quick"] | {
        "labels": 1,
        "tasks": 4,
        "slow_tasks": 2,
        "samples": [2, 2],
        "steps": {"lines": 2},
    }
    outcome = judge.run(method, 0, options, None, quiet)
    assert outcome.note == "slow, so judged on 2 tasks of each setting"
    assert {f.count for f in outcome.figures} == {2} and set(outcome.predictions["task"]) == {0, 1}
