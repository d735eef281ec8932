"""What stands in the cells of a column, and what it becomes."""

import datetime

import numpy as np
import polars as pl
import pytest

from metaprior.errors import InputError
from metaprior.tables.meaning.kinds import Choices, Kind, apply
from metaprior.tables.meaning.notes import Note, lines
from metaprior.tables.meaning.understand import understand
from metaprior.tables.meaning.values import apart, oddities
from metaprior.tables.read import Rows


def day(year, month, number, *time):
    return datetime.datetime(year, month, number, *time)


def read(cells, choices=Choices(), target=None, other=()):
    """Kind, values and notes of a column `k` of text; other columns `c0`, … stand beside it."""
    columns = {"k": list(cells)} | {f"c{i}": list(cells) for i, cells in enumerate(other)}
    targets = {"k": target} if target else {}
    rows, kinds, notes = understand(Rows(pl.DataFrame(columns), "t"), choices, targets=targets)
    return (
        kinds["k"].name,
        rows.frame["k"].to_list(),
        " ".join(n.said for n in notes if n[0] == "k"),
    )


NUMERIC, NAMES, DATE = Choices(numeric=["k"]), Choices(categorical=["k"]), Choices(date=["k"])
CELLS = [
    # cells, what the user says, the kind, the values, words of the notes
    (["1", " 2 ", "3"], None, "number", [1, 2, 3], []),
    (["1e-3", ".5", "-2"], None, "number", [0.001, 0.5, -2.0], []),
    (["1", "NA", "-", ".", "?", "None", "#N/A", ""], None, "number", [1] + [None] * 7, []),
    (["1,5", "2,25"], None, "number", [1.5, 2.25], ["decimal comma", "'1,5'"]),
    (["1.000,5", "3"], None, "number", [1000.5, 3.0], ["decimal comma"]),
    (["1,000.5", "3"], None, "number", [1000.5, 3.0], []),
    (["1,234", "999"], None, "number", [1234.0, 999.0], ["'1,234' is read as 1234"]),
    (["0,125", "1,234"], None, "number", [0.125, 1.234], ["decimal comma"]),
    (["1 234,5", "2\u00a0000"], None, "number", [1234.5, 2000.0], ["decimal comma"]),
    (["1'234.5", "1_000"], None, "number", [1234.5, 1000.0], []),
    (["1,5", "2.5"], None, "number", [1.5, 2.5], ["both"]),
    (["5 %", "7.5%"], None, "number", [5.0, 7.5], ["'%'"]),
    (["$3", "-$1,200.50"], None, "number", [3.0, -1200.5], ["'$'"]),
    (["€ 3", "4"], None, "number", [3.0, 4.0], ["'€'"]),
    (["3 kg", "4kg"], None, "number", [3.0, 4.0], ["'kg'"]),
    (["3 kg", "500 g"], None, "name", ["3 kg", "500 g"], ["'kg'", "'g'"]),
    (["<0.05", "0.1", "> 9"], None, "number", [0.05, 0.1, 9.0], ["2 bounds", "'<0.05'"]),
    (["\u22125", "–3"], None, "number", [-5.0, -3.0], []),
    (["'5", '="6"'], None, "number", [5.0, 6.0], []),
    ([*"123456789", "err"], None, "number", [*range(1, 10), None], ["'err' (row 10)", "missing"]),
    ([*"123456789", "err"], NAMES, "name", [*"123456789", "err"], []),
    (["1", "2", "x", "y", "3"], None, "name", ["1", "2", "x", "y", "3"], ["'x' (row 3)"]),
    (["1", "x", "y"], NUMERIC, "number", [1.0, None, None], ["'x' (row 2)"]),
    (["01", "2"], None, "name", ["01", "2"], ["'01' begins with a zero", "--numeric"]),
    (["01", "2"], NUMERIC, "number", [1, 2], []),
    (["1", "2"], NAMES, "name", ["1", "2"], []),
    (["2024-01-31", "2024/2/1"], None, "date", [day(2024, 1, 31), day(2024, 2, 1)], []),
    (["31/12/2024", "1/2/2024"], None, "date", [day(2024, 12, 31), day(2024, 2, 1)], []),
    (["12/31/2024", "1/2/2024"], None, "date", [day(2024, 12, 31), day(2024, 1, 2)], []),
    (["3/4/2024"], None, "date", [day(2024, 4, 3)], ["day first", "--date k:mdy"]),
    (["3/4/2024"], Choices(date=["k:mdy"]), "date", [day(2024, 3, 4)], []),
    (["31/12/2024", "12/31/2024"], None, "name", ["31/12/2024", "12/31/2024"], ["--date k:dmy"]),
    (["31.12.24", "1.2.24"], None, "date", [day(2024, 12, 31), day(2024, 2, 1)], []),
    (["Jan 2 2010", "February 3, 2011"], None, "date", [day(2010, 1, 2), day(2011, 2, 3)], []),
    (["2 Mar 2010", "02APR2010"], None, "date", [day(2010, 3, 2), day(2010, 4, 2)], []),
    (["2024-01", "2024-02"], None, "date", [day(2024, 1, 1), day(2024, 2, 1)], []),
    (["20240131", "20240201"], None, "date", [day(2024, 1, 31), day(2024, 2, 1)], ["--numeric k"]),
    (["20240131", "20240201"], NUMERIC, "number", [20240131, 20240201], []),
    (["2024-01-31T10:30:00Z"], None, "date", [day(2024, 1, 31, 10, 30)], []),
    (["2024-01-31 10:30+02:00"], None, "date", [day(2024, 1, 31, 8, 30)], []),
    (["1/31/2024 1:05 PM"], None, "date", [day(2024, 1, 31, 13, 5)], []),
    ([*["2024-01-31"] * 9, "later"], None, "date", [*[day(2024, 1, 31)] * 9, None], ["'later'"]),
    (["00:30", "13:45:00", "1:30 PM"], None, "hours", [0.5, 13.75, 13.5], []),
    (["1 day, 2:00:00", "25:30:00"], None, "hours", [26.0, 25.5], []),
    (["PT1H30M", "1h 30m"], None, "hours", [1.5, 1.5], []),
    (["yes", "No", "NA"], None, "name", ["yes", "No", None], ["'NA' counts as missing"]),
    (["true", "FALSE"], None, "truth", [True, False], []),
    (["a", " b", "b ", ""], None, "name", ["a", "b", "b", None], ["' b' is the same as 'b'"]),
    (["a", "NA"], None, "name", ["a", None], ["'NA' counts as missing", "--keep-na"]),
    (["a", "NA", ""], Choices(keep_na=True), "name", ["a", "NA", None], []),
    (["١٢", "٣"], None, "name", ["١٢", "٣"], []),
    (["+", "-"], None, "name", ["+", "-"], []),
    (["1", "-999"], Choices(missing=["-999"]), "number", [1, None], []),
    (["1", "-999.0"], Choices(missing=["k=-999"]), "number", [1, None], []),
    (["1", "-999"], Choices(missing=["c0=-999"]), "number", [1, -999], []),
    ([f"m{i}" for i in range(30)], None, "id", [f"m{i}" for i in range(30)], []),
    (["9007199254740993", "9007199254740995"] * 2, None, "name", None, ["2^53", "--numeric k"]),
    (["", "NA"], None, "number", [None, None], []),
]


