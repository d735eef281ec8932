"""Pictures of `reliability`: diagrams with counts, histograms of F(y), entropy of other classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.finished import arrays_of, lowest, means
from metaprior.protocols.pictures import (
    DASHED,
    DOTS,
    by_setting_and_method,
    diagonal,
    legend_below,
    of_first_methods,
    styled,
)
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.protocols.reliability.data import BLOBS, CHARACTERS, LINES, SETTINGS, WAY
from metaprior.protocols.reliability.judge import BINS, EXACT, tempered
from metaprior.report.figures import to_svg
from metaprior.system.style import INK, METHOD, MUTED, POINT, RULE

NAMES = tuple(name for setting in SETTINGS for name in (setting, tempered(setting)))
Places = dict[tuple[str, str], Any]  # (setting, method) to what is drawn there


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """Reliability of classes, histograms of F(y), entropies; each where there is something."""
    bins = {place: _merged(each) for place, each in arrays_of(cells, "bins", NAMES).items()}
    pits, entropies = (_averaged(cells, kind) for kind in ("pit", "entropy"))
    pictures = []
    for found, picture in ((bins, _diagrams), (pits, _histograms), (entropies, _entropies)):
        if found:
            pictures.append(picture(of_first_methods(found)))
    return pictures


def _averaged(cells: Sequence[Drawn], kind: str) -> Places:
    """The mean over seeds of the arrays of a kind."""
    return {place: np.mean(each, 0) for place, each in arrays_of(cells, kind, NAMES).items()}


def _merged(each: Sequence[np.ndarray]) -> np.ndarray:
    """Bins of all seeds as one: rows, and the sums of stated and true over the rows of a bin."""
    sums = np.zeros_like(each[0])
    for bins in each:
        count, stated, came = np.nan_to_num(bins)  # bins without rows have no mean
        sums = sums + np.stack([count, count * stated, count * came])
    return sums


def _diagrams(found: Places) -> Picture:
    """Reliability diagrams with the share of rows in each bin."""
    canvas, place = by_setting_and_method(found, 2.7, 2.9)
    for (setting, method), sums in found.items():
        axes = place[setting, method]
        axes.set_title(f"{method}\n{setting}")
        _diagram(axes, *sums)
    svg = to_svg(canvas, "reliability-diagrams", "Reliability diagrams with counts")
    caption = (
        f"Points: accuracy of the rows in each of {BINS} bins of the top class's probability, with "
        "binomial 95 % intervals. Grey bars: the share of rows in the bin. On the dashed line, "
        "what is stated comes true; below it is overconfidence."
    )
    return Picture("Reliability of classes", caption, svg)


def _diagram(axes: Any, count: np.ndarray, stated: np.ndarray, came: np.ndarray) -> None:
    """One diagram from bins; `stated` and `came` are sums over the rows of a bin."""
    full = count > 0
    rows = count[full]
    x, y = stated[full] / rows, came[full] / rows
    # all rows right, or none, are no proof of certainty: the variance is one row's at least
    error = np.sqrt(np.maximum(y * (1 - y), 0.25 / rows) / rows)

    diagonal(axes)
    middles = (np.arange(BINS) + 0.5) / BINS
    axes.bar(middles, count / count.sum(), 0.9 / BINS, color=RULE)
    axes.errorbar(x, y, 1.96 * error, color=METHOD, lw=1.3, elinewidth=0.8, **DOTS)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel="confidence", ylabel="accuracy")
    text = f"{int(count.sum()):,} rows"
    axes.text(0.03, 0.93, text, transform=axes.transAxes, color=MUTED, fontsize=8)


def _histograms(found: Places) -> Picture:
    """Histograms of the probability integral transform."""
    canvas, place = by_setting_and_method(found, 2.7, 2.2)
    for (setting, method), share in found.items():
        axes, n = place[setting, method], len(share)
        axes.bar((np.arange(n) + 0.5) / n, share * n, 0.92 / n, color=METHOD)
        axes.axhline(1, color=INK, **DASHED)
        axes.set(xlim=(0, 1), xlabel="F(y)", title=f"{method}\n{setting}")
    label = "Histograms of the probability integral transform"
    svg = to_svg(canvas, "reliability-pit", label)
    caption = (
        "Where outcomes fall in their predictive distributions; level at the dashed line when "
        "distributions are right. A hump in the middle: too wide. Towers at both ends: too narrow."
    )
    return Picture("Histograms of F(y)", caption, svg)


def _entropies(found: Places) -> Picture:
    """Entropy of rows in and out of the episode."""
    canvas, place = by_setting_and_method(found, 2.7, 2.2)
    last = np.log(WAY)
    for (setting, method), shares in found.items():
        axes = place[setting, method]
        edges = np.linspace(0, last, shares.shape[1] + 1)
        labels = {"in the episode": METHOD, "other classes": POINT}
        for share, (label, colour) in zip(shares, labels.items()):
            axes.stairs(share, edges, color=colour, fill=True, alpha=0.35, label=label)
            axes.stairs(share, edges, color=colour, lw=1.2)
        axes.set(xlim=(0, last), xlabel="entropy, nats", title=f"{method}\n{setting}")
    legend_below(canvas, axes)
    label = "Predictive entropy in and out of the episode"
    svg = to_svg(canvas, "reliability-entropy", label)
    caption = (
        "Predictive entropy of query rows of the episode's classes, and of rows of classes that "
        "are not in it, which no answer fits."
    )
    return Picture("Classes that are not in the episode", caption, svg)


def sentence(cells: Sequence[Drawn]) -> str:
    """Who predicts best, and how far its stated probabilities are off.

    The best predictions are chosen by NLL: one that knows nothing is calibrated, too.
    """
    found = means(cells)
    parts = []
    for setting, metric, what in (
        (LINES, "calibration", "mean gap of quantiles"),
        (CHARACTERS, "ece15", "ECE"),
        (BLOBS, "ece15", "ECE"),
    ):
        error = dict(found.get((setting, metric), {}))
        exact = error.pop(EXACT, None)
        if not error:
            continue
        nll = {name: value for name, value in found[setting, "nll"].items() if name in error}
        best = lowest(nll)
        beside = "" if exact is None else f" (exact posterior {exact:.3f})"
        parts.append(f"{setting}: {what} of {best} {error[best]:.3f}{beside}")
    return "Calibration error of the best predictions. " + "; ".join(parts) + "." if parts else ""
