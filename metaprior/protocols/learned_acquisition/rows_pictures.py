"""The picture of the part `rows`: NLL by observed rows, for each rule."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.finished import first_of_each, means
from metaprior.protocols.pictures import legend_below, panels, shades_of, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg

START = "rows learned "


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """A panel for each setting, a curve for each rule."""
    found = next((c.drawing for c in first_of_each(cells).values() if _has(c)), None)
    if found is None:
        return []
    settings = [name.removeprefix(START) for name in found if name.startswith(START)]
    rules = [n.split()[1] for n in found if n.startswith("rows ") and n.endswith(settings[0])]
    shades = shades_of(rules)
    canvas, grid = panels(1, len(settings), (3.4 * len(settings), 3.2))
    for axes, setting in zip(grid[0], settings):
        for rule in rules:
            own = [c.drawing[f"rows {rule} {setting}"] for c in cells if _has(c)]
            axes.plot(np.mean(own, 0), label=rule, color=shades[rule], lw=1.8)
        axes.set(title=setting, xlabel="observed rows")
    grid[0, 0].set(ylabel="NLL, nats a row")
    legend_below(canvas, grid[0, 0], len(rules))
    caption = "Mean NLL of the judged rows, after so many rows that each rule chose."
    svg = to_svg(canvas, "rows-nll", "NLL by number of observed rows")
    return [Picture("Rows chosen by a learned rule", caption, svg, False)]


def _has(cell: Drawn) -> bool:
    return f"{START}weather" in cell.drawing  # arrays are read when one is asked for


def sentence(cells: Sequence[Drawn]) -> str:
    """Gains on variance."""
    found = means(cells)
    said = []
    for (setting, metric), values in found.items():
        if metric == "rows_nll_gain_variance" and values:
            said.append(f"{next(iter(values.values())):+.3f} on {setting}")
    return f"NLL that the learned rule saves on variance: {', '.join(said)}." if said else ""
