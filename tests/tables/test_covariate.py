"""Groups held out by a covariate: which, in what order, and what is refused."""

import numpy as np
import polars as pl
import pytest

import metaprior
from metaprior.cli.run import asked_for, splits_of, which_split
from metaprior.errors import InputError
from metaprior.tables.checked import check_all
from metaprior.tables.plan import Plan
from metaprior.tables.read import rows_of


def table(**columns):
    """Ten groups a to j of four rows; a column is one value a group, or one a row."""
    rng = np.random.default_rng(0)
    group = np.repeat(list("abcdefghij"), 4)
    frame = {"g": group, "x": rng.normal(size=40), "y": rng.normal(size=40)}
    for name, values in columns.items():
        frame[name] = np.repeat(values, 4) if len(values) == 10 else values
    return pl.DataFrame(frame)


def kept(frame, by, **plan):
    """The names of the groups that are held out, and what is said of the column."""
    plan = {"holdout": 0.2, "holdout_by": by} | plan
    [found] = check_all(rows_of(frame, "t.csv"), Plan("g", ["y"], **plan))
    names = found.frame["g"].unique().sort()
    assert found.fold[found.held].tolist() == [-1] * int(found.held.sum())
    assert set(found.fold[~found.held]) == set(range(5))
    said = [note for note in found.notes if note.startswith(f"{by}: ")]
    return "".join(names.filter(pl.Series(found.held))), " ".join(said)


DAYS = [f"2024-03-{day:02}" for day in (3, 1, 2, 4, 9, 5, 8, 6, 7, 10)]
SIZE = [3, 1, 2, 4, 9, 5, 8, 6, 7, 10]
HELD = [
    # values, share, the groups held out, words
    (SIZE, 0.2, "ej", "the 2 groups of 10 with its largest values are kept aside (9 to 10); the"),
    (SIZE, 0.3, "egj", "the others have 1 to 7."),
    (SIZE, 0.01, "j", "the 1 group of 10 with its largest values are kept aside (10)"),
    (np.array(SIZE) / 3, 0.2, "ej", "(3 to 3.33333)"),
    (np.negative(SIZE), 0.2, "bc", "(-2 to -1); the others have -10 to -3"),
    (np.array(DAYS), 0.2, "ej", "(2024-03-09 to 2024-03-10)"),
    ([1, 1, 1, 2, 2, 3, 3, 3, 3, 1], 0.2, "fghi", "(3); the others have 1 to 2."),
    ([1, 1, 1, 1, 1, 1, 2, 2, 2, 3], 0.2, "j", "(3)"),
    ([1, 1, 1, 1, 1, 1, 2, 2, 2, 3], 0.4, "ghij", "(2 to 3)"),
    (np.array([True, False, False, False, True] + 5 * [False]), 0.2, "ae", "(1)"),
]


@pytest.mark.parametrize(("values", "share", "held", "words"), HELD)
def test_the_groups_with_the_largest_values_are_held_out(values, share, held, words):
    """Whatever the seed; groups of one value stay together, and the share is met nearly."""
    for seed in range(2):
        found, said = kept(table(c=values), "c", holdout=share, seed=seed)
        assert found == held and words in said


def test_the_order_of_rows_and_folds_by_seed():
    """Rows in any order give the same groups; the folds of the others are still random."""
    frame = table(c=SIZE)
    assert kept(frame.sample(fraction=1.0, shuffle=True, seed=1), "c")[0] == "ej"
    folds = []
    for seed in (0, 1):
        plan = Plan("g", ["y"], holdout=0.2, holdout_by="c", seed=seed)
        folds.append(check_all(rows_of(frame, "t"), plan)[0].fold.tolist())
    assert folds[0] != folds[1]


def test_the_mean_of_a_group_counts_and_is_said():
    rng = np.random.default_rng(1)
    rows = np.repeat(SIZE, 4) + rng.uniform(-0.2, 0.2, 40)
    found, said = kept(table(c=rows), "c")
    assert found == "ej" and "it varies within 10 groups, of which the mean counts." in said
    gaps = [None if i % 4 == 0 else float(v) for i, v in enumerate(rows)]
    found, said = kept(table().with_columns(pl.Series("c", gaps)), "c")
    assert found == "ej" and "10 rows without a value; the mean of the other rows" in said


