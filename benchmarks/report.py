"""The curves of `--only scale` as one HTML file that needs nothing else."""

import html
import io
from pathlib import Path
from typing import Any

from benchmarks.tabulate import number

AXES = {"table memory": "table rows", "memory": "inner steps", "memory, checkpoints": "inner steps"}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>metaprior: how cost grows</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
svg {{ max-width: 100%; height: auto }} td, th {{ padding: 0.1em 0.8em; text-align: right }}</style></head>
<body><h1>How cost grows</h1><p>{machine}</p>
{parts}
</body></html>
"""


def picture(what: str, curve: dict[str, Any]) -> str:
    """One curve on logarithmic axes, as SVG."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.plot(curve["x"], curve["y"], "o-", color="#2166ac")
    axes.set(xscale="log", yscale="log", xlabel=what)
    axes.set_xticks(curve["x"], [f"{x:,}" for x in curve["x"]])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def write(path: Path, results: dict[str, Any]) -> None:
    """Every curve with its numbers beneath."""
    import matplotlib

    matplotlib.use("svg")
    parts = []
    for name, curve in results["scale"].items():
        parts.append(f"<h2>{html.escape(name)}</h2><p>{html.escape(curve['what'])}</p>")
        if curve.get("error"):
            parts.append(f"<p>Incomplete: {html.escape(curve['error'])}</p>")
        if curve["x"]:
            cells = lambda values: "".join(f"<td>{number(v)}</td>" for v in values)
            parts.append(picture(AXES.get(name, name), curve))
            parts.append(f"<table><tr>{cells(curve['x'])}</tr><tr>{cells(curve['y'])}</tr></table>")
    facts = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    about = html.escape(f"{facts['cpu']}, {facts['cores']} cores; Python {facts['python']}; {versions}.")
    path.write_text(PAGE.format(machine=about, parts="\n".join(parts)), "utf-8")
