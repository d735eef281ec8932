"""Pictures of the part `location`: information by readings, and where those were taken."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.finished import first_of_each, means
from metaprior.protocols.pictures import bare, legend_below, panels, shades_of, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import INK, MUTED, POINT

PATHS = 2  # tasks that are drawn


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """A curve for each, and the places that they chose in one task."""
    kept = {n: c for n, c in first_of_each(cells).items() if "location information" in c.drawing}
    if not kept:
        return []
    shades = shades_of(list(kept))
    canvas, grid = panels(1, 1, (6.4, 4.0))
    axes = grid[0, 0]
    for name in kept:
        all_ = [c.drawing["location information"] for c in cells if c.method == name]
        curve = np.mean(all_, axis=0)
        axes.plot(np.arange(1, len(curve) + 1), curve, label=name, color=shades[name], lw=2)
    axes.set(xlabel="readings", ylabel="nats about the source", ylim=(0, None))
    legend_below(canvas, axes, 3)
    caption = (
        "Mean information about the source after so many readings. All but the learned policy and "
        "random places know the exact posterior."
    )
    svg = to_svg(canvas, "location-information", "Information by number of readings")
    return [Picture("Nats about the source", caption, svg, False), _paths(kept)]


def _paths(kept: dict[str, Drawn]) -> Picture:
    """Places of the readings of the first tasks; later ones are darker."""
    canvas, grid = panels(PATHS, len(kept), (2.0 * len(kept) + 0.2, 2.1 * PATHS + 0.2))
    for column, (name, cell) in zip(grid.T, kept.items()):
        paths, sources = (cell.drawing[f"location {what}"] for what in ("path", "source"))
        for axes, path, source in zip(column, paths, sources):
            age = np.linspace(0.15, 1.0, len(path))
            axes.scatter(*path.T, s=9, color=INK, alpha=age, lw=0)
            axes.plot(*source, "+", color=POINT, ms=12, mew=1.6)
            axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[], yticks=[])
            bare(axes, framed=True)
            for side in axes.spines.values():
                side.set_color(MUTED)
        column[0].set_title(name)
    caption = (
        "The first tasks, not chosen. Dots: the 30 readings, later ones darker. Cross: the source. "
        "A policy that strays from a source in a corner does not come back."
    )
    svg = to_svg(canvas, "location-places", "Places of the readings in the first tasks")
    return Picture("Where readings are taken", caption, svg)


def sentence(cells: Sequence[Drawn]) -> str:
    """Nats after 30 readings."""
    found = means(cells).get(("T = 30", "information"), {})
    if not found:
        return ""
    listed = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    return f"Nats about the source after 30 readings: {listed} (published: ALINE 8.91, DAD 7.33)."
