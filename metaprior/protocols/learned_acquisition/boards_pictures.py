"""Pictures of the part `boards`: error by labels, and which points were chosen."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.finished import first_of_each, means
from metaprior.protocols.pictures import bare, legend_below, panels, shades_of, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import INK, MUTED, POINT

START, PLACES = "boards ", "boards places "


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """A panel for each setting with a curve for each rule; and the points of one board."""
    kept = {n: c for n, c in first_of_each(cells).items() if f"{START}2 x 2" in c.drawing}
    if not kept:
        return []
    one = next(iter(kept.values())).drawing
    settings = [name.removeprefix(PLACES) for name in one if name.startswith(PLACES)]
    shades = shades_of(list(kept))
    canvas, grid = panels(1, len(settings), (2.6 * len(settings), 3.0), sharey=True)
    for axes, setting in zip(grid[0], settings):
        for name in kept:
            curve = np.mean([c.drawing[START + setting] for c in cells if c.method == name], 0)
            labels = np.arange(len(curve)) + 2
            axes.plot(labels, curve, label=name, color=shades[name], lw=1.8)
        axes.set(title=setting, xlabel="labels")
    grid[0, 0].set(ylabel="share of wrong classes", ylim=(0, None))
    legend_below(canvas, grid[0, 0], len(kept))
    caption = (
        "A random forest with so many labels. On boards the most uncertain points lie along the "
        "borders that the forest has drawn; whole fields stay without a label."
    )
    svg = to_svg(canvas, "boards-error", "Error by number of labels")
    return [Picture("Labels on checkerboards", caption, svg), _points(kept, settings[0])]


def _points(kept: dict[str, Drawn], setting: str) -> Picture:
    """The labelled points of one task."""
    canvas, grid = panels(1, len(kept), (2.1 * len(kept) + 0.2, 2.6))
    for axes, (name, cell) in zip(grid[0], kept.items()):
        places, labels = (cell.drawing[f"boards {what} {setting}"] for what in ("places", "labels"))
        for value, color in ((0, INK), (1, POINT)):
            axes.scatter(*places[labels == value].T, s=18, color=color, lw=0)
        axes.axhline(0.5, color=MUTED, lw=0.8)
        axes.axvline(0.5, color=MUTED, lw=0.8)
        axes.set(title=name, xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[], yticks=[])
        bare(axes, framed=True)
    caption = "The labelled points of one task of 2 x 2, in the colour of their class."
    svg = to_svg(canvas, "boards-points", "Labelled points of one board")
    return Picture("Which points are labelled", caption, svg)


def sentence(cells: Sequence[Drawn]) -> str:
    """Mean error on the first board."""
    found = means(cells).get(("2 x 2", "board_error"), {})
    if not found:
        return ""
    listed = ", ".join(f"{name} {100 * value:.1f} %" for name, value in found.items())
    return f"Wrong classes on the 2 x 2 board, mean over labels: {listed}."
