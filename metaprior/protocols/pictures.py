"""What the pictures of several protocols draw alike: canvases, lines, legends."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Canvas

from metaprior.system.style import METHOD, MUTED, OTHERS, POINT, STYLE

DOTS: dict[str, Any] = {"marker": "o", "ms": 4, "mec": "white", "mew": 0.6}
DASHED: dict[str, Any] = {"lw": 1, "ls": (0, (4, 3))}
MOST = 6  # methods side by side in one picture; the tables have all


def styled() -> Any:
    """The report's style for a function that draws; write `@styled()` above it."""
    return matplotlib.rc_context(STYLE)


def panels(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Canvas, Any]:
    """A canvas and its axes, `(rows, columns)`.

    Args:
        rows, columns: of panels.
        size: width and height of the whole canvas, in inches.
        options: of `subplots`, such as `sharey`.
    """
    canvas = Canvas(figsize=size, layout="constrained")
    return canvas, canvas.subplots(rows, columns, squeeze=False, **options)


def one_panel(width: float = 4.6, height: float = 3.8) -> tuple[Canvas, Any]:
    """A canvas with one pair of axes; sizes in inches."""
    canvas = Canvas(figsize=(width, height))
    return canvas, canvas.add_subplot()


def by_setting_and_method(
    places: Iterable[tuple[str, str]], width: float, height: float
) -> tuple[Canvas, dict[tuple[str, str], Any]]:
    """A row of panels for each setting, a column for each method.

    Args:
        places: the `(setting, method)` pairs that something is drawn for.
        width, height: of one panel, in inches.

    Returns:
        The canvas, and the axes of each pair. A pair without a drawing has its axes switched off.
    """
    drawn = list(places)
    settings = list(dict.fromkeys(setting for setting, _ in drawn))
    methods = list(dict.fromkeys(method for _, method in drawn))
    size = (width * len(methods), height * len(settings))
    canvas, grid = panels(len(settings), len(methods), size)

    found = {}
    for line, setting in zip(grid, settings):
        for axes, method in zip(line, methods):
            if (setting, method) in drawn:
                found[setting, method] = axes
            else:
                axes.set_axis_off()
    return canvas, found


def of_first_methods(found: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    """What belongs to the first `MOST` methods; keys are `(setting, method)`."""
    methods = list(dict.fromkeys(method for _, method in found))[:MOST]
    return {place: value for place, value in found.items() if place[1] in methods}


def bare(axes: Any, framed: bool = False) -> None:
    """Axes without a grid; with a full frame or with none."""
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(framed)


def diagonal(axes: Any) -> None:
    """The dashed line on which what is stated comes true."""
    axes.plot([0, 1], [0, 1], color=MUTED, **DASHED)


def legend_below(canvas: Canvas, axes: Any, most: int = 9) -> None:
    """One legend for all panels, below them, with at most so many columns."""
    handles, labels = axes.get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=max(1, min(most, len(labels))))


def shades_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name; they repeat where names are many."""
    cycle = (METHOD, POINT, *OTHERS)
    return {name: cycle[i % len(cycle)] for i, name in enumerate(names)}
