"""Pictures of `active-learning`: gains of every rule, curves with bands, one task's choices."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.active_learning.data import SUBJECTS
from metaprior.protocols.active_learning.judge import BLOBS, CHARACTERS, EXACT, LINES, UNINFORMED
from metaprior.protocols.active_learning.labelling import RULES, SEEKING
from metaprior.protocols.finished import arrays_of, first_seed
from metaprior.protocols.pictures import (
    DASHED,
    MOST,
    by_setting_and_method,
    legend_below,
    of_first_methods,
    panels,
    styled,
)
from metaprior.protocols.protocol import Drawn, Figure, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import INK, METHOD, MUTED, OTHERS, POINT, RULE

SETTINGS = (LINES, CHARACTERS, BLOBS, *SUBJECTS)
NAMES = RULES + SEEKING
SHADES = dict(zip(NAMES, (MUTED, METHOD, POINT, OTHERS[0], OTHERS[1], OTHERS[2])))
LABELS = {"nll": "NLL", "error": "error", "regret": "regret"}


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """Gains on random labels, curves against the number of labels, one task's choices."""
    cells = [cell for cell in cells if cell.method != UNINFORMED]  # it is in the tables alone
    bands = "Bands: 95 % intervals of the difference from random labels, paired over tasks."
    curves = {
        "nll": ("NLL against the number of labels", f"Rows that are not in the pool. {bands}"),
        "error": (
            "Error against the number of labels",
            "Squared error of the mean, in training deviations, or the share of wrong classes. "
            + bands,
        ),
        "regret": (
            "Best row found",
            "How far the best row labelled so far is from the pool's best, in training "
            f"deviations. {bands}",
        ),
    }
    pictures = _forest(cells)
    for kind, (title, caption) in curves.items():
        pictures += _curves(cells, kind, title, caption)
    return pictures + _order(cells)


def _merged(each: Sequence[np.ndarray]) -> np.ndarray:
    """Means over seeds of `figures.curves`, and half an interval of them, `(3, r, labels + 1)`."""
    mean = np.mean([a[0] for a in each], 0)
    halves = [np.sqrt(np.sum([a[i] ** 2 for a in each], 0)) / len(each) for i in (1, 2)]
    return np.stack([mean, *halves])


def _curves(cells: Sequence[Drawn], kind: str, title: str, caption: str) -> list[Picture]:
    """A row a setting, a column a method, a line a rule."""
    found = of_first_methods(arrays_of(cells, kind, SETTINGS))
    if not found:
        return []
    canvas, place = by_setting_and_method(found, 3.1, 2.5)
    handles: dict[str, Any] = {}
    for (setting, method), each in found.items():
        axes = place[setting, method]
        mean, _, half = _merged(each)
        x = np.arange(mean.shape[1])
        for name, m, h in zip(NAMES, mean, half):
            random = name == RULES[0]
            style = {"lw": 2.2, "zorder": 2} if random else {"lw": 1.5, "zorder": 3}
            (handles[name],) = axes.plot(x, m, color=SHADES[name], **style)
            if not random:
                axes.fill_between(x, m - h, m + h, color=SHADES[name], alpha=0.12, linewidth=0)
        axes.set_title(f"{setting}: {method}")
        place_in_grid = axes.get_subplotspec()
        if place_in_grid.is_first_col():
            axes.set_ylabel(LABELS[kind])
        if place_in_grid.is_last_row():
            axes.set_xlabel("labels")
    canvas.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles)
    )
    return [Picture(title, caption, to_svg(canvas, f"active-{kind}", title))]


