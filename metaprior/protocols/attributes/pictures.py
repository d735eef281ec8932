"""Pictures of ambiguous faces: coverage against accuracy, one episode as methods see it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from metaprior.protocols.attributes.controls import CONTROLS
from metaprior.protocols.attributes.judge import KNOWN
from metaprior.protocols.finished import first_of_each, lowest, means, methods_of
from metaprior.protocols.pictures import bare, panels, shades_of, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import INK, METHOD, MUTED

# CelebA, table 1 of the paper, recalled: accuracy in per cent, coverage, nats a label.
PUBLISHED: dict[str, dict[str, float]] = {
    "MAML": {"accuracy": 89.0, "coverage": 1.0, "nll": 0.73},
    "MAML + noise": {"accuracy": 84.3, "coverage": 1.89, "nll": 0.68},
    "PLATIPUS (KL 0.05)": {"accuracy": 88.34, "coverage": 1.59, "nll": 0.67},
    "PLATIPUS (KL 0.15)": {"accuracy": 87.8, "coverage": 1.94, "nll": 0.56},
}
NEARLY = 2.0  # points of accuracy within which a method is as accurate as the best
ROWS = 4  # sampled classifiers in the picture
# How many query images are shown of each combination of the three attributes, as bits.
COMBINATIONS = {7: 2, 6: 2, 5: 2, 3: 2, 4: 1, 2: 1, 1: 1, 0: 1}


@styled()
def draw(cells: Sequence[Drawn], options: dict, data: Any) -> list[Picture]:
    """Coverage against accuracy, and an episode as each method sees it."""
    caption = (
        "Coverage: how many of the three concepts at least one of ten sampled classifiers means. "
        "Crosses: the paper's table 1 on CelebA, recalled; other images. One function covers one "
        "concept, however accurate."
    )
    svg = to_svg(scatter(cells), "attributes-scatter", "Coverage against accuracy")
    pictures = [Picture("Several concepts, each of them right", caption, svg)]

    caption = (
        "Dots: which of the three attributes an image has. Squares: sampled classifiers; the "
        "darker, the surer of 'positive'. A classifier that means a pair is dark below every image "
        "with both dots of the pair."
    )
    shown = [cell for cell in cells if cell.method not in CONTROLS]
    for i, (method, cell) in enumerate(first_of_each(shown).items()):
        label = f"Sampled classifiers of {method}"
        svg = to_svg(episode(cell, data, 0), f"attributes-{i + 1}", label)
        pictures.append(Picture(f"One episode: {method}", caption, svg))
    return pictures


def strip(images: np.ndarray, gap: int = 1) -> np.ndarray:
    """Images side by side on white, `(h, n (w + gap), 3)`."""
    colours = np.broadcast_to(images, (*images.shape[:3], 3))
    padded = np.pad(colours, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)


def describe(names: Sequence[str], columns, signs) -> list[str]:
    """The signed attributes in words."""
    return [names[c] if s else f"not {names[c]}" for c, s in zip(columns, signs)]


def different(p: np.ndarray, most: int) -> list[int]:
    """Up to `most` classifiers of `(s, n)`: the first, then those that disagree most."""
    chosen = [0]
    while len(chosen) < min(most, len(p)):
        gap = np.abs(p[:, None] - p[chosen][None]).mean(-1).min(1)
        chosen.append(int(gap.argmax()))
    return chosen


def query_order(held: np.ndarray) -> np.ndarray:
    """Query images of each combination of the three attributes, those with two of them twice."""
    code = held @ np.array([4, 2, 1])
    return np.concatenate([np.flatnonzero(code == c)[:n] for c, n in COMBINATIONS.items()])


def episode(cell: Drawn, data: Any, number: int) -> Canvas:
    """The support, then some query images, and below each what sampled classifiers say of it."""
    drawing = cell.drawing
    judged = data.triples[2]
    t = int(drawing["triple"][number])
    words = describe(data.names, judged.columns[t], judged.signs[t])
    support, held = drawing["support"][number], drawing["held"][number].reshape(-1, 3)
    query = drawing["query"][number].reshape(-1, *data.pixels.shape[1:])
    p = drawing["p"][number].reshape(len(drawing["p"][number]), -1)
    order = query_order(held)
    rows = different(p[:, order], ROWS)

    ratios = [1.0, 0.9, 0.3 * (3 + len(rows))]
    canvas, grid = panels(3, 1, (7.2, 2.35 + 0.22 * len(rows)), height_ratios=ratios)
    top, middle, bottom = grid[:, 0]
    half, (height, width) = len(support) // 2, data.pixels.shape[1:3]
    gap = np.full((height, width, 3), 255, np.uint8)
    positives, negatives = strip(support[:half]), strip(support[half:])
    top.imshow(np.concatenate([positives, gap, negatives], axis=1), interpolation="nearest")
    top.set_title(f"shown: positives are {', '.join(words)}  |  negatives: none of these")
    middle.imshow(strip(query[order]), interpolation="nearest")
    middle.set_title("asked")

    _attributes(bottom, held[order].T)
    _classifiers(bottom, p[rows][:, order], first=3)
    labels = [*words, *(f"classifier {i + 1}" for i in range(len(rows)))]
    bottom.set(yticks=range(len(labels)), yticklabels=labels)
    bottom.set(xlim=(-0.5, len(order) - 0.5), ylim=(len(labels) - 0.4, -0.6), xticks=[])
    for axes in (top, middle):
        axes.set(xticks=[], yticks=[])
    for axes in (top, middle, bottom):
        bare(axes)
    return canvas


def _attributes(axes: Any, held: np.ndarray) -> None:
    """A dot for each image and attribute `(3, n)`: filled where the image has it."""
    for y, line in enumerate(held):
        for x, has in enumerate(line):
            axes.plot(x, y, "o", ms=4.5, mfc=INK if has else "none", mec=MUTED, mew=0.7)


def _classifiers(axes: Any, p: np.ndarray, first: int) -> None:
    """A square for each image and classifier `(s, n)`, from row `first` on."""
    for y, line in enumerate(p):
        for x, value in enumerate(line):
            corner = (x - 0.45, first + y - 0.42)
            shade = 0.06 + 0.94 * float(value)
            axes.add_patch(Rectangle(corner, 0.9, 0.84, fc=METHOD, ec=MUTED, lw=0.3, alpha=shade))


def scatter(cells: Sequence[Drawn]) -> Canvas:
    """Coverage against accuracy: a point a run, and the paper's on CelebA."""
    canvas, grid = panels(1, 1, (6.4, 3.8))
    axes = grid[0, 0]
    for name, values in PUBLISHED.items():
        place = (values["accuracy"], values["coverage"])
        axes.plot(*place, "x", color=MUTED, ms=6, mew=1.3)
        _name(axes, name, place, (5, -9), MUTED, 7.5)

    shades = shades_of(methods_of(cells)) | {KNOWN: INK}
    for method in methods_of(cells):
        runs = [cell for cell in cells if cell.method == method]
        found = [{f.metric: f.value for f in cell.figures} for cell in runs]
        places = np.array([(f["accuracy"], f["coverage"]) for f in found])
        axes.plot(*places.T, "o", color=shades[method], ms=7, mec="white", mew=0.8)
        _name(axes, method, tuple(places[0]), (6, 4), shades[method], 9)
    axes.set(xlabel="accuracy of the covered concepts, %", ylabel="coverage, of 3 concepts")
    axes.set_ylim(0.9, 3.1)
    axes.margins(x=0.12)
    return canvas


