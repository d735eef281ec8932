"""The commands, from a table to a suggestion."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import polars as pl
import pytest
from conftest import FIT

from metaprior.cli.judge import _enough
from metaprior.cli.run import Run


def table(text):
    return pl.read_csv(io.StringIO(text))


def test_help_is_quick_and_loads_nothing_heavy():
    heavy = ["jax", "polars", "narwhals", "sklearn", "numpy", "matplotlib"]
    code = f"import sys, metaprior.cli; print(sorted(set({heavy}) & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "[]"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "metaprior.cli", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "suggest" in done.stdout
    assert time.monotonic() - began < 3.0  # 0.3 s alone; this machine is shared


def test_fit_leaves_a_prior_and_its_record(fitted):
    assert {p.name for p in (fitted / "run").iterdir()} == {"prior", "run.json"}
    record = json.loads((fitted / "run" / "run.json").read_text())
    assert (
        record["table"] == str(fitted / "table.csv")
        and record["seed"] == 0
        and record["options"]["steps"] == 4
    )
    assert {"metaprior", "jax", "python"} <= set(record["versions"])


def test_predict_keeps_order_and_writes_a_file(fitted, tmp_path, call):
    rows = (fitted / "table.csv").read_text().splitlines()
    support, query = tmp_path / "support.csv", tmp_path / "query.csv"
    support.write_text("\n".join(rows[:4]))
    query.write_text("\n".join([rows[0], *rows[5:9]]))
    status, out, err = call("predict", fitted / "run", "--support", support, "--query", query)
    assert status == 0, err
    frame = table(out)
    assert frame.columns == ["mean", "std", "q05", "q50", "q95", "epistemic"] and frame.height == 4
    assert (
        (frame["q05"] < frame["q50"]).all()
        and (frame["q50"] < frame["q95"]).all()
        and (frame["std"] > 0).all()
    )
    for _ in range(2):  # its own earlier output may be replaced
        status, out, err = call(
            "predict",
            fitted / "run",
            "--support",
            support,
            "--query",
            query,
            "--out",
            tmp_path / "p.csv",
        )
        assert status == 0 and out == ""
    assert pl.read_csv(tmp_path / "p.csv").height == 4
    query.write_text("\n".join([rows[0], *rows[8:4:-1]]))
    assert table(call("predict", fitted / "run", "--support", support, "--query", query)[1])[
        "mean"
    ][0] == pytest.approx(frame["mean"][3], rel=1e-4)


def test_predict_with_nothing_observed(fitted, tmp_path, call):
    header = tmp_path / "header.csv"
    header.write_text("g,x,kind,day,y\n")
    one = call("predict", fitted / "run", "--query", fitted / "table.csv")
    two = call("predict", fitted / "run", "--query", fitted / "table.csv", "--support", header)
    assert one[0] == two[0] == 0 and one[1] == two[1]


def test_outcomes_in_other_units_are_doubted(fitted, tmp_path, call):
    table, support = tmp_path / "one.csv", tmp_path / "s.csv"
    table.write_text("\n".join((fitted / "table.csv").read_text().splitlines()[:9]))
    for factor, doubted in ((1, False), (1000, True)):
        support.write_text(f"x,kind,day,y\n0.1,a,1,{0.2 * factor}\n0.2,b,1,{1.5 * factor}\n")
        status, _, err = call("predict", fitted / "run", "--query", table, "--support", support)
        said = (
            f"note: {support}: column 'y', row 1: 200.0 is far from everything that was learned "
            "from; are the units the same?"
        )
        assert status == 0 and err.startswith(said) == doubted and bool(err) == doubted


def test_suggest_names_a_row_of_the_pool(fitted, tmp_path, call):
    rows = (fitted / "table.csv").read_text().splitlines()
    support, pool = tmp_path / "support.csv", tmp_path / "pool.csv"
    support.write_text("\n".join(rows[:3]))
    pool.write_text("\n".join([rows[0], *rows[3:9]]))
    status, out, err = call(
        "suggest", fitted / "run", "--support", support, "--pool", pool, "--n", "2"
    )
    assert status == 0, err
    frame = table(out)
    assert (
        frame.height == 2 and frame["row"].n_unique() == 2 and frame["row"].is_between(1, 6).all()
    )
    assert pl.read_csv(pool)["x"][frame["row"][0] - 1] == frame["x"][0]
    assert "next" in err


def test_evaluate_json_is_one_object_and_nothing_else(fitted, call):
    command = ("evaluate", fitted / "run", "--shots", "0,2", "--splits", "1", "--json")
    status, out, _ = call(*command)
    result = json.loads(out)
    assert (
        status == 0 and list(result["shots"]) == ["0", "2"] and isinstance(result["sentence"], str)
    )
    entry = result["shots"]["2"]["method"]
    assert {"nll", "rmse", "crps", "coverage90", "calibration", "n_tasks", "ci"} <= set(entry)
    assert len(result["shots"]["2"]) >= 4
    assert result["sentence"].startswith("2 groups are too few to say whether meta-learning")
    for name, other in result["shots"]["2"].items():
        assert name == "method" or {"mean", "low", "high"} <= set(other["difference"]["nll"])


def test_evaluate_on_another_table_prints_a_table_and_the_sentence(fitted, call):
    status, out, _ = call("evaluate", fitted / "run", fitted / "table.csv", "--shots", "1")
    assert status == 0 and "method" in out and "observed rows" in out
    assert call("evaluate", fitted / "run", fitted / "table.csv", "--shots", "1")[1] == out


@pytest.mark.parametrize(
    ("kept", "splits", "words"),
    [(12, 1, ""), (5, 2, "5 groups were kept aside, too few to judge by: 2 splits"), (1, 5, "One")],
)
def test_few_groups_are_judged_on_more_splits(kept, splits, words, fitted, capsys):
    run = Run(fitted / "run")
    prior = SimpleNamespace(info={"groups": {"test": kept}})
    assert _enough(run, prior, None) == splits and words in capsys.readouterr().err
    assert _enough(run, prior, fitted / "table.csv") == 1
    assert _enough(Run(fitted), prior, None) == 1  # without a record nothing can be fitted again


@pytest.mark.slow
def test_evaluate_averages_over_splits(fitted, call):
    command = ("evaluate", fitted / "run", "--shots", "1", "--json", "--splits")
    one, two = (json.loads(call(*command, splits)[1]) for splits in ("1", "2"))
    for count in ("n_tasks", "n_groups"):  # no group is judged twice
        assert two["shots"]["1"]["method"][count] == 2 * one["shots"]["1"]["method"][count] == 4


def test_methods(call):
    status, out, _ = call("methods", "--json")
    names = [row["name"] for row in json.loads(out)["methods"]]
    assert status == 0 and {"maml", "process"} <= set(names) and len(set(names)) == len(names)
    assert "maml" in call("methods")[1]


def test_resume_of_a_finished_run_says_so(fitted, call):
    before = (fitted / "run" / "prior").read_bytes()
    status, out, _ = call("fit", fitted / "table.csv", *FIT, "--out", fitted / "run", "--resume")
    assert status == 0 and "finished" in out and (fitted / "run" / "prior").read_bytes() == before


def start(csv, out, *more):
    command = [
        sys.executable,
        "-m",
        "metaprior.cli",
        "fit",
        str(csv),
        *FIT,
        "--out",
        str(out),
        *more,
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def files_in(folder):
    return sum(len(names) for _, _, names in os.walk(folder))


@pytest.mark.slow
def test_kill_and_resume_give_the_same_bits(fitted, tmp_path):
    """Killed when the folder appears, then at each further stage file; every continuation loses
    nothing.
    """
    out, kills, wanted = tmp_path / "run", 0, 0
    for _ in range(12):
        process = start(fitted / "table.csv", out, "--resume")
        wanted = max(wanted + 1, files_in(out) + 1)
        while process.poll() is None and files_in(out) < wanted:
            time.sleep(0.002)
        if kills < 3 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
            process.wait()
            assert not (out / "prior").exists() or (out / "prior").read_bytes()
            continue
        assert process.wait() == 0, process.stderr.read()
        break
    assert kills >= 2
    assert {p.name for p in out.iterdir()} == {"prior", "run.json"}
    assert (out / "prior").read_bytes() == (fitted / "run" / "prior").read_bytes()
