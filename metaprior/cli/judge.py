"""`metaprior evaluate` and `metaprior methods`: judge a prior, and list the methods."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from metaprior.system.terminal import SHOTS, Progress, at_least, use_cache, whole_numbers


def evaluate(
    folder: Path,
    table: Path | None = None,
    /,
    *,
    shots: str = SHOTS,
    splits: int = 1,
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
        Average over this many splits of the groups. Each after the first is fitted anew.
    as_json
        Print one JSON object and nothing else.
    """
    counts = whole_numbers(shots, "--shots")
    at_least(splits, 1, "--splits")
    use_cache()
    from metaprior.cli.run import Run

    run = Run(folder)
    prior = run.load()
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
                prior = run.refit(prior.info["seed"] + 1, progress.part(low, middle))
                low = middle
            share = progress.part(low, high)
            done.append(prior.evaluate(table, shots=counts, seed=split, progress=share))

    result = done[0] if splits == 1 else type(done[0]).merge(done)
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False))
        return
    from metaprior.report.tables import print_evaluation

    print_evaluation(result.to_json())


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
