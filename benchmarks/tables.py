"""Fit and evaluate the defaults on six real tables; write the results section of the README.

    python benchmarks/tables.py --splits 5 [--only milk,radon] [--data ../shared/data] [--readme]

Writes benchmarks/tables.json and benchmarks/tables.md after every table, so that a run that is cut
off is not lost.
"""

import argparse
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHOTS = (0, 1, 2, 5, 10)
TABLES = {
    "weather": ("weather_airport_days.csv", "group", "temp", {"split_by": "day_of_year"}),
    "remifentanil": ("remifentanil_pk.csv", "subject", "conc", {"log_target": True}),
    "milk": ("milk_protein.csv", "cow", "protein", {}),
    "school_math": ("school_math.csv", "school", "math_score", {}),
    "radon": ("radon_counties.csv", "county", "log_radon", {}),
    "contraception": ("contraception_districts.csv", "district", "uses_contraception", {}),
}


def measure(path: Path, task: str, target: str, options: dict, splits: int) -> dict:
    """Fit and evaluate on `splits` splits of the groups."""
    import jax

    from metaprior import Prior
    from metaprior.evaluation.evaluate import Evaluation

    done, seconds = [], []
    for seed in range(splits):
        # every fit compiles; programs of many fits would exhaust the memory maps of the process
        jax.clear_caches()
        began = time.monotonic()
        prior = Prior(holdout=0.2, seed=seed, **options).fit(path, task=task, target=target)
        seconds.append(time.monotonic() - began)
        done.append(prior.evaluate(shots=SHOTS, seed=seed))
        print(
            f"{path.name}: split {seed}, fitted in {seconds[-1]:.0f} s", file=sys.stderr, flush=True
        )
    return {**Evaluation.merge(done).to_json(), "fit_seconds": seconds}


def metric(result: dict) -> str:
    """The likelihood on the scale that papers give: of the logarithm, where that is modelled."""
    return "nll_log" if "nll_log" in result["shots"]["1"]["method"] else "nll"


def best_baseline(shot: dict, name: str) -> tuple[str, float]:
    """The baseline with the lowest likelihood loss at one K, picked with hindsight."""
    return min(
        ((who, entry[name]) for who, entry in shot.items() if who != "method"),
        key=lambda pair: pair[1],
    )


def markdown(results: dict) -> str:
    """One line a table and figure."""
    lines = [
        "| table | | " + " | ".join(f"K = {k}" for k in SHOTS) + " |",
        "|---|---|" + "---:|" * len(SHOTS),
    ]
    for table, result in results.items():
        name, shots = metric(result), result["shots"].values()
        best = [best_baseline(shot, name) for shot in shots]
        unit = "NLL (log)" if name == "nll_log" else "NLL"
        rows = {
            f"metaprior, {unit}": [f"**{shot['method'][name]:.3f}**" for shot in shots],
            "best baseline": [f"{value:.3f}" for _, value in best],
            "which": [who for who, _ in best],
        }
        if "coverage90" in result["shots"]["1"]["method"]:
            rows["coverage of the 90 % band"] = [
                f"{shot['method']['coverage90']:.2f}" for shot in shots
            ]
        else:
            rows["accuracy"] = [f"{shot['method']['accuracy']:.3f}" for shot in shots]
        for i, (label, values) in enumerate(rows.items()):
            lines.append(f"| {table if i == 0 else ''} | {label} | " + " | ".join(values) + " |")
        lines.append(
            f"| | fit, seconds, compilation included | {max(result['fit_seconds']):.0f} |"
            + " |" * (len(SHOTS) - 1)
        )
    return "\n".join(lines) + "\n"


def into_readme(text: str) -> None:
    """Between the markers of the README."""
    path = ROOT / "README.md"
    begin, end = "<!-- results: begin -->\n", "<!-- results: end -->"
    head, rest = path.read_text("utf-8").split(begin)
    path.write_text(head + begin + text + end + rest.split(end, 1)[1], "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--only", default=",".join(TABLES))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks")
    parser.add_argument("--readme", action="store_true", help="also fill in README.md")
    arguments = parser.parse_args()
    from metaprior.system.terminal import use_cache

    use_cache()
    saved = arguments.out / "tables.json"
    old = json.loads(saved.read_text("utf-8")) if saved.exists() else {}
    for name in arguments.only.split(","):
        file, task, target, options = TABLES[name]
        old[name] = measure(arguments.data / file, task, target, options, arguments.splits)
        results = {table: old[table] for table in TABLES if table in old}
        saved.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        (arguments.out / "tables.md").write_text(markdown(results), "utf-8")
        print(old[name]["sentence"], flush=True)
    print(markdown(results))
    if arguments.readme:
        into_readme(markdown(results))


if __name__ == "__main__":
    main()
