"""Every method against exact posteriors: training, judging, the distance."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from metaprior.infer.nuts import ESS, RHAT
from metaprior.method import AbstractLearner, Spec
from metaprior.methods import METHODS
from metaprior.methods.nuts import ByChains
from metaprior.protocols import raw
from metaprior.protocols.cell import item_of, to_numpy, trained
from metaprior.protocols.oracles.data import Case, cases, held_out
from metaprior.protocols.oracles.pointwise import BY_POINT, KnownByPoint
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.sources.exact import Known

EXACT = "exact"
SLACK = 2e-3  # nats: jitter of the sources and the width of their grids
AT_ONCE = 10  # tasks of one compiled step
CHAINS = ("rhat", "ess", "divergences")  # what a sampler says of itself
Found = dict[str, np.ndarray]  # what `judge` gives


def judge(
    learner: AbstractLearner,
    case: Case,
    judged: Any,
    minutes: float,
    samples: int = 256,
    block: int = 10,
) -> tuple[Found, float]:
    """As many tasks as time allows, and the seconds it took.

    Args:
        learner: what is judged.
        case: the source.
        judged: tasks and keys, as `held_out` gives them.
        minutes: after which no further block of tasks is begun.
        samples: draws of the function.
        block: tasks in a block.

    Returns:
        Arrays `(tasks, shots, …)`. Of a row `y`, `mean` (of two classes, the probability of the
        second), `nll` and `log_p` (`raw.log_terms`). Of a task `joint`, nats a row, and
        `joint_log_p`. Of a sampler's chains also, of a task, `rhat`, `ess`, `divergences` and
        `joint_error`, the Monte Carlo error of `joint`.
    """

    def one(learner, pair):
        task, key = pair
        keys, query = jax.random.split(key, 3), task.query
        posterior = learner.posterior(task.support, key=keys[0])
        predictive = posterior.predict(query.x, key=keys[1], samples=samples)
        chains = {}
        if isinstance(posterior, ByChains):
            joint, error = posterior.joint(query, key=keys[2])
            chains = {name: getattr(posterior.chains, name) for name in CHAINS}
            chains["joint_error"] = error / query.count
        else:
            joint = posterior.joint_log_prob(query, key=keys[2], samples=samples)
        drawn = predictive
        if raw.known_by_draws(posterior):  # the draws of which `joint` is the mean
            drawn = raw.functions_at(posterior, query.x, key=keys[2], samples=samples)
        return {
            "y": query.y[:, 0],
            "mean": predictive.mean()[:, -1],
            "nll": -predictive.log_prob(query.y),
            "joint": -joint / query.count,
            "log_p": raw.log_terms(predictive, query.y),
            "joint_log_p": raw.joint_terms(posterior, drawn, query, joint),
            **chains,
        }

    @eqx.filter_jit
    def look(learner, pairs):
        return jax.lax.map(lambda pair: one(learner, pair), pairs, batch_size=AT_ONCE)

    shots, count = len(case.shots), len(judged[1])
    rows = min(block * shots, count)

    def part(start):
        return jax.tree.map(lambda a: a[start : start + rows], judged)

    # compiled before the clock starts, so that slow compilers do not cost tasks
    compiled: Any = look.lower(learner, part(0)).compile()  # ty: ignore[missing-attribute]
    found, began = [], time.monotonic()
    for start in range(0, count - rows + 1, rows):
        found.append(to_numpy(compiled(learner, part(start))))
        if time.monotonic() - began > 60 * minutes:
            break
    seconds = time.monotonic() - began

    whole = {name: np.concatenate([f[name] for f in found]) for name in found[0]}
    return {k: v.reshape(-1, shots, *v.shape[1:]) for k, v in whole.items()}, seconds


def of_tasks(found: Found) -> np.ndarray:
    """Marginal nll, joint nll and squared error, `(tasks, shots, 3)`."""
    wide = {name: np.asarray(found[name], np.float64) for name in ("nll", "joint", "mean", "y")}
    error = (wide["mean"] - wide["y"]) ** 2
    return np.stack([wide["nll"].mean(-1), wide["joint"], error.mean(-1)], -1)


def of_chains(found: Found) -> dict[str, float]:
    """How far a sampler's draws can be trusted, over tasks; `{}` of any other method.

    Returns:
        `rhat`, the worst; `ess`, the least effective number of draws; `divergences` a task;
        `short`, the share of tasks whose chains ended above `RHAT` or below `ESS`; `joint_error`,
        the largest Monte Carlo error of the joint density, nats a row.
    """
    if "rhat" not in found:
        return {}
    rhat, ess = found["rhat"], found["ess"]
    return {
        "rhat": round(float(rhat.max()), 4),
        "ess": round(float(ess.min()), 1),
        "divergences": round(float(found["divergences"].mean()), 4),
        "short": round(float(((rhat > RHAT) | (ess < ESS)).mean()), 4),
        "joint_error": round(float(found["joint_error"].max()), 5),
    }


def sentence_on_chains(each: list[dict[str, float]]) -> str:
    """What `of_chains` gave at several places, in words; `""` where there were no chains."""
    each = [chains for chains in each if chains]
    if not each:
        return ""

    def over(name: str, call: Callable) -> float:
        return float(call([chains[name] for chains in each]))

    return (
        f"R-hat up to {over('rhat', max):.3f}, at least {over('ess', min):.0f} effective draws, "
        f"{over('divergences', np.mean):.2f} divergences a task; "
        f"{over('short', np.mean):.0%} of the tasks ended above R-hat {RHAT} or below {ESS:.0f} "
        f"effective draws; Monte Carlo error of the joint density up to "
        f"{over('joint_error', max):.3f} nats a row"
    )


def score(
    learner: AbstractLearner, case: Case, judged: Any, minutes: float, samples: int = 256
) -> tuple[np.ndarray, float]:
    """`of_tasks` of a learner, and seconds."""
    found, seconds = judge(learner, case, judged, minutes, samples)
    return of_tasks(found), seconds


def readable(method: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sources whose columns of x a method or reference reads, and the others."""
    row = METHODS.get(method)
    most = None if row is None else row.inputs
    read = [name for name in names if most is None or cases()[name].x_dim <= most]
    return read, [name for name in names if name not in read]


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Train on each source in turn and judge on tasks that are the same for all methods."""
    figures, tables, short, chains = [], [], [], {}
    facts: dict[str, Any] = {"steps": 0, "train_seconds": 0.0}
    samples = options["samples"]
    names, unread = readable(method, options["sources"])
    for i, name in enumerate(names):
        told = item_of(tell, i, len(names), name)
        case = cases()[name]
        judged = held_out(case, options["tasks"])
        best, _ = judge(Known(case.source), case, judged, 60.0, samples)
        found = best
        if method == BY_POINT:
            found, _ = judge(KnownByPoint(case.source), case, judged, 60.0, samples)
        elif method != EXACT:
            steps = max(1, round(case.steps * options["steps_share"]))
            spec = Spec(case.x_dim, case.head)
            learner, own = trained(method, spec, case.source, seed, steps, told)
            facts = own | {
                "steps": facts["steps"] + own["steps"],
                "train_seconds": round(facts["train_seconds"] + own.get("train_seconds", 0.0), 1),
            }
            told(1.0, "judging")
            found, _ = judge(learner, case, judged, options["minutes"], samples)

        if "rhat" in found:
            chains[name] = of_chains(found)
        count = len(found["joint"])
        if count < options["tasks"]:
            short.append(f"{count} tasks of {name}")
        best = {key: values[:count] for key, values in best.items()}
        for j, shots in enumerate(case.shots):
            mine, exact = ({k: v[:, j] for k, v in each.items()} for each in (found, best))
            figures += measure(f"{name}: K = {shots}", mine, exact, method == EXACT)
            tables.append(rows_of(f"{name}: K = {shots}", mine, exact))
    notes = [f"slow, so judged on {', '.join(short)}"] if short else []
    if unread:
        notes.append(f"reads fewer input columns than there are in {', '.join(unread)}")
    if chains:
        notes.append(sentence_on_chains(list(chains.values())))
        facts["chains"] = chains
    return Outcome(figures, raw.joined(tables), {}, "; ".join(notes), facts)


def measure(setting: str, found: Found, exact: Found, is_exact: bool) -> list[Figure]:
    """The figures at one number of rows, from arrays `(tasks, …)`."""
    own, best = of_tasks(found), of_tasks(exact)
    figures = [
        Figure.of(setting, "nll", own[:, 0]),
        Figure.of(setting, "mse", own[:, 2]),
    ]
    if not is_exact:
        gap = own - best
        figures.append(Figure.of(setting, "gap", gap[:, 0]))
        figures.append(Figure.of(setting, "joint_gap", gap[:, 1]))
    return figures


def rows_of(setting: str, found: Found, exact: Found) -> dict[str, np.ndarray]:
    """The raw predictions at one number of rows; what belongs to a task is in its first row."""
    t, n = found["y"].shape
    joint = {"joint_nll": found["joint"], "exact_joint_nll": exact["joint"]}
    return {
        **raw.task_rows(setting, t, n),
        **{name: np.repeat(values.astype(np.float64), n) for name, values in joint.items()},
        **{name: found[name].ravel() for name in ("y", "mean", "nll")},
        "exact_nll": exact["nll"].ravel(),
        "log_p": raw.log_p(found["log_p"]),
        "joint_log_p": raw.first_rows(found["joint_log_p"], n),
    }
