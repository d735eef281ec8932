"""Defaults that train: every method on every table and source, with no setting changed.

    python -m benchmarks.defaults [--methods maml,np] [--kinds numbers,classes] [--batch 16]
    [--again] [--docs]

A method passes if its loss is finite at each of 2,000 steps, and if it then has a lower negative
log density on groups that it has not seen than its untrained self had: by more than 2 standard
errors of the paired difference over tasks. Tasks of one group are not independent, so this error is
too small where groups are few.

Tables go through the package's own encoding. All tables share one shape (constant columns behind, 0
to 5 support and 4 query rows) and are trained at once as members of one fit: each method then
compiles once, not once for each table. As in `Prior.fit`, the best of the looks at some validation
groups counts. The density of a method that draws functions is the mean over as many draws as
`metaprior.evaluate` takes. Fewer would count against it and not against its untrained self, whose
draws are alike. What is in the file already is skipped without --again.

`ensemble`, `ar_cnp` and `nuts` are trained as `emaml`, `acnp` and `alpaca` are; `bnn` is not
trained.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl

from benchmarks.oracle import ROOT, into_docs, keep, read
from metaprior import Spec, fit
from metaprior.evaluation.evaluate import SAMPLES
from metaprior.heads import Categorical, Gaussian
from metaprior.methods import METHODS
from metaprior.sources import GP, Linear, SineLine, Sinusoid, Table
from metaprior.tables import rows as found
from metaprior.tables.checked import feature_columns
from metaprior.tables.columns import Features
from metaprior.tables.groups import runs, sorted_groups, split_groups
from metaprior.tables.read import as_frame
from metaprior.tables.targets import target_values

STEPS, EVERY = 2000, 100
SUPPORT, QUERY, ROWS = 5, 4, 100  # rows of a task; most rows of a group that are kept
VALIDATION = 64  # tasks
# Where a fifth of the groups are few to judge by: other fifths too.
SPLITS = {"molecules": 5, "hpo": 2, "radon": 3, "contraception": 3}
HOLDOUT = 0.2

# file, group, target, columns that are no features, whether the logarithm is modelled
TABLES = {
    "weather": ("weather_airport_days.csv", "group", "temp", (), False),
    "molecules": ("molecules_30_assays.csv", "assay", "p_activity", ("smiles",), False),
    "school": ("school_math.csv", "school", "math_score", (), False),
    "remifentanil": ("remifentanil_pk.csv", "subject", "conc", (), True),
    "milk": ("milk_protein.csv", "cow", "protein", (), False),
    "radon": ("radon_counties.csv", "county", "log_radon", (), False),
    "hpo": ("hpo_deepar.csv", "task", "crps", ("train_seconds",), True),
    "contraception": ("contraception_districts.csv", "district", "uses_contraception", (), False),
}
# Groups of these are standardised one by one: the loss on one data set says nothing of another's.
OWN_UNITS = {"hpo"}
SYNTHETIC = {
    "linear": Linear.of(2),
    "gp": GP("eq", query=10),
    "sinusoid": Sinusoid(),
    "sineline": SineLine(),
}
KINDS = {
    "numbers": (
        Gaussian(1),
        [name for name in TABLES if name != "contraception"] + list(SYNTHETIC),
    ),
    "classes": (Categorical(2), ["contraception"]),
    "only classes": (Categorical(2), ["contraception", *SYNTHETIC]),
}
SAME = {"ensemble", "ar_cnp", "nuts"}  # trained as other rows are, by default
# A row that can predict numbers meets the synthetic sources as numbers, one that cannot by their
# sign.
CASES = [
    (name, kind)
    for name, row in METHODS.items()
    if row.trainable and name not in SAME and row.inputs is None  # tables have several columns
    for kind in (("only classes",) if row.kinds == ("classes",) else row.kinds)
]


class Rows(NamedTuple):
    """The rows of a table: `x`, `y`, the index of their group in order, and their `unit`.

    A unit is what must not be split, where that is not the group.
    """

    x: np.ndarray
    y: np.ndarray
    group: np.ndarray
    unit: np.ndarray | None = None

    def fewer(self, rng) -> "Rows":
        """At most `ROWS` rows a group, at random, and no group of one row."""
        place = rng.permutation(len(self.group))
        order = place[np.argsort(self.group[place], kind="stable")]
        start, count = runs(self.group[order])
        within = np.arange(len(order)) - np.repeat(start, count)
        order = order[(within < ROWS) & np.repeat(count > 1, count)]
        return Rows(
            self.x[order],
            self.y[order],
            np.unique(self.group[order], return_inverse=True)[1],
            None if self.unit is None else self.unit[order],
        )

    def roles(self, seed):
        """Groups to train on, to judge by and to validate by."""
        frame = pl.DataFrame({"unit": self.group if self.unit is None else self.unit})
        held, fold = split_groups(frame, self.group, "unit", "unit", HOLDOUT, seed, "table")
        return [np.flatnonzero(part) for part in (fold > 0, held, (fold == 0) & ~held)]


def from_file(data, name):
    """A table; numbers are standardised."""
    file, task, target, without, log = TABLES[name]
    frame = as_frame(data / file).drop(without)
    names = feature_columns(found.Rows(frame, file), task, target, None)
    y, classes = target_values(frame[target], file, target, "auto")
    group, order = sorted_groups(frame, task, file)
    frame, y = frame[order], np.log(y[order]) if log else y[order]
    x, _ = Features.learn(frame, names, group).encode(frame, file)
    same = group if name in OWN_UNITS else np.zeros_like(group)
    mean = np.bincount(same, y) / np.bincount(same)
    std = np.sqrt(np.bincount(same, y**2) / np.bincount(same) - mean**2)
    # Airports share their weather.
    unit = frame["day_of_year"].to_numpy() if name == "weather" else None
    return Rows(x, y if classes else (y - mean[same]) / std[same], group, unit)


def from_source(source, classes, groups=2000):
    """Tasks of a source as groups of rows; classes are the sign of the outcome."""
    tasks = jax.jit(jax.vmap(source))(jr.split(jr.key(0), groups))
    x, y = (
        np.concatenate([getattr(d, a) for d in (tasks.support, tasks.query)], axis=1)
        for a in ("x", "y")
    )
    group = np.repeat(np.arange(groups), x.shape[1])
    y = y.reshape(-1)
    return Rows(x.reshape(len(group), -1), (y > 0).astype(float) if classes else y, group)


def members(kind, data, test, without=(), splits=SPLITS):
    """What all methods train on.

    Args:
        kind: a key of `KINDS`.
        data: the folder of the tables.
        test: how many tasks to judge by.
        without: names of tables that are left out.
        splits: which tables are split more than once into groups to train on and to judge by.

    Returns:
        the names of the tables, the spec, a `Table` whose arrays have a leading axis with one entry
        for each name, `test` tasks to judge by, and tasks to validate by.
    """
    head, names = KINDS[kind]
    made = {}
    for name in (name for name in names if name not in without):
        if name in SYNTHETIC:
            made[name] = from_source(SYNTHETIC[name], bool(head.classes))
        else:
            made[name] = from_file(data, name)
    made = {name: rows.fewer(np.random.default_rng(0)) for name, rows in made.items()}
    names, roles = zip(
        *((n, rows.roles(seed)) for n, rows in made.items() for seed in range(splits.get(n, 1)))
    )
    columns = max(rows.x.shape[1] for rows in made.values())
    longest = max(len(rows.y) for rows in made.values())
    groups = max(rows.group[-1] + 1 for rows in made.values())

    def longer(a, *size):
        return np.pad(a, [(0, n - m) for n, m in zip(size, a.shape)])

    arrays = []
    for name in names:
        x, y, group, _ = made[name]
        start, count = runs(group)
        arrays.append(
            (
                longer(x, longest, columns).astype(np.float32),
                longer(y, longest)[:, None].astype(np.float32),
                longer(start, groups),
                longer(count, groups),
            )
        )
    most = max(len(train) for train, _, _ in roles)
    arrays = [
        *map(np.stack, zip(*arrays)),
        np.stack([np.resize(train, most) for train, _, _ in roles]),
    ]
    source = Table(*map(jnp.asarray, arrays), SUPPORT, QUERY)
    draw = jax.jit(jax.vmap(lambda s, g, k, key: s.tasks(g, k, key=key)))
    tasks = {}
    for role, size in ((1, test), (2, VALIDATION)):
        chosen = np.stack([np.resize(part[role], size) for part in roles])
        most = np.take_along_axis(np.asarray(source.count), chosen, axis=1) - 1
        shots = np.minimum(
            np.random.default_rng(role).choice((0, 1, 2, 3, SUPPORT), chosen.shape), most
        )
        tasks[role] = draw(source, chosen, shots, jr.split(jr.key(role), len(names)))
    return names, Spec(columns, head), source, tasks[1], tasks[2]


@eqx.filter_jit
def nll(methods, tasks, draws):
    """Marginal negative log density of a query row of every task, `(members, tasks)`."""

    def one(method, task):
        predictive = method.posterior(task.support, key=jr.key(3)).predict(
            task.query.x, key=jr.key(4), samples=draws
        )
        return -task.query.mean(predictive.log_prob(task.query.y))

    def run(m, t):
        return jax.lax.map(lambda task: one(m, task), t, batch_size=16)

    return eqx.filter_vmap(run, in_axes=(eqx.if_array(0), eqx.if_array(0)))(methods, tasks)


def measure(name, joined, batch, draws) -> dict:
    """Train one method on all tables at once.

    For each table it says whether every loss was finite, nats a row before and after, and the gain
    with its standard error.
    """
    names, spec, source, tasks, validation = joined
    keys = jr.split(jr.key(5), len(names))
    start = eqx.filter_jit(eqx.filter_vmap(lambda k: METHODS[name].init(spec, key=k)))(keys)
    failed, began = [], time.process_time()
    fitted = fit(
        start,
        source,
        key=jr.key(6),
        steps=STEPS,
        every=EVERY,
        batch=batch,
        axes=eqx.if_array(0),
        validation=validation,
        save=lambda state: failed.append(state.failed),
    )
    seconds = time.process_time() - began
    before = np.asarray(nll(start, tasks, draws))
    after = np.asarray(nll(fitted.method, tasks, draws))
    finite = np.isfinite(fitted.losses) & np.isfinite(fitted.validation) & ~np.array(failed)
    found = {}
    for table in dict.fromkeys(names):
        its = [i for i, other in enumerate(names) if other == table]
        old, new = before[its].ravel(), after[its].ravel()
        found[table] = {
            "finite": bool(finite[:, its].all()),
            "before": round(float(old.mean()), 4),
            "after": round(float(new.mean()), 4),
            "gain": round(float((old - new).mean()), 4),
            "error": round(float((old - new).std() / old.size**0.5), 4),
        }
    return {"batch": batch, "seconds": round(seconds, 1), "tables": found}


def violations(results) -> list[str]:
    """Tables on which a method's loss was not finite, or its gain not above 2 standard errors."""
    found = []
    for kind, methods in results.items():
        for name, result in methods.items():
            for table, entry in result["tables"].items():
                if not entry["finite"]:
                    found.append(f"{name}, {kind}, {table}: a loss is not finite")
                elif not entry["gain"] > 2 * entry["error"]:
                    found.append(
                        f"{name}, {kind}, {table}: {entry['before']} before, "
                        f"{entry['after']} after, a gain of {entry['gain']} ± {entry['error']}"
                    )
    return found


