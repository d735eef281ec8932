"""`metaprior compare`: ranks that say what the data can tell, cells that are kept, errors."""

import json

import numpy as np
import polars as pl
import pytest
from conftest import tiny_csv

from metaprior.cli.learn import compare
from metaprior.cli.run import Run
from metaprior.errors import InputError
from metaprior.evaluation import metrics
from metaprior.evaluation.evaluate import METHOD, Evaluation
from metaprior.evaluation.ranks import rank, sentence
from metaprior.tables.compare import Comparison


def evaluation(gaps, tasks=400, noise=0.1):
    """NLL of learners at known distances from a noisy common level, at K = 0 and 5."""
    rng = np.random.default_rng(0)
    statistics: dict = {}
    for K in (0, 5):
        level = rng.normal(0, 1, tasks)
        nll = {name: level + gap + noise * rng.normal(size=tasks) for name, gap in gaps.items()}
        statistics[K] = {name: {"nll": np.stack([v, np.ones(tasks)], 1)} for name, v in nll.items()}
    return Evaluation(statistics, {K: {} for K in statistics}, 0)


def test_learners_that_data_cannot_tell_apart_share_a_rank():
    """Differences of 0.5 with a standard error of 0.1 sqrt(2 / 400) = 0.007 are certain, those of
    0.001 are not.
    """
    ranked = rank(evaluation({"np": 0.0, "gp": 0.001, "maml": 0.5, "marginal": 0.501, "bnn": 2.0}))
    places = {name: row["rank"] for name, row in ranked["overall"].items()}
    assert places == {"np": 1, "gp": 1, "maml": 3, "marginal": 3, "bnn": 5}
    behind = ranked["overall"]["maml"]["behind"]
    assert behind["low"] < 0.5 < behind["high"] and behind["high"] - behind["low"] < 0.05
    assert {K: ranked["shots"][K]["bnn"]["rank"] for K in (0, 5)} == {0: 5, 5: 5}


@pytest.mark.parametrize(
    "gaps,words",
    [
        ({"np": 0.0, "maml": 0.5, "gp": 0.3}, ["Use np", "The best baseline, gp, is 0.3"]),
        ({"np": 0.0, "gp": 0.0005}, ["not worse beyond chance", "as good here"]),
        ({"np": 0.4, "gp": 0.0}, ["Use gp", "do not earn their keep"]),
    ],
)
def test_the_sentence_says_which_to_use(gaps, words):
    said = sentence(rank(evaluation(gaps)), ["np", "maml"])
    assert all(word in said for word in words), said


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("compare") / "tiny.csv"
    path.write_text(tiny_csv())
    return path


@pytest.mark.slow
def test_a_comparison_is_kept_and_grows(table, tmp_path, capsys):
    """The second call fits one more method only; figures follow from predictions.parquet."""
    out = tmp_path / "out"
    settings = dict(task="g", target="y", features="x,kind", shots="0,2", steps=4, out=out)
    settings["splits"] = 1
    compare(table, methods="maml", **settings)
    before = (out / "cells" / "maml-0.json").stat().st_mtime_ns
    capsys.readouterr()
    compare(table, methods="maml,cnp,mixed", as_json=True, keep="mixed", **settings)
    results = json.loads(capsys.readouterr().out)
    assert (out / "cells" / "maml-0.json").stat().st_mtime_ns == before
    assert results["methods"] == ["maml", "cnp"] and set(results["shots"]) == {"0", "2"}
    assert {"marginal", "gp", "boosting", "mixed"} <= set(results["overall"])
    assert results["sentence"].startswith("2 groups are too few to say which is best. On")
    rows = pl.read_parquet(out / "predictions.parquet")
    for name in ("maml", "gp"):
        some = rows.filter(learner=name, K=2)
        nll = some.group_by("task").agg(pl.col("nll").mean())["nll"].mean()
        assert results["shots"]["2"][name]["nll"] == pytest.approx(nll, rel=1e-6)
        crps = some.group_by("task").agg(pl.col("crps").mean())["crps"].mean()
        assert results["shots"]["2"][name]["crps"] == pytest.approx(crps, rel=1e-6)
    kept = Run(out / "mixed")
    assert kept.load().adapt(None).predict(pl.read_csv(table))["std"].min() > 0
    assert kept.read()["options"]["method"] == "mixed"
    page = (out / "report.html").read_text("utf-8")
    assert page.count("<svg") == 3 and "metaprior compare" in page
    for changed, words in (
        ({"steps": 6}, "was run with --steps 4, now 6"),
        ({"shots": "0"}, "was run with --shots"),
    ):
        with pytest.raises(InputError, match=words):
            compare(table, methods="maml", **(settings | changed))


