"""Ranks of learners with ties where data cannot tell them apart, and which learner to use."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.evaluation import metrics
from metaprior.evaluation.evaluate import Evaluation
from metaprior.evaluation.verdicts import (
    FEW,
    About,
    error_words,
    level_words,
    order_words,
    probability,
    typical,
)


def rank(found: Evaluation) -> dict[str, Any]:
    """Figures, 95 % intervals, and ranks by NLL at every K and over all K.

    A learner's rank is one more than the number of learners that are better than it beyond chance.
    That is, whose paired difference has a 95 % bootstrap interval without zero (over groups, see
    `metrics.interval`). Learners that no data could tell apart share a rank. Over all K it is the
    mean over K of the NLL that counts, and the tasks of a group are resampled together.
    """
    names = list(next(iter(found.statistics.values())))
    groups = {K: found.groups(K) for K in found.statistics}
    many = {K: len(np.unique(g)) for K, g in groups.items()}
    resampled = metrics.resamples(groups)

    shots: dict[int, dict[str, Any]] = {}
    draws: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for K in found.statistics:
        shots[K] = {}
        for name in names:
            shots[K][name], nll = _figures(found, K, name, resampled[K], many[K])
            draws[name].append(nll)
        last = {name: draws[name][-1] for name in names}
        value = {name: shots[K][name]["nll"] for name in names}
        for name, place in _places(last, value, many[K]).items():
            shots[K][name] |= place

    mean = {name: float(np.mean([shots[K][name]["nll"] for K in shots])) for name in names}
    means = {name: np.mean(d, axis=0) for name, d in draws.items()}
    places = _places(means, mean, min(many.values()))
    best_first = sorted(names, key=lambda name: mean[name])
    overall = {name: {"nll": mean[name]} | places[name] for name in best_first}
    return {"shots": shots, "overall": overall}


def _figures(
    found: Evaluation, K: int, name: str, weights: np.ndarray, groups: int
) -> tuple[dict[str, Any], np.ndarray]:
    """A learner's figures at K observed rows, and its NLL in every resampling."""
    row: dict[str, Any] = {"n_tasks": found.tasks(K), "n_groups": groups, "ci": {}}
    nll = np.zeros(0)
    if "coverage90" in found.statistics[K][name]:
        row["level90"] = found.level(K, name)
    for metric, sums in found.statistics[K][name].items():
        finish = metrics.METRICS[metric].finish
        resampled = finish(weights @ sums)
        row[metric] = float(finish(sums.sum(0)))
        row["ci"][metric] = metrics.interval(row[metric], resampled, groups)
        if metric == "nll":
            nll = resampled
    return row, nll


def _places(
    draws: dict[str, np.ndarray], value: dict[str, float], groups: int
) -> dict[str, dict[str, Any]]:
    """Rank of each learner, and its difference from the best with a 95 % interval.

    The interval is `None` with one group.
    """
    best = min(value, key=lambda n: value[n])

    def behind(a, b):
        return metrics.interval(value[a] - value[b], draws[a] - draws[b], groups)

    found = {}
    for name in draws:
        better = sum((behind(name, other)[0] or 0.0) > 0 for other in draws if other != name)
        low, high = behind(name, best)
        gap = {"of": best, "mean": value[name] - value[best], "low": low, "high": high}
        found[name] = {"rank": 1 + better, "behind": gap}
    return found


def sentence(ranked: dict[str, Any], methods: Sequence[str], about: About | None = None) -> str:
    """Which learner to use, in plain words.

    Args:
        ranked: what `rank` gave.
        methods: names of the learners that are methods; the others are baselines.
        about: what is judged.
    """
    about, shots = about or About(), ranked["shots"]
    overall = ranked["overall"]
    best, *rest = overall
    groups = max(figures[best]["n_groups"] for figures in shots.values())
    level = f"({overall[best]['nll']:.3f} nats a row)"
    if rest and overall[rest[-1]]["behind"]["low"] is None:
        return (
            f"One held-out group cannot tell methods apart: on it {best} has the lowest negative "
            f"log-likelihood {level}; hold out more groups."
        )

    if groups < FEW:
        text = (
            f"{groups} groups are too few to say which is best. On these {best} has the lowest "
            f"negative log-likelihood over all numbers of observed rows {level}."
        )
        return text + _beside(shots, best, _rival(overall, best, methods), about)

    text = (
        f"Use {best}: on {groups} groups it has the lowest negative log-likelihood {level} over "
        "all numbers of observed rows."
    )
    tied = [name for name in rest if overall[name]["rank"] == overall[best]["rank"]]
    if tied:
        text += f" {_list(tied)} {'is' if len(tied) == 1 else 'are'} not worse beyond chance."
    text += _beside_baselines(overall, [best, *tied], methods)

    fewest = min(ranked["shots"])
    figures = ranked["shots"][fewest]
    first = min(figures, key=lambda name: figures[name]["nll"])
    if figures[best]["rank"] > figures[first]["rank"]:
        text += f" With {fewest} observed rows {first} is better."
    return text + _beside(shots, best, _rival(overall, best, methods), about)


def _rival(overall: dict[str, Any], best: str, methods: Sequence[str]) -> str | None:
    """The best baseline, or the best other learner where the best is a baseline itself."""
    others = [name for name in overall if name != best]
    bases = [name for name in others if name not in methods]
    return next(iter(bases if best in methods and bases else others), None)


def _beside(shots: dict[int, dict[str, Any]], best: str, rival: str | None, about: About) -> str:
    """Typical errors of the best and of its rival, and the order of rows."""
    K, text = typical(list(shots)), ""
    figures = shots[K]
    if rival is not None:
        said = error_words(figures[best], rival, figures[rival], about.target)
        text = f" With {K} observed rows its{said}"
    return text + order_words(about.order)


def level_sentence(ranked: dict[str, Any]) -> str:
    """Whether the level of the best learner's 90 % intervals holds over groups, in plain words."""
    best, shots = next(iter(ranked["overall"])), ranked["shots"]
    if any("level90" not in figures[best] for figures in shots.values()):
        return ""
    return f"{best}: {level_words({K: one[best]['level90'] for K, one in shots.items()})}"


def _beside_baselines(overall: dict[str, Any], best: list[str], methods: Sequence[str]) -> str:
    """What the baselines say of meta-learning; `best`: the best learner, then those as good."""
    bases = [name for name in overall if name not in methods]
    if not methods:
        return ""
    if best[0] in bases:
        return " It is a baseline: on these data meta-learned functions do not earn their keep."
    simple = [name for name in best if name in bases]
    if simple:
        what = "is a baseline" if len(simple) == 1 else "are baselines"
        return f" {_list(simple)} {what}: simpler, and as good here."
    if not bases:
        return ""
    base = min(bases, key=lambda name: overall[name]["nll"])
    gap = overall[base]["behind"]
    return (
        f" The best baseline, {base}, is {gap['mean']:.3f} nats a row behind "
        f"(95 % interval {gap['low']:.3f} to {gap['high']:.3f}): {best[0]} has "
        f"{probability(gap['mean'])}."
    )


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
