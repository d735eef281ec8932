"""Offsets and Gaussian processes fitted by evidence, against SciPy and against the truth."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal

from metaprior.tables.baselines import closed, fit_gp, fit_offset

GROUPS, ROWS, LENGTHS = 60, 12, np.array([1.0, 3.0])
OFFSET, SMOOTH, NOISE, COEFFICIENT = 0.5, 0.8, 0.3, 1.2


@pytest.fixture(scope="module")
def drawn():
    """Groups of the model itself: x, pooled prediction, y, and where the groups lie."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(GROUPS * ROWS, len(LENGTHS)))
    pooled = rng.normal(size=(len(x), 1))
    start, count = ROWS * np.arange(GROUPS), np.full(GROUPS, ROWS)
    y = np.concatenate(
        [
            pooled[s : s + ROWS, 0]
            + np.linalg.cholesky(covariance(x[s : s + ROWS])) @ rng.normal(size=ROWS)
            for s in start
        ]
    )
    return x, pooled, y, start, count, np.arange(GROUPS) % 5


def covariance(x):
    near = ((x[:, None] - x[None]) ** 2 / LENGTHS**2).sum(-1)
    return OFFSET**2 + SMOOTH**2 * np.exp(-0.5 * near) + NOISE**2 * np.eye(len(x))


def test_evidence_is_the_density_and_its_gradient(drawn):
    x, pooled, y, start, count, _ = drawn
    y = y - pooled[:, 0]
    count = count - np.arange(GROUPS) % 7  # rows that are not there change nothing
    numbers = np.log([OFFSET, SMOOTH, NOISE, *LENGTHS])
    data = closed._padded(x, y, start, count, np.random.default_rng(1))
    value, gradient = closed._evidence(numbers, data)
    jitter = closed.JITTER * (1 + OFFSET**2 + SMOOTH**2)
    density = 0.0
    for s, n in zip(start, count):
        k = covariance(x[s : s + n]) + jitter * np.eye(n)
        density += multivariate_normal.logpdf(y[s : s + n], np.zeros(n), k)
    assert value == pytest.approx(-density / count.sum(), rel=1e-9)
    slope = approx_fprime(numbers, lambda at: closed._evidence(at, data)[0], 1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-4)


def test_the_numbers_of_the_process_are_found(drawn):
    """60 groups tell deviations to about a tenth; seeds are fixed."""
    process = fit_gp(*drawn)
    constant, near = process.kernels
    assert process.mean.coefficient[-1] == 1
    assert np.exp(near.log_std[-1]) == pytest.approx(SMOOTH, rel=0.2)
    assert np.exp(constant.log_std[-1]) == pytest.approx(OFFSET, rel=0.5)
    np.testing.assert_allclose(np.exp(near.log_length[-1]), LENGTHS, rtol=0.3)
    assert np.exp(process.noise.log_std[-1]) == pytest.approx(NOISE, rel=0.1)
    # A member for each fold, and one of all groups.
    assert near.log_length.shape == (6, len(LENGTHS))


def test_the_offset_is_found(drawn):
    """Without the smooth function in the data its likelihood is the truth's."""
    _, pooled, _, _, count, fold = drawn
    rng = np.random.default_rng(2)
    offsets = np.repeat(OFFSET * rng.normal(size=GROUPS), ROWS)
    y = COEFFICIENT * pooled[:, 0] + offsets + NOISE * rng.normal(size=len(pooled))
    process = fit_offset(pooled, y, count, fold)
    assert process.mean.coefficient[-1] == pytest.approx(COEFFICIENT, abs=0.05)
    assert np.exp(process.kernels[0].log_std[-1]) == pytest.approx(OFFSET, rel=0.25)
    assert np.exp(process.noise.log_std[-1]) == pytest.approx(NOISE, rel=0.05)
