"""Pictures of `selective`: errors of what is kept, and how well other families are told apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.finished import arrays_of, means, methods_of
from metaprior.protocols.pictures import DASHED, DOTS, legend_below, panels, shades_of, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.protocols.selective.families import FAST, STEPS
from metaprior.protocols.selective.judge import (
    BY_ERROR,
    EXACT,
    NEAREST,
    RANDOM,
    RATIO,
    REFERENCES,
    SPREAD,
)
from metaprior.report.figures import to_svg
from metaprior.system.style import INK, MUTED


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """All pictures."""
    return [*_curves(cells, options), *_families(cells, options)]


def _shades(cells: Sequence[Drawn]) -> dict[str, str]:
    """A colour for each method; references are grey and black."""
    shades = shades_of(methods_of(cells, but=REFERENCES))
    return dict.fromkeys(REFERENCES, MUTED) | {EXACT: INK, RATIO: INK} | shades


def _curves(cells: Sequence[Drawn], options: dict[str, Any]) -> list[Picture]:
    """Root of the mean squared error of the kept rows against their share."""
    settings = [f"rows: K = {K}" for K in options["shown"]]
    found = {
        place: curves
        for setting in settings
        for place, curves in _of(cells, setting).items()
        if place[1] != BY_ERROR  # out of reach, and far below
    }
    if not found:
        return []
    shades = _shades(cells)
    canvas, grid = panels(1, len(settings), (2.7 * len(settings), 3.4))
    for axes, setting in zip(grid[0], settings):
        for (place, method), curves in found.items():
            if place == setting:
                curve = np.sqrt(np.mean(curves, axis=0))
                share = np.arange(1, len(curve) + 1) / len(curve)
                style: dict[str, Any] = DASHED if method in (NEAREST, RANDOM) else {}
                axes.plot(share, curve, color=shades[method], label=method, **style)
        axes.set(title=setting.removeprefix("rows: "), xlabel="share of rows kept", ylim=(0, None))
    grid[0, 0].set_ylabel("RMSE of the kept rows")
    legend_below(canvas, grid[0, 0], 5)
    caption = (
        "Rows are left out in the order of the stated standard deviation. Where a method knows "
        "which rows it does not know, the curve falls to the left. Dashed: the exact posterior's "
        "predictions left out at random, and by the distance to the nearest row shown."
    )
    svg = to_svg(canvas, "selective-rows", "Error of the kept rows against their share")
    return [Picture("Risk and coverage", caption, svg)]


def _of(cells: Sequence[Drawn], setting: str) -> dict[tuple[str, str], list[np.ndarray]]:
    """Curves of one setting, by setting and method."""
    kind, _, rest = setting.partition(" ")
    return {(setting, m): arrays for (_, m), arrays in arrays_of(cells, kind, [rest]).items()}


def _families(cells: Sequence[Drawn], options: dict[str, Any]) -> list[Picture]:
    """AUROC against the number of rows, a panel a family."""
    found, shots = means(cells), options["shots"]
    names = list(
        dict.fromkeys(m for (_, metric), by in found.items() if metric == "auroc" for m in by)
    )
    if not names:
        return []
    shades = _shades(cells)
    canvas, grid = panels(1, 2, (7.0, 3.4), sharey=True)
    for axes, family in zip(grid[0], (STEPS, FAST)):
        for method in names:
            values = [found[f"{family}: K = {K}", "auroc"].get(method, np.nan) for K in shots]
            style: dict[str, Any] = DASHED if method in (RATIO, SPREAD, RANDOM) else DOTS
            if method == RANDOM:
                style = style | {"ls": ":"}
            axes.plot(range(len(shots)), values, color=shades[method], label=method, **style)
        axes.set_xticks(range(len(shots)), [str(K) for K in shots])
        axes.set(title=family, xlabel="rows of the task")
    grid[0, 0].set_ylabel("AUROC")
    legend_below(canvas, grid[0, 0], 5)
    caption = (
        "How often a task of another family is stranger than one of training, by the log density "
        "of its rows under the learned prior. Dashed black: the likelihood ratio of the two "
        "families, which no test can beat. Dashed grey: the spread of the outcomes. Dotted: chance."
    )
    svg = to_svg(canvas, "selective-tasks", "AUROC against the number of rows")
    return [Picture("Tasks of another family", caption, svg)]


def sentence(cells: Sequence[Drawn]) -> str:
    """Who knows which rows to leave out, and who knows a strange task."""
    found, said = means(cells), []
    own = methods_of(cells, but=REFERENCES)
    rows = [setting for setting, metric in found if metric == "excess"]
    tasks = [setting for setting, metric in found if metric == "auroc"]
    if not own or not rows or not tasks:
        return ""
    where = rows[min(1, len(rows) - 1)]
    kept = {m: (found[where, "rmse"][m], found[where, "kept50"][m]) for m in own}
    listed = ", ".join(f"{m} {whole:.2f} to {half:.2f}" for m, (whole, half) in kept.items())
    said.append(f"RMSE of all rows and of the surer half, {where.removeprefix('rows: ')}: {listed}")
    if EXACT in found[where, "rmse"]:
        whole, half = (found[where, name][EXACT] for name in ("rmse", "kept50"))
        said[-1] += f" (exact {whole:.2f} to {half:.2f})"
    for family in (STEPS, FAST):
        last = [setting for setting in tasks if setting.startswith(family)][-1]
        by = found[last, "auroc"]
        listed = ", ".join(f"{m} {by[m]:.2f}" for m in own)
        beside = ", ".join(f"{m} {by[m]:.2f}" for m in (EXACT, RATIO, SPREAD) if m in by)
        said.append(f"AUROC against {last.replace(': ', ', ')}: {listed} ({beside})")
        lost = [m for m in own if SPREAD in by and by[m] <= by[SPREAD]]
        if lost:
            said.append(f"The spread of y alone tells as much as {', '.join(lost)}")
    return ". ".join(said) + "."
