"""What every evaluation protocol says of itself, and what a run of a method gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaprior.protocols.spread import standard_error

Tell = Callable[[float, str], None]  # share done in 0 … 1, and what is being done


class Metric(NamedTuple):
    """What a figure is.

    Args:
        label: in tables.
        unit: of the values.
        better: `"low"`, `"high"`, a target value, or `None` where neither is better.
    """

    label: str
    unit: str
    better: str | float | None


class Figure(NamedTuple):
    """One measured number.

    Args:
        setting: what it was measured at, such as `"K = 2"`; `""` where a protocol has one setting.
        metric: a key of `Protocol.metrics`.
        value: the number.
        error: its standard error over tasks (or over runs, then `count` is theirs); `None` where it
            has none.
        count: how many tasks stand behind it.
        median: over tasks, where `value` is a mean over them: a few tasks may be all of a mean.
        each: of which `value` is the mean, one number a task, in the same order for all methods.
            Differences between methods are taken task by task.
    """

    setting: str
    metric: str
    value: float
    error: float | None = None
    count: int = 0
    median: float | None = None
    each: np.ndarray | None = None

    @staticmethod
    def of(setting: str, metric: str, values: Any, classes: np.ndarray | None = None) -> "Figure":
        """The mean of one value a task, its standard error, the median; NaN values do not count.

        Args:
            setting, metric: as above.
            values: `(t,)`.
            classes: of each task `(t, way)`, where tasks share a few classes: see `standard_error`.
        """
        each = np.asarray(values, np.float64).ravel()
        known = ~np.isnan(each)
        values, n = each[known], int(known.sum())
        if n == 0:
            return Figure(setting, metric, float("nan"), None, 0)
        error = standard_error(values, None if classes is None else classes[known])
        median = float(np.median(values))
        return Figure(setting, metric, float(values.mean()), error, n, median, each)


class Anchor(NamedTuple):
    """A published or exact number to stand beside the measured ones.

    Args:
        name: whose it is, such as `"PLATIPUS (Finn et al. 2018)"` or `"exact posterior, 500
            tasks"`.
        setting, metric: where it belongs, as in `Figure`.
        value: the number.
        source: where it is printed, and what differs from what is run here.
    """

    name: str
    setting: str
    metric: str
    value: float
    source: str


@dataclass
class Outcome:
    """What one cell (a method, a seed) gave.

    Args:
        figures: the numbers.
        predictions: raw predictions, flat columns of equal length, from which the figures can be
            computed again; written to predictions.parquet with the columns `method` and `seed` in
            front. A column of arrays and `None` (`raw.lists`) becomes one of lists.
        drawing: arrays that `Protocol.draw` needs; written beside the cell.
        note: what a reader must know, such as a run that was cut short.
        facts: plain JSON values: steps, parameters, seconds of training.
    """

    figures: list[Figure]
    predictions: dict[str, np.ndarray]
    drawing: dict[str, np.ndarray] = field(default_factory=dict)
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Picture(NamedTuple):
    """A drawing of the report: a title, a sentence on what to see in it, and inline SVG."""

    title: str
    caption: str
    svg: str
    wide: bool = True


class Drawn(NamedTuple):
    """A finished cell as `Protocol.draw` gets it."""

    method: str
    seed: int
    figures: list[Figure]
    drawing: dict[str, np.ndarray]


@dataclass(frozen=True)
class Protocol:
    """One evaluation protocol: everything that is particular to it.

    Running, resuming and reporting are shared.

    Args:
        name: on the command line.
        title, lead: the report's headline and the paragraph below it: what is shown, and how to
            read it; the latter may depend on the data, `(data) -> str`.
        papers: where the protocol comes from.
        choices: what the paper leaves open and how it is settled here; limits of what is shown.
        metrics: name -> `Metric`, in the order of the report's tables.
        methods: rows of THE TABLE that run by default.
        able: every row that can run, for `--methods all` and to refuse the others.
        without: why other rows do not; `left_out` itself knows those of one kind and `stack`.
        budgets: options of `run`, `"quick"` and `"full"`; plain JSON values.
        run: `(method, seed, options, data, tell) -> Outcome`, one cell.
        draw: `(cells, options, data) -> pictures`, from all finished cells.
        references: names that `run` takes beside the methods and that always run: exact answers,
            controls.
        anchors: published and exact numbers.
        load: `(path or None, options) -> data` for protocols on files; raises `InputError`. `None`
            where nothing is read.
        reads: `(path) -> files and folders` that `load` reads there; of a folder its images, and
            tables of these. `None` where that is the path itself.
        sentence: `(cells) -> str`, what came out, in plain words; `""` for none.
    """

    name: str
    title: str
    lead: str | Callable[[Any], str]
    papers: tuple[str, ...]
    choices: tuple[str, ...]
    metrics: dict[str, Metric]
    methods: tuple[str, ...]
    able: tuple[str, ...]
    budgets: dict[str, dict[str, Any]]
    run: Callable[[str, int, dict[str, Any], Any, Tell], Outcome]
    draw: Callable[[Sequence[Drawn], dict[str, Any], Any], list[Picture]]
    references: tuple[str, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    load: Callable[..., Any] | None = None
    reads: Callable[[Path], Sequence[Path]] | None = None
    sentence: Callable[[Sequence[Drawn]], str] | None = None
    without: dict[str, str] = field(default_factory=dict)


def inside(path: Path, name: str) -> Path:
    """The file of that name where a folder holds it, else what was given."""
    return path / name if (path / name).is_file() else path


def left_out(protocol: Protocol) -> str:
    """One line on rows of THE TABLE that a protocol leaves out, and why; `""` for none."""
    from metaprior.methods import METHODS

    why: dict[str, list[str]] = {}
    for name, row in METHODS.items():
        if name not in protocol.able:
            reason = protocol.without.get(name, _reason(row))
            why.setdefault(reason, []).append(name)
    said = []
    for reason, names in why.items():
        listed = ", ".join(names)
        said.append(f"{listed} ({reason})" if reason else listed)
    return f"Left out of --methods all: {'; '.join(said)}." if said else ""


def _reason(row: Any) -> str:
    """Why a row cannot run where nothing else is said."""
    if row.inputs is not None:
        return f"reads {row.inputs} input column{'s' * (row.inputs > 1)} alone"
    if len(row.kinds) == 1:
        return f"predicts {row.kinds[0]} alone"
    if not hasattr(row.method, "init"):
        return "mixes methods that are trained already, for one table"
    return ""


# What a protocol of many tasks leaves out, beside the stack, and why.
MANY_TASKS = {
    "ensemble": "several emaml, which runs by itself",
    **dict.fromkeys(("nuts", "bnn"), "fit weights for each task, of which there are many"),
}


def able(*kinds: str, but: Sequence[str] = (), inputs: int | None = None) -> tuple[str, ...]:
    """Rows of THE TABLE that a protocol can run.

    Args:
        kinds: what they must predict, of `"numbers"` and `"classes"`.
        but: names that are left out.
        inputs: columns of x that they must read, at least in some settings; `None`: any number.
    """
    from metaprior.methods import METHODS

    def fits(row: Any) -> bool:
        reads = row.inputs is None or (inputs is not None and inputs <= row.inputs)
        return reads and set(kinds) <= set(row.kinds) and hasattr(row.method, "init")

    return tuple(name for name, row in METHODS.items() if fits(row) and name not in but)
