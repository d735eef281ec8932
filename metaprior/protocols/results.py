"""What results.json holds: finished cells, their means over seeds, and what a protocol says."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.protocol import Drawn, Figure, Protocol, left_out
from metaprior.protocols.spread import mean_error, standard_error
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
        "table": aggregate(entries, protocol),
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
    return [figure._replace(each=None)._asdict() for figure in entry["figures"]]


def aggregate(
    entries: Sequence[dict[str, Any]], protocol: Protocol | None = None
) -> list[dict[str, Any]]:
    """Means over seeds: one row for each method, setting and metric.

    `error` is as `spread.mean_error` says. `behind` is how far a method is behind the best one, and
    the standard error of that difference, which is taken task by task where that can be done.
    `None`: the best itself, or a reference, or nothing is better than anything.
    """
    groups: dict[tuple[str, str], dict[str, dict[int, Figure]]] = {}
    for entry in entries:
        for figure in entry["figures"]:
            methods = groups.setdefault((figure.setting, figure.metric), {})
            methods.setdefault(entry["method"], {})[entry["seed"]] = figure
    rows = {}
    for (setting, metric), methods in groups.items():
        behind = _behind(methods, metric, protocol) if protocol is not None else {}
        for method, seeds in methods.items():
            figures = list(seeds.values())
            rows[method, setting, metric] = {
                "method": method,
                "setting": setting,
                "metric": metric,
                "value": float(np.mean([f.value for f in figures])),
                "error": mean_error([f.error for f in figures], [f.value for f in figures]),
                "count": max(f.count for f in figures),
                "seeds": len(figures),
                "behind": behind.get(method),
            }
    order = [(e["method"], f.setting, f.metric) for e in entries for f in e["figures"]]
    return [rows[place] for place in dict.fromkeys(order)]


def _behind(
    methods: dict[str, dict[int, Figure]], metric: str, protocol: Protocol
) -> dict[str, list[float | None]]:
    """How far each method is behind the best, and the standard error of that."""
    better = protocol.metrics[metric].better
    if better is None:
        return {}
    own = {name: seeds for name, seeds in methods.items() if name not in protocol.references}
    mean = {name: float(np.mean([f.value for f in seeds.values()])) for name, seeds in own.items()}
    loss = {name: _loss(v, better) for name, v in mean.items() if np.isfinite(v)}
    if len(loss) < 2:
        return {}
    first = min(loss, key=lambda name: loss[name])

    found: dict[str, list[float | None]] = {}
    for name in loss:
        if name != first:
            both = sorted(set(own[name]) & set(own[first]))
            gaps = [_gap(own[name][seed], own[first][seed], better) for seed in both]
            values = [value for value, _ in gaps]
            error = mean_error([error for _, error in gaps], values)
            found[name] = [float(np.mean(values)) if values else loss[name] - loss[first], error]
    return found


def _gap(a: Figure, b: Figure, better: str | float) -> tuple[float, float | None]:
    """How much worse `a` is than `b` at one seed, and the standard error of that."""
    if a.each is None or b.each is None:
        known = [f.error for f in (a, b) if f.error is not None]
        error = float(np.sqrt(np.sum(np.square(known)))) if known else None
        return _loss(a.value, better) - _loss(b.value, better), error
    # A slow method is judged on the first of the tasks alone.
    n = min(len(a.each), len(b.each))
    pair = np.stack([a.each[:n], b.each[:n]])
    pair = pair[:, ~np.isnan(pair).any(0)]
    if not pair.shape[1]:
        return float("nan"), None
    mean = pair.mean(1)
    # On which side of a wanted value each is.
    signs = np.array(
        [-1.0 if better == "high" or (better != "low" and m < better) else 1.0 for m in mean]
    )
    value = _loss(mean[0], better) - _loss(mean[1], better)
    return value, standard_error(signs[0] * pair[0] - signs[1] * pair[1])


def _loss(value: float, better: str | float) -> float:
    """The smaller, the better."""
    if isinstance(better, str):
        return value if better == "low" else -value
    return abs(value - better)


def plain(value: Any) -> Any:
    """Plain JSON: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
