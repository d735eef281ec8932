"""Pictures of the properties: error against support rows, and the lecture's table."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle

from metaprior.protocols.finished import first_of_each, highest, lowest, means
from metaprior.protocols.pictures import bare, legend_below, panels, styled
from metaprior.protocols.properties import ranges
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import INK, METHOD, MUTED, OTHERS

REFERENCES = ("exact", "exact_classes")


@styled()
def draw(cells: Sequence[Drawn], options: dict, data: None) -> list[Picture]:
    """Error against support rows in and out of range, and the table; of numbers and of classes."""
    pictures = []
    for classes in (False, True):
        setting = "inside" + ranges.CLASSES * classes
        judged = [cell for cell in cells if any(f.setting == setting for f in cell.figures)]
        first = first_of_each(judged)
        if any(name not in REFERENCES for name in first):
            pictures += [_growth(first, classes), _table(first, classes)]
    return pictures


def _shown(name: str) -> str:
    """How a picture calls a method: both references are the exact posterior."""
    return "exact" if name in REFERENCES else name


def _growth(first: dict[str, Drawn], classes: bool) -> Picture:
    """A line a method, a panel a range."""
    canvas, grid = panels(1, len(ranges.RANGES), (11.0, 3.9))
    more: Any = matplotlib.colormaps["tab20"]
    shades = (METHOD, *OTHERS, *more.colors)
    names = sorted(first, key=lambda name: name in REFERENCES)  # the exact posterior last, on top
    for axes, where in zip(grid[0], ranges.RANGES):
        for i, name in enumerate(names):
            style: dict[str, Any] = {"color": shades[i % len(shades)], "lw": 1.4}
            if name in REFERENCES:
                style = {"color": INK, "lw": 2.2, "zorder": 5}
            value, error = first[name].drawing[where].T
            axes.plot(ranges.SHOTS, value, marker="o", ms=3.5, label=_shown(name), **style)
            low, high = np.maximum(value - error, 1e-3), value + error
            axes.fill_between(ranges.SHOTS, low, high, color=style["color"], alpha=0.12, lw=0)
        axes.axvspan(1, 20, color=METHOD, alpha=0.06, lw=0)
        axes.set(xscale="log", yscale="log", title=where, xlabel="support rows")
        axes.set_xticks(ranges.SHOTS, [str(k) for k in ranges.SHOTS])
        axes.minorticks_off()
    unit = "error of p(label 1)" if classes else "error of the mean, units of y"
    grid[0, 0].set_ylabel(unit)
    legend_below(canvas, grid[0, 0])

    what = ranges.CLASSES * classes
    svg = to_svg(canvas, f"properties-growth{_slug(classes)}", f"Error against support rows{what}")
    caption = (
        "Root mean square distance to the function without noise, median over tasks. Shaded: "
        "numbers of rows seen in training. The line of a consistent learner keeps falling, also to "
        "the right of the shade and on tasks unlike those of training. The exact posterior (black; "
        "it knows the range) falls as one over the root of the rows."
    )
    return Picture(f"Does more data help?{what}", caption, svg)


def _slug(classes: bool) -> str:
    """Keeps the names of two pictures on one page apart."""
    return "-classes" if classes else ""


def _columns() -> list[tuple[str, str, str]]:
    """Metric, range and heading of each column of the table."""
    columns = [("expressive", "inside", "expressive\npower")]
    for metric, label in (("slope", "slope"), ("gap", "NLL gap"), ("spread", "spread")):
        for where in ranges.RANGES:
            columns.append((metric, where, f"{label}\n{where.split()[-1]}"))
    return columns


def _good(metric: str, value: float) -> float:
    """How dark a cell is, 0 … 1: 1 is as good as the exact posterior."""
    if not np.isfinite(value):
        return 0.0
    good = {
        "expressive": value,
        "slope": -value / 0.5,
        "gap": 1 - value / 2,
        "spread": 1 - abs(np.log(max(value, 1e-6))) / np.log(4.0),
    }[metric]
    return float(np.clip(good, 0, 1))


def _table(first: dict[str, Drawn], classes: bool) -> Picture:
    """The lecture's table, shaded."""
    names = sorted(first, key=lambda name: (name not in REFERENCES, name))
    columns = _columns()
    canvas, grid = panels(1, 1, (11.0, 0.9 + 0.3 * len(names)))
    axes = grid[0, 0]
    for row, name in enumerate(names):
        value = {(f.metric, f.setting): f.value for f in first[name].figures}
        for column, (metric, where, _) in enumerate(columns):
            v = value.get((metric, where + ranges.CLASSES * classes), float("nan"))
            _cell(axes, row, column, v, _good(metric, v))

    axes.set(xlim=(0, len(columns)), ylim=(len(names), 0))
    headings = [heading for _, _, heading in columns]
    axes.set_xticks(np.arange(len(columns)) + 0.48, headings, color=MUTED)
    axes.xaxis.tick_top()
    axes.set_yticks(np.arange(len(names)) + 0.48, [_shown(name) for name in names])
    bare(axes)

    what = ranges.CLASSES * classes
    label = f"Expressive power, consistency, awareness{what}"
    svg = to_svg(canvas, f"properties-table{_slug(classes)}", label)
    caption = (
        "The darker, the nearer to what the exact posterior does: expressive power 1, slope -0.5, "
        "gap 0, spread 1."
    )
    return Picture(f"The table{what}", caption, svg)


def _cell(axes: Any, row: int, column: int, value: float, good: float) -> None:
    """One number of the table on its shade."""
    place = Rectangle((column, row), 0.96, 0.92, color=METHOD, alpha=0.06 + 0.6 * good, lw=0)
    axes.add_patch(place)
    text = f"{value:.2f}" if abs(value) < 100 else f"{value:.0e}"
    axes.text(column + 0.48, row + 0.48, text, ha="center", va="center", color=INK, fontsize=9)


def sentence(cells: Sequence[Drawn]) -> str:
    """Who is best at each property, among methods for numbers."""
    found = means(cells, but=REFERENCES)
    if ("inside", "expressive") not in found:
        return ""
    return (
        f"Most expressive: {highest(found['inside', 'expressive'])}. Error falls fastest with rows "
        f"on functions unlike those of training: {lowest(found['other functions', 'slope'])}; on "
        f"inputs unlike them: {lowest(found['other inputs', 'slope'])}. Nearest to the exact "
        f"posterior in likelihood inside: {lowest(found['inside', 'gap'])}; on other functions: "
        f"{lowest(found['other functions', 'gap'])}."
    )
