"""Pictures of `few-shot-images`: a task, reliability, and Lake's runs beside published errors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.few_shot_images.controls import CONTROLS
from metaprior.protocols.few_shot_images.judge import BOTH_MINIMAL, GUESSING, HAUSDORFF, run_of
from metaprior.protocols.finished import first_seed, highest, lowest, means, methods_of
from metaprior.protocols.pictures import diagonal, one_panel, panels, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import colours, to_svg
from metaprior.system.style import METHOD, MUTED, POINT, RULE

PROGRAMS, CONVNET = "Bayesian program learning", "convolutional network"
# Error of Lake's runs by background; Lake et al. 2015.
PUBLISHED: dict[str, dict[str, float]] = {
    "original": {
        "people": 0.045,
        PROGRAMS: 0.033,
        CONVNET: 0.135,
        "hierarchical deep model": 0.348,
    },
    "small1": {PROGRAMS: 0.043, CONVNET: 0.240},
    "small2": {PROGRAMS: 0.040, CONVNET: 0.223},
    "no background": {"modified Hausdorff distance": 0.388},
    BOTH_MINIMAL: {PROGRAMS: 0.042, CONVNET: 0.232},
}
GROUPS = ("no background", "original", "small1", "small2")
BESIDE = ("people", PROGRAMS, CONVNET)  # published errors in the picture


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """An example a method, reliability, Lake's runs."""
    cells = [cell for cell in cells if cell.method != GUESSING]  # it is in the tables alone
    if not cells:
        return []
    ink = data is None or data.rotations  # drawings have the ink high
    own = [cell for cell in first_seed(cells) if cell.method not in CONTROLS]
    examples = [cell for cell in own if "example p" in cell.drawing]
    pictures = [_example(cell, "gray_r" if ink else "gray") for cell in examples[:3]]

    found = means(cells)
    settings = [setting for setting, metric in found if metric == "ece"]
    for setting in settings:
        if len(settings) < 3 or setting.endswith(("5-way 1-shot", "small1")):
            pictures.append(_reliability(cells, setting))
    if any(metric == "error" for _, metric in found):
        pictures.append(_runs(cells, found))
    return pictures


def _show(axes: Any, image: np.ndarray, shades: str) -> None:
    """One image, grey or in colours."""
    if image.shape[-1] == 1:
        axes.imshow(image[..., 0], cmap=shades, vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(np.clip(image, 0, 1), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def _example(cell: Drawn, shades: str) -> Picture:
    """A task: images of the classes above, images to classify on the left, probabilities."""
    support, query = cell.drawing["example support"], cell.drawing["example query"]
    p, y = cell.drawing["example p"], cell.drawing["example y"]
    size = (1.0 + 0.95 * len(support), 0.9 * (len(query) + 1))
    canvas, grid = panels(len(query) + 1, len(support) + 1, size)
    grid[0, 0].set_axis_off()
    for axes, image in zip(grid[0, 1:], support):
        _show(axes, image, shades)
    for line, image, probabilities, right in zip(grid[1:], query, p, y):
        _show(line[0], image, shades)
        for j, axes in enumerate(line[1:]):
            _bar(axes, probabilities[j], METHOD if right == j else POINT)

    name = cell.method
    label = f"An episode with {name}'s probabilities"
    svg = to_svg(canvas, f"example-{name}-{cell.seed}", label)
    caption = (
        f"Above: an image of each class. On the left: images to classify. Bars: {name}'s "
        "probability of each class, green for the right one, red for a wrong one. It is the first "
        "of the judged tasks, the same for all methods."
    )
    return Picture(f"One task, {name}", caption, svg, wide=False)


def _bar(axes: Any, p: float, colour: str) -> None:
    """A probability as a bar with its number."""
    axes.set_axis_off()
    axes.barh(0, 1, color=RULE, height=0.5)
    axes.barh(0, p, color=colour, height=0.5)
    axes.text(0, 0.75, f"{p:.2f}", fontsize=8, color=MUTED, va="center")
    axes.set(xlim=(0, 1), ylim=(-0.6, 1.1))


def _reliability(cells: Sequence[Drawn], setting: str) -> Picture:
    """Stated against true, a line a method."""
    key = f"bins {setting}"
    drawn = [cell for cell in cells if key in cell.drawing]
    names = methods_of(drawn)
    shades = colours(["method", *names])
    canvas, axes = one_panel()
    diagonal(axes)
    for name in names:
        # bins without rows have no mean
        found = [np.nan_to_num(cell.drawing[key]) for cell in drawn if cell.method == name]
        count, stated, came = np.sum([(n, n * s, n * c) for n, s, c in found], axis=0)
        some = count >= 5
        x, y = stated[some] / count[some], came[some] / count[some]
        size = 4 + 10 * np.sqrt(count[some] / max(count.max(), 1))
        axes.plot(x, y, "-", color=shades[name], label=name)
        axes.scatter(x, y, s=size**2 / 2, color=shades[name], ec="white", lw=0.6, zorder=3)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), ylabel="share that was right")
    axes.set_xlabel("stated probability of the most probable class")
    axes.legend(loc="upper left")

    slug = "".join(ch if ch.isalnum() else "-" for ch in setting)
    svg = to_svg(canvas, f"reliability-{slug}", f"Reliability, {setting}")
    caption = (
        "Rows of all tasks pooled into 15 equal bins, those with 5 rows or more. Larger dots hold "
        "more rows."
    )
    return Picture(f"Reliability, {setting}", caption, svg, wide=False)


