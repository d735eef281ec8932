"""Pictures of `active-learning`: curves of every rule with bands, areas against random, one task's
choices.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from metaprior.protocols.protocol import Drawn, Figure, Picture
from metaprior.report.figures import INK, METHOD, MUTED, OTHERS, POINT, RULE, STYLE, to_svg

EXACT = "exact posterior"


UNINFORMED = "no labels"  # a reference of the tables, without pictures


SETTINGS = ("sine or line", "Omniglot", "normal classes", "weather", "molecules", "configurations")


NAMES = ("random", "entropy", "bald", "variance", "improvement", "improvement a second")


SHADES = dict(zip(NAMES, (MUTED, METHOD, POINT, OTHERS[0], OTHERS[1], OTHERS[2])))


MOST = 6  # methods side by side; the tables have all


LABELS = {"nll": "NLL", "error": "error", "regret": "regret"}


def _merged(cells: Sequence[Drawn], kind: str) -> dict[tuple[str, str], np.ndarray]:
    """(setting, method) -> means over seeds and half an interval of them, `(3, rules, labels + 1)`."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for setting in SETTINGS:
        for cell in cells:
            if f"{kind} {setting}" in cell.drawing:
                found.setdefault((setting, cell.method), []).append(
                    cell.drawing[f"{kind} {setting}"]
                )

    def join(v):
        return np.stack(
            [
                np.mean([a[0] for a in v], 0),
                *(np.sqrt(np.sum([a[i] ** 2 for a in v], 0)) / len(v) for i in (1, 2)),
            ]
        )

    return {k: join(v) for k, v in found.items()}


def _curves(cells: Sequence[Drawn], kind: str, title: str, caption: str) -> list[Picture]:
    """A row a setting, a column a method, a line a rule."""
    found = _merged(cells, kind)
    if not found:
        return []
    settings, methods = (list(dict.fromkeys(k[i] for k in found)) for i in (0, 1))
    methods = methods[:MOST]
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(3.1 * len(methods), 2.5 * len(settings)), layout="constrained")
        grid = canvas.subplots(len(settings), len(methods), squeeze=False)
        handles: dict[str, Any] = {}
        for line, setting in zip(grid, settings):
            for axes, method in zip(line, methods):
                if (setting, method) not in found:
                    axes.set_axis_off()
                    continue
                mean, _, half = found[setting, method]
                for i, (name, m, h) in enumerate(zip(NAMES, mean, half)):
                    x = np.arange(len(m))
                    (handles[name],) = axes.plot(
                        x, m, color=SHADES[name], lw=2.2 if i == 0 else 1.5, zorder=3 - (i == 0)
                    )
                    if i:
                        axes.fill_between(
                            x, m - h, m + h, color=SHADES[name], alpha=0.12, linewidth=0
                        )
                axes.set_title(f"{setting}: {method}")
            line[0].set_ylabel(LABELS[kind])
        for axes in grid[-1]:
            axes.set_xlabel("labels")
        canvas.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles)
        )
        svg = to_svg(canvas, f"active-{kind}", title)
    return [Picture(title, caption, svg)]


