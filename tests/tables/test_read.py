"""Tables of every kind become the same rows: files, and frames of other libraries."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import metaprior
from metaprior.errors import InputError
from metaprior.tables.columns import Features
from metaprior.tables.meaning.values import numbers
from metaprior.tables.read import as_frame, is_table, read, rows_of

COLUMNS = {
    "whole": [1, None, 3],
    "number": [1.5, None, -2.0],
    "truth": [True, None, False],
    "word": ["a", None, "b"],
}
DAYS = [datetime.datetime(2013, 1, 1), None, datetime.datetime(2013, 1, 3)]


def expect(frame, columns=COLUMNS):
    assert {name: frame[name].to_list() for name in frame.columns} == columns


def test_pandas_with_nullable_types():
    types = {"whole": "Int64", "number": "Float64", "truth": "boolean", "word": "string"}
    expect(as_frame(pd.DataFrame({name: pd.array(COLUMNS[name], types[name]) for name in types})))


def test_pandas_with_numpy_types():
    """A missing whole number is a float there; mixed objects are text, as they were."""
    columns = {
        "whole": np.array([1.0, np.nan, 3.0]),
        "truth": np.array([True, None, False], object),
        "word": np.array(["a", None, "b"], object),
        "mixed": np.array([1, "x", 2.5], object),
    }
    frame = as_frame(pd.DataFrame(columns, index=[7, 3, 7]))
    assert frame["whole"].dtype == pl.Float64 and frame["truth"].dtype == pl.Boolean
    mixed = {"mixed": ["1", "x", "2.5"]}
    expect(frame, {name: COLUMNS[name] for name in ("whole", "truth", "word")} | mixed)


def test_the_index_of_pandas_is_no_column():
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index(["u", "v"], name="group"))
    assert as_frame(frame).columns == ["a"]
    assert as_frame(frame.rename(columns={"a": 0})).columns == ["0"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_pandas_dates_are_numbers_of_days(unit):
    days = pd.Series(pd.to_datetime(DAYS)).astype(f"datetime64[{unit}]")
    frame = as_frame(pd.DataFrame({"day": days, "zone": days.dt.tz_localize("UTC")}))
    for name in ("day", "zone"):
        assert frame[name].dtype.is_temporal()
        found = numbers(frame[name])
        assert found[2] - found[0] == 2.0 and np.isnan(found[1])
    assert frame["day"].to_list() == DAYS


def test_categories_are_their_values():
    words = as_frame(pd.DataFrame({"kind": pd.Categorical(["u", None, "v"])}))["kind"]
    assert words.cast(pl.String).to_list() == ["u", None, "v"]
    levels = as_frame(pd.DataFrame({"level": pd.Categorical([1, 2, None])}))["level"]
    assert levels.dtype.is_numeric() and levels.to_list() == [1, 2, None]
    arrow = as_frame(pa.table({"kind": pa.array(["u", None, "v"]).dictionary_encode()}))["kind"]
    assert arrow.cast(pl.String).to_list() == ["u", None, "v"]
    group = np.array([0, 1, 0, 1])
    for table in (
        pd.DataFrame({"kind": pd.Categorical(["u", "u", "v", "v"])}),
        pa.table({"kind": pa.array(["u", "u", "v", "v"]).dictionary_encode()}),
    ):
        features = Features.learn(as_frame(table), ["kind"], group)
        assert features.text() == ["kind"] and features.columns[0].levels == ("u", "v")


class Stream:
    """What some library's frame is: nothing but the Arrow interface."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def test_arrow_polars_lazy_polars_and_mappings():
    arrow = pa.table(COLUMNS)
    for table in (arrow, Stream(arrow), pl.DataFrame(COLUMNS), pl.LazyFrame(COLUMNS), COLUMNS):
        expect(as_frame(table))
    table = pl.DataFrame(COLUMNS)
    assert as_frame(table) is table


@pytest.mark.parametrize(
    "table,words",
    [
        (3, ["support", "a table is", "got int"]),
        (np.zeros((2, 2)), ["support", "got ndarray"]),
        ({"a": [1, 2], "b": [1]}, ["support", "not a table", "'b'"]),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ["support", "must differ", "'a'"]),
    ],
)
def test_what_is_no_table(table, words):
    with pytest.raises(InputError) as error:
        rows_of(table, "support")
    assert all(word in str(error.value) for word in words), str(error.value)


def test_arrays_are_no_tables():
    for value in ([[1.0]], np.zeros((2, 1)), pd.Series([1.0]), pl.Series([1.0])):
        assert not is_table(value)
    duplicate = pd.DataFrame([[1, 2]], columns=["a", "a"])
    for value in ({"a": [1]}, pl.LazyFrame(), pa.table({"a": [1]}), duplicate, "t.csv"):
        assert is_table(value)


@pytest.mark.parametrize("text", ["x,y\n", "x,y", "x,y\n\n \n"])
def test_a_header_alone_is_no_rows_where_that_is_allowed(text, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert read(path, may_be_empty=True).columns == ["x", "y"]
    assert read(path, may_be_empty=True).height == 0


def test_rows_say_where_they_came_from(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,y\n1,2\n")
    rows = rows_of(path, "support")
    assert rows.where == str(path) and rows_of(rows, "query") is rows
    assert rows_of({"x": [1]}, "support").where == "support"
    with pytest.raises(InputError, match=r"t\.csv: no column 'z'; the columns are x, y\."):
        rows.need(["x", "z"])


def test_a_prior_takes_every_kind_of_table():
    """Fitted, adapted and asked with each; the predictions are the same."""
    rng = np.random.default_rng(0)
    day = [datetime.datetime(2013, 1, 1 + i % 8) for i in range(48)]
    table = pl.DataFrame(
        {
            "g": [f"g{i // 6}" for i in range(48)],
            "x": rng.normal(size=48).round(3),
            "kind": ["u", "v"] * 24,
            "day": day,
            "y": rng.normal(size=48).round(3),
        }
    )

    def kinds_of(rows):
        some = [rows, rows.lazy(), rows.to_arrow(), rows.to_pandas(), rows.to_dict()]
        types = {"kind": "category", "x": "Float64", "g": "string"}
        return [*some, rows.to_pandas().astype(types)]

    kinds = kinds_of(table)
    said = []
    for kind in kinds:
        prior = metaprior.Prior("bnn").fit(kind, task="g", target="y")
        assert prior.info["features"] == ["x", "kind", "day"]
        x, _ = prior.trained.features.encode(as_frame(kind))
        said.append(x)
    for other in said[1:]:
        np.testing.assert_array_equal(other, said[0])
    posteriors = [prior.adapt(kind) for kind in kinds_of(table[:6])]
    for posterior in posteriors[1:]:
        np.testing.assert_array_equal(posterior.x, posteriors[0].x)
        np.testing.assert_array_equal(posterior.y, posteriors[0].y)
