"""Many new groups in one table: split, predicted together, and the same as one at a time."""

import io
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

import metaprior
from metaprior.errors import InputError
from metaprior.evaluation.units import Units
from metaprior.heads import Categorical, StudentT
from metaprior.method import Spec
from metaprior.methods import CNP, ALPaCA, Ensemble, Process
from metaprior.methods.stack import Stack
from metaprior.posterior import Postponed, Stacked
from metaprior.tables import grouped, padding
from metaprior.tables import posterior as one_group
from metaprior.tables.baselines import cross_fit
from metaprior.tables.columns import Features
from metaprior.tables.groups import digests
from metaprior.tables.many import MOST_ASKED, Runs, batches
from metaprior.tables.read import Rows
from metaprior.tables.split import split
from metaprior.tables.trained import Trained
from metaprior.task import Data

SILENT = {"say": lambda note: None}


def table(groups: int, rows: int, kind: str = "numbers", seed: int = 0) -> pl.DataFrame:
    """Groups g0, g1 … of numbers a to c and a target y, positive numbers or one of three words."""
    rng = np.random.default_rng(seed)
    n = groups * rows
    y = np.exp(rng.normal(size=n) + np.repeat(rng.normal(size=groups), rows))
    if kind == "classes":
        y = np.array(["low", "mid", "top"])[np.digitize(y, [0.5, 2.0])]
    names = np.repeat([f"g{i}" for i in range(groups)], rows)
    return pl.DataFrame({"g": names, "x": rng.normal(size=n), "week": np.arange(n), "y": y})


def prior_of(kind: str, make=Process.init) -> metaprior.Prior:
    """A prior that has learned its columns, and whose method is as it was made."""
    frame = table(10, 6, kind, seed=1)
    fold = np.repeat(np.arange(10) % 2, 6)
    features = Features.learn(frame, ["x"], np.repeat(np.arange(10), 6))
    labels = ["low", "mid", "top"] if kind == "classes" else None
    y, log = frame["y"], kind == "logarithms"
    if labels:
        z, units, head = np.array([labels.index(v) for v in y], float), None, Categorical(3)
    else:
        z = np.log(y.to_numpy()) if log else y.to_numpy()
        units, head = Units(float(z.mean()), float(z.std()), -2.0, 4.0, log), StudentT(1)
        z = (z - units.center) / units.scale
    encoded, raw = features.encode(frame)
    boosting, pooled = cross_fit(raw, z, fold, classes=len(labels or ()), rounds=3)
    spec = Spec(encoded.shape[1] + pooled.shape[1], head, pooled.shape[1])
    info = {"task": "g", "target": "y", "features": ["x"], "classes": labels, "arrays": False}
    info |= {
        "method": "auto",
        "target_scale": "log" if log else "linear",
        "seed": 0,
        "split_by": None,
        "notes": [],
    }
    info |= {"groups": {"train": 10, "test": 0}, "rows": 60, "version": "test"}
    learner = make(spec, key=jax.random.key(0))
    prior = metaprior.Prior()
    prior.trained = Trained(info, features, boosting, units, learner, {}, None, digests(["g1"]))
    return prior


@pytest.fixture(scope="module")
def prior():
    return prior_of("numbers", lambda spec, key: ALPaCA.init(spec, key=key, width=8, size=4))


def read(text: str) -> pl.DataFrame:
    return pl.read_csv(io.StringIO(text))


def hide(frame: pl.DataFrame, share: float = 0.5) -> pl.DataFrame:
    """Without the target in some rows of every group, those and the groups in any order."""
    mixed = frame.sample(fraction=1.0, shuffle=True, seed=3)
    hidden = pl.Series(np.random.default_rng(4).uniform(size=mixed.height) < share)
    return mixed.with_columns(pl.when(~hidden).then(pl.col("y")))


