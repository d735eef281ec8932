"""The lecture's table of properties, measured, into docs/how-to-choose.md.

    metaprior reproduce properties --methods all --out DIR
    python -m benchmarks.properties DIR     keeps what DIR/results.json says, in place of what was
                                            kept of the same methods, and writes the table
    python -m benchmarks.properties         writes the table from what was kept

Every method has a row. Of the many figures of a report, the table has those that stand for a
property. What is a mean over tasks has the median over tasks beside it, in brackets.
"""

import json
import sys
from pathlib import Path

from benchmarks.files import write
from benchmarks.oracle import ROOT, cell, into_docs, read

KEPT = ROOT / "benchmarks" / "properties.json"
COLUMNS = {
    "expressive power": ("inside", "expressive"),
    "error, 200 / 10 rows": ("inside", "ratio"),
    "other functions": ("other functions", "ratio"),
    "other inputs": ("other inputs", "ratio"),
    "NLL above exact": ("inside", "gap"),
    "spread / error": ("inside", "spread"),
    "in 90 % interval": ("inside", "coverage90"),
}
NAMES = {"exact": "*exact posterior*", "exact_classes": "*exact posterior, classes*"}


def figures(results: dict) -> dict[str, dict[str, list[float]]]:
    """The value and standard error of each column, and the median of means, for every method.

    Methods for classes alone are judged on classes.
    """

    def numbers(figure: dict) -> list[float]:
        three = figure["value"], figure["error"], figure.get("median")
        return [round(number, 4) for number in three if number is not None]

    found: dict[str, dict[str, list[float]]] = {}
    for run in results["cells"]:
        at = {(f["setting"].removesuffix(" (classes)"), f["metric"]): f for f in run["figures"]}
        given = {name: at[where] for name, where in COLUMNS.items() if where in at}
        found[run["method"]] = {name: numbers(figure) for name, figure in given.items()}
    return found


def markdown(found: dict[str, dict[str, list[float]]]) -> str:
    """A row a method."""
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name, row in found.items():
        cells = [cell(*row[column], digits=2) if column in row else "" for column in COLUMNS]
        lines.append(f"| {NAMES.get(name, f'`{name}`')} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    from metaprior.methods import METHODS

    if len(sys.argv) > 1:
        found = figures(json.loads((Path(sys.argv[1]) / "results.json").read_text("utf-8")))
        found = read(KEPT) | found
        order = [*NAMES, *METHODS]
        write(KEPT, {name: found[name] for name in order if name in found}, depth=1)
    into_docs("properties", markdown(read(KEPT)), "how-to-choose")


if __name__ == "__main__":
    main()
