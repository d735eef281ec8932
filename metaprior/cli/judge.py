"""`metaprior evaluate` and `metaprior methods`: judge a prior, and list the methods."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from metaprior.errors import InputError
from metaprior.system.terminal import (
    SHOTS,
    Progress,
    at_least,
    say_note,
    use_cache,
    whole_numbers,
)


def evaluate(
    folder: Path,
    table: Path | None = None,
    /,
    *,
    shots: str = SHOTS,
    splits: int | None = None,
    order: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Compare the prior with the baselines on groups that it has not seen.

    Parameters
    ----------
    folder
        What `fit` made.
    table
        Other groups to judge on; by default the groups that `fit` kept.
    shots
        Numbers of observed rows, with commas between.
    splits
        Judge on this many splits of the groups, each after the first fitted anew; five of them
        judge every group once. By default one, and more where it would judge fewer than 10 groups.
        After `fit --holdout by=COLUMN` there is one.
    order
        Column of numbers or dates, such as a time: the first rows of a group in its order are
        observed, and later ones predicted. Without it rows are observed at random.
    as_json
        Print one JSON object and nothing else.
    """
    counts = whole_numbers(shots, "--shots")
    at_least(splits, 1, "--splits")
    use_cache()
    from metaprior.cli.run import Run, one_split

    run = Run(folder)
    prior = run.load()
    by = prior.info.get("holdout_by")
    if by and splits is not None and splits > 1:
        raise InputError(one_split(by))
    splits = splits or _enough(run, prior, table)
    if splits > 1:
        run.recorded()

    done = []
    with Progress() as progress:
        for split in range(splits):
            low, high = split / splits, (split + 1) / splits
            if split:
                import jax

                jax.clear_caches()  # programs of many fits in one process exhaust its memory maps
                middle = low + 0.8 * (high - low)
                prior = run.refit(split, progress.part(low, middle))
                low = middle
            share = progress.part(low, high)
            found = prior.evaluate(table, shots=counts, seed=split, order=order, progress=share)
            done.append(found)

    result = done[0] if splits == 1 else type(done[0]).merge(done)
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False))
        return
    from metaprior.report.tables import print_evaluation

    print_evaluation(result.to_json())


def _enough(run: Any, prior: Any, table: Path | None) -> int:
    """How many splits judge enough groups to say something."""
    from metaprior.cli.run import splits_of
    from metaprior.evaluation.verdicts import FEW, enough_splits

    number = prior.info["groups"]["test"]
    if table is not None or prior.info.get("holdout_by") or not 0 < number < FEW:
        return 1
    kept = "One group was" if number == 1 else f"{number} groups were"
    try:
        _, options = run.recorded()
    except InputError as error:
        say_note(f"{kept} kept aside, too few to judge by. {error}")
        return 1
    splits = enough_splits(number, splits_of(options))
    if splits == 1:
        return 1
    say_note(
        f"{kept} kept aside, too few to judge by: {splits} splits of the groups are judged, "
        "each fitted anew. --splits 1 judges the first alone."
    )
    return splits


def methods(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """The methods that `fit --method` takes, and the baselines, which it takes too.

    Parameters
    ----------
    as_json
        Print one JSON object and nothing else.
    """
    from metaprior.methods import METHODS
    from metaprior.tables.baselines import BASELINES

    names = ("name", "paper", "group", "use", "kinds")
    listed = [
        {name: getattr(row, name) for name in names}
        for row in (*METHODS.values(), *BASELINES.values())
    ]
    if as_json:
        print(json.dumps({"methods": listed}, default=list))
        return
    from metaprior.report.tables import print_methods

    print_methods(listed)
