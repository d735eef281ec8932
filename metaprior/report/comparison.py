"""The page of `metaprior compare`: which learner to use on a table, and how sure that is."""

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from metaprior.report import render
from metaprior.report.figures import METHOD, MUTED, OTHERS, STYLE, reliability_points, to_svg
from metaprior.report.tables import LABELS, number

CHOICES = (
    "Every learner sees the same groups, split and observed rows; each method has its default settings and is stopped early "
    "on groups of its own training set.",
    "Intervals: 95 %, from 1,000 resamples of the held-out groups; differences are paired over groups. Groups of several "
    "splits are pooled.",
    "Rank: one more than the number of learners whose negative log-likelihood is lower beyond chance. Learners with the "
    "same rank cannot be told apart by these data.",
    "Over all K: the mean over the numbers of observed rows.",
)
LEGEND = (
    "Sorted by the negative log-likelihood over all numbers of observed rows, with ± half the 95 % interval. Coloured: rank "
    "1, those that no other learner beats beyond chance. Italics: baselines."
)


class Shown(NamedTuple):
    """A picture of the page."""

    title: str
    caption: str
    svg: str
    wide: bool = False


def write_comparison(path: Path, results: dict[str, Any], found: Any) -> None:
    """Write report.html.

    Args:
        path: of the file.
        results: what results.json holds.
        found: the `Evaluation` of all learners.
    """
    s, shots, overall = results["settings"], results["shots"], results["overall"]
    order = list(overall)
    kind = {name: "" if name in results["methods"] else "reference" for name in order}
    tables = [_ranks(shots, overall, order, kind)]
    for metric in LABELS:
        if metric in shots[next(iter(shots))][order[0]]:
            tables.append(_table(shots, order, kind, metric))
    groups = results["cells"][0]["groups"]
    seconds = sum(c["seconds"] for c in results["cells"])
    facts = [
        ("table", Path(results["table"]).name),
        ("target", s["target"]),
        ("group", s["task"]),
        ("groups learned from", groups["train"]),
        ("groups judged on", groups["test"]),
        ("splits", results["splits"]),
        ("time", f"{seconds / 60:.0f} min"),
    ]
    notes = list(dict.fromkeys(note for c in results["cells"] for note in c["notes"]))
    notes += [
        f"{f['method']}, split {f['split'] + 1} failed: {f['error']}" for f in results["failed"]
    ]
    runs: list[tuple] = [("method", "split", "seconds")]
    runs += [(c["method"], c["split"] + 1, f"{c['seconds']:.0f}") for c in results["cells"]]
    told = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    page = {
        "kicker": "metaprior compare",
        "title": f"Which method for {s['target']}",
        "sentence": results["sentence"],
        "lead": "Every method and baseline on groups that none of them had seen, from a few observed rows of each.",
        "facts": facts,
        "pictures": _pictures(results, found, order, kind),
        "legend": LEGEND,
        "tables": tables,
        "sources": [],
        "notes": notes,
        "choices": CHOICES,
        "papers": (),
        "runs": runs,
        "footer": f"{told}. Numbers: results.json; raw predictions: predictions.parquet.",
    }
    render(path, "protocol.html.jinja", page)


def _ranks(shots, overall, order, kind) -> dict[str, Any]:
    columns = ["over all K", "behind the best", *(f"K = {K}" for K in shots)]
    rows = []
    for name in order:
        gap = overall[name]["behind"]
        band = "" if gap["low"] is None else f" ({gap['low']:.3f} to {gap['high']:.3f})"
        behind = "–" if name == gap["of"] else f"{gap['mean']:.3f}{band}"
        cells = [(str(overall[name]["rank"]), "", overall[name]["rank"] == 1), (behind, "", False)]
        cells += [(str(shots[K][name]["rank"]), "", shots[K][name]["rank"] == 1) for K in shots]
        rows.append({"name": name, "kind": kind[name], "note": "", "cells": cells})
    return {
        "caption": "Ranks, and nats a row behind the best with the paired 95 % interval",
        "corner": "learner",
        "columns": columns,
        "rows": rows,
    }


def _table(shots, order, kind, metric) -> dict[str, Any]:
    rows = []
    for name in order:
        cells = []
        for K in shots:
            low, high = shots[K][name]["ci"][metric]
            half = None if low is None else (high - low) / 2
            best = metric == "nll" and shots[K][name]["rank"] == 1
            cells.append((number(shots[K][name][metric], metric), number(half, metric), best))
        rows.append({"name": name, "kind": kind[name], "note": "", "cells": cells})
    columns = [f"K = {K}" for K in shots]
    return {"caption": LABELS[metric], "corner": "learner", "columns": columns, "rows": rows}


