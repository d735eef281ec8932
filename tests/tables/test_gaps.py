"""Features that new rows lack: the band does not shrink for not knowing, and notes say what was."""

import numpy as np
import polars as pl
import pytest
from test_numbers import prior, rows, saved  # noqa: F401

from metaprior.tables.columns import Features
from metaprior.tables.gaps import DRAWS, Gaps

BETWEEN = np.array([[0.5, 0.2, 0.4], [0.2, 0.3, 0.3], [0.4, 0.3, 0.8]])
WITHIN = np.array([[1.0, 0.6, 0.9], [0.6, 1.0, 0.8], [0.9, 0.8, 1.5]])


@pytest.fixture(scope="module")
def normal():
    """A table of two features and a target, all normal: frame, target, group and its gaps."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(400), 8)
    values = rng.multivariate_normal(np.zeros(3), BETWEEN, 400)[group]
    values += rng.multivariate_normal(np.zeros(3), WITHIN, len(group))
    frame = pl.DataFrame({"a": values[:, 0], "b": values[:, 1], "s": group.astype(float)})
    frame = frame.with_columns(k=pl.Series(np.where(values[:, 0] > 0, "u", "v")))
    features = Features.learn(frame, ["a", "b", "s", "k"], group)
    columns = features.encode(frame)
    return frame, values[:, 2:], features, Gaps.learn(features, frame, columns, values[:, 2], group)


def blank(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    return frame.with_columns(pl.lit(None, frame[name].dtype).alias(name) for name in names)


def test_what_is_drawn_is_the_conditional_of_the_group(normal):
    """Mean and variance against the exact ones, given a's own row and three observed rows."""
    frame, z, features, gaps = normal
    known, asked = frame[:3], blank(frame[3:8], "b")
    before, filled = gaps.fill(features, known, z[:3], asked)
    assert before.height == 3 * DRAWS and filled.height == 5 * DRAWS
    drawn = filled["b"].to_numpy().reshape(DRAWS, 5)

    cov = np.kron(np.ones((4, 4)), BETWEEN) + np.kron(np.eye(4), WITHIN)
    seen = np.column_stack([known["a"], known["b"], z[:3]]).reshape(-1)
    for i in range(5):
        at, value = [*range(9), 9], np.append(seen, asked["a"][i])
        gain = cov[10, at] @ np.linalg.inv(cov[np.ix_(at, at)])
        std = np.sqrt(cov[10, 10] - gain @ cov[at, 10])
        assert drawn[:, i].mean() == pytest.approx(gain @ value, abs=0.15 * std)
        assert drawn[:, i].std() == pytest.approx(std, rel=0.15)
    assert (filled["a"].to_numpy().reshape(DRAWS, 5) == asked["a"].to_numpy()).all()


def test_what_a_group_has_in_common_is_known_from_its_other_rows(normal):
    frame, z, features, gaps = normal
    _, filled = gaps.fill(features, frame[:3], z[:3], blank(frame[3:8], "s"))
    spread = frame["s"].std()
    assert np.abs(filled["s"].to_numpy() - frame["s"][0]).max() < 0.05 * spread
    _, free = gaps.fill(features, frame[:0], z[:0], blank(frame[3:8], "s"))
    assert free["s"].std() > 0.5 * spread
    alone = gaps.fill(features, frame[:3], z[:3], blank(frame[3:4], "b"))[1]
    both = gaps.fill(features, frame[:3], z[:3], blank(frame[3:8], "b"))[1]
    middle = both["b"].to_numpy().reshape(DRAWS, 5)[:, 0].mean()  # whatever rows are beside it
    assert alone["b"].mean() == pytest.approx(middle, abs=1e-9)


def test_text_is_drawn_as_often_as_it_occurs(normal):
    frame, z, features, gaps = normal
    some = blank(frame[::40], "k")
    _, filled = gaps.fill(features, frame[:0], z[:0], some)
    likely = filled["k"].to_numpy().reshape(DRAWS, -1) == "u"
    truth = frame["k"][::40].to_numpy() == "u"
    assert set(filled["k"].unique()) == {"u", "v"}
    assert likely[:, truth].mean() > 0.75 and likely[:, ~truth].mean() < 0.25


@pytest.mark.slow
def test_a_band_does_not_shrink_for_not_knowing(prior, rows):  # noqa: F811
    known, query = rows
    full = prior.adapt(known).predict(query)
    posterior = prior.adapt(known)
    said = posterior.predict(blank(query, "x"))
    assert (said["std"] >= 0.98 * full["std"]).all() and said["std"].mean() > full["std"].mean()
    (note,) = posterior.notes
    assert note.startswith("query: column 'x': no value (5 rows, the first is row 1 of 5)")

    wholly = prior.adapt(blank(known, "kind")).predict(query)
    assert np.isfinite(wholly.to_numpy()).all()
    lacking = blank(query, "x", "kind")
    for functions in (False, True):
        draws = prior.adapt(known).sample(lacking, 8, functions=functions)
        assert np.isfinite(draws["y"].to_numpy()).all()
    assert np.isfinite(prior.adapt(known).suggest(lacking, 2)["score"].to_numpy()).all()
    asked = lacking.with_columns(query["y"])
    posterior = prior.adapt(known)
    assert np.isfinite(posterior.log_prob(asked)).all()
    assert np.isfinite(posterior.log_prob(asked, joint=True))
    assert ((0 < posterior.cdf(asked)) & (posterior.cdf(asked) < 1)).all()
    assert posterior.predict(query).equals(full)  # rows that lack nothing are as before


@pytest.mark.slow
def test_a_table_of_groups_is_answered_as_each_group_is(prior, rows):  # noqa: F811
    known, query = rows
    asked = blank(query, "y").with_columns(pl.Series("x", [0.5, None, 1.0, None, 0.0]))
    table = pl.concat([known.with_columns(g=pl.lit("n")), asked.with_columns(g=pl.lit("n"))])
    said: list[str] = []
    many = prior.predict(table, say=said.append)
    one = prior.adapt(known).predict(asked)
    np.testing.assert_allclose(many.select(one.columns).to_numpy(), one.to_numpy(), rtol=1e-4)
    assert any("no value (2 rows" in note for note in said)


@pytest.mark.slow
def test_what_training_does_not_cover_is_noted(saved, rows):  # noqa: F811
    known, query = rows
    posterior = saved.adapt(known)
    assert posterior.notes == ()
    posterior.predict(query)
    assert posterior.notes == ()
    odd = query.with_columns(
        pl.Series("x", [0.0, 1e6, 0.0, 0.0, -900.0]), pl.Series("kind", ["a", "b", "zz", "b", "a"])
    )
    posterior.predict(odd)
    far, unknown = posterior.notes
    assert far.startswith("query: column 'x': 1000000.0 (2 rows, the first is row 2 of 5) is far")
    assert "range in training" in far
    assert unknown.startswith("query: column 'kind': 'zz' (row 3 of 5) is none of the 2 values")
    posterior.predict(odd)
    assert len(posterior.notes) == 2  # said once
