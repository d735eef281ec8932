"""Every method and baseline on a user's own table: paired intervals, ranks with ties, and which one
to use.
"""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metaprior.cli.run import naming
from metaprior.errors import InputError
from metaprior.evaluation import metrics
from metaprior.evaluation.evaluate import METHOD, Evaluation
from metaprior.system.folder import (
    continued,
    digest,
    machine,
    versions,
    write_atomic,
    write_parquet,
)
from metaprior.tables.culprits import BadTask

FORMAT = "metaprior comparison"
AUTO = "auto"
_OURS = {"run.json", "cells", "shared", "results.json", "predictions.parquet", "report.html"}


def runnable(classes: bool) -> list[str]:
    """`auto` and every row of THE TABLE that predicts what the target holds."""
    from metaprior.methods import METHODS

    kind = "classes" if classes else "numbers"
    return [AUTO, *(n for n, row in METHODS.items() if kind in row.kinds and n != "stack")]


class Comparison:
    """Methods and baselines on splits of one table, in one folder; finished cells are not run
    again.

    Args:
        folder: of the results.
        table: CSV or Parquet file.
        settings: `task`, `target`, `features`, `log_target`, `split_by`, `steps`, `shots`,
            `holdout`, `skip_bad_tasks`; plain values.
    """

    def __init__(self, folder: Path, table: Path, settings: dict[str, Any]):
        self.folder, self.table, self.settings = folder, table, settings
        self.cells = folder / "cells"

    def check(self) -> None:
        """The folder is new, empty, or of the same comparison."""
        before = continued(self.folder, FORMAT, _OURS)
        if before is None:
            return
        if before["table_sha256"] != digest(self.table):
            raise InputError(
                f"{self.table}: is not the table that {self.folder} compares on; choose another folder."
            )
        for name, value in self.settings.items():
            if before["settings"].get(name, False) != value:
                flag = "--" + name.replace("_", "-")
                raise InputError(
                    f"{self.folder}: was run with {flag} {before['settings'].get(name)}, now {value}; choose another folder."
                )

    @functools.cached_property
    def checked(self) -> Any:
        """The table as the target is learned from it; a bad one ends here, before anything is
        written.
        """
        from metaprior.tables.groups import check_all
        from metaprior.tables.read import as_frame

        s = self.settings
        found = check_all(
            as_frame(self.table),
            s["task"],
            [s["target"]],
            s["features"],
            str(self.table),
            kind="auto",
            log=s["log_target"],
            split_by=s["split_by"],
            holdout=s["holdout"],
            seed=0,
            skip={} if s.get("skip_bad_tasks") else None,
        )
        return found[0]

    def classes(self) -> bool:
        """Whether the target holds classes."""
        return bool(self.checked.labels)

    def names(self, text: str | None) -> list[str]:
        """Methods from `a,b`, `all` or nothing (all)."""
        able = runnable(self.classes())
        if text is None or text.strip() == "all":
            return able
        from metaprior.methods import get

        names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not names:
            raise InputError(
                "--methods is empty; give names of `metaprior methods` with commas between, or all."
            )
        for name in names:
            if name not in able:
                get(name)
                raise InputError(
                    f"{name} does not predict {self.settings['target']!r}; what does: {', '.join(able)}."
                )
        return names

    def run(
        self, methods: Sequence[str], splits: int, tell: Callable[[float, str], None]
    ) -> dict[str, Any]:
        """Run what is missing; results.json after every cell, the rest at the end."""
        self.check()
        self.cells.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "run.json").exists():
            record = {
                "format": FORMAT,
                "table": str(self.table.absolute()),
                "table_sha256": digest(self.table),
                "settings": self.settings,
                "versions": versions(),
                "machine": machine(),
                "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            }
            write_atomic(
                self.folder / "run.json",
                lambda p: p.write_text(json.dumps(record, indent=1) + "\n", "utf-8"),
            )
        wanted = [(name, split) for split in range(splits) for name in methods]
        todo = [cell for cell in wanted if not self._path(*cell).exists()]
        failed: list[dict[str, Any]] = []
        for i, (name, split) in enumerate(todo):

            def share(done, what):
                return tell((i + done) / len(todo), f"{name}, split {split + 1}: {what}")

            try:
                self._one(name, split, share)
            except Exception as error:  # one method's failure must not lose the others' hours
                if isinstance(error, (InputError, MemoryError, OSError)) and not isinstance(
                    error, BadTask
                ):
                    raise
                failed.append(
                    {
                        "method": name,
                        "split": split,
                        "error": f"{type(error).__name__}: {error}"[:500],
                    }
                )
                print(
                    f"metaprior: {name}, split {split + 1} failed: {failed[-1]['error']}",
                    file=sys.stderr,
                )
            self.write(methods, splits, failed, report=False)
        tell(1.0, "writing the report")
        return self.write(methods, splits, failed, report=True)

    def _path(self, name: str, split: int) -> Path:
        return self.cells / f"{name}-{split}.json"

    def _one(self, name: str, split: int, tell) -> None:
        """Fit one method on one split and judge it, with the baselines the first time."""
        import jax

        import metaprior

        jax.clear_caches()  # programs of many fits would exhaust the memory maps of the process
        s, began = self.settings, time.monotonic()
        prior = metaprior.Prior(
            name,
            log_target=s["log_target"],
            steps=s["steps"],
            seed=split,
            split_by=s["split_by"],
            holdout=s["holdout"],
            skip_bad_tasks=s.get("skip_bad_tasks", False),
        )
        # boosting and baselines of a split are the same for every method: fitted once, kept in a
        # shared folder
        shared = self.folder / "shared" / f"split-{split}"
        with naming(self.table):
            prior.fit(
                self.table,
                task=s["task"],
                target=s["target"],
                features=s["features"],
                checkpoint=shared,
                progress=lambda done, what: tell(0.9 * done, what),
            )
            seconds = time.monotonic() - began
            if sum(prior.info["groups"].values()) < len(
                self.checked.held
            ):  # other rows to train on and to judge by
                lost = " ".join(
                    n
                    for n in prior.info["notes"]
                    if n not in self.checked.notes and ": left out, " in n
                )
                raise BadTask(
                    f"can only be trained without groups that the others have: {lost} Leave them out of the "
                    "table to compare it with the others."
                )
            if (self.cells / f"baselines-{split}.npz").exists() and prior.trained is not None:
                prior.trained = dataclasses.replace(prior.trained, baselines={})
            found = prior.evaluate(shots=s["shots"], seed=split)
        assert isinstance(found, Evaluation)
        base = [b for b in next(iter(found.statistics.values())) if b != METHOD]
        if base:
            self._keep(f"baselines-{split}", found, base)
        self._keep(f"{name}-{split}", found, [METHOD])
        entry = {
            "method": name,
            "split": split,
            "seconds": round(seconds, 1),
            "classes": found.classes,
            "groups": prior.info["groups"],
            "rows": prior.info["rows"],
            "notes": prior.info["notes"],
        }
        write_atomic(
            self._path(name, split), lambda p: p.write_text(json.dumps(entry) + "\n", "utf-8")
        )

    def _keep(self, stem: str, found: Evaluation, names: list[str]) -> None:
        arrays: dict[str, Any] = {}
        for K in found.statistics:
            arrays[f"g|{K}||group"] = found.groups(K)
            for name in names:
                key = f"{K}|{'' if name == METHOD else name}"
                arrays |= {f"s|{key}|{m}": v for m, v in found.statistics[K][name].items()}
                arrays |= {f"p|{key}|{m}": v for m, v in found.points[K][name].items()}

        def save(part: Path) -> None:
            with part.open("wb") as file:
                np.savez_compressed(file, **arrays)

        write_atomic(self.cells / f"{stem}.npz", save)

    def collect(
        self, methods: Sequence[str], splits: int
    ) -> tuple[Evaluation | None, list[dict[str, Any]]]:
        """Statistics of every learner that all splits have, merged over splits; and the cells."""
        entries, each = [], []
        for split in range(splits):
            done = [m for m in methods if self._path(m, split).exists()]
            if not done:
                continue
            statistics: dict = {}
            points: dict = {}
            grouped: dict = {}
            for name in (*done, "baselines"):
                with np.load(self.cells / f"{name}-{split}.npz", allow_pickle=False) as file:
                    for key in file.files:
                        kind, K, who, what = key.split("|")
                        if kind == "g":
                            grouped[int(K)] = file[key]
                            continue
                        into = statistics if kind == "s" else points
                        into.setdefault(int(K), {}).setdefault(who or name, {})[what] = file[key]
            for columns in (c for learners in points.values() for c in learners.values()):
                columns["split"] = np.full(len(columns["task"]), split + 1)
            entries += [json.loads(self._path(m, split).read_text("utf-8")) for m in done]
            each.append(Evaluation(statistics, points, entries[-1]["classes"], grouped or None))
        if not each:
            return None, []
        names = [set(next(iter(e.statistics.values()))) for e in each]
        shared = set.intersection(*names)
        for e in each:
            for part in (e.statistics, e.points):
                for K in part:
                    part[K] = {n: v for n, v in part[K].items() if n in shared}
        return Evaluation.merge(each), entries

    def write(
        self, methods: Sequence[str], splits: int, failed: list[dict], report: bool
    ) -> dict[str, Any]:
        """results.json; with `report` also predictions.parquet and report.html."""
        found, entries = self.collect(methods, splits)
        if found is None:
            raise InputError(
                f"{self.folder}: no method could be run: {failed[0]['error'] if failed else 'none asked for'}."
            )
        methods = [m for m in methods if m in next(iter(found.statistics.values()))]
        ranked = rank(found)
        results = {
            "format": FORMAT,
            "table": str(self.table),
            "settings": self.settings,
            "splits": splits,
            "versions": versions(),
            "classes": found.classes,
            "methods": methods,
            "shots": {str(K): ranked["shots"][K] for K in ranked["shots"]},
            "overall": ranked["overall"],
            "sentence": sentence(ranked, methods),
            "cells": entries,
            "failed": failed,
            "predictions": "predictions.parquet",
        }
        text = json.dumps(results, indent=1, allow_nan=False, default=float) + "\n"
        write_atomic(self.folder / "results.json", lambda part: part.write_text(text, "utf-8"))
        if report:
            import polars as pl

            table = self.checked
            called = table.frame[table.task].cast(pl.String).unique(maintain_order=True).to_list()
            write_parquet(self.folder / "predictions.parquet", frame(found, called))
            from metaprior.report.comparison import write_comparison

            write_comparison(self.folder / "report.html", json.loads(text), found)
        return json.loads(text)


def frame(found: Evaluation, called: Sequence[str]) -> Any:
    """Raw predictions: one row a learner, K, split, task and query row; `called`: the names of all
    groups.
    """
    import polars as pl

    frames = []
    for K, learners in found.points.items():
        for name, columns in learners.items():
            flat: dict[str, Any] = {"group": np.array(called)[found.groups(K)[columns["task"]]]}
            for key, values in columns.items():
                several = (
                    {f"{key}_{c}": values[:, c] for c in range(values.shape[1])}
                    if values.ndim > 1
                    else {}
                )
                flat |= several or {key: values}
            frames.append(
                pl.DataFrame(flat).select(
                    pl.lit(name).alias("learner"), pl.lit(K).alias("K"), pl.all()
                )
            )
    return pl.concat(frames)


def rank(found: Evaluation) -> dict[str, Any]:
    """Figures, 95 % intervals, and ranks by NLL at every K and over all K.

    A learner's rank is one more than the number of learners that are better than it beyond chance:
    whose paired difference has a 95 % bootstrap interval (over groups, see `metrics.interval`)
    without zero. Learners that no data could tell apart share a rank. Over all K: the mean over K
    of the NLL, a group's tasks resampled together.
    """
    shots: dict[int, dict[str, Any]] = {}
    draws: dict[str, list[np.ndarray]] = {}
    names = list(next(iter(found.statistics.values())))
    groups = {K: found.groups(K) for K in found.statistics}
    many_groups = {K: len(np.unique(g)) for K, g in groups.items()}
    resampled = metrics.resamples(groups)
    for K, statistics in found.statistics.items():
        weights = resampled[K]
        nll = {}
        shots[K] = {}
        for name in names:
            row: dict[str, Any] = {"n_tasks": found.tasks(K), "n_groups": many_groups[K], "ci": {}}
            for metric, s in statistics[name].items():
                finish = metrics.METRICS[metric].finish
                many = finish(weights @ s)
                row[metric] = float(finish(s.sum(0)))
                row["ci"][metric] = metrics.interval(row[metric], many, many_groups[K])
                if metric == "nll":
                    nll[name] = many
            draws.setdefault(name, []).append(nll[name])
            shots[K][name] = row
        for name, place in _places(
            nll, {n: shots[K][n]["nll"] for n in names}, many_groups[K]
        ).items():
            shots[K][name] |= place
    mean = {name: float(np.mean([shots[K][name]["nll"] for K in shots])) for name in names}
    overall = _places(
        {name: np.mean(d, axis=0) for name, d in draws.items()}, mean, min(many_groups.values())
    )
    return {
        "shots": shots,
        "overall": {n: {"nll": mean[n]} | overall[n] for n in sorted(names, key=lambda n: mean[n])},
    }


def _places(
    draws: dict[str, np.ndarray], value: dict[str, float], groups: int
) -> dict[str, dict[str, Any]]:
    """Rank of each learner, and its difference from the best with a 95 % interval (`None` with one
    group).
    """
    best = min(value, key=lambda n: value[n])

    def behind(a, b):
        return metrics.interval(value[a] - value[b], draws[a] - draws[b], groups)

    found = {}
    for name in draws:
        better = sum((behind(name, other)[0] or 0.0) > 0 for other in draws if other != name)
        low, high = behind(name, best)
        found[name] = {
            "rank": 1 + better,
            "behind": {"of": best, "mean": value[name] - value[best], "low": low, "high": high},
        }
    return found


def sentence(ranked: dict[str, Any], methods: Sequence[str]) -> str:
    """Which learner to use, in plain words."""
    overall = ranked["overall"]
    best, *rest = overall
    if rest and overall[rest[-1]]["behind"]["low"] is None:
        return (
            f"One held-out group cannot tell methods apart: on it {best} has the lowest negative log-likelihood "
            f"({overall[best]['nll']:.3f} nats a row); hold out more groups."
        )
    tied = [name for name in rest if overall[name]["rank"] == overall[best]["rank"]]
    text = (
        f"Use {best}: over all numbers of observed rows it has the lowest negative log-likelihood"
    )
    text += f" ({overall[best]['nll']:.3f} nats a row)."
    if tied:
        text += f" {_list(tied)} {'is' if len(tied) == 1 else 'are'} not worse beyond chance."
    bases = [name for name in overall if name not in methods]
    simple = [name for name in (best, *tied) if name in bases]
    if simple and best in bases:
        text += " It is a baseline: on these data meta-learned functions do not earn their keep."
    elif simple:
        text += f" {_list(simple)} {'is a baseline' if len(simple) == 1 else 'are baselines'}: simpler, and as good here."
    elif bases:
        base = min(bases, key=lambda n: overall[n]["nll"])
        gap = overall[base]["behind"]
        text += f" The best baseline, {base}, is {gap['mean']:.3f} nats a row behind (95 % interval {gap['low']:.3f} to {gap['high']:.3f})."
    K0 = min(ranked["shots"])
    first = min(ranked["shots"][K0], key=lambda n: ranked["shots"][K0][n]["nll"])
    if ranked["shots"][K0][best]["rank"] > ranked["shots"][K0][first]["rank"]:
        text += f" With {K0} observed rows {first} is better."
    return text


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
