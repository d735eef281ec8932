"""Bad input: one line that names file, column and row; status 2; nothing written or changed."""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import polars as pl
import pytest
from conftest import tiny_csv

from metaprior import Prior, Spec
from metaprior.cli.app import main
from metaprior.errors import InputError
from metaprior.heads import (
    Autoregressive,
    Categorical,
    Energy,
    Flow,
    Gaussian,
    Implicit,
    MixtureDensity,
    StudentT,
)
from metaprior.methods import METHODS
from metaprior.tables.stages import Stages

FIT = "fit t.csv --task g --target y --steps 4 --out new"


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


def complaint(arguments: str, capsys, monkeypatch, folder: Path) -> str:
    """Run a command in `folder`; it must fail as promised."""
    monkeypatch.chdir(folder)
    before = tree(folder)
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    out, err = capsys.readouterr()
    assert stop.value.code == 2, err
    assert (
        out == ""
        and "Traceback" not in err
        and err.startswith("metaprior: ")
        and err.count("\n") == 1
    )
    assert tree(folder) == before
    return err


def edit(row: int, column: int, value: str):
    """The tiny table with one cell changed; data rows count from 1."""
    lines = tiny_csv().splitlines()
    cells = lines[row].split(",")
    cells[column] = value
    lines[row] = ",".join(cells)
    return "\n".join(lines) + "\n"


def columns(**change: str) -> str:
    """The tiny table with whole columns set to one value."""
    lines = [line.split(",") for line in tiny_csv().splitlines()]
    for name, value in change.items():
        place = lines[0].index(name)
        for line in lines[1:]:
            line[place] = value
    return "\n".join(map(",".join, lines)) + "\n"


