"""pictures of bandit."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullFormatter, ScalarFormatter

from metaprior.protocols.bandit.judge import BLOCK, DELTAS, setting
from metaprior.protocols.protocol import (
    Drawn,
    Picture,
)
from metaprior.report.figures import MUTED, STYLE, to_svg


def draw(cells: Sequence[Drawn], options: dict, data: None) -> list[Picture]:
    """Regret against steps at each radius, and all radii at the end."""
    curves: dict[str, list] = {}
    for cell in cells:
        curves.setdefault(cell.method, []).append(cell.drawing["curve"])
    step = BLOCK * (1 + np.arange(options["horizon"] // BLOCK))
    styles = {
        "uniform": dict(color=MUTED, lw=1, ls=(0, (4, 3))),
        "thompson": dict(color=MUTED, lw=1.6),
    }
    names = {"thompson": "exact posterior", "uniform": "uniform"}
    with matplotlib.rc_context(STYLE):
        figure = Canvas(figsize=(11.0, 3.2), layout="constrained")
        panels = figure.subplots(1, len(DELTAS), sharey=True, squeeze=False)[0]
        for i, (axes, delta) in enumerate(zip(panels, DELTAS)):
            for name, each in curves.items():
                style: Any = styles.get(name, {})
                axes.plot(step, np.mean(each, 0)[i], label=names.get(name, name), **style)
            axes.set(yscale="log", title=setting(delta), xlabel="steps")
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel("cumulative regret, % of uniform")
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(curves)
        )
        svg = to_svg(figure, "bandit-curves", "Cumulative regret against steps at five radii")
    caption = (
        "Regret so far as a percentage of that of uniform arms at the same contexts, mean over runs, logarithmic "
        "scale. The larger δ, the rarer the contexts in which exploring pays. Grey: Thompson sampling with the exact "
        "posterior of δ."
    )
    return [Picture("Regret against steps", caption, svg)]


def sentence(cells: Sequence[Drawn]) -> str:
    """Who loses least at δ = 0.95."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        if cell.method not in ("uniform", "thompson"):
            value = [
                f.value
                for f in cell.figures
                if f.metric == "cumulative" and f.setting == setting(0.95)
            ]
            found.setdefault(cell.method, []).extend(value)
    if not found:
        return ""
    best = min(found, key=lambda name: float(np.mean(found[name])))
    return f"At δ = 0.95 {best} loses least: {np.mean(found[best]):.1f} % of the regret of uniform arms."
