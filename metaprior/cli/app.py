"""The command line: one command per verb; jax and polars load only inside the commands that need
them.
"""

import csv
import gc
import json
import os
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter

from metaprior import __version__
from metaprior.cli.protocols import among_processes, compare, reproduce, rerun
from metaprior.errors import InputError
from metaprior.system.faults import STOPPED, Stopped, alone, stoppable
from metaprior.system.terminal import (
    SHOTS,
    Progress,
    at_least,
    device_count,
    use_cache,
    whole_numbers,
)

CONTINUED = {
    "fit": "; continue with the same command and --resume",
    "reproduce": "; the same command continues",
    "compare": "; the same command continues",
}
By = Literal["entropy", "bald", "variance", "random"]

app = App(
    name="metaprior",
    help="Learn a prior from a table of many small groups; predict a new group from a few rows.",
    version=__version__,
    suppress_keyboard_interrupt=False,  # `main` says how to continue
)
app.command(reproduce)
app.command(compare)
app.command(rerun)


def write_frame(frame: Any, out: Path | None) -> None:
    """A frame as CSV, to a file or to standard output."""
    text = frame.write_csv()
    if out is None:
        sys.stdout.write(text)
        return
    from metaprior.system.folder import check_output, write_atomic

    check_output(out, header=text.splitlines()[0])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, lambda part: part.write_text(text, "utf-8"))


def support_rows(path: Path | None, text: list[str]) -> Any:
    """The new group's rows; no file, or a file with a header only, is no rows."""
    if path is None:
        return None
    import polars as pl

    from metaprior.tables.read import read

    if path.is_file() and path.suffix.lower() not in (".parquet", ".pq"):
        with path.open("rb") as file:
            lines = [line for line, _ in zip((raw for raw in file if raw.strip()), range(2))]
        if len(lines) == 1:
            with suppress(UnicodeDecodeError):  # which reading says
                return pl.DataFrame(
                    schema=[
                        name.strip() for name in next(csv.reader([lines[0].decode("utf-8-sig")]))
                    ]
                )
    return read(path, text=text)


def doubt(prior: Any, known: Any, path: Path | None) -> None:
    """Say where a new group's outcomes are far from all that were learned from; predictions follow
    them all the same.
    """
    from metaprior.tables.groups import far_outside

    for part in prior.parts or (prior,):
        target, units = part.info["target"], part.trained.units
        row = (
            None
            if known is None or known.height == 0 or units is None
            else far_outside(known[target], units)
        )
        if row is not None:
            print(
                f"note: {path}: column {target!r}, row {row + 1}: {known[target][row]} is far from everything that was "
                "learned from; are the units the same?",
                file=sys.stderr,
            )


@app.command
def demo(*, out: Path = Path("metaprior-demo")) -> None:
    """Run the main job on airport-day temperatures: fit, evaluate, predict, suggest, and write
    report.html.

    Parameters
    ----------
    out
        Folder for report.html and the prior; must be new or empty, or of an earlier demo.
    """
    use_cache()
    from metaprior.cli.demo import run_demo

    with alone(out), Progress() as progress:
        said = run_demo(out, progress)
    print(said)


