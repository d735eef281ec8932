"""One self-contained HTML file that says what a prior is worth."""

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from metaprior.report import figures, tables
from metaprior.run import write_atomic

OBSERVED = (1, 3, 5)


def panels(prior: Any, rows: Any, x: str, *, name: str, observed: tuple[int, ...] = OBSERVED, seed: int = 0) -> list:
    """The same group at several numbers of observations: each adds to the ones before.

    Args:
        prior: a fitted prior for a number.
        rows: all rows of one group, target included.
        x: numeric feature for the horizontal axis.
        name: what to call the group.
        observed: numbers of observations.
        seed: decides which rows are observed.
    """
    order = np.random.default_rng(seed).permutation(rows.height)
    target, features = prior.info["target"], rows.drop(prior.info["target"])
    made = []
    for count in observed:
        seen = order[: min(count, rows.height)]
        said = prior.adapt(rows[seen.tolist()]).predict(features)
        panel = {level: said[level].to_numpy() for level in ("q05", "q50", "q95")}
        panel |= {"x": rows[x].cast(float).to_numpy(), "y": rows[target].cast(float).to_numpy(), "seen": seen}
        made.append({**panel, "title": f"{name}, {count} observed"})
    return made


def write_report(
    path: str | Path,
    *,
    prior: Any,
    evaluation: Any,
    groups: dict[str, Any] | None = None,
    x: str | None = None,
    title: str = "What the prior is worth",
    units: str = "",
    example: str = "",
    seed: int = 0,
) -> None:
    """Write `path`: the plain sentence, curves and bands, shots against error, reliability, the comparison.

    Args:
        path: HTML file to write; replaced as a whole or not at all.
        prior: what was fitted.
        evaluation: what `prior.evaluate` gave.
        groups: a few held-out groups' rows by name, for the curves; with `x`, and not for classes.
        x: numeric feature for the curves' horizontal axis.
        title: headline.
        units: of the target, for the axes.
        example: a sentence on a single prediction, shown with the curves.
        seed: decides which rows of the groups are observed.
    """
    import jinja2

    result, info = evaluation.to_json(), prior.info
    y_label = f"{info['target']} ({units})" if units else info["target"]
    curves = []
    if groups and x is not None and not info.get("classes"):
        for i, (name, rows) in enumerate(groups.items()):
            some = panels(prior, rows, x, name=name, seed=seed + i)
            limits = figures.y_limits(some)
            curves.append([figures.curve_panel(p, limits, x, y_label, f"c{i}{j}") for j, p in enumerate(some)])
    available = tables.metrics_in(result)
    wanted = [metric for metric in ("nll", "rmse", "accuracy") if metric in available][:2]
    shots = sorted(int(k) for k in evaluation.points)
    chosen = [k for k in (0, 1, 5) if k in shots] or shots[:3]
    page = {
        "title": title,
        "info": info,
        "sentence": result["sentence"],
        "example": example,
        "curves": curves,
        "shots_curves": [figures.shots_curve(result, m, tables.LABELS[m], f"s{i}") for i, m in enumerate(wanted)],
        "reliability": figures.reliability(evaluation.points, chosen, "r") if shots else "",
        "shots": list(result["shots"]),
        "tables": [(tables.LABELS[m], tables.cells(result, m)) for m in available],
        "legend": tables.LEGEND,
        "better": tables.BETTER,
        "notes": info.get("notes", []),
    }
    text = resources.files("metaprior.report").joinpath("report.html.jinja").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    html = environment.from_string(text).render(page)
    write_atomic(Path(path), lambda part: part.write_text(html, "utf-8"))
