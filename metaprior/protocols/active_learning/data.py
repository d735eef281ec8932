"""The tables of `active-learning`: which hour, which compound, which configuration."""

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.protocols import characters
from metaprior.sources import Table
from metaprior.tables.checked import check, understood
from metaprior.tables.columns import Features
from metaprior.tables.groups import runs
from metaprior.tables.plan import Plan
from metaprior.tables.read import rows_of
from metaprior.task import Task

# Tables are padded to these, so that one program serves all: columns, rows, groups.
WIDTH, ROWS, GROUPS = 16, 27_000, 1_100
POOL, QUERY = 40, 24


class Subject(NamedTuple):
    """One table and what is asked of it.

    Args:
        file, task, target: where it is, the column of the groups, and what is predicted.
        features: columns to predict from.
        split_by: groups that share a value of this column stay on one side of every split.
        log: predict the logarithm.
        pool: rows of a group that may be labelled, at most `POOL`; of the others at most `QUERY`
            are judged.
        seeks: what the best row has: `"high"`, `"low"`, or `None` where no row is sought.
        cost: column with what a label costs; the rules do not see it.
    """

    file: str
    task: str
    target: str
    features: tuple[str, ...]
    split_by: str | None = None
    log: bool = False
    pool: int = POOL
    seeks: str | None = None
    cost: str | None = None


SUBJECTS = {
    "weather": Subject(
        "weather_airport_days.csv",
        "group",
        "temp",
        ("origin", "day_of_year", "hour", "wind_speed", "pressure"),
        split_by="day_of_year",
        pool=14,
    ),
    "molecules": Subject(
        "molecules_30_assays.csv",
        "assay",
        "p_activity",
        (
            "mol_wt",
            "logp",
            "tpsa",
            "hbd",
            "hba",
            "rot_bonds",
            "rings",
            "arom_rings",
            "frac_csp3",
            "heavy_atoms",
            "hetero_atoms",
            "charge",
        ),
        seeks="high",
    ),
    "configurations": Subject(
        "hpo_deepar.csv",
        "task",
        "crps",
        (
            "hp_num_layers",
            "hp_num_cells",
            "hp_dropout_rate_log",
            "hp_learning_rate_log",
            "hp_num_batches_per_epoch_log",
            "hp_context_length_ratio_log",
        ),
        log=True,
        seeks="low",
        cost="train_seconds",
    ),
}

FILES = (characters.FILE, *(subject.file for subject in SUBJECTS.values()))


class Rows(NamedTuple):
    """A table in the order of its groups.

    Args:
        frame: the feature columns.
        z: outcomes, on the log scale where asked.
        group: of each row; `start`, `count`: of each group.
        fold: of each group, 0 … 4.
        split: of each group: those that share it are no independent evidence.
        cost: of each row, 1 where there is no such column.
    """

    frame: pl.DataFrame
    z: np.ndarray
    group: np.ndarray
    start: np.ndarray
    count: np.ndarray
    fold: np.ndarray
    split: np.ndarray
    cost: np.ndarray


def read_rows(folder: Path, subject: Subject) -> Rows:
    """Read and check one table; `InputError` names the file, column and row that cannot be used."""
    rows = rows_of(folder / subject.file, "table")
    extra = [column for column in (subject.split_by, subject.cost) if column]
    rows.need([subject.task, subject.target, *subject.features, *extra])
    plan = Plan(
        task=subject.task,
        targets=[subject.target],
        kind="numbers",
        scale="log" if subject.log else "linear",
        split_by=subject.split_by,
    )
    rows = understood(rows, plan).rows
    checked = check(rows, plan, subject.target, list(subject.features))
    units = checked.units
    z = checked.z if units is None else units.center + units.scale * checked.z
    start, count = runs(checked.group)

    # groups that share a date, say, are one piece of evidence
    shared = checked.frame[subject.split_by or subject.task].cast(pl.String).to_numpy()
    split = np.unique(shared.astype(str)[start], return_inverse=True)[1]
    cost = np.ones(len(z))
    if subject.cost:
        cost = checked.frame[subject.cost].cast(pl.Float64).to_numpy()
    return Rows(checked.frame, z, checked.group, start, count, checked.fold, split, cost)


