"""Several devices and several processes give what one gives."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

import metaprior
from metaprior.errors import InputError
from metaprior.heads import Gaussian
from metaprior.infer.descend import descend
from metaprior.nets.mlp import apply, mlp
from metaprior.system import files
from metaprior.system.devices import agree, by_first, join, mesh_of

# Trained for 20 steps; 6 tasks a step on 4 devices leave two devices for the particles.
ROWS = {
    "maml": ("MAML", {"width": 8}, 8),
    "ensemble": ("Ensemble", {"width": 8, "members": 4}, 6),
    "bmaml": ("BMAML", {"width": 8, "depth": 1, "particles": 4, "steps": 1, "inner_lr": 0.1}, 6),
    "cnp": ("CNP", {}, 15),
}
TRAIN = """
import json, sys
import jax, metaprior, optax
from metaprior.system import files
from metaprior.system.devices import mesh_of
from metaprior.heads import Gaussian

name, hyper, batch, out, state, steps = json.loads(sys.argv[1])
spec = metaprior.Spec(1, Gaussian(1))
method = getattr(metaprior.methods, name).init(spec, key=jax.random.key(0), **hyper)
fitted = metaprior.fit(
    method, metaprior.sources.Sinusoid(), key=jax.random.key(1), steps=steps, every=10,
    batch=batch, optimiser=optax.adam(1e-3), mesh=mesh_of("all", batch),
    state=files.load(state) if state else None,
)
files.save(out, fitted.state)
"""


def environment(devices: int) -> dict[str, str]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags.strip()}


def train(row: str, devices: int, out: Path, state: Path | None = None, steps: int = 20):
    name, hyper, batch = ROWS[row]
    told = json.dumps([name, hyper, batch, str(out), None if state is None else str(state), steps])
    subprocess.run(
        [sys.executable, "-c", TRAIN, told], env=environment(devices), check=True, timeout=300
    )
    return files.load(out).method


def distance(a, b) -> float:
    def leaves(m):
        return jax.tree.leaves(eqx.filter(m, eqx.is_inexact_array))

    return max(float(jnp.abs(x - y).max()) for x, y in zip(leaves(a), leaves(b), strict=True))


@pytest.mark.parametrize(
    "row",
    [
        "maml",
        pytest.param("ensemble", marks=pytest.mark.slow),
        pytest.param("bmaml", marks=pytest.mark.slow),
    ],
)
def test_four_devices_train_like_one(row, tmp_path):
    """Sums in another order: 20 steps of Adam at 1e-3 stay within a hundredth of one step."""
    four = train(row, 4, tmp_path / "four")
    assert distance(four, train(row, 1, tmp_path / "one")) < 1e-5


@pytest.mark.slow
def test_devices_do_not_wait_for_ever(tmp_path):
    """Products large enough for the runtime's pool of threads, in which one device waits for the
    others; 15 tasks are filled up to 16. Where a gradient is nearly zero Adam's first steps follow
    its sign, so that losses are compared.
    """
    task = metaprior.sources.Sinusoid()(jax.random.key(7))
    losses = [
        float(train("cnp", n, tmp_path / str(n)).loss(task, key=jax.random.key(8))) for n in (2, 1)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)


@pytest.mark.slow
def test_a_state_continues_at_another_number_of_devices(tmp_path):
    one = train("maml", 1, tmp_path / "one")
    train("maml", 4, tmp_path / "half", steps=10)
    whole = train("maml", 2, tmp_path / "whole", tmp_path / "half")
    assert distance(one, whole) < 1e-5


def test_a_mesh_is_refused_where_devices_are_not():
    assert mesh_of(1, 16) is None and mesh_of(None, 16) is None
    for wrong in (0, 10_000, "some", 1.5):
        with pytest.raises(InputError, match="devices is 'all' or a number from 1"):
            mesh_of(wrong, 16)
    with pytest.raises(InputError, match="devices is 'all'"):
        metaprior.Prior(devices=10_000).fit(tasks=[(np.zeros((3, 1)), np.arange(3.0))] * 6)


SLURM = [
    # tasks, machines, GPUs of the step here, those this task sees, and whether all of them are its
    # own; as Slurm 22 says it
    (2, 1, "4", "2,3", True),  # --gpus-per-task=2
    (2, 1, "2", "1", True),  # --gpus-per-task=1 or --ntasks-per-gpu=1
    (4, 1, "4", "0,1,2,3", False),  # -n 4 --gres=gpu:4
    (2, 2, "4", "0,1,2,3", True),  # --ntasks-per-node=1 --gres=gpu:4
    (2, 1, None, None, False),  # no GPUs
]


@pytest.mark.parametrize("tasks, machines, here, seen, own", SLURM)
def test_a_task_of_slurm_takes_the_gpus_that_are_its_own(
    tasks, machines, here, seen, own, monkeypatch
):
    told = {
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_NUM_NODES": str(machines),
        "SLURM_GPUS_ON_NODE": here,
        "CUDA_VISIBLE_DEVICES": seen,
    }
    for name, value in told.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    asked = []
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: asked.append(given))
    join()
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "3")
    join()
    assert asked == [(None, None, None, [] if own else None), (None, None, None, None)]


def test_one_process_agrees_with_itself():
    agree(lambda: ["a"], "never said")
    with pytest.raises(InputError, match="said"):
        by_first(lambda: (_ for _ in ()).throw(InputError("said")))


def table(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    slope, start = rng.normal(size=(2, 16, 1))
    x = rng.uniform(-1, 1, (16, 6))
    columns = {
        "task": np.repeat(np.arange(16), 6),
        "x": x.ravel(),
        "y": (start + slope * x).ravel(),
    }
    path = folder / "table.csv"
    pl.DataFrame(columns).write_csv(path)
    return path


def command(path: Path, out: Path, *more: str, steps: int = 20) -> list[str]:
    return [
        sys.executable,
        "-m",
        "metaprior.cli",
        "fit",
        str(path),
        "--task",
        "task",
        "--target",
        "y",
        "--method",
        "maml",
        "--steps",
        str(steps),
        "--out",
        str(out),
        *more,
    ]


def together(path: Path, out: Path, *more: str, **options: int) -> list[subprocess.Popen]:
    """Two processes that fit one table."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = (
        "--devices",
        "all",
        "--coordinator",
        f"127.0.0.1:{port}",
        "--processes",
        "2",
        "--process-id",
    )
    return [
        subprocess.Popen(
            command(path, out, *shared, str(i), *more, **options),
            env=environment(1),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for i in range(2)
    ]


def ends(running: list[subprocess.Popen]) -> list[tuple[str, str]]:
    """What each says on standard output and on standard error."""
    try:
        return [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()


@pytest.mark.slow
def test_two_processes_and_four_devices_fit_the_table_as_one_does(tmp_path):
    path = table(tmp_path)
    one, four, two = (tmp_path / name for name in ("one", "four", "two"))
    subprocess.run(command(path, one), env=environment(1), check=True, timeout=300)
    subprocess.run(
        command(path, four, "--devices", "all"), env=environment(4), check=True, timeout=300
    )
    running = together(path, two)
    said = [out for out, _ in ends(running)]
    assert [process.returncode for process in running] == [0, 0]
    assert (
        "prior from" in said[0] and "prior from" not in said[1]
    )  # the first alone speaks and writes
    assert sorted(entry.name for entry in two.iterdir()) == ["prior", "run.json"]
    asked = pl.DataFrame({"x": [-0.5, 0.5]})
    means = [
        metaprior.load(out / "prior").adapt().predict(asked)["mean"].to_numpy()
        for out in (one, four, two)
    ]
    np.testing.assert_allclose(means[1:], [means[0]] * 2, atol=1e-4)


STOPS = [
    # what comes to the first or the second of two processes, and how both end
    (signal.SIGTERM, 1, (143, 143)),  # both at the same place, with a state to continue from
    (signal.SIGINT, 0, (130, 2)),
    (signal.SIGKILL, 1, (2, -signal.SIGKILL)),
]
SAYS = {
    143: "metaprior: stopped; continue with the same command and --resume.\n",
    130: "metaprior: stopped; continue with the same command and --resume.\n",
    2: "metaprior: another process has ended; continue with the same command and --resume.\n",
}


@pytest.mark.slow
def test_the_end_of_one_process_ends_the_other(tmp_path, ctrl_c):
    """JAX by itself takes SIGTERM for itself, and where one process fails lets each wait for the
    other for minutes.
    """
    path = table(tmp_path)
    for number, (sent, to, expected) in enumerate(STOPS):
        out = tmp_path / "out"
        running = together(path, out, *["--resume"] * (number > 0), steps=1_000_000)
        state, began = out / "checkpoint" / "maml.state", time.monotonic()
        before = state.stat().st_mtime_ns if state.exists() else 0
        while not any(process.poll() for process in running) and time.monotonic() - began < 200:
            if state.exists() and state.stat().st_mtime_ns > before:
                break
            time.sleep(0.05)
        running[to].send_signal(sent)
        began = time.monotonic()
        said = ends(running)
        assert tuple(process.returncode for process in running) == expected, said
        assert time.monotonic() - began < 60
        assert all(
            text.endswith(SAYS[status])
            for (_, text), status in zip(said, expected, strict=True)
            if status in SAYS
        )
        assert {entry.name for entry in out.iterdir()} - {"lock.part"} == {"checkpoint", "run.json"}


MANY = ("--processes", "2", "--devices", "all")


def test_a_coordinators_port_that_is_taken_is_one_line(tmp_path, capsys):
    """JAX alone ends the process with a segmentation fault."""
    from metaprior.cli.app import main

    with socket.create_server(("", 0)) as taken, pytest.raises(SystemExit) as stopped:
        address = f"localhost:{taken.getsockname()[1]}"
        main(
            command(
                table(tmp_path),
                tmp_path / "out",
                *MANY,
                "--coordinator",
                address,
                "--process-id",
                "0",
            )[3:]
        )
    assert stopped.value.code == 2
    assert "cannot be used here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, said",
    [
        (("--devices", "none"), "--devices is a number of at least 1, or all; got 'none'"),
        (("--processes", "2"), "--coordinator, --processes and --process-id go together"),
        (
            ("--coordinator", "here", "--processes", "2", "--process-id", "0", "--devices", "all"),
            "is HOST:PORT",
        ),
        (
            ("--coordinator", "a:1", "--processes", "2", "--process-id", "2", "--devices", "all"),
            "from 0 to 1; got 2",
        ),
        (("--coordinator", "a:1", "--processes", "2", "--process-id", "0"), "add --devices all"),
        (
            (*MANY, "--coordinator", "localhost:99999", "--process-id", "0"),
            "a port is from 1 to 65535; got 99999",
        ),
        (
            (*MANY, "--coordinator", "no host:1234", "--process-id", "1"),
            "no host 'no host' is known here",
        ),
    ],
)
def test_wrong_devices_are_one_line(more, said, tmp_path, capsys):
    from metaprior.cli.app import main

    with pytest.raises(SystemExit) as stopped:
        main(command(table(tmp_path), tmp_path / "out", *more)[3:])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_memory_of_checkpointed_descent_hardly_grows_with_steps():
    """The same gradient. For 16 times as many steps the temporary memory of the compiled program
    grows as a logarithm does, where keeping all steps takes 16 times as much.
    """
    task = metaprior.sources.Sinusoid()(jax.random.key(0))
    net = mlp(1, 1, 64, 2, key=jax.random.key(1))
    params, rest = eqx.partition(net, eqx.is_inexact_array)
    head = Gaussian(1, scale=1.0)

    def gradient(steps, checkpoints):
        def risk(net, data):
            return head.risk(apply(net, data.x), data, key=jax.random.key(2))

        def loss(p):
            def inner(net):
                return risk(net, task.support)

            return risk(
                descend(inner, eqx.combine(p, rest), 0.01, steps, checkpoints=checkpoints),
                task.query,
            )

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        return compiled(params), compiled.memory_analysis().temp_size_in_bytes

    few, small = gradient(10, 4)
    _, large = gradient(160, 4)
    all_kept, all_small = gradient(10, None)
    _, all_large = gradient(160, None)
    assert large < 3 * small and large < 0.25 * all_large and small < all_small
    assert distance(few, all_kept) < 1e-6


CORES = """
import json, os, sys
import jax
from metaprior.system.devices import cores, mesh_of

for batch, here, started in json.loads(sys.argv[1]):
    if os.fork():  # a process each, which begins with everything imported
        assert os.wait()[1] == 0
        continue
    os.sched_getaffinity = lambda pid: set(range(here))
    if started:
        jax.devices()
    cores(batch)
    mesh = mesh_of("all", batch)
    print(len(jax.devices()), mesh and mesh.devices.shape, flush=True)
    os._exit(0)
"""


def seen(*cases: tuple[int, int, bool], **more: str) -> list[str]:
    """What processes make of the cores that they may use.

    A case is a number of tasks, how many cores there are, and whether JAX has started before.
    """
    chosen = ("XLA_FLAGS", "PJRT_NPROC")
    alone = {name: value for name, value in os.environ.items() if name not in chosen}
    run = subprocess.run(
        [sys.executable, "-c", CORES, json.dumps(cases)],
        env=alone | more,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_cores_become_devices_that_share_the_tasks_well():
    cases = {
        (16, 2, False): "2 (2, 1)",
        (16, 1, False): "1 None",
        (16, 12, False): "10 (10, 1)",  # 12 would compute 24 tasks
        (2, 6, False): "2 (2, 1)",
        (16, 2, True): "1 None",
    }
    assert seen(*cases) == list(cases.values())
    assert seen((16, 2, False), JAX_NUM_CPU_DEVICES="1") == ["1 None"]
    four = "--xla_force_host_platform_device_count=4"
    assert seen((16, 2, False), XLA_FLAGS=four) == ["4 (4, 1)"]
