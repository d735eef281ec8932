"""The measured table: nothing in it is better than the exact posterior, and the page shows what was measured."""

import importlib.util
import json

import pytest
from conftest import ROOT

from metaprior.methods import METHODS

RESULTS, PAGE = ROOT / "benchmarks" / "oracle.json", ROOT / "docs" / "methods.md"


@pytest.fixture(scope="module")
def oracle():
    spec = importlib.util.spec_from_file_location("oracle", ROOT / "benchmarks" / "oracle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(oracle):
    return oracle.read(RESULTS) if RESULTS.exists() else {}


def test_no_method_is_better_than_the_exact_posterior(oracle, results):
    assert oracle.violations(results) == []


def test_every_fit_ended_well(results):
    assert [
        (s, m) for s, found in results.items() for m, r in found.items() if r.get("outcome", "done") != "done"
    ] == []


def test_the_page_shows_what_was_measured(oracle, results):
    begin, end = oracle.MARKS
    assert PAGE.read_text("utf-8").split(begin)[1].split(end)[0] == oracle.markdown(results)


def test_every_method_is_on_the_page():
    text = PAGE.read_text("utf-8").split("## Measured")[0]
    assert [name for name in METHODS if f"| `{name}` |" not in text] == []


def test_a_leak_and_a_missed_bound_are_noticed(oracle):
    entry = {"nll": [1.0, 0.1], "mse": [1.0, 0.1], "marginal": [-0.1, 0.01], "joint": [0.1, 0.01]}
    leak = {"sineline": {"np": {"shots": {"2": entry}}}}
    assert len(oracle.violations(leak)) == 1 and "np, K = 2: marginal" in oracle.violations(leak)[0]
    assert oracle.unmet(leak) == []
    entry |= {"marginal": [-0.019, 0.01], "nll": [1.7, 0.1]}
    assert oracle.violations(leak) == [] and "the bound is 1.6" in oracle.unmet(leak)[0]


def test_measures_and_continues(oracle, tmp_path, capsys):
    out = tmp_path / "oracle.json"
    command = ["--methods", "alpaca", "--sources", "linear", "--steps", "2", "--tasks", "4", "--out", str(out)]
    oracle.main(command)
    assert "1 of 1" in capsys.readouterr().out
    result = json.loads(out.read_text("utf-8"))["linear"]["alpaca"]
    assert result["steps"] == 2 and result["tasks"] == 4 and result["parameters"] > 1000
    assert list(result["shots"]) == ["0", "1", "2", "5", "10", "drawn"]
    assert result["shots"]["0"]["marginal"][0] > 0  # an untrained network is worse than the exact posterior
    assert "| `alpaca` |" in oracle.markdown(oracle.read(out))
    oracle.main(command)
    assert "of 1" not in capsys.readouterr().out