@pytest.mark.quick("numbers")
@pytest.mark.parametrize("kind", ["numbers", "logarithms", "classes"])
def test_all_groups_at_once_are_as_one_at_a_time(kind):
    """In millionths of a deviation; groups of all sizes, some with nothing observed."""
    prior = prior_of(kind)
    new = pl.concat(
        [hide(table(5, 7, kind)), table(1, 2, kind).with_columns(g=pl.lit("z"), y=None)]
    )
    said = prior.predict(new, keep=["week"], **SILENT)
    rows = new.filter(pl.col("y").is_null())
    assert said["week"].equals(rows["week"]) and said["g"].equals(rows["g"])
    posteriors = prior.adapt_each(new, **SILENT)
    assert list(posteriors) == new["g"].unique(maintain_order=True).to_list()
    for name, posterior in posteriors.items():
        own = new.filter(pl.col("g") == name)
        known, asked = own.drop_nulls("y"), own.filter(pl.col("y").is_null())
        both = said.filter(pl.col("g") == name).drop("g", "week")
        for one in (posterior, prior.adapt(known)) if asked.height else ():
            alone = one.predict(asked)
            unit = 1.0 if kind == "classes" else alone["std"].to_numpy()[:, None]
            assert (np.abs(both.to_numpy() - alone.to_numpy()) < 3e-6 * unit).all()


@pytest.mark.slow
def test_suggestions_for_all_groups_are_those_of_each(prior):
    """Of each group as of that group alone; over all the best of those."""
    first = pl.int_range(pl.len()).over("g") < 3
    new = table(4, 7).with_columns(y=pl.when(first).then("y"))
    each = prior.suggest(new, 2, **SILENT)
    assert each.columns == ["g", "x", "week", "row", "score", "gain_nats"]
    assert new[(each["row"] - 1).to_list()]["week"].equals(each["week"])
    for (name,), own in new.group_by("g", maintain_order=True):
        known, pool = own.drop_nulls("y"), own.filter(pl.col("y").is_null())
        alone = prior.adapt(known).suggest(pool.drop("y"), n=2)
        its = each.filter(pl.col("g") == name)
        assert its["week"].equals(alone["week"])
        np.testing.assert_allclose(its["score"], alone["score"], atol=1e-5)
    best = prior.suggest(new, 3, over_all=True, keep=["week"], **SILENT)
    assert best.columns == ["g", "week", "row", "score", "gain_nats"]
    assert (
        best["week"][0] == each.sort("score", descending=True)["week"][0]
        and best["row"].n_unique() == 3
    )
    with pytest.warns(UserWarning, match="1 of 2 groups have fewer than 2 rows without"):
        assert prior.suggest(new.filter(pl.col("week").is_in([0, 3, 14, 20, 18])), 2).height == 3


