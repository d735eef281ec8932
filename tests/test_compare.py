"""`metaprior compare`: ranks that say what the data can tell, cells that are kept, errors."""

import json

import numpy as np
import polars as pl
import pytest
from conftest import tiny_csv

from metaprior.commands import compare
from metaprior.compare import Comparison, rank, sentence
from metaprior.errors import InputError
from metaprior.evaluate import METHOD, Evaluation


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
    """Differences of 0.5 with a standard error of 0.1 sqrt(2 / 400) = 0.007 are certain, those of 0.001 are not."""
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


def test_a_comparison_is_kept_and_grows(table, tmp_path, capsys):
    """The second call fits one more method only; figures follow from predictions.parquet."""
    out = tmp_path / "out"
    settings = dict(task="g", target="y", features="x,kind", shots="0,2", steps=5, out=out)
    compare(table, methods="maml", **settings)
    before = (out / "cells" / "maml-0.json").stat().st_mtime_ns
    capsys.readouterr()
    compare(table, methods="maml,cnp", as_json=True, **settings)
    results = json.loads(capsys.readouterr().out)
    assert (out / "cells" / "maml-0.json").stat().st_mtime_ns == before
    assert results["methods"] == ["maml", "cnp"] and set(results["shots"]) == {"0", "2"}
    assert {"marginal", "gp", "boosting", "mixed model"} <= set(results["overall"])
    assert results["sentence"].startswith("Use ")
    rows = pl.read_parquet(out / "predictions.parquet")
    for name in ("maml", "gp"):
        some = rows.filter(learner=name, K=2)
        nll = some.group_by("task").agg(pl.col("nll").mean())["nll"].mean()
        assert results["shots"]["2"][name]["nll"] == pytest.approx(nll, rel=1e-6)
        crps = some.group_by("task").agg(pl.col("crps").mean())["crps"].mean()
        assert results["shots"]["2"][name]["crps"] == pytest.approx(crps, rel=1e-6)
    page = (out / "report.html").read_text("utf-8")
    assert page.count("<svg") == 3 and "metaprior compare" in page
    for changed, words in (({"steps": 6}, "was run with --steps 5, now 6"), ({"shots": "0"}, "was run with --shots")):
        with pytest.raises(InputError, match=words):
            compare(table, methods="maml", **(settings | changed))


def test_bad_input(table, tmp_path):
    """Bad columns and methods are refused before anything is written."""
    for options, words in (
        (dict(task="g", target="yy"), "yy"),
        (dict(task="g", target="y", methods="protonet"), "protonet does not predict 'y'"),
        (dict(task="g", target="y", methods="npp"), "no method 'npp'"),
        (dict(task="g", target="y", splits=0), "--splits must be at least 1"),
        (dict(task="g", target="y", features=","), "--features is empty"),
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
