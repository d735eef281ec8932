"""Pictures of ambiguous faces: an episode with sampled classifiers, and coverage against accuracy."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import INK, METHOD, MUTED, OTHERS, POINT, STYLE, to_svg


def sentence(cells: Sequence[Drawn]) -> str:
    """The best coverage of a method, beside MAML's accuracy."""
    found: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        if cell.method != KNOWN:
            values = {f.metric: f.value for f in cell.figures}
            found.setdefault(cell.method, []).append((values["coverage"], values["accuracy"]))
    means = {name: np.mean(values, axis=0) for name, values in found.items()}
    if not means:
        return ""
    best = max(means, key=lambda name: means[name][0])
    said = f"{best} finds {means[best][0]:.2f} of the 3 concepts, at an accuracy of {means[best][1]:.1f} %"
    if "maml" in means and best != "maml":
        said += f"; MAML finds {means['maml'][0]:.2f}, at {means['maml'][1]:.1f} %"
    return said + "."


KNOWN = "attributes known"


PAPER = (
    ("MAML", 89.0, 1.0),
    ("MAML + noise", 84.3, 1.89),
    ("PLATIPUS, KL 0.05", 88.34, 1.59),
    ("PLATIPUS, KL 0.15", 87.8, 1.94),
)  # accuracy in per cent, coverage: CelebA, table 1, recalled


ROWS = 4  # sampled classifiers in the picture


def strip(images: np.ndarray, gap: int = 1) -> np.ndarray:
    """Images side by side on white, `(h, n (w + gap), 3)`."""
    images = np.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[-1] == 1 else images
    padded = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)


def describe(names: Sequence[str], columns, signs) -> list[str]:
    """The signed attributes in words."""
    return [names[c] if s else f"not {names[c]}" for c, s in zip(columns, signs)]


def different(p: np.ndarray, most: int) -> list[int]:
    """Up to `most` classifiers of `(s, n)` that disagree as much as can be, the first being the
    first.
    """
    chosen = [0]
    while len(chosen) < min(most, len(p)):
        gap = np.abs(p[:, None] - p[chosen][None]).mean(-1).min(1)
        chosen.append(int(gap.argmax()))
    return chosen


def query_order(held: np.ndarray) -> np.ndarray:
    """One query image of each combination of the three attributes, and a second of those with two."""
    code = held @ np.array([4, 2, 1])
    return np.concatenate(
        [
            np.flatnonzero(code == c)[:n]
            for c, n in ((7, 2), (6, 2), (5, 2), (3, 2), (4, 1), (2, 1), (1, 1), (0, 1))
        ]
    )


def episode(cell: Drawn, data: Any, number: int) -> Canvas:
    """The support, then some query images, and below each what sampled classifiers say of it."""
    d = cell.drawing
    pixels, names, (_, _, judged) = data.pixels, data.names, data.triples
    t = int(d["triple"][number])
    words = describe(names, judged.columns[t], judged.signs[t])
    support, held = d["support"][number], d["held"][number].reshape(-1, 3)
    query = d["query"][number].reshape(-1, *pixels.shape[1:])
    p = d["p"][number].reshape(len(d["p"][number]), -1)
    order = query_order(held)
    rows = different(p[:, order], ROWS)
    figure = Canvas(figsize=(7.2, 2.35 + 0.22 * len(rows)), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, height_ratios=[1.0, 0.9, 0.3 * (3 + len(rows))])
    half, (h, w) = len(support) // 2, pixels.shape[1:3]
    gap = np.full((h, w, 3), 255, np.uint8)
    top.imshow(
        np.concatenate([strip(support[:half]), gap, strip(support[half:])], axis=1),
        interpolation="nearest",
    )
    top.set_title(f"shown: positives are {', '.join(words)}  |  negatives: none of these")
    middle.imshow(strip(query[order]), interpolation="nearest")
    middle.set_title("asked")
    table = np.concatenate([held[order].T.astype(float), p[rows][:, order]])
    for y, line in enumerate(table):
        for x, value in enumerate(line):
            if y < 3:
                bottom.plot(x, y, "o", ms=4.5, mfc=INK if value else "none", mec=MUTED, mew=0.7)
            else:
                bottom.add_patch(
                    Rectangle(
                        (x - 0.45, y - 0.42),
                        0.9,
                        0.84,
                        fc=METHOD,
                        ec=MUTED,
                        lw=0.3,
                        alpha=0.06 + 0.94 * float(value),
                    )
                )
    labels = [*words, *(f"classifier {i + 1}" for i in range(len(rows)))]
    bottom.set(
        yticks=range(len(labels)),
        yticklabels=labels,
        xticks=[],
        xlim=(-0.5, len(order) - 0.5),
        ylim=(len(labels) - 0.4, -0.6),
    )
    for axes in (top, middle):
        axes.set(xticks=[], yticks=[])
    for axes in (top, middle, bottom):
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)
    return figure


def scatter(cells: Sequence[Drawn]) -> Canvas:
    """Coverage against accuracy: a point a run, and the paper's on CelebA."""
    figure = Canvas(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for name, accuracy, coverage in PAPER:
        axes.plot(accuracy, coverage, "x", color=MUTED, ms=6, mew=1.3)
        axes.annotate(
            name,
            (accuracy, coverage),
            (5, -9),
            textcoords="offset points",
            color=MUTED,
            fontsize=7.5,
        )
    methods = list(dict.fromkeys(cell.method for cell in cells))
    shades = [c for c in (METHOD, POINT, *OTHERS)]
    for i, method in enumerate(methods):
        found = [
            {f.metric: f.value for f in cell.figures} for cell in cells if cell.method == method
        ]
        colour = INK if method == KNOWN else shades[i % len(shades)]
        axes.plot(
            [f["accuracy"] for f in found],
            [f["coverage"] for f in found],
            "o",
            color=colour,
            ms=7,
            mec="white",
            mew=0.8,
        )
        axes.annotate(
            method,
            (found[0]["accuracy"], found[0]["coverage"]),
            (6, 4),
            textcoords="offset points",
            color=colour,
            fontsize=9,
        )
    axes.set(
        xlabel="accuracy of the covered concepts, %",
        ylabel="coverage, of 3 concepts",
        ylim=(0.9, 3.1),
    )
    axes.margins(x=0.12)
    return figure


def draw(cells: Sequence[Drawn], options: dict, data: Any) -> list[Picture]:
    """An episode as each method sees it, and coverage against accuracy."""
    pictures, seen = [], set()
    with matplotlib.rc_context(STYLE):
        pictures.append(
            Picture(
                "Several concepts, each of them right",
                "Coverage: how many of the three concepts at least one of ten sampled classifiers means. Crosses: the paper's "
                "table 1 on CelebA, recalled, other images. One function covers one concept, however accurate.",
                to_svg(scatter(cells), "attributes-scatter", "Coverage against accuracy"),
            )
        )
        for cell in cells:
            if cell.method in seen:
                continue
            seen.add(cell.method)
            pictures.append(
                Picture(
                    f"One episode: {cell.method}",
                    "Dots: which of the three attributes an image has. Squares: sampled classifiers, the darker the surer of "
                    "'positive'. A classifier that means a pair is dark below every image with both dots of the pair.",
                    to_svg(
                        episode(cell, data, 0),
                        f"attributes-{len(seen)}",
                        f"Sampled classifiers of {cell.method}",
                    ),
                )
            )
    return pictures
