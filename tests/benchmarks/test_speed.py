"""Measured speed: the arithmetic of ratios, the process that is timed, and counts of operations."""

import dataclasses
import json
import re
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import pytest
from conftest import ROOT

import metaprior
from benchmarks import oracle


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def line(who, cores, train, adapt=(1.0, 2.0, 3.0), **more):
    known = {"error": None, "agrees": None, "flops": 1e6, "bytes": 4e6}
    return {"who": who, "cores": cores, "train": list(train), "adapt": list(adapt)} | known | more


@pytest.fixture
def timed():
    """Results as a run has them."""
    from benchmarks import tabulate

    lines = [
        line("metaprior", 1, [900.0, 1000.0, 1100.0]),
        line("metaprior", 2, [1500.0, 1600.0, 1000.0]),
        line("higher", 1, [10.0, 9.0, 11.0], flops=None),
        line("higher", 2, [5.0], flops=None),
        line("torch.func", 1, [500.0], flops=None),
        line("torch.func", 2, [], [], error="RuntimeError: no compiler"),
    ]
    ratios = tabulate.ratios(lines, {"higher": 100.0, "torch.func": 3.1, "best": 2.0})
    case = {"what": "MAML", "batch": 25, "lines": lines, "ratios": ratios}
    single = {"import metaprior": {"values": [0.2, 0.1, 0.4], "target": 0.3, "unit": "s"}}
    facts = {
        "cpu": "a CPU",
        "cores": 2,
        "python": "3.11",
        "versions": {"jax": "0.10", "torch": None},
        "peak_gflops": {"1": 100.0, "2": 200.0},
    }
    return {"machine": facts, "notes": [], "cases": {"maml-1": case}, "single": single}


def test_ratios_take_the_better_number_of_cores_on_both_sides(timed):
    ratios = {r["peer"]: r for r in timed["cases"]["maml-1"]["ratios"]}
    assert (ratios["higher"]["ratio"], ratios["higher"]["met"]) == (150.0, True)
    assert (ratios["torch.func"]["ratio"], ratios["torch.func"]["met"]) == (3.0, False)
    assert (ratios["best"]["ratio"], ratios["best"]["met"]) == (3.0, True)


def test_the_table_says_what_was_measured_and_what_was_not(timed):
    from benchmarks import tabulate

    text = tabulate.markdown(timed)
    assert (
        "| maml-1 | higher | 150.0 | 100 | met |" in text
        and "| maml-1 | torch.func | 3.0 | 3.1 | missed |" in text
    )
    assert (
        "| metaprior | 1 | 1,000 | ±10 % |  | 2 |  | 1 % |" in text
    )  # 1,000 tasks of 10^6 operations, of 100 GFLOP/s
    assert "| higher | 1 | 10 | ±10 % | 100.0x | 2 | 1.0x |  |" in text
    assert (
        "RuntimeError: no compiler" in text
        and "| import metaprior | 0.2 s | ±75 % | 0.3 s | met |" in text
    )
    assert "torch None" not in text and "1 on" not in tabulate.plain(timed).replace("100.0 on", "")


def test_on_a_gpu_there_is_one_line_each_and_a_roofline(timed):
    from benchmarks import tabulate
    from benchmarks.cases import CASES

    assert CASES["bmaml-5"].lines(gpu=True) == [
        ("metaprior", "gpu"),
        ("torch.compile(whole step)", "gpu"),
        ("eager PyTorch", "gpu"),
        ("metaprior, its defaults", "gpu"),
    ]
    peaks = {
        "peak_gflops": {"gpu": 1000.0},
        "tf32_gflops": 8000.0,
        "bandwidth": 500.0,
        "precision": "highest",
        "device": "a GPU",
    }
    timed["machine"] |= peaks
    lines = [line("metaprior", "gpu", [1000.0]), line("higher", "gpu", [], error="there is none")]
    timed["cases"]["maml-1"] |= {"lines": lines, "ratios": []}
    text = tabulate.markdown(timed)
    # 1,000 tasks of 10^6 operations and 4 MB: a thousandth of 1,000 GFLOP/s and 0.8 percent of 500
    # GB/s
    assert "| metaprior | gpu | 1,000 | ±0 % |  | 2 |  | 0.1 % | 0.8 % |" in text
    assert (
        "| higher | gpu | there is none |  |  |  |  |  |  |" in text
        and "| of peak | of roofline |" in text
    )
    assert (
        "a GPU; a CPU, 2 cores;" in text
        and "1.0 TFLOP/s" in text
        and "'highest', and 8.0 in" in text
    )
    assert "maml-1, metaprior, gpu: tasks/s" in tabulate.figures(timed)


