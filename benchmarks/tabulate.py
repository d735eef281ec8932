"""Ratios, what was asked of them, and the tables for the terminal and docs/performance.md."""

from typing import Any

from benchmarks.cases import DEFAULTS, GPU, OURS, Case
from benchmarks.measure import middle

TORCH = (
    "PyTorch is not installed, so there are only metaprior's own lines: "
    "pip install 'metaprior[bench]'."
)
CXX = "torch.compile: not available, as there is no C++ compiler."


def best(lines: list[dict], who: str | None = None) -> float | None:
    """The highest median of tasks a second: of one, or of all peers; over one and two cores."""
    mine = (OURS, DEFAULTS)
    some = [
        line
        for line in lines
        if line["train"] and (line["who"] == who if who else line["who"] not in mine)
    ]
    return max((middle(line["train"]) for line in some), default=None)  # ty: ignore[invalid-argument-type]


def ratios(lines: list[dict], targets: dict[str, float]) -> list[dict[str, Any]]:
    """Ours over each peer, each on as many cores as suits it better.

    The target stands beside the ratio, and whether it is met.
    """
    ours = best(lines, OURS)
    peers = list(
        dict.fromkeys(line["who"] for line in lines if line["who"] not in (OURS, DEFAULTS))
    )
    found = []
    for name in [*peers, *(["best"] if "best" in targets else [])]:
        theirs = best(lines, None if name == "best" else name)
        ratio = ours / theirs if ours and theirs else None
        target = targets.get(name)
        met = None if ratio is None or target is None else ratio >= target
        found.append({"peer": name, "ratio": ratio, "target": target, "met": met})
    return found


def spread(values: list[float]) -> str:
    """Half the range over the median."""
    return f"±{50 * (max(values) - min(values)) / (middle(values) or 1):.0f} %"


