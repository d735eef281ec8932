"""Time metaprior beside its peers.

    python -m benchmarks [--only NAMES] [--gpu] [--repeats 5] [--seconds 0.5] [--out FILE.json]
                         [--against FILE.json]
    python -m benchmarks --show [FILE.json]
    python -m benchmarks --docs

Figures go to standard output, progress with the time left to standard error. docs/performance.md
says what the figures mean.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import files, measure, page, tabulate
from benchmarks.cases import CASES, DEFAULTS, OURS, WHOLE

RESULTS = measure.ROOT / "benchmarks" / "performance.json"
ON_GPUS = measure.ROOT / "benchmarks" / "results"  # a file for each kind of GPU
SINGLE = ("table", "first")  # times without a peer
OTHER = ("scale",)  # curves, only when asked for
MINUTES = {"table": 2.0, "first": 2.5, "scale": 8.0}  # about what each takes


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--only", help=f"some of {', '.join((*CASES, *SINGLE, *OTHER))}, separated by commas"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="slices of everyone, of which the median counts"
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="of training in a slice")
    parser.add_argument("--out", type=Path, help="write everything measured to this file")
    parser.add_argument(
        "--against", type=Path, help="compare with this file; exit 1 where something got slower"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.15,
        help="slowdown of a median that --against lets pass",
    )
    parser.add_argument(
        "--gpu",
        action="store_true",
        help="on the GPU that JAX sees, PyTorch too; else on one and two cores",
    )
    parser.add_argument("--report", type=Path, help="write the curves of `scale` to this HTML file")
    parser.add_argument(
        "--docs",
        action="store_true",
        help=f"only write performance.md's tables from {RESULTS.name} and results/",
    )
    parser.add_argument(
        "--show",
        type=Path,
        nargs="?",
        const=RESULTS,
        metavar="FILE",
        help=f"only print the tables of a file, {RESULTS.name} unless named",
    )
    arguments = parser.parse_args(argv)
    names = [*CASES, *SINGLE] if arguments.only is None else arguments.only.split(",")
    unknown = sorted(set(names) - {*CASES, *SINGLE, *OTHER})
    if unknown:
        parser.error(
            f"--only knows {', '.join((*CASES, *SINGLE, *OTHER))}; not {', '.join(unknown)}"
        )
    if arguments.repeats < 1:
        parser.error("--repeats is at least 1")
    return argparse.Namespace(**vars(arguments) | {"names": names})


class Progress:
    """What is being done and how long the rest takes, on standard error."""

    def __init__(self, names: list[str]) -> None:
        self.left = {
            name: MINUTES.get(name, 0.8 if name in CASES and CASES[name].peers else 0.5)
            for name in names
        }
        self.began, self.done, self.at = time.monotonic(), 0.0, 0.0

    def __call__(self, text: str) -> None:
        # What was guessed, corrected by how right the guesses have been, less what this job has
        # had.
        rate = self.at / self.done if self.done > 1 else 1.0
        minutes = rate * sum(self.left.values()) - (self.spent() - self.at)
        print(f"{text}; about {max(minutes, 0.5):.0f} min left", file=sys.stderr, flush=True)

    def finished(self, name: str) -> None:
        self.done += self.left.pop(name)
        self.at = self.spent()

    def spent(self) -> float:
        """Minutes since the start."""
        return (time.monotonic() - self.began) / 60


def collect(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what was asked for."""
    from importlib.util import find_spec

    torch = find_spec("torch") is not None
    compiler = False
    if torch:
        from benchmarks.peers import compiler as has_compiler

        compiler = has_compiler()
    say = Progress(arguments.names)
    results: dict[str, Any] = {
        "machine": measure.machine(arguments.gpu),
        "notes": [],
        "cases": {},
        "single": {},
    }
    results["settings"] = {"repeats": arguments.repeats, "seconds": arguments.seconds}
    chosen = [CASES[name] for name in arguments.names if name in CASES]
    if chosen and not torch:
        results["notes"].append(tabulate.TORCH)
    if torch and not compiler and any(WHOLE in case.peers for case in chosen):
        results["notes"].append(tabulate.CXX)
    for name in arguments.names:
        if name in CASES:
            case = CASES[name]
            lines = measure.run(
                case,
                case.lines(torch, compiler, arguments.gpu),
                arguments.repeats,
                arguments.seconds,
                say,
            )
            results["cases"][name] = tabulate.entry(case, lines)
        elif name == "scale":
            from benchmarks.scale import measure as scale

            results["scale"] = scale(say)
        else:
            from benchmarks import first

            try:
                for what, timed in {"table": first.table, "first": first.first}[name](
                    arguments.repeats, say
                ):
                    results["single"][what] = timed
            except first.Failed as error:  # what was measured before is not lost
                results["single"][name] = first.one([], None) | {"error": str(error)}
        say.finished(name)
        keep(arguments.out, results)
    return results


