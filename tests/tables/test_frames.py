"""Objects of other libraries as tables: every type of column, and what is no table."""

import datetime
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from metaprior.errors import InputError
from metaprior.tables.read import Rows, rows_of
from metaprior.tables.reading.frames import is_frame, read_frame

DAY, HOUR = datetime.date(2024, 1, 1), datetime.time(7, 30)
MOMENT = datetime.datetime(2024, 1, 1, 7, 30)
STAMP = pd.Timestamp(MOMENT)


def frame(values, dtype=None):
    return pd.DataFrame({"k": pd.Series(values, dtype=dtype)})


def mixed(*values):
    return pd.DataFrame({"k": np.array(values, object)})


def of_arrow(values, kind):
    return pd.DataFrame({"k": pd.array(values, pd.ArrowDtype(kind))})


COLUMNS = [
    # what, the table, the type of its column k, the values
    ("pd.NA in whole numbers", frame([1, pd.NA], "Int64"), pl.Int64, [1, None]),
    ("pd.NA in numbers", frame([1.5, pd.NA], "Float64"), pl.Float64, [1.5, None]),
    ("pd.NA in truths", frame([True, pd.NA], "boolean"), pl.Boolean, [True, None]),
    ("pd.NA in text", frame(["a", pd.NA], "string"), pl.String, ["a", None]),
    ("pd.NA in objects", mixed(1, pd.NA, 2.5), pl.Float64, [1.0, None, 2.5]),
    ("pd.NA in words", mixed("a", pd.NA, None), pl.String, ["a", None, None]),
    ("NaN", frame([1.5, np.nan]), pl.Float64, [1.5, None]),
    ("NaT", frame([STAMP, pd.NaT]), pl.Datetime("us"), [MOMENT, None]),
    ("categories", frame(["a", None, "b"], "category"), pl.String, ["a", None, "b"]),
    ("categories of numbers", frame([1, None, 2], "category"), pl.Int64, [1, None, 2]),
    ("Arrow's numbers", of_arrow([1, None], pa.int64()), pl.Int64, [1, None]),
    ("Arrow's text", of_arrow(["a", None], pa.string()), pl.String, ["a", None]),
    ("Arrow's dates", of_arrow([DAY, None], pa.date32()), pl.Date, [DAY, None]),
    ("Arrow's times", of_arrow([HOUR], pa.time64("us")), pl.Time, [HOUR]),
    ("times of day", frame([HOUR, None]), pl.Time, [HOUR, None]),
    ("dates", frame([DAY, None]), pl.Date, [DAY, None]),
    ("lengths of time", frame(pd.to_timedelta([2], unit="h")), pl.Duration, None),
    ("periods", frame(pd.period_range("2024-01", periods=1, freq="M")), pl.Datetime, None),
    ("intervals", frame(pd.interval_range(0, 2)), pl.String, ["(0, 1]", "(1, 2]"]),
    ("decimals", frame([decimal.Decimal("1.5")]), pl.Decimal, None),
    ("many things", mixed(1, "x", DAY), pl.String, ["1", "x", "2024-01-01"]),
    ("sparse", frame(pd.arrays.SparseArray([0, 1])), pl.Int64, [0, 1]),
    ("large whole numbers", mixed(2**70, 1), pl.Int128, [2**70, 1]),
    ("long numbers", frame(np.array([1.5], np.longdouble)), pl.Float64, [1.5]),
    ("bytes that are text", mixed(b"a"), pl.String, ["a"]),
    ("Arrow", pa.table({"k": [1, None]}), pl.Int64, [1, None]),
    ("a batch", pa.record_batch({"k": [1]}), pl.Int64, [1]),
    ("lazy", pl.LazyFrame({"k": [1]}), pl.Int64, [1]),
    ("a tuple", {"k": (1, 2)}, pl.Int64, [1, 2]),
    ("a range", {"k": range(2)}, pl.Int64, [0, 1]),
    ("an array", {"k": np.array([1.5])}, pl.Float64, [1.5]),
    ("words of NumPy", {"k": np.array(["a", "b"])}, pl.String, ["a", "b"]),
    ("a series", {"k": pd.Series([1, pd.NA], dtype="Int64")}, pl.Int64, [1, None]),
    ("a series of polars", {"k": pl.Series([1])}, pl.Int64, [1]),
    ("an Arrow array", {"k": pa.array([1])}, pl.Int64, [1]),
    ("masked", {"k": np.ma.array([1, 2], mask=[0, 1])}, pl.Int64, [1, None]),
    ("numbers of NumPy", {"k": [np.float32(1.5), np.int8(2)]}, pl.Float64, [1.5, 2.0]),
    ("named fields", np.array([(1, "a")], [("k", int), ("g", "U1")]), pl.Int64, [1]),
    ("a record array", np.rec.array([(1.5,)], names="k"), pl.Float64, [1.5]),
    ("records", [{"k": 1}, {"g": "a"}], pl.Int64, [1, None]),
]


