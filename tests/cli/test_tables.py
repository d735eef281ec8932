"""Commands on tables that come as they are: from standard input, and on every terminal."""

import io
import json
import os
import subprocess
import sys

import pytest
from conftest import FIT, tiny_csv

from metaprior.cli.run import Run
from metaprior.errors import InputError
from metaprior.tables.reading import files


@pytest.fixture
def typed_in(monkeypatch):
    """Make standard input hold some bytes, as often as asked."""

    def give(data: bytes) -> None:
        class Input:
            buffer = io.BytesIO(data)

        files.standard_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", Input)

    yield give
    files.standard_input.cache_clear()


def test_a_table_from_standard_input(fitted, tmp_path, call, typed_in):
    """The same prior; the record says where the table was, and what needs it again is refused."""
    typed_in(tiny_csv().encode())
    status, _, err = call("fit", "-", *FIT, "--out", tmp_path / "run")
    assert status == 0, err
    assert "96 rows. 12 groups of 8 rows each, 2 of them kept aside" in err.splitlines()[0]
    prior = (tmp_path / "run" / "prior").read_bytes()
    assert prior == (fitted / "run" / "prior").read_bytes()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    before = json.loads((fitted / "run" / "run.json").read_text())
    assert record["table"] == "-" and record["table_sha256"] == before["table_sha256"]
    for command in (["evaluate", tmp_path / "run", "--splits", "2"], ["rerun", tmp_path / "run"]):
        status, _, err = call(*command)
        assert status == 2 and "standard input cannot be read again" in err, err


def test_an_unfinished_fit_of_standard_input_continues_with_the_same_table(tmp_path, typed_in):
    typed_in(tiny_csv().encode())
    run, options = Run(tmp_path / "run"), {"seed": 0}
    run.start(files.Path("-"), options)
    run.check_same(options, files.Path("-"))
    typed_in(tiny_csv(seed=1).encode())
    with pytest.raises(InputError, match="has changed since the run"):
        run.check_same(options, files.Path("-"))


@pytest.mark.slow
def test_rows_from_standard_input(fitted, call, typed_in):
    typed_in(b"x;kind;day\n0,1;a;1\n0,2;b;1\n")
    status, out, err = call("predict", fitted / "run", "--query", "-")
    assert status == 0 and len(out.splitlines()) == 3, err
    status, _, err = call("predict", fitted / "run", "--query", "-", "--support", "-")
    assert status == 2 and "can be one table only" in err


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_help_is_printed_on_every_terminal(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "metaprior", "fit", "--help"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0 and b"0, 1, ...;" in done.stdout, done.stderr


def test_tables_are_printed_on_every_terminal():
    code = (
        "from metaprior.system.terminal import print_anywhere; print_anywhere();"
        "from metaprior.report.tables import LEGEND; print(LEGEND, '\\u0142 \\udcff')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert done.stdout.startswith(b"^ better and v worse"), done.stderr
    assert done.stdout.rstrip().endswith(rb"\u0142 \udcff")
