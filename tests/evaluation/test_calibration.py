"""Calibration figures against scikit-learn, scoringrules and torchmetrics, on equal predictions."""

import numpy as np
import pytest
import scoringrules
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from metaprior.evaluation import calibration, metrics
from metaprior.protocols.reliability import PROTOCOL, figures

CLOSE = 1e-6


@pytest.fixture(scope="module")
def predictions():
    """Overconfident predictions of 5 classes, as they were given to torchmetrics."""
    rng = np.random.default_rng(7)
    logits = 2 * rng.normal(size=(2000, 5))
    p = np.exp(logits)
    p /= p.sum(1, keepdims=True)
    true = np.exp(0.6 * logits) / np.exp(0.6 * logits).sum(1, keepdims=True)
    y = (rng.random((2000, 1)) > np.cumsum(true, 1)).sum(1).clip(0, 4)
    return p, y


# torchmetrics 1.9.0 (torch 2.13.0), multiclass_calibration_error(p, y, 5, n_bins, norm), with p in
# float64.
TORCHMETRICS = {
    (10, "l1"): 0.14941561222076416,
    (10, "max"): 0.21261560916900635,
    (15, "l1"): 0.14951199293136597,
    (15, "max"): 0.7474747896194458,
}


@pytest.mark.parametrize(("bins", "kind"), TORCHMETRICS)
def test_ece_and_mce_are_those_of_torchmetrics(predictions, bins, kind):
    got = (calibration.ece if kind == "l1" else calibration.mce)(*predictions, bins)
    assert got == pytest.approx(TORCHMETRICS[bins, kind], abs=CLOSE)


def test_the_metric_of_many_tasks_is_the_ece_of_all_their_rows(predictions):
    p, y = predictions
    rows = {"p": p.reshape(40, 50, 5), "y": y.reshape(40, 50), "nll": np.zeros((40, 50))}
    mask = np.ones((40, 50), bool)
    mask[:, 30:] = False
    sums = {k: v.sum(0) for k, v in metrics.class_statistics(rows, mask).items()}
    shown = rows["p"][mask], rows["y"][mask]
    for name, want in (
        ("ece", calibration.ece(*shown, metrics.BINS)),
        ("mce", calibration.mce(*shown, metrics.BINS, least=10)),
        ("brier", calibration.brier(*shown)),
    ):
        assert metrics.METRICS[name].finish(sums[name]) == pytest.approx(want, abs=1e-12)


def test_mce_leaves_out_bins_of_few_rows_when_told(predictions):
    table = calibration.equal_width(*calibration.top(*predictions), 15)
    few = table.count < 10
    assert few[table.count > 0].any()
    want = np.abs(table.came - table.stated)[~few].max()
    assert calibration.mce(*predictions, 15, least=10) == pytest.approx(want, abs=1e-12)
    assert calibration.mce(*predictions, 15, least=10) < calibration.mce(*predictions, 15)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_bins_are_those_of_scikit_learn(predictions, strategy):
    stated, came = calibration.top(*predictions)
    want_came, want_stated = calibration_curve(came, stated, n_bins=10, strategy=strategy)
    bins = (calibration.equal_width if strategy == "uniform" else calibration.equal_mass)(
        stated, came, 10
    )
    full = bins.count > 0
    # scikit-learn's quantile bins cut at interpolated quantiles: with 2000 rows in 10 bins these
    # hold the same rows.
    np.testing.assert_allclose(bins.stated[full], want_stated, atol=CLOSE)
    np.testing.assert_allclose(bins.came[full], want_came, atol=CLOSE)


def test_adaptive_errors_are_those_of_the_bins(predictions):
    p, y = predictions
    came, stated = calibration_curve(p.argmax(1) == y, p.max(1), n_bins=10, strategy="quantile")
    assert calibration.adaptive_ece(p, y, 10) == pytest.approx(
        np.abs(came - stated).mean(), abs=CLOSE
    )
    each = [calibration_curve(y == c, p[:, c], n_bins=10, strategy="quantile") for c in range(5)]
    want = np.mean([np.abs(came - stated).mean() for came, stated in each])
    assert calibration.class_adaptive_ece(p, y, 10) == pytest.approx(want, abs=CLOSE)


def test_scores_of_classes_are_those_of_scikit_learn(predictions):
    p, y = predictions
    assert calibration.class_nll(p, y) == pytest.approx(log_loss(y, p), abs=CLOSE)
    assert calibration.brier(p, y) == pytest.approx(
        brier_score_loss(y, p, scale_by_half=False), abs=CLOSE
    )
    assert calibration.binary_brier(p[:, 1], y == 1) == pytest.approx(
        brier_score_loss(y == 1, p[:, 1]), abs=CLOSE
    )
    np.testing.assert_allclose(
        calibration.binary_brier(p[:, 1], y == 1),
        np.mean(scoringrules.brier_score((y == 1) * 1.0, p[:, 1])),
        atol=CLOSE,
    )
    np.testing.assert_allclose(calibration.entropy(p), stats.entropy(p, axis=1), atol=CLOSE)
    assert calibration.entropy([[1.0, 0.0]]) == 0.0


