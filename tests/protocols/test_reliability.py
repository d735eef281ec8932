"""The protocol `reliability`: its parts against known answers, and whole runs."""

import jax.numpy as jnp
import numpy as np
import pytest
from outcomes import by, check, quiet

from metaprior.evaluation import calibration
from metaprior.heads import Gaussian
from metaprior.posterior import Mixture, Part
from metaprior.protocols import reliability


@pytest.mark.slow
def test_reliability_runs_and_its_figures_follow_from_its_predictions(monkeypatch):
    some = reliability.data.settings_of
    kept = (reliability.data.LINES, reliability.data.BLOBS)
    monkeypatch.setattr(
        reliability.judge, "settings_of", lambda o, d: {k: some(o, d)[k] for k in kept}
    )
    options = reliability.PROTOCOL.budgets["quick"] | {
        "steps": {"numbers": 2, "classes": 2},
        "tasks": 8,
        "samples": 2,
        "temperature": True,
    }
    outcome = reliability.judge.run("maml", 0, options, None, quiet)
    check(reliability.PROTOCOL, outcome, options)
    rows = outcome.predictions
    at = (rows["setting"] == "normal classes") & rows["inside"]
    p = np.stack([rows[f"p_{c}"][at] for c in range(5)], 1)
    assert calibration.ece(p, rows["y"][at]) == pytest.approx(
        by(outcome, "normal classes", "ece15"), abs=1e-5
    )
    at = rows["setting"] == "sine or line"
    assert calibration.quantile_error(rows["pit"][at]) == pytest.approx(
        by(outcome, "sine or line", "calibration"), abs=1e-4
    )
    assert any("temperature fitted on validation tasks" in f.setting for f in outcome.figures)


def test_the_heaviest_components_are_kept():
    params = jnp.stack([jnp.arange(6.0), jnp.ones(6)], -1)[:, None, None]
    mixture = Mixture(
        (
            Part(Gaussian(1), params[:4], jnp.asarray([0.0, -9.0, -1.0, -8.0])),
            Part(Gaussian(1), params[4:], jnp.asarray([-2.0, -7.0])),
        )
    )
    kept = reliability.judge.thinned(mixture, 3)
    assert sorted(np.asarray(kept.parts[0].params[:, 0, 0, 0]).tolist()) == [0.0, 2.0, 4.0]
    assert reliability.judge.thinned(mixture, 6) is mixture


@pytest.mark.slow
def test_exact_posteriors_are_calibrated():
    options = reliability.PROTOCOL.budgets["quick"] | {"tasks": 300}
    outcome = reliability.judge.run(reliability.judge.EXACT, 0, options, None, quiet)
    for setting in (reliability.data.LINES, reliability.data.GAUSSIAN):
        found = {f.metric: f for f in outcome.figures if f.setting == setting}
        assert found["calibration"].value < 3 * found["calibration"].error + 0.01
        assert abs(found["coverage90"].value - 0.9) < 3 * found["coverage90"].error
    assert (
        by(outcome, reliability.data.BLOBS, "ece15") < 0.03
    )  # 7500 rows in 15 bins leave about 0.015
