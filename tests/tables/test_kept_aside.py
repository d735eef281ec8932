"""Guaranteed intervals: thresholds from groups kept aside, one group and many, refusals."""

import dataclasses
import itertools

import numpy as np
import polars as pl
import pytest
from test_many import SILENT, prior_of, table

import metaprior
from metaprior.errors import InputError
from metaprior.evaluation import conformal
from metaprior.tables.groups import runs, sorted_groups
from metaprior.tables.guarantee import SHOTS, Kept, guarantee_of, need_guarantee, prepared
from metaprior.tables.trained import HeldOut


def keeping(prior: metaprior.Prior, groups: int, rows: int = 14, sets=None) -> metaprior.Prior:
    """The prior with so many groups kept aside."""
    trained = prior.trained
    found = prior.rows(table(groups, rows, seed=5), "kept")
    group, order = sorted_groups(found.frame, "g", "kept")
    x, y = trained.encode(found)[order], trained.outcomes(found)[order]
    held = HeldOut(x, y, *runs(group), sets=sets)
    info = trained.info | {"split_by": None if sets is None else "week"}
    prior.trained = dataclasses.replace(trained, held=held, info=info)
    return prior


@pytest.fixture(scope="module")
def kept() -> metaprior.Prior:
    return keeping(prior_of("logarithms"), 24)


def rows_of(prior, group: int, place: np.ndarray) -> pl.DataFrame:
    """Rows of a kept group as the prior reads them."""
    held, units = prior.trained.held, prior.trained.units
    at = held.start[group] + place
    frame = table(24, 14, seed=5)
    names = frame["g"].unique().sort()
    own = frame.filter(pl.col("g") == names[group])
    np.testing.assert_allclose(units.to_y(held.y[at, 0]), own["y"].to_numpy()[place], rtol=1e-5)
    return own[place]


def test_kept_groups_are_held_as_the_rule_says(kept):
    """At each K the intervals of the kept groups' own rows hold a T-th part more than the share,
    and any narrower interval holds less: asked of the posterior of one group at a time.
    """
    trained, share = kept.trained, 0.8
    order = Kept.of(trained.held)
    for K in (0, 2):
        mean = []
        for group in range(24):
            here = order.group == group
            # Which rows of the group come first: their y says it.
            own = trained.held.y[trained.held.start[group] :][:14, 0]
            place = np.array([int(np.flatnonzero(own == y)[0]) for y in order.y[here, 0]])
            support, query = (rows_of(kept, group, p) for p in (place[:K], place[K:]))
            said = kept.adapt(support if K else None).interval(query, share, guaranteed=True)
            y, low, high = query["y"].to_numpy(), said["low"].to_numpy(), said["high"].to_numpy()
            slack = 1e-4 * (high - low)  # the row that sets the threshold lies on an end
            mean.append(((low - slack <= y) & (y <= high + slack)).mean())
        assert 0.8 * 25 / 24 <= np.mean(mean) + 1e-9 < 0.8 * 25 / 24 + 1 / 24


def test_thresholds_grow_with_the_share_and_only_the_model_s_scale_counts(kept):
    guarantee = guarantee_of(kept.trained, 0.8)
    assert guarantee.by.shape == (len(SHOTS),) and set(guarantee.groups) == {24}
    # 24 groups are 19 or more.
    assert np.isfinite(guarantee_of(kept.trained, 0.95).by).all()
    frame = pl.DataFrame({"x": [0.0, 1.0]})
    posterior = kept.adapt(None)
    wide = [posterior.interval(frame, share, guaranteed=True) for share in (0.5, 0.8, 0.9)]
    for narrow, wider in itertools.pairwise(wide):
        assert (narrow["low"] >= wider["low"]).all() and (narrow["high"] <= wider["high"]).all()
    own, units = posterior.interval(frame, 0.8), kept.trained.units
    by = guarantee.at(0)
    low, high = units.to_z(own["low"]) - by, units.to_z(own["high"]) + by
    np.testing.assert_allclose(wide[1]["low"], units.to_y(low), rtol=1e-4)
    np.testing.assert_allclose(wide[1]["high"], units.to_y(high), rtol=1e-4)


def test_between_two_numbers_of_rows_the_larger_counts(kept):
    guarantee = guarantee_of(kept.trained, 0.9)
    by = guarantee.thresholds
    assert guarantee.most == 10
    for known, expected in ((0, by[0]), (2, by[2]), (3, max(by[2:4])), (10, by[4])):
        assert guarantee.at(known) == expected
    np.testing.assert_array_equal(guarantee.at(np.array([0, 7])), [by[0], max(by[3:])])


def test_many_groups_are_as_one_at_a_time(kept):
    """Groups with nothing observed, with some rows, and with more than thresholds reach."""
    new = table(3, 16, seed=9)
    count = {"g0": 0, "g1": 3, "g2": 13}
    place = pl.int_range(pl.len()).over("g")
    hidden = new.with_columns(
        y=pl.when(place < pl.col("g").replace_strict(count)).then("y").otherwise(None)
    )
    notes = []
    said = kept.predict(hidden, guaranteed=0.9, say=notes.append)
    assert said.columns[-2:] == ["low", "high"]
    assert any("10 rows drawn at random" in note for note in notes)
    for name, known in count.items():
        own = new.filter(pl.col("g") == name)
        posterior = kept.adapt(own[:known] if known else None)
        one = posterior.interval(own[known:], 0.9, guaranteed=True)
        both = said.filter(pl.col("g") == name).select("low", "high")
        np.testing.assert_allclose(both.to_numpy(), one.to_numpy(), rtol=1e-4, atol=1e-4)
        assert ("10 rows drawn at random" in " ".join(posterior.notes)) == (known > 10)
    plain = kept.predict(hidden, **SILENT)
    assert said.drop("low", "high").equals(plain)


