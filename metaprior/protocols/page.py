"""A protocol's results as one self-contained page, and as tables on a terminal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metaprior.protocols.cell import minutes
from metaprior.protocols.protocol import Metric, Picture, Protocol

LEGEND = (
    "Means over tasks and seeds ± one standard error: over the tasks of a seed, or between seeds "
    "where that is larger. Italics: exact answers and controls. Grey: published or computed "
    "elsewhere; the small "
    "number is the source in the list below. Coloured: the best of the methods run here, and those "
    "within two standard errors of it, the difference being taken task by task."
)


def number(value: float | None) -> str:
    """Three decimals, fewer for large numbers, more for tiny ones."""
    if value is None or value != value:
        return "–"
    size = abs(value)
    if size and size < 1e-3:
        return f"{value:.1e}"
    if size < 100:
        return f"{value:.3f}"
    return f"{value:.1f}" if size < 10_000 else f"{value:.4g}"


def _among_the_best(cell: dict[str, Any]) -> bool:
    """Whether the best method is better by no more than two standard errors of the difference."""
    if cell["value"] is None:
        return False
    if cell.get("behind") is None:
        return True
    gap, error = cell["behind"]
    return gap <= 2 * (error or 0.0)


def _error(cell: dict[str, Any]) -> str:
    """Three decimals of the standard error; `""` where it is rounding alone, or there is none."""
    error, value = cell["error"], cell["value"]
    known = error is not None and value is not None and error > 1e-9 * max(1e-6, abs(value))
    return number(error) if known else ""


class Column(NamedTuple):
    """A column of a table: its heading, and the setting and metric whose numbers it shows."""

    heading: str
    setting: str
    metric: str


class Builder:
    """Builds the tables of a page.

    Args:
        protocol: what was run.
        rows: the `table` of results.json.
    """

    def __init__(self, protocol: Protocol, rows: Sequence[dict[str, Any]]):
        self.protocol = protocol
        self.cells = {(r["method"], r["setting"], r["metric"]): r for r in rows}
        self.methods = list(dict.fromkeys(r["method"] for r in rows))
        self.sources: list[str] = []  # of anchors, in the order of their numbers

    def table(self, caption: str, columns: Sequence[Column]) -> dict[str, Any]:
        """One table: methods and references, then anchors."""
        rows = [self._method(name, columns) for name in self.methods]
        anchors = dict.fromkeys(anchor.name for anchor in self.protocol.anchors)
        rows += [self._anchor(name, columns) for name in anchors]
        return {
            "caption": caption,
            "corner": "method",
            "columns": [column.heading for column in columns],
            "rows": [row for row in rows if row is not None],
        }

    def _method(self, name: str, columns: Sequence[Column]) -> dict[str, Any] | None:
        """The row of a method or reference; `None` where the table has nothing of it."""
        found = [self.cells.get((name, c.setting, c.metric)) for c in columns]
        if not any(found):
            return None
        reference = name in self.protocol.references
        shown = []
        for column, cell in zip(columns, found):
            value, error = ("–", "")
            if cell:
                value, error = number(cell["value"]), _error(cell)
            shown.append((value, error, not reference and name in self._best(column)))
        return {
            "name": name,
            "kind": "reference" if reference else "",
            "note": "",
            "cells": shown,
        }

    def _best(self, column: Column) -> set[str]:
        """The best methods of a column, references aside."""
        if self.protocol.metrics[column.metric].better is None:
            return set()
        own = [name for name in self.methods if name not in self.protocol.references]
        cells = {name: self.cells.get((name, column.setting, column.metric)) for name in own}
        known = {name: cell for name, cell in cells.items() if cell and cell["value"] is not None}
        return {n for n, c in known.items() if _among_the_best(c)} if len(known) > 1 else set()

    def _anchor(self, name: str, columns: Sequence[Column]) -> dict[str, Any] | None:
        """The row of published or exact numbers; `None` where the table has none of them."""
        own = [anchor for anchor in self.protocol.anchors if anchor.name == name]
        by_place = {(anchor.setting, anchor.metric): anchor for anchor in own}
        here = [by_place.get((c.setting, c.metric)) for c in columns]
        if not any(here):
            return None
        notes = dict.fromkeys(self._source(anchor.source) for anchor in here if anchor)
        shown = [(number(anchor.value) if anchor else "–", "", False) for anchor in here]
        return {"name": name, "kind": "anchor", "note": ", ".join(notes), "cells": shown}

    def _source(self, source: str) -> str:
        """The number of a source in the list below the tables."""
        if source not in self.sources:
            self.sources.append(source)
        return str(self.sources.index(source) + 1)


def tables(protocol: Protocol, results: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The tables of a page, and the sources of its anchors in the order of their numbers.

    One setting makes one table, with metrics as columns. Several make a table a metric, with
    settings as columns. Settings named `"part: setting"` make a table for each part as well.
    """
    rows = results["table"]
    builder = Builder(protocol, rows)
    settings = list(dict.fromkeys(r["setting"] for r in rows))
    measured = {r["metric"] for r in rows}
    used = [name for name in protocol.metrics if name in measured]

    def label(name: str) -> str:
        metric = protocol.metrics[name]
        return f"{metric.label}, {metric.unit}".strip(", ")

    if len(settings) == 1:
        caption = "; ".join(f"{name}: {label(name)}" for name in used)
        columns = [Column(name, settings[0], name) for name in used]
        return [builder.table(caption, columns)], builder.sources

    made, known = [], {(r["setting"], r["metric"]) for r in rows}
    parts = list(dict.fromkeys(_part(setting) for setting in settings))
    for name in used:
        for part in parts:
            mine = [s for s in settings if _part(s) == part and (s, name) in known]
            if mine:
                columns = [Column(setting.split(": ")[-1], setting, name) for setting in mine]
                caption = f"{part}: {label(name)}".removeprefix(": ")
                caption += direction(protocol.metrics[name])
                made.append(builder.table(caption, columns))
    return made, builder.sources