def number(value: float) -> str:
    """Three digits or whole numbers."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(line: dict, machine: dict) -> list[str]:
    """The share of the peak of matrix products on as many cores, or on the GPU.

    For a GPU also the share of its roofline: of the least time that operations or traffic of the
    products take.
    """
    roof = "bandwidth" in machine
    peak = machine["peak_gflops"].get(str(line["cores"]))
    if not line["flops"] or not line["train"] or not peak:
        return [""] * (1 + roof)
    least = [line["flops"] / peak, *([line["bytes"] / machine["bandwidth"]] if roof else [])]
    shares = [1e-7 * (middle(line["train"]) or 0) * seconds for seconds in (least[0], max(least))]
    return [f"{number(percent) if roof else f'{percent:.0f}'} %" for percent in shares[: 1 + roof]]


def rows(case: dict, machine: dict) -> list[list[str]]:
    """The lines of one case, with the columns of `head`."""
    lines, found = case["lines"], []
    at = {line["cores"]: line for line in lines if line["who"] == OURS}
    for line in lines:
        if not line["train"]:
            found.append(
                [line["who"], str(line["cores"]), line["error"] or "not available"]
                + [""] * (len(head(machine)) - 3)
            )
            continue
        train, adapt = middle(line["train"]), middle(line["adapt"])
        own = at.get(line["cores"])
        pair = ["", ""]
        if line["who"] not in (OURS, DEFAULTS) and own and own["train"]:
            pair = [f"{middle(own['train']) / train:.1f}x", f"{adapt / middle(own['adapt']):.1f}x"]
        found.append(
            [
                line["who"],
                str(line["cores"]),
                number(train),
                spread(line["train"]),
                pair[0],
                number(adapt),
                pair[1],
                *share(line, machine),
            ]
        )
    return found


def head(machine: dict) -> list[str]:
    known = ["who", "cores", "tasks/s", "spread", "ours is", "adapt, ms", "ours is", "of peak"]
    return [*known, "of roofline"] if "bandwidth" in machine else known


def about(machine: dict) -> str:
    """What the figures were measured on, and its bounds."""
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    text = f"{machine['cpu']}, {machine['cores']} cores; Python {machine['python']}; {versions}."
    if "bandwidth" not in machine:
        peaks = " and ".join(f"{g} on {n}" for n, g in machine["peak_gflops"].items())
        return f"{text} Matrix products: {peaks} cores, GFLOP/s."
    peak, tf32 = 1e-3 * machine["peak_gflops"][GPU], 1e-3 * machine["tf32_gflops"]
    return (
        f"{machine['device']}; {text} Matrix products in float32: {peak:.1f} TFLOP/s in the "
        f"precision that metaprior asks for, {machine['precision']!r}, and {tf32:.1f} in JAX's "
        f"default; memory: {machine['bandwidth']:,.0f} GB/s."
    )


def markdown(results: dict) -> str:
    """All tables."""
    machine = results["machine"]
    text = [about(machine), ""]
    for note in results.get("notes", []):
        text += [note, ""]
    asked = [
        (name, ratio) for name, case in results.get("cases", {}).items() for ratio in case["ratios"]
    ]
    if asked:
        text += ["| job | peer | ratio | asked | |", "|---|---|---:|---:|---|"]
    for name, r in asked:
        ratio = "" if r["ratio"] is None else f"{r['ratio']:.1f}"
        target = "" if r["target"] is None else f"{r['target']:g}"
        text.append(f"| {name} | {r['peer']} | {ratio} | {target} | {verdict(r['met'])} |")
    for name, case in results.get("cases", {}).items():
        columns = head(machine)
        text += [
            "",
            f"**{name}**: {case['what']}",
            "",
            f"| {' | '.join(columns)} |",
            "|---|" + "---:|" * (len(columns) - 1),
        ]
        text += [f"| {' | '.join(row)} |" for row in rows(case, machine)]
    if single(results):
        text += ["", "| what | median | spread | at most | |", "|---|---:|---:|---:|---|"]
    for name, one in single(results).items():
        target = "" if one["target"] is None else f"{one['target']:g} {one['unit']}"
        value = (
            f"{number(middle(one['values']))} {one['unit']}"
            if one["values"]
            else one.get("error", "")
        )  # ty: ignore[invalid-argument-type]
        wide = spread(one["values"]) if len(one["values"]) > 1 else ""
        text.append(f"| {name} | {value} | {wide} | {target} | {verdict(met(one))} |")
    for curve in results.get("scale", {}).values():

        def cells(values):
            return f"| {' | '.join(map(number, values))} |"

        text += [
            "",
            f"{curve['what']}{', incomplete: ' + curve['error'] if curve['error'] else ''}:",
            "",
        ]
        text += [cells(curve["x"]), f"|{'---:|' * len(curve['x'])}", cells(curve["y"])]
    return "\n".join(text) + "\n"


def verdict(met: bool | None) -> str:
    return {True: "met", False: "missed", None: ""}[met]


def met(one: dict) -> bool | None:
    """Whether a time is within its bound."""
    if one["target"] is None or not one["values"]:
        return None
    return middle(one["values"]) <= one["target"]  # ty: ignore[unsupported-operator]


def single(results: dict) -> dict[str, dict]:
    """Times without a peer."""
    return results.get("single", {})


def plain(results: dict) -> str:
    """The tables with aligned columns."""
    text, table = [], []

    def flush() -> None:
        widths = [max(map(len, column)) for column in zip(*table)]
        for row in table:
            cells = [
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths))
            ]
            text.append("  ".join(cells).rstrip())
        table.clear()

    for line in [*markdown(results).splitlines(), ""]:
        if line.startswith("|---"):
            continue
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        flush()
        text.append(line.replace("**", ""))
    return "\n".join(text).rstrip() + "\n"


def place(cores: int | str) -> str:
    """Where a line ran, in words."""
    if cores == GPU:
        return GPU
    return "1 core" if cores == 1 else f"{cores} cores"


def figures(results: dict) -> dict[str, tuple[float, bool]]:
    """Every median of ours, and whether more is better."""
    found = {}
    for name, case in results.get("cases", {}).items():
        for line in case["lines"]:
            if line["who"] in (OURS, DEFAULTS) and line["train"]:
                label = f"{name}, {line['who']}, {place(line['cores'])}"
                found[f"{label}: tasks/s"] = (middle(line["train"]), True)
                found[f"{label}: adapt, ms"] = (middle(line["adapt"]), False)
    for name, one in single(results).items():
        if one["values"]:
            found[f"{name}, {one['unit']}"] = (middle(one["values"]), False)
    return found  # ty: ignore[invalid-return-type]


def against(new: dict, old: dict, tolerance: float) -> tuple[list[str], list[str]]:
    """A line for everything both measured, and those that got slower by more than the tolerance."""
    lines, slower = [], []
    before = figures(old)
    for name, (value, more) in figures(new).items():
        if name not in before:
            continue
        was = before[name][0]
        speed = value / was if more else was / value
        lines.append(f"{name}: {number(was)} -> {number(value)} ({100 * (speed - 1):+.0f} % speed)")
        if speed < 1 - tolerance:
            slower.append(lines[-1])
    return lines, slower


def entry(case: Case, lines: list[dict]) -> dict[str, Any]:
    """What the file has of a case; ratios are asked for on cores of a CPU."""
    targets = {} if any(line["cores"] == GPU for line in lines) else case.targets
    return {
        "what": case.what,
        "batch": case.batch,
        "lines": lines,
        "ratios": ratios(lines, targets),
    }