def test_a_share_is_computed_once_and_a_saved_prior_gives_the_same(kept, tmp_path):
    frame = pl.DataFrame({"x": [0.0]})
    asked = [kept.adapt(None).interval(frame, share, guaranteed=True) for share in (0.8, 0.7)]
    held = kept.trained.held
    alone = prepared(kept.trained.learner, kept.trained.curve(), held, 0.8)
    np.testing.assert_allclose(alone.at(0), guarantee_of(kept.trained, 0.8).at(0))
    assert guarantee_of(kept.trained, 0.8) is guarantee_of(kept.trained, 0.8)
    assert asked[1]["low"][0] >= asked[0]["low"][0]
    kept.save(tmp_path / "prior")
    again = metaprior.load(tmp_path / "prior").adapt(None)
    assert again.interval(frame, 0.8, guaranteed=True).equals(asked[0])


def test_sets_of_groups_count_once():
    """24 groups in 8 sets are 8: too few of nine tenths."""
    prior = keeping(prior_of("numbers"), 24, sets=np.arange(24) // 3)
    assert set(guarantee_of(prior.trained, 0.8).groups) == {8}
    with pytest.raises(
        InputError, match=r"at least 9 sets of groups that share a value of 'week'.*has 8"
    ):
        prior.adapt(None).interval({"x": [0.0]}, guaranteed=True)
    assert prior.adapt(None).interval({"x": [0.0]}, 0.8, guaranteed=True).height == 1


def test_where_kept_groups_have_one_row_nothing_observed_counts():
    prior = keeping(prior_of("numbers"), 24, rows=1)
    assert guarantee_of(prior.trained, 0.9).groups.tolist() == [24, 0, 0, 0, 0]
    own, frame = table(1, 3, seed=9), {"x": [0.0]}
    posterior = prior.adapt(own)
    said = posterior.interval(frame, guaranteed=True)
    assert said.equals(prior.adapt(None).interval(frame, guaranteed=True))
    assert "more than 0 observed rows" in posterior.notes[-1]
    asked = pl.concat(
        [own.select("g", "x", "y"), pl.DataFrame({"g": ["g0"], "x": [0.0], "y": [None]})],
        how="vertical_relaxed",
    )
    many = prior.predict(asked, guaranteed=0.9, **SILENT).select("low", "high")
    np.testing.assert_allclose(many.to_numpy(), said.to_numpy(), rtol=1e-5)


def test_what_cannot_be_guaranteed_is_said():
    x = {"x": [0.0]}
    prior = prior_of("numbers")
    with pytest.raises(InputError, match=r"this prior kept none aside.*holdout=0\.2"):
        prior.adapt(None).interval(x, guaranteed=True)
    with pytest.raises(InputError, match="is of one target; this prior predicts 2 together"):
        need_guarantee([prior.trained, prior.trained], 0.9)
    few = keeping(prior, 8)
    with pytest.raises(InputError, match=r"of 90 % needs at least 9 groups kept aside.*has 8"):
        few.adapt(None).interval(x, guaranteed=True)
    with pytest.raises(InputError, match="interval is a share inside"):
        few.adapt(None).interval(x, 90, guaranteed=True)
    with pytest.raises(InputError, match="needs at least 9 groups"):
        few.predict({"g": ["a"], "x": [0.0]}, guaranteed=0.9, **SILENT)
    info = few.trained.info | {"split_by": "week"}
    few.trained = dataclasses.replace(few.trained, info=info)
    with pytest.raises(InputError, match=r"earlier version.*share a value of 'week'"):
        few.adapt(None).interval(x, 0.5, guaranteed=True)
    with pytest.raises(InputError, match="has classes"):
        prior_of("classes").predict({"g": ["a"], "x": [0.0]}, guaranteed=0.9, **SILENT)


@pytest.mark.slow
def test_the_command_gives_it(fitted, tmp_path, call):
    """Two groups are kept of twelve: too few of nine tenths, enough of half."""
    trained = metaprior.load(fitted / "run" / "prior").trained
    assert guarantee_of(trained, 0.5).groups.tolist() == [2, 2, 2, 2, 0]
    query = tmp_path / "query.csv"
    query.write_text("g,x,kind,day,y\nnew,0.1,a,1,0.5\nnew,0.3,b,1,\n")
    status, out, err = call("predict", fitted / "run", query, "--guaranteed")
    assert status == 2 and out == "" and "needs at least 9 groups kept aside; this prior" in err
    status, out, err = call("predict", fitted / "run", query, "--guaranteed", "--interval", "0.5")
    assert status == 0 and out.splitlines()[0].endswith(",low,high") and "2 groups kept" in err
    alone = tmp_path / "alone.csv"
    alone.write_text("x,kind,day\n0.3,b,1\n")
    known = tmp_path / "known.csv"
    known.write_text("x,kind,day,y\n0.1,a,1,0.5\n")
    files = ["--query", alone, "--support", known, "--guaranteed", "--interval", "0.5"]
    status, alone_out, err = call("predict", fitted / "run", *files)
    assert status == 0, err
    values = [text.splitlines()[1].split(",")[-2:] for text in (out, alone_out)]
    np.testing.assert_allclose(*(np.array(v, float) for v in values), rtol=1e-4)
    assert conformal.fewest(0.5) == 1
