"""Pictures of drawn views: how error and diversity grow with the angle, and grids of draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from metaprior.protocols.ambiguous_generation.judge import CONTROL
from metaprior.protocols.ambiguous_generation.smoothers import MEAN, NEAREST, RIDGE
from metaprior.protocols.finished import first_of_each, lowest, means
from metaprior.protocols.pictures import panels, shades_of, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import MUTED

FREE = (RIDGE, NEAREST, MEAN)
REFERENCES = (*FREE, CONTROL)
SIDES = 9  # views a row
OBJECTS = 2  # in the picture of a method


@styled()
def draw(cells: Sequence[Drawn], options: dict, data: Any) -> list[Picture]:
    """Error and diversity by angle, then draws of every method's first seed."""
    first = first_of_each(cells)
    caption = (
        "Left: error of the mean. Right: root mean squared difference between two draws. It should "
        "be largest about a quarter turn away, where depth and hidden parts show; the back has the "
        "outline of the front again."
    )
    svg = to_svg(against_angle(first), "generation-angle", "Error and diversity against angle")
    pictures = [Picture("Near and far from the view shown", caption, svg)]
    for i, (name, cell) in enumerate(first.items()):
        if name != MEAN:
            pictures.append(_drawn_by(name, cell, i))
    return pictures


def _drawn_by(name: str, cell: Drawn, number: int) -> Picture:
    """Views drawn by one method."""
    rows = "truth, then what the method draws"
    if cell.drawing["draws"].shape[1] > 1:
        rows = "truth, mean of the draws, then single draws"
    caption = f"Two held-out objects. First column: the view shown. Rows: {rows}."
    svg = to_svg(panel(cell, OBJECTS), f"generation-{number}", f"Views drawn by {name}")
    return Picture(f"Drawn by {name}", caption, svg)


def grid(cell: Drawn, number: int) -> np.ndarray:
    """One object as bytes `(h, w)`: rows of truth, mean of the draws, single draws.

    The first column is the view shown.
    """
    drawing = cell.drawing
    n, pixels = drawing["y"].shape[1:]
    size = round(pixels**0.5)
    pick = np.linspace(0, n - 1, SIDES).round().astype(int)
    blank = np.zeros((1, pixels), np.uint8)
    draws = drawing["draws"][number]

    rows = [(drawing["shown"][number], drawing["y"][number])]
    rows.append((blank, drawing["mean"][number]))
    if len(draws) > 1:
        rows += [(blank, views) for views in draws]

    def line(first: np.ndarray, views: np.ndarray) -> np.ndarray:
        images = np.concatenate([first, views[pick]]).reshape(-1, size, size)
        framed = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=90)
        return np.concatenate(list(framed), axis=1)

    return np.concatenate([line(*row) for row in rows])


def panel(cell: Drawn, count: int) -> Canvas:
    """Grids of some objects below one another."""
    grids = [grid(cell, i) for i in range(count)]
    height = sum(len(g) for g in grids) / grids[0].shape[1]
    canvas, axes_grid = panels(count, 1, (7.2, 7.2 * height))
    for axes, image in zip(axes_grid[:, 0], grids):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
    return canvas


def against_angle(first: dict[str, Drawn]) -> Canvas:
    """Error of the mean, and difference between two draws, against the angle to the view shown."""
    canvas, axes_grid = panels(1, 2, (7.2, 2.9))
    error, difference = axes_grid[0]
    names = sorted(first, key=lambda name: name == MEAN)  # the mean view last
    shades = shades_of(names) | {MEAN: MUTED}
    for name in names:
        drawing = first[name].drawing
        away = np.round(drawing["away"]).astype(int)
        angles = np.unique(away)

        def averaged(values: np.ndarray) -> list[float]:
            return [values[away == angle].mean() for angle in angles]

        error.plot(angles, averaged(drawing["mse"]), color=shades[name], label=name)
        if drawing["spread"].max() > 1e-6:  # a deterministic method has no difference to show
            difference.plot(angles, averaged(drawing["spread"]), color=shades[name], label=name)
    error.set_title("squared error of the mean")
    difference.set_title("difference between two draws")
    for axes in (error, difference):
        axes.set_xlabel("degrees from the view shown")
        axes.set_xticks([0, 60, 120, 180])
        axes.set_ylim(bottom=0)
    error.legend()
    return canvas


def sentence(cells: Sequence[Drawn]) -> str:
    """The best sampler beside the controls; and which methods lose to a control."""
    found = means(cells)
    mse, joint, near, side = (
        found.get(("", metric), {}) for metric in ("mse", "joint", "near", "side")
    )
    own = [name for name in mse if name not in REFERENCES]
    samplers = [name for name in own if side[name] > 0]
    if not samplers:
        return ""
    best = lowest({name: joint[name] for name in samplers})
    said = f"{best}: mean squared error {mse[best]:.4f}, {joint[best]:.3f} nats a pixel"
    free = [name for name in FREE if name in mse]
    nearest = [lowest({name: joint[name] for name in free})] if free else []
    for name in dict.fromkeys(("cnp", *nearest, MEAN)):
        if name in mse and name != best:
            said += f"; {name}: {mse[name]:.4f}, {joint[name]:.3f}"
    said += f". Its draws differ {side[best] / max(near[best], 1e-9):.2f} times as much from the "
    said += "side."
    for what, values in (("error", mse), ("likelihood", joint)) if free else ():
        control = lowest({name: values[name] for name in free})
        worse = [name for name in own if values[name] > values[control]]
        if worse:
            verb = "loses" if len(worse) == 1 else "lose"
            said += f" In {what} {', '.join(worse)} {verb} to “{control}”."
    return said
