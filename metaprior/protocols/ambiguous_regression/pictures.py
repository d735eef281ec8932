"""Pictures of sine waves and lines: drawn functions, how often each family comes, coverage."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.ambiguous_regression.judge import EXACT, FAMILIES, POINTWISE, PRIOR, SHOWN
from metaprior.protocols.finished import first_seed, highest, means, methods_of
from metaprior.protocols.pictures import DOTS, diagonal, one_panel, panels, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import colours, to_svg
from metaprior.system.style import POINT

COLOURS = ("#0b6e72", "#e09f3e", "#b8bfca")  # of a sine wave, a line, neither
SLOTS = 8  # of the probability, tasks in which are averaged


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """Drawn functions, sampled frequency against exact probability, coverage."""
    shots = options["shots"]
    shades = colours(["method", *methods_of(cells)])
    return [
        _functions(first_seed(cells), 2 if 2 in shots else 1),
        _frequency(cells, shots, shades),
        _coverage(cells, shots, shades),
    ]


def _functions(cells: Sequence[Drawn], k: int) -> Picture:
    """A row a task, a column a method."""
    size = (2.6 * len(cells), 2.1 * SHOWN + 0.3)
    canvas, grid = panels(SHOWN, len(cells), size, sharex=True, sharey=True)
    for column, cell in zip(grid.T, cells):
        tasks = min(SHOWN, len(cell.drawing[f"f{k}"]))
        for axes, task in zip(column, range(tasks)):
            _panel(axes, cell.drawing, k, task)
        column[0].set_title(cell.method)

    p = cells[0].drawing[f"p_shown{k}"]
    for axes, value in zip(grid[:, 0], p):
        axes.set_ylabel(f"p(sine) = {value:.2f}")
    svg = to_svg(canvas, "functions", f"Functions drawn after {k} rows")
    caption = (
        f"Thirty functions drawn after {k} row{'s' if k > 1 else ''}, in three tasks that leave "
        "both families open. Green: near a sine wave. Yellow: near a line. Grey: near neither, or "
        "off the rows."
    )
    return Picture("Functions that fit what was seen", caption, svg)


def _panel(axes: Any, drawing: dict[str, np.ndarray], k: int, task: int) -> None:
    """The functions drawn in one task, and the rows it shows."""
    grid = drawing["grid"]
    for f, family in zip(drawing[f"f{k}"][task], drawing[f"family{k}"][task]):
        axes.plot(grid, f, color=COLOURS[int(family)], lw=0.8, alpha=0.55)
    x, y = drawing[f"x{k}"][task], drawing[f"y{k}"][task]
    axes.plot(x, y, "o", ms=6, mfc=POINT, mec="white", mew=1.0, zorder=5)
    axes.set(xlim=(grid[0], grid[-1]), ylim=(-9, 9))


def _frequency(cells: Sequence[Drawn], shots: Sequence[int], shades: dict[str, str]) -> Picture:
    """The share of drawn sine waves against the exact probability, a line a method."""
    canvas, axes = one_panel()
    diagonal(axes)
    for name in methods_of(cells):
        mine = [cell for cell in cells if cell.method == name]
        p, share = (_pooled(mine, what, shots) for what in ("p", FAMILIES[0]))
        slot = np.clip((p * SLOTS).astype(int), 0, SLOTS - 1)
        filled = np.unique(slot)
        x = [p[slot == s].mean() for s in filled]
        y = [share[slot == s].mean() for s in filled]
        axes.plot(x, y, color=shades[name], label=name, **DOTS)
    axes.set(
        xlabel="exact probability of the sine wave", ylabel="share of draws that are one and fit"
    )
    axes.legend(loc="upper left")
    svg = to_svg(canvas, "frequency", "Sampled frequency against exact probability")
    caption = (
        "Averages over tasks of similar probability, all numbers of rows. The diagonal is perfect. "
        "Draws that do not fit the rows count as neither."
    )
    return Picture("As often as it should", caption, svg, wide=False)


def _pooled(cells: Sequence[Drawn], what: str, shots: Sequence[int]) -> np.ndarray:
    """One value a task, over all seeds and numbers of rows."""
    return np.concatenate([cell.drawing[f"{what}{k}"] for cell in cells for k in shots])


def _coverage(cells: Sequence[Drawn], shots: Sequence[int], shades: dict[str, str]) -> Picture:
    """Mode coverage against the number of rows, a line a method."""
    canvas, axes = one_panel()
    found = means(cells)
    for name in methods_of(cells):
        values = [found.get((f"K = {k}", "coverage"), {}).get(name, np.nan) for k in shots]
        axes.plot(shots, values, color=shades[name], label=name, **DOTS)
    axes.set(
        xlabel="observed rows",
        ylabel="share of ambiguous tasks covered",
        ylim=(-0.03, 1.03),
    )
    axes.legend(loc="best")
    svg = to_svg(canvas, "coverage", "Mode coverage")
    caption = (
        "Of the tasks in which both families are still probable (0.1 < p < 0.9), the share whose "
        "draws fit the rows and hold both."
    )
    return Picture("Mode coverage", caption, svg, wide=False)


def sentence(cells: Sequence[Drawn]) -> str:
    """Who covers both explanations."""
    found = means(cells).get(("K = 2", "coverage"), {})
    own = {name: value for name, value in found.items() if name not in (EXACT, POINTWISE, PRIOR)}
    if not own:
        return ""
    best = highest(own)
    text = (
        f"With two rows, functions drawn by {best} hold both explanations in {own[best]:.0%} of "
        "the ambiguous tasks"
    )
    if EXACT in found:
        text += f" (the exact posterior: {found[EXACT]:.0%})"
    if "maml" in own and best != "maml":
        text += f", MAML's in {own['maml']:.0%}"
    return text + "."
