"""`metaprior reproduce` and `metaprior rerun`: run a protocol, or repeat a recorded run."""

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from metaprior.errors import InputError
from metaprior.system.faults import alone
from metaprior.system.terminal import Progress, at_least, use_cache


def reproduce(
    name: str | None = None,
    /,
    *,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    methods: str | None = None,
    budget: Literal["quick", "full"] = "quick",
    seeds: int | None = None,
    data: Path | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    out: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Run one of the lecture's evaluation protocols.

    The folder gets report.html, results.json and raw predictions. A run that was stopped continues
    with the same command. Finished cells (a method and a seed) are not run again; further methods
    and seeds are added to them.

    Parameters
    ----------
    name
        Which protocol; --list names them.
    list_
        Name the protocols and what each shows.
    methods
        Names of `metaprior methods` with commas between, or all; three that show the point by
        default.
    budget
        quick: minutes on two cores. full: the paper's own.
    seeds
        Repeat with seeds 0, 1, …; 1 by default for quick, 3 for full.
    data
        File or folder, for protocols on images and tables; by default METAPRIOR_DATA or a folder
        `data`.
    set_
        Change an option of the budget, NAME=VALUE, such as steps=500. The report's settings name
        the options. Repeat --set for several.
    out
        Folder for the results; metaprior-NAME by default.
    as_json
        Print what results.json holds and nothing else.
    """
    from metaprior.protocols import PROTOCOLS, get

    if list_:
        if name is not None or methods is not None or out is not None:
            raise InputError("--list takes nothing beside it but --json.")
        if as_json:
            print(
                json.dumps({"protocols": [{"name": n, "shows": s} for n, s in PROTOCOLS.items()]})
            )
        else:
            width = max(map(len, PROTOCOLS))
            print("\n".join(f"{n:<{width}}  {shows}" for n, shows in PROTOCOLS.items()))
        return
    if name is None:
        raise InputError("Which protocol? Give a name; `metaprior reproduce --list` names them.")
    if name not in PROTOCOLS:
        get(name)
    at_least(seeds, 1, "--seeds")
    use_cache()
    protocol = get(name)
    from metaprior.protocols.page import print_tables
    from metaprior.protocols.runner import Study, find_data

    if protocol.load is None and data is not None:
        raise InputError(f"{name} reads no data; leave --data out.")
    folder = out or Path(f"metaprior-{name}")
    path = find_data(data, os.environ.get) if protocol.load is not None else None
    if data is not None and not data.exists():
        raise InputError(f"{data}: no such file or folder.")
    study = Study(protocol, folder, budget, path, set_)
    names = study.methods(methods)
    with alone(folder), Progress() as progress:
        results = study.run(names, seeds or (1 if budget == "quick" else 3), progress)
    if as_json:
        print(json.dumps(results, allow_nan=False))
    else:
        print_tables(protocol, results)
        print(f"The report is {folder / 'report.html'}; the numbers are in results.json beside it.")
    if results["failed"]:
        which = ", ".join(f"{f['method']} (seed {f['seed']})" for f in results["failed"])
        raise InputError(
            f"{which} failed; the reasons are in {folder / 'results.json'}. "
            "The same command tries again."
        )


def rerun(
    folder: Path, /, *, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> None:
    """Repeat a recorded run and say whether it gives the same bits.

    It runs in a temporary folder. The status is 0 if the bits are the same, and 1 if not.

    Parameters
    ----------
    folder
        What `fit`, `reproduce` or `compare` made; it is not changed.
    as_json
        Print one JSON object and nothing else.
    """
    use_cache()
    from metaprior.cli.rerun import rerun as repeat
    from metaprior.cli.rerun import said

    with Progress() as progress:
        result = repeat(folder, progress)
    print(json.dumps(result) if as_json else said(result))
    if not result["agree"]:
        raise SystemExit(1)
