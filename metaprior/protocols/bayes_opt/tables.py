"""Real configurations: `hpo_deepar.csv`, and HPO-B in the form in which it is published."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.errors import InputError
from metaprior.protocols.active_learning.data import SUBJECTS, Rows, fold_of, read_rows
from metaprior.protocols.bayes_opt.data import NEAR, Family, Hunts, orders
from metaprior.sources import Table

DEEPAR = "DeepAR"
SUBJECT = SUBJECTS["configurations"]
HPOB_FILES = ("meta-train-dataset.json", "meta-test-dataset.json", "bo-initializations.json")
STARTS = tuple(f"test{i}" for i in range(5))
SPLITS = 5
MOST_SHOWN = 32  # rows that a training task shows
POOL_KEY = 20261204
TRIES = 30
SHOWN = (1, 2, 3, 5, 10, 20, 30)
HPOB_SHOWN = (1, 5, 10, 25, 50, 100)


class Space(NamedTuple):
    """A search space of HPO-B, with errors: 1 less the published y.

    Args:
        name: of the space.
        train: rows of each training data set, `(m, d)` and `(m,)`.
        test: rows of each data set that is judged, and the five sets of rows to begin with.
    """

    name: str
    train: list[tuple[np.ndarray, np.ndarray]]
    test: list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def pools(
    x: list[np.ndarray],
    y: list[np.ndarray],
    order: list[np.ndarray],
    unit: np.ndarray,
    *,
    source: Any,
    scale: float,
    centre: float,
    start: int,
    shown: tuple[int, ...],
) -> Family:
    """Pools of measured rows as functions without noise; the best 1 % of a pool are the goal.

    Args:
        x, y: of each pool, in units of the training rows.
        order: rows that random search tries, `(m,)` each.
        unit, source, scale, centre, start, shown: see `Family`.
    """
    most = -(-max(map(len, y)) // 64) * 64  # so that splits share a program

    def longer(a: np.ndarray, value: float) -> np.ndarray:
        pad = [(0, most - len(a))] + [(0, 0)] * (a.ndim - 1)
        return np.pad(a, pad, constant_values=value)

    z = np.stack([longer(a, np.inf) for a in y])
    real = np.isfinite(z)
    ranks = np.array([max(1, int(np.ceil(NEAR * len(a)))) for a in y])
    goal = np.sort(z, 1)[np.arange(len(y)), ranks - 1]
    hunts = Hunts(
        jnp.asarray(np.stack([longer(a, 0.0) for a in x]), jnp.float32),
        jnp.asarray(np.where(real, z, 0.0), jnp.float32),
        jnp.asarray(real),
        jnp.asarray(np.stack(order)),
        jnp.zeros((len(y), 0)),
        jnp.zeros(len(y)),
    )
    # Both are compared with values in single precision.
    goal, lowest = (a.astype(np.float32).astype(float) for a in (goal, z.min(1)))
    return Family(source, hunts, scale, lowest, goal, unit, start, shown, centre)


def deepar(rows: Rows, repeats: int) -> Iterator[Family]:
    """The data sets that each of five splits holds out, each hunted in `repeats` times.

    The data sets that are judged are not among the training rows, nor are the units theirs.
    """
    for split in range(SPLITS):
        fold = fold_of(rows, SUBJECT, split)
        z, x = np.asarray(fold.table.y)[:, 0], np.asarray(fold.table.x)
        slices = [slice(rows.start[g], rows.start[g] + rows.count[g]) for g in fold.held]
        slices = [one for one in slices for _ in range(repeats)]
        unit = np.repeat(fold.held, repeats)
        order = []
        for i, one in enumerate(slices):
            key = jr.fold_in(jr.fold_in(jr.key(POOL_KEY), int(unit[i])), i % repeats)
            order.append(orders(key, np.ones((1, one.stop - one.start), bool), TRIES)[0])
        inside = rows.fold[rows.group] != split
        yield pools(
            [x[one] for one in slices],
            [z[one].astype(np.float64) for one in slices],
            order,
            unit,
            source=_shown_of(fold.table),
            scale=float(rows.z[inside].std()),
            centre=float(rows.z[inside].mean()),
            start=0,
            shown=SHOWN,
        )


def _shown_of(table: Table) -> Table:
    """The same groups with as many support rows as a hunt has."""
    return Table(table.x, table.y, table.start, table.count, table.groups, MOST_SHOWN, 32)


def _read_json(path: Path) -> dict[str, Any]:
    """An object; `InputError` names the file that is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or 'cannot be read'}.") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: is no JSON.") from None
    if not isinstance(found, dict) or not found:
        raise InputError(f"{path}: holds no search spaces by name.")
    return found