def both(spec, key):
    """A stack of what can be updated and of what cannot."""
    small = Process.init(spec, key=key, width=4, features=2)
    members = eqx.filter_vmap(lambda k: ALPaCA.init(spec, key=k, width=4, size=3))
    return Stack(
        (small, Ensemble(members(jax.random.split(key))), CNP.init(spec, key=key, width=4)),
        jnp.asarray([[0.0, 1.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_updating_twice_is_updating_once(kind):
    """To the last bit, also where more room is needed; and as adapting anew, up to rounding."""
    prior = prior_of(kind, both if kind == "numbers" else Process.init)
    rows, asked = table(1, 11, kind), table(1, 3, kind, seed=5)
    once = prior.adapt(rows[:2]).update(rows[2:])
    twice = prior.adapt(rows[:2]).update(rows[2:7]).update(rows[7:])
    one_by_one = prior.adapt(rows[:2])
    for i in range(2, 11):
        one_by_one = one_by_one.update(rows[i])
    said = once.predict(asked)
    assert said.equals(twice.predict(asked)) and said.equals(one_by_one.predict(asked))
    anew = prior.adapt(rows).predict(asked)
    np.testing.assert_allclose(said.to_numpy(), anew.to_numpy(), rtol=1e-4, atol=1e-5)
    assert not prior.adapt(rows[:2]).predict(asked).equals(said)
    if kind == "numbers":
        from_nothing = prior.adapt(None).update(rows).predict(asked)
        np.testing.assert_allclose(from_nothing.to_numpy(), anew.to_numpy(), rtol=1e-4, atol=1e-5)
        with pytest.raises(InputError, match="holds 2 values of 'g'"):
            once.update(table(2, 1))


def test_rows_find_their_program_and_their_way_back():
    """Small, large and empty groups, and one whose rows to predict are several tasks."""
    rng = np.random.default_rng(0)
    known, asked = np.array([0, 3, 8, 9, 300, 5]), np.array([1, 4, 0, 9, 3 * MOST_ASKED - 1, 2])
    group = np.repeat(np.tile(np.arange(6), 2), np.concatenate([known, asked]))
    observed = np.arange(len(group)) < known.sum()
    order = rng.permutation(len(group))
    group, observed = group[order], observed[order]
    runs = Runs.of(group, observed, 6), Runs.of(group, ~observed, 6)
    met = np.zeros(len(group), int)
    for batch in batches(*runs):
        for i, number in enumerate(batch.groups):
            mine = batch.known.rows[i][batch.known.real[i]]
            assert (mine == np.flatnonzero(observed & (group == number))).all()
            its = batch.asked.rows[i][batch.asked.real[i]]
            assert (group[its] == number).all() and not observed[its].any()
            met[its] += 1
    assert (met[~observed] == 1).all() and not met[observed].any()


def test_of_a_very_large_group_some_rows_are_conditioned_on(prior, monkeypatch):
    """The same ones in a table and alone, with a note; smaller groups are as they were."""
    for module in (padding, one_group, grouped):
        monkeypatch.setattr(module, "MOST_OBSERVED", 12)
    frame = table(3, 40).with_row_index()
    frame = frame.filter((pl.col("g") != "g0") | (pl.col("index") < 12))
    asked = frame["index"] % 40 >= 10
    asked &= (frame["g"] != "g1") | (frame["index"] % 40 >= 30)  # g1 has 30 observed rows
    hidden = frame.with_columns(y=pl.when(asked).then(None).otherwise("y"))
    notes = []
    found = prior.predict(hidden, say=notes.append)
    said = "30 observed rows: 12 of them, drawn at random, are conditioned on."
    assert [said in note for note in notes].count(True) == 1

    for name in ("g1", "g2"):
        own = hidden.filter(pl.col("g") == name)
        known = own.drop_nulls("y")
        alone = prior.adapt(known)
        assert any(said in note for note in alone.notes) == (name == "g1")
        if name == "g1":
            rows = padding.some_of(30)
            assert len(rows) == 12
            assert (np.diff(rows) > 0).all()
            known = known[rows]
        fewer = prior.adapt(known)
        assert not any("drawn at random" in note for note in fewer.notes)
        new = own.filter(pl.col("y").is_null())
        expected = fewer.predict(new)["mean"]
        np.testing.assert_array_equal(alone.predict(new)["mean"], expected)
        there = found.filter(pl.col("g") == name)["mean"]
        np.testing.assert_allclose(there, expected, rtol=1e-5)


@pytest.mark.slow
def test_members_of_an_ensemble_condition_one_after_another(monkeypatch):
    """With many rows; the answer is that of all members at once."""
    ensemble = Ensemble.init(
        Spec(1, StudentT(1)), key=jax.random.key(0), base=Process, members=3, width=4, features=2
    )
    rng = np.random.default_rng(0)
    rows = Data.of(rng.normal(size=(6, 1)), rng.normal(size=6))

    @eqx.filter_jit
    def answers(ensemble, rows):
        posterior = ensemble.posterior(rows, key=jax.random.key(1))
        mixture = posterior.predict(rows.x, key=jax.random.key(2), samples=4)
        drawn = posterior.sample(rows.x, key=jax.random.key(2), samples=2)
        joint = posterior.joint_log_prob(rows, key=jax.random.key(3), samples=4)
        return mixture.log_prob(rows.y), mixture.epistemic(), drawn.mean(), joint

    assert isinstance(ensemble.posterior(rows, key=jax.random.key(1)), Stacked)
    together = answers(ensemble, rows)
    monkeypatch.setattr(sys.modules[Ensemble.__module__], "MANY", 5)
    assert isinstance(ensemble.posterior(rows, key=jax.random.key(1)), Postponed)
    jax.clear_caches()
    # Draws where the function is known: the root of a variance that is nothing but rounding.
    bounds = (1e-5, 1e-5, 3e-4, 1e-5)
    for a, b, bound in zip(together, answers(ensemble, rows), bounds, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=bound)


@pytest.mark.slow
def test_a_very_large_group_takes_further_rows(monkeypatch):
    """Where members go from all at once to one after another, and where they are there already."""
    monkeypatch.setattr(sys.modules[Ensemble.__module__], "MANY", 12)

    def make(spec, key):
        return Ensemble.init(spec, key=key, base=Process, members=2, width=4, features=2)

    prior, rows, asked = prior_of("numbers", make), table(1, 20), table(1, 3, seed=5)
    anew = prior.adapt(rows).predict(asked).to_numpy()
    for first in (6, 14):
        posterior = prior.adapt(rows[:first])
        assert not np.allclose(posterior.predict(asked).to_numpy(), anew, rtol=1e-2)
        said = posterior.update(rows[first:]).predict(asked).to_numpy()
        np.testing.assert_allclose(said, anew, rtol=1e-4, atol=1e-5)


def test_a_number_of_groups_makes_no_new_program():
    def shapes(groups):
        group, observed = np.repeat(np.arange(groups), 10), np.tile(np.arange(10) < 5, groups)
        runs = Runs.of(group, observed, groups), Runs.of(group, ~observed, groups)
        return {batch.shape for batch in batches(*runs)}

    assert shapes(3) == shapes(1000) and len(shapes(3)) == 1


def test_notes_say_what_was_made_of_the_table(prior):
    def notes(frame):
        found = split(Rows(frame, "t.csv"), [prior.trained])
        return " | ".join(found.notes)

    new = table(3, 2).with_columns(y=pl.Series([1.0, None, None, None, 2.0, 3.0]))
    said = notes(new)
    assert "learned from 1 of the 3 groups, by their names (g1)" in said
    assert "1 of 3 groups have no observed row" in said and "(g1)" in said
    assert "1 of 3 groups have no row without the target" in said and "(g2)" in said
    assert "no column 'g', so all rows are taken as one group" in notes(new.drop("g"))
    assert "no column 'y', so no value of it was observed" in notes(new.drop("y"))
    with pytest.warns(UserWarning, match="no observed row"):
        assert prior.predict(new[:2].with_columns(y=None)).columns[:2] == ["g", "mean"]


def test_a_table_without_groups_is_one_group(prior):
    new = hide(table(1, 6))
    said = prior.predict(new.drop("g"), **SILENT)
    assert said.equals(prior.predict(new, **SILENT).drop("g"))


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda f: f.fill_null(1.0), "nothing to predict: every row holds the target"),
        (lambda f: f.with_columns(g=None), "column 'g', row 1: no value"),
        (lambda f: f.with_columns(y=pl.lit("u")), "column 'y', row 1: 'u' is not a number"),
        (lambda f: f.with_columns(y=pl.col("y") * np.inf), "column 'y', row .: inf cannot be"),
    ],
)
def test_tables_that_cannot_be_used(prior, change, words):
    with pytest.raises(InputError, match=words):
        prior.predict(change(hide(table(2, 4))), **SILENT)


def test_several_groups_are_not_one(prior):
    words = "holds 2 values of 'g'; predictions are for one group. Give the whole table to"
    with pytest.raises(InputError, match=words):
        prior.adapt(table(2, 4))
    with pytest.raises(InputError, match="a column 'mean' of its own"):
        new = hide(table(2, 4)).with_columns(mean=0)
        prior.predict(new, keep=["mean"], **SILENT)


def test_commands_take_a_table(prior, tmp_path, call):
    """Rows without the target, in their order, as if each group came alone in two files."""
    prior.save(tmp_path / "prior")
    new, path = hide(table(3, 6)), tmp_path / "new.csv"
    new.write_csv(path)
    status, out, err = call(
        "predict", tmp_path / "prior", path, "--keep", "week", "--levels", "0.1"
    )
    assert status == 0 and "names (g1). They are taken as new" in err
    said = read(out)
    assert said.columns == ["g", "week", "mean", "std", "q10", "epistemic"]
    assert said["week"].equals(new.filter(pl.col("y").is_null())["week"])

    own = new.filter(pl.col("g") == "g0")
    own.drop_nulls("y").write_csv(tmp_path / "s.csv")
    own.filter(pl.col("y").is_null()).drop("y").write_csv(tmp_path / "q.csv")
    both = ["--support", tmp_path / "s.csv", "--query", tmp_path / "q.csv"]
    alone = read(call("predict", tmp_path / "prior", *both)[1])
    np.testing.assert_allclose(alone["mean"], said.filter(pl.col("g") == "g0")["mean"], rtol=1e-5)

    options = ["--n", "2", "--over-all", "--out", tmp_path / "next.csv"]
    assert call("suggest", tmp_path / "prior", path, *options)[0] == 0
    assert read((tmp_path / "next.csv").read_text())["row"].n_unique() == 2
