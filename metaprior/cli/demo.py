"""The main job on a table that ships with the package: airport-day temperatures, New York City,
2013.
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
HOURS = (2, 10, 19)  # the three readings of the new day
FILES = ("prior", "report.html", "curves.svg")
SHARES = (0.70, 0.90)  # of the time: fitting ends, evaluating ends


def airport_days() -> Any:
    """The packaged table as a polars frame: columns group, origin, day_of_year, hour, wind_speed,
    pressure, temp.
    """
    import polars as pl

    with resources.as_file(resources.files("metaprior.data") / TABLE) as path:
        return pl.read_parquet(path)


def check_out(out: Path) -> None:
    """A new or empty folder, or that of an earlier demo."""
    check_writable(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: --out is a file; give a folder.")
    there = [e for e in out.iterdir() if not e.name.endswith(PART)] if out.exists() else []

    def ours(e):
        return (
            e.name in FILES
            and e.is_file()
            and (e.suffix != ".html" or b"metaprior" in e.read_bytes())
        )

    other = sorted(e.name for e in there if not ours(e))
    if other:
        raise InputError(f"{out}: --out holds something else ({other[0]}); choose another folder.")


def run_demo(out: Path, progress: Any) -> str:
    """Fit, evaluate, predict a new day from three readings, suggest the fourth, and write the
    report.

    Args:
        out: folder to write to.
        progress: `metaprior.cli.Progress`.

    Returns:
        What to tell the user.
    """
    check_out(out)
    began = time.monotonic()
    progress(0.0, "loading")
    import polars as pl

    import metaprior

    table = airport_days()
    dates = table.filter(pl.col("group").is_in(list(NEW_DAYS.values())))["day_of_year"].unique()
    days = {name: table.filter(pl.col("group") == group) for name, group in NEW_DAYS.items()}
    table = table.filter(~pl.col("day_of_year").is_in(dates.to_list()))

    prior = metaprior.Prior(method="auto", seed=0, holdout=0.1, split_by="day_of_year")
    prior.fit(table, task="group", target="temp", progress=progress.part(0.0, SHARES[0]))
    evaluation = prior.evaluate(shots=(0, 1, 2, 5, 10), progress=progress.part(*SHARES))

    progress.part(SHARES[1], 1.0)(0.1, "one new day")
    name, day = next(iter(days.items()))
    known = day.filter(pl.col("hour").is_in(HOURS))
    rest = day.filter(~pl.col("hour").is_in(HOURS))
    posterior = prior.adapt(known)
    said = posterior.predict(rest.drop("temp"))
    best = posterior.suggest(rest.drop("temp"), n=1, by="entropy")
    hour, gain = best["hour"][0], best["gain_nats"][0]
    inside = ((rest["temp"] >= said["q05"]) & (rest["temp"] <= said["q95"])).mean()
    error = float(((rest["temp"] - said["mean"]) ** 2).mean() ** 0.5)
    example = (
        f"{name}: from the readings at {HOURS[0]}, {HOURS[1]} and {HOURS[2]} h the other {rest.height} hours are "
        f"predicted with an error of {error:.1f} °C; {inside:.0%} of them lie in their 90 % bands. The reading to take "
        f"next is the one at {hour} h, expected to tell {gain:.2f} nats."
    )
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
    return f"{example}\n{evaluation.sentence()}\n{out / 'report.html'}: the report; {seconds:.0f} s in all."


def demo(*, out: Path = Path("metaprior-demo")) -> None:
    """Run the main job on airport-day temperatures: fit, evaluate, predict, suggest, and write
    report.html.

    Parameters
    ----------
    out
        Folder for report.html and the prior; must be new or empty, or of an earlier demo.
    """
    use_cache()
    with alone(out), Progress() as progress:
        said = run_demo(out, progress)
    print(said)
