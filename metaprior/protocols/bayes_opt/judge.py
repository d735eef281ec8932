"""What a learned prior is worth to an optimiser: training, hunting, figures."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from metaprior.heads import Gaussian, StudentT
from metaprior.method import Spec
from metaprior.protocols.active_learning.figures import mean_of_units
from metaprior.protocols.bayes_opt import tables
from metaprior.protocols.bayes_opt.controls import (
    Own,
    forrester_prior,
    from_scratch,
    gp_1d_grid,
)
from metaprior.protocols.bayes_opt.data import FAMILIES, FORRESTER, GP_1D, Family
from metaprior.protocols.bayes_opt.hunting import Traces, hunt
from metaprior.protocols.cell import cut_short, item_of, option, part_of, trained
from metaprior.protocols.protocol import Figure, Outcome, Tell
from metaprior.protocols.raw import joined

RANDOM, SCRATCH, EXACT, OWN = "random", "GP from scratch", "exact prior", "own settings known"
REFERENCES = (RANDOM, SCRATCH, EXACT, OWN)
HPOB = "HPO-B"
IMPROVEMENT = "improvement"
SCRATCH_START = 2  # random places that a process from scratch begins with
KEY = 20261205

# Of `init` and of `fit`, where the defaults are not meant for functions of one or two columns
# without much noise. Chosen by the loss on training functions, and of two rates of `alpaca` by the
# regret of a first run.
HYPER: dict[str, dict[str, Any]] = {
    "alpaca": {"width": 64, "size": 16},
    "dkt": {"kernel": "rbf", "width": 0},
}
RATES = {"alpaca": 1e-2, "dkt": 1e-2}


class Found(NamedTuple):
    """What a rule tried in one family, in the family's units.

    Args:
        values: of what was tried, `(t, m)`.
        recommended: value of the place that is thought lowest after 1 … m of them, `(t, m)`.
        rows: the places that were tried, `(t, m)`.
        lowest, goal: `(t,)`; see `Family`.
        unit: of each function, `(t,)`.
        start: evaluations that everyone begins with.
        shown: see `Family`.
        seconds: of a suggestion.
    """

    values: np.ndarray
    recommended: np.ndarray
    rows: np.ndarray
    lowest: np.ndarray
    goal: np.ndarray
    unit: np.ndarray
    start: int
    shown: tuple[int, ...]
    seconds: float


def settings_of(method: str, options: dict[str, Any], data: dict[str, Any]) -> list[str]:
    """What this method runs on these data."""
    if method == OWN:
        known = [GP_1D]
    elif method == EXACT:
        known = [FORRESTER, GP_1D]
    else:
        known = [*FAMILIES, tables.DEEPAR, HPOB]
    return [n for n in known if n in options["training"] or n in data]


def families_of(
    setting: str, seed: int, options: dict[str, Any], data: dict[str, Any]
) -> Iterator[tuple[str, Family]]:
    """The parts of a setting, with their names: splits of a table, spaces of HPO-B, or itself."""
    if setting == tables.DEEPAR:
        for i, family in enumerate(tables.deepar(data[setting], options["repeats"])):
            yield f"split {i + 1}", family
    elif setting == HPOB:
        for space in data[setting]:
            yield space.name, tables.hpob(space, options["trials"])
    else:
        training, judged = options["training"][setting], options["judged"]
        yield "", FAMILIES[setting](training, judged, seed)


def parts(setting: str, data: dict[str, Any]) -> int:
    """How many families a setting has."""
    return {tables.DEEPAR: tables.SPLITS, HPOB: len(data.get(HPOB, ()))}.get(setting, 1)


def learner_of(
    method: str, setting: str, family: Family, seed: int, options: dict[str, Any], tell: Tell
) -> tuple[Any, dict[str, Any]]:
    """What hunts, and facts of its training."""
    if method == RANDOM:
        return None, {}
    if method == SCRATCH:
        return from_scratch(family.hunts.x[np.asarray(family.hunts.real)]), {}
    if method == OWN:
        return Own(), {}
    if method == EXACT:
        if setting == FORRESTER:
            return forrester_prior(family), {}
        return gp_1d_grid(family, average=True), {}
    head = Gaussian(1) if setting in FAMILIES else StudentT(1)
    spec = Spec(family.hunts.x.shape[-1], head)
    own = options["steps"].get(setting, options["steps"]["tables"])
    steps = own.get(method, own[""])
    rate = RATES.get(method) if setting in FAMILIES else None
    hyper = HYPER.get(method, {}) if setting in FAMILIES else {}
    return trained(method, spec, family.source, seed, steps, tell, hyper=hyper, learning_rate=rate)


def found_by(family: Family, traces: Traces) -> Found:
    """What was tried, in the family's units."""
    f = np.asarray(family.hunts.f, np.float64)

    def own(z: np.ndarray) -> np.ndarray:
        return family.centre + family.scale * z

    return Found(
        own(np.take_along_axis(f, traces.picks, 1)),
        own(np.take_along_axis(f, traces.recommended, 1)),
        traces.picks,
        own(family.lowest),
        own(family.goal),
        family.unit,
        family.start,
        family.shown,
        traces.seconds,
    )


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Every setting in turn; of each its families, and in each all rules of the method."""
    data = data or {}
    settings = settings_of(method, options, data)
    figures: list[Figure] = []
    columns, drawing, facts, notes = [], {}, {}, []
    for i, setting in enumerate(settings):
        told = item_of(tell, i, len(settings), setting)
        by_rule: dict[str, list[Found]] = {}
        for j, (name, family) in enumerate(families_of(setting, seed, options, data)):
            here = item_of(told, j, parts(setting, data))
            learner, own = learner_of(
                method, setting, family, seed, options, part_of(here, 0.0, 0.7)
            )
            if own:
                facts[f"{setting} {name}".strip()] = own
                notes.append(cut_short(own))
            start = family.start or (SCRATCH_START if method == SCRATCH else 0)
            for rule in rules_of(method, options):
                here(0.7, f"hunting by {rule}")
                key = jax.random.fold_in(jax.random.key(KEY), j)
                traces = hunt(learner, family.hunts, rule, start, key=key)
                found = found_by(family, traces)
                by_rule.setdefault(rule, []).append(found)
                columns.append(columns_of(setting, name, rule, found))
        figures += figures_of(setting, by_rule)
        for rule, each in by_rule.items():
            curve = regret_of(each)
            drawing[f"{rule} {setting}"] = np.stack([curve[1].mean(0), half(curve)])
    if not settings:
        notes.append("nothing to run here: its families were not asked for")
    note = "; ".join(dict.fromkeys(note for note in notes if note))
    return Outcome(figures, joined(columns) if columns else {}, drawing, note, facts)


def rules_of(method: str, options: dict[str, Any]) -> Sequence[str]:
    """The rules of a method; trying at random is none."""
    return [IMPROVEMENT] if method == RANDOM else option(options, "rules", method)


def after_start(found: Found, values: np.ndarray) -> np.ndarray:
    """From the first evaluation after the start on, as the first one counts."""
    return values[:, found.start :]


def simple_regret(found: Found) -> np.ndarray:
    """How far the lowest value so far is above the lowest there is, `(t, evaluations)`."""
    best = np.minimum.accumulate(found.values, 1)
    return np.maximum(after_start(found, best) - found.lowest[:, None], 0.0)


def evaluations_to(found: Found) -> np.ndarray:
    """Evaluations after the start until solved; one more than were made where never: `(t,)`."""
    reached = np.minimum.accumulate(found.values, 1) <= found.goal[:, None] + 1e-9
    reached = after_start(found, reached)
    return np.where(reached.any(1), reached.argmax(1) + 1.0, reached.shape[1] + 1.0)


def regret_of(each: Sequence[Found]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of evaluations, and simple regret of every unit after so many, `(u, m)`."""
    most = max(found.values.shape[1] - found.start for found in each)
    grown = [_to(simple_regret(found), most) for found in each]
    return np.arange(1, most + 1), _units(each, np.concatenate(grown))


