"""Classes with an order: what is read, refused, learned, predicted and kept."""

import numpy as np
import polars as pl
import pytest

import metaprior
from metaprior.errors import InputError
from metaprior.heads import Ordinal
from metaprior.tables.checked import check_all
from metaprior.tables.compare import runnable
from metaprior.tables.meaning.kinds import Choices
from metaprior.tables.plan import Plan
from metaprior.tables.read import rows_of

ORDER = ["none", "mild", "severe"]


def table(groups: int = 16, rows: int = 9, seed: int = 0) -> pl.DataFrame:
    """Cumulative logits of one feature and a level of the group."""
    rng = np.random.default_rng(seed)
    group, week = np.repeat(np.arange(groups), rows), np.tile(np.arange(rows), groups)
    location = 0.8 * (week - 4) + rng.normal(0, 1.5, groups)[group]
    place = (location[:, None] + rng.logistic(size=(len(week), 1)) > [-1.0, 1.0]).sum(1)
    return pl.DataFrame({"g": group, "week": week, "pain": np.array(ORDER)[place]})


def checked(frame: pl.DataFrame, ordered, **plan):
    choices = Choices(ordered=ordered)
    targets = plan.pop("targets", ["pain"])
    return check_all(rows_of(frame, "table"), Plan("g", targets, choices=choices, **plan))[0]


def test_classes_are_numbered_in_their_order():
    found = checked(table(), ORDER)
    assert found.ordered and found.labels == ORDER
    names = found.frame["pain"].to_list()
    assert [ORDER[int(z)] for z in found.z] == names
    # The alphabet's order is another one.
    assert checked(table(), ()).labels == sorted(ORDER) != ORDER


@pytest.mark.parametrize("order", [["3", "1", "2"], ["3.0", "1", "2"]])
def test_classes_may_be_numbers(order):
    frame = table().with_columns(pl.col("pain").replace_strict(dict(zip(ORDER, (3, 1, 2)))))
    found = checked(frame, order)
    assert (found.z == checked(table(), ORDER).z).all() and found.labels == order


@pytest.mark.parametrize(
    "order,targets,words",
    [
        (["none", "mild"], ["pain"], "takes three classes or more"),
        (["none", "mild", "mild", "severe"], ["pain"], "names the class 'mild' twice"),
        (["none", "mild", "bad"], ["pain"], "holds 'severe', which --ordered does not name"),
        ([*ORDER, "fatal"], ["pain"], "never holds 'fatal', so nothing can be learned of it"),
        (ORDER, ["pain", "week"], "--ordered is of one target"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(order, targets, words):
    with pytest.raises(InputError, match=words):
        checked(table(), order, targets=targets)


def test_methods_without_a_place_between_classes_are_refused():
    with pytest.raises(InputError, match="protonet takes classes without an order"):
        metaprior.Prior("protonet", steps=2).fit(table(), task="g", target="pain", ordered=ORDER)
    able = runnable(True, ordered=True)
    assert {"auto", "process", "maml", "versa", "cnp"} <= set(able)
    assert set(runnable(True)) - set(able) == {"matching", "metaqda", "protonet"}


@pytest.fixture(scope="module")
def prior():
    prior = metaprior.Prior("mixed", holdout=0.2)
    return prior.fit(table(), task="g", target="pain", ordered=ORDER)


@pytest.mark.slow
def test_a_cumulative_model_is_learned_and_kept(prior, tmp_path):
    """Probabilities stand in the order; a saved prior gives the same ones."""
    assert isinstance(prior.trained.learner.head, Ordinal) and prior.info["ordered"]
    known = {"week": [2, 6], "pain": ["none", "severe"]}
    asked = {"week": [0, 4, 8]}
    said = prior.adapt(known).predict(asked)
    assert said.columns == ["p_none", "p_mild", "p_severe", "epistemic"]
    p = said.drop("epistemic").to_numpy()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert p[0].argmax() == 0 and p[2].argmax() == 2
    # More of the week moves all cumulative probabilities one way: that is the model.
    assert (np.diff(p.cumsum(1)[:, :2], axis=0) < 0).all()
    prior.save(tmp_path / "prior")
    assert metaprior.load(tmp_path / "prior").adapt(known).predict(asked).equals(said)
    assert set(prior.evaluate(shots=(2,)).points[2]) >= {"method", "marginal", "boosting"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "versa"])
def test_methods_learn_classes_in_an_order(method):
    """Better than the shares of the classes, on groups from the same source."""
    prior = metaprior.Prior(method, steps=150, holdout=0.3)
    prior.fit(table(60), task="g", target="pain", ordered=ORDER)
    nll = {name: one["nll"].mean() for name, one in prior.evaluate(shots=(5,)).points[5].items()}
    assert nll["method"] < nll["marginal"] - 0.1


def test_the_commands_say_the_order(tmp_path, call):
    table().write_csv(tmp_path / "t.csv")
    words = ("check", tmp_path / "t.csv", "--task", "g", "--target", "pain")
    status, out, _ = call(*words, "--ordered", "none,mild,severe")
    assert status == 0 and "pain: 3 classes in an order (none < mild < severe)" in out
    status, _, err = call(*words, "--ordered", "none,mild")
    assert status and "--ordered takes three classes or more" in err
