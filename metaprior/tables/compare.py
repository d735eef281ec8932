"""Every method and baseline on a user's own table, fitted on the same splits of its groups."""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import metaprior
from metaprior.errors import InputError
from metaprior.evaluation.evaluate import METHOD, Evaluation
from metaprior.evaluation.ranks import level_sentence, rank, sentence
from metaprior.evaluation.verdicts import About, enough_splits
from metaprior.methods import METHODS
from metaprior.system.folder import (
    continued,
    machine,
    versions,
    write_atomic,
    write_parquet,
)
from metaprior.tables.baselines import BASELINES, find
from metaprior.tables.checked import Checked, check_all
from metaprior.tables.culprits import BadTask
from metaprior.tables.learn import kinds_for
from metaprior.tables.ordered import check_order
from metaprior.tables.plan import KINDS, Plan, scale_of
from metaprior.tables.prior import Prior
from metaprior.tables.read import rows_of
from metaprior.tables.reading.files import fingerprint, place

FORMAT = "metaprior comparison"
AUTO = "auto"
_OURS = {"run.json", "cells", "shared", "results.json", "predictions.parquet", "report.html"}
_KEPT = {AUTO, *METHODS, *BASELINES}  # folders of priors
# Settings that `Prior` and `Prior.fit` take under the same names.
_SETTINGS = ("skip_bad_tasks", "kind", "keep_na", "missing", "drop_missing_targets")

Tell = Callable[[float, str], None]


def runnable(classes: bool, ordered: bool = False) -> list[str]:
    """`auto` and every row of THE TABLE that predicts what the target holds."""
    need = kinds_for(classes, ordered)
    return [AUTO, *(n for n, row in METHODS.items() if need <= set(row.kinds) and n != "stack")]


