"""pictures of oracles."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from metaprior.protocols.oracles.data import DRAWN, cases
from metaprior.protocols.oracles.judge import EXACT, SLACK
from metaprior.protocols.protocol import (
    Drawn,
    Picture,
)
from metaprior.report.figures import STYLE, colours, to_svg


def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """Distance from the exact posterior against the number of rows, a picture a source."""
    pictures = []
    names = list(dict.fromkeys(c.method for c in cells if c.method != EXACT))
    shades = colours(["method", *names])
    for source in options["sources"]:
        case = cases()[source]
        ks = [k for k in case.shots if k != DRAWN]
        with matplotlib.rc_context(STYLE):
            canvas = Canvas(figsize=(4.6, 3.6))
            axes = canvas.add_subplot()
            for name in names:
                found = {
                    f.setting: f.value
                    for c in cells
                    if c.method == name
                    for f in c.figures
                    if f.metric == "gap"
                }
                values = [found.get(f"{source}: K = {k}", np.nan) for k in ks]
                axes.plot(
                    range(len(ks)),
                    np.maximum(values, 1e-3),
                    "o-",
                    ms=4,
                    mec="white",
                    mew=0.6,
                    color=shades[name],
                    label=name,
                )
            axes.set_yscale("log")
            axes.set_xticks(range(len(ks)), [str(k) for k in ks])
            axes.set_xlabel("observed rows")
            axes.set_ylabel("nats a row above the exact posterior")
            axes.legend(ncols=1 + len(names) // 8)
            svg = to_svg(canvas, f"gap-{source}", f"Distance from the exact posterior, {source}")
        pictures.append(
            Picture(source, f"{case.what}. Marginal; 0 would be exact.", svg, wide=False)
        )
    return pictures


def sentence(cells: Sequence[Drawn]) -> str:
    """Who is nearest, and whether anyone is better than possible."""
    gaps: dict[str, list[float]] = {}
    below = []
    for c in cells:
        for f in c.figures:
            if f.metric == "gap":
                gaps.setdefault(c.method, []).append(f.value)
            if (
                f.metric in ("gap", "joint_gap")
                and f.error is not None
                and f.value < -2 * f.error - SLACK
            ):
                below.append(f"{c.method} at {f.setting}")
    if not gaps:
        return ""
    best = min(gaps, key=lambda n: np.mean(gaps[n]))
    text = f"{best} stays nearest to the exact posteriors, {np.mean(gaps[best]):.2f} nats a row above them on average. "
    return text + (
        f"Better than possible, so wrong: {', '.join(below)}."
        if below
        else "None is better than the exact one beyond two standard errors."
    )