def keep(path: Path | None, results: dict[str, Any]) -> None:
    """Write what there is so far, so that an interrupted run is not lost."""
    if path is not None:
        files.write(path, files.rounded(results), depth=4)


def disagreeing(results: dict[str, Any], limit: float = 1e-3) -> list[str]:
    """Peers that compute something else: their figures would compare unequal work."""
    found = []
    for name, case in results["cases"].items():
        for line in case["lines"]:
            apart = line["agrees"] or {}
            found += [
                f"{name}, {line['who']}: {what} {d:.1e} away from ours"
                for what, d in apart.items()
                if not d < limit
            ]
    return found


def failed(results: dict[str, Any]) -> list[str]:
    """What of ours could not be timed, and why."""
    lines = [
        (f"{name}, {line['who']}", line)
        for name, case in results["cases"].items()
        for line in case["lines"]
    ]
    ours = [(label, line) for label, line in lines if line["who"] in (OURS, DEFAULTS)]
    return [
        f"{label}: {one['error']}"
        for label, one in [*ours, *results["single"].items()]
        if one.get("error")
    ]


def load(path: Path) -> dict[str, Any]:
    """What an earlier run wrote."""
    return json.loads(path.read_text("utf-8"))


def tables_of_page() -> dict[str, str]:
    """What stands between the marks of docs/performance.md."""
    on_gpus = [page.markdown(load(path)) for path in sorted(ON_GPUS.glob("*.json"))]
    return {"performance": page.markdown(load(RESULTS)), "gpu": "\n".join(on_gpus)}


def into_page() -> None:
    """Write the tables of docs/performance.md."""
    # With JAX, which measuring keeps to other processes.
    from benchmarks.oracle import into_docs

    for name, text in tables_of_page().items():
        into_docs(name, text, "performance")


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.show:
        print(tabulate.plain(load(arguments.show)), end="")
        return 0
    if arguments.docs:
        into_page()
        return 0
    if not arguments.gpu:  # processes of its own inherit it
        os.environ["JAX_PLATFORMS"] = "cpu"
    old = load(arguments.against) if arguments.against else None
    try:
        # Being told to end is as good as Ctrl-C: processes of its own are ended on the way out.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        results = collect(arguments)
    except KeyboardInterrupt:
        print("Stopped; its processes are ended.", file=sys.stderr)
        return 130
    except measure.WorkerError as error:  # no GPU
        print(error, file=sys.stderr)
        return 2
    if arguments.report and "scale" in results:
        from benchmarks.report import write

        write(arguments.report, results)
    print(tabulate.plain(results), end="")
    unequal, missing = disagreeing(results), failed(results)
    for line in unequal:
        print("UNEQUAL WORK:", line)
    for line in missing:
        print("FAILED:", line)
    wrong = unequal or missing
    if old is None:
        return 1 if wrong else 0
    lines, slower = tabulate.against(results, old, arguments.tolerance)
    print("\nAgainst", arguments.against)
    print("\n".join(lines))
    for line in slower:
        print("SLOWER:", line)
    return 1 if slower or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
