"""What an evaluation says, in plain words: whether the method is better, whether its level holds.

A verdict says how many groups it rests on. With fewer than `FEW` it says that they are too few.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metaprior.evaluation import metrics
from metaprior.evaluation.metrics import METHOD

FEW = 10  # groups; fewer say too little of others


def enough_splits(groups: int, most: int) -> int:
    """How many splits judge `FEW` groups, where one judges `groups`; at most `most`."""
    return 1 if groups >= FEW else min(most, -(-FEW // groups))


LEVEL = 0.9  # of the intervals
NEAR = 0.02  # of the level: as good as on it

Figures = Mapping[str, Any]  # of the learners at one K, as `Evaluation.figures` gives them


@dataclass(frozen=True)
class About:
    """What is judged, for words.

    Args:
        target: the column that is predicted; `""`: unnamed.
        baseline: what is judged, where it is a baseline itself.
        order: the column in whose order rows were observed; `None`: at random.
        notes: what a reader should know of the groups.
    """

    target: str = ""
    baseline: str | None = None
    order: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def rival(self) -> str:
        """What it is compared with."""
        return "best other baseline" if self.baseline else "best baseline"

    @property
    def earns(self) -> str:
        """That the method is better."""
        if self.baseline:
            return f"{self.baseline} is the best baseline here"
        return "Meta-learning earns its keep here"

    @property
    def does_not(self) -> str:
        """That it is not."""
        if self.baseline:
            return f"{self.baseline} is not better than the other baselines on these data"
        return "Meta-learning does not earn its keep on these data"

    @property
    def whether(self) -> str:
        """What is asked."""
        if self.baseline:
            return f"whether {self.baseline} is the best baseline"
        return "whether meta-learning earns its keep"


def plain(value: float) -> str:
    """A figure in the target's units, three digits."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        digits = 2 - math.floor(math.log10(abs(value))) if value else 0
        return f"{value:.{max(digits, 0)}f}"
    return f"{value:.2e}"


def probability(nats: float) -> str:
    """What a gain of so many nats a row is."""
    factor = math.exp(min(nats, 50.0))
    if factor < 2:
        return f"{100 * (factor - 1):.0f} % more probability for what came"
    return f"{factor:.3g} times the probability for what came"


def percent(share: float) -> str:
    """A share in words."""
    return f"{100 * share:.0f} %"


def listed(Ks: Sequence[int]) -> str:
    """Numbers of rows."""
    return ", ".join(str(K) for K in Ks)


