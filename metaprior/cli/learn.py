"""`metaprior fit` and `metaprior compare`: learn from a table."""

import dataclasses
import functools
import json
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from metaprior.cli.processes import among_processes
from metaprior.errors import InputError
from metaprior.system.faults import alone
from metaprior.system.terminal import (
    SHOTS,
    Progress,
    at_least,
    device_count,
    names_in,
    say_note,
    use_cache,
    whole_numbers,
)


def feature_names(text: str | None) -> list[str] | None:
    """`a,b` as names; `None`: all columns."""
    return None if text is None else listed(text, "--features")


def listed(text: str | None, option: str) -> list[str]:
    """`a,b` as names; nothing: none."""
    if text is None:
        return []
    names = names_in(text)
    if not names:
        raise InputError(
            f"{option} is empty; give column names with commas between, or leave it out."
        )
    return names


# `target_scale.SCALES`, which is not imported here: help answers without NumPy.
Scale = Literal["auto", "linear", "log", "log1p", "counts", "shares", "yeo-johnson"]


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Columns:
    """What the columns of a table are, where they would be taken as something else.

    Parameters
    ----------
    classes
        The target is classes, also where they look like numbers.
    ordered
        The target is classes with an order, from the lowest to the highest: mild,severe,fatal
    numeric
        Columns that are numbers, with commas between; cells that are none count as missing.
    categorical
        Columns of names, with commas between.
    date
        Columns of dates, with commas between; day:mdy has the month first, day:dmy the day.
    missing
        More cells that hold no value, with commas between: -999, or x=-999 in one column.
    keep_na
        NA and its like are names of classes, groups and levels; otherwise they are missing.
    drop_missing_targets
        Leave out rows without a target, and say how many.
    """

    classes: Annotated[bool, Parameter(negative="")] = False
    ordered: str | None = None
    numeric: str | None = None
    categorical: str | None = None
    date: str | None = None
    missing: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    keep_na: Annotated[bool, Parameter(negative="")] = False
    drop_missing_targets: Annotated[bool, Parameter(negative="")] = False

    def options(self) -> dict[str, Any]:
        """As plain values, for the record of a run."""
        return {
            "kind": "classes" if self.classes else "auto",
            "ordered": listed(self.ordered, "--ordered"),
            "numeric": listed(self.numeric, "--numeric"),
            "categorical": listed(self.categorical, "--categorical"),
            "date": listed(self.date, "--date"),
            "missing": listed(self.missing, "--missing"),
            "keep_na": self.keep_na,
            "drop_missing_targets": self.drop_missing_targets,
        }


def say_first(said: list[str], method: str, checked: list[Any], plan: Any) -> None:
    """Print what a table was taken for, before anything is learned; `said` gets the notes."""
    from metaprior.tables.meaning.survey import short, survey

    found = survey(checked, plan, method)
    print(short(found), file=sys.stderr)
    for note in found.notes:
        say_note(note)
    said += found.notes


