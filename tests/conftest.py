"""Shared by all tests: a compilation cache, the data folder, a tiny table, a prior fitted on it."""

import functools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from platformdirs import user_cache_path

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
if _WORKER.startswith("gw"):  # the other cores are other workers'
    os.environ.setdefault("PJRT_NPROC", "1")
else:  # workers have it from here, and share it: what two write at once is at worst compiled anew
    base = os.environ.get("METAPRIOR_CACHE") or user_cache_path("metaprior", appauthor=False)
    os.environ["METAPRIOR_CACHE"] = str(Path(base) / "tests")

from metaprior.system.terminal import use_cache  # noqa: E402

use_cache()

# For programs that run once: LLVM does not optimise, fusions are emitted without the detour through
# MLIR, and a program is one piece for LLVM, which saves a fifth of the time where it has one core.
# The last two depend on the version: XLA ends a process that is given a flag it does not know.
QUICK = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):
    QUICK += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


def pytest_configure(config):
    """Most of the time goes into compiling.

    Quick compilation of slower programs makes a third of it without the slow tests, and with them
    six tenths. A core for each worker saves a sixth of that.
    """
    os.environ.setdefault("XLA_FLAGS", QUICK)
    quick = "not slow" in config.option.markexpr
    if quick and _WORKER.startswith("gw") and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(_WORKER[2:]) % len(cores)]})


LONG = (
    "test_faults_slow",
    "test_devices",
    "test_defaults_slow",
    "test_oracles_slow",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """All but the quick parameters of a test are slow.

    Files of long slow tests come first: at the end no worker waits for minutes while another one
    has a test left.
    """
    for item in items:
        quick = item.get_closest_marker("quick")
        if quick is not None and item.callspec.id not in quick.args:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture
def ctrl_c():
    """SIGINT as at a terminal, here and in processes started here: what was started in the
    background ignores it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


@pytest.fixture(autouse=True)
def give_back_programs():
    """Compiled programs hold memory maps, of which a process has 65,530: some are given back long
    before that.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and "jax" in sys.modules and maps.read_bytes().count(b"\n") > 25_000:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real tables; absent on a user's machine, required in continuous integration.

    A public checkout cannot have them: there `WITHOUT_TABLES=true` says that the tests which read
    them are to be skipped.
    """
    if not DATA.is_dir():
        if os.environ.get("CI") == "true" and os.environ.get("WITHOUT_TABLES") != "true":
            pytest.fail(f"{DATA} is missing")
        pytest.skip("needs ../shared/data")
    return DATA


FIT = ["--task", "g", "--target", "y", "--steps", "4"]  # of such a table


def tiny_csv(groups: int = 12, rows: int = 8, seed: int = 0) -> str:
    """A small table: group g, number x, label kind, date-like day, number y."""
    rng = np.random.default_rng(seed)
    lines = ["g,x,kind,day,y"]
    for group in range(groups):
        level, slope = rng.normal(size=2)
        for _ in range(rows):
            x, kind = rng.normal(), "ab"[int(rng.integers(2))]
            y = level + slope * x + (kind == "a") + 0.1 * rng.normal()
            lines.append(f"g{group},{x:.4f},{kind},{group // 2},{y:.4f}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """`tiny.csv` in a folder of its own."""
    path = tmp_path / "tiny.csv"
    path.write_text(tiny_csv())
    return path


@pytest.fixture
def call(capsys):
    """Run a command here; gives status, stdout, stderr."""
    from metaprior.cli.app import main

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return run


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`once(name, make)`: a folder that `make(folder)` fills, once for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base if _WORKER == "main" else base.parent

    def made(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # another worker may have failed
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


def run_command(*arguments) -> None:
    """Run a command here, which must succeed."""
    from metaprior.cli.app import main

    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert not stop.value.code


@pytest.fixture(scope="session")
def fitted(once) -> Path:
    """A folder with `table.csv` and `run`, what `metaprior fit` makes of it."""

    def make(folder: Path) -> None:
        (folder / "table.csv").write_text(tiny_csv())
        run_command("fit", folder / "table.csv", *FIT, "--out", folder / "run")

    return once("fitted", make)


@pytest.fixture
def key():
    import jax

    return jax.random.key(0)


@pytest.fixture
def x64():
    """Double precision inside the test."""
    import jax

    with jax.enable_x64(True):
        yield


@functools.cache
def _drawing():
    import equinox as eqx
    import jax

    return eqx.filter_jit(lambda source, keys: jax.vmap(source)(keys))


def draw(source, key, count: int):
    """So many tasks of a source, stacked, by one program: operations alone would each be one."""
    import jax

    return _drawing()(source, jax.random.split(key, count))