TABLES = [
    # name, the table t.csv, the command, what the message must hold
    ("missing file", None, FIT, ["t.csv", "no such file"]),
    ("empty file", "", FIT, ["t.csv", "empty"]),
    ("header only", "g,x,kind,day,y\n", FIT, ["t.csv", "no rows"]),
    ("not a table", "\x00\x01\x02\n\xff", FIT, ["t.csv"]),
    (
        "missing task column",
        tiny_csv(),
        FIT.replace("--task g", "--task cow"),
        ["t.csv", "'cow'", "kind"],
    ),
    (
        "missing target column",
        tiny_csv(),
        FIT.replace("--target y", "--target z"),
        ["t.csv", "'z'"],
    ),
    ("missing feature column", tiny_csv(), FIT + " --features x,weight", ["t.csv", "'weight'"]),
    ("missing split column", tiny_csv(), FIT + " --split-by month", ["t.csv", "'month'"]),
    ("held out by no column", tiny_csv(), FIT + " --holdout by=month", ["t.csv", "'month'"]),
    ("held out by the group", tiny_csv(), FIT + " --holdout by=g", ["t.csv", "'g'", "names them"]),
    ("held out by the target", tiny_csv(), FIT + " --holdout by=y", ["t.csv", "'y'", "target"]),
    ("held out by names", tiny_csv(), FIT + " --holdout by=kind", ["'kind'", "--split-by kind"]),
    ("no share", tiny_csv(), FIT + " --holdout 0.7", ["--holdout", "0.5", "'0.7'"]),
    (
        "two splits by a covariate",
        tiny_csv(),
        "compare t.csv --task g --target y --out new --holdout by=x --splits 2",
        ["--holdout by=x", "--splits"],
    ),
    ("target among the features", tiny_csv(), FIT + " --features x,y", ["'y'"]),
    ("target is the task", tiny_csv(), FIT.replace("--target y", "--target g"), ["'g'"]),
    ("one group", columns(g="a"), FIT, ["t.csv", "'g'", "one group"]),
    ("target with text", edit(5, 4, "tall"), FIT, ["t.csv", "'y'", "row 5", "tall"]),
    ("target with text far down", edit(95, 4, "tall"), FIT, ["t.csv", "'y'", "row 95", "tall"]),
    ("target missing far down", edit(95, 4, ""), FIT, ["t.csv", "'y'", "row 95"]),
    ("target missing", edit(7, 4, ""), FIT, ["t.csv", "'y'", "row 7", "--drop-missing-targets"]),
    ("target infinite", edit(9, 4, "inf"), FIT, ["t.csv", "'y'", "row 9"]),
    ("target not a number", edit(9, 4, "NaN"), FIT, ["t.csv", "'y'", "row 9"]),
    ("feature beyond numbers", edit(9, 1, "1e200"), FIT, ["t.csv", "'x'", "1e+30"]),
    ("a longer row", edit(5, 4, "1,2"), FIT, ["t.csv", "line 6", "6 fields", "has 5"]),
    (
        "a title above the names",
        "Cows of 2013\n" + tiny_csv(),
        FIT,
        ["t.csv", "line 1 has 1 field", "5", "names of the columns"],
    ),
    ("misspelt task", tiny_csv(), FIT.replace("--task g", "--task G"), ["did you mean 'g'"]),
    ("JSON", '[{"g": 1, "y": 2}]', FIT, ["t.csv", "holds JSON", "polars"]),
    ("a web page", "<!DOCTYPE html><table></table>", FIT, ["t.csv", "web page"]),
    ("an address", None, FIT.replace("t.csv", "https://a.b/t.csv"), ["address", "download"]),
    ("task missing", edit(4, 0, ""), FIT, ["t.csv", "'g'", "row 4"]),
    (
        "a group called NA",
        edit(4, 0, "NA"),
        FIT,
        ["t.csv", "'g'", "row 4", "'NA' counts as missing", "--keep-na", "--skip-bad-tasks"],
    ),
    (
        "no numbers where there should be",
        tiny_csv(),
        FIT + " --numeric kind",
        ["t.csv", "'kind'", "row 1", "is not a number"],
    ),
    (
        "no dates where there should be",
        tiny_csv(),
        FIT + " --date kind",
        ["t.csv", "'kind'", "row 1", "is not a date"],
    ),
    (
        "a column of two kinds",
        tiny_csv(),
        FIT + " --numeric x --categorical x",
        ["t.csv", "'x'", "two kinds"],
    ),
    ("a kind of no column", tiny_csv(), FIT + " --numeric z", ["t.csv", "'z'", "kind"]),
    ("a missing value of no column", tiny_csv(), FIT + " --missing z=-9", ["t.csv", "'z'"]),
    ("no numeric columns", tiny_csv(), FIT + " --numeric ,", ["--numeric", "empty"]),
    ("too many classes", tiny_csv(30), FIT + " --classes", ["t.csv", "'y'", "238 classes", "200"]),
    (
        "one set of groups",
        edit(4, 3, "5"),
        FIT + " --split-by kind",
        ["t.csv", "one set of groups", "'kind'"],
    ),
    ("constant target", columns(y="3.5"), FIT, ["t.csv", "'y'", "3.5"]),
    ("log of a negative target", tiny_csv(), FIT + " --target-scale log", ["t.csv", "'y'", "row"]),
    (
        "log of classes",
        tiny_csv(),
        FIT.replace("--target y", "--target kind") + " --target-scale log",
        ["t.csv", "'kind'", "logarithm"],
    ),
    (
        "one of two targets missing",
        tiny_csv(),
        FIT.replace("--target y", "--target y,z"),
        ["t.csv", "'z'", "kind"],
    ),
    (
        "the same target twice",
        tiny_csv(),
        FIT.replace("--target y", "--target x,y,x"),
        ["t.csv", "'x'", "twice"],
    ),
    ("no target", tiny_csv(), FIT.replace("--target y", "--target ,"), ["--target"]),
    (
        "one of two targets is the task",
        tiny_csv(),
        FIT.replace("--target y", "--target y,g"),
        ["t.csv", "'g'"],
    ),
    (
        "second target constant",
        columns(x="2.5"),
        FIT.replace("--target y", "--target y,x"),
        ["t.csv", "'x'", "2.5"],
    ),
    (
        "second target missing",
        edit(7, 1, ""),
        FIT.replace("--target y", "--target y,x"),
        ["t.csv", "'x'", "row 7"],
    ),
    (
        "second target among the features",
        tiny_csv(),
        FIT.replace("--target y", "--target y,x --features kind,x"),
        ["t.csv", "'x'", "target"],
    ),
    (
        "log of a negative second target",
        tiny_csv(),
        FIT.replace("--target y", "--target kind,y --target-scale log"),
        ["t.csv", "'y'", "row", "logarithm"],
    ),
    (
        "a method for one of two targets",
        tiny_csv(),
        FIT.replace("--target y", "--target y,kind --method alpaca"),
        ["alpaca", "'kind'", "numbers"],
    ),
    ("duplicate columns", tiny_csv().replace("g,x,kind", "g,x,x"), FIT, ["t.csv", "'x'"]),
    ("unknown method", tiny_csv(), FIT + " --method proces", ["proces", "did you mean", "process"]),
    ("no steps", tiny_csv(), FIT.replace("--steps 4", "--steps 0"), ["--steps", "0"]),
    ("negative seed", tiny_csv(), FIT + " --seed -1", ["--seed"]),
    ("seed with letters", tiny_csv(), FIT + " --seed one", ["--seed", "one"]),
    ("no features", tiny_csv(), FIT + " --features ,", ["--features"]),
    ("a feature twice", tiny_csv(), FIT + " --features x,kind,x", ["t.csv", "'x'", "twice"]),
    (
        "forgotten option",
        tiny_csv(),
        "fit t.csv --target y --out new",
        ["fit needs --task", "fit --help"],
    ),
    (
        "another option",
        tiny_csv(),
        FIT.replace("--task", "--group"),
        ["fit needs --task", "does not know --group"],
    ),
    (
        "misspelt option",
        tiny_csv(),
        FIT.replace("--task", "--taks"),
        ["did you mean --task instead of --taks"],
    ),
    ("option without a value", tiny_csv(), FIT + " --seed", ["--seed requires an argument"]),
    ("unknown command", tiny_csv(), "fti t.csv", ["fti", "fit"]),
    ("table is a folder", tiny_csv(), FIT.replace("t.csv", "sub"), ["sub", "folder"]),
]