def _part(setting: str) -> str:
    """What is before the colon of a setting, `""` without one."""
    part, colon, _ = setting.partition(": ")
    return part if colon else ""


def direction(metric: Metric) -> str:
    """What is good, for a caption."""
    if metric.better is None:
        return ""
    if isinstance(metric.better, str):
        return f" ({metric.better} is better)"
    return f" (best: {metric.better:g})"


def write_page(
    path: Path,
    protocol: Protocol,
    results: dict[str, Any],
    pictures: Sequence[Picture],
    data: Any = None,
) -> None:
    """report.html."""
    from metaprior.report import render

    made, sources = tables(protocol, results)
    settings = ", ".join(f"{k}={json.dumps(v)}" for k, v in results["options"].items())
    told = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    page = {
        "kicker": f"metaprior reproduce {protocol.name}",
        "title": protocol.title,
        "lead": protocol.lead(data) if callable(protocol.lead) else protocol.lead,
        "sentence": results["sentence"],
        "facts": _facts(protocol, results),
        "pictures": pictures,
        "tables": made,
        "sources": sources,
        "legend": LEGEND,
        "notes": _notes(results),
        "choices": (*protocol.choices, f"Settings: {settings}."),
        "papers": protocol.papers,
        "runs": _runs(results["cells"]),
        "footer": f"{told}. Numbers: results.json; raw predictions: predictions.parquet.",
    }
    render(path, "protocol.html.jinja", page)


def _facts(protocol: Protocol, results: dict[str, Any]) -> list[tuple[str, str]]:
    """What was run, in a few words."""
    cells, steps = results["cells"], results["options"].get("steps")
    methods = dict.fromkeys(
        cell["method"] for cell in cells if cell["method"] not in protocol.references
    )
    facts = [
        ("methods", ", ".join(methods)),
        ("seeds", ", ".join(str(seed) for seed in sorted({cell["seed"] for cell in cells}))),
        ("budget", results["budget"]),
    ]
    if isinstance(steps, int):
        facts.append(("training steps", f"{steps:,}"))
    facts.append(("time", minutes(results["seconds"])))
    if results["data"]:
        facts.append(("data", results["data"]))
    return facts


def _notes(results: dict[str, Any]) -> list[str]:
    """What a reader must know of single cells."""
    notes = [f"{c['method']}, seed {c['seed']}: {c['note']}" for c in results["cells"] if c["note"]]
    notes += [f"{f['method']}, seed {f['seed']} failed: {f['error']}" for f in results["failed"]]
    return [*notes, results["left_out"]] if results["left_out"] else notes


def _runs(cells: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Every cell with its costs, below a line of headings."""
    lines: list[tuple[Any, ...]] = [("method", "seed", "seconds", "training steps", "parameters")]
    for cell in cells:
        steps, size = (fact(cell["facts"].get(name)) for name in ("steps", "parameters"))
        lines.append((cell["method"], cell["seed"], f"{cell['seconds']:.0f}", steps, size))
    return lines


def fact(value: Any) -> str:
    """A number with its thousands apart; `""` for none."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_tables(protocol: Protocol, results: dict[str, Any], most: int = 4) -> None:
    """The first few tables and the sentence on standard output."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    made, _ = tables(protocol, results)
    for t in made[:most]:
        shown = Table(
            title=t["caption"], title_justify="left", title_style="bold", header_style="dim"
        )
        shown.add_column(t["corner"])
        for column in t["columns"]:
            shown.add_column(column, justify="right")
        for row in t["rows"]:
            roomy = len(t["columns"]) <= 5  # errors of many columns would break every line
            texts = [f"{v} ±{e}" if e and roomy else v for v, e, _ in row["cells"]]
            texts = [
                f"[bold]{text}[/]" if best else text
                for text, (*_, best) in zip(texts, row["cells"])
            ]
            style = {"reference": "italic", "anchor": "dim"}.get(row["kind"])
            shown.add_row(row["name"], *texts, style=style)
        console.print(shown)
    if len(made) > most:
        console.print(f"{len(made) - most} more tables are in the report.", style="dim")
    if results["sentence"]:
        console.print(results["sentence"], soft_wrap=True)
    if results["left_out"]:
        console.print(results["left_out"], style="dim", soft_wrap=True)