def _name(
    axes: Any, name: str, place: tuple, offset: tuple[int, int], colour: str, size: float
) -> None:
    """A name beside a point; `offset` in points."""
    axes.annotate(name, place, offset, textcoords="offset points", color=colour, fontsize=size)


def sentence(cells: Sequence[Drawn]) -> str:
    """The likeliest method, the widest of the accurate ones, and who loses to a control."""
    found = means(cells, but=(KNOWN,))
    nll, coverage, accuracy = (
        found.get(("", name), {}) for name in ("marginal", "coverage", "accuracy")
    )
    own = [name for name in nll if name not in CONTROLS]
    if not own:
        return ""
    best = min(own, key=lambda name: nll[name])
    said = f"{best} has the best marginal NLL, {nll[best]:.3f} nats a label"
    free = {name: nll[name] for name in CONTROLS if name in nll}
    if free:
        control = lowest(free)
        said += f" ({control}, which learns nothing: {free[control]:.3f})"
        behind = [name for name in own if nll[name] >= free[control]]
        said += f"; {' and '.join(behind)} lose to that" if behind else ""
    accurate = [name for name in own if accuracy[name] >= max(accuracy.values()) - NEARLY]
    if accurate:
        widest = max(accurate, key=lambda name: coverage[name])
        said += (
            f"; of those within {NEARLY:g} points of the best accuracy, {widest} finds most of "
            f"the 3 concepts, {coverage[widest]:.2f} at {accuracy[widest]:.1f} %"
        )
    return said + "."
