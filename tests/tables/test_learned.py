"""`suggest --by learned`: learned once from groups kept aside, one group and many, refusals."""

import dataclasses
import warnings

import numpy as np
import polars as pl
import pytest
from test_kept_aside import keeping
from test_many import prior_of, table

import metaprior
from metaprior.acquire_learned import FEATURES
from metaprior.errors import InputError
from metaprior.tables import learned


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Few simulated groups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned, "STATES", 128)
        yield


@pytest.fixture(scope="module")
def kept() -> metaprior.Prior:
    return keeping(prior_of("logarithms"), 24)


def test_a_rule_finds_what_drops_depend_on():
    """Drops that follow one feature are ordered as it orders them; noise explains nothing."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, len(FEATURES)))
    drops = np.tanh(features[:, 3]) + 0.5 * rng.normal(size=3000)
    drops[:3] = 1e6  # a few beyond all others do not rule
    unit = np.arange(3000) // 30
    rule = learned.Rule.of(features, drops, unit)
    drops = np.clip(drops, *np.quantile(drops, [learned.CUT, 1 - learned.CUT]))
    best = np.corrcoef(np.tanh(features[:, 3]), drops)[0, 1] ** 2
    assert best - 0.05 < rule.explained < best + 0.01 and rule.groups == 100
    probe = np.zeros((2, 5, len(FEATURES)))
    probe[..., 3] = np.linspace(-1.5, 1.5, 5)
    assert (np.diff(rule(probe)) > 0).all()
    assert learned.Rule.of(features, rng.normal(size=3000), unit).explained < 0.02


def test_it_is_learned_once_and_saved(kept, tmp_path):
    """A note says so the first time; the saved prior has the rule, and says the same."""
    first = pl.int_range(pl.len()).over("g") < 3
    new = table(3, 7).with_columns(y=pl.when(first).then("y"))
    notes = []
    said = kept.suggest(new, 2, by="learned", say=notes.append)
    assert sum("by=learned: learned in" in note for note in notes) == 1
    assert "in 24 groups kept aside" in " ".join(notes)
    assert said.height == 6 and np.isfinite(said["score"].to_numpy()).all()
    kept.save(tmp_path / "prior")

    again, notes = metaprior.load(tmp_path / "prior"), []
    assert again.trained.rule is not None
    assert again.suggest(new, 2, by="learned", say=notes.append).equals(said)
    assert not any("learned in" in note for note in notes)

    # A rule of a version with other features is no rule.
    other = dataclasses.replace(again.trained.rule, features=("entropy",))
    assert learned.known_rule(dataclasses.replace(again.trained, rule=other)) is None

    # Of each group as of that group alone.
    for (name,), own in new.group_by("g", maintain_order=True):
        posterior = again.adapt(own.drop_nulls("y"))
        alone = posterior.suggest(own.filter(pl.col("y").is_null()).drop("y"), 2, by="learned")
        its = said.filter(pl.col("g") == name)
        assert its["week"].equals(alone["week"])
        np.testing.assert_allclose(its["score"], alone["score"], atol=1e-6)


def test_what_it_needs_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = table(1, 5).with_columns(y=None)
        with pytest.raises(InputError, match=r"kept none aside.*holdout=0\.2"):
            prior_of("numbers").suggest(rows, by="learned")
        with pytest.raises(InputError, match=r"at least 5 groups kept aside.*has 4"):
            keeping(prior_of("logarithms"), 4).suggest(rows, by="learned")
        with pytest.raises(InputError, match="of one target; this prior predicts 2 together"):
            learned.need_one_target(2)
        with pytest.raises(InputError, match="learned is for the goal learn"):
            prior_of("numbers").suggest(rows, by="learned", goal="maximise")


def test_groups_of_two_rows_do_not_count(kept):
    held = kept.trained.held
    small = dataclasses.replace(held, count=np.where(np.arange(24) < 4, held.count, 2))
    with pytest.raises(InputError, match="has 4"):
        learned.learn(kept.trained, small)
