"""`metaprior check`: what a table is taken for, before anything is learned from it."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from metaprior.cli.learn import Columns, Scale, feature_names, listed
from metaprior.errors import InputError

REFUSED = 1  # the status where `fit` would refuse the table


def check(
    table: Path,
    *,
    task: str | None = None,
    target: str | None = None,
    features: str | None = None,
    method: str = "auto",
    target_scale: Scale = "auto",
    split_by: str | None = None,
    holdout: str | None = None,
    skip_bad_tasks: Annotated[bool, Parameter(negative="")] = False,
    columns: Columns = Columns(),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Say what every column of a table was read as, what is odd, and what `fit` would do.

    Nothing is learned or written. The status is 0, or 1 with one line where `fit` would refuse.

    Parameters
    ----------
    table
        The table, as for `fit`.
    task
        Column that names the group of a row. Without it, candidates are named.
    target
        Column to predict, or several with commas between. Without it, candidates are named.
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
        Share of the groups that `fit` would keep aside, or by=COLUMN; see `fit`.
    skip_bad_tasks
        Leave out groups that nothing can be learned from, and say which.
    as_json
        Print one JSON object and nothing else.
    """
    from metaprior.cli.run import asked_for

    options: dict[str, Any] = {
        **columns.options(),
        "task": task,
        "target": target,
        "features": feature_names(features),
        "target_scale": target_scale,
        "split_by": split_by,
    }
    try:
        options |= asked_for(holdout)
        found = surveyed(table, options, method, skip_bad_tasks)
    except InputError as error:
        print(f"metaprior: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(REFUSED)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        print("\n".join(page(found)))


def surveyed(table: Path, options: dict[str, Any], method: str, skip: bool) -> Any:
    """The survey of a table, with the roles of columns where both are given."""
    from metaprior.tables.checked import check_all
    from metaprior.tables.meaning.survey import first_look, survey
    from metaprior.tables.plan import Plan
    from metaprior.tables.read import rows_of

    rows = rows_of(table, "table")
    target = options["target"]
    # A column's own name may contain a comma.
    one = target is None or target in rows.frame.columns
    targets = [target or ""] if one else listed(target, "--target")
    plan = Plan.of(options, targets, options["holdout"])
    if options["task"] is None or target is None:
        rows.need([name for name in (options["task"], *targets) if name])
        return first_look(rows, plan)
    checked = check_all(rows, plan, {} if skip else None)
    if method != "auto":  # the list of methods loads JAX
        from metaprior.tables.learn import check_kind

        for one in checked:
            check_kind(method, one)
    return survey(checked, plan, method)


def page(found: Any) -> list[str]:
    """A survey as lines: a table of the columns, what `fit` would do, and notes."""
    head = ("column", "is", "read as", "values", "missing")
    body = [
        (c.name, c.role, c.kind, c.values, f"{c.missing:,}" if c.missing else "")
        for c in found.columns
    ]
    if not any(c.role for c in found.columns):
        head, body = (*head[:1], *head[2:]), [(*row[:1], *row[2:]) for row in body]
    cells = [head, *body]
    wide = [min(max(len(row[i]) for row in cells), 40) for i in range(len(head))]
    table = ["  ".join(_fitted(cell, w) for cell, w in zip(row, wide)).rstrip() for row in cells]
    notes = [f"note: {note}" for note in found.notes]
    lines = [f"{found.where}: {found.rows:,} rows, {len(found.columns)} columns.", "", *table, ""]
    return [*lines, *found.todo, *([""] if notes else []), *notes]


def _fitted(cell: str, width: int) -> str:
    """A cell of the table, cut where it is too wide."""
    return cell.ljust(width) if len(cell) <= width else f"{cell[: width - 1]}…"
