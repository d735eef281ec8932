"""What all protocols share: cells that are kept, results that can be recomputed, errors that say
what to do.
"""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from PIL import Image

from metaprior.cli.learn import compare
from metaprior.cli.protocols import reproduce
from metaprior.errors import InputError
from metaprior.methods import METHODS
from metaprior.protocols import PROTOCOLS, get
from metaprior.protocols.page import number, print_tables, tables
from metaprior.protocols.protocol import (
    Anchor,
    Drawn,
    Figure,
    Metric,
    Outcome,
    Picture,
    Protocol,
    left_out,
)
from metaprior.protocols.results import aggregate
from metaprior.protocols.runner import Study, find_data, fingerprint
from metaprior.protocols.spread import standard_error

RAN = []


def run(method, seed, options, data, tell):
    tell(0.5, "halfway")
    RAN.append((method, seed))
    if method == "np" and seed == 1:
        raise FloatingPointError("planted")
    y = np.arange(4.0) + seed + len(method)
    figures = [Figure.of(f"K = {k}", "error", y + k) for k in options["shots"]]
    return Outcome(figures, {"task": np.arange(4), "y": y}, {"y": y}, facts={"steps": 3})


def draw(cells, options, data):
    assert all(isinstance(c, Drawn) and c.drawing["y"].shape == (4,) for c in cells)
    return [Picture("One", "A picture.", "<svg></svg>")]


TOY = Protocol(
    name="toy",
    title="A toy",
    lead="Nothing.",
    papers=("None",),
    choices=("No <b>choice</b>.",),
    metrics={"error": Metric("error", "units", "low")},
    methods=("maml", "np"),
    able=("maml", "np", "cnp"),
    budgets={"quick": {"shots": [1, 2]}, "full": {"shots": [1, 2, 5]}},
    run=run,
    draw=draw,
    references=("exact",),
    anchors=(Anchor("paper", "K = 1", "error", 1.25, "Table 1"),),
    sentence=lambda cells: f"{len(cells)} cells.",
)


def test_finished_cells_are_kept(tmp_path):
    """A second call runs what is missing only, and what failed; a third runs nothing."""
    RAN.clear()
    study = Study(TOY, tmp_path / "out")
    first = study.run(["maml"], 1)
    assert RAN == [("exact", 0), ("maml", 0)] and first["failed"] == []
    RAN.clear()
    second = Study(TOY, tmp_path / "out").run(["maml", "np"], 2)
    assert RAN == [("np", 0), ("exact", 1), ("maml", 1), ("np", 1)]
    assert [f["method"] for f in second["failed"]] == ["np"] and "planted" in second["failed"][0][
        "error"
    ]
    RAN.clear()
    Study(TOY, tmp_path / "out").run(["maml", "np"], 2)
    assert RAN == [("np", 1)]


@pytest.mark.parametrize("ending", [".json", ".npz", ".parquet"])
@pytest.mark.parametrize("harm", ["cut", "noise", "gone"])
def test_a_damaged_cell_is_named_and_runs_again(tmp_path, capsys, ending, harm):
    whole = Study(TOY, tmp_path / "out").run(["maml"], 1)
    path = (tmp_path / "out" / "cells" / "maml-0").with_suffix(ending)
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20] if harm == "cut" else b"x" * 300)
    RAN.clear()
    capsys.readouterr()
    again = Study(TOY, tmp_path / "out").run(["maml"], 1)
    assert RAN == [("maml", 0)]
    assert again["table"] == whole["table"]
    said = capsys.readouterr().err
    missing = ending == ".json" and harm == "gone"  # then the cell is not there
    assert ("maml-0 runs again" in said and str(path) in said) != missing


def test_results_can_be_recomputed(tmp_path):
    """The table is the mean over seeds of the means over the rows of predictions.parquet."""
    Study(TOY, tmp_path / "out").run(["maml"], 2)
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    rows = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    for entry in results["table"]:
        y = rows.filter(pl.col("method") == entry["method"])["y"].to_numpy()
        k = int(entry["setting"].removeprefix("K = "))
        assert entry["value"] == pytest.approx((y + k).mean(), abs=1e-12)
        within = y[:4].std(ddof=1) / 2  # of either seed: its tasks are the same
        assert entry["error"] == pytest.approx(
            max(within, 0.5), abs=1e-12
        )  # seeds differ by 1: 0.5 is theirs
        assert entry["count"] == 4 and entry["seeds"] == 2
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert (
        "Table 1" in page and "1.250" in page and "No &lt;b&gt;choice" in page and "<svg>" in page
    )


