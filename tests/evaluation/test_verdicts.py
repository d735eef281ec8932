"""Verdicts say what the groups can show, in the target's units, and how many groups there are."""

import numpy as np
import pytest

from metaprior.evaluation.evaluate import METHOD, Evaluation
from metaprior.evaluation.verdicts import About, level, level_words, plain, probability


def evaluation(gain, groups, *, inside=0.9, about=None):
    """The method ahead of the baseline gp by `gain` nats and half an error, in so many groups."""
    rng, statistics = np.random.default_rng(0), {}
    rows = np.full(groups, 20.0)
    for K in (0, 5):
        base = rng.normal(0, 1, groups)
        ahead = base - gain * (K == 5) + 0.05 * rng.normal(size=groups)
        hit = rng.binomial(20, inside, groups)
        statistics[K] = {
            name: {
                "nll": np.stack([nll, np.ones(groups)], 1),
                "rmse": np.stack([np.full(groups, error), np.ones(groups)], 1),
                "coverage90": np.stack([hit, rows], 1),
            }
            for name, nll, error in ((METHOD, ahead, 20.4), ("gp", base, 23.1))
        }
    return Evaluation(statistics, {K: {} for K in statistics}, 0, None, about or About("reaction"))


CASES = {
    "a gain": (
        (0.42, 40),
        "Meta-learning earns its keep here, judged on 40 groups: with 5 observed rows it beats the "
        "best baseline, most at 5. There it is 0.4",
        "52 % more probability for what came. Its typical error in reaction is 20.4 instead of "
        "23.1 of gp. With 0 it makes no difference that these groups can show.",
    ),
    "no gain": (
        (0.0, 40),
        "Meta-learning does not earn its keep on these data, judged on 40 groups",
        "With 5 its typical error in reaction is 20.4 instead of 23.1 of gp.",
    ),
    "a loss": ((-0.5, 40), "does not earn its keep", "With 5 the best baseline is better: use it"),
    "few groups": (
        (0.42, 9),
        "9 groups are too few to say whether meta-learning earns its keep. On these, with 5 "
        "observed rows, it is 0.4",
        "Its typical error in reaction is 20.4 instead of 23.1 of gp.",
    ),
    "one group": ((0.42, 1), "One group cannot tell whether meta-learning earns its keep", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sentence_rests_on_the_groups(name):
    (gain, groups), begins, holds = CASES[name]
    said = evaluation(gain, groups).sentence()
    assert begins in said and holds in said, said


def test_a_baseline_and_an_order_are_named():
    found = evaluation(0.4, 40, about=About("y", baseline="mixed", order="week"))
    said = found.sentence()
    assert said.startswith("mixed is the best baseline here, judged on 40 groups")
    assert said.endswith(
        "The first rows of a group by week were observed, and later ones predicted."
    )
    assert found.to_json()["order"] == "week"


@pytest.mark.parametrize(
    ("inside", "groups", "words"),
    [
        (0.9, 40, "on average over 40 groups: the level holds. In eight of ten"),
        (0.7, 40, "With 0 they are too narrow: 67 % (95 % interval 64 to 71 %)"),
        (1.0, 40, "With 5 they are too wide: 100 % (95 % interval 100 to 100 %)"),
        (0.7, 8, "over 8 groups, too few to say whether the level holds."),
    ],
)
def test_the_level_is_judged_over_groups(inside, groups, words):
    said = evaluation(0.0, groups, inside=inside).level_sentence()
    assert words in said, said


def test_groups_count_alike_whatever_their_rows():
    """Nine rows in ten of one large group, none of a small one: half, not the share of rows; the
    tasks of a group count together.
    """
    inside = np.array([[90, 100], [0, 5], [0, 5]])
    found = level(inside, np.array([3, 7, 7]))
    assert found["mean"] == pytest.approx(0.45) and found["groups"] == 2
    assert found["low"] == 0 and found["high"] == 1
    alone = found | {"groups": 1, "low": None, "high": None}
    assert level_words({0: alone}) == ""
    assert level_words({0: found, 5: alone}) == level_words({0: found})


def test_figures_in_words():
    assert [plain(v) for v in (0.0, 0.01234, 9.876, 1234.5, 2.5e9)] == [
        "0",
        "0.0123",
        "9.88",
        "1234",
        "2.50e+09",
    ]
    assert probability(0.1) == "11 % more probability for what came"
    assert probability(2.0) == "7.39 times the probability for what came"
