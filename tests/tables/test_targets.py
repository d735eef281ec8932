"""Several targets: a chain of conditionals whose parts are priors of one target each."""

import json
import re
import shutil

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from conftest import run_command
from scipy import stats
from test_errors import complaint

import metaprior
from metaprior.cli.app import main
from metaprior.heads import Gaussian, StudentT
from metaprior.posterior import Mixture, Part
from metaprior.report import write_report
from metaprior.tables.checked import check_all
from metaprior.tables.given import Given
from metaprior.tables.plan import Plan
from metaprior.tables.quantiles import outcomes_at
from metaprior.tables.read import Rows

TARGETS = ["a", "b", "c"]
FIT = {"task": "g", "target": TARGETS}
OPTIONS = {"method": "cnp", "steps": 4, "holdout": 0.2}


def rows_of(groups: int = 12, rows: int = 8, seed: int = 0) -> pl.DataFrame:
    """Number a, b = a + small noise, and class c = whether a is high, with noise."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(groups), rows), rng.normal(size=groups * rows)
    a = np.repeat(rng.normal(size=groups), rows) + x + 0.5 * rng.normal(size=len(x))
    b = a + 0.1 * rng.normal(size=len(x))
    c = np.where(a + 0.5 * rng.normal(size=len(x)) > 0, "high", "low")
    return pl.DataFrame(
        {"g": [f"g{i}" for i in g], "x": x.round(4), "a": a.round(4), "b": b.round(4), "c": c}
    )


@pytest.fixture(scope="session")
def joint(once):
    """A folder with `table.csv` and what `metaprior fit --target a,b,c` makes of it."""

    def make(folder):
        rows_of().write_csv(folder / "table.csv")
        table = ["fit", folder / "table.csv", "--task", "g", "--target", "a,b,c"]
        run_command(*table, "--method", "cnp", "--steps", "4", "--out", folder / "run")

    return once("joint", make)


@pytest.fixture
def prior(joint):
    return metaprior.load(joint / "run" / "prior")


@pytest.fixture
def mixed(prior):
    """The same with the mixed model, which has learned what b and c have to do with a, in place of
    the method.
    """
    for part in prior.parts:
        part.trained = eqx.tree_at(
            lambda t: t.learner, part.trained, part.trained.baselines["mixed"]
        )
    return prior


@pytest.fixture
def new():
    """Three observed rows of a new group, and x of others."""
    rows = rows_of(1, 9, seed=5)
    return rows[:3], rows[3:].select("x")


@pytest.mark.slow
def test_joint_nll_is_the_sum_over_the_same_rows(prior):
    evaluation = prior.evaluate(shots=(0, 2))
    result = evaluation.to_json()
    assert list(result) == ["targets", "joint"] and list(result["targets"]) == TARGETS
    for K, joint in result["joint"]["shots"].items():
        parts = [one["shots"][K] for one in result["targets"].values()]
        shared = [name for name in parts[0] if all(name in part for part in parts)]
        # `observed` is of numbers alone; the method and five baselines are of both.
        assert list(joint) == shared and len(joint) == 6
        for name, row in joint.items():
            assert row["nll"] == pytest.approx(sum(part[name]["nll"] for part in parts), rel=1e-6)
            assert row["n_tasks"] == parts[0][name]["n_tasks"]
    held = [part.trained.held for part in prior.parts]
    for other in held[1:]:  # the same groups kept aside, their rows in the same order
        assert (other.start == held[0].start).all() and (other.count == held[0].count).all()
        assert (other.x[:, 0] == held[0].x[:, 0]).all()
    merged = type(evaluation).merge([evaluation, evaluation]).to_json()
    assert merged["joint"]["shots"]["0"]["method"]["n_tasks"] == 2 * parts[0]["method"]["n_tasks"]


@pytest.mark.slow
def test_the_tasks_of_all_parts_show_the_same_rows(prior, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "metaprior.tables.judging.evaluate", lambda learners, tasks, **_: seen.append(tasks)
    )
    for part in prior.parts:
        part.evaluate(shots=(1, 3), seed=7)
    for tasks in seen[1:]:
        for K, task in tasks.items():
            for side in ("support", "query"):
                one, other = getattr(seen[0][K], side), getattr(task, side)
                assert (one.mask == other.mask).all() and (one.x[..., 0] == other.x[..., 0]).all()


def by_quadrature(part, query: pl.DataFrame, earlier: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """What a part predicts at the query rows for each of many values of the earlier targets."""
    return [part.predict(query.with_columns(values.get_columns())) for values in earlier]


@pytest.mark.slow
def test_a_later_target_integrates_the_earlier_out(mixed, new):
    """Against 400 exact quantiles of a, which the mixed model says is normal, and b's own
    predictions given each.
    """
    known, query = new
    posterior = mixed.adapt(known)
    said = posterior.predict(query)
    a, b = posterior.parts[:2]
    first = a.predict(query)
    assert said.select(f"a_{c}" for c in first.columns).equals(first.rename(lambda c: f"a_{c}"))
    levels = (np.arange(400) + 0.5) / 400
    values = first["mean"].to_numpy() + first["std"].to_numpy() * stats.norm.ppf(levels)[:, None]
    given = by_quadrature(b, query, [pl.DataFrame({"a": v}) for v in values])
    mean, std, removable = (
        np.stack([t[c].to_numpy() for t in given]) for c in ("mean", "std", "epistemic")
    )
    np.testing.assert_allclose(said["b_mean"], mean.mean(0), atol=2e-3)
    np.testing.assert_allclose(said["b_std"], np.sqrt((std**2).mean(0) + mean.var(0)), rtol=1e-2)
    share = (
        first["epistemic"] / first["std"]
    ).to_numpy() ** 2  # b is linear in a: this much of its spread can go
    expected = np.sqrt((removable**2).mean(0) + share * mean.var(0))
    np.testing.assert_allclose(said["b_epistemic"], expected, rtol=2e-2)
    for level in (0.05, 0.5, 0.95):
        below = stats.norm.cdf((said[f"b_q{round(100 * level):02d}"].to_numpy() - mean) / std).mean(
            0
        )
        np.testing.assert_allclose(below, level, atol=5e-3)


@pytest.mark.slow
def test_classes_after_numbers_integrate_out_too(mixed, new):
    known, query = new
    posterior = mixed.adapt(known)
    said = posterior.predict(query)
    assert said.columns[-3:] == ["c_p_high", "c_p_low", "c_epistemic"]
    np.testing.assert_allclose(said["c_p_high"] + said["c_p_low"], 1.0, atol=1e-5)
    draws = posterior.sample(query, n=400)  # of a and b; c's own probabilities given each
    worlds = [draws.filter(pl.col("draw") == i).select("a", "b") for i in range(1, 401)]
    p = np.mean(
        [t["p_high"].to_numpy() for t in by_quadrature(posterior.parts[2], query, worlds)], axis=0
    )
    np.testing.assert_allclose(said["c_p_high"], p, atol=0.05)
    assert (said["c_epistemic"] >= 0).all() and (said["c_epistemic"] < np.log(2)).all()


@pytest.mark.slow
def test_draws_depend_on_each_other_and_have_the_right_marginals(mixed, new):
    known, query = new
    posterior = mixed.adapt(known)
    draws, said = posterior.sample(query, n=4000, seed=1), posterior.predict(query)
    assert draws.columns == ["draw", "row", *TARGETS] and draws.height == 4000 * query.height
    assert posterior.sample(query, n=8).equals(posterior.sample(query, n=8))
    for i in range(query.height):
        some = draws.filter(pl.col("row") == i + 1)
        assert np.corrcoef(some["a"], some["b"])[0, 1] > 0.9
        if 0.1 < said["c_p_high"][i] < 0.9:
            assert np.corrcoef(some["a"], some["c"] == "high")[0, 1] > 0.4
        assert (some["c"] == "high").mean() == pytest.approx(said["c_p_high"][i], abs=0.04)
        for name in "ab":
            std = said[f"{name}_std"][i]
            assert some[name].mean() == pytest.approx(
                said[f"{name}_mean"][i], abs=5 * std / 4000**0.5
            )
            assert some[name].std() == pytest.approx(std, rel=0.08)
            for level in (5, 50, 95):
                below = (some[name] <= said[f"{name}_q{level:02d}"][i]).mean()
                assert below == pytest.approx(level / 100, abs=0.02)
    rows = draws.filter(pl.col("row") <= 2).pivot("row", index="draw", values="a")
    assert abs(np.corrcoef(rows["1"], rows["2"])[0, 1]) < 0.1  # each row on its own


def test_one_target_is_sampled_too(prior, new):
    known, query = new
    draws = prior.parts[0].adapt(known).sample(query, n=3000)
    said = prior.parts[0].adapt(known).predict(query)
    assert draws.columns == ["draw", "row", "a"]
    summary = (
        draws.group_by("row")
        .agg(pl.col("a").mean().alias("mean"), pl.col("a").std().alias("std"))
        .sort("row")
    )
    np.testing.assert_allclose(summary["mean"], said["mean"], atol=0.1)
    np.testing.assert_allclose(summary["std"], said["std"], rtol=0.08)


def test_values_in_other_units_are_noted_for_each_target(mixed, new):
    known, _ = new
    assert mixed.adapt(known).notes == () and mixed.adapt(None).notes == ()
    far = known.with_columns(pl.col("a") + 1000.0, pl.col("b") - 1000.0)
    notes = mixed.adapt(far).notes
    assert len(notes) == 2
    for note, name in zip(notes, "ab"):
        assert note.startswith(f"support: column {name!r}, row 1: ")


@pytest.mark.slow
def test_query_rows_do_not_influence_each_other(mixed, new):
    known, query = new
    posterior = mixed.adapt(known)
    whole, alone = posterior.predict(query), posterior.predict(query[2:3])
    np.testing.assert_allclose(whole[2:3].to_numpy(), alone.to_numpy(), rtol=1e-3, atol=1e-4)


def test_targets_in_the_query_are_not_read(mixed, new):
    known, query = new
    posterior = mixed.adapt(known)
    told = query.with_columns(
        pl.lit(9.0).alias("a"), pl.lit(9.0).alias("b"), pl.lit("low").alias("c")
    )
    assert posterior.predict(told).equals(posterior.predict(query))


@pytest.mark.slow
def test_scores_add_up_along_the_chain(mixed, new):
    """Entropy of a, plus those of b and of c, each averaged over the targets before."""
    known, query = new
    posterior = mixed.adapt(known)
    picked = posterior.suggest(query, n=query.height)
    first = posterior.suggest(query, n=1)
    assert picked["row"].n_unique() == query.height and picked["row"][0] == first["row"][0]
    row = query[first["row"][0] - 1 : first["row"][0]]
    draws = posterior.sample(row, n=300).select(TARGETS)
    many = pl.concat([row] * 300).with_columns(draws.get_columns())
    a, b, c = posterior.parts
    expected = a.suggest(row)["score"][0]
    spread = b.predict(many)["std"].to_numpy()
    expected += (0.5 * np.log(2 * np.pi * np.e * (spread / b.trained.units.scale) ** 2)).mean()
    p = c.predict(many).select("p_high", "p_low").to_numpy()
    expected += -(p * np.log(p)).sum(1).mean()
    assert first["score"][0] == pytest.approx(expected, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["bald", "variance", "random"])
def test_every_criterion_chooses(mixed, new, by):
    known, query = new
    frame = mixed.adapt(known).suggest(query, n=3, by=by)
    assert (
        frame["row"].n_unique() == 3
        and frame["score"].is_finite().all()
        and (frame["gain_nats"] >= 0).all()
    )


@pytest.mark.slow
def test_a_goal_is_of_one_target(mixed, new):
    """The first as alone. A later one: the improvement of outcomes of all targets drawn together,
    whose own noise is a fifth of the rest; within a tenth."""
    known, query = new
    posterior, goal = mixed.adapt(known), {"goal": "minimise"}
    first = posterior.suggest(query, 2, target="a", **goal)
    alone = posterior.parts[0].suggest(query, 2, **goal)
    assert first["row"].to_list() == alone["row"].to_list()
    np.testing.assert_allclose(first["score"], alone["score"], rtol=1e-4, atol=1e-6)

    later = posterior.suggest(query, 1, target="b", **goal)
    drawn = posterior.sample(query, n=4000).filter(pl.col("row") == later["row"][0])["b"]
    gains = np.maximum(known["b"].min() - drawn.to_numpy(), 0)
    assert later["score"][0] == pytest.approx(gains.mean(), rel=0.1, abs=0.02)
    for by in ("thompson", "ucb", "mes", "random"):
        frame = posterior.suggest(query, 2, by, target="b", **goal)
        assert frame["row"].n_unique() == 2 and frame["score"].is_finite().all()
    nothing = mixed.adapt(None).suggest(query, target="b", **goal)
    assert nothing["score"][0] > 0
    for target, words in (
        (None, "target says which one to minimise: one of 'a', 'b', 'c'"),
        ("c", "the goal minimise is for numbers; the target 'c' has classes"),
        ("z", "target is one of 'a', 'b', 'c'; got 'z'"),
    ):
        with pytest.raises(metaprior.errors.InputError, match=re.escape(words)):
            posterior.suggest(query, target=target, **goal)


@pytest.mark.slow
def test_a_chosen_row_counts_as_observed(mixed, new):
    known, query = new
    same = pl.concat([query[:1]] * 3)
    gains = mixed.adapt(known[:0]).suggest(same, n=3)["gain_nats"]
    assert gains[0] > gains[1] > gains[2]


@pytest.mark.slow
def test_saved_and_loaded_it_is_the_same(prior, joint, new, tmp_path):
    known, query = new
    prior.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (joint / "run" / "prior").read_bytes()
    again = metaprior.load(tmp_path / "again")
    assert again.info == prior.info and again.info["target"] == TARGETS
    assert again.info["classes"] == {"a": None, "b": None, "c": ["high", "low"]}
    assert again.adapt(known).predict(query).equals(prior.adapt(known).predict(query))


@pytest.mark.slow
def test_cut_off_in_the_second_part_it_continues_to_the_same_bits(joint, tmp_path):
    shares, table = [], pl.read_csv(joint / "table.csv")

    class Stop(Exception):
        pass

    def until(done, what):
        shares.append(done)
        if what.startswith("b: training"):
            raise Stop

    with pytest.raises(Stop):
        metaprior.Prior(**OPTIONS).fit(table, **FIT, checkpoint=tmp_path / "kept", progress=until)
    assert shares == sorted(shares) and 1 / 3 < shares[-1] < 2 / 3
    finished = {p: p.read_bytes() for p in (tmp_path / "kept").rglob("*.done")}
    assert len({p.parent for p in finished}) == 2
    told = []
    prior = metaprior.Prior(**OPTIONS).fit(
        table,
        **FIT,
        checkpoint=tmp_path / "kept",
        progress=lambda done, what: told.append((done, what)),
    )
    assert told[-1][0] > 0.9 and {what[:3] for _, what in told} == {"a: ", "b: ", "c: "}
    prior.info.pop("seconds")
    prior.save(tmp_path / "prior")
    assert (tmp_path / "prior").read_bytes() == (joint / "run" / "prior").read_bytes()


@pytest.mark.slow
def test_the_commands(joint, new, tmp_path, capsys):
    known, query = new
    known.write_csv(tmp_path / "s.csv")
    query.write_csv(tmp_path / "q.csv")

    def call(command):
        with pytest.raises(SystemExit) as stop:
            main(
                [
                    word.replace("RUN", str(joint / "run")).replace("DIR", str(tmp_path))
                    for word in command.split()
                ]
            )
        assert not stop.value.code
        return capsys.readouterr().out

    call("predict RUN --support DIR/s.csv --query DIR/q.csv --out DIR/p.csv")
    frame = pl.read_csv(tmp_path / "p.csv")
    numbers = ["mean", "std", "q05", "q50", "q95", "epistemic"]
    assert frame.columns == [f"{t}_{c}" for t in "ab" for c in numbers] + [
        "c_p_high",
        "c_p_low",
        "c_epistemic",
    ]
    assert frame.height == query.height and (frame["b_q05"] < frame["b_q95"]).all()
    assert "gain_nats" in call("suggest RUN --support DIR/s.csv --pool DIR/q.csv --n 2")
    result = json.loads(call("evaluate RUN --shots 0,2 --splits 1 --json"))
    assert list(result["targets"]) == TARGETS and list(result["joint"]["shots"]["2"]["method"]) == [
        "n_tasks",
        "n_groups",
        "ci",
        "nll",
    ]
    told = call(f"evaluate RUN {joint / 'table.csv'} --shots 1")
    assert "Target c given a, b" in told and "a, b, c together" in told
    options = "--task g --target a,b,c --method cnp --steps 4 --out RUN --resume"
    assert "finished" in call(f"fit {joint / 'table.csv'} {options}")


@pytest.mark.slow
def test_the_report_has_a_part_a_target(prior, joint, tmp_path):
    groups = {"a group": pl.read_csv(joint / "table.csv").filter(pl.col("g") == "g0")}
    evaluation = prior.evaluate(shots=(0, 2))
    write_report(
        tmp_path / "r.html", prior=prior, evaluation=evaluation, groups=groups, x="x", units="cm"
    )
    page = (tmp_path / "r.html").read_text("utf-8")
    for text in (
        "<dd>a, b, c</dd>",
        "<h1>a</h1>",
        "<h1>b, given a</h1>",
        "<h1>c, given a, b</h1>",
        "All targets together",
    ):
        assert text in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) and page.count("<svg") == 2 * (3 + 2 + 1) + (2 + 1) + 1


def test_a_name_with_a_comma_is_one_column(tmp_path):
    from metaprior.cli.run import split_target

    table = tmp_path / "t.csv"
    table.write_text('g,"a,b",c\n1,2,3\n')
    assert split_target("a,b", table) == "a,b" and split_target("a, c", table) == ["a", "c"]
    assert split_target("anything", table / "not read") == "anything"


def test_the_logarithm_is_of_numbers_only():
    rows = rows_of().with_columns(pl.col("a").exp(), pl.col("b").exp())
    checked = check_all(Rows(rows, "table"), Plan("g", ["c", "b"], scale="log", holdout=0.2))
    assert checked[0].units is None and checked[1].units.log
    assert [c.features for c in checked] == [["x", "a"], ["x", "a", "c"]]
    assert (checked[0].held == checked[1].held).all() and (checked[0].fold == checked[1].fold).all()


def test_classes_written_as_numbers_are_drawn_as_the_feature_they_are():
    for values, kept in (
        (["no", "yes"], ["no", "yes"]),
        ([0, 1], [0.0, 1.0]),
        ([False, True], [0.0, 1.0]),
    ):
        table = rows_of().with_columns(pl.Series("c", [values[v == "low"] for v in rows_of()["c"]]))
        checked = check_all(Rows(table, "table"), Plan("g", ["c", "a"]))
        assert checked[0].values == kept


PREDICT = "predict run --support s.csv --query q.csv"
USES = [
    # name, files to write, the command, what the message must hold
    ("support lacks a later target", {"s.csv": "x,a,c\n1,2,low\n"}, PREDICT, ["s.csv", "'b'"]),
    ("support lacks the first", {"s.csv": "x,b,c\n1,2,low\n"}, PREDICT, ["s.csv", "'a'"]),
    (
        "a value missing",
        {"s.csv": "x,a,b,c\n1,2,2,low\n1,2,,low\n"},
        PREDICT,
        ["s.csv", "'b'", "row 2"],
    ),
    (
        "an unknown class",
        {"s.csv": "x,a,b,c\n1,2,2,mid\n"},
        PREDICT,
        ["s.csv", "'c'", "row 1", "mid", "high, low"],
    ),
    ("query lacks a feature", {"q.csv": "a\n1\n"}, PREDICT, ["q.csv", "'x'"]),
    ("pool too small", {}, "suggest run --pool q.csv --n 3", ["q.csv", "1 rows"]),
    (
        "table lacks a target",
        {"t.csv": "g,x,a,b\nu,1,2,2\nu,2,3,3\n"},
        "evaluate run t.csv",
        ["t.csv", "'c'"],
    ),
    (
        "other targets",
        {},
        "fit table.csv --task g --target a,b --method cnp --steps 4 --out run --resume",
        ["--target a,b,c", "--target a,b"],
    ),
]


@pytest.mark.parametrize("name,files,command,words", USES, ids=[row[0] for row in USES])
def test_use(name, files, command, words, joint, tmp_path, capsys, monkeypatch):
    shutil.copytree(joint, tmp_path, dirs_exist_ok=True)
    for file, text in {"s.csv": "x,a,b,c\n1,2,2,low\n", "q.csv": "x\n1\n", **files}.items():
        (tmp_path / file).write_text(text)
    message = complaint(command, capsys, monkeypatch, tmp_path)
    for word in words:
        assert word in message, message


def test_quantiles_of_a_mixture():
    """Those by one sort are within 2e-3 of a level of the exact ones, tails and separate modes
    included.
    """
    params = jnp.asarray([[-2.0, 0.3, 3.0], [1.0, 1.0, 30.0], [1.2, 0.1, 5.0]])[:, None, None]
    student = Part(StudentT(1), params, jnp.log(jnp.asarray([0.2, 0.5, 0.3])))
    normal = Part(Gaussian(1), params[..., :2], jnp.log(jnp.asarray([0.1, 0.1, 0.1])))
    mixture = Mixture((student, normal))
    levels = jnp.asarray([[1e-4], [0.05], [0.3], [0.5], [0.95], [0.999]])
    found = outcomes_at(mixture, levels)
    np.testing.assert_allclose(
        [mixture.cdf(y[:, None])[0, 0] for y in found], levels[:, 0], atol=2e-3
    )


def test_removable_share_is_exact_where_a_later_target_is_linear():
    """b = a + noise and a = function + noise: of the spread that a brings to b, the function's
    share can go.
    """
    m, n = 256, 3
    u = (jnp.arange(m) + 0.5) / m
    a = jnp.broadcast_to(jnp.asarray(stats.norm.ppf(u), jnp.float32)[:, None], (m, n))
    params = jnp.stack([a.reshape(-1), jnp.full(m * n, 0.5)], -1)[None, :, None]
    given = Given(
        Mixture((Part(Gaussian(1), params, jnp.zeros(1)),)), a[None], jnp.full((1, n), 0.3)
    )
    mean, total, removable = given.moments()
    np.testing.assert_allclose(mean, 0.0, atol=1e-4)
    np.testing.assert_allclose(total, 1.25, rtol=1e-2)
    np.testing.assert_allclose(removable, 0.3, rtol=1e-2)


def new_groups() -> pl.DataFrame:
    """Three groups of four rows, of which two hold the targets."""
    return rows_of(3, 4, seed=6).with_columns(
        pl.when(pl.int_range(pl.len()).over("g") < 2).then(name).alias(name) for name in TARGETS
    )


@pytest.mark.slow
def test_many_groups_at_once_are_as_one_at_a_time(mixed):
    new = new_groups()
    said, posteriors = mixed.predict(new, say=str), mixed.adapt_each(new, say=str)
    for (name,), own in new.group_by("g", maintain_order=True):
        alone = posteriors[name].predict(own[2:].select("x"))
        its = said.filter(pl.col("g") == name).drop("g")
        assert its.columns == alone.columns
        np.testing.assert_allclose(its.to_numpy(), alone.to_numpy(), atol=2e-5)
    best = mixed.suggest(new, 2, over_all=True, say=str)
    assert best.columns == ["g", "x", "row", "score", "gain_nats"] and best.height == 2


@pytest.mark.slow
def test_what_a_row_holds_stands_in_place_of_draws(mixed):
    """b is predicted given the a of its row; an answer has nothing on what a row holds."""
    mixed.parts = mixed.parts[:2]
    mixed.joint = mixed.joint | {"target": TARGETS[:2]}
    new = new_groups()
    new[2, "a"], new[3, "b"] = 1.5, 0.5
    notes: list[str] = []
    said = mixed.predict(new, say=notes.append)
    assert "1 rows hold 'b' but not a, which comes before it: nothing is learned" in notes[-1]
    assert said["a_mean"].is_null().to_list() == [True] + [False] * 5
    assert said["b_mean"].is_null().to_list() == [False, True] + [False] * 4
    part = mixed.adapt_each(new, say=str)["g0"].parts[1]
    expected = part.predict({"x": [new["x"][2]], "a": [1.5]})
    for name in ("mean", "std", "q05", "q50"):
        assert said[f"b_{name}"][0] == pytest.approx(expected[name][0], abs=2e-3)