class Comparison:
    """Methods and baselines on splits of one table, in one folder.

    Finished cells (a method on a split) are not run again.

    Args:
        folder: of the results.
        table: path of the table, or `-`.
        settings: `task`, `target`, `features`, `target_scale`, `split_by`, `steps`, `shots`,
            `holdout`, `holdout_by`, `skip_bad_tasks`, `order`; plain values.
    """

    def __init__(self, folder: Path, table: Path, settings: dict[str, Any]):
        self.folder, self.table, self.settings = folder, table, settings
        self.cells = folder / "cells"

    def check(self) -> None:
        """The folder is new, empty, or of the same comparison."""
        before = continued(self.folder, FORMAT, _OURS | _KEPT)
        if before is None:
            return
        if before["table_sha256"] != fingerprint(self.table):
            raise InputError(
                f"{self.table}: is not the table that {self.folder} compares on; "
                "choose another folder."
            )
        for name, value in self.settings.items():
            was = before["settings"].get(name) or ("auto" if name == "kind" else None)
            if was != (value or None):
                flag = "--" + name.replace("_", "-")
                raise InputError(
                    f"{self.folder}: was run with {flag} {before['settings'].get(name)}, "
                    f"now {value}; choose another folder."
                )

        if "parts" not in before and any(self.cells.glob("*-1.json")):
            raise InputError(
                f"{self.folder}: an earlier version split the groups otherwise; choose another "
                "folder."
            )

    @property
    def parts(self) -> int:
        """So many splits judge every group once; one where those of largest values are judged."""
        if self.settings.get("holdout_by"):
            return 1
        return max(1, round(1 / self.settings["holdout"]))

    def enough(self) -> int:
        """How many splits judge enough groups to say which method is best."""
        return enough_splits(int(self.checked.held.sum()), self.parts)

    @functools.cached_property
    def checked(self) -> Checked:
        """The table as the target is learned from it.

        A bad table ends the comparison here, before anything is written.
        """
        s = self.settings
        plan = Plan.of(s, [s["target"]], s["holdout"])
        skip = {} if s.get("skip_bad_tasks") else None
        found = check_all(rows_of(self.table, "table"), plan, skip)[0]
        if plan.order is not None:
            check_order(found.frame, plan.order, found.task, found.target, found.where)
        return found

    def names(self, text: str | None) -> list[str]:
        """Methods from `a,b`, `all` or nothing (all, but those for so many columns and no more).

        Baselines are always judged; they are fitted by themselves where no method is asked for.
        """
        able = runnable(bool(self.checked.classes), self.checked.ordered)
        if text is None or text.strip() == "all":
            return [n for n in able if n == AUTO or METHODS[n].inputs is None]
        names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not names:
            raise InputError(
                "--methods is empty; give names of `metaprior methods` with commas between, or all."
            )
        for name in names:
            if name not in able and name not in BASELINES:
                find(name)  # a name that there is not is another error
                raise InputError(
                    f"{name} does not predict {self.settings['target']!r}; "
                    f"what does: {', '.join(able)}."
                )
        return [name for name in names if name not in BASELINES] or names[:1]

    def run(
        self, methods: Sequence[str], splits: int, tell: Tell
    ) -> tuple[dict[str, Any], Evaluation]:
        """Run what is missing; results.json is written after every cell.

        Returns:
            what results.json holds, and the statistics and predictions of all learners.
        """
        self.check()
        self.cells.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "run.json").exists():
            self._record()

        wanted = [(name, split) for split in range(splits) for name in methods]
        todo = [cell for cell in wanted if not self._path(*cell).exists()]
        failed: list[dict[str, Any]] = []
        for i, (name, split) in enumerate(todo):

            def share(done, what):
                return tell((i + done) / len(todo), f"{name}, split {split + 1}: {what}")

            try:
                self._one(name, split, share)
            except Exception as error:  # one method's failure must not lose the others' hours
                if _ends_all(error):
                    raise
                said = f"{type(error).__name__}: {error}"[:500]
                failed.append({"method": name, "split": split, "error": said})
                print(f"metaprior: {name}, split {split + 1} failed: {said}", file=sys.stderr)
            self.write(methods, splits, failed)

        results, found = self.write(methods, splits, failed)
        table = self.checked
        called = table.frame[table.task].cast(pl.String).unique(maintain_order=True).to_list()
        write_parquet(self.folder / "predictions.parquet", predictions(found, called))
        return results, found

    def _record(self) -> None:
        record = {
            "format": FORMAT,
            "table": place(self.table),
            "table_sha256": fingerprint(self.table),
            "settings": self.settings,
            "versions": versions(),
            "machine": machine(),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "parts": self.parts,
        }
        text = json.dumps(record, indent=1) + "\n"
        write_atomic(self.folder / "run.json", lambda part: part.write_text(text, "utf-8"))

    def _path(self, name: str, split: int) -> Path:
        return self.cells / f"{name}-{split}.json"

    def _one(self, name: str, split: int, tell: Tell) -> None:
        """Fit one method on one split and judge it, with the baselines the first time."""
        import jax

        jax.clear_caches()  # programs of many fits would exhaust the memory maps of the process
        began = time.monotonic()
        prior = self._fit(name, split, tell)
        seconds = time.monotonic() - began
        if (self.cells / f"baselines-{split}.npz").exists() and prior.trained is not None:
            prior.trained = dataclasses.replace(prior.trained, baselines={})
        s = self.settings
        found = prior.evaluate(shots=s["shots"], seed=split, order=s.get("order"))
        assert isinstance(found, Evaluation)  # there is one target

        baselines = [b for b in next(iter(found.statistics.values())) if b != METHOD]
        if name in BASELINES:
            self._keep(f"baselines-{split}", found, [*baselines, METHOD], name)
        else:
            if baselines:
                self._keep(f"baselines-{split}", found, baselines)
            self._keep(f"{name}-{split}", found, [METHOD])
        entry = {
            "method": name,
            "split": split,
            "seconds": round(seconds, 1),
            "classes": found.classes,
            "groups": prior.info["groups"],
            "rows": prior.info["rows"],
            "notes": [*prior.info["notes"], *found.about.notes],
        }
        text = json.dumps(entry) + "\n"
        write_atomic(self._path(name, split), lambda part: part.write_text(text, "utf-8"))

    def _fit(self, name: str, split: int, tell: Tell) -> Prior:
        s = self.settings
        prior = metaprior.Prior(
            name,
            target_scale=scale_of(s),
            steps=s["steps"],
            seed=split // self.parts,
            part=split % self.parts,
            split_by=s["split_by"],
            holdout=s["holdout"],
            holdout_by=s.get("holdout_by"),
            order=s.get("order"),
            **{name: s[name] for name in _SETTINGS if name in s},
        )
        prior.fit(
            self.table,
            task=s["task"],
            target=s["target"],
            features=s["features"],
            **{name: s.get(name, ()) for name in KINDS},
            # Boosting and baselines of a split are the same for every method: fitted once, kept in
            # a shared folder.
            checkpoint=self.folder / "shared" / f"split-{split}",
            progress=lambda done, what: tell(0.9 * done, what),
        )
        # With fewer groups, other rows would be trained on and judged by than for other methods.
        if sum(prior.info["groups"].values()) < len(self.checked.held):
            known = self.checked.notes
            lost = [n for n in prior.info["notes"] if n not in known and ": left out, " in n]
            raise BadTask(
                f"{self.table}: can only be trained without groups that the others have: "
                f"{' '.join(lost)} Leave them out of the table to compare it with the others."
            )
        return prior

    def _keep(self, stem: str, found: Evaluation, names: list[str], method: str = "") -> None:
        """Statistics and predictions of some learners as one file; `method` names the method."""
        arrays: dict[str, Any] = {}
        for K in found.statistics:
            arrays[f"g|{K}||group"] = found.groups(K)
            for name in names:
                key = f"{K}|{method if name == METHOD else name}"
                arrays |= {f"s|{key}|{m}": v for m, v in found.statistics[K][name].items()}
                arrays |= {f"p|{key}|{m}": v for m, v in found.points[K][name].items()}

        def save(part: Path) -> None:
            with part.open("wb") as file:
                np.savez_compressed(file, **arrays)

        write_atomic(self.cells / f"{stem}.npz", save)

    def _split(self, split: int, done: Sequence[str]) -> Evaluation:
        """Statistics and predictions of the finished methods and the baselines on one split."""
        statistics: dict = {}
        points: dict = {}
        grouped: dict = {}
        for name in (*(n for n in done if n not in BASELINES), "baselines"):
            with np.load(self.cells / f"{name}-{split}.npz", allow_pickle=False) as file:
                for key in file.files:
                    kind, K, who, what = key.split("|")
                    if kind == "g":
                        grouped[int(K)] = file[key]
                        continue
                    into = statistics if kind == "s" else points
                    into.setdefault(int(K), {}).setdefault(who or name, {})[what] = file[key]

        for learners in points.values():
            for columns in learners.values():
                columns["split"] = np.full(len(columns["task"]), split + 1)
        return Evaluation(
            statistics,
            points,
            self._entry(done[-1], split)["classes"],
            grouped or None,
            About(self.settings["target"], order=self.settings.get("order")),
        )

    def _entry(self, name: str, split: int) -> dict[str, Any]:
        return json.loads(self._path(name, split).read_text("utf-8"))

    def collect(
        self, methods: Sequence[str], splits: int
    ) -> tuple[Evaluation | None, list[dict[str, Any]]]:
        """What every learner that all splits have gave, merged over splits; and the cells."""
        entries, each = [], []
        for split in range(splits):
            done = [name for name in methods if self._path(name, split).exists()]
            if done:
                entries += [self._entry(name, split) for name in done]
                each.append(self._split(split, done))
        if not each:
            return None, []

        shared = set.intersection(*(set(next(iter(e.statistics.values()))) for e in each))
        for e in each:
            for part in (e.statistics, e.points):
                for K in part:
                    part[K] = {name: v for name, v in part[K].items() if name in shared}
        return Evaluation.merge(each), entries

    def write(
        self, methods: Sequence[str], splits: int, failed: list[dict]
    ) -> tuple[dict[str, Any], Evaluation]:
        """Write results.json; gives what it holds, and what all learners gave."""
        found, entries = self.collect(methods, splits)
        if found is None:
            why = failed[0]["error"] if failed else "none asked for"
            raise InputError(f"{self.folder}: no method could be run: {why}.")
        there = next(iter(found.statistics.values()))
        methods = [m for m in methods if m in there and m not in BASELINES]
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
            "sentence": sentence(ranked, methods, found.about),
            "level": level_sentence(ranked),
            "cells": entries,
            "failed": failed,
            "predictions": "predictions.parquet",
        }
        text = json.dumps(results, indent=1, allow_nan=False, default=float) + "\n"
        write_atomic(self.folder / "results.json", lambda part: part.write_text(text, "utf-8"))
        return json.loads(text), found


def _ends_all(error: Exception) -> bool:
    """Whether an error of one method ends the comparison: it would come again with the others."""
    if isinstance(error, BadTask):
        return False
    return isinstance(error, (InputError, MemoryError, OSError))


def predictions(found: Evaluation, called: Sequence[str]) -> pl.DataFrame:
    """Raw predictions: one row for each learner, K, split, task and query row.

    Args:
        found: what all learners gave.
        called: the names of all groups.
    """
    frames = []
    for K, learners in found.points.items():
        for name, columns in learners.items():
            flat: dict[str, Any] = {"group": np.array(called)[found.groups(K)[columns["task"]]]}
            for key, values in columns.items():
                if values.ndim > 1:  # probabilities, one column for each class
                    flat |= {f"{key}_{c}": values[:, c] for c in range(values.shape[1])}
                else:
                    flat[key] = values
            named = [pl.lit(name).alias("learner"), pl.lit(K).alias("K")]
            frames.append(pl.DataFrame(flat).select(*named, pl.all()))
    return pl.concat(frames)