@pytest.mark.parametrize("what,table,kind,values", COLUMNS, ids=[row[0] for row in COLUMNS])
def test_types(what, table, kind, values):
    assert is_frame(table)
    series = read_frame(table, "t").frame["k"]
    assert series.dtype == kind
    assert values is None or series.to_list() == values


def test_time_zones_stay():
    days = pd.Series([STAMP, pd.NaT])
    for zone, hour in (("UTC", 7), ("Europe/Berlin", 7), ("+05:00", 2)):
        table = pd.DataFrame({"k": days.dt.tz_localize(zone)})
        found = read_frame(table, "t").frame["k"]
        assert found.dtype == pl.Datetime and found[0].hour == hour and found[1] is None
        assert found[0] == table["k"][0]


NESTED = [
    (frame([[1, 2]]), "lists"),
    (frame([{"a": 1}]), "structs"),
    (frame([np.zeros(2)]), "lists"),
    (frame([1j]), "objects"),
    (frame([object()]), "objects"),
    (of_arrow([[1]], pa.list_(pa.int64())), "lists"),
    (pl.DataFrame({"k": [[1]]}), "lists"),
    (pa.table({"k": pa.array([b"1"])}), "bytes"),
    (pa.table({"k": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))}), "structs"),
    ({"k": [[1], [2]]}, "lists"),
    ({"k": np.zeros((2, 2))}, "lists"),
    (np.array([([1, 2],)], [("k", float, 2)]), "lists"),
]


@pytest.mark.parametrize("table,held", NESTED)
def test_columns_that_hold_no_single_values(table, held):
    """They are no features, and cannot be the target or the group."""
    rows = rows_of(table, "t")
    assert rows.aside == ("k",) and rows.notes == (
        f"k: left out, it holds {held}, not single values.",
    )
    with pytest.raises(InputError, match=f"t: column 'k' holds {held}; columns hold numbers"):
        rows.need(["k"])


NONE = [
    ({"a": [1, 2], "b": [1]}, ["column 'a' has 2 values", "'b' has 1"]),
    ({"a": 1}, ["column 'a' is one value, 1"]),
    ({"a": "xy"}, ["one value, 'xy'"]),
    ({"a": None}, ["one value, None"]),
    ({"a": {1, 2}}, ["column 'a' is set"]),
    ({"a": {0: 1}}, ["column 'a' is dict"]),
    ({"a": object()}, ["column 'a' is object"]),
    ({0: [1], "0": [2]}, ["two columns are called '0'"]),
    (pd.DataFrame([[1, 2]], columns=[0, "0"]), ["two columns are called '0'"]),
    (pd.DataFrame([[1, 2]], columns=["a", "a"]), ["must differ", "'a'"]),
    (pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), ["must differ", "'a'"]),
    (pl.LazyFrame({"a": [1]}).select("b"), ["not a table", "b"]),
    (pl.scan_csv("no/such.csv"), ["not a table", "no/such.csv"]),
    (pd.Series([1]), ["a table is", "got Series"]),
    (pa.chunked_array([[1]]), ["got ChunkedArray"]),
    (np.zeros((2, 2), [("a", int)]), ["got ndarray"]),
    ([{"a": 1}, 2], ["got list"]),
    ([], ["got list"]),
    (None, ["got NoneType"]),
]


@pytest.mark.parametrize("table,words", NONE)
def test_what_is_no_table(table, words):
    with pytest.raises(InputError) as error:
        rows_of(table, "support")
    said = str(error.value)
    assert said.startswith("support: ") and "\n" not in said
    assert all(word in said for word in words), said


def test_names():
    odd = pd.DataFrame([[1, 2, 3]], columns=[7, None, "Unnamed: 0"])
    assert read_frame(odd, "t").frame.columns == ["7", "column_2", "Unnamed: 0"]
    index = pd.DataFrame({"Unnamed: 0": [0, 1], "a": [1, 2]})
    assert read_frame(index, "t").aside == ("Unnamed: 0",)


def test_missing_columns_are_looked_for():
    """A name that is nearly right, one among hundreds, and one that is the index."""
    rows = Rows(pl.DataFrame({"Weight": [1], "age": [2]}), "t.csv")
    for asked, near in (("weight", "Weight"), ("weigth", "Weight"), ("ages", "age")):
        with pytest.raises(InputError, match=f"no column '{asked}'; did you mean '{near}'"):
            rows.need([asked])
    with pytest.raises(InputError, match=r"no column 'zzz'; the columns are Weight, age\.$"):
        rows.need(["zzz"])
    with pytest.raises(InputError, match=r"x0, x1, .*x29 and 270 more"):
        Rows(pl.DataFrame({f"x{i}": [i] for i in range(300)}), "t").need(["zzz"])
    table = pd.DataFrame({"a": [1]}, index=pd.Index(["u"], name="g"))
    with pytest.raises(InputError, match=r"no column 'g'.*the index \(g\) was not read"):
        rows_of(table, "t").need(["g"])
    with pytest.raises(InputError, match="there are no columns"):
        rows_of(pd.DataFrame(), "t").need(["g"])
