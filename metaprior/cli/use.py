"""`metaprior predict` and `metaprior suggest`: use a prior on a new group."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from metaprior.errors import InputError
from metaprior.system.terminal import Progress, at_least, names_in, say_note, use_cache

Goal = Literal["learn", "maximise", "minimise"]
By = Literal[
    "entropy",
    "bald",
    "variance",
    "random",
    "learned",
    "improvement",
    "thompson",
    "ucb",
    "mes",
]
SEVERAL = "Give the whole table in place of --support and the rows to predict."


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


def observed(prior: Any, support: Path | None, asked: Any) -> Any:
    """The new group's rows; no file, or a file with a header only, is no rows.

    Args:
        prior: that will see them.
        support: the file.
        asked: the rows that will be predicted from them.
    """
    from metaprior.tables.split import need_one

    if support is None:
        return None
    known = prior.rows(support, "support", may_be_empty=True)
    for rows in (known, asked) if known.frame.height else ():
        need_one(rows, prior.info["task"], SEVERAL)
    return known


def say_notes(posterior: Any, asked: Any) -> None:
    """Print what was made of a group's rows, or may be wrong with them; all are used."""
    for note in dict.fromkeys((*posterior.notes, *asked.notes)):
        say_note(note)


def need_one_way(table: Path | None, other: Path | None, support: Path | None, flag: str) -> None:
    """Either a table of groups, or one group in two files."""
    if table is None and other is None:
        raise InputError(
            f"give a table of new groups, or {flag} with the rows of one group (and --support)."
        )
    if table is not None and (other is not None or support is not None):
        raise InputError(
            f"{table}: a table holds what was observed too; leave {flag} and --support out."
        )


def asked_levels(levels: str | None, interval: float | None) -> dict[str, Any]:
    """Arguments of `Posterior.predict` from `--levels` and `--interval`."""
    from metaprior.tables.asked import interval_levels, named_levels

    if levels is not None and interval is not None:
        raise InputError("--levels and --interval say the same in two ways; give one of them.")
    if interval is not None:
        low, high = interval_levels(interval)
        return {"levels": (low, 0.5, high)}
    if levels is None:
        return {}
    try:
        found = [float(part) for part in levels.split(",")]
    except ValueError:
        raise InputError(
            f"--levels takes numbers with commas between, such as 0.1,0.5,0.9; got {levels!r}."
        ) from None
    return {"levels": list(named_levels(found).values())}


def predict(
    folder: Path,
    table: Path | None = None,
    /,
    *,
    keep: str | None = None,
    query: Path | None = None,
    support: Path | None = None,
    levels: str | None = None,
    interval: float | None = None,
    guaranteed: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
) -> None:
    """Predict new groups from the few rows that each has; CSV, one line for each row.

    In TABLE, rows with the target are what was observed of their group, and rows without it are
    predicted. Or give one group in two files, --support and --query, as the lecture calls them.

    Parameters
    ----------
    folder
        What `fit` made.
    table
        Table of new groups, with the column that names them; - is standard input. The target is
        empty where it is to be predicted.
    keep
        Columns of TABLE to repeat in the answer, with commas between; the group is always there.
    query
        Table of the rows to predict, of one group.
    support
        That group's rows so far, target included; none is allowed.
    levels
        Quantiles of numbers to give, inside (0, 1) with commas between: 0.05,0.5,0.95 by default.
    interval
        A share such as 0.95: gives the quantiles between which so much lies, and the median.
    guaranteed
        Add low and high, between which the share of --interval (0.9 without it) of the rows of new
        groups lies, however good the prior is. They are read off the groups that fit kept.
    out
        CSV file to write; standard output by default.
    """
    need_one_way(table, query, support, "--query")
    use_cache()
    from metaprior.cli.run import Run
    from metaprior.system.folder import check_output

    asked = asked_levels(levels, interval)
    # A file that is there is checked when its first line is known; the rest before any work.
    if out is not None and not out.is_file():
        check_output(out)
    prior = Run(folder).load()
    share = (0.9 if interval is None else interval) if guaranteed else None
    if table is not None:
        with Progress() as progress:
            said = prior.predict(
                table,
                keep=names_in(keep or ""),
                guaranteed=share,
                progress=progress,
                say=say_note,
                **asked,
            )
        write_frame(said, out)
        return
    rows = prior.rows(query, "query")
    posterior = prior.adapt(observed(prior, support, rows))
    said = posterior.predict(rows, **asked)
    if share is not None:
        wider = posterior.interval(rows, share, guaranteed=True)
        said = said.with_columns(wider.get_columns())
    say_notes(posterior, rows)
    write_frame(said, out)