@pytest.mark.parametrize("cells,choices,kind,values,words", CELLS, ids=lambda v: str(v)[:30])
def test_text_is_read_as_what_it_is(cells, choices, kind, values, words):
    other = [["1"] * len(cells)]
    found, read_as, said = read(cells, choices or Choices(), other=other)
    assert found == kind, said
    assert values is None or read_as == values
    assert all(word in said for word in words) and bool(words) == bool(said), said


TARGETS = [
    # cells, the kind of the target, the kind of the column, the values
    (["1,0", "1,3"], "auto", "number", [1.0, 1.3]),
    (["1", "2", "x"], "classes", "name", ["1", "2", "x"]),
    (["1", "2"], "classes", "number", [1, 2]),
    (["01", "02"], "classes", "name", ["01", "02"]),
    (["yes ", "no"], "auto", "name", ["yes", "no"]),
    (["true", "false"], "auto", "truth", [True, False]),
    ([f"m{i}" for i in range(30)], "auto", "id", None),
]


@pytest.mark.parametrize("cells,target,kind,values", TARGETS, ids=lambda v: str(v)[:20])
def test_targets_are_read_as_what_they_are(cells, target, kind, values):
    found, read_as, _ = read(cells, target=target)
    assert found == kind and (values is None or read_as == values)


