"""Figures as SVG text: curves with bands, shots against error, reliability."""

import io
import re
from typing import Any

import matplotlib
import numpy as np

# Without a screen; a window that is open already keeps its backend.
matplotlib.use("Agg", force=False)
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from metaprior.system.style import METHOD, MUTED, OTHERS, POINT, STYLE

MARKERS = ("s", "^", "D", "v", "P", "X", "<")


def to_svg(figure: Figure, name: str, label: str) -> str:
    """Inline SVG that scales with the page; its ids begin with `name` and are always the same."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(
            buffer, format="svg", bbox_inches="tight", pad_inches=0.04, metadata={"Date": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]

    # No date and no fixed size; and every id with the figure's name before it, as several figures
    # stand in one page.
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
    """One group: band, median, the observed rows and the rows still hidden.

    Args:
        axes: where to draw.
        panel: `x`, `y` of all rows, `seen` indices, `q05`, `q50`, `q95` at each row, and `title`.
        limits: lowest and highest y.
    """
    order = np.argsort(panel["x"], kind="stable")
    sorted_x, low, high = (panel[name][order] for name in ("x", "q05", "q95"))
    axes.fill_between(sorted_x, low, high, color=METHOD, alpha=0.16, linewidth=0)
    axes.plot(sorted_x, panel["q50"][order], color=METHOD)

    x, y, seen = panel["x"], panel["y"], panel["seen"]
    hidden = np.setdiff1d(np.arange(len(x)), seen)
    axes.plot(x[hidden], y[hidden], "o", ms=3.2, mfc="white", mec=MUTED, mew=0.9)
    axes.plot(x[seen], y[seen], "o", ms=6.5, mfc=POINT, mec="white", mew=1.1)
    axes.set_title(panel["title"])
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if limits:
        axes.set_ylim(*limits)


def y_limits(panels: list[dict[str, Any]]) -> tuple[float, float]:
    """One scale for several panels of a group; very wide bands do not squash the data."""
    # The bands' ends, but no further than one and a half spans of the data from the data.
    y = panels[0]["y"]
    span = max(float(np.ptp(y)), 1e-9)
    low = min(float(np.min(panel["q05"])) for panel in panels)
    high = max(float(np.max(panel["q95"])) for panel in panels)
    low = max(low, float(y.min()) - 1.5 * span)
    high = min(high, float(y.max()) + 1.5 * span)
    return low - 0.04 * span, high + 0.04 * span


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
    """A metric against the number of observed rows, for the method and every baseline.

    Args:
        result: what `Evaluation.to_json` gives.
        metric: which.
        label: title of the figure.
        name: unique in the page, for the figure's ids.
        legend: whether to name the learners below.
    """
    shots = list(result["shots"])
    names = list(next(iter(result["shots"].values())))
    shades, scale = colours(names), []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.5))
        axes = figure.add_subplot()
        for i, who in enumerate(sorted(names, key=lambda n: n == "method")):  # the method on top
            entries = [figures.get(who, {}) for figures in result["shots"].values()]
            values = _numbers([entry.get(metric) for entry in entries])
            if not np.isfinite(values).any():
                continue
            _draw_learner(axes, who, values, MARKERS[i % len(MARKERS)], shades[who])
            if who == "method":
                _draw_band(axes, [entry.get("ci", {}).get(metric) for entry in entries])
            if "marginal" not in who:
                scale += list(values[np.isfinite(values)])

        axes.xaxis.set_major_locator(FixedLocator(list(range(len(shots)))))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels(shots)
        axes.set_xlabel("observed rows of the new group")
        axes.set_title(label)
        if scale:
            _leave_out_what_is_far(axes, min(scale), max(scale))
        if legend:
            handles, labels = axes.get_legend_handles_labels()
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": 2}
            figure.legend(handles[::-1], labels[::-1], **place)
        return to_svg(figure, name, label)


def _numbers(values: list) -> np.ndarray:
    """Numbers, NaN for `None`."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _draw_learner(axes: Any, name: str, values: np.ndarray, marker: str, shade: str) -> None:
    """The curve of one learner; the method's own stands out."""
    look: dict[str, Any] = {"marker": marker, "ms": 4.5, "lw": 1.3, "alpha": 0.95, "zorder": 2}
    if name == "method":
        look = {"marker": "o", "ms": 6, "lw": 2.6, "alpha": 1.0, "zorder": 3}
    place = np.arange(len(values))
    axes.plot(place, values, color=shade, mec="white", mew=0.8, label=name, **look)


def _draw_band(axes: Any, intervals: list) -> None:
    """The method's 95 % intervals; there is none where one group was judged."""
    ends = [interval or (np.nan, np.nan) for interval in intervals]
    low, high = np.array(ends, dtype=float).T
    axes.fill_between(np.arange(len(ends)), low, high, color=METHOD, alpha=0.14, linewidth=0)


def _leave_out_what_is_far(axes: Any, low: float, high: float) -> None:
    """Keep the training marginal, which can be far off, from squashing all other curves."""
    if axes.get_ylim()[1] > high + (high - low):
        margin = 0.08 * max(high - low, 1e-9)
        axes.set_ylim(low - margin, high + margin)


def reliability_points(points: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Stated probability and how often it came true, from `pit` values or class probabilities."""
    if "pit" in points:
        # Of numbers: how often the outcome lies below each predictive quantile.
        levels = np.linspace(0.0, 1.0, 21)
        pit = np.sort(np.asarray(points["pit"], dtype=float).ravel())
        return levels, np.searchsorted(pit, levels, side="right") / max(len(pit), 1)
    p, y = np.asarray(points["p"], dtype=float), np.asarray(points["y"]).astype(int).ravel()
    if p.ndim == 1 or p.shape[1] == 1:
        p = np.stack([1 - p.ravel(), p.ravel()], axis=1)
    stated, came = p.ravel(), np.eye(p.shape[1])[y].ravel()

    # Parts of equally many probabilities, in their order.
    parts = [part for part in np.array_split(np.argsort(stated, kind="stable"), 12) if len(part)]
    return np.array([stated[i].mean() for i in parts]), np.array([came[i].mean() for i in parts])


def reliability(
    points: dict[int, dict[str, dict[str, np.ndarray]]], shots: list[int], name: str
) -> str:
    """Stated against observed frequency of the method; the diagonal is perfect.

    Args:
        points: `[K][name]`, as `Evaluation.points`.
        shots: the numbers of observed rows to show, three at most.
        name: unique in the page, for the figure's ids.
    """
    shades = ("#9cc9c7", "#4a9a9b", "#07484b")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.0, 3.5))
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1.0, ls=(0, (4, 3)), label="perfect")
        for shade, k in zip(shades[-len(shots) :], shots):
            stated, came = reliability_points(points[k]["method"])
            look: dict[str, Any] = {"marker": "o", "ms": 3.5, "mec": "white", "mew": 0.6}
            axes.plot(stated, came, color=shade, label=f"{k} observed", **look)
        axes.set_aspect("equal")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("stated probability")
        axes.set_ylabel("how often it came true")
        axes.set_title("reliability")
        axes.legend(loc="upper left")
        return to_svg(figure, name, "Reliability diagram")


def picture(rows: list[list[dict[str, Any]]], x_label: str, y_label: str) -> Figure:
    """Several groups (rows) at several numbers of observations (columns), in one white figure."""
    on_white: Any = {**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}
    with matplotlib.rc_context(on_white):
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
