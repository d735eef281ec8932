"""A protocol's results as one self-contained page, and as tables on a terminal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaprior.protocols.protocol import Metric, Picture, Protocol

LEGEND = (
    "Means over tasks and seeds ± one standard error: over tasks, or between seeds where that is larger. Italics: exact "
    "answers and controls. Grey: published or computed elsewhere, the number in the list below. Coloured: the best of "
    "the methods run here, and those within two standard errors of it."
)


def number(value: float | None) -> str:
    """Three decimals, fewer for large numbers, more for tiny ones."""
    if value is None or value != value:
        return "–"
    size = abs(value)
    if size and size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3f}" if size < 100 else f"{value:.1f}" if size < 10_000 else f"{value:.4g}"


def _best(cells: dict[str, dict[str, Any]], metric: Metric) -> set[str]:
    """Methods that no other is better than by more than two standard errors of the difference."""
    known = {name: c for name, c in cells.items() if c["value"] is not None}
    if metric.better is None or len(known) < 2:
        return set()
    if isinstance(metric.better, str):
        sign = 1.0 if metric.better == "low" else -1.0
        loss = {name: sign * c["value"] for name, c in known.items()}
    else:
        loss = {name: abs(c["value"] - metric.better) for name, c in known.items()}
    first = min(loss, key=lambda name: loss[name])

    def slack(name):
        return 2 * ((known[name]["error"] or 0.0) ** 2 + (known[first]["error"] or 0.0) ** 2) ** 0.5

    return {name for name in loss if name == first or loss[name] - loss[first] <= slack(name)}


def tables(protocol: Protocol, results: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The tables of a page, and the sources of its anchors in the order of their numbers.

    Several settings: a table a metric, settings as columns; of settings `"part: setting"` a table a
    part as well. One setting: one table, metrics as columns.
    """
    cells = {(r["method"], r["setting"], r["metric"]): r for r in results["table"]}
    settings = list(dict.fromkeys(r["setting"] for r in results["table"]))
    used = [name for name in protocol.metrics if any(r["metric"] == name for r in results["table"])]
    methods = list(dict.fromkeys(r["method"] for r in results["table"]))
    sources: list[str] = []

    def build(caption: str, corner: str, columns: list[tuple[str, str, str]]) -> dict[str, Any]:
        rows = []
        own = [m for m in methods if m not in protocol.references]
        best = {
            (s, k): _best(
                {m: cells[m, s, k] for m in own if (m, s, k) in cells}, protocol.metrics[k]
            )
            for _, s, k in columns
        }
        for method in methods:
            found = [cells.get((method, s, k)) for _, s, k in columns]
            if not any(found):
                continue
            kind = "reference" if method in protocol.references else ""
            shown = []
            for (_, s, k), c in zip(columns, found):
                text = (
                    (number(c["value"]), number(c["error"]) if c["error"] else "")
                    if c
                    else ("–", "")
                )
                shown.append((*text, not kind and method in best[s, k]))
            rows.append({"name": method, "kind": kind, "note": "", "cells": shown})
        for name in dict.fromkeys(a.name for a in protocol.anchors):
            mine = {(a.setting, a.metric): a for a in protocol.anchors if a.name == name}
            here = [mine.get((s, k)) for _, s, k in columns]
            if not any(here):
                continue
            notes = []
            for anchor in here:
                if anchor and anchor.source not in sources:
                    sources.append(anchor.source)
                if anchor and str(sources.index(anchor.source) + 1) not in notes:
                    notes.append(str(sources.index(anchor.source) + 1))
            shown = [(number(a.value) if a else "–", "", False) for a in here]
            rows.append({"name": name, "kind": "anchor", "note": ", ".join(notes), "cells": shown})
        return {
            "caption": caption,
            "corner": corner,
            "columns": [c[0] for c in columns],
            "rows": rows,
        }

    def label(k):
        return f"{protocol.metrics[k].label}, {protocol.metrics[k].unit}".strip(", ")

    if len(settings) == 1:
        caption = "; ".join(f"{k}: {label(k)}" for k in used)
        return [build(caption, "method", [(k, settings[0], k) for k in used])], sources
    made, known = [], {(r["setting"], r["metric"]) for r in results["table"]}
    parts = list(dict.fromkeys(s.split(": ")[0] if ": " in s else "" for s in settings))
    for k in used:
        for part in parts:
            mine = [
                s
                for s in settings
                if (s.split(": ")[0] if ": " in s else "") == part and (s, k) in known
            ]
            if mine:
                columns = [(s.split(": ")[-1], s, k) for s in mine]
                made.append(
                    build(
                        f"{part}: {label(k)}".removeprefix(": ") + direction(protocol.metrics[k]),
                        "method",
                        columns,
                    )
                )
    return made, sources


def direction(metric: Metric) -> str:
    """What is good, for a caption."""
    if metric.better is None:
        return ""
    return (
        f" ({metric.better} is better)"
        if isinstance(metric.better, str)
        else f" (best: {metric.better:g})"
    )


def write_page(
    path: Path, protocol: Protocol, results: dict[str, Any], pictures: Sequence[Picture]
) -> None:
    """report.html."""
    from metaprior.report import render

    made, sources = tables(protocol, results)
    cells = results["cells"]
    seeds = sorted({c["seed"] for c in cells})
    steps = results["options"].get("steps")
    facts = [
        (
            "methods",
            ", ".join(
                dict.fromkeys(c["method"] for c in cells if c["method"] not in protocol.references)
            ),
        ),
        ("seeds", ", ".join(map(str, seeds))),
        ("budget", results["budget"]),
        *([("training steps", f"{steps:,}")] if isinstance(steps, int) else []),
        ("time", minutes(results["seconds"])),
        *([("data", results["data"])] if results["data"] else []),
    ]
    settings = ", ".join(f"{k}={json.dumps(v)}" for k, v in results["options"].items())
    notes = [f"{c['method']}, seed {c['seed']}: {c['note']}" for c in cells if c["note"]]
    notes += [f"{f['method']}, seed {f['seed']} failed: {f['error']}" for f in results["failed"]]
    notes += [results["left_out"]] if results["left_out"] else []
    runs = [("method", "seed", "seconds", "training steps", "parameters")]
    runs += [
        (
            c["method"],
            c["seed"],
            f"{c['seconds']:.0f}",
            fact(c["facts"].get("steps")),
            fact(c["facts"].get("parameters")),
        )
        for c in cells
    ]
    told = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    page = {
        "kicker": f"metaprior reproduce {protocol.name}",
        "title": protocol.title,
        "lead": protocol.lead,
        "sentence": results["sentence"],
        "facts": facts,
        "pictures": pictures,
        "tables": made,
        "sources": sources,
        "legend": LEGEND,
        "notes": notes,
        "choices": (*protocol.choices, f"Settings: {settings}."),
        "papers": protocol.papers,
        "runs": runs,
        "footer": f"{told}. Numbers: results.json; raw predictions: predictions.parquet.",
    }
    render(path, "protocol.html.jinja", page)


def fact(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def minutes(seconds: float) -> str:
    """90 s, 12 min, 3.2 h."""
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


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