@pytest.mark.parametrize("name,text,command,words", TABLES, ids=[row[0] for row in TABLES])
def test_table(name, text, command, words, tmp_path, capsys, monkeypatch):
    (tmp_path / "sub").mkdir()
    if text is not None:
        (tmp_path / "t.csv").write_text(text, "latin-1")
    message = complaint(command, capsys, monkeypatch, tmp_path)
    for word in words:
        assert word.lower() in message.lower(), message


OUTS = [
    ("holds something else", {"new/thesis.txt": "dear"}, ["new", "thesis.txt"]),
    ("is a file", {"new": "dear"}, ["new", "file"]),
    ("lies in a file", {"a": "dear"}, ["a", "file"]),
    ("holds a finished prior", {"new/run.json": "{}", "new/prior": "p"}, ["new", "finished"]),
    ("holds an unfinished run", {"new/run.json": "{}"}, ["new", "--resume"]),
]


@pytest.mark.parametrize("name,files,words", OUTS, ids=[row[0] for row in OUTS])
def test_out(name, files, words, tmp_path, capsys, monkeypatch):
    (tmp_path / "t.csv").write_text(tiny_csv())
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    command = FIT.replace("--out new", "--out a/new") if "a" in files else FIT
    message = complaint(command, capsys, monkeypatch, tmp_path)
    assert all(word in message for word in words), message


@pytest.fixture
def folder(fitted, tmp_path):
    """A folder with a prior `run` and tables of a new group."""
    (tmp_path / "run").mkdir()
    for name in ("prior", "run.json"):
        (tmp_path / "run" / name).write_bytes((fitted / "run" / name).read_bytes())
    (tmp_path / "t.csv").write_text(tiny_csv())
    (tmp_path / "q.csv").write_text("x,kind,day\n0.1,a,1\n0.2,b,1\n")
    (tmp_path / "s.csv").write_text("x,kind,day,y\n0.1,a,1,2.0\n0.2,b,1,1.5\n")
    return tmp_path


def lists() -> bytes:
    """A Parquet file whose column x holds a list in each row."""
    file = io.BytesIO()
    pl.DataFrame({"x": [[1.0, 2.0]], "kind": ["a"], "day": [1], "y": [2.0]}).write_parquet(file)
    return file.getvalue()


