"""Protocols with exact answers: the answers themselves in the default run, trained methods in the
slow one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from outcomes import quiet

from metaprior.protocols import ambiguous_regression, raw
from metaprior.protocols.ambiguous_regression import judge as ambiguous
from metaprior.protocols.files import column
from metaprior.protocols.oracles import judge as oracles
from metaprior.protocols.oracles.pictures import sentence
from metaprior.protocols.oracles.pointwise import ByPoint
from metaprior.protocols.protocol import Drawn, Figure
from metaprior.protocols.runner import Study


def figures(outcome):
    return {(f.setting, f.metric): f for f in outcome.figures}


def test_functions_are_told_apart():
    """Sine waves, lines and noise on the grid: 0, 1, and far from both."""
    x = jnp.linspace(-5, 5, 64)[:, None]
    f = jnp.stack(
        [2 * jnp.sin(x[:, 0] - 1), 1.5 * x[:, 0] - 2, jax.random.normal(jax.random.key(0), (64,))]
    )
    family, distance = ambiguous.families(x, f)
    assert family[:2].tolist() == [0, 1]
    assert float(distance[:2].max()) < 1e-4 and float(distance[2]) > 0.45 * float(f[2].std())


def test_one_normal_a_point_has_the_moments_of_the_exact_posterior(key):
    """Nothing is lost where the posterior is normal; where it is not, the moments stay, the joint
    density is the product of the marginals, and on average it is worse.
    """
    for name, lost in (("linear", 0.0), ("sineline", 0.02)):
        case = oracles.cases()[name]
        tasks, keys = oracles.held_out(case, 40)

        def gap(pair, source=case.source):
            task, key = pair
            exact = source.exact(task.support)
            point, how = ByPoint(exact), {"key": key, "samples": 64}
            a, b = (p.predict(task.query.x, **how) for p in (exact, point))
            moments = jnp.abs(a.mean() - b.mean()).max(), jnp.abs(a.variance() / b.variance() - 1)
            each = b.log_prob(task.query.y)
            whole = point.joint_log_prob(task.query, **how) - each.sum()
            return a.log_prob(task.query.y).mean() - each.mean(), *moments, whole

        nats, means, variances, joint = jax.jit(jax.vmap(gap))((tasks, keys))
        assert float(means.max()) < 1e-4 and float(variances.max()) < 1e-3
        assert float(jnp.abs(joint).max()) < 1e-3
        assert float(nats.mean()) == pytest.approx(0, abs=1e-4) if not lost else nats.mean() > lost


@pytest.fixture(scope="module")
def small():
    return {"steps": 20, "tasks": 60, "slow_tasks": 8, "shots": [1, 2], "draws": 40, "samples": 40}


@pytest.mark.slow
def test_exact_functions_come_as_often_as_they_should(small):
    """Every draw of the exact posterior is a sine wave or a line, both families where both are
    probable, and the share of sine waves is off by what 40 draws are: a standard deviation of at
    most sqrt(1/4 / 40) = 0.08.
    """
    outcome = ambiguous.run(ambiguous.EXACT, 0, small, None, quiet)
    found = figures(outcome)
    blind = figures(ambiguous.run(ambiguous.PRIOR, 0, small, None, quiet))
    for k in (1, 2):
        assert found[f"K = {k}", "coverage"].value == 1.0
        # All are of a family; one in a hundred lies off the rows by definition, here of 2,400.
        assert found[f"K = {k}", "fits"].value == pytest.approx(0.99, abs=0.01)
        lost = found[f"K = {k}", "incoherent"].value
        assert lost == pytest.approx(1 - found[f"K = {k}", "fits"].value)
        assert found[f"K = {k}", "frequency"].value < 0.08
        # What ignores the rows: a draw of the prior rarely fits them, and no task is covered.
        assert blind[f"K = {k}", "coverage"].value == 0.0
        assert blind[f"K = {k}", "fits"].value < 0.4 / k
        assert blind[f"K = {k}", "frequency"].value > 0.25
    # the other tasks' published average, 1.845 and 1.004, within three standard errors of both (500
    # tasks there)
    for k, value in ((1, 1.845), (2, 1.004)):
        figure = found[f"K = {k}", "nll"]
        assert abs(figure.value - value) < 3 * figure.error * (1 + figure.count / 500) ** 0.5


@pytest.mark.slow
def test_figures_follow_from_the_predictions(tmp_path, small):
    """NLL, MSE and mode coverage computed again from the file."""
    import dataclasses

    protocol = dataclasses.replace(
        ambiguous_regression.PROTOCOL, budgets={"quick": small, "full": small}
    )
    results = Study(protocol, tmp_path / "out").run(["maml"], 1)
    assert results["failed"] == []
    table = {(r["method"], r["setting"], r["metric"]): r["value"] for r in results["table"]}
    rows = pl.read_parquet(tmp_path / "out" / "predictions.parquet").filter(
        method="maml", setting="K = 1"
    )
    tasks = rows.group_by("task").agg(
        pl.col("nll").mean(),
        ((pl.col("mean") - pl.col("y")) ** 2).mean().alias("mse"),
        pl.col("p_sine").first(),
        ((pl.col("sampled_sine") > 0) & (pl.col("sampled_line") > 0)).first().alias("both"),
    )
    assert table["maml", "K = 1", "nll"] == pytest.approx(tasks["nll"].mean(), rel=1e-6)
    assert table["maml", "K = 1", "mse"] == pytest.approx(tasks["mse"].mean(), rel=1e-5)
    open_ = tasks.filter((pl.col("p_sine") > 0.1) & (pl.col("p_sine") < 0.9))
    assert table["maml", "K = 1", "coverage"] == open_["both"].mean() == 0.0
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("<svg") == 3 and "cnp with a mixture head" in page


@pytest.mark.slow
@pytest.mark.parametrize("method", ["platipus", "process"])
def test_single_draws_give_the_figures_of_sine_or_line_again(tmp_path, small, monkeypatch, method):
    """Likelihoods from the draws' log densities, coverage from their distances, distances from
    drawn functions.
    """
    import dataclasses

    monkeypatch.setattr(raw, "KEPT", 5)
    small = small | {"steps": 2, "tasks": 12, "samples": 6, "shots": [2]}
    protocol = dataclasses.replace(
        ambiguous_regression.PROTOCOL, budgets={"quick": small, "full": small}, references=()
    )
    results = Study(protocol, tmp_path / "out").run([method], 1)
    value = {r["metric"]: r["value"] for r in results["table"]}
    rows = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    first = rows.filter(row=0)

    def log_mean(v):
        return np.logaddexp.reduce(v) - np.log(len(v))

    each = np.array([-log_mean(v.to_numpy()) for v in rows["log_p"]])
    assert each.mean() == pytest.approx(value["nll"], abs=1e-5)
    assert [len(v) for v in first["log_p"]] == [
        6 if method == "platipus" and t < 5 else 1 for t in range(12)
    ]
    joint = np.array([-log_mean(v.to_numpy()) / 20 for v in first["joint_log_p"]])
    assert joint.mean() == pytest.approx(value["joint"], abs=1e-5)

    def take(name):
        return np.stack(first[name].to_list())

    sine, line, spread, p = (
        take("to_sine"),
        take("to_line"),
        take("spread"),
        first["p_sine"].to_numpy(),
    )
    fits = take("misfit") <= 9.2103  # chi-squared of two rows, 99 %
    near = fits & (np.minimum(sine, line) <= np.maximum(0.6, 0.45 * spread))
    family = np.where(near, np.where(sine <= line, 0, 1), 2)
    open_, both = (p > 0.1) & (p < 0.9), (family == 0).any(1) & (family == 1).any(1)
    both &= fits.mean(1) >= 0.5
    assert open_.any() and both[open_].mean() == pytest.approx(value["coverage"], abs=1e-5)
    off = np.abs((family == 0).mean(1) - p)[open_].mean()
    assert off == pytest.approx(value["frequency"], abs=1e-5)
    assert (family == 2).mean() == pytest.approx(value["incoherent"], abs=1e-5)
    f, x = take("functions").reshape(12, 40, 64), np.linspace(-5, 5, 64)
    for basis, told in (
        (np.stack([np.sin(x), np.cos(x)], 1), sine),
        (np.stack([x, np.ones(64)], 1), line),
    ):
        off = f - f @ basis @ np.linalg.pinv(basis.T @ basis) @ basis.T
        np.testing.assert_allclose(np.sqrt((off**2).mean(-1)), told, atol=1e-4)


@pytest.mark.slow
def test_the_closed_form_of_a_mean(monkeypatch):
    """VERSA's toy problem, variances 1: 1.49601 and 1.46244 nats a row after 5 and 10 rows (closed
    form).
    """
    options = {"sources": ["mean"], "steps_share": 0.01, "tasks": 300, "samples": 8, "minutes": 1.0}
    outcome = oracles.run(oracles.EXACT, 0, options, None, quiet)
    found = figures(outcome)
    for k, value in ((5, 1.49601), (10, 1.46244)):
        figure = found[f"mean: K = {k}", "nll"]
        assert abs(figure.value - value) < 3 * figure.error
    rows = {k: np.asarray(v) for k, v in outcome.predictions.items()}
    assert len({len(v) for v in rows.values()}) == 1
    assert np.array_equal(rows["nll"], rows["exact_nll"])
    trained = figures(oracles.run("alpaca", 0, options, None, quiet))
    assert trained["mean: K = 5", "gap"].value > 0


@pytest.mark.slow
def test_single_draws_give_the_figures_of_oracles_again():
    """NLL, joint NLL and squared error from rows and draws; distances from the exact ones."""
    options = {"sources": ["mean"], "steps_share": 0.002, "tasks": 20, "samples": 5, "minutes": 1.0}
    outcome = oracles.run("platipus", 0, options, None, quiet)
    frame = pl.DataFrame({k: column(v) for k, v in outcome.predictions.items()})

    def log_mean(v):
        return np.logaddexp.reduce(v) - np.log(len(v))

    for (setting,), rows in frame.group_by("setting"):
        value = {f.metric: f.value for f in outcome.figures if f.setting == setting}
        assert len(rows) == 20 * 15 and {len(v) for v in rows["log_p"]} == {5}
        nll = np.mean([-log_mean(v.to_numpy()) for v in rows["log_p"]])
        first = rows.filter(row=0)
        joint = np.mean([-log_mean(v.to_numpy()) / 15 for v in first["joint_log_p"]])
        assert {len(v) for v in first["joint_log_p"]} == {5}
        want = {
            "nll": nll,
            "mse": ((rows["mean"] - rows["y"]) ** 2).mean(),
            "gap": nll - rows["exact_nll"].mean(),
            "joint_gap": joint - first["exact_joint_nll"].mean(),
        }
        assert want == pytest.approx(value, abs=1e-5)


def test_a_method_that_does_not_read_all_sources_has_no_rank():
    """Its average is over other sources; what is left out is said."""
    assert oracles.readable("convcnp", ["linear", "gp"]) == (["gp"], ["linear"])
    assert oracles.readable("cnp", ["linear", "gp"]) == (["linear", "gp"], [])
    assert oracles.readable(oracles.EXACT, ["linear"]) == (["linear"], [])

    def cell(method, **gaps):
        return Drawn(method, 0, [Figure(k, "gap", v, 0.01) for k, v in gaps.items()], {})

    both = cell("cnp", linear=0.4, gp=0.3)
    said = sentence([both, cell("convcnp", gp=0.1)])
    assert "cnp stays nearest to the exact posteriors, 0.35" in said
    assert "On fewer sources, so not compared here: convcnp." in said
    assert "fewer" not in sentence([both, cell("np", linear=0.2, gp=0.1)])
    assert sentence([cell(oracles.EXACT)]) == ""
