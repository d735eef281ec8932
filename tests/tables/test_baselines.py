"""Every baseline can be fitted, saved and used as a method can."""

import dataclasses
import json

import polars as pl
import pytest
from conftest import FIT, tiny_csv

import metaprior
from metaprior.errors import InputError
from metaprior.tables.baselines import BASELINES, find


@pytest.mark.slow
def test_the_command_line_fits_and_uses_a_baseline(tmp_path, call):
    table = tmp_path / "t.csv"
    table.write_text(tiny_csv())
    status, _, err = call("fit", table, *FIT, "--method", "mixed", "--out", tmp_path / "run")
    assert status == 0, err
    status, out, _ = call("evaluate", tmp_path / "run", "--shots", "1", "--splits", "1", "--json")
    learners = json.loads(out)["shots"]["1"]
    assert status == 0 and set(learners) == {"method", *BASELINES} - {"mixed"}
    status, out, _ = call("predict", tmp_path / "run", "--query", table)
    assert status == 0 and out.startswith("mean,std,q05")


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_saved_and_predicts(name, fitted, tmp_path):
    prior = metaprior.load(fitted / "run" / "prior")
    trained = prior.trained
    prior.trained = dataclasses.replace(
        trained, info=trained.info | {"method": name}, learner=trained.baselines[name]
    )
    prior.save(tmp_path / "prior")
    rows = pl.read_csv(fitted / "table.csv").filter(g="g0")
    posterior = metaprior.load(tmp_path / "prior").adapt(rows[:3])
    said = posterior.predict(rows[3:])
    assert said.height == 5 and (said["std"] > 0).all() and said["mean"].is_finite().all()
    assert posterior.suggest(rows[3:], n=2).height == 2


def test_names_of_baselines_are_suggested():
    assert find("mixed").group == "baseline" and find("cnp").group == "black box"
    with pytest.raises(InputError, match="There is no method 'mixd'; did you mean 'mixed'"):
        metaprior.Prior("mixd")