LISTS = lists()
WEEKS = b"g,x,kind,day,y\na,1,a,1,2\na,2,a,1,\n"
PREDICT = "predict run --support s.csv --query q.csv"
SUGGEST = "suggest run --support s.csv --pool q.csv"
USES = [
    # name, files to write, the command, what the message must hold
    ("no folder", {}, PREDICT.replace("run", "nope"), ["nope", "no such"]),
    ("not a run", {"other/a": b"1"}, PREDICT.replace("run", "other"), ["other", "prior"]),
    ("unfinished", {"half/run.json": b"{}"}, PREDICT.replace("run", "half"), ["half", "--resume"]),
    ("pickled prior", {"run/prior": pickle.dumps({"a": 1})}, PREDICT, ["prior"]),
    ("foreign prior", {"run/prior": b"PK\x03\x04 not ours"}, PREDICT, ["prior"]),
    ("empty prior", {"run/prior": b""}, PREDICT, ["prior"]),
    ("query file missing", {}, PREDICT.replace("q.csv", "z.csv"), ["z.csv", "no such file"]),
    ("support file missing", {}, PREDICT.replace("s.csv", "z.csv"), ["z.csv", "no such file"]),
    ("query lacks a feature", {"q.csv": b"kind,day\na,1\n"}, PREDICT, ["q.csv", "'x'"]),
    (
        "query with a word",
        {"q.csv": b"x,kind,day\n1,a,1\nlong,a,1\n"},
        PREDICT,
        ["q.csv", "'x'", "row 2", "long"],
    ),
    ("query empty", {"q.csv": b"x,kind,day\n"}, PREDICT, ["q.csv", "no rows"]),
    ("support lacks the target", {"s.csv": b"x,kind,day\n1,a,1\n"}, PREDICT, ["s.csv", "'y'"]),
    (
        "support target missing",
        {"s.csv": b"x,kind,day,y\n1,a,1,2\n1,a,1,\n"},
        PREDICT,
        ["s.csv", "'y'", "row 2"],
    ),
    (
        "support target word",
        {"s.csv": b"x,kind,day,y\n1,a,1,2\n1,a,1,u\n"},
        PREDICT,
        ["s.csv", "'y'", "row 2"],
    ),
    (
        "support target far off",
        {"s.csv": b"x,kind,day,y\n1,a,1,2\n1,a,1,1e30\n"},
        PREDICT,
        ["s.csv", "'y'", "row 2", "1e+30"],
    ),
    ("support of one line", {"s.csv": b"0.1,a,1,2.0\n"}, PREDICT, ["s.csv", "'x'", "0.1"]),
    (
        "query of lists",
        {"q.parquet": LISTS},
        PREDICT.replace("q.csv", "q.parquet"),
        ["q.parquet", "'x'", "List"],
    ),
    (
        "support of lists",
        {"s.parquet": LISTS},
        PREDICT.replace("s.csv", "s.parquet"),
        ["s.parquet", "'x'", "List"],
    ),
    (
        "evaluated target far off",
        {"t.csv": b"g,x,kind,day,y\na,1,a,1,2\na,1,a,1,-1e200\n"},
        "evaluate run t.csv",
        ["t.csv", "'y'", "row 2"],
    ),
    (
        "output exists",
        {"p.csv": b"my,thesis\n"},
        PREDICT + " --out p.csv",
        ["p.csv", "something else"],
    ),
    ("output is a folder", {"p/a": b"1"}, PREDICT + " --out p", ["p", "not a file"]),
    ("pool lacks a feature", {"q.csv": b"kind,day\na,1\n"}, SUGGEST, ["q.csv", "'x'"]),
    ("pool too small", {}, SUGGEST + " --n 3", ["q.csv", "2 rows"]),
    ("nothing to suggest", {}, SUGGEST + " --n 0", ["--n"]),
    ("unknown goal", {}, SUGGEST + " --goal maximize", ["--goal", "maximize", "maximise"]),
    (
        "a rule of another goal",
        {},
        SUGGEST + " --goal maximise --by bald",
        ["by is one of improvement", "for the goal maximise", "bald is for the goal learn"],
    ),
    ("a rule without its goal", {}, SUGGEST + " --by ucb", ["ucb is for the goal maximise or"]),
    ("a target to learn", {}, SUGGEST + " --target y", ["target is for maximise and minimise"]),
    (
        "no such target to seek",
        {},
        SUGGEST + " --goal minimise --target z",
        ["target is one of 'y'", "'z'"],
    ),
    ("unknown criterion", {}, SUGGEST + " --by entropi", ["--by", "entropi", "entropy"]),
    (
        "several groups observed",
        {"s.csv": b"g,x,kind,day,y\na,1,a,1,2\nb,1,a,1,3\n"},
        PREDICT,
        ["s.csv: holds 2 values of 'g'", "for one group", "whole table in place of --support"],
    ),
    (
        "several groups asked",
        {"q.csv": b"g,x,kind,day\na,1,a,1\nb,1,a,1\n"},
        SUGGEST,
        ["q.csv: holds 2 values of 'g'", "for one group"],
    ),
    ("neither table nor query", {}, "predict run", ["a table of new groups, or --query"]),
    ("both table and query", {}, PREDICT + " t.csv", ["t.csv", "leave --query and --support out"]),
    ("every row observed", {}, "predict run t.csv", ["t.csv", "every row holds the target"]),
    (
        "no such column to keep",
        {"q.csv": WEEKS},
        "predict run q.csv --keep wek",
        ["no column 'wek'"],
    ),
    ("a row of no group", {"q.csv": WEEKS + b",1,a,1,\n"}, "predict run q.csv", ["'g', row 3"]),
    ("shots with a letter", {}, "evaluate run --shots 1,a", ["--shots", "1,a"]),
    ("negative shots", {}, "evaluate run --shots -1", ["--shots"]),
    ("no splits", {}, "evaluate run --splits 0", ["--splits"]),
    (
        "no column to order by",
        {},
        "evaluate run --splits 1 --order z",
        ["no column 'z' of numbers or dates", "x, day"],
    ),
    (
        "order by text",
        {"t.csv": tiny_csv().encode()},
        "evaluate run t.csv --order kind",
        ["t.csv: no column 'kind' of numbers or dates"],
    ),
    (
        "table lacks the target",
        {"t.csv": b"g,x,kind,day\na,1,a,1\n"},
        "evaluate run t.csv",
        ["t.csv", "'y'"],
    ),
    (
        "table lacks a feature",
        {"t.csv": b"g,kind,day,y\na,a,1,2\na,a,1,3\n"},
        "evaluate run t.csv",
        ["t.csv", "'x'"],
    ),
    ("evaluation table missing", {}, "evaluate run z.csv", ["z.csv", "no such file"]),
    ("other options", {}, FIT.replace("new", "run --resume --seed 3"), ["--seed", "0", "3"]),
]