def test_aggregate_of_one_seed_keeps_the_error_over_tasks():
    rows = aggregate([{"method": "m", "seed": 0, "figures": [Figure("", "error", 2.0, 0.25, 9)]}])
    assert rows == [
        {
            "method": "m",
            "setting": "",
            "metric": "error",
            "value": 2.0,
            "error": 0.25,
            "count": 9,
            "seeds": 1,
            "behind": None,
        }
    ]


def test_more_seeds_are_not_more_tasks():
    """Two trainings judged on the same nine tasks: the error over those tasks stays."""

    def rows_of(*values):
        figures = [[Figure("", "error", v, 0.25, 9)] for v in values]
        return aggregate([{"method": "m", "seed": i, "figures": f} for i, f in enumerate(figures)])

    rows = rows_of(2.0, 2.2)
    assert (rows[0]["error"], rows[0]["count"], rows[0]["seeds"]) == (0.25, 9, 2)
    rows = rows_of(2.0, 4.0)
    assert rows[0]["error"] == 1.0  # between trainings


def test_figures_of_values():
    """NaN is left out, one value has no error, none is NaN."""
    two, one = Figure.of("", "m", [1.0, 3.0, np.nan]), Figure.of("", "m", [1.0])
    assert two[:-1] == ("", "m", 2.0, 1.0, 2, 2.0) and one[:-1] == ("", "m", 1.0, None, 1, 1.0)
    np.testing.assert_array_equal(two.each, [1.0, 3.0, np.nan])
    assert Figure.of("", "m", [0.0, 1.0, 50.0]).median == 1.0  # however far the last one is
    assert np.isnan(Figure.of("", "m", []).value)


def test_differences_are_taken_task_by_task():
    """Against the formulas: pairs where both have tasks, else both errors; the first tasks of a
    method that was judged on fewer; a wanted value from either side.
    """
    rng = np.random.default_rng(0)
    hard = 3 * rng.normal(size=40)
    values = {"maml": hard, "np": hard + 0.2 + 0.1 * rng.normal(size=40), "exact": hard - 9}
    figures = {name: Figure.of("", "error", v) for name, v in values.items()}
    figures |= {"cnp": Figure.of("", "error", values["np"][:9] + 0.5)}
    entries = [{"method": m, "seed": 0, "figures": [f]} for m, f in figures.items()]
    behind = {row["method"]: row["behind"] for row in aggregate(entries, TOY)}
    assert behind["maml"] is None and behind["exact"] is None
    gap = values["np"] - hard
    assert behind["np"] == pytest.approx([gap.mean(), gap.std(ddof=1) / 40**0.5])
    gap = gap[:9] + 0.5
    assert behind["cnp"] == pytest.approx([gap.mean(), gap.std(ddof=1) / 3])

    apart = [{"method": "np", "seed": 0, "figures": [Figure("", "error", 1.0, 0.3)]}]
    rows = aggregate([entries[0] | {"figures": [Figure("", "error", 0.5, 0.4)]}, *apart], TOY)
    assert rows[1]["behind"] == pytest.approx([0.5, 0.5])

    wanted = dataclasses.replace(TOY, metrics={"error": Metric("coverage", "", 0.9)})
    below, above = rng.binomial(20, 0.8, 60) / 20, rng.binomial(20, 0.95, 60) / 20
    pair = [Figure.of("", "error", v) for v in (below, above)]
    rows = aggregate(
        [{"method": m, "seed": 0, "figures": [f]} for m, f in zip(("np", "maml"), pair)], wanted
    )
    assert rows[1]["behind"] is None
    miss = (0.9 - below) - (above - 0.9)
    assert rows[0]["behind"] == pytest.approx([miss.mean(), miss.std(ddof=1) / 60**0.5])


