"""Tables as people have them: what is learned from, what is left out, and what is said."""

import json
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
from conftest import tiny_csv

import metaprior
from metaprior.errors import InputError
from metaprior.tables.checked import check_all
from metaprior.tables.columns import Features
from metaprior.tables.groups import joined, split_groups
from metaprior.tables.meaning.kinds import Choices
from metaprior.tables.plan import Plan
from metaprior.tables.read import rows_of
from metaprior.tables.rows import Rows

NA = Choices(keep_na=True)
CASES = [
    # folder, what the user says, groups, rows, classes, kinds, words of the notes
    ("04-dash-placeholder", {}, 30, 240, 0, {"k": "number"}, "12.5% of the values are missing"),
    ("05-decimal-comma-target", {}, 30, 240, 0, {"y": "number"}, "y: read with a decimal comma"),
    ("08-date-text", {}, 30, 240, 0, {"k": "date"}, ""),
    ("10-time-of-day", {}, 30, 240, 0, {"k": "hours"}, ""),
    ("11-21-classes", {}, 30, 240, 21, {"y": "name"}, ""),
    ("14-blank-in-class-and-group", {}, 30, 240, 2, {"g": "name"}, "'yes ' is the same as 'yes'"),
    ("15-NA-group", {"choices": NA}, 30, 240, 0, {"g": "name"}, ""),
    ("27-sentinel-and-outlier", {}, 30, 240, 0, {"k": "number"}, "k: 1e+09 (row 6, 1 time) is far"),
    ("28-missing-targets", {"drop": True}, 30, 220, 0, {}, "20 rows without a value left out"),
]


@pytest.fixture(scope="module")
def cases(data):
    return data.parent / "cases"


@pytest.mark.parametrize("folder,how,groups,rows,classes,kinds,words", CASES)
def test_cases(folder, how, groups, rows, classes, kinds, words, cases):
    table = rows_of(cases / folder / "t.csv", "table")
    [found] = check_all(table, Plan("g", ["y"], holdout=0.2, **how))
    assert len(found.held) == groups and len(found.z) == rows and found.classes == classes
    assert {name: found.kinds[name].name for name in kinds} == kinds
    said = "\n".join(found.notes)
    assert words in said and bool(words) == bool(said), said


def test_a_group_called_na_is_refused_with_a_way_out_or_left_out(cases):
    rows = rows_of(cases / "15-NA-group" / "t.csv", "table")
    with pytest.raises(InputError, match=r"'g', row 25: 'NA' counts as missing.*--keep-na"):
        check_all(rows, Plan("g", ["y"]))
    [found] = check_all(rows, Plan("g", ["y"]), skip={})
    assert len(found.held) == 29
    assert found.notes[0].startswith("g: 'NA' counts as missing")
    assert found.notes[1] == "g: 8 rows without a group left out."


def test_no_value_of_what_groups_are_split_by_is_on_both_sides(cases):
    rows = rows_of(cases / "18-split-by-within-group" / "t.csv", "table")
    for seed in range(3):
        plan = Plan("g", ["y"], ["x"], split_by="day", holdout=0.2, seed=seed)
        try:
            [found] = check_all(rows, plan)
        except InputError as error:
            assert "groups that share a value of 'day'" in str(error)
            continue
        day, held = found.frame["day"].cast(pl.String).to_numpy(), found.held[found.group]
        assert held.any() and not set(day[held]) & set(day[~held])
        fold = found.fold[found.group]
        assert not set(day[fold == 0]) & set(day[fold == 1])
        assert "day: it varies within" in " ".join(found.notes)


def test_groups_are_joined_by_way_of_other_groups():
    group = np.repeat(np.arange(5), 2)
    shared = pl.Series("day", ["b", "c", "c", "d", "a", "a", None, None, None, "d"])
    # By the smallest value: group 2 (a), then 0, 1 and 4 (b, c, d), then 3, which has none.
    assert joined(shared, group).tolist() == [1, 1, 0, 2, 1]


