"""Intervals that are guaranteed for a new group, from the groups that `fit` kept aside.

Nothing was learned from these groups: no weight, no stopping time and no scale of the target saw
them. So they are to the learner what a new group is.
"""

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metaprior.errors import InputError
from metaprior.evaluation import conformal
from metaprior.tables.asked import interval_levels
from metaprior.tables.many import Runs, predict_all

if TYPE_CHECKING:
    from metaprior.tables.trained import HeldOut, Trained

SHOTS = (0, 1, 2, 5, 10)  # numbers of observed rows


class Guarantee(NamedTuple):
    """How much wider than the posterior's own an interval must be to hold in a new group.

    Args:
        shots: numbers of observed rows, `(k,)`.
        by: thresholds of `conformal.cqr` in the model's units, `(k,)`; infinite where too few
            groups have more rows than are observed.
        groups: how many there are at each number of rows; sets of groups, where groups that share
            a value are alike: `(k,)`.
    """

    shots: np.ndarray
    by: np.ndarray
    groups: np.ndarray

    @property
    def thresholds(self) -> np.ndarray:
        """Up to the largest number of rows for which there are enough groups."""
        return self.by[: int(np.isfinite(self.by).cumprod().sum())]

    @property
    def most(self) -> int:
        """The largest number of observed rows for which there is a threshold."""
        return int(self.shots[len(self.thresholds) - 1])

    def at(self, known: np.ndarray | int) -> np.ndarray:
        """How much wider with so many observed rows, at most `most`.

        Between two numbers of rows the larger of their thresholds counts.
        """
        by = self.thresholds
        shots = self.shots[: len(by)]
        return np.maximum(
            by[np.searchsorted(shots, known, side="right") - 1], by[np.searchsorted(shots, known)]
        )


class Kept(NamedTuple):
    """Groups kept aside, the rows of each in a random order: the first are observed.

    Args:
        x, y: see `HeldOut`.
        group, sets, place: of each row its group, the set of that, and its place in the group.
        size: of each row, the number of rows of its group.
    """

    x: np.ndarray
    y: np.ndarray
    group: np.ndarray
    sets: np.ndarray
    place: np.ndarray
    size: np.ndarray

    @staticmethod
    def of(held: "HeldOut", seed: int = 0) -> "Kept":
        """In an order that is the same at every number of observed rows."""
        group = np.repeat(np.arange(len(held.start)), held.count)
        sets = group if held.sets is None else held.sets[group]
        order = np.lexsort((np.random.default_rng(seed).random(len(group)), group))
        place = np.arange(len(group)) - held.start[group]
        return Kept(held.x[order], held.y[order], group, sets, place, held.count[group])

    def asked(self, K: int) -> np.ndarray:
        """Which rows are asked about where K are observed; none of a group of K rows or fewer."""
        return (self.place >= K) & (self.size > K)

    def predict(
        self, learner: Any, curve: Any, shots: Sequence[int], levels: Sequence[float]
    ) -> list[dict[str, np.ndarray]]:
        """What `questions.predicted` says of the asked rows at each number of observed rows, given
        that many others of their group.

        All numbers go through the same programs, as groups of their own.
        """
        groups, times = int(self.group[-1]) + 1, len(shots)
        each = [self.asked(K) for K in shots]
        asked = np.concatenate(each)
        seen = np.concatenate([(self.place < K) & (self.size > K) for K in shots])
        group = np.concatenate([self.group + groups * i for i in range(times)])
        rows = np.tile(self.x, (times, 1)), np.tile(self.y, (times, 1))
        known, wanted = (Runs.of(group, use, groups * times) for use in (seen, asked))
        out = predict_all(learner, curve, rows, known, wanted, levels)
        ends = np.cumsum([some.sum() for some in each])[:-1]
        parts = {name: np.split(values[asked], ends) for name, values in out.items()}
        return [{name: part[i] for name, part in parts.items()} for i in range(times)]


