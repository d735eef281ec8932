"""Repeat a recorded run in a temporary folder, and say whether it gives the same bits."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metaprior.cli import run
from metaprior.errors import InputError
from metaprior.protocols import runner
from metaprior.system.devices import cores
from metaprior.tables import compare
from metaprior.tables.members import BATCH
from metaprior.tables.reading.files import again, fingerprint

Tell = Callable[[float, str], None]
_TIMES = ("seconds", "versions")  # what a second run cannot have in common with the first


def rerun(folder: Path, progress: Tell) -> dict[str, Any]:
    """Run again what `fit`, `reproduce` or `compare` left in a folder, which is not changed.

    Returns:
        `agree`; `compared` and `differing`, names of results; and `facts` of the two runs that
        differ, as `{name: [recorded, now]}`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    try:
        record = json.loads((folder / "run.json").read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder}: holds no run.json; rerun takes a folder of fit, reproduce or compare."
        ) from None
    except (OSError, ValueError):
        record = None
    kinds = {run.FORMAT: _fit, runner.FORMAT: _protocol, compare.FORMAT: _comparison}
    if not isinstance(record, dict) or record.get("format") not in kinds:
        raise InputError(f"{folder / 'run.json'}: not the record of a metaprior run.")
    with tempfile.TemporaryDirectory(prefix="metaprior-rerun-") as made:
        try:
            compared, differing, facts = kinds[record["format"]](
                folder, record, Path(made) / "again", progress
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder}: its records cannot be read ({type(error).__name__}: {error})."
            ) from None

    before = record.get("versions", {}) | record.get("machine", {})
    now = run.versions() | run.machine()
    for name in sorted(before | now):
        if before.get(name) != now.get(name):
            facts[name] = [before.get(name), now.get(name)]
    return {
        "folder": str(folder),
        "agree": not differing,
        "compared": compared,
        "differing": differing,
        "facts": facts,
    }


def _fit(folder: Path, record: dict, again: Path, progress: Tell) -> tuple[list, list, dict]:
    before = run.Run(folder)
    if not before.finished:
        raise InputError(f"{folder}: this fit has not finished; continue it with `fit --resume`.")
    table, facts = _table(record)
    devices = record.get("devices", 1)
    if devices != 1:
        cores(BATCH)
    there = run.machine()["device_count"]
    if isinstance(devices, int) and devices > there:
        devices = "all"  # fewer than then, which the facts say
    new = run.Run(again)
    new.fit(table, record["options"], progress, devices)
    same = before.prior.read_bytes() == new.prior.read_bytes()
    return ["prior"], [] if same else ["prior"], facts


def _table(record: dict) -> tuple[Path, dict[str, list]]:
    """The recorded table, and its fingerprints if it is another one now."""
    table = again(record["table"], "the run read it")
    was, now = record["table_sha256"], fingerprint(table)
    return table, {} if was == now else {"table_sha256": [was, now]}


def _protocol(folder: Path, record: dict, again: Path, progress: Tell) -> tuple[list, list, dict]:
    from metaprior.protocols import get
    from metaprior.protocols.cell import item_of

    data = None if record["data"] is None else Path(record["data"])
    if data is not None and not data.exists():
        raise InputError(f"{data}: no such file or folder; the run read it. Put it back.")
    study = runner.Study(get(record["name"]), again, record["budget"], data)
    study.options = record["options"]
    study.cells.mkdir(parents=True)
    before = runner.Study(study.protocol, folder, record["budget"], data).done()
    if not before:
        raise InputError(
            f"{folder}: no cell of this run has finished; continue it with the same command."
        )
    differing = []
    for i, entry in enumerate(before):
        cell = study.cell(entry["method"], entry["seed"])
        where = f"{cell.method}, seed {cell.seed}"
        study.one(cell, item_of(progress, i, len(before), where))
        new, old = cell.path, folder / "cells" / cell.path.name
        rows = [path.with_suffix(".parquet").read_bytes() for path in (old, new)]
        texts = [json.dumps(_lasting(_read(path))) for path in (old, new)]  # as text NaN equals NaN
        if rows[0] != rows[1] or texts[0] != texts[1]:
            differing.append(where)
    now = runner.fingerprint(data, study.protocol)
    facts = {} if record["data_sha256"] == now else {"data_sha256": [record["data_sha256"], now]}
    return [f"{entry['method']}, seed {entry['seed']}" for entry in before], differing, facts


def _comparison(folder: Path, record: dict, again: Path, progress: Tell) -> tuple[list, list, dict]:
    results = folder / "results.json"
    if not results.is_file() or not (folder / "predictions.parquet").is_file():
        raise InputError(
            f"{folder}: this comparison has not finished; continue it with the same command."
        )
    before, (table, facts) = _read(results), _table(record)
    methods = list(dict.fromkeys(cell["method"] for cell in before["cells"]))
    comparison = compare.Comparison(again, table, record["settings"])
    new, _ = comparison.run(methods, before["splits"], progress)
    parts = ["shots", "overall", "sentence"]
    differing = [part for part in parts if before[part] != new[part]]
    rows = [(path / "predictions.parquet").read_bytes() for path in (folder, again)]
    return [*parts, "predictions"], differing + ["predictions"] * (rows[0] != rows[1]), facts


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _lasting(value: Any) -> Any:
    """What does not depend on when and how quickly it was made."""
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if not k.endswith(_TIMES)}
    return [_lasting(v) for v in value] if isinstance(value, list) else value


def said(result: dict[str, Any]) -> str:
    """What to tell the user."""
    folder, compared, differing = result["folder"], result["compared"], result["differing"]
    if result["agree"]:
        more = ", …" if len(compared) > 3 else ""
        text = f"{folder}: the same bits again ({', '.join(compared[:3])}{more})."
    else:
        more = "; …" if len(differing) > 5 else ""
        text = (
            f"{folder}: other bits in {len(differing)} of {len(compared)} results: "
            f"{'; '.join(differing[:5])}{more}."
        )
    for name, (was, now) in result["facts"].items():
        text += f"\n  {name}: {was} then, {now} now"
    if not result["facts"]:
        text += "\n  versions, data and machine are those of the record."
    return text
