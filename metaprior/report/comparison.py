"""The page of `metaprior compare`: which learner to use on a table, and how sure that is."""

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from metaprior.report import render
from metaprior.report.figures import reliability_points, to_svg
from metaprior.report.tables import LABELS, number, print_words
from metaprior.system.style import METHOD, MUTED, OTHERS, STYLE

CHOICES = (
    "Every learner sees the same groups, the same split and the same observed rows. Each method "
    "has its default settings and is stopped early on groups of its own training set.",
    "Intervals: 95 %, from 1,000 resamples of the held-out groups; differences are paired over "
    "groups. Groups of several splits are pooled.",
    "Rank: one more than the number of learners whose negative log-likelihood is lower beyond "
    "chance. Learners with the same rank cannot be told apart by these data.",
    "Over all K: the mean over the numbers of observed rows.",
)
LEGEND = (
    "Sorted by the negative log-likelihood over all numbers of observed rows, with ± half the 95 % "
    "interval. Coloured: rank 1, which no other learner beats beyond chance. Italics: baselines."
)


class Shown(NamedTuple):
    """A picture of the page."""

    title: str
    caption: str
    svg: str
    wide: bool = False


class Learners(NamedTuple):
    """What is shown of all learners, best first.

    Args:
        order: their names.
        kind: of each, `"reference"` for a baseline, else `""`.
        shots: `[K][name]` -> figures at K observed rows.
        overall: `[name]` -> figures over all K.
    """

    order: list[str]
    kind: dict[str, str]
    shots: dict[str, dict]
    overall: dict[str, dict]

    @staticmethod
    def of(results: dict[str, Any]) -> "Learners":
        """From what results.json holds."""
        order = list(results["overall"])
        kind = {name: "" if name in results["methods"] else "reference" for name in order}
        return Learners(order, kind, results["shots"], results["overall"])

    def row(self, name: str, cells: list[tuple]) -> dict[str, Any]:
        """A row of a table: texts of its cells, their class, and whether they are coloured."""
        return {"name": name, "kind": self.kind[name], "note": "", "cells": cells}


def write_comparison(path: Path, results: dict[str, Any], found: Any) -> None:
    """Write report.html.

    Args:
        path: of the file.
        results: what results.json holds.
        found: the `Evaluation` of all learners.
    """
    learners, target = Learners.of(results), results["settings"]["target"]
    first = learners.shots[next(iter(learners.shots))][learners.order[0]]
    tables = [_ranks(learners), *(_table(learners, metric) for metric in LABELS if metric in first)]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    page = {
        "kicker": "metaprior compare",
        "title": f"Which method for {target}",
        "sentence": results["sentence"],
        "lead": (
            "Every method and baseline on groups that none of them had seen, from a few observed "
            f"rows of each. {results['level']}"
        ),
        "facts": _facts(results),
        "pictures": _pictures(learners, found),
        "legend": LEGEND,
        "tables": tables,
        "sources": [],
        "notes": _notes(results),
        "choices": CHOICES,
        "papers": (),
        "runs": _runs(results),
        "footer": f"{versions}. Numbers: results.json; raw predictions: predictions.parquet.",
    }
    render(path, "protocol.html.jinja", page)


def _facts(results: dict[str, Any]) -> list[tuple[str, Any]]:
    settings, groups = results["settings"], results["cells"][0]["groups"]
    best = next(iter(results["overall"]))
    seconds = sum(cell["seconds"] for cell in results["cells"])
    return [
        ("table", Path(results["table"]).name),
        ("target", settings["target"]),
        ("group", settings["task"]),
        ("groups learned from", groups["train"]),
        ("groups judged on", max(own[best]["n_groups"] for own in results["shots"].values())),
        ("splits", results["splits"]),
        ("time", f"{seconds / 60:.0f} min"),
    ]


def _notes(results: dict[str, Any]) -> list[str]:
    """What was noted of the data, each once, and what failed."""
    notes = list(dict.fromkeys(note for cell in results["cells"] for note in cell["notes"]))
    for failed in results["failed"]:
        notes.append(f"{failed['method']}, split {failed['split'] + 1} failed: {failed['error']}")
    return notes


def _runs(results: dict[str, Any]) -> list[tuple]:
    runs: list[tuple] = [("method", "split", "seconds")]
    for cell in results["cells"]:
        runs.append((cell["method"], cell["split"] + 1, f"{cell['seconds']:.0f}"))
    return runs


def _ranks(learners: Learners) -> dict[str, Any]:
    """The table of ranks."""

    def cell(rank):
        return str(rank), "", rank == 1

    rows = []
    for name in learners.order:
        own = learners.overall[name]
        cells = [cell(own["rank"]), (_behind(name, own["behind"]), "", False)]
        cells += [cell(figures[name]["rank"]) for figures in learners.shots.values()]
        rows.append(learners.row(name, cells))
    return {
        "caption": "Ranks, and nats a row behind the best with the paired 95 % interval",
        "corner": "learner",
        "columns": ["over all K", "behind the best", *(f"K = {K}" for K in learners.shots)],
        "rows": rows,
    }


