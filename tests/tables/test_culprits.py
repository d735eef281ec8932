"""A group whose loss is not finite in training: named, with the prior of before; or left out."""

import json

import equinox as eqx
import jax.numpy as jnp
import pytest
from conftest import tiny_csv

import metaprior
from metaprior.methods.maml import MAML

FIT = [
    "fit",
    "t.csv",
    "--task",
    "g",
    "--target",
    "y",
    "--method",
    "maml",
    "--steps",
    "30",
    "--out",
    "run",
]


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """MAML's loss is not a number where a target lies beyond 2.5 deviations, as those of group g3
    do.
    """
    loss = MAML.loss

    def breaks(self, task, *, key):
        beyond = ((task.query.y > 2.5) & task.query.mask[:, None]).any()
        return loss(self, task, key=key) + jnp.where(beyond, jnp.nan, 0.0)

    monkeypatch.setattr(MAML, "loss", breaks)
    monkeypatch.chdir(tmp_path)
    rows = [line.split(",") for line in tiny_csv().splitlines()]
    for row in rows[1:]:
        row[4] = str(float(row[4]) + 9.0) if row[0] == "g3" else row[4]
    lines = [",".join(row) for row in rows]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "without.csv").write_text(
        "\n".join(line for line in lines if not line.startswith("g3,")) + "\n"
    )
    return tmp_path


@pytest.mark.slow
def test_named_with_the_prior_of_before_then_left_out(planted, call):
    status, _, said = call(*FIT)
    assert status == 2 and said.splitlines()[-1].startswith(
        "metaprior: t.csv: column 'g': with 'g3' the loss"
    ), said
    for words in (
        " of 30 steps of training maml",
        "--resume",
        "--skip-bad-tasks",
        "run/last_good is the prior",
    ):
        assert words in said, said
    assert (
        metaprior.load("run/last_good")
        .adapt(None)
        .predict({"x": [0.0], "kind": ["a"], "day": [1]})
        .height
        == 1
    )
    assert "--resume" in call("predict", "run", "--query", "t.csv")[2]  # this fit has not finished

    assert call(*FIT, "--resume")[0] == 2  # nothing has changed
    status, _, said = call(*FIT, "--resume", "--skip-bad-tasks")
    assert status == 0 and "note: g g3: left out" in said, said
    assert {p.name for p in (planted / "run").iterdir()} == {"prior", "run.json"}

    prior = metaprior.load("run/prior")
    assert "g3" in prior.info["notes"][0]
    same = metaprior.Prior("maml", steps=30, holdout=0.2).fit("without.csv", task="g", target="y")
    assert eqx.tree_equal(
        prior.trained.learner, same.trained.learner
    )  # the same as if it had not been there


@pytest.mark.slow
def test_in_python_the_prior_of_before_is_there_or_the_group_is_left_out(planted):
    prior = metaprior.Prior("maml", steps=30, holdout=0.2)
    with pytest.raises(metaprior.errors.InputError, match="'g3' the loss is not finite at"):
        prior.fit("t.csv", task="g", target="y")
    assert prior.adapt(None).predict({"x": [0.0], "kind": ["a"], "day": [1]}).height == 1
    prior = metaprior.Prior("maml", steps=30, holdout=0.2, skip_bad_tasks=True).fit(
        "t.csv", task="g", target="y"
    )
    assert "g3" in prior.info["notes"][0] and prior.info["groups"] == {"train": 9, "test": 2}


@pytest.mark.slow
def test_compared_methods_have_the_same_groups(planted, call):
    """One that can only be trained without a group is not judged beside those that have it."""
    table = [
        "t.csv",
        "--task",
        "g",
        "--target",
        "y",
        "--features",
        "x",
        "--shots",
        "0",
        "--splits",
        "1",
        "--skip-bad-tasks",
    ]
    status, _, said = call(
        "compare", *table, "--methods", "cnp,maml", "--steps", "30", "--out", "out"
    )
    for words in (
        "maml, split 1 failed",
        "can only be trained without groups that the others have: g g3: left out",
    ):
        assert words in said, said
    assert status == 2
    results = json.loads((planted / "out" / "results.json").read_text())
    assert results["methods"] == ["cnp"] and [f["method"] for f in results["failed"]] == ["maml"]
