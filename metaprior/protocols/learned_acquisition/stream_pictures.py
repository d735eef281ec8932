"""Pictures of the part `stream`: requests and accuracy by how often a class was seen."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.finished import first_of_each, means
from metaprior.protocols.pictures import DOTS, legend_below, panels, shades_of, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import MUTED

PLAIN = {"oracle": "--", "oracle that infers": ":"}  # drawn in grey, with this line
LEFT_OUT = ("always asks", "guesses")


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """How often each asks at, and is right about, the first images of a class."""
    first = first_of_each(cells)
    kept = [n for n, c in first.items() if "stream asked" in c.drawing and n not in LEFT_OUT]
    if not kept:
        return []
    shades = shades_of([name for name in kept if name not in PLAIN])
    canvas, grid = panels(1, 2, (8.4, 3.7))
    for axes, what, title in zip(grid[0], ("asked", "right"), ("requests", "right answers")):
        for name in kept:
            curve = np.mean(
                [c.drawing[f"stream {what}"] for c in cells if c.method == name], axis=0
            )
            style: dict[str, Any] = {"color": shades.get(name, MUTED)}
            style |= {"ls": PLAIN[name], "lw": 1.2} if name in PLAIN else {**DOTS, "lw": 2}
            axes.plot(np.arange(1, len(curve) + 1), curve, label=name, **style)
        axes.set(title=title, xlabel="image of its class", ylim=(-0.02, 1.02))
    grid[0, 0].set_ylabel("share of images")
    legend_below(canvas, grid[0, 0], 4)
    caption = (
        "Left: how often the label of the 1st, 2nd, … image of a class is asked for. Right: how "
        "often the image is answered rightly; a request is not right. Who learned to ask does so "
        "at first images."
    )
    svg = to_svg(canvas, "stream-instances", "Requests and right answers by image of a class")
    return [Picture("Asks first, answers later", caption, svg)]


def sentence(cells: Sequence[Drawn]) -> str:
    """Rewards, accuracy and requests of who learned, beside the published ones."""
    found = means(cells)
    reward, right, asked = (
        found.get(("stream", name), {}) for name in ("reward", "right", "requests")
    )
    own = [name for name in reward if name not in (*PLAIN, *LEFT_OUT)]
    if not own:
        return ""
    listed = "; ".join(
        f"{n} {reward[n]:.1f} ({right[n]:.1%} right at {asked[n]:.1%} requests)" for n in own
    )
    return f"Reward of a stream: {listed}; published 75.9 % right at 7.2 % requests, oracle 26.85."