@pytest.mark.parametrize("name,files,command,words", USES, ids=[row[0] for row in USES])
def test_use(name, files, command, words, folder, capsys, monkeypatch):
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    message = complaint(command, capsys, monkeypatch, folder)
    for word in words:
        assert word.lower() in message.lower(), message


OPTIONS = [
    # method, head, options of init, what the message must hold
    ("dkt", Gaussian(1), dict(kernel="rfb"), ["'rfb'", "'rbf'", "'structured'"]),
    ("dkt", Gaussian(2), {}, ["one outcome", "2"]),
    ("versa", Gaussian(1), dict(samples=0), ["VERSA", "0"]),
    ("ensemble", Gaussian(1), dict(members=0), ["Ensemble", "0"]),
    ("ensemble", Gaussian(1), dict(base="mamel"), ["'mamel'", "'maml'"]),
    ("ensemble", Gaussian(1), dict(base="bnn"), ["Ensemble", "bnn"]),
    ("nuts", Gaussian(1), dict(base="maml"), ["NUTS", "MAML has none", "abml", "alpaca", "bnn"]),
    ("nuts", Gaussian(1), dict(base="platipus"), ["NUTS", "PLATIPUS has none"]),
    ("nuts", Gaussian(1), dict(base="llama"), ["NUTS", "LLAMA has none", "precision"]),
    ("platipus", Gaussian(1), dict(objective="ml"), ["PLATIPUS", "'iwae' or 'elbo'", "'ml'"]),
    ("llama", Gaussian(1), dict(steps=0), ["LLAMA", "at least 1 step", "0"]),
    ("alpaca", MixtureDensity(2), {}, ["ALPaCA", "MixtureDensity"]),
    ("process", MixtureDensity(2), {}, ["Process", "MixtureDensity"]),
    ("dkt", Implicit.init(key=jax.random.key(0)), {}, ["Process", "Implicit"]),
    ("ar_cnp", Gaussian(1), dict(base="nq"), ["'nq'"]),
    ("cnp", Gaussian(1), dict(components=-1), ["MixtureDensity", "-1"]),
    ("convcnp", Gaussian(1), {}, ["ConvCNP", "one input column", "2"]),
    ("convcnp", Gaussian(1), dict(points=8), ["ConvCNP", "16 points", "8"]),
    ("convcnp", Gaussian(1), dict(spacing=0.0), ["ConvCNP", "spacing", "0.0"]),
    ("stack", Gaussian(1), {}, ["Stack"]),
    ("maml", Gaussian(1), dict(steps=-1), ["MAML", "steps", "-1"]),
    ("maml", Gaussian(1), dict(inner_lr="learned"), ["MAML", "inner_lr", "'learned'"]),
    ("matching", Categorical(2), dict(scale=0.0), ["MatchingNet", "scale", "0.0"]),
    ("matching", Categorical(2), dict(pseudo_count=-1.0), ["MatchingNet", "pseudo_count", "-1.0"]),
    ("matching", Gaussian(1), {}, ["predicts classes", "Gaussian"]),
    ("metaqda", Gaussian(1), {}, ["MetaQDA", "predicts classes", "Gaussian"]),
    ("metaqda", Categorical(2), dict(weight=0.0), ["MetaQDA", "0.0", "32.0"]),
    ("metaqda", Categorical(2), dict(df=-1.0), ["MetaQDA", "1.0", "-1.0"]),
    ("metaqda", Categorical(2), dict(embedding=-1), ["MetaQDA", "embedding", "-1"]),
    ("gnp", Categorical(2), {}, ["GNP", "Categorical"]),
    ("agnp", MixtureDensity(2), {}, ["GNP", "MixtureDensity"]),
    ("gnp", Gaussian(1), dict(encoder="lstm"), ["GNP", "'deep set', 'attention'", "'lstm'"]),
    ("gnp", Gaussian(1), dict(rank=0), ["GNP", "rank", "0"]),
]


