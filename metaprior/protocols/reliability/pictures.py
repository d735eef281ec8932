"""Pictures of `reliability`: diagrams with counts, PIT histograms, entropy in and out of the
episode.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from metaprior.protocols.protocol import Drawn, Picture
from metaprior.protocols.reliability.data import BLOBS, CHARACTERS, LINES
from metaprior.protocols.reliability.judge import EXACT
from metaprior.report.figures import INK, METHOD, MUTED, POINT, RULE, STYLE, to_svg


def sentence(cells: Sequence[Any]) -> str:
    """Who predicts best, and how far its stated probabilities are off: one that knows nothing is
    calibrated, too.
    """
    found: dict[tuple[str, str, str], list[float]] = {}
    for cell in cells:
        for f in cell.figures:
            found.setdefault((f.setting, f.metric, cell.method), []).append(f.value)
    parts = []
    for setting, metric, what in (
        (LINES, "calibration", "mean gap of quantiles"),
        (CHARACTERS, "ece15", "ECE"),
        (BLOBS, "ece15", "ECE"),
    ):
        own = {
            m: float(np.mean(v)) for (s, k, m), v in found.items() if (s, k) == (setting, metric)
        }
        exact = own.pop(EXACT, None)
        if own:
            nll = {
                m: float(np.mean(v))
                for (s, k, m), v in found.items()
                if (s, k) == (setting, "nll") and m in own
            }
            best = min(nll, key=lambda m: nll[m])
            beside = "" if exact is None else f" (exact posterior {exact:.3f})"
            parts.append(f"{setting}: {what} of {best} {own[best]:.3f}{beside}")
    return "Calibration error of the best predictions. " + "; ".join(parts) + "." if parts else ""


MOST = 6  # methods side by side; the tables have all


SETTINGS = ("sine or line", "Gaussian process", "Omniglot", "normal classes")


def _found(cells: Sequence[Drawn], kind: str) -> dict[tuple[str, str], np.ndarray]:
    """(setting, method) -> the mean over seeds of an array of that kind."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for setting in SETTINGS:
        for name in (setting, f"{setting}, temperature fitted on validation tasks"):
            for cell in cells:
                if f"{kind} {name}" in cell.drawing:
                    found.setdefault((name, cell.method), []).append(cell.drawing[f"{kind} {name}"])
    return _some({k: np.mean(v, 0) for k, v in found.items()})


