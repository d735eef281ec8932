"""Figures as SVG text: curves with bands, shots against error, reliability."""

import io
import re
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg", force=False)
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

INK, MUTED, RULE, METHOD, POINT = "#1c2430", "#6a7485", "#e3e7ed", "#0b6e72", "#d1495b"
OTHERS = ("#e09f3e", "#7768ae", "#5b8fd6", "#a8577e", "#8a9a5b", "#9aa5b1", "#b07d62")
MARKERS = ("s", "^", "D", "v", "P", "X", "<")
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titlepad": 8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "path",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def to_svg(figure: Figure, name: str, label: str) -> str:
    """Inline SVG that scales with the page; ids are unique to `name`, and the same each time."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(
            buffer, format="svg", bbox_inches="tight", pad_inches=0.04, metadata={"Date": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def colours(names: list[str]) -> dict[str, str]:
    """The method's own colour, and one for each baseline."""
    rest = [name for name in names if name != "method"]
    return {"method": METHOD, **{name: OTHERS[i % len(OTHERS)] for i, name in enumerate(rest)}}


def curve(axes: Any, panel: dict[str, Any], limits: tuple[float, float] | None = None) -> None:
    """One group: band, median, the observed rows and those still hidden.

    Args:
        panel: `x`, `y` of all rows, `seen` indices, `q05`, `q50`, `q95` at each row, and `title`.
    """
    order = np.argsort(panel["x"], kind="stable")
    x = panel["x"][order]
    axes.fill_between(
        x, panel["q05"][order], panel["q95"][order], color=METHOD, alpha=0.16, linewidth=0
    )
    axes.plot(x, panel["q50"][order], color=METHOD)
    hidden = np.setdiff1d(np.arange(len(x)), panel["seen"])
    axes.plot(panel["x"][hidden], panel["y"][hidden], "o", ms=3.2, mfc="white", mec=MUTED, mew=0.9)
    axes.plot(
        panel["x"][panel["seen"]],
        panel["y"][panel["seen"]],
        "o",
        ms=6.5,
        mfc=POINT,
        mec="white",
        mew=1.1,
    )
    axes.set_title(panel["title"])
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if limits:
        axes.set_ylim(*limits)


def y_limits(panels: list[dict[str, Any]]) -> tuple[float, float]:
    """One scale for several panels of a group; very wide bands do not squash the data."""
    y = panels[0]["y"]
    span = max(float(np.ptp(y)), 1e-9)
    low = min(float(np.min(p["q05"])) for p in panels)
    high = max(float(np.max(p["q95"])) for p in panels)
    return max(low, float(y.min()) - 1.5 * span) - 0.04 * span, min(
        high, float(y.max()) + 1.5 * span
    ) + 0.04 * span


def curve_panel(
    panel: dict[str, Any], limits: tuple[float, float], x_label: str, y_label: str, name: str
) -> str:
    """`curve` as a figure of its own."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.5, 2.5))
        axes = figure.add_subplot()
        curve(axes, panel, limits)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return to_svg(figure, name, f"{panel['title']}: prediction and 90 % band")


def shots_curve(
    result: dict[str, Any], metric: str, label: str, name: str, legend: bool = True
) -> str:
    """A metric against the number of observed rows, for the method and every baseline."""
    shots = [int(k) for k in result["shots"]]
    names = list(next(iter(result["shots"].values())))
    place = np.arange(len(shots))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.5))
        axes = figure.add_subplot()
        shades = colours(names)
        finite = []
        for i, who in enumerate(sorted(names, key=lambda n: n == "method")):
            values = [result["shots"][str(k)].get(who, {}).get(metric) for k in shots]
            values = np.array([np.nan if v is None else v for v in values], dtype=float)
            if not np.isfinite(values).any():
                continue
            mine = who == "method"
            finite += [] if "marginal" in who else list(values[np.isfinite(values)])
            axes.plot(
                place,
                values,
                marker="o" if mine else MARKERS[i % len(MARKERS)],
                ms=6 if mine else 4.5,
                color=shades[who],
                lw=2.6 if mine else 1.3,
                mec="white",
                mew=0.8,
                label=who,
                alpha=1.0 if mine else 0.95,
                zorder=3 if mine else 2,
            )
            if mine:
                bands = [
                    result["shots"][str(k)][who].get("ci", {}).get(metric) or (np.nan,) * 2
                    for k in shots
                ]
                low, high = np.array(bands, dtype=float).T
                axes.fill_between(place, low, high, color=METHOD, alpha=0.14, linewidth=0)
        axes.xaxis.set_major_locator(FixedLocator(place.tolist()))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([str(k) for k in shots])
        axes.set_xlabel("observed rows of the new group")
        axes.set_title(label)
        if finite:
            low, high = min(finite), max(finite)
            margin = 0.08 * max(high - low, 1e-9)
            top = axes.get_ylim()[1]
            if top > high + (
                high - low
            ):  # the training marginal is far off: leave it out of the picture's scale
                axes.set_ylim(low - margin, high + margin)
        if legend:
            handles, labels = axes.get_legend_handles_labels()
            figure.legend(
                handles[::-1], labels[::-1], loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2
            )
        return to_svg(figure, name, label)


def reliability_points(points: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Stated probability and how often it came true, from `pit` values or class probabilities."""
    if "pit" in points:
        levels = np.linspace(0.0, 1.0, 21)
        pit = np.sort(np.asarray(points["pit"], dtype=float).ravel())
        return levels, np.searchsorted(pit, levels, side="right") / max(len(pit), 1)
    p, y = np.asarray(points["p"], dtype=float), np.asarray(points["y"]).astype(int).ravel()
    p = np.stack([1 - p.ravel(), p.ravel()], axis=1) if p.ndim == 1 or p.shape[1] == 1 else p
    stated, came = p.ravel(), np.eye(p.shape[1])[y].ravel()
    order = np.argsort(stated, kind="stable")
    parts = [part for part in np.array_split(order, 12) if len(part)]
    return np.array([stated[i].mean() for i in parts]), np.array([came[i].mean() for i in parts])


def reliability(
    points: dict[int, dict[str, dict[str, np.ndarray]]], shots: list[int], name: str
) -> str:
    """Stated against observed frequency of the method, at some numbers of shots; the diagonal is
    perfect.
    """
    shades = ("#9cc9c7", "#4a9a9b", "#07484b")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.0, 3.5))
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1.0, ls=(0, (4, 3)), label="perfect")
        for shade, k in zip(shades[-len(shots) :], shots):
            stated, came = reliability_points(points[k]["method"])
            axes.plot(
                stated,
                came,
                color=shade,
                marker="o",
                ms=3.5,
                mec="white",
                mew=0.6,
                label=f"{k} observed",
            )
        axes.set_aspect("equal")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("stated probability")
        axes.set_ylabel("how often it came true")
        axes.set_title("reliability")
        axes.legend(loc="upper left")
        return to_svg(figure, name, "Reliability diagram")


def picture(rows: list[list[dict[str, Any]]], x_label: str, y_label: str) -> Figure:
    """Several groups (rows) at several numbers of observations (columns) in one figure on white."""
    with matplotlib.rc_context(
        {**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}
    ):
        figure = Figure(figsize=(3.2 * len(rows[0]), 2.5 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), len(rows[0]), sharey="row", squeeze=False)
        for line, panels in zip(grid, rows):
            limits = y_limits(panels)
            for axes, panel in zip(line, panels):
                curve(axes, panel, limits)
            line[0].set_ylabel(y_label)
        for axes in grid[-1]:
            axes.set_xlabel(x_label)
        return figure
