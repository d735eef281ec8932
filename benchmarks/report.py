"""The curves of `--only scale` as one HTML file that needs nothing else."""

import html
import re
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.tabulate import about, number
from metaprior.report.figures import to_svg
from metaprior.system.style import METHOD, STYLE

AXES = {"table memory": "table rows", "memory": "inner steps", "memory, checkpoints": "inner steps"}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>metaprior: how cost grows</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
svg {{ max-width: 100%; height: auto }} td, th {{ padding: 0.1em 0.8em; text-align: right }}
</style></head>
<body><h1>How cost grows</h1><p>{machine}</p>
{parts}
</body></html>
"""


def picture(name: str, what: str, curve: dict[str, Any]) -> str:
    """One curve on logarithmic axes, as SVG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(curve["x"], curve["y"], "o-", color=METHOD)
        axes.set(xscale="log", yscale="log", xlabel=what)
        axes.set_xticks(curve["x"], [f"{x:,}" for x in curve["x"]])
        axes.minorticks_off()
        return to_svg(figure, re.sub(r"\W+", "-", name), curve["what"])


def write(path: Path, results: dict[str, Any]) -> None:
    """Every curve with its numbers beneath."""
    parts = []
    for name, curve in results["scale"].items():
        parts.append(f"<h2>{html.escape(name)}</h2><p>{html.escape(curve['what'])}</p>")
        if curve.get("error"):
            parts.append(f"<p>Incomplete: {html.escape(curve['error'])}</p>")
        if curve["x"]:

            def cells(values):
                return "".join(f"<td>{number(v)}</td>" for v in values)

            parts.append(picture(name, AXES.get(name, name), curve))
            parts.append(f"<table><tr>{cells(curve['x'])}</tr><tr>{cells(curve['y'])}</tr></table>")
    path.write_text(
        PAGE.format(machine=html.escape(about(results["machine"])), parts="\n".join(parts)), "utf-8"
    )