def _rows_of(data: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """X `(m, d)` and y `(m,)` of a data set."""
    if not isinstance(data, dict) or not {"X", "y"} <= set(data):
        raise InputError(f"{where}: has no X and y.")
    try:
        x, y = np.asarray(data["X"], np.float64), np.asarray(data["y"], np.float64)
    except (ValueError, TypeError):
        raise InputError(f"{where}: X and y are numbers, a row of X as long as another.") from None
    y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or not len(y):
        raise InputError(
            f"{where}: X is (rows, columns) and y has a number a row; X is {x.shape}, y {y.shape}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(f"{where}: holds a number that is not finite.")
    return x, y


def _starts_of(found: Any, rows: int, where: str) -> np.ndarray:
    """Rows to begin with, `(5, s)`."""
    try:
        starts = np.asarray([found[name] for name in STARTS])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where}: wants lists of rows of one length, test0 … test4.") from None
    if starts.ndim != 2 or starts.dtype.kind != "i" or not starts.shape[1]:
        raise InputError(f"{where}: rows to begin with are lists of whole numbers.")
    if starts.min() < 0 or starts.max() >= rows:
        wrong = starts[(starts < 0) | (starts >= rows)][0]
        raise InputError(f"{where}: names row {wrong}; there are {rows}.")
    if any(len(set(each)) < len(each) for each in starts.tolist()):
        raise InputError(f"{where}: names a row twice.")
    return starts


def read_hpob(folder: Path) -> list[Space]:
    """The search spaces of HPO-B that have training and test data sets.

    Pineda Arango, Jomaa, Wistuba & Grabocka, "HPO-B: A Large-Scale Reproducible Benchmark for
    Black-Box HPO based on OpenML", NeurIPS Datasets and Benchmarks 2021.

    Args:
        folder: with `HPOB_FILES`: spaces to data sets to X and y, and to the rows to begin with.
    """
    paths = [folder / name for name in HPOB_FILES]
    train, test, starts = map(_read_json, paths)
    spaces = []
    for name, sets in test.items():
        if name not in train:
            continue
        if not isinstance(sets, dict) or not isinstance(train[name], dict):
            raise InputError(f"{paths[1]}: space {name} holds no data sets by name.")
        known = [
            _rows_of(data, f"{paths[0]}: space {name}, data set {key}")
            for key, data in train[name].items()
        ]
        judged = []
        for key, data in sets.items():
            x, y = _rows_of(data, f"{paths[1]}: space {name}, data set {key}")
            where = f"{paths[2]}: space {name}, data set {key}"
            own = starts.get(name, {})
            if not isinstance(own, dict) or key not in own:
                raise InputError(f"{where}: is not there.")
            judged.append((x, y, _starts_of(own[key], len(y), where)))
        widths = {x.shape[1] for x, *_ in (*known, *judged)}
        if len(widths) > 1:
            raise InputError(f"{paths[0]}: space {name} has rows of {sorted(widths)} columns.")
        if known and judged:
            spaces.append(Space(name, known, judged))
    if not spaces:
        raise InputError(f"{folder}: no search space has training and test data sets.")
    return spaces


def hpob(space: Space, trials: int) -> Family:
    """Hunts in a space from the five sets of rows to begin with; y is scaled by data set to 0 … 1.

    Its lowest value is 0, as errors are hunted: the published y is to be maximised.
    """

    def error(y: np.ndarray) -> np.ndarray:
        span = y.max() - y.min()
        return (y.max() - y) / (span if span > 0 else 1.0)

    x = np.concatenate([x for x, _ in space.train])
    y = np.concatenate([error(y) for _, y in space.train])
    middle, spread = x.mean(0), x.std(0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    centre, scale = float(y.mean()), float(y.std()) or 1.0
    count = np.array([len(own) for _, own in space.train], np.int32)
    arrays = ((x - middle) / spread).astype(np.float32), ((y - centre) / scale)[:, None]
    table = Table(
        jnp.asarray(arrays[0]),
        jnp.asarray(arrays[1], jnp.float32),
        jnp.asarray(np.cumsum(count) - count),
        jnp.asarray(count),
        jnp.arange(len(count)),
        MOST_SHOWN,
        32,
    )
    own_x, own_y, order, unit = [], [], [], []
    least = min(len(values) for _, values, _ in space.test)
    for i, (places, values, starts) in enumerate(space.test):
        for j, begin in enumerate(starts):
            tries = min(len(begin) + trials, least)
            key = jr.fold_in(jr.fold_in(jr.key(POOL_KEY + 1), i), j)
            chance = np.asarray(jr.uniform(key, (len(values),))) + 1.0
            chance[begin] = np.arange(len(begin)) / len(begin)
            order.append(np.argsort(chance)[:tries])
            own_x.append((places - middle) / spread)
            own_y.append((error(values) - centre) / scale)
            unit.append(i)
    start = space.test[0][2].shape[1]
    shown = tuple(n for n in HPOB_SHOWN if start + n <= len(order[0])) or (len(order[0]) - start,)
    return pools(
        own_x,
        own_y,
        order,
        np.array(unit),
        source=table,
        scale=scale,
        centre=centre,
        start=start,
        shown=shown,
    )


def load(path: Path | None, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a folder has of `hpo_deepar.csv` and of HPO-B; without a folder nothing.

    A folder with one of the files of HPO-B must have all three.
    """
    found: dict[str, Any] = {}
    if path is None:
        return found
    if not path.is_dir():
        raise InputError(
            f"{path}: bayes-opt reads a folder with {SUBJECT.file}, or {', '.join(HPOB_FILES)}."
        )
    if (path / SUBJECT.file).exists():
        found[DEEPAR] = read_rows(path, SUBJECT)
    there = [name for name in HPOB_FILES if (path / name).exists()]
    if there:
        for name in HPOB_FILES:
            if name not in there:
                raise InputError(f"{path / name}: no such file; HPO-B is {', '.join(HPOB_FILES)}.")
        found["HPO-B"] = read_hpob(path)
    return found


def reads(path: Path) -> list[Path]:
    """What `load` reads."""
    return [path / name for name in (SUBJECT.file, *HPOB_FILES) if (path / name).exists()]