def test_few_classes_make_a_wide_error():
    """The variance over draws of eight people, of whom each task has three, is what is stated:
    simulated.
    """
    rng = np.random.default_rng(0)
    means, errors, plain = [], [], []
    for _ in range(300):
        people = rng.normal(size=8)
        tasks = np.array([rng.choice(8, 3, replace=False) for _ in range(60)])
        values = people[tasks].mean(1) + 0.1 * rng.normal(size=60)
        means.append(values.mean())
        errors.append(standard_error(values, tasks))
        plain.append(standard_error(values))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.25)
    assert np.mean(plain) < 0.25 * np.std(means)
    assert standard_error(np.array([1.0])) is None
    assert standard_error(np.arange(4.0), np.zeros((4, 2), int)) == standard_error(np.arange(4.0))


def test_the_best_and_what_is_not_told_apart_are_marked(tmp_path):
    behind = {"np": [0.2, 0.14], "cnp": [1.0, 0.14], "versa": [0.2, 0.05]}
    results = {
        "table": [
            {
                "method": m,
                "setting": "",
                "metric": "error",
                "value": v,
                "error": 0.1,
                "count": 9,
                "seeds": 1,
                "behind": behind.get(m),
            }
            for m, v in (("exact", 0.0), ("maml", 1.0), ("np", 1.2), ("cnp", 2.0), ("versa", 1.2))
        ]
    }
    made, sources = tables(TOY, results)
    marks = {row["name"]: row["cells"][0][2] for row in made[0]["rows"]}
    assert marks == {"exact": False, "maml": True, "np": True, "cnp": False, "versa": False}
    assert sources == []
    assert [number(v) for v in (0.0, 1e-5, 0.5, 123.4, None)] == [
        "0.000",
        "1.0e-05",
        "0.500",
        "123.4",
        "–",
    ]