def prepared(learner: Any, curve: Any, held: "HeldOut", share: float) -> Guarantee:
    """The thresholds of intervals, from groups kept aside.

    Each group shows K random rows, and the interval of each other row is compared with its outcome.

    Args:
        learner: of numbers.
        curve: see `Trained.curve`.
        held: the groups.
        share: of the outcomes that intervals should hold.
    """
    kept = Kept.of(held)
    groups = np.array([len(np.unique(kept.sets[kept.asked(K)])) for K in SHOTS])
    by = np.full(len(SHOTS), np.inf)
    enough = [i for i, many in enumerate(groups) if many >= conformal.fewest(share)]
    if enough:
        shots = [SHOTS[i] for i in enough]
        for i, said in zip(
            enough, kept.predict(learner, curve, shots, interval_levels(share)), strict=True
        ):
            asked = kept.asked(SHOTS[i])
            scores = conformal.cqr(kept.y[asked, 0], *said["quantiles"].astype(np.float64).T)
            by[i] = conformal.hierarchical(scores, (kept.sets[asked], kept.group[asked]), share)
    return Guarantee(np.asarray(SHOTS), by, groups)


# Of each prior in use, by share: it takes a second and compiles for longer, so that `fit` does not
# wait for it.
_found: dict[int, dict[float, Guarantee]] = {}


def _prepared_once(trained: "Trained", held: "HeldOut", share: float) -> Guarantee:
    known = _found.get(id(trained))
    if known is None:
        known = _found[id(trained)] = {}
        weakref.finalize(trained, _found.pop, id(trained), None)
    if share not in known:
        known[share] = prepared(trained.learner, trained.curve(), held, share)
    return known[share]


def guarantee_of(trained: "Trained", share: float) -> Guarantee:
    """The thresholds of this prior's intervals, computed when a share is first asked for.

    Raises:
        InputError: no groups were kept aside, or too few of them.
    """
    info, held = trained.info, trained.held
    if trained.units is None:
        raise InputError(
            f"A guaranteed interval is for numbers; the target {info['target']!r} has classes."
        )
    if held is None:
        raise InputError(
            "A guaranteed interval needs groups that nothing was learned from; this prior kept "
            "none aside. Fit it with holdout=0.2, as the command `metaprior fit` does."
        )
    if info["split_by"] and held.sets is None:
        raise InputError(
            "This prior was fitted by an earlier version, which did not keep which groups share a "
            f"value of {info['split_by']!r}; a guaranteed interval needs it. Fit it again."
        )
    interval_levels(share)  # refuses what is no share
    found = _prepared_once(trained, held, share)
    if not len(found.thresholds):
        there = int(found.groups[0])
        raise InputError(
            f"A guaranteed interval of {100 * share:g} % needs at least {conformal.fewest(share)} "
            f"{_units(info)} kept aside; this prior has {there}."
        )
    return found


def _units(info: dict) -> str:
    """What counts once."""
    by = info["split_by"]
    return f"sets of groups that share a value of {by!r}" if by else "groups"


def need_guarantee(parts: Sequence["Trained"], share: float) -> None:
    """A guaranteed interval can be given, of one target; see `guarantee_of`."""
    if len(parts) > 1:
        raise InputError(
            f"A guaranteed interval is of one target; this prior predicts {len(parts)} together. "
            "Fit a prior of one of them."
        )
    guarantee_of(parts[0], share)


def ends(
    trained: "Trained", quantile: np.ndarray, known: np.ndarray | int, share: float
) -> dict[str, np.ndarray]:
    """`low` and `high` in the target's own units.

    Args:
        trained: of the target.
        quantile: between which the share lies by the posterior itself, in the model's units,
            `(n, 2)`.
        known: how many rows were observed.
        share: of the outcomes.
    """
    by = guarantee_of(trained, share).at(known)
    low, high = conformal.widened(*np.asarray(quantile, np.float64).T, by)
    assert trained.units is not None  # as `guarantee_of` found
    return {"low": trained.units.to_y(low), "high": trained.units.to_y(high)}


def said_of_guarantee(trained: "Trained", share: float, known: np.ndarray) -> list[str]:
    """What a guarantee is of, and where it is of fewer rows than were observed.

    Args:
        trained: of the target.
        share: of the outcomes.
        known: how many rows of each group were observed.
    """
    found, info = guarantee_of(trained, share), trained.info
    notes = [
        f"low and high: {100 * share:g} % of the rows of new groups lie between them, if new "
        f"groups are like the {found.groups[0]} {_units(info)} kept aside, and observed rows are a "
        "random choice. This holds over groups, not in each."
    ]
    most = found.most
    if (known > most).any():
        why = "too few groups kept aside have more"
        if most == max(SHOTS):
            why = "a guarantee is prepared for no more"
        notes.append(
            f"low and high: {why} than {most} observed rows; of groups with more, {most} rows "
            "drawn at random are taken."
        )
    return notes
