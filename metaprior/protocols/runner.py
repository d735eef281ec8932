"""A folder of finished cells: run what is missing, then write the results and the report."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metaprior.errors import InputError
from metaprior.images.tree import Tree
from metaprior.protocols.cell import item_of
from metaprior.protocols.files import Cell, fault, read_entry
from metaprior.protocols.protocol import Protocol, Tell
from metaprior.protocols.results import FORMAT, plain, results_of
from metaprior.system.folder import (
    continued,
    digest,
    machine,
    versions,
    write_atomic,
    write_parquet,
)

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
            for name in tree.of_images():
                lines.append(f"{name} {hashlib.sha256(tree.read(name)).hexdigest()}")
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
            self._data = self.protocol.load(self.path, self.options)
        self._loaded = True
        return self._data

    def record(self) -> dict[str, Any]:
        """What must not change between runs in one folder."""
        record = {
            "format": FORMAT,
            "name": self.protocol.name,
            "budget": self.budget,
            "options": self.options,
            "data": None if self.path is None else str(self.path.absolute()),
            "data_sha256": fingerprint(self.path, self.protocol),
        }
        # through JSON and back, as it is compared with what a file says
        return json.loads(json.dumps(record))

    def check(self) -> None:
        """The folder is new, without a finished cell, or of the same protocol, budget and data."""
        before = continued(self.folder, FORMAT, _OURS)
        if before is None or not self._begun():
            return
        now, other = self.record(), "choose another folder."
        if before.get("name") != now["name"]:
            raise InputError(f"{self.folder}: holds results of {before.get('name')}; {other}")
        if before.get("budget") != now["budget"]:
            raise InputError(
                f"{self.folder}: was run with --budget {before.get('budget')}, now "
                f"{now['budget']}; {other}"
            )
        if before.get("data_sha256") != now["data_sha256"]:
            raise InputError(f"{self.path}: is not the data that {self.folder} was run on; {other}")
        if before.get("options") != now["options"]:
            old = before.get("options", {})
            names = ", ".join(k for k, v in now["options"].items() if old.get(k) != v)
            raise InputError(f"{self.folder}: was run with other settings ({names}); {other}")

    def run(self, methods: Sequence[str], seeds: int, tell: Tell | None = None) -> dict[str, Any]:
        """Run every cell that is missing, write everything, and give what results.json holds."""
        say = tell or _silent
        self.check()
        if self.path is not None:
            say(0.0, f"reading {self.path}")
        self.data()  # bad data ends here, before anything is written
        self.cells.mkdir(parents=True, exist_ok=True)
        self._keep_record()
        self._set_aside()

        names = (*self.protocol.references, *methods)
        wanted = [self.cell(name, seed) for seed in range(seeds) for name in names]
        todo = [cell for cell in wanted if not cell.finished]
        failed = []
        for i, cell in enumerate(todo):
            told = item_of(say, i, len(todo), f"{cell.method}, seed {cell.seed}")
            told(0.0, "starting")
            try:
                self.one(cell, told)
            except (InputError, MemoryError, OSError):
                raise
            except Exception as error:  # one method's failure must not lose the others' hours
                failed.append(_failure(cell, error))
            if i + 1 < len(todo):
                self.write(failed, report=False)
        say(1.0, "writing the report")
        return self.write(failed, report=True)

    def _begun(self) -> bool:
        return any(self.cells.glob("*.json"))

    def _set_aside(self) -> None:
        """Cells with a damaged file no longer count as finished, and are named."""
        for path in sorted(self.cells.glob("*.json")):
            found = fault(path)
            if found:
                path.unlink()
                print(f"metaprior: {found}; {path.stem} runs again.", file=sys.stderr, flush=True)

    def _keep_record(self) -> None:
        """run.json of a folder without a finished cell: a setting may have been refused before."""
        path = self.folder / "run.json"
        if path.exists() and self._begun():
            return
        record = self.record() | {
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "versions": versions(),
            "machine": machine(),
        }
        text = json.dumps(record, indent=1) + "\n"
        write_atomic(path, lambda part: part.write_text(text, "utf-8"))

    def cell(self, name: str, seed: int) -> Cell:
        """The files of one method and seed."""
        return Cell(self.cells, name, seed)

    def one(self, cell: Cell, tell: Tell) -> None:
        """Run one cell and write its files."""
        import jax

        jax.clear_caches()  # programs of many methods would exhaust the memory maps of the process
        began = time.monotonic()
        outcome = self.protocol.run(cell.method, cell.seed, self.options, self.data(), tell)
        seconds = round(time.monotonic() - began, 1)
        for figure in outcome.figures:
            if figure.metric not in self.protocol.metrics:
                raise ValueError(
                    f"{self.protocol.name} gives {figure.metric!r}, which is none of its metrics."
                )
        cell.write(outcome, seconds)

    def done(self) -> list[dict[str, Any]]:
        """Every finished cell of the folder: references first, then as in THE TABLE."""
        order = [*self.protocol.references, *self.protocol.able]
        entries = [read_entry(path) for path in self.cells.glob("*.json")]
        found = [entry for entry in entries if entry["method"] in order]
        return sorted(found, key=lambda e: (order.index(e["method"]), e["seed"]))

    def write(self, failed: list[dict[str, Any]], report: bool) -> dict[str, Any]:
        """results.json of all finished cells; with `report` also predictions and the report."""
        entries, protocol = self.done(), self.protocol
        cells = [self.cell(entry["method"], entry["seed"]) for entry in entries]
        drawn = [cell.drawn(entry["figures"]) for cell, entry in zip(cells, entries)]
        run = {
            "budget": self.budget,
            "options": self.options,
            "data": None if self.path is None else str(self.path),
            "failed": failed,
        }
        results = results_of(protocol, run, entries, drawn)
        text = json.dumps(plain(results), indent=1, allow_nan=False) + "\n"
        write_atomic(self.folder / "results.json", lambda part: part.write_text(text, "utf-8"))
        if report:
            from metaprior.protocols.page import write_page

            self._write_predictions(cells)
            pictures = protocol.draw(drawn, self.options, self.data()) if entries else []
            write_page(self.folder / "report.html", protocol, results, pictures, self.data())
        return json.loads(text)

    def _write_predictions(self, cells: Sequence[Cell]) -> None:
        """Raw predictions of all cells in one file."""
        import polars as pl

        frames = [pl.read_parquet(cell.predictions) for cell in cells]
        some = [frame for frame in frames if frame.width > 2]  # more than method and seed
        if some:
            whole = pl.concat(some, how="diagonal_relaxed")
            write_parquet(self.folder / "predictions.parquet", whole)


def _silent(done: float, what: str) -> None:
    """Tells nobody."""


def _failure(cell: Cell, error: Exception) -> dict[str, Any]:
    """What results.json says of a cell that failed; told on standard error, too."""
    text = f"{type(error).__name__}: {error}"[:500]
    where = f"metaprior: {cell.method}, seed {cell.seed}"
    print(f"{where} failed: {text}", file=sys.stderr, flush=True)
    return {"method": cell.method, "seed": cell.seed, "error": text}


def changed(options: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The options of a budget with some of them changed.

    Args:
        options: of the budget.
        changes: `"name=value"`, the value in JSON and of the kind that is there.
    """
    options = dict(options)
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or name not in options:
            raise InputError(
                f"--set takes NAME=VALUE with a NAME of {', '.join(options)}; got {change!r}."
            )
        was, value = options[name], _value(text)
        if not _alike(was, value):
            raise InputError(f"--set {name} takes a value such as {json.dumps(was)}; got {text!r}.")
        options[name] = {**was, **value} if isinstance(was, dict) else value
    return options


def _value(text: str) -> Any:
    """A value in JSON; a word may stand without quotes."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _alike(was: Any, value: Any) -> bool:
    """Whether a value is of the kind of another; bool is no number."""
    if isinstance(was, bool) or isinstance(value, bool):
        return isinstance(was, bool) and isinstance(value, bool)
    numbers = isinstance(was, (int, float)) and isinstance(value, (int, float))
    return numbers or isinstance(value, type(was))


def find_data(path: Path | None, environment: Callable[[str], str | None]) -> Path | None:
    """Where data is looked for.

    `--data`, else METAPRIOR_DATA, else a folder `data` here or in a folder `shared` beside this
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
