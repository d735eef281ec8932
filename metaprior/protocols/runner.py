"""A folder of finished cells: run what is missing, then write results.json, predictions.parquet and
report.html.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metaprior.errors import InputError
from metaprior.images.tree import Tree
from metaprior.protocols.protocol import Drawn, Figure, Outcome, Protocol, Tell, left_out
from metaprior.system.folder import (
    continued,
    digest,
    machine,
    versions,
    write_atomic,
    write_parquet,
)

FORMAT = "metaprior protocol"
_OURS = {"run.json", "cells", "results.json", "predictions.parquet", "report.html"}


def fingerprint(path: Path | None, protocol: Protocol) -> str:
    """Names and bytes of the files that a protocol reads, in one hash; empty without data.

    What else lies in the folder, such as the results, does not count. Reading takes a fraction of
    what decoding the images does.
    """
    if path is None:
        return ""
    lines = []
    for place in protocol.reads(path) if protocol.reads is not None else [path]:
        if place.is_file():
            lines.append(f"{place.name} {digest(place)}")
        else:
            tree = Tree(place)
            lines += [
                f"{name} {hashlib.sha256(tree.read(name)).hexdigest()}" for name in tree.of_images()
            ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Study:
    """One protocol in one folder.

    Args:
        protocol: what is run.
        folder: of the results; made when it is not there.
        budget: `"quick"` or `"full"`.
        data: file or folder that the protocol reads, where it reads any.
        changes: options of the budget to change, as `"name=value"` with the value in JSON.
    """

    def __init__(
        self,
        protocol: Protocol,
        folder: str | Path,
        budget: str = "quick",
        data: Path | None = None,
        changes: Sequence[str] = (),
    ):
        if budget not in protocol.budgets:
            raise InputError(f"--budget is one of {', '.join(protocol.budgets)}; got {budget!r}.")
        self.protocol, self.folder, self.budget = protocol, Path(folder), budget
        self.options = changed(protocol.budgets[budget], changes)
        self.path = data if protocol.load is not None else None
        self.cells = self.folder / "cells"
        self._data: Any = None
        self._loaded = False

    def methods(self, text: str | None) -> list[str]:
        """Names from `a,b,c`, `all`, or the protocol's own; each must be able to run here."""
        if text is None:
            return list(self.protocol.methods)
        if text.strip() == "all":
            return list(self.protocol.able)
        from metaprior.methods import get

        names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not names:
            raise InputError(
                "--methods is empty; give names of `metaprior methods` with commas between, or all."
            )
        for name in names:
            if name in self.protocol.able:
                continue
            get(name)  # names the nearest where there is none
            able = ", ".join(self.protocol.able)
            raise InputError(f"{self.protocol.name} does not run {name}; it runs {able}.")
        return names

    def data(self) -> Any:
        """What the protocol reads, once."""
        if not self._loaded and self.protocol.load is not None:
            self._data = self.protocol.load(self.path)
        self._loaded = True
        return self._data

    def record(self) -> dict[str, Any]:
        """What must not change between runs in one folder."""
        # through JSON and back, as it is compared with what a file says
        return json.loads(
            json.dumps(
                {
                    "format": FORMAT,
                    "name": self.protocol.name,
                    "budget": self.budget,
                    "options": self.options,
                    "data": None if self.path is None else str(self.path.absolute()),
                    "data_sha256": fingerprint(self.path, self.protocol),
                }
            )
        )

    def check(self) -> None:
        """The folder is new, empty, or of the same protocol, budget and data."""
        before = continued(self.folder, FORMAT, _OURS)
        if before is None:
            return
        now = self.record()
        if before.get("name") != now["name"]:
            raise InputError(
                f"{self.folder}: holds results of {before.get('name')}; choose another folder."
            )
        if before.get("budget") != now["budget"]:
            raise InputError(
                f"{self.folder}: was run with --budget {before.get('budget')}, now {now['budget']}; "
                "choose another folder."
            )
        if before.get("data_sha256") != now["data_sha256"]:
            raise InputError(
                f"{self.path}: is not the data that {self.folder} was run on; choose another folder."
            )
        if before.get("options") != now["options"]:
            names = [k for k, v in now["options"].items() if before.get("options", {}).get(k) != v]
            raise InputError(
                f"{self.folder}: was run with other settings ({', '.join(names)}); choose another folder."
            )

    def run(self, methods: Sequence[str], seeds: int, tell: Tell | None = None) -> dict[str, Any]:
        """Run every cell that is missing, write everything, and give what results.json holds."""
        say = tell or (lambda done, what: None)
        self.check()
        if self.path is not None:
            say(0.0, f"reading {self.path}")
        self.data()  # bad data ends here, before anything is written
        self.cells.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "run.json").exists():
            record = self.record() | {
                "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
                "versions": versions(),
                "machine": machine(),
            }
            write_atomic(
                self.folder / "run.json",
                lambda p: p.write_text(json.dumps(record, indent=1) + "\n", "utf-8"),
            )
        wanted = [
            (name, seed) for seed in range(seeds) for name in (*self.protocol.references, *methods)
        ]
        todo = [cell for cell in wanted if not self.cell(*cell).exists()]
        failed = []
        for i, (name, seed) in enumerate(todo):

            def share(done, what):
                return say((i + done) / len(todo), f"{name}, seed {seed}: {what}")

            share(0.0, "starting")
            try:
                self.one(name, seed, share)
            except (InputError, MemoryError, OSError):
                raise
            except Exception as error:  # one method's failure must not lose the others' hours
                failed.append(
                    {
                        "method": name,
                        "seed": seed,
                        "error": f"{type(error).__name__}: {error}"[:500],
                    }
                )
                print(
                    f"metaprior: {name}, seed {seed} failed: {failed[-1]['error']}",
                    file=sys.stderr,
                    flush=True,
                )
            if i + 1 < len(todo):
                self.write(methods, seeds, failed, report=False)
        say(1.0, "writing the report")
        return self.write(methods, seeds, failed, report=True)

    def cell(self, name: str, seed: int) -> Path:
        """The file that makes a cell finished; it is written last."""
        return self.cells / f"{name.replace(' ', '_')}-{seed}.json"

    def one(self, name: str, seed: int, tell: Tell) -> None:
        """Run one cell and write its three files."""
        import jax
        import polars as pl

        jax.clear_caches()  # programs of many methods would exhaust the memory maps of the process
        began = time.monotonic()
        outcome: Outcome = self.protocol.run(name, seed, self.options, self.data(), tell)
        seconds = round(time.monotonic() - began, 1)
        for figure in outcome.figures:
            if figure.metric not in self.protocol.metrics:
                raise ValueError(
                    f"{self.protocol.name} gives {figure.metric!r}, which is none of its metrics."
                )
        path = self.cell(name, seed)
        frame = pl.DataFrame({k: column(v) for k, v in outcome.predictions.items()})
        lead = [pl.lit(name).alias("method"), pl.lit(seed, pl.Int32).alias("seed")]
        write_parquet(path.with_suffix(".parquet"), frame.select(*lead, pl.all()))
        drawing = {k: np.asarray(v) for k, v in outcome.drawing.items()}
        write_atomic(path.with_suffix(".npz"), lambda part: _savez(part, drawing))
        entry = {
            "method": name,
            "seed": seed,
            "seconds": seconds,
            "note": outcome.note,
            "facts": outcome.facts,
            "figures": [list(f) for f in outcome.figures],
        }
        write_atomic(path, lambda part: part.write_text(json.dumps(entry) + "\n", "utf-8"))

    def done(self) -> list[dict[str, Any]]:
        """Every finished cell of the folder, the references first, then in the order of THE TABLE."""
        order = [*self.protocol.references, *self.protocol.able]
        found = []
        for path in self.cells.glob("*.json"):
            entry = json.loads(path.read_text("utf-8"))
            entry["figures"] = [Figure(*f) for f in entry["figures"]]
            if entry["method"] in order:
                found.append(entry)
        return sorted(found, key=lambda e: (order.index(e["method"]), e["seed"]))

    def write(
        self, methods: Sequence[str], seeds: int, failed: list[dict], report: bool
    ) -> dict[str, Any]:
        """results.json of all finished cells; with `report` also predictions.parquet and
        report.html.
        """
        entries = self.done()
        drawn = [
            Drawn(e["method"], e["seed"], e["figures"], _Lazy(self.cell(e["method"], e["seed"])))
            for e in entries
        ]
        protocol = self.protocol
        results: dict[str, Any] = {
            "format": FORMAT,
            "name": protocol.name,
            "title": protocol.title,
            "budget": self.budget,
            "options": self.options,
            "versions": versions(),
            "data": None if self.path is None else str(self.path),
            "sentence": protocol.sentence(drawn) if protocol.sentence and entries else "",
            "metrics": {k: m._asdict() for k, m in protocol.metrics.items()},
            "table": aggregate(entries),
            "anchors": [a._asdict() for a in protocol.anchors],
            "choices": list(protocol.choices),
            "papers": list(protocol.papers),
            "cells": [e | {"figures": [f._asdict() for f in e["figures"]]} for e in entries],
            "failed": failed,
            "left_out": left_out(protocol),
            "seconds": round(sum(e["seconds"] for e in entries), 1),
            "predictions": "predictions.parquet",
        }
        text = json.dumps(_plain(results), indent=1, allow_nan=False) + "\n"
        write_atomic(self.folder / "results.json", lambda part: part.write_text(text, "utf-8"))
        if report:
            import polars as pl

            from metaprior.protocols.page import write_page

            files = [self.cell(e["method"], e["seed"]).with_suffix(".parquet") for e in entries]
            frames = [frame for frame in (pl.read_parquet(f) for f in files) if frame.width > 2]
            if frames:
                write_parquet(
                    self.folder / "predictions.parquet", pl.concat(frames, how="diagonal_relaxed")
                )
            pictures = protocol.draw(drawn, self.options, self.data()) if entries else []
            write_page(self.folder / "report.html", protocol, results, pictures)
        return json.loads(text)


