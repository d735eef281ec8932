"""Measured quality: nothing is better than the exact posterior; pages show what was measured."""

import json
import re

import pytest
from conftest import ROOT

from benchmarks import defaults, longer, oracle, properties, tables
from metaprior.methods import METHODS

RESULTS, PAGE = ROOT / "benchmarks" / "oracle.json", ROOT / "docs" / "methods.md"


@pytest.fixture
def results():
    return oracle.read(RESULTS) if RESULTS.exists() else {}


def test_no_method_is_better_than_the_exact_posterior(results):
    assert oracle.violations(results) == []


def test_the_bounds_are_met(results):
    assert oracle.unmet(results) == []
    assert all(m == "best" or m in results[source] for source, m, *_ in oracle.BOUNDS)


def test_every_fit_ended_well(results):
    assert [
        (s, m)
        for s, found in results.items()
        for m, r in found.items()
        if r.get("outcome", "done") != "done"
    ] == []


def test_the_page_shows_what_was_measured(results):
    begin, end = oracle.marks("oracle")
    assert PAGE.read_text("utf-8").split(begin)[1].split(end)[0] == oracle.markdown(results)


def test_every_method_is_on_the_page():
    text = PAGE.read_text("utf-8").split("## Measured")[0]
    assert [name for name in METHODS if f"| `{name}` |" not in text] == []


def test_every_method_has_its_properties_on_the_page():
    measured = oracle.read(properties.KEPT)
    assert set(METHODS) | {"exact", "exact_classes"} == set(measured)
    assert measured["exact"]["expressive power"] == [1.0, 0.0]
    begin, end = oracle.marks("properties")
    page = (ROOT / "docs" / "how-to-choose.md").read_text("utf-8")
    assert page.split(begin)[1].split(end)[0] == properties.markdown(measured)


def test_defaults_trained_and_the_page_says_how_well():
    measured = oracle.read(ROOT / "benchmarks" / "defaults.json")
    cells = [
        cell
        for kind in measured.values()
        for row in kind.values()
        for cell in row["tables"].values()
    ]
    assert len(cells) > 150 and all(cell["finite"] for cell in cells)
    begin, end = oracle.marks("defaults")
    assert PAGE.read_text("utf-8").split(begin)[1].split(end)[0] == defaults.markdown(measured)


def test_what_takes_minutes_holds():
    kept = longer.read(longer.KEPT)
    assert set(kept) == set(longer.CLAIMS)
    for name, claim in longer.CLAIMS.items():
        assert claim.misses(kept[name]["figures"]) == []
    worse = kept["views"]["figures"] | {"np": kept["views"]["figures"]["np"] | {"mse": 1.0}}
    assert longer.CLAIMS["views"].misses(worse) == ["np: mse"]


def test_a_leak_and_a_missed_bound_are_noticed():
    entry = {"nll": [1.0, 0.1], "mse": [1.0, 0.1], "marginal": [-0.1, 0.01], "joint": [0.1, 0.01]}
    leak = {"sineline": {"np": {"shots": {"2": entry}}}}
    assert len(oracle.violations(leak)) == 1 and "np, K = 2: marginal" in oracle.violations(leak)[0]
    assert oracle.unmet(leak) == []
    entry |= {"marginal": [-0.019, 0.01], "nll": [1.7, 0.1]}
    assert oracle.violations(leak) == [] and "the bound is 1.6" in oracle.unmet(leak)[0]


def test_measures_and_continues(tmp_path, capsys):
    out = tmp_path / "oracle.json"
    command = [
        "--methods",
        "alpaca",
        "--sources",
        "linear",
        "--steps",
        "2",
        "--tasks",
        "4",
        "--out",
        str(out),
    ]
    oracle.main(command)
    assert "1 of 1" in capsys.readouterr().out
    result = json.loads(out.read_text("utf-8"))["linear"]["alpaca"]
    assert result["steps"] == 2 and result["tasks"] == 4 and result["parameters"] > 1000
    assert list(result["shots"]) == ["0", "1", "2", "5", "10", "drawn"]
    assert (
        result["shots"]["0"]["marginal"][0] > 0
    )  # an untrained network is worse than the exact posterior
    page = oracle.markdown(oracle.read(out))  # what is not as in the other rows is said
    assert "noise 0.3. 4 tasks." in page and "| `alpaca` |" in page
    assert re.search(r"\| 2 \| \d+ CPU-s \|", page)
    oracle.main(command)
    assert "of 1" not in capsys.readouterr().out


def test_the_readme_shows_what_was_measured():
    text = (ROOT / "README.md").read_text("utf-8")
    begin, end = oracle.marks("results")
    shown = text.split(begin)[1].split(end)[0]
    assert shown == tables.markdown(tables.read()) and list(tables.read()) == list(tables.TABLES)


def test_tables_are_kept_as_they_were(tmp_path):
    entry = {"n_tasks": 3, "nll": 0.1, "ci": {"nll": [0.0, 0.2]}}
    baseline = entry | {"difference": {"nll": {"mean": -0.1, "low": -0.2, "high": 0.0}}}
    figures = tables.figures(1, "method", entry) + tables.figures(1, "gp", baseline)
    results = {"milk": {"seconds": [1.0], "sentence": "So it is.", "figures": figures}}
    tables.keep(tmp_path / "kept.parquet", results)
    assert tables.read(tmp_path / "kept.parquet") == results
    assert tables.read(tmp_path / "nothing.parquet") == {}