@app.command
def fit(
    table: Path,
    *,
    task: str,
    target: str,
    out: Path,
    features: str | None = None,
    method: str = "auto",
    log_target: Annotated[bool, Parameter(negative="")] = False,
    split_by: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    resume: Annotated[bool, Parameter(negative="")] = False,
    skip_bad_tasks: Annotated[bool, Parameter(negative="")] = False,
    devices: str = "1",
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Learn a prior from a table of many small groups; keep a fifth of the groups for `evaluate`.

    Parameters
    ----------
    table
        CSV or Parquet file, one row an observation.
    task
        Column that names the group of a row.
    target
        Column to predict, numbers or two or more classes; or several with commas between, in which
        case each is predicted from the features and the targets before it.
    out
        Folder to make.
    features
        Columns to predict from, with commas between; all others by default.
    method
        A name of `metaprior methods`.
    log_target
        Model the logarithm of the target, which must be positive.
    split_by
        Column whose equal values stay on one side of the split, such as a date.
    steps
        Training steps of each learner; chosen by the method by default.
    seed
        Decides the split and all random numbers.
    resume
        Continue an unfinished run in OUT.
    skip_bad_tasks
        Leave groups out that nothing can be learned from, and say which; otherwise they end the
        fit.
    devices
        Train on this many devices, or on all, which on a CPU are its cores; the prior differs by
        rounding only.
    coordinator
        HOST:PORT of the first of several processes that run this command together, with --devices
        all and one --out that all can read. Under Slurm it is found by itself.
    processes
        How many processes there are.
    process_id
        Which one this is: 0, 1, …; the first writes the files.
    """
    from metaprior.cli.run import HOLDOUT, Run

    at_least(steps, 1, "--steps")
    at_least(seed, 0, "--seed")
    names = (
        None if features is None else [name.strip() for name in features.split(",") if name.strip()]
    )
    if names is not None and not names:
        raise InputError(
            "--features is empty; give column names with commas between, or leave it out."
        )
    options = {
        "task": task,
        "target": target,
        "features": names,
        "method": method,
        "log_target": log_target,
        "split_by": split_by,
        "steps": steps,
        "seed": seed,
        "kind": "auto",
        "holdout": HOLDOUT,
        "skip_bad_tasks": skip_bad_tasks,
    }
    count = device_count(devices)
    run = Run(out)

    def check() -> None:
        held.enter_context(alone(out))
        run.check_new(resume)
        if not table.is_file():
            wrong = "is a folder; give a CSV or Parquet file" if table.is_dir() else "no such file"
            raise InputError(f"{table}: {wrong}.")
        if run.record.exists():
            run.check_same(options, table)

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
            prior = run.fit(table, options, progress if speaks else None, count)
    if not speaks:
        return
    groups = prior.info["groups"]
    for note in prior.info["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(
        f"{out}: prior from {groups['train']} groups, {groups['test']} kept for evaluation; "
        f"{time.monotonic() - began:.0f} s."
    )


@app.command
def predict(
    folder: Path, /, *, query: Path, support: Path | None = None, out: Path | None = None
) -> None:
    """Predict rows of a new group from the few rows it has; CSV with one line a query row.

    Parameters
    ----------
    folder
        What `fit` made.
    query
        CSV or Parquet file of the rows to predict.
    support
        The new group's rows so far, target included; none is allowed.
    out
        CSV file to write; standard output by default.
    """
    use_cache()
    from metaprior.cli.run import Run, naming
    from metaprior.system.folder import check_output
    from metaprior.tables.read import read

    if out is not None and not out.is_file():
        check_output(out)
    prior = Run(folder).load()
    text = prior.text()
    known, asked = support_rows(support, text), read(query, text=text)
    with naming(support):
        posterior = prior.adapt(known)
        doubt(prior, known, support)
    with naming(query):
        frame = posterior.predict(asked)
    write_frame(frame, out)


@app.command
def suggest(
    folder: Path,
    /,
    *,
    pool: Path,
    support: Path | None = None,
    n: int = 1,
    by: By = "entropy",
    out: Path | None = None,
) -> None:
    """Which rows of a pool to measure next, and how much each is expected to tell; CSV, best first.

    Parameters
    ----------
    folder
        What `fit` made.
    pool
        CSV or Parquet file of the rows that could be measured.
    support
        The new group's rows so far, target included; none is allowed.
    n
        How many rows.
    by
        What is maximised.
    out
        CSV file to write; standard output by default.
    """
    at_least(n, 1, "--n")
    use_cache()
    from metaprior.cli.run import Run, naming
    from metaprior.system.folder import check_output
    from metaprior.tables.read import read

    if out is not None and not out.is_file():
        check_output(out)
    prior = Run(folder).load()
    text = prior.text()
    known, candidates = support_rows(support, text), read(pool, text=text)
    if n > candidates.height:
        raise InputError(f"{pool}: holds {candidates.height} rows; --n {n} asks for more.")
    with naming(support):
        posterior = prior.adapt(known)
        doubt(prior, known, support)
    with naming(pool):
        frame = posterior.suggest(candidates, n=n, by=by)
    write_frame(frame, out)
    if "gain_nats" in frame.columns and frame["gain_nats"][0] is not None:
        row, gain = frame["row"][0], frame["gain_nats"][0]
        print(
            f"Measure row {row} of {pool} next: it is expected to tell {gain:.3f} nats.",
            file=sys.stderr,
        )


@app.command
def evaluate(
    folder: Path,
    table: Path | None = None,
    /,
    *,
    shots: str = SHOTS,
    splits: int = 1,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Compare the prior with the baselines on held-out groups, paired over groups.

    Parameters
    ----------
    folder
        What `fit` made.
    table
        Other groups to judge on; by default those that `fit` kept.
    shots
        Numbers of observed rows, with commas between.
    splits
        Average over this many splits of the groups; all but the first are fitted anew.
    as_json
        Print one JSON object and nothing else.
    """
    counts = whole_numbers(shots, "--shots")
    at_least(splits, 1, "--splits")
    use_cache()
    from metaprior.cli.run import Run, naming

    run = Run(folder)
    prior = run.load()
    if splits > 1:
        run.recorded()
    done = []
    with Progress() as progress, naming(table):
        for split in range(splits):
            low, high = split / splits, (split + 1) / splits
            if split:
                import jax

                jax.clear_caches()  # programs of many fits in one process exhaust its memory maps
                middle = low + 0.8 * (high - low)
                prior = run.refit(prior.info["seed"] + 1, progress.part(low, middle))
                low = middle
            done.append(
                prior.evaluate(table, shots=counts, seed=split, progress=progress.part(low, high))
            )
    result = done[0] if splits == 1 else type(done[0]).merge(done)
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False))
        return
    from metaprior.report.tables import print_evaluation

    print_evaluation(result.to_json())