def test_auroc_is_scikit_learns_ties_included():
    rng = np.random.default_rng(0)
    inside, outside = np.round(rng.normal(size=300), 1), np.round(rng.normal(0.5, 1, 200), 1)
    label = np.r_[np.zeros(300), np.ones(200)]
    want = roc_auc_score(label, np.r_[inside, outside])
    assert calibration.auroc(inside, outside) == pytest.approx(want, abs=CLOSE)


def test_temperature_undoes_a_known_one(predictions):
    p, y = predictions
    found = calibration.fit_temperature(p, y)  # logits are 1 / 0.6 times too large
    assert found == pytest.approx(1 / 0.6, abs=0.12)  # 4 standard errors of the fit with 2000 rows
    assert calibration.class_nll(calibration.tempered(p, found), y) < calibration.class_nll(p, y)
    np.testing.assert_allclose(calibration.tempered(p, 1.0), p, atol=1e-12)


def test_scores_of_numbers_are_those_of_scoringrules():
    rng = np.random.default_rng(1)
    samples, y = rng.normal(size=(30, 200)), rng.normal(size=200)
    for fair, name in ((False, "nrg"), (True, "fair")):
        want = scoringrules.crps_ensemble(y, samples, m_axis=0, estimator=name)
        np.testing.assert_allclose(calibration.crps_ensemble(samples, y, fair), want, atol=CLOSE)
    mean, std = rng.normal(size=200), rng.uniform(0.2, 2, 200)
    np.testing.assert_allclose(
        calibration.crps_normal(mean, std, y), scoringrules.crps_normal(y, mean, std), atol=CLOSE
    )
    low, high = mean - std, mean + std
    want = scoringrules.interval_score(y, low, high, 0.1)
    np.testing.assert_allclose(calibration.interval_score(low, high, y, 0.9), want, atol=CLOSE)


def test_quantile_errors_have_their_closed_forms():
    rows = 100_000
    pit = (np.arange(rows) + 0.5) / rows  # perfect
    assert calibration.quantile_error(pit) == pytest.approx(0, abs=1e-5)
    assert calibration.coverage(pit, 0.9) == pytest.approx(0.9, abs=1e-4)
    shifted = pit**2  # P(F(y) <= p) = sqrt(p)
    gap = np.sqrt(calibration.LEVELS) - calibration.LEVELS
    np.testing.assert_allclose(calibration.reached(shifted), np.sqrt(calibration.LEVELS), atol=1e-4)
    assert calibration.quantile_error(shifted) == pytest.approx(np.abs(gap).mean(), abs=1e-4)
    assert calibration.quantile_error(shifted, kind="rms") == pytest.approx(
        np.sqrt((gap**2).mean()), abs=1e-4
    )
    assert calibration.quantile_error(shifted, kind="sum") == pytest.approx(
        (gap**2).sum(), abs=1e-4
    )
    inside = np.sqrt((1 + calibration.LEVELS) / 2) - np.sqrt((1 - calibration.LEVELS) / 2)
    assert calibration.central_error(shifted) == pytest.approx(
        np.abs(inside - calibration.LEVELS).mean(), abs=1e-4
    )
    np.testing.assert_allclose(calibration.pit_histogram(pit, 10), 0.1, atol=1e-4)


def test_errors_say_what_came():
    with pytest.raises(ValueError, match=r"p of shape \(n, c\).*got \(3,\) and \(3,\)"):
        calibration.ece([0.1, 0.2, 0.3], [0, 1, 0])
    with pytest.raises(ValueError, match="kind is one of mean, rms, sum; got 'max'"):
        calibration.quantile_error([0.5], kind="max")


def test_what_is_expected_of_right_probabilities():
    """Labels drawn from the probabilities have that error on average.

    Overconfident probabilities have a larger one.
    """
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), (40, 25))
    found = {name: figures.if_calibrated("", name, p) for name in figures.BINNED}
    again = [np.array([rng.choice(5, p=row) for row in p.reshape(-1, 5)]) for _ in range(40)]
    for name, figure in found.items():
        values = [figures.BINNED[name](p.reshape(-1, 5), y) for y in again]
        error = np.hypot(np.std(values, ddof=1) / 40**0.5, figure.error)
        assert (
            figure.metric == f"{name}_calibrated"
            and abs(figure.value - np.mean(values)) < 4 * error
        )
    sure = p**3 / (p**3).sum(-1, keepdims=True)
    off = calibration.ece(sure.reshape(-1, 5), again[0])
    assert off > 2 * figures.if_calibrated("", "ece15", sure).value > 0
    certain = np.broadcast_to(np.eye(5)[0], (4, 3, 5))  # what is certain comes
    assert figures.if_calibrated("", "ece15", certain).value == 0


def test_knowing_nothing_has_the_anchors_figures():
    p, y = np.full((30, 25, 5), 0.2), np.tile(np.arange(5), (30, 5))
    value = {f.metric: f.value for f in figures.class_figures("Omniglot", p, y, p)}
    anchors = [a for a in PROTOCOL.anchors if a.setting == "Omniglot"]
    assert len(anchors) == 6 and set(value) <= set(PROTOCOL.metrics)
    assert all(value[a.metric] == pytest.approx(a.value, abs=1e-9) for a in anchors)