def test_without_a_gpu_it_says_so(capsys):
    from benchmarks import __main__ as command

    assert command.main(["--only", "maml-1", "--gpu"]) == 2
    assert "JAX sees no GPU here" in capsys.readouterr().err


def test_the_page_shows_what_was_measured_for_speed():
    from benchmarks import __main__ as command

    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    tables = command.tables_of_page()
    assert set(tables) == {"performance", "gpu"} and list(command.ON_GPUS.glob("*.json"))
    for name, text in tables.items():
        begin, end = oracle.marks(name)
        assert page.split(begin)[1].split(end)[0] == text
    assert len(page.splitlines()) <= 140  # two pages


def test_the_page_has_a_line_for_each_peer_and_what_is_asked(timed):
    from benchmarks import page

    text = page.markdown(timed)
    assert "| maml-1 | 1,500 | 1 % | 2 | higher | 10 | 2 | 150.0 | 100 met |" in text
    # What is asked of the best peer stands beside it; a peer's own bound would stand there else.
    assert "|  |  |  |  | torch.func | 500 | 2 | 3.0 | 2 met |" in text
    assert "| import metaprior | 0.2 s | ±75 % | 0.3 s met |" in text


def test_files_of_results_have_a_line_for_each_measured_line(timed, tmp_path):
    from benchmarks import files

    files.write(tmp_path / "now.json", files.rounded(timed), depth=4)
    text = (tmp_path / "now.json").read_text()
    assert json.loads(text) == timed and not list(tmp_path.glob("*.part"))
    lines = [one for one in text.splitlines() if one.strip().startswith('{"who"')]
    assert len(lines) == len(timed["cases"]["maml-1"]["lines"])
    assert files.rounded({"a": [1.23456789, 7, None]}) == {"a": [1.2346, 7, None]}


def test_against_names_what_got_slower(timed, monkeypatch, tmp_path, capsys):
    from benchmarks import __main__ as command

    old = json.loads(json.dumps(timed))
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    monkeypatch.setattr(command, "collect", lambda arguments: timed)
    arguments = ["--only", "maml-1", "--against", str(path)]
    assert command.main(arguments) == 0
    assert (
        "maml-1, metaprior, 1 core: tasks/s: 1,000 -> 1,000 (+0 % speed)" in capsys.readouterr().out
    )
    timed["cases"]["maml-1"]["lines"][0]["train"] = [800.0]
    timed["single"]["import metaprior"]["values"] = [0.1]
    assert command.main(arguments) == 1
    said = capsys.readouterr().out
    assert "SLOWER: maml-1, metaprior, 1 core: tasks/s: 1,000 -> 800 (-20 % speed)" in said
    assert said.count("SLOWER") == 1 and "import metaprior, s: 0.2 -> 0.1 (+100 % speed)" in said
    assert command.main([*arguments, "--tolerance", "0.3"]) == 0


def test_unequal_work_is_an_error(timed, monkeypatch, capsys):
    from benchmarks import __main__ as command

    monkeypatch.setattr(command, "collect", lambda arguments: timed)
    timed["cases"]["maml-1"]["lines"][2]["agrees"] = {"loss": 1e-7, "gradient": 2e-7}
    assert command.main(["--only", "maml-1"]) == 0
    timed["cases"]["maml-1"]["lines"][2]["agrees"] = {"loss": 1e-7, "gradient": 0.2}
    assert command.main(["--only", "maml-1"]) == 1
    assert (
        "UNEQUAL WORK: maml-1, higher: gradient 2.0e-01 away from ours" in capsys.readouterr().out
    )