def markdown(results) -> str:
    """A table of gains a kind of outcome."""
    lines = []
    for kind, methods in results.items():
        tables = list(next(iter(methods.values()))["tables"])
        lines += [
            f"### {kind}",
            "",
            "| method | " + " | ".join(tables) + " |",
            "|---|" + "---:|" * len(tables),
        ]
        for name in (name for name in METHODS if name in methods):
            cells = [
                "{gain:.2f} ± {error:.2f}".format(**methods[name]["tables"][t]) for t in tables
            ]
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [
        "Not better by two standard errors:",
        "",
        *(f"- {line}" for line in violations(results) or ["nothing."]),
    ]
    return "\n".join([*lines, "\n"])


def main(argv=None) -> None:
    rows = list(dict.fromkeys(name for name, _ in CASES))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(rows))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--batch", type=int, default=16, help="tasks a step")
    parser.add_argument("--tasks", type=int, default=768, help="to judge by")
    parser.add_argument("--draws", type=int, default=SAMPLES, help="of the function, for a density")
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the tables"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "defaults.json")
    parser.add_argument("--again", action="store_true", help="also what is in the file already")
    parser.add_argument(
        "--docs", action="store_true", help="only write the tables of docs/methods.md from the file"
    )
    arguments = parser.parse_args(argv)
    if arguments.docs:
        into_docs("defaults", markdown(read(arguments.out)))
        return
    have = {} if arguments.again else read(arguments.out)
    wanted = [
        case
        for case in CASES
        if case[0] in arguments.methods.split(",") and case[1] in arguments.kinds.split(",")
    ]
    joined = {}
    for name, kind in wanted:
        if name in have.get(kind, {}):
            continue
        if kind not in joined:
            joined[kind] = members(kind, arguments.data, arguments.tasks)
        result = measure(name, joined[kind], arguments.batch, arguments.draws)
        keep(arguments.out, kind, name, result)
        print(
            f"{name}, {kind}: {result['seconds']:.0f} s of processor time",
            *violations({kind: {name: result}}),
            sep="\n",
            flush=True,
        )
        jax.clear_caches()  # programs of many fits would exhaust the memory maps of the process


if __name__ == "__main__":
    main()
