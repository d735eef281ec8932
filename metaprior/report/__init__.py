"""One self-contained HTML file that says what a prior is worth."""

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from metaprior.report import figures, tables
from metaprior.system.folder import write_atomic

OBSERVED = (1, 3, 5)


def order_of(rows: Any, seed: int) -> list[int]:
    """The order in which rows of a group are observed in its pictures."""
    return np.random.default_rng(seed).permutation(rows.height).tolist()


def panels(
    prior: Any,
    rows: Any,
    x: str,
    *,
    name: str,
    observed: tuple[int, ...] = OBSERVED,
    seed: int = 0,
    target: str | None = None,
) -> list:
    """One group at several numbers of observations; each number adds to the ones before.

    Args:
        prior: a fitted prior for a number.
        rows: all rows of one group, target included.
        x: numeric feature for the horizontal axis.
        name: what to call the group.
        observed: numbers of observations.
        seed: decides which rows are observed.
        target: which one to show, of a prior for several.

    Returns:
        a panel for each number, as `figures.curve` draws it.
    """
    order = order_of(rows, seed)
    features = rows.drop(prior.info["target"])
    shown = target or prior.info["target"]
    before = (
        f"{target}_" if target else ""
    )  # of the columns' names, where there are several targets
    made = []
    for count in observed:
        seen = order[: min(count, rows.height)]
        said = prior.adapt(rows[seen]).predict(features)
        panel = {level: said[before + level].to_numpy() for level in ("q05", "q50", "q95")}
        panel["x"] = rows[x].cast(float).to_numpy()
        panel["y"] = rows[shown].cast(float).to_numpy()
        panel["seen"] = np.asarray(seen)
        panel["title"] = f"{name}, {count} observed"
        made.append(panel)
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
    """Write the report of a fitted prior.

    It has the plain sentence, curves and bands, shots against error, reliability, and the
    comparison. With several targets, each has all of it, given the targets before it; the
    comparison for all together comes last.

    Args:
        path: HTML file to write; replaced as a whole or not at all.
        prior: what was fitted.
        evaluation: what `prior.evaluate` gave.
        groups: a few held-out groups' rows by name, for the curves; with `x`, and not for classes.
        x: numeric feature for the curves' horizontal axis.
        title: headline.
        units: of the target, for the axes; of the first where there are several.
        example: a sentence on a single prediction, shown with the curves.
        seed: decides which rows of the groups are observed.
    """
    info, parts = prior.info, []
    several = list(getattr(evaluation, "targets", {}))  # a `JointEvaluation` has them
    for i, target in enumerate(several):
        name = target + (f", given {', '.join(several[:i])}" if i else "")
        curves = _curves(prior, groups, x, target, units if i == 0 else "", seed, f"t{i}")
        parts.append(_part(name, evaluation.targets[target], curves, f"t{i}"))
    if several:
        parts.append(_part("All targets together", evaluation.joint, [], "t"))
    else:
        parts.append(_part("", evaluation, _curves(prior, groups, x, None, units, seed, ""), ""))
    page = {
        "title": title,
        "info": info,
        "target": ", ".join(several) or info["target"],
        "sentence": evaluation.sentence(),
        "level": "" if several else evaluation.level_sentence(),
        "example": example,
        "parts": parts,
        "legend": tables.LEGEND,
        "better": tables.BETTER,
        "notes": info.get("notes", []),
    }
    render(Path(path), "report.html.jinja", page)


def render(path: Path, template: str, page: dict[str, Any]) -> None:
    """Write a page from a template of this folder, the style sheet inside it."""
    # Imported here: most commands write no page.
    import jinja2

    folder = resources.files("metaprior.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    made = environment.from_string(folder.joinpath(template).read_text("utf-8"))
    html = made.render(page | {"css": folder.joinpath("report.css").read_text("utf-8")})
    write_atomic(path, lambda part: part.write_text(html, "utf-8"))


def _curves(prior, groups, x, target, units: str, seed: int, ids: str) -> list:
    """Rows of figures, one a group; none for classes."""
    if not groups or x is None:
        return []
    name, classes = target or prior.info["target"], prior.info.get("classes")
    if classes[target] if target else classes:  # of several targets by name
        return []
    label = f"{name} ({units})" if units else name
    drawn = []
    for i, (group, rows) in enumerate(groups.items()):
        some = panels(prior, rows, x, name=group, seed=seed + i, target=target)
        limits = figures.y_limits(some)
        line = []
        for j, panel in enumerate(some):
            line.append(figures.curve_panel(panel, limits, x, label, f"{ids}c{i}{j}"))
        drawn.append(line)
    return drawn


def _part(name: str, evaluation: Any, curves: list, ids: str) -> dict[str, Any]:
    """What the page shows of one target, or of all together.

    `ids` stands before the names of its figures, which must differ in a page.
    """
    result = evaluation.to_json()
    available = tables.metrics_in(result)
    wanted = [metric for metric in ("nll", "rmse", "accuracy") if metric in available][:2]
    shots = sorted(int(k) for k, points in evaluation.points.items() if points)
    # Three curves can be told apart: before any row, after one, and after a few.
    chosen = [k for k in (0, 1, 5) if k in shots] or shots[:3]
    return {
        "name": name,
        "sentence": result["sentence"],
        "level": result["level"],
        "curves": curves,
        "shots_curves": [
            figures.shots_curve(result, m, tables.LABELS[m], f"{ids}s{i}")
            for i, m in enumerate(wanted)
        ],
        "reliability": figures.reliability(evaluation.points, chosen, f"{ids}r") if shots else "",
        "shots": list(result["shots"]),
        "accuracy": "accuracy" in wanted,
        "tables": [(tables.LABELS[m], tables.cells(result, m)) for m in available],
    }