def _gains(cells: Sequence[Drawn]) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(setting, method, rule) -> random's area less the rule's in NLL, and its standard error."""
    found: dict[tuple[str, str, str], list[Figure]] = {}
    for cell in cells:
        for f in cell.figures:
            if f.metric.startswith("nll_gain_"):
                found.setdefault(
                    (f.setting, cell.method, f.metric.removeprefix("nll_gain_")), []
                ).append(f)

    def error(v):
        return float(np.sqrt(np.sum([(f.error or np.nan) ** 2 for f in v])) / len(v))

    return {k: (float(np.mean([f.value for f in v])), error(v)) for k, v in found.items()}


def _forest(cells: Sequence[Drawn]) -> list[Picture]:
    """Areas against random with 95 % intervals, a panel a setting."""
    gains = _gains(cells)
    settings = [s for s in SETTINGS if any(k[0] == s for k in gains)]
    if not settings:
        return []
    methods = list(dict.fromkeys(k[1] for k in gains))[::-1]
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(
            figsize=(2.6 * len(settings) + 1, 0.55 * len(methods) + 1.3), layout="constrained"
        )
        row = canvas.subplots(1, len(settings), sharey=True, squeeze=False)[0]
        for axes, setting in zip(row, settings):
            axes.axvline(0, color=INK, lw=0.9, ls=(0, (4, 3)))
            for j, rule in enumerate(NAMES[1:4]):
                points = [
                    (i, *gains[setting, m, rule])
                    for i, m in enumerate(methods)
                    if (setting, m, rule) in gains
                ]
                if points:
                    y, value, error = np.array(points).T
                    axes.errorbar(
                        value,
                        y + 0.22 * (1 - j),
                        xerr=1.96 * error,
                        fmt="o",
                        ms=4,
                        lw=1.4,
                        color=SHADES[rule],
                        label=rule,
                    )
            axes.set_title(setting)
            axes.set_xlabel("nats a row below random")
        row[0].set_yticks(range(len(methods)), methods)
        canvas.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        svg = to_svg(canvas, "active-gains", "Area under random's curve less each rule's")
    caption = (
        "Random's mean NLL over 1, 2, … labels less each rule's, paired over tasks, with 95 % intervals. "
        "Right of the dashed line the rule is better than random labels."
    )
    return [Picture("What choosing is worth", caption, svg)]


def _order(cells: Sequence[Drawn]) -> list[Picture]:
    """One task: which x were labelled, in which order, by each rule and method."""
    shown = [c for c in cells if "lines x" in c.drawing and c.seed == min(d.seed for d in cells)][
        :MOST
    ]
    if not shown:
        return []
    task = 1
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(3.1 * len(shown), 2.1 * 3), layout="constrained")
        grid = canvas.subplots(3, len(shown), sharex=True, sharey=True, squeeze=False)
        for column, cell in zip(grid.T, shown):
            x, y, picks = (cell.drawing[f"lines {k}"] for k in ("x", "y", "picks"))
            for axes, rule in zip(column, NAMES[:3]):
                axes.plot(x[task], y[task], "o", ms=3.5, mfc="white", mec=RULE, mew=1.2)
                chosen = picks[NAMES.index(rule), task]
                axes.plot(
                    x[task][chosen], y[task][chosen], "o", ms=10, color=SHADES[rule], mec="white"
                )
                for i, row in enumerate(chosen):
                    axes.annotate(
                        str(i + 1),
                        (x[task][row], y[task][row]),
                        ha="center",
                        va="center",
                        color="white",
                        fontsize=7,
                    )
                axes.set_title(f"{cell.method}: {rule}")
        svg = to_svg(canvas, "active-order", "Order in which x were labelled")
    caption = "One task, the same for all: the pool (rings) and the rows that were labelled, in their order."
    return [Picture("Which x, in which order", caption, svg)]


def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """All pictures."""
    cells = [c for c in cells if c.method != UNINFORMED]
    bands = "Bands: 95 % intervals of the difference from random labels, paired over tasks."
    return [
        *_forest(cells),
        *_curves(
            cells,
            "nll",
            "NLL against the number of labels",
            f"Rows that are not in the pool. {bands}",
        ),
        *_curves(
            cells,
            "error",
            "Error against the number of labels",
            f"Squared error of the mean, in training deviations, or the share of wrong classes. {bands}",
        ),
        *_curves(
            cells,
            "regret",
            "Best row found",
            f"How far the best row labelled so far is from the pool's best, in training deviations. {bands}",
        ),
        *_order(cells),
    ]


def sentence(cells: Sequence[Drawn]) -> str:
    """Where choosing beats random labels, with intervals."""
    parts = []
    gains = _gains(cells)
    for setting in SETTINGS:
        own = {
            k: v
            for k, v in gains.items()
            if k[0] == setting and k[1] != EXACT and k[2] in ("entropy", "bald")
        }
        if own:
            key = max(own, key=lambda k: own[k][0] - 1.96 * own[k][1])
            value, error = own[key]
            parts.append(
                f"{setting}: {value:.3f} ({value - 1.96 * error:.3f} to {value + 1.96 * error:.3f}; {key[2]}, {key[1]})"
            )
    if not parts:
        return ""
    return (
        "Nats a row that entropy or BALD gains on random labels, 95 % interval, of the method that gains most surely: "
        + "; ".join(parts)
        + "."
    )
