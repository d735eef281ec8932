"""Fit and evaluate the defaults on six real tables; write the results section of the README.

    python -m benchmarks.tables --splits 5 [--only milk,radon] [--data ../shared/data] [--readme]

Writes benchmarks/tables.parquet after every table, so that a run that is cut off is not lost. The
file has a row for each table: the seconds of its fits, the sentence that `evaluate` says, and the
figures, a list with an entry for each number of observed rows, learner and metric.
"""

import argparse
import sys
import time
from pathlib import Path

import polars as pl

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "tables.parquet"
SHOTS = (0, 1, 2, 5, 10)
TABLES = {
    "weather": ("weather_airport_days.csv", "group", "temp", {"split_by": "day_of_year"}),
    "remifentanil": ("remifentanil_pk.csv", "subject", "conc", {}),
    "milk": ("milk_protein.csv", "cow", "protein", {}),
    "school_math": ("school_math.csv", "school", "math_score", {}),
    "radon": ("radon_counties.csv", "county", "log_radon", {}),
    "contraception": ("contraception_districts.csv", "district", "uses_contraception", {}),
}


def measure(path: Path, task: str, target: str, options: dict, splits: int) -> dict:
    """Fit and evaluate on `splits` splits of the groups."""
    import jax

    from benchmarks import table_peers
    from metaprior import Prior
    from metaprior.evaluation.evaluate import Evaluation
    from metaprior.tables import judging

    done, seconds, peers = [], [], []
    for seed in range(splits):
        # Every fit compiles; the programs of many would exhaust the memory maps of the process.
        jax.clear_caches()
        began = time.monotonic()
        prior = Prior(holdout=0.2, seed=seed, **options).fit(path, task=task, target=target)
        seconds.append(time.monotonic() - began)
        trained = prior.trained
        judged = judging.tasks_of(trained, None, SHOTS, seed)
        done.append(judging.score(trained, judged, None))
        found, took = table_peers.judged(
            prior, path, judged.tasks, seed, trained.units, judged.grouped
        )
        for K, some in found.items():
            done[-1].statistics[K] |= some
        peers.append(took)
        text = f"{path.name}: split {seed}, fitted in {seconds[-1]:.0f} s"
        print(text, file=sys.stderr, flush=True)

    merged = Evaluation.merge(done).to_json()
    return {
        "seconds": seconds,
        "peer_seconds": [
            {"peer": name, "seconds": max(took[name] for took in peers)} for name in peers[0]
        ],
        "sentence": merged["sentence"],
        "figures": [
            figure
            for shots, learners in merged["shots"].items()
            for who, entry in learners.items()
            for figure in figures(int(shots), who, entry)
        ],
    }


def figures(shots: int, who: str, entry: dict) -> list[dict]:
    """A learner's metrics with K rows, their 95 % intervals, and how far below the method is."""
    found = []
    for metric, (low, high) in entry["ci"].items():
        difference = entry.get("difference", {}).get(metric, {})
        found.append(
            {
                "shots": shots,
                "learner": who,
                "tasks": entry["n_tasks"],
                "metric": metric,
                "value": entry[metric],
                "low": low,
                "high": high,
                "difference": difference.get("mean"),
                "difference_low": difference.get("low"),
                "difference_high": difference.get("high"),
            }
        )
    return found


def read(path: Path = KEPT) -> dict[str, dict]:
    """What was measured, by table; nothing where there is no file yet."""
    if not path.exists():
        return {}
    return {row.pop("table"): row for row in pl.read_parquet(path).rows(named=True)}


def keep(path: Path, results: dict[str, dict]) -> None:
    """Write all of it, in the order of `TABLES`."""
    rows = [{"table": name, **results[name]} for name in TABLES if name in results]
    part = path.with_suffix(".part")
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(part, compression="zstd")
    part.replace(path)


class Shown:
    """The figures of one table, as its lines of markdown want them."""

    def __init__(self, result: dict) -> None:
        self.values = {
            (f["shots"], f["learner"], f["metric"]): f["value"] for f in result["figures"]
        }
        self.peers = [one["peer"] for one in result["peer_seconds"]]
        self.learners = list(dict.fromkeys(f["learner"] for f in result["figures"]))
        # The scale that papers give: of the logarithm, where that is modelled.
        self.metric = "nll_log" if (1, "method", "nll_log") in self.values else "nll"

    def row(self, metric: str, digits: int) -> list[str]:
        """The method's figure at every number of rows."""
        return [f"{self.values[k, 'method', metric]:.{digits}f}" for k in SHOTS]

    def best(self, shots: int, some: list[str]) -> tuple[str, float]:
        """The one with the lowest negative log-likelihood at one K, picked with hindsight."""
        who = min(some, key=lambda name: self.values[shots, name, self.metric])
        return who, self.values[shots, who, self.metric]

    def lines(self) -> dict[str, list[str]]:
        """What stands in front of a line, and its cells."""
        peers = [who for who in self.learners if who in self.peers]
        ours = [who for who in self.learners if who not in ("method", *peers)]
        unit = "NLL (log)" if self.metric == "nll_log" else "NLL"
        found = {f"metaprior, {unit}": [f"**{text}**" for text in self.row(self.metric, 3)]}
        for label, some in (("best baseline", ours), ("best peer", peers)):
            best = [self.best(k, some) for k in SHOTS] if some else []
            if best:
                found[label] = [f"{value:.3f} ({who})" for who, value in best]
        if (1, "method", "coverage90") in self.values:
            return found | {"coverage of the 90 % band": self.row("coverage90", 2)}
        return found | {"accuracy": self.row("accuracy", 3)}


def markdown(results: dict[str, dict]) -> str:
    """One line a table and figure."""
    lines = [
        "| table | | " + " | ".join(f"K = {k}" for k in SHOTS) + " |",
        "|---|---|" + "---:|" * len(SHOTS),
    ]
    for table, result in results.items():
        name = table
        for label, cells in Shown(result).lines().items():
            lines.append(f"| {name} | {label} | " + " | ".join(cells) + " |")
            name = ""
        seconds = f"| | fit, seconds, compilation included | {max(result['seconds']):.0f} |"
        lines.append(seconds + " |" * (len(SHOTS) - 1))
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
    parser.add_argument("--out", type=Path, default=KEPT, help="file to write")
    parser.add_argument("--readme", action="store_true", help="also fill in README.md")
    arguments = parser.parse_args()
    from metaprior.system.terminal import use_cache

    use_cache()
    results = read(arguments.out)
    for name in filter(None, arguments.only.split(",")):
        file, task, target, options = TABLES[name]
        results[name] = measure(arguments.data / file, task, target, options, arguments.splits)
        keep(arguments.out, results)
        print(results[name]["sentence"], flush=True)
    results = read(arguments.out)
    print(markdown(results))
    if arguments.readme:
        into_readme(markdown(results))


if __name__ == "__main__":
    main()