def test_a_split_where_nothing_varies_is_what_it_was():
    group = np.repeat(np.arange(12), 2)
    frame = pl.DataFrame({"g": group, "day": group // 2})
    held, fold = split_groups(frame, group, "g", "day", 0.3, 0, "t")
    order = np.random.default_rng(0).permutation(6)
    assert set(np.flatnonzero(held) // 2) == set(order[:2]) and (fold[held] == -1).all()


CLASSES = {"g": np.repeat(np.arange(12), 6), "x": np.arange(72.0) % 7}


def test_a_class_of_one_group_is_learned_and_noted():
    kind = np.array(["a", "b"], object)[np.arange(72) % 2]
    kind[3] = "rare"
    table = pl.DataFrame(CLASSES | {"y": kind})
    [found] = check_all(Rows(table, "t"), Plan("g", ["y"]))
    assert found.labels == ["a", "b", "rare"]
    assert found.notes == (
        "y: the class 'rare' occurs in one group only, and can hardly be learned.",
    )


NUMBERS = [
    # values, what the user says, how many classes, words of the note
    ([0, 1], {}, 2, "0 and 1 are two classes; --numeric y"),
    ([0, 1], {"choices": Choices(numeric=["y"])}, 0, ""),
    ([3.5, 7.5], {}, 0, "only the numbers 3.5 and 7.5; --classes"),
    ([3.5, 7.5], {"kind": "classes"}, 2, ""),
    ([1, 2, 3], {}, 0, ""),
    ([1, 2, 3], {"kind": "classes"}, 3, ""),
    (["1", "2", "x"], {"kind": "classes"}, 3, ""),
    (["1,5", "2,5", "3"], {}, 0, "decimal comma"),
    ([f"c{i:03}" for i in range(72)], {}, 72, ""),
]


@pytest.mark.parametrize("values,how,classes,words", NUMBERS, ids=lambda v: str(v)[:30])
def test_numbers_are_classes_where_someone_says_so(values, how, classes, words):
    table = pl.DataFrame(CLASSES | {"y": [values[i % len(values)] for i in range(72)]})
    [found] = check_all(Rows(table, "t"), Plan("g", ["y"], **how))
    assert found.classes == classes
    said = " ".join(note for note in found.notes if "one group" not in note)
    assert words in said and bool(words) == bool(said), said


def test_200_classes_are_learned_from_and_201_are_not():
    rows = {"g": np.repeat(np.arange(67), 3), "x": np.arange(201.0) % 7}
    for count in (200, 201):
        table = pl.DataFrame(rows | {"y": [f"c{i % count}" for i in range(201)]})
        if count == 200:
            assert check_all(Rows(table, "t"), Plan("g", ["y"]))[0].classes == 200
        else:
            with pytest.raises(InputError, match="201 classes; at most 200"):
                check_all(Rows(table, "t"), Plan("g", ["y"]))


def test_one_number_far_off_leaves_the_others_their_digits():
    values = np.append(np.tile(np.arange(-3.0, 4.0), 10), 1e9)
    features = Features.learn(pl.DataFrame({"k": values}), ["k"], np.arange(71) % 10)
    encoded, _ = features.encode(pl.DataFrame({"k": values}))
    assert np.ptp(encoded[:70]) > 2.5 and encoded[70] == 6.0


def test_columns_that_name_rows_are_left_out_unless_someone_names_them():
    table = pl.DataFrame(CLASSES | {"y": np.arange(72) % 5, "id": [f"m{i}" for i in range(72)]})
    [found] = check_all(Rows(table, "t"), Plan("g", ["y"]))
    assert [one.name for one in found.used] == ["x"]
    assert "id: left out, nearly every row has a name of its own" in found.notes[0]
    [found] = check_all(Rows(table, "t"), Plan("g", ["y"], choices=Choices(categorical=["id"])))
    assert [one.name for one in found.used] == ["x", "id"]


def test_a_prior_reads_new_rows_as_it_read_the_first(tmp_path):
    """Decimal commas, dates with the month first, codes: from text and from a frame."""
    lines = ["g;x;day;code;y"]
    for i in range(60):
        day = f"{1 + i % 12}/{1 + i % 28}/2024"
        lines.append(f"g{i // 6};{i % 7},5;{day};0{i % 2};{i % 5},25")
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    prior = metaprior.Prior("bnn").fit(path, task="g", target="y")
    prior.save(tmp_path / "prior")
    prior = metaprior.load(tmp_path / "prior")
    assert prior.info["features"] == ["x", "day", "code"]
    new = tmp_path / "new.csv"
    new.write_text("x;day;code;y\n3,5;3/4/2024;01;1,25\n")
    frame = {"x": [3.5], "day": [np.datetime64("2024-03-04")], "code": ["01"], "y": [1.25]}
    one, other = prior.adapt(new), prior.adapt(frame)
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one.y, other.y)
    new.write_text("x;day;code;y\nlong;3/4/2024;01;1,25\n")
    with pytest.raises(InputError, match=r"new.csv: column 'x', row 1: 'long' is not a number"):
        prior.adapt(new)
    prior.info["kinds"]["x"] = {"name": "gone"}
    prior.save(tmp_path / "prior")
    with pytest.raises(InputError, match="does not say how its columns are read"):
        metaprior.load(tmp_path / "prior")


PAGE = """\
column  is       read as  values                    missing
g       group    names    12: 'g0', 'g1', 'g10', …
x       feature  numbers  -2.325 to 3.066
kind    feature  names    2: 'a', 'b'
day     feature  numbers  0 to 5
y       target   numbers"""


def test_check_says_what_every_column_is_and_what_fit_would_do(tmp_path, call):
    (tmp_path / "t.csv").write_text(tiny_csv().replace("g3,", "g3 ,", 1))
    status, out, err = call("check", tmp_path / "t.csv", "--task", "g", "--target", "y")
    assert status == 0 and not err
    assert PAGE in out and "12 groups of 8 rows each, 2 of them kept aside" in out
    assert "Predicted from x, day (numbers), kind (names)." in out
    assert "note: g: 'g3 ' is the same as 'g3': blanks are left out." in out
    status, out, _ = call("check", tmp_path / "t.csv", "--task", "g", "--target", "y", "--json")
    found = json.loads(out)
    assert status == 0 and found["groups"]["number"] == 12 and len(found["columns"]) == 5


def test_check_names_candidates_and_refuses_as_fit_does(tmp_path, call):
    (tmp_path / "t.csv").write_text(tiny_csv())
    status, out, _ = call("check", tmp_path / "t.csv")
    assert status == 0 and "groups: perhaps g" in out and "predict: perhaps y" in out
    for wrong in (["--target", "z"], ["--target", "y", "--target-scale", "log"], ["--target", "g"]):
        status, out, err = call("check", tmp_path / "t.csv", "--task", "g", *wrong)
        assert status == 1 and not out and err.startswith("metaprior: ") and err.count("\n") == 1


def test_check_loads_no_jax_and_takes_two_seconds(tmp_path):
    rng = np.random.default_rng(0)
    table = {"g": np.repeat(np.arange(10_000), 10), "x": rng.normal(size=100_000)}
    table |= {"kind": rng.integers(0, 5, 100_000), "y": rng.normal(size=100_000)}
    pl.DataFrame(table).write_csv(tmp_path / "t.csv")
    code = (
        "import sys, time; from metaprior.cli.app import main\n"
        "try: main(['check', 't.csv', '--task', 'g', '--target', 'y'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print('jax' in sys.modules, time.process_time())"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loads, seconds = done.stdout.splitlines()[-1].split()
    assert loads == "False" and "10,000 groups of 10 rows" in done.stdout
    # Seconds of both cores; other processes may be in the way of the clock.
    assert float(seconds) < 3.0 or time.monotonic() - began < 2.0