def _runs(cells: Sequence[Drawn], found: dict[tuple[str, str], dict[str, float]]) -> Picture:
    """Errors of Lake's runs as bars, ours and published, best first in each group."""
    own = {group: found.get((run_of(group), "error"), {}) for group in GROUPS}
    groups = [group for group in GROUPS if own[group]]
    bars = []
    for group in groups:
        published = {n: v for n, v in PUBLISHED[group].items() if n in BESIDE}
        rows = own[group] | published
        for name in sorted(rows, key=lambda name: rows[name]):
            bars.append((group, name, 100 * rows[name], name in own[group]))

    size = (6.4, 0.6 + 0.27 * (len(bars) + len(groups)))
    canvas, grid = panels(1, 1, size)
    axes, at, places, before = grid[0, 0], 0.0, {}, bars[0][0]
    for group, name, value, ours in bars:
        at -= 1.0 if group == before else 1.9  # a gap between groups
        before = group
        places[at] = f"{name}  ({group})"
        axes.barh(at, value, color=METHOD if ours else RULE, height=0.78)
        axes.text(value + 0.5, at, f"{value:.1f}", va="center", fontsize=8.5, color=MUTED)
    axes.set_yticks(list(places), list(places.values()))
    axes.grid(False, axis="y")
    axes.set_xlabel("error in per cent of 400 drawings")

    svg = to_svg(canvas, "runs", "Errors of Lake's one-shot runs")
    caption = (
        "20-way one-shot classification within an alphabet, after training on 30 background "
        "alphabets (original) or five (small1, small2). Green: measured here. Grey: Lake et al. "
        f"2015. Standard errors over the twenty runs: {_errors(cells)} points."
    )
    return Picture("Lake's twenty runs", caption, svg, wide=False)


def _errors(cells: Sequence[Drawn]) -> str:
    """The least and the largest standard error of what was measured here, per cent."""
    figures = [figure for cell in cells for figure in cell.figures if figure.metric == "error"]
    errors = [100 * figure.error for figure in figures if figure.error is not None]
    low, high = min(errors), max(errors)
    return f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"


def sentence(cells: Sequence[Drawn]) -> str:
    """Who classifies best, and which methods lose to what learns nothing."""
    found = means(cells, but=(GUESSING, HAUSDORFF))
    parts = []
    first = next((setting for setting, metric in found if metric == "accuracy"), None)
    if first is not None:
        parts.append(_of_accuracy(first, found[first, "accuracy"]))
    error = found.get((run_of(BOTH_MINIMAL), "error"))
    if error:
        best, before = lowest(error), PUBLISHED[BOTH_MINIMAL][CONVNET]
        parts.append(
            f"on Lake's runs after five alphabets {best} errs in {error[best]:.1%} (a "
            f"convolutional network of 2015: {100 * before:.1f} %)"
        )
    return "; ".join(parts) + "." if parts else ""


def _of_accuracy(setting: str, accuracy: dict[str, float]) -> str:
    """The best of a setting, and the best control beside it."""
    best = highest(accuracy)
    said = f"{setting}: {best} classifies {accuracy[best]:.1%} of the images rightly"
    free = {name: value for name, value in accuracy.items() if name in CONTROLS}
    if not free:
        return said
    control = highest(free)
    behind = [name for name, value in accuracy.items() if value <= free[control]]
    behind = [name for name in behind if name not in CONTROLS]
    if control != best:
        said += f", {control}, which learns nothing, {free[control]:.1%}"
    return said + (f"; {' and '.join(behind)} lose to that" if behind else "")