@pytest.mark.parametrize("name,head,options,words", OPTIONS)
def test_options(name, head, options, words, key):
    with pytest.raises((TypeError, ValueError)) as error:
        METHODS[name].init(Spec(2, head), key=key, **options)
    for word in words:
        assert word in str(error.value)


PRIORS = [
    # options of a prior and of its fit, and what the message must hold
    (dict(steps=1.5), {}, ["steps is a whole number", "at least 1", "1.5"]),
    (dict(steps=True), {}, ["steps is a whole number", "True"]),
    (dict(seed=-1), {}, ["seed is a whole number", "at least 0", "-1"]),
    (dict(part=-1), {}, ["part is a whole number", "at least 0", "-1"]),
    (dict(method="mixd"), {}, ["no method 'mixd'", "did you mean 'mixed'"]),
    (dict(holdout=0.6), {}, ["holdout", "0.5", "0.6"]),
    (dict(holdout=float("nan")), {}, ["holdout", "nan"]),
    (dict(holdout="a fifth"), {}, ["holdout", "'a fifth'"]),
    ({}, dict(features=[]), ["features is empty"]),
    ({}, dict(features=["x", "x"]), ["'x'", "twice"]),
    ({}, dict(features="x"), ["features is a list", "'x'"]),
]


@pytest.mark.parametrize("options,more,words", PRIORS)
def test_priors(options, more, words):
    table = {"g": [0, 0, 1, 1], "x": [0.0, 1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0, 5.0]}
    with pytest.raises(InputError) as error:
        Prior(**options).fit(table, task="g", target="y", **more)
    for word in words:
        assert word in str(error.value), str(error.value)


