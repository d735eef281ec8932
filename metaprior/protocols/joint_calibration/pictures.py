"""Pictures of `joint-calibration`: how far shares below are from what they should be."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.finished import first_of_each, means
from metaprior.protocols.joint_calibration.judge import BOUND, EXACT, PRIOR, REFERENCES
from metaprior.protocols.pictures import legend_below, panels, shades_of, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import MUTED

LEVELS = np.linspace(0, 1, 201)
TITLES = {"pit": "one outcome at a time", "tarp": "all outcomes together"}


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """The difference from the diagonal, of single outcomes and of all together."""
    first = first_of_each(cells)
    shades = shades_of(list(first)) | {EXACT: MUTED}
    canvas, grid = panels(1, 2, (7.6, 3.6), sharey=True)
    for axes, (name, title) in zip(grid[0], TITLES.items()):
        for method, cell in first.items():
            shares = np.sort(cell.drawing[name])
            gap = np.searchsorted(shares, LEVELS, side="right") / len(shares) - LEVELS
            axes.plot(LEVELS, gap, color=shades[method], label=method)
        band = BOUND / len(next(iter(first.values())).drawing[name]) ** 0.5
        axes.fill_between([0, 1], -band, band, color=MUTED, alpha=0.15, lw=0)
        axes.set(title=title, xlabel="share of draws below the truth", xlim=(0, 1))
    grid[0, 0].set_ylabel("share of tasks less level")
    legend_below(canvas, grid[0, 0], 4)
    caption = (
        "How often the truth has at most that share of the draws below it, less the share itself: "
        "0 where draws are as the truth is. Grey: where 95 % of the curves of a calibrated method "
        "stay. Left, one outcome of each task. Right, the distance of all outcomes from a random "
        "place: the same bands without functions leave the grey there."
    )
    svg = to_svg(canvas, "joint", "Calibration of one outcome and of all together")
    return [Picture("Points and functions", caption, svg)]


def sentence(cells: Sequence[Drawn]) -> str:
    """Who is calibrated in points, and who in functions."""
    found = means(cells)
    bound = found.get(("", "bound"), {})
    own = [name for name in bound if name not in REFERENCES]
    if not own:
        return ""

    def inside(metric: str) -> str:
        values = found["", metric]
        names = [name for name in own if values[name] <= bound[name]]
        return ", ".join(names) if names else "none"

    said = f"Calibrated in single outcomes: {inside('pit')}; in all together: {inside('tarp')}."
    energy = found["", "energy"]
    order = sorted(own, key=lambda name: energy[name])
    listed = ", ".join(f"{name} {energy[name]:.2f}" for name in order)
    beside = [f"{n} {energy[n]:.2f}" for n in (EXACT, PRIOR) if n in energy]
    return f"{said} Energy score: {listed} ({', '.join(beside)})."