def _behind(name: str, gap: dict[str, Any]) -> str:
    """How far a learner is behind the best, with the interval where there is one."""
    if name == gap["of"]:
        return "–"
    if gap["low"] is None:
        return f"{gap['mean']:.3f}"
    return f"{gap['mean']:.3f} ({gap['low']:.3f} to {gap['high']:.3f})"


def _table(learners: Learners, metric: str) -> dict[str, Any]:
    """The table of one metric, with half of each interval."""
    rows = []
    for name in learners.order:
        cells = []
        for figures in learners.shots.values():
            own = figures[name]
            low, high = own["ci"][metric]
            # With one group there is no interval. The best are coloured for the NLL alone: only
            # for it have the learners been compared in pairs.
            half = None if low is None else (high - low) / 2
            best = metric == "nll" and own["rank"] == 1
            cells.append((number(own[metric], metric), number(half, metric), best))
        rows.append(learners.row(name, cells))
    columns = [f"K = {K}" for K in learners.shots]
    return {"caption": LABELS[metric], "corner": "learner", "columns": columns, "rows": rows}


def _pictures(learners: Learners, found: Any) -> list[Shown]:
    # One K for the picture: 5 where it was judged, else the one in the middle.
    K = 5 if 5 in found.points else sorted(found.points)[len(found.points) // 2]
    with matplotlib.rc_context(STYLE):
        return [
            Shown(
                "How far behind",
                "Points: the mean; bars: the paired 95 % interval. Diamonds are baselines. What is "
                "far to the right is cut off.",
                _draw_behind(learners),
            ),
            Shown(
                "How fast they learn",
                "The seven best, lower is better; dashed: baselines.",
                _draw_curves(learners),
            ),
            Shown(
                "Whether they can be believed",
                f"The four best with {K} observed rows; the diagonal is perfect.",
                _draw_reliability(learners, found.points[K]),
            ),
        ]


def _draw_behind(learners: Learners) -> str:
    order, overall = learners.order, learners.overall
    canvas = Figure(figsize=(5.2, 0.27 * len(order) + 0.9))
    axes = canvas.add_subplot()
    lows, highs = [], []
    for i, name in enumerate(reversed(order)):
        gap = overall[name]["behind"]
        low, high = gap["low"], gap["high"]
        shade = METHOD if overall[name]["rank"] == 1 else MUTED
        if low is None:
            low = high = gap["mean"]
        else:
            axes.plot([low, high], [i, i], color=shade, lw=2.2, alpha=0.55)
        marker = "D" if learners.kind[name] else "o"
        axes.plot([gap["mean"]], [i], marker, ms=5, color=shade, mec="white", mew=0.7)
        lows.append(low)
        highs.append(high)
    axes.set_yticks(range(len(order)), list(reversed(order)))

    # One very bad learner must not press all others together at the left.
    axes.set_xlim(min(-0.02, *lows), 1.1 * max(2 * np.median(highs), 0.05))
    axes.set_xlabel("nats a row behind the best, over all K")
    axes.axvline(0.0, color=MUTED, lw=0.8)
    return to_svg(canvas, "behind", "Nats behind the best learner")


def _draw_curves(learners: Learners) -> str:
    canvas = Figure(figsize=(5.2, 4.0))
    axes = canvas.add_subplot()
    places = np.arange(len(learners.shots))
    for i, name in enumerate(learners.order[:7]):
        values = [figures[name]["nll"] for figures in learners.shots.values()]
        line = "--o" if learners.kind[name] else "-o"
        width = 2.4 if i == 0 else 1.3
        axes.plot(places, values, line, color=_shade(i), ms=4, lw=width, label=name)
    axes.set_xticks(places, list(learners.shots))
    axes.set_xlabel("observed rows of the new group")
    axes.set_ylabel("nats a row")
    axes.legend()
    return to_svg(canvas, "curves", "Negative log-likelihood against observed rows")


def _draw_reliability(learners: Learners, points: dict[str, dict]) -> str:
    canvas = Figure(figsize=(4.4, 4.0))
    axes = canvas.add_subplot()
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1.0, ls=(0, (4, 3)))
    for i, name in enumerate(learners.order[:4]):
        stated, came = reliability_points(points[name])
        axes.plot(stated, came, "o-", ms=3, lw=1.2, color=_shade(i), label=name)
    axes.set_xlabel("stated probability")
    axes.set_ylabel("how often it came true")
    axes.legend()
    return to_svg(canvas, "reliable", "Reliability diagram")


def _shade(place: int) -> str:
    """Colour of the learner in that place, the best in the method's own."""
    return METHOD if place == 0 else OTHERS[(place - 1) % len(OTHERS)]


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
        figures = [row, *(shots[K][name] for K in shots)]
        texts = [f"{one['nll']:.3f} ({one['rank']})" for one in figures]
        style = None if name in results["methods"] else "italic"
        if row["rank"] == 1:
            style = "bold"
        table.add_row(name, *texts, style=style)
    console.print(table)
    console.print("Equal ranks: no difference beyond chance. Italics: baselines.", style="dim")
    print_words(console, results)
