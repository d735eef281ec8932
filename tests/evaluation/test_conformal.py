"""Hierarchical conformal prediction against its definition, and what it holds of new groups."""

import math

import numpy as np
import pytest

from metaprior.evaluation import conformal
from metaprior.protocols.guarantee import simulated


def by_definition(scores, group, share):
    """inf {t : 1 / (T + 1) Σ_g 1 / n_g #{j : s_gj <= t} >= share}, by trying every score."""
    parts = [scores[group == g] for g in np.unique(group)]
    for t in np.sort(scores):
        if sum((part <= t).mean() for part in parts) / (len(parts) + 1) >= share - 1e-9:
            return t
    return math.inf


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.95])
def test_threshold_is_that_of_the_definition(share):
    rng = np.random.default_rng(0)
    for T in (1, 8, 9, 19, 30):
        group = np.repeat(rng.permutation(T), rng.integers(1, 6, T))
        scores = np.round(rng.normal(size=len(group)), 1)  # with ties
        found = conformal.hierarchical(scores, [group], share)
        assert found == by_definition(scores, group, share)
        assert math.isinf(found) == (T < conformal.fewest(share))


def test_nine_groups_are_enough_for_nine_tenths_and_eight_are_not():
    scores, group = np.arange(9.0), np.arange(9)
    assert conformal.hierarchical(scores, [group], 0.9) == 8.0
    assert conformal.hierarchical(scores[:8], [group[:8]], 0.9) == math.inf
    assert conformal.hierarchical(scores[:0], [group[:0]], 0.5) == math.inf


def test_groups_of_a_set_are_one_unit():
    """Twice the same groups under other names change nothing where the pairs are one set."""
    rng = np.random.default_rng(1)
    scores, group = rng.normal(size=60), np.repeat(np.arange(12), 5)
    twice, names = np.tile(scores, 2), np.concatenate([group, group + 12])
    once = conformal.hierarchical(scores, [group], 0.8)
    assert conformal.hierarchical(twice, [np.tile(group, 2), names], 0.8) == once
    assert conformal.row_weights(np.tile(group, 2), names).sum() == pytest.approx(12)


def test_intervals_widen_by_the_threshold_and_shrink_to_a_point_at_most():
    y, low, high = np.array([0.0, 3.0, -2.0]), np.zeros(3) - 1, np.zeros(3) + 1
    scores = conformal.cqr(y, low, high)
    np.testing.assert_allclose(scores, [-1.0, 2.0, 1.0])
    for by in (-0.5, 0.0, 1.0, 2.0):
        first, last = conformal.widened(low, high, by)
        np.testing.assert_array_equal((first <= y) & (y <= last), scores <= by)
    first, last = conformal.widened(low, high, -5.0)
    np.testing.assert_array_equal(first, last)


def test_rules_hold_of_new_groups_what_was_computed_before():
    """The simulation of the protocol, 300 repetitions. Computed elsewhere (s.e. 0.005): T = 9:
    0.731, 0.886, 0.947, 0.902; T = 20: 0.742, 0.891, 0.925, 0.903. What a threshold holds is exact
    here; the bound is three standard errors of both.
    """
    before = {
        9: {"pooled rows": 0.731, "distribution pooling": 0.886, "hierarchical": 0.947},
        20: {"pooled rows": 0.742, "distribution pooling": 0.891, "hierarchical": 0.925},
    }
    before[9]["one row a group"], before[20]["one row a group"] = 0.902, 0.903
    for T, expected in before.items():
        for rule, value in expected.items():
            rng = np.random.default_rng(T)
            found = [simulated.RULES[rule](simulated.drawn(T, rng)) for _ in range(300)]
            held = simulated.held(np.array(found))
            error = np.hypot(held.std() / 300**0.5, 0.005)
            assert abs(held.mean() - value) < 3 * error, (T, rule)
            if rule == "hierarchical":
                assert held.mean() >= 0.9
            if rule == "pooled rows":
                assert held.mean() < 0.8


def test_what_is_held_is_what_comes_of_new_groups():
    """100,000 groups, one row of each: within four standard errors of the law."""
    rng = np.random.default_rng(0)
    some = simulated.drawn(100_000, rng)
    _, first = np.unique(some.levels[0], return_index=True)
    threshold = simulated.exact()
    share = (some.score[first] <= threshold).mean()
    assert simulated.held(threshold) == pytest.approx(0.9)
    assert share == pytest.approx(0.9, abs=4 * 0.3 / 100_000**0.5)
