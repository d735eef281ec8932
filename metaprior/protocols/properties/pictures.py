"""pictures of properties."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from metaprior.protocols.properties import ranges
from metaprior.protocols.protocol import (
    Drawn,
    Picture,
)
from metaprior.report.figures import INK, METHOD, MUTED, OTHERS, STYLE, to_svg


def draw(cells: Sequence[Drawn], options: dict, data: None) -> list[Picture]:
    """Error against support rows in and out of range; and the table as a picture."""
    pictures = []
    with matplotlib.rc_context(STYLE):
        for classes in (False, True):
            first: dict[str, Drawn] = {}
            for cell in cells:
                if any(f.setting == "inside" + ranges.CLASSES * classes for f in cell.figures):
                    first.setdefault(cell.method, cell)
            if not [name for name in first if not name.startswith("exact")]:
                continue
            pictures += [_growth(first, classes), _table(first, classes)]
    return pictures


def _growth(first: dict[str, Drawn], classes: bool) -> Picture:
    """One line a method, one panel a range."""
    figure = Canvas(figsize=(11.0, 3.9), layout="constrained")
    shades = (METHOD, *OTHERS, *matplotlib.colormaps["tab20"].colors)  # ty: ignore[missing-attribute]
    order = sorted(first.items(), key=lambda item: item[0].startswith("exact"))
    for axes, where in zip(figure.subplots(1, len(ranges.RANGES), squeeze=False)[0], ranges.RANGES):
        for i, (name, cell) in enumerate(order):
            known = name.startswith("exact")
            value, error = cell.drawing[where].T
            style: dict = (
                dict(color=INK, lw=2.2, zorder=5)
                if known
                else dict(color=shades[i % len(shades)], lw=1.4)
            )
            axes.plot(
                ranges.SHOTS, value, marker="o", ms=3.5, label="exact" if known else name, **style
            )
            axes.fill_between(
                ranges.SHOTS,
                np.maximum(value - error, 1e-3),
                value + error,
                color=style["color"],
                alpha=0.12,
                lw=0,
            )
        axes.axvspan(1, 20, color=METHOD, alpha=0.06, lw=0)
        axes.set(xscale="log", yscale="log", title=where, xlabel="support rows")
        axes.set_xticks(ranges.SHOTS, [str(k) for k in ranges.SHOTS])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("error of p(label 1)" if classes else "error of the mean, units of y")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(9, len(labels)))
    what = " (classes)" if classes else ""
    return Picture(
        f"Does more data help?{what}",
        "Root mean square distance to the function without noise, median over ranges.tasks. Shaded: numbers of rows seen in "
        "training. A consistent learner's line keeps falling, also to the right of the shade and on ranges.tasks unlike "
        "those of training; the exact posterior's (black; it knows the range) falls as one over the root of the rows.",
        to_svg(
            figure, f"properties-growth{'-classes' * classes}", f"Error against support rows{what}"
        ),
    )


COLUMNS = (("expressive", "inside", "expressive\npower"),) + tuple(
    (metric, where, f"{label}\n{where.split()[-1]}")
    for metric, label in (("slope", "slope"), ("gap", "NLL gap"), ("spread", "spread"))
    for where in ranges.RANGES
)


def _good(metric: str, value: float) -> float:
    """0 … 1, for shading alone: 1 is as good as the exact posterior."""
    if metric == "expressive":
        return value
    if metric == "slope":
        return -value / 0.5
    return 1 - value / 2 if metric == "gap" else 1 - abs(np.log(max(value, 1e-6))) / np.log(4.0)


def _table(first: dict[str, Drawn], classes: bool) -> Picture:
    """The lecture's table, shaded."""
    names = sorted(first, key=lambda n: (not n.startswith("exact"), n))
    figure = Canvas(figsize=(11.0, 0.9 + 0.3 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for row, name in enumerate(names):
        value = {(f.metric, f.setting): f.value for f in first[name].figures}
        for column, (metric, where, _) in enumerate(COLUMNS):
            v = value.get((metric, where + ranges.CLASSES * classes), float("nan"))
            good = float(np.clip(_good(metric, v), 0, 1)) if np.isfinite(v) else 0.0
            axes.add_patch(
                Rectangle((column, row), 0.96, 0.92, color=METHOD, alpha=0.06 + 0.6 * good, lw=0)
            )
            text = f"{v:.2f}" if abs(v) < 100 else f"{v:.0e}"
            axes.text(
                column + 0.48, row + 0.48, text, ha="center", va="center", color=INK, fontsize=9
            )
    axes.set(xlim=(0, len(COLUMNS)), ylim=(len(names), 0))
    axes.set_xticks(np.arange(len(COLUMNS)) + 0.48, [label for _, _, label in COLUMNS], color=MUTED)
    axes.xaxis.tick_top()
    axes.set_yticks(
        np.arange(len(names)) + 0.48, ["exact" if n.startswith("exact") else n for n in names]
    )
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    what = " (classes)" if classes else ""
    return Picture(
        f"The table{what}",
        "The darker, the nearer to what the exact posterior does: expressive power 1, slope -0.5, gap 0, spread 1.",
        to_svg(
            figure,
            f"properties-table{'-classes' * classes}",
            f"Expressive power, consistency, awareness{what}",
        ),
    )


def sentence(cells: Sequence[Drawn]) -> str:
    """Who is best at each property, among methods for numbers."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for cell in cells:
        for f in cell.figures:
            if not cell.method.startswith("exact"):
                found.setdefault((f.metric, f.setting), {}).setdefault(cell.method, []).append(
                    f.value
                )

    def best(metric, where, pick):
        return pick(found[metric, where], key=lambda m: float(np.mean(found[metric, where][m])))

    if ("expressive", "inside") not in found:
        return ""
    return (
        f"Most expressive: {best('expressive', 'inside', max)}. Error falls fastest with rows on functions unlike "
        f"those of training: {best('slope', 'other functions', min)}; on inputs unlike them: "
        f"{best('slope', 'other inputs', min)}. Nearest to the exact posterior in likelihood inside: "
        f"{best('gap', 'inside', min)}; on other functions: {best('gap', 'other functions', min)}."
    )
