"""Pictures of circles: sampled boundaries, and the distance from the exact posterior."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.ambiguous_classification.judge import (
    DRAWS,
    EXACT,
    FINE,
    PICTURED,
    SHOTS,
    SHOWN,
)
from metaprior.protocols.finished import first_of_each, lowest, over_settings
from metaprior.protocols.pictures import DASHED, bare, panels, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.sources.circles import Circles
from metaprior.system.style import INK, METHOD, MUTED, POINT


@styled()
def draw(cells: Sequence[Drawn], options: dict, data: None) -> list[Picture]:
    """Boundaries of every method beside the exact posterior's, and the gap to it against K."""
    first = first_of_each(cells)
    return [*(_boundaries(first, shots) for shots in PICTURED), _against_shots(first)]


def _boundaries(first: dict[str, Drawn], shots: int) -> Picture:
    """A row a task, a column a method, the exact posterior first."""
    names = sorted(first, key=lambda name: name != EXACT)
    box = Circles().box
    canvas, grid = panels(SHOWN, len(names), (1.75 * len(names), 1.85 * SHOWN))
    for column, name in zip(grid.T, names):
        for task, axes in enumerate(column):
            _panel(axes, first[name].drawing, shots, task, box)
        column[0].set_title(name)

    points = "one point" if shots == 1 else f"{shots} points"
    caption = (
        f"Three tasks (rows). Green: boundaries of up to {DRAWS} functions drawn from each "
        "posterior. Red: the points shown. Dashed: the true circle. A posterior that knows what it "
        "does not know draws circles of many sizes and places through the points, as the exact one "
        "does."
    )
    svg = to_svg(canvas, f"circles-{shots}", f"Sampled decision boundaries, {points}")
    return Picture(f"Where could the circle be, given {points} inside it?", caption, svg)


def _panel(axes: Any, drawing: dict[str, np.ndarray], shots: int, task: int, box: float) -> None:
    """Sampled boundaries, the true circle and the points of one task."""
    place = (np.arange(FINE) + 0.5) * box / FINE
    for p in drawing[f"p_{shots}"][task].astype(float) / 255:
        if p.min() < 0.5 < p.max():  # else there is no boundary in the box
            axes.contour(place, place, p, levels=[0.5], colors=[METHOD], linewidths=0.8, alpha=0.55)

    angle = np.linspace(0, 2 * np.pi, 100)
    (a, b), r = drawing[f"center_{shots}"][task], drawing[f"radius_{shots}"][task]
    axes.plot(a + r * np.cos(angle), b + r * np.sin(angle), color=INK, lw=1.6, ls=(0, (4, 2)))

    x = drawing[f"x_{shots}"][task]
    axes.plot(x[:, 0], x[:, 1], "o", ms=5.5, mfc=POINT, mec="white", mew=0.9)
    axes.set(xlim=(0, box), ylim=(0, box), aspect="equal", xticks=[], yticks=[])
    bare(axes, framed=True)


def _against_shots(first: dict[str, Drawn]) -> Picture:
    """NLL above the exact posterior's against the number of points."""
    canvas, grid = panels(1, 2, (7.2, 2.9))
    titles = {"gap": "one label at a time", "joint_gap": "all labels together"}
    for axes, (metric, title) in zip(grid[0], titles.items()):
        axes.axhline(0, color=MUTED, **DASHED)
        for name, cell in first.items():
            if name != EXACT:
                value = {f.setting: f.value for f in cell.figures if f.metric == metric}
                gaps = [value[f"K = {k}"] for k in SHOTS]
                axes.plot(range(len(SHOTS)), gaps, marker="o", ms=4, label=name)
        axes.set_xticks(range(len(SHOTS)), [str(k) for k in SHOTS])
        axes.set(title=title, xlabel="points shown", ylabel="nats a row above the exact posterior")
    axes.legend()

    caption = (
        "Negative log-likelihood less that of the exact posterior (dashed line) on the same tasks. "
        "A method with the right marginals but incoherent functions is near the line on the left "
        "and far from it on the right."
    )
    svg = to_svg(canvas, "circles-gap", "NLL above the exact posterior")
    return Picture("Distance from the exact posterior", caption, svg)


def sentence(cells: Sequence[Drawn]) -> str:
    """The best method's distance from the exact posterior, over all numbers of points."""
    gaps = over_settings(cells, "gap", but=(EXACT,))
    if not gaps:
        return ""
    best = lowest(gaps)
    return (
        f"{best} comes nearest to the exact posterior: {gaps[best]:.3f} nats a row above it, "
        f"averaged over {', '.join(str(k) for k in SHOTS)} points."
    )
