"""`metaprior predict` and `metaprior suggest`: use a prior on a new group."""

import csv
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from metaprior.errors import InputError
from metaprior.system.terminal import at_least, use_cache

By = Literal["entropy", "bald", "variance", "random"]


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