def test_words_in_a_target_of_numbers_are_errors_unless_rows_may_go():
    with pytest.raises(InputError, match="t: column 'k', row 3: 'x' is not a number"):
        read(["1", "2", "x"], target="auto")
    rows = Rows(pl.DataFrame({"k": ["1", "2", "x"]}), "t")
    typed, _, notes = understand(rows, targets={"k": "auto"}, drop=True)
    assert typed.frame["k"].to_list() == [1.0, 2.0, None] and "'x' (row 3)" in notes[0].said


def test_other_columns_decide_where_one_is_ambiguous():
    assert read(["1.234", "2.500"], other=[["1,5", "2,5"]])[1] == [1234.0, 2500.0]
    assert read(["1,234"], other=[["1,5"]])[1] == [1.234]
    assert read(["1.234", "2.500"], other=[["1.5", "2.5"]])[1] == [1.234, 2.5]
    _kind, values, said = read(["3/4/2024"], other=[["12/31/2024"]])
    assert values == [day(2024, 3, 4)] and "as in other columns" in said


FRAMES = [
    (pl.Series("k", ["a ", "NA"], pl.Categorical), "name", ["a", None]),
    (pl.Series("k", [datetime.time(13, 30)]), "hours", [13.5]),
    (pl.Series("k", [datetime.timedelta(days=1)]), "hours", [24.0]),
    (pl.Series("k", [True, None]), "truth", [True, None]),
    (pl.Series("k", ["1.5"]).cast(pl.Decimal(10, 2)), "number", [1.5]),
    (pl.Series("k", [None, None]), "number", [None, None]),
    (pl.Series("k", [datetime.date(2024, 1, 2)]), "date", [datetime.date(2024, 1, 2)]),
    (pl.Series("k", [day(2024, 1, 2, 3)]).dt.replace_time_zone("Europe/Paris"), "date", None),
    (pl.Series("k", [2**60 + 1, 2**60 + 4096]), "number", None),
    (pl.Series("k", [2**60 + 1, 2**60 + 2]), "name", None),
    (pl.Series("k", [2**55 + 1, 2**55 + 1]), "name", [str(2**55 + 1)] * 2),
]


@pytest.mark.parametrize("series,kind,values", FRAMES, ids=lambda v: str(v)[:20])
def test_typed_columns_are_what_their_library_says(series, kind, values):
    rows, kinds, _ = understand(Rows(pl.DataFrame([series]), "t"))
    assert kinds["k"].name == kind
    assert values is None or rows.frame["k"].to_list() == values
    again, _ = apply(rows, kinds)  # what has been read stays as it is
    assert again.frame["k"].equals(rows.frame["k"])


def test_text_of_a_frame_that_is_all_numbers_is_read_so_and_said():
    rows, kinds, notes = understand(Rows(pl.DataFrame({"k": ["1", "2"], "x": [0.5, 1.5]}), "t"))
    assert kinds["k"].name == "number" and rows.frame["k"].to_list() == [1, 2]
    assert notes == [Note("k", "text of which all is numbers; --categorical k makes names of it.")]


def test_names_stay_names_where_missing_ones_made_numbers_of_them():
    table = pl.DataFrame({"k": [1.0, None, 2.0]})
    rows, _, _ = understand(Rows(table, "t"), names=["k"])
    assert rows.frame["k"].to_list() == ["1", None, "2"]


def test_later_rows_are_read_as_the_first_were():
    table = {"x": ["1,234", "1,5"], "d": ["1/2/2024", "1/31/2024"], "c": ["01", "2"]}
    table |= {"p": ["3 %", "4%"], "t": ["1:30", "2:00"], "w": ["a", "b"]}
    _, kinds, _ = understand(Rows(pl.DataFrame(table), "t"))
    kinds = {name: Kind.of_json(kind.to_json()) for name, kind in kinds.items()}
    later = {"x": ["2,345"], "d": ["3/4/2024"], "c": [2], "p": [5], "t": ["0:45"], "w": [" a "]}
    rows, notes = apply(Rows(pl.DataFrame(later | {"other": ["?"]}), "q"), kinds)
    expected = {"x": 2.345, "d": day(2024, 3, 4), "c": "2", "p": 5, "t": 0.75, "w": "a"}
    assert rows.frame.row(0, named=True) == expected | {"other": "?"} and not notes