KEY = jax.random.key(0)
HEADS = [
    # what makes or uses a head, and what the message must hold
    (lambda: Gaussian(0), ["Gaussian", "at least 1 outcome", "0"]),
    (lambda: Gaussian(1, scale=-1.0), ["Gaussian", "scale above 0", "-1.0"]),
    (lambda: StudentT(0), ["StudentT", "at least 1 outcome", "0"]),
    (lambda: MixtureDensity(0), ["MixtureDensity", "at least 1 component", "0"]),
    (lambda: MixtureDensity(2, 0), ["MixtureDensity", "1 outcome", "0"]),
    (lambda: MixtureDensity(2).params(jnp.zeros((1, 5))), ["MixtureDensity reads 6", "gives 5"]),
    (lambda: Autoregressive.init(0, key=KEY), ["Autoregressive", "at least 1 outcome", "0"]),
    (
        lambda: Autoregressive.init(2, inner=Categorical(3), key=KEY),
        ["Autoregressive", "Categorical", "classes: 3"],
    ),
    (
        lambda: Autoregressive.init(2, inner=Gaussian(2), key=KEY),
        ["Autoregressive", "Gaussian", "outcomes: 2"],
    ),
    (
        lambda: Autoregressive.init(2, inner=Implicit.init(key=KEY), key=KEY),
        ["Implicit", "density: False"],
    ),
    (lambda: Flow.init(0, key=KEY), ["Flow", "dim of at least 1", "0"]),
    (lambda: Flow.init(1, bins=1, key=KEY), ["Flow", "bins", "1"]),
    (lambda: Energy.init(0, key=KEY), ["Energy", "dim of at least 1", "0"]),
    (lambda: Energy.init(1, bound=-1.0, key=KEY), ["Energy", "bound above 0", "-1.0"]),
    (
        lambda: Implicit.init(1, objective="gan", key=KEY),
        ["'energy score'", "'adversarial'", "'gan'"],
    ),
    (lambda: Implicit.init(2, noise=1, key=KEY), ["Implicit", "as many numbers of noise", "2, 1"]),
    (
        lambda: Implicit.init(key=KEY).log_prob(jnp.zeros((1, 17)), jnp.zeros((1, 1))),
        ["no log_prob", "CRPS"],
    ),
    (lambda: Implicit.init(key=KEY).entropy(jnp.zeros((1, 17))), ["no entropy", "variance"]),
]


@pytest.mark.parametrize("make,words", HEADS)
def test_heads(make, words):
    with pytest.raises((TypeError, ValueError)) as error:
        make()
    for word in words:
        assert word in str(error.value), str(error.value)


def test_a_damaged_file_of_an_unfinished_run_says_what_helps(tmp_path):
    """It is named alone, not as if the table were damaged."""
    stages = Stages(tmp_path / "checkpoint")
    assert stages("boosting", lambda: {"a": jnp.zeros(3)})["a"].shape == (3,)
    path = tmp_path / "checkpoint" / "boosting.done"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError) as error:
        stages("boosting", dict)
    assert str(error.value).startswith(f"{path}: ") and str(error.value).endswith(
        "--resume computes it again."
    )


def test_a_folder_with_another_report_is_no_demo(tmp_path):
    from metaprior.cli.demo import check_out

    (tmp_path / "report.html").write_text("<p>a thesis</p>")
    with pytest.raises(InputError, match=r"something else \(report.html\)"):
        check_out(tmp_path)
    (tmp_path / "report.html").unlink()
    (tmp_path / "prior").mkdir()
    with pytest.raises(InputError, match=r"something else \(prior\)"):
        check_out(tmp_path)


def test_truncated_and_altered_priors(folder, capsys, monkeypatch):
    whole = (folder / "run" / "prior").read_bytes()
    middle = len(whole) // 2
    for broken in (
        whole[:middle],
        whole[:-1],
        whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    ):
        (folder / "run" / "prior").write_bytes(broken)
        assert "prior" in complaint(PREDICT, capsys, monkeypatch, folder)


def test_splits_need_the_table(folder, capsys, monkeypatch):
    record = (folder / "run" / "run.json").read_text()
    (folder / "run" / "run.json").write_text(record.replace("table.csv", "gone.csv"))
    message = complaint("evaluate run --shots 1 --splits 2", capsys, monkeypatch, folder)
    assert "gone.csv" in message and "--splits" in message


def test_a_changed_table_is_not_continued(folder, capsys, monkeypatch):
    (folder / "run" / "prior").unlink()
    (folder / "t.csv").write_text(tiny_csv(seed=1))
    assert "changed" in complaint(FIT.replace("new", "run --resume"), capsys, monkeypatch, folder)


def test_full_disk_is_seen_before_the_fit(tmp_path, capsys, monkeypatch):
    (tmp_path / "t.csv").write_text(tiny_csv())
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert "full" in complaint(FIT, capsys, monkeypatch, tmp_path)


def test_a_disk_that_fills_up_leaves_no_half_prior(folder):
    """Files may grow to 100 bytes only: `predict --out` fails and leaves nothing."""
    code = (
        "import resource, metaprior.cli as c; import metaprior;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        f"c.main({(PREDICT + ' --out p.csv').split()!r})"
    )
    environment = {**os.environ, "METAPRIOR_CACHE": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "full" in done.stderr and "Traceback" not in done.stderr, (
        done.stderr
    )
    assert not list(folder.glob("p.csv*"))
