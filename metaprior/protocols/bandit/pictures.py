"""The picture of the bandit: regret against steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import NullFormatter, ScalarFormatter

from metaprior.protocols.bandit.judge import BLOCK, DELTAS, EXACT, UNIFORM, setting
from metaprior.protocols.finished import lowest, means, methods_of
from metaprior.protocols.pictures import DASHED, legend_below, panels, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import MUTED

STYLES: dict[str, dict[str, Any]] = {
    UNIFORM: {"color": MUTED, **DASHED},
    EXACT: {"color": MUTED, "lw": 1.6, "label": "exact posterior"},
}


@styled()
def draw(cells: Sequence[Drawn], options: dict, data: None) -> list[Picture]:
    """Regret against steps, a panel a radius."""
    step = BLOCK * (1 + np.arange(options["horizon"] // BLOCK))
    canvas, grid = panels(1, len(DELTAS), (11.0, 3.2), sharey=True)
    for name in methods_of(cells):
        curve = np.mean([c.drawing["curve"] for c in cells if c.method == name], axis=0)
        for axes, values in zip(grid[0], curve):
            axes.plot(step, values, **{"label": name, **STYLES.get(name, {})})
    for axes, delta in zip(grid[0], DELTAS):
        axes.set(yscale="log", title=setting(delta), xlabel="steps")
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
    grid[0, 0].set_ylabel("cumulative regret, % of uniform")
    legend_below(canvas, grid[0, 0], most=24)

    svg = to_svg(canvas, "bandit-curves", "Cumulative regret against steps at five radii")
    caption = (
        "Regret so far as a percentage of the regret of uniform arms at the same contexts, mean "
        "over runs, logarithmic scale. The larger δ, the rarer the contexts in which exploring "
        "pays. Grey: Thompson sampling with the exact posterior of δ."
    )
    return [Picture("Regret against steps", caption, svg)]


def sentence(cells: Sequence[Drawn]) -> str:
    """Who loses least at δ = 0.95."""
    found = means(cells, but=(UNIFORM, EXACT)).get((setting(0.95), "cumulative"))
    if not found:
        return ""
    best = lowest(found)
    return f"At δ = 0.95 {best} loses least: {found[best]:.1f} % of the regret of uniform arms."
