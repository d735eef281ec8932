"""Pictures of `oracles`: distance from the exact posterior against the number of rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.finished import lowest, means, methods_of, over_settings
from metaprior.protocols.oracles.data import DRAWN, cases
from metaprior.protocols.oracles.judge import EXACT, SLACK
from metaprior.protocols.oracles.pointwise import BY_POINT
from metaprior.protocols.pictures import DOTS, one_panel, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import colours, to_svg
from metaprior.system.style import MUTED


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """A picture a source."""
    return [_distance(cells, source) for source in options["sources"]]


def _distance(cells: Sequence[Drawn], source: str) -> Picture:
    """The gap of every method on one source."""
    names = methods_of(cells, but=(EXACT,))
    own = [name for name in names if name != BY_POINT]
    shades = colours(["method", *own]) | {BY_POINT: MUTED}
    case, found = cases()[source], means(cells)
    shots = [k for k in case.shots if k != DRAWN]
    names = [n for n in names if n in found.get((f"{source}: K = {shots[0]}", "gap"), {})]

    canvas, axes = one_panel(4.6, 3.6)
    for name in names:
        values = [found.get((f"{source}: K = {k}", "gap"), {}).get(name, np.nan) for k in shots]
        visible = np.maximum(values, 1e-3)  # a logarithm has no place for 0 and below
        axes.plot(range(len(shots)), visible, color=shades[name], label=name, **DOTS)
    axes.set_yscale("log")
    axes.set_xticks(range(len(shots)), [str(k) for k in shots])
    axes.set(xlabel="observed rows", ylabel="nats a row above the exact posterior")
    axes.legend(ncols=1 + len(names) // 8)
    svg = to_svg(canvas, f"gap-{source}", f"Distance from the exact posterior, {source}")
    return Picture(source, f"{case.what}. Marginal; 0 would be exact.", svg, wide=False)


def sentence(cells: Sequence[Drawn]) -> str:
    """Who is nearest, and whether anyone is better than possible.

    What does not read all sources has another average, and no rank.
    """
    judged = {c.method: {f.setting for f in c.figures if f.metric == "gap"} for c in cells}
    everywhere = set().union(*judged.values())
    fewer = [m for m, settings in judged.items() if m != EXACT and settings < everywhere]
    if not set(judged) - {EXACT, BY_POINT}:
        return ""
    gaps, text = over_settings(cells, "gap", but=(EXACT, BY_POINT, *fewer)), ""
    if gaps:
        best = lowest(gaps)
        text = (
            f"{best} stays nearest to the exact posteriors, {gaps[best]:.2f} nats a row above them "
            "on average. "
        )
    if fewer:
        text += f"On fewer sources, so not compared here: {', '.join(fewer)}. "
    floor = over_settings(cells, "gap").get(BY_POINT, 0.0)
    if floor >= 0.005:
        text += f"One normal at each point cannot come nearer than {floor:.2f}. "
    below = _better_than_possible(cells)
    if below:
        return text + f"Better than possible, so wrong: {', '.join(below)}."
    return text + "None is better than the exact one beyond two standard errors."


def _better_than_possible(cells: Sequence[Drawn]) -> list[str]:
    """Gaps below zero by more than two standard errors and the sources' own accuracy."""
    found = []
    for cell in cells:
        for f in cell.figures:
            gap = f.metric in ("gap", "joint_gap") and f.error is not None
            if gap and f.value < -2 * (f.error or 0.0) - SLACK:
                found.append(f"{cell.method} at {f.setting}")
    return found
