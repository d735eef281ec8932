"""Pictures of `few-shot-images`: a task with its probabilities, reliability, errors of the runs
beside the published.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import METHOD, MUTED, POINT, RULE, STYLE, colours, to_svg

# error of Lake's runs by background; Lake et al. 2015
PUBLISHED = {
    "original": {"people": 0.045, "program learning": 0.033, "convnet": 0.135},
    "small1": {"program learning": 0.043, "convnet": 0.240},
    "small2": {"program learning": 0.040, "convnet": 0.223},
}


GUESSING = "guessing"  # a reference without pictures


def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """An example a method, reliability, Lake's runs."""
    cells = [c for c in cells if c.method != GUESSING]
    first = [c for c in cells if c.seed == min(c.seed for c in cells)]
    ink = data is None or data.rotations  # drawings, ink high
    pictures = [
        _example(c, "gray_r" if ink else "gray") for c in first if "example p" in c.drawing
    ][:3]
    settings = [f.setting for c in cells for f in c.figures if f.metric == "ece"]
    for setting in list(dict.fromkeys(settings)):
        if setting.endswith(("5-way 1-shot", "small1")) or len(set(settings)) < 3:
            pictures.append(_reliability(cells, setting))
    if any(f.metric == "error" for c in cells for f in c.figures):
        pictures.append(_runs(cells))
    return pictures


def _show(axes: Any, image: np.ndarray, shades: str) -> None:
    if image.shape[-1] == 1:
        axes.imshow(image[..., 0], cmap=shades, vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(np.clip(image, 0, 1), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def _example(cell: Drawn, shades: str) -> Picture:
    support, query = cell.drawing["example support"], cell.drawing["example query"]
    p, y = cell.drawing["example p"], cell.drawing["example y"]
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(
            figsize=(1.0 + 0.95 * len(support), 0.9 * (len(query) + 1)), layout="constrained"
        )
        grid = canvas.subplots(len(query) + 1, len(support) + 1, squeeze=False)
        grid[0, 0].set_axis_off()
        for j, image in enumerate(support):
            _show(grid[0, j + 1], image, shades)
        for i, image in enumerate(query):
            _show(grid[i + 1, 0], image, shades)
            for j in range(len(support)):
                axes = grid[i + 1, j + 1]
                axes.set_axis_off()
                right = y[i] == j
                axes.barh(0, 1, color=RULE, height=0.5)
                axes.barh(0, p[i, j], color=METHOD if right else POINT, height=0.5)
                axes.text(0, 0.75, f"{p[i, j]:.2f}", fontsize=8, color=MUTED, va="center")
                axes.set_xlim(0, 1)
                axes.set_ylim(-0.6, 1.1)
        svg = to_svg(
            canvas,
            f"example-{cell.method}-{cell.seed}",
            f"An episode with {cell.method}'s probabilities",
        )
    caption = (
        f"Above an image of each class, on the left images to classify, and {cell.method}'s probability of each class: "
        "green of the right one, red of a wrong one. Of the judged tasks the one it is least certain of."
    )
    return Picture(f"One task, {cell.method}", caption, svg, wide=False)


def _reliability(cells: Sequence[Drawn], setting: str) -> Picture:
    names = list(dict.fromkeys(c.method for c in cells if f"bins {setting}" in c.drawing))
    shades = colours(["method", *names])
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(4.6, 3.8))
        axes = canvas.add_subplot()
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 3)))
        for name in names:
            mine = [c.drawing for c in cells if c.method == name and f"bins {setting}" in c.drawing]
            found = [np.nan_to_num(drawing[f"bins {setting}"]) for drawing in mine]
            count = sum(f[0] for f in found)
            stated, came = (sum(f[0] * f[i] for f in found) / np.maximum(count, 1) for i in (1, 2))
            some = count >= 5
            size = 4 + 10 * np.sqrt(count / max(count.max(), 1))
            axes.plot(stated[some], came[some], "-", color=shades[name], label=name)
            axes.scatter(
                stated[some],
                came[some],
                s=size[some] ** 2 / 2,
                color=shades[name],
                ec="white",
                lw=0.6,
                zorder=3,
            )
        axes.set_xlabel("stated probability of the most probable class")
        axes.set_ylabel("share that was right")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.legend(loc="upper left")
        slug = "".join(ch if ch.isalnum() else "-" for ch in setting)
        svg = to_svg(canvas, f"reliability-{slug}", f"Reliability, {setting}")
    caption = "Rows of all tasks pooled into 15 equal bins, those with 5 rows or more; larger dots hold more rows."
    return Picture(f"Reliability, {setting}", caption, svg, wide=False)


def _runs(cells: Sequence[Drawn]) -> Picture:
    found: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        for f in cell.figures:
            if f.metric == "error":
                found.setdefault(f.setting.removeprefix("20 runs, "), {}).setdefault(
                    cell.method, []
                ).append(f.value)
    groups = [g for g in ("no background", "original", "small1", "small2") if g in found]
    bars = []
    for group in groups:
        rows = {name: (float(np.mean(v)), True) for name, v in found[group].items()}
        rows |= {name: (v, False) for name, v in PUBLISHED.get(group, {}).items()}
        bars += [
            (group, name, *value) for name, value in sorted(rows.items(), key=lambda r: r[1][0])
        ]
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(6.4, 0.6 + 0.27 * (len(bars) + len(groups))), layout="constrained")
        axes = canvas.add_subplot()
        at, labels, before = 0.0, [], None
        for group, name, value, ours in bars:
            at += 1.0 if group == before or before is None else 1.9
            before = group
            axes.barh(-at, 100 * value, color=METHOD if ours else RULE, height=0.78)
            axes.text(
                100 * value + 0.5, -at, f"{100 * value:.1f}", va="center", fontsize=8.5, color=MUTED
            )
            labels.append((-at, f"{name}  ({group})"))
        axes.set_yticks([place for place, _ in labels], [text for _, text in labels])
        axes.grid(False, axis="y")
        axes.set_xlabel("error in per cent of 400 drawings")
        svg = to_svg(canvas, "runs", "Errors of Lake's one-shot runs")
    caption = (
        "20-way one-shot classification within an alphabet, after training on 30 background alphabets (original) or five "
        "(small1, small2). Green: measured here; grey: Lake et al. 2015. One standard error of 400 drawings is about two points."
    )
    return Picture("Lake's twenty runs", caption, svg, wide=False)


def sentence(cells: Sequence[Drawn]) -> str:
    """Who classifies best."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for cell in cells:
        for f in cell.figures:
            if f.metric in ("accuracy", "error") and cell.method != GUESSING:
                found.setdefault((f.setting, f.metric), {}).setdefault(cell.method, []).append(
                    f.value
                )
    mean = {k: {n: float(np.mean(v)) for n, v in each.items()} for k, each in found.items()}
    parts = []
    accuracy = [k for k in mean if k[1] == "accuracy"]
    if accuracy:
        key = accuracy[0]
        best = max(mean[key], key=lambda n: mean[key][n])
        parts.append(f"{key[0]}: {best} classifies {mean[key][best]:.1%} of the images rightly")
    runs = mean.get(("20 runs, mean of small1 and small2", "error"))
    if runs:
        best = min(runs, key=lambda n: runs[n])
        parts.append(
            f"on Lake's runs after five alphabets {best} errs in {runs[best]:.1%} (a convolutional network of 2015: 23.2 %)"
        )
    return "; ".join(parts) + "." if parts else ""