LATER = [
    # the first cells, later cells, the decimal mark of the later file, values, words of the note
    (["1.5", "2"], ["0,1", "2"], ",", [0.1, 2.0], ""),
    (["1.5", "2"], ["1,234", "2,5"], None, [1.234, 2.5], "the decimal mark ','"),
    (["1,5", "2"], ["1.234"], ".", [1.234], ""),
    (["1,5", "2"], ["1.234"], None, [1234.0], ""),
    (["1,5", "2"], ["3"], None, [3.0], ""),
    (["2024-01-31"], ["12/31/2024"], None, [day(2024, 12, 31)], "the month first"),
    (["31/12/2024"], ["1/2/2024"], None, [day(2024, 2, 1)], ""),
]


@pytest.mark.parametrize("first,cells,mark,values,words", LATER, ids=lambda v: str(v)[:20])
def test_later_files_may_be_written_in_another_way(first, cells, mark, values, words):
    _, kinds, _ = understand(Rows(pl.DataFrame({"k": first}), "t"))
    rows, notes = apply(Rows(pl.DataFrame({"k": cells}), "q", decimal=mark), kinds)
    said = " ".join(note.said for note in notes)
    assert rows.frame["k"].to_list() == values
    assert words in said and bool(words) == bool(said), said


def test_later_cells_that_cannot_be_read_are_errors_or_missing():
    _, kinds, _ = understand(Rows(pl.DataFrame({"x": ["1", "2"]}), "t"))
    with pytest.raises(InputError, match="q: column 'x', row 2: 'err' is not a number"):
        apply(Rows(pl.DataFrame({"x": ["1", "err"]}), "q"), kinds)
    _, kinds, _ = understand(Rows(pl.DataFrame({"x": [*"123456789", "err"]}), "t"))
    rows, notes = apply(Rows(pl.DataFrame({"x": ["1", "bad"]}), "q"), kinds)
    assert rows.frame["x"].to_list() == [1.0, None] and "'bad' (row 2)" in notes[0].said


ODD = [
    # values, words of the note
    ([*range(30), -999], ["-999 (1 time)", "--missing k=-999"]),
    ([*range(20, 60), -9, -9], ["-9 (2 times)"]),
    ([*range(20, 90), 999, 999], ["999 (2 times)"]),
    ([*np.linspace(-3, 3, 99), 1e9], ["1e+09 (row 100, 1 time)", "far from all other values"]),
    (list(range(-999, 1000)), []),
    ([*range(99)], []),
    (list(np.exp(np.random.default_rng(0).normal(0, 3, 500))), []),
    ([0.0] * 50 + [1.0, 5.0, 1000.0], []),
    ([1, 2, 1, 2], []),
]


@pytest.mark.parametrize("values,words", ODD, ids=lambda v: str(v)[-30:])
def test_values_that_may_stand_for_none_are_named(values, words):
    said = " ".join(oddities("k", np.array(values, float)))
    assert all(word in said for word in words) and bool(words) == bool(said), said


def test_values_far_apart_are_few():
    assert apart(np.array([1.0, 2.0, 3.0] * 10 + [1e9])).tolist() == [False] * 30 + [True]
    assert not apart(np.array([1.0, 2.0, 3.0] * 10 + [1e9] * 10)).any()


def test_notes_are_a_line_a_column_or_one_for_many():
    notes = [Note("a", "one thing."), Note("a", "another."), Note("b", "one thing.")]
    assert lines(notes) == ("a: one thing. Another.", "b: one thing.")
    many = [Note(f"x{i}", "one thing.") for i in range(12)]
    assert lines(many) == ("12 columns (x0, x1, x2, …): one thing.",)


@pytest.mark.parametrize(
    "saved,mark,cell", [(".", ",", "1,5"), (",", ".", "1.5"), (",", None, "1,5")]
)
def test_later_tables_may_have_another_decimal_mark(saved, mark, cell):
    rows = Rows(pl.DataFrame({"x": [cell, "2"]}), "t.csv", decimal=mark)
    found, notes = apply(rows, {"x": Kind("number", decimal=saved)})
    assert found.frame["x"].to_list() == [1.5, 2.0] and not notes
