"""What results.json holds: finished cells, their means over seeds, and what a protocol says."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.protocol import Drawn, Figure, Protocol, left_out
from metaprior.system.folder import versions

FORMAT = "metaprior protocol"


def results_of(
    protocol: Protocol,
    run: dict[str, Any],
    entries: Sequence[dict[str, Any]],
    drawn: Sequence[Drawn],
) -> dict[str, Any]:
    """What results.json holds.

    Args:
        protocol: what was run.
        run: `budget`, `options`, `data` (where it was read) and `failed` cells.
        entries: what the files of the finished cells say, with figures as `Figure`.
        drawn: the same cells as pictures get them.
    """
    return {
        "format": FORMAT,
        "name": protocol.name,
        "title": protocol.title,
        "budget": run["budget"],
        "options": run["options"],
        "versions": versions(),
        "data": run["data"],
        "sentence": protocol.sentence(drawn) if protocol.sentence and entries else "",
        "metrics": {name: metric._asdict() for name, metric in protocol.metrics.items()},
        "table": aggregate(entries),
        "anchors": [anchor._asdict() for anchor in protocol.anchors],
        "choices": list(protocol.choices),
        "papers": list(protocol.papers),
        "cells": [entry | {"figures": _as_dicts(entry)} for entry in entries],
        "failed": run["failed"],
        "left_out": left_out(protocol),
        "seconds": round(sum(entry["seconds"] for entry in entries), 1),
        "predictions": "predictions.parquet",
    }


def _as_dicts(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of a cell by name."""
    return [figure._asdict() for figure in entry["figures"]]


def aggregate(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds: one row for each method, setting and metric.

    `error` is the standard error over the tasks, or between seeds where that is larger. Tasks are
    the same at every seed, so that more seeds do not make more tasks.
    """
    groups: dict[tuple[str, str, str], list[Figure]] = {}
    for entry in entries:
        for figure in entry["figures"]:
            place = (entry["method"], figure.setting, figure.metric)
            groups.setdefault(place, []).append(figure)
    return [
        {
            "method": method,
            "setting": setting,
            "metric": metric,
            "value": float(np.mean([f.value for f in figures])),
            "error": _error(figures),
            "count": max(f.count for f in figures),
            "seeds": len(figures),
        }
        for (method, setting, metric), figures in groups.items()
    ]


def _error(figures: Sequence[Figure]) -> float | None:
    """The standard error of a mean over seeds."""
    errors = []
    within = [f.error for f in figures if f.error is not None]
    if within:
        errors.append(float(np.sqrt(np.mean(np.square(within)))))
    if len(figures) > 1:
        values = np.array([f.value for f in figures], np.float64)
        errors.append(float(values.std(ddof=1) / len(values) ** 0.5))
    return max(errors, default=None)


def plain(value: Any) -> Any:
    """Plain JSON: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