def fit(
    table: Path,
    *,
    task: str,
    target: str,
    out: Path,
    features: str | None = None,
    method: str = "auto",
    target_scale: Scale = "auto",
    split_by: str | None = None,
    holdout: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    resume: Annotated[bool, Parameter(negative="")] = False,
    skip_bad_tasks: Annotated[bool, Parameter(negative="")] = False,
    columns: Columns = Columns(),
    devices: str = "1",
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Learn a prior from a table of many small groups; keep a fifth of them for `evaluate`.

    A group is what rows have in common: a patient, a day, a school. The lecture calls it a task.

    Parameters
    ----------
    table
        Table with one row an observation: CSV, Excel, Parquet, Arrow; - is standard input.
    task
        Column that names the group of a row.
    target
        Column to predict: numbers, or two or more classes. Or several columns with commas between;
        each is then predicted from the features and the targets before it.
    out
        Folder to make.
    features
        Columns to predict from, with commas between; all others by default.
    method
        A name of `metaprior methods`.
    target_scale
        What numbers are modelled on: linear (as they are), log, log1p, counts (whole numbers from
        0, with a probability each), shares (between 0 and 1, or 0 and 100), yeo-johnson (without
        their skew), or auto, which takes one of the others where groups are clearly more likely
        with it, and says so.
    split_by
        Column whose equal values stay on one side of the split, such as a date.
    holdout
        Share of the groups to keep aside, at most 0.5; or by=COLUMN: those with its largest values,
        such as the latest years, instead of a random fifth; or both: 0.3,by=COLUMN.
    steps
        Training steps of each learner; chosen by the method by default.
    seed
        Decides the split and all random numbers.
    resume
        Continue an unfinished run in OUT.
    skip_bad_tasks
        Leave out groups that nothing can be learned from, and say which. Without it they end the
        fit.
    devices
        Train on this many devices, or on all. On a CPU they are its cores. The prior differs by
        rounding only.
    coordinator
        HOST:PORT of the first of several processes that run this command together. They need
        --devices all and one --out that all can read. Under Slurm it is found by itself.
    processes
        How many processes there are.
    process_id
        Which one this is: 0, 1, …; the first writes the files.
    """
    from metaprior.cli.run import Run, asked_for

    at_least(steps, 1, "--steps")
    at_least(seed, 0, "--seed")
    options = {
        "task": task,
        "target": target,
        "features": feature_names(features),
        "method": method,
        "target_scale": target_scale,
        "split_by": split_by,
        "steps": steps,
        "seed": seed,
        **asked_for(holdout),
        "skip_bad_tasks": skip_bad_tasks,
        **columns.options(),
    }
    count = device_count(devices)
    run = Run(out)

    def check() -> None:
        held.enter_context(alone(out))
        run.check_new(resume)
        from metaprior.tables.reading.files import need_file

        need_file(table)
        if run.record.exists():
            run.check_same(options, table)

    # Of several processes only the first touches the folder; the others learn what it found.
    with ExitStack() as held:
        by_first, speaks = among_processes(count, coordinator, processes, process_id, table, held)
        by_first(check)
        if run.finished:
            run.clean()
            print(f"{out}: this run has finished; nothing to continue.")
            return
        use_cache()
        began = time.monotonic()
        with Progress() as progress:
            said: list[str] = []
            told = functools.partial(say_first, said, method)
            prior = run.fit(table, options, *((progress, count, told) if speaks else (None, count)))

    if not speaks:
        return
    for note in prior.notes:
        if note not in said:
            say_note(note)
    groups, seconds = prior.info["groups"], time.monotonic() - began
    print(
        f"{out}: prior from {groups['train']} groups, {groups['test']} kept for evaluation; "
        f"{seconds:.0f} s."
    )


def compare(
    table: Path,
    *,
    task: str,
    target: str,
    methods: str | None = None,
    features: str | None = None,
    target_scale: Scale = "auto",
    split_by: str | None = None,
    holdout: str | None = None,
    shots: str = SHOTS,
    order: str | None = None,
    splits: int | None = None,
    steps: int | None = None,
    out: Path | None = None,
    keep: str | None = None,
    skip_bad_tasks: Annotated[bool, Parameter(negative="")] = False,
    columns: Columns = Columns(),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Compare methods and baselines on your own table, and say which to use.

    All are judged on the same held-out groups. A comparison that was stopped continues with the
    same command; further methods and splits are added to the finished ones.

    Parameters
    ----------
    table
        Table with one row an observation: CSV, Excel, Parquet, Arrow; - is standard input.
    task
        Column that names the group of a row.
    target
        Column to predict, numbers or two or more classes.
    methods
        auto and names of `metaprior methods`, with commas between. All by default, which takes a
        while.
    features
        Columns to predict from, with commas between; all others by default.
    target_scale
        What numbers are modelled on: linear (as they are), log, log1p, counts (whole numbers from
        0, with a probability each), shares (between 0 and 1, or 0 and 100), yeo-johnson (without
        their skew), or auto, which takes one of the others where groups are clearly more likely
        with it, and says so.
    split_by
        Column whose equal values stay on one side of the split, such as a date.
    holdout
        Share of the groups to keep aside, at most 0.5; or by=COLUMN: those with its largest values,
        such as the latest years, instead of a random fifth; or both: 0.3,by=COLUMN.
    shots
        Numbers of observed rows, with commas between.
    order
        Column of numbers or dates, such as a time: the first rows of a group in its order are
        observed, and later ones predicted. Without it rows are observed at random.
    splits
        How many times the groups are split; all methods are fitted anew on each split. Five splits
        judge every group once. By default one, and more where it would judge fewer than 10 groups.
    steps
        Most training steps of each learner; chosen by the method by default.
    out
        Folder for the results; metaprior-compare by default.
    keep
        A method or a baseline whose prior is left in a folder of its name in OUT, as fit leaves it:
        to predict with.
    skip_bad_tasks
        Leave out groups that nothing can be learned from, and say which. Without it they end the
        comparison.
    as_json
        Print what results.json holds and nothing else.
    """
    from metaprior.cli.run import asked_for, one_split

    at_least(splits, 1, "--splits")
    at_least(steps, 1, "--steps")
    counts = whole_numbers(shots, "--shots")
    settings = {
        "task": task,
        "target": target,
        "features": feature_names(features),
        "target_scale": target_scale,
        "split_by": split_by,
        "steps": steps,
        "shots": list(counts),
        **asked_for(holdout),
        "skip_bad_tasks": skip_bad_tasks,
        "order": order,
        **columns.options(),
    }
    by = settings["holdout_by"]
    if by and splits is not None and splits > 1:
        raise InputError(one_split(str(by)))
    use_cache()
    from metaprior.report.comparison import print_comparison, write_comparison
    from metaprior.tables.compare import Comparison
    from metaprior.tables.reading.files import need_file

    need_file(table)
    folder = out or Path("metaprior-compare")
    comparison = Comparison(folder, table, settings)
    # Before any work: the folder, the table and the names of the methods.
    comparison.check()
    wanted = comparison.names(methods)
    if keep is not None and keep not in wanted:
        keep, *_ = comparison.names(keep)
    if splits is None:
        splits = comparison.enough()
        if splits > 1:
            say_note(
                f"{int(comparison.checked.held.sum())} groups to judge on are too few; "
                f"{splits} splits of the groups are judged. --splits 1 judges the first alone."
            )
    with alone(folder), Progress() as progress:
        results, found = comparison.run(wanted, splits, progress)
        write_comparison(folder / "report.html", results, found)
        if keep is not None:
            _keep(comparison, keep, progress)
    if as_json:
        print(json.dumps(results, allow_nan=False))
    else:
        print_comparison(results)
        print(
            f"\nThe report is {folder / 'report.html'}; the numbers are in results.json beside it."
        )
        if keep is not None:
            print(f"The prior of {keep} is {folder / keep}, as `metaprior fit` leaves it.")
        else:
            best = next(iter(results["overall"]))
            print(f"The same command with --keep {best} leaves its prior, to predict with.")
    if results["failed"]:
        which = ", ".join(f"{f['method']} (split {f['split'] + 1})" for f in results["failed"])
        raise InputError(
            f"{which} failed; the reasons are in {folder / 'results.json'}. "
            "The same command tries again."
        )


def _keep(comparison: Any, name: str, progress: Any) -> None:
    """The prior of a method on the first split in a folder of its own, as `fit` would leave it."""
    from metaprior.cli.run import Run

    run = Run(comparison.folder / name)
    if run.finished:
        return
    # What the comparison has learned is a fit that was cut off at its end.
    learned = comparison.folder / "shared" / "split-0"
    if learned.is_dir() and not run.checkpoint.exists():
        shutil.copytree(learned, run.checkpoint)
    asked = {k: v for k, v in comparison.settings.items() if k not in ("shots", "order")}
    run.fit(comparison.table, {"method": name, "seed": 0, "kind": "auto"} | asked, progress)
