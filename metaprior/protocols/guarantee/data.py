"""The tables of `guarantee`."""

from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from metaprior.errors import InputError
from metaprior.tables.read import rows_of


class Subject(NamedTuple):
    """One table.

    Args:
        file, task, target: where it is, the column of the groups, and what is predicted.
        split_by: groups that share a value of this column are alike.
        classes: whether the target has classes.
    """

    file: str
    task: str
    target: str
    split_by: str | None = None
    classes: bool = False


WEATHER = "weather"
PACKAGED = "weather_airport_days.parquet"
SUBJECTS = {
    WEATHER: Subject("weather_airport_days.csv", "group", "temp", "day_of_year"),
    "remifentanil": Subject("remifentanil_pk.csv", "subject", "conc"),
    "milk": Subject("milk_protein.csv", "cow", "protein"),
    "school_math": Subject("school_math.csv", "school", "math_score"),
    "radon": Subject("radon_counties.csv", "county", "log_radon"),
    "contraception": Subject(
        "contraception_districts.csv", "district", "uses_contraception", classes=True
    ),
}


def load(path: Path | None, options: dict[str, Any] | None = None) -> dict[str, Path]:
    """What a folder has of the tables; the one that ships with the package where it has none.

    Raises:
        InputError: the path is no folder, or a table lacks a column.
    """
    if path is not None and not path.is_dir():
        files = ", ".join(subject.file for subject in SUBJECTS.values())
        raise InputError(f"{path}: guarantee reads a folder with any of {files}.")
    wanted = SUBJECTS if options is None else options["tables"]
    unknown = [name for name in wanted if name not in SUBJECTS]
    if unknown:
        raise InputError(f"guarantee has no table {unknown[0]!r}; it has {', '.join(SUBJECTS)}.")
    found = {}
    for name in wanted:
        subject = SUBJECTS[name]
        if path is None or not (path / subject.file).exists():
            continue
        more = [subject.split_by] if subject.split_by else []
        rows_of(path / subject.file, "table").need([subject.task, subject.target, *more])
        found[name] = path / subject.file
    if not found and WEATHER in wanted:
        with resources.as_file(resources.files("metaprior.data") / PACKAGED) as packaged:
            found[WEATHER] = Path(packaged)
    return found


def reads(path: Path) -> list[Path]:
    """What `load` reads."""
    files = (path / subject.file for subject in SUBJECTS.values())
    return [file for file in files if file.exists()]