def _to(values: np.ndarray, count: int) -> np.ndarray:
    """With its last column again up to `count`: a pool that was tried out."""
    more = count - values.shape[1]
    return np.concatenate([values, np.repeat(values[:, -1:], more, 1)], 1)


def _units(each: Sequence[Found], values: np.ndarray) -> np.ndarray:
    """Means over the functions of a unit, `(u, …)`."""
    unit = np.concatenate([1_000_000 * i + found.unit for i, found in enumerate(each)])
    flat = values.reshape(len(values), -1).T
    return np.stack([mean_of_units(column, unit) for column in flat], -1).squeeze()


def half(curve: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Half of a 95 % interval of the mean over units."""
    values = curve[1]
    return 1.96 * values.std(0, ddof=1) / len(values) ** 0.5


def figures_of(setting: str, by_rule: dict[str, list[Found]]) -> list[Figure]:
    """Regret by evaluations for each rule; for the first rule all the others too."""
    figures = []
    for number, (rule, each) in enumerate(by_rule.items()):
        suffix = "" if rule == IMPROVEMENT else f"_{rule}"
        _, regret = regret_of(each)
        shown = sorted({n for found in each for n in found.shown if n <= regret.shape[1]})
        for n in shown:
            place = f"{setting}: {n}"
            figures.append(Figure.of(place, f"regret{suffix}", regret[:, n - 1]))
        needed = _units(each, np.concatenate([evaluations_to(found) for found in each]))
        figures.append(Figure.of(setting, f"evaluations{suffix}", needed))
        if number:
            continue
        most = regret.shape[1]
        recommended = [_to(after_start(f, f.recommended) - f.lowest[:, None], most) for f in each]
        recommended = np.maximum(_units(each, np.concatenate(recommended)), 0.0)
        tries = [evaluations_to(found)[:, None] for found in each]
        solved = np.concatenate(tries) <= np.arange(1, most + 1)
        solved = _units(each, solved.astype(float))
        for n in shown:
            place = f"{setting}: {n}"
            figures.append(Figure.of(place, "recommended", recommended[:, n - 1]))
            figures.append(Figure.of(place, "solved", solved[:, n - 1]))
        figures.append(Figure.of(setting, "cumulative", cumulative(each)))
        seconds = [found.seconds for found in each if np.isfinite(found.seconds)]
        if seconds:
            figures.append(Figure(setting, "seconds", float(np.mean(seconds))))
    return figures


def cumulative(each: Sequence[Found]) -> np.ndarray:
    """Sum over the evaluations after the start of how far each was above the lowest, by unit."""
    sums = [(after_start(f, f.values) - f.lowest[:, None]).sum(1) for f in each]
    return _units(each, np.concatenate(sums))


def columns_of(setting: str, part: str, rule: str, found: Found) -> dict[str, np.ndarray]:
    """Raw predictions: a row for each evaluation of each function."""
    t, m = found.values.shape
    function, number = (i.ravel() for i in np.indices((t, m)))
    return {
        "setting": np.full(t * m, setting),
        "part": np.full(t * m, part),
        "rule": np.full(t * m, rule),
        "task": function.astype(np.int32),
        "unit": found.unit[function].astype(np.int32),
        # The first after the start is 1; those of the start are 0 and below.
        "evaluation": (number + 1 - found.start).astype(np.int32),
        "row": found.rows.ravel().astype(np.int32),
        "value": found.values.ravel(),
        "recommended": found.recommended.ravel(),
        "lowest": found.lowest[function],
        "goal": found.goal[function],
        "seconds": np.full(t * m, found.seconds),
    }