def test_means_that_differ_by_rounding_are_one_value():
    """0.1 added up twice or four times, over the number of rows."""
    frame = table(c=[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.3])
    frame = frame.filter(~((pl.col("g") == "a") & (pl.int_range(pl.len()) > 2)))
    assert kept(frame, "c")[0] == "ij"


def test_groups_that_are_split_together_are_held_out_together():
    """By the mean of all: e has the largest value, but is one with b."""
    day = [1, 2, 3, 4, 2, 5, 6, 7, 8, 9]
    found, said = kept(table(c=SIZE, day=day), "c", split_by="day")
    assert found == "gj" and "the 2 groups of 10" in said


def test_a_column_that_is_no_feature_is_read():
    found, said = kept(table(c=SIZE), "c", features=["x"])
    assert found == "ej" and said


BAD = [
    # the column, its values, words of the message
    ("d", None, "t.csv: no column 'd'; .*the columns are g, x, y"),
    ("g", None, "cannot be held out by 'g': it names them"),
    ("y", None, "cannot be held out by 'y': it is the target"),
    ("c", list("ababababab"), "by 'c': it holds names, .* --split-by c keeps groups of one name"),
    ("c", [7.5] * 10, "by 'c': it is 7.5 in every group, .* larger value than the others.$"),
    ("c", [1, 2, 3, 4] * 10, "it is 2.5 in every group.* evaluate --order c judges later rows"),
    ("c", [1, None, *range(8)], "by 'c': group 'b' has no value of it. Fill it in"),
    ("c", [None, None, None, *range(7)], "by 'c': group 'a' and 2 more groups have no value of it"),
    ("c", [1] * 9 + [0], "by 'c': 9 of 10 share its largest value"),
]


@pytest.mark.parametrize(("by", "values", "words"), BAD)
def test_what_gives_no_order_of_groups_is_refused(by, values, words):
    frame = table()
    if values is not None:
        values = [v for v in values for _ in range(4)] if len(values) == 10 else values
        frame = frame.with_columns(pl.Series("c", values))
    with pytest.raises(InputError, match=words):
        kept(frame, by)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"holdout": 0.0}, "holdout_by needs the share"), ({"holdout": 0.2, "part": 1}, "part is 0")],
)
def test_of_a_prior_the_options_fit_together(options, words):
    with pytest.raises(InputError, match=words):
        metaprior.Prior(holdout_by="c", **options)


@pytest.mark.parametrize(
    ("text", "share", "by"),
    [
        (None, 0.2, None),
        ("0.3", 0.3, None),
        ("by=year", 0.2, "year"),
        ("0.5,by=year", 0.5, "year"),
        ("0.3, by= a, b", 0.3, "a, b"),
        ("by=by=", 0.2, "by="),
    ],
)
def test_the_option_is_a_share_or_a_column_or_both(text, share, by):
    assert asked_for(text) == {"holdout": share, "holdout_by": by}


@pytest.mark.parametrize(
    "text", ["", "0", "0.6", "-0.1", "nan", "year", "by=", "0.2,by=", "0.3by=x", "x,by=y", "0.2,y"]
)
def test_what_is_neither_is_refused(text):
    with pytest.raises(InputError, match=r"--holdout takes a share above 0, at most 0\.5"):
        asked_for(text)


def test_there_is_one_split():
    assert splits_of({"holdout": 0.2}) == 5 and splits_of({"holdout": 0.5, "holdout_by": None}) == 2
    assert splits_of({"holdout": 0.2, "holdout_by": "c"}) == 1
    assert which_split({"seed": 3, "holdout": 0.2}, 6) == (4, 1)


def test_a_prior_says_what_it_was_judged_on(tmp_path):
    """Also after it was saved; a table of other groups is not of the largest values."""
    prior = metaprior.Prior("mixed", holdout=0.2, holdout_by="c", steps=4)
    prior.fit(table(c=SIZE), task="g", target="y")
    assert prior.info["holdout_by"] == "c" and prior.info["groups"] == {"train": 8, "test": 2}
    prior.save(tmp_path / "prior")
    found = metaprior.load(tmp_path / "prior").evaluate(shots=(1,))
    assert found.about.notes == (
        "c: the judged groups have larger values than any that was learned from.",
    )
    assert not prior.evaluate(table(c=SIZE), shots=(1,)).about.notes