def typical(Ks: Sequence[int]) -> int:
    """The number of observed rows that stands for all: 5, or the one in the middle."""
    return 5 if 5 in Ks else sorted(Ks)[len(Ks) // 2]


def verdict(shots: Mapping[int, Figures], about: About) -> str:
    """Whether the method is better than the baselines.

    Args:
        shots: the figures at each number of observed rows.
        about: what is judged.
    """
    groups = max(figures[METHOD]["n_groups"] for figures in shots.values())
    if groups < 2:
        return f"One group cannot tell {about.whether}: hold out more."
    leads = {K: _lead(figures) for K, figures in shots.items()}
    if groups < FEW:
        K = typical(list(shots))
        return (
            f"{groups} groups are too few to say {about.whether}. On these, with {K} observed "
            f"rows, it is {_beside(leads[K])}. Its{_errors(shots[K], leads[K]['name'], about)}"
        )

    better = [K for K, lead in leads.items() if lead["high"] < 0]
    worse = [K for K, lead in leads.items() if lead["low"] > 0]
    same = [K for K in leads if K not in better and K not in worse]
    if better:
        K = min(better, key=lambda K: leads[K]["mean"])
        text = (
            f"{about.earns}, judged on {groups} groups: with {listed(better)} observed rows it "
            f"beats the {about.rival}, most at {K}. There it is {_beside(leads[K])}. Its"
            f"{_errors(shots[K], leads[K]['name'], about)}"
        )
    else:
        K = typical(list(shots))
        text = (
            f"{about.does_not}, judged on {groups} groups: at no number of observed rows is it "
            f"better than the {about.rival} beyond chance. With {K} its"
            f"{_errors(shots[K], leads[K]['name'], about)}"
        )
    if same:
        text += f" With {listed(same)} it makes no difference that these groups can show."
    if worse:
        text += f" With {listed(worse)} the {about.rival} is better: use it there."
    return text


def _lead(figures: Figures) -> dict[str, Any]:
    """NLL of the method less that of the best baseline with its interval, and which it is."""
    best = min((name for name in figures if name != METHOD), key=lambda n: figures[n]["nll"])
    gap = figures[best]["difference"]["nll"]
    none = gap["low"] is None
    return {"name": best, "mean": gap["mean"]} | {
        side: gap["mean"] if none else gap[side] for side in ("low", "high")
    }


def _beside(lead: dict[str, Any]) -> str:
    """How far the method is ahead or behind, in nats and what they mean."""
    gain, low, high = -lead["mean"], -lead["high"], -lead["low"]
    said = f"95 % interval {low:.2f} to {high:.2f}"
    if gain >= 0:
        return f"{gain:.2f} nats a row better than {lead['name']} ({said}): {probability(gain)}"
    return (
        f"{-gain:.2f} nats a row worse than {lead['name']} "
        f"(95 % interval {-high:.2f} to {-low:.2f}), which has {probability(-gain)}"
    )


def _errors(figures: Figures, best: str, about: About) -> str:
    return error_words(figures[METHOD], best, figures[best], about.target)


def error_words(own: Figures, rival: str, other: Figures, target: str) -> str:
    """The end of a sentence on two learners: typical errors, or how often they are right."""
    if "rmse" in own:
        a, b = own["rmse"], other["rmse"]
        name = f" in {target}" if target else ""
        link = "instead of" if a < b else "beside"
        return f" typical error{name} is {plain(a)} {link} {plain(b)} of {rival}."
    if "accuracy" in own:
        a, b = own["accuracy"], other["accuracy"]
        link = "instead of" if a > b else "beside"
        name = f" of {target}" if target else ""
        return (
            f" most likely class{name} is right in {percent(a)} of rows {link} {percent(b)} of "
            f"{rival}."
        )
    return (
        f" negative log-likelihood is {plain(own['nll'])} beside {plain(other['nll'])} of {rival}."
    )


def level(inside: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """How many of a group's rows lie in their 90 % intervals, and how that differs over groups.

    Args:
        inside: rows inside and rows of each task, `(t, 2)`.
        groups: the group of each task, `(t,)`.

    Returns:
        `groups`, their number; `mean` over groups with its 95 % interval `low`, `high` (`None` with
        one group); and `tenth` and `ninth`: in eight of ten groups the share is between them.
    """
    names, place = np.unique(groups, return_inverse=True)
    totals = np.stack([np.bincount(place, inside[:, i], len(names)) for i in (0, 1)], axis=1)
    share = totals[:, 0] / np.maximum(totals[:, 1], 1)
    draws = metrics.bootstrap_weights(len(names)) @ share / len(names)
    low, high = metrics.interval(float(share.mean()), draws, len(names))
    tenth, ninth = (float(q) for q in np.quantile(share, [0.1, 0.9]))
    return {
        "groups": len(names),
        "mean": float(share.mean()),
        "low": None if low is None else max(low, 0.0),
        "high": None if high is None else min(high, 1.0),
        "tenth": tenth,
        "ninth": ninth,
    }


def level_words(levels: Mapping[int, dict[str, Any]]) -> str:
    """Whether 90 % intervals hold 90 % of the rows of a group, in words.

    A number of observed rows that one group alone is judged with has no interval, and is left out.
    """
    levels = {K: one for K, one in levels.items() if one["low"] is not None}
    if not levels:
        return ""
    groups = max(one["groups"] for one in levels.values())
    mean = [one["mean"] for one in levels.values()]
    between = percent(max(mean))
    if between != percent(min(mean)):
        between = f"{100 * min(mean):.0f} to {between}"
    text = f"The 90 % intervals hold {between} of a group's rows, on average over {groups} groups"
    if groups < FEW:
        return f"{text}, too few to say whether the level holds."

    off = {K: one for K, one in levels.items() if not _holds(one)}
    if len(off) < len(levels):
        text += ": the level holds" + (
            f" with {listed([K for K in levels if K not in off])} observed rows." if off else "."
        )
    else:
        text += "."
    for K, one in off.items():
        size = "narrow" if one["mean"] < LEVEL else "wide"
        text += (
            f" With {K} they are too {size}: {percent(one['mean'])} (95 % interval "
            f"{100 * one['low']:.0f} to {percent(one['high'])})."
        )
    K = typical(list(levels))
    one = levels[K]
    return (
        f"{text} In eight of ten groups it is {100 * one['tenth']:.0f} to {percent(one['ninth'])} "
        f"with {K}."
    )


def _holds(one: dict[str, Any]) -> bool:
    """Whether the level is within chance of the intervals' own, or very near it."""
    return abs(one["mean"] - LEVEL) <= NEAR or one["low"] <= LEVEL <= one["high"]


def order_words(order: str | None) -> str:
    """How rows were observed, where that was not at random."""
    if order is None:
        return ""
    return f" The first rows of a group by {order} were observed, and later ones predicted."