@pytest.mark.slow
def test_groups_are_named_and_resampled_whole(table, tmp_path):
    """Two splits: tasks of one number each, with their split and group; a group held out twice
    comes and goes once.
    """
    out = tmp_path / "out"
    compare(
        table,
        task="g",
        target="y",
        features="x,kind",
        shots="0,2",
        steps=4,
        splits=2,
        methods="cnp",
        out=out,
    )
    rows = pl.read_parquet(out / "predictions.parquet").filter(learner="cnp", K=2)
    each = rows.select("split", "group", "task").unique()
    assert set(each["split"]) == {1, 2} and each["task"].n_unique() == len(each)
    assert set(each["group"]) <= set(pl.read_csv(table)["g"].cast(pl.String))
    results = json.loads((out / "results.json").read_text("utf-8"))
    entry = results["shots"]["2"]["cnp"]
    assert entry["n_tasks"] == len(each) and entry["n_groups"] == each["group"].n_unique()
    twice = metrics.resamples({0: np.array([3, 5, 3]), 2: np.array([5])})
    assert (twice[0][:, 0] == twice[0][:, 2]).all() and (twice[0][:, 1] == twice[2][:, 0]).all()


def test_splits_may_differ_in_their_numbers_of_rows():
    """A split without groups of more than 5 rows, merged with one that has some; both orders."""
    whole, part = evaluation({"np": 0.0}, tasks=6), evaluation({"np": 0.0}, tasks=4)
    del part.statistics[5], part.points[5]
    for pair in ((whole, part), (part, whole)):
        assert Evaluation.merge(list(pair)).tasks(0) == 10
    assert Evaluation.merge([whole, part]).tasks(5) == 6


def test_one_group_ranks_nothing(tmp_path, capsys):
    """No interval, no rank, and the sentence says so."""
    lines = tiny_csv().splitlines()
    few = [
        line
        for line in lines[1:]
        if line.split(",")[0] in sorted({row.split(",")[0] for row in lines[1:]})[:3]
    ]
    (tmp_path / "few.csv").write_text("\n".join([lines[0], *few]) + "\n")
    compare(
        tmp_path / "few.csv",
        task="g",
        target="y",
        features="x",
        shots="0",
        splits=1,
        steps=2,
        methods="cnp",
        out=tmp_path / "out",
        as_json=True,
    )
    results = json.loads(capsys.readouterr().out)
    assert results["shots"]["0"]["cnp"]["n_groups"] == 1 and results["shots"]["0"]["cnp"]["ci"][
        "nll"
    ] == [None, None]
    assert {row["rank"] for row in results["overall"].values()} == {1}
    assert results["sentence"].startswith("One held-out group cannot tell methods apart")
    assert "<svg" in (tmp_path / "out" / "report.html").read_text("utf-8")


@pytest.mark.parametrize("groups", [3, 6, 20])
def test_intervals_hold_the_mean_as_often_as_they_say(groups):
    """2,000 samples of normal differences; 4 standard errors of a share of 0.95 are 0.02.
    Percentiles alone: 0.75 at 3.
    """
    rng = np.random.default_rng(0)
    weights = metrics.bootstrap_weights(groups)
    inside = 0
    for values in rng.normal(size=(2000, groups)):
        low, high = metrics.interval(float(values.mean()), weights @ values / groups, groups)
        inside += low <= 0 <= high
    assert abs(inside / 2000 - 0.95) < 0.03


def test_bad_input(table, tmp_path):
    """Bad columns and methods are refused before anything is written."""
    for options, words in (
        (dict(task="g", target="yy"), "yy"),
        (dict(task="g", target="y", methods="protonet"), "protonet does not predict 'y'"),
        (dict(task="g", target="y", methods="npp"), "no method 'npp'"),
        (dict(task="g", target="y", splits=0), "--splits must be at least 1"),
        (dict(task="g", target="y", features=","), "--features is empty"),
        (dict(task="g", target="y", order="kind"), "no column 'kind' of numbers or dates to order"),
        (dict(task="g", target="y", order="week"), "week"),
        (dict(task="g", target="y", keep="npp"), "no method 'npp'"),
    ):
        with pytest.raises(InputError) as error:
            compare(table, out=tmp_path / "out", **options)
        assert words in str(error.value)
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"holds something else \(thesis.tex\)"):
        Comparison(tmp_path / "mine", table, {}).check()
    assert METHOD == "method"  # statistics of the judged method are under this name