def _some(found: dict[tuple[str, str], np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """Those of the first methods."""
    methods = list(dict.fromkeys(method for _, method in found))[:MOST]
    return {k: v for k, v in found.items() if k[1] in methods}


def _grid(
    found: dict[tuple[str, str], np.ndarray], width: float, height: float
) -> tuple[Canvas, dict]:
    """A row a setting, a column a method; axes by (setting, method)."""
    settings, methods = (list(dict.fromkeys(k[i] for k in found)) for i in (0, 1))
    canvas = Canvas(figsize=(width * len(methods), height * len(settings)), layout="constrained")
    axes = canvas.subplots(len(settings), len(methods), squeeze=False)
    place = {(s, m): axes[i, j] for i, s in enumerate(settings) for j, m in enumerate(methods)}
    for key, one in place.items():
        if key not in found:
            one.set_axis_off()
        else:
            one.set_title(f"{key[1]}\n{key[0]}")
    return canvas, place


def _merged(cells: Sequence[Drawn]) -> dict[tuple[str, str], np.ndarray]:
    """Bins of all seeds as one: counts add, probabilities average by count."""
    found: dict[tuple[str, str], np.ndarray] = {}
    for setting in SETTINGS:
        for name in (setting, f"{setting}, temperature fitted on validation tasks"):
            for cell in cells:
                if f"bins {name}" not in cell.drawing:
                    continue
                count, stated, came = np.nan_to_num(cell.drawing[f"bins {name}"])
                sums = np.stack([count, count * stated, count * came])
                found[name, cell.method] = found.get((name, cell.method), 0.0) + sums
    return found


def _diagrams(cells: Sequence[Drawn]) -> list[Picture]:
    found = _some(_merged(cells))
    if not found:
        return []
    with matplotlib.rc_context(STYLE):
        canvas, place = _grid(found, 2.7, 2.9)
        for key, (count, stated, came) in found.items():
            axes, full = place[key], count > 0
            x, y = stated[full] / count[full], came[full] / count[full]
            axes.plot([0, 1], [0, 1], color=MUTED, lw=1.0, ls=(0, (4, 3)))
            axes.bar((np.arange(15) + 0.5) / 15, count / count.sum(), 0.9 / 15, color=RULE)
            error = np.sqrt(np.maximum(y * (1 - y), 0.25 / count[full]) / count[full])
            axes.errorbar(
                x,
                y,
                1.96 * error,
                fmt="o-",
                ms=4,
                lw=1.3,
                elinewidth=0.8,
                color=METHOD,
                mec="white",
                mew=0.6,
            )
            axes.set(
                xlim=(-0.02, 1.02),
                ylim=(-0.02, 1.02),
                aspect="equal",
                xlabel="confidence",
                ylabel="accuracy",
            )
            axes.text(
                0.03,
                0.93,
                f"{int(count.sum()):,} rows",
                transform=axes.transAxes,
                color=MUTED,
                fontsize=8,
            )
        svg = to_svg(canvas, "reliability-diagrams", "Reliability diagrams with counts")
    caption = (
        "Points: accuracy of the rows in each of 15 bins of the top class's probability, with binomial 95 % intervals. "
        "Grey bars: the share of rows in the bin. On the dashed line, what is stated comes true; below it is overconfidence."
    )
    return [Picture("Reliability of classes", caption, svg)]


def _histograms(cells: Sequence[Drawn]) -> list[Picture]:
    found = _found(cells, "pit")
    if not found:
        return []
    with matplotlib.rc_context(STYLE):
        canvas, place = _grid(found, 2.7, 2.2)
        for key, share in found.items():
            axes = place[key]
            axes.bar(
                (np.arange(len(share)) + 0.5) / len(share),
                share * len(share),
                0.92 / len(share),
                color=METHOD,
            )
            axes.axhline(1, color=INK, lw=1.0, ls=(0, (4, 3)))
            axes.set(xlim=(0, 1), xlabel="F(y)")
        svg = to_svg(canvas, "reliability-pit", "Histograms of the probability integral transform")
    caption = (
        "Where outcomes fall in their predictive distributions; level at the dashed line when distributions are right. "
        "A hump in the middle: too wide. Towers at both ends: too narrow."
    )
    return [Picture("Histograms of F(y)", caption, svg)]


def _entropies(cells: Sequence[Drawn]) -> list[Picture]:
    found = _found(cells, "entropy")
    if not found:
        return []
    with matplotlib.rc_context(STYLE):
        canvas, place = _grid(found, 2.7, 2.2)
        for key, (inside, outside) in found.items():
            axes, edges = place[key], np.linspace(0, np.log(5), len(inside) + 1)
            for share, colour, label in (
                (inside, METHOD, "in the episode"),
                (outside, POINT, "other classes"),
            ):
                axes.stairs(share, edges, color=colour, fill=True, alpha=0.35, label=label)
                axes.stairs(share, edges, color=colour, lw=1.2)
            axes.set(xlabel="entropy, nats", xlim=(0, np.log(5)))
        canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        svg = to_svg(canvas, "reliability-entropy", "Predictive entropy in and out of the episode")
    caption = "Predictive entropy of query rows of the episode's classes and of classes that are not in it, which no answer fits."
    return [Picture("Classes that are not in the episode", caption, svg)]


def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """All pictures."""
    return [*_diagrams(cells), *_histograms(cells), *_entropies(cells)]
