"""`metaprior demo`: the main job on a table that ships with the package.

The table holds temperatures of days at the airports of New York City in 2013.
"""

import time
from importlib import resources
from pathlib import Path
from typing import Any

from metaprior.errors import InputError
from metaprior.system.faults import alone
from metaprior.system.folder import PART, check_writable, write_atomic
from metaprior.system.terminal import Progress, use_cache

TABLE = "weather_airport_days.parquet"
NEW_DAYS = {
    "Kennedy, 30 May": "JFK_05-30",
    "LaGuardia, 20 October": "LGA_10-20",
    "Newark, 16 January": "EWR_01-16",
}
READINGS = 3  # of the new day
FILES = ("prior", "report.html", "curves.svg")
SHARES = (0.70, 0.90)  # of the time: fitting ends, evaluating ends


def airport_days() -> Any:
    """The packaged table as a polars frame.

    Columns: group, origin, day_of_year, hour, wind_speed, pressure, temp.
    """
    import polars as pl

    with resources.as_file(resources.files("metaprior.data") / TABLE) as path:
        return pl.read_parquet(path)


def check_out(out: Path) -> None:
    """A new or empty folder, or the folder of an earlier demo."""
    check_writable(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: --out is a file; give a folder.")
    there = [e for e in out.iterdir() if not e.name.endswith(PART)] if out.exists() else []
    other = sorted(entry.name for entry in there if not _ours(entry))
    if other:
        raise InputError(f"{out}: --out holds something else ({other[0]}); choose another folder.")


def _ours(path: Path) -> bool:
    """Whether an earlier demo wrote this file; a report by its text, as its name is a usual one."""
    if path.name not in FILES or not path.is_file():
        return False
    return path.suffix != ".html" or b"metaprior" in path.read_bytes()


def run_demo(out: Path, progress: Any) -> str:
    """Fit, evaluate, predict a new day from three readings, suggest the fourth; write the report.

    Args:
        out: folder to write to.
        progress: a `Progress` of `metaprior.system.terminal`.

    Returns:
        What to tell the user.
    """
    check_out(out)
    began = time.monotonic()
    progress(0.0, "loading")
    import polars as pl

    import metaprior

    table = airport_days()
    # The new days' dates are left out at all airports: they share their weather.
    dates = table.filter(pl.col("group").is_in(list(NEW_DAYS.values())))["day_of_year"].unique()
    days = {name: table.filter(pl.col("group") == group) for name, group in NEW_DAYS.items()}
    table = table.filter(~pl.col("day_of_year").is_in(dates.to_list()))

    prior = metaprior.Prior(method="auto", seed=0, holdout=0.1, split_by="day_of_year")
    prior.fit(table, task="group", target="temp", progress=progress.part(0.0, SHARES[0]))
    evaluation = prior.evaluate(shots=(0, 1, 2, 5, 10), progress=progress.part(*SHARES))

    progress.part(SHARES[1], 1.0)(0.1, "one new day")
    name, day = next(iter(days.items()))
    example = f"{name}: {_one_day(prior, day)}"

    progress(0.3, "report")
    out.mkdir(parents=True, exist_ok=True)
    from metaprior.report import figures, panels, write_report

    write_report(
        out / "report.html",
        prior=prior,
        evaluation=evaluation,
        groups=days,
        x="hour",
        units="°C",
        title="Airport days: temperature from a few readings",
        example=example,
    )
    progress(0.8, "report")
    rows = [
        panels(prior, rows, "hour", name=name, seed=i)
        for i, (name, rows) in enumerate(list(days.items())[:2])
    ]
    picture = figures.picture(rows, "hour", "temp (°C)")
    write_atomic(
        out / "curves.svg",
        lambda part: picture.savefig(part, format="svg", metadata={"Date": None}),
    )
    write_atomic(out / "prior", prior.save)
    seconds = time.monotonic() - began
    report = f"{out / 'report.html'}: the report; {seconds:.0f} s in all."
    return f"{example}\n{evaluation.sentence()}\n{evaluation.level_sentence()}\n{report}"


def _one_day(prior: Any, day: Any) -> str:
    """What three readings of a day say of its other hours, and which reading to take next."""
    import polars as pl

    from metaprior.report import order_of

    # The readings that the page's picture of this day observes.
    known = day[order_of(day, seed=0)[:READINGS]].sort("hour")
    rest = day.filter(~pl.col("hour").is_in(known["hour"].to_list()))
    posterior = prior.adapt(known)
    said = posterior.predict(rest.drop("temp"))
    best = posterior.suggest(rest.drop("temp"), n=1, by="entropy")

    hours = [str(hour) for hour in known["hour"]]
    inside = ((rest["temp"] >= said["q05"]) & (rest["temp"] <= said["q95"])).mean()
    error = float(((rest["temp"] - said["mean"]) ** 2).mean() ** 0.5)
    return (
        f"from the readings at {', '.join(hours[:-1])} and {hours[-1]} h the other {rest.height} "
        f"hours are predicted with an error of {error:.1f} °C; {inside:.0%} of them lie in their "
        f"90 % bands. The reading to take next is the one at {best['hour'][0]} h, expected to tell "
        f"{best['gain_nats'][0]:.2f} nats."
    )


def demo(*, out: Path = Path("metaprior-demo")) -> None:
    """Run the main job on airport-day temperatures: fit, evaluate, predict, suggest, report.

    Parameters
    ----------
    out
        Folder for report.html and the prior: new, empty, or made by an earlier demo.
    """
    use_cache()
    with alone(out), Progress() as progress:
        said = run_demo(out, progress)
    print(said)
