"""Pictures of `bayes-opt`: regret and solved functions against the number of evaluations."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.bayes_opt.data import FAMILIES
from metaprior.protocols.bayes_opt.judge import (
    EXACT,
    HPOB,
    IMPROVEMENT,
    OWN,
    RANDOM,
    REFERENCES,
    SCRATCH,
)
from metaprior.protocols.bayes_opt.tables import DEEPAR
from metaprior.protocols.finished import arrays_of, lowest, means
from metaprior.protocols.pictures import panels, shades_of, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import INK, MUTED

SETTINGS = (*FAMILIES, DEEPAR, HPOB)
STYLES: dict[str, dict[str, Any]] = {
    RANDOM: {"color": MUTED, "lw": 1.2},
    SCRATCH: {"color": INK, "lw": 2},
    EXACT: {"color": INK, "lw": 1.2, "ls": "--"},
    OWN: {"color": INK, "lw": 1.2, "ls": ":"},
}
FLOOR = 1e-3  # of the largest regret that is drawn: below, curves touch the axis


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """Mean simple regret against evaluations, a panel a family."""
    curves = arrays_of(cells, IMPROVEMENT, SETTINGS)
    settings = list(dict.fromkeys(setting for setting, _ in curves))
    if not settings:
        return []
    methods = [m for m in dict.fromkeys(m for _, m in curves) if m not in REFERENCES]
    shades = shades_of(methods)
    canvas, grid = panels(1, len(settings), (3.4 * len(settings) + 0.4, 3.7))
    handles: dict[str, Any] = {}
    for axes, setting in zip(grid[0], settings):
        top = 0.0
        for (where, method), each in curves.items():
            if where != setting:
                continue
            mean, half = np.mean(each, 0)
            x = np.arange(1, len(mean) + 1)
            style = STYLES.get(method, {"color": shades.get(method), "lw": 2})
            (handles[method],) = axes.plot(x, mean, label=method, **style)
            if method not in REFERENCES:
                axes.fill_between(
                    x, mean - half, mean + half, color=style["color"], alpha=0.12, lw=0
                )
            top = max(top, float(mean.max()))
        axes.set(title=setting, xlabel="evaluations", yscale="log")
        axes.set_ylim(FLOOR * top, 2 * top)
    grid[0, 0].set_ylabel("regret of the best so far")
    order = [name for name in (*methods, *REFERENCES) if name in handles]
    canvas.legend(
        [handles[name] for name in order], order, loc="outside lower center", ncols=len(order)
    )
    caption = (
        "How far the lowest value so far is above the lowest there is, mean over functions with "
        "its 95 % interval for methods, in units of y on a logarithm. The farther left and down, "
        "the fewer evaluations. Below a thousandth of the largest regret curves leave the picture."
    )
    svg = to_svg(canvas, "bayes-opt", "Simple regret against the number of evaluations")
    return [Picture("Evaluations that a prior saves", caption, svg), *_saved(cells, shades)]


def _saved(cells: Sequence[Drawn], shades: dict[str, str]) -> list[Picture]:
    """Evaluations until solved, a group of bars a family."""
    found = means(cells)
    settings = [s for s in SETTINGS if (s, "evaluations") in found]
    measured = {name for s in settings for name in found[s, "evaluations"]}
    names = [name for name in (*shades, *REFERENCES) if name in measured]
    canvas, grid = panels(1, len(settings), (3.4 * len(settings) + 0.4, 0.35 * len(names) + 1.2))
    for axes, setting in zip(grid[0], settings):
        values = found[setting, "evaluations"]
        here = [name for name in names if name in values][::-1]
        colors = [STYLES.get(name, {"color": shades.get(name)})["color"] for name in here]
        bars = axes.barh(here, [values[name] for name in here], color=colors, height=0.6)
        axes.bar_label(bars, fmt="%.1f", padding=3)
        axes.set(title=setting, xlabel="evaluations until solved")
        axes.margins(x=0.18)
        axes.grid(False)
    caption = (
        "Mean number of evaluations until a function is solved: within 1 % of its range, or among "
        "the best 1 % of the rows of a table. A function that never is counts one more than were "
        "made."
    )
    svg = to_svg(canvas, "bayes-opt-solved", "Evaluations until solved")
    return [Picture("Evaluations until solved", caption, svg)]


def sentence(cells: Sequence[Drawn]) -> str:
    """Evaluations that the best method needs, and a process from scratch, by family."""
    found, said = means(cells), []
    for setting in SETTINGS:
        values = found.get((setting, "evaluations"), {})
        own = {name: value for name, value in values.items() if name not in REFERENCES}
        if own and SCRATCH in values:
            best = lowest(own)
            controls = [name for name in (SCRATCH, RANDOM, EXACT) if name in values]
            beside = [f"{name} {values[name]:.1f}" for name in controls]
            won = "" if own[best] < values[SCRATCH] else ", which a process from scratch beats"
            said.append(f"{setting}: {best} {own[best]:.1f}{won} ({', '.join(beside)})")
    return f"Evaluations until solved: {'; '.join(said)}." if said else ""