class _Lazy(dict):
    """Arrays of a cell, read when first asked for."""

    def __init__(self, path: Path):
        self._path = path.with_suffix(".npz")

    def _read(self) -> None:
        if not dict.__len__(self) and self._path.exists():
            with np.load(self._path, allow_pickle=False) as file:
                self.update({k: file[k] for k in file.files})

    def __getitem__(self, key):
        self._read()
        return dict.__getitem__(self, key)

    def __contains__(self, key):
        self._read()
        return dict.__contains__(self, key)

    def get(self, key, default=None):
        return self[key] if key in self else default


def column(values: Any) -> Any:
    """A column of numbers or names as it is; arrays and `None` as one of lists."""
    import polars as pl

    values = np.asarray(values)
    if values.dtype != object:
        return values
    kind = next((v.dtype for v in values if v is not None), np.dtype(np.float32))
    inner = pl.UInt8 if kind == np.uint8 else pl.Float32
    return pl.Series([None if v is None else v.tolist() for v in values], dtype=pl.List(inner))


def _savez(part: Path, arrays: dict[str, np.ndarray]) -> None:
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)  # ty: ignore[invalid-argument-type]


def _plain(value: Any) -> Any:
    """Plain JSON: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def changed(options: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The options of a budget with some of them changed; a value must be of the kind that is there."""
    options = dict(options)
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or name not in options:
            raise InputError(
                f"--set takes NAME=VALUE with a NAME of {', '.join(options)}; got {change!r}."
            )
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        was = options[name]
        number = isinstance(was, (int, float)) and isinstance(value, (int, float))
        if isinstance(was, bool) != isinstance(value, bool) or not (
            number or isinstance(value, type(was))
        ):
            raise InputError(f"--set {name} takes a value such as {json.dumps(was)}; got {text!r}.")
        options[name] = {**was, **value} if isinstance(was, dict) else value
    return options


