"""Train every method on tasks whose exact posterior is known; measure how far from it each stays.

    python -m benchmarks.oracle [--methods maml,np] [--sources linear,gp] [--steps 10000] [--again]
    [--docs]

Every row of `metaprior.methods.METHODS`, with its default settings and learning rate, by `fit`, for
as many steps as the source says, and more where a method still learns (`LONGER`). Those that
predict classes are trained on the source of classes, the others on those of numbers. `ensemble` is
left out, as its default is `emaml`, and `stack`, which is made of other rows. After every method
benchmarks/oracle.json is written; what is there already is skipped without --again.

Figures, all on the same held-out tasks for every method, in raw units (nothing is standardised):
- nll: minus the log of the mean density over draws of the function, nats a query row;
- marginal: that less the nll of the exact posterior: each query row by itself;
- joint: the same difference for the density of all query rows together, divided by their number.
  With posteriors that are only known through draws it is taken from 256 of them, which overstates
  the difference; that of `nuts` is estimated by `metaprior.infer.evidence`;
- mse: squared error of the mean prediction, squared units of y; of the probability with classes.

Each is a mean over tasks with its standard error, and the median over tasks in brackets.

Beside the methods stands the exact posterior point by point (`oracles.pointwise`): what a method
whose prediction is one normal a point cannot be better than.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.files import write
from metaprior.protocols.cell import scales_of
from metaprior.protocols.oracles.data import Case, cases, held_out
from metaprior.protocols.oracles.judge import (
    SLACK,
    judge,
    of_chains,
    of_tasks,
    score,
    sentence_on_chains,
)
from metaprior.protocols.oracles.pointwise import BY_POINT, KnownByPoint
from metaprior.sources.exact import Known

ROOT = Path(__file__).resolve().parent.parent
DRAWN = "drawn"

# Steps as a multiple of the source's, for methods that learn for longer, within five minutes on two
# cores. On `gp`, of up to 30 rows, a step takes some times as long.
LONGER = {
    "recurrent": {"": 10, "gp": 3},
    "snail": {"": 4},
    "cnp": {"": 20, "gp": 5},
    "acnp": {"": 7},
    "ar_cnp": {"": 7},
    "tnp": {"": 4},
    "convcnp": {"": 2.5},
    "gnp": {"": 20, "gp": 5},
    "agnp": {"": 7},
    "np": {"": 4},
    "anp": {"": 2.5},
    "flow_np": {"": 2.5},
    "maml": {"": 4, "gp": 2},
    "maml_fixed": {"": 4, "gp": 2},
    "dkt": {"": 4},
    "versa": {"": 6},
}


def steps_of(name: str, source: str, case: Case) -> int:
    """Of the training of a method on a source."""
    more = LONGER.get(name, {})
    return round(case.steps * (more.get(source, 1 if source == "gp" else more.get("", 1))))


# What must hold with the default settings: source, methods (the best of them where there is a `|`),
# K, figure, bound.
BOUNDS = (
    ("sinusoid", "alpaca", "5", "nll", -0.05),
    ("sinusoid", "alpaca", "10", "nll", -0.20),
    ("gp", "acnp", DRAWN, "nll", 0.75),
    ("gp", "anp", DRAWN, "nll", 0.75),
    ("gp", "cnp", DRAWN, "nll", 1.30),
    ("gp", "np", DRAWN, "nll", 1.20),
    ("gp", "recurrent", DRAWN, "nll", 1.25),
    ("sineline", "platipus", "2", "nll", 1.6),
    ("sineline", "bmaml", "2", "nll", 1.6),
    ("sineline", "np", "2", "nll", 1.6),
    ("harmonic", "best", "5", "mse", 1.0),
    ("harmonic", "best", "10", "mse", 0.08),
    ("harmonic", "best", "20", "mse", 0.01),
    ("harmonic", "bmaml", "5", "mse", 2.042),
    ("harmonic", "bmaml", "10", "mse", 1.371),
    ("harmonic", "bmaml", "20", "mse", 0.844),
    # A tenth of a nat above the exact posterior.
    ("circles", "np", "1", "nll", 0.406),
    ("circles", "np", "2", "nll", 0.334),
    ("circles", "np", "5", "nll", 0.246),
)


def figures(case: Case, own, exact=None) -> dict:
    """Means over tasks with their standard errors, and medians, for every K."""
    import numpy as np

    def mean(values):
        return [
            round(float(np.mean(values)), 5),
            round(float(np.std(values) / len(values) ** 0.5), 5),
        ]

    shots = {}
    for i, k in enumerate(case.shots):
        values = {"mse": own[:, i, 2]} | ({"nll": own[:, i, 0]} if case.exact else {})
        if exact is not None:
            gap = own - exact[: len(own)]
            values |= {"marginal": gap[:, i, 0], "joint": gap[:, i, 1]}
        median = {name: round(float(np.median(each)), 5) for name, each in values.items()}
        shots[str(k)] = {name: mean(each) for name, each in values.items()} | {"median": median}
    return shots


def cell(value: float, error: float, median: float | None = None, digits: int = 3) -> str:
    """A mean with its standard error, and the median in brackets where it is known."""
    text = f"{value:.{digits}f} ± {error:.{digits}f}"
    return text if median is None else f"{text} ({median:.{digits}f})"


def measure(name: str, source: str, case: Case, judged, exact, arguments) -> dict:
    """Train one method on one source and judge it."""
    import equinox as eqx
    import jax

    from metaprior import Spec, fit
    from metaprior.methods import METHODS

    jax.clear_caches()  # programs of many fits would exhaust the memory maps of the process
    row = METHODS[name]
    spec, options = Spec(case.x_dim, case.head), scales_of(name, case.source)
    learner = eqx.filter_jit(row.init)(spec, key=jax.random.key(0), **options)
    result = {"steps": 0, "outcome": "done", "seconds": 0.0}
    if row.trainable:

        def tell(done, steps, loss):
            if done % 1000 == 0:
                print(
                    f"  {name}: step {done} of {steps}, loss {loss:.3f}",
                    file=sys.stderr,
                    flush=True,
                )

        began = time.process_time()
        fitted = fit(
            learner,
            case.source,
            key=jax.random.key(1),
            steps=arguments.steps or steps_of(name, source, case),
            progress=tell,
        )
        learner = fitted.method
        result = {
            "steps": fitted.steps,
            "outcome": fitted.outcome,
            "seconds": round(fitted.seconds, 1),
            "cpu_seconds": round(time.process_time() - began, 1),
        }
    found, seconds = judge(learner, case, judged, arguments.minutes)
    own, chains = of_tasks(found), of_chains(found)
    arrays = jax.tree.leaves(eqx.filter(learner, eqx.is_inexact_array))
    return (
        result
        | {
            "test_ms": round(
                1e3 * seconds / own[..., 0].size, 3
            ),  # the exact posterior's own time is not in it
            "parameters": sum(a.size for a in arrays),
            "tasks": len(own),
            "shots": figures(case, own, exact),
        }
        | ({"chains": chains} if chains else {})
    )


def violations(results: dict) -> list[str]:
    """Methods better than the exact posterior by more than 2 standard errors.

    Each is a leak or a wrong metric.
    """
    found = []
    for source, methods in results.items():
        for name, result in methods.items():
            for k, entry in result["shots"].items():
                for figure in ("marginal", "joint"):
                    gap, error = entry.get(figure, (0.0, 0.0))
                    if gap < -2 * error - SLACK:
                        found.append(
                            f"{source}, {name}, K = {k}: {figure} {gap:.4f} ± {error:.4f} "
                            "below the exact one"
                        )
    return found


def unmet(results: dict) -> list[str]:
    """Bounds that a measured method misses."""
    found = []
    for source, name, k, figure, bound in BOUNDS:
        methods = {
            m: r
            for m, r in results.get(source, {}).items()
            if m not in ("exact", BY_POINT) and name in ("best", m)
        }
        values = {m: r["shots"][k][figure][0] for m, r in methods.items()}
        best = min(values, key=values.get, default=None)
        if best is not None and not values[best] <= bound:
            found.append(
                f"{source}, {best}, K = {k}: {figure} {values[best]:.3f}, the bound is {bound}"
            )
    return found


def markdown(results: dict) -> str:
    """One table for each source.

    Seconds of training are those of a processor where they were measured so. A row that was judged
    on fewer tasks says so.
    """
    from metaprior.methods import METHODS

    lines = []
    for source, case in cases().items():
        methods = results.get(source, {})
        rows = [name for name in METHODS if name in methods]
        if not rows:
            continue
        ks = [str(k) for k in case.shots]
        kinds = ("marginal", "joint") if case.exact else ("mse",)
        head = [f"{kind} {k}" for kind in kinds for k in ks]
        tasks = max(result["tasks"] for result in methods.values())
        lines += [f"### {source}", "", f"{case.what}. {tasks:,} tasks.", ""]
        cost = ["steps", "train", "test, ms", "parameters"]
        lines += ["| method | " + " | ".join([*head, *cost]) + " |"]
        lines += ["|---|" + "---:|" * (len(head) + len(cost))]
        if case.exact:
            own = [f"*{methods['exact']['shots'][k]['nll'][0]:.3f}*" for k in ks]
            lines.append(
                "| *nll of the exact posterior* | " + " | ".join(own) + " |" * (len(ks) + 5)
            )

        def cells_of(result):
            entries = [(result["shots"][k], kind) for kind in kinds for k in ks]
            return [
                cell(*entry[kind], entry.get("median", {}).get(kind)) for entry, kind in entries
            ]

        if BY_POINT in methods:
            cells = cells_of(methods[BY_POINT])
            lines.append(f"| *{BY_POINT}* | " + " | ".join(cells) + " |" * (len(cost) + 1))
        for name in rows:
            result = methods[name]
            cells = cells_of(result)
            took = f"{result['seconds']:.0f} s"
            if "cpu_seconds" in result:
                took = f"{result['cpu_seconds']:.0f} CPU-s"
            cost = [
                f"{result['steps']:,}",
                took,
                f"{result['test_ms']:.2f}",
                f"{result['parameters']:,}",
            ]
            other = [f"{result['tasks']:,} tasks"] if result["tasks"] != tasks else []
            label = f"`{name}`" + (f" ({', '.join(other)})" if other else "")
            lines.append(f"| {label} | " + " | ".join([*cells, *cost]) + " |")
        lines.append("")
        for name in rows:
            if "chains" in methods[name]:
                said = sentence_on_chains([methods[name]["chains"]])
                lines += [f"Chains of `{name}`: {said}.", ""]
    return "\n".join(lines)


def marks(name: str) -> tuple[str, str]:
    """What stands before and after a measured table on a page."""
    return f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"


def into_docs(name: str, text: str, page: str = "methods") -> None:
    """Between its marks on a page of docs."""
    path = ROOT / "docs" / f"{page}.md"
    begin, end = marks(name)
    head, rest = path.read_text("utf-8").split(begin)
    path.write_text(head + begin + text + end + rest.split(end, 1)[1], "utf-8")


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def keep(path: Path, source: str, name: str, result: dict) -> None:
    """Add one result to what is on disk now, so that two runs can share the file."""
    results = read(path)
    results.setdefault(source, {})[name] = result
    write(path, results, depth=2)


def main(argv=None) -> None:
    from metaprior.methods import METHODS

    sources = cases()
    able = [
        name for name, row in METHODS.items() if hasattr(row.method, "init") and name != "ensemble"
    ]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(able))
    parser.add_argument("--sources", default=",".join(sources))
    parser.add_argument("--steps", type=int, help="of training, instead of the source's own number")
    parser.add_argument("--tasks", type=int, default=300, help="held-out tasks")
    parser.add_argument(
        "--minutes",
        type=float,
        default=1.0,
        help="after which a slow method is judged on fewer tasks",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "oracle.json")
    parser.add_argument("--again", action="store_true", help="also what is in the file already")
    parser.add_argument(
        "--docs", action="store_true", help="only write the table of docs/methods.md from the file"
    )
    arguments = parser.parse_args(argv)
    if arguments.docs:
        into_docs("oracle", markdown(read(arguments.out)))
        return
    from metaprior.system.terminal import use_cache

    use_cache()
    have = {} if arguments.again else read(arguments.out)
    wanted = [(s, m) for s in arguments.sources.split(",") for m in arguments.methods.split(",")]

    def fits(s, m):
        row, case = METHODS[m], sources[s]
        if row.inputs is not None and case.x_dim > row.inputs:
            return False
        return ("classes" if case.head.classes else "numbers") in row.kinds

    wanted = [(s, m) for s, m in wanted if fits(s, m) and m not in have.get(s, {})]
    judged, exact, began = {}, {}, time.monotonic()
    for i, (source, name) in enumerate(wanted):
        case = sources[source]
        if source not in judged:
            judged[source] = held_out(case, arguments.tasks)
        if case.exact and source not in exact:
            exact[source], _ = score(Known(case.source), case, judged[source], 60.0)
            points, _ = score(KnownByPoint(case.source), case, judged[source], 60.0)
            for kind, shots in (
                ("exact", figures(case, exact[source])),
                (BY_POINT, figures(case, points, exact[source])),
            ):
                keep(arguments.out, source, kind, {"tasks": arguments.tasks, "shots": shots})
        result = measure(name, source, case, judged[source], exact.get(source), arguments)
        keep(arguments.out, source, name, result)
        spent = time.monotonic() - began
        kind = "marginal" if case.exact else "mse"
        gaps = " ".join(f"{entry[kind][0]:.3f}" for entry in result["shots"].values())
        left = spent / (i + 1) * (len(wanted) - i - 1) / 60
        print(
            f"{source}, {name}: {kind} {gaps} "
            f"({result['outcome']}, trained {result['seconds']:.0f} s); "
            f"{i + 1} of {len(wanted)}, about {left:.0f} minutes left",
            flush=True,
        )
    results = read(arguments.out)
    for line in violations(results):
        print("VIOLATION", line)
    for line in unmet(results):
        print("unmet", line)


if __name__ == "__main__":
    main()