class Pools(eqx.Module):
    """Training tasks as they are judged: a group's pool as support, the rest as query.

    Args:
        table: with `POOL` support and `QUERY` query rows.
        most: rows of a pool, at most two thirds of the group's.
    """

    table: Table
    most: int = eqx.field(static=True)

    def __call__(self, key) -> Task:
        g_key, key = jr.split(key)
        group = self.table.groups[jr.randint(g_key, (), 0, self.table.groups.shape[-1])]
        pool = jnp.minimum(self.most, self.table.count[group] * 2 // 3)
        return self.table.task(group, pool, key=key)


class Fold(NamedTuple):
    """One split.

    Args:
        table: its `groups` are those to train on; a task has a pool (support) and judged rows
            (query).
        held: groups that are judged.
        expected_cost: of each row, from a regression on the training rows.
    """

    table: Table
    held: np.ndarray
    expected_cost: np.ndarray


def padded(array: np.ndarray, least: int) -> np.ndarray:
    """The array with rows of zeros at its end, up to `least` rows."""
    more = max(0, least - len(array))
    return np.pad(array, [(0, more)] + [(0, 0)] * (array.ndim - 1))


def expected_costs(encoded: np.ndarray, cost: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """What each row is expected to cost, by ridge regression of the log on rows `inside`."""
    design = np.c_[np.ones(len(encoded)), encoded, encoded**2]
    ridge = design[inside].T @ design[inside] + np.eye(design.shape[1])
    weights = np.linalg.solve(ridge, design[inside].T @ np.log(cost[inside]))
    return np.exp(design @ weights)


def fold_of(rows: Rows, subject: Subject, fold: int) -> Fold:
    """One split, with columns and outcomes in units of the training rows."""
    inside = rows.fold[rows.group] != fold
    training = rows.frame.filter(pl.Series(inside))
    features = Features.learn(training, list(subject.features), rows.group[inside])
    encoded, _ = features.encode(rows.frame, subject.file)
    centre, scale = float(rows.z[inside].mean()), float(rows.z[inside].std())

    wide = np.pad(encoded, ((0, 0), (0, max(0, WIDTH - encoded.shape[1]))))
    groups = np.flatnonzero(rows.fold != fold).astype(np.int32)
    table = Table(
        jnp.asarray(padded(wide.astype(np.float32), ROWS)),
        jnp.asarray(padded(((rows.z - centre) / scale).astype(np.float32)[:, None], ROWS)),
        jnp.asarray(padded(rows.start.astype(np.int32), GROUPS)),
        jnp.asarray(padded(rows.count.astype(np.int32), GROUPS)),
        jnp.asarray(np.resize(groups, max(GROUPS, len(groups)))),
        POOL,
        QUERY,
    )
    held = np.flatnonzero(rows.fold == fold)
    return Fold(table, held, expected_costs(encoded, rows.cost, inside))


def load(path: Path | None, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a folder has of omniglot28.npz and the tables of `SUBJECTS`.

    Sine waves and lines need nothing.
    """
    found: dict[str, Any] = {}
    if path is None:
        return found
    if not path.is_dir():
        raise InputError(f"{path}: active-learning reads a folder with any of {', '.join(FILES)}.")
    if (path / characters.FILE).exists():
        found["characters"] = characters.read(path / characters.FILE)
    for name, subject in SUBJECTS.items():
        if (path / subject.file).exists():
            found[name] = read_rows(path, subject)
    return found


def reads(path: Path) -> list[Path]:
    """What `load` reads."""
    return [path / name for name in FILES if (path / name).exists()]