BAD = [
    (lambda p: Study(TOY, p, "slow"), "--budget is one of quick, full; got 'slow'"),
    (lambda p: Study(TOY, p).methods("mamel"), "did you mean 'maml'?"),
    (lambda p: Study(TOY, p).methods("snail"), "toy does not run snail; it runs maml, np, cnp."),
    (lambda p: Study(TOY, p).methods(" , "), "--methods is empty"),
    (
        lambda p: Study(TOY, p, changes=["shot=[1]"]),
        "--set takes NAME=VALUE with a NAME of shots; got 'shot=[1]'",
    ),
    (
        lambda p: Study(TOY, p, changes=["shots=1"]),
        "--set shots takes a value such as [1, 2]; got '1'",
    ),
    (lambda p: get("oracle"), "did you mean 'oracles'?"),
    (lambda p: reproduce("oraclez"), "did you mean 'oracles'?"),
    (lambda p: reproduce(), "Which protocol?"),
    (lambda p: reproduce("oracles", list_=True), "--list takes nothing beside it"),
    (lambda p: reproduce("oracles", seeds=0), "--seeds must be at least 1; got 0"),
    (lambda p: compare(p / "no.csv", task="g", target="y"), "no.csv: no such file."),
    (lambda p: compare(p, task="g", target="y"), "is a folder; give a file"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input(tmp_path, number):
    call, words = BAD[number]
    with pytest.raises(InputError) as error:
        call(tmp_path)
    assert words in str(error.value)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    """Other files, another budget, another protocol: refused, and nothing is written."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"holds something else \(thesis.tex\)"):
        Study(TOY, tmp_path / "mine").run(["maml"], 1)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    Study(TOY, tmp_path / "out").run(["maml"], 1)
    with pytest.raises(InputError, match="was run with --budget quick, now full"):
        Study(TOY, tmp_path / "out", "full").run(["maml"], 1)
    with pytest.raises(InputError, match=r"was run with other settings \(shots\)"):
        Study(TOY, tmp_path / "out", changes=["shots=[1]"]).run(["maml"], 1)
    other = dataclasses.replace(TOY, name="tox")
    with pytest.raises(InputError, match="holds results of toy"):
        Study(other, tmp_path / "out").run(["maml"], 1)


def test_a_setting_that_is_refused_is_corrected_in_the_same_folder(tmp_path):
    """The protocol refuses it when its folder has been begun."""

    def run(method, seed, options, data, tell):
        if options["shots"] == [0]:
            raise InputError("toy takes shots of at least 1.")
        return TOY.run(method, seed, options, data, tell)

    picky = dataclasses.replace(TOY, run=run)
    with pytest.raises(InputError, match="shots of at least 1"):
        Study(picky, tmp_path, changes=["shots=[0]"]).run(["maml"], 1)
    Study(picky, tmp_path, changes=["shots=[1]"]).run(["maml"], 1)
    assert json.loads((tmp_path / "run.json").read_text("utf-8"))["options"]["shots"] == [1]


def test_data_are_told_by_what_is_read_of_them(tmp_path):
    """Results in the data's folder and other files beside do not count; a byte of an image does."""
    data, out = tmp_path / "mine", tmp_path / "mine" / "out"
    for name in "ab":
        (data / name).mkdir(parents=True)
        Image.new("L", (16, 16)).save(data / name / "0.png")
    protocol = dataclasses.replace(
        TOY, load=lambda path, options: None, reads=get("few-shot-images").reads
    )

    def study():
        return Study(protocol, out, data=data)

    study().run(["maml"], 1)
    (data / "README.txt").write_text("unrelated")
    study().run(["maml"], 1)
    Image.new("L", (16, 16), 1).save(data / "a" / "0.png")
    with pytest.raises(InputError, match=r"mine: is not the data that .*out was run on"):
        study().run(["maml"], 1)


@pytest.mark.parametrize(
    "name",
    ["few-shot-images", "attributes", "ambiguous-generation", "reliability", "active-learning"],
)
def test_of_a_folder_of_data_a_protocols_own_files_count(tmp_path, name):
    for file in ("omniglot28.npz", "avatars_open_peeps32.npz", "views3d_furniture32.npz"):
        (tmp_path / file).write_bytes(b"a")
    protocol = get(name)
    first = fingerprint(tmp_path, protocol)
    (tmp_path / "more.png").write_bytes(b"a")
    assert fingerprint(tmp_path, protocol) == first
    for file in ("omniglot28.npz", "avatars_open_peeps32.npz", "views3d_furniture32.npz"):
        (tmp_path / file).write_bytes(b"b")
    assert fingerprint(tmp_path, protocol) != first


def test_where_data_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_data(None, {}.get) is None
    (tmp_path / "data").mkdir()
    assert str(find_data(None, {}.get)) == "data"
    assert str(find_data(None, {"METAPRIOR_DATA": "x"}.get)) == "x"
    assert find_data(tmp_path, {}.get) == tmp_path


def test_every_protocol_is_complete():
    """Names, settings and metrics of anchors agree; default methods can run; both budgets have the
    same options.
    """
    for name in PROTOCOLS:
        protocol = get(name)
        assert protocol.name == name
        assert set(protocol.methods) <= set(protocol.able)
        assert set(protocol.budgets) == {"quick", "full"}
        assert set(protocol.budgets["quick"]) == set(protocol.budgets["full"])
        assert {a.metric for a in protocol.anchors} <= set(protocol.metrics)
        json.dumps(protocol.budgets)
        said, others = left_out(protocol), [m for m in METHODS if m not in protocol.able]
        assert all(m in said for m in others) and bool(said) == bool(others)
        assert set(protocol.without) <= set(others)
        assert (
            said.count("(") == said.count(")") == 1 + said.count("; ") or not said
        )  # a reason each


def test_what_is_left_out_is_said_on_the_terminal_and_in_the_report(tmp_path, capsys):
    toy = dataclasses.replace(
        TOY,
        able=tuple(m for m in METHODS if m not in ("protonet", "nuts", "stack")),
        without={"nuts": "takes hours"},
    )
    results = Study(toy, tmp_path / "out").run(["maml"], 1)
    print_tables(toy, results)
    line = (
        "Left out of --methods all: protonet (predicts classes alone); nuts (takes hours); stack "
        "(mixes methods that are trained already, for one table)."
    )
    assert results["left_out"] == line and line in capsys.readouterr().out
    assert line in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert left_out(dataclasses.replace(TOY, able=tuple(METHODS))) == ""


def test_list_and_help_need_no_jax():
    code = (
        "import sys; from metaprior.cli.app import main\n"
        "try: main(['reproduce', '--list'])\n"
        "except SystemExit: pass\n"
        "print('jax' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "ambiguous-regression" in said and said.strip().endswith("False")