def _pictures(results, found, order, kind) -> list[Shown]:
    shots, overall = results["shots"], results["overall"]
    with matplotlib.rc_context(STYLE):
        canvas = Figure(figsize=(5.2, 0.27 * len(order) + 0.9))
        axes = canvas.add_subplot()
        for i, name in enumerate(reversed(order)):
            gap = overall[name]["behind"]
            shade = METHOD if overall[name]["rank"] == 1 else MUTED
            if gap["low"] is not None:
                axes.plot([gap["low"], gap["high"]], [i, i], color=shade, lw=2.2, alpha=0.55)
            axes.plot(
                [gap["mean"]],
                [i],
                "D" if kind[name] else "o",
                ms=5,
                color=shade,
                mec="white",
                mew=0.7,
            )
        axes.set_yticks(range(len(order)), list(reversed(order)))
        ends = [
            [g["mean"] if g[e] is None else g[e] for e in ("low", "high")]
            for g in (overall[n]["behind"] for n in order)
        ]
        lows, highs = zip(*ends)
        axes.set_xlim(min(-0.02, *lows), 1.1 * max(2 * np.median(highs), 0.05))
        axes.set_xlabel("nats a row behind the best, over all K")
        axes.axvline(0.0, color=MUTED, lw=0.8)
        first = to_svg(canvas, "behind", "Nats behind the best learner")
        canvas = Figure(figsize=(5.2, 4.0))
        axes = canvas.add_subplot()
        places = np.arange(len(shots))
        for i, name in enumerate(order[:7]):
            values = [shots[K][name]["nll"] for K in shots]
            shade = METHOD if i == 0 else OTHERS[(i - 1) % len(OTHERS)]
            axes.plot(
                places,
                values,
                "--o" if kind[name] else "-o",
                color=shade,
                ms=4,
                lw=2.4 if i == 0 else 1.3,
                label=name,
            )
        axes.set_xticks(places, list(shots))
        axes.set_xlabel("observed rows of the new group")
        axes.set_ylabel("nats a row")
        axes.legend()
        second = to_svg(canvas, "curves", "Negative log-likelihood against observed rows")
        canvas = Figure(figsize=(4.4, 4.0))
        axes = canvas.add_subplot()
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1.0, ls=(0, (4, 3)))
        K = 5 if 5 in found.points else sorted(found.points)[len(found.points) // 2]
        for i, name in enumerate(order[:4]):
            stated, came = reliability_points(found.points[K][name])
            axes.plot(
                stated,
                came,
                "o-",
                ms=3,
                lw=1.2,
                color=METHOD if i == 0 else OTHERS[i - 1],
                label=name,
            )
        axes.set_xlabel("stated probability")
        axes.set_ylabel("how often it came true")
        axes.legend()
        third = to_svg(canvas, "reliable", "Reliability diagram")
    return [
        Shown(
            "How far behind",
            "Points: the mean; bars: the paired 95 % interval. Diamonds are baselines. Those far to the right "
            "are cut off.",
            first,
        ),
        Shown("How fast they learn", "The seven best, lower is better; dashed: baselines.", second),
        Shown(
            "Whether they can be believed",
            f"The four best with {K} observed rows; the diagonal is perfect.",
            third,
        ),
    ]


def print_comparison(results: dict[str, Any]) -> None:
    """Ranks, NLL and the sentence on standard output."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    shots, overall = results["shots"], results["overall"]
    table = Table(
        title="negative log-likelihood, nats a row (rank)",
        title_justify="left",
        title_style="bold",
        header_style="dim",
    )
    for i, head in enumerate(("learner", "over all K", *(f"K = {K}" for K in shots))):
        table.add_column(head, justify="left" if i == 0 else "right")
    for name, row in overall.items():
        texts = [
            f"{row['nll']:.3f} ({row['rank']})",
            *(f"{shots[K][name]['nll']:.3f} ({shots[K][name]['rank']})" for K in shots),
        ]
        style = "bold" if row["rank"] == 1 else None if name in results["methods"] else "italic"
        table.add_row(name, *texts, style=style)
    console.print(table)
    console.print("Equal ranks: no difference beyond chance. Italics: baselines.", style="dim")
    console.print(results["sentence"], soft_wrap=True)
