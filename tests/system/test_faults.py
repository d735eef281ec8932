"""Being stopped, two processes in one folder, groups that nothing can be learned from, and a full
disk.
"""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from conftest import FIT, tiny_csv

import metaprior
from metaprior.cli.run import Run
from metaprior.errors import InputError
from metaprior.heads import Gaussian
from metaprior.protocols.protocol import Protocol
from metaprior.protocols.runner import Study
from metaprior.sources.table import Table
from metaprior.system import faults
from metaprior.system.folder import continued
from metaprior.tables import culprits, stages
from metaprior.tables.checked import check_all
from metaprior.tables.plan import Plan
from metaprior.tables.read import Rows, rows_of
from metaprior.training import fit

# --- SIGTERM and Ctrl-C


@pytest.mark.parametrize(
    "number, ends",
    [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow), (signal.SIGINT, 130)],
)
def test_a_stopped_fit_says_how_to_continue_and_ends_with_the_same_bits(
    number, ends, fitted, tmp_path, call, monkeypatch, ctrl_c
):
    """The signal comes while a state is written: the state is kept, and the next step is not taken.
    Ctrl-C ends what the main thread does.
    """
    assert threading.current_thread() is threading.main_thread()  # where signals are handled
    save, seen = stages.files.save, []

    def saves(path, tree):
        save(path, tree)
        here = number == signal.SIGTERM or threading.current_thread() is threading.main_thread()
        if here and not seen and path.name.endswith(".state"):
            seen.append(path)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(stages.files, "save", saves)
    before = signal.getsignal(signal.SIGTERM)
    status, _, err = call("fit", fitted / "table.csv", *FIT, "--out", tmp_path / "run")
    assert (
        status == ends
        and err.splitlines()[-1]
        == "metaprior: stopped; continue with the same command and --resume."
    )
    assert seen[0].exists() and not (tmp_path / "run" / "prior").exists()
    assert signal.getsignal(signal.SIGTERM) is before
    status, _, err = call("fit", fitted / "table.csv", *FIT, "--out", tmp_path / "run", "--resume")
    assert status == 0, err
    assert (tmp_path / "run" / "prior").read_bytes() == (fitted / "run" / "prior").read_bytes()
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"prior", "run.json"}


STOPS = [
    # what runs when SIGTERM comes, and for how many seconds the process may live on
    ("time.sleep(60)", 1.5),
    (
        "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
        6.0,
    ),  # one long call, as of a compiled program
    (
        "with saving():\n  while not asked(): time.sleep(0.01)\n"
        "  time.sleep(0.5); print('saved'); raise Stopped",
        3.0,
    ),
    ("with saving():\n  os.kill(os.getpid(), 15); os.kill(os.getpid(), 15); time.sleep(60)", 3.0),
    # Where an object ends, Python drops what is raised.
    (
        "Ends = type('Ends', (), {'__del__': lambda self: time.sleep(1)})\nEnds()\ntime.sleep(60)",
        4.0,
    ),
]


