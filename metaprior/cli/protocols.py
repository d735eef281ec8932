"""`metaprior reproduce` and `metaprior compare`; light to import, as every help page imports it."""

import json
import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from metaprior.errors import InputError
from metaprior.system.faults import alone
from metaprior.system.terminal import SHOTS, Progress, at_least, use_cache, whole_numbers


def among_processes(
    devices: int | str,
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    table: Path,
    held: ExitStack,
) -> tuple[Callable[[Callable[[], None]], None], bool]:
    """Join the other processes of a `fit`, if there are any: how to run what the first alone does,
    and is this the first.

    Until `held` is closed, the end of one is the end of all.
    """
    given = (coordinator, processes, process_id)
    told = any(value is not None for value in given)
    slurm = devices == "all" and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    if not told and not slurm:
        return (lambda call: call()), True
    if told:
        if any(value is None for value in given):
            raise InputError("--coordinator, --processes and --process-id go together.")
        if devices != "all":
            raise InputError("Several processes use all their devices: add --devices all.")
        if re.fullmatch(r".+:\d+", str(coordinator)) is None:
            raise InputError(f"--coordinator is HOST:PORT; got {coordinator!r}.")
        at_least(processes, 1, "--processes")
        if not 0 <= process_id < processes:  # ty: ignore[unsupported-operator]
            raise InputError(f"--process-id is from 0 to {processes - 1}; got {process_id}.")  # ty: ignore[unsupported-operator]
    use_cache()
    from metaprior.system import devices as runtime
    from metaprior.system.folder import digest

    runtime.join(*given)
    held.enter_context(runtime.together())

    def mark():
        return [digest(table) if table.is_file() else "missing"]

    runtime.agree(mark, f"{table}: is not the same file in every process.")
    return runtime.by_first, runtime.first()


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
    """Run one of the lecture's evaluation protocols: report.html, results.json and raw predictions
    in a folder.

    A run that was stopped continues with the same command; finished cells (a method and a seed) are
    not run again, and further methods and seeds join those that are there.

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
        File or folder, for protocols on images and tables; METAPRIOR_DATA or a folder `data` by
        default.
    set_
        Change an option of the budget, NAME=VALUE, such as steps=500; the report's settings name
        them. Repeat it for several.
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
            f"{which} failed; the reasons are in {folder / 'results.json'}. The same command tries again."
        )


def rerun(
    folder: Path, /, *, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> None:
    """Repeat a recorded run in a temporary folder and say whether it gives the same bits: status 0,
    or 1 if not.

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


def compare(
    table: Path,
    *,
    task: str,
    target: str,
    methods: str | None = None,
    features: str | None = None,
    log_target: Annotated[bool, Parameter(negative="")] = False,
    split_by: str | None = None,
    shots: str = SHOTS,
    splits: int = 1,
    steps: int | None = None,
    out: Path | None = None,
    skip_bad_tasks: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Compare methods and baselines on your own table, paired over held-out groups, and say which
    to use.

    A comparison that was stopped continues with the same command; further methods and splits join
    those that are there.

    Parameters
    ----------
    table
        CSV or Parquet file, one row an observation.
    task
        Column that names the group of a row.
    target
        Column to predict, numbers or two or more classes.
    methods
        auto and names of `metaprior methods` with commas between, or all; all by default, which
        takes a while.
    features
        Columns to predict from, with commas between; all others by default.
    log_target
        Model the logarithm of the target, which must be positive.
    split_by
        Column whose equal values stay on one side of the split, such as a date.
    shots
        Numbers of observed rows, with commas between.
    splits
        Of the groups; each is fitted anew.
    steps
        Most training steps of each learner; chosen by the method by default.
    out
        Folder for the results; metaprior-compare by default.
    skip_bad_tasks
        Leave groups out that nothing can be learned from, and say which; otherwise they end the
        comparison.
    as_json
        Print what results.json holds and nothing else.
    """
    from metaprior.cli.run import HOLDOUT

    at_least(splits, 1, "--splits")
    at_least(steps, 1, "--steps")
    counts = whole_numbers(shots, "--shots")
    names = (
        None if features is None else [name.strip() for name in features.split(",") if name.strip()]
    )
    if names is not None and not names:
        raise InputError(
            "--features is empty; give column names with commas between, or leave it out."
        )
    if not table.is_file():
        raise InputError(
            f"{table}: {'is a folder; give a CSV or Parquet file' if table.is_dir() else 'no such file'}."
        )
    use_cache()
    from metaprior.tables.compare import Comparison

    settings = {
        "task": task,
        "target": target,
        "features": names,
        "log_target": log_target,
        "split_by": split_by,
        "steps": steps,
        "shots": list(counts),
        "holdout": HOLDOUT,
        "skip_bad_tasks": skip_bad_tasks,
    }
    folder = out or Path("metaprior-compare")
    comparison = Comparison(folder, table, settings)
    comparison.check()
    wanted = comparison.names(methods)
    with alone(folder), Progress() as progress:
        results = comparison.run(wanted, splits, progress)
    if as_json:
        print(json.dumps(results, allow_nan=False))
    else:
        from metaprior.report.comparison import print_comparison

        print_comparison(results)
        print(f"The report is {folder / 'report.html'}; the numbers are in results.json beside it.")
    if results["failed"]:
        which = ", ".join(f"{f['method']} (split {f['split'] + 1})" for f in results["failed"])
        raise InputError(
            f"{which} failed; the reasons are in {folder / 'results.json'}. The same command tries again."
        )
