"""Rows observed in the order of a column, and groups held out in disjoint parts."""

import numpy as np
import polars as pl
import pytest
from conftest import tiny_csv

import metaprior
from metaprior.errors import InputError
from metaprior.tables.groups import split_groups
from metaprior.tables.ordered import columns_of_time, first_rows, in_order
from metaprior.tables.trained import HeldOut


def held(times, counts=(3, 4)):
    """Two groups whose x is the row's number."""
    x = np.arange(sum(counts), dtype=np.float32)[:, None]
    start = np.cumsum([0, *counts])[:-1]
    times = {"week": np.asarray(times, float)}
    return HeldOut(x, 10 * x, start, np.array(counts), None, times, ("a", "b"))


def test_the_first_rows_are_observed_and_later_ones_predicted():
    found, notes = in_order(held([3, 1, 2, 4, 4, 0, 9]), "week", "t.csv")
    assert found.x[:, 0].tolist() == [1, 2, 0, 5, 3, 4, 6]
    assert notes == (
        "week: in 1 of 2 groups several rows have one value (group 'b': 4); they are taken in the "
        "order of the table.",
    )
    tasks = first_rows(found, np.array([0, 1, 1]), 2, 3, seed=0)
    for task, known, later in ((0, [1, 2], [0]), (1, [5, 3], [4, 6]), (2, [5, 3], [4, 6])):
        for part, rows in ((tasks.support, known), (tasks.query, later)):
            assert part.x[task][part.mask[task]][:, 0].tolist() == rows
            assert part.y[task][part.mask[task]][:, 0].tolist() == [10 * row for row in rows]
    assert tasks.support.x.shape[1] == 3 and not tasks.support.mask[:, 2].any()


def test_of_many_later_rows_some_are_drawn():
    found, _ = in_order(held(np.arange(204), (4, 200)), "week", "t.csv")
    tasks = first_rows(found, np.array([1]), 5, 5, seed=0)
    later = np.asarray(tasks.query.x[0, :, 0])
    assert tasks.query.mask.all() and len(set(later)) == 50 and later.min() >= 9
    assert later.max() > 150


@pytest.mark.parametrize(
    ("times", "column", "words"),
    [
        (
            [3, 1, 2, 4, np.nan, 0, 9],
            "week",
            "t.csv: column 'week': 1 row has no value, the .*'b'",
        ),
        (np.arange(7), "weak", "t.csv: no column 'weak' of numbers or dates .* there are: week"),
    ],
)
def test_a_column_that_gives_no_order_is_named(times, column, words):
    with pytest.raises(InputError, match=words):
        in_order(held(times), column, "t.csv")


def test_numbers_and_dates_give_an_order():
    frame = pl.DataFrame({"g": ["a"], "n": [2], "d": ["2024-01-02"], "t": ["x"], "l": [[1]]})
    frame = frame.with_columns(pl.col("d").str.to_date())
    assert columns_of_time(frame, ("g",)) == {"n": 2.0, "d": 19724.0}


def test_parts_hold_every_group_out_once():
    frame, group = pl.DataFrame({"g": range(20)}), np.arange(20)
    out = [split_groups(frame, group, "g", None, 0.2, 0, "t", part)[0] for part in range(5)]
    assert np.sum(out, axis=0).tolist() == [1] * 20


@pytest.mark.slow
def test_a_prior_is_judged_in_order_and_says_so(fitted):
    prior = metaprior.load(fitted / "run" / "prior")
    found = prior.evaluate(shots=(2,), order="x").to_json()
    assert (
        found["order"] == "x"
        and "The first rows of a group by x were observed" in (found["sentence"])
    )
    table = pl.read_csv(tiny_csv(groups=3, seed=1).encode())
    other = prior.evaluate(table, shots=(2,), order="day")
    assert other.about.notes[0].startswith("day: in 3 of 3 groups several rows have one value")
    before = prior.evaluate(table, shots=(2,), order="x").to_json()["shots"]
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=3)
    after = prior.evaluate(shuffled, shots=(2,), order="x").to_json()["shots"]
    for metric in ("nll", "rmse"):
        found, wanted = after["2"]["method"][metric], before["2"]["method"][metric]
        assert found == pytest.approx(wanted, rel=1e-4)