def keep_rule(run: Any, prior: Any) -> None:
    """Write a prior again whose rule of `--by learned` is new, so that it is learned once."""
    from metaprior.tables.learned import known_rule

    trained = prior.trained  # of several targets there is none
    rule = None if trained is None else known_rule(trained)
    if trained is None or rule is None or rule is trained.rule:
        return
    try:
        run.keep(prior)
    except OSError as error:
        say_note(f"{run.folder}: what was learned cannot be kept there ({error.strerror}).")


def suggest(
    folder: Path,
    table: Path | None = None,
    /,
    *,
    n: int = 1,
    goal: Goal = "learn",
    by: By | None = None,
    target: str | None = None,
    over_all: Annotated[bool, Parameter(negative="")] = False,
    keep: str | None = None,
    pool: Path | None = None,
    support: Path | None = None,
    out: Path | None = None,
) -> None:
    """Which rows to measure next, and what each is expected to tell; CSV, best first.

    In TABLE, rows with the target are what was observed of their group, and the others could be
    measured. Or give one group in two files, --support and --pool.

    Parameters
    ----------
    folder
        What `fit` made.
    table
        Table of new groups, with the column that names them; - is standard input. The target is
        empty where it could be measured.
    n
        How many rows: of each group, or over all.
    goal
        learn: what the rows of a group depend on. maximise or minimise: find the row with the
        largest or smallest target.
    by
        How rows are scored. To learn: entropy (default), bald, variance, random, or learned from
        the groups that fit kept aside, once, when it is first asked for. To maximise or minimise:
        improvement (expected, the default), thompson, ucb, mes or random.
    target
        Of several targets, the one to maximise or minimise.
    over_all
        Choose the best rows of all groups in TABLE, not of each.
    keep
        Columns of TABLE to repeat in the answer, with commas between; all by default.
    pool
        Table of the rows that could be measured, of one group.
    support
        That group's rows so far, target included; none is allowed.
    out
        CSV file to write; standard output by default.
    """
    need_one_way(table, pool, support, "--pool")
    at_least(n, 1, "--n")
    use_cache()
    from metaprior.cli.run import Run
    from metaprior.system.folder import check_output
    from metaprior.tables.asked import rule_of

    rule = rule_of(goal, by)
    if out is not None and not out.is_file():
        check_output(out)
    run = Run(folder)
    prior = run.load()
    asked: dict[str, Any] = {"by": by, "goal": goal, "target": target}
    if table is not None:
        kept = None if keep is None else names_in(keep)
        with Progress() as progress:
            frame = prior.suggest(
                table, n, over_all=over_all, keep=kept, progress=progress, say=say_note, **asked
            )
        keep_rule(run, prior)
        write_frame(frame, out)
        return

    candidates = prior.rows(pool, "pool")
    known = observed(prior, support, candidates)
    there = candidates.frame.height
    if n > there:
        raise InputError(f"{candidates.where}: holds {there} rows; --n {n} asks for more.")
    posterior = prior.adapt(known)
    frame = posterior.suggest(candidates, n=n, **asked)
    keep_rule(run, prior)
    say_notes(posterior, candidates)
    write_frame(frame, out)

    # In words too, on standard error: standard output is the CSV.
    row, score, gain = (frame[name][0] for name in ("row", "score", "gain_nats"))
    said = f"it is expected to tell {gain:.3f} nats" if gain is not None else ""
    if rule == "improvement":
        what = target or prior.info["target"]
        said = f"it is expected to improve {what} by {score:.4g} on the best so far"
    if said:
        print(f"Measure row {row} of {candidates.where} next: {said}.", file=sys.stderr)


def explain(
    folder: Path,
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Say what a prior has learned: where outcomes differ, what rows and features are worth.

    Parameters
    ----------
    folder
        What `fit` made.
    as_json
        Print one JSON object and nothing else: every figure.
    """
    use_cache()
    from metaprior.cli.run import Run

    prior = Run(folder).load()
    with Progress() as progress:
        found = prior.explain(progress=progress)
    each = found if isinstance(found, dict) else {found.target: found}
    if as_json:
        print(json.dumps({name: one.to_json() for name, one in each.items()}, allow_nan=False))
        return
    print("\n\n".join(str(one) for one in each.values()))