@pytest.mark.parametrize("number", range(len(STOPS)))
def test_sigterm_ends_the_process_in_time(number):
    work, most = STOPS[number]
    code = (
        "import hashlib, os, sys, time\nfrom metaprior.system.faults import *\n"
        "print('on', flush=True)\n"
        "try:\n with stoppable('stopped.\\n', patient=True):\n"
        + "".join(f"  {line}\n" for line in work.split("\n"))
        + "except Stopped: print('stopped.', file=sys.stderr); sys.exit(STOPPED)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "on\n"
    time.sleep(0.2)
    process.terminate()
    began = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 143 and err == "stopped.\n", err
    assert time.monotonic() - began < most + 5  # this machine is shared
    assert out == ("saved\n" if "saved" in work else "")


def test_ctrl_c_is_not_lost_where_an_object_ends(ctrl_c):
    code = (
        "import os, signal, sys, time\nfrom metaprior.system.faults import *\n"
        "class Ends:\n def __del__(self): signal.raise_signal(signal.SIGINT); time.sleep(0.1)\n"
        "try:\n with stoppable('', patient=True):\n  Ends(); time.sleep(60)\n"
        "except KeyboardInterrupt: print('ended')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ended\n", "")


# --- one process in a folder


def test_two_processes_do_not_share_a_folder(tmp_path, call):
    """Refused, nothing changed, and nothing left behind."""
    (tmp_path / "t.csv").write_text(tiny_csv())
    out = tmp_path / "new" / "out"
    commands = [
        ("fit", tmp_path / "t.csv", *FIT),
        ("demo",),
        ("reproduce", "oracles"),
        ("compare", tmp_path / "t.csv", *FIT, "--methods", "maml"),
    ]
    with faults.alone(out):
        held = sorted(out.iterdir())
        for command in commands:
            status, _, err = call(*command, "--out", out)
            assert status == 2 and str(out) in err and "another process works in this folder" in err
            assert sorted(out.iterdir()) == held
    assert not out.parent.exists()
    out.mkdir(parents=True)
    with faults.alone(out):
        pass
    assert list(out.iterdir()) == []  # the user's own empty folder stays


def test_a_killed_process_holds_no_lock(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom metaprior.system.faults import alone\n"
        "with alone(Path(sys.argv[1])): print('on', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "on\n"
    with pytest.raises(InputError, match="another process"), faults.alone(tmp_path / "out"):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    assert (tmp_path / "out" / faults.LOCK).exists()
    Run(tmp_path / "out").check_new(resume=False)  # what it leaves is no reason to refuse
    assert continued(tmp_path / "out", "any", set()) is None
    with faults.alone(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


# --- bad groups

PLAN = Plan("g", ["y"], holdout=0.2)


def planted(**values):
    """The tiny table with the first value of some groups changed."""
    lines = [line.split(",") for line in tiny_csv().splitlines()]
    for group, value in values.items():
        next(line for line in lines if line[0] == group)[-1] = value
    return "\n".join(map(",".join, lines)) + "\n"


@pytest.mark.parametrize(
    "value,words",
    [
        ("", "no value"),
        ("inf", "inf is not a finite"),
        ("1e30", "1e+30 is so far"),
        ("1e300", "1e+300 is so far"),
    ],
)
def test_a_bad_group_is_named(value, words, tmp_path, call):
    (tmp_path / "t.csv").write_text(planted(g3=value))
    status, _, err = call("fit", tmp_path / "t.csv", *FIT, "--out", tmp_path / "new")
    assert status == 2 and err.count("\n") == 1 and not (tmp_path / "new").exists()
    for word in ("t.csv", "'y'", "row 25", "'g3'", words, "--skip-bad-tasks"):
        assert word in err, err


def test_bad_groups_are_left_out_on_request(tmp_path):
    (tmp_path / "t.csv").write_text(planted(g3="inf", g5="", g7="1e30"))
    rows = rows_of(tmp_path / "t.csv", "table")
    [checked] = check_all(rows, PLAN, skip={"g1": "a reason"})
    assert set(checked.frame["g"]) == {f"g{i}" for i in range(12)} - {"g1", "g3", "g5", "g7"}
    assert [note.split(":")[0] for note in checked.notes] == ["g g1", "g g5", "g g3", "g g7"]
    assert np.isfinite(checked.z).all() and np.abs(checked.z).max() < 6
    with pytest.raises(InputError, match="no group is left"):
        check_all(Rows(rows.frame.filter(pl.col("g") == "g3"), "t.csv"), PLAN, skip={})


def source_of(bad=()):
    """Eight groups of five rows; some have values whose squares are infinite."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(40, 1))
    for group in bad:
        y[5 * group + 1] = 1e25
    count = np.full(8, 5)
    arrays = [
        jnp.asarray(a) for a in (rng.normal(size=(40, 1)), y, np.arange(8) * 5, count, np.arange(8))
    ]
    return Table(*[a.astype(jnp.float32) if a.dtype.kind == "f" else a for a in arrays], 2, 3)


def test_the_culprit_of_a_loss_that_is_not_finite_is_found(key):
    """One group of eight is blamed, all of them are not, and a good fit has nothing to say."""
    method = metaprior.methods.MAML.init(metaprior.Spec(1, Gaussian(1)), key=key, width=8)
    options = dict(key=key, steps=20, every=10, batch=4)
    for bad in ((), (3,), range(8)):
        source = source_of(bad)
        fitted = fit(method, source, **options)
        if bad == (3,):
            with pytest.raises(culprits.BadTasks) as found:
                culprits.trouble(fitted, source, "maml", members=False)
            assert found.value.groups == [3] and 0 < fitted.skipped < 20
            assert all(
                bool(jnp.isfinite(a).all())
                for a in jax.tree.leaves(eqx.filter(fitted.method, eqx.is_array))
            )
            continue
        said = culprits.trouble(fitted, source, "maml", members=False)
        assert said is None if not bad else "no group is to blame" in said


def test_steps_without_a_finite_loss_are_skipped_and_counted(key):
    """One step in four changes nothing; ten in a row end the training."""

    class Sometimes(eqx.Module):
        source: Table
        share: float

        def __call__(self, key):
            task = self.source(key)
            broken = jax.random.uniform(jax.random.fold_in(key, 1)) < self.share
            return eqx.tree_at(lambda t: t.query.y, task, jnp.where(broken, jnp.nan, task.query.y))

    method = metaprior.methods.MAML.init(metaprior.Spec(1, Gaussian(1)), key=key, width=8)
    options = dict(key=key, steps=40, every=10, batch=1)
    fitted = fit(method, Sometimes(source_of(), 0.25), **options)
    assert fitted.outcome == "done" and 3 <= fitted.skipped <= 17  # 10 ± 2.5 standard deviations
    assert np.isfinite(fitted.losses).all() and not eqx.tree_equal(fitted.method, method)
    late = fit(method, Sometimes(source_of(), 1.0), **options | dict(every=20))
    assert late.skipped == 10  # what is left of a chunk is not tried
    none = fit(method, Sometimes(source_of(), 1.0), **options)
    assert (none.outcome, none.skipped, none.steps) == ("non-finite loss", 10, 10)
    assert eqx.tree_equal(none.method, method)


def test_a_fit_stops_with_the_culprits_name_or_goes_on_without_it(tmp_path, monkeypatch):
    """What training finds: an error that says where the state is, or the same fit without that
    group.
    """
    (tmp_path / "t.csv").write_text(tiny_csv())
    frame, asked = metaprior.tables.read.read(tmp_path / "t.csv"), []

    def learns(self, checked, checkpoint, *rest):
        asked.append((set(checked[0].frame["g"]), checkpoint, checked[0].notes))
        if "g3" in asked[-1][0]:
            raise culprits.BadTasks(["g3"])
        return self

    monkeypatch.setattr(metaprior.Prior, "_learn_all", learns)
    options = dict(task="g", target="y", checkpoint=tmp_path / "c")
    with pytest.raises(
        culprits.BadTask,
        match=r"'g3'.*last good state is in .*c: add --resume and --skip-bad-tasks",
    ):
        metaprior.Prior().fit(frame, **options)
    metaprior.Prior(skip_bad_tasks=True).fit(frame, **options)
    assert len(asked) == 3 and asked[2][0] == asked[1][0] - {"g3"}
    assert asked[2][1] == tmp_path / "c" / "without 1" and "g3: left out" in asked[2][2][0]


# --- a full disk

FULL = (
    "import resource, metaprior.tables.stages, metaprior.cli as c; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}));"
)


@pytest.mark.parametrize(
    "size", [100, 2000]
)  # of the largest file: the record does not fit, or the first stage
def test_a_disk_that_fills_up_in_a_fit(size, tmp_path):
    (tmp_path / "t.csv").write_text(tiny_csv())
    code = FULL.format(size) + f"c.main({['fit', 't.csv', *FIT, '--out', 'new']!r})"
    environment = {**os.environ, "METAPRIOR_CACHE": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (
        done.returncode == 2 and "the disk is full" in done.stderr and "--resume" in done.stderr
    ), done.stderr
    assert "Traceback" not in done.stderr and done.stderr.splitlines()[-1].startswith("metaprior: ")
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.state"))
    Run(tmp_path / "new").check_new(resume=True)


def fills(name, seed, options, data, tell):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_no_failure_of_a_method(tmp_path):
    """It ends a study, which would otherwise note it for one method after the other."""
    toy = Protocol(
        name="toy",
        title="A toy",
        lead="",
        papers=(),
        choices=(),
        metrics={},
        methods=("maml",),
        able=("maml",),
        budgets={"quick": {}},
        run=fills,
        draw=lambda *_: [],
    )
    with pytest.raises(OSError, match="No space left"):
        Study(toy, tmp_path / "out").run(["maml"], 1)


def test_only_columns_of_use_are_read(tmp_path):
    """In the file's order of rows, and all columns where one of those asked for is missing, as the
    complaint lists them.
    """
    path = tmp_path / "a [b]*.parquet"
    n = 5000
    pl.DataFrame(
        {"group": np.arange(n) // 10, "a": np.arange(n), "b": np.ones(n), "y": np.arange(n) % 7}
    ).write_parquet(path, row_group_size=100)
    frame = metaprior.tables.read.read(path, ["group", "y", "a", "y"])
    assert frame.columns == ["group", "y", "a"]
    assert frame["a"].to_list() == list(range(n))
    with pytest.raises(InputError, match="no column 'c'; the columns are group, a, b, y"):
        metaprior.Prior().fit(path, task="group", target="y", features=["c"])
