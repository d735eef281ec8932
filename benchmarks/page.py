"""The short tables of docs/performance.md. `python -m benchmarks --show` prints the long ones."""

from typing import Any

from benchmarks.cases import OURS
from benchmarks.measure import middle
from benchmarks.tabulate import about, met, number, share, single, spread, verdict


def fastest(lines: list[dict], who: str) -> dict | None:
    """The line of one who trains, on the number of cores that suits it better."""
    able = [line for line in lines if line["who"] == who and line["train"]]
    return max(able, key=lambda line: middle(line["train"]), default=None)


def asked(ratios: list[dict]) -> list[dict]:
    """A ratio for each peer. What is asked of the best peer stands beside that peer."""
    peers = [dict(ratio) for ratio in ratios if ratio["peer"] != "best"]
    for best in (ratio for ratio in ratios if ratio["peer"] == "best"):
        nearest = min(
            (ratio for ratio in peers if ratio["ratio"] is not None),
            key=lambda ratio: ratio["ratio"],
            default={},
        )
        nearest |= {"target": best["target"], "met": best["met"]}
    return peers


def job(name: str, case: dict, machine: dict) -> list[list[str]]:
    """The rows of one job, one for each peer."""
    own = fastest(case["lines"], OURS)
    if own is None:
        return [[name, "not available"] + [""] * 7]

    mine = [
        name,
        number(middle(own["train"])),
        share(own, machine)[-1],
        number(middle(own["adapt"])),
    ]
    rows = []
    for ratio in asked(case["ratios"]):
        theirs = fastest(case["lines"], ratio["peer"])
        if theirs is None:
            continue
        target = "" if ratio["target"] is None else f"{ratio['target']:g} {verdict(ratio['met'])}"
        beside = [
            ratio["peer"],
            number(middle(theirs["train"])),
            number(middle(theirs["adapt"])),
            f"{ratio['ratio']:.1f}",
            target,
        ]
        rows.append(mine + beside)
        mine = [""] * len(mine)  # said once
    return rows or [mine + [""] * 5]


def jobs(results: dict[str, Any]) -> list[str]:
    """Every job with its peers, each on as many cores as suits it better."""
    machine = results["machine"]
    bound = "of roofline" if "bandwidth" in machine else "of peak"
    heads = [
        "job",
        "tasks/s",
        bound,
        "adapt, ms",
        "beside",
        "tasks/s",
        "adapt, ms",
        "ratio",
        "asked",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---:|---:|---|---:|---:|---:|---|"]
    for name, case in results["cases"].items():
        lines += [f"| {' | '.join(row)} |" for row in job(name, case, machine)]
    return lines


def times(results: dict[str, Any]) -> list[str]:
    """Times without a peer, with the most that each may take."""
    lines = ["| what | median | spread | at most |", "|---|---:|---:|---|"]
    for name, one in single(results).items():
        if not one["values"]:
            lines.append(f"| {name} | {one.get('error', '')} | | |")
            continue
        most = (
            "" if one["target"] is None else f"{one['target']:g} {one['unit']} {verdict(met(one))}"
        )
        wide = spread(one["values"]) if len(one["values"]) > 1 else ""
        value = f"{number(middle(one['values']))} {one['unit']}"
        lines.append(f"| {name} | {value} | {wide} | {most} |")
    return lines


def curves(results: dict[str, Any]) -> list[str]:
    """How cost grows: `size: cost` for each size."""
    lines = ["| how cost grows | size: cost |", "|---|---|"]
    for curve in results["scale"].values():
        points = [f"{x:,}: {number(y)}" for x, y in zip(curve["x"], curve["y"])]
        if curve["error"]:
            points.append(f"incomplete: {curve['error']}")
        lines.append(f"| {curve['what']} | {', '.join(points)} |")
    return lines


def markdown(results: dict[str, Any]) -> str:
    """All of it."""
    parts = [[about(results["machine"])], *([note] for note in results.get("notes", []))]
    parts += [jobs(results)] if results.get("cases") else []
    parts += [times(results)] if single(results) else []
    parts += [curves(results)] if results.get("scale") else []
    return "\n\n".join("\n".join(part) for part in parts) + "\n"
