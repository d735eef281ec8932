"""pictures of ambiguous-classification."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from metaprior.protocols.ambiguous_classification.judge import DRAWS, FINE, SHOTS, SHOWN
from metaprior.protocols.protocol import (
    Drawn,
    Picture,
)
from metaprior.report.figures import INK, METHOD, MUTED, POINT, STYLE, to_svg
from metaprior.sources.circles import Circles


def _panel(axes, drawing: dict[str, np.ndarray], shots: int, task: int, box: float) -> None:
    """Sampled boundaries, the true circle and the points of one task."""
    place = (np.arange(FINE) + 0.5) * box / FINE
    for p in drawing[f"p_{shots}"][task].astype(float) / 255:
        if p.min() < 0.5 < p.max():
            axes.contour(place, place, p, levels=[0.5], colors=[METHOD], linewidths=0.8, alpha=0.55)
    angle = np.linspace(0, 2 * np.pi, 100)
    (a, b), r = drawing[f"center_{shots}"][task], drawing[f"radius_{shots}"][task]
    axes.plot(a + r * np.cos(angle), b + r * np.sin(angle), color=INK, lw=1.6, ls=(0, (4, 2)))
    x = drawing[f"x_{shots}"][task]
    axes.plot(x[:, 0], x[:, 1], "o", ms=5.5, mfc=POINT, mec="white", mew=0.9)
    axes.set(xlim=(0, box), ylim=(0, box), aspect="equal", xticks=[], yticks=[])
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(True)


def draw(cells: Sequence[Drawn], options: dict, data: None) -> list[Picture]:
    """Sampled boundaries of every method beside the exact posterior's, and the gap to it against K."""
    first = {}
    for cell in cells:
        first.setdefault(cell.method, cell)
    names = [n for n in ("exact",) if n in first] + [n for n in first if n != "exact"]
    box, pictures = Circles().box, []
    with matplotlib.rc_context(STYLE):
        for shots in (1, 3):
            figure = Canvas(figsize=(1.75 * len(names), 1.85 * SHOWN), layout="constrained")
            grid = figure.subplots(SHOWN, len(names), squeeze=False)
            for column, name in enumerate(names):
                for task in range(SHOWN):
                    _panel(grid[task, column], first[name].drawing, shots, task, box)
                grid[0, column].set_title(name)
            points = "one point" if shots == 1 else f"{shots} points"
            pictures.append(
                Picture(
                    f"Where could the circle be, given {points} inside it?",
                    f"Three tasks (rows). Green: boundaries of up to {DRAWS} functions drawn from each posterior; red: "
                    "the points shown; dashed: the true circle. A posterior that knows what it does not know draws "
                    "circles of many sizes and places through the points, as the exact one does.",
                    to_svg(figure, f"circles-{shots}", f"Sampled decision boundaries, {points}"),
                )
            )
        pictures.append(_against_shots(first))
    return pictures


def _against_shots(first: dict[str, Drawn]) -> Picture:
    """NLL above the exact posterior's against the number of points."""
    figure = Canvas(figsize=(7.2, 2.9), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, metric, label in zip(
        panels, ("gap", "joint_gap"), ("one label at a time", "all labels together")
    ):
        axes.axhline(0, color=MUTED, lw=1, ls=(0, (4, 3)))
        for name, cell in first.items():
            if name != "exact":
                value = {f.setting: f.value for f in cell.figures if f.metric == metric}
                axes.plot(
                    range(len(SHOTS)),
                    [value[f"K = {k}"] for k in SHOTS],
                    marker="o",
                    ms=4,
                    label=name,
                )
        axes.set_xticks(range(len(SHOTS)), [str(k) for k in SHOTS])
        axes.set(title=label, xlabel="points shown", ylabel="nats a row above the exact posterior")
    panels[1].legend()
    return Picture(
        "Distance from the exact posterior",
        "Negative log-likelihood less that of the exact posterior (dashed line) on the same tasks. A method with the "
        "right marginals and incoherent functions is near the line on the left and far from it on the right.",
        to_svg(figure, "circles-gap", "NLL above the exact posterior"),
    )


def sentence(cells: Sequence[Drawn]) -> str:
    """The best method's distance from the exact posterior, over all numbers of points."""
    gaps: dict[str, list[float]] = {}
    for cell in cells:
        if cell.method != "exact":
            gaps.setdefault(cell.method, []).append(
                np.mean([f.value for f in cell.figures if f.metric == "gap"])
            )
    if not gaps:
        return ""
    best = min(gaps, key=lambda name: float(np.mean(gaps[name])))
    return (
        f"{best} comes nearest to the exact posterior: {np.mean(gaps[best]):.3f} nats a row above it, averaged over "
        f"{', '.join(str(k) for k in SHOTS)} points."
    )
