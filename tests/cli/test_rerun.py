"""`metaprior rerun`: the same seed on the same machine gives the same bits, and what is said where
it does not.
"""

import json
import shutil

import pytest
import test_reproduce

from metaprior import protocols
from metaprior.cli.app import main
from metaprior.protocols.runner import Study


@pytest.fixture
def rerun(call):
    """Status and result of `rerun --json`, or status and message of a refusal."""

    def run(folder):
        status, out, err = call("rerun", folder, "--json")
        return status, err if status == 2 else json.loads(out)

    return run


@pytest.fixture
def run(fitted, tmp_path):
    """A copy of the fitted folder whose record may be changed."""
    shutil.copytree(fitted / "run", tmp_path / "run")

    def change(**new):
        record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
        record["options"] |= new.pop("options", {})
        (tmp_path / "run" / "run.json").write_text(json.dumps(record | new))
        return tmp_path / "run"

    return change


def test_a_fit_gives_the_same_bits_again(run, rerun):
    before = {p.name: p.read_bytes() for p in run().iterdir()}
    status, result = rerun(run())
    assert status == 0 and result["agree"] and result["compared"] == ["prior"], result
    assert not result["differing"] and not result["facts"]
    assert {p.name: p.read_bytes() for p in run().iterdir()} == before


def test_another_seed_gives_other_bits_and_facts_that_changed_are_named(run, rerun):
    folder = run(options={"seed": 1}, versions={"python": "3.0.0"}, table_sha256="x")
    status, result = rerun(folder)
    assert status == 1 and not result["agree"] and result["differing"] == ["prior"]
    assert result["facts"]["python"][0] == "3.0.0" and result["facts"]["table_sha256"][0] == "x"


def test_the_record_says_what_a_run_depends_on(run):
    record = json.loads((run() / "run.json").read_text("utf-8"))
    assert {
        "command",
        "table",
        "table_sha256",
        "versions",
        "machine",
        "devices",
        "seed",
        "options",
    } <= set(record)
    assert {"platform", "processor", "backend", "device", "device_count"} <= set(record["machine"])


@pytest.mark.parametrize(
    "name", ["nothing", "no folder", "foreign", "list", "unfinished", "table", "lacking"]
)
def test_what_cannot_be_run_again(name, run, rerun, tmp_path):
    folder, word = tmp_path / "run", "run.json"
    if name == "no folder":
        folder, word = tmp_path / "nope", "no such folder"
    elif name == "nothing":
        folder = tmp_path / "empty"
        folder.mkdir()
    elif name == "foreign":
        run(format="something else")
    elif name == "list":
        (folder / "run.json").write_text("[1, 2")
    elif name == "unfinished":
        (folder / "prior").unlink()
        word = "--resume"
    elif name == "table":
        run(table=str(tmp_path / "gone.csv"))
        word = "gone.csv"
    else:
        (folder / "run.json").write_text('{"format": "metaprior run"}')
        word = "record"
    status, message = rerun(folder)
    assert (
        status == 2 and word in message and message.count("\n") == 1 and "Traceback" not in message
    ), message


def test_cells_of_a_protocol(tmp_path, rerun, monkeypatch):
    """Every finished cell is run again; one whose numbers changed is named."""
    monkeypatch.setattr(protocols, "get", lambda name: test_reproduce.TOY)
    out = tmp_path / "out"
    Study(test_reproduce.TOY, out).run(["maml"], 2)
    status, result = rerun(out)
    assert status == 0 and result["agree"] and len(result["compared"]) == 4, result
    entry = json.loads((out / "cells" / "maml-1.json").read_text("utf-8"))
    entry["figures"][0][2] += 1e-12
    (out / "cells" / "maml-1.json").write_text(json.dumps(entry))
    status, result = rerun(out)
    assert status == 1 and result["differing"] == ["maml, seed 1"]


@pytest.mark.slow
def test_a_comparison(fitted, tmp_path, rerun, capsys):
    arguments = ["--task", "g", "--target", "y", "--steps", "4", "--shots", "1", "--methods", "cnp"]
    arguments += ["--splits", "1"]
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(fitted / "table.csv"), *arguments, "--out", str(tmp_path / "out")])
    assert not stop.value.code
    capsys.readouterr()
    status, result = rerun(tmp_path / "out")
    assert status == 0 and result["agree"], result