def aggregate(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds: one row a method, setting and metric.

    `error` is the standard error: over the tasks, which are the same at every seed, so that more
    seeds do not make them more; or between seeds where that is larger.
    """
    groups: dict[tuple[str, str, str], list[Figure]] = {}
    for entry in entries:
        for f in entry["figures"]:
            groups.setdefault((entry["method"], f.setting, f.metric), []).append(f)
    rows = []
    for (method, setting, metric), figures in groups.items():
        values = np.array([f.value for f in figures], np.float64)
        within = [f.error for f in figures if f.error is not None]
        errors = [float(np.sqrt(np.mean(np.square(within))))] if within else []
        if len(values) > 1:
            errors.append(float(values.std(ddof=1) / len(values) ** 0.5))
        rows.append(
            {
                "method": method,
                "setting": setting,
                "metric": metric,
                "value": float(values.mean()),
                "error": max(errors, default=None),
                "count": max(f.count for f in figures),
                "seeds": len(figures),
            }
        )
    return rows


def find_data(path: Path | None, environment: Callable[[str], str | None]) -> Path | None:
    """`--data`, else METAPRIOR_DATA, else a folder `data` here or in a folder `shared` beside this
    one.
    """
    if path is not None:
        return path
    named = environment("METAPRIOR_DATA")
    if named:
        return Path(named)
    for folder in (Path("data"), Path("../shared/data")):
        if folder.is_dir():
            return folder
    return None