def test_what_failed_is_named_beside_what_was_timed(monkeypatch, capsys, tmp_path):
    from benchmarks import __main__ as command
    from benchmarks import first, measure

    def some(repeats, say):
        seconds, said = first.took(
            ["-c", "import metaprior; print(metaprior.__file__)"], folder=tmp_path
        )
        assert said.strip() == str(
            measure.ROOT / "metaprior" / "__init__.py"
        )  # no other version that is installed
        yield "import metaprior", first.one([seconds], 60.0)
        first.took(["-c", "import nothing_of_this_name"])

    machine = {"cpu": "a CPU", "cores": 2, "python": "3.11", "versions": {}, "peak_gflops": {}}
    monkeypatch.setattr(measure, "machine", lambda gpu: machine)
    monkeypatch.setattr(first, "first", some)
    assert command.main(["--only", "first"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"import metaprior +[0-9.]+ s +60 s +met", said)
    assert (
        "\nFAILED: first: -c import nothing_of_this_name: ModuleNotFoundError: No module named"
        in said
    )


def test_programs_that_a_gpu_starts_are_those_of_loops_and_of_the_whole():
    from benchmarks.deviceless import started

    text = """HloModule jit_f

%fused (p: f32[2]) -> f32[2] {
  %inner = f32[2]{0} fusion(%p), kind=kLoop, calls=%other
}

%turn (p: (f32[2])) -> (f32[2]) {
  %a = f32[2]{0} fusion(%p), kind=kLoop, calls=%fused
  %b = (f32[2]{0}, s8[4]{0}) custom-call(%a), custom_call_target="__cublas$gemm"
  %c = f32[2]{0} add(%a, %a)
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %d = f32[2]{0} copy(%p)
  %e = (f32[2]{0}) while(%d), condition=%ends, body=%turn
}
"""
    assert started(text) == (2, 1)


def test_unknown_names_are_refused(capsys):
    from benchmarks import __main__ as command

    with pytest.raises(SystemExit):
        command.main(["--only", "maml-3"])
    assert "not maml-3" in capsys.readouterr().err


def test_without_torch_there_are_our_lines_and_a_sentence(monkeypatch):
    from benchmarks import __main__ as command
    from benchmarks import measure
    from benchmarks.cases import CASES

    asked = []

    def run(case, lines, *rest):
        asked.append(lines)
        return [line(who, cores, [1.0]) for who, cores in lines]

    monkeypatch.setattr(measure, "run", run)
    monkeypatch.setattr(measure, "machine", lambda gpu: {})
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    results = command.collect(command.parse(["--only", "maml-1,bmaml-5"]))
    assert asked == [
        [("metaprior", 1), ("metaprior", 2)],
        [("metaprior", 1), ("metaprior", 2), ("metaprior, its defaults", 2)],
    ]
    assert (
        "PyTorch is not installed" in results["notes"][0]
        and results["cases"]["maml-1"]["ratios"] == []
    )
    assert all(len(case.lines()) > len(case.lines(torch=False)) for case in CASES.values())


def test_a_process_is_timed_and_ended():
    from benchmarks import measure
    from benchmarks.cases import CASES

    lines = measure.run(
        CASES["maml-1"], [("metaprior", 1), ("nobody", 1)], 2, 0.05, lambda text: None
    )
    assert len(lines[0]["train"]) == len(lines[0]["adapt"]) == 2 and lines[0]["error"] is None
    assert min(lines[0]["train"]) > 100 and 1e5 < lines[0]["flops"] < 1e6
    assert lines[1]["train"] == [] and lines[1]["error"]  # there is no torch here, or no such peer


def test_operations_are_those_of_the_mathematics():
    from benchmarks.flops import count

    a, b = jnp.zeros((3, 4)), jnp.zeros((4, 5))
    assert count(jnp.matmul, a, b) == 2 * 3 * 4 * 5

    def looped(a, b):
        return jax.lax.scan(lambda c, _: (c + a @ b, None), jnp.zeros((3, 5)), None, length=7)[0]

    assert count(looped, a, b) == 7 * count(jnp.matmul, a, b)
    xla = (
        jax.jit(lambda a, b: jnp.stack([a @ b, a @ b + 1]))
        .lower(a, b)
        .compile()
        .cost_analysis()["flops"]
    )
    assert xla >= count(jnp.matmul, a, b)


@pytest.mark.parametrize("name", ["alpaca", "protonet"])  # of numbers and of classes
def test_a_device_agrees_with_itself(name):
    from benchmarks.agree import apart

    assert apart(name) == {"device": "cpu", "predictions": 0.0, "loss": 0.0, "gradient": 0.0}


def test_traffic_is_each_operand_and_result_once():
    from benchmarks.flops import traffic

    a, b = jnp.zeros((3, 4)), jnp.zeros((4, 5))
    assert traffic(jnp.matmul, a, b) == 4 * (3 * 4 + 4 * 5 + 3 * 5)

    # What tasks share is read once.
    def batched(a, b):
        return jax.vmap(lambda one: one @ b)(a)

    assert traffic(batched, jnp.zeros((7, 3, 4)), b) == 4 * (7 * 3 * 4 + 4 * 5 + 7 * 3 * 5)


def operations(batch, steps):
    """Of a meta-gradient."""
    from benchmarks.flops import count

    source = metaprior.sources.Sinusoid()
    spec, plain = metaprior.Spec(1, metaprior.heads.Gaussian(1)), dict(inner_lr=0.01, clip=None)
    maml = metaprior.methods.MAML.init(spec, key=jr.key(0), steps=steps, **plain)
    tasks = jax.vmap(source)(jr.split(jr.key(0), batch))

    def mean(net):
        method = dataclasses.replace(maml, net=net)
        return jax.vmap(lambda task: method.loss(task, key=jr.key(0)))(tasks).mean()

    import equinox as eqx

    return count(eqx.filter_grad(mean), maml.net)


def test_operations_grow_linearly_with_tasks_and_inner_steps():
    assert operations(8, 1) == pytest.approx(8 * operations(1, 1), rel=1e-6)
    one, six, seven, nine = (operations(1, steps) for steps in (1, 6, 7, 9))
    assert nine - seven == pytest.approx(2 * (seven - six), rel=0.02)
    assert one < six - 5 * (seven - six)  # by rows


def test_tasks_of_different_sizes_share_one_compiled_program():
    traced = []
    maml = metaprior.methods.MAML.init(
        metaprior.Spec(1, metaprior.heads.Gaussian(1)), key=jr.key(0)
    )

    @jax.jit
    def predict(support, x):
        traced.append(support.x.shape)
        return maml.posterior(support, key=jr.key(0)).predict(x, key=jr.key(0), samples=1).mean()

    for rows in (0, 3, 7, 10):
        x = jnp.zeros((rows, 1))
        predict(metaprior.pad(metaprior.Data(x, x, jnp.ones(rows, bool)), 10), jnp.zeros((4, 1)))
    assert traced == [(10, 1)] and predict._cache_size() == 1


def test_training_compiles_once_for_any_number_of_steps():
    traced = []
    tasks = metaprior.sources.Sinusoid(fewest=0)

    def source(key):
        traced.append(key)
        return tasks(key)

    maml = metaprior.methods.MAML.init(
        metaprior.Spec(1, metaprior.heads.Gaussian(1)), key=jr.key(0)
    )
    metaprior.fit(maml, source, key=jr.key(0), steps=7, every=3, batch=2)
    assert len(traced) == 1