@app.command
def methods(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """The methods that `fit --method` takes.

    Parameters
    ----------
    as_json
        Print one JSON object and nothing else.
    """
    from metaprior.methods import METHODS

    rows = METHODS.values() if isinstance(METHODS, dict) else METHODS
    names = ("name", "paper", "group", "use", "kinds")
    listed = [{name: getattr(row, name) for name in names} for row in rows]
    if as_json:
        print(json.dumps({"methods": listed}, default=list))
        return
    from metaprior.report.tables import print_methods

    print_methods(listed)


def usage(error: CycloptsError) -> str:
    """What was wrong with the arguments. Cyclopts says of an option left out that it "requires an
    argument".
    """
    said = str(error)
    absent = (
        isinstance(error, MissingArgumentError)
        and error.keyword is None
        and error.argument is not None
    )
    if not absent or "Did you mean" in said:
        return said
    unknown = [token for token in error.unused_tokens or [] if token.startswith("--")]
    other = f" and does not know {unknown[0]}" if unknown else ""
    command = " ".join(error.command_chain or ())
    return f"{command} needs {error.argument.name}{other}. `metaprior {command} --help` lists what it takes."


def complain(message: str) -> int:
    print(f"metaprior: {' '.join(message.split())}", file=sys.stderr)
    return 2


def main(arguments: list[str] | None = None) -> None:
    """The entry point: a clear line on stderr and status 2 for anything the user can put right."""
    gc.set_threshold(
        100_000
    )  # importing and tracing make very many objects, nearly all of which stay
    status = 0
    command = next(iter(sys.argv[1:] if arguments is None else arguments), "")
    stopped = f"metaprior: stopped{CONTINUED.get(command, '')}.\n"
    try:
        with stoppable(stopped, patient=command == "fit"):
            app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        status = complain(usage(error))
    except InputError as error:
        status = complain(str(error))
    except Stopped:
        print(stopped, end="", file=sys.stderr)
        status = STOPPED
    except KeyboardInterrupt:
        print(stopped, end="", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        from metaprior.system.folder import plain_os_error

        status = complain(plain_os_error(error))
    sys.exit(status)


if __name__ == "__main__":
    main()
