"""Pictures of drawn views: a grid of samples, and how error and diversity grow with the angle."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import METHOD, MUTED, OTHERS, POINT, STYLE, to_svg


def sentence(cells: Sequence[Drawn]) -> str:
    """The best sampler beside the deterministic control."""
    found: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        for f in cell.figures:
            found.setdefault(cell.method, {}).setdefault(f.metric, []).append(f.value)
    mean = {
        name: {k: float(np.mean(v)) for k, v in values.items()} for name, values in found.items()
    }
    samplers = [name for name in mean if name not in (MEAN, CONTROL) and mean[name]["side"] > 0]
    if not samplers:
        return ""
    best = min(samplers, key=lambda name: mean[name]["joint"])
    said = f"{best}: mean squared error {mean[best]['mse']:.4f}, {mean[best]['joint']:.3f} nats a pixel"
    beside = [name for name in ("cnp", CONTROL, MEAN) if name in mean and name != best]
    said += "".join(
        f"; {name}: {mean[name]['mse']:.4f}, {mean[name]['joint']:.3f}" for name in beside
    )
    return (
        said
        + f". Its draws differ {mean[best]['side'] / max(mean[best]['near'], 1e-9):.2f} times as much from the side."
    )


MEAN, CONTROL = "mean view", "C-VAE"


SIDES = 9  # views a row


def grid(cell: Drawn, number: int) -> np.ndarray:
    """Rows: truth, mean of the draws, single draws; the first column is the view shown; `(h, w)`
    bytes.
    """
    d = cell.drawing
    n, pixels = d["y"].shape[1:]
    size = round(pixels**0.5)
    pick = np.linspace(0, n - 1, SIDES).round().astype(int)

    def line(images):
        return np.concatenate(
            [np.pad(i.reshape(size, size), 1, constant_values=90) for i in images], axis=1
        )

    blank = np.zeros((1, pixels), np.uint8)
    draws = d["draws"][number]
    rows = [np.concatenate([d["shown"][number], d["y"][number][pick]])]
    rows.append(np.concatenate([blank, d["mean"][number][pick]]))
    if len(draws) > 1:
        rows += [np.concatenate([blank, draw[pick]]) for draw in draws]
    return np.concatenate([line(row) for row in rows])


def panel(cell: Drawn, count: int) -> Canvas:
    """Grids of some objects below one another."""
    grids = [grid(cell, i) for i in range(count)]
    figure = Canvas(
        figsize=(7.2, 7.2 * sum(len(g) for g in grids) / grids[0].shape[1]), layout="constrained"
    )
    for axes, image in zip(np.ravel(figure.subplots(count, 1)), grids):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
    return figure


def against_angle(first: dict[str, Drawn]) -> Canvas:
    """Error of the mean, and difference between two draws, against the angle to the view shown."""
    figure = Canvas(figsize=(7.2, 2.9), layout="constrained")
    panels = figure.subplots(1, 2)
    shades = [METHOD, POINT, *OTHERS]
    names = [name for name in first if name != MEAN] + [name for name in first if name == MEAN]
    for i, name in enumerate(names):
        d = first[name].drawing
        away = np.round(d["away"]).astype(int)
        angles = np.unique(away)
        colour = MUTED if name == MEAN else shades[i % len(shades)]
        for axes, key in zip(panels, ("mse", "spread")):
            if key == "mse" or d["spread"].max() > 1e-6:
                axes.plot(
                    angles, [d[key][away == a].mean() for a in angles], color=colour, label=name
                )
    panels[0].set(title="squared error of the mean", xlabel="degrees from the view shown")
    panels[1].set(title="difference between two draws", xlabel="degrees from the view shown")
    for axes in panels:
        axes.set_xticks([0, 60, 120, 180])
        axes.set_ylim(bottom=0)
    panels[0].legend()
    return figure


def draw(cells: Sequence[Drawn], options: dict, data: Any) -> list[Picture]:
    """Samples of every method's first seed, then error and diversity by angle."""
    first: dict[str, Drawn] = {}
    for cell in cells:
        first.setdefault(cell.method, cell)
    pictures = []
    with matplotlib.rc_context(STYLE):
        pictures.append(
            Picture(
                "Near and far from the view shown",
                "Left: error of the mean. Right: root mean squared difference between two draws, which should be largest "
                "about a quarter turn away, where depth and hidden parts show; the back has the outline of the front again.",
                to_svg(
                    against_angle(first), "generation-angle", "Error and diversity against angle"
                ),
            )
        )
        for i, (name, cell) in enumerate(first.items()):
            if name == MEAN:
                continue
            several = cell.drawing["draws"].shape[1] > 1
            rows = (
                "truth, mean of the draws, then single draws"
                if several
                else "truth, then what the method draws"
            )
            pictures.append(
                Picture(
                    f"Drawn by {name}",
                    f"Two held-out objects. First column: the view shown. Rows: {rows}.",
                    to_svg(panel(cell, 2), f"generation-{i}", f"Views drawn by {name}"),
                )
            )
    return pictures
