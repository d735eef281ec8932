"""The comparison as a table: which figures, in which order, and which differences count."""

import math
from typing import Any

LABELS = {
    "nll": "negative log-likelihood, nats a row",
    "rmse": "root mean squared error, units of the target",
    "crps": "CRPS, units of the target",
    "coverage90": "coverage of the 90 % interval",
    "nll_log": "negative log-likelihood of the log target, nats a row",
    "rmse_log": "root mean squared error of the log target",
    "calibration": "calibration error, 0 is best",
    "accuracy": "accuracy",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "mce": "largest calibration error",
}
MAIN = ("nll", "rmse", "coverage90", "accuracy", "ece")  # what a terminal has room for
HIGHER_IS_BETTER = {"accuracy"}
NO_DIRECTION = {"coverage90"}
BETTER, WORSE = "▲", "▼"
LEGEND = (
    f"{BETTER} better and {WORSE} worse than the method: paired over groups, the 95 % interval "
    "excludes zero."
)


def metrics_in(result: dict[str, Any]) -> list[str]:
    """The metrics that a comparison holds, in the order of `LABELS`."""
    first = next(iter(result["shots"].values()))
    return [name for name in LABELS if name in first["method"]]


def learners_in(result: dict[str, Any]) -> list[str]:
    """`method`, then the baselines."""
    first = next(iter(result["shots"].values()))
    return ["method", *(name for name in first if name != "method")]


def mark(entry: dict[str, Any], metric: str) -> str:
    """Whether a baseline differs from the method beyond chance: `BETTER`, `WORSE` or nothing."""
    difference = entry.get("difference", {}).get(metric)  # method minus baseline
    if not difference or metric in NO_DIRECTION or difference.get("low") is None:
        return ""
    low, high = difference["low"], difference["high"]
    # With lower as better, a negative difference says that the method is better.
    if metric in HIGHER_IS_BETTER:
        low, high = -high, -low
    if high < 0:
        return WORSE
    return BETTER if low > 0 else ""


def number(value: float | None, metric: str) -> str:
    """A figure with as many digits as mean something."""
    if value is None or math.isnan(value):
        return "–"
    if metric == "coverage90":
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def cells(result: dict[str, Any], metric: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each learner its figure and mark at every number of shots."""
    rows = []
    for name in learners_in(result):
        entries = [shot.get(name, {}) for shot in result["shots"].values()]
        rows.append((name, [(number(e.get(metric), metric), mark(e, metric)) for e in entries]))
    return rows


def print_evaluation(result: dict[str, Any]) -> None:
    """Method beside every baseline on standard output, then the plain sentence.

    Several targets are shown one after the other, and then all together.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if "targets" in result:
        names = list(result["targets"])
        for i, (name, one) in enumerate(result["targets"].items()):
            known = f" given {', '.join(names[:i])}" if i else ""
            console.print(f"[bold]Target {name}{known}[/]\n")
            print_evaluation(one)
            console.print()
        console.print(f"[bold]{', '.join(names)} together[/]\n")
        return print_evaluation(result["joint"])
    for metric in [name for name in metrics_in(result) if name in MAIN]:
        table = Table(
            title=LABELS[metric], title_justify="left", title_style="bold", header_style="dim"
        )
        table.add_column("observed rows")
        for shots in result["shots"]:
            table.add_column(shots, justify="right")
        for name, row in cells(result, metric):
            texts = [_coloured(value, sign) for value, sign in row]
            table.add_row(name, *texts, style="bold" if name == "method" else None)
        console.print(table)
    console.print(LEGEND, style="dim")
    print_words(console, result)


def print_words(console: Any, result: dict[str, Any]) -> None:
    """The verdict, whether the level holds, and notes, on lines of their own."""
    for text in (result["sentence"], result.get("level"), *result.get("notes", ())):
        if text:
            console.print(f"\n{text}", soft_wrap=True, markup=False)


def _coloured(value: str, sign: str) -> str:
    """A cell for the terminal: red where a baseline is better than the method."""
    text = f"{value} {sign or ' '}"
    colour = {BETTER: "red", WORSE: "green"}.get(sign)
    return f"[{colour}]{text}[/]" if colour else text


def print_methods(rows: list[dict[str, Any]]) -> None:
    """THE TABLE of methods on standard output."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(
        "[bold]auto[/]  the default: several learners mixed with weights that depend on the "
        "observed rows"
    )
    for row in rows:
        kinds = row["kinds"] if isinstance(row["kinds"], str) else ", ".join(row["kinds"])
        console.print(f"\n[bold]{row['name']}[/]  {row['use']}")
        facts = [fact for fact in (row["group"], kinds, row["paper"]) if fact]
        console.print(f"  [dim]{'; '.join(facts)}[/]")


def to_markdown(result: dict[str, Any], metric: str = "nll") -> str:
    """One metric as a Markdown table."""
    shots = list(result["shots"])
    heads = " | ".join(f"K = {k}" for k in shots)
    lines = [f"| learner | {heads} |", "|---|" + "---:|" * len(shots)]
    for name, row in cells(result, metric):
        texts = [f"**{v}**" if name == "method" else f"{v} {s}".strip() for v, s in row]
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(lines)
