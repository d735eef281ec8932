"""Every method on tasks whose exact posterior is known: how far from it each one stays."""

import time
from typing import Any

import equinox as eqx
import jax
import numpy as np

from metaprior.method import Spec
from metaprior.posterior import Particles, Sampled
from metaprior.protocols.oracles.data import Case, cases, held_out
from metaprior.protocols.protocol import (
    Figure,
    Outcome,
    trained,
)
from metaprior.protocols.raw import first_rows, functions_at, joint_terms, log_p, log_terms
from metaprior.sources.exact import Known

EXACT = "exact"


SLACK = 2e-3  # nats: jitter of the sources and the width of their grids


def judge(learner, case: Case, judged: Any, minutes: float, samples: int = 256, block: int = 10):
    """Figures `(tasks, shots, …)` of as many tasks as time allows, and seconds.

    A row: `y`, `mean` (the second of two classes' probability), `nll` and `log_p`
    (`raw.log_terms`); a task: `joint`, nll a row, and `joint_log_p`.
    """

    def one(learner, pair):
        task, key = pair
        keys, query = jax.random.split(key, 3), task.query
        posterior = learner.posterior(task.support, key=keys[0])
        predictive = posterior.predict(query.x, key=keys[1], samples=samples)
        joint = posterior.joint_log_prob(query, key=keys[2], samples=samples)
        drawn = predictive
        if isinstance(posterior, Sampled | Particles):  # the draws of which `joint` is the mean
            drawn = functions_at(posterior, query.x, key=keys[2], samples=samples)
        return {
            "y": query.y[:, 0],
            "mean": predictive.mean()[:, -1],
            "nll": -predictive.log_prob(query.y),
            "joint": -joint / query.count,
            "log_p": log_terms(predictive, query.y),
            "joint_log_p": joint_terms(posterior, drawn, query, joint),
        }

    block = min(block * len(case.shots), len(judged[1]))

    def part(i):
        return jax.tree.map(lambda a: a[i : i + block], judged)

    run = eqx.filter_jit(
        lambda learner, pairs: jax.lax.map(lambda p: one(learner, p), pairs, batch_size=10)
    )
    look = run.lower(learner, part(0)).compile()  # ty: ignore[missing-attribute]
    found, began = [], time.monotonic()
    for i in range(0, len(judged[1]) - block + 1, block):
        found.append({k: np.asarray(v) for k, v in look(learner, part(i)).items()})
        if time.monotonic() - began > 60 * minutes:
            break
    seconds = time.monotonic() - began
    together = {k: np.concatenate([f[k] for f in found]) for k in found[0]}
    return {k: v.reshape(-1, len(case.shots), *v.shape[1:]) for k, v in together.items()}, seconds


def of_tasks(found: dict[str, np.ndarray]) -> np.ndarray:
    """Marginal nll, joint nll and squared error, `(tasks, shots, 3)`."""
    wide = {k: np.asarray(found[k], np.float64) for k in ("nll", "joint", "mean", "y")}
    error = (wide["mean"] - wide["y"]) ** 2
    return np.stack([wide["nll"].mean(-1), wide["joint"], error.mean(-1)], -1)


def score(learner, case: Case, judged: Any, minutes: float, samples: int = 256):
    """`of_tasks` of a learner, and seconds."""
    found, seconds = judge(learner, case, judged, minutes, samples)
    return of_tasks(found), seconds


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell) -> Outcome:
    """Train on each source in turn and judge on tasks that are the same for all methods."""
    figures: list[Figure] = []
    columns: dict[str, list] = {}
    facts: dict[str, Any] = {"steps": 0, "train_seconds": 0.0}
    short = []
    names = options["sources"]
    for i, name in enumerate(names):
        case = cases()[name]

        def part(done, what):
            return tell((i + done) / len(names), f"{name}: {what}")

        judged = held_out(case, options["tasks"])
        best, _ = judge(Known(case.source), case, judged, 60.0, options["samples"])
        if method == EXACT:
            found = best
        else:
            steps = max(1, round(case.steps * options["steps_share"]))
            learner, told = trained(
                method, Spec(case.x_dim, case.head), case.source, seed, steps, part
            )
            facts = {
                **told,
                "steps": facts["steps"] + told["steps"],
                "train_seconds": round(facts["train_seconds"] + told.get("train_seconds", 0.0), 1),
            }
            part(1.0, "judging")
            found, _ = judge(learner, case, judged, options["minutes"], options["samples"])
        count = len(found["joint"])
        own, exact = of_tasks(found), of_tasks(best)[:count]
        if count < options["tasks"]:
            short.append(f"{count} tasks of {name}")
        for j, k in enumerate(case.shots):
            setting, values = f"{name}: K = {k}", own[:, j]
            figures += [
                Figure.of(setting, "nll", values[:, 0]),
                Figure.of(setting, "mse", values[:, 2]),
            ]
            if method != EXACT:
                gap = values - exact[:, j]
                figures += [
                    Figure.of(setting, "gap", gap[:, 0]),
                    Figure.of(setting, "joint_gap", gap[:, 1]),
                ]
            n = found["y"].shape[-1]
            each = {
                c: np.repeat(v, n)
                for c, v in (
                    ("task", np.arange(count)),
                    ("joint_nll", own[:, j, 1]),
                    ("exact_joint_nll", exact[:, j, 1]),
                )
            }
            rows = {
                "setting": np.full(count * n, setting),
                "row": np.tile(np.arange(n), count),
                **each,
                **{c: found[c][:, j].ravel() for c in ("y", "mean", "nll")},
                "exact_nll": best["nll"][:count, j].ravel(),
                "log_p": log_p(found["log_p"][:, j]),
                "joint_log_p": first_rows(found["joint_log_p"][:, j], n),
            }
            columns = {c: [*columns.get(c, []), v] for c, v in rows.items()}
    note = f"slow, so judged on {', '.join(short)}" if short else ""
    return Outcome(figures, {c: np.concatenate(v) for c, v in columns.items()}, {}, note, facts)