def _gains(cells: Sequence[Drawn]) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(setting, method, rule) to random's area less the rule's in NLL, and its standard error."""
    found: dict[tuple[str, str, str], list[Figure]] = {}
    for cell in cells:
        for f in cell.figures:
            if f.metric.startswith("nll_gain_"):
                rule = f.metric.removeprefix("nll_gain_")
                found.setdefault((f.setting, cell.method, rule), []).append(f)

    gains = {}
    for key, each in found.items():
        value = float(np.mean([f.value for f in each]))
        squares = [(f.error or np.nan) ** 2 for f in each]
        gains[key] = value, float(np.sqrt(np.sum(squares)) / len(each))
    return gains


def _forest(cells: Sequence[Drawn]) -> list[Picture]:
    """Gains on random labels with 95 % intervals, a panel a setting."""
    gains = _gains(cells)
    settings = [name for name in SETTINGS if any(setting == name for setting, _, _ in gains)]
    if not settings:
        return []
    methods = list(dict.fromkeys(method for _, method, _ in gains))[::-1]
    size = (2.6 * len(settings) + 1, 0.55 * len(methods) + 1.3)
    canvas, grid = panels(1, len(settings), size, sharey=True)
    for axes, setting in zip(grid[0], settings):
        axes.axvline(0, color=INK, **DASHED)
        for j, rule in enumerate(RULES[1:]):
            here = [m for m in methods if (setting, m, rule) in gains]
            if here:
                value, error = np.array([gains[setting, m, rule] for m in here]).T
                # rules of one method stand a little apart
                y = np.array([methods.index(m) for m in here]) + 0.22 * (1 - j)
                style = {"fmt": "o", "ms": 4, "lw": 1.4, "color": SHADES[rule], "label": rule}
                axes.errorbar(value, y, xerr=1.96 * error, **style)
        axes.set(title=setting, xlabel="nats a row below random")
    grid[0, 0].set_yticks(range(len(methods)), methods)
    legend_below(canvas, grid[0, 0])

    svg = to_svg(canvas, "active-gains", "Area under random's curve less each rule's")
    caption = (
        "Random's mean NLL over 1, 2, … labels less each rule's, paired over tasks, with 95 % "
        "intervals. Right of the dashed line the rule is better than random labels."
    )
    return [Picture("What choosing is worth", caption, svg)]


def _order(cells: Sequence[Drawn]) -> list[Picture]:
    """One task: which x were labelled, in which order, by each rule and method."""
    shown = [cell for cell in first_seed(cells) if "lines x" in cell.drawing] if cells else []
    shown = shown[:MOST]
    if not shown:
        return []
    rules, size = RULES[:3], (3.1 * len(shown), 2.1 * 3)
    canvas, grid = panels(len(rules), len(shown), size, sharex=True, sharey=True)
    for column, cell in zip(grid.T, shown):
        for axes, rule in zip(column, rules):
            _choices(axes, cell, NAMES.index(rule), task=1)
            axes.set_title(f"{cell.method}: {rule}")
    svg = to_svg(canvas, "active-order", "Order in which x were labelled")
    caption = (
        "One task, the same for all: the pool (rings) and the rows that were labelled, in their "
        "order."
    )
    return [Picture("Which x, in which order", caption, svg)]


def _choices(axes: Any, cell: Drawn, rule: int, task: int) -> None:
    """The pool of one task, and the rows that a rule labelled, with their numbers."""
    x, y = cell.drawing["lines x"][task], cell.drawing["lines y"][task]
    chosen = cell.drawing["lines picks"][rule, task]
    axes.plot(x, y, "o", ms=3.5, mfc="white", mec=RULE, mew=1.2)
    axes.plot(x[chosen], y[chosen], "o", ms=10, color=SHADES[NAMES[rule]], mec="white")
    style = {"ha": "center", "va": "center", "color": "white", "fontsize": 7}
    for i, row in enumerate(chosen):
        axes.annotate(str(i + 1), (x[row], y[row]), **style)


def sentence(cells: Sequence[Drawn]) -> str:
    """Where choosing beats random labels, with intervals."""
    gains, parts = _gains(cells), []
    for setting in SETTINGS:
        surest: dict[tuple[str, str], float] = {}
        for (where, method, rule), (value, error) in gains.items():
            if where == setting and method != EXACT and rule in ("entropy", "bald"):
                surest[rule, method] = value - 1.96 * error
        if surest:
            rule, method = max(surest, key=lambda key: surest[key])
            value, error = gains[setting, method, rule]
            low, high = value - 1.96 * error, value + 1.96 * error
            parts.append(f"{setting}: {value:.3f} ({low:.3f} to {high:.3f}; {rule}, {method})")
    if not parts:
        return ""
    return (
        "Nats a row that entropy or BALD gains on random labels, 95 % interval, of the method that "
        "gains most surely: " + "; ".join(parts) + "."
    )
