"""pictures of ambiguous-regression."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from metaprior.protocols.ambiguous_regression.judge import EXACT, FAMILIES, POINTWISE, SHOWN
from metaprior.protocols.protocol import (
    Drawn,
    Picture,
)
from metaprior.report.figures import MUTED, POINT, STYLE, colours, to_svg

COLOURS = {0: "#0b6e72", 1: "#e09f3e", 2: "#b8bfca"}


def panel(axes: Any, grid, f, family, x, y) -> None:
    for one, kind in zip(f, family):
        axes.plot(grid, one, color=COLOURS[int(kind)], lw=0.8, alpha=0.55)
    axes.plot(x, y, "o", ms=6, mfc=POINT, mec="white", mew=1.0, zorder=5)
    axes.set_ylim(-9, 9)
    axes.set_xlim(grid[0], grid[-1])


def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """Sampled functions beside the exact posterior's, sampled frequency against probability,
    coverage.
    """
    first = [c for c in cells if c.seed == min(c.seed for c in cells)]
    k = 2 if 2 in options["shots"] else 1
    pictures = []
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(2.6 * len(first), 2.1 * SHOWN + 0.3), layout="constrained")
        grid = canvas.subplots(SHOWN, len(first), squeeze=False, sharex=True, sharey=True)
        for j, cell in enumerate(first):
            d = cell.drawing
            for i in range(min(SHOWN, len(d[f"f{k}"]))):
                panel(
                    grid[i, j],
                    d["grid"],
                    d[f"f{k}"][i],
                    d[f"family{k}"][i],
                    d[f"x{k}"][i],
                    d[f"y{k}"][i],
                )
                if j == 0:
                    grid[i, 0].set_ylabel(f"p(sine) = {d[f'p_shown{k}'][i]:.2f}")
            grid[0, j].set_title(cell.method)
        svg = to_svg(canvas, "functions", f"Functions drawn after {k} rows")
    caption = (
        f"Thirty functions drawn after {k} row{'s' if k > 1 else ''}, three tasks that leave both families open: green "
        "near a sine wave, yellow near a line, grey near neither."
    )
    pictures.append(Picture("Functions that fit what was seen", caption, svg))
    shades = colours(["method", *dict.fromkeys(c.method for c in first)])
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(4.6, 3.8))
        axes = canvas.add_subplot()
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 3)))
        for name in dict.fromkeys(c.method for c in cells):
            mine = [c.drawing for c in cells if c.method == name]
            p = np.concatenate([d[f"p{q}"] for d in mine for q in options["shots"]])
            sine, line = (
                np.concatenate([d[f"{w}{q}"] for d in mine for q in options["shots"]])
                for w in FAMILIES
            )
            known = sine + line > 0
            p, share = p[known], (sine / np.maximum(sine + line, 1e-9))[known]
            slots = np.clip((p * 8).astype(int), 0, 7)
            xs = [p[slots == s].mean() for s in range(8) if (slots == s).any()]
            ys = [share[slots == s].mean() for s in range(8) if (slots == s).any()]
            axes.plot(xs, ys, "o-", ms=4, mec="white", mew=0.6, color=shades[name], label=name)
        axes.set_xlabel("exact probability of the sine wave")
        axes.set_ylabel("share of drawn functions near one")
        axes.legend(loc="upper left")
        svg = to_svg(canvas, "frequency", "Sampled frequency against exact probability")
    caption = (
        "Averages over tasks of similar probability, all numbers of rows; the diagonal is perfect."
    )
    pictures.append(Picture("As often as it should", caption, svg, wide=False))
    pictures.append(_coverage(cells, options, shades))
    return pictures


def _coverage(cells: Sequence[Drawn], options: dict[str, Any], shades: dict[str, str]) -> Picture:
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(4.6, 3.8))
        axes = canvas.add_subplot()
        for name in dict.fromkeys(c.method for c in cells):
            found = {
                f.setting: f.value
                for c in cells
                if c.method == name
                for f in c.figures
                if f.metric == "coverage"
            }
            values = [found.get(f"K = {k}", np.nan) for k in options["shots"]]
            axes.plot(
                options["shots"],
                values,
                "o-",
                ms=4,
                mec="white",
                mew=0.6,
                color=shades[name],
                label=name,
            )
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("observed rows")
        axes.set_ylabel("share of ambiguous tasks with both families")
        axes.legend(loc="best")
        svg = to_svg(canvas, "coverage", "Mode coverage")
    caption = "Of the tasks in which both families are still probable (0.1 < p < 0.9), those whose draws hold both."
    return Picture("Mode coverage", caption, svg, wide=False)


def sentence(cells: Sequence[Drawn]) -> str:
    """Who covers both explanations."""
    found: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        for f in cell.figures:
            if f.metric in ("coverage", "incoherent") and f.setting == "K = 2":
                found.setdefault(cell.method, {}).setdefault(f.metric, []).append(f.value)
    mean = {name: {k: float(np.mean(v)) for k, v in each.items()} for name, each in found.items()}
    own = {
        n: m["coverage"] for n, m in mean.items() if n not in (EXACT, POINTWISE) and "coverage" in m
    }
    if not own:
        return ""
    best = max(own, key=lambda n: own[n])
    text = f"With two rows, functions drawn by {best} hold both explanations in {own[best]:.0%} of the ambiguous tasks"
    if EXACT in mean:
        text += f" (the exact posterior: {mean[EXACT]['coverage']:.0%})"
    if "maml" in own and best != "maml":
        text += f", MAML's in {own['maml']:.0%}"
    return text + "."
